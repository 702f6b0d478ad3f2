package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func eachRig(t *testing.T, change func(*Config), test func(t *testing.T, r *rig)) {
	for _, loops := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			cfg := linkConfig(loops)
			if change != nil {
				change(&cfg)
			}
			r := newRig(t, cfg, 1)
			test(t, r)
			r.settle()
			r.audit()
		})
	}
}

func locate(topic string, from protocol.From) *protocol.LinkCommand {
	return &protocol.LinkCommand{Op: protocol.LinkCmdLocate, HasID: true, ID: 1, Topic: []byte(topic), From: from}
}

func TestALinkDoesWhatClientsDo(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.MaxSubscriptions = 1 }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkStream)
		topic := topicAtHome(r, len(r.loops)-1)
		p.command(&protocol.Command{Op: protocol.CmdSubscribe, HasID: true, ID: 1, Topic: []byte(topic)})
		p.items()
		epoch := r.epochOf(topic)
		p.command(&protocol.Command{Op: protocol.CmdPublish, HasID: true, ID: 2, Topic: []byte(topic), Kind: protocol.KindText, Payload: []byte("hi")})
		wantLines(t, p.lines(),
			fmt.Sprintf(`binary {"op":"published","id":2,"topic":"%s","epoch":"%s","offset":1}`, topic, epoch),
			fmt.Sprintf(`binary {"op":"message","topic":"%s","offset":1,"data":"hi"}`, topic))
		p.command(&protocol.Command{Op: protocol.CmdPublish, HasID: true, ID: 3, Topic: []byte(topic), Kind: protocol.KindText, Payload: []byte("\xff")})
		wantLines(t, p.lines(), `binary {"op":"error","id":3,"code":"data_invalid","message":"text payload is not UTF-8 at byte 0 of 1"}`)
		p.command(&protocol.Command{Op: protocol.CmdPing, HasID: true, ID: 4})
		wantLines(t, p.lines(), `binary {"op":"pong","id":4}`)
		p.command(&protocol.Command{Op: protocol.CmdUnsubscribe, HasID: true, ID: 5, Topic: []byte(topic)})
		wantLines(t, p.lines(), fmt.Sprintf(`binary {"op":"unsubscribed","id":5,"topic":"%s"}`, topic))
	})
}

func TestALinkSubscribesToAnyNumberOfTopics(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.MaxSubscriptions = 2 }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkStream)
		topic := func(i int) []byte { return fmt.Appendf(nil, "topic/%d", i) }
		for i := range 300 {
			p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: topic(i)})
		}
		if n := len(p.items()); n != 300 {
			t.Fatalf("%d answers to 300 subscriptions", n)
		}
		for i := 0; i < 300; i += 3 { // from the front, the middle and the end
			p.command(&protocol.Command{Op: protocol.CmdUnsubscribe, Topic: topic(i)})
			p.command(&protocol.Command{Op: protocol.CmdUnsubscribe, Topic: topic(299 - i)})
			r.audit()
		}
		p.items()
		p.command(&protocol.Command{Op: protocol.CmdSubscribe, HasID: true, ID: 1, Topic: topic(1)})
		p.command(&protocol.Command{Op: protocol.CmdUnsubscribe, HasID: true, ID: 2, Topic: topic(0)})
		wantLines(t, sorted(p.lines()), `binary {"op":"error","id":1,"code":"already_subscribed","message":"already subscribed to \"topic/1\""}`,
			`binary {"op":"error","id":2,"code":"not_subscribed","message":"not subscribed to \"topic/0\""}`)
		for i := range 300 {
			put(r, topicNamed(r, string(topic(i))), string(topic(i)), "hi")
		}
		if n := len(p.items()); n != 100 {
			t.Errorf("%d messages of 100 topics", n)
		}
	})
}

func TestALinkSubscriptionThatIsRefusedLeavesNoTrace(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.MaxTopics = 1 }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkStream)
		p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("a")})
		p.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("b")})
		r.settle()
		if len(p.conn.subs) != 1 {
			t.Errorf("%d subscriptions", len(p.conn.subs))
		}
	})
}

