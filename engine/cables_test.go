package engine

import (
	"errors"
	"fmt"
	"slices"

	"rayflux/persist"
	"rayflux/protocol"
)

// cables stand between a balancer's rig and those of its nodes, and between these. They are what the network is: bytes go
// when the test says so (pump), links break, nodes go away and come back.
type cables struct {
	balancer *rig
	nodes    []*rig // by number; nil: it is not there
	hung     []bool // by number: it is there, and does nothing
	kin      int    // loops of each node, which know of one another, and have the slots of their numbers; 0: they are alone
	lives    uint64 // processes that there have been
	view     *View  // the newest
	asked    []*dialled
	wires    []*wire
	reach    int               // bytes that one pump moves in one direction of a wire at most; 0: all
	change   func(cfg *Config) // what is different in nodes started from now on; nil: nothing
}

// outlook is what one server sees of the cluster: its directory, and its dialer.
type outlook struct {
	cables *cables
	rig    *rig
	view   *View
	news   chan struct{}
}

func (o *outlook) View() *View            { return o.view }
func (o *outlook) Watch() <-chan struct{} { return o.news }
func (o *outlook) Choice(hash uint64, attempt, slots int) int {
	return int((hash + uint64(attempt)) % uint64(slots))
}

func (o *outlook) dial(l *loop, k *uplink) {
	o.cables.asked = append(o.cables.asked, &dialled{o.rig, l, k})
}

func (o *outlook) Doubt() {}

// see gives the loops of its server another view, by mail.
func (o *outlook) see(v *View) {
	o.view = v
	for _, l := range o.rig.loops {
		l.send(&parcel{mails: []mail{{kind: mailView}}})
	}
}

// outlook is what a server sees; nil: it is alone.
func (r *rig) outlook() *outlook {
	o, _ := r.cfg.Directory.(*outlook)
	return o
}

type dialled struct {
	rig  *rig
	loop *loop
	link *uplink
}

// wire is one link: a connection of the server that made it, and one of a node's.
type wire struct {
	from   *rig
	number int         // the node's
	ours   *fakeSocket // the end of who made it
	node   *linkPeer   // the node's, as a peer that says what is sent on it
	cut    bool
}

// newBalancerRig makes a rig that of a balancer in front of nodes of one loop each. change is what is different in nodes; nil:
// nothing.
func newBalancerRig(r *rig, nodes int, change func(cfg *Config)) *rig {
	return (&cables{change: change}).span(r, nodes)
}

// span makes a rig that of a balancer, and as many nodes as are wanted.
func (c *cables) span(r *rig, nodes int) *rig {
	c.balancer, r.cables = r, c
	var slots []Slot
	for i := range nodes {
		slots = append(slots, slotOf(i))
	}
	c.view = viewOf(1, slots)
	for i := range nodes {
		c.start(i)
	}
	o := &outlook{cables: c, rig: r, view: c.view, news: make(chan struct{}, 1)}
	r.cfg.Directory, r.cfg.Slot = o, -1
	for i, l := range r.loops {
		l.up = newUpstream(l, o)
		r.event(i, l.look)
	}
	return r
}

// viewOf is a view of slots. Its fingerprint is that of any other with the same addresses.
func viewOf(version uint64, slots []Slot) *View {
	fingerprint := uint64(len(slots))
	for _, s := range slots {
		fingerprint = fingerprint*31 + hashOf(s.Address)
	}
	return &View{Version: version, Fingerprint: fingerprint, Slots: slots}
}

// slotOf is a slot whose node is the one of that number.
func slotOf(number int) Slot { return Slot{Address: fmt.Sprintf("node-%d", number), Ready: true} }

