package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rayflux/client"
	"rayflux/protocol"
)

const (
	recoverySeed   = 42
	recoveryTopics = 4
	recoveryEnd    = "end"
)

func recoveryTopic(i int) string { return fmt.Sprintf("recovery-%d", i%recoveryTopics) }

// cutting is a server whose clients, behind a cutter, lose their connections
// while one publisher a topic, not behind it, publishes 1, 2, 3, … and, in the
// end, recoveryEnd, until everybody has heard it. What a message says before is
// its offset: any other is a mix-up.
type cutting struct {
	t       *testing.T
	node    *node
	proxy   *cutter
	clients int
	lasting time.Duration

	pad       string // behind each message's text
	published int64  // by run, which took what the machine had time for
}

// enoughLoad is the number of messages from which on a run has to have shown what it is for; an overloaded machine may
// not get there in the run's time.
const enoughLoad = 4_000

func newCutting(t *testing.T, loops int, flags ...string) *cutting {
	n := startNode(t, loops, append([]string{"--memory=256MiB"}, flags...)...)
	return &cutting{
		t: t, node: n, proxy: newCutter(t, n.listen),
		clients: sized(50, 200), lasting: sized(2*time.Second, 30*time.Second),
	}
}

// run lets the clients follow, each until it has read recoveryEnd.
func (c *cutting) run(follow func(i int) error) {
	c.t.Helper()
	stop, heard := make(chan struct{}), make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() { c.proxy.cutUntil(stop, 5*time.Millisecond, recoverySeed) })
	var published atomic.Int64
	background.Go(func() {
		together(c.t, recoveryTopics, recoveryTopics, func(i int) error {
			n, err := c.publish(recoveryTopic(i), stop, heard)
			published.Add(n)
			return err
		})
	})
	timer := time.AfterFunc(c.lasting, func() { close(stop) })
	defer timer.Stop()
	together(c.t, c.clients, c.clients, follow)
	close(heard)
	background.Wait()
	c.published = int64(published.Load())
	c.t.Logf("seed %d: %d clients, %d cuts, %d messages", recoverySeed, c.clients, c.proxy.cuts, c.published)
}

// publish publishes to one topic until it is stopped, and then says so until it
// is heard.
func (c *cutting) publish(topic string, stop, heard <-chan struct{}) (published int64, err error) {
	s, err := dialing{}.native(c.node.listen)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for offset := int64(1); ; offset++ {
		text := strconv.FormatInt(offset, 10)
		select {
		case <-heard:
			return offset - 1, nil
		case <-stop:
			text = recoveryEnd
			time.Sleep(time.Millisecond)
		default:
		}
		s.patient()
		if err := s.tell(fmt.Sprintf(`{"op":"publish","id":1,"topic":%q,"text":%q}`, topic, text+c.pad)); err != nil {
			return offset, err
		}
		if e, err := s.event(); err != nil || e.Op != "published" || e.Offset != uint64(offset) {
			return offset, fmt.Errorf("publish %d to %s was answered %+v (%v)", offset, topic, e, err)
		}
	}
}

// follower is a native JSON client that keeps a position and nothing else.
type follower struct {
	topic string
	at    protocol.Position // of the last message; no epoch: none yet

	ended     bool
	resumed   int // resumes that were whole
	unresumed int // resumes that were told not to be
	skipped   uint64
}

