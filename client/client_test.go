package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rayflux/protocol"
)

// gated is a dialer that needs a token from gate for each connection.
func gated(gate <-chan struct{}) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-gate:
			return (&net.Dialer{}).DialContext(ctx, network, address)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func TestServerAddresses(t *testing.T) {
	for given, want := range map[string]string{
		"127.0.0.1:8083":              "ws://127.0.0.1:8083/ws",
		"localhost:8083/":             "ws://localhost:8083/ws",
		"host:1/prefix/ws":            "ws://host:1/prefix/ws",
		"ws://host":                   "ws://host/ws",
		"wss://host/ws?a=b":           "wss://host/ws?a=b",
		"http://host:8083":            "ws://host:8083/ws",
		"https://host":                "wss://host/ws",
		"[::1]:8083":                  "ws://[::1]:8083/ws",
		"ftp://host":                  "",
		"ws://":                       "",
		"":                            "",
		"ws://user:secret@host:80/ws": "",
	} {
		got, err := webSocketURL(given)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", given, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestTheHandshakeCarriesNameAndHeader(t *testing.T) {
	f := newScript(t)
	_, p := f.dial(Options{Name: "sensor-7", Header: http.Header{"X-Tenant": {"a"}}})
	for _, want := range []string{"GET /ws HTTP/1.1\r\n", "X-Tenant: a\r\n", "sensor-7", subprotocol} {
		if !strings.Contains(p.head, want) {
			t.Errorf("handshake lacks %q:\n%s", want, p.head)
		}
	}
}

func TestTheFirstFailureIsReturned(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if _, err := Dial(t.Context(), listener.Addr().String(), Options{}); err == nil {
		t.Fatal("connected to nothing")
	}
}

func TestARefusedHandshakeTellsWhy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"error":{"code":"overloaded","message":"too many connections"}}`)
	}))
	defer server.Close()
	_, err := Dial(t.Context(), server.URL, Options{})
	expectCode(t, err, protocol.CodeOverloaded)
	var told *protocol.Error
	if errors.As(err, &told); told.RetryAfter != 3*time.Second {
		t.Fatalf("retry after %v", told.RetryAfter)
	}
}

func TestAServerWithoutOurProtocolIsRefused(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if _, err := Dial(t.Context(), server.URL, Options{}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Fatalf("got %v", err)
	}
}

func TestDialGivesUpOnASilentServerWithItsContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	call := async(t, func(context.Context) (*Client, error) { return Dial(ctx, listener.Addr().String(), Options{}) })
	socket, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cancel()
	if _, err := call(); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
}

func TestAnErrorInPlaceOfTheWelcomeIsReturned(t *testing.T) {
	f := newScript(t)
	f.welcome = protocol.Event{Op: protocol.EvError, Code: protocol.CodeDraining, Message: "going away"}
	_, err := Dial(t.Context(), f.address(), Options{})
	expectCode(t, err, protocol.CodeDraining)
	f.accept()
}

func TestPingsAreAnswered(t *testing.T) {
	f := newScript(t)
	_, p := f.dial(Options{})
	p.write(protocol.AppendFrame(nil, protocol.OpPing, []byte("12")))
	if got := p.expectFrame(protocol.OpPong); string(got) != "12" {
		t.Fatalf("pong carries %q", got)
	}
}

func TestASilentServerIsProbedAndThenLeft(t *testing.T) {
	f := newScript(t)
	f.welcome.PingIntervalMs = 20
	_, p := f.dial(Options{})
	p.expectFrame(protocol.OpPing)
	p.write(protocol.AppendFrame(nil, protocol.OpPong, nil)) // a sign of life
	p.expectFrame(protocol.OpPing)
	p.expectEnd()
	f.accept()
}

func TestUnknownEventsAreIgnored(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	p.write(protocol.AppendFrame(nil, protocol.OpBinary, []byte{0xc0, 1, 2, 3}))
	subscribe(t, c, p, "t", 0)
}

func TestDrainWaitsForAnswersThenResumesElsewhere(t *testing.T) {
	f := newScript(t)
	// The bound of the backoff is far away: a drained client comes back at once.
	c, p := f.dial(Options{MinBackoff: time.Hour, MaxBackoff: time.Hour})
	s := subscribe(t, c, p, "t", 40)
	before := publish(t, c, "t", "before")
	cmd := p.expect(protocol.CmdPublish)
	p.send(protocol.Event{Op: protocol.EvDrain, ReconnectAfterMs: 1200}) // three quarters of it go by, and a tenth of a second would do for the rest
	old := c.conn
	waitFor(t, old, stateLeaving)
	after := publish(t, c, "t", "after")
	p.write(protocol.AppendFrame(nil, protocol.OpPing, nil))
	p.expectFrame(protocol.OpPong) // neither the publish nor the goodbye: it waits for its answer
	p.send(message("t", 41, "x"), published(cmd, "E1", 41))
	if at, err := before(); err != nil || at.Offset != 41 {
		t.Fatalf("the answer in flight: %v, %v", at, err)
	}
	p.expectClose(protocol.CloseNormal)

	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E1", 41)
	p.send(subscribed(again, "E1", 41, true))
	cmd = p.expect(protocol.CmdPublish)
	p.send(message("t", 42, "x"), published(cmd, "E1", 42))
	if _, err := after(); err != nil {
		t.Fatal(err)
	}
	expectMessages(t, s, "E1", 41, 42)
}

// waitFor waits for a connection's state, which no channel announces. Its
// mutex is what every change of state goes through.
func waitFor(t *testing.T, cn *conn, want state) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		cn.mu.Lock()
		now := cn.state
		cn.mu.Unlock()
		if now >= want {
			return
		}
	}
	t.Fatalf("connection does not reach state %d", want)
}

func TestACloseOfTheServerIsAnsweredAndResumed(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.write(protocol.AppendClose(nil, protocol.CloseSlow, "slow reader"))
	code, _, err := protocol.ParseClose(p.expectFrame(protocol.OpClose))
	if err != nil || code != protocol.CloseSlow {
		t.Fatalf("the answer is %d, %v", code, err)
	}
	p.expectEnd()
	p = f.accept()
	p.send(subscribed(p.expect(protocol.CmdSubscribe), "E1", 40, true), message("t", 41, "x"))
	expectMessages(t, s, "E1", 41, 41)
}

func TestAConsumerThatDoesNotReadStopsTheServer(t *testing.T) {
	const total, size = 600, 60 << 10 // together far beyond all socket buffers
	f := newScript(t)
	c, p := f.dial(Options{Buffer: 4})
	s := subscribe(t, c, p, "t", 0)
	var stream []byte
	payload := make([]byte, size)
	for offset := uint64(1); offset <= total; offset++ {
		stream = protocol.AppendMessage(stream, protocol.FormatBinary, "t", offset, protocol.KindBinary, payload)
	}
	sent := 0
	for {
		p.socket.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := p.socket.Write(stream[sent:])
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if sent == len(stream) {
			t.Fatal("all was taken from a server whose messages nobody reads")
		}
	}
	rest := async(t, func(context.Context) (int, error) {
		p.socket.SetWriteDeadline(time.Now().Add(patience))
		return p.socket.Write(stream[sent:])
	})
	expectMessages(t, s, "E1", 1, total)
	if _, err := rest(); err != nil {
		t.Fatal(err)
	}
}

func TestAConnectionLostUnderBackpressureIsResumedWhereTheQueueEnds(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{Buffer: 2})
	s := subscribe(t, c, p, "t", 0)
	p.send(messages("t", 1, 10)...)
	waitUntilFull(t, s)
	c.conn.fail(errors.New("cut")) // as the writer would
	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E1", 2)
	p.send(subscribed(again, "E1", 2, true))
	p.send(messages("t", 3, 10)...)
	expectMessages(t, s, "E1", 1, 10)
}

func waitUntilFull(t *testing.T, s *Subscription) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		full := s.queue.n == s.queue.limit
		s.mu.Unlock()
		if full {
			return
		}
	}
	t.Fatal("the queue does not fill")
}

func TestCloseSaysGoodbyeBehindWhatWasPublished(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	for range 100 {
		if err := c.PublishAsync(t.Context(), "t", protocol.KindText, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	call := async(t, func(context.Context) (struct{}, error) { return struct{}{}, c.Close() })
	for range 100 {
		p.expect(protocol.CmdPublish)
	}
	p.expectClose(protocol.CloseNormal)
	if _, err := call(); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersThatComeDuringTheGoodbyeCount(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{Buffer: 1})
	s := subscribe(t, c, p, "t", 0)
	p.send(messages("t", 1, 10)...)
	waitUntilFull(t, s)
	last := publish(t, c, "t", "last")
	cmd := p.expect(protocol.CmdPublish)
	closing := async(t, func(context.Context) (struct{}, error) { return struct{}{}, c.Close() })
	p.expectFrame(protocol.OpClose)
	p.send(messages("t", 11, 20)...)
	p.send(published(cmd, "E1", 21))
	p.write(protocol.AppendClose(nil, protocol.CloseNormal, ""))
	if at, err := last(); err != nil || at.Offset != 21 {
		t.Fatalf("got %v, %v", at, err)
	}
	if _, err := closing(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	running := goleak.IgnoreCurrent()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &script{t: t, listener: listener, welcome: protocol.Event{Op: protocol.EvWelcome, PingIntervalMs: 25000, MaxMessageBytes: 65536}}
	dialed := async(t, func(ctx context.Context) (*Client, error) { return Dial(ctx, f.address(), Options{Buffer: 1}) })
	socket, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p := f.greet(socket)
	c, err := dialed()
	if err != nil {
		t.Fatal(err)
	}

	full := subscribe(t, c, p, "full", 0)
	p.send(messages("full", 1, 10)...) // the reader is stuck in a full queue
	waitUntilFull(t, full)
	empty := newSubscription(c, "empty", Live())
	inFlight := publish(t, c, "t", "x")
	p.expect(protocol.CmdPublish)
	waiting := async(t, func(ctx context.Context) (Delivery, error) { return empty.Next(ctx) })
	if err := c.add(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	p.expect(protocol.CmdSubscribe)

	closing := async(t, func(context.Context) (struct{}, error) { return struct{}{}, c.Close() })
	if _, err := waiting(); !errors.Is(err, ErrClosed) {
		t.Fatalf("next: %v", err)
	}
	p.expectClose(protocol.CloseNormal)
	if _, err := inFlight(); !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("publish in flight: %v", err)
	}
	if _, err := closing(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("a second close: %v", err)
	}
	if _, err := full.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("next: %v", err)
	}
	if _, err := c.Publish(t.Context(), "t", protocol.KindText, nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("publish: %v", err)
	}
	if _, err := c.Subscribe(t.Context(), "t", Live()); !errors.Is(err, ErrClosed) {
		t.Fatalf("subscribe: %v", err)
	}
	listener.Close()
	goleak.VerifyNone(t, running)
}

func TestCloseEndsAClientThatCannotConnect(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{MinBackoff: time.Hour, MaxBackoff: time.Hour})
	cn := c.conn
	p.cut()
	<-cn.dead
	call := publish(t, c, "t", "x")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := call(); !errors.Is(err, ErrClosed) {
		t.Fatalf("publish: %v", err)
	}
}

func TestBackoffDoublesUpToItsBoundWithFullJitter(t *testing.T) {
	b := backoff{min: 100 * time.Millisecond, max: 10 * time.Second}
	for n := range 100 {
		bound := min(b.min<<min(n, 20), b.max)
		if wait := b.next(); wait <= 0 || wait > bound {
			t.Fatalf("attempt %d waits %v, bound %v", n, wait, bound)
		}
	}
	told := &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: time.Minute}
	if wait := b.after(fmt.Errorf("connect: %w", told)); wait != time.Minute {
		t.Fatalf("waits %v where the server advised a minute", wait)
	}
}
