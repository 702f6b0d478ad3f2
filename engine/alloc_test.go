package engine

import (
	"fmt"
	"testing"
	"time"

	"rayflux/persist"
	"rayflux/protocol"
)

// The hot paths allocate nothing once they have run for a while: what they need is pooled, and pools have what they need.

// allocations is the mean number of allocations of a run of what happens, after a warm-up in which chunks, parcels and
// buffers come into their pools.
func allocations(t *testing.T, r *rig, happens func()) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for range 3000 {
		happens()
	}
	if n := testing.AllocsPerRun(2000, happens); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
	r.audit()
}

// allocConfig has a log so small that it turns over during the warm-up.
func allocConfig(loops int) Config {
	cfg := testConfig(loops)
	cfg.MaxTopicBytes = 128 << 10
	cfg.MaxMessage = 16 << 10
	cfg.PingInterval = time.Hour
	return cfg
}

// forget makes a socket take everything and keep nothing.
func forget(s *fakeSocket) *fakeSocket {
	s.kernel, s.sink = nil, true
	return s
}

// subscribed opens a connection on a loop that reads a topic in some format.
func subscribed(r *rig, loop int, f protocol.Format, topic string) *fakeSocket {
	s := r.connect(loop)
	cmd := protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(topic)}
	switch f {
	case protocol.FormatBinary:
		r.feed(s, []byte(handshake("/ws", subprotocolBinary)))
		r.feed(s, maskedBinary(protocol.AppendCommandBinary(nil, &cmd)))
	case protocol.FormatJSON:
		r.feed(s, []byte(handshake("/ws", subprotocolJSON)))
		r.feed(s, maskedText(string(protocol.AppendCommandJSON(nil, &cmd))))
	case protocol.FormatClassic:
		r.feed(s, []byte(handshake("/subscribe", "")))
		r.feed(s, maskedText(fmt.Sprintf(`{"subscriber_id":"s","topic":%q}`, topic)))
	case protocol.FormatSSE:
		r.feed(s, []byte(request("GET", "/v1/sse?topic="+topic, "")))
	}
	r.settle()
	return s
}

// publisher opens a connection on a loop and returns it with the bytes of one publish.
func publisher(r *rig, loop int, wire, topic string, withID bool) (s *fakeSocket, publish []byte) {
	s = forget(r.connect(loop))
	payload := []byte(`a message of some sixty bytes, with a "quote" and a é in it`)
	cmd := protocol.Command{Op: protocol.CmdPublish, Topic: []byte(topic), Kind: protocol.KindText, Payload: payload, HasID: withID, ID: 12345}
	switch wire {
	case "binary":
		r.feed(s, []byte(handshake("/ws", subprotocolBinary)))
		publish = maskedBinary(protocol.AppendCommandBinary(nil, &cmd))
	case "json":
		r.feed(s, []byte(handshake("/ws", subprotocolJSON)))
		publish = maskedText(string(protocol.AppendCommandJSON(nil, &cmd)))
	case "classic":
		body := `{"topic":"` + topic + `","message":` + quoted(string(payload)) + `}`
		publish = []byte(request("POST", "/publish", body, "Content-Type: application/json", "User-Agent: locust"))
	case "http":
		publish = []byte(request("POST", "/v1/topics/"+topic+"/messages?kind=text", string(payload)))
	}
	return s, publish
}

func TestPublishingToSubscribersAllocatesNothing(t *testing.T) {
	for _, wire := range []string{"binary", "json", "classic", "http"} {
		for _, withID := range []bool{false, true} {
			if !withID && (wire == "classic" || wire == "http") {
				continue // they are always answered
			}
			for f := range protocol.NumFormats {
				t.Run(fmt.Sprintf("%s id=%v to format %d", wire, withID, f), func(t *testing.T) {
					r := newRig(t, allocConfig(1), 1)
					for range 10 {
						forget(subscribed(r, 0, f, "t"))
					}
					s, publish := publisher(r, 0, wire, "t", withID)
					allocations(t, r, func() {
						r.feed(s, publish)
						r.advance(50 * time.Microsecond)
						r.settle()
					})
					if n := r.loops[0].metrics.delivered.Load(); n < 50_000 {
						t.Errorf("%d messages were delivered", n)
					}
				})
			}
		}
	}
}

