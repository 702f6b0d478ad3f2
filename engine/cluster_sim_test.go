package engine

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// The simulation of a whole cluster: the server that the clients are at is a balancer, and its topics are at nodes behind
// links that are slow, break in the middle of a frame, and end with their nodes. The judges are the same.
//
// RAYFLUX_CLUSTER_SEED=n runs that seed alone, with its events in the log; RAYFLUX_CLUSTER_RUNS=n runs so many.

func TestClusterSimulation(t *testing.T) {
	if s := os.Getenv("RAYFLUX_CLUSTER_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		simulate(t, seed, true, t.Logf)
		return
	}
	runs := 100
	if testing.Short() || raceEnabled {
		runs = 20
	}
	first := 1
	if s := os.Getenv("RAYFLUX_CLUSTER_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
		first = 1000 // apart from the seeds of an ordinary run
	}
	var published, delivered, gaps, resets int
	for seed := first; seed < first+runs; seed++ {
		s := simulate(t, uint64(seed), true, func(string, ...any) {})
		for _, l := range s.loops {
			published += int(l.metrics.published.Load())
			delivered += int(l.metrics.delivered.Load())
		}
		gaps, resets = gaps+s.gaps, resets+s.cluster.resets
	}
	t.Logf("%d runs: %d messages taken, %d deliveries, %d gaps, %d resets", runs, published, delivered, gaps, resets)
	if published < 40*runs || delivered < 40*runs || gaps < runs/10 || resets < runs/10 {
		t.Error("too little happens: the simulation proves nothing")
	}
}

// simCluster is what a run has besides, if the server is a balancer.
type simCluster struct {
	calm   bool // no link and no node is ever lost: readers are held to what one server promises
	nodes  int  // at the beginning
	resets int  // epochs that ended under a reader
}

// mayLose reports whether nodes and links can be lost.
func (s *sim) mayLose() bool { return s.cluster != nil && !s.cluster.calm }

// clusterConfig changes a run's settings to a balancer's.
func (s *sim) clusterConfig(cfg *Config) *simCluster {
	rng := s.rng
	k := &simCluster{calm: rng.IntN(4) == 0, nodes: 1 + rng.IntN(3)}
	cfg.MaxTopicAge = pick(rng, time.Second, 5*time.Second)
	cfg.FollowLinger = pick(rng, 100*time.Millisecond, time.Second, 5*time.Second)
	cfg.LinkTimeout, cfg.Heartbeat = time.Second, 200*time.Millisecond
	cfg.TakeOver = pick(rng, 0, 300*time.Millisecond, time.Second)
	cfg.HoldTimeout = pick(rng, 0, 100*time.Millisecond, 2*time.Second)
	cfg.MaxInFlight = pick(rng, 1024, 1024, 3)
	loops := pick(rng, 1, 1, 2, 3)
	cfg.BufferMemory = int64(loops) * pick[int64](rng, 16<<10, 1<<20, 1<<20)
	cfg.LogMemory, cfg.MailMemory = cfg.LogMemory/int64(cfg.Loops)*int64(loops), cfg.MailMemory/int64(cfg.Loops)*int64(loops)
	cfg.Loops = loops
	if k.calm {
		cfg.LinkTimeout, cfg.TakeOver, cfg.HoldTimeout = time.Hour, time.Hour, time.Hour
		cfg.BufferMemory = int64(loops) << 24
	}
	return k
}

func (s *sim) startCluster() {
	newBalancerRig(s.rig, s.cluster.nodes, nil)
	s.tell("%d nodes, calm %v, take-over %v, hold %v, linger %v", s.cluster.nodes, s.cluster.calm, s.cfg.TakeOver, s.cfg.HoldTimeout, s.cfg.FollowLinger)
}

// clusterEvent lets one thing happen between the balancer and its nodes.
func (s *sim) clusterEvent() {
	rng, c := s.rng, s.cables
	switch n := rng.IntN(100); {
	case n < 40 && len(c.wires) > 0:
		w := pick(rng, c.wires...)
		c.carry(w, rng.IntN(2) == 0, pick(rng, 1+rng.IntN(50), 500, 1<<20))
	case n < 55:
		if i := rng.IntN(len(c.nodes)); c.nodes[i] != nil && !c.hung[i] {
			c.nodes[i].settleOnce()
		}
	case n < 65 && len(c.asked) > 0:
		if w := c.connectAsked(); w != nil {
			w.node.capacity = pick(rng, 300, 3000, 1<<30)
			w.ours.capacity = pick(rng, 300, 3000, 1<<30)
		}
	case n < 98 || s.cluster.calm:
		for _, w := range append([]*wire(nil), c.wires...) {
			c.carry(w, true, 1<<20)
			c.carry(w, false, 1<<20)
		}
	default:
		s.disturb()
	}
	c.sweep()
}

