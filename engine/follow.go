package engine

import (
	"slices"
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
	name  []byte // the topic's
	hash  uint64
	index int // in upstream.follows

	first, last *flight
	unsent      *flight // no publish before this one is unsent

	owner *owner // the node that its commands go to; nil: none yet
	seen  uint64 // upstream.change when the owner was chosen
	sent  int    // publishes under way to it
	moved bool   // it says that the topic is elsewhere
	again bool   // publishes that it has turned away are to be sent again
	pause int64  // loop clock: nobody is asked before

	up     followState
	stream *uplink // where it is asked for, or live
	asked  uint64  // id of the subscribe

	past  []life // earlier epochs, the latest last
	ahead uint64 // the newest offset of this one that a reader may have had from the owner, and not from the log here

	epoch   string // of the newest answer to a publish: mostly the topic's
	taken   uint64 // the highest offset of such an answer in that epoch
	read    int64  // loop clock when its last reader was seen
	timer   timer  // the patience of what is held, the end of a pause
	wakeAt  int64  // when that is due
	driving bool
}

// life is an epoch that has ended here, and up to where its readers have been. A node that was out of reach may come back
// with it: they must not get a message twice.
type life struct {
	epoch string
	head  uint64
}

// livesMax is how many are remembered. A node has one at a time, so that only as many can come back as there are nodes
// that were not away for good.
const livesMax = 8

// end remembers an epoch and returns up to where readers have been in the one that begins.
func (f *follow) end(old *topic, epoch string) (known uint64) {
	f.past = append(f.past, life{old.epoch, max(old.head, f.ahead)})
	if i := slices.IndexFunc(f.past, func(p life) bool { return p.epoch == epoch }); i >= 0 {
		known = f.past[i].head
		f.past = slices.Delete(f.past, i, i+1)
	}
	if len(f.past) > livesMax {
		f.past = slices.Delete(f.past, 0, 1)
	}
	f.ahead = known
	return known
}

// knownOf is up to where readers have been in an epoch.
func (f *follow) knownOf(epoch string) uint64 {
	if epoch == f.topic.epoch {
		return f.topic.known
	}
	for _, p := range f.past {
		if p.epoch == epoch {
			return p.head
		}
	}
	return 0
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

// wake sets the timer to a time, if it would come later.
func (f *follow) wake(l *loop, at int64) {
	if !f.timer.set() || at < f.wakeAt {
		f.wakeAt = at
		l.wheel.start(&f.timer, at)
	}
}

// belong makes a node, or none, the one that the topic's commands go to.
func (f *follow) belong(o *owner) {
	if f.owner != nil {
		f.owner.owned--
	}
	if f.owner = o; o != nil {
		o.owned++
	}
}

// rest makes that no node is asked for a while.
func (f *follow) rest(l *loop, d time.Duration) {
	f.pause = l.now + int64(d)
	f.wake(l, f.pause)
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
				f.rest(u.loop, movedPause) // its view is not ours yet
			}
			f.belong(want)
			f.moved = false
		}
		f.seen = u.change
	}
	if f.owner == nil || f.pause > u.loop.now || !f.owner.ready() {
		return nil
	}
	if f.owner.control.choked() {
		u.choked = true
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
	cmd := protocol.Command{Op: protocol.CmdSubscribe, HasID: true, Topic: f.name}
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
	if f.stream != nil {
		f.stream.send(func(dst []byte) []byte {
			return protocol.AppendCommandFrame(dst, &protocol.Command{Op: protocol.CmdUnsubscribe, Topic: f.name})
		})
	}
	f.up, f.stream = upNone, nil
}

