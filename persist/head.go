package persist

import (
	"encoding/binary"
	"math"
)

// Head is what the node of one life says about it: which segments it has written. Only that node writes it.
type Head struct {
	Life      uint64 // from 1
	Name      string // of the node; more than 255 bytes of it are cut off
	Slot      int    // -1: it has none
	StartedMs int64
	WrittenMs int64 // when this head was, by its node's clock
	Sealed    bool  // this is the life's last head, and there is a sealed record
	Segments  []HeadSegment
	Holes     []Hole // oldest first; at most HeadHolesMax are kept, the newest
}

// HeadSegment is one segment of a life. Numbers begin with 1 and rise; one that was never written may be left out.
type HeadSegment struct {
	Seq uint64
	SegmentRef
}

// Hole is messages of a topic that are not stored: they were given up while the store was away.
type Hole struct {
	Topic string
	Epoch string
	First uint64
	Last  uint64
}

const (
	// HeadHolesMax bounds what a node says it gave up. Older ones are found all the same, as offsets that nothing has.
	HeadHolesMax = 1024

	headBytesMax = 64 << 20
	refLeast     = 8 // bytes of a segment in a list
)

// AppendHead appends h as an object.
func AppendHead(dst []byte, h *Head) []byte {
	b := binary.AppendUvarint(nil, h.Life)
	b = appendStr8(b, h.Name[:min(len(h.Name), math.MaxUint8)])
	b = binary.AppendVarint(b, int64(h.Slot))
	b = binary.AppendVarint(b, h.StartedMs)
	b = binary.AppendVarint(b, h.WrittenMs)
	b = appendBool(b, h.Sealed)
	b = binary.AppendUvarint(b, uint64(len(h.Segments)))
	seq, ms := uint64(0), h.StartedMs
	for i := range h.Segments {
		s := &h.Segments[i]
		b = binary.AppendUvarint(b, s.Seq-seq)
		b = appendRef(b, &s.SegmentRef, ms)
		seq, ms = s.Seq, s.FirstMs
	}
	holes := h.Holes[max(len(h.Holes)-HeadHolesMax, 0):]
	b = binary.AppendUvarint(b, uint64(len(holes)))
	for _, o := range holes {
		b = appendStr8(b, o.Topic)
		b = appendStr8(b, o.Epoch)
		b = binary.AppendUvarint(b, o.First)
		b = binary.AppendUvarint(b, o.Last-o.First)
	}
	return appendEnvelope(dst, kindHead, b)
}

// ParseHead reads the head of a life.
func ParseHead(b []byte, life uint64) (*Head, error) {
	body, err := openEnvelope(b, kindHead, headBytesMax)
	if err != nil {
		return nil, err
	}
	r := &fields{what: "head", rest: body}
	h := &Head{Life: r.uvarint("life", maxNumber)}
	if r.err == nil && h.Life != life {
		r.fail("is of life %d, not %d", h.Life, life)
	}
	h.Name = r.str8("name", 0)
	h.Slot = int(r.varint("slot"))
	h.StartedMs, h.WrittenMs = r.varint("start"), r.varint("time")
	h.Sealed = r.bool("sealed")
	n := r.count("number of segments", refLeast)
	h.Segments = make([]HeadSegment, 0, n)
	seq, ms := uint64(0), h.StartedMs
	for range n {
		s := HeadSegment{Seq: seq + r.uvarint("segment's number", maxNumber-seq)}
		if r.err == nil && s.Seq == seq {
			r.fail("two segments have number %d", seq)
		}
		s.SegmentRef = r.ref(ms)
		seq, ms = s.Seq, s.FirstMs
		h.Segments = append(h.Segments, s)
	}
	n = r.count("number of holes", 6)
	if n > HeadHolesMax {
		r.fail("has %d holes, limit %d", n, HeadHolesMax)
		n = 0
	}
	for range n {
		o := Hole{Topic: r.str8("hole's topic", 1), Epoch: r.str8("hole's epoch", 1), First: r.uvarint("hole's begin", math.MaxInt64)}
		o.Last = o.First + r.uvarint("hole's length", math.MaxInt64)
		h.Holes = append(h.Holes, o)
	}
	return h, r.end()
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func (f *fields) bool(name string) bool {
	b := f.byte(name)
	if b > 1 {
		f.fail("%s is %d, not 0 or 1", name, b)
	}
	return b == 1
}

// appendRef appends what a list says of a segment; times are told from one that the reader knows.
func appendRef(dst []byte, s *SegmentRef, ms int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.Size))
	dst = binary.AppendUvarint(dst, uint64(s.Tail))
	dst = binary.AppendUvarint(dst, uint64(s.Plain))
	dst = binary.AppendUvarint(dst, s.Messages)
	dst = binary.AppendVarint(dst, s.FirstMs-ms)
	dst = binary.AppendUvarint(dst, uint64(s.LastMs-s.FirstMs))
	dst = binary.AppendUvarint(dst, uint64(len(s.Filter)))
	return append(dst, s.Filter...)
}

func (f *fields) ref(ms int64) SegmentRef {
	s := SegmentRef{
		Size:     int64(f.uvarint("segment's size", segmentSizeMax)),
		Tail:     int64(f.uvarint("size of the segment's end", segmentSizeMax)),
		Plain:    int64(f.uvarint("segment's bytes", math.MaxInt64)),
		Messages: f.uvarint("segment's messages", math.MaxInt64),
		FirstMs:  ms + f.varint("segment's first time"),
	}
	s.LastMs = s.FirstMs + int64(f.uvarint("segment's time range", math.MaxInt64))
	// The head stays in memory, filters and all, so they may well be parts of its body.
	s.Filter = Filter(f.bytes("filter", int(f.uvarint("filter's length", 1+filterBitsMax/8))))
	if err := s.Filter.check(); err != nil {
		f.fail("%w", err)
	}
	if s.Tail < int64(footerBytes) || s.Tail > s.Size {
		f.fail("the end of a segment of %d bytes is %d bytes", s.Size, s.Tail)
	}
	return s
}
