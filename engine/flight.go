package engine

import (
	"fmt"
	"time"

	"rayflux/protocol"
)

type flightState uint8

const (
	flightHeld flightState = iota // not sent: its turn, its owner or its link has not come
	flightSent                    // its answer is awaited
	flightDone                    // its errand has the outcome, and waits until those before it have theirs
)

// flight is an errand on its way to the node that owns its topic, with what it needs until it is answered: a publish that
// the node says belongs elsewhere is sent again. Loop-owned, pooled.
type flight struct {
	errand  errand // its bytes are in kept, but for its name, which is the follow's
	kept    buffer
	follow  *follow
	link    *uplink // that it was sent on
	id      uint64  // on that link
	state   flightState
	fetch   bool  // a page of older messages; in no line
	asks    bool  // the subscription of the topic itself; in no line, and its errand is empty
	storing bool  // a publish that was taken, and is answered once it is stored
	apart   bool  // it has had its turn in the line
	until   int64 // loop clock when a held one has waited enough
	next    *flight
}

// question is what was asked of the node.
func (fl *flight) question() errandOp {
	switch {
	case fl.fetch:
		return opFetch
	case fl.asks:
		return opSubscribe
	case fl.storing:
		return opStored
	case fl.errand.op == opSubscribe:
		return opLocate
	}
	return fl.errand.op
}

// done gives the flight its outcome: err, or what is in its errand already.
func (fl *flight) done(err *protocol.Error) {
	fl.errand.err, fl.state = err, flightDone
}

func flightSize(e *errand) int64 {
	return flightCost + int64(len(e.payload)+len(e.from.Epoch))
}

func errFull(limit int64) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: 100 * time.Millisecond,
		Message: fmt.Sprintf("commands that wait for their topics' owners have used up their %d bytes", limit)}
}

// newFlight copies an errand into a flight of a topic.
func (u *upstream) newFlight(f *follow, e *errand) *flight {
	fl := u.free
	if fl == nil {
		fl = &flight{}
	} else {
		u.free, fl.next = fl.next, nil
	}
	fl.errand, fl.follow, fl.state = *e, f, flightHeld
	u.held += flightSize(e)
	fl.errand.name = nil
	fl.kept.keepErrand(u.loop, &fl.errand)
	fl.errand.name = f.name
	fl.until = u.loop.now + int64(u.loop.cfg.HoldTimeout)
	return fl
}

// recycle forgets a flight that is in no line.
func (u *upstream) recycle(fl *flight) {
	u.held -= fl.size()
	fl.kept.release(u.loop)
	*fl = flight{next: u.free}
	u.free = fl
}

// size is what the flight was charged: its outcome may have changed the errand's payload.
func (fl *flight) size() int64 { return flightCost + int64(fl.kept.len()) }

// enqueue puts an errand at the end of its topic's line.
func (u *upstream) enqueue(f *follow, e *errand) {
	fl := u.newFlight(f, e)
	if f.last == nil {
		f.first = fl
	} else {
		f.last.next = fl
	}
	f.last = fl
	if f.unsent == nil {
		f.unsent = fl
	}
	f.wake(u.loop, fl.until)
}

// hold puts a flight back that was sent and not carried out: it has its turn again, in its place in the line.
func (u *upstream) hold(fl *flight) {
	f := fl.follow
	fl.state, f.unsent = flightHeld, f.first
	f.wake(u.loop, fl.until)
}

// drive moves a topic's line on: publishes go out as they come, everything else when it is first, and what is first and
// done is answered.
func (u *upstream) drive(f *follow) {
	if f.driving {
		return // an answer has brought the next command of the same connection: the caller goes on with it
	}
	f.driving = true
	defer func() { f.driving = false }()
	if f.topic.subs > 0 {
		u.ask(f)
	}
	for {
		u.sendPublishes(f)
		fl := f.first
		if fl == nil {
			return
		}
		if fl.state == flightHeld && fl.errand.op != opPublish {
			u.begin(f, fl)
		}
		if fl.state != flightDone {
			return
		}
		u.pop(f)
		u.finish(fl)
	}
}

func (u *upstream) pop(f *follow) {
	fl := f.first
	if f.unsent == fl {
		f.unsent = fl.next
	}
	if f.first = fl.next; f.first == nil {
		f.last = nil
	}
	fl.next = nil
}

// finish answers the errand of a flight that has left its line.
func (u *upstream) finish(fl *flight) {
	e := &fl.errand
	if fl.storing {
		fl.apart = true
		return
	}
	if e.op == opPublish && e.err == nil {
		u.loop.metrics.published.Add(1)
	}
	if e.op != opLeave {
		u.loop.answer(e)
	}
	u.recycle(fl)
}

