package engine

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/cespare/xxhash/v2"

	"rayflux/persist"
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
	r.answer.has = tagIn(req.IfNoneMatch)
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

// page renders a page of history in the topic's home loop, or sends for one.
func (l *loop) page(e *errand) {
	t := l.topics[string(e.name)]
	switch {
	case l.crowded(e.conn.loop):
		e.err = errCrowded(l.mailMax)
	case t != nil && t.tells(e.from):
		l.pageHere(t, e)
	case t != nil:
		l.keeper.recallPage(t, e)
		return
	case l.keeper != nil && l.cfg.keeps(string(e.name)):
		l.keeper.recallPage(nil, e)
		return
	default:
		e.err = errNoHistory(e)
	}
	l.answer(e)
}

// errNoHistory is about a topic that nobody knows.
func errNoHistory(e *errand) *protocol.Error {
	if e.from.Mode == protocol.FromPosition {
		return &protocol.Error{Code: protocol.CodeEpochUnknown, Message: fmt.Sprintf("epoch %q is not known: nothing was published to topic %q lately", e.from.Epoch, e.name)}
	}
	return &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf("topic %q is not known here: nothing was published to it lately", e.name)}
}

// pageHere makes a page of what is in the log.
func (l *loop) pageHere(t *topic, e *errand) {
	e.topic, e.head = t, t.head
	next, _ := t.resolve(l, e.from)
	if e.from.Mode == protocol.FromPosition {
		if string(e.from.Epoch) != t.epoch {
			e.err = &protocol.Error{Code: protocol.CodeEpochUnknown, Message: fmt.Sprintf("epoch %q of topic %q is not known, it is %q now", e.from.Epoch, t.name, t.epoch)}
			return
		}
		next = max(min(e.from.Offset, t.head)+1, t.start) // offsets show what is no longer there
	}
	p := &historyPage{limit: e.size, next: next, epoch: t.epoch}
	e.payload = l.appendPage(l.scratch[:0], t, t.name, p)
	l.scratch = e.payload[:0]
	e.whole = p.lasts(e)
}

// appendPage writes a page: what it has from the archive, and, where the log goes on with that, what is there. t is nil if the topic is
// not known here.
func (l *loop) appendPage(dst []byte, t *topic, name string, p *historyPage) []byte {
	head := p.next - 1 // as far as is known here
	here := t != nil && p.epoch == t.epoch
	if here {
		head = t.head
	}
	start := len(dst)
	dst = appendPageHead(dst, name, p.epoch, head)
	dst = append(dst, p.messages...)
	if here && p.next >= t.start && p.n < p.limit {
		t.walk(p.next, func(c *chunk, offset uint64, kind protocol.Kind, payload, _ []byte) bool {
			var more bool
			dst, more = p.append(dst, start, offset, c.timeOf(uint32(offset-c.first))+l.skew, kind, payload)
			return more
		})
	}
	return appendPageEnd(dst, p.epoch, p.next)
}

// historyPage is a page that is being made: of a log, or, on a goroutine of its own, of the archive.
type historyPage struct {
	limit int    // messages, at most
	n     int    // there are
	next  uint64 // offset after the last one

	epoch    string // that the messages are of; "": there are none
	messages []byte // of a page from the archive
}

func appendPageHead(dst []byte, topic, epoch string, head uint64) []byte {
	dst = append(dst, `{"topic":`...)
	dst = protocol.AppendJSONStringOf(dst, topic)
	dst = append(dst, `,"epoch":"`...)
	dst = append(dst, epoch...)
	dst = append(dst, `","head":`...)
	dst = strconv.AppendUint(dst, head, 10)
	return append(dst, `,"messages":[`...)
}

// append writes a message, if there is room for it, and reports whether there is for more. The page is dst[start:].
func (p *historyPage) append(dst []byte, start int, offset uint64, unixMs int64, kind protocol.Kind, payload []byte) (out []byte, more bool) {
	before := len(dst)
	if p.n > 0 {
		dst = append(dst, ',')
	}
	dst = append(dst, `{"offset":`...)
	dst = strconv.AppendUint(dst, offset, 10)
	dst = append(dst, `,"time":"`...)
	dst = protocol.AppendTimestamp(dst, unixMs)
	dst = append(dst, `",`...)
	dst = protocol.AppendMessageData(dst, kind, payload)
	dst = append(dst, '}')
	if p.n > 0 && len(dst)-start > pageBytesMax { // as written: escapes can make a text six times as long
		return dst[:before], false
	}
	p.next = offset + 1
	p.n++
	return dst, p.n < p.limit
}

