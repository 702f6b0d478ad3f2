package engine

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"rayflux/protocol"
)

// sseRole is a stream of Server-Sent Events: message blocks that all readers share, and after each write one block of
// the connection's own with the positions of its topics, by which it can resume. Loop-owned.
type sseRole struct {
	asked []string // the position each topic was asked to resume from; used until the topic has answered
}

// What a resuming reader's head has besides: the field, and per topic an epoch, an offset and what separates them.
const (
	lastEventIDBytes = len("Last-Event-ID: \r\n")
	positionBytesMax = protocol.MaxEpochBytes + 20 + 2
)

// sseRetry is what a browser waits before it reconnects.
const sseRetry = 2 * time.Second

// openStream answers GET /v1/sse: all topics are read and judged before anything is subscribed.
func (r *httpRole) openStream(c *conn, req *protocol.Request) *protocol.HTTPError {
	l := c.loop
	var topics [][]byte
	for rest := req.Query; ; {
		raw, after, ok := protocol.NextQueryValue(rest, "topic")
		if !ok {
			break
		}
		rest = after
		topic, err := protocol.AppendUnescape(nil, raw, true)
		if err == nil {
			err = protocol.CheckTopic(topic)
		}
		if err != nil {
			return err.(*protocol.Error).HTTP()
		}
		for _, t := range topics {
			if bytes.Equal(t, topic) {
				return badRequest("topic %q occurs twice", topic)
			}
		}
		topics = append(topics, topic)
		if len(topics) > l.cfg.MaxSubscriptions {
			return (&protocol.Error{Code: protocol.CodeTooManySubscriptions,
				Message: fmt.Sprintf("stream has over %d topics, limit %d", l.cfg.MaxSubscriptions, l.cfg.MaxSubscriptions)}).HTTP()
		}
	}
	if len(topics) == 0 {
		return badRequest("no topic: want /v1/sse?topic=a&topic=b")
	}
	// What the reader will send to come back: this head, with a position for each topic.
	if head := req.Size - len(req.LastEventID) + lastEventIDBytes + len(topics)*positionBytesMax; head > l.cfg.MaxHeader {
		return &protocol.HTTPError{Status: 431, Code: protocol.CodeHeaderTooLarge,
			Message: fmt.Sprintf("with the positions of %d topics the request head can have %d bytes, limit %d", len(topics), head, l.cfg.MaxHeader)}
	}
	asked := make([]string, len(topics))
	if id := req.LastEventID; len(id) > 0 {
		parts := bytes.Split(id, []byte(","))
		if len(parts) != len(topics) {
			return badRequest("Last-Event-ID has %d positions for %d topics", len(parts), len(topics))
		}
		for i, part := range parts {
			if len(part) == 0 {
				continue // no position was known yet
			}
			if _, _, err := protocol.ParsePosition(part); err != nil {
				return badRequest("Last-Event-ID: %v", err)
			}
			asked[i] = string(part)
		}
	}
	l.startStream(c, topics, asked)
	return nil
}

func (l *loop) startStream(c *conn, topics [][]byte, asked []string) {
	out, before := c.answers()
	out.b = protocol.AppendStreamHead(out.b, "text/event-stream", "Cache-Control: no-store", "X-Accel-Buffering: no",
		"Access-Control-Allow-Origin: *")
	out.b = appendRetry(out.b, sseRetry.Milliseconds())
	c.out.settle(c.loop, before)
	c.become(&sseRole{asked: asked})
	c.trailed = true
	for i, topic := range topics {
		e := &l.errand
		*e = errand{conn: c, op: opSubscribe, name: topic, hash: l.hash(topic), slot: int32(i)}
		if asked[i] != "" {
			epoch, offset, _ := protocol.ParsePosition([]byte(asked[i]))
			e.from = protocol.From{Mode: protocol.FromPosition, Epoch: epoch, Offset: offset}
		}
		l.subscribe(e, protocol.FormatSSE)
		if c.closed || c.parting {
			return
		}
	}
}

func appendRetry(dst []byte, ms int64) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, ms, 10)
	return append(dst, "\n\n"...)
}

// consume drops what the client sends: an event stream has no requests behind it.
func (r *sseRole) consume(_ *conn, b []byte) int { return len(b) }

func (r *sseRole) answered(c *conn, e *errand) {
	out, before := c.answers()
	switch {
	case e.err != nil:
		out.b = append(out.b, "event: refused\ndata: {\"code\":"...)
		out.b = protocol.AppendJSONStringOf(out.b, string(e.err.Code))
		out.b = append(out.b, ",\"message\":"...)
		out.b = protocol.AppendJSONStringOf(out.b, e.err.Message)
		out.b = append(out.b, "}\n\n"...)
		c.out.settle(c.loop, before)
		c.part(protocol.ReasonHTTPError)
		return
	case e.from.Mode == protocol.FromPosition && !e.whole && e.past == "":
		ev := protocol.Event{Op: protocol.EvGap, Topic: e.topic.name, Epoch: e.epoch, Offset: e.offset, Reason: protocol.GapReset}
		epoch, offset, _ := protocol.ParsePosition([]byte(r.asked[e.slot]))
		if string(epoch) == e.epoch && offset <= e.offset { // what was missed is known: it fell off the log
			ev.Reason, ev.HasMissed, ev.Missed = protocol.GapSlow, true, e.offset-offset
		}
		out.b = protocol.AppendSSEGap(out.b, &ev)
	}
	out.b = r.appendTrailer(c, out.b)
	c.out.settle(c.loop, before)
}

// appendTrailer appends the block that sets the reader's Last-Event-ID: it has no data, so it raises no event.
func (r *sseRole) appendTrailer(c *conn, dst []byte) []byte {
	dst = append(dst, "id: "...)
	for i, asked := range r.asked { // always as many as the URL has topics, or the reader could not come back with them
		if i > 0 {
			dst = append(dst, ',')
		}
		if i < len(c.subs) && c.subs[i].state != subAsked {
			s := c.subs[i]
			dst = protocol.AppendPosition(dst, s.epoch(), s.position())
		} else {
			dst = append(dst, asked...)
		}
	}
	return append(dst, "\n\n"...)
}

func (r *sseRole) slow(t *topic) SlowPolicy { return t.slow }

func (r *sseRole) gap(c *conn, s *subscription, g gap) {
	ev := g.event(s)
	c.say(func(dst []byte) []byte {
		dst = protocol.AppendSSEGap(dst, &ev)
		return r.appendTrailer(c, dst)
	})
}

// timeout sends the comment that keeps proxies and half-open connections honest: a stream's reader says nothing, so only
// the kernel can tell that it is gone.
func (r *sseRole) timeout(c *conn) {
	if !c.blocked() {
		c.say(func(dst []byte) []byte { return append(dst, ":\n\n"...) })
	}
	c.restart(int64(c.loop.cfg.PingInterval))
}

// lost: this is how a reader leaves a stream.
func (r *sseRole) lost() protocol.Reason { return protocol.ReasonClientClosed }

func (r *sseRole) farewell(dst []byte, _ protocol.Reason, _ string) []byte { return dst }

func (r *sseRole) drain(c *conn, afterMs uint64) leaveTime {
	c.say(func(dst []byte) []byte { return appendRetry(dst, int64(afterMs)) })
	return leaveAtSlot
}