func TestWhatALinkIsNotFor(t *testing.T) {
	const bad = `binary {"op":"error","id":7,"code":"bad_request","message":"`
	eachRig(t, nil, func(t *testing.T, r *rig) {
		for _, purpose := range []protocol.LinkPurpose{protocol.LinkControl, protocol.LinkStream} {
			p := linked(r, 0, purpose)
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHello, Version: 1, Purpose: purpose, Nonce: p.terms.PeerNonce})
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdProof, Proof: make([]byte, 32)})
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdSettled, Loops: 1})
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdClaim, HasID: true, ID: 7, Topic: []byte("t")})
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHandoff, HasID: true, ID: 7, Token: make([]byte, 16), Topic: []byte("t"), Epoch: []byte("E")})
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdLocate, HasID: true, ID: 7, Topic: []byte("$t")})
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHistory, HasID: true, ID: 7, Topic: []byte("t"), Limit: 1001})
			p.bytes(0x1f, 1, 7)
			wantLines(t, sorted(p.lines()), sorted([]string{
				strings.Replace(bad, `"id":7,`, "", 1) + `hello: this is a link already"}`,
				strings.Replace(bad, `"id":7,`, "", 1) + `proof: this is a link already"}`,
				strings.Replace(bad, `"id":7,`, "", 1) + fmt.Sprintf(`settled: a link for %s does not have it"}`, purpose),
				bad + fmt.Sprintf(`claim: a link for %s does not have it"}`, purpose),
				bad + fmt.Sprintf(`handoff: a link for %s does not have it"}`, purpose),
				`binary {"op":"error","id":7,"code":"topic_invalid","message":"topic name \"$t\" starts with $, which is reserved"}`,
				bad + `history: limit is 1001, want 1 to 1000"}`,
				`binary {"op":"error","id":7,"code":"unknown_op","message":"command type is 0x1f, which links do not have"}`,
			})...)
		}
		p := linked(r, 0, protocol.LinkTransfer)
		p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdLocate, HasID: true, ID: 7, Topic: []byte("t")})
		p.command(&protocol.Command{Op: protocol.CmdSubscribe, HasID: true, ID: 7, Topic: []byte("t")})
		p.command(&protocol.Command{Op: protocol.CmdPing, HasID: true, ID: 8})
		wantLines(t, sorted(p.lines()), sorted([]string{bad + `locate: a link for transfer does not have it"}`,
			bad + `subscribe: a link for transfer does not have it"}`, `binary {"op":"pong","id":8}`})...)
		r.feed(p.fakeSocket, maskedText("hi"))
		wantLines(t, p.lines(), `close 1003 "rayflux.v1.bin takes binary messages"`)
	})
}

func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}

func TestLocateSaysWhereASubscriptionWouldBegin(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.MaxMessage, cfg.MaxTopicBytes = 1000, 4000; cfg.MaxTopics = 2 }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkControl)
		topic := topicAtHome(r, len(r.loops)-1)
		p.ask(locate(topic, protocol.From{}))
		wantLines(t, p.lines(), "located id=1 "+topic+" offset=0 head=0 start=1 whole=false")
		home := topicNamed(r, topic)
		for range 20 {
			put(r, home, topic, strings.Repeat("x", 900))
		}
		start := home.topics[topic].start
		if start < 2 {
			t.Fatal("nothing has left the log")
		}
		for _, tt := range []struct {
			from   protocol.From
			offset uint64
			whole  bool
		}{
			{protocol.From{}, 20, false},
			{protocol.From{Mode: protocol.FromEarliest}, start - 1, false},
			{protocol.From{Mode: protocol.FromLast, Last: 2}, 18, true},
			{protocol.From{Mode: protocol.FromPosition, Epoch: []byte(r.epochOf(topic)), Offset: 19}, 19, true},
			{protocol.From{Mode: protocol.FromPosition, Epoch: []byte(r.epochOf(topic)), Offset: 21}, 20, false},
			{protocol.From{Mode: protocol.FromPosition, Epoch: []byte("another"), Offset: 19}, 20, false},
			{protocol.From{Mode: protocol.FromSince, Since: 0}, start - 1, false},
		} {
			p.ask(locate(topic, tt.from))
			got := p.heard()
			if len(got) != 1 || got[0].Offset != tt.offset || got[0].Whole != tt.whole || got[0].Head != 20 || got[0].Start != start ||
				string(got[0].Epoch) != r.epochOf(topic) {
				t.Errorf("%+v: %+v", tt.from, got)
			}
		}
		p.ask(locate("second", protocol.From{}))
		p.ask(locate("third", protocol.From{}))
		got := sorted(p.lines())
		if len(got) != 2 || got[0] != `binary {"op":"error","id":1,"code":"too_many_topics","message":"this server has 2 topics, its limit","retry_after_ms":1000}` {
			t.Errorf("heard %q", got)
		}
	})
}

