package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rayflux/protocol"
)

// What only real sockets and gnet's loops can show.

func startServer(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen, cfg.Loops, cfg.Version = "127.0.0.1:0", 2, "test"
	if change != nil {
		change(&cfg)
	}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// caller is a client on a real socket.
type caller struct {
	t    *testing.T
	conn net.Conn
	in   inbox
}

func call(t *testing.T, s *Server, hello string) *caller {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	a := &caller{t: t, conn: c}
	a.say([]byte(hello))
	return a
}

func (a *caller) say(b []byte) {
	a.t.Helper()
	if _, err := a.conn.Write(b); err != nil {
		a.t.Fatal(err)
	}
}

// hear waits for the next item; the error is that of the connection's end.
func (a *caller) hear() (item, error) {
	buf := make([]byte, 4096)
	for {
		it, ok, err := a.in.next()
		if ok || err != nil {
			return it, err
		}
		n, err := a.conn.Read(buf)
		a.in.buf = append(a.in.buf, buf[:n]...)
		if err != nil && n == 0 {
			return item{}, err
		}
	}
}

// want skips what comes until it holds the text.
func (a *caller) want(text string) {
	a.t.Helper()
	for {
		it, err := a.hear()
		if err != nil {
			a.t.Fatalf("waiting for %q: %v", text, err)
		}
		if bytes.Contains(it.payload, []byte(text)) {
			return
		}
	}
}

func TestServerServesManyLoops(t *testing.T) {
	s := startServer(t, func(cfg *Config) { cfg.Loops = 3 })
	if !s.Ready() || s.Healthy() != nil {
		t.Fatalf("ready %v, healthy %v", s.Ready(), s.Healthy())
	}
	var readers []*caller
	for range 30 {
		a := call(t, s, handshake("/ws", subprotocolJSON))
		a.say(maskedText(`{"op":"subscribe","id":1,"topic":"a"}`))
		a.say(maskedText(`{"op":"subscribe","id":2,"topic":"b"}`))
		a.want(`"subscribed","id":1`)
		readers = append(readers, a)
	}
	for _, a := range readers { // the answers of two topics may overtake each other: this is behind both
		a.say(maskedText(`{"op":"unsubscribe","id":3,"topic":"b"}`))
		a.want(`"unsubscribed","id":3`)
	}
	p := call(t, s, "")
	for i := range 200 {
		p.say([]byte(request("POST", "/publish", fmt.Sprintf(`{"topic":"a","message":"m%d"}`, i))))
	}
	for i := range 200 {
		p.want(fmt.Sprintf(`"offset":%d`, i+1))
	}
	for _, a := range readers {
		for i := range 200 {
			a.want(fmt.Sprintf(`"offset":%d,"data":"m%d"}`, i+1, i))
		}
	}
}

func TestServerSendsMoreThanItsKernelTakes(t *testing.T) {
	s := startServer(t, func(cfg *Config) { cfg.MaxTopicBytes = 32 << 20 })
	a := call(t, s, handshake("/ws", subprotocolBinary))
	a.say(maskedBinary(protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("t"), HasID: true})))
	a.want("\x01t") // subscribed
	const messages, size = 400, 50_000
	p := call(t, s, "")
	payload := strings.Repeat("x", size)
	for i := range messages { // the reader reads nothing meanwhile
		p.say([]byte(request("POST", "/v1/topics/t/messages", payload)))
		p.want(fmt.Sprintf(`"offset":%d`, i+1))
	}
	for want := uint64(1); want <= messages; {
		it, err := a.hear()
		if err != nil {
			t.Fatalf("message %d: %v", want, err)
		}
		if ev, err := protocol.ParseEventBinary(it.payload); err != nil || ev.Offset != want || len(ev.Payload) != size {
			t.Fatalf("message %d: %v %d, %d bytes: %v", want, ev.Op, ev.Offset, len(ev.Payload), err)
		}
		want++
	}
}

func TestDrainTellsEverybodyAndEnds(t *testing.T) {
	s := startServer(t, func(cfg *Config) { cfg.DrainTimeout = 200 * time.Millisecond })
	var clients []*caller
	for range 10 {
		a := call(t, s, handshake("/ws", subprotocolJSON))
		a.want(`"welcome"`)
		clients = append(clients, a)
	}
	idle := call(t, s, request("GET", "/healthz", ""))
	idle.want("ok")
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(context.Background()) }()
	for _, a := range clients {
		a.want(`"drain"`)
		it, err := a.hear()
		if code, _, _ := protocol.ParseClose(it.payload); err != nil || it.kind != itemClose || code != protocol.CloseGoingAway {
			t.Fatalf("after the drain event came %v %q, %v", it.kind, it.payload, err)
		}
		a.conn.Close()
	}
	if it, err := idle.hear(); err == nil {
		t.Fatalf("an idle HTTP connection got %q", it.payload)
	}
	idle.conn.Close()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if !errors.Is(s.Err(), ErrStopped) || s.Ready() || s.Healthy() == nil {
		t.Errorf("after the end: %v, ready %v, healthy %v", s.Err(), s.Ready(), s.Healthy())
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	s := startServer(t, nil)
	call(t, s, handshake("/ws", subprotocolJSON)).want("welcome")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Drain(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 connections were still open") {
		t.Errorf("got %v", err)
	}
}

