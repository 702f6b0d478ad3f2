package engine

import (
	"slices"
	"time"

	"rayflux/protocol"
)

// lag is the state of a connection that cannot simply be written the next batch: the kernel is full, or a subscription
// reads the log. Taken from the loop's free list, so that idle connections do not carry it. Loop-owned.
type lag struct {
	conn    *conn
	line    line // who is lagging
	timer   timer
	wait    int64 // nanoseconds to the next try
	strides int   // of readBytesMax that are asked of the archive at once: more while the kernel takes all of them
	next    *lag  // free list
}

const (
	retryMin   = int64(time.Millisecond)
	retryMax   = 256 * int64(time.Millisecond) // a reader that was stalled for a time waits as long again at most
	retryBytes = 4 << 20                       // written by retries in one event: live traffic has its turn
	turnBytes  = 4 * readBytesMax              // of one try, so that a long recovery leaves the loop to others
	turns      = 16                            // reads of one try: those of many topics bring little each
	tries      = 256                           // of one event
	lingerTime = int64(time.Second)
	stridesMax = 4 // each answer of the archive takes a millisecond's worth of goroutines, however long it is
)

// lag makes a subscription, which is on no list of its mirror, a reader of the log from s.next on.
func (l *loop) lag(s *subscription) {
	s.mirror.add(s, subLagging)
	g := l.lagOf(s.conn)
	g.line.join(s)
	if !g.timer.set() {
		l.retries.start(&g.timer, l.now+g.wait)
	}
}

// block notes that the kernel takes no more from c for now.
func (l *loop) block(c *conn) {
	if c.closed {
		return
	}
	g := l.lagOf(c)
	if !g.timer.set() {
		l.retries.start(&g.timer, l.now+g.wait)
	}
}

func (l *loop) lagOf(c *conn) *lag {
	if c.lag != nil {
		return c.lag
	}
	g := l.lags
	if g == nil {
		g = &lag{}
		g.timer.owner = g
	} else {
		l.lags, g.next = g.next, nil
	}
	g.conn, g.wait, g.strides = c, retryMin, 1
	c.lag = g
	return g
}

// line is a connection's lagging subscriptions, in turn. A link's may be as many as there are topics, so nothing that is
// done for each read looks at them all. Loop-owned.
type line struct {
	subs []*subscription // the line is subs[gone:]; those that ended stay in it until their turn
	gone int
}

func (q *line) waiting() []*subscription { return q.subs[q.gone:] }

func (q *line) join(s *subscription) {
	if q.gone > len(q.subs)/2 {
		n := copy(q.subs, q.waiting())
		clear(q.subs[n:])
		q.subs, q.gone = q.subs[:n], 0
	}
	q.subs = append(q.subs, s)
}

// front is whose turn it is, nil if nobody is lagging.
func (q *line) front() *subscription {
	for _, s := range q.waiting() {
		if s.state == subLagging {
			return s
		}
		q.shift()
	}
	q.subs, q.gone = q.subs[:0], 0
	return nil
}

func (q *line) shift() {
	q.subs[q.gone] = nil
	q.gone++
}

// leave takes out a subscription that has caught up. It has just read, and so is at the end or near it.
func (q *line) leave(s *subscription) {
	for i := len(q.subs) - 1; i >= q.gone; i-- {
		if q.subs[i] == s {
			q.subs = slices.Delete(q.subs, i, i+1)
			return
		}
	}
}

func (q *line) reset() {
	clear(q.subs)
	q.subs, q.gone = q.subs[:0], 0
}

// unlag gives the lag state back: the connection is in the live stream again, or gone.
func (l *loop) unlag(c *conn) {
	g := c.lag
	if g == nil {
		return
	}
	c.lag = nil
	g.timer.stop()
	g.line.reset()
	g.conn = nil
	g.next, l.lags = l.lags, g
}

// expire is the retry.
func (g *lag) expire(l *loop) { l.retry(g.conn) }

// retry writes what it can of a lagging connection: first what is half written and the answers, then, one subscription
// after the other, from the log.
func (l *loop) retry(c *conn) {
	g := c.lag
	if l.retryRoom <= 0 {
		l.retries.start(&g.timer, l.now+retryMin)
		return
	}
	before := l.tally.bytes
	defer func() { l.retryRoom -= int64(l.tally.bytes - before) }()
	c.flushAnswers()
	if c.closed {
		return
	}
	if c.blocked() {
		g.wait = min(2*g.wait, retryMax)
		l.closeHopeless(c)
		return
	}
	if c.parting {
		l.unlag(c)
		c.linger()
		return
	}
	if g.line.front() == nil {
		l.unlag(c)
		c.consumeKept() // an HTTP client's next requests waited for it to take the last answer
		return
	}
	for turn := 0; turn < turns && l.tally.bytes-before < turnBytes; turn++ {
		s := g.line.front()
		if s == nil || s.reading {
			break // its bytes are on their way, and are written when they come
		}
		g.line.shift()
		g.line.join(s)
		if !l.readMore(s) {
			break
		}
	}
	l.settleLag(c)
}

// settleLag ends the lag state if nothing is left to do, else sets the next try.
func (l *loop) settleLag(c *conn) {
	g := c.lag
	if g == nil || c.closed {
		return
	}
	first := g.line.front()
	if first == nil && !c.blocked() {
		l.unlag(c)
		return
	}
	if !g.timer.set() && (c.blocked() || !first.reading) {
		if !c.blocked() {
			g.wait = retryMin
			if l.reads < l.readsMax {
				l.retries.start(&g.timer, l.now) // it reads as fast as we write: go on in the next round
				return
			}
		}
		l.retries.start(&g.timer, l.now+g.wait)
	}
}

