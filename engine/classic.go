package engine

import "rayflux/protocol"

// classicRole is a WebSocket of the first RayFlux: its first message names one topic, and from then on it gets bare
// payloads. Loop-owned.
type classicRole struct {
	webSocket
	asked bool // the first message has come
}

const classicRefusal = `{"error":"invalid subscribe request"}`

func (r *classicRole) consume(c *conn, b []byte) int {
	return r.frames(c, b, 2*c.loop.cfg.MaxMessage+8<<10, r)
}

// message takes the subscribe request. Whatever a classic client sends after it has no meaning and is ignored, as it
// always was.
func (r *classicRole) message(c *conn, m protocol.Message) {
	if r.asked {
		return
	}
	l := c.loop
	_, topic, err := protocol.ParseClassicSubscribe(m.Payload, &l.parse)
	if err != nil {
		r.refuse(c, err.Error())
		return
	}
	r.asked = true
	e := &l.errand
	*e = errand{conn: c, op: opSubscribe, name: topic, hash: l.hash(topic)}
	l.subscribe(e, r.format)
}

// refuse is the one way this protocol has to say no.
func (r *classicRole) refuse(c *conn, why string) {
	out, before := c.answers()
	out.b = protocol.AppendFrame(out.b, protocol.OpText, []byte(classicRefusal))
	c.out.settle(c.loop, before)
	c.fail(protocol.ReasonPolicy, why)
}

// answered: success is silent.
func (r *classicRole) answered(c *conn, e *errand) {
	if e.err == nil {
		return
	}
	if e.err.Code.Status() == 503 { // there is nothing wrong with the request
		c.fail(protocol.ReasonOverCapacity, e.err.Message)
		return
	}
	r.refuse(c, e.err.Message)
}

// slow: a reader who cannot be told of a gap must not have one.
func (r *classicRole) slow(*topic) SlowPolicy { return SlowClose }

func (r *classicRole) gap(*conn, *subscription, gap) {}

// drain: there is nothing to tell, but the connection may stay until its slot ends.
func (r *classicRole) drain(*conn, uint64) leaveTime { return leaveAtSlot }
