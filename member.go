package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"

	"rayflux/balancer"
	"rayflux/balancer/cluster"
	"rayflux/engine"
	"rayflux/persist"
)

// member is one server of this process: an engine and its operators' port. A node or a balancer has one, dev several.
type member struct {
	server    *engine.Server
	operators *admin
	directory *cluster.Directory // of a balancer, and of a node that has neighbours
	keeping   *keeping           // of a node with a store
}

// members are the servers of this process, those that clients connect to last: they end first.
type members struct {
	list  []*member
	s     *settings
	log   *slog.Logger
	store persist.Store // of all nodes; nil: there is none
}

// startAll starts what the role asks for. What has been started comes back with an error too, to be closed.
func startAll(s *settings, m machine, log *slog.Logger) (*members, error) {
	all := &members{s: s, log: log}
	if s.keepsSomewhere() {
		var err error
		if all.store, err = s.store.open(context.Background()); err != nil {
			return all, fmt.Errorf("store %s: %w", s.store, err)
		}
	}
	front, nodes := s.engine, s.nodes
	if !s.role.follows && nodes != nil {
		front.Slot = s.slot
	}
	if s.role.alone && s.nodeCount > 0 {
		front.Name, front.ClusterKey = "dev", []byte(rand.Text())
		source, err := all.startNodes(s, front.ClusterKey, m, log)
		if err != nil {
			return all, err
		}
		shrink(&front, 2)
		nodes = source
	}
	_, err := all.start(front, s.admin, nodes, m, log)
	return all, err
}

// startNodes starts dev's nodes, which learn of one another when all of them are there, and returns where they are.
func (all *members) startNodes(s *settings, key []byte, m machine, log *slog.Logger) (cluster.Source, error) {
	later := &promise{made: make(chan struct{})}
	var addresses []string
	for i := range s.nodeCount {
		n, err := all.start(s.devNode(i, key), s.devAdmin(i), &promised{promise: later}, m, log.With("node", i))
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", i, err)
		}
		addresses = append(addresses, n.server.Addr().String())
	}
	later.text = "static:" + strings.Join(addresses, ",")
	close(later.made)
	for _, n := range all.list {
		<-n.directory.Known() // a balancer is told by its nodes whether they know of one another
	}
	return cluster.ParseNodes(later.text)
}

// promise is addresses that are not known yet: text is set when made is closed.
type promise struct {
	made chan struct{}
	text string
}

// promised is the source of one who waits for them.
type promised struct {
	*promise
	source cluster.Source // nil until then
}

func (p *promised) String() string { return "dev" }

// Next is part of [cluster.Source].
func (p *promised) Next(ctx context.Context) ([]engine.Slot, error) {
	if p.source == nil {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.made:
		}
		source, err := cluster.ParseNodes(p.text)
		if err != nil {
			return nil, err
		}
		p.source = source
	}
	return p.source.Next(ctx)
}

// devNode is the engine of one of dev's nodes: on a port that nobody needs to know, with its share of half of everything.
func (s *settings) devNode(i int, key []byte) engine.Config {
	c := s.engine
	c.Listen, c.Name, c.ClusterKey = "127.0.0.1:0", "node-"+strconv.Itoa(i), key
	c.Slot = i
	shrink(&c, 2*int64(s.nodeCount))
	c.Loops = 1
	c.MaxConnections = min(c.MaxConnections, devNodeConnections)
	return c
}

// devNodeConnections is for links, and for who wants to talk to a node itself.
const devNodeConnections = 256

// shrink divides an engine's memory by n.
func shrink(c *engine.Config, n int64) {
	c.Memory, c.LogMemory, c.BufferMemory, c.MailMemory = c.Memory/n, c.LogMemory/n, c.BufferMemory/n, c.MailMemory/n
	c.SnapshotBacklog, c.SnapshotCache = c.SnapshotBacklog/n, c.SnapshotCache/n
}

