package client

import (
	"testing"
	"time"

	"rayflux/protocol"
)

func TestResumesAfterACutMidStream(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(messages("t", 41, 43)...)
	expectMessages(t, s, "E1", 41, 43)
	p.send(messages("t", 44, 45)...)
	// Half of message 46 never comes.
	half := protocol.AppendMessage(nil, protocol.FormatBinary, "t", 46, protocol.KindText, []byte("half"))
	p.write(half[:len(half)-2])
	expectMessages(t, s, "E1", 44, 45)
	p.cut()

	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E1", 45)
	p.send(subscribed(again, "E1", 45, true))
	p.send(messages("t", 46, 48)...)
	expectMessages(t, s, "E1", 46, 48)
	if at := s.Position(); at != (protocol.Position{Epoch: "E1", Offset: 48}) {
		t.Fatalf("position is %v", at)
	}
}

func TestResumesFromWhatIsQueuedNotFromWhatIsConsumed(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 0)
	p.send(messages("t", 1, 5)...)
	p.cut()

	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E1", 5)
	if at := s.Position(); at.Offset != 0 {
		t.Fatalf("position is %v before the first Next", at)
	}
	p.send(subscribed(again, "E1", 5, true))
	p.send(messages("t", 6, 7)...)
	expectMessages(t, s, "E1", 1, 7)
}

func TestEverySubscriptionResumesFromItsOwnPosition(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	a, b := subscribe(t, c, p, "a", 10), subscribe(t, c, p, "b", 20)
	p.send(message("a", 11, "x"), message("b", 21, "x"), message("b", 22, "x"))
	expectMessages(t, a, "E1", 11, 11)
	expectMessages(t, b, "E1", 21, 22)
	p.cut()

	p = f.accept()
	for range 2 {
		again := p.expect(protocol.CmdSubscribe)
		want := map[string]uint64{"a": 11, "b": 22}[string(again.Topic)]
		expectFrom(t, again, "E1", want)
		p.send(subscribed(again, "E1", want, true), message(string(again.Topic), want+1, "x"))
	}
	expectMessages(t, a, "E1", 12, 12)
	expectMessages(t, b, "E1", 23, 23)
}

func TestMessagesBeforeTheConfirmationAreIgnored(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.cut()

	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	p.send(message("t", 90, "x"), subscribed(again, "E1", 40, true), message("t", 41, "x"))
	expectMessages(t, s, "E1", 41, 41)
}

func TestAResumeThatIsNotRecoveredIsOneGap(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(message("t", 41, "x"))
	expectMessages(t, s, "E1", 41, 41)
	p.cut()

	p = f.accept()
	p.send(subscribed(p.expect(protocol.CmdSubscribe), "E2", 7, false))
	p.send(messages("t", 8, 9)...)
	expectGap(t, s, protocol.Position{Epoch: "E2", Offset: 7}, protocol.GapReset, 0)
	expectMessages(t, s, "E2", 8, 9)
	p.cut()

	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E2", 9)
	p.send(subscribed(again, "E2", 9, true), message("t", 10, "x"))
	expectMessages(t, s, "E2", 10, 10)
}

func TestAPartialRecoveryLeavesTheGapToTheServer(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.cut()

	p = f.accept()
	answer := subscribed(p.expect(protocol.CmdSubscribe), "E1", 40, false)
	answer.Partial = true
	p.send(answer, message("t", 41, "x"), protocol.Event{
		Op: protocol.EvGap, Topic: "t", Epoch: "E2", Offset: 0, Reason: protocol.GapReset,
	}, message("t", 1, "x"))
	expectMessages(t, s, "E1", 41, 41)
	expectGap(t, s, protocol.Position{Epoch: "E2"}, protocol.GapReset, 0)
	expectMessages(t, s, "E2", 1, 1)
}

func TestAGapOfTheServerMovesThePosition(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(message("t", 41, "x"),
		protocol.Event{Op: protocol.EvGap, Topic: "t", Epoch: "E1", Offset: 57, HasMissed: true, Missed: 16, Reason: protocol.GapSlow},
		message("t", 58, "x"))
	expectMessages(t, s, "E1", 41, 41)
	expectGap(t, s, protocol.Position{Epoch: "E1", Offset: 57}, protocol.GapSlow, 16)
	expectMessages(t, s, "E1", 58, 58)
}

