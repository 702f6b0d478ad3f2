package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"rayflux/protocol"
)

// socket is a connection's way out. One implementation is a descriptor, the other the simulation's. Used by the
// connection's loop only, between open and close.
type socket interface {
	// write writes as much as the kernel takes now: fewer bytes than there are means that it is full.
	write(bufs [][]byte) (n int, err error)
	// closeWrite ends our half of the stream, after what was written.
	closeWrite()
	// peer is the other end's address, for logs.
	peer() string
	// close ends the connection and calls the loop's bury, possibly before it returns.
	close()
}

// role is what a connection is being: an HTTP exchange, a native or classic WebSocket, an event stream. Roles are types;
// a connection changes its role when it upgrades. All methods run on the connection's loop.
type role interface {
	// consume takes whole requests, frames or parts of bodies from the front of b and returns how many bytes it is
	// through with. It may change b, and keeps no part of it.
	consume(c *conn, b []byte) int
	// answered brings the outcome of an errand that consume sent.
	answered(c *conn, e *errand)
	// timeout is called when the connection's timer fires.
	timeout(c *conn)
	// slow says what becomes of a reader of t whose cursor falls off the log.
	slow(t *topic) SlowPolicy
	// gap tells the reader what it will not get. Not called where slow says SlowClose, but for a reset.
	gap(c *conn, s *subscription, g gap)
	// lost says why a connection has ended that nobody here ended.
	lost() protocol.Reason
	// farewell appends what this role says before it is closed.
	farewell(dst []byte, why protocol.Reason, text string) []byte
	// drain tells the client that the connection ends in so many milliseconds, and says when it is to be ended.
	drain(c *conn, afterMs uint64) leaveTime
}

// gap is messages that a subscription skips.
type gap struct {
	offset uint64 // the last one skipped
	missed uint64 // how many; not known of a reset
	reset  bool   // the topic's epoch has ended: offset is of the new one, which the subscription's mirror has already
}

// event is the gap as the subscription's reader is told it.
func (g gap) event(s *subscription) protocol.Event {
	ev := protocol.Event{Op: protocol.EvGap, Topic: s.mirror.name, Epoch: s.epoch(), Offset: g.offset}
	if g.reset {
		ev.Reason = protocol.GapReset
	} else {
		ev.HasMissed, ev.Missed, ev.Reason = true, g.missed, protocol.GapSlow
	}
	return ev
}

// leaveTime is when a connection is ended by a drain.
type leaveTime uint8

const (
	leaveAtSlot leaveTime = iota // at the end of its own slot
	leaveNow                     // nothing is under way
	leaveLast                    // not before everybody else has left
	leaveLater                   // at the end of the last slot, or before with the answer to the request that is under way
)

// conn is one connection of the public port. Owned by its loop.
type conn struct {
	loop *loop
	sock socket
	role role

	in   buffer // input that is not a whole request or frame yet
	out  buffer // answers not yet written
	tail buffer // the rest of a half-written message: goes before anything else

	subs   []*subscription
	places map[string]int32 // where in subs each topic's is; nil while they are few, and looked through
	lag    *lag             // set while the kernel is full, or a subscription is behind

	timer timer
	heard int64 // loop clock when bytes last came
	until int64 // loop clock from when on it is sent away for its age; 0: never

	answersMax int // bytes of answers that may wait for the kernel

	firstPending, lastPending int32 // the pass's ranges for this connection
	index                     int32 // in the loop's connections

	reason    protocol.Reason // why it is being closed
	trailed   bool            // the role is a trailer
	answering bool            // on the loop's list of connections with answers
	parting   bool            // the farewell is said: input is dropped until the peer closes or the timer fires
	leaving   bool            // draining: the timer is the end of its slot, and is not put off
	ours      bool            // this process made it: it is no client's
	awaited   bool            // a drain waits for its end: it was there before, and is no link
	consuming bool            // the role is reading: what is answered now is answered in turn
	closed    bool
}

