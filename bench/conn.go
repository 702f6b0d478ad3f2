package bench

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// phase is how far a connection has come.
type phase byte

const (
	phaseConnecting  phase = iota
	phaseUpgrading         // the request is sent, its answer is not here
	phaseSubscribing       // subscribes are sent, some are not answered
	phaseLive
	phaseClosed
)

// role is what a connection is for.
type role byte

const (
	roleSubscriber role = iota
	roleStalled         // subscribed, never read again
	rolePublisher
	roles
)

var roleWords = [...]string{roleSubscriber: "subscriber", roleStalled: "stalled subscriber", rolePublisher: "publisher"}

// conn is one connection. Owned by the generator's thread.
type conn struct {
	fd       int
	index    int // among the connections of its role
	phase    phase
	role     role
	wire     Wire // what it upgrades to
	unmarked int  // subscribes not yet answered
	tail     []byte

	// A subscriber's places, topics in order from first (modulo Topics).
	first   int32
	offsets []offsetTrack // per topic
	places  []sequence    // per topic and lane: topic slot x lanes per topic + lane ordinal

	publisher *publisher // of a publisher
}

// connect opens every connection of the scenario and returns when all are live. It fails on the first connection that
// does: a measurement of fewer connections than asked for is another measurement.
func (g *generator) connect() error {
	all := make([]*conn, 0, g.s.Subscribers+g.s.Stalled+g.s.Publishers)
	for i := range g.s.Subscribers + g.s.Stalled {
		all = append(all, g.newSubscriber(i))
	}
	for i := range g.s.Publishers {
		c := &conn{index: i, role: rolePublisher, publisher: &g.publishers[i]}
		switch g.s.Publish {
		case PublishHTTP:
			c.wire = wireHTTP
		case PublishNATS:
			c.wire = WireNATS
		}
		c.publisher.conn = c
		all = append(all, c)
	}
	dialled, progress, before := 0, g.now(), 0
	for g.live < len(all) {
		for ; dialled < len(all) && dialled-g.live < connectAhead; dialled++ {
			if err := g.dial(dialled, all[dialled]); err != nil {
				return fmt.Errorf("connection %d of %d: %w", dialled+1, len(all), err)
			}
		}
		g.poll(waitMax)
		if err := g.ctx.Err(); err != nil {
			return err
		}
		if g.trouble.any() {
			return fmt.Errorf("%d of %d connections ready: %s", g.live, len(all), g.trouble.first())
		}
		if g.live != before {
			before, progress = g.live, g.now()
		}
		if g.now()-progress > int64(setupPatience) {
			return fmt.Errorf("%d of %d connections ready and no more in %s", g.live, len(all), setupPatience)
		}
	}
	if g.s.Wire == WireClassic {
		g.rest(classicSettle)
	}
	return nil
}

const (
	connectAhead  = 256              // connections under way at once; well below every listen backlog
	setupPatience = 10 * time.Second // without one more connection becoming ready
	classicSettle = 500 * time.Millisecond
	// classicSettle: a classic subscribe is not answered, so the first publish has to wait for something.
)

// newSubscriber prepares the i-th subscriber; those past s.Subscribers never read.
func (g *generator) newSubscriber(i int) *conn {
	c := &conn{index: i, wire: g.s.Wire, first: int32(g.s.firstTopic(i))}
	if i >= g.s.Subscribers {
		c.role = roleStalled
		return c
	}
	c.offsets = make([]offsetTrack, g.s.Subscriptions)
	for slot := range c.offsets {
		c.offsets[slot].free = true
	}
	c.places = make([]sequence, g.s.Subscriptions*g.lanesPerTopic)
	g.subscribers = append(g.subscribers, c)
	return c
}

// topicsOf are the names a connection subscribes to.
func (g *generator) topicsOf(c *conn) []string {
	if c.role == rolePublisher {
		return nil
	}
	names := make([]string, g.s.Subscriptions)
	for slot := range names {
		names[slot] = g.topics[(int(c.first)+slot)%len(g.topics)]
	}
	return names
}

func (g *generator) dial(i int, c *conn) error {
	receive, at := 0, g.target
	switch c.role {
	case roleStalled:
		receive = stalledReceiveBytes
	case rolePublisher:
		at = g.inlet
	}
	fd, err := at.dial(i, receive)
	if err != nil {
		return err
	}
	c.fd = fd
	for len(g.conns) <= fd {
		g.conns = append(g.conns, nil)
	}
	g.conns[fd] = c
	return g.poller.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLOUT)
}

// established sends the upgrade once the connect has ended.
func (g *generator) established(c *conn) {
	if err := connected(c.fd); err != nil {
		g.fail(c, "connect: "+err.Error())
		return
	}
	if err := g.poller.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN); err != nil {
		g.fail(c, "epoll: "+err.Error())
		return
	}
	if c.wire == wireHTTP {
		g.becomeLive(c)
		return
	}
	c.phase = phaseUpgrading
	g.send(c, upgradeRequest(g.target.text, c.wire))
}

// takeHandshake looks for the upgrade's answer in b and returns the bytes used.
func (g *generator) takeHandshake(c *conn, b []byte) int {
	n, err := takeUpgrade(b, c.wire)
	if err != nil {
		g.fail(c, err.Error())
		return len(b)
	}
	if n == 0 {
		return 0
	}
	if c.wire == WireNATS {
		c.phase = phaseSubscribing
		g.send(c, natsHello(g.topicsOf(c)))
		return n
	}
	if c.role == rolePublisher {
		g.becomeLive(c)
		return n
	}
	c.phase = phaseSubscribing
	c.unmarked = g.s.Subscriptions
	g.send(c, subscribeRequest(c.wire, c.index, g.topicsOf(c)))
	if c.wire == WireClassic && c.phase == phaseSubscribing {
		g.becomeLive(c)
	}
	return n
}

func (g *generator) becomeLive(c *conn) {
	c.phase = phaseLive
	g.alive[c.role]++
	g.live++
	if c.role != roleStalled {
		return
	}
	// A stalled reader is watched for its end only, which may stand behind bytes that nobody takes.
	if err := g.poller.watch(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLRDHUP); err != nil {
		g.fail(c, "epoll: "+err.Error())
	}
}

// send writes the few bytes of a handshake or a pong; a kernel that does not take them whole from an almost idle
// connection is trouble worth reporting.
func (g *generator) send(c *conn, b []byte) {
	if n, err := write(c.fd, b); err != 0 {
		g.fail(c, "write: "+err.Error())
	} else if n < len(b) {
		g.fail(c, fmt.Sprintf("write: kernel took %d of %d bytes", n, len(b)))
	}
}
