package engine

import (
	"rayflux/protocol"
)

// linker is who keeps links to nodes: a loop of a balancer, or of another node. Loop-owned.
type linker interface {
	// purposes are the links that it keeps to a node.
	purposes() []protocol.LinkPurpose
	// changed is called when another node can be reached, or not any more.
	changed()
	// message takes a message of a node; frame is the whole of it as it came.
	message(k *uplink, payload, frame []byte) error
	// lost is called when a link has ended: what was under way on it has no answer. It may be in the middle of a pass.
	lost(k *uplink)
}

// owner is one node, as one loop of a balancer or of another node knows it. Loop-owned.
type owner struct {
	by       linker
	loop     *loop
	dialer   dialer
	address  string // "": nobody has the slot
	control  *uplink
	stream   *uplink
	transfer *uplink
	dialing  int // links that are being made

	listed      bool // the directory has it, and ready
	draining    bool // the directory says that it is going away
	leaving     bool // itself says so
	coordinated bool // it has a view of its own
	departed    bool // the directory has it no more; its links are kept while it has topics, and not made again
	retired     bool // nothing is wanted of it any more

	owned int // topics of a balancer that it is the owner of

	lost    int64 // loop clock since when it has not both links
	down    bool  // for so long that its topics belong to the next choice
	wait    int64 // before the next try to connect
	hurried int64 // loop clock of the last try that did not wait for that
	timer   timer // the next try, or the end of patience
	dueAt   int64 // when to try
}

const (
	dialWaitMin = int64(20e6)
	dialWaitMax = int64(1e9)
)

// meet makes o a node that nobody has tried to reach yet.
func (o *owner) meet(by linker, l *loop, d dialer, address string) {
	*o = owner{by: by, loop: l, dialer: d, address: address, wait: dialWaitMin, lost: l.now}
	o.timer.owner = o
}

// ready reports whether there are all the links that are kept to it.
func (o *owner) ready() bool { return o.control != nil && o.stream != nil || o.transfer != nil }

// choked reports whether commands for it have to wait until it has read others.
func (o *owner) choked() bool { return o.ready() && o.control.choked() }

// usable reports whether topics may be sought there. One that cannot be reached is, until it has been for so long that
// its topics are to go to the next choice.
func (o *owner) usable() bool { return o.listed && !o.leaving && !o.draining && !o.down }

// connect makes the links that are missing.
func (o *owner) connect() {
	if o.retired || o.departed || o.address == "" || o.dialing > 0 {
		return
	}
	for _, purpose := range o.by.purposes() {
		if *o.at(purpose) == nil {
			o.dialing++
			o.dialer.dial(o.loop, &uplink{owner: o, purpose: purpose})
		}
	}
	o.schedule()
}

// sees takes note of the fingerprint of the node's view. Whichever of us is behind, it is looked up: topics go to nodes that only
// one of us knows of.
func (o *owner) sees(fingerprint uint64) {
	if d := o.loop.cfg.Directory; fingerprint != 0 && fingerprint != d.View().Fingerprint {
		d.Doubt()
	}
}

// at is where the owner keeps its link of a purpose.
func (o *owner) at(purpose protocol.LinkPurpose) **uplink {
	switch purpose {
	case protocol.LinkStream:
		return &o.stream
	case protocol.LinkTransfer:
		return &o.transfer
	}
	return &o.control
}

// hurry tries to reach the node now: there is a sign that it is there.
func (o *owner) hurry() {
	if !o.ready() && o.dialing == 0 {
		o.wait = dialWaitMin
		o.connect()
	}
}

// linked takes a link that was made.
func (o *owner) linked(k *uplink, draining bool, fingerprint uint64) {
	o.dialing--
	*o.at(k.purpose) = k
	o.leaving = draining // whatever the process that was there before has said
	o.coordinated = fingerprint != 0
	o.sees(fingerprint)
	if o.ready() {
		o.lost, o.down, o.wait = 0, false, dialWaitMin
		o.timer.stop()
		o.loop.metrics.linksUp.Add(int64(len(o.by.purposes())))
		o.loop.cfg.Log.Info("node is linked", "node", o.address, "loop", o.loop.index)
		o.by.changed()
	}
	o.schedule() // its twin may have ended while this one was made
}

// unlinked takes note that a link could not be made, or has ended.
func (o *owner) unlinked(k *uplink, err error) {
	l := o.loop
	if at := o.at(k.purpose); *at == k {
		if o.ready() {
			l.metrics.linksUp.Add(-int64(len(o.by.purposes())))
			o.lost = l.now
			o.by.changed()
		}
		*at = nil
		// Its twin may look well while the process behind it is gone: both are made anew.
		for _, purpose := range o.by.purposes() {
			if twin := *o.at(purpose); twin != nil {
				twin.conn.abort(protocol.ReasonPeerReset)
			}
		}
		if !o.retired {
			l.cfg.Log.Warn("link to a node has ended", "node", o.address, "link", k.purpose.String(), "loop", l.index, "err", err)
		}
	} else {
		o.dialing--
		if l.shared.away.allow(o.address, l.now) {
			l.cfg.Log.Warn("node cannot be linked", "node", o.address, "err", err)
		}
	}
	if o.retired || o.departed {
		return
	}
	o.dueAt = l.now + o.wait/2 + l.rand.Int64N(o.wait)
	o.wait = min(2*o.wait, dialWaitMax)
	o.schedule()
}

// schedule sets the timer to what is due next.
func (o *owner) schedule() {
	if o.ready() || o.retired || o.departed {
		return
	}
	at := never
	if o.dialing == 0 {
		at = o.dueAt
	}
	if !o.down {
		at = min(at, o.lost+int64(o.loop.cfg.TakeOver))
	}
	if at != never {
		o.loop.wheel.start(&o.timer, at)
	}
}

// expire tries again, or gives the node's topics to the next choice.
func (o *owner) expire(l *loop) {
	if !o.down && l.now-o.lost >= int64(l.cfg.TakeOver) {
		o.down = true
		l.cfg.Log.Warn("node is away: its topics go to the next choice", "node", o.address, "loop", l.index, "after", l.cfg.TakeOver)
		o.by.changed()
	}
	if o.dialing == 0 && l.now >= o.dueAt {
		o.connect()
	}
	o.schedule()
}

// goesAway is the node's own word that it is draining: no topic is sought there any more.
func (o *owner) goesAway() {
	if !o.leaving {
		o.leaving = true
		o.by.changed()
	}
}

// linked takes a link that was made.
func (l *loop) linked(sock socket, k *uplink, made *Link) *conn {
	c := l.openLink(sock, k)
	k.knows = made.Features
	k.owner.linked(k, made.Draining, made.Fingerprint)
	if k.owner.retired {
		c.abort(protocol.ReasonClientClosed)
	}
	return c
}

// enlist makes o the node of a slot.
func (o *owner) enlist(slot Slot) {
	o.departed = false
	o.listed = slot.Ready && slot.Address != ""
	o.draining = slot.Draining
}

// depart takes note that the directory has the node no more. False: it is not linked, so that nobody can have topics from it.
func (o *owner) depart() bool {
	if !o.ready() {
		o.retire()
		return false
	}
	o.departed, o.listed = true, false
	return true
}

// retire ends the links to a node that nothing is wanted of.
func (o *owner) retire() {
	o.retired = true
	o.timer.stop()
	for _, purpose := range o.by.purposes() {
		if k := *o.at(purpose); k != nil {
			k.conn.abort(protocol.ReasonClientClosed)
		}
	}
}
