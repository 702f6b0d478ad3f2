package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"rayflux/bench"
)

// fleet is a node and the balancers in front of it. Safe from any goroutine.
type fleet struct {
	program []string // of a balancer
	drain   time.Duration
	node    *bench.Server

	mu        sync.Mutex
	balancers []*bench.Server
	ready     []bool // new clients are sent there
}

const clusterKey = "a key for measuring only"

func (o *options) startFleet(ctx context.Context) (*fleet, error) {
	f := &fleet{drain: o.drain}
	var err error
	f.node, err = bench.Spawn(ctx, []string{o.program, "node", "--listen", "{addr}", "--admin", "127.0.0.1:0", "--cluster-key", clusterKey,
		"--log-level", "error"}, -1, os.Stderr)
	if err != nil {
		return f, err
	}
	f.program = []string{o.program, "balancer", "--listen", "{addr}", "--admin", "127.0.0.1:0", "--cluster-key", clusterKey, "--log-level", "error",
		"--nodes", "static:" + f.node.Addr, "--drain-timeout", o.drain.String(), "--max-connection-age", o.age.String()}
	for range o.balancers {
		if err := f.add(ctx); err != nil {
			return f, err
		}
	}
	return f, nil
}

// add starts one more balancer.
func (f *fleet) add(ctx context.Context) error {
	s, err := bench.Spawn(ctx, f.program, -1, os.Stderr)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.balancers, f.ready = append(f.balancers, s), append(f.ready, true)
	return nil
}

// restart drains a balancer, and starts another when it is gone.
func (f *fleet) restart(ctx context.Context, i int) error {
	f.mu.Lock()
	f.ready[i] = false
	old := f.balancers[i]
	f.mu.Unlock()
	if err := old.StopWithin(f.drain + 10*time.Second); err != nil {
		return fmt.Errorf("balancer %d: %w", i, err)
	}
	s, err := bench.Spawn(ctx, f.program, -1, os.Stderr)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.balancers[i], f.ready[i] = s, true
	return nil
}

func (f *fleet) size() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.balancers)
}

// choose is a balancer that is ready, of those drawn by a random number.
func (f *fleet) choose(random int) (i int, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		i = random % len(f.balancers)
		if f.ready[i] {
			return i, f.balancers[i].Addr
		}
		random++
	}
}

// stop ends every process.
func (f *fleet) stop() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range append(f.balancers, f.node) {
		if s != nil {
			err = errors.Join(err, s.StopWithin(f.drain+10*time.Second))
		}
	}
	return err
}
