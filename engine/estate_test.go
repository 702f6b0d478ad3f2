package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rayflux/protocol"
)

func eachEstateNet(t *testing.T, nodes int, test func(t *testing.T, n *estateNet)) {
	for _, loops := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) { test(t, newEstateNet(t, nodes, loops)) })
	}
}

// wantAcked wants every publish to be answered with success.
func (c *estateClient) wantAcked(from uint64) {
	c.net.t.Helper()
	c.events()
	for id := from; id <= c.id; id++ {
		if ev, ok := c.acks[id]; !ok || ev.Op != protocol.EvPublished {
			c.net.t.Fatalf("publish %d of %d is answered %+v", id, c.id, ev)
		}
	}
}

func TestANodeTurnsAwayWhatIsNotItsOwn(t *testing.T) {
	eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
		theirs, ours := n.belongs(1, "t"), n.belongs(0, "t")
		c := n.client(n.nodes[0])
		c.publish(theirs, "x")
		c.publish(ours, "x")
		c.events()
		if ev := c.acks[1]; ev.Op != protocol.EvError || ev.Code != protocol.CodeNoOwner || ev.RetryAfterMs == 0 {
			t.Errorf("a publish to another node's topic is answered %+v", ev)
		}
		if ev := c.acks[2]; ev.Op != protocol.EvPublished {
			t.Errorf("a publish to this node's topic is answered %+v", ev)
		}
		link := linked(n.nodes[0], 0, protocol.LinkControl)
		link.command(&protocol.Command{Op: protocol.CmdPublish, HasID: true, ID: 7, Topic: []byte(theirs), Kind: protocol.KindText})
		link.command(&protocol.Command{Op: protocol.CmdSubscribe, HasID: true, ID: 8, Topic: []byte(theirs)})
		for i, op := range []protocol.LinkCommandOp{protocol.LinkCmdLocate, protocol.LinkCmdHistory} {
			link.ask(&protocol.LinkCommand{Op: op, HasID: true, ID: uint64(9 + i), Topic: []byte(theirs), Limit: 1})
		}
		n.settle()
		wantLines(t, link.lines(), "moved id=7", "moved id=8", "moved id=9", "moved id=10")
	})
}

func TestBalancersFindTheNodeOfEachTopic(t *testing.T) {
	eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
		c := n.client(n.balancer)
		for slot := range 3 {
			topic := n.belongs(slot, "t")
			c.subscribe(topic, protocol.From{})
			n.settle()
			c.publish(topic, "x")
			n.pass(100 * time.Millisecond)
			if got := n.whose(topic); !slices.Equal(got, []int{slot}) {
				t.Errorf("topic of slot %d lives in %v", slot, got)
			}
		}
		c.wantAcked(1)
		if got := c.texts(); len(got) != 3 {
			t.Errorf("read %q", got)
		}
	})
}

// While a topic is handed over, once and back, its reader misses nothing, and publishes keep their order.
func TestADrainedNodesTopicsGoOnWithoutAGap(t *testing.T) {
	for _, reach := range []int{0, 1000, 37} {
		eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
			reader, c := n.client(n.balancer), n.client(n.balancer)
			var topics []string
			for i := range 10 {
				topics = append(topics, n.belongs(i%3, fmt.Sprintf("t%d", i)))
				reader.subscribe(topics[i], protocol.From{})
			}
			n.settle()
			k := 0
			round := func() {
				for _, topic := range topics {
					c.publish(topic, fmt.Sprint(k))
				}
				k++
			}
			for range 20 {
				round()
				n.pump()
			}
			n.pass(50 * time.Millisecond)
			n.reach = reach
			n.drain(1)
			for step := 0; !n.drained(1); step++ {
				if step > 4000 {
					t.Fatal("the drain does not end")
				}
				if step < 200 {
					round()
				}
				for range 5 {
					n.pump()
				}
				if step%3 == 0 {
					n.tick(5 * time.Millisecond)
				}
			}
			n.reach = 0
			n.kill(1)
			for range 5 {
				round()
				n.pump()
			}
			n.pass(3 * time.Second)
			c.wantAcked(1)
			reader.events()
			if got := reader.gaps(); got != 0 {
				t.Errorf("%d gaps: %+v", got, reader.at)
			}
			if got := len(reader.texts()); got != k*len(topics) {
				t.Errorf("%d messages are read, %d were published", got, k*len(topics))
			}
			reader.wantInOrder(topics)
			n.start(1)
			for range 100 {
				round()
				n.pass(10 * time.Millisecond)
			}
			n.pass(2 * time.Second)
			c.wantAcked(1)
			reader.events()
			if got := reader.gaps(); got != 0 {
				t.Errorf("%d gaps after the return", got)
			}
			reader.wantInOrder(topics)
			for i, topic := range topics {
				if got := n.whose(topic); !slices.Equal(got, []int{i % 3}) {
					t.Errorf("topic of slot %d lives in %v", i%3, got)
				}
			}
		})
	}
}

