package engine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"rayflux/protocol"
)

// The simulation runs a whole server, several loops of it, on one goroutine. Everything the outside decides is drawn from
// a seed: who connects and speaks what, where the stream is cut, which loop runs next, how much a kernel takes, how time
// goes by. Every client is a judge (simPeer), and so are the books of the loops (rig.audit).
//
// RAYFLUX_SIM_SEED=n runs that seed alone, with its events in the log; RAYFLUX_SIM_RUNS=n runs so many.

func TestSimulation(t *testing.T) {
	if s := os.Getenv("RAYFLUX_SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		simulate(t, seed, false, t.Logf)
		return
	}
	runs := 300
	if testing.Short() || raceEnabled {
		runs = 80
	}
	first := 1
	if s := os.Getenv("RAYFLUX_SIM_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
		first = 1000 // apart from the seeds of an ordinary run
	}
	var published, delivered, gaps int
	for seed := first; seed < first+runs; seed++ {
		s := simulate(t, uint64(seed), false, func(string, ...any) {})
		for _, l := range s.loops {
			published += int(l.metrics.published.Load())
			delivered += int(l.metrics.delivered.Load())
		}
		gaps += s.gaps
	}
	t.Logf("%d runs: %d messages taken, %d deliveries, %d gaps", runs, published, delivered, gaps)
	if published < 100*runs || delivered < 100*runs || gaps < runs/10 {
		t.Error("too little happens: the simulation proves nothing")
	}
}

// sim is one run.
type sim struct {
	*rig
	seed   uint64
	step   int
	rng    *rand.Rand
	topics []string
	truth  *truth
	peers  []*simPeer
	tell   func(format string, args ...any)

	drainAt     int  // the step at which the server begins to go away; 0: none
	winding     bool // the run comes to its end
	drained     int64
	burst       int // most that a peer says at a time
	gaps, lives int
	resets      int         // epochs that ended under a reader
	flushed     []int64     // by loop: when it flushed last
	cluster     *simCluster // the topics are at nodes behind the server
}

const simSteps = 1000

func simulate(t *testing.T, seed uint64, cluster bool, tell func(string, ...any)) *sim {
	// What a pooled buffer costs depends on what the pool has: it begins empty, on one processor and without collections.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC()
	runtime.GC()
	s := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x51)), truth: newTruth(), tell: tell}
	cfg := s.config()
	if cluster {
		s.cluster = s.clusterConfig(&cfg)
	}
	s.rig = newRig(seedTB{t, s}, cfg, seed)
	defer func() {
		if what := recover(); what != nil {
			s.tb.Fatalf("panic: %v\n%s", what, debug.Stack())
		}
	}()
	s.flushed = make([]int64, cfg.Loops)
	if s.rng.IntN(2) == 0 {
		s.drift = func() int64 { return s.rng.Int64N(pick[int64](s.rng, 20_000, 20_000, 20_000, 3_000_000)) }
	}
	if s.rng.IntN(2) == 0 {
		s.shelf = emptyShelf()
		if !cluster {
			s.shelf.keep(s.rig)
		}
	}
	if cluster {
		s.startCluster()
	}
	s.tell("seed %d: kept %v, %d loops, slow %v, topics %v, log %d, buffers %d, mail %d, message %d, topic %d", seed, s.shelf != nil, cfg.Loops, cfg.Slow,
		s.topics, s.cfg.LogMemory, s.cfg.BufferMemory, s.cfg.MailMemory, s.cfg.MaxMessage, s.cfg.MaxTopicBytes)
	for s.step = range simSteps {
		if s.step == s.drainAt && s.drainAt > 0 {
			s.drain()
		}
		s.event()
		s.afterEvent()
		if s.step%8 == 0 {
			s.audit()
			s.auditNodes(false)
		}
	}
	s.wind()
	return s
}

// seedTB names the seed in whatever fails.
type seedTB struct {
	testing.TB
	sim *sim
}

// Helper costs a tenth of a run, and what fails is found by its seed.
func (tb seedTB) Helper() {}

func (tb seedTB) Fatalf(format string, args ...any) {
	tb.TB.Helper()
	name := "RAYFLUX_SIM_SEED"
	if tb.sim.cluster != nil {
		name = "RAYFLUX_CLUSTER_SEED"
	}
	tb.TB.Fatalf("seed %d, step %d (%s=%d repeats it): %s", tb.sim.seed, tb.sim.step, name, tb.sim.seed, fmt.Sprintf(format, args...))
}

func (tb seedTB) Fatal(args ...any) { tb.Fatalf("%s", fmt.Sprint(args...)) }

