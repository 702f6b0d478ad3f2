package engine

import "math/bits"

// block is memory that buffers borrow, from a pool of the loop's own.
type block struct {
	b    []byte
	next *block // in the pool
}

const (
	blockClassMin = 6  // 64 bytes
	blockClassMax = 26 // more is left to the garbage collector
)

// blocks is a loop's pool of blocks, by powers of two: a pool that learns its size from use would make what connections
// usually hold as large as what some of them sometimes do. Loop-owned.
type blocks struct {
	free      [blockClassMax + 1]*block
	freeBytes int64
	freeMax   int64
}

// get takes a block with room for n bytes.
func (p *blocks) get(n int) *block {
	class := max(bits.Len(uint(n-1)), blockClassMin)
	if class > blockClassMax {
		return &block{b: make([]byte, 0, n)}
	}
	k := p.free[class]
	if k == nil {
		return &block{b: make([]byte, 0, 1<<class)}
	}
	p.free[class], k.next = k.next, nil
	p.freeBytes -= int64(cap(k.b))
	return k
}

func (p *blocks) put(k *block) {
	poison(k.b)
	class := bits.Len(uint(cap(k.b))) - 1 // what appending has grown may lie between two classes
	if class < blockClassMin || class > blockClassMax || p.freeBytes+int64(cap(k.b)) > p.freeMax {
		return
	}
	k.b = k.b[:0]
	k.next, p.free[class] = p.free[class], k
	p.freeBytes += int64(cap(k.b))
}

// buffer is bytes that a connection holds for a while: half a request, answers, the rest of a half-written frame. It is
// charged to its loop's share of buffer-memory by the memory it takes, not by the bytes in it. The zero value holds
// nothing and takes nothing. Loop-owned.
type buffer struct {
	k    *block
	from int // bytes taken off the front, and not yet moved out of it
}

func (b *buffer) empty() bool { return b.k == nil }

// bytes is what the buffer holds, valid until it changes.
func (b *buffer) bytes() []byte {
	if b.k == nil {
		return nil
	}
	return b.k.b[b.from:]
}

func (b *buffer) len() int { return len(b.bytes()) }

// open is the block to append to, with room for n more bytes. Whoever may append more to it directly calls settle with
// the capacity before.
func (b *buffer) open(l *loop, n int) *block {
	switch {
	case b.k == nil:
		b.k = l.blocks.get(n)
		l.buffered += int64(cap(b.k.b))
	case len(b.k.b)+n > cap(b.k.b):
		small, larger := b.k, l.blocks.get(b.len()+n)
		larger.b = append(larger.b, b.bytes()...)
		l.buffered += int64(cap(larger.b) - cap(small.b))
		*b = buffer{k: larger}
		l.blocks.put(small)
	}
	return b.k
}

// settle charges what appending has added to the capacity.
func (b *buffer) settle(l *loop, before int) { l.buffered += int64(cap(b.k.b) - before) }

// append adds p.
func (b *buffer) append(l *loop, p []byte) {
	k := b.open(l, len(p))
	k.b = append(k.b, p...)
}

// take drops n bytes off the front. A rest that is small beside the memory it lies in is moved to where it fits, so
// that nobody holds a lot by leaving a little; else as much is moved as was taken, so that it is linear in all.
func (b *buffer) take(l *loop, n int) {
	b.from += n
	rest := b.bytes()
	switch {
	case len(rest) == 0:
		b.release(l)
	case cap(b.k.b) > 8*max(len(rest), 1<<blockClassMin):
		moved := buffer{}
		moved.append(l, rest)
		b.release(l)
		*b = moved
	case b.from >= len(rest):
		b.k.b = b.k.b[:copy(b.k.b, rest)]
		b.from = 0
	}
}

// release gives everything back.
func (b *buffer) release(l *loop) {
	if b.k == nil {
		return
	}
	l.buffered -= int64(cap(b.k.b))
	l.blocks.put(b.k)
	*b = buffer{}
}
