package client

import (
	"errors"
	"fmt"
	"time"

	"rayflux/protocol"
)

// typeMessage is the first byte of a message, the one event that comes in
// millions and is parsed without an Event.
const typeMessage = 0x80 | byte(protocol.EvMessage)

// answersWait is what a client that was asked to leave keeps of its time for
// answers, as long as that is no more than a quarter.
const answersWait = time.Second

// handle takes one event, or answer, as cn received it: the door in. It runs
// on the goroutine that reads cn. b is valid until the next read. An error
// ends the connection.
func (c *Client) handle(cn *conn, b []byte) error {
	if len(b) > 0 && b[0] == typeMessage {
		topic, offset, kind, payload, err := protocol.ParseBinaryMessage(b)
		if err != nil {
			return protocolError("unreadable message: %v", err)
		}
		return c.handleMessage(cn, topic, offset, kind, payload)
	}
	event, err := protocol.ParseEventBinary(b)
	var refused *protocol.Error
	switch {
	case errors.As(err, &refused) && refused.Code == protocol.CodeUnknownOp:
		return nil // of a newer server: what an old client must know keeps its type
	case err != nil:
		return protocolError("unreadable event: %v", err)
	}
	return c.handleEvent(cn, &event)
}

func (c *Client) handleEvent(cn *conn, event *protocol.Event) error {
	switch event.Op {
	case protocol.EvGap:
		return c.handleGap(cn, event)
	case protocol.EvSubscribed, protocol.EvUnsubscribed, protocol.EvPublished, protocol.EvPong:
		if event.HasID {
			return c.handleAnswer(cn, cn.takeCall(event.ID), event)
		}
	case protocol.EvError:
		c.handleError(cn, event)
	case protocol.EvDrain:
		c.handleDrain(cn, event)
	case protocol.EvWelcome:
		return protocolError("a second welcome")
	}
	return nil
}

func (c *Client) handleAnswer(cn *conn, ca *call, event *protocol.Event) error {
	switch {
	case ca == nil:
		return nil // an id that is not in flight: nobody waits
	case event.Op == protocol.EvSubscribed && ca.subscription != nil:
		return c.handleSubscribed(cn, ca.subscription, event)
	}
	ca.finish(answer{position: protocol.Position{Epoch: event.Epoch, Offset: event.Offset}})
	return nil
}

func (c *Client) handleError(cn *conn, event *protocol.Event) {
	failed := errorOf(event)
	var ca *call
	if event.HasID {
		ca = cn.takeCall(event.ID)
	}
	switch {
	case ca == nil:
		c.report(failed)
	case ca.subscription != nil:
		c.handleRefused(cn, ca.subscription, failed)
	case failed.Code == protocol.CodeOutcomeUnknown:
		ca.finish(answer{err: fmt.Errorf("%w: %w", ErrOutcomeUnknown, failed)})
	default:
		ca.finish(answer{err: failed})
	}
}

// handleMessage queues a message that continues its subscription's sequence.
// Repeats are dropped. A hole without a gap event is a fault of the server (or
// ours): resuming from the position before it asks for the missing ones.
// topic and payload are valid until the next read.
func (c *Client) handleMessage(cn *conn, topic []byte, offset uint64, kind protocol.Kind, payload []byte) error {
	s := c.liveSubscription(topic)
	if s == nil {
		return nil // closed: what comes until the server knows is dropped
	}
	at := s.position()
	if offset <= at.Offset {
		return nil
	}
	if offset != at.Offset+1 {
		return protocolError("topic %q: offset %d follows %d without a gap", s.topic, offset, at.Offset)
	}
	at.Offset = offset
	return s.push(cn, Delivery{
		Topic:    s.topic,
		Position: at,
		Kind:     kind,
		Payload:  append([]byte{}, payload...),
	})
}

func (c *Client) handleGap(cn *conn, event *protocol.Event) error {
	s := c.liveSubscription([]byte(event.Topic))
	if s == nil {
		return nil
	}
	at := s.position()
	if event.Epoch == at.Epoch && event.Offset <= at.Offset {
		return nil // it skips nothing
	}
	return s.push(cn, Delivery{
		Topic:    s.topic,
		Position: protocol.Position{Epoch: event.Epoch, Offset: event.Offset},
		Gap:      &Gap{Reason: event.Reason, Missed: event.Missed},
	})
}

// liveSubscription is the topic's subscription if this connection has confirmed
// it. Between a close and the next subscribe of a topic its old messages come
// in still, which belong to neither.
func (c *Client) liveSubscription(topic []byte) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.subscriptions[string(topic)]; s != nil && s.live {
		return s
	}
	return nil
}

// handleDrain leaves when the time that the server gives is nearly over. It is
// this client's own, and the server spreads its clients evenly: to draw another
// moment out of it would have a third of them arrive at the next server in the
// first second. What is left of it is for answers that are still to come.
func (c *Client) handleDrain(cn *conn, event *protocol.Event) {
	if cn.asked {
		return
	}
	cn.asked = true
	grace := milliseconds(event.ReconnectAfterMs)
	leave := grace - min(grace/4, answersWait)
	c.log.Info("server asks to leave", "within", grace, "leaving_in", leave)
	cn.after(leave, func() { cn.leave(grace - leave) })
}
