package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"rayflux/protocol"
)

// witness is a role that notes the answers it gets.
type witness struct {
	classicRole
	ids      []uint64
	payloads []string
}

func (w *witness) answered(_ *conn, e *errand) {
	w.ids = append(w.ids, e.id)
	w.payloads = append(w.payloads, string(e.payload))
}

// witnessed is a connection with such a role.
func witnessed(r *rig, loop int) (*conn, *witness) {
	c := r.connect(loop).conn
	w := &witness{}
	c.become(w)
	return c, w
}

// ask sends an errand that comes back as it is, through another loop.
func ask(from *loop, c *conn, to *loop, id uint64, payload []byte) {
	from.post(to, &errand{conn: c, op: opRefuse, id: id, name: []byte("name"), payload: payload, err: &protocol.Error{}})
}

func TestMailKeepsTheOrderOfEachSender(t *testing.T) {
	r := newRig(t, testConfig(3), 1)
	var conns []*conn
	var seen []*witness
	for i := range 2 {
		c, w := witnessed(r, i)
		conns, seen = append(conns, c), append(seen, w)
	}
	const letters = 1000
	for id := range uint64(letters) {
		for i, c := range conns {
			ask(r.loops[i], c, r.loops[2], id, []byte(strings.Repeat("x", int(id%200))))
			if (id+uint64(i))%7 == 0 {
				r.loops[i].begin()
				r.loops[i].finish() // sends what there is
			}
		}
		if id%50 == 0 {
			r.settle()
		}
	}
	for _, l := range r.loops {
		l.begin()
		l.finish()
	}
	r.settle()
	for i, w := range seen {
		if len(w.ids) != letters {
			t.Fatalf("loop %d got %d answers, want %d", i, len(w.ids), letters)
		}
		for id := range uint64(letters) {
			if w.ids[id] != id || len(w.payloads[id]) != int(id%200) {
				t.Fatalf("loop %d: answer %d is %d with %d bytes", i, id, w.ids[id], len(w.payloads[id]))
			}
		}
	}
}

func TestParcelsGoBackToTheirMaker(t *testing.T) {
	r := newRig(t, testConfig(2), 1)
	c, _ := witnessed(r, 0)
	from, to := r.loops[0], r.loops[1]
	seen := map[*parcel]int{}
	for id := range uint64(100) {
		from.begin()
		ask(from, c, to, id, []byte("payload"))
		seen[from.outbox[1]]++
		from.finish()
		r.settle()
	}
	if len(seen) > 2 {
		t.Errorf("100 rounds took %d parcels", len(seen))
	}
}

func TestLargeLetterDoesNotMakeItsParcelLargeForEver(t *testing.T) {
	r := newRig(t, testConfig(2), 1)
	c, w := witnessed(r, 0)
	from, to := r.loops[0], r.loops[1]
	from.begin()
	ask(from, c, to, 1, []byte("small"))
	large := bytes.Repeat([]byte("y"), 1<<20)
	ask(from, c, to, 2, large)
	ask(from, c, to, 3, []byte("small"))
	from.finish()
	r.settle()
	if len(w.payloads) != 3 || w.payloads[1] != string(large) {
		t.Fatalf("%d answers", len(w.payloads))
	}
	for _, l := range r.loops {
		for _, list := range []*parcel{l.mailbox.emptied.Load(), l.parcels} {
			for p := list; p != nil; p = p.next {
				if cap(p.bytes) > 2*parcelBytes {
					t.Fatalf("an empty parcel holds %d bytes", cap(p.bytes))
				}
			}
		}
	}
}

func TestMailIsCountedUntilItIsRead(t *testing.T) {
	r := newRig(t, testConfig(2), 1)
	c, _ := witnessed(r, 0)
	from, to := r.loops[0], r.loops[1]
	from.begin()
	for id := range uint64(200) {
		ask(from, c, to, id, make([]byte, 1000))
	}
	from.finish()
	if n := to.mailbox.pending.Load(); n < 200*1000 || n > 320*1000 {
		t.Fatalf("%d bytes of mail are counted for 200 letters of 1000", n)
	}
	r.settle()
	if n := to.mailbox.pending.Load() + from.mailbox.pending.Load(); n != 0 {
		t.Fatalf("%d bytes of mail are counted when all is read", n)
	}
}

func TestLoopIsWokenOnceForManyParcels(t *testing.T) {
	r := newRig(t, testConfig(2), 1)
	c, _ := witnessed(r, 0)
	to := r.loops[1]
	for id := range uint64(3) {
		r.loops[0].begin()
		ask(r.loops[0], c, to, id, nil)
		r.wakers[1].woken = false
		r.loops[0].finish()
		if woken := r.wakers[1].woken; woken != (id == 0) {
			t.Fatalf("parcel %d: woken %v", id, woken)
		}
	}
	r.deliver(1)
	r.loops[0].begin()
	ask(r.loops[0], c, to, 4, nil)
	r.loops[0].finish()
	if !r.wakers[1].woken {
		t.Fatal("not woken for the first parcel after a read")
	}
}

func TestLongMailLeavesTheLoopToItsConnections(t *testing.T) {
	r := newRig(t, testConfig(2), 1)
	c, w := witnessed(r, 0)
	for id := range uint64(20) {
		r.loops[0].begin()
		ask(r.loops[0], c, r.loops[1], id, nil)
		r.loops[0].finish()
	}
	r.drift = func() int64 { return readMailMax } // each look at the clock finds it that much later
	calls := 0
	for r.mailed(1) {
		r.deliver(1)
		calls++
	}
	r.drift = nil
	r.settle()
	if calls < 10 {
		t.Errorf("20 slow parcels were read in %d events", calls)
	}
	for id := range uint64(20) {
		if w.ids[id] != id {
			t.Fatalf("answer %d is %d", id, w.ids[id])
		}
	}
}

func TestCrowdedLoopIsGivenNoBatches(t *testing.T) {
	cfg := testConfig(2)
	cfg.MailMemory = 2 * 20 << 10
	r := newRig(t, cfg, 1)
	name := topicAtHome(r, 0)
	s := r.connect(1)
	r.feed(s, []byte(handshake("/ws", subprotocolBinary)))
	r.feed(s, maskedBinary(protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(name)})))
	r.settle()
	s.readSome(1 << 20)
	for range 500 { // loop 1 reads none of its mail
		put(r, r.loops[0], name, strings.Repeat("x", 500))
		if n := r.loops[1].mailbox.pending.Load(); n > 30<<10 {
			t.Fatalf("%d bytes of mail wait, limit %d", n, r.loops[0].mailMax)
		}
	}
	if !r.loops[0].topics[name].feeds[1].stale {
		t.Fatal("nothing was withheld")
	}
	r.pass(500*msec, msec)
	in := inbox{wire: wireFrames, reader: protocol.NewServerMessageReader(), buf: s.readSome(1 << 20)}
	for want := uint64(1); want <= 500; want++ {
		it, ok, err := in.next()
		if !ok || err != nil {
			t.Fatalf("message %d of 500 has not come: %v", want, err)
		}
		if ev, err := protocol.ParseEventBinary(it.payload); err != nil || ev.Offset != want {
			t.Fatalf("message %d has offset %d: %v", want, ev.Offset, err)
		}
	}
	r.auditRest()
}

// topicAtHome is a name whose topic is at home on the given loop.
func topicAtHome(r *rig, loop int) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("topic%d", i)
		l := r.loops[0]
		if l.homeOf(l.hash([]byte(name))) == r.loops[loop] {
			return name
		}
	}
}
