package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
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

	dialing context.Context // ends with the engine
	undial  context.CancelFunc

	knocks   map[string]bool // where our own connections, which find out that the loops run, come from
	opened   chan struct{}   // closed by the first that a loop takes
	once     sync.Once
	stopping atomic.Bool

	mu      sync.RWMutex
	bound   map[gnet.EventLoop]*loop
	events  []gnet.EventLoop               // by loop
	waiting map[gnet.EventLoop][]gnet.Conn // connections that came before their loop was bound
	ended   bool                           // the loops are gone, and the wakers closed
}

func newReactor(s *Server) (*reactor, error) {
	listen, addr, err := probe(s.cfg.Listen)
	if err != nil {
		return nil, err
	}
	s.addr = addr
	r := &reactor{server: s, listen: listen, opened: make(chan struct{}),
		bound: make(map[gnet.EventLoop]*loop), waiting: make(map[gnet.EventLoop][]gnet.Conn), knocks: make(map[string]bool)}
	r.events = make([]gnet.EventLoop, s.cfg.Loops)
	r.dialing, r.undial = context.WithCancel(context.Background())
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
		if err == nil && !r.stopping.Load() {
			err = errors.New("an event loop ended by itself") // gnet has logged why
		}
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
	err := r.knock(ended)
	if err == nil {
		err = r.enroll()
	}
	if err != nil {
		r.server.Stop()
	}
	return err
}

// knock connects to the new server until a loop takes the connection: gnet says nowhere that its loops run.
func (r *reactor) knock(ended chan error) error {
	to := *r.server.addr.(*net.TCPAddr)
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 1)
	}
	var err error
	for range knocksMax {
		var c net.Conn
		if c, err = r.knockOnce(to); err == nil {
			defer c.Close()
			err = errors.New("nobody has taken the connection")
		}
		select {
		case err := <-ended:
			return err
		case <-r.opened:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("the loops have not started: %w", err)
}

const knocksMax = 500

// knockOnce chooses the source port beforehand, so that OnOpen knows the connection for ours.
func (r *reactor) knockOnce(to net.TCPAddr) (net.Conn, error) {
	port, err := net.Listen("tcp", net.JoinHostPort(to.IP.String(), "0"))
	if err != nil {
		return nil, err
	}
	from := port.Addr()
	port.Close()
	r.mu.Lock()
	r.knocks[from.String()] = true
	r.mu.Unlock()
	dialer := net.Dialer{LocalAddr: from, Timeout: time.Second}
	return dialer.Dial("tcp", to.String())
}

// enroll puts the two descriptors that wake a loop into its poll set. gnet's balancer takes its loops in turn, and is
// asked by nobody else, so that each of ours gets one of its own.
func (r *reactor) enroll() error {
	for _, w := range r.wakers {
		event, err := w.conn(w.event)
		if err != nil {
			return err
		}
		result, err := r.engine.Register(gnet.NewNetConnContext(gnet.NewContext(context.Background(), w), event))
		if err != nil {
			return err
		}
		first := <-result // OnOpen has bound the loop
		if first.Err != nil {
			return first.Err
		}
		timer, err := w.conn(w.timer)
		if err != nil {
			return err
		}
		result, err = first.Conn.EventLoop().Enroll(gnet.NewContext(context.Background(), alarm{w}), timer)
		if err != nil {
			return err
		}
		if second := <-result; second.Err != nil {
			return second.Err
		}
		w.wake() // a loop sets its alarm at the end of an event: this is its first
	}
	return nil
}

// stop tells gnet to end its loops. Its Stop looks for the end only every half second; done is closed when it comes.
func (r *reactor) stop() {
	r.stopping.Store(true)
	r.undial()
	go func() { _ = r.engine.Stop(context.Background()) }()
}

// readBufferBytes is what one read takes from a socket at most, and so how much one connection gets done in its turn.
const readBufferBytes = 64 << 10

func (r *reactor) OnBoot(e gnet.Engine) gnet.Action {
	r.engine = e
	return gnet.None
}

func (r *reactor) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	switch w := c.Context().(type) {
	case *fdWaker:
		r.bind(c.EventLoop(), w.loop)
		return nil, gnet.None
	case alarm:
		return nil, gnet.None
	case *arrival:
		r.arrive(c, w)
		return nil, gnet.None
	}
	r.mu.RLock()
	l := r.bound[c.EventLoop()]
	r.mu.RUnlock()
	if l == nil {
		return nil, r.early(c)
	}
	return r.adopt(l, c)
}

