package engine

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"rayflux/protocol"
)

type httpPhase uint8

const (
	httpFirst   httpPhase = iota // no whole request head has come yet; the handshake timer runs
	httpIdle                     // between requests
	httpHead                     // part of a request head has come; the handshake timer runs
	httpBody                     // a head without all of its body; the request timer runs
	httpWaiting                  // a request's errands are out; what follows it stays unread
)

// httpRole is a connection between its accept and its upgrade, or one of a client that only speaks HTTP. One request at
// a time is being answered, so answers are in request order. Loop-owned.
type httpRole struct {
	phase   httpPhase
	need    int // bytes of input before another look is worth while
	unread  int // bytes of the answer that waited for the kernel when the timer last looked
	chunked *chunkedRequest
	answer  httpAnswer
}

// httpAnswer is what must be remembered of a request while its errands are out.
type httpAnswer struct {
	route     route
	keepAlive bool
	batch     *batchAnswer
	has       uint64 // history: the tag of the page that the client has; 0: none
}

// chunkedRequest is a request whose body comes in chunks, as far as it has come. Its buffers are pooled and charged.
type chunkedRequest struct {
	decoder protocol.ChunkedBody
	head    buffer
	body    buffer
	route   route
	limit   int
}

func badRequest(format string, args ...any) *protocol.HTTPError {
	return &protocol.HTTPError{Status: 400, Code: protocol.CodeBadRequest, Message: fmt.Sprintf(format, args...)}
}

func (r *httpRole) consume(c *conn, b []byte) int {
	n, sent := 0, 0
	for n < len(b) && !r.busy(c) && c.role == role(r) && !c.closed && !c.parting {
		var used int
		switch {
		case r.chunked != nil:
			used = r.bodyChunks(c, b[n:])
		case len(b)-n < r.need:
			return n
		default:
			used = r.request(c, b[n:])
		}
		if used == 0 {
			return n
		}
		n += used
		if c.out.len() > c.loop.cfg.MaxAnswers {
			c.flushAnswers() // a few bytes ask for a long page: the next one waits until this one is on its way
			if sent += pageBytesMax / 4; sent > pageBytesMax && !c.closed {
				c.loop.block(c) // and for its turn: other connections have theirs
			}
		}
	}
	if c.closed || c.parting {
		return len(b)
	}
	if r.busy(c) && len(b)-n > r.pipelineMax(c) {
		if r.phase == httpWaiting {
			c.refuse(unknownOutcome(), protocol.ReasonPipelineFull)
			return len(b)
		}
		c.refuse(&protocol.HTTPError{Status: 503, Code: protocol.CodeOverloaded, RetryAfter: time.Second,
			Message: fmt.Sprintf("over %d bytes of requests wait for the one before them", r.pipelineMax(c))}, protocol.ReasonPipelineFull)
		return len(b)
	}
	return n
}

// busy reports whether the next request must wait: for the errands of this one, or for the client to take an answer.
func (r *httpRole) busy(c *conn) bool { return r.phase == httpWaiting || c.lag != nil }

// pipelineMax is how much may wait behind a request that is being answered: any one request.
func (r *httpRole) pipelineMax(c *conn) int { return c.loop.cfg.MaxBatch + c.loop.cfg.MaxHeader }

// request takes one request from the front of b; 0: it is not whole.
func (r *httpRole) request(c *conn, b []byte) int {
	req, ok, err := protocol.NextHead(b, c.loop.cfg.MaxHeader)
	if err != nil {
		r.fail(c, err)
		return len(b)
	}
	if !ok {
		if r.phase == httpIdle {
			r.phase = httpHead
			c.restart(int64(c.loop.cfg.HandshakeTimeout))
		}
		return 0
	}
	to := routeOf(&req)
	limit := c.loop.bodyLimit(to)
	if err := r.judge(c, &req, to, limit); err != nil {
		r.refuseHead(c, &req, err)
		return len(b)
	}
	if req.Chunked {
		r.awaitBody(c, &req)
		r.chunked = &chunkedRequest{route: to, limit: limit}
		if !c.keep(&r.chunked.head, b[:req.Size]) {
			return len(b)
		}
		return req.Size
	}
	whole := req.Size + int(max(req.ContentLength, 0))
	if len(b) < whole {
		if r.need < whole {
			r.need = whole
			r.awaitBody(c, &req)
		}
		return 0
	}
	r.need = 0
	r.handle(c, &req, to, b[:req.Size], b[req.Size:whole])
	return whole
}

// awaitBody starts the request timer, and asks for the body if the client waits to be asked.
func (r *httpRole) awaitBody(c *conn, req *protocol.Request) {
	r.phase = httpBody
	c.restart(int64(c.loop.cfg.RequestTimeout))
	if req.ExpectContinue {
		c.say(protocol.AppendContinue)
	}
}