func TestConnectionsPastTheLimitAreRefused(t *testing.T) {
	s := startServer(t, func(cfg *Config) { cfg.MaxConnections = 2 })
	first := call(t, s, request("GET", "/healthz", ""))
	first.want("ok")
	second := call(t, s, request("GET", "/healthz", ""))
	second.want("ok")
	third := call(t, s, "")
	it, err := third.hear()
	if err != nil || it.status != 503 || !bytes.Contains(it.payload, []byte("2 connections, its limit")) {
		t.Fatalf("the third got %d %q, %v", it.status, it.payload, err)
	}
	if _, err := third.hear(); err == nil {
		t.Fatal("the third is still connected")
	}
	first.conn.Close()
	for { // until its loop has noticed
		a := call(t, s, request("GET", "/healthz", ""))
		if it, err := a.hear(); err == nil && it.status == 200 {
			break
		}
		a.conn.Close()
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	s := startServer(t, nil)
	cfg := DefaultConfig()
	cfg.Listen = s.Addr().String()
	if _, err := Start(cfg); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("on a port that is taken: %v", err)
	}
	cfg.Loops = 0
	if _, err := Start(cfg); err == nil || !strings.HasPrefix(err.Error(), "loops is 0") {
		t.Errorf("with a bad setting: %v", err)
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	s := startServer(t, nil)
	a := call(t, s, handshake("/ws", subprotocolJSON))
	a.say(maskedText(`{"op":"subscribe","topic":"t","from":"earliest"}`))
	a.want(`"subscribed"`)
	for range 5 {
		a.say(maskedText(`{"op":"publish","topic":"t","text":"x"}`))
	}
	a.say(maskedText(`{"op":"publish","topic":"$","text":"x"}`))
	a.want(`"offset":5`)
	registry := prometheus.NewRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		wrong := misses(t, registry, map[string]float64{
			"rayflux_connections": 1, "rayflux_subscriptions": 1, "rayflux_topics": 1, "rayflux_messages_published_total": 5,
			"rayflux_messages_delivered_total": 5, "rayflux_messages_dropped_total/invalid": 1,
			"rayflux_recoveries_total/recovered": 1, "rayflux_flush_messages": 5, "rayflux_publish_to_write_seconds": -1,
			"rayflux_writes_total": -1, "rayflux_bytes_sent_total": -1, "rayflux_bytes_received_total": -1, "rayflux_log_bytes": -1,
			"rayflux_disconnects_total/slow": 0,
		})
		if wrong == "" {
			return
		}
		if time.Now().After(deadline) { // a message is counted after it is written
			t.Fatal(wrong)
		}
	}
}

// misses compares metrics, by name and value of the label reason or result; -1 is anything above 0.
func misses(t *testing.T, registry *prometheus.Registry, want map[string]float64) (wrong string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				if l.GetName() == "reason" || l.GetName() == "result" {
					name += "/" + l.GetValue()
				}
			}
			got[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	for name, v := range want {
		if g, ok := got[name]; !ok || v >= 0 && g != v || v < 0 && g <= 0 {
			wrong += fmt.Sprintf("%s is %v, want %v\n", name, g, v)
		}
	}
	return wrong
}

// TestADrainTellsLinksBeforeTheServerEnds has links only, for which no drain waits.
func TestADrainTellsLinksBeforeTheServerEnds(t *testing.T) {
	s := startServer(t, func(cfg *Config) { cfg.ClusterKey = testKey })
	terms := protocol.LinkTerms{PeerNonce: []byte("sixteen bytes, 1"), Version: 1, Purpose: protocol.LinkControl}
	a := call(t, s, handshake("/ws", subprotocolBinary))
	a.say(protocol.AppendLinkCommandFrame(nil, &protocol.LinkCommand{Op: protocol.LinkCmdHello, Version: 1, Purpose: terms.Purpose, Nonce: terms.PeerNonce}))
	hear := func(op protocol.LinkEventOp) protocol.LinkEvent {
		t.Helper()
		for {
			it, err := a.hear()
			if err != nil {
				t.Fatalf("waiting for %s: %v", op, err)
			}
			if ev, err := protocol.ParseLinkEvent(it.payload); err == nil && ev.Op == op {
				return ev
			}
		}
	}
	terms.NodeNonce = hear(protocol.LinkEvChallenge).Nonce
	a.say(protocol.AppendLinkCommandFrame(nil, &protocol.LinkCommand{Op: protocol.LinkCmdProof,
		Proof: protocol.AppendLinkProof(nil, testKey, protocol.LinkPeer, &terms)}))
	if ready := hear(protocol.LinkEvReady); !protocol.CheckLinkProof(ready.Proof, testKey, protocol.LinkNode, &terms) || ready.Draining {
		t.Errorf("ready is %+v", ready)
	}
	if err := s.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	if ms := hear(protocol.LinkEvDraining).AfterMs; ms != 18_000 {
		t.Errorf("draining says %d ms", ms)
	}
}