// see gives the balancer another view of the nodes.
func (c *cables) see(slots ...Slot) {
	c.view = viewOf(c.view.Version+1, slots)
	c.balancer.outlook().see(c.view)
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
	o := &outlook{cables: c, view: c.view, news: make(chan struct{}, 1)}
	if c.kin > 0 {
		cfg.Directory, cfg.Loops, cfg.Slot = o, c.kin, number
	}
	if c.change != nil {
		c.change(&cfg)
	}
	c.lives++
	n := newRig(c.balancer.tb, cfg, c.lives<<32+uint64(c.balancer.now)) // never the same numbers twice: they make epochs
	n.now, o.rig = c.balancer.now, n
	kept := c.balancer.shelf
	if kept != nil {
		kept.keep(n)
	}
	for i, l := range n.loops {
		if kept != nil {
			n.event(i, func() { l.keeper.inherit(nil) })
		}
		if c.kin > 0 {
			l.estate = newEstate(l, o)
			n.event(i, l.look)
		}
	}
	return n
}

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
	if !c.alive(d.rig) {
		return nil
	}
	number := c.numberOf(d.link.owner.address)
	if number < 0 || c.nodes[number] == nil || c.hung[number] || c.nodes[number].shared.draining.Load() {
		d.rig.event(d.loop.index, func() { d.link.owner.unlinked(d.link, errNobody) })
		return nil
	}
	to, fingerprint := c.nodes[number], uint64(0)
	if o := to.outlook(); o != nil {
		fingerprint = o.view.Fingerprint
	}
	p := linked(to, len(c.wires)%len(to.loops), d.link.purpose)
	sock := &fakeSocket{rig: d.rig, loop: d.loop, capacity: 1 << 30, lazy: true} // it may be closed before it is known
	d.rig.event(d.loop.index, func() {
		sock.conn = d.loop.linked(sock, d.link, &Link{Fingerprint: fingerprint, Features: protocol.LinkFeatures})
	})
	w := &wire{from: d.rig, number: number, ours: sock, node: p}
	c.wires = append(c.wires, w)
	return w
}

// alive reports whether a server is there.
func (c *cables) alive(r *rig) bool { return r == c.balancer || slices.Contains(c.nodes, r) }

// stands reports whether a server does nothing.
func (c *cables) stands(r *rig) bool {
	i := slices.Index(c.nodes, r)
	return i >= 0 && c.hung[i]
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
	case w.ours.gone() || w.ours.ended || !c.alive(w.from) || node == nil || node != w.node.rig || w.node.gone() || w.node.ended && len(w.node.kernel) == 0:
		c.cut(w)
		return true
	case c.hung[w.number] || c.stands(w.from):
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
		w.from.feed(w.ours, b)
	}
	return len(b) > 0
}

// cut ends a link for both sides.
func (c *cables) cut(w *wire) {
	w.cut = true
	if !w.node.gone() && c.nodes[w.number] == w.node.rig {
		w.node.rig.hangUp(w.node.fakeSocket)
	}
	if !w.ours.gone() && c.alive(w.from) {
		w.from.hangUp(w.ours)
	}
}

// leave is the end of a node that was drained: its links end with it, at once.
func (c *cables) leave(number int) {
	for _, w := range c.wires {
		if n := c.nodes[number]; !w.cut && (w.from == n || w.node.rig == n) {
			c.cut(w)
		}
	}
	c.sweep()
	if s := c.balancer.shelf; s != nil {
		n := c.nodes[number]
		found := make(chan []persist.Sealed, len(n.loops))
		for i, l := range n.loops {
			n.event(i, func() { l.keeper.seal(found) })
		}
		s.flush(n)
	}
	c.kill(number)
}

// kill takes a node away, with all it knew.
func (c *cables) kill(number int) {
	if s := c.balancer.shelf; s != nil {
		s.forget(c.nodes[number])
	}
	c.nodes[number] = nil
}

// drain tells a node to go away.
func (c *cables) drain(number int) {
	n := c.nodes[number]
	n.shared.draining.Store(true)
	for _, l := range n.loops {
		l.send(&parcel{mails: []mail{{kind: mailDrain}}})
	}
}

// drained reports whether a node that was told to has nothing left to hand over, and nothing to say or to hear.
func (c *cables) drained(number int) bool {
	n := c.nodes[number]
	if !n.shared.draining.Load() || n.shared.estates.Load() > 0 {
		return false
	}
	for _, l := range n.loops {
		if l.mailbox.pending.Load() != 0 {
			return false
		}
	}
	for _, w := range c.wires {
		if (w.from == n || w.node.rig == n) && len(w.ours.kernel)+len(w.node.kernel)+w.ours.conn.out.len()+w.node.conn.out.len() > 0 {
			return false
		}
	}
	return true
}

// start puts a new node in the place of one that was killed, or of the next number.
func (c *cables) start(number int) {
	if number == len(c.nodes) {
		c.nodes, c.hung = append(c.nodes, nil), append(c.hung, false)
	}
	c.nodes[number], c.hung[number] = c.newNode(number), false
}

// ownerOf is the number of the node that a topic belongs to while all are well.
func (c *cables) ownerOf(topic string) int {
	return c.numberOf(c.view.Slots[c.balancer.outlook().Choice(c.balancer.loops[0].hash([]byte(topic)), 0, len(c.view.Slots))].Address)
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
