package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rayflux/balancer/cluster"
	"rayflux/client"
	"rayflux/protocol"
)

// forFaults, set in the environment, is for how long TestClusterUnderFaults goes on, with a fault of each kind a minute and
// settings that are the defaults. Without it a few faults come one after the other, and are noticed sooner.
const forFaults = "RAYFLUX_FAULTS"

// What runs while faults happen.
const (
	faultNodes     = 3
	faultBalancers = 2
	faultTopics    = 50
	faultReaders   = 10                    // of each topic, half of them at each balancer
	faultClients   = 10                    // of each balancer, that publish
	faultPause     = 50 * time.Millisecond // between two publishes of one publisher
	faultPort      = 7800
)

func faultTopic(i int) string { return fmt.Sprintf("fault-%d", i) }

// owner is the slot that a topic belongs to while all nodes are there.
func faultOwner(i int) int {
	return cluster.Choice(cluster.Hash([]byte(faultTopic(i))), 0, faultNodes)
}

// fault is one kind of what can happen to a cluster.
type fault struct {
	name    string
	brief   bool                     // it is one of the usual run's
	strike  func(w *wired, slot int) // slot: a node's, or a balancer's number
	heal    func(w *wired, slot int) // when all topics are taken again
	resets  bool                     // topics of the node may begin a new epoch; else nobody sees a gap
	clients bool                     // it is a balancer's clients that see it, not a node's topics
	last    bool                     // it happens to the last slot alone
}

var faults = []fault{
	{name: "node killed, and started again", brief: true, resets: true,
		strike: func(w *wired, slot int) { w.nodes[slot].kill() },
		heal:   func(w *wired, slot int) { w.startNode(slot) }},
	{name: "node restarted", brief: true,
		strike: func(w *wired, slot int) { w.nodes[slot].end() },
		heal:   func(w *wired, slot int) { w.startNode(slot) }},
	{name: "node restarted at another address, under its name",
		strike: func(w *wired, slot int) {
			w.nodes[slot].end()
			w.moves[slot]++
			w.wire(slot)
		},
		heal: func(w *wired, slot int) { w.startNode(slot) }},
	{name: "node killed, and started at another port", resets: true,
		strike: func(w *wired, slot int) {
			w.nodes[slot].kill()
			w.moves[slot]++
			w.ports[slot]++
			w.wire(slot)
			w.list()
		},
		heal: func(w *wired, slot int) { w.startNode(slot) }},
	{name: "last slot not listed any more, and listed again", last: true,
		strike: func(w *wired, slot int) {
			w.slots--
			w.list()
			w.home()
		},
		heal: func(w *wired, slot int) {
			w.slots++
			w.list()
		}},
	{name: "node hung (SIGSTOP), and goes on", brief: true, resets: true,
		strike: func(w *wired, slot int) { w.nodes[slot].signal(syscall.SIGSTOP) },
		heal:   func(w *wired, slot int) { w.nodes[slot].signal(syscall.SIGCONT) }},
	{name: "node's network cut off, and back", brief: true, resets: true,
		strike: func(w *wired, slot int) { w.stations[slot].pull(true) },
		heal:   func(w *wired, slot int) { w.stations[slot].pull(false) }},
	{name: "all links to a node cut", brief: true,
		strike: func(w *wired, slot int) {
			w.each(slot, func(c *cutter) {
				for c.cut(0, true) {
				}
			})
		},
		heal: func(*wired, int) {}},
	{name: "40 to 80 ms added to the links of a node", brief: true,
		strike: func(w *wired, slot int) {
			w.each(slot, func(c *cutter) { c.delay.Store(40e6); c.jitter.Store(40e6) })
		},
		heal: func(w *wired, slot int) {
			w.each(slot, func(c *cutter) { c.delay.Store(0); c.jitter.Store(0) })
		}},
	{name: "balancer killed, and started again", brief: true, clients: true,
		strike: func(w *wired, i int) { w.balancers[i].kill() },
		heal:   func(w *wired, i int) { w.startBalancer(i, w.balancers[i].listen) }},
}

// faulted is a cluster in use, and what is known of it.
type faulted struct {
	*wired
	topics     []*chronicle
	readers    []*faultReader
	publishers []*faultPublisher

	stopPublishing, stopReading context.CancelFunc
	publishing, reading         sync.WaitGroup
}

