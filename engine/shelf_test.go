package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rayflux/persist"
	"rayflux/protocol"
)

// shelf is an archive on the test's goroutine: what was offered is stored, and what was asked is answered, when the test says so. It is
// as simple as can be, and so what the archive's readers are held against: all messages, by epoch and offset.
type shelf struct {
	epochs  map[string][]*shelvedEpoch // by topic, in their order
	offered []shelved
	asked   []inquired
	away    bool // what is offered is given up, and nothing can be read
	held    bool // nothing is stored or answered
	saves   int
	widest  int // bytes that were asked for at once
	deep    int // pages that were read
}

type shelvedEpoch struct {
	epoch    string
	began    int64
	messages map[uint64]shelvedMessage
}

type shelvedMessage struct {
	frame  string
	unixMs int64
	of     *persist.Batch // not stored yet; nil: it is
}

// shelved is a batch of a loop's that is not stored yet; inquired is a question of one.
type shelved struct {
	rig   *rig
	loop  int
	batch *persist.Batch
}

type inquired struct {
	rig     *rig
	loop    *loop
	inquiry *inquiry
}

// shelving is what the loops of one rig see of a shelf.
type shelving struct {
	*shelf
	rig *rig
}

func emptyShelf() *shelf { return &shelf{epochs: map[string][]*shelvedEpoch{}} }

// newShelf gives the loops of a rig keepers, and is what they keep.
func newShelf(r *rig) *shelf {
	r.shelf = emptyShelf()
	r.shelf.keep(r)
	return r.shelf
}

// keep gives the loops of a rig keepers.
func (s *shelf) keep(r *rig) {
	for _, l := range r.loops {
		l.keeper = newKeeper(l, shelving{s, r})
	}
}

func (s shelving) offer(b *persist.Batch) {
	s.put(b, b)
	s.offered = append(s.offered, shelved{s.rig, b.Tag, b})
}

func (s shelving) ask(l *loop, q *inquiry) { s.asked = append(s.asked, inquired{s.rig, l, q}) }

var errAway = errors.New("the shelf is away")

// pump stores the oldest batch, or answers the oldest question; false: there was none.
func (s *shelf) pump() bool {
	switch {
	case s.held:
		return false
	case len(s.offered) > 0:
		o := s.offered[0]
		s.offered = s.offered[1:]
		var err error
		if err = errAway; s.away {
			s.drop(o.batch)
		} else {
			s.put(o.batch, nil)
			err = nil
		}
		s.saves++
		o.rig.event(o.loop, func() { o.rig.loops[o.loop].keeper.saved(o.batch, err) })
	case len(s.asked) > 0:
		a := s.asked[0]
		s.asked = s.asked[1:]
		s.widest = max(s.widest, a.inquiry.bytes)
		a.inquiry.put(context.Background(), s)
		a.rig.event(a.loop.index, func() { a.loop.keeper.archived(a.inquiry) })
	default:
		return false
	}
	return true
}

// flush stores what a process has offered, as its last act.
func (s *shelf) flush(r *rig) {
	for i := range s.offered {
		if o := &s.offered[i]; o.rig == r {
			s.put(o.batch, nil)
		}
	}
}

// forget drops what a process that has died had not stored.
func (s *shelf) forget(r *rig) {
	s.offered = slices.DeleteFunc(s.offered, func(o shelved) bool {
		if o.rig == r {
			s.drop(o.batch)
		}
		return o.rig == r
	})
	s.asked = slices.DeleteFunc(s.asked, func(a inquired) bool { return a.rig == r })
}

// drop takes away what is of a batch that will not be stored.
func (s *shelf) drop(b *persist.Batch) {
	for i := range b.Runs {
		r := &b.Runs[i]
		messages := s.epoch(r.Topic, r.Epoch).messages
		for offset := r.First; offset <= r.Last(); offset++ {
			if messages[offset].of == b {
				delete(messages, offset)
			}
		}
	}
}

