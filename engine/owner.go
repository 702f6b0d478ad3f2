package engine

import (
	"rayflux/protocol"
)

// owner is one node, as one loop of a balancer knows it. Loop-owned.
type owner struct {
	up      *upstream
	address string // "": nobody has the slot
	control *uplink
	stream  *uplink
	dialing int // links that are being made

	listed      bool // the directory has it, and ready
	leaving     bool // it is going away: the directory or itself has said so
	coordinated bool // it has a view of its own
	retired     bool // the directory has it no more

	lost  int64 // loop clock since when it has not both links
	down  bool  // for so long that its topics belong to the next choice
	wait  int64 // before the next try to connect
	timer timer // the next try, or the end of patience
	dueAt int64 // when to try
}

const (
	dialWaitMin = int64(20e6)
	dialWaitMax = int64(1e9)
)

func newOwner(u *upstream, address string) *owner {
	o := &owner{up: u, address: address, wait: dialWaitMin, lost: u.loop.now}
	o.timer.owner = o
	return o
}

// ready reports whether commands can be sent to it.
func (o *owner) ready() bool { return o.control != nil && o.stream != nil }

// usable reports whether topics may be sought there. One that cannot be reached is, until it has been for so long that
// its topics are to go to the next choice.
func (o *owner) usable() bool { return o.listed && !o.leaving && !o.down }

// connect makes the links that are missing.
func (o *owner) connect() {
	if o.retired || o.address == "" || o.dialing > 0 {
		return
	}
	for _, missing := range [...]struct {
		link    *uplink
		purpose protocol.LinkPurpose
	}{{o.control, protocol.LinkControl}, {o.stream, protocol.LinkStream}} {
		if missing.link == nil {
			o.dialing++
			o.up.dialer.dial(o.up.loop, &uplink{owner: o, purpose: missing.purpose})
		}
	}
	o.schedule()
}

// at is where the owner keeps its link of a purpose.
func (o *owner) at(purpose protocol.LinkPurpose) **uplink {
	if purpose == protocol.LinkStream {
		return &o.stream
	}
	return &o.control
}

// linked takes a link that was made.
func (o *owner) linked(k *uplink, draining bool, fingerprint uint64) {
	o.dialing--
	*o.at(k.purpose) = k
	o.leaving = o.leaving || draining
	o.coordinated = fingerprint != 0
	if o.ready() {
		o.lost, o.down, o.wait = 0, false, dialWaitMin
		o.timer.stop()
		o.up.loop.metrics.linksUp.Add(2)
		o.up.loop.cfg.Log.Info("node is linked", "node", o.address, "loop", o.up.loop.index)
		o.up.changed()
	}
}

// unlinked takes note that a link could not be made, or has ended.
func (o *owner) unlinked(k *uplink, err error) {
	l := o.up.loop
	if at := o.at(k.purpose); *at == k {
		if o.ready() {
			l.metrics.linksUp.Add(-2)
			o.lost = l.now
			o.up.changed()
		}
		*at = nil
		// Its twin may look well while the process behind it is gone: both are made anew.
		if twin := *o.at(protocol.LinkControl + protocol.LinkStream - k.purpose); twin != nil {
			twin.conn.abort(protocol.ReasonPeerReset)
		}
		if !o.retired {
			l.cfg.Log.Warn("link to a node has ended", "node", o.address, "link", k.purpose.String(), "loop", l.index, "err", err)
		}
	} else {
		o.dialing--
		l.shared.dialFailed(l.cfg.Log, o.address, err)
	}
	if o.retired {
		return
	}
	o.dueAt = l.now + o.wait/2 + l.rand.Int64N(o.wait)
	o.wait = min(2*o.wait, dialWaitMax)
	o.schedule()
}

// schedule sets the timer to what is due next.
func (o *owner) schedule() {
	if o.ready() || o.retired {
		return
	}
	at := never
	if o.dialing == 0 {
		at = o.dueAt
	}
	if !o.down {
		at = min(at, o.lost+int64(o.up.loop.cfg.TakeOver))
	}
	if at != never {
		o.up.loop.wheel.start(&o.timer, at)
	}
}

// expire tries again, or gives the node's topics to the next choice.
func (o *owner) expire(l *loop) {
	if !o.down && l.now-o.lost >= int64(l.cfg.TakeOver) {
		o.down = true
		l.cfg.Log.Warn("node is away: its topics go to the next choice", "node", o.address, "loop", l.index, "after", l.cfg.TakeOver)
		o.up.changed()
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
		o.up.changed()
	}
}

// retire ends the links to a node that the directory has no more.
func (o *owner) retire() {
	o.retired = true
	o.timer.stop()
	for _, k := range [...]*uplink{o.control, o.stream} {
		if k != nil {
			k.conn.abort(protocol.ReasonClientClosed)
		}
	}
}
