package engine

import (
	"crypto/rand"
	"errors"
	"slices"

	"rayflux/protocol"
)

const (
	handoffPieceMax  = 64 << 10  // bytes of frames of one handoff message
	handoffAheadMax  = 256 << 10 // bytes of handoffs that wait for the kernel: commands are not to wait long behind them
	handoffUntaken   = 4 << 20   // bytes of topics that a neighbour has not taken yet, before another one begins
	handoffsPerEvent = 64        // topics that one event begins to hand over to one neighbour
)

type handoffToken = [protocol.LinkTokenBytes]byte

// neighbour is another node of the cluster, as one loop of this one knows it, with the topics that are handed over to it.
// Loop-owned.
type neighbour struct {
	owner
	estate  *estate
	slot    int
	first   []*topic // claimed
	queue   []*topic // the rest of what belongs to it
	sending *transfer
	waiting map[uint64]*transfer // sent, and not answered, by id
	untaken int64                // bytes of these
	pause   int64                // loop clock before which none is begun; 0: none, and the end of the last one was noticed
	refused bool                 // it would not have a topic, which is offered again after the pause
	told    bool                 // that everything has been handed over, since it was linked or anything changed
}

// transfer is one topic on its way to a neighbour.
type transfer struct {
	topic *topic
	to    *neighbour
	id    uint64
	token handoffToken
	next  uint64 // offset of the first message that is not sent
	bytes int64
	whole bool // the last of it was sent: the neighbour has it, or may have it
	kept  bool // the neighbour has not got it for certain: it stays
}

func newNeighbour(s *estate, slot int, address string) *neighbour {
	n := &neighbour{estate: s, slot: slot, waiting: make(map[uint64]*transfer)}
	n.meet(n, s.loop, s.dialer, address)
	return n
}

var neighbourPurposes = []protocol.LinkPurpose{protocol.LinkTransfer}

func (n *neighbour) purposes() []protocol.LinkPurpose { return neighbourPurposes }

func (n *neighbour) changed() { n.estate.changed() }

// away reports whether there is nobody who could have topics.
func (n *neighbour) away() bool { return n.down || n.address == "" || n.retired }

// lost is called when the link has ended.
func (n *neighbour) lost(*uplink) {
	if tr := n.sending; tr != nil {
		tr.kept = true // without its last part it is none
		n.estate.ended = append(n.estate.ended, tr)
	}
	for _, tr := range n.waiting {
		n.estate.loop.metrics.handoffsLost.Add(1)
		n.estate.ended = append(n.estate.ended, tr)
	}
	n.sending, n.untaken = nil, 0
	clear(n.waiting)
	n.estate.changed()
}

// message takes one message of the neighbour's.
func (n *neighbour) message(k *uplink, payload, _ []byte) error {
	if payload[0] < 0x90 {
		ev, err := protocol.ParseEventBinary(payload)
		if err == nil && ev.Op == protocol.EvError {
			n.failed(&ev)
		}
		return err
	}
	ev, err := protocol.ParseLinkEvent(payload)
	if err != nil {
		return err
	}
	switch ev.Op {
	case protocol.LinkEvTaken:
		if n.waiting[ev.ID] == nil {
			return errors.New("it takes what was not handed over")
		}
		n.taken(ev.ID, ev.Refused)
	case protocol.LinkEvUnclaimed:
		n.estate.unclaimed(k, &ev)
	case protocol.LinkEvDraining:
		n.goesAway()
	}
	return nil
}

// failed is an error that the neighbour tells: it is older, or does not belong to this cluster.
func (n *neighbour) failed(ev *protocol.Event) {
	l := n.loop
	if l.shared.away.allow(n.address+" "+ev.Message, l.now) {
		l.cfg.Log.Warn("node takes no topics", "node", n.address, "err", ev.Message)
	}
	if ev.HasID && n.waiting[ev.ID] != nil {
		n.taken(ev.ID, true)
	}
}

// taken is the answer to a hand-over.
func (n *neighbour) taken(id uint64, refused bool) {
	tr := n.waiting[id]
	delete(n.waiting, id)
	n.untaken -= tr.bytes
	tr.kept = refused
	m := &n.loop.metrics
	if refused {
		m.handoffsRefused.Add(1)
		n.refused = true
		n.rest(refusedPause)
	} else {
		m.handoffsDone.Add(1)
	}
	n.estate.ended = append(n.estate.ended, tr)
}

// rest begins no hand-over for a while.
func (n *neighbour) rest(pause int64) {
	n.pause = max(n.pause, n.loop.now+pause)
}

// restart empties the lists, which are made anew.
func (n *neighbour) restart() {
	clear(n.first)
	clear(n.queue)
	n.first, n.queue = n.first[:0], n.queue[:0]
	n.told = false
	if n.pause <= n.loop.now {
		n.pause, n.refused = 0, false
	}
}

// able reports whether the link takes more.
func (n *neighbour) able() bool {
	return n.transfer != nil && !n.transfer.gone() && !n.transfer.conn.parting && n.transfer.conn.out.len() < handoffAheadMax
}

// mayBegin reports whether another topic is to be handed over now. Not one of which the store has been told that it may be claimed.
func (n *neighbour) mayBegin() bool {
	if k := n.loop.keeper; k != nil && k.sealed {
		return false
	}
	return len(n.first)+len(n.queue) > 0 && n.pause <= n.loop.now && n.untaken < handoffUntaken
}

