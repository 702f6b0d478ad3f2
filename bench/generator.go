package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

const (
	// inputBytes is the most one read takes: many times what a socket's buffer holds in a bounded window, small enough to
	// stay in the second-level cache. A frame may take half of it.
	inputBytes = 256 << 10
	// natsInputBytes is for frames that hold all that NATS had for a connection, which when it is behind is a lot.
	natsInputBytes = 4 << 20
	// waitMax is the longest sleep: how late a cancelled context or the end of the window may be seen.
	waitMax = 20 * time.Millisecond

	// stalledReading is how long subscribers that did not read do so after the run, to learn whether they were closed.
	stalledReading = 500 * time.Millisecond

	latencyMax    = 60 * time.Second
	latencyDigits = 3
)

// generator is one run. Owned by the thread that called Run.
type generator struct {
	ctx    context.Context
	s      Scenario
	target target // of subscribers
	inlet  target // of publishers
	form   stampForm
	run    uint32    // not 0
	start  time.Time // origin of every time in stamps

	poller poller
	conns  []*conn    // by descriptor
	live   int        // connections that became ready
	alive  [roles]int // of them, those not closed since
	input  []byte
	readAt int64 // when the bytes in input were read

	topics        []string
	lanes         []lane
	lanesPerTopic int
	stampBytes    int
	subscribers   []*conn
	publishers    []publisher
	frameBytes    int   // of every publish
	stampAt       int   // of the stamp in a publish
	dueEvery      int64 // open loop: time between two publishes of one publisher

	tally         tally
	trouble       incidents
	stalledClosed uint64
	bytesIn       uint64
	reads         uint64

	windowFrom, windowTo int64
	latency              *hdrhistogram.Histogram // nanoseconds from due to read
	latencyOver          uint64                  // deliveries later than latencyMax
	sendLag              *hdrhistogram.Histogram // open loop: nanoseconds from due to sent
	answer               *hdrhistogram.Histogram // HTTP: nanoseconds from due to answered
}

func newGenerator(ctx context.Context, addr string, s Scenario) (*generator, error) {
	at, err := resolve(addr)
	if err != nil {
		return nil, err
	}
	inlet := at
	if s.PublishAddr != "" {
		if inlet, err = resolve(s.PublishAddr); err != nil {
			return nil, err
		}
	}
	g := &generator{
		ctx: ctx, s: s, target: at, inlet: inlet, form: s.stampForm(), run: rand.Uint32() | 1, start: time.Now(),
		input:      make([]byte, inputBytes),
		publishers: make([]publisher, s.Publishers),
		windowFrom: math.MaxInt64, windowTo: math.MaxInt64,
		latency: hdrhistogram.New(1, int64(latencyMax), latencyDigits),
		sendLag: hdrhistogram.New(1, int64(latencyMax), latencyDigits),
		answer:  hdrhistogram.New(1, int64(latencyMax), latencyDigits),
	}
	if s.Wire == WireNATS {
		g.input = make([]byte, natsInputBytes)
	}
	g.stampBytes = g.form.size()
	for i := range s.Topics {
		g.topics = append(g.topics, topicName(i))
	}
	g.layOut()
	if err := g.poller.open(); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return g, nil
}

// layOut gives publishers their lanes and encodes what they will send.
func (g *generator) layOut() {
	g.lanes, g.lanesPerTopic = g.s.lanes()
	fanout := make([]int64, g.s.Topics)
	for i := range g.s.Subscribers {
		for slot := range g.s.Subscriptions {
			fanout[(g.s.firstTopic(i)+slot)%g.s.Topics]++
		}
	}
	for i := range g.lanes {
		l := &g.lanes[i]
		p := &g.publishers[l.publisher]
		l.rotation = int32(len(p.lanes))
		p.lanes = append(p.lanes, publisherLane{lane: uint32(i), fanout: fanout[l.topic]})
		p.fanoutMax = max(p.fanoutMax, fanout[l.topic])
	}
	for i := range g.publishers {
		g.publishers[i].prepare(g)
	}
}

// now is the time since the generator's start in nanoseconds.
func (g *generator) now() int64 { return int64(time.Since(g.start)) }

// poll serves what happens within the timeout, and at most one wait's worth of it.
func (g *generator) poll(timeout time.Duration) {
	if g.s.Spin {
		timeout = 0
	}
	for _, event := range g.poller.wait(timeout) {
		c := g.conns[event.Fd]
		if c == nil {
			continue // closed by an earlier event of this wait
		}
		switch {
		case c.phase == phaseConnecting:
			g.established(c)
		case c.role == roleStalled && c.phase == phaseLive:
			g.discard(c)
		default:
			if event.Events&^unix.EPOLLOUT != 0 {
				g.receive(c)
			}
			if event.Events&unix.EPOLLOUT != 0 && c.phase == phaseLive {
				g.flush(c.publisher)
			}
		}
	}
}

