package persist

import (
	"testing"
	"time"
)

// What the backlog has of a topic answers for the store only if it reaches back beyond the time that is asked for: an epoch that all
// is there of may not be the first one.
func TestAStartAtATimeIsTheSameWithTheEndInTheBacklog(t *testing.T) {
	now := time.Now().UnixMilli()
	earlier, present := modelRun("a", "E1", now-60_000, 1, 20), modelRun("a", "E2", now-5_000, 1, 20)
	before := Position{"E2", 10}
	for _, c := range []struct {
		name  string
		since int64
		want  Start
		asked bool // the store
	}{
		{"before all there is", now - 3600_000, Start{Position: Position{"E1", 0}, Whole: true}, true},
		{"within the epoch before", earlier.Times[7].UnixMs, Start{Position: Position{"E1", 7}, Whole: true}, true},
		{"between the epochs", now - 10_000, Start{Position: Position{"E2", 0}, Whole: true}, true},
		{"at the epoch's first", present.Times[0].UnixMs, Start{Position: Position{"E2", 0}, Whole: true}, true},
		{"within the epoch", present.Times[4].UnixMs, Start{Position: Position{"E2", 4}, Whole: true}, false},
		{"where the caller begins", present.Times[10].UnixMs, Start{Position: before, Whole: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := counting(NewMemory())
			life := startLife(t, store, 1)
			life.add(earlier)
			life.put()
			q := Query{From: FromSince, SinceMs: c.since, Before: before}
			start, err := testReader(store, ReaderConfig{Backlog: testBacklog{present}}).Resolve(t.Context(), "a", q)
			if err != nil || start != c.want {
				t.Errorf("with the epoch in the backlog: %+v, want %+v (%v)", start, c.want, err)
			}
			if asked := store.count("") > 0; asked != c.asked {
				t.Errorf("the store was asked: %v, want %v", asked, c.asked)
			}
			life.add(present)
			life.put()
			if start, err = testReader(store, ReaderConfig{}).Resolve(t.Context(), "a", q); err != nil || start != c.want {
				t.Errorf("with all of it stored: %+v, want %+v (%v)", start, c.want, err)
			}
		})
	}
}