// say sends a command.
func (n *neighbour) say(cmd *protocol.LinkCommand) {
	n.transfer.send(func(dst []byte) []byte { return protocol.AppendLinkCommandFrame(dst, cmd) })
}

// pump hands over what it can in this event.
func (n *neighbour) pump() {
	for begun := 0; n.able(); {
		if n.sending == nil {
			if begun == handoffsPerEvent || !n.mayBegin() {
				break
			}
			if begun++; !n.begin() {
				continue
			}
		}
		n.send(n.sending)
	}
	n.settle()
}

// settle tells the neighbour that there is nothing of its own here any more.
func (n *neighbour) settle() {
	s := n.estate
	// Of one that is to have no topics there are none to speak of, and the word would still count when that changes.
	if n.told || !n.usable() || !n.able() || n.refused || n.sending != nil || len(n.first)+len(n.queue)+len(n.waiting) > 0 || len(s.view.Slots) == 0 {
		return
	}
	n.told = true
	n.say(&protocol.LinkCommand{Op: protocol.LinkCmdSettled, Fingerprint: s.settledIn(s.leaves()), Slot: uint64(n.loop.cfg.Slot),
		Loop: uint64(n.loop.index), Loops: uint64(len(n.loop.peers))})
}

// begin seals the next topic of the lists. False: it is not to be handed over any more.
func (n *neighbour) begin() bool {
	list := &n.first
	if len(n.first) == 0 {
		list = &n.queue
	}
	last := len(*list) - 1
	t := (*list)[last]
	(*list)[last] = nil
	*list = (*list)[:last]
	if n.loop.topics[t.name] != t || t.moving != nil {
		return false
	}
	n.estate.id++
	n.sending = &transfer{topic: t, to: n, id: n.estate.id, next: t.start}
	_, _ = rand.Read(n.sending.token[:]) // it never fails; not the loop's own, which can be guessed
	t.moving = n.sending
	return true
}

// send sends as much of a topic as the link takes now. A part has the messages of one millisecond: their time is exact.
func (n *neighbour) send(tr *transfer) {
	t := tr.topic
	partMax := min(handoffPieceMax, n.loop.cfg.MaxMessage)
	var from *chunk
	var frames []byte
	var ms int64
	full := false
	t.walk(max(tr.next, t.start), func(c *chunk, offset uint64, _ protocol.Kind, _, frame []byte) bool {
		at := c.timeOf(uint32(offset - c.first))
		if c == from && at == ms && len(frames)+len(frame) <= partMax {
			frames = frames[:len(frames)+len(frame)] // they lie behind one another
			return true
		}
		if from != nil {
			tr.part(frames, ms, false)
			if tr.next = offset; !n.able() {
				full = true
				return false
			}
		} else {
			tr.next = offset
		}
		from, frames, ms = c, frame, at
		return true
	})
	if full {
		return
	}
	if from == nil {
		tr.next = t.head + 1
	}
	tr.part(frames, ms, true)
	tr.whole = true
	n.sending = nil
	n.waiting[tr.id] = tr
	n.untaken += tr.bytes
}

// part sends a stretch of the log that begins with the message at tr.next.
func (tr *transfer) part(frames []byte, ms int64, last bool) {
	t, n := tr.topic, tr.to
	cmd := protocol.LinkCommand{Op: protocol.LinkCmdHandoff, HasID: true, ID: tr.id, Token: tr.token[:], Last: last,
		Topic: []byte(t.name), Epoch: []byte(t.epoch), Head: t.head, Offset: tr.next, Frames: frames}
	if t.keeps && n.transfer.knows&protocol.LinkFeatureStore != 0 {
		cmd.Kept, cmd.Began, cmd.Saved = true, uint64(max(t.began, 0)), t.stored
	}
	if len(frames) > 0 {
		cmd.TimeMs = uint64(max(ms+n.loop.skew, 0))
	}
	n.say(&cmd)
	tr.bytes += int64(len(frames)) + flightCost
}

// conclude does what follows from the outcome of a hand-over.
func (s *estate) conclude(tr *transfer) {
	t := tr.topic
	if t.moving != tr {
		bug("a hand-over ends of a topic that is on another way")
	}
	if tr.kept {
		t.moving = nil
		if h := s.holds[t.name]; h != nil {
			s.try(h)
		}
		s.sweep = s.sweep || !tr.whole
		return
	}
	s.part(t)
	if h := s.holds[t.name]; h != nil {
		s.try(h)
	}
}

// part lets go of a topic that is another node's now. Its readers are told, behind all that was taken here.
func (s *estate) part(t *topic) {
	l := s.loop
	if t.dirty || len(l.sealed) > 0 {
		l.flush()
	}
	t.left = true
	t.timer.stop()
	for i := range t.feeds {
		m := t.feeds[i].mirror
		switch to := l.peers[i]; {
		case t.feeds[i].subs == 0:
		case to == l:
			m.moved(l)
		default:
			_, letter := l.letter(to, mailMoved, 0, 0)
			letter.mirror = m
		}
	}
	t.clear(l)
	l.forget(t)
}

// moved ends every subscription: the topic is at another node, where its readers go on.
func (m *mirror) moved(l *loop) {
	l.pushPending() // what was handed over goes first
	for _, s := range slices.Concat(m.live, m.joining, m.lagging) {
		if s.state == subGone {
			continue // its connection has ended over another subscription
		}
		if r, ok := s.conn.role.(*linkRole); ok {
			r.moved(s.conn, s)
		} else {
			s.conn.fail(protocol.ReasonMoved, "")
		}
	}
	m.next = 0
}