func TestFetchReadsTheLog(t *testing.T) {
	eachRig(t, func(cfg *Config) { cfg.MaxMessage, cfg.MaxTopicBytes = 80_000, 400_000 }, func(t *testing.T, r *rig) {
		p := linked(r, 0, protocol.LinkStream)
		topic := topicAtHome(r, len(r.loops)-1)
		home := topicNamed(r, topic)
		for i := range 100 {
			put(r, home, topic, strings.Repeat("x", 10_000+i))
		}
		put(r, home, topic, strings.Repeat("x", 70_000))
		start, epoch := home.topics[topic].start, r.epochOf(topic)
		for _, tt := range []struct {
			epoch         string
			offset, bytes uint64
			frames        uint64
		}{
			{epoch, 90, 25_000, 2}, {epoch, 90, 0, 1}, {epoch, 90, 1 << 60, 6}, {epoch, 101, 1000, 1}, {epoch, 100, 1 << 20, 1},
			{epoch, 102, 1000, 0}, {epoch, start - 1, 1000, 0}, {epoch, 0, 1000, 0}, {epoch, 1 << 63, 1000, 0},
		} {
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdFetch, HasID: true, ID: 2, Topic: []byte(topic), Epoch: []byte(tt.epoch), Offset: tt.offset, Bytes: tt.bytes})
			got := p.heard()
			if len(got) != 1 || got[0].Op != protocol.LinkEvFetched || got[0].ID != 2 || string(got[0].Epoch) != epoch ||
				got[0].Start != start || got[0].Head != 101 || string(got[0].Topic) != topic {
				t.Fatalf("%+v: %+v", tt, got)
			}
			if n, err := protocol.CheckLinkFrames(got[0].Frames, []byte(topic), tt.offset); n != tt.frames || err != nil {
				t.Errorf("%+v: %d frames, %v", tt, n, err)
			}
		}
		// Of another epoch there is nothing: a peer that knows of that is told where its reader goes on.
		for _, name := range []string{topic, "new"} {
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdFetch, HasID: true, ID: 3, Topic: []byte(name), Epoch: []byte("E"), Offset: 90, Bytes: 1})
			got := p.heard()
			if len(got) != 1 || got[0].Op != protocol.LinkEvTurned || got[0].ID != 3 || string(got[0].Epoch) != r.epochOf(name) || got[0].Offset != 0 {
				t.Errorf("%q: %+v", name, got)
			}
		}
	})
}

// What a balancer gets for a client that asked it by HTTP must be what the client would have got here.
func TestHistoryOverALinkIsWhatHTTPGets(t *testing.T) {
	eachRig(t, nil, func(t *testing.T, r *rig) {
		topic := topicAtHome(r, len(r.loops)-1)
		for i := range 5 {
			put(r, topicNamed(r, topic), topic, fmt.Sprint(i))
		}
		epoch := r.epochOf(topic)
		for _, tt := range []struct {
			topic, query string
			from         protocol.From
			limit        uint64
			status       int
		}{
			{topic, "", protocol.From{Mode: protocol.FromEarliest}, 100, 200},
			{topic, "limit=2", protocol.From{Mode: protocol.FromEarliest}, 2, 200},
			{topic, "last=3", protocol.From{Mode: protocol.FromLast, Last: 3}, 3, 200},
			{topic, "since=2020-01-01T00:00:00Z", protocol.From{Mode: protocol.FromSince, Since: 1577836800000}, 100, 200},
			{topic, "from=" + epoch + ":3", protocol.From{Mode: protocol.FromPosition, Epoch: []byte(epoch), Offset: 3}, 100, 200},
			{topic, "from=E:3", protocol.From{Mode: protocol.FromPosition, Epoch: []byte("E"), Offset: 3}, 100, 409},
			{"nobody", "from=E:3", protocol.From{Mode: protocol.FromPosition, Epoch: []byte("E"), Offset: 3}, 100, 409},
			{"nobody", "", protocol.From{Mode: protocol.FromEarliest}, 100, 404},
		} {
			s := r.connect(0)
			r.feed(s, []byte(request("GET", "/v1/topics/"+tt.topic+"/messages?"+tt.query, "")))
			r.settle()
			in := inbox{buf: s.readSome(1 << 20)}
			want, ok, err := in.next()
			if !ok || err != nil {
				t.Fatal(err)
			}
			p := linked(r, 0, protocol.LinkControl)
			p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHistory, HasID: true, ID: 9, Topic: []byte(tt.topic), From: tt.from, Limit: tt.limit})
			got := p.heard()
			if len(got) != 1 || got[0].Op != protocol.LinkEvPage || got[0].ID != 9 || got[0].Status != tt.status || got[0].Status != want.status ||
				string(got[0].Body) != string(want.payload) {
				t.Errorf("%s?%s: the link has %+v, HTTP %d %s", tt.topic, tt.query, got, want.status, want.payload)
			}
		}
	})
}