func TestPublishingToAllFormatsOnSeveralLoopsAllocatesNothing(t *testing.T) {
	for _, wire := range []string{"binary", "json", "classic", "http"} {
		t.Run(wire, func(t *testing.T) {
			r := newRig(t, allocConfig(3), 1)
			topic := topicAtHome(r, 1)
			for f := range protocol.NumFormats {
				for loop := range 3 {
					forget(subscribed(r, loop, f, topic))
				}
			}
			s, publish := publisher(r, 0, wire, topic, true) // its errands travel
			allocations(t, r, func() {
				r.feed(s, publish)
				r.settle() // mail goes to and fro
				r.advance(50 * time.Microsecond)
			})
			delivered := uint64(0)
			for _, l := range r.loops {
				delivered += l.metrics.delivered.Load()
			}
			if delivered < 50_000 {
				t.Errorf("%d messages were delivered", delivered)
			}
		})
	}
}

func TestPublishingFromManyConnectionsInOneRoundAllocatesNothing(t *testing.T) {
	r := newRig(t, allocConfig(2), 1)
	var sockets []*fakeSocket
	var publishes [][]byte
	for i := range 20 {
		topic := topicAtHome(r, i%2) + string(rune('a'+i))
		s, publish := publisher(r, i/2%2, "binary", topic, i%3 == 0)
		forget(subscribed(r, i%2, protocol.Format(i%int(protocol.NumFormats)), topic))
		sockets, publishes = append(sockets, s), append(publishes, publish)
	}
	allocations(t, r, func() {
		for i, s := range sockets {
			r.feed(s, publishes[i])
		}
		r.settle()
		r.advance(50 * time.Microsecond)
	})
}

// TestLaggingReadersAllocateNothing has a kernel that is full after a message and a half, so that every round cuts a
// message, reads the log, and catches up.
func TestLaggingReadersAllocateNothing(t *testing.T) {
	for f := range protocol.NumFormats {
		for _, loops := range []int{1, 2} {
			t.Run(fmt.Sprintf("format %d, %d loops", f, loops), func(t *testing.T) {
				r := newRig(t, allocConfig(loops), 1)
				topic := topicAtHome(r, 0)
				var readers []*fakeSocket
				for range 3 {
					s := subscribed(r, loops-1, f, topic)
					s.capacity = 220
					readers = append(readers, s)
				}
				s, publish := publisher(r, 0, "binary", topic, false)
				lagged := 0
				allocations(t, r, func() {
					for range 5 {
						r.feed(s, publish)
					}
					for range 8 {
						for _, reader := range readers {
							if reader.conn.lag != nil {
								lagged++
							}
							reader.kernel = reader.kernel[:0]
						}
						r.advance(3 * time.Millisecond)
						r.settle()
					}
				})
				if lagged < 10_000 {
					t.Errorf("readers lagged %d times", lagged)
				}
			})
		}
	}
}

func TestPingsAllocateNothing(t *testing.T) {
	r := newRig(t, allocConfig(1), 1)
	s := forget(subscribed(r, 0, protocol.FormatJSON, "t"))
	ping := append(maskedText(`{"op":"ping","id":7}`), protocol.AppendMaskedFrame(nil, protocol.OpPing, [4]byte{1, 2, 3, 4}, []byte("x"))...)
	allocations(t, r, func() { r.feed(s, ping) })
}

// blackHole is an archive that has what it is offered at once, and forgets it.
type blackHole struct{ l *loop }

func (b blackHole) offer(batch *persist.Batch) { b.l.keeper.saved(batch, nil) }
func (b blackHole) ask(*loop, *inquiry)        { bug("nobody is behind") }

// What is kept is copied, four times a second or when there is much of it, into memory that comes back.
func TestKeepingAllocatesNothing(t *testing.T) {
	cfg := allocConfig(1)
	cfg.SnapshotInterval = 10 * time.Millisecond
	r := newRig(t, cfg, 1)
	l := r.loops[0]
	l.keeper = newKeeper(l, blackHole{l})
	for range 10 {
		forget(subscribed(r, 0, protocol.FormatBinary, "t"))
	}
	s, publish := publisher(r, 0, "binary", "t", true)
	allocations(t, r, func() {
		r.feed(s, publish)
		r.advance(50 * time.Microsecond)
		r.settle()
	})
	topic := l.topics["t"]
	if topic.stored < topic.head/2 || topic.stored != topic.offered {
		t.Errorf("of %d messages %d were offered and %d stored", topic.head, topic.offered, topic.stored)
	}
}
