package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cutter is a TCP proxy in front of a server that cuts connections, at any
// byte, or makes the way longer.
type cutter struct {
	listener net.Listener
	target   string
	life     context.Context // of dials
	end      context.CancelFunc
	joining  sync.WaitGroup

	delay, jitter atomic.Int64 // ns that bytes are under way, and at most as much more; order is kept

	mu    sync.Mutex
	links []*link
	cuts  int
}

// link is one connection through a cutter: its two ends.
type link struct{ client, server *net.TCPConn }

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	return newCutterAt(t, "127.0.0.1:0", target)
}

func newCutterAt(t testing.TB, address, target string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: listener, target: target}
	c.life, c.end = context.WithCancel(context.Background())
	c.joining.Go(c.accept)
	t.Cleanup(c.close)
	return c
}

// close frees the address, and ends every connection.
func (c *cutter) close() {
	c.end()
	c.listener.Close()
	c.joining.Wait()
	for c.cut(0, false) {
	}
}

func (c *cutter) address() string { return c.listener.Addr().String() }

func (c *cutter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.joining.Go(func() { c.join(client.(*net.TCPConn)) })
	}
}

// join connects a client with the server.
func (c *cutter) join(client *net.TCPConn) {
	server, err := (&net.Dialer{Timeout: patience}).DialContext(c.life, "tcp", c.target)
	if err != nil {
		client.Close()
		return
	}
	l := &link{client, server.(*net.TCPConn)}
	c.mu.Lock()
	c.links = append(c.links, l)
	c.mu.Unlock()
	go c.carry(l, l.client, l.server)
	go c.carry(l, l.server, l.client)
}

// carried is a stretch of bytes under way.
type carried struct {
	bytes []byte
	due   time.Time
}

// carry copies one direction; the end of either is the end of both.
func (c *cutter) carry(l *link, to, from *net.TCPConn) {
	way := make(chan carried, 256)
	go func() {
		defer close(way)
		buf := make([]byte, 64<<10)
		for last := time.Now(); ; {
			n, err := from.Read(buf)
			if n > 0 {
				due := time.Now().Add(time.Duration(c.delay.Load()))
				if jitter := c.jitter.Load(); jitter > 0 {
					due = due.Add(time.Duration(rand.Int64N(jitter)))
				}
				if due.Before(last) {
					due = last
				}
				last = due
				way <- carried{bytes.Clone(buf[:n]), due}
			}
			if err != nil {
				return
			}
		}
	}()
	for piece := range way {
		time.Sleep(time.Until(piece.due)) // what it is for
		if _, err := to.Write(piece.bytes); err != nil {
			break
		}
	}
	l.close(false)
	for range way { // the reader is to end
	}
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
