package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rayflux/protocol"
)

// estateNet is the rigs of several nodes, and perhaps a balancer's, with what the network is between them: bytes go when the
// test says so, and links break.
type estateNet struct {
	shelf    *shelf // where messages are kept; nil: they are not
	t        *testing.T
	loops    int
	view     *View
	nodes    []*rig // by slot; nil: nobody is there
	views    []*View
	balancer *rig
	now      int64
	lives    uint64

	asked []estateDial
	wires []*estateWire
	reach int // bytes that one pump moves in one direction of a wire at most; 0: all
}

type estateDial struct {
	rig  *rig
	loop *loop
	link *uplink
}

// estateWire is one link: the end of who dialled, and a node's.
type estateWire struct {
	from *rig
	slot int
	ours *fakeSocket
	node *linkPeer
	link *uplink
	cut  bool
}

// estatePlace is the directory and the dialer of one rig.
type estatePlace struct {
	net  *estateNet
	rig  *rig
	slot int // -1: the balancer's
	news chan struct{}

	doubts int // that it was told of
}

func (p *estatePlace) View() *View {
	if p.slot >= 0 && p.net.views[p.slot] != nil {
		return p.net.views[p.slot]
	}
	return p.net.view
}
func (p *estatePlace) Doubt()                 { p.doubts++ }
func (p *estatePlace) Watch() <-chan struct{} { return p.news }
func (p *estatePlace) Choice(hash uint64, attempt, slots int) int {
	return int((hash + uint64(attempt)) % uint64(slots))
}

func (p *estatePlace) dial(l *loop, k *uplink) {
	p.net.asked = append(p.net.asked, estateDial{p.rig, l, k})
}

// newEstateNet is as many nodes as there are slots, linked, and a balancer in front of them.
func newEstateNet(t *testing.T, nodes, loops int) *estateNet {
	return newKeptEstateNet(t, nodes, loops, nil)
}

// newKeptEstateNet is the same with a shelf for what is published; nil: there is none.
func newKeptEstateNet(t *testing.T, nodes, loops int, kept *shelf) *estateNet {
	n := &estateNet{shelf: kept, t: t, loops: loops, now: int64(time.Second), view: &View{Version: 1, Fingerprint: 1},
		nodes: make([]*rig, nodes), views: make([]*View, nodes)}
	for i := range nodes {
		n.view.Slots = append(n.view.Slots, Slot{Address: fmt.Sprintf("node-%d", i), Ready: true})
	}
	for i := range nodes {
		n.start(i)
	}
	cfg := linkConfig(loops)
	cfg.Name, cfg.Slot, cfg.ClusterKey = "balancer", -1, nil
	n.balancer = n.rig(cfg)
	n.pass(200 * time.Millisecond)
	return n
}

func (n *estateNet) rig(cfg Config) *rig {
	n.lives++
	place := &estatePlace{net: n, slot: cfg.Slot, news: make(chan struct{}, 1)}
	cfg.Directory = place
	r := newRig(n.t, cfg, n.lives)
	r.now, place.rig = n.now, r
	for i, l := range r.loops {
		l.now = r.now
		if cfg.Slot < 0 {
			l.up = newUpstream(l, place)
		} else {
			l.estate = newEstate(l, place)
		}
		if cfg.Slot >= 0 && n.shelf != nil {
			l.keeper = newKeeper(l, shelving{n.shelf, r})
			r.event(i, func() { l.keeper.inherit(nil) })
		}
		r.event(i, l.look)
	}
	return r
}

// start puts a new process into a slot.
func (n *estateNet) start(slot int) {
	cfg := linkConfig(n.loops)
	cfg.Name, cfg.Slot = fmt.Sprintf("node-%d", slot), slot
	n.nodes[slot] = n.rig(cfg)
}

func (n *estateNet) rigs() (all []*rig) {
	for _, r := range append(slices.Clone(n.nodes), n.balancer) {
		if r != nil {
			all = append(all, r)
		}
	}
	return all
}

