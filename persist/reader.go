package persist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// ReaderConfig is what a Reader is told; zero values stand for what is in brackets.
type ReaderConfig struct {
	CacheBytes int64         // indexes and blocks kept in memory [16 MiB]
	Refresh    time.Duration // how old the list of segments may be, and how often it is asked for but in bursts [1 s]
	Fetches    int           // requests at once for what a segment's end says, for one page [4]
	Backlog    Backlog       // what is not in the store yet; nil: nothing
	Log        *slog.Logger  // [slog.Default]
}

// Reader brings back what a store has. It needs no more than the store, and lists nothing. Safe from any goroutine; its methods
// block, for as long as their context or 30 s a request.
type Reader struct {
	store     Store
	catalogue *catalogue
	cache     *cache
	faults    *faults
	blocks    *fetcher
	backlog   Backlog
	fetches   int
	streams   *streams
}

// NewReader makes a reader, which asks for nothing yet.
func NewReader(store Store, cfg ReaderConfig) *Reader {
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 16 << 20
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = time.Second
	}
	if cfg.Fetches == 0 {
		cfg.Fetches = 4
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	r := &Reader{store: store, cache: newCache(cfg.CacheBytes), faults: newFaults(cfg.Log), backlog: cfg.Backlog, fetches: cfg.Fetches}
	r.blocks, r.streams = newFetcher(store, r.cache, r.faults), newStreams()
	r.catalogue = newCatalogue(store, r.cache, r.faults, cfg.Refresh)
	return r
}

// Learn tells the reader of a head that this process has written, so that it does not have to ask. It comes before what the head
// lists leaves the backlog. The head is the reader's from then on.
func (r *Reader) Learn(h *Head) { r.catalogue.learn(h) }

// Faults is how many objects, or parts of some, could not be used so far.
func (r *Reader) Faults() uint64 { return r.faults.count.Load() }

// Page is what follows a position: messages of its epoch without a gap, or else why there are none.
type Page struct {
	First  uint64
	Count  uint32 // 0: there are none
	Frames []byte // the caller's
	Times  []Time
	// Hole is the offset of the next message that is stored of the epoch, if those before it are not; 0: none follows,
	// or there are messages.
	Hole uint64
	// NextEpoch is the epoch after this one, of which nothing more is stored; "": there is none, or there are messages.
	NextEpoch string
}

// segmentsPerPage bounds what a page of few messages costs if they are spread thinly.
const segmentsPerPage = 16

// Read is the page behind a position, of at most about bytesMax bytes of frames, but one message if there is any. What is said
// not to be there was not there when Read was called.
//
// Who reads page after page finds what comes next asked for already, if such readers are few enough for it to be in memory still.
func (r *Reader) Read(ctx context.Context, topic string, at Position, bytesMax int) (Page, error) {
	called, sure := time.Now(), time.Time{}
	for {
		waiting := r.waiting(topic)
		if plan := waiting.plan(at, bytesMax); len(plan) > 0 {
			if page, err := r.assemble(ctx, topic, at.Offset+1, plan, bytesMax); err == nil && page.Count > 0 {
				return page, nil
			}
		}
		v, err := r.look(ctx, topic, waiting, sure)
		if err != nil {
			return Page{}, fmt.Errorf("cannot read topic %q: %w", topic, err)
		}
		plan := v.plan(at, bytesMax)
		if len(plan) == 0 {
			page, since := v.absence(at)
			if v.begun.Before(called) && (since.IsZero() || v.begun.Sub(since) < settledAfter) {
				sure = called
				continue
			}
			return page, nil
		}
		page, err := r.assemble(ctx, topic, at.Offset+1, plan, bytesMax)
		if gone := (*goneError)(nil); errors.As(err, &gone) {
			if sure.IsZero() { // the catalogue may be from before it was replaced
				sure = time.Now()
			} else {
				r.faults.note(gone.name, err)
			}
			continue
		}
		if err != nil {
			return Page{}, fmt.Errorf("cannot read topic %q: %w", topic, err)
		}
		if page.Count > 0 {
			next := Position{at.Epoch, at.Offset + uint64(page.Count)}
			if goesOn, n := r.streams.advance(topic, at, next, called); goesOn {
				r.readAhead(v, next, min(r.cache.max/4/int64(n), readAheadMax))
			}
			return page, nil
		}
		// The first piece was broken, and is known to be so now; or it has left the backlog.
	}
}

// readAheadMax is how many bytes of frames behind a page are asked for before somebody wants them: with 30 ms for an answer of
// the store, they are what 500,000 messages a second of 130 bytes need.
const readAheadMax = 2 << 20

