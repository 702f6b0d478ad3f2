package engine

import (
	"time"

	"rayflux/protocol"
)

type followState uint8

const (
	upNone  followState = iota // not subscribed at any node
	upAsked                    // subscribe is sent
	upLive                     // what the owner takes comes in
)

// follow is where a balancer's topic comes from, and the line of commands that wait for it. Loop-owned.
type follow struct {
	topic *topic
	hash  uint64

	first, last *flight
	unsent      *flight // no publish before this one is unsent

	owner *owner // the node that its commands go to; nil: none yet
	seen  uint64 // upstream.change when the owner was chosen
	sent  int    // publishes under way to it
	moved bool   // it says that the topic is elsewhere
	pause int64  // loop clock: nobody is asked before

	up     followState
	stream *uplink // where it is asked for, or live
	asked  uint64  // id of the subscribe

	epoch   string // of the newest answer to a publish: mostly the topic's
	timer   timer  // the patience of what is held, the end of a pause
	driving bool
}

// expire is the end of a pause, or of the patience of what is held.
func (f *follow) expire(l *loop) {
	u := l.up
	if f.pause <= l.now {
		f.pause = 0
	}
	u.expireHeld(f)
	u.drive(f)
}

// place is the node that a topic's commands go to now; nil: there is none, or not before what is under way at another is
// answered, so that publishes keep their order.
func (u *upstream) place(f *follow) *owner {
	if f.seen != u.change || f.moved {
		want := u.choose(f)
		if want != f.owner || f.moved {
			if f.sent > 0 {
				return nil
			}
			u.unfollow(f)
			if f.moved && want == f.owner {
				f.pause = u.loop.now + int64(movedPause) // its view is not ours yet
				u.loop.wheel.start(&f.timer, f.pause)
			}
			f.owner, f.moved = want, false
		}
		f.seen = u.change
	}
	if f.owner == nil || f.pause > u.loop.now || !f.owner.ready() {
		return nil
	}
	return f.owner
}

// ask subscribes at the owner, from where the log ends; true: that has been done, and what comes is coming.
func (u *upstream) ask(f *follow) bool {
	o := u.place(f) // first: the topic may have moved
	if f.up != upNone || o == nil {
		return f.up == upLive
	}
	t := f.topic
	cmd := protocol.Command{Op: protocol.CmdSubscribe, HasID: true, Topic: []byte(t.name)}
	if t.epoch != "" {
		cmd.From = protocol.From{Mode: protocol.FromPosition, Epoch: []byte(t.epoch), Offset: t.head}
	}
	fl := u.newFlight(f, &errand{})
	fl.asks = true
	u.call(fl, o.stream, func(dst []byte, id uint64) []byte {
		cmd.ID = id
		return protocol.AppendCommandFrame(dst, &cmd)
	})
	f.up, f.stream, f.asked = upAsked, o.stream, fl.id
	return false
}

// unfollow ends the topic's subscription at its owner.
func (u *upstream) unfollow(f *follow) {
	if f.stream != nil && !f.moved {
		name := []byte(f.topic.name)
		f.stream.send(func(dst []byte) []byte {
			return protocol.AppendCommandFrame(dst, &protocol.Command{Op: protocol.CmdUnsubscribe, Topic: name})
		})
	}
	f.up, f.stream = upNone, nil
}

// subscribed: from here on the owner's messages come, and each one once.
func (u *upstream) subscribed(k *uplink, ev *protocol.Event) {
	fl := u.answered(ev.ID)
	if fl == nil || !fl.asks {
		return
	}
	f := fl.follow
	u.recycle(fl)
	if f.up != upAsked || f.stream != k || f.asked != ev.ID {
		return
	}
	f.up = upLive
	switch t := f.topic; {
	case t.epoch == "": // nobody has seen it yet
		t.epoch, t.head, t.start = ev.Epoch, ev.Offset, ev.Offset+1
	case t.epoch != ev.Epoch:
		u.reset(f, ev.Epoch, ev.Offset)
	case ev.Offset != t.head:
		u.skip(f, ev.Offset)
	}
	u.drive(f)
}

