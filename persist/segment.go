package persist

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

const (
	// blockBytes is how many bytes of frames a block is closed at. A page of one topic is read in blocks, of which the
	// neighbours' messages are thrown away: smaller ones compress worse (64 KiB: a fifth more bytes), larger ones read more.
	blockBytes = 256 << 10
	// ownBytes is how much of a topic is not put into one block with other topics': the block can then be taken as it is when
	// segments are merged.
	ownBytes = blockBytes / 4
	// frameBytesMax is the largest message that a server can be told to take, 16 MiB, and room for what is around it.
	// A block that begins with such a frame ends with it.
	frameBytesMax = 16<<20 + 1<<10
	blockBytesMax = blockBytes + frameBytesMax

	// rawBlocksAfter is how many blocks are stored as they are after one that compression gained nothing on: the next ones are
	// likely of the same kind.
	rawBlocksAfter = 7

	indexBytesMax  = 64 << 20 // unpacked; an entry is about 40 bytes
	epochBytesMax  = 16
	offsetMax      = 1 << 62 // of a run's first message: what follows it can be counted on from there
	segmentSizeMax = math.MaxInt32
)

// Flags of a run in an index.
const (
	runEpoch = 1 << iota // another epoch than the run before it; always for a topic's first
	runBlock             // the first of a block, which is the one after that of the run before it
)

// SegmentRef is what a head or a manifest says of a segment, so that it can be looked up in with one read of its end.
type SegmentRef struct {
	Size     int64  // of the object
	Tail     int64  // of its index and footer, which are its end
	Plain    int64  // bytes of frames before compression
	Messages uint64 // of all topics
	FirstMs  int64  // the earliest and
	LastMs   int64  // the latest time of a message
	Filter   Filter
}

// AppendSegment appends the segment that holds runs, which it sorts, and says what a head lists of it. Runs of an epoch may
// follow each other, or overlap where two lives stored the same messages; then the second ones are left out. Frames are copied.
// The error names the run that cannot be stored; dst is as it was then.
func AppendSegment(dst []byte, runs []Run) ([]byte, SegmentRef, error) {
	return appendSegment(dst, runs, thorough)
}

// appendSegment is AppendSegment with so much effort for its blocks.
func appendSegment(dst []byte, runs []Run, e effort) ([]byte, SegmentRef, error) {
	slices.SortStableFunc(runs, compareRuns)
	b := newSegmentBuilder(dst, e)
	for i := range runs {
		if i == 0 || runs[i].Topic != runs[i-1].Topic {
			b.begin(runs[i].Topic, topicBytes(runs[i:]))
		}
		if err := runs[i].check(); err != nil {
			return dst, SegmentRef{}, err
		}
		b.add(&runs[i])
	}
	return b.finish()
}

// topicBytes is how many bytes the runs at the beginning are that are of one topic.
func topicBytes(runs []Run) (n int) {
	for i := range runs {
		if runs[i].Topic != runs[0].Topic {
			break
		}
		n += len(runs[i].Frames)
	}
	return n
}

func compareRuns(a, b Run) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Began, b.Began), strings.Compare(a.Epoch, b.Epoch),
		cmp.Compare(a.First, b.First), cmp.Compare(b.Count, a.Count))
}

// check says why a run cannot be stored.
func (r *Run) check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("run of topic %q, epoch %q, from offset %d: %w", r.Topic, r.Epoch, r.First, fmt.Errorf(format, args...))
	}
	switch {
	case len(r.Topic) == 0 || len(r.Topic) > math.MaxUint8:
		return fault("topic name is %d bytes, not 1 to %d", len(r.Topic), math.MaxUint8)
	case len(r.Epoch) == 0 || len(r.Epoch) > epochBytesMax:
		return fault("epoch is %d bytes, not 1 to %d", len(r.Epoch), epochBytesMax)
	case r.First == 0 || r.First > offsetMax || r.Count == 0:
		return fault("%d messages from there are none, or no offsets: these are 1 to %d", r.Count, uint64(offsetMax))
	case len(r.Times) == 0 || r.Times[0].Index != 0:
		return fault("its first message has no time")
	}
	for i, t := range r.Times {
		if t.Index >= r.Count || i > 0 && t.Index <= r.Times[i-1].Index {
			return fault("time %d is of message %d of %d, and not behind the one before it", i, t.Index, r.Count)
		}
	}
	var n uint32
	for b := r.Frames; len(b) > 0; n++ {
		size := frameBytes(b)
		if size == 0 || size > frameBytesMax {
			return fault("frame %d is %d bytes, or cut off, limit %d", n, size, frameBytesMax)
		}
		b = b[size:]
	}
	if n != r.Count {
		return fault("has %d frames, count is %d", n, r.Count)
	}
	return nil
}

// entry is a run in an index: where its frames are.
type entry struct {
	epoch  string
	began  int64
	first  uint64
	count  uint32
	block  int // which has the run as a whole
	offset int // in the unpacked block
	length int
	times  []Time
}

func (e *entry) last() uint64 { return e.first + uint64(e.count) - 1 }

