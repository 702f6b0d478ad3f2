package engine

import (
	"bytes"
	"strconv"

	"rayflux/protocol"
)

// batchMessagesMax is the most messages of one batch.
const batchMessagesMax = 1000

// batchAnswer collects the outcomes of a batch's messages, which may come back from several loops in any order.
type batchAnswer struct {
	pending int
	results []batchResult
}

type batchResult struct {
	epoch  string
	offset uint64
	err    *protocol.Error
}

// publishClassic is POST /publish of the first RayFlux.
func (r *httpRole) publishClassic(c *conn, body []byte) error {
	l := c.loop
	topic, message, err := protocol.ParseClassicPublish(body, &l.parse, l.cfg.MaxMessage)
	if err != nil {
		l.countRefused(err.(*protocol.Error))
		return err
	}
	e := &l.errand
	*e = errand{conn: c, op: opPublish, name: topic, hash: l.hash(topic), kind: protocol.KindText, payload: message, hasID: true}
	r.send(c, e)
	return nil
}

// send runs the one errand of a request.
func (r *httpRole) send(c *conn, e *errand) {
	r.phase = httpWaiting
	c.loop.run(e)
}

// publishOne is POST /v1/topics/{topic}/messages: the body is the payload.
func (r *httpRole) publishOne(c *conn, req *protocol.Request, body []byte) error {
	l := c.loop
	topic, err := l.topicInPath(req)
	if err != nil {
		return err
	}
	kind, err := kindOf(req)
	if err == nil {
		err = protocol.CheckPayload(kind, body, l.cfg.MaxMessage)
	}
	if err != nil {
		if e, ok := err.(*protocol.Error); ok {
			l.countRefused(e)
		}
		return err
	}
	stored := false
	switch ack, _ := protocol.QueryValue(req.Query, "ack", 0); string(ack) {
	case "", "memory":
	case "stored":
		stored = true
	default:
		return badRequest("ack is %.40q, want memory or stored", ack)
	}
	e := &l.errand
	*e = errand{conn: c, op: opPublish, name: topic, hash: l.hash(topic), kind: kind, payload: body, hasID: true, stored: stored}
	r.send(c, e)
	return nil
}

// topicInPath decodes and checks the {topic} of a path. The slice is the loop's scratch.
func (l *loop) topicInPath(req *protocol.Request) ([]byte, error) {
	topic, err := protocol.AppendUnescape(l.name[:0], rawTopic(req.Path), false)
	if err != nil {
		return nil, err
	}
	l.name = topic
	return topic, protocol.CheckTopic(topic)
}

// kindOf reads the kind of a raw body from ?kind= or the Content-Type.
func kindOf(req *protocol.Request) (protocol.Kind, error) {
	if word, ok := protocol.QueryValue(req.Query, "kind", 0); ok {
		kind, ok := protocol.ParseKind(word)
		if !ok {
			return 0, badRequest("kind is %.40q, want json, text or binary", word)
		}
		return kind, nil
	}
	media := mediaType(req.ContentType)
	switch {
	case len(media) == 0, bytes.EqualFold(media, formMedia), len(media) > len(textMedia) && bytes.EqualFold(media[:len(textMedia)], textMedia):
		return protocol.KindText, nil
	case bytes.EqualFold(media, jsonMedia):
		return protocol.KindJSON, nil
	}
	return protocol.KindBinary, nil
}

var (
	formMedia = []byte("application/x-www-form-urlencoded")
	jsonMedia = []byte("application/json")
	textMedia = []byte("text/")
)

// publishBatch is POST /v1/publish. The messages go to their topics' loops one by one; the answer waits for the last.
func (r *httpRole) publishBatch(c *conn, body []byte) error {
	l := c.loop
	batch := &batchAnswer{pending: 1} // one for this function, so that it is not through before all are sent
	r.answer.batch = batch
	r.phase = httpWaiting
	err := protocol.ParseBatch(body, &l.parse, batchMessagesMax, l.cfg.MaxMessage, func(i int, cmd protocol.Command, err error) {
		batch.results = append(batch.results, batchResult{})
		if err != nil {
			batch.results[i].err = err.(*protocol.Error)
			l.countRefused(batch.results[i].err)
			return
		}
		batch.pending++
		e := &l.errand
		*e = errand{conn: c, op: opPublish, name: cmd.Topic, hash: l.hash(cmd.Topic), kind: cmd.Kind, payload: cmd.Payload,
			hasID: true, stored: cmd.Stored, slot: int32(i)}
		l.run(e)
	})
	if err != nil {
		r.phase = httpIdle
		r.answer.batch = nil
		return err
	}
	r.batchDone(c)
	return nil
}