// use begins to read and to publish.
func (w *wired) use() *faulted {
	w.t.Helper()
	f := &faulted{wired: w}
	var reading, publishing context.Context
	reading, f.stopReading = context.WithCancel(context.Background())
	publishing, f.stopPublishing = context.WithCancel(context.Background())
	w.t.Cleanup(f.stop)
	var balancers []string
	for _, b := range w.balancers {
		balancers = append(balancers, b.listen)
	}
	for i := range faultTopics {
		f.topics = append(f.topics, &chronicle{payloads: map[protocol.Position]string{}})
		for k := range faultReaders {
			f.readers = append(f.readers, &faultReader{wayIn: &wayIn{balancers: balancers, own: k % faultBalancers}, topic: i, of: f.topics[i]})
		}
	}
	together(w.t, len(f.readers), 16, func(i int) error {
		r := f.readers[i]
		cl, err := r.client(w.t)
		if err != nil {
			return err
		}
		sub, err := cl.Subscribe(w.t.Context(), faultTopic(r.topic), client.Live())
		if err != nil {
			return err
		}
		p := sub.Position()
		r.at, r.stretches = p, []stretch{{p.Epoch, p.Offset + 1, p.Offset}}
		f.reading.Go(func() { r.follow(reading, sub) })
		return nil
	})
	for k := range faultBalancers * faultClients {
		l := &wayIn{balancers: balancers, own: k % faultBalancers}
		cl, err := l.client(w.t)
		if err != nil {
			w.t.Fatal(err)
		}
		for i := k / faultBalancers; i < faultTopics; i += faultClients {
			p := &faultPublisher{wayIn: l, client: cl, topic: i, of: f.topics[i]}
			f.publishers = append(f.publishers, p)
			f.publishing.Go(func() { p.run(publishing, fmt.Sprintf("%d of balancer %d", i, l.own)) })
		}
	}
	return f
}

// stop ends the publishers, and the readers when they have read everything.
func (f *faulted) stop() {
	f.stopPublishing()
	f.publishing.Wait()
	if !f.t.Failed() {
		f.readUp()
	}
	f.stopReading()
	f.reading.Wait()
}

// more waits until so much more was taken of these publishers' messages.
func (f *faulted) more(publishers []*faultPublisher, by int) {
	f.t.Helper()
	want := make([]int, len(publishers))
	for i, p := range publishers {
		p.mu.Lock()
		want[i] = p.taken + by
		p.mu.Unlock()
	}
	eventually(f.t, func() string {
		for i, p := range publishers {
			p.mu.Lock()
			taken, failed := p.taken, p.failed
			p.mu.Unlock()
			if taken < want[i] {
				return fmt.Sprintf("topic %d of node %d at balancer %d: %d publishes were taken, want %d; %d failed", p.topic, faultOwner(p.topic), p.own, taken, want[i], failed)
			}
		}
		return ""
	})
}

// readUp waits until everybody has read what was taken last.
func (f *faulted) readUp() {
	f.t.Helper()
	for _, r := range f.readers {
		r.of.mu.Lock()
		last := r.of.taken[len(r.of.taken)-1]
		r.of.mu.Unlock()
		eventually(f.t, func() string {
			r.of.mu.Lock()
			defer r.of.mu.Unlock()
			if r.at.Epoch != last.Epoch || r.at.Offset < last.Offset {
				return fmt.Sprintf("%v of topic %d was taken, and a reader is at %v", last, r.topic, r.at)
			}
			return ""
		})
	}
}

func (f *faulted) gaps() (all []int) {
	for _, c := range f.topics {
		c.mu.Lock()
		all = append(all, c.gaps)
		c.mu.Unlock()
	}
	return all
}

// dials is how often each client has dialled. Publishers share theirs.
func (f *faulted) dials() map[*wayIn]int {
	all := map[*wayIn]int{}
	for _, l := range f.lines() {
		_, all[l] = l.seen()
	}
	return all
}

func (f *faulted) lines() (all []*wayIn) {
	for _, r := range f.readers {
		all = append(all, r.wayIn)
	}
	for _, p := range f.publishers {
		all = append(all, p.wayIn)
	}
	return all
}

// toll is what faults of one kind have cost.
type toll struct {
	times     int
	away      []time.Duration // of each topic concerned, at each balancer, sorted in the end
	longest   time.Duration   // the longest that no publish of these was taken, until all was as before
	elsewhere time.Duration   // the longest that no publish of any other was taken
	gaps      int
	failed    int // publishes
}

