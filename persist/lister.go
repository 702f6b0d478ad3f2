package persist

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	headEvery = time.Hour   // a head is put at least so often
	trimEvery = time.Minute // between two looks at which segments were replaced
	trimFrom  = 32          // segments in a head, below which it does not matter
	// cutOff is how long no head could be written when others may take the life for over: well before they do.
	cutOff = overAfter / 2
)

// headState is what the archive's own head says, and is to say. Of the archive, under its lock.
type headState struct {
	life      uint64 // 0: none yet
	seq       uint64 // of the newest cargo
	startedMs int64
	written   time.Time     // when a head came to the store
	again     time.Time     // when it is put again at the latest
	segments  []HeadSegment // that it lists
	renew     bool          // the life is over, or may be: the writer is to take another
	seal      bool          // it is to say sealed
	sealed    bool          // it does
}

func (h *headState) begin(life uint64, startedMs int64) {
	now := time.Now()
	h.life, h.seq, h.startedMs, h.written, h.again = life, 0, startedMs, now, now.Add(headEvery)
	h.segments, h.renew = nil, false
}

// stored is the cargos that the next head lists: those that are in the store with all before them, so that readers find a
// life's messages in their order.
func (l *backlog) stored() []*cargo {
	n := 0
	for n < len(l.cargos) && l.cargos[n].state >= cargoStored {
		n++
	}
	return slices.Clone(l.cargos[:n])
}

// list is the lister's goroutine: it writes heads.
func (a *Archive) list(ctx context.Context) {
	var trimmed time.Time
	for {
		var listing []*cargo
		var life uint64
		if a.await(ctx, func(now time.Time) (bool, time.Time) {
			if a.head.life == 0 || a.head.renew || a.head.sealed {
				return false, time.Time{}
			}
			listing, life = a.backlog.stored(), a.head.life
			due := len(listing) > 0 || a.head.seal && len(a.backlog.cargos) == 0 || !now.Before(a.head.again)
			if due {
				for _, c := range listing {
					c.state = cargoListing
				}
			}
			return due, a.head.again
		}) != nil {
			return
		}
		if now := time.Now(); now.Sub(trimmed) > trimEvery {
			trimmed = now
			a.trim(ctx)
		}
		h := a.nextHead(life, listing)
		if h == nil {
			continue
		}
		body := AppendHead(nil, h)
		unsure := false
		err := persevere(ctx, a.listing, headName(h.Life), func(ctx context.Context) error {
			if !a.owns(h.Life) {
				return nil
			}
			err := a.store.Put(ctx, headName(h.Life), body)
			unsure = unsure || errors.Is(err, ErrUnanswered) || errors.Is(err, context.DeadlineExceeded)
			return err
		})
		if err != nil {
			return
		}
		a.headWritten(h, listing, unsure)
	}
}

// owns says whether a life is the archive's to write. One that others may take for over is not any more.
func (a *Archive) owns(life uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head.life == life && !a.head.renew && time.Since(a.head.written) <= cutOff
}

// trim forgets segments that a manifest says were replaced, so that heads stay small.
func (a *Archive) trim(ctx context.Context) {
	a.mu.Lock()
	n, life := len(a.head.segments), a.head.life
	a.mu.Unlock()
	if n < trimFrom {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestPatience)
	defer cancel()
	e, err := a.reader.catalogue.recent(ctx)
	if err != nil {
		return // and the head stays as long as it is
	}
	of, kept := e.manifest.life(life)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head.renew = !kept || of.Over
	a.head.segments = slices.DeleteFunc(a.head.segments, func(s HeadSegment) bool { return s.Seq <= of.Through })
}

// nextHead is a life's head with what is being listed, too; nil: the life has ended meanwhile, or is to, and all of that waits again.
func (a *Archive) nextHead(life uint64, listing []*cargo) *Head {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.head.life != life || a.head.renew {
		return nil
	}
	h := &Head{Life: a.head.life, Name: a.cfg.Name, Slot: a.cfg.Slot, StartedMs: a.head.startedMs, WrittenMs: time.Now().UnixMilli(), Sealed: a.head.seal}
	h.Segments = slices.Clone(a.head.segments)
	for _, c := range listing {
		h.Segments = append(h.Segments, HeadSegment{c.seq, c.ref})
	}
	h.Holes = a.holes.list()
	return h
}

// headWritten hands the batches back that a head lists. The reader knows the head before they leave the backlog. A try that had no
// answer may have an effect yet, whenever the store gets to it: that does no harm to this head, but would put it in the place of a
// later one, and hide what that one lists. So after such a try (unsure) the life ends with this head, and another one goes on.
func (a *Archive) headWritten(h *Head, listing []*cargo, unsure bool) {
	if !a.owns(h.Life) {
		a.change(func() { a.head.renew = a.head.renew || a.head.life == h.Life })
		return
	}
	a.reader.Learn(h)
	var stored *handover
	a.change(func() {
		stored = a.backlog.drop(listing...)
		a.head.segments = slices.Clone(h.Segments)
		a.head.sealed = h.Sealed
		a.head.written = time.Now()
		a.head.again = a.head.written.Add(headEvery)
		a.head.renew = unsure && !h.Sealed
	})
	a.handBack(stored, nil)
}
