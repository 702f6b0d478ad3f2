package main

import (
	"errors"
	"net"
	"time"

	"rayflux/protocol"
)

const (
	headBytesMax    = 8 << 10
	messageBytesMax = 32 << 20 // group 9 sends 16 MiB in one message
	readBytesMin    = 64 << 10
	lingerMax       = time.Second
)

// serveEcho answers every connection until l is closed.
func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			e := echo{conn: c}
			if e.open() && e.talk() {
				e.linger()
			}
		}()
	}
}

// echo is one connection, owned by its goroutine.
type echo struct {
	conn   net.Conn
	in     []byte // received and not yet consumed
	out    []byte // to be written before the next read
	reader protocol.MessageReader
}

// open takes the connection through the opening handshake, RFC 6455 section 4.2.
func (e *echo) open() bool {
	for {
		req, ok, err := protocol.NextHead(e.in, headBytesMax)
		if err == nil && ok {
			var response []byte
			response, _, err = protocol.Upgrade(e.in[:req.Size], nil)
			e.out = append(e.out, response...)
			e.in = e.in[req.Size:]
		}
		if err != nil {
			var h *protocol.HTTPError
			if errors.As(err, &h) {
				e.out = protocol.AppendHTTPError(e.out, h, false)
			}
			e.flush()
			return false
		}
		if ok {
			return true
		}
		if !e.fill() {
			return false
		}
	}
}

// talk echoes messages until a close frame has been sent, or the peer is gone (false).
func (e *echo) talk() bool {
	for {
		m, n, err := e.reader.Next(e.in, messageBytesMax)
		if err != nil {
			e.sendClose(err)
			return e.flush()
		}
		if n == 0 {
			if !e.fill() {
				return false
			}
			continue
		}
		// The payload is a slice of e.in or of the reader: copied out before either moves on.
		switch m.Opcode {
		case protocol.OpText, protocol.OpBinary:
			e.out = protocol.AppendFrame(e.out, m.Opcode, m.Payload)
		case protocol.OpPing:
			e.out = protocol.AppendFrame(e.out, protocol.OpPong, m.Payload)
		case protocol.OpClose:
			e.answerClose(m.Payload)
			return e.flush()
		}
		e.in = e.in[n:]
	}
}

// answerClose sends back the code that the peer gave, if any, RFC 6455 section 5.5.1.
func (e *echo) answerClose(payload []byte) {
	code, _, err := protocol.ParseClose(payload)
	if err != nil {
		e.sendClose(err)
		return
	}
	e.out = protocol.AppendClose(e.out, code, "")
}

func (e *echo) sendClose(err error) {
	var c *protocol.CloseError
	if !errors.As(err, &c) {
		c = &protocol.CloseError{Code: protocol.CloseInternal, Text: err.Error()}
	}
	e.out = protocol.AppendClose(e.out, c.Code, c.Text)
}

// linger ends our side first and reads on for a moment: closing a socket with
// unread bytes in it resets the connection, and a reset may overtake the close frame.
func (e *echo) linger() {
	t, ok := e.conn.(*net.TCPConn)
	if !ok || t.CloseWrite() != nil {
		return
	}
	_ = t.SetReadDeadline(time.Now().Add(lingerMax))
	scratch := make([]byte, readBytesMin)
	for {
		if _, err := t.Read(scratch); err != nil {
			return
		}
	}
}

// fill writes what is due and reads what has come. False: the peer is gone.
func (e *echo) fill() bool {
	if !e.flush() {
		return false
	}
	if cap(e.in)-len(e.in) < readBytesMin {
		// Doubling, so that a long message is not copied at every read.
		grown := make([]byte, len(e.in), 2*len(e.in)+2*readBytesMin)
		copy(grown, e.in)
		e.in = grown
	}
	n, err := e.conn.Read(e.in[len(e.in):cap(e.in)])
	e.in = e.in[:len(e.in)+n]
	return err == nil
}

func (e *echo) flush() bool {
	_, err := e.conn.Write(e.out)
	e.out = e.out[:0]
	return err == nil
}