// open begins a connection's life: an HTTP exchange with a limited time to say what it wants. nil: there are already
// max-connections, and the socket is to be closed after the refusal.
func (l *loop) open(sock socket) (c *conn, refusal []byte) {
	if n := l.shared.connections.Add(1); n > int64(l.cfg.MaxConnections) {
		l.shared.connections.Add(-1)
		l.metrics.disconnects[protocol.ReasonOverCapacity].Add(1)
		return nil, appendRefusal(nil, &protocol.HTTPError{Status: 503, Code: protocol.CodeOverloaded, RetryAfter: time.Second,
			Message: fmt.Sprintf("this server has %d connections, its limit", l.cfg.MaxConnections)})
	}
	c = &conn{loop: l, sock: sock, role: &httpRole{}, heard: l.now, index: int32(len(l.conns)), answersMax: math.MaxInt}
	c.timer.owner = c
	if c.awaited = !l.shared.draining.Load(); c.awaited {
		l.shared.awaited.Add(1)
	}
	l.conns = append(l.conns, c)
	l.metrics.connections.Add(1)
	l.wheel.start(&c.timer, l.now+int64(l.cfg.HandshakeTimeout))
	return c, nil
}

// bury is called once when the connection is gone, whoever ended it.
func (l *loop) bury(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	if c.reason == protocol.ReasonNone {
		c.reason = c.role.lost()
	}
	if l.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		l.cfg.Log.Debug("connection ended", "peer", c.sock.peer(), "reason", c.reason.String(), "subscriptions", len(c.subs))
	}
	if !c.ours {
		l.metrics.disconnects[c.reason].Add(1)
		l.metrics.connections.Add(-1)
		l.shared.connections.Add(-1)
	}
	l.forgo(c)
	c.timer.stop()
	c.leaveAll()
	c.in.release(l)
	c.out.release(l)
	c.tail.release(l)
	if r, ok := c.role.(interface{ release(c *conn) }); ok {
		r.release(c)
	}
	last := l.conns[len(l.conns)-1]
	l.conns[c.index], last.index = last, c.index
	l.conns[len(l.conns)-1] = nil
	l.conns = l.conns[:len(l.conns)-1]
}

// forgo makes that no drain waits for a connection any more.
func (l *loop) forgo(c *conn) {
	if !c.awaited {
		return
	}
	c.awaited = false
	if l.shared.awaited.Add(-1) == 0 {
		l.shared.lookIdle()
	}
}

// leaveAll ends every subscription of the connection.
func (c *conn) leaveAll() {
	c.loop.unlag(c)
	subs := c.subs
	c.subs, c.places = nil, nil // first: leaving one topic may bring the answer about another, which edits the list
	for _, s := range subs {
		c.loop.leave(s, opLeave, nil)
	}
}

// leave ends a subscription here and at home.
func (l *loop) leave(s *subscription, op errandOp, id *uint64) {
	if s.state == subGone {
		return
	}
	l.end(s)
	e := &l.errand
	*e = errand{conn: s.conn, sub: s, op: op, hash: s.mirror.hash}
	if id != nil {
		e.hasID, e.id = true, *id
	}
	l.name = append(l.name[:0], s.mirror.name...)
	e.name = l.name
	l.run(e)
}

// traffic takes bytes from the peer. b may be changed and is free when traffic returns.
func (c *conn) traffic(b []byte) {
	l := c.loop
	c.heard = l.now
	if !c.ours {
		l.metrics.receivedBytes.Add(uint64(len(b)))
	}
	if c.closed || c.parting {
		return
	}
	if c.in.empty() {
		if n := c.consume(b); n < len(b) && !c.closed && !c.parting {
			c.keep(&c.in, b[n:])
		}
		return
	}
	if c.keep(&c.in, b) {
		c.consumeKept()
	}
}

// consumeKept offers the kept input to the role again.
func (c *conn) consumeKept() {
	if c.in.empty() {
		return
	}
	n := c.consume(c.in.bytes())
	switch {
	case c.closed: // it has been given back
	case c.parting:
		c.in.release(c.loop)
	case n > 0:
		c.in.take(c.loop, n)
	}
}