// one of several, drawn.
func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func (s *sim) config() Config {
	rng := s.rng
	cfg := testConfig(1 + rng.IntN(4))
	cfg.TickMax = pick(rng, time.Millisecond, 30*time.Millisecond)
	cfg.MaxMessage = pick(rng, 100, 100, 300, 300, 3000, 3000, 60_000)
	cfg.MaxBatch = 4 * cfg.MaxMessage
	cfg.MaxTopicBytes = pick(rng, 1<<10, 4<<10, 64<<10) + 2*cfg.MaxMessage
	cfg.MaxTopicAge = pick(rng, time.Second, 5*time.Second, time.Minute)
	cfg.MaxSubscriptions = pick(rng, 128, 128, 128, 2)
	cfg.MaxAnswers = pick(rng, 64<<10, 4<<10)
	cfg.MaxHeader = 1 << 10
	cfg.PingInterval = time.Hour
	cfg.HandshakeTimeout = time.Hour
	cfg.RequestTimeout = time.Hour
	cfg.Slow = pick(rng, SlowSkip, SlowLatest, SlowClose)
	cfg.SnapshotInterval = pick(rng, 10*time.Millisecond, time.Second)
	cfg.LogMemory = int64(cfg.Loops) * pick[int64](rng, 4<<10, 40<<10, 1<<20)
	cfg.BufferMemory = int64(cfg.Loops) * pick[int64](rng, 8<<10, 4<<20, 4<<20, 4<<20)
	cfg.MailMemory = int64(cfg.Loops) * pick[int64](rng, 1, 2<<10, 64<<20, 64<<20)
	s.burst = pick(rng, 20, 20, 100)
	n := 1 + rng.IntN(pick(rng, 2, 6))
	cfg.MaxTopics = pick(rng, 100_000, 100_000, 100_000, n-1)
	for i := range n {
		s.topics = append(s.topics, pick(rng, "t", "topic with a longer name ", "\u00fcml\u00e4ut/")+strconv.Itoa(i))
	}
	if rng.IntN(6) == 0 {
		s.drainAt, cfg.DrainTimeout = 1+rng.IntN(simSteps), 2*time.Second
	}
	if rng.IntN(3) == 0 {
		other := pick(rng, SlowSkip, SlowLatest, SlowClose)
		cfg.Topics = []TopicRule{{Pattern: "*1", Slow: &other, Age: 2 * time.Second}}
	}
	return cfg
}

// mayReset reports whether an epoch may end under a reader: of one that is kept he may read an earlier one.
func (s *sim) mayReset() bool { return s.mayLose() || s.shelf != nil }

// topicNamed is a topic at its owner; nil: there is none, or no telling who that is.
func (s *sim) topicNamed(name string) *topic {
	if s.cluster != nil {
		return s.topicAtOwner(name)
	}
	for _, l := range s.loops {
		if t := l.topics[name]; t != nil {
			return t
		}
	}
	return nil
}

// topicThen is a topic where what is being judged was said; nil: that may be somewhere else by now.
func (s *sim) topicThen(name string) *topic {
	if s.mayLose() {
		return nil
	}
	return s.topicNamed(name)
}

func (s *sim) policy(topic string) SlowPolicy {
	slow, _, _ := s.cfg.limitsOf(topic)
	return slow
}

// mayClose reports whether a reader can be ended for being slow.
func (s *sim) mayClose() bool {
	for _, t := range s.topics {
		if s.policy(t) == SlowClose {
			return true
		}
	}
	return false
}

// mayRefuse reports whether the limits are such that a good command can be refused.
func (s *sim) mayRefuse() bool {
	return s.draining() || s.mayOverload() || s.mayLose() || s.mayMove() || s.cfg.MaxTopics < len(s.topics)
}

// mayOverload reports whether memory is so small that loops refuse one another's commands, or cannot keep them until
// owners have answered.
func (s *sim) mayOverload() bool {
	return len(s.loops) > 1 && s.cfg.MailMemory < 1<<20 || s.shelf != nil && s.mayStarve() ||
		s.cluster != nil && (s.mayStarve() || s.mayFill() || s.mayMove() && s.mayLose())
}

// mayFill reports whether messages are so long that those which wait for a node that is away can use up the memory for them.
func (s *sim) mayFill() bool { return s.cfg.MaxMessage >= 3000 }

// mayStarve reports whether buffer-memory is so small that connections end for it.
func (s *sim) mayStarve() bool {
	return s.cfg.BufferMemory < int64(len(s.loops))<<22 || s.cfg.MaxMessage > 10_000
}

