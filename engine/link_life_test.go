package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// How links lag, end and outlive clients.

// A link that falls off the log of a topic is told and goes on, whatever the topic's policy for clients.
func TestASlowLinkSkipsWhateverThePolicy(t *testing.T) {
	for _, policy := range []SlowPolicy{SlowSkip, SlowLatest, SlowClose} {
		eachRig(t, func(cfg *Config) { cfg.Slow, cfg.MaxMessage, cfg.MaxTopicBytes = policy, 1000, 4000 }, func(t *testing.T, r *rig) {
			p := linked(r, 0, protocol.LinkStream)
			slow, well := topicAtHome(r, len(r.loops)-1), "another"
			p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(slow)})
			p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(well)})
			p.items()
			put(r, topicNamed(r, slow), slow, "first")
			p.items()
			p.capacity = 10
			put(r, topicNamed(r, well), well, "kept")
			for i := range 40 {
				put(r, topicNamed(r, slow), slow, strings.Repeat("x", 900)+fmt.Sprint(i))
				r.pass(4*time.Millisecond, time.Millisecond)
				p.command(&protocol.Command{Op: protocol.CmdPing}) // it is there, but does not read
				r.pass(40*time.Millisecond, time.Millisecond)
				r.audit()
			}
			if p.conn.closed || p.conn.parting {
				t.Fatalf("policy %v: the link was ended", policy)
			}
			p.capacity = 1 << 30
			got := p.items()
			for range 4 { // the wait between tries has become long
				r.pass(200*time.Millisecond, time.Millisecond)
				got = append(got, p.items()...)
			}
			put(r, topicNamed(r, slow), slow, "last")
			r.pass(20*time.Millisecond, time.Millisecond)
			got = append(got, p.items()...)
			next, gaps := uint64(2), 0
			others := 0
			for _, it := range got {
				ev, err := protocol.ParseEventBinary(it.payload)
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case ev.Topic == well:
					others++
				case ev.Op == protocol.EvGap:
					if ev.Offset+1 != next+ev.Missed || ev.Reason != protocol.GapSlow {
						t.Errorf("policy %v: at %d it is told %+v", policy, next, ev)
					}
					next, gaps = ev.Offset+1, gaps+1
				case ev.Op == protocol.EvMessage:
					if ev.Offset != next {
						t.Fatalf("policy %v: message %d where %d is due", policy, ev.Offset, next)
					}
					next++
				}
			}
			if head := topicNamed(r, slow).topics[slow].head; gaps == 0 || next != head+1 || others != 1 {
				t.Errorf("policy %v: %d gaps, %d of %d, %d of the other topic", policy, gaps, next-1, head, others)
			}
		})
	}
}

func TestALinksAnswersHaveALimitOfTheirOwn(t *testing.T) {
	r := newRig(t, linkConfig(1), 1)
	p := linked(r, 0, protocol.LinkControl)
	for range 10 {
		put(r, r.loops[0], "t", strings.Repeat("x", 60_000))
	}
	p.capacity = 0
	fetch := protocol.AppendLinkCommandFrame(nil, &protocol.LinkCommand{Op: protocol.LinkCmdFetch, Topic: []byte("t"),
		Epoch: []byte(r.epochOf("t")), Offset: 1, Bytes: 1 << 20})
	stream := []byte{}
	for range linkAnswersMax / 60_100 {
		stream = append(stream, fetch...)
	}
	r.feed(p.fakeSocket, stream)
	r.audit()
	if p.conn.closed || p.conn.out.len() < 2<<20 {
		t.Fatalf("closed %v with %d bytes of answers", p.conn.closed, p.conn.out.len())
	}
	r.feed(p.fakeSocket, append(append([]byte{}, fetch...), fetch...))
	if !p.conn.closed || r.loops[0].metrics.disconnects[protocol.ReasonAnswersFull].Load() != 1 {
		t.Errorf("with %d bytes it is not ended", p.conn.out.len())
	}
	r.audit()
}