// consume lets the role, and whatever role follows it, take what is whole.
func (c *conn) consume(b []byte) int {
	c.consuming = true
	defer func() { c.consuming = false }()
	n := 0
	for {
		before := c.role
		n += before.consume(c, b[n:])
		if c.role == before || n == len(b) || c.closed || c.parting {
			return n
		}
	}
}

// keep appends to one of the connection's buffers. Past the loop's share of buffer-memory the connection ends, and false
// is returned.
func (c *conn) keep(at *buffer, b []byte) bool {
	at.append(c.loop, b)
	// A link has at most one message half read. Ending it would cost all clients more than what one of them took too much.
	if c.loop.buffered > c.loop.bufferMax && !c.ours {
		at.release(c.loop)
		c.fail(protocol.ReasonOverCapacity, "this server's buffer-memory is used up")
		return false
	}
	return true
}

// keepTail keeps the rest of a message that is half out. Without room for it the stream is broken, and there is no
// saying farewell on it.
func (c *conn) keepTail(b []byte) {
	c.tail.append(c.loop, b)
	if c.loop.buffered > c.loop.bufferMax {
		c.abort(protocol.ReasonOverCapacity)
	}
}

// blocked reports whether something must be written before topic bytes may be.
func (c *conn) blocked() bool { return !c.tail.empty() || !c.out.empty() }

// say appends bytes to what this connection is told; the loop writes it at the end of the event.
func (c *conn) say(appendTo func(dst []byte) []byte) {
	out, before := c.answers()
	out.b = appendTo(out.b)
	c.out.settle(c.loop, before)
}

// answers is say for those who cannot pay for a closure: append to b of what is returned, then call settle on c.out with
// the capacity before.
func (c *conn) answers() (out *block, before int) {
	if !c.answering {
		c.answering = true
		c.loop.answering = append(c.loop.answering, c)
	}
	out = c.out.open(c.loop, answerBytes)
	return out, cap(out.b)
}

// answerBytes is what an answer takes as a rule: a longer one makes the buffer grow outside the loop's pool.
const answerBytes = 512

// tell appends one event in the form of a native connection.
func (c *conn) tell(ev *protocol.Event, binary bool) {
	if c.closed || c.parting {
		return
	}
	out, before := c.answers()
	if binary {
		out.b = protocol.AppendEventBinary(out.b, ev)
	} else {
		out.b = protocol.AppendEventJSON(out.b, ev)
	}
	c.out.settle(c.loop, before)
}

// write hands buffers to the socket and counts.
func (c *conn) write(bufs [][]byte) (int, error) {
	n, err := c.sock.write(bufs)
	if !c.ours {
		c.loop.tally.writes++
		c.loop.tally.bytes += uint64(n)
	}
	return n, err
}

// writeAll writes b in calls of at most writeBytesMax until the kernel is full.
func (c *conn) writeAll(b []byte) (n int, err error) {
	for n < len(b) {
		part := b[n:min(n+writeBytesMax, len(b))]
		m, err := c.write(append(c.loop.bufs[:0], part))
		n += m
		if err != nil || m < len(part) {
			return n, err
		}
	}
	return n, nil
}

// flushAnswers writes the tail and the answers. What the kernel does not take waits for the retry wheel; past
// max-answers the connection ends.
func (c *conn) flushAnswers() {
	l := c.loop
	for !c.closed && c.blocked() {
		// One call, as a rule; a long page takes several.
		bufs, size := l.bufs[:0], 0
		for _, b := range [...]*buffer{&c.tail, &c.out} {
			if part := b.bytes(); len(part) > 0 {
				part = part[:min(len(part), writeBytesMax-size)]
				bufs, size = append(bufs, part), size+len(part)
			}
		}
		if size == 0 {
			c.out.release(l) // opened, and nothing said
			return
		}
		n, err := c.write(bufs)
		if err != nil {
			c.abort(protocol.ReasonPeerReset)
			return
		}
		if n > 0 && c.parting {
			c.restart(c.partingTime()) // it takes what it is owed
		}
		tail := min(n, c.tail.len())
		if tail > 0 {
			c.tail.take(l, tail)
		}
		if n > tail {
			c.out.take(l, n-tail)
		}
		if n < size {
			break
		}
	}
	if c.closed || !c.blocked() {
		return
	}
	l.block(c)
	switch {
	case c.out.len() > c.answersMax:
		c.abort(protocol.ReasonAnswersFull)
	case l.buffered > l.bufferMax:
		c.abort(protocol.ReasonOverCapacity)
	}
}