// early keeps a connection that came before its loop was bound; gnet keeps its bytes. Our own knock is not one.
func (r *reactor) early(c gnet.Conn) gnet.Action {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.knocks[c.RemoteAddr().String()] {
		r.once.Do(func() { close(r.opened) })
		return gnet.Close
	}
	r.waiting[c.EventLoop()] = append(r.waiting[c.EventLoop()], c)
	return gnet.None
}

// bind gives one of gnet's loops to one of ours. Runs in that loop.
func (r *reactor) bind(el gnet.EventLoop, l *loop) {
	r.mu.Lock()
	if r.bound[el] != nil {
		bug("gnet gave one event loop twice")
	}
	r.bound[el] = l
	r.events[l.index] = el
	waiting := r.waiting[el]
	delete(r.waiting, el)
	r.mu.Unlock()
	for _, c := range waiting {
		if refusal, action := r.adopt(l, c); action == gnet.Close {
			_, _ = c.Write(refusal)
			_ = c.Close()
		} else if c.InboundBuffered() > 0 {
			r.OnTraffic(c)
		}
	}
}

// adopt makes a connection one of a loop's. Runs in that loop.
func (r *reactor) adopt(l *loop, c gnet.Conn) ([]byte, gnet.Action) {
	l.begin()
	conn, refusal := l.open(&descriptor{conn: c, fd: c.Fd()})
	if conn == nil {
		return refusal, gnet.Close
	}
	c.SetContext(conn)
	l.finish()
	return nil, gnet.None
}

// arrival is a link on its way into the loop that wanted it.
type arrival struct {
	link *uplink
	made Link
}

// dial makes a link on a goroutine of its own and enrols it in the loop that wants it, or tells it why not.
func (r *reactor) dial(l *loop, k *uplink) {
	address := k.owner.address
	go func() {
		made, err := r.server.cfg.Links.Dial(r.dialing, address, k.purpose)
		if err == nil {
			err = r.enter(l, &arrival{k, made})
		}
		if err != nil {
			r.server.mail(l, mail{kind: mailUnlinked, link: k, err: err})
		}
	}()
}

// enter puts a link into the poll set of its loop, whose OnOpen takes it.
func (r *reactor) enter(l *loop, a *arrival) error {
	r.mu.RLock()
	events := r.events[l.index]
	r.mu.RUnlock()
	result, err := events.Enroll(gnet.NewContext(context.Background(), a), a.made.Conn)
	if err != nil {
		return err
	}
	return (<-result).Err
}

// arrive gives a link to its loop. Runs in that loop.
func (r *reactor) arrive(c gnet.Conn, a *arrival) {
	l := a.link.owner.loop
	l.begin()
	conn := l.linked(&descriptor{conn: c, fd: c.Fd()}, a.link, &a.made)
	c.SetContext(conn)
	if len(a.made.Early) > 0 {
		conn.traffic(a.made.Early)
	}
	l.finish()
}

func (r *reactor) OnTraffic(c gnet.Conn) gnet.Action {
	switch owner := c.Context().(type) {
	case *conn:
		l := owner.loop
		b, _ := c.Next(-1)
		l.begin()
		owner.traffic(b)
		l.finish()
	case *fdWaker: // mail
		_, _ = c.Discard(-1)
		owner.loop.begin()
		owner.loop.readMail()
		owner.loop.finish()
	case alarm:
		_, _ = c.Discard(-1)
		l := owner.loop
		l.begin()
		l.alarmed()
		l.metrics.busy.Store(threadTime())
		l.finish()
	}
	return gnet.None // without an owner it waits for its loop to be bound
}

func (r *reactor) OnClose(c gnet.Conn, _ error) gnet.Action {
	if conn, ok := c.Context().(*conn); ok {
		l := conn.loop
		if l.busy { // closed by us, in the middle of an event
			l.bury(conn)
			return gnet.None
		}
		l.begin()
		l.bury(conn)
		l.finish()
		return gnet.None
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	el := c.EventLoop()
	if i := slices.Index(r.waiting[el], c); i >= 0 {
		r.waiting[el] = slices.Delete(r.waiting[el], i, i+1)
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
