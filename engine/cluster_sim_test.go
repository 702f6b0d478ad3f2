package engine

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// The simulation of a whole cluster: the server that the clients are at is a balancer, and its topics are at nodes behind
// links that are slow, break in the middle of a frame, and end with their nodes. In half of the runs the nodes know of one
// another, and hand topics over: they drain, come and go, and each learns of other slots when it pleases. The judges are
// the same, and two more: an epoch has one owner, and what was answered with a position is in the log up to there.
//
// RAYFLUX_CLUSTER_SEED=n runs that seed alone, with its events in the log; RAYFLUX_CLUSTER_RUNS=n runs so many, from
// RAYFLUX_CLUSTER_FIRST on.

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
		runs = 40
	}
	first := 1
	if s := os.Getenv("RAYFLUX_CLUSTER_RUNS"); s != "" {
		runs, _ = strconv.Atoi(s)
		first = 1000 // apart from the seeds of an ordinary run
	}
	if s := os.Getenv("RAYFLUX_CLUSTER_FIRST"); s != "" {
		first, _ = strconv.Atoi(s)
	}
	var published, delivered, gaps, resets int
	for seed := first; seed < first+runs; seed++ {
		s := simulate(t, uint64(seed), true, func(string, ...any) {})
		for _, l := range s.loops {
			published += int(l.metrics.published.Load())
			delivered += int(l.metrics.delivered.Load())
		}
		gaps, resets = gaps+s.gaps, resets+s.resets
	}
	t.Logf("%d runs: %d messages taken, %d deliveries, %d gaps, %d resets", runs, published, delivered, gaps, resets)
	if published < 40*runs || delivered < 40*runs || gaps < runs/40 || resets < runs/10 {
		t.Error("too little happens: the simulation proves nothing")
	}
}

// simCluster is what a run has besides, if the server is a balancer.
type simCluster struct {
	calm  bool // no link and no node is ever lost: readers are held to what one server promises
	kin   int  // loops of each node, which know of one another, and, where it is calm, go away one after the other; 0: they do not
	nodes int  // at the beginning
}

// mayLose reports whether nodes and links can be lost.
func (s *sim) mayLose() bool { return s.cluster != nil && !s.cluster.calm }

// mayMove reports whether topics can go from one node to another.
func (s *sim) mayMove() bool { return s.cluster != nil && s.cluster.kin > 0 }

// clusterConfig changes a run's settings to a balancer's.
func (s *sim) clusterConfig(cfg *Config) *simCluster {
	rng := s.rng
	k := &simCluster{calm: rng.IntN(4) == 0, kin: pick(rng, 0, 0, 1, 2), nodes: 1 + rng.IntN(3)}
	k.calm = k.calm || k.kin > 0 && rng.IntN(3) == 0
	cfg.MaxTopicAge = pick(rng, time.Second, 5*time.Second)
	cfg.FollowLinger = pick(rng, 100*time.Millisecond, time.Second, 5*time.Second)
	cfg.LinkTimeout, cfg.Heartbeat = time.Second, 200*time.Millisecond
	cfg.TakeOver = pick(rng, 0, 300*time.Millisecond, time.Second)
	cfg.HoldTimeout = pick(rng, 0, 100*time.Millisecond, 2*time.Second)
	cfg.MaxInFlight = pick(rng, 1024, 1024, 3)
	loops := pick(rng, 1, 1, 2, 3)
	cfg.BufferMemory = int64(loops) * pick[int64](rng, 16<<10, 4<<20, 4<<20)
	cfg.LogMemory, cfg.MailMemory = cfg.LogMemory/int64(cfg.Loops)*int64(loops), cfg.MailMemory/int64(cfg.Loops)*int64(loops)
	cfg.Loops = loops
	if k.calm {
		cfg.LinkTimeout, cfg.TakeOver, cfg.HoldTimeout = time.Hour, time.Hour, time.Hour
		cfg.BufferMemory = int64(loops) << 24
	}
	if k.calm && k.kin > 0 { // a topic must not be forgotten on its way
		cfg.MaxTopicAge = time.Hour
		for i := range cfg.Topics {
			cfg.Topics[i].Age = 0
		}
	}
	return k
}

