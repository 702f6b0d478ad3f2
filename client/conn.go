package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"rayflux/protocol"
)

const (
	// pendingBytesMax is how much may wait for the writer. Beyond a few socket
	// buffers more of it would only be latency.
	pendingBytesMax = 256 << 10

	// closeWait is how long the closing handshake may take.
	closeWait = time.Second

	// What stands in for a welcome that does not say.
	pingIntervalDefault = 25 * time.Second
	messageBytesDefault = 64 << 10

	// messageBytesCap is the largest message any server is believed to have.
	messageBytesCap = 1 << 30
)

var (
	errLeft   = errors.New("left after drain")
	errClosed = errors.New("closed by this side")
)

// conn is one connection from welcome to end. One goroutine reads it (the
// client's run), one writes it (writeLoop); what they and the callers share is
// behind mu.
type conn struct {
	socket net.Conn
	in     receiver // the reader's

	session         string // fixed once the welcome is read, as is
	messageBytesMax int    // the largest payload the server takes
	asked           bool   // the reader's: the server has asked to leave

	wake chan struct{} // holds one: there is something to write
	room chan struct{} // holds one: a full connection may have room again
	dead chan struct{} // closed when err is set

	mu         sync.Mutex
	err        error         // why the connection ended; nil while it lives
	state      state         // only ever rises
	timers     []*time.Timer // stopped when the connection ends
	pending    []byte        // whole frames the writer has not taken yet
	scratch    []byte        // one command, before it is masked
	pong       []byte        // payload of the newest ping
	pongDue    bool
	pingDue    bool
	closeCode  protocol.CloseCode
	calls      map[uint64]*call
	callsMax   int
	lastID     uint64
	unanswered int // publishes without id that were posted: no answer tells their fate
}

// state is how far a connection is on its way out.
type state byte

const (
	stateOpen    state = iota
	stateLeaving       // takes no commands any more and waits for its answers
	stateClosing       // the close frame follows the pending bytes
	stateClosed        // the writer has taken the close frame and is done
)

// call is a command that waits for its answer. Whoever takes it out of
// conn.calls sends the answer, so there is exactly one.
type call struct {
	op           protocol.CommandOp
	subscription *Subscription // of a subscribe
	answered     chan answer   // holds one; nil: nobody waits
}

type answer struct {
	position protocol.Position
	err      error
}

// finish tells the caller, if there is one.
func (ca *call) finish(a answer) {
	if ca.answered != nil {
		ca.answered <- a
	}
}

func newConn(socket net.Conn, o Options) *conn {
	return &conn{
		socket:   socket,
		in:       newReceiver(socket),
		wake:     make(chan struct{}, 1),
		room:     make(chan struct{}, 1),
		dead:     make(chan struct{}),
		calls:    make(map[uint64]*call),
		callsMax: o.InFlight,
	}
}

// readWelcome reads the first event, within ctx.
func (cn *conn) readWelcome(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { cn.socket.SetDeadline(time.Unix(1, 0)) })
	event, err := cn.firstEvent()
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("waiting for welcome: %w", err)
	}
	switch event.Op {
	case protocol.EvWelcome:
	case protocol.EvError:
		return errorOf(&event)
	default:
		return errors.New("the server's first event is not a welcome")
	}
	cn.setTerms(&event)
	return nil
}

// setTerms takes over what the welcome says, or its default where it is silent.
func (cn *conn) setTerms(welcome *protocol.Event) {
	cn.session = welcome.Session
	cn.messageBytesMax = messageBytesDefault
	if welcome.MaxMessageBytes > 0 {
		cn.messageBytesMax = int(min(welcome.MaxMessageBytes, messageBytesCap))
	}
	cn.in.limit = max(messageBytesDefault, cn.messageBytesMax) + frameOverhead

	pingInterval := pingIntervalDefault
	if welcome.PingIntervalMs > 0 {
		pingInterval = milliseconds(welcome.PingIntervalMs)
	}
	// A healthy server is heard once an interval, so a probe after one and a
	// quarter is never sent as long as all is well. Two of them without a byte
	// are the two and a half intervals after which a server is taken for dead.
	cn.in.patience = pingInterval * 5 / 4
	cn.in.probe = cn.ping
}

func (cn *conn) firstEvent() (protocol.Event, error) {
	for {
		m, err := cn.in.next()
		if err != nil {
			return protocol.Event{}, err
		}
		switch m.Opcode {
		case protocol.OpBinary:
			return protocol.ParseEventBinary(m.Payload)
		case protocol.OpClose:
			return protocol.Event{}, closeReason(m.Payload)
		}
	}
}

// serve reads until the connection ends and returns why. The socket is closed
// and both of the connection's goroutines are over when it returns.
func (cn *conn) serve(handle func(*conn, []byte) error) error {
	var writer sync.WaitGroup
	writer.Go(cn.writeLoop)
	err := cn.readLoop(handle)
	var broken *protocol.CloseError
	if errors.As(err, &broken) {
		// The server broke the protocol or said goodbye; both are owed a close
		// frame (RFC 6455 §5.5.1), which the writer sends as its last.
		cn.close(broken.Code, err)
		writer.Wait()
	}
	cn.fail(err)
	writer.Wait()
	cn.in.release()
	return cn.err // of the first to fail, which may have been the writer
}

func (cn *conn) readLoop(handle func(*conn, []byte) error) error {
	for {
		m, err := cn.in.next()
		if err != nil {
			return err
		}
		switch m.Opcode {
		case protocol.OpBinary:
			err = handle(cn, m.Payload)
		case protocol.OpPing:
			cn.queuePong(m.Payload)
		case protocol.OpPong: // a sign of life like any byte: the receiver has noted it
		case protocol.OpClose:
			err = closeReason(m.Payload)
		default:
			err = &protocol.CloseError{Code: protocol.CloseUnsupported, Text: "text message in " + subprotocol}
		}
		if err != nil {
			return err
		}
	}
}

// protocolError ends a connection whose server does not keep to the protocol.
func protocolError(format string, args ...any) error {
	return &protocol.CloseError{Code: protocol.CloseProtocol, Text: fmt.Sprintf(format, args...)}
}

// closeReason is the error that a received close frame is.
func closeReason(payload []byte) error {
	code, reason, err := protocol.ParseClose(payload)
	if err != nil {
		return err
	}
	return &protocol.CloseError{Code: code, Text: "server closed: " + string(reason)}
}

// errorOf is what the caller of a failed command is told.
func errorOf(event *protocol.Event) *protocol.Error {
	return &protocol.Error{
		Code:       event.Code,
		Message:    event.Message,
		RetryAfter: milliseconds(event.RetryAfterMs),
	}
}

// milliseconds is a duration the server named, at most an hour: longer ones
// are mistakes, and must not overflow.
func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(time.Hour/time.Millisecond))) * time.Millisecond
}