// put makes messages readable, and, but for those of a batch that is given, stored.
func (s *shelf) put(b, of *persist.Batch) {
	for i := range b.Runs {
		r := &b.Runs[i]
		e := s.epoch(r.Topic, r.Epoch)
		if e == nil {
			e = &shelvedEpoch{epoch: r.Epoch, began: r.Began, messages: map[uint64]shelvedMessage{}}
			all := append(s.epochs[r.Topic], e)
			slices.SortFunc(all, func(a, b *shelvedEpoch) int {
				return cmp.Or(cmp.Compare(a.began, b.began), strings.Compare(a.epoch, b.epoch))
			})
			s.epochs[r.Topic] = all
		}
		times := r.Times
		offset := r.First
		for rest := r.Frames; len(rest) > 0; offset++ {
			at, _, _, n := protocol.NextBinaryMessage(rest)
			for len(times) > 1 && times[1].Index <= uint32(offset-r.First) {
				times = times[1:]
			}
			m := shelvedMessage{string(rest[:n]), times[0].UnixMs, of}
			was, ok := e.messages[offset]
			if at != offset || ok && was.frame != m.frame {
				panic(fmt.Sprintf("message %d of %q stands where %d of %s is due, or is another one", at, r.Topic, offset, r.Epoch))
			}
			if ok && was.of == nil {
				m.of = nil // another node has stored it
			}
			e.messages[offset] = m
			rest = rest[n:]
		}
		if offset != r.First+uint64(r.Count) {
			panic("a run has not as many messages as it says")
		}
	}
}

func (s *shelf) epoch(topic, epoch string) *shelvedEpoch {
	for _, e := range s.epochs[topic] {
		if e.epoch == epoch {
			return e
		}
	}
	return nil
}

func (s *shelf) Offer(*persist.Batch) { panic("loops offer by themselves") }

func (s *shelf) Seal(_ context.Context, _ []persist.Sealed) error { panic("loops seal by themselves") }

// placed is one message that a reader could begin with.
type placed struct {
	at     persist.Position // before it
	unixMs int64
}

func (s *shelf) Resolve(_ context.Context, topic string, q persist.Query) (persist.Start, error) {
	if s.away {
		return persist.Start{}, errAway
	}
	var found []placed
	for _, e := range s.epochs[topic] {
		for _, offset := range slices.Sorted(maps.Keys(e.messages)) {
			if e.epoch != q.Before.Epoch || offset <= q.Before.Offset {
				found = append(found, placed{persist.Position{Epoch: e.epoch, Offset: offset - 1}, e.messages[offset].unixMs})
			}
		}
	}
	start := persist.Start{Position: q.Before}
	switch q.From {
	case persist.FromEarliest:
		if len(found) > 0 {
			start = persist.Start{Position: found[0].at, Whole: true}
		}
	case persist.FromLast:
		if n := min(int(q.Last), len(found)); n > 0 {
			start.Position = found[len(found)-n].at
		}
		start.Whole = int(q.Last) <= len(found)
	case persist.FromSince:
		i := slices.IndexFunc(found, func(p placed) bool { return p.unixMs >= q.SinceMs })
		if i >= 0 {
			start.Position = found[i].at
		}
		start.Whole = len(found) > 0 && i != 0
	case persist.FromPosition:
		e := s.epoch(topic, q.At.Epoch)
		present := q.At.Epoch == q.Before.Epoch
		if present {
			whole := q.At.Offset <= q.Before.Offset
			for offset := q.At.Offset + 1; whole && offset <= q.Before.Offset; offset++ {
				whole = e != nil && e.messages[offset].frame != ""
			}
			if whole {
				start = persist.Start{Position: q.At, Whole: true}
			}
		} else if e != nil {
			for offset := range e.messages {
				start.Partial = start.Partial || offset > q.At.Offset
			}
			if start.Partial {
				start.Position = q.At
			}
		}
	}
	return start, nil
}

func (s *shelf) Read(_ context.Context, topic string, at persist.Position, maxBytes int) (page persist.Page, err error) {
	if s.away {
		return page, errAway
	}
	s.deep++
	for i, e := range s.epochs[topic] {
		if e.epoch != at.Epoch {
			continue
		}
		for offset := at.Offset + 1; ; offset++ {
			m, ok := e.messages[offset]
			if !ok || page.Count > 0 && len(page.Frames)+len(m.frame) > maxBytes {
				break
			}
			page.Times = append(page.Times, persist.Time{Index: page.Count, UnixMs: m.unixMs})
			page.Frames = append(page.Frames, m.frame...)
			page.First, page.Count = at.Offset+1, page.Count+1
		}
		if page.Count > 0 {
			return page, nil
		}
		for offset := range e.messages {
			if offset > at.Offset && (page.Hole == 0 || offset < page.Hole) {
				page.Hole = offset
			}
		}
		if page.Hole == 0 && i+1 < len(s.epochs[topic]) {
			page.NextEpoch = s.epochs[topic][i+1].epoch
		}
	}
	return page, nil
}
