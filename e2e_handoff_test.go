package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
)

// freeAddresses are addresses that nobody listens on: nodes are told one another's before they start.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addresses = append(addresses, ln.Addr().String())
	}
	return addresses
}

// startNeighbours starts a cluster whose nodes know of one another. flags are the nodes'; start puts a node into a slot again.
func startNeighbours(t *testing.T, nodes, balancers, loops int, flags ...string) (c *testCluster, start func(slot int)) {
	t.Helper()
	c = &testCluster{t: t, nodes: make([]*node, nodes)}
	addresses := freeAddresses(t, nodes)
	start = func(slot int) {
		t.Helper()
		c.nodes[slot] = startServer(t, "", "node", addresses[slot], loops, append([]string{"--cluster-key=" + testKey, "--memory=256MiB", "--drain-timeout=10s",
			"--nodes=static:" + strings.Join(addresses, ","), fmt.Sprintf("--slot=%d", slot)}, flags...)...)
	}
	for slot := range nodes {
		start(slot)
	}
	for range balancers {
		c.balancers = append(c.balancers, c.startBalancer("--hold-timeout=10s"))
	}
	return c, start
}

// rollNodes restarts every node, one after the other, and waits in between until all topics take messages and the node has topics
// again. before and what is returned are the publishing's counts.
func (c *testCluster) rollNodes(p *publishing, before []int, start func(slot int)) []int {
	c.t.Helper()
	for slot := range c.nodes {
		c.nodes[slot].end()
		before = p.moreThan(c.t, before, 20)
		start(slot)
		before = p.moreThan(c.t, before, 20)
		eventually(c.t, func() string {
			if m := c.nodes[slot].metrics(); m[`rayflux_handoffs_total{result="received"}`] == 0 {
				return fmt.Sprintf("node %d has got no topic back", slot)
			}
			return ""
		})
	}
	return before
}

// Nodes go and come back one after the other, as in an upgrade, while every topic is published to and read: each reader gets
// one unbroken sequence.
func TestRollingRestartOfNodesIsNotSeen(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			c, start := startNeighbours(t, 3, 2, loops)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r := c.readAll(ctx, c.client(1))
			p := c.publishAll(c.client(0))
			before := p.moreThan(t, nil, 20)
			before = c.rollNodes(p, before, start)
			before = p.moreThan(t, before, 20)
			p.stop()
			p.done.Wait()
			seen, gaps := r.judge(t)
			t.Logf("%d messages read of %d topics, %d gaps, a topic was away for %v at most", seen, len(before), gaps, p.away())
			if gaps > 0 {
				t.Errorf("readers were told of %d gaps", gaps)
			}
		})
	}
}
