package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// eachBalancer runs a test on a balancer of one loop and on one of three, in front of so many nodes.
func eachBalancer(t *testing.T, nodes int, change func(cfg *Config), test func(t *testing.T, r *rig)) {
	for _, loops := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			cfg := testConfig(loops)
			if change != nil {
				change(&cfg)
			}
			r := newRig(t, cfg, 1)
			newBalancerRig(r, nodes, nil).settle()
			test(t, r)
			r.audit()
		})
	}
}

// jsonClient is a connection that speaks rayflux.v1.json, and what it has heard since it was asked last.
func jsonClient(r *rig, loop int) (s *fakeSocket, heard func() string) {
	s = r.connect(loop)
	r.feed(s, []byte(handshake("/ws", subprotocolJSON)))
	s.readSome(1 << 20)
	return s, func() string { return string(s.readSome(1 << 30)) }
}

func (r *rig) dropped(why protocol.Reason) (n uint64) {
	for _, l := range r.loops {
		n += l.metrics.dropped[why].Load()
	}
	return n
}

func TestPublishesThatFailAreCountedByReason(t *testing.T) {
	eachBalancer(t, 1, func(cfg *Config) { cfg.HoldTimeout = time.Second }, func(t *testing.T, r *rig) {
		s, heard := jsonClient(r, 0)
		r.cables.hung[0] = true
		r.feed(s, maskedText(`{"op":"publish","id":1,"topic":"t","text":"x"}`))
		r.settle()
		r.cables.kill(0)
		r.settle()
		if n := r.dropped(protocol.ReasonDropUnknown); n != 1 || !strings.Contains(heard(), `"id":1,"code":"outcome_unknown"`) {
			t.Errorf("%d publishes with an unknown outcome, want 1", n)
		}
		r.feed(s, maskedText(`{"op":"publish","id":2,"topic":"t","text":"x"}`))
		r.pass(1200*msec, 10*msec)
		if n := r.dropped(protocol.ReasonDropNoOwner); n != 1 || !strings.Contains(heard(), `"id":2,"code":"no_owner"`) {
			t.Errorf("%d publishes without an owner, want 1", n)
		}
	})
}

func TestCommandsWaitWithinTheirMemory(t *testing.T) {
	eachBalancer(t, 1, func(cfg *Config) { cfg.BufferMemory = int64(cfg.Loops) * 256 << 10 }, func(t *testing.T, r *rig) {
		s, heard := jsonClient(r, 0)
		r.cables.hung[0] = true
		for id := range 500 {
			r.feed(s, maskedText(fmt.Sprintf(`{"op":"publish","id":%d,"topic":"t","text":"%s"}`, id, strings.Repeat("x", 1000))))
			r.feed(s, maskedText(fmt.Sprintf(`{"op":"unsubscribe","id":%d,"topic":"t"}`, 1000+id))) // refused, and in turn
			r.settle()
			r.audit()
		}
		refused := strings.Count(heard(), `"code":"overloaded"`)
		if refused < 300 || refused > 480 {
			t.Fatalf("%d of 500 publishes were refused while nobody answers", refused)
		}
		r.cables.hung[0] = false
		r.settle()
		if n := strings.Count(heard(), `"op":"published"`); n != 500-refused {
			t.Fatalf("%d publishes were taken, %d refused, of 500", n, refused)
		}
		for _, l := range r.loops {
			if l.up.held != 0 {
				t.Fatalf("%d bytes of commands are held, and none waits", l.up.held)
			}
		}
	})
}

func TestATopicsAnswersComeInOrder(t *testing.T) {
	eachBalancer(t, 2, nil, func(t *testing.T, r *rig) {
		s, heard := jsonClient(r, 0)
		r.cables.reach = 7 // every frame comes in pieces
		for id, line := range []string{
			`"op":"publish","text":"a"`, `"op":"subscribe"`, `"op":"subscribe"`, `"op":"publish","text":"b"`, `"op":"unsubscribe"`,
			`"op":"publish","text":"c"`, `"op":"unsubscribe"`, `"op":"subscribe","from":"earliest"`, `"op":"publish","text":"d"`,
		} {
			r.feed(s, maskedText(fmt.Sprintf(`{%s,"id":%d,"topic":"t"}`, line, id)))
		}
		r.settle()
		got, at := heard(), 0
		for id := range 9 {
			next := strings.Index(got, fmt.Sprintf(`"id":%d,`, id))
			if next < at {
				t.Fatalf("command %d is answered out of turn:\n%s", id, got)
			}
			at = next
		}
	})
}
