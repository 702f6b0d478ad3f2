package engine

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"rayflux/protocol"
)

// waker is what a loop needs of the reactor it runs in.
type waker interface {
	wake()        // makes the reactor call readMail soon. Safe from any goroutine
	arm(at int64) // makes the reactor call alarmed at that time of the loop's clock; one alarm at a time. The loop's own
}

// shared is what the loops of one server count together.
type shared struct {
	connections counter // open now
	awaited     counter // of these, those that a drain waits for: they were there before it, and are no links
	topics      counter
	draining    flag
	survey      atomic.Pointer[survey] // the one under way, or the last
	drained     counter                // loops that have begun to drain
	estates     counter                // loops that may have topics to hand over before a drain is over
	idle        chan struct{}          // one token: draining, and the last connection that is awaited is gone
	strangers   seldom                 // peers without the cluster's key that the log has named
	away        seldom                 // nodes that cannot be linked that the log has named
}

// loop is one event loop's world: its connections, the topics at home here, its subscribers' mirrors. One goroutine at a
// time runs its methods, the reactor's; other loops reach it through mailbox, batches.returned and mailbox.emptied.
type loop struct {
	index  int
	peers  []*loop
	cfg    *Config
	shared *shared
	waker  waker
	clock  func() int64 // monotonic nanoseconds
	wall   func() int64 // Unix nanoseconds
	zero   int64        // Unix nanoseconds at clock 0
	skew   int64        // milliseconds that the wall clock was set forward since
	now    int64        // clock at the start of this event
	busy   bool         // between begin and finish
	rand   *rand.Rand

	conns       []*conn
	topics      map[string]*topic
	mirrors     map[string]*mirror
	mirrorsBorn uint64
	chunks      chunks
	batches     batches
	blocks      blocks // for connections' buffers
	wheel       wheel  // connections' and topics' timers
	retries     wheel  // lagging connections
	lags        *lag   // free list
	mailbox     mailbox
	up          *upstream // in a balancer: where the topics' messages come from
	estate      *estate   // in a node of a cluster: which topics are its own
	keeper      *keeper   // in a node with a store: what brings messages there, and back
	outbox      []*parcel // by loop; what this round has written to it
	outgoing    bool
	parcels     *parcel // free list
	unread      *parcel // taken from the mailbox, and left for the next event, oldest first

	dirty      []*topic // with a front to seal
	urgent     bool     // a front is large: do not wait
	sealed     []sealed // batches not yet handed over
	pendings   []pending
	dirtyConns []*conn
	inPass     []*batch
	answering  []*conn
	flushed    int64 // when the last pass ended
	passTook   int64
	armed      int64 // when the reactor will call, 0: no call is set

	viewBytes, topicBytes, logMax int64
	buffered, bufferMax           int64
	mailMax                       int64
	reads, readsMax               int64 // of subscriptions that are behind, under way to other loops
	retryRoom                     int64 // bytes that retries may still write in this event

	// Scratch, good until the next use; what is called in between must not use it.
	errand  errand
	scratch []byte
	name    []byte
	trailer []byte
	bufs    [][]byte
	parse   protocol.Scratch

	surveyor surveyor
	tally    tally
	metrics  metrics
}

const (
	wheelShift   = 26 // 67 ms
	wheelSlots   = 512
	retryShift   = 20 // 1 ms
	retrySlots   = 64
	timersMax    = 512 // of one event
	heartbeatMax = int64(time.Second)
)

func newLoop(index int, cfg *Config, sh *shared, w waker, clock, wall func() int64, zero int64, seed uint64) *loop {
	now := clock()
	n := int64(cfg.Loops)
	l := &loop{
		index: index, cfg: cfg, shared: sh, waker: w, clock: clock, wall: wall, zero: zero, now: now,
		rand:    rand.New(rand.NewPCG(seed, uint64(index))),
		topics:  make(map[string]*topic),
		mirrors: make(map[string]*mirror),
		wheel:   newWheel(wheelShift, wheelSlots, now),
		retries: newWheel(retryShift, retrySlots, now),
		outbox:  make([]*parcel, cfg.Loops),
		logMax:  cfg.LogMemory / n, bufferMax: cfg.BufferMemory / n, mailMax: max(cfg.MailMemory/n, 1),
		pendings: make([]pending, 1),
		bufs:     make([][]byte, 0, writeRanges+2),
		surveyor: surveyor{since: now},
	}
	l.chunks.freeMax = l.logMax / 16
	l.blocks.freeMax = min(l.bufferMax/16, 1<<20)
	l.readsMax = max(l.mailMax/readBytesMax, 1)
	l.metrics.init()
	return l
}