func TestACrowdedLoopRefusesALinksQuestions(t *testing.T) {
	cfg := linkConfig(2)
	cfg.MailMemory = 2
	r := newRig(t, cfg, 1)
	p := linked(r, 0, protocol.LinkControl)
	topic := topicAtHome(r, 1)
	crowd := func(l *loop, cost int64) { l.mailbox.pending.Add(cost) }
	ask := func() []string {
		p.ask(locate(topic, protocol.From{}))
		p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdFetch, HasID: true, ID: 1, Topic: []byte(topic), Epoch: []byte("E"), Offset: 1, Bytes: 1})
		p.ask(&protocol.LinkCommand{Op: protocol.LinkCmdHistory, HasID: true, ID: 1, Topic: []byte(topic), Limit: 1})
		return p.lines()
	}
	const overloaded = `binary {"op":"error","id":1,"code":"overloaded","message":"an event loop is behind with mail, of which it may have 1 bytes","retry_after_ms":100}`
	crowd(r.loops[1], 1000)
	wantLines(t, ask(), overloaded, overloaded, overloaded)
	crowd(r.loops[1], -1000)
	crowd(r.loops[0], 1000) // the asker's own: short answers still go there
	wantLines(t, sorted(ask()), overloaded, overloaded, "located id=1 "+topic+" offset=0 head=0 start=1 whole=false")
	crowd(r.loops[0], -1000)
	r.audit()
}

func TestPublishingOverALinkAllocatesNothing(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			cfg := allocConfig(loops)
			cfg.ClusterKey, cfg.LinkTimeout = testKey, time.Hour
			r := newRig(t, cfg, 1)
			topic := topicAtHome(r, loops-1)
			stream := linked(r, 0, protocol.LinkStream)
			stream.command(&protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte(topic)})
			r.settle()
			forget(stream.fakeSocket)
			control := linked(r, 0, protocol.LinkControl)
			forget(control.fakeSocket)
			publish := protocol.AppendCommandFrame(nil, &protocol.Command{Op: protocol.CmdPublish, HasID: true, ID: 7, Topic: []byte(topic),
				Kind: protocol.KindText, Payload: []byte("a message over a link")})
			allocations(t, r, func() {
				r.feed(control.fakeSocket, publish)
				r.advance(50 * time.Microsecond)
				r.settle()
			})
		})
	}
}

func TestAskingOverALinkAllocatesNothing(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d loops", loops), func(t *testing.T) {
			cfg := allocConfig(loops)
			cfg.ClusterKey, cfg.LinkTimeout = testKey, time.Hour
			r := newRig(t, cfg, 1)
			topic := topicAtHome(r, loops-1)
			for range 100 {
				put(r, r.loops[loops-1], topic, strings.Repeat("x", 100))
			}
			p := linked(r, 0, protocol.LinkStream)
			forget(p.fakeSocket)
			asks := protocol.AppendLinkCommandFrame(nil, locate(topic, protocol.From{Mode: protocol.FromLast, Last: 3}))
			asks = protocol.AppendLinkCommandFrame(asks, &protocol.LinkCommand{Op: protocol.LinkCmdFetch, Topic: []byte(topic),
				Epoch: []byte(r.epochOf(topic)), Offset: 90, Bytes: 64 << 10})
			allocations(t, r, func() {
				r.feed(p.fakeSocket, asks)
				r.settle()
			})
		})
	}
}

