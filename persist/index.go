package persist

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// footer is the last bytes of a segment, always as many. Its own checksum is over all that is before it in the footer.
type footer struct {
	coding        byte
	packed, plain uint32 // the index
	sum           uint64 // of the packed index
}

const footerBytes = headerBytes + 1 + 4 + 4 + 8 + sumBytes

func (f footer) append(dst, index []byte) []byte {
	start := len(dst)
	dst = append(appendHeader(dst, kindFooter), f.coding)
	dst = binary.LittleEndian.AppendUint32(dst, f.packed)
	dst = binary.LittleEndian.AppendUint32(dst, f.plain)
	dst = appendSum(dst, index)
	return appendSum(dst, dst[start:])
}

func parseFooter(b []byte) (f footer, err error) {
	if len(b) < footerBytes {
		return f, fmt.Errorf("segment's end is %d bytes, too short for its footer of %d", len(b), footerBytes)
	}
	b = b[len(b)-footerBytes:]
	if err := checkHeader(b, kindFooter); err != nil {
		return f, err
	}
	r := fields{what: kindFooter.String(), rest: b[headerBytes:]}
	f = footer{r.byte("coding"), r.uint32("packed length"), r.uint32("length"), r.uint64("checksum")}
	sum, got := r.uint64("own checksum"), xxhash.Sum64(b[:footerBytes-sumBytes])
	switch {
	case sum != got:
		return f, fmt.Errorf("segment's footer: checksum is %016x, its bytes have %016x", sum, got)
	case f.plain > indexBytesMax || f.packed > indexBytesMax:
		return f, fmt.Errorf("segment's index is %d bytes, %d packed, limit %d", f.plain, f.packed, indexBytesMax)
	}
	return f, r.end()
}

// block is where a block is in its segment.
type block struct {
	at            int64 // in the object
	coding        byte
	packed, plain int
	sum           uint64
}

// in is what there is of a block in bytes of its object from one on.
func (b *block) in(bytes []byte, from int64) (packed []byte) {
	start := min(int(b.at-from), len(bytes))
	return bytes[start:min(start+b.packed, len(bytes))]
}

// check says why what was read of a block is not it.
func (b *block) check(packed []byte) error {
	if len(packed) != b.packed {
		return fmt.Errorf("is cut off: want %d bytes, have %d", b.packed, len(packed))
	}
	if sum := xxhash.Sum64(packed); sum != b.sum {
		return fmt.Errorf("checksum is %016x, its bytes have %016x", b.sum, sum)
	}
	return nil
}

// unpack checks what was read of a block, and is its frames.
func (b *block) unpack(packed []byte) ([]byte, error) {
	if err := b.check(packed); err != nil {
		return nil, err
	}
	return unpack(packed, b.coding, b.plain)
}

// index is a segment's table of contents. It is checked as a whole when it is made, and holds what is said of topics as it
// was read: a hundred thousand of them as structures would be four times as much. Safe from any goroutine.
type index struct {
	blocks   []block
	plain    []byte
	topics   []uint32 // where in plain each begins, in order of names
	messages uint64
	bytes    int64 // of frames, in all blocks
}

// parseIndex reads the index of a segment of size bytes from its end.
func parseIndex(tail []byte, size int64) (*index, error) {
	f, err := parseFooter(tail)
	if err != nil {
		return nil, err
	}
	tail = tail[:len(tail)-footerBytes]
	if int(f.packed) > len(tail) {
		return nil, fmt.Errorf("segment's index is %d bytes, and only %d of them are there", f.packed, len(tail))
	}
	packed := tail[len(tail)-int(f.packed):]
	if sum := xxhash.Sum64(packed); sum != f.sum {
		return nil, fmt.Errorf("segment's index: checksum is %016x, its bytes have %016x", f.sum, sum)
	}
	plain, err := unpack(packed, f.coding, int(f.plain))
	if err != nil {
		return nil, fmt.Errorf("segment's index %w", err)
	}
	if f.coding == codingRaw {
		plain = append([]byte(nil), plain...) // the rest of the tail goes
	}
	x := &index{plain: plain}
	r := &fields{what: "segment's index", rest: plain}
	x.readBlocks(r, size-int64(footerBytes)-int64(f.packed))
	x.readTopics(r)
	return x, r.end()
}

