package engine

import (
	"context"
	"maps"
	"net"
	"slices"
	"time"

	"rayflux/protocol"
)

// LinkDialer makes the links of a balancer, and those between nodes. Dial is called on a goroutine of its own and may block
// until ctx ends; what it returns has proved the cluster key on both sides.
type LinkDialer interface {
	Dial(ctx context.Context, address string, purpose protocol.LinkPurpose) (Link, error)
}

// Link is a link that is ready for use. Whoever is given one owns Conn.
type Link struct {
	Conn        net.Conn // a TCP connection of package net
	Early       []byte   // what the node has said since it was ready
	Draining    bool     // the node is going away
	Fingerprint uint64   // of the node's view; 0: it has none, and takes every topic it is asked for
	Features    uint64   // protocol.LinkFeature bits that the node understands
}

// dialer makes a loop's links. dial returns at once; when it is done the loop is told, in an event of its own, by
// loop.linked or owner.unlinked.
type dialer interface {
	dial(l *loop, k *uplink)
}

const (
	fetchesMax   = 64                     // stretches of older messages under way to one loop,
	fetchBytes   = 4 << 20                // and bytes of them, as long as one fits
	pagesMax     = 8                      // pages of history under way to one loop
	fetchRetry   = 50 * time.Millisecond  // before a reader whose page could not be had tries again
	movedPause   = 100 * time.Millisecond // before a topic is asked for again at the node that has just refused it
	flightCost   = 384                    // of a command under way, besides its bytes
	retryAdvised = time.Second            // what a publisher is told to wait when nobody owns the topic
)

// upstream is where the topics of one loop of a balancer come from: the nodes, the links to them, and the commands that are
// under way there. Loop-owned; a node's loops have none.
//
// A topic at home here is followed at one node: exactly one subscription on one stream link, whose frames go into the
// topic's log as they are, however many readers there are. Commands that only the owner can answer travel on the control
// link. What concerns one topic stands in one line (follow), so that it is answered in order, is sent again in order when
// the topic has moved, and waits, bounded in bytes and time, while nobody owns it.
type upstream struct {
	loop    *loop
	dialer  dialer
	view    *View
	owners  []*owner  // by slot
	left    []*owner  // departed, and the owner of topics still
	follows []*follow // of the topics at home here, in no order that matters, but in one that a run of the simulation repeats
	change  uint64    // rises when another node may own something: each follow compares it with the one it has seen
	sweep   bool      // every topic has to look again where it is followed
	choked  bool      // commands wait for a node that does not read those before them

	calls   map[uint64]*flight // commands sent and not answered, by their id on the link
	id      uint64             // of the newest one
	fetches int                // of these, stretches of older messages
	pages   int                // and pages of history
	free    *flight
	held    int64 // bytes of all flights
	heldMax int64

	recent *topic // of the newest message: they come in runs
}

func newUpstream(l *loop, d dialer) *upstream {
	u := &upstream{loop: l, dialer: d, view: &View{}, calls: make(map[uint64]*flight), heldMax: l.bufferMax / 2, change: 1}
	l.readsMax = max(l.readsMax, fetchesMax)
	return u
}

// execute does an errand of a topic at home here, at once if it can, else when it has its turn.
func (u *upstream) execute(e *errand) {
	l := u.loop
	t := l.topics[string(e.name)]
	switch {
	case e.op == opRead:
		u.read(t, e)
		return
	case t == nil && e.op == opRefuse:
		l.answer(e)
		return
	case t == nil && (e.op == opUnsubscribe || e.op == opLeave): // it was refused, which its connection did not know yet
		if l.detach(nil, e); e.op == opUnsubscribe {
			l.answer(e)
		}
		return
	case t == nil:
		if t, e.err = l.newTopic(e.name); t == nil {
			l.answer(e)
			return
		}
	}
	f := t.follow
	t.used = l.now
	if e.op == opRefuse {
		e.payload, e.from.Epoch = nil, nil
	}
	if e.op != opUnsubscribe && e.op != opLeave && !u.hasRoom(e) { // those free memory
		if e.op != opRefuse {
			e.err = errFull(u.heldMax)
		}
		l.answer(e)
		return
	}
	u.enqueue(f, e)
	u.drive(f)
}

// hasRoom reports whether one more command may wait for its topic's owner.
func (u *upstream) hasRoom(e *errand) bool {
	size := flightSize(e)
	return u.held+size <= u.heldMax && u.loop.buffered+2*size <= u.loop.bufferMax // what is kept is rounded up
}

