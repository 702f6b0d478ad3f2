package engine

import (
	"fmt"
	"testing"
	"time"

	"rayflux/protocol"
)

// through is a balancer's rig with one node, its links up and everything learned.
func through(tb testing.TB, loops int) *rig {
	cfg := allocConfig(loops)
	cfg.LinkTimeout = time.Hour
	cfg.Heartbeat = time.Hour / 2
	r := newRig(tb, cfg, 1)
	newBalancerRig(r, 1, nil).settle()
	return r
}

// round lets what was said travel to the node and back, without an allocation of the test's own.
func (r *rig) round() {
	for range 100 {
		moved := false
		for i := range r.loops {
			if r.mailed(i) {
				r.deliver(i)
				moved = true
			}
			if r.alarmed(i) {
				r.alarm(i)
				moved = true
			}
		}
		for _, n := range r.cables.nodes {
			moved = n.settleOnce() || moved
		}
		for _, w := range r.cables.wires {
			node := r.cables.nodes[w.number]
			if b := w.ours.kernel; len(b) > 0 {
				node.feed(w.node.fakeSocket, b)
				w.ours.kernel = b[:0]
				moved = true
			}
			if b := w.node.kernel; len(b) > 0 {
				r.feed(w.ours, b)
				w.node.kernel = b[:0]
				moved = true
			}
		}
		if !moved {
			return
		}
	}
	r.tb.Fatal("it never comes to rest")
}

func TestPublishingThroughABalancerAllocatesNothing(t *testing.T) {
	for _, loops := range []int{1, 3} {
		for _, wire := range []string{"binary", "json", "http"} {
			t.Run(fmt.Sprintf("%d loops, %s", loops, wire), func(t *testing.T) {
				r := through(t, loops)
				for i := range 100 {
					forget(subscribed(r, i%loops, protocol.FormatBinary, "t"))
				}
				s, publish := publisher(r, 0, wire, "t", true)
				r.settle()
				allocations(t, r, func() {
					r.feed(s, publish)
					r.round()
					r.advance(50 * time.Microsecond)
				})
				delivered := uint64(0)
				for _, l := range r.loops {
					delivered += l.metrics.delivered.Load()
				}
				if delivered < 400_000 {
					t.Errorf("%d messages were delivered", delivered)
				}
			})
		}
	}
}
