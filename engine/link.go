package engine

import (
	"fmt"
	"math"

	"rayflux/protocol"
)

// linkRole is a connection of a balancer or of another node that has proved the cluster's key. It does what a client
// does, for many of them: it may subscribe to any number of topics, it is told of a gap rather than closed for being slow,
// and it is its peer that keeps the line warm. Loop-owned.
type linkRole struct {
	native
	purpose protocol.LinkPurpose
}

// linkAnswersMax is how many bytes of answers a link may leave unread: what a balancer asks for at one time, fetchBytesMax and pagesMax pages of
// history. A peer that does not even read those is as good as gone.
const linkAnswersMax = 16 << 20

// link makes a native connection, whose hello was proved, a link.
func (l *loop) link(c *conn, n native, terms *protocol.LinkTerms) {
	c.role, c.until = &linkRole{native: n, purpose: terms.Purpose}, 0
	c.answersMax = linkAnswersMax
	c.expectMany()
	c.restart(int64(l.cfg.LinkTimeout))
	l.metrics.links.Add(1)
	l.forgo(c)
	l.cfg.Log.Debug("link accepted", "name", string(terms.PeerName), "purpose", terms.Purpose.String(), "peer", c.sock.peer())
}

func (r *linkRole) consume(c *conn, b []byte) int {
	return r.frames(c, b, 2*c.loop.cfg.MaxMessage+8<<10, r)
}

// message is the one door of a link's commands.
func (r *linkRole) message(c *conn, m protocol.Message) {
	l := c.loop
	switch {
	case m.Opcode != protocol.OpBinary:
		r.failText(c)
	case len(m.Payload) > 0 && m.Payload[0] >= byte(protocol.LinkCmdHello):
		cmd, err := protocol.ParseLinkCommand(m.Payload)
		r.question(c, &cmd, err, m.Payload)
	default:
		cmd, err := protocol.ParseBinaryCommand(m.Payload, l.cfg.MaxMessage)
		if err == nil && cmd.Op != protocol.CmdPing && !r.asks() {
			err = r.notHere(cmd.Op.String())
		}
		r.command(c, &cmd, err, math.MaxInt)
	}
}

// asks reports whether the link is one for clients' commands and questions about topics.
func (r *linkRole) asks() bool { return r.purpose != protocol.LinkTransfer }

func (r *linkRole) notHere(word string) *protocol.Error {
	return badCommand(fmt.Sprintf("%s: a link for %s does not have it", word, r.purpose))
}

// question carries out a command that only links have, or tells what is wrong with it. raw is the whole of it.
func (r *linkRole) question(c *conn, q *protocol.LinkCommand, err error, raw []byte) {
	l := c.loop
	head := protocol.Command{HasID: q.HasID, ID: q.ID, Topic: q.Topic}
	if err == nil {
		err = r.judge(c, q)
	}
	if err != nil {
		r.refuseInTurn(c, &head, err.(*protocol.Error))
		return
	}
	switch q.Op {
	case protocol.LinkCmdLocate:
		e := l.errandFor(c, opLocate, &head)
		e.from, e.phased = q.From, r.phased
		l.run(e)
	case protocol.LinkCmdFetch:
		e := l.errandFor(c, opFetch, &head)
		e.from = protocol.From{Mode: protocol.FromPosition, Epoch: q.Epoch, Offset: q.Offset}
		e.size, e.deep = int(min(q.Bytes, readBytesMax)), q.Deep
		l.run(e)
	case protocol.LinkCmdHistory:
		e := l.errandFor(c, opHistory, &head)
		e.from, e.size = q.From, int(q.Limit)
		l.run(e)
	case protocol.LinkCmdHandoff:
		e := l.errandFor(c, opHandoff, &head)
		e.payload = raw
		l.run(e)
	case protocol.LinkCmdClaim:
		l.run(l.errandFor(c, opClaim, &head))
	case protocol.LinkCmdSettled:
		l.errand = errand{conn: c, op: opSettled, payload: raw}
		l.everywhere(&l.errand)
	}
}

// judge refuses what this link has no use for. It returns an error, not an *Error, as nil is to be no error.
func (r *linkRole) judge(c *conn, q *protocol.LinkCommand) error {
	switch q.Op {
	case protocol.LinkCmdHello, protocol.LinkCmdProof:
		return badCommand(q.Op.String() + ": this is a link already")
	case protocol.LinkCmdLocate, protocol.LinkCmdFetch:
		if r.asks() {
			return nil
		}
	case protocol.LinkCmdHistory:
		if q.Limit < 1 || q.Limit > pageMax {
			return badCommand(fmt.Sprintf("history: limit is %d, want 1 to %d", q.Limit, pageMax))
		}
		if r.asks() {
			return nil
		}
	case protocol.LinkCmdHandoff, protocol.LinkCmdClaim, protocol.LinkCmdSettled:
		if !r.asks() && c.loop.estate != nil {
			return nil
		}
		if !r.asks() {
			return badCommand(q.Op.String() + ": this node does not know of others")
		}
	}
	return r.notHere(q.Op.String())
}

// locate finds, in the topic's home loop, where a subscription would begin. The topic is made if need be, as for one: it
// is what the asker does next.
func (l *loop) locate(e *errand) {
	if t := l.topicOf(e); t != nil {
		t.used = l.now
		if l.keeper != nil && l.keeper.recalls(t, e) {
			return
		}
		next, whole := t.resolve(l, e.from)
		l.placed(t, e, next, whole)
	}
	l.answer(e)
}

