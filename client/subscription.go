package client

import (
	"context"
	"sync"
	"time"

	"rayflux/protocol"
)

// Delivery is one message, or the notice that messages were skipped. It is the
// receiver's to keep.
type Delivery struct {
	Topic    string
	Position protocol.Position // of the message; of the last one skipped
	Kind     protocol.Kind
	Payload  []byte
	Gap      *Gap // nil for a message; Kind and Payload are zero otherwise
}

// Gap says that the messages up to Delivery.Position will not come.
type Gap struct {
	Reason string // protocol.GapSlow, protocol.GapReset, or one yet to be invented
	Missed uint64 // how many; 0: not known
}

// Subscription is the messages of one topic in their order, each once, across
// any number of connections. Safe from any goroutine, though with several in
// Next only they know the order.
type Subscription struct {
	client *Client
	topic  string

	live     bool        // the reader's: the present connection has confirmed
	refusals uint        // the reader's: of the resume, in a row
	retry    *time.Timer // under Client.mu

	more chan struct{} // holds one: the queue has something
	room chan struct{} // holds one: the queue has room

	started chan struct{} // closed at the server's first confirmation
	ended   chan struct{} // closed when err is set

	mu        sync.Mutex
	err       error
	discard   bool // the consumer is gone: what is queued is of no use
	recovered bool
	begun     bool
	from      From              // until begun
	queued    protocol.Position // of the newest delivery that was queued
	consumed  protocol.Position // of the newest delivery that Next returned
	queue     queue
}

func newSubscription(c *Client, topic string, from From) *Subscription {
	return &Subscription{
		client:  c,
		topic:   topic,
		from:    from,
		more:    make(chan struct{}, 1),
		room:    make(chan struct{}, 1),
		started: make(chan struct{}),
		ended:   make(chan struct{}),
		queue:   queue{limit: c.options.Buffer},
	}
}

// Topic is the name that was subscribed to.
func (s *Subscription) Topic() string { return s.topic }

// Position is where the consumer is: of the last delivery Next returned, or
// the start. After(s.Position()) continues there, in another process too.
func (s *Subscription) Position() protocol.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.consumed
}

// Recovered reports whether a subscription that started After a position
// started without a hole. Holes of any kind and time are deliveries with a Gap.
func (s *Subscription) Recovered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recovered
}

// Next waits for the next message or gap. It returns ErrClosed after Close,
// ctx.Err(), or, behind the last delivery, the *protocol.Error with which the
// server ended the subscription for good.
func (s *Subscription) Next(ctx context.Context) (Delivery, error) {
	for {
		d, ok, err := s.pop()
		if ok || err != nil {
			return d, err
		}
		select {
		case <-s.more:
		case <-s.ended:
		case <-ctx.Done():
			return Delivery{}, ctx.Err()
		}
	}
}

func (s *Subscription) pop() (d Delivery, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.n == 0 || s.discard {
		return Delivery{}, false, s.err
	}
	d = s.queue.pop()
	s.consumed = d.Position
	notify(s.room)
	if s.queue.n > 0 {
		notify(s.more) // for another goroutine that waits in Next
	}
	return d, true, nil
}

// Close unsubscribes and waits for the server to confirm, as long as ctx
// allows. Whatever it returns, the subscription is over for this side: what is
// still queued is dropped, and Position tells how far Next got.
func (s *Subscription) Close(ctx context.Context) error {
	done := &call{op: protocol.CmdUnsubscribe, answered: make(chan answer, 1)}
	if !s.client.remove(s, done) {
		return nil
	}
	select {
	case <-done.answered:
		return nil // refused or cut off is as good: nobody is subscribed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end ends the subscription for its consumer; the first reason is kept.
func (s *Subscription) end(reason error, discard bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discard = s.discard || discard
	if s.discard {
		s.queue = queue{}
	}
	if s.err == nil {
		s.err = reason
		close(s.ended)
	}
}

func (s *Subscription) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// next is where the coming subscribe command starts.
func (s *Subscription) next() From {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return After(s.queued)
	}
	return s.from
}

func (s *Subscription) hasStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// start is the server's first confirmation; later ones change nothing.
func (s *Subscription) start(at protocol.Position, recovered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.begun = true
		s.recovered = recovered
		s.queued, s.consumed = at, at
		close(s.started)
	}
}

// push queues a delivery and moves the position on. While the queue is full it
// waits, and with it the reading of the connection. The error is the
// connection's, if it died meanwhile: the delivery is not queued, and the next
// connection brings it again.
func (s *Subscription) push(cn *conn, d Delivery) error {
	for {
		s.mu.Lock()
		if s.err != nil {
			s.mu.Unlock()
			return nil // nobody waits for it
		}
		if s.queue.push(d) {
			s.queued = d.Position
			s.mu.Unlock()
			notify(s.more)
			return nil
		}
		s.mu.Unlock()
		select {
		case <-s.room:
		case <-s.ended:
		case <-cn.dead:
			return cn.err
		}
	}
}

// position is of the newest delivery that was queued.
func (s *Subscription) position() protocol.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}
