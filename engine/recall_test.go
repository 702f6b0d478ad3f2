package engine

import (
	"bytes"
	"math"
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
