package client

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"rayflux/protocol"
)

const (
	readBytesMin = 4 << 10  // most clients are idle most of the time
	readBytesMax = 64 << 10 // beyond it larger reads save nothing; one large message may still need more

	// frameOverhead is what a server's binary message may have beside its
	// payload: frame header, type, topic, offset and kind, rounded up.
	frameOverhead = 512
)

// errSilent ends a connection whose server is taken for dead.
var errSilent = errors.New("server has been silent for too long")

// receiver cuts the bytes of one connection into messages. It belongs to the
// goroutine that reads the connection.
type receiver struct {
	socket   net.Conn
	messages protocol.MessageReader
	buf      []byte // buf[from:to] has been received and not been parsed
	from, to int
	limit    int // bytes of a message's payload

	// patience is how long to wait for a byte before probing, and then again
	// before giving up; 0: for ever.
	patience time.Duration
	probe    func() // asks the server for a sign of life
}

func newReceiver(socket net.Conn) receiver {
	return receiver{
		socket:   socket,
		messages: protocol.NewServerMessageReader(),
		buf:      make([]byte, readBytesMin),
		limit:    messageBytesDefault + frameOverhead,
	}
}

// take moves in what the handshake's reader has read past the handshake.
func (r *receiver) take(early *bufio.Reader) {
	n := early.Buffered()
	r.buf = make([]byte, max(readBytesMin, n))
	r.to, _ = io.ReadFull(early, r.buf[:n])
}

// next waits for the next message or control frame. Its payload is valid until
// the following call. err is a *protocol.CloseError where the server broke the
// framing, and the socket's own or errSilent otherwise.
func (r *receiver) next() (protocol.Message, error) {
	for {
		m, n, err := r.messages.Next(r.buf[r.from:r.to], r.limit)
		r.from += n
		if err != nil || m.Opcode != protocol.OpContinuation {
			return m, err
		}
		if err := r.fill(); err != nil {
			return protocol.Message{}, err
		}
	}
}

// fill reads once, after making room: the start of an unfinished frame moves
// to the front, once per frame. The buffer grows to the largest message, or
// when the kernel had enough to fill it.
func (r *receiver) fill() error {
	if r.from > 0 {
		r.to = copy(r.buf, r.buf[r.from:r.to])
		r.from = 0
	}
	if r.to == len(r.buf) {
		r.grow()
	}
	room := len(r.buf) - r.to
	n, err := r.read(r.buf[r.to:])
	r.to += n
	if n > 0 {
		if n == room && len(r.buf) < readBytesMax {
			r.grow()
		}
		return nil // an error that came with bytes comes again without
	}
	return err
}

func (r *receiver) grow() {
	larger := make([]byte, 2*len(r.buf))
	copy(larger, r.buf[:r.to])
	r.buf = larger
}

// read is one Read within the server's patience. Time that passes between two
// calls, while a slow consumer holds the reader up, does not count: nobody was
// listening.
func (r *receiver) read(b []byte) (int, error) {
	if r.patience == 0 {
		return r.socket.Read(b)
	}
	for probed := false; ; probed = true {
		if err := r.socket.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
			return 0, err
		}
		n, err := r.socket.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if probed {
			return 0, errSilent
		}
		r.probe()
	}
}

// release gives the fragments of an unfinished message back to their pool.
func (r *receiver) release() { r.messages.Reset() }
