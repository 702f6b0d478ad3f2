package engine

import (
	"math/bits"
	"sort"
)

// Chunks come in powers of two, so that a topic of one short message costs little and a busy one has few chunks.
const (
	chunkClassMin = 8       // 256 bytes
	chunkClassMax = 25      // 32 MiB: one message of the largest max-message
	chunkBytesMax = 1 << 20 // of many messages; a read looks through one from its start
	chunkCost     = 128
	markBytes     = 128 // one time mark is reserved for so many bytes of chunk
)

// mark says that the messages from index on were taken at base+after milliseconds. Messages of one millisecond share
// a mark.
type mark struct {
	index uint32 // counted from the chunk's first message
	after uint32 // milliseconds since the chunk's base
}

// chunk is a stretch of one topic's log: whole binary frames, back to back, in offset order. It is appended to by the
// topic's home loop only; other loops read the ranges that were handed to them in batches, which never change.
type chunk struct {
	buf      []byte // whole frames; capacity is a power of two
	marks    []mark
	base     int64 // milliseconds of the log's time of the first message
	last     int64 // milliseconds of the log's time of the newest message
	first    uint64
	count    uint32
	offered  int   // bytes of buf, up to where the archive was offered messages of it last; 0: it was not
	inflight int32 // batches handed out and not yet back
	dead     bool  // out of the log; freed when inflight is 0
	class    uint8
	topic    *topic
	next     *chunk // the newer neighbour in the topic

	older, newer *chunk // the loop's chunks by last append, for eviction
}

func (c *chunk) room() int     { return cap(c.buf) - len(c.buf) }
func (c *chunk) cost() int64   { return int64(cap(c.buf)) + int64(cap(c.marks))*8 + chunkCost }
func (c *chunk) after() uint64 { return c.first + uint64(c.count) }

// markOf is which mark the message at index has.
func (c *chunk) markOf(index uint32) int {
	return sort.Search(len(c.marks), func(i int) bool { return c.marks[i].index > index }) - 1
}

// timeOf is when the message at index was taken, in milliseconds of the log's time.
func (c *chunk) timeOf(index uint32) int64 {
	return c.base + int64(c.marks[c.markOf(index)].after)
}

// since is the index of the first message taken at or after the given millisecond; count if there is none.
func (c *chunk) since(ms int64) uint32 {
	i := sort.Search(len(c.marks), func(i int) bool { return c.base+int64(c.marks[i].after) >= ms })
	if i == len(c.marks) {
		return c.count
	}
	return c.marks[i].index
}

// stamp records when the next message was taken. False: the marks are full and the chunk must end here.
func (c *chunk) stamp(ms int64) bool {
	if len(c.marks) == 0 {
		c.base, c.last = ms, ms
		c.marks = append(c.marks, mark{})
		return true
	}
	if ms <= c.last { // the wall clock may step back; the log's time does not
		return true
	}
	if len(c.marks) == cap(c.marks) || ms-c.base > 1<<31 {
		return false
	}
	c.marks = append(c.marks, mark{c.count, uint32(ms - c.base)})
	c.last = ms
	return true
}

// chunks is a loop's pool and order of chunks. Loop-owned.
type chunks struct {
	free      [chunkClassMax + 1][]*chunk
	freeBytes int64
	freeMax   int64

	used   int64 // bytes of all chunks out of the pool, bookkeeping included
	dying  int64 // of these, bytes of chunks that only wait for their batches
	oldest *chunk
	newest *chunk
}

func classOf(size int) uint8 {
	return uint8(max(bits.Len(uint(size-1)), chunkClassMin))
}

// get takes a chunk of at least size bytes.
func (p *chunks) get(size int, t *topic, first uint64) *chunk {
	class := classOf(size)
	var c *chunk
	if n := len(p.free[class]); n > 0 {
		c = p.free[class][n-1]
		p.free[class][n-1] = nil
		p.free[class] = p.free[class][:n-1]
		p.freeBytes -= c.cost()
	} else {
		c = &chunk{buf: make([]byte, 0, 1<<class), marks: make([]mark, 0, 2+(1<<class)/markBytes), class: class}
	}
	c.topic, c.first = t, first
	p.used += c.cost()
	p.link(c)
	return c
}

// put gives a chunk back. Its bytes may be reused at once.
func (p *chunks) put(c *chunk) {
	p.used -= c.cost()
	if c.dead {
		p.dying -= c.cost()
	}
	if p.freeBytes+c.cost() > p.freeMax {
		return // left to the garbage collector
	}
	poison(c.buf[:cap(c.buf)])
	*c = chunk{buf: c.buf[:0], marks: c.marks[:0], class: c.class}
	p.freeBytes += c.cost()
	p.free[c.class] = append(p.free[c.class], c)
}

// touch makes c the newest of all: it was appended to.
func (p *chunks) touch(c *chunk) {
	if p.newest != c {
		p.unlink(c)
		p.link(c)
	}
}

func (p *chunks) link(c *chunk) {
	c.older, c.newer = p.newest, nil
	if p.newest != nil {
		p.newest.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
}

func (p *chunks) unlink(c *chunk) {
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
}
