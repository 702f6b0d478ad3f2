package bench

import (
	"testing"

	"golang.org/x/sys/unix"

	"rayflux/protocol"
)

// writingBed is a bed whose only publisher writes into the socket pair.
func writingBed(t *testing.T, s Scenario) (*bed, *publisher) {
	b := newBed(t, s)
	p := &b.publishers[0]
	p.conn, b.c.publisher, b.c.role, b.c.wire = b.c, p, rolePublisher, WireBinary
	if err := b.poller.watch(unix.EPOLL_CTL_ADD, b.c.fd, unix.EPOLLIN); err != nil {
		t.Fatal(err)
	}
	return b, p
}

// drainPeer reads what the publisher wrote.
func (b *bed) drainPeer(into []byte) []byte {
	var chunk [1 << 16]byte
	for {
		n, err := unix.Read(b.peer, chunk[:])
		if err != nil || n == 0 {
			return into
		}
		into = append(into, chunk[:n]...)
	}
}

func TestPublishesStayWholeAndInOrderWhenTheKernelRefuses(t *testing.T) {
	b, p := writingBed(t, Scenario{Topics: 3, Subscribers: 3, Publishers: 1, PayloadBytes: 3000, InFlight: 1000})
	if err := unix.SetsockoptInt(b.c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	var wire []byte
	refused := 0
	for range 200 {
		b.publish(b.now())
		if p.blocked {
			refused++
			b.pong(b.c, []byte("beat")) // has to wait for the end of a frame
		}
		wire = b.drainPeer(wire)
		b.poll(0)
	}
	for p.pending() {
		wire = b.drainPeer(wire)
		b.poll(0)
	}
	wire = b.drainPeer(wire)
	if refused == 0 {
		t.Fatal("the kernel refused nothing, so the test shows nothing")
	}
	var next [3]uint64
	pongs, published := 0, uint64(0)
	for len(wire) > 0 {
		h, ok := protocol.NextFrame(wire)
		if !ok || len(wire) < h.Size+int(h.Length) {
			t.Fatalf("%d bytes left that are no frame", len(wire))
		}
		payload := wire[h.Size : h.Size+int(h.Length)]
		wire = wire[h.Size+int(h.Length):]
		if h.Opcode == protocol.OpPong {
			pongs++
			continue
		}
		command, err := protocol.ParseBinaryCommand(payload, payloadBytesMax)
		if err != nil {
			t.Fatal(err)
		}
		s := stampBinary.get(command.Payload)
		lane := uint32(s.origin)
		if string(command.Topic) != b.topics[lane] || s.seq != next[lane] {
			t.Fatalf("topic %q carries number %d of lane %d, want %d", command.Topic, s.seq, lane, next[lane])
		}
		next[lane]++
		published++
	}
	if published != p.published || pongs == 0 {
		t.Errorf("%d publishes arrived of %d, and %d pongs", published, p.published, pongs)
	}
}

func TestOpenLoopSendsWhatIsDueAndSaysWhenTheNextIs(t *testing.T) {
	b, p := writingBed(t, Scenario{Topics: 1, Subscribers: 1, Publishers: 1, Rate: 1000})
	b.dueEvery, p.due = 1e6, 5e6
	for _, step := range []struct {
		now, idle int64
		published uint64
	}{
		{4_000_000, 1_000_000, 0}, {5_000_000, 1_000_000, 1}, {5_400_000, 600_000, 1}, {8_100_000, 900_000, 4},
	} {
		if idle := b.publish(step.now); idle != step.idle || p.published != step.published {
			t.Errorf("at %d: sleep %d, %d published; want %d, %d", step.now, idle, p.published, step.idle, step.published)
		}
	}
}

func TestClosedLoopKeepsToItsWindow(t *testing.T) {
	b, p := writingBed(t, Scenario{Topics: 1, Subscribers: 3, Publishers: 1, InFlight: 8})
	for _, step := range []struct {
		delivered int64
		published uint64
	}{
		{0, 8}, {9, 8}, {2, 8}, {1, 12}, {24, 20},
	} {
		p.outstanding -= step.delivered
		b.publish(0)
		if p.published != step.published {
			t.Errorf("%+v: %d published", step, p.published)
		}
	}
}

func TestPublishDoesNotAllocate(t *testing.T) {
	b, p := writingBed(t, Scenario{Topics: 1, Subscribers: 1, Publishers: 1, InFlight: 8})
	var chunk [1 << 16]byte
	allocs := testing.AllocsPerRun(200, func() {
		p.outstanding = 0
		b.publish(1)
		unix.Read(b.peer, chunk[:])
		b.poll(0)
	})
	if allocs != 0 || p.published < 8*200 {
		t.Errorf("%v allocations per publish, %d published", allocs, p.published)
	}
}
