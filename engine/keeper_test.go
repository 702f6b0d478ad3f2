package engine

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rayflux/persist"
	"rayflux/protocol"
)

// sealed is where the topics of a rig stand when it ends in good order.
func sealedPositions(r *rig) (all []persist.Sealed) {
	found := make(chan []persist.Sealed, len(r.loops))
	for i, l := range r.loops {
		r.event(i, func() { l.keeper.seal(found) })
		all = append(all, <-found...)
	}
	slices.SortFunc(all, func(a, b persist.Sealed) int { return strings.Compare(a.Topic, b.Topic) })
	return all
}

func keptRig(t *testing.T, loops int, s *shelf) *rig {
	t.Helper()
	cfg := testConfig(loops)
	cfg.MaxTopicAge = time.Second
	r := newRig(t, cfg, uint64(loops))
	r.shelf = s
	s.keep(r)
	return r
}

// A node that ends in good order says where its topics stand, those that it has forgotten too, and the next one goes on: with as
// many loops as it likes.
func TestALifeGoesOnWhereTheLastOneEnded(t *testing.T) {
	s := emptyShelf()
	first := keptRig(t, 3, s)
	for i := range 5 {
		put(first, homeIn(first, "old"), "old", strings.Repeat("x", i))
	}
	first.pass(10*time.Second, 100*time.Millisecond)
	for _, l := range first.loops {
		if len(l.topics) > 0 {
			t.Fatalf("a topic of %v was not forgotten", first.cfg.MaxTopicAge)
		}
	}
	for i := range 3 {
		put(first, homeIn(first, "new"), "new", strings.Repeat("y", i))
	}
	epoch := homeIn(first, "new").topics["new"].epoch
	positions := sealedPositions(first)
	if len(positions) != 2 || positions[0].Topic != "new" || positions[0].Last != 3 || positions[0].Epoch != epoch || positions[1].Topic != "old" || positions[1].Last != 5 {
		t.Fatalf("topics stand at %+v", positions)
	}
	refused, publish := publisher(first, 0, "json", "new", true)
	refused.sink = false
	first.feed(refused, publish)
	first.settle()
	if said := string(refused.kernel); !strings.Contains(said, string(protocol.CodeDraining)) {
		t.Errorf("a publish after the end was answered %q", said)
	}
	first.settle() // what was offered last is stored

	second := keptRig(t, 2, s)
	for i, l := range second.loops {
		second.event(i, func() { l.keeper.inherit(positions) })
	}
	for _, p := range positions {
		home := homeIn(second, p.Topic)
		put(second, home, p.Topic, "more")
		if next := home.topics[p.Topic]; next.epoch != p.Epoch || next.head != p.Last+1 || next.began != p.Began {
			t.Errorf("%q goes on at %s:%d, began at %d, want behind %+v", p.Topic, next.epoch, next.head, next.began, p)
		}
	}
	second.pass(3*time.Second, 100*time.Millisecond)
	for _, p := range positions {
		if n := len(s.epoch(p.Topic, p.Epoch).messages); uint64(n) != p.Last+1 {
			t.Errorf("%d messages of %q are kept, want %d", n, p.Topic, p.Last+1)
		}
	}
}

// homeIn is a topic's home.
func homeIn(r *rig, topic string) *loop { return r.loops[0].homeOf(hashOf(topic)) }

// TestSmallBatchesAreSmall has a store that takes nothing for an hour, and a publisher of one message a second: what waits must not
// take much more memory than the archive counts.
func TestSmallBatchesAreSmall(t *testing.T) {
	r := newRig(t, testConfig(1), 1)
	s, l := newShelf(r), r.loops[0]
	l.keeper.inherit(nil)
	s.held = true
	payload := strings.Repeat("x", 100)
	const batches = 3600
	for range batches {
		put(r, l, "t", payload)
		r.pass(time.Second, 50*time.Millisecond)
	}
	if len(s.offered) != batches {
		t.Fatalf("%d batches were offered, want %d", len(s.offered), batches)
	}
	taken := 0
	for _, o := range s.offered {
		taken += cap(o.batch.Bytes)
		for i := range o.batch.Runs {
			taken += cap(o.batch.Runs[i].Times) * 16
		}
	}
	if limit := batches * 4 * len(payload); taken > limit {
		t.Errorf("%d batches of a message of %d bytes take %d bytes, limit %d", batches, len(payload), taken, limit)
	}
	s.held = false
	r.settle()
	var offsets []uint64
	for offset := range s.epoch("t", l.topics["t"].epoch).messages {
		offsets = append(offsets, offset)
	}
	slices.Sort(offsets)
	if len(offsets) != batches || offsets[batches-1] != batches {
		t.Errorf("%d messages were stored, the last is %d", len(offsets), offsets[len(offsets)-1])
	}
}

// What a busy hour needs to be quick is not kept for the rest of the day.
func TestBatchesOfABusyHourAreLetGo(t *testing.T) {
	cfg := testConfig(1)
	cfg.SnapshotBacklog = 64 << 20
	r := newRig(t, cfg, 1)
	s, l := newShelf(r), r.loops[0]
	l.keeper.inherit(nil)
	s.held = true
	for range 1000 {
		put(r, l, "t", strings.Repeat("x", 10_000))
	}
	s.held = false
	r.settle()
	if n := len(l.keeper.free); n <= batchesIdle {
		t.Fatalf("%d batches are pooled after 10 MB", n)
	}
	for range 3 {
		put(r, l, "t", "x")
		r.pass(time.Second, 50*time.Millisecond)
	}
	if n := len(l.keeper.free); n > batchesIdle {
		t.Errorf("%d batches are pooled when little is published, limit %d", n, batchesIdle)
	}
}

// Of more topics than there may be, those that sleep longest are forgotten for good, and begin anew.
func TestWhoSleepsLongestIsForgotten(t *testing.T) {
	cfg := testConfig(1)
	cfg.MaxTopicAge, cfg.MaxTopics = time.Second, 3
	r := newRig(t, cfg, 1)
	newShelf(r)
	l := r.loops[0]
	epochs := map[string]string{}
	for round := range 20 {
		name := string(rune('a' + round%5))
		put(r, l, name, "x")
		epochs[name] = l.topics[name].epoch
		r.pass(5*time.Second, 100*time.Millisecond)
	}
	if len(l.keeper.dormant) != 3 || len(l.keeper.sleepers) > 7 {
		t.Fatalf("%d topics sleep, %d names of %d are kept", len(l.keeper.dormant), len(l.keeper.sleepers), 3)
	}
	for _, name := range []string{"c", "d", "e"} {
		put(r, l, name, "x")
		if at := l.topics[name]; at.epoch != epochs[name] {
			t.Errorf("%q begins epoch %s, want %s", name, at.epoch, epochs[name])
		}
		r.pass(5*time.Second, 100*time.Millisecond)
	}
	if put(r, l, "a", "x"); l.topics["a"].epoch == epochs["a"] {
		t.Error(`"a" goes on, and nobody can have remembered it`)
	}
	r.audit()
}