// fail says farewell and ends the connection: after the peer has closed too, or a moment later. Closing at once, with
// input unread, would reset the stream and take the farewell with it.
func (c *conn) fail(why protocol.Reason, text string) {
	if c.closed || c.parting {
		return
	}
	if c.ours {
		c.abort(why) // a link that takes no more commands must be none
		return
	}
	out, before := c.answers()
	out.b = c.role.farewell(out.b, why, text)
	c.out.settle(c.loop, before)
	if len(out.b) == 0 {
		c.out.release(c.loop) // there was nothing to say
	}
	c.part(why)
}

// part ends the connection after what has been answered.
func (c *conn) part(why protocol.Reason) {
	if c.closed || c.parting {
		return
	}
	c.reason = why
	c.parting = true // before it leaves: that may bring answers, and the farewell is said
	c.leaveAll()
	c.restart(c.partingTime()) // to take what it is still owed
	c.flushAnswers()
	if !c.closed && !c.blocked() {
		c.linger()
	}
}

// partingTime is how long a connection that is being ended may take nothing of what it is owed.
func (c *conn) partingTime() int64 {
	if c.loop.shared.draining.Load() {
		return lingerTime
	}
	return int64(c.loop.cfg.RequestTimeout)
}

// linger ends our half of the stream and waits a moment for the peer's.
func (c *conn) linger() {
	c.sock.closeWrite()
	c.restart(lingerTime)
}

// abort ends the connection now.
func (c *conn) abort(why protocol.Reason) {
	if c.closed {
		return
	}
	if c.reason == protocol.ReasonNone {
		c.reason = why
	}
	c.sock.close()
	c.loop.bury(c) // not when the close is done: until then a write could tear what is half out
}

// expire is the connection's timer.
func (c *conn) expire(l *loop) {
	switch {
	case c.parting:
		c.abort(c.reason)
	case c.leaving:
		c.fail(protocol.ReasonDrain, "")
	case c.until != 0 && l.now >= c.until:
		c.sendAway(ageWindow)
	default:
		c.role.timeout(c)
	}
}

// ageWindow is how long, in nanoseconds, a client has to leave that is sent away for its connection's age, at most.
const ageWindow = int64(5e9)

// grow starts the connection's age: a tenth more or less for each, so that those who came together do not leave together.
func (c *conn) grow() {
	if age := int64(c.loop.cfg.MaxConnectionAge); age > 0 {
		c.until = c.loop.now + age - age/10 + c.loop.rand.Int64N(age/5+1)
	}
}

// silence is how long nothing has come from the peer, in nanoseconds.
func (c *conn) silence() int64 { return c.loop.now - c.heard }

// restart sets the connection's timer, to no later than when it is old enough to be sent away: pings of those who came together
// go out together, and they would leave with them.
func (c *conn) restart(after int64) {
	if c.leaving && !c.parting {
		return
	}
	at := c.loop.now + after
	if c.until != 0 && !c.parting {
		at = min(at, c.until)
	}
	c.loop.wheel.start(&c.timer, at)
}

// leaveIn sets the end of the connection's slot.
func (c *conn) leaveIn(after int64) {
	c.restart(after)
	c.leaving = true
}

// refuse answers an HTTP error and ends the connection.
func (c *conn) refuse(e *protocol.HTTPError, why protocol.Reason) {
	out, before := c.answers()
	out.b = appendRefusal(out.b, e)
	c.out.settle(c.loop, before)
	c.part(why)
}
