package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// topicRig is one loop and the means to publish in it without a connection.
func topicRig(t *testing.T, change func(cfg *Config)) (*rig, *loop) {
	cfg := testConfig(1)
	if change != nil {
		change(&cfg)
	}
	r := newRig(t, cfg, 1)
	return r, r.loops[0]
}

// put publishes a text in an event of its own.
func put(r *rig, l *loop, name, text string) uint64 {
	l.begin()
	e := errand{op: opPublish, name: []byte(name), kind: protocol.KindText, payload: []byte(text)}
	l.publish(&e)
	l.finish()
	return e.offset
}

func TestTopicNumbersItsMessages(t *testing.T) {
	r, l := topicRig(t, nil)
	for want := uint64(1); want < 1000; want++ {
		if got := put(r, l, "t", strings.Repeat("x", int(want%50))); got != want {
			t.Fatalf("message %d has offset %d", want, got)
		}
	}
	r.audit()
	next := uint64(1)
	l.topics["t"].walk(1, func(_ *chunk, offset uint64, kind protocol.Kind, payload, frame []byte) bool {
		want := strings.Repeat("x", int(next%50))
		whole := protocol.AppendMessage(nil, protocol.FormatBinary, "t", next, kind, payload)
		if offset != next || string(payload) != want || kind != protocol.KindText || !bytes.Equal(frame, whole) {
			t.Fatalf("message %d: %d %v %q", next, offset, kind, payload)
		}
		next++
		return true
	})
	if next != 1000 {
		t.Fatalf("the log ends before %d", next)
	}
}

func TestTopicKeepsAtMostItsBytes(t *testing.T) {
	for _, limit := range []int{2 << 10, 20 << 10, 300 << 10} {
		r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopicBytes = limit })
		start := uint64(1)
		for range 4 * limit / 100 {
			put(r, l, "t", strings.Repeat("x", 100))
			tp := l.topics["t"]
			if tp.bytes > int64(limit) {
				t.Fatalf("limit %d: the log is %d bytes", limit, tp.bytes)
			}
			if tp.start < start {
				t.Fatalf("start went back from %d to %d", start, tp.start)
			}
			start = tp.start
		}
		tp := l.topics["t"]
		if kept := int64(tp.head-tp.start+1) * 110; kept < int64(limit)/3 {
			t.Errorf("limit %d: only %d bytes of messages are kept", limit, kept)
		}
		r.audit()
	}
}

func TestOneMessageLongerThanTheTopicsBytesIsKept(t *testing.T) {
	r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopicBytes = 2 << 10 })
	put(r, l, "t", strings.Repeat("x", 2000))
	put(r, l, "t", strings.Repeat("y", 2000))
	if tp := l.topics["t"]; tp.start != 2 || tp.head != 2 {
		t.Fatalf("kept are %d to %d", tp.start, tp.head)
	}
}

func TestLeastRecentlyWrittenChunksGoFirst(t *testing.T) {
	r, l := topicRig(t, func(cfg *Config) { cfg.LogMemory = 100 << 10 })
	for i := range 20 {
		put(r, l, fmt.Sprintf("old%d", i), strings.Repeat("x", 1000))
	}
	put(r, l, "old3", "touched")
	for range 1000 {
		put(r, l, "busy", strings.Repeat("x", 1000))
		if over := l.logBytes() - l.logMax; over > 0 {
			t.Fatalf("logs are %d bytes over their limit", over)
		}
		r.auditMemory(l)
	}
	r.audit()
	for i := range 20 {
		name := fmt.Sprintf("old%d", i)
		if tp := l.topics[name]; tp.oldest != nil || tp.start != tp.head+1 {
			t.Errorf("%s still has messages, though a busier topic needs the room", name)
		}
	}
	if tp := l.topics["busy"]; tp.oldest == nil {
		t.Error("the busy topic has no messages")
	}
}

func TestUnsealedMessagesAreNotEvicted(t *testing.T) {
	_, l := topicRig(t, func(cfg *Config) { cfg.LogMemory = 4 << 10 })
	l.begin() // one event publishes more than fits
	for i := range 50 {
		e := errand{op: opPublish, name: []byte{'a' + byte(i%3)}, kind: protocol.KindText, payload: bytes.Repeat([]byte("x"), 900)}
		l.publish(&e)
		tp := e.topic
		if tp.head-tp.start+1 < uint64(tp.frontCount) || tp.frontCount == 0 {
			t.Fatalf("topic %q keeps %d to %d, but %d are not sealed", tp.name, tp.start, tp.head, tp.frontCount)
		}
	}
	l.finish()
}