// connection reads what one connection brings. Only a fault of the server is
// an error; the end of a connection is not.
func (f *follower) connection(address string) error {
	s, err := dialing{}.native(address)
	if err != nil {
		return nil // cut before it was one
	}
	defer s.Close()
	from := `"earliest"`
	if f.at.Epoch != "" {
		from = fmt.Sprintf(`{"epoch":%q,"offset":%d}`, f.at.Epoch, f.at.Offset)
	}
	if err := s.tell(fmt.Sprintf(`{"op":"subscribe","id":1,"topic":%q,"from":%s}`, f.topic, from)); err != nil {
		return nil
	}
	for !f.ended {
		s.patient()
		e, err := s.event()
		if err != nil {
			var closed *protocol.CloseError
			if errors.As(err, &closed) {
				return fmt.Errorf("%s: %w", f.topic, closed)
			}
			return nil
		}
		if err := f.take(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) take(e event) error {
	switch {
	case e.Op == "subscribed" && f.at.Epoch == "":
		f.at = protocol.Position{Epoch: e.Epoch, Offset: e.Offset}
	case e.Op == "subscribed" && *e.Recovered:
		f.resumed++
		if e.position() != f.at.String() {
			return fmt.Errorf("%s: resumed at %s, was at %s", f.topic, e.position(), f.at)
		}
	case e.Op == "subscribed":
		f.unresumed++
		if e.Epoch != f.at.Epoch || e.Offset <= f.at.Offset {
			return fmt.Errorf("%s: %s is told not to be there any more, and the topic is at %s", f.topic, f.at, e.position())
		}
		f.skipped += e.Offset - f.at.Offset
		f.at.Offset = e.Offset
	case e.Op == "gap":
		f.skipped += e.Offset - f.at.Offset
		f.at.Offset = e.Offset
	case e.Op == "message" && e.Offset == f.at.Offset+1:
		f.at.Offset++
		text := strings.TrimRight(e.text(), " ")
		f.ended = text == recoveryEnd
		if !f.ended && text != strconv.FormatUint(e.Offset, 10) {
			return fmt.Errorf("%s: message %d says %q", f.topic, e.Offset, text)
		}
	default:
		return fmt.Errorf("%s: at %s came %+v", f.topic, f.at, e)
	}
	return nil
}

func TestCutClientsResumeWithoutALoss(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		c := newCutting(t, loops, "--max-topic-bytes=16MiB")
		before := c.node.usage()
		var resumed atomic.Int64
		c.run(func(i int) error {
			f := follower{topic: recoveryTopic(i)}
			for !f.ended {
				if err := f.connection(c.proxy.address()); err != nil {
					return err
				}
			}
			resumed.Add(int64(f.resumed))
			if f.unresumed != 0 || f.skipped != 0 {
				return fmt.Errorf("%s: %d resumes failed, %d messages were skipped, and all of them are in the log", f.topic, f.unresumed, f.skipped)
			}
			return nil
		})
		t.Logf("%d resumes, all whole", resumed.Load())
		if c.published >= enoughLoad && resumed.Load() < 100 {
			t.Errorf("only %d resumes: the test does not test much", resumed.Load())
		}
		whole := 0.0
		for series, n := range c.node.metrics() { // a balancer that has just begun with a topic asks the owner
			if strings.HasPrefix(series, `rayflux_recoveries_total{result="recovered"`) {
				whole += n
			}
		}
		if whole < float64(resumed.Load()) {
			t.Errorf("%v recoveries are counted, the clients saw %d", whole, resumed.Load())
		}
		c.node.memoryWithin(256 << 20)
		before.heap += recoveryTopics << 21
		c.node.settled(before)
	})
}

func TestCutClientsAreToldWhatTheLogHasLost(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		c := newCutting(t, loops, "--max-message=1KiB", "--max-topic-bytes=4KiB")
		c.pad = strings.Repeat(" ", 350) // the log has ten messages, and more are published while some clients are away
		var resumed, unresumed, skipped atomic.Int64
		c.run(func(i int) error {
			random := rand.New(rand.NewPCG(recoverySeed, uint64(i)))
			f := follower{topic: recoveryTopic(i)}
			for !f.ended {
				if err := f.connection(c.proxy.address()); err != nil {
					return err
				}
				if !f.ended {
					time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond) // away, while others go on
				}
			}
			resumed.Add(int64(f.resumed))
			unresumed.Add(int64(f.unresumed))
			skipped.Add(int64(f.skipped))
			return nil
		})
		t.Logf("%d resumes were whole, %d honestly were not; %d messages were missed", resumed.Load(), unresumed.Load(), skipped.Load())
		if c.published >= enoughLoad && (resumed.Load() == 0 || unresumed.Load() == 0) {
			t.Error("the test wants some of both")
		}
	})
}