// receive reads a connection once and takes the whole frames of what it has. Once is enough: epoll is level-triggered,
// and a read that asks for more than the socket holds would only be told so by one more call.
func (g *generator) receive(c *conn) {
	kept := copy(g.input, c.tail)
	n, err := read(c.fd, g.input[kept:])
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != 0:
		g.fail(c, "read: "+err.Error())
		return
	case n == 0:
		g.fail(c, "closed without a close frame")
		return
	}
	g.readAt = g.now()
	g.reads++
	g.bytesIn += uint64(n)
	g.arrived(c, g.input[:kept+n])
}

// discard reads what a stalled subscriber was sent, which matters to nobody; only the end behind it does.
func (g *generator) discard(c *conn) {
	n, err := read(c.fd, g.input)
	if err == unix.EAGAIN || err == unix.EINTR || n > 0 {
		return
	}
	g.fail(c, "closed by the server")
}

// wakeStalled lets the stalled subscribers read for a while at last: the end of a connection stands behind the bytes it
// was sent, so that only a reader hears of it.
func (g *generator) wakeStalled() {
	for _, c := range g.conns {
		if c == nil || c.role != roleStalled {
			continue
		}
		if err := g.poller.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN); err != nil {
			g.fail(c, "epoll: "+err.Error())
		}
	}
	for until := g.now() + int64(stalledReading); g.alive[roleStalled] > 0 && g.now() < until; {
		g.poll(waitMax)
	}
}

// arrived takes the whole frames of b, which is the front of input, and keeps the rest for the next read.
func (g *generator) arrived(c *conn, b []byte) {
	rest := b[g.take(c, b):]
	if len(rest) == len(g.input) {
		g.fail(c, fmt.Sprintf("frame or head is over %d bytes, limit %d", len(rest), len(g.input)))
		return
	}
	c.tail = append(c.tail[:0], rest...)
}

// take hands bytes to whoever reads them in the connection's phase; it returns how many were used.
func (g *generator) take(c *conn, b []byte) (used int) {
	if c.wire == wireHTTP {
		return g.takeResponses(c, b)
	}
	if c.phase == phaseUpgrading {
		if used = g.takeHandshake(c, b); used == 0 {
			return 0
		}
	}
	if c.phase == phaseClosed || c.role == roleStalled && c.phase == phaseLive {
		return len(b)
	}
	return used + g.scan(c, b[used:])
}

// fail closes a connection that cannot go on and settles what it will not receive.
func (g *generator) fail(c *conn, why string) {
	if c.phase == phaseClosed {
		return
	}
	live := c.phase == phaseLive
	c.phase = phaseClosed
	g.conns[c.fd] = nil
	unix.Close(c.fd)
	if live {
		g.alive[c.role]--
	}
	if c.role == roleStalled && live {
		g.stalledClosed++ // a policy for slow readers may do that
		return
	}
	g.trouble.add(incidentClosed, fmt.Sprintf("%s %d: %s", roleWords[c.role], c.index, why))
	if c.role != roleSubscriber {
		return
	}
	for i := range g.lanes {
		missing, subscribed := g.missing(c, uint32(i))
		if !subscribed {
			continue
		}
		sender := &g.publishers[g.lanes[i].publisher]
		sender.outstanding -= int64(missing)
		sender.lanes[g.lanes[i].rotation].fanout--
		g.tally.lost += missing
	}
}

// missing is how many numbers of a lane were published and are still to come to a subscriber.
func (g *generator) missing(c *conn, lane uint32) (n uint64, subscribed bool) {
	slot := g.slotOf(c, lane)
	if slot >= len(c.offsets) {
		return 0, false
	}
	l := &g.lanes[lane]
	return g.publishers[l.publisher].lanes[l.rotation].seq - c.places[g.placeOf(slot, lane)].next, true
}

// refused notes an HTTP publish that was not accepted. Its number stays missing and counts as lost.
func (g *generator) refused(status int, body []byte) {
	g.trouble.add(incidentRefused, quoted(fmt.Sprintf("publish answered %d", status), body))
}

// lag enters how late a publish was sent.
func (g *generator) lag(now, due int64) {
	if due >= g.windowFrom && due < g.windowTo {
		_ = g.sendLag.RecordValue(now - due) // past latencyMax it is in the latency too
	}
}

// close ends every connection.
func (g *generator) close() {
	for _, c := range g.conns {
		if c != nil {
			unix.Close(c.fd)
		}
	}
	unix.Close(g.poller.fd)
}
