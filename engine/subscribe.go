package engine

import "rayflux/protocol"

// subscribe makes a subscription for an errand whose topic, start and connection are set, and sends the errand home.
func (l *loop) subscribe(e *errand, f protocol.Format) {
	s := &subscription{conn: e.conn, mirror: l.mirrorOf(e.name, e.hash), format: f}
	e.conn.subs = append(e.conn.subs, s)
	e.sub = s
	l.metrics.subscriptions.Add(1)
	l.run(e)
}

// answered brings the outcome of an errand to its connection: the subscription first learns where it stands, then the
// role tells the client.
func (c *conn) answered(e *errand) {
	l := c.loop
	switch e.op {
	case opRead:
		l.readAnswered(e)
		return
	case opSubscribe:
		if e.sub.state == subAsked { // else it has ended before it began: its home was told, its client is still answered
			l.start(e)
		}
	}
	if !c.closed && !c.parting {
		c.role.answered(c, e)
	}
}

// start places a new subscription's cursor: at the head, to be live with the next batch, or behind it, to read the log.
func (l *loop) start(e *errand) {
	s := e.sub
	if e.err != nil {
		e.conn.removeSubscription(s)
		l.end(s)
		return
	}
	s.mirror.topic = e.topic
	s.next = e.offset + 1
	if e.from.Mode != protocol.FromLive {
		l.metrics.recovery(e.whole)
	}
	if s.next <= e.head {
		l.lag(s)
		return
	}
	s.mirror.add(s, subJoining)
}

// subscriptionTo finds the connection's subscription to a topic. Linear: a connection has few.
func (c *conn) subscriptionTo(topic []byte) *subscription {
	for _, s := range c.subs {
		if s.mirror.name == string(topic) {
			return s
		}
	}
	return nil
}

func (c *conn) removeSubscription(s *subscription) {
	for i, o := range c.subs {
		if o == s {
			last := len(c.subs) - 1
			copy(c.subs[i:], c.subs[i+1:]) // in order: an event stream's ids go by it
			c.subs[last] = nil
			c.subs = c.subs[:last]
			return
		}
	}
}
