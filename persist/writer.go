package persist

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// write is the writer's goroutine: it takes a life, and then makes segments of what waits.
func (a *Archive) write(ctx context.Context) {
	for {
		if a.takeLife(ctx) != nil {
			return
		}
		for renew := false; !renew; {
			var c *cargo
			if a.await(ctx, func(now time.Time) (done bool, again time.Time) {
				if renew = a.head.renew; renew {
					return true, again
				}
				due, again := a.due(now)
				if due {
					c = a.backlog.take(a.cfg.SegmentBytes)
					a.head.seq++
					c.seq = a.head.seq
				}
				return due, again
			}) != nil {
				return
			}
			if c != nil {
				a.pack(ctx, c)
			}
		}
		// Nothing is lost but time: what the old life's head does not list is written anew.
		a.change(a.backlog.recall)
		a.log.Info("another life is taken: a head may have been written that had no answer, or too long ago")
	}
}

// due says whether the next segment is to be made now, or else when to ask again.
func (a *Archive) due(now time.Time) (due bool, again time.Time) {
	l := &a.backlog
	if len(l.waiting) == 0 || l.sending() >= a.cfg.Uploads {
		return false, again
	}
	oldest := l.waiting[0]
	at := oldest.offered.Add(a.cfg.Interval)
	return l.pending >= a.cfg.SegmentBytes || oldest.number <= l.flush || a.closing || !now.Before(at), at
}

// sending is how many segments are on their way.
func (l *backlog) sending() (n int) {
	for _, c := range l.cargos {
		if c.state == cargoSent {
			n++
		}
	}
	return n
}

// pack makes a cargo's segment, here, and has it sent.
func (a *Archive) pack(ctx context.Context, c *cargo) {
	a.mu.Lock()
	behind := a.backlog.bytes > a.cfg.BacklogBytes/2
	life := a.head.life
	a.mu.Unlock()
	runs, e := c.runs(), c.effort(time.Now(), behind)
	// Room for all, with an index of at most runCost for each run, would be memory to clear; it grows if need be.
	room := int(float64(c.bytes)*min(a.share*1.25, 1)) + 1<<10
	body, ref, err := appendSegment(make([]byte, 0, room), runs, e)
	if err != nil {
		// One batch that no segment can have must not keep the others from being stored.
		a.removeUnfit(c)
		if runs = c.runs(); len(runs) > 0 {
			body, ref, err = appendSegment(nil, runs, e)
		}
	}
	if err != nil {
		var rest *handover
		a.change(func() { rest = a.backlog.drop(c) })
		a.giveUp(rest, err)
		return
	}
	a.share = float64(ref.Size) / float64(c.bytes)
	a.counts.plain.Add(uint64(ref.Plain))
	a.counts.packed.Add(uint64(ref.Size))
	sending, cancel := context.WithCancel(ctx)
	a.change(func() { c.sorted, c.ref, c.cancel, c.state = runs, ref, cancel, cargoSent })
	a.tasks.Go(func() { a.send(sending, life, c, body) })
}

const (
	// busyRate is how many bytes a second are as many as zstd can have: at its fastest it takes a hundredth of a processor for them.
	busyRate = 4 << 20
	// busyFrom is how many bytes can be said to have come at a rate.
	busyFrom = 1 << 20
)

// effort is what the store's cost for a cargo's bytes, for weeks, is worth of the processor's time that messages are served in.
// A store that is behind is never helped by more bytes.
func (c *cargo) effort(now time.Time, behind bool) effort {
	waited := now.Sub(c.batches[0].offered)
	if c.bytes >= busyFrom && (behind || float64(c.bytes) > busyRate*waited.Seconds()) {
		return quick
	}
	return thorough
}

func (c *cargo) runs() (all []Run) {
	for _, b := range c.batches {
		all = append(all, b.Runs...)
	}
	return all
}

// removeUnfit gives batches up that no segment can have.
func (a *Archive) removeUnfit(c *cargo) {
	var fit, unfit []*Batch
	var err error
	for _, b := range c.batches {
		if why := b.check(); why != nil {
			unfit, err = append(unfit, b), why
		} else {
			fit = append(fit, b)
		}
	}
	if len(fit) == 0 || len(unfit) == 0 {
		return // all of it goes, by its own error
	}
	var gone *handover
	a.change(func() {
		gone = a.backlog.handOver(unfit)
		c.batches = fit
		for _, b := range unfit {
			c.bytes -= b.size
		}
	})
	a.giveUp(gone, err)
}

// check says why no segment can have a batch.
func (b *Batch) check() error {
	for i := range b.Runs {
		if err := b.Runs[i].check(); err != nil {
			return err
		}
	}
	return nil
}

// send brings a segment to the store, if it takes for ever; or until it is given up.
func (a *Archive) send(ctx context.Context, life uint64, c *cargo, body []byte) {
	defer c.cancel()
	name := segmentName(life, c.seq)
	err := persevere(ctx, a.sending, name, func(ctx context.Context) error { return a.createOwn(ctx, name, body) })
	if err == nil {
		a.change(func() { c.state = cargoStored })
	}
}

// createOwn creates an object whose name is of this archive's life alone: what exists was written by a try that had no answer.
func (a *Archive) createOwn(ctx context.Context, name string, body []byte) error {
	if err := a.store.Create(ctx, name, body); !errors.Is(err, ErrExists) {
		return err
	}
	return nil
}

// takeLife gives the archive the next free life, if it takes for ever.
func (a *Archive) takeLife(ctx context.Context) error {
	return persevere(ctx, a.listing, "head of a new life", func(ctx context.Context) error {
		e, err := a.reader.catalogue.refresh(ctx)
		if err != nil {
			return err
		}
		for life := e.next; ; life++ {
			now := time.Now().UnixMilli()
			h := &Head{Life: life, Name: a.cfg.Name, Slot: a.cfg.Slot, StartedMs: now, WrittenMs: now}
			err := a.store.Create(ctx, headName(life), AppendHead(nil, h))
			if errors.Is(err, ErrExists) {
				// Another's, or of a try of our own that had no answer: nobody can tell, and numbers are plenty.
				continue
			}
			if err != nil {
				return fmt.Errorf("life %d: %w", life, err)
			}
			a.reader.Learn(h)
			a.change(func() { a.head.begin(life, now) })
			a.log.Info("the store is open", "life", life)
			return nil
		}
	})
}
