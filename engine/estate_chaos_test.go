package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rayflux/protocol"
)

// Nodes die, drain, come back, lose their links and see different slots, at random, while topics are published to and read.
// Whatever happens a position names one message, what was taken is not taken twice, readers are told what they miss, and in
// the end every topic is at its place.
func TestEstatesSurviveWhatever(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { estateChaos(t, seed) })
	}
}

func estateChaos(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	var kept *shelf
	if seed%4 >= 2 {
		kept = emptyShelf()
	}
	n := newKeptEstateNet(t, 3, 1+int(seed%2)*2, kept)
	c, reader := n.client(n.balancer), n.client(n.balancer)
	var topics []string
	for i := range 6 {
		topics = append(topics, n.belongs(i%3, fmt.Sprintf("t%d", i)))
		reader.subscribe(topics[i], protocol.From{})
	}
	whole := n.view
	for range 400 {
		switch slot := rnd.IntN(3); rnd.IntN(60) {
		case 0:
			if r := n.nodes[slot]; r != nil {
				if n.nodes[slot] = nil; kept != nil {
					kept.forget(r)
				}
			}
		case 1, 2, 3:
			if n.nodes[slot] == nil {
				n.start(slot)
			}
		case 4:
			if r := n.nodes[slot]; r != nil && !r.shared.draining.Load() {
				n.drain(slot)
			}
		case 5, 6:
			if r := n.nodes[slot]; r != nil && r.shared.draining.Load() && n.drained(slot) {
				n.nodes[slot] = nil
			}
		case 7:
			n.cutTransfers()
		case 8:
			if len(n.wires) > 0 {
				n.cut(n.wires[rnd.IntN(len(n.wires))])
			}
		case 9:
			n.look(slot, &View{Version: 2, Fingerprint: 2, Slots: whole.Slots[:2]})
		case 10, 11:
			n.look(slot, whole)
		case 12:
			n.reach = 1 + rnd.IntN(200)
		case 13:
			n.reach = 0
		case 14:
			n.lookAlone(&View{Version: 2, Fingerprint: 2, Slots: whole.Slots[:2]})
		case 15, 16:
			n.lookAlone(whole)
		case 17:
			empty := slices.Clone(whole.Slots)
			empty[slot] = Slot{}
			n.look(rnd.IntN(3), &View{Version: 3, Fingerprint: 3 + uint64(slot), Slots: empty})
		default:
			topic := topics[rnd.IntN(len(topics))]
			c.publish(topic, fmt.Sprint(c.id+1))
		}
		for range rnd.IntN(8) {
			n.pump()
		}
		n.wantOneOwnerAnEpoch(topics)
		if rnd.IntN(2) == 0 {
			n.tick(time.Duration(rnd.IntN(60)) * time.Millisecond)
		}
	}
	n.reach = 0
	n.lookAlone(whole)
	for slot, r := range n.nodes {
		n.look(slot, whole)
		if r != nil && r.shared.draining.Load() {
			n.nodes[slot] = nil
		}
	}
	n.settle()
	for slot, r := range n.nodes {
		if r == nil {
			n.start(slot)
		}
	}
	n.pass(12 * time.Second) // all that waited was answered
	for _, topic := range topics {
		c.publish(topic, fmt.Sprint(c.id+1))
	}
	n.pass(2 * time.Second)
	c.events()
	reader.events()
	c.wantOneMessageAPosition(reader)
	for i, topic := range topics {
		if got := n.whose(topic); len(got) != 1 || got[0] != i%3 {
			t.Errorf("topic of slot %d lives in %v", i%3, got)
		}
	}
	for id := c.id - uint64(len(topics)) + 1; id <= c.id; id++ {
		if c.acks[id].Op != protocol.EvPublished {
			t.Errorf("in the end a publish is answered %+v", c.acks[id])
		}
	}
	c.wantRisingOffsets()
	for slot, r := range n.nodes {
		for _, l := range r.loops {
			if len(l.estate.holds)+len(l.estate.incoming) > 0 || l.estate.held != 0 {
				t.Errorf("node %d: %d topics are waited for, %d are coming, %d bytes are held", slot, len(l.estate.holds), len(l.estate.incoming), l.estate.held)
			}
		}
	}
}

// wantOneMessageAPosition compares what the publisher was told with what the reader has read. Payloads are the ids.
func (c *estateClient) wantOneMessageAPosition(reader *estateClient) {
	c.net.t.Helper()
	at := map[string]string{}
	place := func(topic, epoch string, offset uint64, payload string) {
		key := fmt.Sprintf("%s %s:%d", topic, epoch, offset)
		if was, ok := at[key]; ok && was != payload {
			c.net.t.Fatalf("%s is message %s and message %s", key, was, payload)
		}
		at[key] = payload
	}
	seen := map[string]string{}
	for _, ev := range reader.read {
		if ev.Op != protocol.EvMessage {
			continue
		}
		place(ev.Topic, ev.Epoch, ev.Offset, string(ev.Payload))
		at := fmt.Sprintf("%s:%d", ev.Epoch, ev.Offset)
		if was := seen[string(ev.Payload)]; was != "" && was != at { // at the same again: its epoch was left, and come back to
			c.net.t.Fatalf("message %s is read at %s and at %s", ev.Payload, was, at)
		}
		seen[string(ev.Payload)] = at
	}
	for id := uint64(1); id <= c.id; id++ {
		if ev, ok := c.acks[id]; !ok {
			c.net.t.Fatalf("publish %d has no answer", id)
		} else if ev.Op == protocol.EvPublished {
			place(ev.Topic, ev.Epoch, ev.Offset, fmt.Sprint(id))
		}
	}
}
