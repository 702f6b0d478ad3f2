package engine

import (
	"errors"
	"fmt"
	"slices"
)

// cables stand between a balancer's rig and those of its nodes. They are what the network is: bytes go when the test says
// so (pump), links break, nodes go away and come back. The dialer and the directory of the balancer are here too.
type cables struct {
	balancer *rig
	nodes    []*rig // by number; nil: it is not there
	hung     []bool // by number: it is there, and does nothing
	view     *View
	news     chan struct{}
	asked    []*dialled
	wires    []*wire
	reach    int               // bytes that one pump moves in one direction of a wire at most; 0: all
	change   func(cfg *Config) // what is different in nodes started from now on; nil: nothing
}

type dialled struct {
	loop *loop
	link *uplink
}

// wire is one link: a connection of the balancer's, and one of a node's.
type wire struct {
	number int         // the node's
	ours   *fakeSocket // the balancer's end
	node   *linkPeer   // the node's, as a peer that says what the balancer sends
	cut    bool
}

// newBalancerRig makes a rig that of a balancer in front of nodes of one loop each. change is what is different in nodes; nil:
// nothing.
func newBalancerRig(r *rig, nodes int, change func(cfg *Config)) *rig {
	c := &cables{balancer: r, change: change, news: make(chan struct{}, 1), hung: make([]bool, nodes)}
	r.cables = c
	r.cfg.Directory, r.cfg.Slot = c, -1
	var slots []Slot
	for i := range nodes {
		c.nodes = append(c.nodes, c.newNode(i))
		slots = append(slots, slotOf(i))
	}
	c.view = &View{Version: 1, Fingerprint: 1, Slots: slots}
	for i, l := range r.loops {
		l.up = newUpstream(l, c)
		r.event(i, l.up.look)
	}
	return r
}

// slotOf is a slot whose node is the one of that number.
func slotOf(number int) Slot { return Slot{Address: fmt.Sprintf("node-%d", number), Ready: true} }

// see gives the balancer's loops another view of the nodes, by mail.
func (c *cables) see(slots ...Slot) {
	c.view = &View{Version: c.view.Version + 1, Fingerprint: c.view.Version + 1, Slots: slots}
	for _, l := range c.balancer.loops {
		l.send(&parcel{mails: []mail{{kind: mailView}}})
	}
}

// numberOf is the number of the node with an address; -1: there never was one.
func (c *cables) numberOf(address string) int {
	var number int
	if _, err := fmt.Sscanf(address, "node-%d", &number); err != nil || number >= len(c.nodes) {
		return -1
	}
	return number
}

// newNode is a node that has just been started, at the balancer's time.
func (c *cables) newNode(number int) *rig {
	cfg := *c.balancer.cfg
	cfg.Directory, cfg.Loops, cfg.MailMemory = nil, 1, 0
	cfg.Name, cfg.ClusterKey = fmt.Sprintf("node-%d", number), testKey
	cfg.MaxConnections, cfg.BufferMemory = 100, 64<<20 // a node has links, and no clients
	if c.change != nil {
		c.change(&cfg)
	}
	n := newRig(c.balancer.tb, cfg, uint64(1000*number)+uint64(c.balancer.now))
	n.now = c.balancer.now
	return n
}

func (c *cables) View() *View            { return c.view }
func (c *cables) Watch() <-chan struct{} { return c.news }
func (c *cables) Choice(hash uint64, attempt, slots int) int {
	return int((hash + uint64(attempt)) % uint64(slots))
}

func (c *cables) dial(l *loop, k *uplink) { c.asked = append(c.asked, &dialled{l, k}) }

// event runs something in a loop as the reactor would.
func (r *rig) event(i int, what func()) {
	l := r.loops[i]
	l.begin()
	what()
	l.finish()
}

var errNobody = errors.New("connection refused")

// connectAsked makes the link that was asked for first, or tells that nobody is there. A hung node answers nothing, one that
// is draining takes no more connections.
func (c *cables) connectAsked() *wire {
	d := c.asked[0]
	c.asked = c.asked[1:]
	number := c.numberOf(d.link.owner.address)
	if number < 0 || c.nodes[number] == nil || c.hung[number] || c.nodes[number].shared.draining.Load() {
		c.balancer.event(d.loop.index, func() { d.link.owner.unlinked(d.link, errNobody) })
		return nil
	}
	p := linked(c.nodes[number], 0, d.link.purpose)
	sock := &fakeSocket{rig: c.balancer, loop: d.loop, capacity: 1 << 30, lazy: true} // it may be closed before it is known
	c.balancer.event(d.loop.index, func() { sock.conn = d.loop.linked(sock, d.link, false, 0) })
	w := &wire{number: number, ours: sock, node: p}
	c.wires = append(c.wires, w)
	return w
}

// pump moves what is on the wires, and reports whether anything has happened.
func (c *cables) pump() (moved bool) {
	for range len(c.asked) {
		c.connectAsked()
		moved = true
	}
	limit := c.reach
	if limit == 0 {
		limit = 1 << 30
	}
	for _, w := range slices.Clone(c.wires) {
		moved = c.carry(w, true, limit) || moved
		moved = c.carry(w, false, limit) || moved
	}
	c.sweep()
	for i, n := range c.nodes {
		if n != nil && !c.hung[i] {
			moved = n.settleOnce() || moved
		}
	}
	return moved
}

// sweep forgets the wires that were cut.
func (c *cables) sweep() {
	c.wires = slices.DeleteFunc(c.wires, func(w *wire) bool { return w.cut })
}

// carry moves up to so many bytes in one direction of a wire, and reports whether anything has happened. A wire with one
// end is cut.
func (c *cables) carry(w *wire, toNode bool, limit int) (moved bool) {
	node := c.nodes[w.number]
	switch {
	case w.cut:
		return false
	case w.ours.gone() || w.ours.ended || node == nil || node != w.node.rig || w.node.gone() || w.node.ended && len(w.node.kernel) == 0:
		c.cut(w)
		return true
	case c.hung[w.number]:
		return false
	case toNode:
		b := w.ours.readSome(limit)
		if len(b) > 0 {
			node.feed(w.node.fakeSocket, b)
		}
		return len(b) > 0
	}
	b := w.node.readSome(limit)
	if len(b) > 0 {
		c.balancer.feed(w.ours, b)
	}
	return len(b) > 0
}

// cut ends a link for both sides.
func (c *cables) cut(w *wire) {
	w.cut = true
	if !w.node.gone() && c.nodes[w.number] == w.node.rig {
		w.node.rig.hangUp(w.node.fakeSocket)
	}
	if !w.ours.gone() {
		c.balancer.hangUp(w.ours)
	}
}

// kill takes a node away, with all it knew.
func (c *cables) kill(number int) { c.nodes[number] = nil }

// start puts a new node in the place of one that was killed, or of the next number.
func (c *cables) start(number int) {
	if number == len(c.nodes) {
		c.nodes, c.hung = append(c.nodes, nil), append(c.hung, false)
	}
	c.nodes[number], c.hung[number] = c.newNode(number), false
}

// ownerOf is the number of the node that a topic belongs to while all are well.
func (c *cables) ownerOf(topic string) int {
	return c.numberOf(c.view.Slots[c.Choice(c.balancer.loops[0].hash([]byte(topic)), 0, len(c.view.Slots))].Address)
}

// loops are those of all nodes.
func (c *cables) loops() (all []*loop) {
	for _, n := range c.nodes {
		if n != nil {
			all = append(all, n.loops...)
		}
	}
	return all
}
