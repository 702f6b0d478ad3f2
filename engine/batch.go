package engine

import (
	"sync/atomic"

	"github.com/valyala/bytebufferpool"

	"rayflux/protocol"
)

// batch is a run of a topic's messages on its way to the live subscribers: sealed by the home loop, immutable from then
// on, handed by reference to each loop that has subscribers. refs is the one word that loops share; whoever takes it to
// zero sends the batch home, where its bytes belong.
type batch struct {
	home     *loop
	chunk    *chunk // where the binary view lies
	first    uint64
	start    uint64 // before this one, no message of the topic could be had when this was sealed
	count    uint32
	refs     atomic.Int32
	taken    int64 // loop clock when its oldest message was taken
	views    [protocol.NumFormats][]byte
	rendered [protocol.NumFormats]*bytebufferpool.ByteBuffer // owners of the views that are not the chunk's own bytes
	next     *batch                                          // in the pool, or on the way home
}

func (b *batch) last() uint64 { return b.first + uint64(b.count) - 1 }

// bytes is what the batch keeps from being reused.
func (b *batch) bytes() int64 {
	n := int64(0)
	for _, v := range b.views {
		n += int64(len(v))
	}
	return n
}

// render makes the view of a format out of the binary one. Once per batch, never once per subscriber.
func (b *batch) render(f protocol.Format, topic string) {
	buf := viewPool.Get()
	buf.B = appendView(buf.B, f, topic, b.views[protocol.FormatBinary])
	b.rendered[f], b.views[f] = buf, buf.B
}

// viewPool keeps rendered views apart from the small buffers of connections, so that each pool settles on its own size.
var viewPool bytebufferpool.Pool

// appendView renders whole binary frames, as they stand in a log, into another format.
func appendView(dst []byte, f protocol.Format, topic string, frames []byte) []byte {
	for len(frames) > 0 {
		offset, kind, payload, n := protocol.NextBinaryMessage(frames)
		dst = protocol.AppendMessage(dst, f, topic, offset, kind, payload)
		frames = frames[n:]
	}
	return dst
}

// skipUnits is the length of the first n messages of a view.
func skipUnits(view []byte, f protocol.Format, n uint64) int {
	at := 0
	for ; n > 0; n-- {
		at += protocol.NextUnit(view[at:], f)
	}
	return at
}

// batches is a loop's pool of batches. get and recycle are the home loop's; release is safe from any loop.
type batches struct {
	free     *batch
	returned atomic.Pointer[batch] // batches that other loops were the last to use
}

func (p *batches) get() *batch {
	b := p.free
	if b == nil {
		return new(batch)
	}
	p.free, b.next = b.next, nil
	return b
}

// release gives up one reference. Safe from any loop that holds one; l is the loop that calls.
func (l *loop) release(b *batch) {
	if b.refs.Add(-1) > 0 {
		return
	}
	if b.home == l {
		l.recycle(b)
		return
	}
	home := &b.home.batches
	for {
		b.next = home.returned.Load()
		if home.returned.CompareAndSwap(b.next, b) {
			return
		}
	}
}

// takeReturned recycles what other loops have finished with.
func (l *loop) takeReturned() {
	if l.batches.returned.Load() == nil {
		return
	}
	for b := l.batches.returned.Swap(nil); b != nil; {
		next := b.next
		l.recycle(b)
		b = next
	}
}

func (l *loop) recycle(b *batch) {
	for f, buf := range b.rendered {
		if buf != nil {
			l.viewBytes -= int64(cap(buf.B))
			poison(buf.B)
			viewPool.Put(buf)
			b.rendered[f] = nil
		}
		b.views[f] = nil
	}
	c := b.chunk
	b.chunk = nil
	if c.inflight--; c.inflight == 0 && c.dead {
		l.chunks.put(c)
	}
	b.next, l.batches.free = l.batches.free, b
}
