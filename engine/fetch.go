package engine

import (
	"rayflux/protocol"
)

// What a balancer's log no longer has, or never had, is read from the owner's: a page at a time, by the cursor that wants it.

// mustFetch reports whether a cursor reads what the log has not: a balancer's owner may still have it, or a node's archive.
func (t *topic) mustFetch(e *errand) bool {
	return e.past != "" || e.offset < t.start && (t.follow != nil || t.keeps && e.deep)
}

// mayFetch reports whether what the log has dropped may be had for a cursor nevertheless.
func (s *subscription) mayFetch() bool {
	return s.deep || s.past != "" || s.recovers && s.mirror.topic.follow != nil
}

// read answers a reader that is behind: from the log here, or with a page of the owner's.
func (u *upstream) read(t *topic, e *errand) {
	l := u.loop
	if t == nil {
		bug("a topic with subscribers was forgotten")
	}
	if e.topic != t { // asked before the topic's epoch ended: the offset means nothing in this one
		e.err = errFetch
		l.answer(e)
		return
	}
	if !t.mustFetch(e) {
		l.readOn(e)
		return
	}
	o := u.place(t.follow)
	if o == nil || u.fetches >= u.fetchesAtOnce() {
		e.err = errFetch
		l.answer(e)
		return
	}
	fl := u.newFlight(t.follow, e)
	fl.fetch = true
	u.fetches++
	epoch := t.epoch
	if e.past != "" {
		epoch = e.past
	}
	u.callLink(fl, o.control, &protocol.LinkCommand{Op: protocol.LinkCmdFetch, HasID: true, Topic: fl.errand.name,
		Epoch: []byte(epoch), Offset: e.offset, Bytes: readBytesMax, Deep: e.recovers && o.control.knows&protocol.LinkFeatureStore != 0})
}

// fetchesAtOnce is how many stretches may be under way: each is one message at least.
func (u *upstream) fetchesAtOnce() int {
	return max(min(fetchesMax, fetchBytes/max(readBytesMax, u.loop.cfg.MaxMessage)), 1)
}

var errFetch = &protocol.Error{Code: protocol.CodeOverloaded, Message: "the owner's log cannot be read now"}

// fetchFailed sends a reader away without a page: it tries again.
func (u *upstream) fetchFailed(fl *flight) {
	fl.errand.err = errFetch
	u.landed(fl)
}

// fetched is a page of the owner's log.
func (u *upstream) fetched(k *uplink, ev *protocol.LinkEvent) {
	fl := u.answered(k, ev.ID, opFetch)
	if fl == nil {
		return
	}
	l, e, t := u.loop, &fl.errand, fl.follow.topic
	n, err := protocol.CheckLinkFrames(ev.Frames, ev.Topic, e.offset)
	past := e.past != "" && string(ev.Epoch) == e.past
	if err != nil || string(ev.Epoch) != t.epoch && !past || e.topic != t || n == 0 && (past || ev.Start <= e.offset) {
		u.fetchFailed(fl)
		return
	}
	// The log here may be further than the owner's was: what is after the page has been handed over before it. From now on
	// the reader's loop must hear again of what is withheld.
	if e.start, e.head = ev.Start, max(ev.Head, t.head); !past {
		fl.follow.ahead = max(fl.follow.ahead, ev.Head)
	}
	if t.feeds != nil {
		t.feeds[e.conn.loop.index].stale = false
	}
	e.payload = ev.Frames
	if f := e.sub.format; f != protocol.FormatBinary {
		e.payload = appendView(l.scratch[:0], f, t.name, ev.Frames)
		l.scratch = e.payload[:0]
	}
	e.offset += n - 1
	u.landed(fl)
}

// turned: the owner has nothing for a reader from there on.
func (u *upstream) turned(k *uplink, ev *protocol.LinkEvent) {
	fl := u.answered(k, ev.ID, opFetch)
	if fl == nil {
		return
	}
	e, t := &fl.errand, fl.follow.topic
	if e.topic != t || e.past == "" && string(ev.Epoch) != t.epoch { // the stream has not said yet that the epoch has ended
		u.fetchFailed(fl)
		return
	}
	e.turn = &turn{epoch: string(ev.Epoch), offset: ev.Offset, missed: ev.Missed, known: ev.HasMissed}
	if !e.deep && e.past != "" { // it may have been there before
		e.turn.offset = max(e.turn.offset, fl.follow.knownOf(e.turn.epoch))
	}
	u.landed(fl)
}

// landed brings a reader its page.
func (u *upstream) landed(fl *flight) {
	u.fetches--
	u.loop.answer(&fl.errand)
	u.recycle(fl)
}
