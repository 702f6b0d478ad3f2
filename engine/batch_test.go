package engine

import (
	"bytes"
	"strings"
	"testing"

	"rayflux/protocol"
)

// sealedBatch is a batch of n messages of a topic at home on a loop, with views in all formats and refs references.
func sealedBatch(t *testing.T, r *rig, home, n int, refs int32) *batch {
	t.Helper()
	l := r.loops[home]
	name := topicAtHome(r, home)
	s := subscribed(r, home, protocol.FormatJSON, name)
	l.begin()
	for i := range n {
		e := errand{op: opPublish, name: []byte(name), kind: protocol.KindText, payload: []byte(strings.Repeat("x", i))}
		l.publish(&e)
	}
	tp := l.topics[name]
	for f := range protocol.NumFormats {
		tp.feeds[home].wants[f]++
	}
	tp.seal(l)
	for f := range protocol.NumFormats {
		tp.feeds[home].wants[f]--
	}
	if len(l.sealed) != 1 {
		t.Fatalf("%d batches were sealed", len(l.sealed))
	}
	b := l.sealed[0].batch
	l.sealed = l.sealed[:0]
	b.refs.Store(refs)
	l.finish()
	r.hangUp(s)
	return b
}

func TestBatchHoldsItsMessagesInEachFormat(t *testing.T) {
	r := newRig(t, testConfig(1), 1)
	b := sealedBatch(t, r, 0, 10, 1)
	name := topicAtHome(r, 0)
	if b.first != 1 || b.last() != 10 || b.count != 10 {
		t.Fatalf("messages %d to %d", b.first, b.last())
	}
	size := int64(0)
	for f := range protocol.NumFormats {
		var want []byte
		for i := range 10 {
			if at := skipUnits(b.views[f], f, uint64(i)); at != len(want) {
				t.Errorf("format %d: message %d is at %d, want %d", f, i, at, len(want))
			}
			want = protocol.AppendMessage(want, f, name, uint64(i+1), protocol.KindText, []byte(strings.Repeat("x", i)))
		}
		if !bytes.Equal(b.views[f], want) {
			t.Errorf("format %d: %q, want %q", f, b.views[f], want)
		}
		size += int64(len(want))
	}
	if b.bytes() != size {
		t.Errorf("it is counted as %d bytes, has %d", b.bytes(), size)
	}
}

func TestBatchGoesHomeWithItsLastReference(t *testing.T) {
	r := newRig(t, testConfig(3), 1)
	b := sealedBatch(t, r, 0, 3, 3)
	home, chunk := r.loops[0], b.chunk
	if home.viewBytes == 0 || chunk.inflight != 1 {
		t.Fatalf("%d bytes of views, chunk in %d batches", home.viewBytes, chunk.inflight)
	}
	home.release(b)
	r.loops[1].release(b)
	if home.batches.returned.Load() != nil || b.chunk == nil {
		t.Fatal("gone with a reference left")
	}
	r.loops[2].release(b)
	if home.batches.returned.Load() != b || chunk.inflight != 1 {
		t.Fatal("not on its way home, or touched by a loop that does not own it")
	}
	home.takeReturned()
	if home.batches.free != b || home.viewBytes != 0 || chunk.inflight != 0 || b.chunk != nil || b.views[protocol.FormatJSON] != nil {
		t.Fatalf("not recycled: %d bytes of views, chunk in %d batches", home.viewBytes, chunk.inflight)
	}
	if home.batches.get() != b {
		t.Error("not reused")
	}
}

func TestChunkOutOfTheLogWaitsForItsBatches(t *testing.T) {
	r := newRig(t, testConfig(1), 1)
	b := sealedBatch(t, r, 0, 3, 1)
	l, chunk := r.loops[0], b.chunk
	view := append([]byte(nil), b.views[protocol.FormatBinary]...)
	chunk.topic.drop(l)
	if l.chunks.dying != chunk.cost() || l.chunks.freeBytes != 0 || !bytes.Equal(b.views[protocol.FormatBinary], view) {
		t.Fatalf("%d bytes are dying, %d free: a batch still needs them", l.chunks.dying, l.chunks.freeBytes)
	}
	l.release(b)
	if l.chunks.dying != 0 || l.chunks.used != 0 || l.chunks.freeBytes != chunk.cost() {
		t.Fatalf("%d bytes are dying, %d used, %d free", l.chunks.dying, l.chunks.used, l.chunks.freeBytes)
	}
}
