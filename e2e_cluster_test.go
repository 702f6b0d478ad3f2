package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

// throughBalancer, set in the environment, puts a balancer and two nodes in the place of every node that an end-to-end test
// starts: what a client sees has to be the same.
const throughBalancer = "RAYFLUX_E2E_BALANCER"

const testKey = "a key for tests, of no worth"

// startBehind starts two nodes with these flags, and returns a balancer with the same in front of them.
func startBehind(t testing.TB, shell string, loops int, flags ...string) *node {
	t.Helper()
	keyed := append([]string{"--cluster-key=" + testKey}, flags...)
	var addresses []string
	for range 2 {
		addresses = append(addresses, startServer(t, "", "node", "127.0.0.1:0", 1, keyed...).listen)
	}
	return startServer(t, shell, "balancer", "127.0.0.1:0", loops, append(keyed, "--nodes=static:"+strings.Join(addresses, ","))...)
}

// testCluster is nodes, and balancers in front of them.
type testCluster struct {
	t         *testing.T
	nodes     []*node
	proxies   []*cutter // between balancers and nodes; none: nothing is
	balancers []*node
}

func startCluster(t *testing.T, nodes, balancers int, flags ...string) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	for range nodes {
		c.nodes = append(c.nodes, c.startNode("127.0.0.1:0"))
	}
	for range balancers {
		c.balancers = append(c.balancers, c.startBalancer(flags...))
	}
	return c
}

func (c *testCluster) startNode(listen string) *node {
	c.t.Helper()
	return startServer(c.t, "", "node", listen, 1, "--cluster-key="+testKey, "--memory=256MiB", "--drain-timeout=2s")
}

func (c *testCluster) startBalancer(flags ...string) *node {
	c.t.Helper()
	var addresses []string
	for i, n := range c.nodes {
		if c.proxies != nil {
			addresses = append(addresses, c.proxies[i].address())
		} else {
			addresses = append(addresses, n.listen)
		}
	}
	return startServer(c.t, "", "balancer", "127.0.0.1:0", 2, append([]string{"--cluster-key=" + testKey, "--memory=256MiB",
		"--drain-timeout=2s", "--nodes=static:" + strings.Join(addresses, ",")}, flags...)...)
}

// client is a Go client of a balancer.
func (c *testCluster) client(balancer int) *client.Client {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cl, err := client.Dial(ctx, "ws://"+c.balancers[balancer].listen, client.Options{MaxBackoff: 100 * time.Millisecond})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cl.Close() })
	return cl
}

// kill ends a process as a machine's death would.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	n.stopped = true
	<-n.ended
	_ = n.cmd.Wait()
}

func clusterTopic(i int) string { return fmt.Sprintf("cluster-%d", i) }

const clusterTopics = 30 // each node has some, whatever its slot

func TestClusterIsOneServer(t *testing.T) {
	c := startCluster(t, 3, 2)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	here, there := c.client(0), c.client(1)
	const each = 50
	var subs []*client.Subscription
	for i := range clusterTopics {
		sub, err := there.Subscribe(ctx, clusterTopic(i), client.Live())
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	var all sync.WaitGroup
	for i := range clusterTopics {
		all.Go(func() {
			for k := range each {
				if _, err := here.Publish(ctx, clusterTopic(i), protocol.KindText, fmt.Appendf(nil, "%d", k)); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
			}
		})
	}
	for i, sub := range subs {
		for k := range each {
			d, err := sub.Next(ctx)
			if err != nil || d.Gap != nil || string(d.Payload) != fmt.Sprint(k) || d.Position.Offset != uint64(k+1) {
				t.Fatalf("topic %d, message %d: %+v (%v)", i, k, d, err)
			}
		}
	}
	all.Wait()
	for i, n := range c.nodes {
		if n.metrics()["rayflux_messages_published_total"] == 0 {
			t.Errorf("node %d has no topic", i)
		}
	}
}

// publishing publishes to every topic, again and again, what its publisher counts, and notes what was taken.
type publishing struct {
	client *client.Client
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	taken   []int                        // by topic
	all     []map[protocol.Position]bool // by topic: of what was taken
	last    []protocol.Position          // by topic: of the newest that was taken
	longest []time.Duration              // by topic: between two that were taken
}

// away is the longest that a topic took nothing, after done.
func (p *publishing) away() time.Duration { return slices.Max(p.longest).Round(time.Millisecond) }

func (c *testCluster) publishAll(cl *client.Client) *publishing {
	ctx, cancel := context.WithCancel(context.Background())
	p := &publishing{client: cl, stop: cancel, taken: make([]int, clusterTopics), last: make([]protocol.Position, clusterTopics),
		all: make([]map[protocol.Position]bool, clusterTopics), longest: make([]time.Duration, clusterTopics)}
	for i := range clusterTopics {
		p.all[i] = map[protocol.Position]bool{}
		p.done.Go(func() { p.topic(ctx, i) })
	}
	return p
}

func (p *publishing) topic(ctx context.Context, i int) {
	last := time.Now()
	for k := 0; ctx.Err() == nil; k++ {
		each, cancel := context.WithTimeout(ctx, patience)
		at, err := p.client.Publish(each, clusterTopic(i), protocol.KindText, fmt.Appendf(nil, "%d", k))
		cancel()
		if err == nil {
			now := time.Now()
			p.mu.Lock()
			p.taken[i]++
			p.last[i] = at
			p.all[i][at] = true
			p.longest[i] = max(p.longest[i], now.Sub(last))
			p.mu.Unlock()
			last = now
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond): // a rate, not a wait for something
		}
	}
}

