package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

// chronicle is all that anybody knows of one topic.
type chronicle struct {
	mu       sync.Mutex
	payloads map[protocol.Position]string
	taken    []protocol.Position // as publishes were answered
	gaps     int
	wrong    []string
}

// note holds what somebody says is at a position against what others have said.
func (c *chronicle) note(at protocol.Position, payload string) {
	if before, known := c.payloads[at]; known && before != payload {
		c.complain("%v is %q and %q", at, before, payload)
	}
	c.payloads[at] = payload
}

func (c *chronicle) complain(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// stretch is a run of messages that came one after the other.
type stretch struct {
	epoch       string
	first, last uint64
}

// faultReader follows one topic. Its fields are under its chronicle's lock.
type faultReader struct {
	*wayIn
	topic     int
	of        *chronicle
	at        protocol.Position
	stretches []stretch // with a gap between two of them
}

func (r *faultReader) follow(ctx context.Context, sub *client.Subscription) {
	for {
		d, err := sub.Next(ctx)
		if errors.Is(err, context.Canceled) || errors.Is(err, client.ErrClosed) {
			return
		}
		r.of.mu.Lock()
		if err != nil {
			r.of.complain("a reader's end: %v", err)
			r.of.mu.Unlock()
			return
		}
		r.take(&d)
		r.of.mu.Unlock()
	}
}

func (r *faultReader) take(d *client.Delivery) {
	p := d.Position
	if d.Gap != nil {
		r.of.gaps++
		r.stretches = append(r.stretches, stretch{p.Epoch, p.Offset + 1, p.Offset})
		r.at = p
		return
	}
	now := &r.stretches[len(r.stretches)-1]
	if p.Epoch != now.epoch || p.Offset != now.last+1 {
		r.of.complain("%v follows %s:%d without a gap", p, now.epoch, now.last)
	}
	if r.read(p) {
		r.of.complain("%v came twice", p)
	}
	now.last, r.at = p.Offset, p
	r.of.note(p, string(d.Payload))
}

func (r *faultReader) read(p protocol.Position) bool {
	return slices.ContainsFunc(r.stretches, func(s stretch) bool { return s.epoch == p.Epoch && s.first <= p.Offset && p.Offset <= s.last })
}

// told reports whether a gap of the reader's stands for a message that it has not read: the reader left the epoch before it, or
// came to it after.
func (r *faultReader) told(p protocol.Position) bool {
	strange := true
	for i, s := range r.stretches {
		if s.epoch != p.Epoch {
			continue
		}
		strange = false
		if i > 0 && p.Offset < s.first || i < len(r.stretches)-1 && p.Offset > s.last {
			return true
		}
	}
	return strange && len(r.stretches) > 1
}

// faultPublisher publishes to one topic by one client.
type faultPublisher struct {
	*wayIn
	client *client.Client
	topic  int
	of     *chronicle

	mu      sync.Mutex
	taken   int
	failed  int
	since   time.Time     // the last fault
	away    time.Duration // until one that was published after it was taken; 0: none was
	longest time.Duration // between two that were taken
	last    time.Time     // when that was
}

func (p *faultPublisher) run(ctx context.Context, name string) {
	for k := 0; ctx.Err() == nil; k++ {
		payload := fmt.Sprintf("%s %d", name, k)
		began := time.Now()
		each, cancel := context.WithTimeout(ctx, patience)
		at, err := p.client.Publish(each, faultTopic(p.topic), protocol.KindText, []byte(payload))
		cancel()
		p.answered(began, err)
		if err == nil {
			p.of.mu.Lock()
			p.of.note(at, payload)
			p.of.taken = append(p.of.taken, at)
			p.of.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(faultPause): // a rate, not a wait for something
		}
	}
}

func (p *faultPublisher) answered(began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed++
		return
	}
	now := time.Now()
	p.taken++
	if p.away == 0 && began.After(p.since) {
		p.away = now.Sub(p.since)
	}
	if !p.last.IsZero() {
		p.longest = max(p.longest, now.Sub(p.last))
	}
	p.last = now
}
