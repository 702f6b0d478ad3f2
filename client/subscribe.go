package client

import (
	"context"
	"fmt"
	"time"

	"rayflux/protocol"
)

// From says where a subscription starts.
type From struct {
	mode  protocol.FromMode
	after protocol.Position
	last  uint64
	since time.Time
}

// Live starts with the next message.
func Live() From { return From{mode: protocol.FromLive} }

// Earliest starts with the oldest message there still is.
func Earliest() From { return From{mode: protocol.FromEarliest} }

// Last starts with the newest n messages.
func Last(n uint64) From { return From{mode: protocol.FromLast, last: n} }

// Since starts with the first message the topic's owner took at t or later,
// to the millisecond.
func Since(t time.Time) From { return From{mode: protocol.FromSince, since: t} }

// After starts with the message that follows p, which is a Delivery's Position
// or what Publish returned. If that cannot be done without a hole, the first
// delivery is a Gap.
func After(p protocol.Position) From { return From{mode: protocol.FromPosition, after: p} }

func (f From) command(topic string) protocol.Command {
	return protocol.Command{
		Op:    protocol.CmdSubscribe,
		Topic: []byte(topic),
		From: protocol.From{
			Mode:   f.mode,
			Epoch:  []byte(f.after.Epoch),
			Offset: f.after.Offset,
			Last:   f.last,
			Since:  min(max(f.since.UnixMilli(), 0), protocol.MaxSince),
		},
	}
}

func (f From) check() error {
	if f.mode != protocol.FromPosition {
		return nil
	}
	if _, _, err := protocol.ParsePosition([]byte(f.after.String())); err != nil {
		return fmt.Errorf("start after %q: %w", f.after, err)
	}
	return nil
}

// Subscribe starts a subscription and waits for the server's word. A client
// has one subscription per topic at most; a second one is refused with code
// already_subscribed until the first is closed. ctx bounds the waiting, not
// the subscription.
func (c *Client) Subscribe(ctx context.Context, topic string, from From) (*Subscription, error) {
	if err := protocol.CheckTopic([]byte(topic)); err != nil {
		return nil, err
	}
	if err := from.check(); err != nil {
		return nil, err
	}
	s := newSubscription(c, topic, from)
	if err := c.add(ctx, s); err != nil {
		return nil, err
	}
	select {
	case <-s.started:
		return s, nil
	case <-s.ended:
		return nil, s.reason()
	case <-ctx.Done():
		c.remove(s, nil)
		return nil, ctx.Err()
	}
}

// add makes s one of the client's subscriptions, which every new connection
// starts anew, and starts it on the present one.
func (c *Client) add(ctx context.Context, s *Subscription) error {
	for {
		c.mu.Lock()
		took, err := c.addLocked(s)
		cn, replaced := c.conn, c.replaced
		c.mu.Unlock()
		if err != nil || took != postedFull {
			return err
		}
		if err := c.waitToPost(ctx, took, cn, replaced); err != nil {
			return err
		}
	}
}

func (c *Client) addLocked(s *Subscription) (posted, error) {
	if c.closed {
		return postedGone, ErrClosed
	}
	if c.subscriptions[s.topic] != nil {
		return postedGone, &protocol.Error{
			Code:    protocol.CodeAlreadySubscribed,
			Message: "this client is subscribed to the topic already",
		}
	}
	took := c.subscribeLocked(s, false)
	if took != postedFull {
		c.subscriptions[s.topic] = s
	}
	return took, nil
}

// subscribeLocked posts the subscribe command of s: from where the caller
// wants to start, or, once started, from behind the last delivery in its queue.
func (c *Client) subscribeLocked(s *Subscription, forced bool) posted {
	cmd := s.next().command(s.topic)
	return c.conn.post(&cmd, &call{op: protocol.CmdSubscribe, subscription: s}, forced)
}

// remove ends s here and at the server. Both happen under one lock with
// posting, so that a later subscribe of the same topic comes later on the wire
// too. done, if not nil, is finished when the server has confirmed. It reports
// whether the server was asked at all: an unconnected client just forgets.
func (c *Client) remove(s *Subscription, done *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.end(ErrClosed, true)
	if c.subscriptions[s.topic] != s {
		return false
	}
	delete(c.subscriptions, s.topic)
	if s.retry != nil {
		s.retry.Stop()
	}
	if done == nil {
		done = &call{op: protocol.CmdUnsubscribe}
	}
	cmd := protocol.Command{Op: protocol.CmdUnsubscribe, Topic: []byte(s.topic)}
	return c.conn.post(&cmd, done, true) == postedSent
}

// handleSubscribed starts or resumes s. The three outcomes of asking for a
// position: recovered, the sequence goes on; partial, it goes on and the
// server tells of the gap where it comes; neither, the gap is here and now.
func (c *Client) handleSubscribed(cn *conn, s *Subscription, event *protocol.Event) error {
	if !c.current(s) {
		return nil // closed meanwhile; the unsubscribe is under way
	}
	now := protocol.Position{Epoch: event.Epoch, Offset: event.Offset}
	asked := s.next()
	if asked.mode != protocol.FromPosition {
		s.start(now, false)
	} else if event.Recovered || event.Partial {
		s.start(asked.after, event.Recovered)
	} else {
		c.log.Warn("subscription could not be resumed", "topic", s.topic, "after", asked.after, "now", now)
		s.start(asked.after, false)
		if err := s.push(cn, Delivery{Topic: s.topic, Position: now, Gap: &Gap{Reason: protocol.GapReset}}); err != nil {
			return err // the next connection is asked for the same position
		}
	}
	s.live, s.refusals = true, 0
	return nil
}

// handleRefused is a subscribe that the server answered with an error. The
// first one is the caller's to judge. A subscription that has started outlives
// errors that pass, and ends with one that does not.
func (c *Client) handleRefused(cn *conn, s *Subscription, refused *protocol.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subscriptions[s.topic] != s {
		return
	}
	if !s.hasStarted() || !passes(refused.Code) {
		delete(c.subscriptions, s.topic)
		s.end(refused, false)
		return
	}
	pace := backoff{min: c.options.MinBackoff, max: c.options.MaxBackoff, failures: s.refusals}
	wait := pace.after(refused)
	s.refusals++
	c.log.Warn("subscription refused for now", "topic", s.topic, "error", refused, "retry_in", wait)
	s.retry = time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.conn == cn && c.subscriptions[s.topic] == s {
			c.subscribeLocked(s, true)
		}
	})
}

// passes reports whether what the server refuses now it may grant later.
func passes(code protocol.Code) bool {
	switch code {
	case protocol.CodeNoOwner, protocol.CodeOverloaded, protocol.CodeRateLimited, protocol.CodeDraining,
		protocol.CodeInternal, protocol.CodeStoreUnavailable, protocol.CodeTooManyTopics, protocol.CodeTimeout:
		return true
	}
	return false
}

// current reports whether s is still its topic's subscription.
func (c *Client) current(s *Subscription) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subscriptions[s.topic] == s
}
