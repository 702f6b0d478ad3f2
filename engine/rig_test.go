package engine

import (
	"errors"
	"testing"
	"time"
)

// rig runs the loops of one server on the test's goroutine. Its clock stands still until the test moves it, its wakers
// only take note, and its sockets are bytes: whatever the kernel and gnet would do happens when the test says so, which
// is what makes a failure repeatable.
type rig struct {
	tb     testing.TB
	cfg    *Config
	shared *shared
	loops  []*loop
	wakers []*fakeWaker
	now    int64        // nanoseconds, the clock of all loops
	set    int64        // nanoseconds by which somebody has set the wall clock forward
	drift  func() int64 // how far the clock moves each time a loop looks at it; nil: it stands still
	cables *cables      // a balancer's: to its nodes, which settle and age with it
	shelf  *shelf       // where messages are kept; nil: they are not
	read   []byte       // what a read event hands to a connection; overwritten when the event is over
}

// rigEpoch is the wall clock at nanosecond 0 of every rig: 2026-01-02 03:04:05 UTC.
const rigEpoch = 1767323045 * int64(time.Second)

const msec = time.Millisecond

// fakeWaker notes what a loop asked of its reactor.
type fakeWaker struct {
	woken    bool
	deadline int64 // 0: none
}

func (w *fakeWaker) wake()        { w.woken = true }
func (w *fakeWaker) arm(at int64) { w.deadline = at }

// testConfig is DefaultConfig, settled, with the given number of loops.
func testConfig(loops int) Config {
	cfg := DefaultConfig()
	cfg.Loops = loops
	cfg.Version = "test"
	return cfg
}

func newRig(tb testing.TB, cfg Config, seed uint64) *rig {
	cfg.settle()
	r := &rig{tb: tb, cfg: &cfg, shared: &shared{idle: make(chan struct{}, 1)}, now: int64(time.Second)}
	for i := range cfg.Loops {
		w := &fakeWaker{}
		r.wakers = append(r.wakers, w)
		r.loops = append(r.loops, newLoop(i, r.cfg, r.shared, w, r.clock, r.wall, rigEpoch, seed))
	}
	for _, l := range r.loops {
		l.peers = r.loops
	}
	return r
}

func (r *rig) clock() int64 {
	if r.drift != nil {
		r.now += r.drift()
	}
	return r.now
}

func (r *rig) wall() int64 { return rigEpoch + r.now + r.set }

func (r *rig) advance(d time.Duration) {
	r.now += int64(d)
	if r.cables != nil {
		for _, n := range r.cables.nodes {
			if n != nil {
				n.now = r.now
			}
		}
	}
}

// mailed and alarmed report whether the reactor would call loop i for that.
func (r *rig) mailed(i int) bool { return r.wakers[i].woken }
func (r *rig) alarmed(i int) bool {
	at := r.wakers[i].deadline
	return at != 0 && at <= r.now
}

// deliver is the event that mail has come.
func (r *rig) deliver(i int) {
	r.wakers[i].woken = false
	l := r.loops[i]
	l.begin()
	l.readMail()
	l.finish()
}

// alarm is the event that the time has come which the loop asked for.
func (r *rig) alarm(i int) {
	r.wakers[i].deadline = 0
	l := r.loops[i]
	l.begin()
	l.alarmed()
	l.finish()
}

// settle calls loops until none is due. The clock stands still meanwhile, so it must come to an end: a loop that keeps
// asking for a call would keep a processor busy.
func (r *rig) settle() {
	r.tb.Helper()
	for range 10_000 {
		busy := r.settleOnce()
		if r.cables != nil {
			busy = r.cables.pump() || busy
		}
		if r.shelf != nil {
			busy = r.shelf.pump() || busy
		}
		if !busy {
			return
		}
	}
	r.tb.Fatal("the loops never come to rest")
}

// settleOnce calls each loop that is due, and reports whether there was one.
func (r *rig) settleOnce() (busy bool) {
	for i := range r.loops {
		if r.mailed(i) {
			busy = true
			r.deliver(i)
		}
		if r.alarmed(i) {
			busy = true
			r.alarm(i)
		}
	}
	return busy
}

