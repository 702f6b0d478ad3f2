package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rayflux/protocol"
)

// patience is how long a test waits for what must happen. Nothing waits that
// long unless it is broken.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a server that does what the test says, one connection at a time:
// it upgrades and welcomes by itself, and the test does the rest.
type script struct {
	t        *testing.T
	listener net.Listener
	accepted chan *peer
	welcome  protocol.Event
}

func newScript(t *testing.T) *script { return newScriptOn(t, nil) }

func newScriptOn(t *testing.T, secure *tls.Config) *script {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	f := &script{
		t: t, listener: listener, accepted: make(chan *peer, 16),
		welcome: protocol.Event{Op: protocol.EvWelcome, Session: "s", Version: "v", PingIntervalMs: 25000, MaxMessageBytes: 65536},
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			socket, err := listener.Accept()
			if err != nil {
				return
			}
			if p := f.greet(socket); p != nil {
				f.accepted <- p
			}
		}
	}()
	return f
}

// greet answers the handshake and sends the welcome, in one write.
func (f *script) greet(socket net.Conn) *peer {
	p := &peer{t: f.t, socket: socket}
	socket.SetDeadline(time.Now().Add(patience))
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var one [1]byte
		if _, err := io.ReadFull(socket, one[:]); err != nil {
			socket.Close()
			return nil
		}
		head = append(head, one[0])
	}
	p.head = string(head)
	answer, _, err := protocol.Upgrade(head, []string{subprotocol})
	if err != nil {
		f.t.Errorf("handshake: %v", err)
	}
	if _, err := socket.Write(protocol.AppendEventBinary(answer, &f.welcome)); err != nil {
		socket.Close()
		return nil
	}
	return p
}

func (f *script) address() string { return f.listener.Addr().String() }