// look takes the newest view of the nodes.
func (u *upstream) look() {
	v := u.loop.cfg.Directory.View()
	if v == u.view {
		return
	}
	u.view = v
	before := slices.Concat(u.owners, u.left)
	owners := make([]*owner, len(v.Slots))
	for i, slot := range v.Slots {
		// By address: a node that has another slot now is the same node, and keeps its links.
		known := slices.IndexFunc(before, func(o *owner) bool { return o != nil && o.address == slot.Address })
		if known >= 0 {
			owners[i], before[known] = before[known], nil
		} else {
			owners[i] = new(owner)
			owners[i].meet(u, u.loop, u.dialer, slot.Address)
		}
		owners[i].enlist(slot)
	}
	u.owners, u.left = owners, nil
	for _, o := range before {
		if o != nil && o.depart() {
			u.left = append(u.left, o)
		}
	}
	for _, o := range owners {
		o.connect()
	}
	u.changed()
}

var upstreamPurposes = []protocol.LinkPurpose{protocol.LinkControl, protocol.LinkStream}

// purposes: what is asked is never behind megabytes of deliveries.
func (u *upstream) purposes() []protocol.LinkPurpose { return upstreamPurposes }

// changed makes every topic look again who owns it, at the end of this event.
func (u *upstream) changed() {
	u.change++
	u.sweep = true
}

// settle is called at the end of each event: topics look for their owner if anything has changed.
func (u *upstream) settle() {
	if u.choked && !slices.ContainsFunc(u.owners, (*owner).choked) {
		u.choked = false
		for _, f := range u.follows {
			if f.first != nil {
				u.drive(f)
			}
		}
	}
	for u.sweep {
		u.sweep = false
		for _, f := range u.follows {
			if f.stream != nil && f.stream.gone() {
				f.up, f.stream = upNone, nil
			}
			u.drive(f)
		}
	}
	u.left = slices.DeleteFunc(u.left, func(o *owner) bool {
		done := o.owned == 0 || !o.ready()
		if done {
			o.retire()
		}
		return done
	})
}

// choose is the node that a topic belongs to as far as can be told here; nil: there is none.
func (u *upstream) choose(f *follow) *owner {
	// A node that has a view of its own hands its topics over itself, and says when it has. Going elsewhere before would
	// make two owners.
	if o := f.owner; o != nil && o.coordinated && o.ready() && !f.moved {
		return o
	}
	n := len(u.owners)
	for attempt := range n {
		if o := u.owners[u.loop.cfg.Directory.Choice(f.hash, attempt, n)]; o.usable() {
			return o
		}
	}
	return nil
}

// number remembers that a command is sent on a link, and whose it is.
func (u *upstream) number(fl *flight, k *uplink) {
	u.id++
	fl.id, fl.link, fl.state = u.id, k, flightSent
	u.calls[fl.id] = fl
}

// call sends a command about a topic on a link.
func (u *upstream) call(fl *flight, k *uplink, appendTo func(dst []byte, id uint64) []byte) {
	u.number(fl, k)
	k.send(func(dst []byte) []byte { return appendTo(dst, fl.id) })
}

// answered takes the flight that an answer is for; nil: nobody waits for that, on this link.
func (u *upstream) answered(k *uplink, id uint64, to errandOp) *flight {
	if fl := u.calls[id]; fl == nil || fl.question() != to {
		return nil
	}
	return u.notDone(k, id)
}

// notDone takes the flight that a node says it has not carried out.
func (u *upstream) notDone(k *uplink, id uint64) *flight {
	fl := u.calls[id]
	if fl == nil || fl.link != k {
		return nil
	}
	u.forgetCall(id, fl)
	return fl
}

// lost is called when a link has ended: what was under way on it has no answer.
func (u *upstream) lost(k *uplink) {
	for _, id := range slices.Sorted(maps.Keys(u.calls)) { // in the order in which they were sent
		fl := u.calls[id]
		if fl == nil || fl.link != k {
			continue
		}
		u.forgetCall(id, fl)
		fl.link = nil
		u.unanswered(fl)
	}
	u.sweep = true
}

// forgetCall takes a command off those that are not answered.
func (u *upstream) forgetCall(id uint64, fl *flight) {
	delete(u.calls, id)
	if fl.errand.op == opHistory {
		u.pages--
	}
}

// unanswered decides what becomes of a command whose link has ended. Nobody knows whether a publish was taken; everything
// else can be asked again.
func (u *upstream) unanswered(fl *flight) {
	switch {
	case fl.fetch:
		u.fetchFailed(fl)
	case fl.asks:
		u.recycle(fl)
	case fl.storing:
		u.kept(fl, errNotStored("the message was delivered, but its owner was lost before it was known to be stored"))
	case fl.errand.op == opPublish:
		fl.follow.sent--
		fl.done(&protocol.Error{Code: protocol.CodeOutcomeUnknown, RetryAfter: retryAdvised,
			Message: "the node that owns the topic was lost before it answered: the message may or may not have been taken"})
	default:
		u.hold(fl)
	}
}