// wantInOrder wants the numbers that were published to each topic, each once.
func (c *estateClient) wantInOrder(topics []string) {
	c.net.t.Helper()
	next := map[string]int{}
	for _, ev := range c.read {
		if ev.Op != protocol.EvMessage {
			continue
		}
		if want := fmt.Sprint(next[ev.Topic]); string(ev.Payload) != want {
			c.net.t.Fatalf("topic %s: %q comes where %q is due", ev.Topic, ev.Payload, want)
		}
		next[ev.Topic]++
	}
}

// tick moves the clock.
func (n *estateNet) tick(d time.Duration) {
	n.now += int64(d)
	for _, r := range n.rigs() {
		r.now = n.now
	}
}

// However far a hand-over has come when the link breaks, the topic has one owner at most, the order stays, and what a reader
// misses it is told.
func TestALinkMayBreakAtEveryByteOfAHandOver(t *testing.T) {
	kept := map[bool]int{}
	for cutAt := range 200 {
		n := newEstateNet(t, 2, 1)
		reader, c := n.client(n.balancer), n.client(n.balancer)
		topic := n.belongs(1, "t")
		reader.subscribe(topic, protocol.From{})
		n.settle()
		for i := range 20 {
			c.publish(topic, fmt.Sprint(i))
			n.tick(time.Millisecond)
			n.settle()
		}
		c.wantAcked(1)
		before := c.acks[1].Epoch
		n.drain(1)
		n.tick(70 * time.Millisecond)
		n.reach = 29
		i := 20
		for range cutAt {
			n.pump()
			n.tick(3 * time.Millisecond)
			if i < 40 {
				c.publish(topic, fmt.Sprint(i))
				i++
			}
		}
		n.cutTransfers()
		n.reach = 0
		for step := 0; !n.drained(1) && step < 400; step++ {
			n.pass(10 * time.Millisecond)
		}
		n.kill(1)
		n.pass(3 * time.Second)
		c.publish(topic, "last")
		n.pass(100 * time.Millisecond)
		c.events()
		reader.events()
		if got := n.whose(topic); !slices.Equal(got, []int{0}) {
			t.Fatalf("cut at %d: the topic lives in %v", cutAt, got)
		}
		kept[c.acks[c.id].Epoch == before]++
		if last := c.acks[c.id]; last.Op != protocol.EvPublished || last.Epoch == before && reader.gaps() > 0 || last.Epoch != before && reader.gaps() != 1 {
			t.Fatalf("cut at %d: epoch %s is %s after %d gaps", cutAt, before, last.Epoch, reader.gaps())
		}
		c.wantRisingOffsets()
	}
	if kept[true] < 20 || kept[false] < 20 {
		t.Errorf("the epoch was kept and lost %v times: nothing was cut in the middle", kept)
	}
}

// wantRisingOffsets wants the offsets of what was taken, within an epoch, in the order in which it was published.
func (c *estateClient) wantRisingOffsets() {
	c.net.t.Helper()
	at := map[string]uint64{}
	for id := uint64(1); id <= c.id; id++ {
		ev, ok := c.acks[id]
		if !ok {
			c.net.t.Fatalf("publish %d has no answer", id)
		}
		if ev.Op != protocol.EvPublished {
			continue
		}
		if key := ev.Topic + " " + ev.Epoch; ev.Offset <= at[key] {
			c.net.t.Fatalf("publish %d has offset %d of %s behind %d", id, ev.Offset, key, at[key])
		} else {
			at[key] = ev.Offset
		}
	}
}