// readBlocks reads where the blocks are, which are back to back between the segment's header and its index at end.
func (x *index) readBlocks(r *fields, end int64) {
	n := r.count("number of blocks", 3+sumBytes)
	x.blocks = make([]block, 0, n)
	at := int64(headerBytes)
	for i := range n {
		b := block{at: at, coding: r.byte("coding")}
		b.packed = int(r.uvarint("block's packed length", blockBytesMax+blockBytesMax/16))
		b.plain = int(r.uvarint("block's length", blockBytesMax))
		b.sum = r.uint64("block's checksum")
		switch {
		case r.err != nil:
		case b.plain == 0 || b.packed == 0:
			r.fail("block %d is empty", i)
		case b.coding > codingS2: // a later version's segment, all of it: what is known is not to be taken out of it
			r.fail("block %d has coding %d, this program reads %d to %d", i, b.coding, codingRaw, codingS2)
		}
		at += int64(b.packed)
		x.bytes += int64(b.plain)
		x.blocks = append(x.blocks, b)
	}
	if r.err == nil && at != end {
		r.fail("%d blocks end at byte %d, and the index begins at %d", n, at, end)
	}
}

// readTopics checks that runs fill the blocks, in order and without overlap.
func (x *index) readTopics(r *fields) {
	n := r.count("number of topics", 10)
	x.topics = make([]uint32, 0, n)
	last, at, offset := "", 0, 0
	for range n {
		x.topics = append(x.topics, uint32(len(x.plain)-len(r.rest)))
		topic := r.str8("topic", 1)
		if r.err == nil && topic <= last {
			r.fail("topic %q comes after %q", topic, last)
		}
		last = topic
		part := r.bytes("part", int(r.uvarint("part's length", indexBytesMax)))
		if r.err != nil {
			return
		}
		p := partReader{fields: fields{what: fmt.Sprintf("segment's index, topic %q", topic), rest: part}, blocks: x.blocks}
		p.start()
		for p.next() {
			e := &p.entry
			if e.block != at || e.offset != offset {
				p.fail("run from offset %d is at byte %d of block %d, and the one before it ends at %d of %d", e.first, e.offset, e.block, offset, at)
			}
			x.messages += uint64(e.count)
			if offset += e.length; offset == x.blocks[at].plain {
				at, offset = at+1, 0
			}
		}
		if r.err = p.err; r.err != nil {
			return
		}
	}
	if r.err == nil && (at != len(x.blocks) || offset != 0) {
		r.fail("its topics end at byte %d of block %d of %d", offset, at, len(x.blocks))
	}
}

// cost is about how many bytes of memory it holds.
func (x *index) cost() int64 {
	return int64(cap(x.plain)) + 4*int64(cap(x.topics)) + 40*int64(cap(x.blocks)) + 128
}

func (x *index) at(i int) *fields { return &fields{rest: x.plain[x.topics[i]:]} }

// name is that of the i-th topic.
func (x *index) name(i int) string { return x.at(i).str8("topic", 1) }

// of is what it has of the i-th topic, in order of epochs and offsets.
func (x *index) of(i int) (all []entry) {
	r := x.at(i)
	r.str8("topic", 1)
	p := partReader{fields: fields{rest: r.bytes("part", int(r.uvarint("part's length", indexBytesMax)))}, blocks: x.blocks}
	p.start()
	for p.next() {
		all = append(all, p.entry)
	}
	if p.err != nil {
		panic("BUG: an index that was checked does not read: " + p.err.Error())
	}
	return all
}

