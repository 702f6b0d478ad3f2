package engine

import (
	"bytes"
	"testing"
	"time"

	"rayflux/protocol"
)

// Who is connected for longer than max-connection-age is told to leave, at a time of its own, and closed with 1001 then; a
// link and a request are not clients that could come back elsewhere.
func TestOldConnectionsAreSentAwayOneByOne(t *testing.T) {
	cfg := linkConfig(1)
	cfg.MaxConnectionAge, cfg.PingInterval, cfg.LinkTimeout = time.Minute, 10*time.Second, time.Hour
	r := newRig(t, cfg, 1)
	link := linked(r, 0, protocol.LinkControl)
	var clients []*fakeSocket
	for range 50 {
		clients = append(clients, subscribed(r, 0, protocol.FormatBinary, "t"))
	}
	alive := func() (n int) {
		for _, c := range clients {
			if !c.gone() && !c.ended {
				n++
			}
		}
		return n
	}
	pong := protocol.AppendMaskedFrame(nil, protocol.OpPong, [4]byte{}, nil)
	step := func(d time.Duration) {
		for ; d > 0; d -= time.Second {
			r.pass(time.Second, 100*msec)
			for _, c := range clients {
				if !c.ended {
					r.feed(c, pong)
				}
			}
		}
	}
	step(50 * time.Second)
	if n := alive(); n != len(clients) {
		t.Fatalf("%d of %d are there after 50 s", n, len(clients))
	}
	step(10 * time.Second)
	if n := alive(); n > len(clients)-5 { // pinged every 10 s, but sent away when each is old enough, from 54 s on
		t.Errorf("%d of %d are there after 60 s", n, len(clients))
	}
	seen := map[int]bool{}
	for range 60 {
		step(time.Second)
		seen[alive()] = true
	}
	if alive() != 0 || len(seen) < 5 {
		t.Errorf("%d are left; their number took %d values, which is not one by one", alive(), len(seen))
	}
	drain := []byte{0x80 | byte(protocol.EvDrain), 0} // type and flags; a close frame has its length behind the same byte
	for i, c := range clients {
		if !bytes.Contains(c.kernel, drain) || !bytes.Contains(c.kernel, []byte{0x03, 0xe9}) {
			t.Fatalf("client %d was not told to leave, or not closed with 1001: %x", i, c.kernel)
		}
	}
	if link.gone() {
		t.Error("a link was sent away")
	}
}
