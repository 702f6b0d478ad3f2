package main

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// cutter is a TCP proxy in front of a server that cuts connections, at any
// byte.
type cutter struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	links []*link
	cuts  int
}

// link is one connection through a cutter: its two ends.
type link struct{ client, server *net.TCPConn }

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: listener, target: target}
	var accepting sync.WaitGroup
	accepting.Go(c.accept)
	t.Cleanup(func() {
		listener.Close()
		accepting.Wait()
		for c.cut(0, false) {
		}
	})
	return c
}

func (c *cutter) address() string { return c.listener.Addr().String() }

func (c *cutter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.target)
		if err != nil {
			client.Close()
			continue
		}
		l := &link{client.(*net.TCPConn), server.(*net.TCPConn)}
		c.mu.Lock()
		c.links = append(c.links, l)
		c.mu.Unlock()
		go c.carry(l, l.client, l.server)
		go c.carry(l, l.server, l.client)
	}
}

// carry copies one direction; the end of either is the end of both.
func (c *cutter) carry(l *link, to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	l.close(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, o := range c.links {
		if o == l {
			c.links[i] = c.links[len(c.links)-1]
			c.links = c.links[:len(c.links)-1]
			return
		}
	}
}

func (l *link) close(reset bool) {
	if reset {
		_ = l.client.SetLinger(0)
		_ = l.server.SetLinger(0)
	}
	l.client.Close()
	l.server.Close()
}

// cut ends the connection at an index, modulo their number; false: there is none.
func (c *cutter) cut(i int, reset bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.links) == 0 {
		return false
	}
	i %= len(c.links)
	l := c.links[i]
	c.links[i] = c.links[len(c.links)-1]
	c.links = c.links[:len(c.links)-1]
	c.cuts++
	l.close(reset)
	return true
}

// cutUntil cuts connections at random, one at a time, until it is stopped.
func (c *cutter) cutUntil(stop <-chan struct{}, every time.Duration, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	clock := time.NewTicker(every)
	defer clock.Stop()
	for {
		select {
		case <-stop:
			return
		case <-clock.C:
			c.cut(random.IntN(1<<20), random.IntN(2) == 0)
		}
	}
}
