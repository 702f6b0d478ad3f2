package engine

import (
	"testing"

	"rayflux/protocol"
)

// FuzzUplink has a node say arbitrary bytes, cut anywhere, to a balancer that waits for its answers. Whatever they are,
// nothing panics, the books stay right, the log can be read, and another link can be made.
func FuzzUplink(f *testing.F) {
	message := protocol.AppendMessage(nil, protocol.FormatBinary, "t", 1, protocol.KindText, []byte("hello"))
	event := func(ev protocol.Event) []byte { return protocol.AppendEventBinary(nil, &ev) }
	link := func(ev protocol.LinkEvent) []byte { return protocol.AppendLinkEvent(nil, &ev) }
	subscribed := event(protocol.Event{Op: protocol.EvSubscribed, HasID: true, ID: 1, Topic: "t", Epoch: "E"})
	for _, seed := range [][]byte{
		append(append([]byte(nil), subscribed...), message...),
		append(append([]byte(nil), subscribed...), event(protocol.Event{Op: protocol.EvGap, Topic: "t", Epoch: "F", Offset: 7})...),
		event(protocol.Event{Op: protocol.EvPublished, HasID: true, ID: 2, Topic: "t", Epoch: "E", Offset: 1}),
		event(protocol.Event{Op: protocol.EvError, HasID: true, ID: 2, Code: protocol.CodeOverloaded, Message: "no"}),
		link(protocol.LinkEvent{Op: protocol.LinkEvLocated, HasID: true, ID: 3, Topic: []byte("t"), Epoch: []byte("E"), Offset: 1, Head: 2, Start: 1}),
		link(protocol.LinkEvent{Op: protocol.LinkEvMoved, HasID: true, ID: 2, Topic: []byte("t")}),
		link(protocol.LinkEvent{Op: protocol.LinkEvFetched, HasID: true, ID: 4, Topic: []byte("t"), Epoch: []byte("E"), Start: 1, Head: 1, Frames: message}),
		link(protocol.LinkEvent{Op: protocol.LinkEvDraining, AfterMs: 5}),
	} {
		f.Add(seed, []byte{255}, true)
		f.Add(seed, []byte{1, 7}, false)
	}
	f.Fuzz(func(t *testing.T, said, cuts []byte, stream bool) {
		if len(said) > 20_000 {
			return // nothing new, but slow
		}
		r := newRig(t, testConfig(1), 1)
		newBalancerRig(r, 1, nil).settle()
		reader, _ := publisher(r, 0, "json", "t", true)
		r.cables.hung[0] = true // it takes commands, and this is all that it says
		r.feed(reader, maskedText(`{"op":"subscribe","id":1,"topic":"t"}`))
		r.feed(reader, maskedText(`{"op":"publish","id":2,"topic":"t","text":"x"}`))
		r.feed(reader, maskedText(`{"op":"subscribe","id":3,"topic":"u","from":"earliest"}`))
		w := r.cables.wires[0]
		if stream {
			w = r.cables.wires[1]
		}
		for at := 0; len(said) > 0; at++ {
			n := len(said)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[at%len(cuts)]))
			}
			r.feed(w.ours, said[:n])
			said = said[n:]
			r.pass(2*msec, msec)
			r.audit()
		}
		for _, topic := range r.loops[0].topics {
			topic.walk(0, func(*chunk, uint64, protocol.Kind, []byte, []byte) bool { return true })
		}
		r.hangUp(reader)
		r.cables.cut(w)
		r.cables.start(0)
		r.pass(r.cfg.LinkTimeout, r.cfg.LinkTimeout/20)
		r.audit()
		if !r.loops[0].up.owners[0].ready() {
			t.Fatal("the node was not linked again")
		}
	})
}