func TestRepeatedOffsetsAreDropped(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(message("t", 40, "x"), message("t", 41, "x"), message("t", 41, "x"), message("t", 39, "x"), message("t", 42, "x"))
	expectMessages(t, s, "E1", 41, 42)
}

func TestASilentHoleIsAskedForAgain(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(message("t", 41, "x"), message("t", 43, "x"))
	p.expectClose(protocol.CloseProtocol)

	p = f.accept()
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E1", 41)
	p.send(subscribed(again, "E1", 41, true))
	p.send(messages("t", 42, 43)...)
	expectMessages(t, s, "E1", 41, 43)
}

func TestAStartAfterAnUnknownPositionBeginsWithAGap(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	asked := protocol.Position{Epoch: "E0", Offset: 9}
	call := subscribeFrom(t, c, "t", After(asked))
	cmd := p.expect(protocol.CmdSubscribe)
	expectFrom(t, cmd, "E0", 9)
	p.send(subscribed(cmd, "E1", 3, false), message("t", 4, "x"))
	s, err := call()
	if err != nil {
		t.Fatal(err)
	}
	if s.Recovered() || s.Position() != asked {
		t.Fatalf("recovered %v at %v", s.Recovered(), s.Position())
	}
	expectGap(t, s, protocol.Position{Epoch: "E1", Offset: 3}, protocol.GapReset, 0)
	expectMessages(t, s, "E1", 4, 4)
}

func TestAStartAfterAKnownPositionIsRecovered(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	call := subscribeFrom(t, c, "t", After(protocol.Position{Epoch: "E1", Offset: 9}))
	p.send(subscribed(p.expect(protocol.CmdSubscribe), "E1", 9, true), message("t", 10, "x"))
	s, err := call()
	if err != nil || !s.Recovered() {
		t.Fatalf("error %v", err)
	}
	expectMessages(t, s, "E1", 10, 10)
}

func TestASubscribeCutOffBeforeItsAnswerStartsAsAsked(t *testing.T) {
	starts := map[string]struct {
		from From
		want protocol.FromMode
	}{
		"live":     {Live(), protocol.FromLive},
		"earliest": {Earliest(), protocol.FromEarliest},
		"last":     {Last(10), protocol.FromLast},
		"since":    {Since(time.UnixMilli(1767366245000)), protocol.FromSince},
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			f := newScript(t)
			c, p := f.dial(Options{})
			call := subscribeFrom(t, c, "t", start.from)
			p.expect(protocol.CmdSubscribe)
			p.cut()
			p = f.accept()
			cmd := p.expect(protocol.CmdSubscribe)
			if cmd.From.Mode != start.want {
				t.Fatalf("from mode %d, want %d", cmd.From.Mode, start.want)
			}
			p.send(subscribed(cmd, "E1", 5, false), message("t", 6, "x"))
			s, err := call()
			if err != nil {
				t.Fatal(err)
			}
			expectMessages(t, s, "E1", 6, 6)
		})
	}
}

func TestAResumeThatIsRefusedForNowIsTriedAgain(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.cut()

	p = f.accept()
	for _, code := range []protocol.Code{protocol.CodeNoOwner, protocol.CodeOverloaded} {
		p.send(refused(p.expect(protocol.CmdSubscribe), code))
	}
	again := p.expect(protocol.CmdSubscribe)
	expectFrom(t, again, "E1", 40)
	p.send(subscribed(again, "E1", 40, true), message("t", 41, "x"))
	expectMessages(t, s, "E1", 41, 41)
}

func TestAResumeThatIsRefusedForGoodEndsTheSubscription(t *testing.T) {
	f := newScript(t)
	c, p := f.dial(Options{})
	s := subscribe(t, c, p, "t", 40)
	p.send(message("t", 41, "x"))
	p.cut()

	p = f.accept()
	p.send(refused(p.expect(protocol.CmdSubscribe), protocol.CodeForbidden))
	expectMessages(t, s, "E1", 41, 41) // what was queued is still there
	_, err := s.Next(t.Context())
	expectCode(t, err, protocol.CodeForbidden)
}