// event lets one thing happen.
func (s *sim) event() {
	rng := s.rng
	if s.shelf != nil && rng.IntN(20) == 0 {
		s.shelf.pump()
		return
	}
	if s.cluster != nil && rng.IntN(2) == 0 {
		s.clusterEvent()
		return
	}
	switch n := rng.IntN(100); {
	case n < 5 || len(s.peers) == 0:
		if len(s.peers) < 12 {
			s.join()
		}
	case n < 7:
		s.end(s.anyone())
	case n < 35:
		p := s.anyone()
		for range 1 + rng.IntN(pick(rng, 1, 3, s.burst)) {
			p.speak()
		}
	case n < 55:
		s.sendSome(s.anyone())
	case n < 70:
		s.readSome(s.anyone())
	case n < 72:
		p := s.anyone()
		p.stalled = s.step + 10 + rng.IntN(pick(rng, 50, 500))
	case n < 90:
		s.wakeOne()
	default:
		s.advance(time.Duration(rng.Int64N(int64(pick(rng, time.Millisecond, 10*time.Millisecond, 100*time.Millisecond, 2*time.Second)))))
	}
}

func (s *sim) anyone() *simPeer { return s.peers[s.rng.IntN(len(s.peers))] }

// afterEvent reads the logs and looks for connections that have ended.
func (s *sim) afterEvent() {
	if s.cluster != nil {
		s.tapNodes()
		s.auditOwners(false)
	}
	for i, l := range s.loops {
		if err := s.truth.tap(l, s.topics); err != nil {
			s.tb.Fatal(err)
		}
		if l.flushed != s.flushed[i] {
			s.flushed[i] = l.flushed
			s.auditMemory(l)
		}
	}
	for i := 0; i < len(s.peers); i++ {
		p := s.peers[i]
		if p.node != nil && !s.cables.alive(p.node) {
			p.done = true
		} else if p.sock.gone() && (s.winding || s.rng.IntN(5) == 0) {
			s.buried(p)
		}
		if p.done {
			s.peers = append(s.peers[:i], s.peers[i+1:]...)
			i--
		}
	}
}

// wakeOne runs a loop that has something to do.
func (s *sim) wakeOne() {
	from := s.rng.IntN(len(s.loops))
	for k := range s.loops {
		i := (from + k) % len(s.loops)
		switch {
		case s.mailed(i) && (!s.alarmed(i) || s.rng.IntN(2) == 0):
			s.deliver(i)
			return
		case s.alarmed(i):
			s.alarm(i)
			return
		}
	}
}

// join opens a connection.
func (s *sim) join() {
	rng := s.rng
	p := &simPeer{
		sim: s, number: s.lives, kind: peerKind(rng.IntN(int(numPeerKinds))),
		awaiting: map[uint64]*await{}, queues: map[string][]*await{}, readings: map[string]*reading{},
	}
	s.lives++
	if p.node = s.anyNode(); p.node != nil && rng.IntN(4) == 0 {
		p.kind = peerHTTP // another would be sent away with the first topic that moves
		p.sock = p.node.connect(rng.IntN(len(p.node.loops)))
	} else {
		p.node, p.sock = nil, s.connect(rng.IntN(len(s.loops)))
	}
	p.sock.lazy = rng.IntN(2) == 0
	p.sock.capacity = pick(rng, 64, 500, 500, 4000, 1<<20)
	s.peers = append(s.peers, p)
	s.tell("%d: peer %d of kind %d on loop %d, kernel %d", s.step, p.number, p.kind, p.sock.loop.index, p.sock.capacity)
	p.greet()
}

// sendSome lets some of what a peer has said arrive.
func (s *sim) sendSome(p *simPeer) {
	if len(p.toSend) == 0 || p.sock.gone() || p.node != nil && s.cables.stands(p.node) {
		return
	}
	n := len(p.toSend)
	if s.rng.IntN(3) > 0 {
		n = 1 + s.rng.IntN(n)
	}
	b := p.toSend[:min(n, readBufferBytes)]
	p.toSend = p.toSend[len(b):]
	s.feed(p.sock, b)
}

// readSome lets a peer take some of what it was sent.
func (s *sim) readSome(p *simPeer) {
	if p.stalled > s.step {
		return
	}
	n := len(p.sock.kernel)
	if n == 0 && p.sock.ended {
		s.hangUp(p.sock)
	}
	if n == 0 {
		return
	}
	if s.rng.IntN(2) == 0 {
		n = 1 + s.rng.IntN(n)
	}
	s.hear(p, n)
}

