package engine

import "rayflux/protocol"

// subscribe makes a subscription for an errand whose topic, start and connection are set, and sends the errand home.
func (l *loop) subscribe(e *errand, f protocol.Format) {
	s := &subscription{conn: e.conn, mirror: l.mirrorOf(e.name, e.hash), format: f}
	e.conn.addSubscription(s)
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
	s.next, s.past = e.offset+1, e.past
	if e.from.Mode != protocol.FromLive {
		l.metrics.recovery(e.whole, e.beginning())
	}
	if s.next <= e.head || s.past != "" {
		s.recovers, s.deep = true, e.topic.keeps || s.past != ""
		l.lag(s)
		return
	}
	s.mirror.add(s, subJoining)
}

func (c *conn) addSubscription(s *subscription) {
	if c.places != nil {
		c.places[s.mirror.name] = int32(len(c.subs))
	}
	c.subs = append(c.subs, s)
}

// expectMany is for a connection that may have as many subscriptions as there are topics.
func (c *conn) expectMany() {
	c.places = make(map[string]int32)
	for i, s := range c.subs {
		c.places[s.mirror.name] = int32(i)
	}
}

// subscriptionTo finds the connection's subscription to a topic.
func (c *conn) subscriptionTo(topic []byte) *subscription {
	if c.places != nil {
		if i, ok := c.places[string(topic)]; ok {
			return c.subs[i]
		}
		return nil
	}
	for _, s := range c.subs {
		if s.mirror.name == string(topic) {
			return s
		}
	}
	return nil
}

func (c *conn) removeSubscription(s *subscription) {
	last := len(c.subs) - 1
	if c.places != nil {
		i := c.places[s.mirror.name]
		delete(c.places, s.mirror.name)
		if moved := c.subs[last]; moved != s {
			c.subs[i], c.places[moved.mirror.name] = moved, i
		}
		c.subs[last] = nil
		c.subs = c.subs[:last]
		return
	}
	for i, o := range c.subs {
		if o == s {
			copy(c.subs[i:], c.subs[i+1:]) // in order: an event stream's ids go by it
			c.subs[last] = nil
			c.subs = c.subs[:last]
			return
		}
	}
}