func (s *sim) startCluster() {
	c := &cables{kin: s.cluster.kin}
	if c.kin > 0 {
		c.change = func(cfg *Config) {
			cfg.MaxTopics = 100_000 // else the last topic can be at no node but one
			if s.cluster.calm {
				cfg.DrainTimeout = time.Hour
			}
		}
	}
	c.span(s.rig, s.cluster.nodes)
	s.tell("%d nodes, kin %d, calm %v, take-over %v, hold %v, linger %v", s.cluster.nodes, s.cluster.kin, s.cluster.calm, s.cfg.TakeOver, s.cfg.HoldTimeout, s.cfg.FollowLinger)
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
	case n < 68 && s.cluster.kin > 0:
		s.look()
	case n < 95 || s.cluster.calm && s.cluster.kin == 0:
		for _, w := range append([]*wire(nil), c.wires...) {
			c.carry(w, true, 1<<20)
			c.carry(w, false, 1<<20)
		}
	case s.cluster.calm:
		s.roll()
	default:
		s.disturb()
	}
	c.sweep()
}

// anyNode is a node of those that hand topics over, which takes connections; nil: the one that was drawn does not.
func (s *sim) anyNode() *rig {
	if !s.mayMove() {
		return nil
	}
	i := s.rng.IntN(len(s.cables.nodes))
	if n := s.cables.nodes[i]; n != nil && !s.cables.hung[i] && !n.shared.draining.Load() {
		return n
	}
	return nil
}

// look lets one server have the newest view, or, for a while, a wrong one.
func (s *sim) look() {
	rng, c := s.rng, s.cables
	r := c.balancer
	if i := rng.IntN(len(c.nodes) + 1); i < len(c.nodes) {
		r = c.nodes[i]
	}
	switch {
	case r == nil:
	case rng.IntN(3) > 0 || s.cluster.calm:
		if o := r.outlook(); o.view != c.view {
			s.tell("%d: %s has the newest view", s.step, r.cfg.Name)
			o.see(c.view)
		}
	case rng.IntN(10) == 0:
		slots := append([]Slot(nil), c.view.Slots...)
		i := rng.IntN(len(slots))
		slots[i].Ready = !slots[i].Ready
		s.tell("%d: %s takes the nodes for %+v", s.step, r.cfg.Name, slots)
		r.outlook().see(viewOf(c.view.Version, slots))
	}
}

// roll is one step of a restart of all nodes, one after the other.
func (s *sim) roll() {
	c := s.cables
	for i, n := range c.nodes {
		switch {
		case n == nil:
			s.tell("%d: node %d is started", s.step, i)
			c.start(i)
			return
		case n.shared.draining.Load():
			if c.drained(i) {
				s.tell("%d: node %d has gone", s.step, i)
				c.leave(i)
			}
			return
		}
	}
	if i := s.rng.IntN(len(c.nodes)); len(c.nodes) > 1 && s.kinRest() {
		s.tell("%d: node %d drains", s.step, i)
		c.drain(i)
	}
}

// kinRest reports whether nodes that know of one another have nothing to hand over, and know that.
func (s *sim) kinRest() bool {
	for _, l := range s.cables.loops() {
		e := l.estate
		if e == nil {
			return true
		}
		if e.sweep || e.stuck > 0 || len(e.lines)+len(e.incoming)+len(e.ended) > 0 {
			return false
		}
		for _, n := range e.neighbours {
			if n != nil && (!n.ready() || n.sending != nil || !n.told || len(n.first)+len(n.queue)+len(n.waiting) > 0) {
				return false
			}
		}
	}
	return true
}

