package engine

import (
	"fmt"
	"slices"

	"rayflux/protocol"
)

// hold is the line of commands for a topic that is being handed over, or that may live at a neighbour. Loop-owned.
type hold struct {
	estate *estate
	name   string
	hash   uint64
	index  int // in estate.lines
	heldLine
	asks  []claimAsk
	until int64 // loop clock until which neighbours may answer
	busy  bool  // its line is being emptied
	timer timer
}

// claimAsk is the question to one neighbour whether it has the topic.
type claimAsk struct {
	link *uplink // that it was asked on: without it there is no answer
	id   uint64
	none bool // it has not
}

// held is a command that waits. Loop-owned, pooled.
type held struct {
	errand errand // its bytes are in kept
	kept   buffer
	until  int64 // loop clock when it has waited enough
	next   *held
}

// heldLine is commands that wait, in the order in which they came.
type heldLine struct{ first, last *held }

func (q *heldLine) push(w *held) {
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
}

// pop takes the first one out, of which there has to be one.
func (q *heldLine) pop() *held {
	w := q.first
	if q.first = w.next; q.first == nil {
		q.last = nil
	}
	return w
}

func (s *estate) newHold(e *errand) *hold {
	h := &hold{estate: s, name: string(e.name), hash: e.hash, index: len(s.lines)}
	h.timer.owner = h
	s.holds[h.name] = h
	s.lines = append(s.lines, h)
	return h
}

// keep puts a command at the end of a line. False: there is no room for it, and it has been answered.
func (s *estate) keep(h *hold, e *errand) bool {
	l := s.loop
	bounded := e.op != opUnsubscribe && e.op != opLeave // these must stay behind what is held
	if bounded && s.held+flightSize(e) > s.heldMax {
		if e.op != opRefuse { // which may overtake, but is not put off
			e.err = errFull(s.heldMax)
		}
		l.answer(e)
		s.tidy(h)
		return false
	}
	w := s.free
	if w == nil {
		w = &held{}
	} else {
		s.free, w.next = w.next, nil
	}
	w.errand, w.until = *e, l.now+int64(l.cfg.HoldTimeout)
	w.kept.keepErrand(l, &w.errand)
	s.held += flightCost + int64(w.kept.len())
	h.push(w)
	if !h.timer.set() {
		l.wheel.start(&h.timer, w.until)
	}
	return true
}

// tidy forgets a line that is empty.
func (s *estate) tidy(h *hold) {
	if h.first == nil && !h.busy {
		h.timer.stop()
		delete(s.holds, h.name)
		last := s.lines[len(s.lines)-1]
		s.lines[h.index], last.index = last, h.index
		s.lines[len(s.lines)-1] = nil
		s.lines = s.lines[:len(s.lines)-1]
	}
}

// pop does the first command of a line with do.
func (s *estate) pop(h *hold, do func(e *errand)) {
	w := h.pop()
	s.held -= flightCost + int64(w.kept.len())
	do(&w.errand)
	w.kept.release(s.loop)
	*w = held{next: s.free}
	s.free = w
}

// empty does a whole line, with what comes to it meanwhile: an answer may bring the next command of the same connection.
func (s *estate) empty(h *hold, do func(e *errand)) {
	h.busy = true
	for h.first != nil {
		s.pop(h, do)
	}
	h.busy = false
	s.tidy(h)
}

// try moves a line on, if it is known by now whose the topic is.
func (s *estate) try(h *hold) {
	if h.busy {
		return
	}
	t := s.loop.topics[h.name]
	switch {
	case t != nil && t.moving != nil:
	case t != nil:
		s.empty(h, s.loop.do)
	case len(s.view.Slots) == 0:
	default:
		if slot := s.rightful(h.hash); slot != s.loop.cfg.Slot {
			s.send(h, slot)
		} else if s.cleared(h) {
			s.empty(h, s.loop.do)
		}
	}
}

