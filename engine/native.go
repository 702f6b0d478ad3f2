package engine

import (
	"fmt"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"rayflux/protocol"
)

// The native subprotocols, in no order of preference: the client's counts.
const (
	subprotocolJSON   = "rayflux.v1.json"
	subprotocolBinary = "rayflux.v1.bin"
)

// native is what clients' connections and links have in common: a WebSocket that speaks rayflux.v1.json or
// rayflux.v1.bin, which are its format. Loop-owned.
type native struct {
	webSocket
	format   protocol.Format
	inFlight int32 // publishes whose owner has not answered; in a balancer
	phased   bool  // a link whose peer is told of a stored publish twice, and of earlier epochs
}

// nativeRole is a client's connection; one that says hello may become a link. Loop-owned.
type nativeRole struct {
	native
	greeting *protocol.LinkTerms // a hello that was challenged, and is not proved yet
	features uint64              // of that hello
}

// newNative welcomes a client that has just upgraded.
func (l *loop) newNative(c *conn, response []byte, subprotocol string) {
	r := &nativeRole{}
	r.format = protocol.FormatJSON
	if subprotocol == subprotocolBinary {
		r.format = protocol.FormatBinary
	}
	c.upgrade(response, r)
	r.tell(c, &protocol.Event{
		Op: protocol.EvWelcome, Session: l.session(), Version: l.cfg.Version,
		PingIntervalMs: uint64(l.cfg.PingInterval.Milliseconds()), MaxMessageBytes: uint64(l.cfg.MaxMessage),
	})
}

// session names a connection in logs and support questions.
func (l *loop) session() string { return strconv.FormatUint(l.rand.Uint64(), 36) }

func (r *native) tell(c *conn, ev *protocol.Event) {
	c.tell(ev, r.format == protocol.FormatBinary)
}

func (r *nativeRole) consume(c *conn, b []byte) int {
	return r.frames(c, b, 2*c.loop.cfg.MaxMessage+8<<10, r)
}

// message is the one door of a client's commands.
func (r *nativeRole) message(c *conn, m protocol.Message) {
	l := c.loop
	var cmd protocol.Command
	var err error
	switch {
	case r.format == protocol.FormatBinary && m.Opcode == protocol.OpBinary:
		if l.greets(m.Payload) {
			r.greet(c, m.Payload)
			return
		}
		cmd, err = protocol.ParseBinaryCommand(m.Payload, l.cfg.MaxMessage)
	case r.format == protocol.FormatJSON && m.Opcode == protocol.OpText:
		cmd, err = protocol.ParseJSONCommand(m.Payload, &l.parse, l.cfg.MaxMessage)
	case r.format == protocol.FormatJSON:
		c.fail(protocol.ReasonUnsupported, subprotocolJSON+" takes text messages")
		return
	default:
		r.failText(c)
		return
	}
	r.command(c, &cmd, err, l.cfg.MaxSubscriptions)
}

// failText ends a connection that was sent text where rayflux.v1.bin was agreed on.
func (r *native) failText(c *conn) {
	c.fail(protocol.ReasonUnsupported, subprotocolBinary+" takes binary messages")
}

// command carries a command out, or tells what is wrong with it.
func (r *native) command(c *conn, cmd *protocol.Command, err error, subscriptionsMax int) {
	l := c.loop
	if err != nil {
		if cmd.Op == protocol.CmdPublish {
			l.countRefused(err.(*protocol.Error))
		}
		r.refuseInTurn(c, cmd, err.(*protocol.Error))
		return
	}
	switch cmd.Op {
	case protocol.CmdPublish:
		e := l.errandFor(c, opPublish, cmd)
		e.kind, e.payload, e.stored = cmd.Kind, cmd.Payload, cmd.Stored
		e.phased = e.stored && r.phased
		if l.up != nil {
			if int(r.inFlight) >= l.cfg.MaxInFlight {
				e.op, e.err = opRefuse, &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: 100 * time.Millisecond,
					Message: fmt.Sprintf("connection has %d publishes that are not answered, limit %d", r.inFlight, l.cfg.MaxInFlight)}
				l.countRefused(e.err)
			} else {
				r.inFlight++
			}
		}
		l.run(e)
	case protocol.CmdSubscribe:
		r.subscribe(c, cmd, subscriptionsMax)
	case protocol.CmdUnsubscribe:
		r.unsubscribe(c, cmd)
	case protocol.CmdPing:
		r.tell(c, &protocol.Event{Op: protocol.EvPong, HasID: cmd.HasID, ID: cmd.ID})
	}
}