// batchDone counts one outcome of a batch and answers with the last.
func (r *httpRole) batchDone(c *conn) {
	batch := r.answer.batch
	if batch.pending--; batch.pending > 0 {
		return
	}
	body := append(c.loop.scratch[:0], `{"results":[`...)
	for i, res := range batch.results {
		if i > 0 {
			body = append(body, ',')
		}
		if res.err != nil {
			body = append(body, `{"error":`...)
			body = appendErrorObject(body, res.err)
			body = append(body, '}')
			continue
		}
		body = append(body, '{')
		body = appendPositionFields(body, res.epoch, res.offset)
		body = append(body, '}')
	}
	body = append(body, "]}"...)
	c.loop.scratch = body[:0]
	r.answer.batch = nil
	r.phase = httpIdle
	r.respond(c, 200, body)
}

func appendPositionFields(dst []byte, epoch string, offset uint64) []byte {
	dst = append(dst, `"epoch":"`...)
	dst = append(dst, epoch...)
	dst = append(dst, `","offset":`...)
	return strconv.AppendUint(dst, offset, 10)
}

func appendErrorObject(dst []byte, e *protocol.Error) []byte {
	dst = append(dst, `{"code":`...)
	dst = protocol.AppendJSONStringOf(dst, string(e.Code))
	dst = append(dst, `,"message":`...)
	dst = protocol.AppendJSONStringOf(dst, e.Message)
	if e.RetryAfter > 0 {
		dst = append(dst, `,"retry_after_ms":`...)
		dst = strconv.AppendInt(dst, e.RetryAfter.Milliseconds(), 10)
	}
	return append(dst, '}')
}

// answered turns an errand's outcome into the response, or into a part of a batch's.
func (r *httpRole) answered(c *conn, e *errand) {
	if e.err != nil && e.op == opPublish {
		c.loop.countRefused(e.err)
	}
	switch {
	case r.answer.batch != nil:
		res := &r.answer.batch.results[e.slot]
		if res.err = e.err; e.err == nil {
			res.epoch, res.offset = e.epoch, e.offset
		}
		r.batchDone(c)
	case e.op == opHistory:
		r.phase = httpIdle
		r.answerPage(c, e)
	case e.err != nil:
		r.phase = httpIdle
		r.refuse(c, e.err)
	default:
		r.phase = httpIdle
		r.respondPublished(c, e)
	}
	if r.phase == httpIdle && !c.consuming {
		c.consumeKept() // the answer came by mail: more requests may wait behind it
	}
}

// respondPublished is the answer to one publish; the classic one says "message accepted" before all else.
func (r *httpRole) respondPublished(c *conn, e *errand) {
	body := append(c.loop.scratch[:0], '{')
	if r.answer.route == routeClassicPublish {
		body = append(body, `"status":"message accepted",`...)
	}
	body = append(body, `"topic":`...)
	body = protocol.AppendJSONStringOf(body, e.topic.name)
	body = append(body, ',')
	body = appendPositionFields(body, e.epoch, e.offset)
	body = append(body, '}')
	c.loop.scratch = body[:0]
	r.respond(c, 200, body)
}

// countRefused counts a publish that was refused, by reason.
func (l *loop) countRefused(e *protocol.Error) {
	why := protocol.ReasonDropInvalid
	switch e.Code {
	case protocol.CodeMessageTooLarge:
		why = protocol.ReasonDropTooLarge
	case protocol.CodeTooManyTopics:
		why = protocol.ReasonDropTooManyTopics
	case protocol.CodeOverloaded:
		why = protocol.ReasonDropOverloaded
	case protocol.CodeDraining:
		why = protocol.ReasonDropDraining
	case protocol.CodeNoOwner:
		why = protocol.ReasonDropNoOwner
	case protocol.CodeOutcomeUnknown:
		why = protocol.ReasonDropUnknown
	}
	l.metrics.dropped[why].Add(1)
}
