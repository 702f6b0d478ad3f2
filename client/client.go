package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"rayflux/protocol"
)

var (
	// ErrClosed is returned by everything that is used after its Close.
	ErrClosed = errors.New("rayflux client: closed")

	// ErrOutcomeUnknown is a publish that was on its way when the connection
	// or the topic's owner was lost, or whose caller gave up: it may or may
	// not have happened. It is never sent again behind the caller's back.
	ErrOutcomeUnknown = errors.New("outcome of the publish is unknown")
)

// Client is one connection to a RayFlux server that is replaced whenever it
// breaks. Safe from any goroutine.
type Client struct {
	options Options
	dialer  dialer
	log     *slog.Logger

	life    context.Context // ends with Close
	end     context.CancelFunc
	stopped chan struct{} // closed when run and all it started are over

	mu            sync.Mutex // taken before conn.mu and before Subscription.mu
	closed        bool
	conn          *conn         // the present one, or the last until there is another
	replaced      chan struct{} // closed when conn is replaced
	subscriptions map[string]*Subscription
}

// Dial connects to a node or a balancer and waits for its welcome. server is a
// URL (ws, wss, http or https) or host:port; a missing path is /ws. ctx bounds
// the first attempt only, whose error is returned; from then on the client
// reconnects by itself until Close.
func Dial(ctx context.Context, server string, o Options) (*Client, error) {
	o = o.withDefaults()
	d, err := newDialer(server, o)
	if err != nil {
		return nil, err
	}
	first, err := d.dial(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &Client{
		options:       o,
		dialer:        d,
		log:           o.Logger,
		stopped:       make(chan struct{}),
		replaced:      make(chan struct{}),
		subscriptions: make(map[string]*Subscription),
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.conn = first
	go c.run(first)
	return c, nil
}

// Close says goodbye to the server, which gets every command that was accepted
// before, and ends the client and its subscriptions. It waits about a second
// at most. Publishes whose answer has not come by then get ErrOutcomeUnknown.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.end()
		for _, s := range c.subscriptions {
			s.end(ErrClosed, true)
		}
		clear(c.subscriptions)
		c.conn.close(protocol.CloseNormal, errClosed)
	}
	c.mu.Unlock()
	<-c.stopped
	return nil
}

// run is the client's own goroutine: it reads one connection after the other.
func (c *Client) run(cn *conn) {
	defer close(c.stopped)
	pace := backoff{min: c.options.MinBackoff, max: c.options.MaxBackoff}
	for cn != nil {
		since := time.Now()
		c.log.Info("connected", "session", cn.session)
		reason := cn.serve(c.handle)
		cn.abandon()
		if c.life.Err() != nil {
			return
		}
		c.reportUnanswered(cn, reason)
		if time.Since(since) >= c.options.MaxBackoff {
			// Only a connection that lasted proves the server well. One that is
			// accepted and then dropped must not be retried at full speed.
			pace.reset()
		}
		cn = c.reconnect(&pace, cn.asked, reason)
	}
}

// reconnect tries until there is a connection, which carries on with all
// subscriptions, or the client is closed: nil. A server that asked to leave has
// spread its clients over time already, so the first attempt is immediate.
func (c *Client) reconnect(pace *backoff, atOnce bool, reason error) *conn {
	for {
		wait := pace.after(reason)
		if atOnce && pace.failures == 1 {
			wait = 0
		}
		c.log.Warn("not connected", "reason", reason, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-c.life.Done():
			return nil
		}
		var cn *conn
		if cn, reason = c.dialer.dial(c.life, c.options); reason == nil {
			if c.install(cn) {
				return cn
			}
			cn.fail(errClosed)
			return nil
		}
	}
}

// install makes cn the present connection and resumes the subscriptions on it.
// It reports false if the client has been closed meanwhile.
func (c *Client) install(cn *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.conn = cn
	for _, s := range c.subscriptions {
		s.live = false
		c.subscribeLocked(s, true)
	}
	close(c.replaced)
	c.replaced = make(chan struct{})
	return true
}

// post queues a command on the present connection, or on the next one once it
// is there, as soon as there is room. After an error it is not posted.
func (c *Client) post(ctx context.Context, cmd *protocol.Command, ca *call) error {
	for {
		c.mu.Lock()
		cn, replaced, closed := c.conn, c.replaced, c.closed
		c.mu.Unlock()
		if closed {
			return ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(cmd.Payload) > cn.messageBytesMax {
			return tooLarge(len(cmd.Payload), cn.messageBytesMax)
		}
		took := cn.post(cmd, ca, false)
		if took == postedSent {
			return nil
		}
		if err := c.waitToPost(ctx, took, cn, replaced); err != nil {
			return err
		}
	}
}

// waitToPost waits until what kept a command from being posted may have changed.
func (c *Client) waitToPost(ctx context.Context, took posted, cn *conn, replaced <-chan struct{}) error {
	var room, dead <-chan struct{}
	if took == postedFull {
		room, dead, replaced = cn.room, cn.dead, nil
	}
	select {
	case <-room:
	case <-dead:
	case <-replaced:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.life.Done():
		return ErrClosed
	}
	return nil
}

// report tells OnError, or the log, what no call returns.
func (c *Client) report(err error) {
	if c.options.OnError != nil {
		c.options.OnError(err)
		return
	}
	c.log.Warn("publish failed", "error", err)
}