// disturb lets one thing go wrong, or be put right.
func (s *sim) disturb() {
	rng, c := s.rng, s.cables
	i := rng.IntN(len(c.nodes))
	switch what := rng.IntN(8); {
	case what < 3 && len(c.wires) > 0:
		s.tell("%d: a link is cut", s.step)
		c.cut(pick(rng, c.wires...))
	case what == 3 && c.nodes[i] != nil:
		s.tell("%d: node %d is killed", s.step, i)
		c.kill(i)
	case what < 5 && c.nodes[i] == nil:
		s.tell("%d: node %d is started", s.step, i)
		c.start(i)
	case what < 6:
		s.tell("%d: node %d hangs: %v", s.step, i, !c.hung[i])
		c.hung[i] = !c.hung[i]
	case what == 6 && c.nodes[i] != nil && !c.nodes[i].shared.draining.Load():
		s.tell("%d: node %d drains", s.step, i)
		c.nodes[i].shared.draining.Store(true)
		c.nodes[i].loops[0].send(&parcel{mails: []mail{{kind: mailDrain}}})
	default:
		s.changeView()
	}
}

// changeView adds a slot, takes the last one away, or gives one to another node.
func (s *sim) changeView() {
	rng, c := s.rng, s.cables
	slots := append([]Slot(nil), c.view.Slots...)
	i := rng.IntN(len(slots))
	switch what := rng.IntN(5); {
	case what == 0 && len(slots) < 4:
		c.start(len(c.nodes))
		slots = append(slots, slotOf(len(c.nodes)-1))
	case what == 1 && len(slots) > 1:
		slots = slots[:len(slots)-1]
	case what == 2 && len(c.nodes) < 8:
		c.start(len(c.nodes))
		slots[i] = slotOf(len(c.nodes) - 1)
	case what == 3:
		slots[i].Draining = !slots[i].Draining
	default:
		slots[i].Ready = !slots[i].Ready
	}
	s.tell("%d: the nodes are %+v", s.step, slots)
	c.see(slots...)
}

// mendCluster puts everything right: from now on all are well.
func (s *sim) mendCluster() {
	c := s.cables
	for i := range c.nodes {
		c.hung[i] = false
		if c.nodes[i] == nil || c.nodes[i].shared.draining.Load() {
			c.start(i)
		}
	}
	slots := append([]Slot(nil), c.view.Slots...)
	for i := range slots {
		slots[i].Ready, slots[i].Draining = true, false
	}
	c.see(slots...)
	for _, w := range c.wires {
		w.ours.capacity, w.node.capacity = 1<<30, 1<<30
	}
}

// tapNodes reads the logs of the owners, before what came of them.
func (s *sim) tapNodes() {
	for _, l := range s.cables.loops() {
		if err := s.truth.tap(l, s.topics); err != nil {
			s.tb.Fatal(err)
		}
	}
}

// topicAtOwner is a topic where the balancer says it is, if nothing can be wrong about that.
func (s *sim) topicAtOwner(name string) *topic {
	if s.mayLose() && !s.winding {
		return nil
	}
	for _, l := range s.loops {
		t := l.topics[name]
		if t == nil || t.follow.owner == nil {
			continue
		}
		if n := s.cables.nodes[s.cables.numberOf(t.follow.owner.address)]; n != nil {
			return n.loops[0].topics[name]
		}
	}
	return nil
}

// auditNodes is audit for every node of the cluster.
func (s *sim) auditNodes(rest bool) {
	if s.cluster == nil {
		return
	}
	for _, n := range s.cables.nodes {
		switch {
		case n == nil:
		case rest:
			n.auditRest()
		default:
			n.audit()
		}
	}
}

// clusterRests reports whether nothing is under way between the balancer and its nodes.
func (s *sim) clusterRests() bool {
	if s.cluster == nil {
		return true
	}
	for _, l := range s.loops {
		if l.up.held != 0 {
			return false
		}
		for _, o := range l.up.owners {
			if !o.ready() {
				return false
			}
		}
	}
	return true
}

// clusterActivity changes as long as anything moves but heartbeats.
func (s *sim) clusterActivity() (n uint64) {
	for _, l := range append(s.cables.loops(), s.loops...) {
		n += uint64(l.metrics.published.Load()) + l.metrics.delivered.Load()
	}
	for _, p := range s.peers {
		n += uint64(p.sock.taken)
	}
	return n
}

// forgetAll lets so much time go by that nobody is followed and nothing is kept, in steps that no link takes for silence.
func (s *sim) forgetAll() {
	step := min(s.cfg.LinkTimeout/4, s.cfg.MaxTopicAge/4)
	s.pass(2*s.cfg.FollowLinger+4*s.cfg.MaxTopicAge, step)
	for _, l := range s.loops {
		if l.up.held != 0 || len(l.up.calls) > 0 || l.up.fetches != 0 || len(l.up.follows) > 0 {
			s.tb.Fatalf("loop %d keeps %d bytes of flights, %d calls, %d fetches, %d followed topics", l.index, l.up.held, len(l.up.calls), l.up.fetches, len(l.up.follows))
		}
	}
	for _, l := range s.cables.loops() {
		for name, t := range l.topics {
			s.tb.Fatalf("%s keeps %q with %d readers", l.cfg.Name, name, t.subs)
		}
	}
}
