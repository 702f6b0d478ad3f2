package bench

// sequence is one subscriber's place in one lane.
type sequence struct {
	next uint64 // the number to come
	seen uint64 // bit i: number next-1-i has arrived
}

// take accounts for the next count numbers.
func (s *sequence) take(count int64) {
	s.next += uint64(count)
	s.seen = s.seen<<count | (1<<count - 1) // shifts past the width leave all ones, as they should
}

// tally counts what subscribers saw, over the whole run.
type tally struct {
	delivered uint64 // messages that arrived for the first time
	lost      uint64 // numbers skipped and not seen since
	repeated  uint64 // numbers seen before
	reordered uint64 // numbers that arrived after a later one
	foreign   uint64 // messages of another run, of a topic not subscribed to, or not stamped at all
	offsets   uint64 // RayFlux offsets that were not the one before plus one, without a gap announced
	gaps      uint64 // gap events
	missed    uint64 // messages the gap events said were missed
}

// seenWindow is how far back a late number can be told from a repeated one; beyond it, it is called repeated.
const seenWindow = 64

// outOfStep accounts for a number that is not the one to come. It returns how many numbers it settles for the sender's
// window: those just found missing and this one, none when it was settled before.
func (t *tally) outOfStep(s *sequence, seq uint64) (settled int64) {
	if seq >= s.next {
		skipped := seq - s.next
		t.lost += skipped
		t.delivered++
		s.seen = s.seen<<(skipped+1) | 1 // a shift past the width leaves only the newest, as it should
		s.next = seq + 1
		return int64(skipped) + 1
	}
	back := s.next - 1 - seq
	if back >= seenWindow || s.seen>>back&1 == 1 {
		t.repeated++
		return 0
	}
	s.seen |= 1 << back
	t.lost--
	t.reordered++
	t.delivered++
	return 0
}

// offsetTrack is one subscription's place in RayFlux's own numbering.
type offsetTrack struct {
	next uint64 // the offset to come
	free bool   // a gap was announced, or nothing is known yet: take the next offset as it comes
}

// take checks one message's offset.
func (o *offsetTrack) take(t *tally, offset uint64) {
	if offset != o.next && !o.free {
		t.offsets++
	}
	o.next, o.free = offset+1, false
}
