package engine

import (
	"fmt"
	"iter"
	"slices"

	"github.com/cespare/xxhash/v2"

	"rayflux/protocol"
)

const (
	refusedPause  = int64(100e6) // before a topic that a neighbour would not have is offered again
	farewellPause = int64(50e6)  // for a draining node's neighbours to hear of it before it hands over
	lingerDrained = int64(250e6) // for commands under way to a node that has handed everything over: they are told where
	claimsMax     = 4096         // topics that were claimed by a neighbour that is not linked yet
)

// estate decides who owns the topics that are at home in one loop of a clustered node: this node, or a neighbour, to whom they
// are handed over. A lone node has none, and owns what it is asked for. Loop-owned.
//
// A topic that lives here is served, whoever it should belong to, until it is handed over: accepting ends (seal), its log
// goes to the neighbour, and when that has it, or may have it, it is never accepted here again. So an epoch has one owner
// at any time. A topic that should belong to this node, and does not live here, may live at a neighbour: it is begun anew
// when each neighbour has said that it has no more topics of ours (settled), or not this one (unclaimed), or is down, or has
// not answered within take-over. Commands wait in the meantime (hold).
type estate struct {
	loop       *loop
	dialer     dialer
	view       *View
	neighbours []*neighbour      // by slot; nil: this node's own
	left       []*neighbour      // departed, and may have topics of ours
	elsewhere  []*protocol.Error // by slot: what a client is told whose topic belongs there
	listed     bool              // the view has this node; all its topics belong to others if not
	sweep      bool              // every topic has to look again whose it is
	stuck      int               // topics that belong to a neighbour which is not linked, as of the last sweep

	topics []*topic // all that live here. Like holds' lines in no order that matters, but in one that a run of the simulation repeats

	holds   map[string]*hold
	lines   []*hold // the same
	held    int64   // bytes of what is held
	heldMax int64
	free    *held

	said     map[uint64][]settledWord // by slot: what its loops have said last
	incoming map[handoffToken]*incoming
	claims   []*topic    // claimed, and not handed over: they go first
	ended    []*transfer // hand-overs whose outcome is known
	id       uint64      // of the newest command on a link

	drain    drainState
	drainEnd int64 // loop clock when it is over at the latest
	timer    timer // a pause, or the end of the time for a drain
	dueAt    int64
}

// settledWord is what one loop of a neighbour has said: in the view of that fingerprint all of our topics were handed over.
type settledWord struct {
	fingerprint uint64
	conn        *conn // that it came on: it is good until that ends
}

func newEstate(l *loop, d dialer) *estate {
	s := &estate{loop: l, dialer: d, view: &View{}, heldMax: l.bufferMax / 2, holds: make(map[string]*hold),
		said: make(map[uint64][]settledWord), incoming: make(map[handoffToken]*incoming)}
	s.timer.owner = s
	l.shared.estates.Add(1)
	return s
}

// look takes the newest view of the nodes.
func (s *estate) look() {
	v := s.loop.cfg.Directory.View()
	if v == s.view {
		return
	}
	before := slices.Concat(s.neighbours, s.left)
	s.view, s.neighbours, s.elsewhere = v, make([]*neighbour, len(v.Slots)), make([]*protocol.Error, len(v.Slots))
	s.listed = false
	for i, slot := range v.Slots {
		s.elsewhere[i] = &protocol.Error{Code: protocol.CodeNoOwner, RetryAfter: retryAdvised,
			Message: fmt.Sprintf("the topic belongs to the node at %s", slot.Address)}
		if i == s.loop.cfg.Slot {
			s.listed = slot.Address != ""
			continue
		}
		known := slices.IndexFunc(before, func(n *neighbour) bool { return n != nil && n.address == slot.Address })
		if known >= 0 {
			s.neighbours[i], before[known] = before[known], nil
			s.neighbours[i].slot = i
		} else {
			s.neighbours[i] = newNeighbour(s, i, slot.Address)
		}
		s.neighbours[i].enlist(slot)
	}
	s.left = nil
	for _, n := range before {
		if n == nil {
			continue
		}
		if n.slot < len(v.Slots) && v.Slots[n.slot].Address != "" { // another node has its slot, and speaks for it
			n.retire()
		} else if n.depart() {
			s.left = append(s.left, n)
		}
	}
	for _, n := range s.neighbours {
		if n != nil {
			n.connect()
		}
	}
	s.changed()
}

// changed makes every topic look again whose it is, at the end of this event.
func (s *estate) changed() { s.sweep = true }

// hashOf is loop.hash of a name that is a string already.
func hashOf(name string) uint64 { return xxhash.Sum64String(name) }

// rightful is the slot that a topic belongs to, as far as can be told here; -1: there is none.
func (s *estate) rightful(hash uint64) int {
	n := len(s.view.Slots)
	for attempt := range n {
		slot := s.loop.cfg.Directory.Choice(hash, attempt, n)
		if o := s.neighbours[slot]; o != nil && o.usable() || o == nil && !s.leaves() {
			return slot
		}
	}
	return -1
}

// admits reports whether a command is to be done now. If not it is answered, or held and will be.
func (s *estate) admits(e *errand) bool {
	if t := s.loop.topics[string(e.name)]; t != nil && t.moving == nil && len(s.holds) == 0 {
		return true
	}
	return s.judge(e)
}

