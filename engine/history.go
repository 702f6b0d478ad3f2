package engine

import (
	"fmt"
	"strconv"

	"rayflux/protocol"
)

const (
	pageDefault  = 100
	pageMax      = 1000
	pageBytesMax = 1 << 20 // a page ends before the message that would take it past this; it has one message at least
)

// history is GET /v1/topics/{topic}/messages.
func (r *httpRole) history(c *conn, req *protocol.Request) error {
	l := c.loop
	topic, err := l.topicInPath(req)
	if err != nil {
		return err
	}
	from, err := pageStart(req.Query)
	if err != nil {
		return err
	}
	limit := pageDefault
	if raw, ok := protocol.QueryValue(req.Query, "limit", 0); ok {
		limit, err = strconv.Atoi(string(raw))
		if err != nil || limit < 1 || limit > pageMax {
			return badRequest("limit is %.40q, want 1 to %d", raw, pageMax)
		}
	} else if from.Mode == protocol.FromLast {
		limit = int(from.Last)
	}
	e := &l.errand
	*e = errand{conn: c, op: opHistory, name: topic, hash: l.hash(topic), from: from, size: limit}
	r.send(c, e)
	return nil
}

// pageStart reads from=, since= or last=; at most one may be given.
func pageStart(query []byte) (from protocol.From, err error) {
	from.Mode = protocol.FromEarliest
	given := 0
	for _, key := range [...]string{"from", "since", "last"} {
		raw, ok := protocol.QueryValue(query, key, 0)
		if !ok {
			continue
		}
		if given++; given > 1 {
			return from, badRequest("more than one of from, since and last")
		}
		value, err := protocol.AppendUnescape(nil, raw, false) // a plus in a time zone is a plus
		if err != nil {
			return from, err
		}
		switch key {
		case "from":
			if string(value) == "earliest" {
				continue
			}
			from.Mode = protocol.FromPosition
			from.Epoch, from.Offset, err = protocol.ParsePosition(value)
		case "since":
			from.Mode = protocol.FromSince
			from.Since, err = protocol.ParseTimestamp(value)
		case "last":
			from.Mode = protocol.FromLast
			from.Last, err = strconv.ParseUint(string(value), 10, 64)
			if err != nil || from.Last < 1 || from.Last > pageMax {
				err = badRequest("last is %.40q, want 1 to %d", value, pageMax)
			}
		}
		if err != nil {
			return from, err
		}
	}
	return from, nil
}

// page renders a page of history in the topic's home loop.
func (l *loop) page(e *errand) {
	t := l.topics[string(e.name)]
	if l.crowded(e.conn.loop) {
		e.err = errCrowded(l.mailMax)
		l.answer(e)
		return
	}
	if t == nil && e.from.Mode == protocol.FromPosition {
		e.err = &protocol.Error{Code: protocol.CodeEpochUnknown, Message: fmt.Sprintf("epoch %q is not known: nothing was published to topic %q lately", e.from.Epoch, e.name)}
		l.answer(e)
		return
	}
	if t == nil {
		e.err = &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf("topic %q is not known here: nothing was published to it lately", e.name)}
		l.answer(e)
		return
	}
	e.topic, e.head = t, t.head
	next, _ := t.resolve(l, e.from)
	if e.from.Mode == protocol.FromPosition {
		if string(e.from.Epoch) != t.epoch {
			e.err = &protocol.Error{Code: protocol.CodeEpochUnknown, Message: fmt.Sprintf("epoch %q of topic %q is not known, it is %q now", e.from.Epoch, t.name, t.epoch)}
			l.answer(e)
			return
		}
		next = max(min(e.from.Offset, t.head)+1, t.start) // offsets show what is no longer there
	}
	e.payload = l.appendPage(l.scratch[:0], t, next, e.size)
	l.scratch = e.payload[:0]
	l.answer(e)
}

func (l *loop) appendPage(dst []byte, t *topic, next uint64, limit int) []byte {
	dst = append(dst, `{"topic":`...)
	dst = protocol.AppendJSONStringOf(dst, t.name)
	dst = append(dst, `,"epoch":"`...)
	dst = append(dst, t.epoch...)
	dst = append(dst, `","head":`...)
	dst = strconv.AppendUint(dst, t.head, 10)
	dst = append(dst, `,"messages":[`...)
	n := 0
	t.walk(next, func(c *chunk, offset uint64, kind protocol.Kind, payload, _ []byte) bool {
		before := len(dst)
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"offset":`...)
		dst = strconv.AppendUint(dst, offset, 10)
		dst = append(dst, `,"time":"`...)
		dst = protocol.AppendTimestamp(dst, c.timeOf(uint32(offset-c.first))+l.skew)
		dst = append(dst, `",`...)
		dst = protocol.AppendMessageData(dst, kind, payload)
		dst = append(dst, '}')
		if n > 0 && len(dst) > pageBytesMax { // as written: escapes can make a text six times as long
			dst = dst[:before]
			return false
		}
		next = offset + 1
		n++
		return n < limit
	})
	dst = append(dst, `],"next":"`...)
	dst = protocol.AppendPosition(dst, t.epoch, next-1)
	return append(dst, `"}`...)
}

// pageAnswer is a page, or what is said in its place, as the status and body of an HTTP answer. The body is good until
// the next use of the loop's scratch.
func (l *loop) pageAnswer(e *errand) (status int, body []byte) {
	switch {
	case e.err == nil && e.status != 0: // its owner has written it
		return e.status, e.payload
	case e.err == nil:
		return 200, e.payload
	}
	body = append(l.scratch[:0], `{"error":`...)
	body = appendErrorObject(body, e.err)
	if e.err.Code == protocol.CodeEpochUnknown && e.topic != nil {
		body = append(body, `,"epoch":"`...)
		body = append(body, e.topic.epoch...)
		body = append(body, `","head":`...)
		body = strconv.AppendUint(body, e.head, 10)
	}
	body = append(body, '}')
	l.scratch = body[:0]
	return e.err.Code.Status(), body
}

func (r *httpRole) answerPage(c *conn, e *errand) {
	if e.err != nil && e.topic == nil {
		r.refuse(c, e.err)
		return
	}
	status, body := c.loop.pageAnswer(e)
	r.respond(c, status, body)
}
