package engine

import "rayflux/protocol"

// audit compares every account that the loops keep with what there is. It may run between any two events.
func (r *rig) audit() {
	r.tb.Helper()
	topics := int64(0)
	connections := int64(0)
	for _, l := range r.loops {
		r.auditConns(l)
		r.auditChunks(l)
		r.auditMirrors(l)
		topics += int64(len(l.topics))
		for _, c := range l.conns {
			if !c.ours {
				connections++
			}
		}
		if len(l.answering) > 0 || l.tally != (tally{}) {
			r.tb.Fatalf("loop %d ended an event with %d unsent answers and the tally %+v", l.index, len(l.answering), l.tally)
		}
		if l.outgoing {
			r.tb.Fatalf("loop %d ended an event with mail that it has not sent", l.index)
		}
	}
	if n := r.shared.topics.Load(); n != topics || n > int64(r.cfg.MaxTopics) {
		r.tb.Fatalf("%d topics are counted, there are %d, limit %d", n, topics, r.cfg.MaxTopics)
	}
	if n := r.shared.connections.Load(); n != connections || n > int64(r.cfg.MaxConnections) {
		r.tb.Fatalf("%d connections are counted, there are %d, limit %d", n, connections, r.cfg.MaxConnections)
	}
}

// auditConns holds what connections keep against buffer-memory and against each connection's own limits.
func (r *rig) auditConns(l *loop) {
	r.tb.Helper()
	held, ours := r.auditUpstream(l), int64(0)
	for i, c := range l.conns {
		if int(c.index) != i || c.closed {
			r.tb.Fatalf("connection %d of loop %d: index %d, closed %v", i, l.index, c.index, c.closed)
		}
		if c.out.len() > c.answersMax {
			r.tb.Fatalf("%d bytes of answers wait, limit %d", c.out.len(), c.answersMax)
		}
		if c.blocked() && !c.lag.waiting() {
			r.tb.Fatal("a connection waits for the kernel, but nothing will try again")
		}
		if c.places != nil && len(c.places) != len(c.subs) {
			r.tb.Fatalf("a connection knows the places of %d subscriptions, and has %d", len(c.places), len(c.subs))
		}
		held += bytesHeld(c)
		if c.ours && !c.in.empty() {
			ours += int64(cap(c.in.k.b))
		}
		r.auditLag(c)
		for _, s := range c.subs {
			if s.state == subGone || s.conn != c {
				r.tb.Fatalf("a subscription of a connection is in state %d", s.state)
			}
			if c.subscriptionTo([]byte(s.mirror.name)) != s {
				r.tb.Fatalf("a connection does not find its subscription to %q", s.mirror.name)
			}
		}
	}
	for i := range l.retries.slots {
		for t := l.retries.slots[i].next; t != &l.retries.slots[i]; t = t.next {
			if g := t.owner.(*lag); g.conn == nil || g.conn.closed || g.conn.lag != g {
				r.tb.Fatal("a retry is set for a connection that is gone")
			}
		}
	}
	if l.estate != nil {
		held += l.estate.bytesKept()
	}
	if l.keeper != nil {
		held += l.keeper.bytesKept()
	}
	if held != l.buffered || held-ours > l.bufferMax {
		r.tb.Fatalf("loop %d: %d bytes of buffers are counted, there are %d, limit %d", l.index, l.buffered, held, l.bufferMax)
	}
}

// bytesKept is the buffers of all that is held.
func (s *estate) bytesKept() (n int64) {
	for _, h := range s.holds {
		for w := h.first; w != nil; w = w.next {
			if !w.kept.empty() {
				n += int64(cap(w.kept.k.b))
			}
		}
	}
	return n
}

func (g *lag) waiting() bool { return g != nil && g.timer.set() }

func bytesHeld(c *conn) (n int64) {
	held := []*buffer{&c.in, &c.out, &c.tail}
	switch role := c.role.(type) {
	case *httpRole:
		if k := role.chunked; k != nil {
			held = append(held, &k.head, &k.body)
		}
	case *nativeRole:
		n += int64(role.held)
	case *linkRole:
		n += int64(role.held)
	case *classicRole:
		n += int64(role.held)
	}
	for _, b := range held {
		if !b.empty() {
			n += int64(cap(b.k.b))
		}
	}
	return n
}

