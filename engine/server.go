package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"rayflux/protocol"
)

// Server is one running engine. Its methods are safe from any goroutine.
type Server struct {
	cfg     Config
	loops   []*loop
	shared  shared
	surveys surveys
	reactor *reactor
	addr    net.Addr
	clock   func() int64

	asking context.Context // of questions to the archive: ends with the engine
	hangUp context.CancelFunc

	done chan struct{}
	err  error // why done closed, written before
	stop sync.Once
}

// Start listens on the public port and returns when connections are accepted. The configuration is checked first; its
// errors name the setting.
func Start(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.settle()
	began := time.Now()
	s := &Server{cfg: cfg, done: make(chan struct{}), clock: func() int64 { return int64(time.Since(began)) + 1 }}
	s.shared.idle = make(chan struct{}, 1)
	s.asking, s.hangUp = context.WithCancel(context.Background())
	r, err := newReactor(s)
	if err != nil {
		return nil, err
	}
	s.reactor = r
	seed := rand.Uint64()
	for i := range cfg.Loops {
		r.wakers[i].loop = newLoop(i, &s.cfg, &s.shared, r.wakers[i], s.clock, func() int64 { return time.Now().UnixNano() }, began.UnixNano(), seed)
		s.loops = append(s.loops, r.wakers[i].loop)
	}
	for _, l := range s.loops {
		l.peers = s.loops
		switch {
		case cfg.follows():
			l.up = newUpstream(l, r)
		case cfg.Directory != nil:
			l.estate = newEstate(l, r)
		}
		if cfg.Archive != nil {
			l.keeper = newKeeper(l, s)
			if cfg.Directory == nil {
				l.keeper.inherit(cfg.Inherited)
			}
		}
	}
	if err := r.start(); err != nil {
		return nil, err
	}
	if cfg.Directory != nil {
		s.mailAll(mail{kind: mailView})
		go s.watch()
	}
	return s, nil
}

// watch tells the loops of each change of the directory's view.
func (s *Server) watch() {
	for {
		select {
		case <-s.done:
			return
		case <-s.cfg.Directory.Watch():
			s.mailAll(mail{kind: mailView})
		}
	}
}

// Addr is where the public port listens.
func (s *Server) Addr() net.Addr { return s.addr }

// Ready reports whether new clients are welcome: not while draining, nor after the end, nor in a balancer that has not
// found its nodes yet.
func (s *Server) Ready() bool {
	knows := s.cfg.Directory == nil || len(s.cfg.Directory.View().Slots) > 0
	return knows && !s.shared.draining.Load() && s.Healthy() == nil
}

// healthyWithin is how long a loop may go without a sign of life; it gives one every second when idle.
const healthyWithin = 5 * time.Second

// Healthy says what is wrong with the loops, nil if each has shown a sign of life lately.
func (s *Server) Healthy() error {
	select {
	case <-s.done:
		return fmt.Errorf("the engine has ended: %w", s.Err())
	default:
	}
	for _, l := range s.loops {
		if silent := time.Duration(s.clock() - l.metrics.beat.Load()); silent > healthyWithin {
			return fmt.Errorf("event loop %d has not answered for %v", l.index, silent.Round(time.Millisecond))
		}
	}
	return nil
}

// Done is closed when the engine has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// ErrStopped is Err after Stop.
var ErrStopped = errors.New("stopped")

// Err is why Done closed.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Drain asks every client to leave in its own slot of drain-timeout, closes those who have not, and stops. It returns
// when the last of them is gone or ctx ends, whichever is first. Who connects meanwhile is refused, and not waited for;
// links are told, and not waited for either. A node of a cluster hands its topics over before it ends.
func (s *Server) Drain(ctx context.Context) error {
	s.shared.draining.Store(true)
	s.mailAll(mail{kind: mailDrain})
	defer s.Stop()
	var err error
	select {
	case <-s.shared.idle:
	case <-s.done:
		return s.Err()
	case <-ctx.Done():
		err = fmt.Errorf("%d connections were still open, %d loops had topics: %w", s.shared.awaited.Load(), s.shared.estates.Load(), ctx.Err())
	}
	if s.cfg.Archive == nil {
		return err
	}
	sealing, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StoredTimeout)
	defer cancel()
	return errors.Join(err, s.seal(sealing))
}

// mailAll sends a letter to every loop, unless they have ended and their wakers with them.
func (s *Server) mailAll(m mail) {
	for _, l := range s.loops {
		s.mail(l, m)
	}
}

// mail sends a letter to one loop, unless it has ended. Safe from any goroutine.
func (s *Server) mail(to *loop, m mail) {
	s.reactor.mu.RLock()
	defer s.reactor.mu.RUnlock()
	if !s.reactor.ended {
		to.send(&parcel{mails: []mail{m}})
	}
}

// Stop ends everything at once. It returns when the loops have.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.hangUp()
		s.reactor.stop()
	})
	<-s.done
}

// drainWindow is the time in nanoseconds over which connections are sent away; the last ones need a moment to close.
func (c *Config) drainWindow() int64 { return int64(c.DrainTimeout) * 9 / 10 }

// drain starts the paced goodbye on one loop: each connection gets its own end within drain-timeout, evenly spread.
func (l *loop) drain() {
	window := l.cfg.drainWindow()
	conns := append([]*conn(nil), l.conns...) // closing edits the list
	for _, c := range conns {
		if !c.closed && !c.parting {
			c.sendAway(window)
		}
	}
	if l.estate != nil {
		l.estate.beginDrain(window)
	}
	if l.shared.drained.Add(1) == int64(len(l.peers)) {
		l.shared.lookIdle()
	}
}

// sendAway asks the client to leave at a moment of its own within the next window nanoseconds, and ends the connection then.
func (c *conn) sendAway(window int64) {
	c.until = 0
	slot := int64(0)
	if window > 0 {
		slot = c.loop.rand.Int64N(window)
	}
	switch leave := c.role.drain(c, uint64(time.Duration(slot).Milliseconds())); {
	case c.closed: // it could not be told
	case leave == leaveAtSlot:
		c.leaveIn(slot)
	case leave == leaveLater:
		c.leaveIn(window)
	case leave == leaveNow:
		c.part(protocol.ReasonDrain)
	}
}

// lookIdle tells Drain when nobody is left. Called when a connection has gone, when every loop has begun to drain, and when
// one has handed its topics over.
func (sh *shared) lookIdle() {
	if sh.draining.Load() && sh.awaited.Load() == 0 && sh.estates.Load() == 0 {
		select {
		case sh.idle <- struct{}{}:
		default: // said before
		}
	}
}