// pass lets time go by in steps, with all that becomes due in between.
func (r *rig) pass(d, step time.Duration) {
	r.tb.Helper()
	for ; d > 0; d -= step {
		r.settle()
		r.advance(min(d, step))
	}
	r.settle()
}

// connect opens a connection on a loop. Past max-connections what comes back is a socket that has the refusal in it and
// is closed.
func (r *rig) connect(loop int) *fakeSocket {
	l := r.loops[loop]
	s := &fakeSocket{rig: r, loop: l, capacity: 1 << 30}
	l.begin()
	c, refusal := l.open(s)
	if c == nil {
		s.kernel, s.broken, s.ended = refusal, true, true
		return s
	}
	s.conn = c
	l.finish()
	return s
}

// feed is one read event: the connection's loop is handed b, which is gone when the event is over.
func (r *rig) feed(s *fakeSocket, b []byte) {
	if s.gone() {
		return
	}
	r.read = append(r.read[:0], b...)
	s.loop.begin()
	s.conn.traffic(r.read)
	for i := range r.read {
		r.read[i] = 0xDD // a slice kept by mistake must not look right
	}
	s.loop.finish()
}

// hangUp is the event that the peer has gone, or that the close the engine asked for has been made.
func (r *rig) hangUp(s *fakeSocket) {
	if s.conn == nil || s.conn.closed && !s.closing {
		return
	}
	s.closing = false
	s.broken = true
	s.loop.begin()
	s.loop.bury(s.conn)
	s.loop.finish()
}

var errFakeReset = errors.New("connection reset by peer")

// fakeSocket is both the socket of a connection and the kernel's buffer behind it.
type fakeSocket struct {
	rig      *rig
	loop     *loop
	conn     *conn
	capacity int    // bytes the kernel keeps for a peer that does not read
	kernel   []byte // taken from the engine, not yet read by the peer
	sink     bool   // the kernel takes everything and forgets it; only counts
	taken    int    // bytes taken in all
	writes   int
	broken   bool // the peer is gone: writes fail
	ended    bool // the engine has closed its half
	closing  bool // the engine asked for the close; its event is still to come
	lazy     bool // the close event comes later, as gnet's does
}

func (s *fakeSocket) gone() bool { return s.conn == nil || s.conn.closed || s.closing || s.broken }

func (s *fakeSocket) write(bufs [][]byte) (int, error) {
	s.writes++
	switch {
	case s.broken:
		return 0, errFakeReset
	case s.ended:
		s.rig.tb.Fatal("the engine writes after it has closed its half of the stream")
	case s.closing:
		s.rig.tb.Fatal("the engine writes to a connection it has closed")
	case len(bufs) == 0 || len(bufs) > writeRanges+2:
		s.rig.tb.Fatalf("a write of %d buffers", len(bufs))
	}
	n := 0
	for _, b := range bufs {
		if len(b) == 0 {
			s.rig.tb.Fatal("an empty buffer in a write")
		}
		if s.sink {
			n += len(b)
			continue
		}
		part := b[:max(min(len(b), s.capacity-len(s.kernel)), 0)]
		s.kernel = append(s.kernel, part...)
		n += len(part)
		if len(part) < len(b) {
			break
		}
	}
	s.taken += n
	return n, nil
}

func (s *fakeSocket) closeWrite() { s.ended = true }

func (s *fakeSocket) peer() string { return "test" }

func (s *fakeSocket) close() {
	if s.closing {
		s.rig.tb.Fatal("the engine closes a connection twice")
	}
	s.closing = true
	if !s.lazy {
		s.closing = false
		s.loop.bury(s.conn)
	}
}

// readSome takes up to n bytes out of the kernel, as the peer's read does.
func (s *fakeSocket) readSome(n int) []byte {
	n = min(n, len(s.kernel))
	b := append([]byte(nil), s.kernel[:n]...)
	s.kernel = s.kernel[:copy(s.kernel, s.kernel[n:])]
	return b
}
