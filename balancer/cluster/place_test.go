package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// choices are a topic's slots, best first.
func choices(hash uint64, slots, most int) (order []int) {
	for attempt := range min(slots, most) {
		order = append(order, Choice(hash, attempt, slots))
	}
	return order
}

// These are a promise: what fails here moves topics between the nodes of clusters that run different versions. They
// come from another implementation, in Python, of xxhash64, jump hash and splitmix64.
func TestPlacesNeverChange(t *testing.T) {
	for _, c := range []struct {
		topic string
		hash  uint64
		slots map[int][]int // the first choices, by number of slots
	}{
		{"a", 0xd24ec4f1a98c6e5b, map[int][]int{1: {0}, 2: {1, 0}, 3: {1, 0, 2}, 5: {1, 4, 2, 3, 0}, 16: {8, 11, 2, 3, 13}, 300: {17, 76, 79, 99, 194}, 1024: {894, 817, 407, 99, 723}}},
		{"news", 0x703a743d3c9da1ee, map[int][]int{1: {0}, 2: {1, 0}, 3: {1, 2, 0}, 5: {3, 2, 1, 4, 0}, 16: {12, 2, 13, 4, 3}, 300: {154, 240, 93, 126, 153}, 1024: {154, 739, 415, 643, 930}}},
		{"prices.eur", 0x5521804b3e1da32f, map[int][]int{1: {0}, 2: {1, 0}, 3: {1, 0, 2}, 5: {4, 0, 2, 3, 1}, 16: {11, 5, 0, 13, 9}, 300: {253, 190, 65, 256, 135}, 1024: {253, 733, 65, 695, 135}}},
		{"audit/2026", 0x977c392dc6e4ea2f, map[int][]int{1: {0}, 2: {1, 0}, 3: {1, 0, 2}, 5: {1, 0, 4, 2, 3}, 16: {13, 8, 4, 12, 15}, 300: {13, 120, 289, 156, 285}, 1024: {13, 120, 396, 740, 872}}},
		{"chat/room-1", 0x8be046907a335a4e, map[int][]int{1: {0}, 2: {1, 0}, 3: {2, 0, 1}, 5: {4, 3, 2, 0, 1}, 16: {4, 9, 13, 0, 2}, 300: {75, 194, 171, 190, 269}, 1024: {1002, 657, 473, 963, 269}}},
		{"größe", 0xe6bebd6647f502a5, map[int][]int{1: {0}, 2: {0, 1}, 3: {0, 1, 2}, 5: {0, 1, 2, 3, 4}, 16: {14, 1, 9, 2, 13}, 300: {53, 97, 242, 184, 286}, 1024: {518, 97, 359, 987, 835}}},
		{strings.Repeat("x", 255), 0x568b95dc7ddbe218, map[int][]int{1: {0}, 2: {0, 1}, 3: {0, 1, 2}, 5: {0, 3, 4, 2, 1}, 16: {7, 3, 10, 9, 5}, 300: {248, 90, 161, 19, 138}, 1024: {248, 375, 393, 19, 343}}},
	} {
		if got := Hash([]byte(c.topic)); got != c.hash {
			t.Errorf("%.20s: hash is %016x, want %016x", c.topic, got, c.hash)
		}
		for slots, want := range c.slots {
			if got := choices(c.hash, slots, 5); !slices.Equal(got, want) {
				t.Errorf("%.20s: of %d slots it goes to %v, want %v", c.topic, slots, got, want)
			}
		}
	}
}

func TestEachSlotIsChosenOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, slots := range []int{1, 2, 3, 5, 63, 64, 65, 300, SlotsMax + 3} {
		hashes := []uint64{0, 1, ^uint64(0), random.Uint64()}
		if slots > 300 {
			hashes = hashes[3:]
		}
		for _, hash := range hashes {
			order := choices(hash, slots, slots)
			if again := Choice(hash, slots, slots); again != order[0] {
				t.Errorf("after all %d slots comes %d, want the first again, %d", slots, again, order[0])
			}
			slices.Sort(order)
			for i, slot := range order {
				if i != slot {
					t.Fatalf("hash %x: of %d slots the choices are %v", hash, slots, order)
				}
			}
		}
	}
	if got := Choice(1, 0, 0); got != -1 {
		t.Errorf("of no slots the choice is %d", got)
	}
}

func TestChoosingDoesNotAllocate(t *testing.T) {
	topic := []byte("prices.eur")
	var attempt int
	if n := testing.AllocsPerRun(100, func() { Choice(Hash(topic), attempt%SlotsMax, SlotsMax); attempt++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

const sampled = 100_000

func sample(i int) uint64 { return Hash(fmt.Appendf(nil, "topic-%d", i)) }

// even complains about a slot that has 10 % more or less than its share of counts; a deviation of 10 % is more than
// nine times the standard one for what is counted below.
func even(t *testing.T, what string, counts map[int]int, slots int) {
	t.Helper()
	total := 0
	for _, n := range counts {
		total += n
	}
	if len(counts) != slots {
		t.Errorf("%s: %d slots have any, want %d", what, len(counts), slots)
	}
	for slot, n := range counts {
		if share := float64(total) / float64(slots); float64(n) < 0.9*share || float64(n) > 1.1*share {
			t.Errorf("%s: slot %d has %d, its share is %.0f", what, slot, n, share)
		}
	}
}

func TestTopicsAreSpreadEvenly(t *testing.T) {
	for attempt := range 3 {
		counts := map[int]int{}
		for i := range sampled {
			counts[Choice(sample(i), attempt, 10)]++
		}
		even(t, fmt.Sprintf("choice %d", attempt), counts, 10)
	}
}

func TestAnAddedSlotTakesItsShareAndMovesNothingElse(t *testing.T) {
	for _, slots := range []int{1, 2, 9, 99} {
		moved := 0
		for i := range sampled {
			switch before, after := Choice(sample(i), 0, slots), Choice(sample(i), 0, slots+1); {
			case after == slots:
				moved++
			case after != before:
				t.Fatalf("topic %d went from slot %d to %d, and %d is the new one", i, before, after, slots)
			}
		}
		if share := float64(sampled) / float64(slots+1); float64(moved) < 0.85*share || float64(moved) > 1.15*share {
			t.Errorf("slot %d took %d topics, its share is %.0f", slots, moved, share)
		}
	}
}

// owner is the first choice that is there.
func owner(hash uint64, slots, missing int) int {
	for attempt := range slots {
		if slot := Choice(hash, attempt, slots); slot != missing {
			return slot
		}
	}
	return -1
}

func TestAMissingSlotMovesItsOwnTopicsToAllOthersAndNothingElse(t *testing.T) {
	const slots, missing = 6, 2
	taken := map[int]int{}
	for i := range sampled {
		before, after := owner(sample(i), slots, -1), owner(sample(i), slots, missing)
		if before == missing {
			taken[after]++
		} else if after != before {
			t.Fatalf("topic %d went from slot %d to %d, and %d is the missing one", i, before, after, missing)
		}
	}
	even(t, "next choice", taken, slots-1)
}

func BenchmarkChoice(b *testing.B) {
	for _, c := range []struct{ attempt, slots int }{{0, 10}, {1, 10}, {9, 10}, {0, 300}, {1, 300}} {
		b.Run(fmt.Sprintf("attempt=%d/slots=%d", c.attempt, c.slots), func(b *testing.B) {
			for i := range b.N {
				Choice(uint64(i)*0x9e3779b97f4a7c15, c.attempt, c.slots)
			}
		})
	}
}
