package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Backlog is what was offered to a writer and is not in the store yet. Safe from any goroutine.
type Backlog interface {
	// Waiting is what there is of a topic, oldest first.
	Waiting(topic string) []Waiting
	// AppendFrames appends the frames of such a run, of which others may begin with the same message; false: it is in the store
	// by now, or was given up.
	AppendFrames(dst []byte, topic, epoch string, first uint64, count uint32) ([]byte, bool)
}

// Waiting is a run in a backlog, without its frames, and how many bytes of them there are.
type Waiting struct {
	Run
	Bytes int
}

// piece is messages of a topic, and where they are.
type piece struct {
	entry
	in *posting // nil: in the backlog
}

// posting is what a segment has of a topic.
type posting struct {
	segment string
	entries []entry
	blocks  []block // that they are in, from the first one's
}

func (p *piece) blockAt(i int) *block { return &p.in.blocks[i-p.in.entries[0].block] }

// cost is about how many bytes of memory it holds.
func (p *posting) cost() (n int64) {
	for i := range p.entries {
		n += 112 + 16*int64(cap(p.entries[i].times))
	}
	return n + 40*int64(len(p.blocks))
}

// blockKey names a block in the cache and among the faults.
func blockKey(segment string, block int) string { return segment + " block " + strconv.Itoa(block) }

func comparePieces(a, b piece) int {
	return cmp.Or(cmp.Compare(a.began, b.began), strings.Compare(a.epoch, b.epoch), cmp.Compare(a.first, b.first), cmp.Compare(b.count, a.count))
}

// view is what a reader knows of a topic: its pieces, in order of epochs and offsets. They may overlap.
type view struct {
	pieces []piece
	begun  time.Time // all that was in the store or the backlog by then is there, but what is broken
}

// waiting is a view of what the backlog has of a topic. Who finds all that he wants there needs no store, which may be away.
func (r *Reader) waiting(topic string) *view {
	v := &view{begun: time.Now()}
	if r.backlog == nil {
		return v
	}
	for _, w := range r.backlog.Waiting(topic) {
		e := entry{epoch: w.Epoch, began: w.Began, first: w.First, count: w.Count, length: w.Bytes, times: w.Times}
		v.pieces = append(v.pieces, piece{entry: e})
	}
	sortPieces(v.pieces, v.begun)
	return v
}

// look is a view of what was stored by a time; zero: what a recent catalogue has. waiting was asked for before: what leaves the
// backlog is in the store.
func (r *Reader) look(ctx context.Context, topic string, waiting *view, at time.Time) (*view, error) {
	v, err := r.lookOnce(ctx, topic, waiting, at)
	if gone := (*goneError)(nil); errors.As(err, &gone) {
		return r.lookOnce(ctx, topic, waiting, time.Now())
	}
	return v, err
}

// goneError is a segment that an edition has and the store has not: replaced since, or lost.
type goneError struct {
	name string
	err  error
}

func (g *goneError) Error() string { return g.err.Error() }
func (g *goneError) Unwrap() error { return g.err }

// lookOnce is look, but for segments that are gone: an error if the catalogue may be too old, else they are noted.
func (r *Reader) lookOnce(ctx context.Context, topic string, waiting *view, at time.Time) (*view, error) {
	var l *edition
	var err error
	if at.IsZero() {
		l, err = r.catalogue.recent(ctx)
	} else {
		l, err = r.catalogue.since(ctx, at)
	}
	if err != nil {
		return nil, err
	}
	stored, err := r.stored(ctx, l, topic, !at.IsZero())
	if err != nil {
		return nil, err
	}
	v := &view{begun: l.begun, pieces: stored}
	if len(waiting.pieces) > 0 {
		v.pieces = slices.Concat(waiting.pieces, stored) // of the same messages in both, those in memory come first
		sortPieces(v.pieces, l.begun)
	}
	return v, nil
}