func TestOldMessagesGo(t *testing.T) {
	r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopicAge = 8 * time.Second })
	for range 30 {
		put(r, l, "t", "x")
		r.pass(time.Second, 100*time.Millisecond)
	}
	tp := l.topics["t"]
	// A chunk covers a quarter of the age, and goes with its newest message.
	if oldest := 30 - tp.start; oldest < 8 || oldest > 12 {
		t.Fatalf("the oldest message kept is %d s old, limit 8", oldest)
	}
	r.pass(12*time.Second, 100*time.Millisecond)
	if tp.oldest != nil || tp.start != 31 || tp.head != 30 {
		t.Fatalf("messages %d to %d are left", tp.start, tp.head)
	}
	r.audit()
}

func TestTopicIsForgottenWhenNobodyUsesIt(t *testing.T) {
	r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopicAge = 2 * time.Second })
	put(r, l, "t", "x")
	epoch := l.topics["t"].epoch
	c := r.connect(0)
	r.feed(c, []byte(handshake("/ws", "")))
	r.feed(c, maskedText(`{"op":"subscribe","topic":"t"}`))
	r.pass(10*time.Second, 50*time.Millisecond)
	if tp := l.topics["t"]; tp == nil || tp.epoch != epoch {
		t.Fatal("forgotten, though somebody is subscribed")
	}
	r.hangUp(c)
	r.pass(time.Second, 50*time.Millisecond)
	if l.topics["t"] == nil {
		t.Fatal("forgotten at once")
	}
	r.pass(5*time.Second, 50*time.Millisecond)
	if l.topics["t"] != nil || l.logBytes() != 0 || r.shared.topics.Load() != 0 {
		t.Fatalf("not forgotten: %d bytes", l.logBytes())
	}
	if put(r, l, "t", "y") != 1 || l.topics["t"].epoch == epoch {
		t.Fatal("a new life has the old numbering")
	}
}

func TestTopicsAreLimited(t *testing.T) {
	r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopics = 2 })
	put(r, l, "a", "x")
	put(r, l, "b", "x")
	if _, err := l.newTopic([]byte("c")); err == nil || err.Code != protocol.CodeTooManyTopics || !strings.Contains(err.Message, "2 topics") {
		t.Fatalf("a third topic: %v", err)
	}
	if r.shared.topics.Load() != 2 {
		t.Fatalf("%d topics are counted", r.shared.topics.Load())
	}
}

// aged is a topic with the messages start to head kept, one a second, the last one just now.
func aged(t *testing.T, start, head uint64) (*loop, *topic) {
	r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopicAge = 2 * time.Second }) // a chunk for each second
	for i := uint64(1); i <= head; i++ {
		if i > 1 {
			r.advance(time.Second)
		}
		put(r, l, "t", "x")
	}
	tp := l.topics["t"]
	for tp.start < start {
		if tp.oldest.count != 1 {
			t.Fatalf("a chunk of %d messages", tp.oldest.count)
		}
		tp.drop(l)
	}
	return l, tp
}