// readAhead asks for what is behind a position, so many bytes at most, once half of that is not on its way: a request is for several
// blocks. It does not wait.
func (r *Reader) readAhead(v *view, at Position, bytesMax int64) {
	if bytesMax < blockBytes {
		return
	}
	plan := v.plan(at, int(bytesMax))
	// A block of one message that is larger than all this would be thrown away again.
	if large := slices.IndexFunc(plan, func(p piece) bool { return int64(p.length) > bytesMax }); large >= 0 {
		plan = plan[:large]
	}
	if r.blocks.lacks(plan[:(len(plan)+1)/2]) {
		r.blocks.begin(plan)
	}
}

// plan is the pieces that a page behind a position is made of: each has the message that follows the one before it.
func (v *view) plan(at Position, bytesMax int) (plan []piece) {
	want, bytes, segments := at.Offset+1, 0, 0
	for i := range v.pieces {
		p := &v.pieces[i]
		if p.epoch != at.Epoch || p.last() < want {
			continue
		}
		if p.first > want {
			break
		}
		if p.in != nil && (len(plan) == 0 || plan[len(plan)-1].in != p.in) {
			segments++
		}
		if segments > segmentsPerPage {
			break
		}
		plan = append(plan, *p)
		had := want - p.first
		bytes += int(int64(p.length) * int64(uint64(p.count)-had) / int64(p.count))
		if want = p.last() + 1; bytes >= bytesMax {
			break
		}
	}
	return plan
}

// settledAfter is how long an epoch has to have had a successor before a recent catalogue is believed about its end: longer than
// clocks of nodes differ, and than a catalogue takes to be read. Who reads a topic of many crashes would else wait for a refresh, a
// second, at the end of each epoch.
const settledAfter = 10 * time.Second

// absence is the page of a position behind which nothing is stored without a gap, and, if another epoch follows, when that began.
func (v *view) absence(at Position) (page Page, since time.Time) {
	found := false
	for i := range v.pieces {
		p := &v.pieces[i]
		if p.epoch == at.Epoch {
			found = true
			if p.first > at.Offset {
				return Page{Hole: p.first}, since
			}
		} else if found {
			return Page{NextEpoch: p.epoch}, time.UnixMilli(p.began)
		}
	}
	return Page{}, since
}

// assemble reads the pieces of a plan and puts their messages from first on together. It ends early at one that is broken.
func (r *Reader) assemble(ctx context.Context, topic string, first uint64, plan []piece, bytesMax int) (Page, error) {
	page := Page{First: first}
	got, err := r.blocks.read(ctx, plan)
	if err != nil {
		return page, err
	}
	for i := range plan {
		p := &plan[i]
		var frames []byte
		if p.in == nil {
			var there bool
			if frames, there = r.backlog.AppendFrames(nil, topic, p.epoch, p.first, p.count); !there {
				return page, nil
			}
		} else {
			plain := got[blockKey(p.in.segment, p.block)]
			if plain == nil {
				return page, nil
			}
			frames = plain[p.offset : p.offset+p.length]
			if n, whole := countFrames(frames); !whole || n != p.count {
				r.faults.note(blockKey(p.in.segment, p.block), fmt.Errorf("topic %q from offset %d on: %d messages are not the %d frames there", topic, p.first, p.count, n))
				return page, nil
			}
		}
		if !page.take(p, frames, bytesMax) {
			break
		}
	}
	return page, nil
}

// take appends the messages of a piece that follow the page's last one; false: the page ends, as it is full, or there are none.
func (page *Page) take(p *piece, frames []byte, bytesMax int) bool {
	next := page.First + uint64(page.Count)
	if p.first > next || p.last() < next {
		return false
	}
	skip := uint32(next - p.first)
	frames = skipFrames(frames, uint64(skip))
	n, count := 0, uint32(0)
	for n < len(frames) {
		size := frameBytes(frames[n:])
		if len(page.Frames)+n+size > bytesMax && page.Count+count > 0 {
			break
		}
		n += size
		count++
	}
	for _, t := range timesFrom(p.times, skip) {
		if t.Index >= count {
			break
		}
		if k := len(page.Times); k == 0 || page.Times[k-1].UnixMs != t.UnixMs {
			page.Times = append(page.Times, Time{page.Count + t.Index, t.UnixMs})
		}
	}
	page.Frames = append(page.Frames, frames[:n]...)
	page.Count += count
	return n == len(frames) && len(page.Frames) < bytesMax
}
