package engine

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"rayflux/protocol"
)

// floodRig is a node with little memory for what waits, and a store that takes and tells nothing.
func floodRig(t *testing.T) (*rig, *shelf, *loop) {
	t.Helper()
	cfg := testConfig(1)
	cfg.BufferMemory = 1 << 20
	r := newRig(t, cfg, 1)
	s, l := newShelf(r), r.loops[0]
	l.keeper.inherit(nil)
	s.held = true
	return r, s, l
}

// told is how often a socket was told something, of what it was told since the last time.
func (s *fakeSocket) told(what string) int {
	n := bytes.Count(s.kernel, []byte(what))
	s.kernel = s.kernel[:0]
	return n
}

// Publishes that wait to be stored are charged to buffer-memory: a flood of them is refused, and those that have waited long enough
// take no memory any more, however long the store is away.
func TestAFloodOfStoredPublishesIsRefused(t *testing.T) {
	r, s, l := floodRig(t)
	p := r.connect(0)
	r.feed(p, []byte(handshake("/ws", subprotocolJSON)))
	p.told("")
	const most = 1 << 20 / 4 / waitCost
	for round := range 5 { // in each all that waits gives up
		refused := 0
		for i := range 2 * most {
			r.feed(p, maskedText(fmt.Sprintf(`{"op":"publish","id":%d,"topic":"t%d","text":"x","ack":"stored"}`, i, i%7)))
			r.settle()
			refused += p.told(string(protocol.CodeOverloaded))
		}
		r.audit()
		if refused != most || l.keeper.waits.charged != most || l.buffered != most*waitCost {
			t.Fatalf("round %d: of %d publishes %d were refused, %d wait, %d bytes are charged; want %d of each", round, 2*most, refused, l.keeper.waits.charged, l.buffered, most)
		}
		r.pass(r.cfg.StoredTimeout+time.Second, 100*time.Millisecond)
		if n := p.told(string(protocol.CodeStoreUnavailable)); n != most || l.buffered != 0 {
			t.Fatalf("round %d: %d publishers were told that it took too long, and %d bytes are charged", round, n, l.buffered)
		}
		r.audit()
	}
	r.feed(p, maskedText(`{"op":"publish","id":1,"topic":"t","text":"x","ack":"stored"}`))
	r.settle()
	s.held = false
	r.pass(time.Second, 10*time.Millisecond)
	if p.told(`"op":"published"`) != 1 || l.buffered != 0 {
		t.Errorf("%d bytes are charged, and the store is back", l.buffered)
	}
	r.audit()
}

// Readers that wait for the store are charged as well.
func TestAFloodOfReadersIsRefused(t *testing.T) {
	r, s, l := floodRig(t)
	put(r, l, "t", "one")
	r.settle()
	const readers = 1000
	var sockets []*fakeSocket
	refused := 0
	for range readers {
		p := r.connect(0)
		r.feed(p, []byte(handshake("/ws", subprotocolJSON)))
		before := l.buffered
		r.feed(p, maskedText(`{"op":"subscribe","id":1,"topic":"t","from":"earliest"}`))
		r.settle()
		if p.told(string(protocol.CodeOverloaded)) > 0 {
			refused++
		} else if l.buffered < before+inquiryCost {
			t.Fatalf("a reader that waits is charged %d bytes, want %d at least", l.buffered-before, inquiryCost)
		}
		sockets = append(sockets, p)
	}
	r.audit()
	if want := readers - inquiriesMax - l.keeper.lineMax; refused != want || l.buffered < (inquiriesMax+int64(l.keeper.lineMax))*inquiryCost {
		t.Errorf("of %d readers %d were refused, want %d; %d bytes are charged", readers, refused, want, l.buffered)
	}
	// What their connections ask for meanwhile waits behind, until there is no room.
	for i := 0; l.buffered+inquiryCost < l.bufferMax; i++ {
		r.feed(sockets[0], maskedText(fmt.Sprintf(`{"op":"publish","id":%d,"topic":"t","text":"x"}`, i+2)))
		if i > readers*10 {
			t.Fatalf("%d commands wait behind one that waits for the store, and %d bytes are charged", i, l.buffered)
		}
	}
	r.feed(sockets[0], maskedText(`{"op":"publish","id":1,"topic":"t","text":"`+string(bytes.Repeat([]byte("x"), 1000))+`"}`))
	r.settle()
	if sockets[0].told(string(protocol.CodeOverloaded)) == 0 {
		t.Error("what nobody has room for is not refused")
	}
	r.audit()
	s.held = false
	r.pass(time.Second, 10*time.Millisecond)
	if l.buffered != 0 {
		t.Errorf("%d bytes are charged when all is answered", l.buffered)
	}
	r.audit()
}
