package engine

import (
	"rayflux/protocol"
)

// What a balancer's log no longer has, or never had, is read from the owner's: a page at a time, by the cursor that wants it.

// mustFetch reports whether a subscription reads what only its topic's owner may still have.
func (t *topic) mustFetch(next uint64) bool { return t.follow != nil && next < t.start }

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
	if !t.mustFetch(e.offset) {
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
	u.callLink(fl, o.control, &protocol.LinkCommand{Op: protocol.LinkCmdFetch, HasID: true, Topic: fl.errand.name,
		Epoch: []byte(t.epoch), Offset: e.offset, Bytes: readBytesMax})
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
	if err != nil || string(ev.Epoch) != t.epoch || e.topic != t || n == 0 && ev.Start <= e.offset {
		u.fetchFailed(fl)
		return
	}
	// The log here may be further than the owner's was: what is after the page has been handed over before it. From now on
	// the reader's loop must hear again of what is withheld.
	e.start, e.head = ev.Start, max(ev.Head, t.head)
	fl.follow.ahead = max(fl.follow.ahead, ev.Head)
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

// landed brings a reader its page.
func (u *upstream) landed(fl *flight) {
	u.fetches--
	u.loop.answer(&fl.errand)
	u.recycle(fl)
}
