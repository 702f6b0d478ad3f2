package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"rayflux/balancer/cluster"
	"rayflux/balancer/cluster/zonetest"
	"rayflux/client"
)

// wired is a cluster whose processes reach its nodes over cables that the test holds, each process over its own: names lead to
// the near ends of them.
type wired struct {
	testCluster
	stations []*station  // the nodes', then the balancers'
	cables   [][]*cutter // by station and slot; nil: a node's to itself
	slots    int         // that are listed
	ports    []uint16    // by slot
	moves    []int       // by slot: how often it has had another address
	flags    []string
}

func startWired(t *testing.T, flags ...string) *wired {
	t.Helper()
	needStations(t)
	w := &wired{testCluster: testCluster{t: t, nodes: make([]*node, faultNodes), balancers: make([]*node, faultBalancers)},
		slots: faultNodes, ports: slices.Repeat([]uint16{faultPort}, faultNodes), moves: make([]int, faultNodes),
		flags: append(flags, "--cluster-key="+testKey, "--memory=256MiB", "--nodes=dns:_ws._tcp.rf.test.")}
	for i := range faultNodes + faultBalancers {
		w.stations = append(w.stations, newStation(t, i, i < faultNodes))
		w.cables = append(w.cables, make([]*cutter, faultNodes))
	}
	for slot := range faultNodes {
		w.wire(slot)
	}
	w.list()
	for slot := range faultNodes {
		w.startNode(slot)
	}
	for i := range faultBalancers {
		w.startBalancer(i, "127.0.0.1:0")
	}
	return w
}

func (w *wired) listen(slot int) string {
	return netip.AddrPortFrom(w.stations[slot].address(farAddresses+w.moves[slot]%8), w.ports[slot]).String()
}

func faultHost(slot int) string { return fmt.Sprintf("rf-%d.rf.test.", slot) }

// wire leads a node's name to where it listens, from every station.
func (w *wired) wire(slot int) {
	for i, s := range w.stations {
		if i == slot {
			continue
		}
		if old := w.cables[i][slot]; old != nil {
			old.close()
		}
		near := s.address(1 + slot + faultNodes*(w.moves[slot]%4))
		w.cables[i][slot] = newCutterAt(w.t, netip.AddrPortFrom(near, w.ports[slot]).String(), w.listen(slot))
		s.finds(faultHost(slot), near)
	}
}

// list says at every station which nodes there are.
func (w *wired) list() {
	var records []dnsmessage.ResourceBody
	for slot, port := range w.ports[:w.slots] {
		records = append(records, zonetest.Target(faultHost(slot), port))
	}
	for _, s := range w.stations {
		s.zone.Set("_ws._tcp.rf.test.", records...)
	}
}

func (w *wired) startNode(slot int) {
	w.t.Helper()
	s := w.stations[slot]
	w.nodes[slot] = startServer(w.t, s.shell(), "node", w.listen(slot), 1,
		append([]string{fmt.Sprintf("--slot=%d", slot), fmt.Sprintf("--admin=%s:0", s.address(farAddresses))}, w.flags...)...)
}

func (w *wired) startBalancer(i int, listen string) {
	w.t.Helper()
	w.balancers[i] = startServer(w.t, w.stations[faultNodes+i].shell(), "balancer", listen, 1, w.flags...)
}

// each does something to every cable that leads to a node.
func (w *wired) each(slot int, do func(c *cutter)) {
	for i := range w.stations {
		if c := w.cables[i][slot]; c != nil {
			do(c)
		}
	}
}

// home waits until every topic lives at the node that it belongs to.
func (w *wired) home() {
	w.t.Helper()
	for slot, n := range w.nodes {
		want := 0.0
		for i := range faultTopics {
			if cluster.Choice(cluster.Hash([]byte(faultTopic(i))), 0, w.slots) == slot {
				want++
			}
		}
		n.counted("rayflux_topics", want)
	}
}

// wayIn is a client's way to the balancers: to its own if that is there.
type wayIn struct {
	balancers []string
	own       int

	mu    sync.Mutex
	conn  net.Conn
	at    int // balancer
	dials int
}

func (l *wayIn) dial(ctx context.Context, network, _ string) (conn net.Conn, err error) {
	for i := range l.balancers {
		at := (l.own + i) % len(l.balancers)
		if conn, err = new(net.Dialer).DialContext(ctx, network, l.balancers[at]); err == nil {
			l.mu.Lock()
			l.conn, l.at = conn, at
			l.dials++
			l.mu.Unlock()
			return conn, nil
		}
	}
	return nil, err
}

func (l *wayIn) client(t *testing.T) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl, err := client.Dial(ctx, l.balancers[l.own], client.Options{NetDial: l.dial, MinBackoff: 20 * time.Millisecond, MaxBackoff: 200 * time.Millisecond})
	if err == nil {
		t.Cleanup(func() { cl.Close() })
	}
	return cl, err
}

func (l *wayIn) seen() (at, dials int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at, l.dials
}

// goHome breaks a connection to a balancer that is not the client's own.
func (l *wayIn) goHome() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at != l.own {
		l.conn.Close()
	}
}