// suffer has one fault happen, and waits until it is over.
func (f *faulted) suffer(kind *fault, victim int, cost *toll) {
	f.t.Helper()
	gaps, dials := f.gaps(), f.dials()
	atVictim := map[*wayIn]bool{}
	for _, l := range f.lines() {
		at, _ := l.seen()
		atVictim[l] = kind.clients && at == victim
	}
	concerned := func(p *faultPublisher) bool {
		return atVictim[p.wayIn] || !kind.clients && faultOwner(p.topic) == victim
	}
	var struck []*faultPublisher
	for _, p := range f.publishers {
		p.mu.Lock()
		p.longest = 0
		cost.failed -= p.failed
		p.mu.Unlock()
		if concerned(p) {
			struck = append(struck, p)
		}
	}
	kind.strike(f.wired, victim)
	since := time.Now()
	for _, p := range struck {
		p.mu.Lock()
		p.since, p.away = since, 0
		p.mu.Unlock()
	}
	f.more(struck, 5)
	kind.heal(f.wired, victim)
	f.home()
	f.more(f.publishers, 5)
	f.readUp()

	cost.times++
	told := cost.gaps
	for i, after := range f.gaps() {
		cost.gaps += after - gaps[i]
		if after > gaps[i] && (!kind.resets || faultOwner(i) != victim) {
			f.t.Errorf("%s %d: readers of topic %d of node %d were told of %d gaps", kind.name, victim, i, faultOwner(i), after-gaps[i])
		}
	}
	if kind.resets && cost.gaps == told {
		f.t.Errorf("%s %d: nobody was told of a gap: the fault did not happen", kind.name, victim)
	}
	for l, after := range f.dials() {
		if after != dials[l] && !atVictim[l] {
			f.t.Errorf("%s %d: a client of balancer %d dialled %d times", kind.name, victim, l.own, after-dials[l])
		}
	}
	for _, p := range f.publishers {
		p.mu.Lock()
		cost.failed += p.failed
		if concerned(p) {
			cost.away = append(cost.away, p.away)
			cost.longest = max(cost.longest, p.longest)
		} else {
			cost.elsewhere = max(cost.elsewhere, p.longest)
		}
		p.mu.Unlock()
	}
	if kind.clients { // the next one is to find clients at both
		for _, l := range f.lines() {
			l.goHome()
		}
		eventually(f.t, func() string {
			for _, l := range f.lines() {
				if at, _ := l.seen(); at != l.own {
					return fmt.Sprintf("a client of balancer %d is at %d", l.own, at)
				}
			}
			return ""
		})
		f.more(f.publishers, 5)
		f.readUp()
	}
}

// judge wants every publish that was answered to be read by everyone, or to be told as missing.
func (f *faulted) judge() {
	f.t.Helper()
	messages, gaps, missed := 0, 0, 0
	for _, r := range f.readers {
		gaps += len(r.stretches) - 1
		for _, p := range r.of.taken {
			if r.read(p) {
				continue
			}
			if missed++; !r.told(p) {
				f.t.Errorf("topic %d: %v was taken, and a reader was neither given it nor told: it has %v", r.topic, p, r.stretches)
			}
		}
	}
	for i, c := range f.topics {
		messages += len(c.payloads)
		for _, w := range c.wrong {
			f.t.Errorf("topic %d: %s", i, w)
		}
	}
	f.t.Logf("%d messages to %d readers each; %d gaps told, for %d messages that were taken", messages, faultReaders, gaps, missed)
}

// table is for docs/cluster.md.
func table(kinds []fault, costs []toll) string {
	var b strings.Builder
	b.WriteString("| fault | times | taken again after: min, median, max | longest pause | of other topics | gaps told | publishes failed |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for i, cost := range costs {
		if cost.times == 0 {
			continue
		}
		slices.Sort(cost.away)
		ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
		fmt.Fprintf(&b, "| %s | %d | %s, %s, %s | %s | %s | %d | %d |\n", kinds[i].name, cost.times, ms(cost.away[0]), ms(cost.away[len(cost.away)/2]),
			ms(cost.away[len(cost.away)-1]), ms(cost.longest), ms(cost.elsewhere), cost.gaps, cost.failed)
	}
	return b.String()
}

// Everything happens to a cluster that may, while every topic is published to and read at both balancers. What is told of one
// position is the same everywhere and always, what was taken is read by everyone or told to be missing, and whoever has nothing
// to do with a fault does not see it.
func TestClusterUnderFaults(t *testing.T) {
	lasting, err := time.ParseDuration(os.Getenv(forFaults))
	long := err == nil
	if !long && os.Getenv(forFaults) != "" {
		t.Fatal(err)
	}
	flags := []string{"--link-timeout=3s", "--heartbeat=500ms", "--drain-timeout=5s"}
	if long {
		flags = nil
	}
	w := startWired(t, flags...)
	f := w.use()
	f.more(f.publishers, 5)
	f.home()

	costs := make([]toll, len(faults))
	began, minute := time.Now(), time.NewTicker(time.Minute)
	defer minute.Stop()
	for round := 0; round == 0 || time.Since(began) < lasting; round++ {
		for i := range faults {
			kind := &faults[i]
			if !long && !kind.brief || t.Failed() {
				continue
			}
			victim := (round + i) % faultNodes
			if kind.clients {
				victim = round % faultBalancers
			}
			if kind.last {
				victim = faultNodes - 1
			}
			before := time.Now()
			f.suffer(kind, victim, &costs[i])
			t.Logf("round %d, %s: %v", round, kind.name, time.Since(before).Round(time.Millisecond))
		}
		if long {
			<-minute.C
		}
	}
	f.stop()
	f.judge()
	t.Logf("%v of faults:\n%s", time.Since(began).Round(time.Second), table(faults, costs))
}