// lasts reports whether the page will always have the same messages.
func (p *historyPage) lasts(e *errand) bool {
	return e.from.Mode == protocol.FromPosition && p.n == p.limit
}

func appendPageEnd(dst []byte, epoch string, next uint64) []byte {
	dst = append(dst, `],"next":"`...)
	dst = protocol.AppendPosition(dst, epoch, next-1)
	return append(dst, `"}`...)
}

// read makes the page of what is in the archive: of one epoch, the first that has something.
func (p *historyPage) read(ctx context.Context, a Archive, topic string, q *inquiry) error {
	start := &q.start
	if start.Epoch == "" || q.inLog() || q.query.From == persist.FromPosition && !start.Whole && !start.Partial {
		return nil
	}
	at := start.Position
	for more := true; more; {
		r, err := a.Read(ctx, topic, at, pageBytesMax)
		switch {
		case err != nil && p.n == 0:
			return err
		case r.Count > 0:
			p.messages, more = p.appendRun(p.messages, r.Frames, r.Times)
			at.Offset += uint64(r.Count)
		case err == nil && p.n == 0 && r.Hole > 0: // a page has none within
			at.Offset = r.Hole - 1
		case err == nil && p.n == 0 && r.NextEpoch != "":
			at = persist.Position{Epoch: r.NextEpoch}
		default:
			more = false
		}
	}
	if p.n > 0 {
		p.epoch = at.Epoch
	}
	return nil
}

// appendRun writes what there is room for.
func (p *historyPage) appendRun(dst, frames []byte, times []persist.Time) (out []byte, more bool) {
	more = true
	for i := uint32(0); len(frames) > 0 && more; i++ {
		offset, kind, payload, n := protocol.NextBinaryMessage(frames)
		for len(times) > 1 && times[1].Index <= i {
			times = times[1:]
		}
		dst, more = p.append(dst, 0, offset, times[0].UnixMs, kind, payload)
		frames = frames[n:]
	}
	return dst, more
}

// recallPage has a page made of what is in the archive. t is nil if the topic is not known here.
func (k *keeper) recallPage(t *topic, e *errand) {
	if !k.mayAsk(e) {
		return
	}
	q := k.inquire(t, e)
	q.page = &historyPage{limit: e.size}
	q.query = t.query(k.loop, e.from)
	k.queue(q)
}

// paged brings a page, which is of the log if the archive has nothing.
func (k *keeper) paged(q *inquiry) {
	l, e, t, p := k.loop, &q.errand, q.topic, q.page
	switch {
	case p.n > 0:
		e.payload = l.appendPage(l.scratch[:0], t, string(e.name), p)
		l.scratch = e.payload[:0]
		e.whole = p.lasts(e)
	case t != nil:
		l.pageHere(t, e)
	default:
		e.err = errNoHistory(e)
	}
	l.answer(e)
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
	if status != 200 {
		r.respond(c, status, body)
		return
	}
	tag := xxhash.Sum64(body)
	headers := [...]string{fmt.Sprintf(`ETag: "%016x"`, tag), "Cache-Control: no-cache"}
	if e.whole {
		headers[1] = pageKept
	}
	if tag == r.answer.has {
		status = 304
	}
	r.respond(c, status, body, headers[:]...)
}

// pageKept goes with a page that will always have the same messages: as many as were asked for, behind a position. Its head grows
// old, which keeps nobody from asking for the next.
const pageKept = "Cache-Control: public, max-age=86400"

// tagIn is the first tag of an If-None-Match (RFC 9110 §13.1.2) if it is one that pages have; else 0.
func tagIn(field []byte) uint64 {
	_, rest, _ := bytes.Cut(field, []byte{'"'})
	hex, _, ok := bytes.Cut(rest, []byte{'"'})
	tag, err := strconv.ParseUint(string(hex), 16, 64)
	if !ok || err != nil || len(hex) != 16 {
		return 0
	}
	return tag
}
