package persist

import (
	"context"
	"math"
	"slices"
	"sort"
	"strings"
	"time"
)

// Batch is runs that were offered together. It is the archive's from Offer until Done.
type Batch struct {
	Runs  []Run
	Bytes []byte // the memory that the runs' frames are in
	Tag   int    // the caller's

	number  uint64 // of offers
	size    int
	offered time.Time
}

// runCost is about what a run takes in memory beside its frames.
const runCost = 128

func (b *Batch) messages() (n uint64) {
	for i := range b.Runs {
		n += uint64(b.Runs[i].Count)
	}
	return n
}

// backlog is what was offered and not handed back. Of the archive, under its lock. A batch is in waiting, then in one cargo, and
// its messages can be read in either until the head that lists them is in the store, and the reader knows it.
type backlog struct {
	waiting []*Batch // oldest first
	pending int      // bytes of these
	cargos  []*cargo // in order of their segments' numbers; batches of theirs are older than those that wait
	bytes   int      // of all batches
	offered uint64   // batches, ever
	flush   uint64   // batches up to this number are not to wait for the interval
	lost    uint64   // batches that were given up
	handing []*handover
}

// handover is batches that were taken out, and are not handed back yet.
type handover struct {
	batches []*Batch
	lowest  uint64 // number of one of them
}

// cargo is batches that become one segment.
type cargo struct {
	seq     uint64
	batches []*Batch
	bytes   int
	state   cargoState
	sorted  []Run // of all batches, by topic; nil while it is packed
	ref     SegmentRef
	cancel  context.CancelFunc // of its upload
}

// cargoState is how far a cargo is.
type cargoState byte

const (
	cargoPacked  cargoState = iota // its segment is being made of its batches, which can be handed back to nobody
	cargoSent                      // its segment is on its way
	cargoStored                    // its segment is in the store, and in no head
	cargoListing                   // a head that lists it is on its way, and may have arrived
)

// Offer takes a batch, which is handed back by Done; at once, and with ErrClosed, if it comes too late. It never waits.
func (a *Archive) Offer(b *Batch) {
	b.size = len(b.Bytes) + runCost*len(b.Runs)
	b.offered = time.Now()
	closed, wake := false, false
	a.mu.Lock()
	if closed = a.closing; !closed {
		l := &a.backlog
		l.offered++
		b.number = l.offered
		l.waiting = append(l.waiting, b)
		l.bytes += b.size
		before := l.pending
		l.pending += b.size
		// The writer wakes for the first one, to set its clock, and when there is enough; not for each.
		wake = len(l.waiting) == 1 || before < a.cfg.SegmentBytes && l.pending >= a.cfg.SegmentBytes || l.bytes > a.cfg.BacklogBytes
	}
	a.mu.Unlock()
	if closed {
		a.cfg.Done(b, ErrClosed)
	} else if wake {
		a.change(func() {})
	}
}

// settled says whether all batches up to a number were handed back.
func (l *backlog) settled(through uint64) bool {
	for _, h := range l.handing {
		if h.lowest <= through {
			return false
		}
	}
	if len(l.cargos) > 0 {
		return l.cargos[0].batches[0].number > through
	}
	return len(l.waiting) == 0 || l.waiting[0].number > through
}

// age is how long the oldest batch has waited; 0: there is none.
func (l *backlog) age(now time.Time) time.Duration {
	switch {
	case len(l.cargos) > 0:
		return now.Sub(l.cargos[0].batches[0].offered)
	case len(l.waiting) > 0:
		return now.Sub(l.waiting[0].offered)
	}
	return 0
}

// take makes a cargo of the oldest batches that wait.
func (l *backlog) take(bytesMax int) *cargo {
	c := &cargo{}
	for len(c.batches) < len(l.waiting) && c.bytes < bytesMax {
		b := l.waiting[len(c.batches)]
		c.batches, c.bytes = append(c.batches, b), c.bytes+b.size
	}
	clear(l.waiting[:len(c.batches)])
	l.waiting = l.waiting[len(c.batches):]
	l.pending -= c.bytes
	l.cargos = append(l.cargos, c)
	return c
}

// handOver notes batches that are taken out.
func (l *backlog) handOver(batches []*Batch) *handover {
	h := &handover{batches: batches, lowest: math.MaxUint64}
	for _, b := range batches {
		l.bytes -= b.size
		h.lowest = min(h.lowest, b.number)
	}
	l.handing = append(l.handing, h)
	return h
}

// drop takes cargos out, with their batches.
func (l *backlog) drop(gone ...*cargo) *handover {
	l.cargos = slices.DeleteFunc(l.cargos, func(c *cargo) bool { return slices.Contains(gone, c) })
	var batches []*Batch
	for _, c := range gone {
		batches = append(batches, c.batches...)
	}
	return l.handOver(batches)
}