// devAdmin is the operators' port of one of dev's nodes: those behind the balancer's own.
func (s *settings) devAdmin(i int) string {
	host, port, err := net.SplitHostPort(s.admin)
	number, numberErr := strconv.Atoi(port)
	if err != nil || numberErr != nil || number == 0 {
		return net.JoinHostPort(host, "0")
	}
	return net.JoinHostPort(host, strconv.Itoa(number+1+i))
}

// start starts one server. nodes is where its nodes are; nil: it owns topics itself.
func (all *members) start(c engine.Config, admin string, nodes cluster.Source, m machine, log *slog.Logger) (n *member, err error) {
	n = &member{}
	all.list = append(all.list, n)
	if n.operators, err = listenAdmin(admin, log); err != nil {
		return nil, fmt.Errorf("operators' port: %w", err)
	}
	c.Log = log
	keeps := all.store != nil && roleOf(c, nodes) == nodeRole.name
	if keeps {
		if n.keeping, err = all.s.keep(all.store, &c, log); err != nil {
			return nil, fmt.Errorf("store %s: %w", all.s.store, err)
		}
		if nodes == nil {
			c.Inherited = n.keeping.claim(0, 1, log)
		}
	} else {
		c.SnapshotBacklog, c.SnapshotCache = 0, 0
	}
	if nodes != nil {
		n.directory = cluster.Start(context.Background(), nodes, log)
		c.Directory = n.directory
		c.Links = balancer.Dialer{Name: c.Name, Key: c.ClusterKey, Timeout: c.LinkTimeout}
	}
	if n.server, err = engine.Start(c); err != nil {
		return nil, fmt.Errorf("public port: %w", err)
	}
	registry := newRegistry(roleOf(c, nodes), n.server, m.cgroups)
	if keeps {
		n.keeping.server.Store(n.server)
		registry.MustRegister(n.keeping.collectors()...)
		if nodes != nil {
			go n.keeping.inherit(n, c.Slot, log)
		}
	}
	n.operators.serve(n.server, registry)
	return n, nil
}

// roleOf is what a server of this configuration is, whichever command has started it. nodes is where its nodes are; nil: it has none.
func roleOf(c engine.Config, nodes cluster.Source) string {
	if nodes != nil && c.Slot < 0 {
		return balancerRole.name
	}
	return nodeRole.name
}

func (all *members) front() *member    { return all.list[len(all.list)-1] }
func (all *members) behind() []*member { return all.list[:len(all.list)-1] }

// known is closed once the servers know what they need to serve.
func (all *members) known() <-chan struct{} {
	if d := all.front().directory; d != nil {
		return d.Known()
	}
	now := make(chan struct{})
	close(now)
	return now
}

// ended tells the first that ends by itself.
func (all *members) ended() <-chan error {
	first := make(chan error, len(all.list))
	for _, n := range all.list {
		go func() {
			select {
			case <-n.server.Done():
				first <- fmt.Errorf("engine ended: %w", n.server.Err())
			case err := <-n.operators.failed:
				first <- fmt.Errorf("operators' port: %w", err)
			}
		}()
	}
	return first
}

// Drain sends the clients away, then ends what they were served from.
func (all *members) Drain(ctx context.Context) error {
	var errs []error
	for i := len(all.list) - 1; i >= 0; i-- {
		errs = append(errs, all.list[i].server.Drain(ctx))
	}
	return errors.Join(errs...)
}

// Stop ends everything at once.
func (all *members) Stop() {
	for i := len(all.list) - 1; i >= 0; i-- {
		if n := all.list[i]; n.server != nil {
			n.server.Stop()
		}
	}
}

// close gives everything back, as far as it has been started.
func (all *members) close() {
	all.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), all.s.engine.StoredTimeout)
	defer cancel()
	for _, n := range all.list {
		if n.keeping != nil {
			if err := n.keeping.close(ctx); err != nil {
				all.log.Warn("messages were not stored", "err", err)
			}
		}
		if n.directory != nil {
			n.directory.Close()
		}
		if n.operators != nil {
			n.operators.close()
		}
	}
}