// tryAll moves every line on that can.
func (s *estate) tryAll() {
	for _, h := range slices.Clone(s.lines) {
		if s.holds[h.name] == h { // else it has been emptied meanwhile
			s.try(h)
		}
	}
}

// send turns a whole line away to another node.
func (s *estate) send(h *hold, slot int) {
	s.empty(h, func(e *errand) { s.sendAway(e, slot) })
}

func (s *estate) sendAway(e *errand, slot int) {
	if e.op == opUnsubscribe || e.op == opLeave || e.op == opRefuse {
		s.loop.do(e)
		return
	}
	s.turnAway(e, slot)
}

// cleared reports whether the topic can be begun here. The neighbours that might have it are asked.
func (s *estate) cleared(h *hold) bool {
	l := s.loop
	asked, waits := false, s.awaitsPast()
	for n := range s.all() {
		switch {
		case n.away() || s.settled(n):
		case !n.ready():
			waits = true // it will be, or it will be down
		default:
			ask := h.askOf(n.transfer)
			if ask == nil {
				h.asks = append(h.asks, claimAsk{link: n.transfer, id: s.claimFrom(n, h)})
				asked, waits = true, true
			} else if !ask.none && l.now < h.until {
				waits = true
			}
		}
	}
	if asked {
		h.until = l.now + int64(l.cfg.TakeOver)
		l.wheel.start(&h.timer, min(h.until, h.first.until))
	}
	if waits {
		return false
	}
	for _, in := range s.incoming {
		if in.topic.name == h.name {
			return false // it is on its way
		}
	}
	return true
}

func (h *hold) askOf(link *uplink) *claimAsk {
	for i := range h.asks {
		if h.asks[i].link == link {
			return &h.asks[i]
		}
	}
	return nil
}

// claimFrom asks a neighbour for a topic.
func (s *estate) claimFrom(n *neighbour, h *hold) uint64 {
	s.id++
	cmd := protocol.LinkCommand{Op: protocol.LinkCmdClaim, HasID: true, ID: s.id, Topic: []byte(h.name)}
	n.say(&cmd)
	return s.id
}

// unclaimed is a neighbour's word that it has not a topic.
func (s *estate) unclaimed(k *uplink, ev *protocol.LinkEvent) {
	h := s.holds[string(ev.Topic)]
	if h == nil {
		return
	}
	if ask := h.askOf(k); ask != nil && ask.id == ev.ID {
		ask.none = true
		s.try(h)
	}
}

// expire is the end of the neighbours' time to answer, or of the patience of what is held.
func (h *hold) expire(l *loop) {
	s := h.estate
	s.try(h)
	if h.first == nil || s.holds[h.name] != h {
		return
	}
	h.busy = true
	for h.first != nil {
		e := &h.first.errand
		free := e.op == opUnsubscribe || e.op == opLeave || e.op == opRefuse
		if !free && h.first.until > l.now {
			break
		}
		s.pop(h, func(e *errand) {
			if free {
				l.do(e)
				return
			}
			// Not no_owner: a link would be told moved, and send it again, behind those that are still held here.
			e.err = &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: retryAdvised,
				Message: fmt.Sprintf("the topic was not handed over within %v", l.cfg.HoldTimeout)}
			l.answer(e)
		})
	}
	h.busy = false
	if s.tidy(h); h.first != nil {
		at := h.first.until
		if h.until > l.now {
			at = min(at, h.until)
		}
		l.wheel.start(&h.timer, at)
	}
}

// keepErrand copies what an errand refers to into the buffer, which is empty.
func (b *buffer) keepErrand(l *loop, e *errand) {
	n := len(e.name) + len(e.payload) + len(e.from.Epoch)
	if n == 0 {
		return
	}
	k := b.open(l, n)
	keep := func(part []byte) []byte {
		at := len(k.b)
		k.b = append(k.b, part...)
		return k.b[at:len(k.b):len(k.b)]
	}
	e.name, e.payload, e.from.Epoch = keep(e.name), keep(e.payload), keep(e.from.Epoch)
}
