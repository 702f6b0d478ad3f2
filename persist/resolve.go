package persist

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// From is a way to say where to begin.
type From byte

const (
	FromEarliest From = iota // the first message that is stored
	FromLast                 // so many messages before the end
	FromSince                // the first message that is not older
	FromPosition             // behind a position
)

// Query asks where in a topic to begin.
type Query struct {
	From    From
	Last    uint64   // of FromLast
	SinceMs int64    // of FromSince, Unix time
	At      Position // of FromPosition
	// Before is where what the caller has itself begins: the messages behind it do not count. Its epoch is the topic's present
	// one, newer than all that the store has unless the store has it, too. Zero: everything that is stored counts.
	Before Position
}

// Start is where to begin.
type Start struct {
	Position      // before the first message to come; Query.Before if the store has nothing to add
	Whole    bool // nothing is missing of what was asked for
	Partial  bool // FromPosition: the epoch is an earlier one, of which there is something left to read, and then the next one
}

// stretch is consecutive messages of an epoch, in pieces that may overlap.
type stretch struct {
	epoch       string
	first, last uint64
	pieces      []piece
}

// stretches is what there is before a position, without gaps within a stretch. Its epoch comes last, whatever clocks have said.
func (v *view) stretches(before Position) []stretch {
	var earlier, present []stretch
	for i := range v.pieces {
		p := v.pieces[i]
		last, all := p.last(), &earlier
		if p.epoch == before.Epoch {
			last, all = min(last, before.Offset), &present
		}
		if last < p.first {
			continue
		}
		if n := len(*all); n > 0 && (*all)[n-1].epoch == p.epoch && p.first <= (*all)[n-1].last+1 {
			s := &(*all)[n-1]
			s.last, s.pieces = max(s.last, last), append(s.pieces, p)
			continue
		}
		*all = append(*all, stretch{p.epoch, p.first, last, []piece{p}})
	}
	return append(earlier, present...)
}

// Resolve finds where a reader of a topic begins. What is said not to be there was not there when Resolve was called.
func (r *Reader) Resolve(ctx context.Context, topic string, q Query) (Start, error) {
	called, sure := time.Now(), time.Time{}
	for {
		waiting := r.waiting(topic)
		if start := waiting.resolve(q); waiting.tells(q, start) {
			return start, nil
		}
		v, err := r.look(ctx, topic, waiting, sure)
		if err != nil {
			return Start{}, fmt.Errorf("cannot look up topic %q: %w", topic, err)
		}
		start := v.resolve(q)
		if start.Whole || !v.begun.Before(called) {
			return start, nil
		}
		sure = called
	}
}

// tells reports whether a view of the end of a topic is enough for a start: there is all from it to what the caller has itself. A
// start at a time needs the message before it as well: where the epoch's first one is not older than that time, an epoch before it,
// which only the store knows of, may have some that are not either.
func (v *view) tells(q Query, start Start) bool {
	if q.From == FromEarliest || !start.Whole || start.Epoch != q.Before.Epoch {
		return false
	}
	first := start.Offset + 1
	if q.From == FromSince {
		first--
	}
	return slices.ContainsFunc(v.stretches(q.Before), func(s stretch) bool {
		return s.epoch == start.Epoch && s.first <= first && s.last >= q.Before.Offset
	})
}

func (v *view) resolve(q Query) Start {
	all := v.stretches(q.Before)
	switch q.From {
	case FromEarliest:
		if len(all) == 0 {
			return Start{Position: q.Before}
		}
		return Start{Position: Position{all[0].epoch, all[0].first - 1}, Whole: true}
	case FromLast:
		return lastOf(all, q)
	case FromSince:
		return sinceOf(all, q, aheadFrom(v.begun))
	}
	return v.behind(all, q)
}

func lastOf(all []stretch, q Query) Start {
	start, left := Start{Position: q.Before, Whole: q.Last == 0}, q.Last
	for i := len(all) - 1; i >= 0 && !start.Whole; i-- {
		s := &all[i]
		n := min(s.last-s.first+1, left)
		start.Position = Position{s.epoch, s.last - n}
		left -= n
		start.Whole = left == 0
	}
	return start
}

// sinceOf is whole if something that is older is there, too: then what was asked for begins where it is found. A time from ahead on
// is none: else whoever asks for the last hour would be sent back to where a clock was wrong.
func sinceOf(all []stretch, q Query, ahead int64) Start {
	older := false
	for i := range all {
		s := &all[i]
		for k := range s.pieces {
			p := &s.pieces[k]
			for _, t := range p.times {
				offset := p.first + uint64(t.Index)
				if offset > s.last {
					break
				}
				if t.UnixMs >= ahead {
					continue
				}
				if t.UnixMs >= q.SinceMs {
					return Start{Position: Position{s.epoch, offset - 1}, Whole: older || i == 0 && offset == 1}
				}
				older = true
			}
		}
	}
	return Start{Position: q.Before, Whole: older}
}

// behind judges a position. One of the present epoch has to be followed by everything up to what the caller has itself; without
// a present epoch, every one is an earlier one.
func (v *view) behind(all []stretch, q Query) Start {
	if q.At.Epoch != q.Before.Epoch {
		for i := range all {
			if all[i].epoch == q.At.Epoch {
				return Start{Position: q.At, Partial: true}
			}
		}
		return Start{Position: q.Before}
	}
	if q.At.Offset >= q.Before.Offset {
		return Start{Position: q.At, Whole: true}
	}
	for i := range all {
		if s := &all[i]; s.epoch == q.At.Epoch && s.first <= q.At.Offset+1 && s.last >= q.Before.Offset {
			return Start{Position: q.At, Whole: true}
		}
	}
	return Start{Position: q.Before}
}