// judge refuses what can be refused on the head alone.
func (r *httpRole) judge(c *conn, req *protocol.Request, to route, limit int) error {
	if err := to.check(req); err != nil {
		return err
	}
	if req.ContentLength > int64(limit) {
		return tooLarge(to, fmt.Sprintf("body is %d bytes, limit %d", req.ContentLength, limit))
	}
	if to.hasBody() && req.ContentLength < 0 && !req.Chunked {
		return &protocol.HTTPError{Status: 411, Code: protocol.CodeLengthRequired, Message: "request has neither Content-Length nor a chunked body"}
	}
	if c.loop.shared.draining.Load() {
		return &protocol.HTTPError{Status: 503, Code: protocol.CodeDraining, Message: "this server is going away", RetryAfter: time.Second}
	}
	return nil
}

func tooLarge(to route, message string) *protocol.HTTPError {
	code := protocol.CodeMessageTooLarge
	if to == routeBatch {
		code = protocol.CodeBatchTooLarge
	}
	return &protocol.HTTPError{Status: 413, Code: code, Message: message}
}

// bodyChunks takes more of a chunked body.
func (r *httpRole) bodyChunks(c *conn, b []byte) int {
	k := r.chunked
	n := 0
	for {
		data, used, done, err := k.decoder.Next(b[n:])
		n += used
		if err != nil {
			r.fail(c, err)
			return len(b)
		}
		if held := k.body.len(); held+len(data) > k.limit {
			r.fail(c, tooLarge(k.route, fmt.Sprintf("body is over %d bytes, the limit", k.limit)))
			return len(b)
		}
		if len(data) > 0 && !c.keep(&k.body, data) {
			return len(b)
		}
		if done {
			r.chunkedWhole(c, k)
			return n
		}
		if used == 0 {
			return n
		}
	}
}

// chunkedWhole handles a request whose last chunk has come.
func (r *httpRole) chunkedWhole(c *conn, k *chunkedRequest) {
	req, ok, err := protocol.NextHead(k.head.bytes(), k.head.len()+1)
	if !ok || err != nil {
		bug("a request head that was whole no longer is")
	}
	r.chunked = nil
	r.handle(c, &req, routeOf(&req), k.head.bytes(), k.body.bytes())
	k.head.release(c.loop)
	k.body.release(c.loop)
}

// handle answers a whole request, or sends its errands.
func (r *httpRole) handle(c *conn, req *protocol.Request, to route, head, body []byte) {
	l := c.loop
	l.metrics.requests.Add(1)
	if r.phase != httpIdle {
		r.phase = httpIdle
		c.restart(2 * int64(l.cfg.PingInterval))
	}
	r.answer = httpAnswer{route: to, keepAlive: req.KeepAlive}
	var err error
	switch to {
	case routeWS, routeSubscribe:
		err = r.handshake(c, to, head)
	case routeStream:
		if e := r.openStream(c, req); e != nil {
			err = e
		}
	case routeClassicPublish:
		err = r.publishClassic(c, body)
	case routeBatch:
		err = r.publishBatch(c, body)
	case routePublish:
		err = r.publishOne(c, req, body)
	case routeHistory:
		err = r.history(c, req)
	case routeHealth:
		r.respond(c, 200, []byte(`{"status":"ok"}`))
	}
	if err != nil {
		r.refuse(c, err)
	}
}

func (r *httpRole) handshake(c *conn, to route, head []byte) error {
	l := c.loop
	known := nativeSubprotocols
	if to == routeSubscribe {
		known = nil
	}
	response, chosen, err := protocol.Upgrade(head, known)
	if err != nil {
		return err
	}
	if to == routeSubscribe {
		c.upgrade(response, &classicRole{webSocket: webSocket{format: protocol.FormatClassic}})
	} else {
		l.newNative(c, response, chosen)
	}
	return nil
}

// respond answers a request with a JSON body.
func (r *httpRole) respond(c *conn, status int, body []byte, headers ...string) {
	keep := r.answer.keepAlive && !c.loop.shared.draining.Load()
	out, before := c.answers()
	if status == 304 {
		out.b = protocol.AppendNotModified(out.b, keep, headers...)
	} else {
		out.b = protocol.AppendResponse(out.b, status, "application/json", body, keep, headers...)
	}
	c.out.settle(c.loop, before)
	if !keep {
		c.part(protocol.ReasonHTTP)
	}
}

// refuse answers a whole request with an error. The connection lives, as its next byte is the next request's first,
// except after a failed handshake: what follows that is anybody's guess.
func (r *httpRole) refuse(c *conn, err error) {
	e := asHTTP(err)
	keep := r.answer.keepAlive && !c.loop.shared.draining.Load() && r.answer.route != routeWS && r.answer.route != routeSubscribe
	out, before := c.answers()
	out.b = protocol.AppendHTTPError(out.b, e, keep)
	c.out.settle(c.loop, before)
	if !keep {
		c.part(protocol.ReasonHTTPError)
	}
}