// auditLag looks for subscriptions that are behind and that nothing will bring on.
func (r *rig) auditLag(c *conn) {
	r.tb.Helper()
	g := c.lag
	reading, waiting := false, false
	for _, s := range c.subs {
		if s.state != subLagging {
			continue
		}
		waiting = true
		if g == nil {
			r.tb.Fatal("a subscription is behind, but its connection is not")
		}
	}
	if g != nil {
		for _, s := range g.line.waiting() { // one that has ended counts as well: its answer wakes the others
			reading = reading || s.reading
		}
	}
	if waiting && !reading && !g.timer.set() {
		r.tb.Fatal("a subscription is behind, and neither a retry nor an answer will bring it on")
	}
}

// auditChunks holds the logs against log-memory, and their lists against one another.
func (r *rig) auditChunks(l *loop) {
	r.tb.Helper()
	inUse, n := int64(0), 0
	for _, t := range l.topics {
		bytes, next := int64(0), t.start
		for c := t.oldest; c != nil; c = c.next {
			if c.topic != t || c.dead || c.first != next || c.count == 0 || c.next == nil && c != t.newest {
				r.tb.Fatalf("topic %q: chunk of offsets %d to %d where %d is expected; dead %v", t.name, c.first, c.after(), next, c.dead)
			}
			if c.offered > 0 && c.offered != skipUnits(c.buf, protocol.FormatBinary, min(t.offered+1, c.after())-c.first) {
				r.tb.Fatalf("topic %q: of the chunk from offset %d %d bytes were offered, and all up to offset %d", t.name, c.first, c.offered, t.offered)
			}
			next = c.after()
			bytes += c.cost()
			n++
		}
		if next != t.head+1 || bytes != t.bytes || uint64(t.frontCount) > t.head {
			r.tb.Fatalf("topic %q: log ends before %d with head %d; %d bytes, counted %d", t.name, next, t.head, bytes, t.bytes)
		}
		if t.bytes > t.bytesMax && t.oldest != t.newest {
			r.tb.Fatalf("topic %q: %d bytes in several chunks, limit %d", t.name, t.bytes, t.bytesMax)
		}
		if t.frontCount > 0 && !t.dirty {
			r.tb.Fatalf("topic %q has messages that nobody will seal", t.name)
		}
		inUse += bytes
	}
	if l.estate != nil {
		for _, in := range l.estate.incoming {
			for c := in.topic.oldest; c != nil; c = c.next {
				inUse += c.cost()
				n++
			}
		}
	}
	for c := l.chunks.oldest; c != nil; c = c.newer {
		if n--; c.newer == nil && c != l.chunks.newest {
			r.tb.Fatal("the order of chunks has two ends")
		}
	}
	if n != 0 || inUse+l.chunks.dying != l.chunks.used || l.topicBytes != int64(len(l.topics))*topicCost+l.dormantBytes() {
		r.tb.Fatalf("loop %d: chunks %+v, in logs %d bytes and %d chunks more; %d topics, %d bytes", l.index, l.chunks.used, inUse, n, len(l.topics), l.topicBytes)
	}
	free := int64(0)
	for _, list := range l.chunks.free {
		for _, c := range list {
			free += c.cost()
		}
	}
	if free != l.chunks.freeBytes || free > l.chunks.freeMax {
		r.tb.Fatalf("loop %d: %d free bytes, counted %d, limit %d", l.index, free, l.chunks.freeBytes, l.chunks.freeMax)
	}
	if l.viewBytes < 0 || l.chunks.dying < 0 {
		r.tb.Fatalf("loop %d: %d bytes of views, %d dying", l.index, l.viewBytes, l.chunks.dying)
	}
}

// auditMemory holds a loop's logs against its share, right after a flush: past it only what cannot go is left, which is
// the newest chunk of all and those with messages that are not sealed yet.
func (r *rig) auditMemory(l *loop) {
	r.tb.Helper()
	c := l.chunks.oldest
	if l.logBytes()-l.chunks.dying > l.logMax && c != nil && c != l.chunks.newest && (c != c.topic.newest || c.topic.frontCount == 0) {
		r.tb.Fatalf("loop %d: logs are %d bytes, of which %d dying, limit %d", l.index, l.logBytes(), l.chunks.dying, l.logMax)
	}
}