// dial connects a client, which is closed at the end of the test: after the
// peers, so that no goodbye has to time out.
func (f *script) dial(o Options) (*Client, *peer) {
	f.t.Helper()
	if o.MinBackoff == 0 {
		o.MinBackoff = time.Millisecond
	}
	c, err := Dial(f.t.Context(), f.address(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c, f.accept()
}

// accept waits for the next connection that has been welcomed.
func (f *script) accept() *peer {
	f.t.Helper()
	select {
	case p := <-f.accepted:
		f.t.Cleanup(func() { p.socket.Close() })
		return p
	case <-time.After(patience):
		f.t.Fatal("no connection came")
		return nil
	}
}

// peer is the server's end of one connection.
type peer struct {
	t        *testing.T
	socket   net.Conn
	head     string
	messages protocol.MessageReader
	buf      []byte
	given    int // bytes of buf that the message last returned took
}

// next reads the next frame of any kind; io.EOF when the client is gone.
func (p *peer) next() (protocol.Message, error) {
	p.socket.SetDeadline(time.Now().Add(patience))
	for {
		p.buf = p.buf[p.given:]
		m, n, err := p.messages.Next(p.buf, 1<<20)
		p.given = n
		if err != nil || m.Opcode != protocol.OpContinuation {
			return m, err
		}
		chunk := make([]byte, 64<<10)
		n, err = p.socket.Read(chunk)
		if n == 0 {
			return protocol.Message{}, err
		}
		p.buf = append(p.buf[p.given:len(p.buf):len(p.buf)], chunk[:n]...)
		p.given = 0
	}
}

// expect reads the next command, which must be op. Its slices stay valid.
func (p *peer) expect(op protocol.CommandOp) protocol.Command {
	p.t.Helper()
	m, err := p.next()
	if err != nil {
		p.t.Fatalf("waiting for %v: %v", op, err)
	}
	if m.Opcode != protocol.OpBinary {
		p.t.Fatalf("waiting for %v: frame with opcode %d, %q", op, m.Opcode, m.Payload)
	}
	cmd, err := protocol.ParseBinaryCommand(bytes.Clone(m.Payload), 1<<20)
	if err != nil {
		p.t.Fatalf("waiting for %v: %v", op, err)
	}
	if cmd.Op != op {
		p.t.Fatalf("got %v %q, want %v", cmd.Op, cmd.Topic, op)
	}
	return cmd
}

func (p *peer) expectFrame(op protocol.Opcode) []byte {
	p.t.Helper()
	m, err := p.next()
	if err != nil {
		p.t.Fatalf("waiting for opcode %d: %v", op, err)
	}
	if m.Opcode != op {
		p.t.Fatalf("got opcode %d, want %d", m.Opcode, op)
	}
	return m.Payload
}

// expectClose reads the client's close frame and answers it.
func (p *peer) expectClose(want protocol.CloseCode) {
	p.t.Helper()
	code, _, err := protocol.ParseClose(p.expectFrame(protocol.OpClose))
	if err != nil || code != want {
		p.t.Fatalf("close code %d (%v), want %d", code, err, want)
	}
	p.write(protocol.AppendClose(nil, code, ""))
	p.socket.Close()
}

// expectEnd reads until the client is gone.
func (p *peer) expectEnd() {
	p.t.Helper()
	for {
		if _, err := p.next(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				p.t.Fatal("the client stays")
			}
			return
		}
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	p.socket.SetDeadline(time.Now().Add(patience))
	if _, err := p.socket.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

func (p *peer) send(events ...protocol.Event) {
	p.t.Helper()
	var b []byte
	for i := range events {
		b = protocol.AppendEventBinary(b, &events[i])
	}
	p.write(b)
}

// cut ends the connection without a word.
func (p *peer) cut() { p.socket.Close() }

// subscribed, published and message are the events most scripts need.
func subscribed(cmd protocol.Command, epoch string, offset uint64, recovered bool) protocol.Event {
	return protocol.Event{
		Op: protocol.EvSubscribed, HasID: cmd.HasID, ID: cmd.ID, Topic: string(cmd.Topic),
		Epoch: epoch, Offset: offset, Recovered: recovered,
	}
}

func published(cmd protocol.Command, epoch string, offset uint64) protocol.Event {
	return protocol.Event{
		Op: protocol.EvPublished, HasID: true, ID: cmd.ID, Topic: string(cmd.Topic), Epoch: epoch, Offset: offset,
	}
}

func refused(cmd protocol.Command, code protocol.Code) protocol.Event {
	return protocol.Event{Op: protocol.EvError, HasID: cmd.HasID, ID: cmd.ID, Code: code, Message: "no"}
}

func message(topic string, offset uint64, text string) protocol.Event {
	return protocol.Event{Op: protocol.EvMessage, Topic: topic, Offset: offset, Kind: protocol.KindText, Payload: []byte(text)}
}

func messages(topic string, from, to uint64) (events []protocol.Event) {
	for offset := from; offset <= to; offset++ {
		events = append(events, message(topic, offset, "x"))
	}
	return events
}

// async runs a call of the client while the test plays the server.
func async[T any](t *testing.T, call func(context.Context) (T, error)) func() (T, error) {
	t.Helper()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := call(t.Context())
		done <- result{v, err}
	}()
	return func() (T, error) {
		t.Helper()
		select {
		case r := <-done:
			return r.value, r.err
		case <-time.After(patience):
			t.Fatal("the call does not return")
			panic("unreachable")
		}
	}
}

// subscribe subscribes the client and plays the server's part, in epoch E1 at
// offset.
func subscribe(t *testing.T, c *Client, p *peer, topic string, offset uint64) *Subscription {
	t.Helper()
	call := async(t, func(ctx context.Context) (*Subscription, error) { return c.Subscribe(ctx, topic, Live()) })
	p.send(subscribed(p.expect(protocol.CmdSubscribe), "E1", offset, false))
	s, err := call()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t *testing.T, c *Client, topic, text string) func() (protocol.Position, error) {
	t.Helper()
	return async(t, func(ctx context.Context) (protocol.Position, error) {
		return c.Publish(ctx, topic, protocol.KindText, []byte(text))
	})
}

func next(t *testing.T, s *Subscription) Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return d
}

// expectMessages takes deliveries and wants exactly the messages from..to.
func expectMessages(t *testing.T, s *Subscription, epoch string, from, to uint64) {
	t.Helper()
	for offset := from; offset <= to; offset++ {
		d := next(t, s)
		if want := (protocol.Position{Epoch: epoch, Offset: offset}); d.Gap != nil || d.Position != want {
			t.Fatalf("got %v (gap %v), want message %v", d.Position, d.Gap, want)
		}
	}
}

func expectGap(t *testing.T, s *Subscription, want protocol.Position, reason string, missed uint64) {
	t.Helper()
	d := next(t, s)
	if d.Gap == nil || d.Position != want || *d.Gap != (Gap{Reason: reason, Missed: missed}) {
		t.Fatalf("got %v (gap %+v), want a gap (%s, %d missed) up to %v", d.Position, d.Gap, reason, missed, want)
	}
}

func expectFrom(t *testing.T, cmd protocol.Command, epoch string, offset uint64) {
	t.Helper()
	f := cmd.From
	if f.Mode != protocol.FromPosition || string(f.Epoch) != epoch || f.Offset != offset {
		t.Fatalf("subscribe from mode %d %s:%d, want position %s:%d", f.Mode, f.Epoch, f.Offset, epoch, offset)
	}
}

func expectCode(t *testing.T, err error, code protocol.Code) {
	t.Helper()
	var told *protocol.Error
	if !errors.As(err, &told) || told.Code != code {
		t.Fatalf("got error %v, want code %s", err, code)
	}
}

// newPipe is a client on a loopback connection whose other end is given raw,
// handshake and welcome behind it.
func newPipe(b *testing.B, o Options) (*Client, net.Conn) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	greeted := make(chan *peer, 1)
	f := &script{listener: listener, welcome: protocol.Event{Op: protocol.EvWelcome}}
	go func() {
		socket, err := listener.Accept()
		if err == nil {
			greeted <- f.greet(socket)
		}
	}()
	c, err := Dial(context.Background(), f.address(), o)
	if err != nil {
		b.Fatal(err)
	}
	p := <-greeted
	p.socket.SetDeadline(time.Time{})
	b.Cleanup(func() {
		p.socket.Close()
		c.Close()
	})
	return c, p.socket
}
