package engine

import (
	"slices"
	"time"

	"rayflux/protocol"
)

// lag is the state of a connection that cannot simply be written the next batch: the kernel is full, or a subscription
// reads the log. Taken from the loop's free list, so that idle connections do not carry it. Loop-owned.
type lag struct {
	conn  *conn
	subs  []*subscription // lagging, in turn
	timer timer
	wait  int64 // nanoseconds to the next try
	next  *lag  // free list
}

const (
	retryMin   = int64(time.Millisecond)
	retryMax   = 256 * int64(time.Millisecond) // a reader that was stalled for a time waits as long again at most
	retryBytes = 4 << 20                       // written by retries in one event: live traffic has its turn
	turns      = 4                             // reads of one try, so that a long recovery leaves the loop to others
	tries      = 256                           // of one event
	lingerTime = int64(time.Second)
)

// lag makes a subscription, which is on no list of its mirror, a reader of the log from s.next on.
func (l *loop) lag(s *subscription) {
	s.mirror.add(s, subLagging)
	g := l.lagOf(s.conn)
	g.subs = append(g.subs, s)
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
	g.conn, g.wait = c, retryMin
	c.lag = g
	return g
}

// prune takes subscriptions that have ended or caught up off the line.
func (g *lag) prune() {
	g.subs = slices.DeleteFunc(g.subs, func(s *subscription) bool { return s.state != subLagging })
}

// unlag gives the lag state back: the connection is in the live stream again, or gone.
func (l *loop) unlag(c *conn) {
	g := c.lag
	if g == nil {
		return
	}
	c.lag = nil
	g.timer.stop()
	clear(g.subs)
	g.subs, g.conn = g.subs[:0], nil
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
	g.prune()
	if len(g.subs) == 0 {
		l.unlag(c)
		c.consumeKept() // an HTTP client's next requests waited for it to take the last answer
		return
	}
	for turn := 0; turn < turns && len(g.subs) > 0; turn++ {
		s := g.subs[0]
		if s.reading {
			break // its bytes are on their way, and are written when they come
		}
		copy(g.subs, g.subs[1:]) // to the end of the line
		g.subs[len(g.subs)-1] = s
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
	g.prune()
	if len(g.subs) == 0 && !c.blocked() {
		l.unlag(c)
		return
	}
	if !g.timer.set() && (c.blocked() || !g.subs[0].reading) {
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
	*e = errand{conn: s.conn, sub: s, op: opRead, hash: s.mirror.hash, offset: s.next}
	if s.mirror.home == l && !s.mirror.topic.mustFetch(s.next) {
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
	if s.next < e.start {
		return l.fallOff(s, e)
	}
	head := e.head
	if len(data) > 0 && !l.writeFrom(s, data, e.offset) {
		return false
	}
	if s.next > head {
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

// fallOff applies the topic's policy to a cursor whose messages are gone.
func (l *loop) fallOff(s *subscription, e *errand) bool {
	c, head := s.conn, e.head
	to, why := head, protocol.ReasonDropSlowSkip
	if e.topic.slow == SlowLatest && head >= e.start {
		to, why = head-1, protocol.ReasonDropSlowLatest
	}
	missed := to + 1 - s.next
	s.next = to + 1
	if e.topic.slow == SlowClose || !c.role.gap(c, s, gap{offset: to, missed: missed}) {
		c.failSlow(e.topic.epoch, e.start)
		return false
	}
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
// messages are gone, and its policy is close or it cannot be told.
func (l *loop) closeHopeless(c *conn) {
	g := c.lag
	for _, s := range g.subs {
		if l.up != nil {
			break // the owner may still have them
		}
		if s.state != subLagging || s.next >= s.mirror.start {
			continue
		}
		if s.mirror.topic.slow == SlowClose || s.format == protocol.FormatClassic {
			c.failSlow(s.mirror.topic.epoch, s.mirror.start)
			return
		}
	}
	l.retries.start(&g.timer, l.now+g.wait)
}

// catchUp takes a subscription that has read all there is out of the lag state; the next batch makes it live.
func (l *loop) catchUp(s *subscription) {
	s.mirror.remove(s)
	s.mirror.add(s, subJoining)
	s.conn.lag.prune()
}