// A node that has just come asks for a topic that it is asked for, before it makes one of its own.
func TestAReturningNodeClaimsWhatItIsAskedFor(t *testing.T) {
	eachEstateNet(t, 2, func(t *testing.T, n *estateNet) {
		topic := n.belongs(1, "t")
		n.kill(1)
		n.pass(3 * time.Second)
		c := n.client(n.balancer)
		for i := range 5 {
			c.publish(topic, fmt.Sprint(i))
		}
		n.pass(100 * time.Millisecond)
		c.wantAcked(1)
		epoch := c.acks[1].Epoch
		n.start(1)
		direct := n.client(n.nodes[1])
		direct.publish(topic, "5")
		n.pass(3 * time.Second)
		direct.wantAcked(1)
		if ev := direct.acks[1]; ev.Epoch != epoch || ev.Offset != 6 {
			t.Errorf("after 5 messages of epoch %s a publish gets %+v", epoch, ev)
		}
		if got := n.whose(topic); !slices.Equal(got, []int{1}) {
			t.Errorf("the topic lives in %v", got)
		}
	})
}

// A topic whose owner cannot be asked begins anew, after take-over.
func TestANodeTakesOverFromOneThatIsGone(t *testing.T) {
	eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
		topic := n.belongs(1, "t")
		reader, c := n.client(n.balancer), n.client(n.balancer)
		reader.subscribe(topic, protocol.From{})
		n.settle()
		c.publish(topic, "a")
		n.pass(50 * time.Millisecond)
		n.kill(1)
		c.publish(topic, "b")
		n.pass(4 * time.Second)
		c.wantAcked(1)
		reader.events()
		if a, b := c.acks[1], c.acks[2]; a.Epoch == b.Epoch || b.Offset != 1 || reader.gaps() != 1 {
			t.Errorf("%+v, then %+v, and %d gaps", a, b, reader.gaps())
		}
		if got := n.whose(topic); !slices.Equal(got, []int{2}) {
			t.Errorf("the topic lives in %v", got)
		}
	})
}

// What a neighbour would not have is offered again after a pause, however many events a node that goes away has in between.
func TestARefusedTopicIsOfferedAgain(t *testing.T) {
	eachEstateNet(t, 2, func(t *testing.T, n *estateNet) {
		topic := n.belongs(1, "t")
		n.client(n.balancer).publish(topic, "x")
		n.settle()
		events := func(d time.Duration) {
			for ; d > 0; d -= time.Millisecond {
				n.tick(time.Millisecond)
				for i := range n.nodes[1].loops {
					n.nodes[1].event(i, func() {})
				}
				n.settle()
			}
		}
		n.nodes[0].cfg.MaxTopics = 0
		n.drain(1)
		events(150 * time.Millisecond)
		n.nodes[0].cfg.MaxTopics = 1
		events(400 * time.Millisecond)
		if got := n.whose(topic); !slices.Equal(got, []int{0}) {
			t.Errorf("the topic lives in %v", got)
		}
	})
}

// A node's word that it has none of a neighbour's topics may come after the news that it goes away, on another link: it was
// about fewer topics.
func TestAWordFromBeforeADrainIsNotBelievedAfterIt(t *testing.T) {
	eachEstateNet(t, 2, func(t *testing.T, n *estateNet) {
		topic := n.belongs(1, "t")
		c, direct := n.client(n.balancer), n.client(n.nodes[0])
		c.publish(topic, "x")
		c.wantAcked(1)
		for i, l := range n.nodes[0].loops {
			n.nodes[0].event(i, l.estate.neighbours[1].goesAway)
		}
		for i, l := range n.nodes[1].loops {
			n.nodes[1].event(i, func() { l.estate.neighbours[0].told = false })
		}
		direct.publish(topic, "y")
		n.settle()
		if got := n.whose(topic); !slices.Equal(got, []int{1}) {
			t.Errorf("the topic lives in %v", got)
		}
		n.drain(1)
		n.pass(300 * time.Millisecond)
		direct.wantAcked(1)
		if ev := direct.acks[1]; ev.Epoch != c.acks[1].Epoch || ev.Offset != 2 {
			t.Errorf("after %+v a publish gets %+v", c.acks[1], ev)
		}
	})
}