// take appends a message of the owner's to the topic's log.
func (u *upstream) take(k *uplink, name []byte, offset uint64, frame []byte) {
	l, t := u.loop, u.recent
	if t == nil || t.name != string(name) {
		if t = l.topics[string(name)]; t == nil {
			return // its last reader has just left
		}
		u.recent = t
	}
	f := t.follow
	if f.up != upLive || f.stream != k || offset <= t.head {
		return
	}
	if offset != t.head+1 {
		u.skip(f, offset-1)
	}
	t.appendFrame(l, frame)
	l.soil(t)
}

// gap: the stream skips messages. What has not left the owner's log yet is fetched by the readers that want it, and who
// comes too late is told by the cursor that finds it gone.
func (u *upstream) gap(k *uplink, ev *protocol.Event) {
	t := u.loop.topics[ev.Topic]
	if t == nil || t.follow.up != upLive || t.follow.stream != k {
		return
	}
	if ev.Epoch != t.epoch {
		u.reset(t.follow, ev.Epoch, ev.Offset)
	} else if ev.Offset > t.head {
		u.skip(t.follow, ev.Offset)
	}
}

// skip empties the topic's log and goes on behind offset: a log has no holes. Its readers read the owner's from now on, until
// they are here again.
func (u *upstream) skip(f *follow, offset uint64) {
	t := f.topic
	u.clear(t)
	t.head, t.start = offset, offset+1
	u.eachFeed(t, mailStale)
}

// clear takes everything out of a topic's log, after handing over what is not yet.
func (u *upstream) clear(t *topic) {
	if t.frontCount > 0 || len(u.loop.sealed) > 0 {
		u.loop.flush()
	}
	for t.oldest != nil {
		t.drop(u.loop)
	}
}

// eachFeed tells every loop that has subscribers of a topic.
func (u *upstream) eachFeed(t *topic, kind mailKind) {
	l := u.loop
	for i := range t.feeds {
		m := t.feeds[i].mirror
		switch to := l.peers[i]; {
		case t.feeds[i].subs == 0:
		case to != l:
			_, letter := l.letter(to, kind, 0, 0)
			letter.mirror, letter.topic = m, t
		case kind == mailReset:
			m.reset(l, t)
		default:
			m.strand(l)
		}
	}
}

// reset begins a new life of a topic's numbering, which stands at offset. Its readers are told, and read it from its first
// message on. Other loops read a topic's epoch, which therefore never changes: it is another topic, in the place of the old.
func (u *upstream) reset(f *follow, epoch string, offset uint64) {
	l, old := u.loop, f.topic
	u.clear(old)
	old.timer.stop()
	t := &topic{name: old.name, epoch: epoch, slow: old.slow, head: offset, start: offset + 1,
		bytesMax: old.bytesMax, ageMax: old.ageMax, feeds: old.feeds, subs: old.subs, used: l.now, follow: f}
	t.timer.owner = t
	l.wheel.start(&t.timer, l.now+int64(l.cfg.FollowLinger))
	f.topic, u.recent = t, nil
	l.topics[t.name] = t
	u.eachFeed(t, mailReset)
}

// published is the owner's answer to a publish.
func (u *upstream) published(id uint64, epoch []byte, offset uint64) {
	fl := u.answered(id)
	if fl == nil {
		return
	}
	f := fl.follow
	f.sent--
	if f.epoch != string(epoch) {
		f.epoch = string(epoch)
	}
	e := &fl.errand
	e.topic, e.epoch, e.offset = f.topic, f.epoch, offset
	fl.done(nil)
	u.drive(f)
}

// located is the owner's word where a subscription begins.
func (u *upstream) located(ev *protocol.LinkEvent) {
	fl := u.answered(ev.ID)
	if fl == nil {
		return
	}
	f, e := fl.follow, &fl.errand
	t := f.topic
	next, whole := ev.Offset+1, ev.Whole
	if string(ev.Epoch) != t.epoch { // the stream has not said so yet, or has already
		next, whole = t.head+1, false
	}
	u.loop.attach(t, e, next, whole)
	fl.done(nil)
	u.drive(f)
}

