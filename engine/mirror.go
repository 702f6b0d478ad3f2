package engine

import (
	"slices"

	"rayflux/protocol"
)

// subState is where a subscription's cursor is.
type subState uint8

const (
	subAsked   subState = iota // waiting for the topic's home to say where it begins
	subJoining                 // at the head, or a little ahead of the last batch handed over: live with the next one
	subLive                    // at the mirror's position; every batch is for it
	subLagging                 // behind: reads the log when its connection can take more
	subGone                    // ended; letters about it are void
)

// subscription is one connection's cursor into one topic. Owned by the connection's loop.
type subscription struct {
	conn     *conn
	mirror   *mirror
	next     uint64 // offset of the next message for it; while live the mirror knows
	at       int32  // index in the mirror's list of its state, if it has one
	state    subState
	format   protocol.Format
	reading  bool // lagging, and an answer of the home loop is awaited
	recovers bool // lagging since it began
	deep     bool // the same: it may read what only the archive has, and has been in no later epoch

	past string // lagging: the earlier epoch that next is of; "": the topic's own
	been []life // epochs that it has read to their ends while it was behind, the latest last

	attached *topic // that counts it; the home loop's own word
}

// position is the offset of the last message written. What is pending is not, unless a pass is just writing it: then
// the connection's list of ranges is empty already.
func (s *subscription) position() uint64 {
	if s.state != subLive {
		return s.next - 1
	}
	ranges := s.conn.loop.pendings
	for i := s.conn.firstPending; i != 0; i = ranges[i].next {
		if p := &ranges[i]; p.sub == s {
			return p.first() - 1
		}
	}
	return s.mirror.next - 1
}

// mirror is what one loop knows of one topic: its own subscribers, in no order that matters, and the offset up to
// which they have been handed batches. There is one in the home loop too. Owned by its loop.
type mirror struct {
	name    string
	hash    uint64
	home    *loop
	born    uint64 // which of the loop's mirrors: a later one has a higher number
	topic   *topic // only what never changes of it, unless home is this loop
	next    uint64 // offset after the last batch delivered; 0: none yet
	start   uint64 // no message before this one can be had, as of that batch
	live    []*subscription
	joining []*subscription
	lagging []*subscription
	subs    int // in any state
}

// mirrorOf is this loop's mirror of a topic, made on the first subscription.
func (l *loop) mirrorOf(name []byte, hash uint64) *mirror {
	m := l.mirrors[string(name)]
	if m == nil {
		l.mirrorsBorn++
		m = &mirror{name: string(name), hash: hash, home: l.homeOf(hash), born: l.mirrorsBorn}
		l.mirrors[m.name] = m
	}
	m.subs++
	return m
}

// deliver takes the next batch of the topic for every live subscriber here. The loop keeps one reference until its pass
// has written it.
func (m *mirror) deliver(l *loop, b *batch) {
	if len(l.pendings) > pendingsMax {
		l.pushPending()
		l.finishPass()
	}
	l.inPass = append(l.inPass, b)
	if m.next != 0 && b.first > m.next {
		m.strand(l)
	}
	m.next, m.start = b.last()+1, b.start
	for _, s := range m.live {
		l.pend(s, b, 0, b.count)
	}
	if len(m.joining) > 0 {
		m.join(l, b)
	}
}

// join makes the subscribers that wait at the head live, each from its own offset on.
func (m *mirror) join(l *loop, b *batch) {
	for i := len(m.joining) - 1; i >= 0; i-- {
		s := m.joining[i]
		if b.last() < s.next {
			continue // all of it was taken before the subscription
		}
		m.remove(s)
		if b.first > s.next || b.views[s.format] == nil {
			l.lag(s)
			continue
		}
		skipped := s.next - b.first
		l.pend(s, b, int32(skipUnits(b.views[s.format], s.format, skipped)), b.count-uint32(skipped))
		m.add(s, subLive)
	}
}

// strand turns every subscriber into a reader of the log, as batches were withheld from this mirror.
func (m *mirror) strand(l *loop) {
	l.pushPending() // the cursors must be at m.next
	for len(m.live) > 0 {
		s := m.live[len(m.live)-1]
		s.next = m.next
		m.remove(s)
		l.lag(s)
	}
	for len(m.joining) > 0 {
		s := m.joining[len(m.joining)-1]
		m.remove(s)
		l.lag(s)
	}
}

// reset tells every subscriber that the topic's epoch has ended, and makes it a reader of the new one, t, from its first
// message on, or from the one behind known. head is the offset at which t stood when it began, which only its home may
// read.
func (m *mirror) reset(l *loop, t *topic, known, head uint64) {
	l.pushPending() // what was handed over of the old epoch goes first
	ended := ""
	if m.topic != nil { // else nobody is lagging yet
		ended = m.topic.epoch
	}
	m.topic, m.next, m.start = t, 0, 1
	subs := slices.Concat(m.live, m.joining, m.lagging)
	for _, s := range subs {
		if s.state == subGone { // its connection has ended over another subscription
			continue
		}
		if s.past != "" || s.state == subLagging && t.recalls {
			if s.past == "" {
				s.past = ended
			} else if s.past == t.epoch { // it has come back
				s.past = ""
			}
			continue // it reads that epoch to its end, and is told then
		}
		lagging := s.state == subLagging
		at := s.behind(t.epoch, known)
		s.next = at + 1
		if !lagging {
			m.remove(s)
			m.add(s, subJoining) // it has a position from now on, which an event stream is told
		}
		if s.format == protocol.FormatClassic { // it has no way to hear of it
			s.conn.failSlow(t.epoch, s.next)
		} else {
			s.conn.role.gap(s.conn, s, gap{offset: at, reset: true})
		}
		if s.state == subJoining && head > at {
			m.remove(s)
			l.lag(s)
		}
	}
}

// listOf is where the subscriptions in a state are; nil: nowhere.
func (m *mirror) listOf(state subState) *[]*subscription {
	switch state {
	case subJoining:
		return &m.joining
	case subLive:
		return &m.live
	case subLagging:
		return &m.lagging
	}
	return nil
}

// add puts s on the list of a state that has one.
func (m *mirror) add(s *subscription, state subState) {
	list := m.listOf(state)
	s.state, s.at = state, int32(len(*list))
	*list = append(*list, s)
}

// remove takes s off its list, if it is on one.
func (m *mirror) remove(s *subscription) {
	list := m.listOf(s.state)
	if list == nil {
		return
	}
	last := len(*list) - 1
	moved := (*list)[last]
	(*list)[s.at], moved.at = moved, s.at
	(*list)[last] = nil
	*list = (*list)[:last]
}

// end takes a subscription out of its mirror for good; the mirror goes with its last one. The home loop is told by the
// caller.
func (l *loop) end(s *subscription) {
	if s.state == subGone {
		return
	}
	s.mirror.remove(s)
	s.state = subGone
	if s.mirror.subs--; s.mirror.subs == 0 {
		delete(l.mirrors, s.mirror.name)
	}
	l.metrics.subscriptions.Add(-1)
}
