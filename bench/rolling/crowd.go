package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rayflux/bench"
	"rayflux/client"
	"rayflux/protocol"
)

// crowd is all clients, and when they came. Safe from any goroutine.
type crowd struct {
	o       *options
	fleet   *fleet
	members []*member
	reading sync.WaitGroup

	mu     sync.Mutex
	began  time.Time // of the record
	at     []int     // connections of each balancer
	events []event
	faults []string

	delivered atomic.Int64
	gaps      atomic.Int64
}

// event is a change of the number of connections of one balancer.
type event struct {
	seconds float64
	at      int // balancer
	came    bool
}

func (e event) change() int {
	if e.came {
		return 1
	}
	return -1
}

// member is one client and its topic.
type member struct {
	client *client.Client
	topic  string
	last   atomic.Pointer[protocol.Position] // that it has read
}

func newCrowd(o *options, f *fleet) *crowd {
	return &crowd{o: o, fleet: f, members: make([]*member, o.clients), at: make([]int, o.balancers+1), began: time.Now()}
}

func (w *crowd) topic(i int) string { return fmt.Sprintf("rolling-%d", i%w.o.topics) }

// arrive connects everybody.
func (w *crowd) arrive(ctx context.Context) error {
	var coming sync.WaitGroup
	turns := make(chan struct{}, 64)
	errs := make(chan error, w.o.clients)
	for i := range w.members {
		turns <- struct{}{}
		coming.Go(func() {
			defer func() { <-turns }()
			m := &member{topic: w.topic(i)}
			w.members[i] = m
			var err error
			if m.client, err = w.dial(ctx); err != nil {
				errs <- err
				return
			}
			sub, err := m.client.Subscribe(ctx, m.topic, client.Live())
			if err != nil {
				errs <- err
				return
			}
			at := sub.Position()
			m.last.Store(&at)
			w.reading.Go(func() { w.read(m, sub) })
		})
	}
	coming.Wait()
	close(errs)
	return <-errs
}

func (w *crowd) dial(ctx context.Context) (*client.Client, error) {
	_, addr := w.fleet.choose(0)
	return client.Dial(ctx, addr, client.Options{NetDial: w.connect})
}

// connect leads a client to a balancer, and keeps account of it.
func (w *crowd) connect(ctx context.Context, network, _ string) (net.Conn, error) {
	i, addr := w.fleet.choose(rand.Int())
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.count(i, true)
	return &counted{Conn: conn, closed: sync.OnceFunc(func() { w.count(i, false) })}, nil
}

// counted is a connection that is missed when it is closed.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (w *crowd) count(balancer int, came bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := event{time.Since(w.began).Seconds(), balancer, came}
	w.at[balancer] += e.change()
	w.events = append(w.events, e)
}

// record begins to keep account.
func (w *crowd) record() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began, w.events = time.Now(), nil
	for i, n := range w.at {
		for range n {
			w.events = append(w.events, event{0, i, true})
		}
	}
}

func (w *crowd) since() float64 { return time.Since(w.began).Seconds() }

func (w *crowd) held(balancer int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[balancer]
}

// read holds each message against the one before.
func (w *crowd) read(m *member, sub *client.Subscription) {
	for {
		d, err := sub.Next(context.Background())
		if errors.Is(err, client.ErrClosed) {
			return
		}
		last := m.last.Load()
		switch {
		case err != nil:
			w.fault("a reader of %s has ended: %v", m.topic, err)
			return
		case d.Gap != nil:
			w.gaps.Add(1)
			w.fault("%s: a gap (%s) after %v", m.topic, d.Gap.Reason, last)
		case d.Position.Epoch != last.Epoch || d.Position.Offset != last.Offset+1:
			w.fault("%s: %v follows %v", m.topic, d.Position, last)
		}
		w.delivered.Add(1)
		m.last.Store(&d.Position)
	}
}

func (w *crowd) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// publishes are what the publisher was told.
type publishes struct {
	taken, unknown int
	last           map[string]protocol.Position // by topic
}