// auditMirrors compares the lists of subscribers with the subscriptions.
func (r *rig) auditMirrors(l *loop) {
	r.tb.Helper()
	subs := map[*mirror]int{}
	total := 0
	for _, c := range l.conns {
		for _, s := range c.subs {
			subs[s.mirror]++
			total++
			if l.mirrors[s.mirror.name] != s.mirror {
				r.tb.Fatalf("a subscription to %q has a mirror of its own", s.mirror.name)
			}
		}
	}
	for name, m := range l.mirrors {
		if m.subs != subs[m] || m.subs == 0 {
			r.tb.Fatalf("mirror of %q counts %d subscriptions, there are %d", name, m.subs, subs[m])
		}
		for state, list := range map[subState][]*subscription{subLive: m.live, subJoining: m.joining} {
			for i, s := range list {
				if int(s.at) != i || s.state != state || s.mirror != m {
					r.tb.Fatalf("mirror of %q: subscriber %d of state %d thinks it is %d of %d", name, i, state, s.at, s.state)
				}
			}
		}
	}
	if n := l.metrics.subscriptions.Load(); n != int64(total) {
		r.tb.Fatalf("loop %d counts %d subscriptions, has %d", l.index, n, total)
	}
}

// auditRest is audit for loops that have come to rest: nothing is under way, and homes and mirrors agree.
func (r *rig) auditRest() {
	r.tb.Helper()
	r.audit()
	for _, l := range r.loops {
		if l.mailbox.arrived.Load() != nil || l.mailbox.pending.Load() != 0 {
			r.tb.Fatalf("loop %d: %d bytes of mail at rest", l.index, l.mailbox.pending.Load())
		}
		if len(l.dirty) > 0 || len(l.sealed) > 0 || len(l.inPass) > 0 || len(l.dirtyConns) > 0 || len(l.pendings) != 1 {
			r.tb.Fatalf("loop %d has something to flush at rest", l.index)
		}
		l.begin()
		l.finish() // takes back what others released last
		if l.viewBytes != 0 || l.chunks.dying != 0 {
			r.tb.Fatalf("loop %d: %d bytes of views and %d of dying chunks at rest", l.index, l.viewBytes, l.chunks.dying)
		}
		for _, t := range l.topics {
			r.auditFeeds(t)
			for c := t.oldest; c != nil; c = c.next {
				if c.inflight != 0 {
					r.tb.Fatalf("topic %q: a chunk is in %d batches at rest", t.name, c.inflight)
				}
			}
		}
	}
}

// auditFeeds compares what a topic's home knows of its subscribers with what their loops know.
func (r *rig) auditFeeds(t *topic) {
	r.tb.Helper()
	total := 0
	for i, l := range r.loops {
		m := l.mirrors[t.name]
		var f feed
		if t.feeds != nil {
			f = t.feeds[i]
		}
		if m == nil {
			if f.subs != 0 || f.mirror != nil {
				r.tb.Fatalf("topic %q: home counts %d subscribers on loop %d, which has none", t.name, f.subs, i)
			}
			continue
		}
		wants := [protocol.NumFormats]int32{}
		for _, c := range l.conns {
			for _, s := range c.subs {
				if s.mirror == m {
					wants[s.format]++
				}
			}
		}
		if f.mirror != m || int(f.subs) != m.subs || f.wants != wants {
			r.tb.Fatalf("topic %q: home counts %d subscribers %v on loop %d, which has %d %v", t.name, f.subs, f.wants, i, m.subs, wants)
		}
		total += m.subs
	}
	if t.subs != total {
		r.tb.Fatalf("topic %q counts %d subscribers, there are %d", t.name, t.subs, total)
	}
}

// bytesKept is the memory of what waits for the archive.
func (k *keeper) bytesKept() (n int64) {
	kept := func(b *buffer) {
		if b.k != nil {
			n += int64(cap(b.k.b))
		}
	}
	for _, of := range []map[*inquiry]struct{}{k.asking, k.reads} {
		for q := range of {
			kept(&q.kept)
			n += inquiryCost
			for w := q.first; w != nil; w = w.next {
				if kept(&w.kept); !w.kept.empty() {
					n += flightCost
				}
			}
		}
	}
	for _, t := range k.loop.topics {
		for w := t.waits.first; w != nil; w = w.next {
			n += waitCost
		}
	}
	of := func(b *saving) {
		for i, w := range b.waits {
			if w == nil {
				continue
			}
			if n += waitCost; w.in != b || w.at != i || w.told {
				panic("BUG: a wait is not where it says, or was told")
			}
		}
	}
	if k.batch != nil {
		of(k.batch)
	}
	for _, b := range k.under {
		of(b)
	}
	return n
}

// dormantBytes is what topics cost that are forgotten, and whose epochs are not.
func (l *loop) dormantBytes() int64 {
	if l.keeper == nil {
		return 0
	}
	return int64(len(l.keeper.dormant)) * dormantCost
}
