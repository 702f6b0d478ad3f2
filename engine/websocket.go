package engine

import (
	"errors"

	"rayflux/protocol"
)

// webSocket is what the roles that are one have in common: frames in, pings, close frames. Loop-owned.
type webSocket struct {
	reader protocol.MessageReader
	held   int32           // bytes of an unfinished message in reader, charged to the loop's buffers
	format protocol.Format // in which it gets messages
}

// messageTaker gets what the frames say.
type messageTaker interface {
	message(c *conn, m protocol.Message)
}

// frames reads whole frames from the front of b and gives the messages to role; control frames are answered here. When a
// message gives the connection another role, which goes on with a copy of this reader, the rest is that one's.
func (w *webSocket) frames(c *conn, b []byte, limit int, role messageTaker) int {
	n, before := 0, c.role
	for n < len(b) {
		m, used, err := w.reader.Next(b[n:], limit)
		n += used
		if err != nil {
			c.failFrame(err)
			return len(b)
		}
		switch m.Opcode {
		case protocol.OpContinuation:
			w.charge(c)
			return n
		case protocol.OpPing:
			c.frame(protocol.OpPong, m.Payload)
		case protocol.OpPong:
		case protocol.OpClose:
			w.closed(c, m.Payload)
			return len(b)
		default:
			role.message(c, m)
			if c.role != before {
				return n
			}
		}
		if c.closed || c.parting {
			return len(b)
		}
	}
	w.charge(c)
	return n
}

// charge brings the loop's account of unfinished messages up to date.
func (w *webSocket) charge(c *conn) {
	if n := int32(w.reader.Held()); n != w.held {
		c.loop.buffered += int64(n - w.held)
		w.held = n
		if c.loop.buffered > c.loop.bufferMax {
			w.release(c)
			c.fail(protocol.ReasonOverCapacity, "this server's buffer-memory is used up")
		}
	}
}

// closed answers the client's close frame in kind (RFC 6455 §5.5.1).
func (w *webSocket) closed(c *conn, payload []byte) {
	code, _, err := protocol.ParseClose(payload)
	if err != nil {
		c.failFrame(err)
		return
	}
	out, before := c.answers()
	if code == protocol.CloseNoStatus {
		out.b = protocol.AppendFrame(out.b, protocol.OpClose, nil)
	} else {
		out.b = protocol.AppendClose(out.b, code, "")
	}
	c.out.settle(c.loop, before)
	c.part(protocol.ReasonClientClosed)
}

func (w *webSocket) release(c *conn) {
	w.reader.Reset()
	c.loop.buffered -= int64(w.held)
	w.held = 0
}

// timeout pings a connection that was silent for an interval and ends one that was for two.
func (w *webSocket) timeout(c *conn) {
	interval := int64(c.loop.cfg.PingInterval)
	silence := c.silence()
	switch {
	case silence >= 2*interval:
		c.fail(protocol.ReasonPingTimeout, "")
		return
	case silence >= interval:
		if !c.blocked() { // else there is no room for it, and silence will tell
			c.frame(protocol.OpPing, nil)
		}
		c.restart(2*interval - silence)
		return
	}
	c.restart(interval - silence)
}

func (w *webSocket) slow(t *topic) SlowPolicy { return t.slow }

func (w *webSocket) lost() protocol.Reason { return protocol.ReasonPeerReset }

func (w *webSocket) farewell(dst []byte, why protocol.Reason, text string) []byte {
	if text == "" {
		text = why.String()
	}
	return protocol.AppendClose(dst, why.CloseCode(), text)
}

// frame appends a control frame to the answers.
func (c *conn) frame(op protocol.Opcode, payload []byte) {
	out, before := c.answers()
	out.b = protocol.AppendFrame(out.b, op, payload)
	c.out.settle(c.loop, before)
}

// failFrame ends the connection over what the peer sent.
func (c *conn) failFrame(err error) {
	var e *protocol.CloseError
	if !errors.As(err, &e) {
		bug("framing failed without a close code: " + err.Error())
	}
	c.fail(e.Reason(), e.Text)
}

// upgrade turns an HTTP connection into the given role, after its response.
func (c *conn) upgrade(response []byte, to role) {
	c.say(func(dst []byte) []byte { return append(dst, response...) })
	c.become(to)
}

// become gives an HTTP connection the role it keeps.
func (c *conn) become(to role) {
	c.role = to
	c.answersMax = c.loop.cfg.MaxAnswers
	c.grow()
	c.restart(int64(c.loop.cfg.PingInterval))
}