// runs is what it has of a topic.
func (x *index) runs(topic string) []entry {
	i := sort.Search(len(x.topics), func(i int) bool { return x.name(i) >= topic })
	if i == len(x.topics) || x.name(i) != topic {
		return nil
	}
	return x.of(i)
}

// all is every topic with its runs, in order of names.
func (x *index) all() iter.Seq2[string, []entry] {
	return func(yield func(string, []entry) bool) {
		for i := range x.topics {
			if !yield(x.name(i), x.of(i)) {
				return
			}
		}
	}
}

// partReader reads what an index says of one topic, run by run.
type partReader struct {
	fields
	blocks []block
	entry  entry
}

func (p *partReader) start() {
	p.entry = entry{
		block:  int(p.uvarint("block", uint64(max(len(p.blocks)-1, 0)))),
		offset: int(p.uvarint("offset in the block", blockBytesMax)),
	}
	if p.err == nil && len(p.rest) == 0 {
		p.fail("has no runs")
	}
}

// next reads the next run, with times of its own; false: there is none, or a fault.
func (p *partReader) next() bool {
	if p.err != nil || len(p.rest) == 0 {
		return false
	}
	e := &p.entry
	e.offset += e.length
	flags := p.byte("flags")
	switch {
	case flags&^(runEpoch|runBlock) != 0:
		p.fail("flags are 0x%02x, of which 0x%02x are known", flags, runEpoch|runBlock)
	case flags&runBlock != 0 && e.block+1 >= len(p.blocks):
		p.fail("a run is in block %d of %d", e.block+1, len(p.blocks))
	case flags&runBlock != 0:
		e.block, e.offset = e.block+1, 0
	}
	next, ms := e.first+uint64(e.count), int64(0)
	if flags&runEpoch != 0 {
		p.readEpoch()
		next, ms = 1, e.began
	} else if e.epoch == "" {
		p.fail("its first run has no epoch")
	} else {
		ms = e.times[len(e.times)-1].UnixMs
	}
	if next > offsetMax {
		p.fail("a run comes after offset %d, limit %d", next-1, uint64(offsetMax))
		return false
	}
	e.first = next + p.uvarint("offset", offsetMax-next)
	e.count = uint32(p.uvarint("number of messages", math.MaxUint32))
	e.length = int(p.uvarint("length", uint64(max(p.plain(e.block)-e.offset, 0))))
	// A frame is at least two bytes.
	if p.err == nil && (e.count == 0 || int64(e.length) < 2*int64(e.count)) {
		p.fail("%d messages from offset %d are %d bytes", e.count, e.first, e.length)
	}
	p.readTimes(ms)
	return p.err == nil
}

func (p *partReader) plain(i int) int {
	if i >= len(p.blocks) {
		return 0
	}
	return p.blocks[i].plain
}

func (p *partReader) readEpoch() {
	e := &p.entry
	epoch := p.str8("epoch", 1)
	began := p.varint("epoch's begin")
	switch {
	case len(epoch) > epochBytesMax:
		p.fail("epoch is %d bytes, limit %d", len(epoch), epochBytesMax)
	case e.epoch != "" && (began < e.began || began == e.began && epoch <= e.epoch):
		p.fail("epoch %q of %d comes after %q of %d", epoch, began, e.epoch, e.began)
	}
	e.epoch, e.began = epoch, began
}

func (p *partReader) readTimes(ms int64) {
	e := &p.entry
	n := p.count("number of times", 1)
	if p.err == nil && n == 0 {
		p.fail("run from offset %d has no times", e.first)
	}
	if p.err != nil {
		return
	}
	e.times = make([]Time, 0, n)
	index := uint32(0)
	for i := range n {
		if i > 0 {
			d := p.uvarint("time's index", uint64(e.count-1-index))
			if p.err == nil && d == 0 {
				p.fail("two times are of one message")
			}
			index += uint32(d)
		}
		ms += p.varint("time")
		e.times = append(e.times, Time{index, ms})
	}
}