// publish publishes to each topic in turn until it is told to stop, and once more to each.
func (w *crowd) publish(ctx context.Context) publishes {
	p := publishes{last: map[string]protocol.Position{}}
	by, err := w.dial(context.Background())
	if err != nil {
		w.fault("publisher: %v", err)
		return p
	}
	defer by.Close()
	clock := time.NewTicker(time.Second / time.Duration(w.o.rate))
	defer clock.Stop()
	for i, left := 0, -1; left != 0; i++ {
		select {
		case <-ctx.Done():
			if left < 0 {
				left = w.o.topics + 1
			}
			left--
		case <-clock.C:
		}
		each, cancel := context.WithTimeout(context.Background(), patience)
		at, err := by.Publish(each, w.topic(i), protocol.KindText, fmt.Appendf(nil, "%d", i))
		cancel()
		switch {
		case err == nil:
			p.taken++
			p.last[w.topic(i)] = at
		case errors.Is(err, client.ErrOutcomeUnknown):
			p.unknown++
		default:
			w.fault("publish: %v", err)
		}
	}
	return p
}

// patience is how long a publish may take, and everybody to read it.
const patience = 30 * time.Second

// judge waits until everybody has read what was published last, and returns what went wrong.
func (w *crowd) judge(ctx context.Context, sent publishes) error {
	deadline := time.Now().Add(patience)
	for _, m := range w.members {
		want := sent.last[m.topic]
		for at := m.last.Load(); at.Epoch != want.Epoch || at.Offset < want.Offset; at = m.last.Load() {
			if time.Now().After(deadline) {
				return fmt.Errorf("%v of %s was taken, and a client is at %v after %v", want, m.topic, at, patience)
			}
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.o.out, "%d publishes were taken, of %d the outcome is unknown; %d deliveries, %d gaps; everybody has read everything\n",
		sent.taken, sent.unknown, w.delivered.Load(), w.gaps.Load())
	if len(w.faults) > 0 {
		return fmt.Errorf("%d faults: %s", len(w.faults), strings.Join(w.faults[:min(len(w.faults), 5)], "; "))
	}
	return nil
}

// leave closes everything.
func (w *crowd) leave() {
	var leaving sync.WaitGroup
	for _, m := range w.members {
		if m != nil && m.client != nil {
			leaving.Go(func() { m.client.Close() })
		}
	}
	leaving.Wait()
	w.reading.Wait()
}

// bySecond is how many came in each second of the record.
type bySecond []int

func (b bySecond) total() (n int) {
	for _, came := range b {
		n += came
	}
	return n
}

func (b bySecond) most() (n int) {
	for _, came := range b {
		n = max(n, came)
	}
	return n
}

// cameBetween counts who came after from and before to, in seconds of the record.
func (w *crowd) cameBetween(from, to float64) bySecond {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := make(bySecond, int(to-from)+1)
	for _, e := range w.events {
		if e.came && e.seconds > from && e.seconds <= to {
			b[int(e.seconds-from)]++
		}
	}
	return b
}

// returns is the picture of who came when.
func (w *crowd) returns(note string) bench.Timeline {
	line := bench.Line{Name: "clients that came"}
	for second, n := range w.cameBetween(0, w.since()) {
		line.Seconds, line.Values = append(line.Seconds, float64(second)), append(line.Values, float64(n))
	}
	return bench.Timeline{Title: "Returns per second", Note: note, Lines: []bench.Line{line}}
}

// connections is the picture of how many each balancer has.
func (w *crowd) connections() bench.Timeline {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []bench.Line
	for i := range w.fleet.size() {
		line := bench.Line{Name: fmt.Sprintf("balancer %d", i)}
		n, second := 0, 0.0
		for _, e := range w.events {
			for ; e.seconds > second; second++ {
				line.Seconds, line.Values = append(line.Seconds, second), append(line.Values, float64(n))
			}
			if e.at == i {
				n += e.change()
			}
		}
		lines = append(lines, line)
	}
	return bench.Timeline{Title: "Connections", Note: "of each balancer, over seconds", Lines: lines}
}