func (s *sim) hear(p *simPeer, n int) {
	if err := p.receive(p.sock.readSome(n)); err != nil {
		s.tb.Fatalf("peer %d of kind %d on loop %d: %v", p.number, p.kind, p.sock.loop.index, err)
	}
}

// end lets a peer go, one way or another.
func (s *sim) end(p *simPeer) {
	s.tell("%d: peer %d goes", s.step, p.number)
	p.leaving = true
	if s.rng.IntN(2) == 0 && p.kind != peerHTTP && p.kind != peerSSE && p.in.wire == wireFrames {
		code := protocol.AppendClose(nil, protocol.CloseNormal, "")[2:]
		p.toSend = protocol.AppendMaskedFrame(p.toSend, protocol.OpClose, [4]byte{}, pick(s.rng, code, nil))
		return
	}
	if s.rng.IntN(2) == 0 {
		p.sock.broken = true // only writing tells the server, until the event comes
		return
	}
	s.hangUp(p.sock)
}

// buried judges a connection that is over: why, and whether its stream ended in order.
func (s *sim) buried(p *simPeer) {
	p.done = true
	s.hangUp(p.sock)
	s.hear(p, len(p.sock.kernel))
	if p.sock.ended && len(p.in.buf) > 0 {
		s.tb.Fatalf("peer %d: the server ended its stream in the middle of something: %.100q", p.number, p.in.buf)
	}
	why := p.sock.conn.reason
	s.tell("%d: peer %d is gone: %v", s.step, p.number, why)
	ok := p.leaving
	switch why {
	case protocol.ReasonOverCapacity:
		ok = s.mayStarve() || s.mayRefuse() && p.kind == peerClassic
	case protocol.ReasonAnswersFull:
		ok = p.kind != peerHTTP
	case protocol.ReasonHTTPError: // what it was told may be cut off
		ok = ok || s.mayStarve() || p.draining()
	case protocol.ReasonDrain, protocol.ReasonHTTP:
		ok = ok || p.draining()
	case protocol.ReasonPipelineFull:
		ok = p.kind == peerHTTP
	case protocol.ReasonSlow:
		ok = p.kind == peerClassic || s.mayClose()
	}
	if !ok {
		s.tb.Fatalf("peer %d of kind %d was ended: %v", p.number, p.kind, why)
	}
}

// wind brings the run to its end: everybody reads, everything arrives, everybody leaves, everything is forgotten.
func (s *sim) wind() {
	s.winding = true
	if s.cluster != nil {
		s.mendCluster()
	}
	for _, p := range s.peers {
		p.sock.capacity, p.stalled = 1<<30, 0
	}
	s.quiet()
	s.complete()
	s.mark()
	s.quiet()
	s.complete()
	s.auditRest()
	if s.cluster != nil {
		s.auditOwners(true)
	}
	s.auditTruth()
	if s.draining() {
		s.pass(s.cfg.DrainTimeout, s.cfg.DrainTimeout/50)
	}
	for _, p := range append([]*simPeer(nil), s.peers...) {
		if s.draining() && p.node == nil && !p.sock.gone() && !p.sock.ended && p.sock.conn.heard < s.drained {
			s.tb.Fatalf("peer %d of kind %d is still here when the time to leave is over", p.number, p.kind)
		}
		s.end(p)
	}
	s.quiet()
	s.pass(2*lingerTimeout, lingerTimeout/4)
	s.quiet()
	if s.draining() && len(s.shared.idle) == 0 {
		s.tb.Fatal("nobody was told that the last connection has gone")
	}
	if len(s.peers) > 0 {
		p := s.peers[0]
		c := p.sock.conn
		s.tb.Fatalf("peer %d of kind %d does not go: %+v; %v parting %v closed %v ended, %d to send, %q unread", p.number, p.kind, c.timer, c.reason, c.parting, c.closed, len(p.toSend), p.in.buf)
	}
	s.auditRest()
	s.auditNodes(true)
	if s.cluster != nil {
		s.forgetAll()
	}
	s.pass(4*s.cfg.MaxTopicAge, s.cfg.MaxTopicAge/8)
	s.auditRest()
	for _, l := range s.loops {
		if len(l.topics) > 0 || len(l.mirrors) > 0 || l.buffered != 0 || l.logBytes() != l.dormantBytes() {
			s.tb.Fatalf("loop %d keeps %d topics, %d mirrors, %d bytes of buffers, %d of logs", l.index, len(l.topics), len(l.mirrors), l.buffered, l.logBytes())
		}
	}
	s.tell("%d messages, %d connections, %d gaps", len(s.truth.sent), s.lives, s.gaps)
}

