package engine

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"rayflux/protocol"
)

// What the engine itself costs, with a kernel that takes everything at no cost: in production the kernel's write is most
// of the time, so a difference here is a small one there. These runs differ by nothing but the machine's mood, and under
// an instruction counter by nothing: "make bench-guard" counts them.

// benchmarkPublishes measures one publish, with all it causes, b.N times. An operation is a publish.
func benchmarkPublishes(b *testing.B, r *rig, s *fakeSocket, publish []byte) {
	b.ReportAllocs()
	for b.Loop() {
		r.feed(s, publish)
		r.settle()
		r.advance(50 * time.Microsecond)
	}
}

func BenchmarkFanOut(b *testing.B) {
	for _, f := range []protocol.Format{protocol.FormatBinary, protocol.FormatJSON, protocol.FormatClassic, protocol.FormatSSE} {
		b.Run(fmt.Sprintf("format%d", f), func(b *testing.B) {
			r := newRig(b, allocConfig(1), 1)
			for range 100 {
				forget(subscribed(r, 0, f, "t"))
			}
			s, publish := publisher(r, 0, "binary", "t", false)
			benchmarkPublishes(b, r, s, publish)
		})
	}
}

// BenchmarkOtherLoop is a publish that travels to the topic's home and on to readers on a third loop.
func BenchmarkOtherLoop(b *testing.B) {
	r := newRig(b, allocConfig(3), 1)
	topic := topicAtHome(r, 1)
	for range 100 {
		forget(subscribed(r, 2, protocol.FormatBinary, topic))
	}
	s, publish := publisher(r, 0, "binary", topic, false)
	benchmarkPublishes(b, r, s, publish)
}

func BenchmarkIngest(b *testing.B) {
	for _, wire := range []string{"binary", "json", "classic", "http"} {
		b.Run(wire, func(b *testing.B) {
			r := newRig(b, allocConfig(1), 1)
			forget(subscribed(r, 0, protocol.FormatBinary, "t"))
			s, publish := publisher(r, 0, wire, "t", true)
			benchmarkPublishes(b, r, s, publish)
		})
	}
}

// BenchmarkManyTopics is a round of ten publishes, each to another topic, which a hundred connections all read: one
// gathering write for each.
func BenchmarkManyTopics(b *testing.B) {
	r := newRig(b, allocConfig(1), 1)
	var readers []*fakeSocket
	var publishes []byte
	s, _ := publisher(r, 0, "binary", "t0", false)
	for topic := range 10 {
		name := fmt.Sprintf("t%d", topic)
		subscribe := maskedBinary(protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(name)}))
		for i := range 100 {
			if topic == 0 {
				readers = append(readers, forget(subscribed(r, 0, protocol.FormatBinary, name)))
				continue
			}
			r.feed(readers[i], subscribe)
		}
		_, publish := publisher(r, 0, "binary", name, false)
		publishes = append(publishes, publish...)
	}
	r.settle()
	benchmarkPublishes(b, r, s, publishes)
}

// BenchmarkThroughBalancer is a publish that travels to its topic's node, is answered, and comes to a hundred readers of
// the balancer. The node's share is in it.
func BenchmarkThroughBalancer(b *testing.B) {
	r := through(b, 1)
	for range 100 {
		forget(subscribed(r, 0, protocol.FormatBinary, "t"))
	}
	s, publish := publisher(r, 0, "binary", "t", true)
	r.settle()
	b.ReportAllocs()
	for b.Loop() {
		r.feed(s, publish)
		r.round()
		r.advance(50 * time.Microsecond)
	}
}

// BenchmarkLink is 64 publishes at a node that come to a balancer's one reader over a link, many at a time as they do when it is
// busy.
func BenchmarkLink(b *testing.B) {
	const each = 64
	r := through(b, 1)
	forget(subscribed(r, 0, protocol.FormatBinary, "t"))
	node := r.cables.nodes[0]
	s, publish := publisher(node, 0, "binary", "t", false)
	publish = bytes.Repeat(publish, each)
	r.settle()
	b.ReportAllocs()
	for b.Loop() {
		node.feed(s, publish)
		r.round()
		r.advance(50 * time.Microsecond)
	}
	b.ReportMetric(each*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