// Two nodes that see different slots take a topic for theirs, or for nobody's: it never has two owners in one epoch, and
// when they agree again it is at its place.
func TestViewsMayDiffer(t *testing.T) {
	eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
		var topics []string
		c := n.client(n.balancer)
		for i := range 12 {
			topics = append(topics, n.belongs(i%3, fmt.Sprintf("t%d", i)))
		}
		round := func() {
			for _, topic := range topics {
				c.publish(topic, "x")
			}
			n.pass(300 * time.Millisecond)
			n.wantOneOwnerAnEpoch(topics)
		}
		round()
		short := &View{Version: 2, Fingerprint: 2, Slots: n.view.Slots[:2]}
		n.look(0, short)
		round()
		round()
		n.look(1, short)
		round()
		n.look(2, short)
		round()
		round()
		n.look(-1, short)
		for range 10 {
			round()
		}
		n.pass(3 * time.Second)
		round()
		c.events()
		for id := c.id - uint64(len(topics)) + 1; id <= c.id; id++ {
			if c.acks[id].Op != protocol.EvPublished {
				t.Errorf("a publish is answered %+v", c.acks[id])
			}
		}
		for _, topic := range topics {
			want := int(hashOf(topic) % 2)
			if got := n.whose(topic); !slices.Equal(got, []int{want}) {
				t.Errorf("topic of slot %d lives in %v", want, got)
			}
		}
		c.wantRisingOffsets()
	})
}

// A cluster gets smaller: whoever hears of it first, and last, the topics of the slot that has left are handed over by its node,
// which is still there.
func TestTheTopicsOfASlotThatLeavesAreHandedOver(t *testing.T) {
	const balancer, everybody = -1, -2
	for _, order := range [][]int{{everybody}, {balancer, 0, 1, 2}, {2, 1, 0, balancer}, {0, 1, balancer, 2}, {1, 2, balancer, 0}, {0, 2, 1, balancer}} {
		for _, reach := range []int{0, 100} {
			t.Run(fmt.Sprintf("%v, reach %d", order, reach), func(t *testing.T) {
				eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
					reader, c := n.client(n.balancer), n.client(n.balancer)
					var topics []string
					for i := range 12 {
						topics = append(topics, n.belongs(i%3, fmt.Sprintf("t%d", i)))
						reader.subscribe(topics[i], protocol.From{})
					}
					n.settle()
					rounds := 0
					round := func() {
						for _, topic := range topics {
							c.publish(topic, "x")
						}
						for range 10 {
							n.pump()
						}
						rounds++
					}
					round()
					n.pass(50 * time.Millisecond)
					n.reach = reach
					short := &View{Version: 2, Fingerprint: 2, Slots: n.view.Slots[:2]}
					for _, who := range order {
						switch who {
						case everybody:
							n.look(-1, short)
						case balancer:
							n.lookAlone(short)
						default:
							n.look(who, short)
						}
						round()
						n.tick(20 * time.Millisecond)
						n.wantOneOwnerAnEpoch(topics)
					}
					n.reach = 0
					for range 5 {
						round()
						n.pass(20 * time.Millisecond)
						n.wantOneOwnerAnEpoch(topics)
					}
					n.pass(3 * time.Second)
					c.wantAcked(1)
					reader.events()
					if gaps, read := reader.gaps(), len(reader.texts()); gaps != 0 || read != rounds*len(topics) {
						t.Errorf("%d gaps, and %d messages are read of %d", gaps, read, rounds*len(topics))
					}
					for _, topic := range topics {
						if got, want := n.whose(topic), int(hashOf(topic)%2); !slices.Equal(got, []int{want}) {
							t.Errorf("topic of slot %d lives in %v", want, got)
						}
					}
					for _, r := range n.rigs() {
						if links := n.linksFrom(r); r != n.nodes[2] && links["node-2"] > 0 {
							t.Errorf("%s still has %d links to the node that has left", r.cfg.Name, links["node-2"])
						}
					}
				})
			})
		}
	}
}

// Who hears of a change before others is found out by what it says to them: they look again.
func TestADifferentViewIsDoubted(t *testing.T) {
	eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
		doubts := func(r *rig) int { return r.cfg.Directory.(*estatePlace).doubts }
		c := n.client(n.balancer)
		topic := n.belongs(2, "t")
		c.subscribe(topic, protocol.From{})
		n.pass(50 * time.Millisecond)
		for _, r := range n.rigs() {
			if doubts(r) > 0 {
				t.Errorf("%s doubts what all others see", r.cfg.Name)
			}
		}
		short := &View{Version: 2, Fingerprint: 2, Slots: n.view.Slots[:2]}
		n.look(2, short)
		n.pass(50 * time.Millisecond)
		for _, r := range n.nodes[:2] {
			if doubts(r) == 0 {
				t.Errorf("%s does not doubt that node 2 is there", r.cfg.Name)
			}
		}
		n.look(0, short)
		n.look(1, short)
		n.pass(300 * time.Millisecond)
		c.publish(topic, "x")
		n.pass(50 * time.Millisecond)
		if doubts(n.balancer) == 0 {
			t.Error("the balancer does not doubt that the topic is at node 2, which says that it has moved")
		}
	})
}

