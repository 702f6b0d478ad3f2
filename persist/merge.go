package persist

import (
	"context"
	"errors"
	"fmt"
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
		end := b.at + int64(b.packed)
		if end > int64(len(s.body)) {
			return nil, fmt.Errorf("segment is cut off at byte %d, and its block ends at %d", len(s.body), end)
		}
		plain, err := b.unpack(s.body[b.at:end])
		if err != nil {
			return nil, err
		}
		s.block, s.plain = e.block, plain
	}
	return s.plain[e.offset : e.offset+e.length], nil
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
	builders := make([]*segmentBuilder, shards)
	type found struct {
		entry
		of *source
	}
	var all []found
	for {
		topic := ""
		for _, s := range sources {
			if t := s.topic(); t != "" && (topic == "" || t < topic) {
				topic = t
			}
		}
		if topic == "" {
			break
		}
		all = all[:0]
		for _, s := range sources {
			if s.topic() != topic {
				continue
			}
			for n, e := range s.take() {
				if keep(topic, n, &e) {
					all = append(all, found{e, s})
				}
			}
		}
		slices.SortStableFunc(all, func(a, b found) int { return comparePieces(piece{entry: a.entry}, piece{entry: b.entry}) })
		for i := range all {
			f := &all[i]
			frames, err := f.of.frames(&f.entry)
			r := Run{Topic: topic, Epoch: f.epoch, Began: f.began, First: f.first, Count: f.count, Frames: frames, Times: f.times}
			if err == nil {
				err = r.check()
			}
			if err != nil {
				faults.note(blockKey(f.of.name, f.entry.block), err)
				continue
			}
			b := &builders[topicHash(topic)%uint64(shards)]
			if *b == nil {
				*b = newSegmentBuilder(nil)
			}
			(*b).add(&r)
		}
	}
	var made []merged
	for shard, b := range builders {
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
