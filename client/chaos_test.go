package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rayflux/protocol"
)

// broker is a whole server in miniature: topics that are slices, and every now
// and then a crash that starts all over with a new epoch.
type broker struct {
	mu      sync.Mutex
	epoch   int
	topics  map[string][]string // payloads of the present epoch
	history map[string]string   // "topic epoch:offset" to payload, of all epochs
	readers map[*peer]map[string]bool
}

func newBroker() *broker {
	return &broker{topics: make(map[string][]string), history: make(map[string]string), readers: make(map[*peer]map[string]bool)}
}

func (b *broker) epochName() string { return fmt.Sprint("E", b.epoch) }

// serve answers one connection until it breaks.
func (b *broker) serve(p *peer) {
	defer p.socket.Close()
	b.mu.Lock()
	b.readers[p] = make(map[string]bool)
	b.mu.Unlock()
	for {
		m, err := p.next()
		if err != nil || m.Opcode == protocol.OpClose {
			break
		}
		if cmd, err := protocol.ParseBinaryCommand(m.Payload, 1<<20); err == nil {
			b.do(p, cmd)
		}
	}
	b.mu.Lock()
	delete(b.readers, p)
	b.mu.Unlock()
}

func (b *broker) do(p *peer, cmd protocol.Command) {
	b.mu.Lock()
	defer b.mu.Unlock()
	topic := string(cmd.Topic)
	log := b.topics[topic]
	head := uint64(len(log))
	switch cmd.Op {
	case protocol.CmdSubscribe:
		from := cmd.From
		answer := subscribed(cmd, b.epochName(), head, false)
		if from.Mode == protocol.FromEarliest {
			answer.Offset = 0
		} else if string(from.Epoch) == b.epochName() && from.Offset <= head {
			answer.Offset, answer.Recovered = from.Offset, true
		}
		out := protocol.AppendEventBinary(nil, &answer)
		for offset := answer.Offset; offset < head; offset++ {
			out = protocol.AppendMessage(out, protocol.FormatBinary, topic, offset+1, protocol.KindText, []byte(log[offset]))
		}
		b.readers[p][topic] = true
		p.socket.Write(out)
	case protocol.CmdPublish:
		b.topics[topic] = append(log, string(cmd.Payload))
		b.history[fmt.Sprintf("%s %s:%d", topic, b.epochName(), head+1)] = string(cmd.Payload)
		for reader, topics := range b.readers {
			if topics[topic] {
				reader.socket.Write(protocol.AppendMessage(nil, protocol.FormatBinary, topic, head+1, protocol.KindText, cmd.Payload))
			}
		}
		answer := published(cmd, b.epochName(), head+1)
		p.socket.Write(protocol.AppendEventBinary(nil, &answer))
	}
}

// crash forgets everything and breaks every connection.
func (b *broker) crash() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.epoch++
	clear(b.topics)
	for p := range b.readers {
		p.socket.Close()
	}
}

// frail is a connection that breaks after a number of bytes, be it in the
// middle of a frame.
type frail struct {
	net.Conn
	left *atomic.Int64
}

func (c frail) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(int64(len(b)), max(1, c.left.Load()))])
	if c.left.Add(-int64(n)) <= 0 {
		c.Conn.Close()
	}
	return n, err
}

func (c frail) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b[:min(int64(len(b)), max(1, c.left.Load()))])
	if c.left.Add(-int64(n)) <= 0 || n < len(b) && err == nil {
		c.Conn.Close()
		return n, errors.Join(err, net.ErrClosed)
	}
	return n, err
}

// frailDialer makes connections that carry the handshake and not much more,
// until it is calm. One client dials one at a time, so the seed decides.
func frailDialer(seed uint64, calm *atomic.Bool) func(context.Context, string, string) (net.Conn, error) {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		socket, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || calm.Load() {
			return socket, err
		}
		left := new(atomic.Int64)
		left.Store(600 + rng.Int64N(20_000))
		return frail{socket, left}, nil
	}
}

// Whatever breaks and whenever, a subscriber sees offsets without a hole or a
// repeat, or one gap into another epoch; and a publish that was answered is
// exactly where the answer says.
func TestNoLossAndNoRepeatOverConnectionsThatBreakAnywhere(t *testing.T) {
	for range 3 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { chaos(t, seed) })
	}
}

func chaos(t *testing.T, seed uint64) {
	const topics, publishes, crashEvery = 3, 400, 250
	f, b := newScript(t), newBroker()
	var serving sync.WaitGroup
	done := make(chan struct{})
	serving.Go(func() {
		for {
			select {
			case p := <-f.accepted:
				serving.Go(func() { b.serve(p) })
			case <-done:
				return
			}
		}
	})
	defer serving.Wait()
	defer close(done)

	var calm atomic.Bool
	c, err := Dial(t.Context(), f.address(), Options{NetDial: frailDialer(seed, &calm), MinBackoff: time.Microsecond, MaxBackoff: time.Millisecond, Buffer: 8})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	var consumers, publishers sync.WaitGroup
	for i := range topics {
		topic := fmt.Sprint("t", i)
		s, err := c.Subscribe(t.Context(), topic, Earliest())
		if err != nil {
			t.Fatal(err)
		}
		consumers.Go(func() { follow(t, b, s) })
		publishers.Go(func() {
			for n := range publishes {
				if n%crashEvery == crashEvery-1 && i == 0 {
					b.crash()
				}
				publishOnce(t, c, b, topic, fmt.Sprintf("%s #%d", topic, n))
			}
		})
	}
	publishers.Wait()
	calm.Store(true)
	b.crash() // cuts the last frail connection
	for i := range topics {
		for !publishOnce(t, c, b, fmt.Sprint("t", i), "end") && !t.Failed() {
		}
	}
	consumers.Wait()
	seen := make(map[string]string)
	for at, payload := range b.history {
		if before, twice := seen[payload]; twice && payload != "end" {
			t.Errorf("%q was published at %s and at %s", payload, before, at)
		}
		seen[payload] = at
	}
}

// publishOnce reports whether the publish was answered; if so it is in the
// history at that place.
func publishOnce(t *testing.T, c *Client, b *broker, topic, payload string) bool {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	at, err := c.Publish(ctx, topic, protocol.KindText, []byte(payload))
	if err != nil {
		if !errors.Is(err, ErrOutcomeUnknown) || ctx.Err() != nil {
			t.Errorf("publish %q: %v", payload, err)
		}
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := b.history[topic+" "+at.String()]; got != payload {
		t.Errorf("publish %q was answered %v, where there is %q", payload, at, got)
	}
	return true
}

// follow reads a subscription up to its "end" and checks each step.
func follow(t *testing.T, b *broker, s *Subscription) {
	last := s.Position()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		d, err := s.Next(ctx)
		cancel()
		if err != nil {
			t.Errorf("%s after %v: %v", s.Topic(), last, err)
			return
		}
		b.mu.Lock()
		want := b.history[s.Topic()+" "+d.Position.String()]
		b.mu.Unlock()
		switch {
		case d.Gap != nil && d.Position.Epoch == last.Epoch:
			t.Errorf("%s: a gap from %v to %v, within one epoch", s.Topic(), last, d.Position)
		case d.Gap != nil:
		case d.Position != protocol.Position{Epoch: last.Epoch, Offset: last.Offset + 1}:
			t.Errorf("%s: %v follows %v", s.Topic(), d.Position, last)
		case !bytes.Equal(d.Payload, []byte(want)):
			t.Errorf("%s: %v is %q, want %q", s.Topic(), d.Position, d.Payload, want)
		case want == "end":
			return
		}
		last = d.Position
	}
}