// disturb lets one thing go wrong, or be put right.
func (s *sim) disturb() {
	rng, c := s.rng, s.cables
	i := rng.IntN(len(c.nodes))
	switch what := rng.IntN(8); {
	case what < 3 && len(c.wires) > 0:
		w := pick(rng, c.wires...)
		s.tell("%d: a link is cut", s.step)
		if rng.IntN(2) == 0 && c.carry(w, true, 1<<20) && !w.cut { // what was asked is done, and not answered
			c.nodes[w.number].settleOnce()
		}
		c.cut(w)
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
		c.drain(i)
	case what == 6 && c.nodes[i] != nil && c.drained(i):
		s.tell("%d: node %d has gone", s.step, i)
		c.leave(i)
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
	case what == 0 && len(slots) < 4 && s.cluster.kin > 0: // the node of the slot may still be there
		if i = len(slots); i == len(c.nodes) || c.nodes[i] == nil {
			c.start(i)
		}
		slots = append(slots, slotOf(i))
	case what == 0 && len(slots) < 4:
		c.start(len(c.nodes))
		slots = append(slots, slotOf(len(c.nodes)-1))
	case what == 1 && len(slots) > 1:
		slots = slots[:len(slots)-1]
	case what == 2 && len(c.nodes) < 8 && s.cluster.kin == 0:
		c.start(len(c.nodes))
		slots[i] = slotOf(len(c.nodes) - 1)
	case what == 3:
		slots[i].Draining = !slots[i].Draining
	default:
		slots[i].Ready = !slots[i].Ready
	}
	s.tell("%d: the nodes are %+v", s.step, slots)
	if s.cluster.kin > 0 {
		c.view = viewOf(c.view.Version+1, slots) // whoever looks sees it
		return
	}
	c.see(slots...)
}

// mendCluster puts everything right: from now on all are well.
func (s *sim) mendCluster() {
	c := s.cables
	for _, w := range c.wires {
		w.ours.capacity, w.node.capacity = 1<<30, 1<<30
	}
	for i := range c.nodes {
		c.hung[i] = false
		if n := c.nodes[i]; s.cluster.calm && n != nil && n.shared.draining.Load() {
			s.seeOff(i)
		}
		if c.nodes[i] == nil || c.nodes[i].shared.draining.Load() {
			c.start(i)
		}
	}
	slots := append([]Slot(nil), c.view.Slots...)
	for i := range slots {
		slots[i].Ready, slots[i].Draining = true, false
	}
	c.see(slots...)
	for _, n := range c.nodes {
		if o := n.outlook(); o != nil {
			o.see(c.view)
		}
	}
}

// seeOff lets a node that goes away hand over what it has.
func (s *sim) seeOff(number int) {
	for range 1000 {
		if s.cables.drained(number) {
			s.cables.leave(number)
			return
		}
		s.settle()
		s.afterEvent()
		s.advance(20 * time.Millisecond)
	}
	s.tb.Fatalf("node %d does not get rid of its topics", number)
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
	if (s.mayLose() || s.mayMove()) && !s.winding {
		return nil
	}
	if s.mayMove() {
		for _, l := range s.cables.nodes[s.cables.ownerOf(name)].loops {
			if t := l.topics[name]; t != nil {
				return t
			}
		}
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
	if !s.kinRest() {
		return false
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
		for _, f := range l.up.follows {
			if f.topic.subs > 0 && f.up != upLive {
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

// auditOwners looks for two nodes that would both take messages of one life of a topic, and, when all is at rest, for topics
// that are not where they belong.
func (s *sim) auditOwners(rest bool) {
	if !s.mayMove() {
		return
	}
	for _, name := range s.topics {
		var epochs []string
		for i, n := range s.cables.nodes {
			if n == nil {
				continue
			}
			for _, l := range n.loops {
				t := l.topics[name]
				switch {
				case t == nil || t.moving != nil && !rest:
				case slices.Contains(epochs, t.epoch):
					s.tb.Fatalf("topic %q has two owners in epoch %s", name, t.epoch)
				case rest && (i != s.cables.ownerOf(name) || len(epochs) > 0 || t.moving != nil):
					s.tb.Fatalf("topic %q is at node %d as well, and belongs to %d", name, i, s.cables.ownerOf(name))
				default:
					epochs = append(epochs, t.epoch)
				}
			}
		}
	}
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
