package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	drainPatience = 2 * time.Second // without one more delivery: what is missing is lost
	drainMax      = 15 * time.Second
	idleSettle    = time.Second // after the last subscribe, before the memory of idle connections is read
)

// Run measures one scenario against the server at addr (host:port), whose process is serverPID (0: not on this machine,
// or unknown; its CPU and memory are then not reported). It keeps its thread until it returns. A server that misbehaves
// is in the Result; the error is for what could not be measured at all.
func Run(ctx context.Context, addr string, serverPID int, s Scenario) (Result, error) {
	s = s.withDefaults()
	if err := s.check(descriptorLimit()); err != nil {
		return Result{}, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The kernel may wake a sleeper 50 us late to save wake-ups, which is a third of an idle server's latency.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return Result{}, fmt.Errorf("timer slack: %w", err)
	}
	defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0: the thread's default again
	g, err := newGenerator(ctx, addr, s)
	if err != nil {
		return Result{}, err
	}
	defer g.close()
	m := measurement{g: g, pid: serverPID}
	if err := m.run(); err != nil {
		return Result{}, fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return m.result(), nil
}

// measurement is a run seen from outside: what was read at which of its borders.
type measurement struct {
	g   *generator
	pid int

	residentBefore, residentAfter int64
	from, to                      mark
	unsent                        uint64
	stuck                         bool

	reported mark // the last progress line's
}

// mark is everything that is counted, at one moment.
type mark struct {
	at        int64
	usage     usage
	published uint64
	delivered uint64
	bytesIn   uint64
	reads     uint64
}

func (m *measurement) mark() (k mark, err error) {
	k = m.counts()
	k.usage, err = measureUsage(m.pid)
	return k, err
}

// counts is mark without asking the operating system.
func (m *measurement) counts() mark {
	k := mark{at: m.g.now(), delivered: m.g.tally.delivered, bytesIn: m.g.bytesIn, reads: m.g.reads}
	for i := range m.g.publishers {
		k.published += m.g.publishers[i].published
	}
	return k
}

func (m *measurement) run() (err error) {
	if m.residentBefore, err = residentBytes(m.pid); err != nil {
		return err
	}
	if err = m.g.connect(); err != nil {
		return err
	}
	if m.g.s.Publishers == 0 {
		return m.idle()
	}
	m.g.startLoad()
	m.reported = m.counts()
	if err = m.load("warm-up", m.g.now()+int64(m.g.s.WarmUp)); err != nil {
		return err
	}
	if m.from, err = m.mark(); err != nil {
		return err
	}
	m.g.windowFrom, m.g.windowTo = m.from.at, m.from.at+int64(m.g.s.Duration)
	if err = m.load("measure", m.g.windowTo); err != nil {
		return err
	}
	if m.to, err = m.mark(); err != nil {
		return err
	}
	m.unsent = m.g.unsent()
	if m.residentAfter, err = residentBytes(m.pid); err != nil {
		return err
	}
	return m.drain()
}

// idle holds the connections for the scenario's duration.
func (m *measurement) idle() (err error) {
	m.g.rest(idleSettle)
	if m.from, err = m.mark(); err != nil {
		return err
	}
	m.g.rest(m.g.s.Duration)
	if m.to, err = m.mark(); err != nil {
		return err
	}
	if m.residentAfter, err = residentBytes(m.pid); err != nil {
		return err
	}
	return m.g.ctx.Err()
}

// load publishes and receives until the given time, or until nothing has been delivered for drainPatience.
func (m *measurement) load(phase string, until int64) error {
	g := m.g
	delivered, moved, sleep := g.tally.delivered, g.now(), int64(0)
	for !m.stuck {
		if g.alive[roleSubscriber] == 0 || g.alive[rolePublisher] == 0 {
			m.stuck = true // its reason is among the incidents
			return nil
		}
		g.poll(time.Duration(sleep))
		now := g.now()
		if now >= until {
			return nil
		}
		if sleep = g.publish(now); sleep > until-now {
			sleep = until - now
		}
		if g.tally.delivered != delivered {
			delivered, moved = g.tally.delivered, now
		} else if now-moved > int64(drainPatience) && g.outstanding() > 0 {
			m.stuck = true
			g.trouble.add(incidentError, fmt.Sprintf("no delivery for %s with %d outstanding", drainPatience, g.outstanding()))
		}
		if now-m.reported.at >= int64(time.Second) {
			if err := g.ctx.Err(); err != nil {
				return err
			}
			m.report(phase)
		}
	}
	return nil
}

// drain waits for what has been published and counts what never comes.
func (m *measurement) drain() error {
	g := m.g
	delivered, begun := g.tally.delivered, g.now()
	moved := begun
	for g.outstanding() > 0 || g.unflushed() {
		g.poll(waitMax)
		now := g.now()
		if g.tally.delivered != delivered {
			delivered, moved = g.tally.delivered, now
		}
		if now-moved > int64(drainPatience) || now-begun > int64(drainMax) {
			break
		}
		if err := g.ctx.Err(); err != nil {
			return err
		}
	}
	for _, c := range g.subscribers {
		if c.phase == phaseClosed {
			continue // settled when it closed
		}
		for i := range g.lanes {
			missing, _ := g.missing(c, uint32(i))
			g.tally.lost += missing
		}
	}
	g.wakeStalled()
	return nil
}

// report tells whoever watches how it goes.
func (m *measurement) report(phase string) {
	k := m.counts()
	seconds := time.Duration(k.at - m.reported.at).Seconds()
	if watch := m.g.s.Progress; watch != nil {
		watch(Progress{
			Scenario:            m.g.s.Name,
			Phase:               phase,
			PublishesPerSecond:  float64(k.published-m.reported.published) / seconds,
			DeliveriesPerSecond: float64(k.delivered-m.reported.delivered) / seconds,
			Lost:                m.g.tally.lost,
			Trouble:             m.g.trouble.first(),
		})
	}
	m.reported = k
}

// startLoad makes the first publishes due, those of an open loop evenly spread over its publishers.
func (g *generator) startLoad() {
	now := g.now()
	if g.s.Rate > 0 {
		every := 1e9 / g.s.Rate
		g.dueEvery = int64(every * float64(len(g.publishers)))
		for i := range g.publishers {
			g.publishers[i].due = now + int64(every*float64(i))
		}
	}
	g.publish(now)
}

// rest serves the connections without publishing.
func (g *generator) rest(d time.Duration) {
	for until := g.now() + int64(d); g.now() < until && g.ctx.Err() == nil; {
		g.poll(min(waitMax, time.Duration(until-g.now())))
	}
}

// outstanding is how many deliveries have not arrived.
func (g *generator) outstanding() (n int64) {
	for i := range g.publishers {
		n += g.publishers[i].outstanding
	}
	return n
}

// unflushed reports whether a live publisher has bytes the kernel has not taken.
func (g *generator) unflushed() bool {
	for i := range g.publishers {
		if p := &g.publishers[i]; p.conn.phase == phaseLive && p.pending() {
			return true
		}
	}
	return false
}

// unsent is how many publishes of an open loop were due by the window's end and could not be made.
func (g *generator) unsent() (n uint64) {
	for i := range g.publishers {
		if behind := g.windowTo - g.publishers[i].due; g.s.Rate > 0 && behind > 0 {
			n += uint64(behind / g.dueEvery)
		}
	}
	return n
}