// sendPublishes sends what is not sent yet, in order, as long as the topic has a place.
func (u *upstream) sendPublishes(f *follow) {
	for fl := f.unsent; fl != nil; fl = fl.next {
		f.unsent = fl
		if fl.errand.op != opPublish || fl.state != flightHeld {
			continue
		}
		o := u.place(f)
		if o == nil {
			return
		}
		f.sent++
		u.number(fl, o.control)
		e := &fl.errand
		cmd := protocol.Command{Op: protocol.CmdPublish, HasID: true, ID: fl.id, Topic: e.name, Kind: e.kind, Payload: e.payload, Stored: e.stored}
		out, before := o.control.conn.answers() // a closure would be an allocation for each publish
		out.b = protocol.AppendCommandFrame(out.b, &cmd)
		o.control.conn.out.settle(u.loop, before)
	}
	f.unsent, f.again = nil, false
}

// begin does or sends a command that is first in its line and no publish. It stays held where it cannot yet.
func (u *upstream) begin(f *follow, fl *flight) {
	l, e := u.loop, &fl.errand
	switch e.op {
	case opUnsubscribe, opLeave:
		l.detach(f.topic, e)
		f.read = l.now
		fl.state = flightDone
	case opRefuse:
		fl.state = flightDone
	case opSubscribe:
		u.beginSubscribe(f, fl)
	case opHistory:
		if u.pages >= pagesMax {
			fl.done(&protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: retryAdvised,
				Message: fmt.Sprintf("%d pages of history are under way, the limit", u.pages)})
		} else if o := u.place(f); o != nil {
			u.pages++
			cmd := protocol.LinkCommand{Op: protocol.LinkCmdHistory, HasID: true, Topic: e.name, From: e.from, Limit: uint64(e.size)}
			u.callLink(fl, o.control, &cmd)
		}
	}
}

// callLink sends a link command and remembers whose it is.
func (u *upstream) callLink(fl *flight, k *uplink, cmd *protocol.LinkCommand) {
	u.call(fl, k, func(dst []byte, id uint64) []byte {
		cmd.ID = id
		return protocol.AppendLinkCommandFrame(dst, cmd)
	})
}

// beginSubscribe places a new subscription: here if that can be told here, else by the owner's word.
func (u *upstream) beginSubscribe(f *follow, fl *flight) {
	l, e, t := u.loop, &fl.errand, f.topic
	if !u.ask(f) {
		return
	}
	switch from := &e.from; {
	case from.Mode == protocol.FromLive:
		head := t.head
		if f.epoch == t.epoch { // the stream may be behind what its publisher was told already
			head = max(head, f.taken)
			f.ahead = max(f.ahead, head)
		}
		l.attach(t, e, head+1, false)
	case from.Mode == protocol.FromPosition && string(from.Epoch) == t.epoch && from.Offset+1 >= t.start && from.Offset <= t.head:
		l.attach(t, e, from.Offset+1, true)
	default:
		if o := u.place(f); o != nil {
			cmd := protocol.LinkCommand{Op: protocol.LinkCmdLocate, HasID: true, Topic: e.name, From: *from}
			u.callLink(fl, o.control, &cmd)
		}
		return
	}
	fl.state = flightDone
}

// tired is what a command is told that has waited too long.
func (f *follow) tired(after time.Duration) *protocol.Error {
	if f.owner != nil && f.owner.choked() {
		return &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: retryAdvised,
			Message: fmt.Sprintf("the node that owns the topic has not taken the command within %v", after)}
	}
	return &protocol.Error{Code: protocol.CodeNoOwner, RetryAfter: retryAdvised,
		Message: fmt.Sprintf("no node that owns the topic could be reached within %v", after)}
}

// expireHeld gives up what has waited too long for an owner.
func (u *upstream) expireHeld(f *follow) {
	l := u.loop
	next := never
	for fl := f.first; fl != nil; fl = fl.next {
		switch {
		case fl.state != flightHeld || fl.errand.op == opLeave || fl.errand.op == opUnsubscribe || fl.errand.op == opRefuse:
		case fl.until <= l.now:
			fl.done(f.tired(l.cfg.HoldTimeout))
		default:
			next = min(next, fl.until)
		}
	}
	if f.pause > l.now {
		next = min(next, f.pause)
	}
	if next != never {
		f.wake(l, next)
	}
}
