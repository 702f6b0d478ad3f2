package engine

import "slices"

// auditUpstream compares what a balancer's loop knows of its nodes and of the commands under way to them with what there
// is. held is the memory of its flights, which is part of buffer-memory.
func (r *rig) auditUpstream(l *loop) (held int64) {
	r.tb.Helper()
	u := l.up
	if u == nil {
		return 0
	}
	size, free, fetches := int64(0), int64(0), 0
	count := func(fl *flight) {
		size += fl.size()
		// These are not refused for want of room: they free memory, or are bounded otherwise.
		if op := fl.errand.op; fl.fetch || fl.asks || op == opLeave || op == opUnsubscribe {
			free += fl.size()
		}
		if !fl.kept.empty() {
			held += int64(cap(fl.kept.k.b))
		}
	}
	for id, fl := range u.calls {
		if fl.id != id || fl.state != flightSent && !fl.storing || fl.link == nil {
			r.tb.Fatalf("call %d is flight %d in state %d", id, fl.id, fl.state)
		}
		if fl.link.gone() {
			r.tb.Fatalf("call %d waits for an answer on a link that has ended", id)
		}
		if fl.fetch || fl.asks || fl.apart {
			count(fl)
		}
		if fl.fetch {
			fetches++
		}
	}
	if len(u.follows) != len(l.topics) || fetches != u.fetches {
		r.tb.Fatalf("%d topics are followed of %d; %d fetches are counted, there are %d", len(u.follows), len(l.topics), u.fetches, fetches)
	}
	for i, f := range u.follows {
		if f.index != i || f.topic.follow != f || l.topics[string(f.name)] != f.topic {
			r.tb.Fatalf("the follow of %q is not its topic's", f.name)
		}
		r.auditLine(u, f, count)
		r.auditFollow(u, f)
	}
	if size != u.held || u.held-free > u.heldMax {
		r.tb.Fatalf("loop %d: flights hold %d bytes, counted %d, limit %d", l.index, size, u.held, u.heldMax)
	}
	up := 0
	owned := map[*owner]int{}
	for _, f := range u.follows {
		owned[f.owner]++
	}
	for _, o := range slices.Concat(u.owners, u.left) {
		if o.owned != owned[o] {
			r.tb.Fatalf("node %s owns %d topics, counted %d", o.address, owned[o], o.owned)
		}
		for _, k := range []*uplink{o.control, o.stream} {
			if k != nil && (k.gone() || k.owner != o) {
				r.tb.Fatalf("node %s has a link that has ended", o.address)
			}
		}
		if o.ready() {
			up += 2
		} else if o.departed {
			r.tb.Fatalf("node %s has left, and is kept without links", o.address)
		} else if o.address != "" && o.dialing == 0 && !o.timer.set() {
			r.tb.Fatalf("nobody will try to link node %s", o.address)
		}
	}
	if n := l.metrics.linksUp.Load(); int(n) != up {
		r.tb.Fatalf("%d links are counted, there are %d", n, up)
	}
	return held
}

// auditLine looks through the commands that wait for one topic.
func (r *rig) auditLine(u *upstream, f *follow, count func(*flight)) {
	r.tb.Helper()
	sent, unsent, before := 0, f.unsent == nil, (*flight)(nil)
	for fl := f.first; fl != nil; fl = fl.next {
		count(fl)
		publish := fl.errand.op == opPublish
		unsent = unsent || f.unsent == fl
		switch {
		case fl.follow != f || fl.fetch || fl.asks || u.calls[fl.id] != fl && fl.state == flightSent:
			r.tb.Fatalf("a command that waits for %q is none: %+v", f.name, fl)
		case publish && fl.state == flightHeld && (!unsent || f.unsent == nil):
			r.tb.Fatalf("a publish to %q will never be sent", f.name)
		case fl.state == flightHeld && fl.errand.op.patient() && !f.timer.set():
			r.tb.Fatalf("a command that waits for %q may wait for ever", f.name)
		case fl.state == flightDone && fl == f.first && !u.sweep:
			r.tb.Fatalf("a command about %q has its outcome, and is not answered", f.name)
		}
		if publish && fl.state == flightSent {
			sent++
		}
		before = fl
	}
	if f.last != before || f.sent != sent || f.driving {
		r.tb.Fatalf("%q: %d publishes are under way, counted %d", f.name, sent, f.sent)
	}
}

// patient reports whether a command needs its topic's owner, and is given up when it has waited for long.
func (op errandOp) patient() bool { return op == opPublish || op == opSubscribe || op == opHistory }

// auditFollow looks whether a topic is followed where it says.
func (r *rig) auditFollow(u *upstream, f *follow) {
	r.tb.Helper()
	if u.sweep { // a link has ended at the end of an event
		return
	}
	switch f.up {
	case upNone:
		if f.stream != nil {
			r.tb.Fatalf("%q is followed nowhere, but on a link", f.name)
		}
		waits := f.moved && f.sent > 0 // for the answers to what is under way at the owner before
		if f.topic.subs > 0 && f.owner != nil && f.owner.ready() && f.seen == u.change && !waits && !f.timer.set() {
			r.tb.Fatalf("%q has readers, and is not asked for", f.name)
		}
	case upAsked:
		if fl := u.calls[f.asked]; fl == nil || !fl.asks || fl.follow != f || fl.link != f.stream {
			r.tb.Fatalf("%q is asked for, and no answer will come", f.name)
		}
	case upLive:
		if f.stream.gone() || f.topic.epoch == "" {
			r.tb.Fatalf("%q is followed on a link that has ended", f.name)
		}
	}
	if f.topic.subs > 0 && f.topic.epoch == "" {
		r.tb.Fatalf("%q has readers, and no epoch", f.name)
	}
}