// errandFor is the loop's scratch errand, filled with what every command has.
func (l *loop) errandFor(c *conn, op errandOp, cmd *protocol.Command) *errand {
	e := &l.errand
	*e = errand{conn: c, op: op, name: cmd.Topic, hasID: cmd.HasID, id: cmd.ID, hash: l.hash(cmd.Topic)}
	return e
}

// hash places a topic: xxhash64, the same in every process of a cluster. One loop without a directory places nothing.
func (l *loop) hash(topic []byte) uint64 {
	if len(l.peers) == 1 && l.cfg.Directory == nil {
		return 0
	}
	return xxhash.Sum64(topic)
}

func (r *native) subscribe(c *conn, cmd *protocol.Command, subscriptionsMax int) {
	l := c.loop
	if s := c.subscriptionTo(cmd.Topic); s != nil {
		r.refuseInTurn(c, cmd, &protocol.Error{Code: protocol.CodeAlreadySubscribed,
			Message: fmt.Sprintf("already subscribed to %q", cmd.Topic)})
		return
	}
	if len(c.subs) >= subscriptionsMax {
		r.refuseInTurn(c, cmd, &protocol.Error{Code: protocol.CodeTooManySubscriptions,
			Message: fmt.Sprintf("connection has %d subscriptions, limit %d", len(c.subs), subscriptionsMax)})
		return
	}
	e := l.errandFor(c, opSubscribe, cmd)
	e.from = cmd.From
	l.subscribe(e, r.format)
}

func (r *native) unsubscribe(c *conn, cmd *protocol.Command) {
	s := c.subscriptionTo(cmd.Topic)
	if s == nil {
		r.refuseInTurn(c, cmd, errNotSubscribed(cmd.Topic))
		return
	}
	c.removeSubscription(s)
	var id *uint64
	if cmd.HasID {
		id = &cmd.ID
	}
	c.loop.leave(s, opUnsubscribe, id)
}

func (r *native) answered(c *conn, e *errand) {
	if e.op == opPublish && c.loop.up != nil {
		if r.inFlight--; !e.hasID && e.err == nil {
			return // answered for the count's sake
		}
	}
	ev := protocol.Event{HasID: e.hasID, ID: e.id}
	switch {
	case e.err != nil:
		if e.op == opPublish {
			c.loop.countRefused(e.err)
		}
		r.refuse(c, e.hasID, e.id, e.err)
		return
	case e.op == opPublish:
		ev.Op, ev.Topic, ev.Epoch, ev.Offset = protocol.EvPublished, e.topic.name, e.epoch, e.offset
	case e.op == opSubscribe:
		ev.Op, ev.Topic, ev.Epoch, ev.Offset = protocol.EvSubscribed, e.topic.name, e.epoch, e.offset
		ev.Recovered, ev.Partial = e.whole && e.past == "", e.past != ""
	case e.op == opUnsubscribe:
		ev.Op, ev.Topic = protocol.EvUnsubscribed, e.topic.name
	}
	r.tell(c, &ev)
}

func errNotSubscribed(topic []byte) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotSubscribed, Message: fmt.Sprintf("not subscribed to %q", topic)}
}

// refuseInTurn tells a command's error after the answers to what was asked about its topic before.
func (r *native) refuseInTurn(c *conn, cmd *protocol.Command, err *protocol.Error) {
	if len(cmd.Topic) == 0 {
		r.refuse(c, cmd.HasID, cmd.ID, err)
		return
	}
	e := c.loop.errandFor(c, opRefuse, cmd)
	e.err = err
	c.loop.run(e)
}

// refuse tells a command's error; the connection lives.
func (r *native) refuse(c *conn, hasID bool, id uint64, e *protocol.Error) {
	r.tell(c, &protocol.Event{Op: protocol.EvError, HasID: hasID, ID: id, Code: e.Code, Message: e.Message,
		RetryAfterMs: uint64(e.RetryAfter.Milliseconds())})
}

func (r *native) gap(c *conn, s *subscription, g gap) {
	ev := g.event(s)
	r.tell(c, &ev)
}

func (r *nativeRole) drain(c *conn, afterMs uint64) leaveTime {
	r.tell(c, &protocol.Event{Op: protocol.EvDrain, ReconnectAfterMs: afterMs})
	return leaveAtSlot
}