// segmentBuilder appends a segment while runs come in order. What it holds besides dst is a block and the index.
type segmentBuilder struct {
	dst    []byte
	start  int // of the segment in dst
	effort effort
	block  []byte
	blocks []byte // the index's first part: of each block that is closed
	closed int    // blocks

	rawBlocks int // that are not worth the try to compress them

	topics   []byte // the index's second part: of each topic that is closed
	topic    string // the present one, "" before the first
	ownBlock bool   // it shares none with others
	part     []byte // what is said of it
	written  entry  // the last run in part; no epoch: none
	pending  entry  // the run before it is in part, since the next may be its continuation; count 0: none
	hashes   []uint64
	ref      SegmentRef
}

func newSegmentBuilder(dst []byte, e effort) *segmentBuilder {
	b := &segmentBuilder{dst: dst, start: len(dst), effort: e, ref: SegmentRef{FirstMs: math.MaxInt64, LastMs: math.MinInt64}}
	b.dst = appendHeader(b.dst, kindSegment)
	return b
}

// begin opens a topic, the next one in order, of about so many bytes.
func (b *segmentBuilder) begin(topic string, bytes int) {
	b.closeTopic()
	b.topic = topic
	b.hashes = append(b.hashes, topicHash(topic))
	if bytes >= ownBytes || b.ownBlock {
		b.closeBlock()
	}
	b.ownBlock = bytes >= ownBytes
}

// add takes a checked run of the topic that is open, which comes after all others in order, less what the run before it has, too.
func (b *segmentBuilder) add(r *Run) {
	first, left, frames, times := r.First, r.Count, r.Frames, r.Times
	if p := &b.pending; p.count > 0 && p.epoch == r.Epoch && p.began == r.Began && first <= p.last() {
		had := p.last() - first + 1
		if had >= uint64(r.Count) {
			return
		}
		first, left, frames, times = first+had, left-uint32(had), skipFrames(frames, had), timesFrom(times, uint32(had))
	}
	for len(frames) > 0 {
		if len(b.block) >= blockBytes {
			b.closeBlock()
		}
		count, length := left, len(frames)
		if room := blockBytes - len(b.block); length > room {
			count, length = fill(frames, room)
		}
		if count == 0 { // does not fit in what is left
			b.closeBlock()
			continue
		}
		b.place(r, first, count, frames[:length], times)
		first, left, frames = first+uint64(count), left-count, frames[length:]
		if len(frames) > 0 {
			times = timesFrom(times, count)
		}
	}
}

// fill is how many frames, and bytes of them, fit into room; the first one always does if the room is a whole block.
func fill(frames []byte, room int) (count uint32, length int) {
	for length < len(frames) {
		size := frameBytes(frames[length:])
		if length+size > room && (count > 0 || room < blockBytes) {
			break
		}
		length += size
		count++
	}
	return count, length
}

// timesFrom is the times of a run without its first n messages.
func timesFrom(times []Time, n uint32) []Time {
	i, found := slices.BinarySearchFunc(times, n, func(t Time, n uint32) int { return cmp.Compare(t.Index, n) })
	if !found {
		i--
	}
	rest := make([]Time, 0, len(times)-i)
	for _, t := range times[i:] {
		rest = append(rest, Time{max(t.Index, n) - n, t.UnixMs})
	}
	return rest
}

// place puts messages, as many as fit, into the open block.
func (b *segmentBuilder) place(r *Run, first uint64, count uint32, frames []byte, times []Time) {
	p := &b.pending
	goesOn := p.count > 0 && p.epoch == r.Epoch && p.began == r.Began && first == p.last()+1 && p.block == b.closed &&
		uint64(p.count)+uint64(count) <= math.MaxUint32
	if !goesOn {
		b.closeRun()
		*p = entry{epoch: r.Epoch, began: r.Began, first: first, block: b.closed, offset: len(b.block), times: p.times[:0]}
	}
	for _, t := range times {
		if t.Index >= count {
			break
		}
		b.ref.FirstMs, b.ref.LastMs = min(b.ref.FirstMs, t.UnixMs), max(b.ref.LastMs, t.UnixMs)
		if n := len(p.times); n == 0 || p.times[n-1].UnixMs != t.UnixMs {
			p.times = append(p.times, Time{p.count + t.Index, t.UnixMs})
		}
	}
	p.count += count
	p.length += len(frames)
	b.block = append(b.block, frames...)
	b.ref.Messages += uint64(count)
	b.ref.Plain += int64(len(frames))
}

func (b *segmentBuilder) closeBlock() {
	if len(b.block) == 0 {
		return
	}
	bl, at, e := block{plain: len(b.block)}, len(b.dst), b.effort
	if b.rawBlocks > 0 {
		b.rawBlocks--
		e = none
	}
	b.dst, bl.coding = appendPacked(b.dst, b.block, e)
	if bl.coding == codingRaw && e != none {
		b.rawBlocks = rawBlocksAfter
	}
	bl.packed, bl.sum = len(b.dst)-at, xxhash.Sum64(b.dst[at:])
	b.list(&bl)
	b.block = b.block[:0]
}