func (n *estateNet) connectAsked() {
	asked := n.asked
	n.asked = nil
	for i, d := range asked {
		slot, to := -1, (*rig)(nil)
		if _, err := fmt.Sscanf(d.link.owner.address, "node-%d", &slot); err == nil && !d.link.owner.retired { // else nobody wants it any more
			to = n.nodes[slot]
		}
		if to == nil || to.shared.draining.Load() { // its door is shut
			d.rig.event(d.loop.index, func() { d.link.owner.unlinked(d.link, errNobodyThere) })
			continue
		}
		p := linked(to, i%len(to.loops), d.link.purpose)
		sock := &fakeSocket{rig: d.rig, loop: d.loop, capacity: 1 << 30}
		d.rig.event(d.loop.index, func() {
			sock.conn = d.loop.linked(sock, d.link,
				&Link{Draining: to.shared.draining.Load(), Fingerprint: to.cfg.Directory.View().Fingerprint, Features: protocol.LinkFeatures})
		})
		n.wires = append(n.wires, &estateWire{from: d.rig, slot: slot, ours: sock, node: p, link: d.link})
	}
}

var errNobodyThere = fmt.Errorf("connection refused")

// pump moves what is on the wires, once, and reports whether anything has happened.
func (n *estateNet) pump() (moved bool) {
	if len(n.asked) > 0 {
		n.connectAsked()
		moved = true
	}
	limit := n.reach
	if limit == 0 {
		limit = 1 << 30
	}
	for _, w := range slices.Clone(n.wires) {
		if w.ours.gone() || w.ours.ended || w.node.gone() || w.node.rig != n.nodes[w.slot] {
			n.cut(w)
			moved = true
			continue
		}
		if b := w.ours.readSome(limit); len(b) > 0 {
			w.node.rig.feed(w.node.fakeSocket, b)
			moved = true
		}
		if b := w.node.readSome(limit); len(b) > 0 && !w.ours.gone() {
			w.from.feed(w.ours, b)
			moved = true
		}
	}
	n.wires = slices.DeleteFunc(n.wires, func(w *estateWire) bool { return w.cut })
	for _, r := range n.rigs() {
		moved = r.settleOnce() || moved
	}
	if n.shelf != nil {
		moved = n.shelf.pump() || moved
	}
	return moved
}

func (n *estateNet) settle() {
	n.t.Helper()
	for range 100_000 {
		if !n.pump() {
			return
		}
	}
	n.t.Fatal("the cluster never comes to rest")
}

// pass lets time go by.
func (n *estateNet) pass(d time.Duration) {
	n.t.Helper()
	const step = 10 * time.Millisecond
	for ; d > 0; d -= step {
		n.settle()
		n.now += int64(step)
		for _, r := range n.rigs() {
			r.now = n.now
		}
	}
	n.settle()
	for _, r := range n.nodes {
		if r != nil {
			r.audit()
		}
	}
}

// cut ends a link for both sides.
func (n *estateNet) cut(w *estateWire) {
	w.cut = true
	if !w.node.gone() && w.node.rig == n.nodes[w.slot] {
		w.node.rig.hangUp(w.node.fakeSocket)
	}
	if !w.ours.gone() {
		w.from.hangUp(w.ours)
	}
}

// cutTransfers breaks every link between nodes.
func (n *estateNet) cutTransfers() {
	for _, w := range n.wires {
		if w.link.purpose == protocol.LinkTransfer && !w.cut {
			n.cut(w)
		}
	}
}

// kill takes a node away, with all it knew.
func (n *estateNet) kill(slot int) {
	n.nodes[slot] = nil
	n.settle()
}

// drain tells a node to go away; ended reports whether it would end by now.
func (n *estateNet) drain(slot int) {
	r := n.nodes[slot]
	r.shared.draining.Store(true)
	for i, l := range r.loops {
		r.event(i, l.drain)
	}
}

func (n *estateNet) drained(slot int) bool { return n.nodes[slot].shared.estates.Load() == 0 }

