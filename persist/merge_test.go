package persist

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

// testSources is a segment of each of some runs, in memory.
func testSources(t testing.TB, e effort, segments ...[]Run) (all []*source) {
	t.Helper()
	for _, runs := range segments {
		body, ref, err := appendSegment(nil, runs, e)
		if err != nil {
			t.Fatal(err)
		}
		x, err := parseIndex(body, ref.Size)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &source{segment: segment{name: "a test's", ref: &ref}, body: body, index: x, block: -1})
	}
	return all
}

func TestMergeIsTheSegmentOfAllRuns(t *testing.T) {
	large, small := uint32(4000), uint32(3) // of messages of 200 bytes: three blocks, and a part of one
	run := func(topic string, first uint64, count uint32) Run { return testRun(topic, "E", 5, first, count, 200) }
	for name, segments := range map[string][][]Run{
		"large topics":             {{run("a", 1, large), run("b", 1, large)}, {run("a", 4001, large), run("b", 4001, large)}},
		"small topics":             {{run("a", 1, small), run("b", 1, small)}, {run("a", 4, small), run("b", 4, small)}},
		"large and small":          {{run("a", 1, small), run("b", 1, large)}, {run("a", 4, large), run("b", 4001, small), run("c", 1, large)}},
		"the same twice":           {{run("a", 1, large)}, {run("a", 1, large)}},
		"some of it twice":         {{run("a", 1, large)}, {run("a", 2001, large)}},
		"a large one, found first": {{run("a", 1, large)}, {run("a", 900, small), run("b", 1, large)}},
		"two epochs":               {{testRun("a", "E", 5, 1, large, 200)}, {testRun("a", "F", 6, 1, large, 200), testRun("b", "E", 5, 1, small, 200)}},
	} {
		t.Run(name, func(t *testing.T) {
			var all []Run
			for _, runs := range segments {
				all = append(all, runs...)
			}
			whole, ref := mustSegment(t, all...)
			want, err := readSegment(whole)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range []effort{thorough, quick, none} {
				made, err := mergeSources(testSources(t, e, segments...), 1, newFaults(quietLog()), func(string, int, *entry) bool { return true })
				if err != nil || len(made) != 1 {
					t.Fatalf("effort %d: %d segments: %v", e, len(made), err)
				}
				got, err := readSegment(made[0].body)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("effort %d: got %d runs, want %d: %v", e, len(got), len(want), err)
				}
				if r := made[0].ref; r.Messages != ref.Messages || r.Plain != ref.Plain || r.FirstMs != ref.FirstMs || r.LastMs != ref.LastMs {
					t.Errorf("effort %d: says %d messages, %d bytes, %d to %d, want %d, %d, %d to %d", e,
						r.Messages, r.Plain, r.FirstMs, r.LastMs, ref.Messages, ref.Plain, ref.FirstMs, ref.LastMs)
				}
			}
		})
	}
}

// Whoever publishes much, to few topics, is not to pay for it again.
func TestMergeTakesLargeTopicsBlocksAsTheyAre(t *testing.T) {
	sources := testSources(t, quick,
		[]Run{testRun("a", "E", 5, 1, 4000, 200), testRun("b", "E", 5, 1, 9, 200)}, []Run{testRun("a", "E", 5, 4001, 4000, 200), testRun("b", "E", 5, 10, 9, 200)})
	made, err := mergeSources(sources, 1, newFaults(quietLog()), func(string, int, *entry) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		for _, e := range s.index.runs("a") {
			bl := &s.index.blocks[e.block]
			if packed := s.body[bl.at : bl.at+int64(bl.packed)]; bl.plain >= ownBytes && !bytes.Contains(made[0].body, packed) {
				t.Errorf("block %d, of %d bytes, was made anew", e.block, bl.plain)
			}
			if s.block == e.block && bl.plain >= ownBytes {
				t.Errorf("block %d was unpacked", e.block)
			}
		}
	}
	x, err := parseIndex(made[0].body, made[0].ref.Size)
	if err != nil {
		t.Fatal(err)
	}
	if last := x.blocks[len(x.blocks)-1]; last.plain > 20*220 || last.coding != codingS2 {
		t.Errorf("the small topic's block is %d bytes of coding %d, want only its own, of coding %d", last.plain, last.coding, codingS2)
	}
}

func TestMergeLeavesOutABrokenBlock(t *testing.T) {
	sources := testSources(t, thorough, []Run{testRun("a", "E", 5, 1, 4000, 200)}, []Run{testRun("a", "E", 5, 4001, 4000, 200)})
	sources[0].body[sources[0].index.blocks[1].at]++
	found := newFaults(quietLog())
	made, err := mergeSources(sources, 1, found, func(string, int, *entry) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	broken := sources[0].index.runs("a")[1]
	if want := 8000 - uint64(broken.count); made[0].ref.Messages != want || found.count.Load() != 1 {
		t.Errorf("%d messages and %d faults, want %d and 1", made[0].ref.Messages, found.count.Load(), want)
	}
	if _, err := readSegment(made[0].body); err != nil {
		t.Error(err)
	}
}

// What a node packed in a hurry, when it ended, or for one second of a day, does not decide how all others' is packed.
func TestMergeIsPackedAsMostOfItWas(t *testing.T) {
	for want, sources := range map[byte][]*source{
		codingS2: append(testSources(t, thorough, []Run{testRun("a", "E", 5, 1, 20, 200)}),
			testSources(t, quick, []Run{testRun("a", "E", 5, 21, 30, 200)})...),
		codingZstd: append(testSources(t, thorough, []Run{testRun("a", "E", 5, 1, 30, 200)}),
			testSources(t, quick, []Run{testRun("a", "E", 5, 31, 20, 200)})...),
	} {
		made, err := mergeSources(sources, 1, newFaults(quietLog()), func(string, int, *entry) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		x, err := parseIndex(made[0].body, made[0].ref.Size)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.blocks[0].coding; got != want {
			t.Errorf("coding is %d, want %d", got, want)
		}
	}
	now := time.Now()
	for _, c := range []struct {
		bytes  int
		waited time.Duration
		behind bool
		want   effort
	}{
		{200, time.Microsecond, false, thorough}, {8 << 20, time.Second, false, quick}, {8 << 20, 10 * time.Second, false, thorough},
		{8 << 20, 10 * time.Second, true, quick}, {200, time.Hour, true, thorough},
	} {
		cargo := &cargo{bytes: c.bytes, batches: []*Batch{{offered: now.Add(-c.waited)}}}
		if got := cargo.effort(now, c.behind); got != c.want {
			t.Errorf("%d bytes in %v, behind %v: effort %d, want %d", c.bytes, c.waited, c.behind, got, c.want)
		}
	}
}