// oldest takes the oldest batches out that can be given up; nil: there are none.
func (l *backlog) oldest() *handover {
	for _, c := range l.cargos {
		if c.state == cargoSent || c.state == cargoStored {
			c.cancel()
			return l.drop(c)
		}
	}
	if len(l.waiting) == 0 {
		return nil
	}
	b := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	l.pending -= b.size
	return l.handOver([]*Batch{b})
}

// takeAll takes everything out, when nobody is at work with it any more.
func (l *backlog) takeAll() *handover {
	l.recall()
	all := l.waiting
	l.waiting, l.pending = nil, 0
	return l.handOver(all)
}

// recall puts the batches of all cargos back to those that wait. None of them is being packed or listed.
func (l *backlog) recall() {
	var all []*Batch
	for _, c := range l.cargos {
		if c.cancel != nil {
			c.cancel()
		}
		all = append(all, c.batches...)
		l.pending += c.bytes
	}
	l.waiting, l.cargos = append(all, l.waiting...), nil
}

// shed gives the oldest batches up whenever the backlog is over its limit.
func (a *Archive) shed(ctx context.Context) {
	for {
		var victims []*handover
		err := a.await(ctx, func(time.Time) (bool, time.Time) {
			for a.backlog.bytes > a.cfg.BacklogBytes {
				h := a.backlog.oldest()
				if h == nil {
					break
				}
				victims = append(victims, h)
			}
			return len(victims) > 0, time.Time{}
		})
		if err != nil {
			return
		}
		for _, h := range victims {
			a.giveUp(h, ErrGivenUp)
		}
		a.change(func() {}) // cargos behind one that was given up may be listed now
	}
}

// giveUp hands batches back that will not be stored.
func (a *Archive) giveUp(h *handover, err error) {
	if len(h.batches) > 0 {
		var messages uint64
		for _, b := range h.batches {
			messages += b.messages()
			a.holes.add(b.Runs)
		}
		total := a.counts.givenUp.Add(messages)
		a.mu.Lock()
		a.backlog.lost += uint64(len(h.batches))
		say := time.Since(a.complained) > giveUpEvery
		if say {
			a.complained = time.Now()
		}
		a.mu.Unlock()
		if say {
			a.log.Error("messages will not be stored", "messages", messages, "ever", total, "error", err)
		}
	}
	a.handBack(h, err)
}

// handBack calls Done for batches that were taken out.
func (a *Archive) handBack(h *handover, err error) {
	a.frames.Lock() // nobody looks into them any more
	//lint:ignore SA2001 it was held by those who did
	a.frames.Unlock()
	for _, b := range h.batches {
		a.cfg.Done(b, err)
	}
	a.change(func() {
		a.backlog.handing = slices.DeleteFunc(a.backlog.handing, func(other *handover) bool { return other == h })
	})
}

// each calls f for every run of a topic, oldest first, until it says false. Runs are valid until then.
func (a *Archive) each(topic string, f func(*Run) bool) {
	a.frames.RLock()
	defer a.frames.RUnlock()
	var sorted [][]Run
	var batches []*Batch
	a.mu.Lock()
	for _, c := range a.backlog.cargos {
		if c.state == cargoPacked {
			batches = append(batches, c.batches...)
		} else {
			sorted = append(sorted, c.sorted)
		}
	}
	batches = append(batches, a.backlog.waiting...)
	a.mu.Unlock()
	for _, runs := range sorted {
		i := sort.Search(len(runs), func(i int) bool { return runs[i].Topic >= topic })
		for ; i < len(runs) && runs[i].Topic == topic; i++ {
			if !f(&runs[i]) {
				return
			}
		}
	}
	for _, b := range batches {
		for i := range b.Runs {
			if b.Runs[i].Topic == topic && !f(&b.Runs[i]) {
				return
			}
		}
	}
}

// Waiting is a Backlog's.
func (a *Archive) Waiting(topic string) (all []Waiting) {
	a.each(topic, func(r *Run) bool {
		w := Waiting{Run: *r, Bytes: len(r.Frames)}
		w.Topic, w.Epoch, w.Frames, w.Times = topic, strings.Clone(r.Epoch), nil, slices.Clone(r.Times)
		all = append(all, w)
		return true
	})
	return all
}

// AppendFrames is a Backlog's.
func (a *Archive) AppendFrames(dst []byte, topic, epoch string, first uint64, count uint32) (_ []byte, there bool) {
	a.each(topic, func(r *Run) bool {
		if there = r.Epoch == epoch && r.First == first && r.Count == count; there {
			dst = append(dst, r.Frames...)
		}
		return !there
	})
	return dst, there
}
