package engine

import (
	"errors"
	"math"

	"rayflux/protocol"
)

const (
	linkMessageSlack = 4 << 10 // what a node's answer has besides what was asked for
	uplinkUnreadMax  = 1 << 20 // bytes of commands that a node may leave unread before others wait
)

// uplink is our end of a link that this process made, to a node. Loop-owned.
type uplink struct {
	owner   *owner
	purpose protocol.LinkPurpose
	conn    *conn // nil until it is made
	reader  protocol.MessageReader
	limit   int    // of one message, bytes
	knows   uint64 // protocol.LinkFeature bits of the node
}

// gone reports whether nothing more will come of it.
func (k *uplink) gone() bool { return k.conn == nil || k.conn.closed }

// choked reports whether so much waits for the node to read it that more is to wait elsewhere.
func (k *uplink) choked() bool { return k.conn.out.len() > uplinkUnreadMax }

// openLink begins the life of a connection that this process made. It is none of max-connections, and no drain waits for
// it.
func (l *loop) openLink(sock socket, k *uplink) *conn {
	c := &conn{loop: l, sock: sock, role: k, heard: l.now, index: int32(len(l.conns)), answersMax: math.MaxInt, ours: true}
	c.timer.owner = c
	k.conn, k.reader = c, protocol.NewServerMessageReader()
	k.limit = pageBytesMax + 6*l.cfg.MaxMessage + linkMessageSlack // a page of one message, each byte of it escaped
	l.conns = append(l.conns, c)
	l.wheel.start(&c.timer, l.now+int64(l.cfg.Heartbeat))
	return c
}

// send appends a command; it is written at the end of the event, with all others.
func (k *uplink) send(appendTo func(dst []byte) []byte) {
	if !k.gone() && !k.conn.parting {
		k.conn.say(appendTo)
	}
}

func (k *uplink) consume(c *conn, b []byte) int {
	n := 0
	for n < len(b) {
		m, used, err := k.reader.Next(b[n:], k.limit)
		switch {
		case err != nil:
			k.broken(c, err)
			return len(b)
		case m.Opcode == protocol.OpContinuation && used > 0: // a log has whole frames, and nobody accounts for pieces
			k.broken(c, errFragment)
			return len(b)
		case m.Opcode == protocol.OpContinuation:
			return n
		case m.Opcode == protocol.OpBinary:
			if len(m.Payload) == 0 {
				err = errors.New("an empty message")
			} else {
				err = k.owner.by.message(k, m.Payload, b[n:n+used])
			}
			if err != nil {
				k.broken(c, err)
				return len(b)
			}
		case m.Opcode == protocol.OpPing:
			payload := m.Payload
			c.say(func(dst []byte) []byte { return protocol.AppendMaskedFrame(dst, protocol.OpPong, [4]byte{}, payload) })
		case m.Opcode == protocol.OpClose:
			c.abort(protocol.ReasonPeerReset)
		}
		n += used
		if c.closed {
			return len(b)
		}
	}
	return n
}

// broken ends a link on which a node said what no node says.
func (k *uplink) broken(c *conn, err error) {
	c.loop.cfg.Log.Error("a node said what cannot be understood", "node", k.owner.address, "err", err)
	c.abort(protocol.ReasonProtocol)
}

// message takes one message of a node.
func (u *upstream) message(k *uplink, payload, frame []byte) error {
	switch op := payload[0]; {
	case op == typeOf(protocol.EvMessage) && len(frame) > 1<<chunkClassMax:
		return errFrameSize
	case op == typeOf(protocol.EvMessage):
		topic, offset, _, _, err := protocol.ParseBinaryMessage(payload)
		if err == nil {
			u.take(k, topic, offset, frame)
		}
		return err
	case op == typeOf(protocol.EvPublished):
		_, id, _, epoch, offset, err := protocol.ParseBinaryPublished(payload)
		if err == nil {
			u.published(k, id, epoch, offset)
		}
		return err
	case op >= 0x90:
		ev, err := protocol.ParseLinkEvent(payload)
		if err == nil {
			u.linkEvent(k, &ev)
		}
		return err
	}
	ev, err := protocol.ParseEventBinary(payload)
	if err == nil {
		u.event(k, &ev)
	}
	return err
}

var errFrameSize = errors.New("a message that no log has room for")

var errFragment = errors.New("a fragment of a message")

// typeOf is the type byte of an event in the binary protocol.
func typeOf(op protocol.EventOp) byte { return 0x80 | byte(op) }

// event takes what a node says to every client.
func (u *upstream) event(k *uplink, ev *protocol.Event) {
	switch ev.Op {
	case protocol.EvSubscribed:
		u.subscribed(k, ev)
	case protocol.EvGap:
		u.gap(k, ev)
	case protocol.EvError:
		u.refused(k, ev)
	}
}

// linkEvent takes what a node says on links alone.
func (u *upstream) linkEvent(k *uplink, ev *protocol.LinkEvent) {
	switch ev.Op {
	case protocol.LinkEvLocated:
		u.located(k, ev)
	case protocol.LinkEvFetched:
		u.fetched(k, ev)
	case protocol.LinkEvTurned:
		u.turned(k, ev)
	case protocol.LinkEvStored:
		u.stored(k, ev)
	case protocol.LinkEvPage:
		u.paged(k, ev)
	case protocol.LinkEvMoved:
		u.moved(k, ev)
	case protocol.LinkEvDraining:
		k.owner.goesAway()
	}
}

// answered: a link sends no errands.
func (k *uplink) answered(*conn, *errand) { bug("a link was answered") }

// timeout is the heartbeat: any byte of the node's is a sign of life, and one is asked for.
func (k *uplink) timeout(c *conn) {
	if c.silence() >= int64(c.loop.cfg.LinkTimeout) {
		c.abort(protocol.ReasonPingTimeout)
		return
	}
	k.send(func(dst []byte) []byte {
		return protocol.AppendCommandFrame(dst, &protocol.Command{Op: protocol.CmdPing})
	})
	c.restart(int64(c.loop.cfg.Heartbeat))
}

func (k *uplink) slow(t *topic) SlowPolicy { return t.slow }

func (k *uplink) gap(*conn, *subscription, gap) {}

func (k *uplink) lost() protocol.Reason { return protocol.ReasonPeerReset }

func (k *uplink) farewell(dst []byte, _ protocol.Reason, _ string) []byte { return dst }

// drain: clients that stay to the end of their slot are served to the end of it.
func (k *uplink) drain(*conn, uint64) leaveTime { return leaveLast }

// release is called when the link has ended, whoever ended it.
func (k *uplink) release(c *conn) {
	k.reader.Reset()
	k.owner.by.lost(k)
	k.owner.unlinked(k, errors.New(c.reason.String()))
}