const lingerTimeout = time.Duration(lingerTime)

// drain begins the end of the server.
func (s *sim) drain() {
	s.tell("%d: the server is going away", s.step)
	s.shared.draining.Store(true)
	s.drained = s.now
	for _, l := range s.loops {
		l.send(&parcel{mails: []mail{{kind: mailDrain}}})
	}
}

func (s *sim) draining() bool { return s.shared.draining.Load() }

// draining reports whether the server that the peer is at is going away.
func (p *simPeer) draining() bool {
	return p.node == nil && p.sim.draining() || p.node != nil && p.node.shared.draining.Load()
}

// quiet lets everything arrive that is under way.
func (s *sim) quiet() {
	still := 0
	for range 3000 {
		before := s.activity()
		for _, p := range append([]*simPeer(nil), s.peers...) {
			s.sendSome(p)
			s.hear(p, len(p.sock.kernel))
		}
		s.settle()
		s.afterEvent()
		s.advance(40 * time.Millisecond)
		if still++; s.activity() != before || !s.clusterRests() {
			still = 0
		}
		if int64(still)*int64(40*time.Millisecond) > 4*retryMax {
			s.audit()
			return
		}
	}
	s.tb.Fatal("it never becomes quiet")
}

// activity changes as long as anything moves.
func (s *sim) activity() (n uint64) {
	if s.cluster != nil {
		return s.clusterActivity()
	}
	for _, l := range s.loops {
		n += l.metrics.receivedBytes.Load() + l.metrics.sentBytes.Load() + uint64(l.metrics.writes.Load()) + uint64(l.metrics.published.Load())
	}
	return n
}

// complete checks that nothing is owed to anybody.
func (s *sim) complete() {
	for _, p := range s.peers {
		if p.leaving || p.sock.ended {
			continue
		}
		if len(p.awaiting) > 0 || len(p.requests) > 0 || len(p.in.buf) > 0 || len(p.toSend) > 0 {
			s.tb.Fatalf("peer %d of kind %d: %d commands and %d requests without an answer, %d bytes unfinished", p.number, p.kind,
				len(p.awaiting), len(p.requests), len(p.in.buf))
		}
		if p.kind == peerSSE && p.unmarked {
			s.tb.Fatalf("peer %d cannot come back with what it has: no positions behind its last messages", p.number)
		}
		for topic, r := range p.readings {
			t := s.topicNamed(topic)
			switch {
			case p.kind == peerClassic:
				if at := s.truth.where[r.serial]; r.known && at != (place{}) && (t == nil || at.offset != t.head) {
					s.tb.Fatalf("peer %d has messages of %q up to %v, of %+v", p.number, topic, at, t)
				}
			case p.kind == peerSSE && !r.active:
				s.tb.Fatalf("peer %d has heard nothing of %q", p.number, topic)
			case r.active && (t == nil || t.epoch != r.epoch || t.head != r.next-1):
				s.tb.Fatalf("peer %d of kind %d has messages of %q up to %s:%d, of %+v", p.number, p.kind, topic, r.epoch, r.next-1, t)
			}
		}
	}
}

// auditTruth looks for positions that no log has, and for messages that are not in the order in which they were sent.
func (s *sim) auditTruth() {
	for _, p := range s.truth.places {
		if t := s.topicNamed(p.topic); t != nil && t.epoch == p.epoch && p.offset > t.head {
			s.tb.Fatalf("somebody was told of %v, and the log ends with %d", p, t.head)
		}
	}
	if err := s.truth.ordered(); err != nil {
		s.tb.Fatal(err)
	}
}

// mark publishes one more message to every topic there is, which every subscriber must get.
func (s *sim) mark() {
	if s.draining() {
		return // it takes no more requests
	}
	p := &simPeer{sim: s, number: s.lives, kind: peerHTTP}
	s.lives++
	p.sock = s.connect(0)
	s.peers = append(s.peers, p)
	heads := map[string]uint64{}
	for _, name := range s.topics {
		if t := s.topicNamed(name); t != nil {
			heads[name] = t.head
			p.post(name, protocol.KindText, 3)
		}
	}
	s.quiet()
	for _, p := range s.peers {
		if p.kind != peerClassic || len(p.sock.conn.subs) == 0 {
			continue
		}
		topic := p.topics[0]
		r, t := p.readings[topic], s.topicNamed(topic)
		if t.head > heads[topic] && (!r.known || s.truth.where[r.serial].offset != t.head) {
			s.tb.Fatalf("peer %d did not get the last message of %q", p.number, topic)
		}
	}
}
