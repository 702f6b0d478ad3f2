package engine

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rayflux/protocol"
)

// thread runs one loop on a goroutine of its own, as the reactor does, so that the race detector sees what loops really
// share: mailboxes, batches on their way home, and the counters.
type thread struct {
	loop  *loop
	bell  chan struct{} // the eventfd
	clock func() int64
	alarm *time.Timer // the loop's own
	tasks chan func() // events that the test makes up
	done  chan struct{}
}

func (th *thread) wake() {
	select {
	case th.bell <- struct{}{}:
	default:
	}
}

func (th *thread) arm(at int64) { th.alarm.Reset(time.Duration(max(at-th.clock(), 1))) }

func (th *thread) run() {
	defer close(th.done)
	l := th.loop
	for {
		select {
		case task, ok := <-th.tasks:
			if !ok {
				return
			}
			l.begin()
			task()
		case <-th.bell:
			l.begin()
			l.readMail()
		case <-th.alarm.C:
			l.begin()
			l.alarmed()
		}
		l.finish()
	}
}

// do runs an event on the loop and waits for its end.
func (th *thread) do(event func()) {
	var wg sync.WaitGroup
	wg.Add(1)
	th.tasks <- func() { defer wg.Done(); event() }
	wg.Wait()
}

// spin starts the loops of a server, each on its goroutine. The rig's own clock and wakers are not used.
func spin(t *testing.T, cfg Config) (*rig, []*thread) {
	r := newRig(t, cfg, 1)
	began := time.Now()
	clock := func() int64 { return int64(time.Since(began)) + 1 }
	var threads []*thread
	for _, l := range r.loops {
		th := &thread{loop: l, bell: make(chan struct{}, 1), clock: clock, alarm: time.NewTimer(time.Hour),
			tasks: make(chan func()), done: make(chan struct{})}
		l.waker, l.clock, l.wall = th, clock, func() int64 { return time.Now().UnixNano() }
		l.now = clock()
		l.wheel, l.retries = newWheel(wheelShift, wheelSlots, l.now), newWheel(retryShift, retrySlots, l.now)
		threads = append(threads, th)
		go th.run()
	}
	return r, threads
}

// TestLoopsOnThreads has every loop publish to every topic, and subscribers on every loop, some of which read slowly;
// each must get everything in order. What it is about is the race detector.
func TestLoopsOnThreads(t *testing.T) {
	const loops, perLoop, topics, rounds = 3, 4, 5, 60
	cfg := testConfig(loops)
	cfg.PingInterval = time.Hour
	r, threads := spin(t, cfg)
	var readers, writers []*fakeSocket
	for i, th := range threads {
		for k := range perLoop {
			s := &fakeSocket{rig: r, loop: th.loop, capacity: 3000 << (3 * k)}
			readers = append(readers, s)
			th.do(func() { s.conn, _ = th.loop.open(s); s.conn.traffic([]byte(handshake("/ws", subprotocolBinary))) })
			for topic := range topics {
				th.do(func() {
					s.conn.traffic(maskedBinary(protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe,
						Topic: fmt.Appendf(nil, "t%d", topic), HasID: true, ID: uint64(topic)})))
				})
			}
		}
		w := &fakeSocket{rig: r, loop: threads[i].loop, capacity: 1 << 30}
		writers = append(writers, w)
		th.do(func() { w.conn, _ = th.loop.open(w); w.conn.traffic([]byte(handshake("/ws", subprotocolBinary))) })
	}
	inboxes := make([]inbox, len(readers))
	subscribed := 0
	next := make([][topics]uint64, len(readers))
	hear := func() (messages int) {
		for i, s := range readers {
			var b []byte
			threads[s.loop.index].do(func() { b = s.readSome(1 << 20) })
			in := &inboxes[i]
			in.buf = append(in.buf, b...)
			for {
				it, ok, err := in.next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if it.kind != itemBinary {
					continue
				}
				ev, err := protocol.ParseEventBinary(it.payload)
				if err != nil {
					t.Fatal(err)
				}
				switch ev.Op {
				case protocol.EvSubscribed:
					subscribed++
					next[i][ev.ID] = ev.Offset + 1
				case protocol.EvMessage:
					topic := ev.Topic[1] - '0'
					if ev.Offset != next[i][topic] {
						t.Fatalf("reader %d: offset %d of %s, want %d", i, ev.Offset, ev.Topic, next[i][topic])
					}
					next[i][topic]++
					messages++
				}
			}
		}
		return messages
	}
	await := func(what string, reached func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !reached(); {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	await("the subscriptions", func() bool { hear(); return subscribed == len(readers)*topics })
	for _, th := range threads {
		th.do(func() { th.loop.mailMax = 64 << 10 }) // from now on batches are withheld now and then
	}

	var publishing sync.WaitGroup
	for i, th := range threads {
		publishing.Go(func() {
			for round := range rounds {
				for topic := range topics {
					cmd := protocol.Command{Op: protocol.CmdPublish, Topic: fmt.Appendf(nil, "t%d", topic), Kind: protocol.KindText,
						Payload: []byte(strings.Repeat("x", round*7%300))}
					th.do(func() { writers[i].conn.traffic(maskedBinary(protocol.AppendCommandBinary(nil, &cmd))) })
				}
			}
		})
	}
	got := 0
	published := func() (n int64) {
		for _, l := range r.loops {
			n += l.metrics.published.Load()
		}
		return n
	}
	finished := make(chan struct{})
	go func() { publishing.Wait(); close(finished) }()
	await("the publishers", func() bool {
		got += hear()
		select {
		case <-finished:
			return true
		default:
			return false
		}
	})
	// A publish may be refused while a loop is behind; what was taken must reach everybody.
	await("the messages", func() bool { got += hear(); return got == int(published())*len(readers) })
	if n := published(); n < rounds {
		t.Errorf("only %d messages were taken", n)
	}
	for _, s := range append(readers, writers...) {
		threads[s.loop.index].do(func() { s.loop.bury(s.conn) })
	}
	for range 3 { // mail goes to and fro once more
		for _, th := range threads {
			th.do(func() {})
		}
	}
	for _, th := range threads {
		close(th.tasks)
		<-th.done
	}
	for _, l := range r.loops { // the goroutines have ended: what they had is the test's now
		l.begin()
		l.readMail()
		l.finish()
	}
	for _, l := range r.loops {
		l.begin()
		l.readMail()
		l.finish()
	}
	r.auditRest()
}