// lookAlone gives the balancer another view, and leaves the nodes what they have.
func (n *estateNet) lookAlone(v *View) {
	for i := range n.views {
		if n.views[i] == nil {
			n.views[i] = n.view
		}
	}
	n.look(-1, v)
}

// look gives one node, or all with slot -1, another view.
func (n *estateNet) look(slot int, v *View) {
	if slot < 0 {
		n.view = v
	} else {
		n.views[slot] = v
	}
	for _, r := range n.rigs() {
		for i, l := range r.loops {
			r.event(i, l.look)
		}
	}
}

// whose is the slots of the nodes where a topic lives, those in which it is sealed included.
func (n *estateNet) whose(topic string) (slots []int) {
	for i, r := range n.nodes {
		if r == nil {
			continue
		}
		for _, l := range r.loops {
			if l.topics[topic] != nil {
				slots = append(slots, i)
			}
		}
	}
	return slots
}

// belongs is a topic whose first choice is a slot.
func (n *estateNet) belongs(slot int, name string) string {
	for i := range 1000 {
		topic := fmt.Sprintf("%s-%d", name, i)
		if int(hashOf(topic)%uint64(len(n.view.Slots))) == slot {
			return topic
		}
	}
	n.t.Fatal("no name belongs there")
	return ""
}

// client opens a client's connection to a rig.
func (n *estateNet) client(r *rig) *estateClient {
	c := &estateClient{net: n, linkPeer: &linkPeer{fakeSocket: r.connect(0)}, acks: map[uint64]protocol.Event{}}
	r.feed(c.fakeSocket, []byte(handshake("/ws", subprotocolBinary)))
	c.events()
	return c
}

// estateClient publishes and reads, and holds what it hears against what every client is promised.
type estateClient struct {
	*linkPeer
	net  *estateNet
	id   uint64
	acks map[uint64]protocol.Event // published, or an error, by id

	read []protocol.Event // messages and gaps
	at   map[string]protocol.Event
}

func (c *estateClient) publish(topic, text string) uint64 {
	c.id++
	c.command(&protocol.Command{Op: protocol.CmdPublish, HasID: true, ID: c.id, Topic: []byte(topic), Kind: protocol.KindText, Payload: []byte(text)})
	return c.id
}

func (c *estateClient) subscribe(topic string, from protocol.From) {
	c.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(topic), From: from})
}

// events takes in what has come.
func (c *estateClient) events() {
	c.net.t.Helper()
	c.net.settle()
	for _, it := range c.items() {
		if it.kind != itemBinary {
			continue
		}
		ev, err := protocol.ParseEventBinary(it.payload)
		if err != nil {
			c.net.t.Fatal(err)
		}
		ev.Payload = slices.Clone(ev.Payload)
		switch ev.Op {
		case protocol.EvPublished, protocol.EvError:
			c.acks[ev.ID] = ev
		case protocol.EvSubscribed:
			c.note(ev)
		case protocol.EvMessage, protocol.EvGap:
			c.note(ev)
			ev.Epoch = c.at[ev.Topic].Epoch
			c.read = append(c.read, ev)
		}
	}
}

// note wants offsets without a hole, within one epoch, until a gap is told.
func (c *estateClient) note(ev protocol.Event) {
	c.net.t.Helper()
	if c.at == nil {
		c.at = map[string]protocol.Event{}
	}
	before := c.at[ev.Topic]
	if ev.Op == protocol.EvMessage {
		if ev.Offset != before.Offset+1 {
			c.net.t.Fatalf("topic %s: message %d follows %d untold", ev.Topic, ev.Offset, before.Offset)
		}
		ev.Epoch = before.Epoch
	}
	c.at[ev.Topic] = ev
}

// gaps is how many were told.
func (c *estateClient) gaps() (n int) {
	for _, ev := range c.read {
		if ev.Op == protocol.EvGap {
			n++
		}
	}
	return n
}

// texts is the payloads that came.
func (c *estateClient) texts() (all []string) {
	for _, ev := range c.read {
		if ev.Op == protocol.EvMessage {
			all = append(all, string(ev.Payload))
		}
	}
	return all
}
