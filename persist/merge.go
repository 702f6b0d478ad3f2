package persist

import (
	"context"
	"errors"
	"slices"
)

// source is a segment that is being merged: all of it is in memory, packed, and one block of it unpacked.
type source struct {
	segment
	body  []byte
	index *index
	at    int // the next topic
	block int // that is unpacked; -1: none
	plain []byte
}

// openSource reads a whole segment; nil, and noted, if it cannot be used.
func openSource(ctx context.Context, store Store, faults *faults, s segment) (*source, error) {
	if faults.has(s.name) {
		return nil, nil
	}
	body, err := store.Get(ctx, s.name, 0, s.ref.Size)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	var x *index
	if err == nil {
		if err = checkHeader(body, kindSegment); err == nil {
			x, err = parseIndex(body, s.ref.Size)
		}
	}
	if err != nil {
		faults.note(s.name, err)
		return nil, nil
	}
	return &source{segment: s, body: body, index: x, block: -1}, nil
}

// topic is the next topic's name; "": there is none.
func (s *source) topic() string {
	if s.at == len(s.index.topics) {
		return ""
	}
	return s.index.name(s.at)
}

// take is what it has of the next topic, which is then the one after that.
func (s *source) take() []entry {
	s.at++
	return s.index.of(s.at - 1)
}

// frames is those of an entry, valid until the next call. Entries come in order, so that each block is unpacked once.
func (s *source) frames(e *entry) ([]byte, error) {
	if s.block != e.block {
		b := &s.index.blocks[e.block]
		plain, err := b.unpack(b.in(s.body, 0))
		if err != nil {
			return nil, err
		}
		s.block, s.plain = e.block, plain
	}
	return s.plain[e.offset : e.offset+e.length], nil
}

// whole is the block of an entry that fills it alone, and is worth to be taken as it is; nil: there is none, or it is broken.
func (s *source) whole(e *entry) (bl *block, packed []byte) {
	bl = &s.index.blocks[e.block]
	packed = bl.in(s.body, 0)
	if e.length != bl.plain || e.length < ownBytes || bl.check(packed) != nil {
		return nil, nil
	}
	return bl, packed
}

// merged is a segment that was made.
type merged struct {
	shard int
	body  []byte
	ref   SegmentRef
}

// mergeSources makes one segment for each of so many shards of the topics, those without messages left out. keep is asked of
// every run; broken ones are noted and left out. It holds, beside the sources, what it makes.
func mergeSources(sources []*source, shards int, faults *faults, keep func(topic string, n int, e *entry) bool) ([]merged, error) {
	m := merger{sources: sources, faults: faults, keep: keep, effort: effortOf(sources), builders: make([]*segmentBuilder, shards)}
	for m.next() {
		for i := range m.found {
			m.put(&m.found[i])
		}
	}
	var made []merged
	for shard, b := range m.builders {
		if b == nil {
			continue
		}
		body, ref, err := b.finish()
		if err != nil {
			return nil, err
		}
		made = append(made, merged{shard, body, ref})
	}
	return made, nil
}

// effortOf is what a merge is worth: what came so fast that most of it was packed quickly comes here as fast.
func effortOf(sources []*source) effort {
	var all, fast int64
	for _, s := range sources {
		all += s.index.bytes
		for i := range s.index.blocks {
			if b := &s.index.blocks[i]; b.coding == codingS2 {
				fast += int64(b.plain)
			}
		}
	}
	if fast > all/2 {
		return quick
	}
	return thorough
}

// merger makes segments of sources, topic by topic.
type merger struct {
	sources  []*source
	faults   *faults
	keep     func(topic string, n int, e *entry) bool
	effort   effort
	builders []*segmentBuilder // one of each shard; nil: nothing was put into it yet

	topic string
	found []found // of the topic, in order
	bytes int     // of them
}

// found is a run, and the source that has it.
type found struct {
	entry
	of *source
}

// next finds the runs that are kept of the next topic; false: there is none.
func (m *merger) next() bool {
	m.topic, m.found, m.bytes = "", m.found[:0], 0
	for _, s := range m.sources {
		if t := s.topic(); t != "" && (m.topic == "" || t < m.topic) {
			m.topic = t
		}
	}
	if m.topic == "" {
		return false
	}
	for _, s := range m.sources {
		if s.topic() != m.topic {
			continue
		}
		for n, e := range s.take() {
			if m.keep(m.topic, n, &e) {
				m.found, m.bytes = append(m.found, found{e, s}), m.bytes+e.length
			}
		}
	}
	slices.SortStableFunc(m.found, func(a, b found) int { return comparePieces(piece{entry: a.entry}, piece{entry: b.entry}) })
	return true
}

// put adds a run to the segment of its topic's shard: as the block that it is if it is one, else frame by frame.
func (m *merger) put(f *found) {
	if bl, packed := f.of.whole(&f.entry); bl != nil && m.builder().addBlock(&f.entry, bl, packed) {
		return
	}
	frames, err := f.of.frames(&f.entry)
	r := Run{Topic: m.topic, Epoch: f.epoch, Began: f.began, First: f.first, Count: f.count, Frames: frames, Times: f.times}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		m.faults.note(blockKey(f.of.name, f.entry.block), err)
		return
	}
	m.builder().add(&r)
}

// builder is that of the topic's shard, with the topic open: it must get a run.
func (m *merger) builder() *segmentBuilder {
	b := &m.builders[topicHash(m.topic)%uint64(len(m.builders))]
	if *b == nil {
		*b = newSegmentBuilder(nil, m.effort)
	}
	if (*b).topic != m.topic {
		(*b).begin(m.topic, m.bytes)
	}
	return *b
}
