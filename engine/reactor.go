package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
	"golang.org/x/sys/unix"
)

// reactor is the engine's use of gnet, and the only file that knows it. Each gnet loop accepts its own share of the
// connections (SO_REUSEPORT): accept and open then happen on one thread, so that connections past the limit are closed
// before the next one is accepted, and descriptors cannot run out, which would stop gnet.
type reactor struct {
	gnet.BuiltinEventEngine
	server *Server
	engine gnet.Engine
	wakers []*fdWaker
	listen string

	once   sync.Once
	opened chan struct{} // closed by the first connection: the loops run

	mu    sync.RWMutex
	bound map[gnet.EventLoop]*loop
	ended bool // the loops are gone, and the wakers closed
}

func newReactor(s *Server) (*reactor, error) {
	listen, addr, err := probe(s.cfg.Listen)
	if err != nil {
		return nil, err
	}
	s.addr = addr
	r := &reactor{server: s, listen: listen, opened: make(chan struct{}), bound: make(map[gnet.EventLoop]*loop)}
	for range s.cfg.Loops {
		w, err := newWaker(s.clock)
		if err != nil {
			return nil, err
		}
		r.wakers = append(r.wakers, w)
	}
	return r, nil
}

// probe finds out, by listening for a moment, whether the address is free, and which port 0 becomes. gnet's own
// listeners share their port, and would share it with another server just as silently.
func probe(address string) (listen string, addr net.Addr, err error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, err
	}
	defer ln.Close()
	tcp := ln.Addr().(*net.TCPAddr)
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", nil, err
	}
	return "tcp://" + net.JoinHostPort(host, fmt.Sprint(tcp.Port)), tcp, nil
}

func (r *reactor) start() error {
	ended := make(chan error, 1)
	go func() {
		err := gnet.Run(r, r.listen,
			gnet.WithReusePort(true),
			gnet.WithReuseAddr(true), // or a restart's probe fails while old connections are in TIME_WAIT
			gnet.WithNumEventLoop(len(r.server.loops)),
			gnet.WithLockOSThread(true),
			gnet.WithReadBufferCap(readBufferBytes),
			gnet.WithTCPNoDelay(gnet.TCPNoDelay),
			gnet.WithLogger(gnetLog{r.server.cfg.Log}),
			gnet.WithLogLevel(logging.ErrorLevel),
		)
		ended <- err
		if err == nil {
			err = ErrStopped
		}
		r.server.err = err
		r.mu.Lock()
		r.ended = true
		for _, w := range r.wakers {
			w.close()
		}
		r.mu.Unlock()
		close(r.server.done)
	}()
	// gnet says nowhere that its loops run; a connection of our own does.
	if err := r.knock(ended); err != nil {
		return err
	}
	for i, w := range r.wakers {
		if err := r.bind(r.server.loops[i], w); err != nil {
			r.server.Stop()
			return err
		}
	}
	return nil
}

// knock opens connections to the new server until one is taken.
func (r *reactor) knock(ended chan error) error {
	for {
		c, err := net.DialTimeout("tcp", r.server.addr.String(), time.Second)
		if err == nil {
			defer c.Close()
		}
		select {
		case err := <-ended:
			return err
		case <-r.opened:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// bind gives a gnet loop to one of ours, by enrolling the descriptors that wake it. gnet's balancer takes its loops in
// turn, and is asked by nobody else.
func (r *reactor) bind(l *loop, w *fdWaker) error {
	first, err := w.conn(w.event)
	if err != nil {
		return err
	}
	result, err := r.engine.Register(gnet.NewNetConnContext(gnet.NewContext(context.Background(), w), first))
	if err != nil {
		return err
	}
	res := <-result
	if res.Err != nil {
		return res.Err
	}
	el := res.Conn.EventLoop()
	r.mu.Lock()
	taken := r.bound[el] != nil
	r.bound[el] = l
	r.mu.Unlock()
	if taken {
		return errors.New("gnet gave one event loop twice")
	}
	w.loop.Store(l)
	second, err := w.conn(w.timer)
	if err != nil {
		return err
	}
	result, err = el.Enroll(gnet.NewContext(context.Background(), alarm{w}), second)
	if err != nil {
		return err
	}
	res = <-result
	w.wake() // a loop sets its alarm at the end of an event: this is its first
	return res.Err
}

// stop tells gnet to end its loops. Its Stop looks for the end only every half second; done is closed when it comes.
func (r *reactor) stop() { go func() { _ = r.engine.Stop(context.Background()) }() }

// readBufferBytes is what one read takes from a socket at most, and so how much one connection gets done in its turn.
const readBufferBytes = 64 << 10

func (r *reactor) OnBoot(e gnet.Engine) gnet.Action {
	r.engine = e
	return gnet.None
}

func (r *reactor) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	if c.Context() != nil { // one of our own wakers
		return nil, gnet.None
	}
	r.mu.RLock()
	l := r.bound[c.EventLoop()]
	r.mu.RUnlock()
	if l == nil { // our own knock, or somebody faster than our start
		r.once.Do(func() { close(r.opened) })
		return nil, gnet.Close
	}
	l.begin()
	conn, refusal := l.open(&descriptor{conn: c, fd: c.Fd()})
	if conn == nil {
		return refusal, gnet.Close
	}
	c.SetContext(conn)
	l.finish()
	return nil, gnet.None
}

func (r *reactor) OnTraffic(c gnet.Conn) gnet.Action {
	b, _ := c.Next(-1)
	switch owner := c.Context().(type) {
	case *conn:
		l := owner.loop
		l.begin()
		owner.traffic(b)
		l.finish()
	case *fdWaker: // mail
		if l := owner.loop.Load(); l != nil {
			l.begin()
			l.readMail()
			l.finish()
		}
	case alarm:
		if l := owner.loop.Load(); l != nil {
			l.begin()
			l.alarmed()
			l.metrics.busy.Store(threadTime())
			l.finish()
		}
	}
	return gnet.None
}

func (r *reactor) OnClose(c gnet.Conn, _ error) gnet.Action {
	if conn, ok := c.Context().(*conn); ok {
		conn.loop.closedBy(conn)
	}
	return gnet.None
}

// descriptor is the socket of a connection: raw calls on gnet's descriptor. gnet's own buffers are never used: what the
// kernel refuses stays with the cursors.
type descriptor struct {
	conn gnet.Conn
	fd   int
}

func (d *descriptor) write(bufs [][]byte) (int, error) { return rawWrite(d.fd, bufs) }
func (d *descriptor) closeWrite()                      { _ = unix.Shutdown(d.fd, unix.SHUT_WR) }
func (d *descriptor) peer() string                     { return d.conn.RemoteAddr().String() }
func (d *descriptor) close()                           { _ = d.conn.Close() }

// gnetLog passes gnet's few words on.
type gnetLog struct{ log logger }

type logger interface {
	Debug(msg string, args ...any)
	Error(msg string, args ...any)
}

func (g gnetLog) Debugf(f string, a ...any) { g.log.Debug(fmt.Sprintf("gnet: "+f, a...)) }
func (g gnetLog) Infof(f string, a ...any)  { g.log.Debug(fmt.Sprintf("gnet: "+f, a...)) }
func (g gnetLog) Warnf(f string, a ...any)  { g.log.Debug(fmt.Sprintf("gnet: "+f, a...)) }
func (g gnetLog) Errorf(f string, a ...any) { g.log.Error(fmt.Sprintf("gnet: "+f, a...)) }
func (g gnetLog) Fatalf(f string, a ...any) {
	g.log.Error(fmt.Sprintf("gnet: "+f, a...))
	os.Exit(1)
}