// paged is the owner's answer to a history request.
func (u *upstream) paged(ev *protocol.LinkEvent) {
	fl := u.answered(ev.ID)
	if fl == nil {
		return
	}
	fl.errand.status = ev.Status
	fl.page(u.loop, ev.Body)
	u.drive(fl.follow)
}

// page makes b the outcome of the flight: it may have to wait for those before it, so it is kept.
func (fl *flight) page(l *loop, b []byte) {
	at := fl.kept.len()
	fl.errand.name = nil // growing moves what is kept
	fl.kept.append(l, b)
	fl.errand.payload = fl.kept.bytes()[at:]
	l.up.held += int64(len(b))
	fl.done(nil)
}

// refused is an error that names a command.
func (u *upstream) refused(ev *protocol.Event) {
	fl := u.answered(ev.ID)
	if fl == nil || !ev.HasID {
		return
	}
	f := fl.follow
	err := &protocol.Error{Code: ev.Code, Message: ev.Message, RetryAfter: time.Duration(ev.RetryAfterMs) * time.Millisecond}
	switch {
	case fl.fetch:
		u.fetchFailed(fl)
		return
	case fl.asks:
		u.recycle(fl)
		if f.up == upAsked && f.asked == ev.ID {
			u.refusedFollow(f, err)
		}
	case fl.errand.op == opPublish:
		f.sent--
		if err.Code == protocol.CodeDraining { // it was not taken
			fl.state, f.moved, f.unsent = flightHeld, true, f.first
			break
		}
		fl.done(err)
	default:
		fl.done(err)
	}
	u.drive(f)
}

// refusedFollow: the owner will not have the topic subscribed to. Who waits for that is told; who reads already waits on.
func (u *upstream) refusedFollow(f *follow, err *protocol.Error) {
	f.up, f.stream = upNone, nil
	f.pause = u.loop.now + int64(retryAdvised)
	u.loop.wheel.start(&f.timer, f.pause)
	for fl := f.first; fl != nil; fl = fl.next {
		if fl.errand.op == opSubscribe && fl.state == flightHeld {
			fl.done(err)
		}
	}
}

// moved: a command was not carried out, or a subscription has ended, as the topic is elsewhere.
func (u *upstream) moved(k *uplink, ev *protocol.LinkEvent) {
	if !ev.HasID {
		if t := u.loop.topics[string(ev.Topic)]; t != nil && t.follow.stream == k {
			t.follow.moved, t.follow.up, t.follow.stream = true, upNone, nil
			u.drive(t.follow)
		}
		return
	}
	fl := u.answered(ev.ID)
	if fl == nil {
		return
	}
	f := fl.follow
	switch {
	case fl.fetch:
		u.fetchFailed(fl)
		return
	case fl.asks:
		u.recycle(fl)
		if f.up == upAsked && f.asked == ev.ID {
			f.up, f.stream = upNone, nil
		}
	case fl.errand.op == opPublish:
		f.sent--
		fallthrough
	default:
		fl.state, f.unsent = flightHeld, f.first
	}
	if f.owner == k.owner {
		f.moved = true
	}
	u.drive(f)
}

// expireTopic is the end of a topic's timer in a balancer: one that nobody reads is not followed for long, and forgotten.
func (u *upstream) expireTopic(t *topic) {
	l, f := u.loop, t.follow
	linger := int64(l.cfg.FollowLinger)
	idle := t.subs == 0 && f.first == nil && f.sent == 0
	if !idle || l.now-t.used < linger {
		at := l.now + linger
		if idle {
			at = t.used + linger
		}
		l.wheel.start(&t.timer, at)
		return
	}
	u.unfollow(f)
	u.clear(t)
	f.timer.stop()
	if u.recent == t {
		u.recent = nil
	}
	l.forget(t)
}