// list writes a block that is in dst to the index. A block is work for tenths of a millisecond; Go lets a goroutine have a
// processor for ten of them, and with only one the event loops would wait for it.
func (b *segmentBuilder) list(bl *block) {
	runtime.Gosched()
	b.blocks = append(b.blocks, bl.coding)
	b.blocks = binary.AppendUvarint(b.blocks, uint64(bl.packed))
	b.blocks = binary.AppendUvarint(b.blocks, uint64(bl.plain))
	b.blocks = binary.LittleEndian.AppendUint64(b.blocks, bl.sum)
	b.closed++
}

// addBlock takes a block, packed as it is, that a run of the topic that is open fills; false: the run before it has some of its
// messages, too.
func (b *segmentBuilder) addBlock(e *entry, bl *block, packed []byte) bool {
	if p := &b.pending; p.count > 0 && p.epoch == e.epoch && p.began == e.began && e.first <= p.last() {
		return false
	}
	b.closeBlock()
	b.closeRun()
	b.pending = entry{epoch: e.epoch, began: e.began, first: e.first, count: e.count, block: b.closed, length: e.length, times: append(b.pending.times[:0], e.times...)}
	for _, t := range e.times {
		b.ref.FirstMs, b.ref.LastMs = min(b.ref.FirstMs, t.UnixMs), max(b.ref.LastMs, t.UnixMs)
	}
	b.ref.Messages += uint64(e.count)
	b.ref.Plain += int64(e.length)
	b.dst = append(b.dst, packed...)
	b.list(bl)
	return true
}

// closeRun writes the pending run to the index.
func (b *segmentBuilder) closeRun() {
	p, w := &b.pending, &b.written
	if p.count == 0 {
		return
	}
	var flags byte
	if w.epoch == "" {
		b.part = binary.AppendUvarint(b.part, uint64(p.block))
		b.part = binary.AppendUvarint(b.part, uint64(p.offset))
	} else if p.block != w.block {
		flags |= runBlock
	}
	next, ms := w.last()+1, p.began
	if w.epoch != p.epoch || w.began != p.began {
		flags |= runEpoch
		next = 1
	} else {
		ms = w.times[len(w.times)-1].UnixMs
	}
	b.part = append(b.part, flags)
	if flags&runEpoch != 0 {
		b.part = appendStr8(b.part, p.epoch)
		b.part = binary.AppendVarint(b.part, p.began)
	}
	b.part = binary.AppendUvarint(b.part, p.first-next)
	b.part = binary.AppendUvarint(b.part, uint64(p.count))
	b.part = binary.AppendUvarint(b.part, uint64(p.length))
	b.part = binary.AppendUvarint(b.part, uint64(len(p.times)))
	index := uint32(0)
	for i, t := range p.times {
		if i > 0 {
			b.part = binary.AppendUvarint(b.part, uint64(t.Index-index))
		}
		b.part = binary.AppendVarint(b.part, t.UnixMs-ms)
		index, ms = t.Index, t.UnixMs
	}
	// The two swap their times' memory.
	*w, *p = *p, entry{times: w.times[:0]}
}

func (b *segmentBuilder) closeTopic() {
	b.closeRun()
	if b.topic == "" {
		return
	}
	b.topics = appendStr8(b.topics, b.topic)
	b.topics = binary.AppendUvarint(b.topics, uint64(len(b.part)))
	b.topics = append(b.topics, b.part...)
	b.part, b.written.epoch = b.part[:0], ""
}

// finish closes all that is open and appends index and footer.
func (b *segmentBuilder) finish() ([]byte, SegmentRef, error) {
	b.closeTopic()
	b.closeBlock()
	index := binary.AppendUvarint(nil, uint64(b.closed))
	index = append(index, b.blocks...)
	index = binary.AppendUvarint(index, uint64(len(b.hashes)))
	index = append(index, b.topics...)
	if len(b.hashes) == 0 {
		return b.dst[:b.start], SegmentRef{}, fmt.Errorf("a segment wants at least one run, got none")
	}
	if len(index) > indexBytesMax {
		return b.dst[:b.start], SegmentRef{}, fmt.Errorf("segment's index is %d bytes, limit %d", len(index), indexBytesMax)
	}
	at := len(b.dst)
	var f footer
	b.dst, f.coding = appendPacked(b.dst, index, thorough)
	f.packed, f.plain = uint32(len(b.dst)-at), uint32(len(index))
	b.dst = f.append(b.dst, b.dst[at:])
	b.ref.Size, b.ref.Tail = int64(len(b.dst)-b.start), int64(len(b.dst)-at)
	b.ref.Filter = makeFilter(b.hashes)
	if b.ref.Size > segmentSizeMax {
		return b.dst[:b.start], SegmentRef{}, fmt.Errorf("segment is %d bytes, limit %d", b.ref.Size, segmentSizeMax)
	}
	return b.dst, b.ref, nil
}
