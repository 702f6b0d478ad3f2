package bench

import "testing"

// see takes numbers as the scanner does and returns what they settled for the sender's window.
func see(t *tally, s *sequence, numbers ...uint64) (settled int64) {
	for _, seq := range numbers {
		if seq == s.next {
			s.take(1)
			t.delivered++
			settled++
			continue
		}
		settled += t.outOfStep(s, seq)
	}
	return settled
}

func numbers(from, to uint64) (all []uint64) {
	for ; from < to; from++ {
		all = append(all, from)
	}
	return all
}

func TestAccountTellsLossRepeatAndReorder(t *testing.T) {
	for _, test := range []struct {
		name    string
		numbers []uint64
		want    tally
		settled int64
	}{
		{"in order", numbers(0, 100), tally{delivered: 100}, 100},
		{"a hole", []uint64{0, 1, 4, 5}, tally{delivered: 4, lost: 2}, 6},
		{"a hole at the start", []uint64{3}, tally{delivered: 1, lost: 3}, 4},
		{"a repeat of the last", []uint64{0, 1, 1, 2}, tally{delivered: 3, repeated: 1}, 3},
		{"a repeat of an earlier one", []uint64{0, 1, 2, 0, 3}, tally{delivered: 4, repeated: 1}, 4},
		{"two swapped", []uint64{0, 2, 1, 3}, tally{delivered: 4, reordered: 1}, 4},
		{"a late one twice", []uint64{0, 2, 1, 1, 3}, tally{delivered: 4, reordered: 1, repeated: 1}, 4},
		{"three backwards", []uint64{2, 1, 0}, tally{delivered: 3, reordered: 2}, 3},
		{"late at the window's edge", append([]uint64{}, append(numbers(1, 64), 0)...), tally{delivered: 64, reordered: 1}, 64},
		{"late past the window", append([]uint64{}, append(numbers(1, 65), 0)...), tally{delivered: 64, lost: 1, repeated: 1}, 65},
		{"a hole wider than the window", []uint64{0, 500, 499}, tally{delivered: 3, lost: 498, reordered: 1}, 501},
		{"a repeat before a wide hole", []uint64{0, 500, 0}, tally{delivered: 2, lost: 499, repeated: 1}, 501},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got tally
			settled := see(&got, &sequence{}, test.numbers...)
			if got != test.want || settled != test.settled {
				t.Errorf("tally %+v settled %d, want %+v settled %d", got, settled, test.want, test.settled)
			}
		})
	}
}

func TestManyNumbersAtOnceAreTheSameAsEach(t *testing.T) {
	for _, count := range []int64{1, 2, 63, 64, 65, 1000} {
		var got tally
		s := sequence{}
		see(&got, &s, 1) // a hole at 0
		s.take(count)
		see(&got, &s, 0)
		if late := uint64(count) < seenWindow-1; (got.reordered == 1) != late || s.next != uint64(count)+2 {
			t.Errorf("after %d at once: %+v, next %d", count, got, s.next)
		}
	}
}

func TestOffsetsMustFollowUnlessAGapWasAnnounced(t *testing.T) {
	var got tally
	track := offsetTrack{free: true}
	for _, offset := range []uint64{7, 8, 9, 11, 12} {
		track.take(&got, offset)
	}
	if got.offsets != 1 {
		t.Errorf("%d offset breaks, want 1", got.offsets)
	}
	track = offsetTrack{next: 20}
	track.take(&got, 20)
	if got.offsets != 1 {
		t.Errorf("%d offset breaks after an announced gap, want 1", got.offsets)
	}
}