// refuseHead ends the connection over a request of which nothing but the head is known.
func (r *httpRole) refuseHead(c *conn, req *protocol.Request, err error) {
	e := asHTTP(err)
	if e.Code == protocol.CodeDraining && routeOf(req).hasBody() {
		c.loop.metrics.dropped[protocol.ReasonDropDraining].Add(1)
	}
	c.say(func(dst []byte) []byte {
		from := len(dst)
		dst = appendRefusal(dst, e)
		if string(req.Method) == "HEAD" { // its answer has no body (RFC 9110 §9.3.2)
			dst = dst[:from+bytes.Index(dst[from:], []byte("\r\n\r\n"))+4]
		}
		return dst
	})
	c.part(protocol.ReasonHTTPError)
}

// fail answers with an error after which the stream cannot be trusted.
func (r *httpRole) fail(c *conn, err error) { c.refuse(asHTTP(err), protocol.ReasonHTTPError) }

func asHTTP(err error) *protocol.HTTPError {
	var h *protocol.HTTPError
	if errors.As(err, &h) {
		return h
	}
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.HTTP()
	}
	return &protocol.HTTPError{Status: 500, Code: protocol.CodeInternal, Message: err.Error()}
}

func appendRefusal(dst []byte, e *protocol.HTTPError) []byte {
	return protocol.AppendHTTPError(dst, e, false)
}

func (r *httpRole) timeout(c *conn) {
	switch r.phase {
	case httpFirst:
		if c.in.empty() {
			c.abort(protocol.ReasonHandshakeTimeout) // it never said a word; there is no request to answer
			return
		}
		r.late(c, protocol.ReasonHandshakeTimeout, "request head", c.loop.cfg.HandshakeTimeout)
	case httpHead:
		r.late(c, protocol.ReasonHandshakeTimeout, "request head", c.loop.cfg.HandshakeTimeout)
	case httpBody:
		r.late(c, protocol.ReasonRequestTimeout, "request body", c.loop.cfg.RequestTimeout)
	case httpIdle:
		idle := 2 * int64(c.loop.cfg.PingInterval)
		switch unread := c.out.len(); {
		case unread > 0 && unread != r.unread: // it is reading a long answer
			r.unread = unread
			c.restart(idle)
		case c.silence() >= idle:
			c.part(protocol.ReasonHTTP)
		default:
			c.restart(idle - c.silence())
		}
	case httpWaiting:
		c.restart(2 * int64(c.loop.cfg.PingInterval))
	}
}

func (r *httpRole) late(c *conn, why protocol.Reason, what string, limit time.Duration) {
	c.refuse(&protocol.HTTPError{Status: 408, Code: protocol.CodeTimeout, Message: fmt.Sprintf("%s was not complete after %v", what, limit)}, why)
}

// lost: a client may leave between two requests.
func (r *httpRole) lost() protocol.Reason {
	if r.phase == httpIdle {
		return protocol.ReasonHTTP
	}
	return protocol.ReasonPeerReset
}

func (r *httpRole) slow(t *topic) SlowPolicy { return t.slow }

func (r *httpRole) gap(*conn, *subscription, gap) {}

func (r *httpRole) farewell(dst []byte, why protocol.Reason, text string) []byte {
	if r.phase == httpWaiting {
		return appendRefusal(dst, unknownOutcome())
	}
	if text == "" {
		text = why.String()
	}
	code := protocol.CodeOverloaded
	if why == protocol.ReasonDrain {
		code = protocol.CodeDraining
	}
	return appendRefusal(dst, &protocol.HTTPError{Status: 503, Code: code, Message: text, RetryAfter: time.Second})
}

// unknownOutcome answers a request that is being carried out when its connection ends.
func unknownOutcome() *protocol.HTTPError {
	return &protocol.HTTPError{Status: 503, Code: protocol.CodeOutcomeUnknown, Message: "the connection ends before the outcome is known: it may or may not have happened"}
}

// drain: a connection that has nothing under way, but perhaps an answer to take, can go at once; the others end with their
// answer, which says so.
func (r *httpRole) drain(c *conn, _ uint64) leaveTime {
	if (r.phase == httpIdle || r.phase == httpFirst) && c.in.empty() {
		return leaveNow
	}
	return leaveLater
}

func (r *httpRole) release(c *conn) {
	if r.chunked != nil {
		r.chunked.head.release(c.loop)
		r.chunked.body.release(c.loop)
	}
}

var nativeSubprotocols = []string{subprotocolJSON, subprotocolBinary}

// mediaType is a Content-Type without its parameters.
func mediaType(contentType []byte) []byte {
	if i := bytes.IndexByte(contentType, ';'); i >= 0 {
		contentType = contentType[:i]
	}
	return bytes.TrimSpace(contentType)
}
