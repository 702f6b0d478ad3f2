package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

// soon is what leaving at once may take on a busy machine.
const soon = 5 * time.Second

func TestADrainWithoutClientsIsOverAtOnce(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--drain-timeout=1m")
		newBystander(t, n).Close() // there was somebody
		n.counted("rayflux_connections", 0)
		began := time.Now()
		n.signal(syscall.SIGTERM)
		if code := n.exit(); code != exitClean || time.Since(began) > soon {
			t.Errorf("exit status %d after %v", code, time.Since(began))
		}
	})
}

func TestADrainSendsClientsAwayOneByOne(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		t.Parallel()
		const window = 2 * time.Second
		n := startNode(t, loops, "--drain-timeout="+window.String())
		natives := make([]*peer, 50)
		for i := range natives {
			natives[i] = n.native(t)
		}
		classic, idle, stream := n.classic(t, "t"), n.dial(t, dialing{}), n.dial(t, dialing{})
		if a, err := idle.get("/healthz"); err != nil || a.status != 200 {
			t.Fatalf("%d %s (%v)", a.status, a.body, err)
		}
		stream.raw(getRequest("/v1/sse?topic=t"))
		events := stream.eventStream(t)
		n.counted("rayflux_subscriptions", 2)

		began := time.Now()
		n.signal(syscall.SIGTERM)
		slots := make([]time.Duration, len(natives))
		together(t, len(natives), len(natives), func(i int) (err error) {
			slots[i], err = natives[i].leaveWhenTold(began)
			return err
		})
		slices.Sort(slots)
		t.Logf("slots of %d clients: %v to %v, median %v", len(slots), slots[0], slots[len(slots)-1], slots[len(slots)/2])
		if slots[0] > window/3 || slots[len(slots)-1] < window/2 || slots[len(slots)-1] > window {
			t.Errorf("the slots are not spread over %v: %v", window, slots)
		}
		classic.hearClose(protocol.CloseGoingAway)
		idle.hearEnd()
		events.retry = 0
		for {
			if _, data, err := events.block(); err != nil || data != "" {
				if !errors.Is(err, io.EOF) || events.retry == 0 || events.retry > int(window.Milliseconds()) {
					t.Errorf("the stream ended with %q, retry %d (%v)", data, events.retry, err)
				}
				break
			}
		}
		if code := n.exit(); code != exitClean || time.Since(began) > window+soon {
			t.Errorf("exit status %d after %v", code, time.Since(began))
		}
	})
}

// leaveWhenTold waits for its drain event, which names its slot, and for the
// close at the end of it.
func (s *socket) leaveWhenTold(began time.Time) (slot time.Duration, err error) {
	s.patient()
	e, err := s.event()
	if err != nil || e.Op != "drain" || e.ReconnectAfterMs == nil {
		return 0, errors.Join(errors.New("no drain event, but "+e.Op), err)
	}
	slot = time.Duration(*e.ReconnectAfterMs) * time.Millisecond
	_, err = s.event()
	var closed *protocol.CloseError
	if !errors.As(err, &closed) || closed.Code != protocol.CloseGoingAway {
		return slot, errors.Join(errors.New("no close 1001, but "+e.Op), err)
	}
	if stayed := time.Since(began); stayed < slot-100*time.Millisecond || stayed > slot+soon {
		return slot, errors.New("told to leave after " + slot.String() + ", closed after " + stayed.String())
	}
	return slot, nil
}

func TestADrainEndsWithTheLastClient(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--drain-timeout=1m")
		var leaving sync.WaitGroup
		for range 10 {
			p := n.native(t)
			leaving.Go(func() {
				if e, err := p.event(); err != nil || e.Op != "drain" {
					t.Errorf("heard %+v (%v), want drain", e, err)
				}
				p.Close()
			})
		}
		began := time.Now()
		n.signal(syscall.SIGTERM)
		leaving.Wait()
		if code := n.exit(); code != exitClean || time.Since(began) > soon {
			t.Errorf("exit status %d after %v", code, time.Since(began))
		}
	})
}

func TestADrainDoesNotWaitForHalfARequestNorForNewcomers(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		const window = time.Second
		n := startNode(t, loops, "--drain-timeout="+window.String(), "--handshake-timeout=1m", "--request-timeout=1m")
		watcher, half := n.native(t), n.dial(t, dialing{})
		half.raw(postClassic + "Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
		if line, err := half.in.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("expecting to be asked for the body, it was %q (%v)", line, err)
		}
		_, _ = half.in.ReadString('\n')

		began := time.Now()
		n.signal(syscall.SIGTERM)
		watcher.hear("drain")
		for range 5 {
			n.dial(t, dialing{}) // and never says a word
		}
		if a := half.hearAnswer(); a.status != 503 || a.Error.Code != "draining" {
			t.Errorf("half a request is answered %d %s", a.status, a.body)
		}
		half.Close()
		watcher.hearClose(protocol.CloseGoingAway)
		if code := n.exit(); code != exitClean || time.Since(began) > window+soon {
			t.Errorf("exit status %d after %v", code, time.Since(began))
		}
	})
}

func TestTheGoClientLeavesADrainingServer(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		t.Parallel()
		const window = 2 * time.Second
		n := startNode(t, loops, "--drain-timeout="+window.String())
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var clients []*client.Client
		for range 5 {
			c, err := client.Dial(ctx, n.listen, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Subscribe(ctx, "t", client.Live()); err != nil {
				t.Fatal(err)
			}
			clients = append(clients, c)
		}
		began := time.Now()
		n.signal(syscall.SIGTERM)
		if code := n.exit(); code != exitClean || time.Since(began) > window+soon {
			t.Errorf("exit status %d after %v", code, time.Since(began))
		}
		for _, c := range clients {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestADrainingServerTakesNoNewWork(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--drain-timeout=1m")
		if n.status("/readyz") != 200 {
			t.Fatal("not ready")
		}
		p := n.native(t)
		n.signal(syscall.SIGTERM)
		p.hear("drain")
		n.metrics() // every loop answers, and so has begun to drain: it ends connections without a request as it does
		if ready, healthy, live := n.status("/readyz"), n.status("/healthz"), n.status("/livez"); ready != 503 || healthy != 503 || live != 200 {
			t.Errorf("/readyz is %d, /healthz %d, /livez %d", ready, healthy, live)
		}
		late := n.dial(t, dialing{})
		if a, err := late.post("/publish", "application/json", []byte(`{"topic":"t","message":"x"}`)); err != nil ||
			a.status != 503 || a.Error.Code != "draining" || a.header.Get("Retry-After") == "" {
			t.Errorf("a publish is answered %d %s (%v)", a.status, a.body, err)
		}
		var refusal *protocol.HTTPError
		if _, err := (dialing{}).native(n.listen); !errors.As(err, &refusal) || refusal.Status != 503 || refusal.Code != "draining" {
			t.Errorf("an upgrade is answered %v", err)
		}
		began := time.Now()
		n.signal(syscall.SIGTERM)
		if code := n.exit(); code != exitFailed || time.Since(began) > soon {
			t.Errorf("after the second signal: exit status %d after %v, want %d at once", code, time.Since(began), exitFailed)
		}
	})
}
