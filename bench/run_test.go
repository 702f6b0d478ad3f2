package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"rayflux/bench/floor"
	"rayflux/protocol"
)

// The test binary is the floor server, too: one thing less to build.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == FloorName {
		fmt.Fprintln(os.Stderr, "floor:", floor.Serve(os.Args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// floorArgv starts the floor.
func floorArgv(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, FloorName, "{addr}"}
}

func startFloor(t *testing.T) *Server {
	t.Helper()
	server, err := Spawn(context.Background(), floorArgv(t), -1, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func TestEveryWireAgainstTheFloor(t *testing.T) {
	base := Scenario{Topics: 5, Subscribers: 20, Publishers: 4, WarmUp: 50 * time.Millisecond, Duration: 100 * time.Millisecond}
	for name, change := range map[string]func(s *Scenario){
		"closed loop":           func(s *Scenario) {},
		"one in flight":         func(s *Scenario) { s.InFlight = 1 },
		"open loop":             func(s *Scenario) { s.Rate = 3000 },
		"spinning":              func(s *Scenario) { s.Rate, s.Spin = 3000, true },
		"many topics each":      func(s *Scenario) { s.Subscriptions = 5 },
		"long frames":           func(s *Scenario) { s.PayloadBytes, s.InFlight = 65_536, 4 },
		"json":                  func(s *Scenario) { s.Wire = WireJSON },
		"json from http":        func(s *Scenario) { s.Wire, s.Publish = WireJSON, PublishHTTP },
		"classic":               func(s *Scenario) { s.Wire, s.Publish = WireClassic, PublishHTTP },
		"classic, pipelined":    func(s *Scenario) { s.Wire, s.Publish, s.Pipeline = WireClassic, PublishHTTP, 8 },
		"classic, open loop":    func(s *Scenario) { s.Wire, s.Publish, s.Rate = WireClassic, PublishHTTP, 1000 },
		"stalled subscribers":   func(s *Scenario) { s.Stalled, s.Rate = 3, 1000 },
		"more publishers":       func(s *Scenario) { s.Publishers = 12 },
		"one topic, one reader": func(s *Scenario) { s.Topics, s.Subscribers, s.Publishers = 1, 1, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startFloor(t)
			s := base
			s.Name = name
			change(&s)
			r, err := Run(context.Background(), server.Addr, server.PID, s)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Clean() || r.Deliveries == 0 || r.Latency.Count == 0 || r.ServerCPUSeconds <= 0 || r.ServerResidentAfter == 0 {
				t.Errorf("%+v", r)
			}
			if s.Rate > 0 && r.SendLag.Count == 0 {
				t.Errorf("open loop without send lag: %+v", r)
			}
			// What is due in the window is answered in the window or soon after it, less what was under way when the run ended.
			most := int64(0)
			if s.Publish == PublishHTTP {
				most = int64(r.Publishes) + int64(s.Publishers*max(1, s.Pipeline))
			}
			if n := r.Answer.Count; n > most || n < most/2 || n > 0 && (r.Answer.Mean <= 0 || r.Answer.P95 < r.Answer.P50) {
				t.Errorf("%d of at most %d publishes have an answer: %+v", n, most, r.Answer)
			}
		})
	}
}

// Publishers may have an address of their own: here that of a proxy, which counts them.
func TestPublishersConnectElsewhere(t *testing.T) {
	t.Parallel()
	server := startFloor(t)
	inlet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inlet.Close() })
	came := make(chan net.Conn, 10)
	go func() {
		for {
			from, err := inlet.Accept()
			if err != nil {
				close(came)
				return
			}
			to, err := net.Dial("tcp", server.Addr)
			if err != nil {
				from.Close()
				continue
			}
			came <- from
			go func() { _, _ = io.Copy(to, from); to.Close() }()
			go func() { _, _ = io.Copy(from, to); from.Close() }()
		}
	}()
	r, err := Run(context.Background(), server.Addr, server.PID, Scenario{Topics: 1, Subscribers: 3, Publishers: 2,
		PublishAddr: inlet.Addr().String(), WarmUp: 50 * time.Millisecond, Duration: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean() || r.Deliveries == 0 || len(came) != 2 {
		t.Errorf("%d connections came to the publishers' address: %+v", len(came), r)
	}
}

func TestStalledSubscriberIsSeenToBeClosed(t *testing.T) {
	t.Parallel() // it mostly waits
	server := startFloor(t)
	s := Scenario{Name: "stalled", Topics: 1, Subscribers: 1, Publishers: 1, Stalled: 1, PayloadBytes: 16 << 10, Duration: time.Second}
	r, err := Run(context.Background(), server.Addr, server.PID, s)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean() || r.StalledClosed != 1 {
		t.Errorf("%d stalled subscribers closed, want 1: %+v", r.StalledClosed, r)
	}
}

func TestIdleConnectionsAreCountedInMemory(t *testing.T) {
	t.Parallel() // it mostly waits
	server := startFloor(t)
	r, err := Run(context.Background(), server.Addr, server.PID, Scenario{Name: "idle", Topics: 10, Subscribers: 500, Duration: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean() || r.Deliveries != 0 || r.ResidentKBPerIdleConn <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestCancelledRunEnds(t *testing.T) {
	t.Parallel() // it mostly waits
	server := startFloor(t)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := Run(ctx, server.Addr, server.PID, Scenario{Topics: 1, Subscribers: 1, Publishers: 1, Duration: time.Minute})
	if err == nil || time.Since(begun) > 5*time.Second {
		t.Errorf("ended after %s with %v", time.Since(begun), err)
	}
}

// script is a server that upgrades connections, confirms subscribes, and answers the first publish as the test says.
func script(t *testing.T, answer func(publisher net.Conn, subscriber net.Conn)) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	subscribers := make(chan net.Conn, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() }) // and not when the collector finds it
			go serveScript(conn, subscribers, answer)
		}
	}()
	return listener.Addr().String()
}

func serveScript(conn net.Conn, subscribers chan net.Conn, answer func(publisher, subscriber net.Conn)) {
	b := make([]byte, 1<<16)
	n, err := conn.Read(b)
	if err != nil {
		return
	}
	response, _, err := protocol.Upgrade(b[:n], []string{"rayflux.v1.bin"})
	if err != nil {
		return
	}
	conn.Write(response)
	if n, err = conn.Read(b); err != nil {
		return
	}
	h, _ := protocol.NextFrame(b[:n])
	command, err := protocol.ParseBinaryCommand(b[h.Size:h.Size+int(h.Length)], payloadBytesMax)
	if err != nil {
		return
	}
	if command.Op == protocol.CmdSubscribe {
		conn.Write(protocol.AppendEventBinary(nil, &protocol.Event{Op: protocol.EvSubscribed, HasID: true, ID: command.ID, Topic: string(command.Topic), Epoch: "E"}))
		subscribers <- conn
		return
	}
	answer(conn, <-subscribers)
}

func TestMisbehavingServerIsReported(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup // they wait for most of 4 s each: all at once, whatever -parallel is
	defer all.Wait()
	for _, test := range []struct {
		name   string
		answer func(publisher, subscriber net.Conn)
		check  func(r Result) bool
		remark string
	}{
		{"closes the subscriber", func(_, subscriber net.Conn) { subscriber.Close() },
			func(r Result) bool { return r.Closed == 1 && r.Lost > 0 }, "1 connections closed, the first: subscriber 0"},
		{"resets the publisher", func(publisher, _ net.Conn) {
			publisher.(*net.TCPConn).SetLinger(0)
			publisher.Close()
		}, func(r Result) bool { return r.Closed == 1 && r.Lost > 0 }, "publisher 0"},
		{"announces a gap", func(_, subscriber net.Conn) {
			subscriber.Write(protocol.AppendEventBinary(nil, &protocol.Event{Op: protocol.EvGap, Topic: topicName(0), Epoch: "E", Offset: 9, Missed: 9, HasMissed: true, Reason: protocol.GapSlow}))
		}, func(r Result) bool { return r.Gaps == 1 && r.GapMissed == 9 && r.Lost > 0 }, `1 gaps (9 missed), the first: gap in "bench-00000" up to 9`},
		{"answers an error", func(publisher, _ net.Conn) {
			publisher.Write(protocol.AppendEventBinary(nil, &protocol.Event{Op: protocol.EvError, Code: protocol.CodeOverloaded, Message: "no more"}))
		}, func(r Result) bool { return r.Errors > 0 && r.Lost > 0 }, "error overloaded: no more"},
		{"delivers nothing", func(_, _ net.Conn) {},
			func(r Result) bool { return r.Errors == 1 && r.Lost == 64 }, "no delivery for 2s with 64 outstanding"},
	} {
		addr := script(t, test.answer)
		all.Go(func() {
			s := Scenario{Name: "script", Topics: 1, Subscribers: 1, Publishers: 1, Duration: 2500 * time.Millisecond}
			r, err := Run(context.Background(), addr, 0, s)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				return
			}
			var table bytes.Buffer
			if err := WriteTable(&table, []Result{r}); err != nil {
				t.Error(err)
			}
			if r.Clean() || !test.check(r) || !strings.Contains(table.String(), test.remark) {
				t.Errorf("%s: %+v\n%s", test.name, r, table.String())
			}
		})
	}
}

func TestServerThatRefusesTheUpgradeIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1024))
			conn.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"))
		}
	}()
	_, err = Run(context.Background(), listener.Addr().String(), 0, Scenario{Topics: 1, Subscribers: 2, Publishers: 1})
	if err == nil || !strings.Contains(err.Error(), "503 Service Unavailable") || !strings.Contains(err.Error(), "busy") {
		t.Errorf("error is %v", err)
	}
}
