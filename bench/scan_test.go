package bench

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rayflux/protocol"
)

// bed is a generator with one subscriber whose bytes the test supplies; what it sends goes into a socket pair.
type bed struct {
	*generator
	c    *conn
	peer int
}

func newBed(t testing.TB, s Scenario) *bed {
	t.Helper()
	g, err := newGenerator(context.Background(), "127.0.0.1:1", s.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{generator: g, c: g.newSubscriber(0), peer: pair[1]}
	b.c.fd, b.c.phase = pair[0], phaseLive
	b.conns = make([]*conn, pair[0]+1)
	b.conns[pair[0]] = b.c
	b.windowFrom = 0
	t.Cleanup(func() {
		g.close()
		unix.Close(pair[1])
	})
	return b
}

// feed gives the subscriber the stream in reads that end at the given places, and wherever the input is full.
func (b *bed) feed(stream []byte, cuts ...int) {
	from := 0
	for i := range len(cuts) + 1 {
		to := len(stream)
		if i < len(cuts) {
			to = cuts[i]
		}
		for from < to {
			kept := copy(b.input, b.c.tail)
			n := copy(b.input[kept:], stream[from:to])
			if b.c.phase != phaseClosed {
				b.arrived(b.c, b.input[:kept+n])
			}
			from += n
		}
	}
}

// rewind makes the subscriber new.
func (b *bed) rewind() {
	b.tally, b.trouble = tally{}, incidents{}
	clear(b.c.places)
	for slot := range b.c.offsets {
		b.c.offsets[slot] = offsetTrack{free: true}
	}
	b.c.tail = nil
	var pongs [1 << 12]byte
	for n := 1; n > 0; {
		n, _ = unix.Read(b.peer, pongs[:])
	}
}

// message appends one delivery in the bed's wire.
func (b *bed) message(dst []byte, topic int, offset uint64, s stamp) []byte {
	payload := make([]byte, b.s.PayloadBytes)
	for i := range payload {
		payload[i] = 'x'
	}
	b.form.put(payload, s)
	if b.s.Wire == WireNATS {
		return protocol.AppendFrame(dst, protocol.OpBinary, fmt.Appendf(nil, "MSG %s 7 %d\r\n%s\r\n", b.topics[topic], len(payload), payload))
	}
	format := map[Wire]protocol.Format{WireBinary: protocol.FormatBinary, WireJSON: protocol.FormatJSON, WireClassic: protocol.FormatClassic}[b.s.Wire]
	return protocol.AppendMessage(dst, format, b.topics[topic], offset, protocol.KindText, payload)
}

// stream is what one subscriber may see: two topics, two lanes each, all frame lengths, a ping between, an announced gap.
func (b *bed) stream() (stream []byte) {
	native := b.s.Wire == WireBinary || b.s.Wire == WireJSON
	topics := b.s.Subscriptions
	for i := range uint64(6) {
		for topic := range topics {
			for ordinal := range 2 {
				lane := uint32(topic + ordinal*b.s.Topics)
				stream = b.message(stream, topic, 126+2*i+uint64(ordinal), stamp{due: 5, seq: i, origin: originOf(b.run, lane)})
			}
		}
		stream = protocol.AppendFrame(stream, protocol.OpPing, []byte("beat"))
	}
	if native {
		gap := protocol.Event{Op: protocol.EvGap, Topic: b.topics[0], Epoch: "E", Offset: 200, Missed: 62, HasMissed: true, Reason: protocol.GapSlow}
		if b.s.Wire == WireJSON {
			stream = protocol.AppendEventJSON(stream, &gap)
		} else {
			stream = protocol.AppendEventBinary(stream, &gap)
		}
	}
	return b.message(stream, 0, 201, stamp{due: 6, seq: 10, origin: originOf(b.run, 0)})
}

// sizes of payloads that need each length form of a frame header.
var payloadSizes = map[string]int{"7 bit": 50, "16 bit": 200, "64 bit": 65_536}

func forEachWire(t *testing.T, run func(t *testing.T, s Scenario)) {
	for _, wire := range []Wire{WireBinary, WireJSON, WireClassic} {
		for name, size := range payloadSizes {
			s := Scenario{Name: "cut", Topics: 3, Subscribers: 3, Publishers: 6, Subscriptions: 2, Wire: wire, PayloadBytes: size}
			if wire == WireClassic {
				s.Subscriptions = 1
			}
			t.Run(wireWords[wire]+" "+name, func(t *testing.T) { run(t, s) })
		}
	}
}

func TestScanSeesTheSameHoweverTheStreamIsCut(t *testing.T) {
	forEachWire(t, func(t *testing.T, s Scenario) {
		whole := newBed(t, s)
		stream := whole.stream()
		whole.feed(stream)
		want := whole.tally
		if delivered := uint64(12*s.withDefaults().Subscriptions + 1); want.delivered != delivered || want.lost != 4 {
			t.Fatalf("uncut: %+v, want %d delivered and 4 lost", want, delivered)
		}
		if want.repeated+want.reordered+want.foreign+want.offsets != 0 {
			t.Fatalf("uncut: %+v", want)
		}
		if s.Wire != WireClassic && (want.gaps != 1 || want.missed != 62) {
			t.Fatalf("uncut: %+v, want one gap of 62", want)
		}
		troubled := whole.trouble
		step := max(1, len(stream)/2000) // a big payload looks alike all over
		for at := 1; at < len(stream); at += step {
			whole.rewind()
			whole.feed(stream, at)
			if whole.tally != want || whole.trouble != troubled || len(whole.c.tail) != 0 {
				t.Fatalf("cut at %d of %d: %+v %q, %d bytes left; want %+v", at, len(stream), whole.tally, whole.trouble.first(), len(whole.c.tail), want)
			}
		}
	})
}

func TestScanSeesTheSameByteByByte(t *testing.T) {
	forEachWire(t, func(t *testing.T, s Scenario) {
		if s.PayloadBytes > 1000 {
			t.Skip("quadratic")
		}
		b := newBed(t, s)
		stream := b.stream()
		cuts := make([]int, len(stream)-1)
		for i := range cuts {
			cuts[i] = i + 1
		}
		b.feed(stream, cuts...)
		if want := uint64(12*b.s.Subscriptions + 1); b.tally.delivered != want || b.tally.lost != 4 {
			t.Fatalf("%+v, want %d delivered and 4 lost", b.tally, want)
		}
	})
}

func TestScanCountsWhatIsNotForTheSubscriber(t *testing.T) {
	s := Scenario{Topics: 3, Subscribers: 3, Publishers: 3}
	for _, test := range []struct {
		name   string
		stream func(b *bed) []byte
	}{
		{"another run", func(b *bed) []byte { return b.message(nil, 0, 1, stamp{origin: originOf(b.run+1, 0)}) }},
		{"another topic", func(b *bed) []byte { return b.message(nil, 1, 1, stamp{origin: originOf(b.run, 1)}) }},
		{"a topic's name on another's message", func(b *bed) []byte { return b.message(nil, 1, 1, stamp{origin: originOf(b.run, 0)}) }},
		{"no such lane", func(b *bed) []byte { return b.message(nil, 0, 1, stamp{origin: originOf(b.run, 3)}) }},
		{"no stamp", func(b *bed) []byte {
			return protocol.AppendMessage(nil, protocol.FormatBinary, b.topics[0], 1, protocol.KindText, []byte("hello"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t, s)
			b.feed(test.stream(b))
			if b.tally.foreign != 1 {
				t.Errorf("%+v, want one foreign", b.tally)
			}
		})
	}
}

func TestPayloadOfZerosIsForeign(t *testing.T) {
	for _, wire := range []Wire{WireBinary, WireClassic} {
		b := newBed(t, Scenario{Topics: 1, Subscribers: 1, Publishers: 1, Wire: wire})
		zeros := protocol.AppendMessage(nil, protocol.FormatClassic, "", 0, protocol.KindBinary, make([]byte, 128))
		if wire == WireBinary {
			zeros = protocol.AppendMessage(nil, protocol.FormatBinary, "", 0, protocol.KindBinary, make([]byte, 128))
		}
		b.feed(append(zeros, b.message(nil, 0, 1, stamp{origin: originOf(b.run, 0)})...))
		if b.tally.foreign != 1 || b.tally.delivered != 1 || b.tally.lost != 0 {
			t.Errorf("%s: %+v, want one foreign and one delivered", wireWords[wire], b.tally)
		}
	}
}

func TestNothingTheServerSaysIsIgnored(t *testing.T) {
	for _, test := range []struct {
		name, want string
		frame      []byte
		closed     bool
	}{
		{"error", "error rate_limited: slow down", protocol.AppendEventBinary(nil, &protocol.Event{Op: protocol.EvError, Code: protocol.CodeRateLimited, Message: "slow down"}), false},
		{"drain", "drain: come back in 9 ms", protocol.AppendEventBinary(nil, &protocol.Event{Op: protocol.EvDrain, ReconnectAfterMs: 9}), false},
		{"close", `subscriber 0: closed with 4008 "slow"`, protocol.AppendClose(nil, protocol.CloseSlow, "slow"), true},
		{"unknown event", "event: ", protocol.AppendFrame(nil, protocol.OpBinary, []byte{0x77, 0, 0}), false},
		{"masked", "frame: ", protocol.AppendMaskedFrame(nil, protocol.OpBinary, [4]byte{}, []byte("x")), true},
		{"fragment", "a fragmented message", []byte{0x02, 1, 'x'}, true},
		{"reserved bit", "frame: ", []byte{0xc2, 1, 'x'}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBed(t, Scenario{Topics: 1, Subscribers: 1, Publishers: 1})
			b.feed(test.frame)
			if got := b.trouble.first(); !strings.Contains(got, test.want) {
				t.Errorf("trouble is %q, want %q", got, test.want)
			}
			if closed := b.c.phase == phaseClosed; closed != test.closed {
				t.Errorf("closed is %v, want %v", closed, test.closed)
			}
		})
	}
}

func TestPingIsAnswered(t *testing.T) {
	b := newBed(t, Scenario{Topics: 1, Subscribers: 1})
	b.feed(protocol.AppendFrame(nil, protocol.OpPing, []byte("beat")))
	var got [64]byte
	n, err := unix.Read(b.peer, got[:])
	if want := string(appendClient(nil, protocol.OpPong, []byte("beat"))); err != nil || string(got[:n]) != want {
		t.Errorf("answer is %q %v, want %q", got[:n], err, want)
	}
}

func TestLostConnectionSettlesItsDeliveries(t *testing.T) {
	b := newBed(t, Scenario{Topics: 1, Subscribers: 2, Publishers: 1})
	p := &b.publishers[0]
	p.conn = &conn{phase: phaseLive}
	for range 5 {
		b.stampOne(p, 0)
	}
	b.feed(b.message(b.message(nil, 0, 1, stamp{origin: originOf(b.run, 0)}), 0, 2, stamp{seq: 1, origin: originOf(b.run, 0)}))
	if p.outstanding != 8 {
		t.Fatalf("%d outstanding, want 8", p.outstanding)
	}
	b.fail(b.c, "test")
	if b.tally.lost != 3 || p.outstanding != 5 || p.lanes[0].fanout != 1 {
		t.Errorf("%d lost, %d outstanding, fan-out %d; want 3, 5, 1", b.tally.lost, p.outstanding, p.lanes[0].fanout)
	}
}

func TestLatencyIsRecordedByDueTime(t *testing.T) {
	b := newBed(t, Scenario{Topics: 1, Subscribers: 1, Publishers: 1})
	b.windowFrom, b.windowTo, b.readAt = 100, 200, 1000
	var stream []byte
	for i, due := range []int64{99, 100, 100, 199, 200} {
		stream = b.message(stream, 0, uint64(i), stamp{due: due, seq: uint64(i), origin: originOf(b.run, 0)})
	}
	b.feed(stream)
	if n, top := b.latency.TotalCount(), b.latency.Max(); n != 3 || math.Abs(float64(top)-900) > 1 {
		t.Errorf("%d recorded, longest %d ns; want 3, 900", n, top)
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	for _, wire := range []Wire{WireBinary, WireJSON, WireClassic, WireNATS} {
		t.Run(wireWords[wire], func(t *testing.T) {
			b := newBed(t, Scenario{Topics: 1, Subscribers: 1, Publishers: 1, Wire: wire})
			b.readAt = 1 << 20
			var stream []byte
			for i := range uint64(3000) {
				stream = b.message(stream, 0, 1000+i, stamp{seq: i, due: int64(i), origin: originOf(b.run, 0)})
			}
			const read = 777 // ends in the middle of a frame, mostly
			b.feed(stream[:read])
			stream = stream[read:]
			b.c.tail = append(make([]byte, 0, read), b.c.tail...)
			allocs := testing.AllocsPerRun(300, func() {
				b.feed(stream[:read])
				stream = stream[read:]
			})
			if allocs != 0 || b.tally.lost+b.tally.foreign+b.tally.offsets != 0 || b.tally.delivered < 1000 {
				t.Errorf("%v allocations per read, %+v", allocs, b.tally)
			}
		})
	}
}

func BenchmarkScan(bm *testing.B) {
	for _, wire := range []Wire{WireBinary, WireJSON, WireClassic, WireNATS} {
		bm.Run(wireWords[wire], func(bm *testing.B) {
			b := newBed(bm, Scenario{Topics: 1, Subscribers: 1, Publishers: 1, Wire: wire})
			var stream []byte
			const frames = 64
			for i := range uint64(frames) {
				stream = b.message(stream, 0, 1000+i, stamp{seq: i, due: 7, origin: originOf(b.run, 0)})
			}
			bm.SetBytes(int64(len(stream) / frames))
			bm.ReportAllocs()
			for i := 0; i < bm.N; i += frames {
				b.c.places[0] = sequence{}
				b.c.offsets[0].next = 1000
				b.feed(stream)
			}
		})
	}
}

// FuzzScan feeds bytes a server may send, whole and cut in two: the books must be the same, and nothing may panic.
func FuzzScan(f *testing.F) {
	for i := range wireWords {
		b := newBed(f, Scenario{Topics: 2, Subscribers: 2, Publishers: 4, Subscriptions: 1, Wire: Wire(i), PayloadBytes: 64})
		b.run = 1
		f.Add(byte(i), b.stream(), 70)
	}
	f.Fuzz(func(t *testing.T, wire byte, stream []byte, at int) {
		s := Scenario{Topics: 2, Subscribers: 2, Publishers: 4, Subscriptions: 1, Wire: Wire(wire) % wireHTTP, PayloadBytes: 64}
		if len(stream) > 1<<16 || at < 0 || at > len(stream) {
			return
		}
		whole, cut := newBed(t, s), newBed(t, s)
		whole.run, cut.run = 1, 1
		whole.feed(stream)
		cut.feed(stream, at)
		if whole.tally != cut.tally || whole.c.phase != cut.c.phase || string(whole.c.tail) != string(cut.c.tail) {
			t.Errorf("cut at %d: %+v, whole: %+v", at, cut.tally, whole.tally)
		}
	})
}