func TestTheGoClientResumesWhenCut(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		c := newCutting(t, loops, "--max-topic-bytes=16MiB")
		before := c.node.usage()
		c.run(func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), c.lasting+patience)
			defer cancel()
			cl, err := dialThrough(ctx, c.proxy)
			if err != nil {
				return err
			}
			defer cl.Close()
			s, err := cl.Subscribe(ctx, recoveryTopic(i), client.Earliest())
			if err != nil {
				return err
			}
			for offset := uint64(1); ; offset++ {
				d, err := s.Next(ctx)
				switch {
				case err != nil:
					return fmt.Errorf("after %d: %w", offset-1, err)
				case d.Gap != nil || d.Position.Offset != offset:
					return fmt.Errorf("after %d came %s (gap %+v)", offset-1, d.Position, d.Gap)
				case string(d.Payload) == recoveryEnd:
					return nil
				case string(d.Payload) != strconv.FormatUint(offset, 10):
					return fmt.Errorf("message %d says %q", offset, d.Payload)
				}
			}
		})
		before.heap += recoveryTopics << 21
		c.node.settled(before)
	})
}

// dialThrough is a Go client that comes back quickly. Its first connection may
// be cut as well, which Dial tells.
func dialThrough(ctx context.Context, proxy *cutter) (*client.Client, error) {
	for {
		c, err := client.Dial(ctx, proxy.address(), client.Options{MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond})
		if err == nil || ctx.Err() != nil {
			return c, err
		}
	}
}

// attempt is a publish of the Go client, and what it was told.
type attempt struct {
	text string
	at   protocol.Position
	err  error
}

func TestAPublisherThatIsCutKnowsWhatHappened(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		c := newCutting(t, loops, "--max-topic-bytes=16MiB")
		c.clients = sized(8, 40)
		attempts := make([][]attempt, c.clients)
		c.run(func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), c.lasting+patience)
			defer cancel()
			cl, err := dialThrough(ctx, c.proxy)
			if err != nil {
				return err
			}
			defer cl.Close()
			for end := time.Now().Add(c.lasting); time.Now().Before(end); {
				a := attempt{text: fmt.Sprintf("%d of %d", len(attempts[i]), i)}
				a.at, a.err = cl.Publish(ctx, fmt.Sprintf("cut-%d", i), protocol.KindText, []byte(a.text))
				if a.err != nil && !errors.Is(a.err, client.ErrOutcomeUnknown) {
					return a.err
				}
				attempts[i] = append(attempts[i], a)
			}
			return nil
		})
		unknown := 0
		for i := range attempts {
			unknown += c.compare(fmt.Sprintf("cut-%d", i), attempts[i])
		}
		t.Logf("%d outcomes were unknown", unknown)
		if unknown == 0 {
			t.Error("no publish was cut")
		}
	})
}

// compare wants a topic to hold every message that was told to be there, where
// it was told to be, in the order of the attempts; of the others, each at most
// once; and nothing else. One whose outcome is unknown may have been on its way
// still when its publisher, on the next connection, was through with more.
func (c *cutting) compare(topic string, attempts []attempt) (unknown int) {
	c.t.Helper()
	held, epoch := c.node.historyOf(c.t, topic)
	at := map[string]uint64{}
	for _, m := range held {
		if before := at[m.text()]; before != 0 {
			c.t.Errorf("%s: messages %d and %d are both %q", topic, before, m.Offset, m.text())
		}
		at[m.text()] = m.Offset
	}
	last := uint64(0)
	for _, a := range attempts {
		offset := at[a.text]
		delete(at, a.text)
		switch {
		case a.err != nil:
			unknown++
		case a.at.Epoch != epoch || a.at.Offset != offset:
			c.t.Errorf("%s: %q was told to be at %s, and is at %s:%d", topic, a.text, a.at, epoch, offset)
		case offset <= last:
			c.t.Errorf("%s: %q is message %d, and the one before it %d", topic, a.text, offset, last)
		default:
			last = offset
		}
	}
	if len(at) != 0 {
		c.t.Errorf("%s: nobody published %v", topic, at)
	}
	return unknown
}