// shelved is a topic's pieces in the segments of one edition, in order. It never changes: pages of a long read, of which there are
// thousands a second, need not collect them anew.
type shelved struct {
	of     *edition
	faults uint64 // that were known
	pieces []piece
}

const pieceCost = 144 // bytes of memory, about

// stored is a topic's pieces in the segments of an edition. sure says that a segment which is gone is lost.
func (r *Reader) stored(ctx context.Context, l *edition, topic string, sure bool) ([]piece, error) {
	key := "topic " + topic
	known := r.faults.count.Load()
	if kept, ok := r.cache.get(key); ok {
		if s := kept.(*shelved); s.of == l && s.faults == known {
			return s.pieces, nil
		}
	}
	pieces, err := r.collect(ctx, l, topic, sure)
	if err != nil {
		return nil, err
	}
	sortPieces(pieces, l.begun)
	r.cache.replace(key, &shelved{l, known, pieces}, pieceCost*int64(cap(pieces)))
	return pieces, nil
}

// collect asks all segments of an edition that may have a topic.
func (r *Reader) collect(ctx context.Context, l *edition, topic string, sure bool) (all []piece, err error) {
	segments := l.having(topicHash(topic))
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(r.fetches)
	for i := range segments {
		s := &segments[i]
		if r.faults.has(s.name) {
			continue
		}
		group.Go(func() error {
			pieces, err := r.piecesIn(groupCtx, s, topic)
			if gone := (*goneError)(nil); errors.As(err, &gone) && sure {
				r.faults.note(s.name, err)
				return nil
			}
			mu.Lock()
			all = append(all, pieces...)
			mu.Unlock()
			return err
		})
	}
	return all, group.Wait()
}

// piecesIn is what a segment has of a topic, less what is broken. What was found is kept apart from the index it was found in:
// of a large store the indexes do not fit into memory, and a reader of one topic would ask for all of them at each page.
func (r *Reader) piecesIn(ctx context.Context, s *segment, topic string) (pieces []piece, err error) {
	key := s.name + " topic " + topic
	kept, ok := r.cache.get(key)
	if !ok {
		x, err := r.indexOf(ctx, s)
		if err != nil || x == nil {
			return nil, err
		}
		p := &posting{segment: s.name, entries: x.runs(topic)}
		if n := len(p.entries); n > 0 {
			p.blocks = slices.Clone(x.blocks[p.entries[0].block : p.entries[n-1].block+1])
		}
		r.cache.put(key, p, p.cost())
		kept = p
	}
	p := kept.(*posting)
	for _, e := range p.entries {
		if !r.faults.has(blockKey(s.name, e.block)) {
			pieces = append(pieces, piece{e, p})
		}
	}
	return pieces, nil
}

// indexOf is a segment's index; nil, and noted, if it cannot be used.
func (r *Reader) indexOf(ctx context.Context, s *segment) (*index, error) {
	key := s.name + " index"
	if x, ok := r.cache.get(key); ok {
		return x.(*index), nil
	}
	x, err := r.cache.share(ctx, key, func(ctx context.Context) (any, error) {
		tail, err := r.store.Get(ctx, s.name, s.ref.Size-s.ref.Tail, s.ref.Tail)
		if errors.Is(err, ErrNotFound) {
			return nil, &goneError{s.name, err}
		}
		if err != nil {
			return nil, err
		}
		if int64(len(tail)) != s.ref.Tail {
			return nil, &unusable{fmt.Errorf("segment is cut off: its last %d bytes of %d are %d", s.ref.Tail, s.ref.Size, len(tail))}
		}
		x, err := parseIndex(tail, s.ref.Size)
		if err != nil {
			return nil, &unusable{err}
		}
		r.cache.put(key, x, x.cost())
		return x, nil
	})
	if err != nil {
		if broken := (*unusable)(nil); errors.As(err, &broken) {
			r.faults.note(s.name, err)
			return nil, nil
		}
		return nil, err
	}
	return x.(*index), nil
}