// logMs is the time of this event by which logs are stamped and aged: Unix milliseconds as far as could be known at the
// start. It follows the monotonic clock, so that setting the wall clock neither ages a log nor turns its order round;
// add skew to show it to somebody.
func (l *loop) logMs() int64 { return (l.zero + l.now) / int64(time.Millisecond) }

// begin is called by the reactor before it hands the loop an event.
func (l *loop) begin() { l.now, l.busy = l.clock(), true }

// finish is called by the reactor after each event: answers go out, other loops get their mail, and a flush is made or
// its time is set.
func (l *loop) finish() {
	switch {
	case l.up != nil:
		l.up.settle()
	case l.estate != nil:
		l.estate.settle()
	}
	for i := 0; i < len(l.answering); i++ {
		c := l.answering[i]
		c.answering = false
		l.answering[i] = nil
		c.flushAnswers()
	}
	l.answering = l.answering[:0]
	l.takeReturned()
	if due := l.flushDue(); due <= l.now || l.urgent {
		l.flush()
	}
	if l.keeper != nil {
		l.keeper.settle()
	}
	l.dispatch()
	if l.tally != (tally{}) {
		l.tally.count(&l.metrics)
		l.tally = tally{}
	}
	l.setAlarm()
	l.busy = false
}

// look takes the directory's newest view.
func (l *loop) look() {
	switch {
	case l.up != nil:
		l.up.look()
	case l.estate != nil:
		l.estate.look()
	}
}

const never = int64(math.MaxInt64)

// flushDue is when the next flush may be made; never if there is nothing to flush. An idle loop flushes at once; a busy
// one leaves time between its passes, so that batches grow just where writes are the bottleneck.
func (l *loop) flushDue() int64 {
	if len(l.dirty) == 0 && len(l.dirtyConns) == 0 && len(l.inPass) == 0 && len(l.sealed) == 0 {
		return never
	}
	return l.flushed + min(l.passTook, int64(l.cfg.TickMax))
}

// alarmed is the reactor's call at the time that arm was given.
func (l *loop) alarmed() {
	l.armed = 0
	l.metrics.beat.Store(l.now)
	l.metrics.logBytes.Store(l.logBytes())
	l.metrics.bufferBytes.Store(l.buffered) // before timers say something that waits for the end of this event
	l.retryRoom = retryBytes
	l.retries.advance(l, l.now, tries)
	l.wheel.advance(l, l.now, timersMax)
	l.watchClock()
}

// clockSteps is the least that the wall clock must have been set by to count. Less is this goroutine having been away
// between two readings.
const clockSteps = 20 * int64(time.Millisecond)

// watchClock finds out whether the wall clock was set.
func (l *loop) watchClock() {
	before := l.clock()
	wall := l.wall()
	if l.clock()-before > clockSteps/2 {
		return // no telling when the wall clock was read
	}
	if skew := wall - l.zero - before; max(skew-l.skew*int64(time.Millisecond), l.skew*int64(time.Millisecond)-skew) > clockSteps {
		l.skew = skew / int64(time.Millisecond)
	}
}

// setAlarm asks the reactor to call when the next thing is due, if that is sooner than the call already set.
func (l *loop) setAlarm() {
	at := min(l.flushDue(), l.retries.first, l.wheel.first, l.now+heartbeatMax)
	if l.up != nil && l.up.sweep || l.estate != nil && l.estate.busy() {
		at = l.now // a link has ended while answers went out, or one takes more
	}
	if l.armed != 0 && l.armed <= max(at, l.now) { // a call that is due already comes: asking again would put it off
		return
	}
	l.armed = max(at, l.now+1)
	l.waker.arm(l.armed)
}