// moreThan waits until more was taken of every topic than before.
func (p *publishing) moreThan(t *testing.T, before []int, by int) []int {
	t.Helper()
	var now []int
	eventually(t, func() string {
		p.mu.Lock()
		now = append(now[:0], p.taken...)
		p.mu.Unlock()
		for i, n := range now {
			if before != nil && n < before[i]+by || n < by {
				return fmt.Sprintf("topic %d has %d messages", i, n)
			}
		}
		return ""
	})
	return now
}

// reading follows every topic, and wants numbers that rise by one within an epoch, and a gap where one is missing.
type reading struct {
	mu    sync.Mutex
	gaps  int
	seen  map[string]map[protocol.Position]bool // by topic
	wrong []string
}

func (c *testCluster) readAll(ctx context.Context, cl *client.Client) *reading {
	c.t.Helper()
	r := &reading{seen: map[string]map[protocol.Position]bool{}}
	for i := range clusterTopics {
		sub, err := cl.Subscribe(ctx, clusterTopic(i), client.Live())
		if err != nil {
			c.t.Fatal(err)
		}
		r.mu.Lock()
		r.seen[clusterTopic(i)] = map[protocol.Position]bool{}
		r.mu.Unlock()
		go r.follow(ctx, clusterTopic(i), sub)
	}
	return r
}

func (r *reading) follow(ctx context.Context, topic string, sub *client.Subscription) {
	var at protocol.Position
	for {
		d, err := sub.Next(ctx)
		if errors.Is(err, context.Canceled) || errors.Is(err, client.ErrClosed) {
			return
		}
		r.mu.Lock()
		switch {
		case err != nil:
			r.wrong = append(r.wrong, fmt.Sprintf("%s: %v", topic, err))
			r.mu.Unlock()
			return
		case d.Gap != nil:
			r.gaps++
		case at.Epoch != "" && (d.Position.Epoch != at.Epoch || d.Position.Offset != at.Offset+1):
			r.wrong = append(r.wrong, fmt.Sprintf("%s: %v follows %v without a gap", topic, d.Position, at))
		case r.seen[topic][d.Position]:
			r.wrong = append(r.wrong, fmt.Sprintf("%s: %v came twice", topic, d.Position))
		default:
			r.seen[topic][d.Position] = true
		}
		at = d.Position
		r.mu.Unlock()
	}
}

// reaches waits until what was taken last of every topic has been read.
func (r *reading) reaches(t *testing.T, last []protocol.Position) {
	t.Helper()
	eventually(t, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i, p := range last {
			if !r.seen[clusterTopic(i)][p] {
				return fmt.Sprintf("%v of %s was taken, and not read", p, clusterTopic(i))
			}
		}
		return ""
	})
}

func (r *reading) judge(t *testing.T) (seen, gaps int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range r.seen {
		seen += len(of)
	}
	for _, w := range r.wrong {
		t.Error(w)
	}
	return seen, r.gaps
}

// Each fault happens while every topic is published to at one balancer and read at the other. Afterwards all topics have
// to come back, and no reader may have missed anything untold.
func TestClusterSurvives(t *testing.T) {
	for name, fault := range map[string]func(c *testCluster){
		"a killed node": func(c *testCluster) { c.nodes[1].kill() },
		"a killed node that comes back": func(c *testCluster) {
			at := c.nodes[1].listen
			c.nodes[1].kill()
			c.nodes[1] = c.startNode(at)
		},
		"a hung node": func(c *testCluster) {
			c.nodes[1].signal(syscall.SIGSTOP)
			n := c.nodes[1]
			c.t.Cleanup(func() { n.signal(syscall.SIGCONT) })
		},
		"a drained node": func(c *testCluster) {
			c.nodes[1].end()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startCluster(t, 3, 2, "--hold-timeout=10s", "--link-timeout=2s")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r := c.readAll(ctx, c.client(1))
			p := c.publishAll(c.client(0))
			before := p.moreThan(t, nil, 20)
			fault(c)
			p.moreThan(t, p.moreThan(t, before, 20), 20)
			p.stop()
			p.done.Wait()
			r.reaches(t, p.last)
			seen, gaps := r.judge(t)
			t.Logf("%d messages read, %d gaps, a topic was away for %v at most", seen, gaps, p.away())
		})
	}
}