// placed is the outcome of a locate.
func (l *loop) placed(t *topic, e *errand, next uint64, whole bool) {
	e.topic, e.epoch, e.offset, e.head, e.start, e.whole = t, t.epoch, next-1, t.head, t.start, whole
}

// fetch reads a stretch of a topic's log in its home loop, from the first message wanted on if that is there.
func (l *loop) fetch(e *errand) {
	if l.crowded(e.conn.loop) {
		e.err = errCrowded(l.mailMax)
		l.answer(e)
		return
	}
	if t := l.topicOf(e); t != nil {
		t.used = l.now
		e.topic, e.head, e.start = t, t.head, t.start
		first, present := e.from.Offset, string(e.from.Epoch) == t.epoch
		switch {
		case present && first >= t.start && first <= t.head:
			e.payload, _ = t.read(l.scratch[:0], protocol.FormatBinary, first, e.size)
			l.scratch = e.payload[:0]
		case t.keeps && (!present || e.deep && first < t.start):
			l.keeper.page(t, e, string(e.from.Epoch), e.size)
			return
		case !present:
			e.turn = &turn{epoch: t.epoch}
		}
	}
	l.answer(e)
}

func (r *linkRole) answered(c *conn, e *errand) {
	l := c.loop
	ev := protocol.LinkEvent{HasID: e.hasID, ID: e.id}
	switch {
	case e.op == opHandoff:
		ev.Op, ev.Topic, ev.Refused = protocol.LinkEvTaken, e.payload, e.err != nil
		c.tellLink(&ev)
		return
	case e.op == opStored:
		if ev.Op = protocol.LinkEvStored; e.err != nil {
			ev.Refused, ev.Body = true, []byte(e.err.Message)
		}
		c.tellLink(&ev)
		return
	case e.op == opClaim:
		ev.Op, ev.Topic = protocol.LinkEvUnclaimed, e.payload
		c.tellLink(&ev)
		return
	case e.err != nil && e.err.Code == protocol.CodeNoOwner && e.hasID && l.estate != nil:
		ev.Op, ev.Topic, ev.Fingerprint = protocol.LinkEvMoved, e.payload, l.estate.view.Fingerprint
		c.tellLink(&ev)
		return
	case e.op == opHistory && (e.err == nil || e.err.Code == protocol.CodeNotFound || e.err.Code == protocol.CodeEpochUnknown):
		ev.Op = protocol.LinkEvPage
		ev.Status, ev.Body = l.pageAnswer(e)
		ev.Whole = e.whole && e.err == nil && r.phased
		c.tellLink(&ev)
		return
	case e.err != nil || e.op != opLocate && e.op != opFetch:
		r.native.answered(c, e)
		return
	case e.op == opLocate:
		ev.Op, ev.Offset, ev.Whole, ev.Past = protocol.LinkEvLocated, e.offset, e.whole, e.past != ""
	case e.turn != nil && r.phased:
		ev.Op, ev.Offset, ev.HasMissed, ev.Missed = protocol.LinkEvTurned, e.turn.offset, e.turn.known, e.turn.missed
		e.past = e.turn.epoch
	case e.op == opFetch:
		ev.Op, ev.Frames = protocol.LinkEvFetched, e.payload
	}
	epoch := e.topic.epoch
	if e.past != "" {
		epoch = e.past
	}
	l.name = append(append(l.name[:0], e.topic.name...), epoch...)
	ev.Topic, ev.Epoch = l.name[:len(e.topic.name)], l.name[len(e.topic.name):]
	ev.Head, ev.Start = e.head, e.start
	c.tellLink(&ev)
}

// tellLink appends one event that only links have. A peer may ask for much with little: long answers are on their way
// before the next one is made.
func (c *conn) tellLink(ev *protocol.LinkEvent) {
	if c.closed || c.parting {
		return
	}
	out, before := c.answers()
	out.b = protocol.AppendLinkEvent(out.b, ev)
	c.out.settle(c.loop, before)
	if c.out.len() > writeBytesMax {
		c.flushAnswers()
	}
}

// slow: a link is never closed for its own sake, as many a client of its peer is not slow. Skipping costs them a gap in one
// topic, which the peer may fetch.
func (r *linkRole) slow(*topic) SlowPolicy { return SlowSkip }

// timeout ends a link whose peer was silent for too long. It says ping much more often than that.
func (r *linkRole) timeout(c *conn) {
	limit := int64(c.loop.cfg.LinkTimeout)
	if silence := c.silence(); silence < limit {
		c.restart(limit - silence)
		return
	}
	c.fail(protocol.ReasonPingTimeout, "")
}

// drain: the peer needs the link for as long as there is anything to be had here. It is written at once, since the last
// client's end may be the end of this process.
func (r *linkRole) drain(c *conn, _ uint64) leaveTime {
	window := c.loop.cfg.drainWindow()
	c.tellLink(&protocol.LinkEvent{Op: protocol.LinkEvDraining, AfterMs: uint64(window / 1e6)})
	c.flushAnswers()
	return leaveLater
}

func (r *linkRole) release(c *conn) {
	l := c.loop
	l.metrics.links.Add(-1)
	r.native.release(c)
	if l.estate != nil && !r.asks() {
		l.everywhere(&errand{conn: c, op: opUnlinked})
	}
}

// moved ends a subscription to a topic that is another node's now.
func (r *linkRole) moved(c *conn, s *subscription) {
	l := c.loop
	c.removeSubscription(s)
	l.end(s)
	l.name = append(l.name[:0], s.mirror.name...)
	c.tellLink(&protocol.LinkEvent{Op: protocol.LinkEvMoved, Topic: l.name, Fingerprint: l.estate.view.Fingerprint})
}