// subscribed: from here on the owner's messages come, and each one once.
func (u *upstream) subscribed(k *uplink, ev *protocol.Event) {
	fl := u.answered(k, ev.ID, opSubscribe)
	if fl == nil {
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
		t.epoch, t.head, t.start, t.surveyed = ev.Epoch, ev.Offset, ev.Offset+1, ev.Offset
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
	hole := offset != t.head+1
	if hole {
		u.skip(f, offset-1)
	}
	t.appendFrame(l, frame)
	l.soil(t)
	if hole {
		u.drive(f)
	}
}

// gap: the stream skips messages. What has not left the owner's log yet is fetched by the readers that want it, and who
// comes too late is told by the cursor that finds it gone.
func (u *upstream) gap(k *uplink, ev *protocol.Event) {
	t := u.loop.topics[ev.Topic]
	if t == nil || t.follow.up != upLive || t.follow.stream != k {
		return
	}
	f := t.follow
	if ev.Epoch != t.epoch {
		u.reset(f, ev.Epoch, ev.Offset)
	} else if ev.Offset > t.head {
		u.skip(f, ev.Offset)
	}
	u.drive(f)
}

// skip empties the topic's log and goes on behind offset: a log has no holes. Its readers read the owner's from now on, until
// they are here again.
func (u *upstream) skip(f *follow, offset uint64) {
	defer f.stand()()
	t := f.topic
	u.clear(t)
	t.head, t.start, t.surveyed = offset, offset+1, offset
	u.eachFeed(t, mailStale, 0)
}

// clear takes everything out of a topic's log, after handing over what is not yet.
func (u *upstream) clear(t *topic) {
	if t.frontCount > 0 || len(u.loop.sealed) > 0 {
		u.loop.flush()
	}
	gone := t.gone // its owner may still have them all
	for t.oldest != nil {
		t.drop(u.loop)
	}
	t.gone = gone
}

// stand keeps the topic's line from moving until what it returns is called, after which the caller drives it: a reader that
// ends over what it is told would else let the next command be answered, ahead of what other loops are still to be told.
func (f *follow) stand() (moveOn func()) {
	was := f.driving
	f.driving = true
	return func() { f.driving = was }
}

// eachFeed tells every loop that has subscribers of a topic. known is up to where readers have been before a reset.
func (u *upstream) eachFeed(t *topic, kind mailKind, known uint64) {
	l := u.loop
	for i := range t.feeds {
		m := t.feeds[i].mirror
		switch to := l.peers[i]; {
		case t.feeds[i].subs == 0:
		case to != l:
			_, letter := l.letter(to, kind, 0, 0)
			letter.mirror, letter.topic = m, t
			letter.errand.offset, letter.errand.head = known, t.head
		case kind == mailReset:
			m.reset(l, t, known, t.head)
		default:
			m.strand(l)
		}
	}
}

// reset begins a new life of a topic's numbering, which stands at offset. Its readers are told, and read it from its first
// message on, or from where they left it. Other loops read a topic's epoch, which therefore never changes: it is another
// topic, in the place of the old.
func (u *upstream) reset(f *follow, epoch string, offset uint64) {
	defer f.stand()()
	l, old := u.loop, f.topic
	u.clear(old)
	old.timer.stop()
	t := &topic{name: old.name, epoch: epoch, slow: old.slow, head: offset, start: offset + 1, gone: 1,
		bytesMax: old.bytesMax, ageMax: old.ageMax, feeds: old.feeds, subs: old.subs, used: l.now, surveyed: offset, follow: f,
		recalls: f.stream != nil && f.stream.knows&protocol.LinkFeatureStore != 0, known: f.end(old, epoch)}
	t.timer.owner = t
	l.wheel.start(&t.timer, l.now+int64(l.cfg.FollowLinger))
	f.topic, u.recent = t, nil
	l.topics[t.name] = t
	u.eachFeed(t, mailReset, t.known)
}

// published is the owner's answer to a publish.
func (u *upstream) published(k *uplink, id uint64, epoch []byte, offset uint64) {
	fl := u.answered(k, id, opPublish)
	if fl == nil {
		return
	}
	f := fl.follow
	f.sent--
	if f.again {
		u.overtaken(f, fl)
	}
	if f.epoch != string(epoch) {
		f.epoch, f.taken = string(epoch), 0
	}
	f.taken = max(f.taken, offset)
	e := &fl.errand
	e.topic, e.epoch, e.offset = f.topic, f.epoch, offset
	fl.done(nil)
	if e.stored && k.knows&protocol.LinkFeatureStore != 0 {
		fl.storing = true
		u.calls[id] = fl
	}
	u.drive(f)
}

// stored is the owner's word about a publish that it has answered before.
func (u *upstream) stored(k *uplink, ev *protocol.LinkEvent) {
	fl := u.answered(k, ev.ID, opStored)
	if fl == nil {
		return
	}
	var err *protocol.Error
	if ev.Refused {
		err = errNotStored(string(ev.Body))
	}
	u.kept(fl, err)
}

// kept answers a publish that was taken before, as soon as those before it are.
func (u *upstream) kept(fl *flight, err *protocol.Error) {
	fl.storing, fl.errand.err = false, err
	if fl.apart {
		u.finish(fl)
	}
}

// overtaken gives up the publishes that a node has turned away before it took a later one, as the topic came to it in between:
// sent again they would be behind it.
func (u *upstream) overtaken(f *follow, by *flight) {
	for fl := f.first; fl != nil && fl != by; fl = fl.next {
		if fl.errand.op == opPublish && fl.state == flightHeld {
			fl.done(&protocol.Error{Code: protocol.CodeNoOwner, RetryAfter: retryAdvised,
				Message: "the topic was on its way to another node: the message was not taken"})
		}
	}
}

// located is the owner's word where a subscription begins.
func (u *upstream) located(k *uplink, ev *protocol.LinkEvent) {
	fl := u.answered(k, ev.ID, opLocate)
	if fl == nil {
		return
	}
	f, e := fl.follow, &fl.errand
	t := f.topic
	next, whole, past := ev.Offset+1, ev.Whole, string(ev.Epoch)
	switch {
	case f.up != upLive || f.owner != k.owner: // the topic has another place by now, whose word counts
		u.hold(fl)
		u.drive(f)
		return
	case ev.Past && past != t.epoch:
	case past != t.epoch: // the stream has not said so yet, or has already
		next, whole = t.head+1, false
	default:
		f.ahead = max(f.ahead, ev.Offset)
	}
	u.loop.attach(t, e, next, whole)
	if ev.Past && past != t.epoch {
		e.past, e.epoch = past, past
	}
	fl.done(nil)
	u.drive(f)
}

// paged is the owner's answer to a history request.
func (u *upstream) paged(k *uplink, ev *protocol.LinkEvent) {
	fl := u.answered(k, ev.ID, opHistory)
	if fl == nil {
		return
	}
	fl.errand.status, fl.errand.whole = ev.Status, ev.Whole
	fl.page(u.loop, ev.Body)
	u.drive(fl.follow)
}

// page makes b the outcome of the flight: it may have to wait for those before it, so it is kept.
func (fl *flight) page(l *loop, b []byte) {
	at := fl.kept.len()
	fl.errand.from.Epoch = nil // growing moves what is kept
	fl.kept.append(l, b)
	fl.errand.payload = fl.kept.bytes()[at:]
	l.up.held += int64(len(b))
	fl.done(nil)
}

// refused is an error that names a command.
func (u *upstream) refused(k *uplink, ev *protocol.Event) {
	fl := u.notDone(k, ev.ID)
	if fl == nil {
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
			if err.Code == protocol.CodeAlreadySubscribed { // an earlier subscription has not ended there: it does now
				u.unfollow(f)
				f.rest(u.loop, movedPause)
				break
			}
			u.refusedFollow(f, err)
		}
	case fl.errand.op == opPublish:
		f.sent--
		fl.done(err)
	default:
		fl.done(err)
	}
	u.drive(f)
}