// readMore reads the next stretch for a lagging subscription: here if the topic is at home here, else by an errand.
// False: no use to go on now.
func (l *loop) readMore(s *subscription) bool {
	e := &l.errand
	*e = errand{conn: s.conn, sub: s, op: opRead, hash: s.mirror.hash, offset: s.next, topic: s.mirror.topic, past: s.past, deep: s.deep, recovers: s.recovers,
		size: s.conn.lag.strides * readBytesMax}
	if s.mirror.home == l && !s.mirror.topic.mustFetch(e) {
		return l.writeRead(e, l.readInto(s.mirror.topic, e))
	}
	if l.reads >= l.readsMax {
		return false // their answers are mail-memory, too
	}
	l.reads++
	s.reading = true
	l.name = append(l.name[:0], s.mirror.name...)
	e.name = l.name
	l.run(e)
	return s.reading // else it was refused at once
}

// readAnswered takes what another loop read for a lagging subscription.
func (l *loop) readAnswered(e *errand) {
	s := e.sub
	s.reading = false
	l.reads--
	c := s.conn
	if c.closed || c.lag == nil {
		return
	}
	if e.err != nil {
		l.retries.start(&c.lag.timer, l.now+int64(fetchRetry))
		return
	}
	// If the connection has been blocked meanwhile the bytes are dropped: they can be read again.
	if s.state == subLagging && !c.parting && !c.blocked() && e.topic == s.mirror.topic {
		l.writeRead(e, e.payload)
	}
	l.settleLag(c)
}

// writeRead writes what was read for a lagging subscription, the messages s.next to e.offset, and moves its cursor.
// False: the kernel is full, or the connection is gone.
func (l *loop) writeRead(e *errand, data []byte) bool {
	s := e.sub
	if e.turn != nil {
		return l.turnTo(s, e.turn)
	}
	if s.next < e.start && s.past == "" {
		return l.fallOff(s, e)
	}
	head := e.head
	if len(data) > 0 && !l.writeFrom(s, data, e.offset) {
		return false
	}
	if s.next > head && s.past == "" {
		l.catchUp(s)
	}
	return true
}

// writeFrom writes a stretch that ends with the message at offset last. False: the kernel did not take it all.
func (l *loop) writeFrom(s *subscription, data []byte, last uint64) bool {
	c := s.conn
	size := len(data)
	if c.trailed {
		// The positions after this stretch, as if it were all written: if it is not, the trailer is cut off.
		before := s.next
		s.next = last + 1
		data = append(l.scratch[:0], data...) // mail has no room behind it
		data = c.role.(trailer).appendTrailer(c, data)
		l.scratch = data[:0]
		s.next = before
	}
	n, err := c.writeAll(data)
	if err != nil {
		c.abort(protocol.ReasonPeerReset)
		return false
	}
	if c.lag.strides = min(2*c.lag.strides, stridesMax); n < len(data) {
		c.lag.strides = 1 // the rest is read again
	}
	end := 0
	for end < min(n, size) || (end == n && n < size) { // at a border one more is kept whole: see lagFrom
		end += protocol.NextUnit(data[end:size], s.format)
		s.next++
		l.tally.delivered++
	}
	if n >= size {
		end = len(data)
	}
	if n < end {
		c.keepTail(data[n:end])
		if n < size {
			c.keepTrailer()
		}
	}
	return n == len(data)
}

// fallOff applies the reader's policy to a cursor whose messages are gone.
func (l *loop) fallOff(s *subscription, e *errand) bool {
	c, head := s.conn, e.head
	to, why := head, protocol.ReasonDropSlowSkip
	switch policy := c.role.slow(e.topic); {
	case policy == SlowClose:
		c.failSlow(e.topic.epoch, e.start)
		return false
	case policy == SlowLatest && head >= e.start:
		to, why = head-1, protocol.ReasonDropSlowLatest
	}
	missed := to + 1 - s.next
	s.next = to + 1
	c.role.gap(c, s, gap{offset: to, missed: missed})
	l.metrics.dropped[why].Add(missed)
	if s.next > head {
		l.catchUp(s)
	}
	c.flushAnswers()
	return !c.closed && !c.blocked()
}

// failSlow ends a connection whose next message is before what is kept.
func (c *conn) failSlow(epoch string, start uint64) {
	c.fail(protocol.ReasonSlow, "messages before "+string(protocol.AppendPosition(nil, epoch, start))+" are gone")
}

// closeHopeless ends a connection that the kernel takes nothing from and that would be closed for its lag anyway: its
// messages are gone, and its policy is close.
func (l *loop) closeHopeless(c *conn) {
	g := c.lag
	for _, s := range g.line.waiting() {
		if s.state != subLagging || s.next >= s.mirror.start || s.mayFetch() {
			continue
		}
		if c.role.slow(s.mirror.topic) == SlowClose {
			c.failSlow(s.mirror.topic.epoch, s.mirror.start)
			return
		}
	}
	l.retries.start(&g.timer, l.now+g.wait)
}

// catchUp takes a subscription that has read all there is out of the lag state; the next batch makes it live.
func (l *loop) catchUp(s *subscription) {
	s.recovers, s.deep = false, false
	s.mirror.remove(s)
	s.mirror.add(s, subJoining)
	s.conn.lag.line.leave(s)
}