func TestASilentLinkEnds(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.LinkTimeout, cfg.PingInterval = 5*time.Second, time.Second }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkControl)
		for range 10 {
			r.pass(4*time.Second, 100*time.Millisecond)
			p.command(&protocol.Command{Op: protocol.CmdPing})
		}
		if got := p.lines(); len(got) != 10 { // and it is not pinged
			t.Fatalf("heard %q", got)
		}
		r.pass(4800*time.Millisecond, 100*time.Millisecond)
		if got := p.lines(); got != nil {
			t.Fatalf("heard %q before its time", got)
		}
		r.pass(400*time.Millisecond, 100*time.Millisecond)
		wantLines(t, p.lines(), `close 1001 "ping timeout"`)
	})
}

func idle(r *rig) bool {
	select {
	case <-r.shared.idle:
		return true
	default:
		return false
	}
}

func drain(r *rig) {
	r.shared.draining.Store(true)
	for _, l := range r.loops {
		l.send(&parcel{mails: []mail{{kind: mailDrain}}})
	}
	r.settle()
}

func TestADrainTellsLinksAndWaitsForClients(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.LinkTimeout = time.Minute }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkControl)
		client := r.connect(len(r.loops) - 1)
		r.feed(client, []byte(handshake("/ws", subprotocolJSON)))
		drain(r)
		wantLines(t, p.lines(), "draining ms=18000")
		p.command(&protocol.Command{Op: protocol.CmdPing}) // it serves on
		wantLines(t, p.lines(), `binary {"op":"pong"}`)
		if idle(r) {
			t.Fatal("the drain is over with a client connected")
		}
		r.hangUp(client)
		if !idle(r) {
			t.Error("the drain waits for a link")
		}
		if p.conn.closed || p.conn.parting {
			t.Error("the link was ended before the process")
		}
	})
}

func TestADrainEndsLinksAtTheEndOfItsWindow(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.LinkTimeout = time.Minute }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkControl)
		drain(r)
		if !idle(r) {
			t.Error("a drain waits though there are only links")
		}
		r.pass(17*time.Second, 100*time.Millisecond)
		wantLines(t, p.lines(), "draining ms=18000")
		r.pass(1200*time.Millisecond, 100*time.Millisecond)
		wantLines(t, p.lines(), `close 1001 "going away"`)
	})
}

// A client that was there when the drain began may still become a link; it is waited for no longer.
func TestALinkMadeInADrainIsNotWaitedFor(t *testing.T) {
	r := newRig(t, linkConfig(1), 1)
	p := newLinkPeer(r, 0)
	p.hello()
	drain(r)
	p.items()
	if idle(r) {
		t.Fatal("the drain is over with a client connected")
	}
	p.prove(testKey)
	if got := p.heard(); len(got) != 1 || !got[0].Draining || !idle(r) {
		t.Errorf("heard %+v; idle %v", got, idle(r))
	}
}

// A link that did not read for a moment is behind in all of its topics at once.
func TestALinkCatchesUpOnManyTopics(t *testing.T) {
	eachRig(t, nil, func(t *testing.T, r *rig) {
		const topics = 5000
		p := linked(r, 0, protocol.LinkStream)
		names := make([]string, topics)
		for i := range names {
			names[i] = fmt.Sprintf("topic/%d", i)
			p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(names[i])})
		}
		p.items()
		p.capacity = 0
		for range 2 {
			for _, name := range names {
				put(r, topicNamed(r, name), name, "x")
			}
			r.settle()
		}
		for i := 0; i < topics; i += 10 { // some lose patience
			p.command(&protocol.Command{Op: protocol.CmdUnsubscribe, Topic: []byte(names[i])})
		}
		p.capacity = 1 << 30
		r.pass(2*time.Second, time.Millisecond)
		r.audit()
		messages := map[string][]uint64{}
		for _, it := range p.items() {
			ev, err := protocol.ParseEventBinary(it.payload)
			if err != nil {
				t.Fatal(err)
			}
			if ev.Op == protocol.EvMessage {
				messages[ev.Topic] = append(messages[ev.Topic], ev.Offset)
			}
		}
		for i, name := range names {
			if got := messages[name]; i%10 != 0 && (len(got) != 2 || got[0] != 1 || got[1] != 2) {
				t.Fatalf("of %s it has %v", name, got)
			}
		}
	})
}