// refusedFollow: the owner will not have the topic subscribed to. Who waits for that is told; who reads already waits on.
func (u *upstream) refusedFollow(f *follow, err *protocol.Error) {
	f.up, f.stream = upNone, nil
	if f.topic.subs > 0 {
		f.rest(u.loop, retryAdvised)
	}
	for fl := f.first; fl != nil; fl = fl.next {
		if fl.errand.op == opSubscribe && fl.state == flightHeld {
			fl.done(err)
		}
	}
}

// moved: a command was not carried out, or a subscription has ended, as the topic is elsewhere.
func (u *upstream) moved(k *uplink, ev *protocol.LinkEvent) {
	k.owner.sees(ev.Fingerprint)
	if !ev.HasID {
		// One that is asked for again has not ended: this is about the subscription before.
		if t := u.loop.topics[string(ev.Topic)]; t != nil && t.follow.stream == k && t.follow.up == upLive {
			t.follow.moved, t.follow.up, t.follow.stream = true, upNone, nil
			u.hurry(t.follow)
			u.drive(t.follow)
		}
		return
	}
	fl := u.notDone(k, ev.ID)
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
		f.again = true
		fallthrough
	default:
		u.hold(fl)
	}
	if f.owner == k.owner {
		f.moved = true
		u.hurry(f)
	}
	u.drive(f)
}

// hurry tries to reach the nodes that a topic would rather belong to than to the one that has just turned it away: it may be there.
func (u *upstream) hurry(f *follow) {
	n := len(u.owners)
	for attempt := range n {
		o := u.owners[u.loop.cfg.Directory.Choice(f.hash, attempt, n)]
		if o == f.owner {
			return
		}
		if !o.ready() && o.hurried+int64(movedPause) <= u.loop.now {
			o.hurried = u.loop.now
			o.hurry()
		}
	}
}

// expireTopic is the end of a topic's timer in a balancer: one that nobody reads is not followed for long, and one that
// nobody uses is forgotten.
func (u *upstream) expireTopic(t *topic) {
	l, f := u.loop, t.follow
	linger := int64(l.cfg.FollowLinger)
	if t.subs > 0 {
		f.read = l.now
	}
	busy := t.subs > 0 || f.first != nil || f.sent > 0
	if !busy && f.up != upNone && l.now-f.read >= linger {
		u.unfollow(f)
	}
	if busy || l.now-t.used < linger {
		at := l.now + max(min(linger, t.ageMax*int64(time.Millisecond)), int64(100*time.Millisecond))
		if !busy {
			at = min(at, max(t.used, f.read)+linger)
		}
		l.wheel.start(&t.timer, at)
		return
	}
	u.unfollow(f)
	f.belong(nil)
	u.clear(t)
	f.timer.stop()
	if u.recent == t {
		u.recent = nil
	}
	last := u.follows[len(u.follows)-1]
	u.follows[f.index], last.index = last, f.index
	u.follows[len(u.follows)-1] = nil
	u.follows = u.follows[:len(u.follows)-1]
	l.forget(t)
}

// newFollow makes that a topic's messages come from its owner.
func (u *upstream) newFollow(t *topic) {
	f := &follow{topic: t, name: []byte(t.name), hash: u.loop.hash([]byte(t.name)), index: len(u.follows)}
	f.timer.owner = f
	u.follows = append(u.follows, f)
	t.epoch, t.follow = "", f // its owner numbers its messages
	u.loop.wheel.start(&t.timer, u.loop.now+int64(u.loop.cfg.FollowLinger))
}