// Links that break are made again, and go on where they were: what was taken is read, once, and nobody is told of a gap. Only
// the publishes that were under way may fail.
func TestCutLinksAreNotSeenByReaders(t *testing.T) {
	c := &testCluster{t: t}
	for range 2 {
		n := c.startNode("127.0.0.1:0")
		c.nodes, c.proxies = append(c.nodes, n), append(c.proxies, newCutter(t, n.listen))
	}
	for range 2 {
		c.balancers = append(c.balancers, c.startBalancer("--hold-timeout=10s", "--take-over=20s"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := c.readAll(ctx, c.client(1))
	p := c.publishAll(c.client(0))
	before := p.moreThan(t, nil, 20)
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	for i, proxy := range c.proxies {
		cutting.Go(func() { proxy.cutUntil(stop, 30*time.Millisecond, uint64(i)) })
	}
	p.moreThan(t, before, 200)
	close(stop)
	cutting.Wait()
	p.moreThan(t, p.moreThan(t, nil, 1), 20)
	p.stop()
	p.done.Wait()
	r.reaches(t, p.last)
	seen, gaps := r.judge(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, taken := range p.all {
		for at := range taken {
			if !r.seen[clusterTopic(i)][at] {
				t.Errorf("%v of %s was taken, and never read", at, clusterTopic(i))
			}
		}
	}
	cuts := c.proxies[0].cuts + c.proxies[1].cuts
	t.Logf("%d cuts, %d messages read, %d gaps", cuts, seen, gaps)
	if gaps > 0 || cuts < 10 {
		t.Errorf("%d gaps, %d cuts", gaps, cuts)
	}
}

func TestWrongClusterKeyIsToldOnBothSides(t *testing.T) {
	n := startServer(t, "", "node", "127.0.0.1:0", 1, "--cluster-key=the right key of a cluster")
	b := startServer(t, "", "balancer", "127.0.0.1:0", 1, "--cluster-key=some other key than that", "--nodes=static:"+n.listen)
	for _, who := range []*node{n, b} {
		eventually(t, func() string {
			if words := who.lastWords(); !strings.Contains(words, "cluster key") && !strings.Contains(words, "cluster's key") {
				return "nothing is said of the cluster key, but " + words
			}
			return ""
		})
	}
}

func TestKilledBalancerLosesNothingForWhoComesBack(t *testing.T) {
	c := startCluster(t, 2, 2)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pub := c.client(1)
	lost, err := c.client(0).Subscribe(ctx, clusterTopic(0), client.Live())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pub.Publish(ctx, clusterTopic(0), protocol.KindText, []byte("before")); err != nil {
		t.Fatal(err)
	}
	d, err := lost.Next(ctx)
	if err != nil || string(d.Payload) != "before" {
		t.Fatalf("%+v (%v)", d, err)
	}
	first := d.Position
	c.balancers[0].kill()
	if _, err := pub.Publish(ctx, clusterTopic(0), protocol.KindText, []byte("after")); err != nil {
		t.Fatal(err)
	}
	sub, err := c.client(1).Subscribe(ctx, clusterTopic(0), client.After(first))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := sub.Next(ctx); err != nil || d.Gap != nil || string(d.Payload) != "after" {
		t.Errorf("what comes after %v is %+v (%v)", first, d, err)
	}
}

// However many read a topic at a balancer, its node has one reader more for it, and sends it once.
func TestHotTopicIsFollowedOncePerBalancer(t *testing.T) {
	c := startCluster(t, 1, 2)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	readers, messages := sized(100, 5000), 20 // readers of each balancer
	subs := make([]*socket, 2*readers)
	together(t, len(subs), 32, func(i int) (err error) {
		subs[i], err = dialing{}.classic(c.balancers[i%2].listen, "hot")
		return err
	})
	for _, b := range c.balancers {
		b.counted("rayflux_subscriptions", float64(readers))
	}
	c.nodes[0].counted("rayflux_subscriptions", 2)

	began := time.Now()
	pub := c.client(0)
	for k := range messages {
		if _, err := pub.Publish(ctx, "hot", protocol.KindText, fmt.Appendf(nil, "%d", k)); err != nil {
			t.Fatal(err)
		}
	}
	together(t, len(subs), len(subs), func(i int) error {
		for k := range messages {
			subs[i].patient()
			if _, payload, err := subs[i].message(); err != nil || string(payload) != fmt.Sprint(k) {
				return fmt.Errorf("message %d is %q (%v)", k, payload, err)
			}
		}
		return nil
	})
	t.Logf("%d messages to %d readers in %v", messages, len(subs), time.Since(began).Round(time.Millisecond))
	for _, p := range append(c.balancers, c.nodes[0]) {
		t.Logf("%s: %v", p.listen, p.usage())
	}
	for _, s := range subs {
		s.Close()
	}
	if n := c.nodes[0].metrics()["rayflux_messages_delivered_total"]; n != float64(2*messages) {
		t.Errorf("the node has delivered %v messages, want %d to each balancer", n, messages)
	}
}
