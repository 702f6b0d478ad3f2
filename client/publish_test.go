package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"rayflux/protocol"
)

func TestPublishReturnsItsPosition(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	call := async(t, func(ctx context.Context) (protocol.Position, error) {
		return c.Publish(ctx, "t", protocol.KindJSON, []byte(`{"a":1}`), AckStored())
	})
	cmd := p.expect(protocol.CmdPublish)
	if string(cmd.Topic) != "t" || cmd.Kind != protocol.KindJSON || string(cmd.Payload) != `{"a":1}` || !cmd.Stored {
		t.Fatalf("got %+v", cmd)
	}
	p.send(published(cmd, "E1", 42))
	at, err := call()
	if err != nil || at != (protocol.Position{Epoch: "E1", Offset: 42}) {
		t.Fatalf("got %v, %v", at, err)
	}
}

func TestAnswersFindTheirPublishInAnyOrder(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	a := publish(t, c, "a", "x")
	first := p.expect(protocol.CmdPublish)
	b := publish(t, c, "b", "x")
	second := p.expect(protocol.CmdPublish)
	p.send(published(second, "E1", 2), published(first, "E1", 1))
	if at, err := a(); err != nil || at.Offset != 1 {
		t.Fatalf("a: %v, %v", at, err)
	}
	if at, err := b(); err != nil || at.Offset != 2 {
		t.Fatalf("b: %v, %v", at, err)
	}
}

func TestARefusedPublishIsAProtocolError(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	call := publish(t, c, "t", "x")
	answer := refused(p.expect(protocol.CmdPublish), protocol.CodeRateLimited)
	answer.RetryAfterMs = 1500
	p.send(answer)
	_, err := call()
	expectCode(t, err, protocol.CodeRateLimited)
	var told *protocol.Error
	if errors.As(err, &told); told.RetryAfter.Milliseconds() != 1500 {
		t.Fatalf("retry after %v", told.RetryAfter)
	}
}

func TestAnOwnerThatDiedIsAnUnknownOutcome(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	call := publish(t, c, "t", "x")
	p.send(refused(p.expect(protocol.CmdPublish), protocol.CodeOutcomeUnknown))
	_, err := call()
	expectCode(t, err, protocol.CodeOutcomeUnknown)
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("got %v, want ErrOutcomeUnknown", err)
	}
}

func TestAPublishInFlightWhenTheConnectionBreaksIsNotSentAgain(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	lost := publish(t, c, "t", "lost")
	p.expect(protocol.CmdPublish)
	p.cut()
	if _, err := lost(); !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("got %v, want ErrOutcomeUnknown", err)
	}

	p = f.accept()
	later := publish(t, c, "t", "later")
	cmd := p.expect(protocol.CmdPublish)
	if string(cmd.Payload) != "later" {
		t.Fatalf("%q was sent again", cmd.Payload)
	}
	p.send(published(cmd, "E1", 1))
	if _, err := later(); err != nil {
		t.Fatal(err)
	}
}

func TestAPublishWithoutAConnectionWaitsForTheNext(t *testing.T) {
	f := newScript(t)
	gate := make(chan struct{}, 1)
	gate <- struct{}{}
	c, p := f.dial(Options{NetDial: gated(gate)})
	first := c.conn
	p.cut()
	<-first.dead
	call := publish(t, c, "t", "x")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Publish(ctx, "t", protocol.KindText, nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("got %v: what was never sent has a known outcome", err)
	}

	gate <- struct{}{}
	p = f.accept()
	p.send(published(p.expect(protocol.CmdPublish), "E1", 1))
	if _, err := call(); err != nil {
		t.Fatal(err)
	}
}

func TestAPublishGivenUpWaitingHasAnUnknownOutcome(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	call := async(t, func(context.Context) (protocol.Position, error) {
		return c.Publish(ctx, "t", protocol.KindText, []byte("x"))
	})
	cmd := p.expect(protocol.CmdPublish)
	cancel()
	if _, err := call(); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	p.send(published(cmd, "E1", 1)) // nobody waits, nothing breaks
	later := publish(t, c, "t", "y")
	p.send(published(p.expect(protocol.CmdPublish), "E1", 2))
	if at, err := later(); err != nil || at.Offset != 2 {
		t.Fatalf("got %v, %v", at, err)
	}
}

func TestTooLargeAPublishDoesNotReachTheServer(t *testing.T) {
	f := newScript(t)
	f.welcome.MaxMessageBytes = 10
	c, _ := f.dial(Options{})
	_, err := c.Publish(t.Context(), "t", protocol.KindBinary, make([]byte, 11))
	expectCode(t, err, protocol.CodeMessageTooLarge)
}

func TestCommandsInFlightAreBounded(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{InFlight: 2})
	var calls []func() (protocol.Position, error)
	for range 51 {
		calls = append(calls, publish(t, c, "t", "x"))
	}
	answered := uint64(0)
	for len(calls) > 0 {
		n := min(2, len(calls))
		var cmds []protocol.Command
		for range n {
			cmds = append(cmds, p.expect(protocol.CmdPublish))
		}
		// The others cannot be on the way: a frame of another kind that the
		// client answers would come behind them.
		p.write(protocol.AppendFrame(nil, protocol.OpPing, nil))
		p.expectFrame(protocol.OpPong)
		var answers []protocol.Event
		for _, cmd := range cmds {
			answered++
			answers = append(answers, published(cmd, "E1", answered))
		}
		p.send(answers...)
		calls = calls[n:]
	}
}

func TestPublishesWaitForAServerThatDoesNotRead(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	payload := make([]byte, 60<<10)
	sent := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := c.PublishAsync(ctx, "t", protocol.KindBinary, payload)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break // it waited for room, and took the last token there was
		}
		if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	for range sent {
		p.expect(protocol.CmdPublish)
	}
	select {
	case <-c.conn.room:
	case <-time.After(patience):
		t.Fatal("those who wait are not told that there is room again")
	}
}

func TestAsynchronousPublishesReportTheirErrors(t *testing.T) {
	f := newScript(t)
	failures := make(chan error, 1)
	c, p := f.dial(Options{OnError: func(err error) { failures <- err }})
	if err := c.PublishAsync(t.Context(), "t", protocol.KindText, []byte("x")); err != nil {
		t.Fatal(err)
	}
	cmd := p.expect(protocol.CmdPublish)
	if cmd.HasID {
		t.Fatal("an asynchronous publish asks for an answer")
	}
	p.send(refused(cmd, protocol.CodeOverloaded))
	expectCode(t, <-failures, protocol.CodeOverloaded)
	p.cut()
	if err := <-failures; !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("got %v, want ErrOutcomeUnknown", err)
	}
	f.accept()
}

func TestManyPublishersShareOneConnection(t *testing.T) {
	const publishers, each = 16, 100
	f := newScript(t)
	c, p := f.dial(Options{InFlight: 8})
	var all sync.WaitGroup
	for i := range publishers {
		all.Go(func() {
			topic := fmt.Sprint("t", i)
			for n := range uint64(each) {
				at, err := c.Publish(t.Context(), topic, protocol.KindText, []byte(topic))
				if err != nil || at.Offset != n+1 {
					t.Errorf("%s: %v, %v, want offset %d", topic, at, err, n+1)
					return
				}
			}
		})
	}
	heads := make(map[string]uint64)
	for range publishers * each {
		cmd := p.expect(protocol.CmdPublish)
		heads[string(cmd.Topic)]++
		p.send(published(cmd, "E1", heads[string(cmd.Topic)]))
	}
	all.Wait()
}