func TestWhereASubscriptionBegins(t *testing.T) {
	l, tp := aged(t, 4, 10)
	second := func(offset uint64) int64 { // when it was taken
		return (rigEpoch+int64(time.Second))/int64(time.Millisecond) + int64(offset-1)*1000
	}
	position := func(epoch string, offset uint64) protocol.From {
		return protocol.From{Mode: protocol.FromPosition, Epoch: []byte(epoch), Offset: offset}
	}
	last := func(n uint64) protocol.From { return protocol.From{Mode: protocol.FromLast, Last: n} }
	since := func(ms int64) protocol.From { return protocol.From{Mode: protocol.FromSince, Since: ms} }
	for _, c := range []struct {
		what  string
		from  protocol.From
		next  uint64
		whole bool
	}{
		{"live", protocol.From{}, 11, false},
		{"a position in the log", position(tp.epoch, 7), 8, true},
		{"the position before the oldest", position(tp.epoch, 3), 4, true},
		{"a position one too old", position(tp.epoch, 2), 11, false},
		{"the very first position", position(tp.epoch, 0), 11, false},
		{"the head", position(tp.epoch, 10), 11, true},
		{"ahead of the head", position(tp.epoch, 11), 11, false},
		{"the largest offset", position(tp.epoch, 1<<64-1), 11, false},
		{"another epoch", position("other", 7), 11, false},
		{"the earliest", protocol.From{Mode: protocol.FromEarliest}, 4, false},
		{"the last none", last(0), 11, true},
		{"the last one", last(1), 10, true},
		{"the last seven, all there are", last(7), 4, true},
		{"the last eight, one too many", last(8), 4, false},
		{"the last ten", last(10), 4, false},
		{"the last of all", last(1 << 63), 4, false},
		{"since the very millisecond", since(second(7)), 7, true},
		{"since a millisecond later", since(second(7) + 1), 8, true},
		{"since the oldest", since(second(4)), 4, false},
		{"since just behind the oldest", since(second(4) + 1), 5, true},
		{"since before the oldest", since(second(2)), 4, false},
		{"since now", since(second(10)), 10, true},
		{"since the future", since(second(11)), 11, true},
		{"since ever", since(0), 4, false},
	} {
		if next, whole := tp.resolve(l, c.from); next != c.next || whole != c.whole {
			t.Errorf("%s: next %d, whole %v, want %d, %v", c.what, next, whole, c.next, c.whole)
		}
	}
	if next, whole := tp.resolve(l, since(second(7))); next != 7 || !whole {
		t.Fatal("before the clock is set")
	}
	l.skew = 5000 // somebody has set the wall clock five seconds forward: times are told by it
	if next, _ := tp.resolve(l, since(second(7)+5000)); next != 7 {
		t.Errorf("after the wall clock was set, since begins at %d", next)
	}
}

func TestWhereASubscriptionToAnEmptyOrWholeLogBegins(t *testing.T) {
	l, tp := aged(t, 1, 5)
	if next, whole := tp.resolve(l, protocol.From{Mode: protocol.FromEarliest}); next != 1 || !whole {
		t.Errorf("earliest of a whole log: %d, %v", next, whole)
	}
	if next, whole := tp.resolve(l, protocol.From{Mode: protocol.FromLast, Last: 9}); next != 1 || !whole {
		t.Errorf("the last nine of five: %d, %v", next, whole)
	}
	l, tp = aged(t, 6, 5)
	for _, from := range []protocol.From{{Mode: protocol.FromEarliest}, {Mode: protocol.FromLast, Last: 3}, {Mode: protocol.FromSince, Since: 1}} {
		if next, whole := tp.resolve(l, from); next != 6 || whole {
			t.Errorf("mode %d of an empty log: %d, %v", from.Mode, next, whole)
		}
	}
}

func TestReadIsBoundedAndWhole(t *testing.T) {
	r, l := topicRig(t, nil)
	for i := range 50 {
		put(r, l, "t", strings.Repeat("x", 10*i))
	}
	tp := l.topics["t"]
	for f := range protocol.NumFormats {
		for _, limit := range []int{1, 100, 1000, 1 << 20} {
			got, next := []byte(nil), uint64(1)
			for next <= tp.head {
				part, last := tp.read(nil, f, next, limit)
				if last < next {
					t.Fatalf("format %d, limit %d: nothing was read at %d", f, limit, next)
				}
				if len(part) > limit && last > next && f == protocol.FormatBinary {
					t.Fatalf("format %d: %d bytes of several messages, limit %d", f, len(part), limit)
				}
				got = append(got, part...)
				next = last + 1
			}
			var want []byte
			for i := range 50 {
				want = protocol.AppendMessage(want, f, "t", uint64(i+1), protocol.KindText, bytes.Repeat([]byte("x"), 10*i))
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("format %d, limit %d: %d bytes, want %d", f, limit, len(got), len(want))
			}
		}
	}
	if got, last := tp.read(nil, protocol.FormatJSON, 51, 1000); len(got) != 0 || last != 50 {
		t.Errorf("behind the head: %d bytes up to %d", len(got), last)
	}
}