func (s *estate) judge(e *errand) bool {
	switch e.op {
	case opRead, opHandoff, opClaim, opSettled, opUnlinked:
		return true
	}
	h := s.holds[string(e.name)]
	if h == nil {
		switch t := s.loop.topics[string(e.name)]; {
		case e.op == opUnsubscribe || e.op == opLeave || e.op == opRefuse:
			return true
		case t != nil && t.moving == nil:
			return true
		case t == nil && len(s.view.Slots) > 0:
			if slot := s.rightful(e.hash); slot != s.loop.cfg.Slot {
				s.turnAway(e, slot)
				return false
			}
			if s.allSettled() && !s.awaitsPast() {
				return true
			}
		}
		h = s.newHold(e)
	}
	if s.keep(h, e) {
		s.try(h)
	}
	return false
}

// turnAway answers a command for a topic that belongs to another node.
func (s *estate) turnAway(e *errand, slot int) {
	if e.err = errNowhere; slot >= 0 && slot < len(s.elsewhere) {
		e.err = s.elsewhere[slot]
	}
	e.payload = e.name // a link is told the topic
	s.loop.answer(e)
}

var errNowhere = &protocol.Error{Code: protocol.CodeNoOwner, RetryAfter: retryAdvised, Message: "no node can own the topic now"}

// awaitsPast reports whether it is not known yet where topics stood that this node may go on with.
func (s *estate) awaitsPast() bool { return s.loop.keeper != nil && !s.loop.keeper.inherited }

// allSettled reports whether no neighbour can have a topic that belongs here.
func (s *estate) allSettled() bool {
	for n := range s.all() {
		if !n.away() && !s.settled(n) {
			return false
		}
	}
	return true
}

// all is every node that may have topics of ours.
func (s *estate) all() iter.Seq[*neighbour] {
	return func(yield func(*neighbour) bool) {
		for _, of := range [...][]*neighbour{s.neighbours, s.left} {
			for _, n := range of {
				if n != nil && !yield(n) {
					return
				}
			}
		}
	}
}

// settled reports whether all loops of a neighbour have said that they have no more topics of ours, in the view that is
// this node's now.
func (s *estate) settled(n *neighbour) bool {
	words := s.said[uint64(n.slot)]
	for i := range words {
		if words[i].fingerprint != s.settledIn(!n.usable()) {
			return false
		}
	}
	return len(words) > 0
}

// settledIn is the fingerprint that goes with such a word. A node that is to have no topics says it for those of its own slot
// as well. What it said before was about fewer, and may come after the news that it goes away, which come on another link.
func (s *estate) settledIn(without bool) uint64 {
	if without {
		return ^s.view.Fingerprint
	}
	return s.view.Fingerprint
}

// leaves reports whether this node is to have no topics: it drains, or the view has it not.
func (s *estate) leaves() bool { return s.loop.shared.draining.Load() || !s.listed }

// settle is called at the end of each event.
func (s *estate) settle() {
	s.dismiss()
	for len(s.ended) > 0 || s.sweep {
		ended := s.ended
		s.ended = nil
		for _, tr := range ended {
			s.conclude(tr)
		}
		if s.sweep {
			s.sweep = false
			s.sort()
		}
	}
	for n := range s.all() {
		n.pump()
	}
	s.settleDrain()
	s.arm()
}

// dismiss ends the links to nodes that have left and have no topics any more.
func (s *estate) dismiss() {
	s.left = slices.DeleteFunc(s.left, func(n *neighbour) bool {
		done := !n.ready() || s.settled(n) && n.sending == nil && len(n.waiting) == 0
		if done {
			n.retire()
		}
		return done
	})
}

// sort finds the topics that belong elsewhere, and looks at what is held again.
func (s *estate) sort() {
	for n := range s.all() {
		n.restart()
	}
	s.stuck = 0
	claims := s.claims
	s.claims = nil
	for _, t := range claims {
		if s.loop.topics[t.name] == t && t.moving == nil {
			s.claim(t)
		}
	}
	if s.loop.keeper != nil {
		s.loop.keeper.rouseStrays()
	}
	for _, t := range s.topics {
		s.assign(t)
	}
	s.tryAll()
}

// assign puts a topic on the list of the neighbour that it belongs to.
func (s *estate) assign(t *topic) {
	if t.moving != nil {
		return
	}
	slot := s.rightful(hashOf(t.name))
	if slot < 0 || s.neighbours[slot] == nil {
		return
	}
	if n := s.neighbours[slot]; n.ready() {
		n.queue = append(n.queue, t)
	} else {
		s.stuck++
	}
}

// claim puts a topic before all others on the list of the neighbour that it belongs to; it is remembered until it is there.
func (s *estate) claim(t *topic) {
	if len(s.claims) < claimsMax {
		s.claims = append(s.claims, t)
	}
	slot := s.rightful(hashOf(t.name))
	if slot >= 0 && s.neighbours[slot] != nil && s.neighbours[slot].ready() {
		s.neighbours[slot].first = append(s.neighbours[slot].first, t)
	}
}

// busy reports whether there is more to do than the last event had time for.
func (s *estate) busy() bool {
	if s.sweep || len(s.ended) > 0 {
		return true
	}
	for n := range s.all() {
		if n.able() && (n.sending != nil || n.mayBegin()) {
			return true
		}
	}
	return false
}

// arm sets the timer to the end of the next pause, or of the time for a drain.
func (s *estate) arm() {
	at := never
	for _, n := range s.neighbours {
		if n != nil && n.pause != 0 {
			at = min(at, n.pause)
		}
	}
	if s.drain == drainHanding || s.drain == drainLinger {
		at = min(at, s.drainEnd)
	}
	if at != never && (!s.timer.set() || at != s.dueAt) {
		s.dueAt = at
		s.loop.wheel.start(&s.timer, at)
	}
}

// expire is the end of a pause: what was refused is offered again, and a drain may be over.
func (s *estate) expire(*loop) { s.changed() }
