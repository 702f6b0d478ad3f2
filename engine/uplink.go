package engine

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"rayflux/protocol"
)

const (
	linkMessageSlack = 4 << 10 // what a node's answer has besides what was asked for
	uplinkAnswersMax = 8 << 20 // bytes of commands that a node may leave unread before its link is given up
)

// uplink is a balancer's end of a link: a connection that this process made, to a node. Loop-owned.
type uplink struct {
	owner   *owner
	purpose protocol.LinkPurpose
	conn    *conn // nil until it is made
	reader  protocol.MessageReader
	limit   int // of one message, bytes
}

// gone reports whether nothing more will come of it.
func (k *uplink) gone() bool { return k.conn == nil || k.conn.closed }

// openLink begins the life of a connection that this process made. It is none of max-connections, and no drain waits for
// it.
func (l *loop) openLink(sock socket, k *uplink) *conn {
	c := &conn{loop: l, sock: sock, role: k, heard: l.now, index: int32(len(l.conns)), answersMax: uplinkAnswersMax, ours: true}
	c.timer.owner = c
	k.conn, k.reader = c, protocol.NewServerMessageReader()
	k.limit = 2*l.cfg.MaxMessage + pageBytesMax + linkMessageSlack
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
		case m.Opcode == protocol.OpContinuation:
			return n + used
		case m.Opcode == protocol.OpBinary:
			if err := k.message(m.Payload, b[n:n+used]); err != nil {
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

// message takes one message of a node; frame is the whole of it as it came.
func (k *uplink) message(payload, frame []byte) error {
	if len(payload) == 0 {
		return errors.New("an empty message")
	}
	u := k.owner.up
	switch op := payload[0]; {
	case op == typeOf(protocol.EvMessage):
		topic, offset, _, _, err := protocol.ParseBinaryMessage(payload)
		if err == nil {
			u.take(k, topic, offset, frame)
		}
		return err
	case op == typeOf(protocol.EvPublished):
		_, id, _, epoch, offset, err := protocol.ParseBinaryPublished(payload)
		if err == nil {
			u.published(id, epoch, offset)
		}
		return err
	case op >= 0x90:
		ev, err := protocol.ParseLinkEvent(payload)
		if err == nil {
			k.linkEvent(&ev)
		}
		return err
	}
	ev, err := protocol.ParseEventBinary(payload)
	if err == nil {
		k.event(&ev)
	}
	return err
}

// typeOf is the type byte of an event in the binary protocol.
func typeOf(op protocol.EventOp) byte { return 0x80 | byte(op) }

// event takes what a node says to every client.
func (k *uplink) event(ev *protocol.Event) {
	u := k.owner.up
	switch ev.Op {
	case protocol.EvSubscribed:
		u.subscribed(k, ev)
	case protocol.EvGap:
		u.gap(k, ev)
	case protocol.EvError:
		u.refused(ev)
	}
}

// linkEvent takes what a node says on links alone.
func (k *uplink) linkEvent(ev *protocol.LinkEvent) {
	u := k.owner.up
	switch ev.Op {
	case protocol.LinkEvLocated:
		u.located(ev)
	case protocol.LinkEvFetched:
		u.fetched(ev)
	case protocol.LinkEvPage:
		u.paged(ev)
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

func (k *uplink) gap(*conn, *subscription, gap) bool { return false }

func (k *uplink) lost() protocol.Reason { return protocol.ReasonPeerReset }

func (k *uplink) farewell(dst []byte, _ protocol.Reason, _ string) []byte { return dst }

// drain: clients that stay to the end of their slot are served to the end of it.
func (k *uplink) drain(*conn, uint64) leaveTime { return leaveLast }

// release is called when the link has ended, whoever ended it.
func (k *uplink) release(c *conn) {
	k.reader.Reset()
	k.owner.up.lost(k)
	k.owner.unlinked(k, errors.New(c.reason.String()))
}

// linked takes a link that was made. early is what the node has said since.
func (u *upstream) linked(sock socket, k *uplink, draining bool, fingerprint uint64) *conn {
	c := u.loop.openLink(sock, k)
	k.owner.linked(k, draining, fingerprint)
	if k.owner.retired {
		c.abort(protocol.ReasonClientClosed)
	}
	return c
}

// complaints bounds what is logged of nodes that cannot be reached: each is tried again and again, by every loop.
type complaints struct {
	mu   sync.Mutex
	told map[string]time.Time
}

const (
	complainEvery = 30 * time.Second
	complainMax   = 1024
)

// dialFailed logs that a node could not be reached, once in a while for each. Safe from any goroutine.
func (sh *shared) dialFailed(log *slog.Logger, address string, err error) {
	c := &sh.complaints
	c.mu.Lock()
	now := time.Now()
	text := address + " " + err.Error()
	last, known := c.told[text]
	if known && now.Sub(last) < complainEvery {
		c.mu.Unlock()
		return
	}
	if c.told == nil || len(c.told) >= complainMax {
		c.told = make(map[string]time.Time)
	}
	c.told[text] = now
	c.mu.Unlock()
	log.Warn("node cannot be linked", "node", address, "err", err)
}
