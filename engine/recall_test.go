package engine

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// TestManyReadersBeginAtOnce has more readers come at once than the store is asked for at a time: all have their turn, unless the store
// does not answer.
func TestManyReadersBeginAtOnce(t *testing.T) {
	const readers = 3 * inquiriesMax
	for _, c := range []struct {
		name   string
		wait   time.Duration
		placed int
	}{
		{"soon", 0, readers},
		{"late", inquiryPatience, inquiriesMax}, // those that were asked for are answered in the end
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, testConfig(1), 1)
			s, l := newShelf(r), r.loops[0]
			l.keeper.inherit(nil)
			put(r, l, "t", "one")
			r.settle()
			s.held = true
			cmd := protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("t"), From: protocol.From{Mode: protocol.FromEarliest}}
			var sockets []*fakeSocket
			for range readers {
				socket := r.connect(0)
				r.feed(socket, []byte(handshake("/ws", subprotocolJSON)))
				r.feed(socket, maskedText(string(protocol.AppendCommandJSON(nil, &cmd))))
				sockets = append(sockets, socket)
			}
			r.advance(c.wait)
			s.held = false
			r.pass(time.Second, 10*time.Millisecond)
			placed, told := 0, 0
			for _, socket := range sockets {
				if bytes.Contains(socket.kernel, []byte(`"op":"message"`)) {
					placed++
				} else if bytes.Contains(socket.kernel, []byte(protocol.CodeStoreUnavailable)) {
					told++
				}
			}
			if placed != c.placed || placed+told != readers {
				t.Errorf("%d readers of %d have begun, %d were told that they cannot; want %d, and the others told", placed, readers, told, c.placed)
			}
			if n := len(l.keeper.asking) + len(l.keeper.line) + len(l.keeper.begins); n != 0 {
				t.Errorf("%d inquiries are left", n)
			}
			r.audit()
		})
	}
}

// TestStretchesOfManyTopicsAreReadAtOnce has one connection of one loop, as a balancer's link is, go on in epochs that have ended: of each the store is
// asked, which may take a second, and none waits for another's answer.
func TestStretchesOfManyTopicsAreReadAtOnce(t *testing.T) {
	const topics = 30
	r := newRig(t, testConfig(1), 1)
	s, l := newShelf(r), r.loops[0]
	l.keeper.inherit(nil)
	socket := r.connect(0)
	r.feed(socket, []byte(handshake("/ws", subprotocolJSON)))
	for i := range topics {
		name := fmt.Sprint("t", i)
		s.epochs[name] = []*shelvedEpoch{{epoch: "past", began: 1, messages: map[uint64]shelvedMessage{
			1: {frame: string(protocol.AppendMessage(nil, protocol.FormatBinary, name, 1, protocol.KindText, []byte("one")))},
			2: {frame: string(protocol.AppendMessage(nil, protocol.FormatBinary, name, 2, protocol.KindText, []byte("two")))},
		}}}
		put(r, l, name, "three")
	}
	r.settle()
	s.held = true
	for i := range topics {
		cmd := protocol.Command{Op: protocol.CmdSubscribe, Topic: fmt.Append(nil, "t", i), From: protocol.From{Mode: protocol.FromPosition, Epoch: []byte("past"), Offset: 1}}
		r.feed(socket, maskedText(string(protocol.AppendCommandJSON(nil, &cmd))))
	}
	for range topics { // where they begin is answered, what follows there is not
		s.held = false
		s.pump()
		s.held = true
	}
	r.pass(100*time.Millisecond, time.Millisecond)
	if n := len(s.asked); n != topics {
		t.Errorf("%d of %d topics are asked for at once", n, topics)
	}
	s.held = false
	r.pass(time.Second, 10*time.Millisecond)
	for _, text := range []string{`"data":"two"`, `"reason":"reset"`, `"data":"three"`} {
		if n := bytes.Count(socket.kernel, []byte(text)); n != topics {
			t.Errorf("%s has come %d times, want %d", text, n, topics)
		}
	}
	r.audit()
}

// TestWhoTakesAllIsReadMoreAtOnce: each question to the archive takes as long, so whose socket takes all of an answer is read more with the
// next one; whose does not is read no more than before, as the rest is read again.
func TestWhoTakesAllIsReadMoreAtOnce(t *testing.T) {
	for _, c := range []struct{ capacity, widest int }{{1 << 30, stridesMax * readBytesMax}, {50_000, readBytesMax}} {
		cfg := testConfig(1)
		cfg.MaxTopicBytes = 100_000
		r := newRig(t, cfg, 1)
		s, l := newShelf(r), r.loops[0]
		l.keeper.inherit(nil)
		for range 1000 {
			put(r, l, "t", strings.Repeat("x", 1000))
		}
		r.settle()
		socket := r.connect(0)
		socket.capacity = c.capacity
		r.feed(socket, []byte(handshake("/ws", subprotocolBinary)))
		cmd := protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("t"), From: protocol.From{Mode: protocol.FromEarliest}}
		r.feed(socket, protocol.AppendCommandFrame(nil, &cmd))
		taken := 0
		for range 2000 {
			r.pass(20*time.Millisecond, 10*time.Millisecond)
			taken += len(socket.readSome(1 << 30))
		}
		if taken < 1000*1000 {
			t.Errorf("with room for %d bytes %d came, want a thousand messages of a thousand", c.capacity, taken)
		}
		if s.widest != c.widest {
			t.Errorf("with room for %d bytes %d were asked for at once, want %d", c.capacity, s.widest, c.widest)
		}
		r.audit()
	}
}

// TestPositionsBeyondAllOffsets: what a client says of an earlier epoch is not known to be one of its offsets.
func TestPositionsBeyondAllOffsets(t *testing.T) {
	var topic *topic
	for _, offset := range []uint64{0, 7, math.MaxUint64 - 1, math.MaxUint64} {
		q := topic.query(nil, protocol.From{Mode: protocol.FromPosition, Epoch: []byte("past"), Offset: offset})
		if q.At.Offset+1 == 0 || q.At.Offset != min(offset, math.MaxUint64-1) {
			t.Errorf("behind %d is asked for as behind %d", offset, q.At.Offset)
		}
	}
}

// A reader that is merely slow gets of a log what is in memory, whether it is connected here or to a balancer.
func TestALinkReadsTheStoreOnlyForWhoRecovers(t *testing.T) {
	cfg := linkConfig(1)
	cfg.MaxMessage, cfg.MaxTopicBytes = 80_000, 400_000
	r := newRig(t, cfg, 1)
	r.shelf = emptyShelf()
	r.shelf.keep(r)
	p := linked(r, 0, protocol.LinkControl)
	for range 100 {
		put(r, r.loops[0], "t", strings.Repeat("x", 10_000))
	}
	r.settle()
	start, epoch := r.loops[0].topics["t"].start, r.epochOf("t")
	if start < 10 {
		t.Fatalf("the log still has all from offset %d on", start)
	}
	for _, deep := range []bool{false, true} {
		p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdFetch, HasID: true, ID: 2, Topic: []byte("t"), Epoch: []byte(epoch), Offset: 3, Bytes: 25_000, Deep: deep})
		got := p.heard()
		if len(got) != 1 || got[0].Op != protocol.LinkEvFetched || !deep && got[0].Start != start {
			t.Fatalf("deep %v: %+v", deep, got)
		}
		if n, err := protocol.CheckLinkFrames(got[0].Frames, []byte("t"), 3); err != nil || n > 0 != deep {
			t.Errorf("deep %v: %d messages that the log has not: %v", deep, n, err)
		}
	}
}
