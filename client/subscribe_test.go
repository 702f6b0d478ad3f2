package client

import (
	"context"
	"errors"
	"testing"

	"rayflux/protocol"
)

func subscribeFrom(t *testing.T, c *Client, topic string, from From) func() (*Subscription, error) {
	t.Helper()
	return async(t, func(ctx context.Context) (*Subscription, error) { return c.Subscribe(ctx, topic, from) })
}

func closeOf(t *testing.T, s *Subscription) func() (struct{}, error) {
	t.Helper()
	return async(t, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.Close(ctx) })
}

func TestASubscribeIsRefused(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	// The first refusal is the caller's to judge, also one that may pass.
	for _, code := range []protocol.Code{protocol.CodeTooManySubscriptions, protocol.CodeNoOwner} {
		call := subscribeFrom(t, c, "t", Live())
		p.send(refused(p.expect(protocol.CmdSubscribe), code))
		_, err := call()
		expectCode(t, err, code)
	}
	subscribe(t, c, p, "t", 0) // the topic is free again
}

func TestABadSubscribeIsRefusedWithoutTheServer(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	_, err := c.Subscribe(t.Context(), "$reserved", Live())
	expectCode(t, err, protocol.CodeTopicInvalid)
	_, err = c.Subscribe(t.Context(), "t", After(protocol.Position{Epoch: "not an epoch"}))
	expectCode(t, err, protocol.CodeBadRequest)
	subscribe(t, c, p, "t", 0)
	_, err = c.Subscribe(t.Context(), "t", Live())
	expectCode(t, err, protocol.CodeAlreadySubscribed)
}

func TestCloseUnsubscribesAndTheTopicCanBeSubscribedAgain(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(message("t", 41, "x"))
	expectMessages(t, s, "E1", 41, 41)

	call := closeOf(t, s)
	cmd := p.expect(protocol.CmdUnsubscribe)
	again := subscribeFrom(t, c, "t", Live())
	resubscribe := p.expect(protocol.CmdSubscribe)
	p.send(
		message("t", 42, "of the old subscription"),
		protocol.Event{Op: protocol.EvUnsubscribed, HasID: true, ID: cmd.ID, Topic: "t"},
		subscribed(resubscribe, "E1", 43, false),
		message("t", 44, "of the new one"))
	if _, err := call(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	s, err := again()
	if err != nil {
		t.Fatal(err)
	}
	expectMessages(t, s, "E1", 44, 44)
}

func TestCloseWithoutAConnectionIsImmediate(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{MinBackoff: patience, MaxBackoff: patience})
	s := subscribe(t, c, p, "t", 40)
	p.cut()
	<-c.conn.dead
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestACancelledSubscribeIsTakenBack(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	call := async(t, func(context.Context) (*Subscription, error) { return c.Subscribe(ctx, "t", Live()) })
	cmd := p.expect(protocol.CmdSubscribe)
	cancel()
	if _, err := call(); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	p.expect(protocol.CmdUnsubscribe)
	p.send(subscribed(cmd, "E1", 0, false), message("t", 1, "x")) // too late, and ignored
	subscribe(t, c, p, "t", 1)
}

func TestNextEndsWithItsContext(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 0)
	ctx, cancel := context.WithCancel(t.Context())
	call := async(t, func(context.Context) (Delivery, error) { return s.Next(ctx) })
	cancel()
	if _, err := call(); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	p.send(message("t", 1, "x"))
	expectMessages(t, s, "E1", 1, 1)
}

func TestDeliveriesBelongToTheirReceiver(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 0)
	p.send(message("t", 1, "first"))
	first := next(t, s)
	p.send(message("t", 2, "other"))
	next(t, s)
	if string(first.Payload) != "first" || first.Kind != protocol.KindText || first.Topic != "t" {
		t.Fatalf("got %+v", first)
	}
}

func TestFragmentsAndLargeMessagesAreJoined(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 0)
	large := make([]byte, 64<<10)
	event := protocol.Event{Op: protocol.EvMessage, Topic: "t", Offset: 1, Kind: protocol.KindBinary, Payload: large}
	whole := protocol.AppendEventBinary(nil, &event)
	h, _ := protocol.NextFrame(whole)
	body := whole[h.Size:]
	first := protocol.AppendFrame(nil, protocol.OpBinary, body[:1000])
	first[0] &^= 0x80 // not the last fragment
	p.write(first)
	p.write(protocol.AppendFrame(nil, protocol.OpPing, []byte("between")))
	if got := p.expectFrame(protocol.OpPong); string(got) != "between" {
		t.Fatalf("pong carries %q", got)
	}
	p.write(protocol.AppendFrame(nil, protocol.OpContinuation, body[1000:]))
	if d := next(t, s); len(d.Payload) != len(large) {
		t.Fatalf("payload has %d bytes, want %d", len(d.Payload), len(large))
	}
}
