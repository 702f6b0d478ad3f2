package client

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"rayflux/protocol"
)

// posted is what became of a command that was shown to a connection.
type posted byte

const (
	postedSent posted = iota // it will be written, and is in flight from now on
	postedFull               // nothing happened: try again when conn.room says so
	postedGone               // nothing happened: this connection takes no more commands
)

// post queues a command, and ca to be answered; with ca nil the command goes
// without id. A forced command ignores the limits: resuming cannot wait, as it
// is done by the goroutine that makes room, and it is bounded by the number of
// subscriptions. Safe from any goroutine; nothing of cmd is kept.
func (cn *conn) post(cmd *protocol.Command, ca *call, forced bool) posted {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.err != nil || cn.state >= stateLeaving {
		return postedGone
	}
	if !forced && cn.fullLocked() {
		return postedFull
	}
	if ca != nil {
		cn.lastID++
		cmd.HasID, cmd.ID = true, cn.lastID
		cn.calls[cn.lastID] = ca
	} else if cmd.Op == protocol.CmdPublish {
		cn.unanswered++
	}
	cn.scratch = protocol.AppendCommandBinary(cn.scratch[:0], cmd)
	cn.pending = appendFrame(cn.pending, protocol.OpBinary, cn.scratch)
	notify(cn.wake)
	if !cn.fullLocked() {
		// The next one who waits gets in too, so that they share one write.
		notify(cn.room)
	}
	return postedSent
}

func (cn *conn) fullLocked() bool {
	return len(cn.pending) >= pendingBytesMax || len(cn.calls) >= cn.callsMax
}

// appendFrame masks with a key that cannot be foreseen, as RFC 6455 §10.3 asks
// of a client whose payloads may be somebody else's. It costs 10 ns.
func appendFrame(dst []byte, op protocol.Opcode, payload []byte) []byte {
	var mask [4]byte
	binary.NativeEndian.PutUint32(mask[:], rand.Uint32())
	return protocol.AppendMaskedFrame(dst, op, mask, payload)
}

// notify leaves one token in a channel that holds one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// writeLoop writes what has gathered since its last write, in one write: the
// more publishers, the larger the writes. It ends with the close frame or with
// the connection.
func (cn *conn) writeLoop() {
	var out []byte
	for last := false; !last; {
		select {
		case <-cn.wake:
		case <-cn.dead:
			return
		}
		out, last = cn.takePending(out)
		if len(out) == 0 {
			continue
		}
		// The deadline is the reader's: a server that takes no bytes for that
		// long is as dead as one that sends none.
		err := cn.socket.SetWriteDeadline(time.Now().Add(2 * cn.in.patience))
		if err == nil {
			_, err = cn.socket.Write(out)
		}
		if err != nil {
			cn.fail(fmt.Errorf("write: %w", err))
			return
		}
		notify(cn.room)
	}
}

// takePending swaps the pending bytes for spare, an empty buffer to gather the
// next ones in, and adds the control frames that are due. After the last bytes
// comes nothing.
func (cn *conn) takePending(spare []byte) (out []byte, last bool) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	out, cn.pending = cn.pending, spare[:0]
	if cn.pongDue {
		out = appendFrame(out, protocol.OpPong, cn.pong)
	}
	if cn.pingDue {
		out = appendFrame(out, protocol.OpPing, nil)
	}
	cn.pongDue, cn.pingDue = false, false
	if cn.state == stateClosing {
		cn.state = stateClosed
		out = appendFrame(out, protocol.OpClose, binary.BigEndian.AppendUint16(nil, uint16(cn.closeCode)))
		return out, true
	}
	return out, false
}

// queuePong answers the newest ping only (RFC 6455 §5.5.3 allows it), so a
// server that pings without reading cannot make the buffer grow.
func (cn *conn) queuePong(payload []byte) {
	cn.mu.Lock()
	cn.pong, cn.pongDue = append(cn.pong[:0], payload...), true
	cn.mu.Unlock()
	notify(cn.wake)
}

// ping asks for a sign of life.
func (cn *conn) ping() {
	cn.mu.Lock()
	cn.pingDue = true
	cn.mu.Unlock()
	notify(cn.wake)
}

// leave lets the commands in flight be answered and then closes, at the latest
// after grace. New commands wait for the next connection.
func (cn *conn) leave(grace time.Duration) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.state >= stateLeaving || cn.err != nil {
		return
	}
	cn.state = stateLeaving
	if len(cn.calls) == 0 {
		cn.closeLocked(protocol.CloseNormal, errLeft)
	} else {
		cn.afterLocked(grace, func() { cn.close(protocol.CloseNormal, errLeft) })
	}
}

// close starts the closing handshake: pending bytes, close frame, then the
// server's turn. If that takes longer than closeWait the connection fails with
// reason. Closing the socket at once could reset it, and a reset takes with it
// the last commands that the server has not read yet.
func (cn *conn) close(code protocol.CloseCode, reason error) {
	cn.mu.Lock()
	cn.closeLocked(code, reason)
	cn.mu.Unlock()
}

func (cn *conn) closeLocked(code protocol.CloseCode, reason error) {
	if cn.state >= stateClosing || cn.err != nil {
		return
	}
	if !code.OnWire() {
		code = protocol.CloseNormal
	}
	cn.state, cn.closeCode = stateClosing, code
	cn.afterLocked(closeWait, func() { cn.fail(reason) })
	notify(cn.wake)
}

// after does something later, unless the connection has ended by then.
func (cn *conn) after(d time.Duration, do func()) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.err == nil {
		cn.afterLocked(d, do)
	}
}

func (cn *conn) afterLocked(d time.Duration, do func()) {
	cn.timers = append(cn.timers, time.AfterFunc(d, do))
}

// fail ends the connection at once. The first reason is kept.
func (cn *conn) fail(reason error) {
	cn.mu.Lock()
	first := cn.err == nil
	if first {
		cn.err = reason
		for _, t := range cn.timers {
			t.Stop()
		}
		close(cn.dead)
	}
	cn.mu.Unlock()
	if first {
		cn.socket.Close() // not under mu: TLS says goodbye, which may take seconds
	}
}

// takeCall is whose answer has come; nil for an id that nobody uses.
func (cn *conn) takeCall(id uint64) (ca *call) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	ca = cn.calls[id]
	delete(cn.calls, id)
	if cn.state == stateLeaving && len(cn.calls) == 0 {
		cn.closeLocked(protocol.CloseNormal, errLeft)
	}
	notify(cn.room)
	return ca
}

// abandon answers the calls that a dead connection leaves behind.
func (cn *conn) abandon() {
	cn.mu.Lock()
	calls := cn.calls
	cn.calls = nil
	cn.mu.Unlock()
	for _, ca := range calls {
		ca.finish(answer{err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, cn.err)})
	}
}