// A node is known by its address, by balancers and by other nodes: with another slot it is the same one.
func TestANodeThatChangesItsSlotKeepsItsLinks(t *testing.T) {
	eachEstateNet(t, 3, func(t *testing.T, n *estateNet) {
		before := slices.Clone(n.wires)
		swapped := slices.Clone(n.view.Slots)
		swapped[1], swapped[2] = swapped[2], swapped[1]
		v := &View{Version: 2, Fingerprint: 2, Slots: swapped}
		n.lookAlone(v)
		n.look(0, v) // the two themselves are told their slots when they start
		if n.settle(); !slices.Equal(n.wires, before) {
			t.Errorf("%d links are not those %d that there were", len(n.wires), len(before))
		}
	})
}

// linksFrom counts the links that a rig keeps, by the other's address.
func (n *estateNet) linksFrom(r *rig) map[string]int {
	links := map[string]int{}
	for _, w := range n.wires {
		if w.from == r && !w.cut {
			links[w.link.owner.address]++
		}
	}
	return links
}

// wantOneOwnerAnEpoch looks for two nodes that would both take messages of one life of a topic.
func (n *estateNet) wantOneOwnerAnEpoch(topics []string) {
	n.t.Helper()
	for _, topic := range topics {
		seen := map[string]bool{}
		for _, r := range n.nodes {
			if r == nil {
				continue
			}
			for _, l := range r.loops {
				if t := l.topics[topic]; t != nil && t.moving == nil {
					if seen[t.epoch] {
						n.t.Fatalf("topic %s has two owners in epoch %s", topic, t.epoch)
					}
					seen[t.epoch] = true
				}
			}
		}
	}
}

// What a topic's log says of the past it says after a hand-over too: times, positions, pages.
func TestAHandedOverLogIsTheSame(t *testing.T) {
	eachEstateNet(t, 2, func(t *testing.T, n *estateNet) {
		topic := n.belongs(1, "t")
		c := n.client(n.balancer)
		for i := range 50 {
			c.publish(topic, fmt.Sprintf("%d %s", i, make([]byte, 3000)))
			n.tick(time.Duration(i%4) * 40 * time.Millisecond)
			n.settle()
		}
		page := func(slot int) []string {
			p := linked(n.nodes[slot], 0, protocol.LinkControl)
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHistory, HasID: true, ID: 1, Topic: []byte(topic),
				From: protocol.From{Mode: protocol.FromEarliest}, Limit: 1000})
			n.settle()
			return p.lines()
		}
		before := page(1)
		n.drain(1)
		n.pass(2 * time.Second)
		if !n.drained(1) {
			t.Fatal("the drain does not end")
		}
		if after := page(0); !slices.Equal(before, after) {
			t.Errorf("a page is\n%.300q\nafter\n%.300q", after, before)
		}
	})
}

// Clients of a node itself are sent away when it has a topic of theirs no more.
func TestANodesOwnClientsFollowTheirTopic(t *testing.T) {
	eachEstateNet(t, 2, func(t *testing.T, n *estateNet) {
		topic := n.belongs(1, "t")
		c := n.client(n.nodes[1])
		c.publish(topic, "x")
		for loop := range n.nodes[1].loops {
			for _, f := range []protocol.Format{protocol.FormatBinary, protocol.FormatJSON, protocol.FormatClassic, protocol.FormatSSE} {
				s := subscribed(n.nodes[1], loop, f, topic)
				defer func() {
					if !s.conn.closed && !s.conn.parting {
						t.Errorf("format %d: its connection goes on", f)
					}
				}()
			}
		}
		n.nodes[1].loops[0].cfg.DrainTimeout = 20 * time.Second
		n.drain(1)
		n.pass(400 * time.Millisecond)
		if got := n.whose(topic); !slices.Equal(got, []int{0}) {
			t.Errorf("the topic lives in %v", got)
		}
	})
}

func TestServingOnAClusteredNodeDoesNotAllocate(t *testing.T) {
	n := newEstateNet(t, 2, 1)
	r := n.nodes[0]
	topic := n.belongs(0, "t")
	for _, s := range []*fakeSocket{subscribed(r, 0, protocol.FormatBinary, topic), subscribed(r, 0, protocol.FormatJSON, topic)} {
		forget(s)
	}
	s, publish := publisher(r, 0, "binary", topic, true)
	allocations(t, r, func() {
		r.feed(s, publish)
		r.settle()
	})
}