// FuzzLink throws arbitrary messages at a proved link whose kernel keeps so many bytes for it. Nothing panics, the books
// stay right, somebody else is served, and nothing is left when everybody has gone.
func FuzzLink(f *testing.F) {
	messages := [][]byte{
		{0x04, 1, 7}, {0x11, 0, 1, 0}, {0x2f, 1, 9}, {0x12, 0x0b, 1, 1, 't'},
		protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("t"), From: protocol.From{Mode: protocol.FromLast, Last: 9}}),
		protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdUnsubscribe, Topic: []byte("t")}),
		protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdPublish, HasID: true, Topic: []byte("t"), Kind: protocol.KindBinary, Payload: make([]byte, 290)}),
		protocol.AppendLinkCommand(nil, locate("t", protocol.From{Mode: protocol.FromEarliest})),
		protocol.AppendLinkCommand(nil, &protocol.LinkCommand{Op: protocol.LinkCmdFetch, Topic: []byte("t"), Epoch: []byte("E"), Offset: 1, Bytes: 999}),
		protocol.AppendLinkCommand(nil, &protocol.LinkCommand{Op: protocol.LinkCmdHistory, HasID: true, ID: 2, Topic: []byte("t"), Limit: 5}),
		protocol.AppendLinkCommand(nil, &protocol.LinkCommand{Op: protocol.LinkCmdHandoff, Last: true, Token: make([]byte, 16), Topic: []byte("t"),
			Epoch: []byte("E"), Head: 1, Frames: []byte{0x82, 1}}),
	}
	all := []byte{}
	for _, m := range messages {
		all = append(append(all, byte(len(m)>>8), byte(len(m))), m...)
	}
	f.Add(all, byte(1), uint16(60_000))
	f.Add(append(append([]byte{}, all...), all...), byte(2), uint16(50))
	f.Add(all, byte(3), uint16(500))
	f.Fuzz(func(t *testing.T, stream []byte, purpose byte, kernel uint16) {
		if len(stream) > 20_000 {
			return // nothing new, but slow
		}
		cfg := linkConfig(2)
		cfg.MaxMessage, cfg.MaxBatch, cfg.MaxTopicBytes = 300, 1<<10, 4<<10
		cfg.MaxTopics, cfg.BufferMemory, cfg.LogMemory = 4, 64<<10, 32<<10
		r := newRig(t, cfg, 1)
		p := linked(r, 0, protocol.LinkControl+protocol.LinkPurpose(purpose%3))
		p.capacity = int(kernel)
		for at := 0; len(stream) > 2; at++ {
			n := min(int(stream[0])<<8|int(stream[1]), len(stream)-2)
			p.bytes(stream[2 : 2+n]...)
			stream = stream[2+n:]
			if at%4 == 0 {
				r.pass(2*msec, msec)
				r.audit()
			}
			if n%2 == 0 {
				p.readSome(n)
			}
		}
		r.pass(10*msec, msec)
		r.audit()
		other := linked(r, 1, protocol.LinkControl)
		other.command(&protocol.Command{Op: protocol.CmdPing, HasID: true, ID: 99})
		wantLines(t, other.lines(), `binary {"op":"pong","id":99}`)
		r.hangUp(other.fakeSocket)
		r.hangUp(p.fakeSocket)
		r.pass(4*cfg.MaxTopicAge, cfg.MaxTopicAge/4)
		r.auditRest()
		for _, l := range r.loops {
			if len(l.conns)+len(l.topics)+len(l.mirrors) > 0 || l.buffered != 0 || l.logBytes() != 0 || l.metrics.links.Load() != 0 {
				t.Fatalf("loop %d keeps %d connections, %d topics, %d mirrors, %d bytes of buffers, %d of logs, %d links", l.index, len(l.conns),
					len(l.topics), len(l.mirrors), l.buffered, l.logBytes(), l.metrics.links.Load())
			}
		}
	})
}
