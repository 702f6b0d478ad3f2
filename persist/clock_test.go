package persist

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A store that was written by nodes whose clocks were years ahead, years behind, and right.
func clockedStore(t *testing.T, now time.Time) Store {
	store := NewMemory()
	for i, clock := range []time.Time{now.AddDate(9, 0, 0), now.AddDate(-50, 0, 0), now.Add(-time.Hour)} {
		life := startLife(t, store, uint64(i+1))
		life.head.Name, life.head.WrittenMs = fmt.Sprint("node-", i), clock.UnixMilli()
		epoch := []string{"ahead", "behind", "right"}[i]
		for k := range []uint64{6, 10, 64}[i] {
			life.add(modelRun("a", epoch, clock.UnixMilli(), k*10+1, 10))
		}
		life.put()
	}
	return store
}

// holds wants a store to have so many messages of each epoch of topic a, in the order in which they are read.
func holds(t *testing.T, store Store, want string) {
	t.Helper()
	r := testReader(store, ReaderConfig{})
	start, err := r.Resolve(t.Context(), "a", Query{})
	if err != nil {
		t.Fatal(err)
	}
	var epochs []string
	for at := start.Position; at.Epoch != ""; {
		page, err := r.Read(t.Context(), "a", at, 1<<20)
		if err != nil || page.Hole > 0 {
			t.Fatal(page.Hole, err)
		}
		if at.Offset += uint64(page.Count); page.Count == 0 {
			epochs = append(epochs, fmt.Sprint(at.Epoch, " ", at.Offset))
			at = Position{Epoch: page.NextEpoch}
		}
	}
	if got := strings.Join(epochs, ", "); got != want {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

func TestWhatWrongClocksHaveStampedIsRead(t *testing.T) {
	now := time.Now()
	store := clockedStore(t, now)
	r := testReader(store, ReaderConfig{})
	holds(t, store, "ahead 60, behind 100, right 640")
	since := now.Add(-2 * time.Hour).UnixMilli()
	for _, c := range []struct {
		q    Query
		want Position
	}{
		{Query{From: FromEarliest}, Position{"ahead", 0}},
		{Query{From: FromSince, SinceMs: since}, Position{"right", 0}},
		{Query{From: FromLast, Last: 690}, Position{"behind", 50}},
		// As a node asks whose clock was ahead when its epoch began, and was put right.
		{Query{From: FromEarliest, Before: Position{"ahead", 60}}, Position{"behind", 0}},
		{Query{From: FromLast, Last: 250, Before: Position{"ahead", 60}}, Position{"right", 450}},
		{Query{From: FromPosition, At: Position{"right", 7}, Before: Position{"ahead", 60}}, Position{"right", 7}},
	} {
		if got, err := r.Resolve(t.Context(), "a", c.q); err != nil || got.Position != c.want {
			t.Errorf("%+v begins at %v, want %v (%v)", c.q, got.Position, c.want, err)
		}
	}
}

func TestNothingIsDeletedForAWrongClock(t *testing.T) {
	now := time.Now()
	store := clockedStore(t, now)
	u := testUpkeep(t, store, UpkeepConfig{Rules: []Retention{{Pattern: "*", Age: 7 * 24 * time.Hour}}})
	for day := range 6 {
		settle(t, u, now.Add(time.Duration(day)*24*time.Hour))
	}
	holds(t, store, "ahead 60, behind 100, right 640")
	// What has a time that may be right goes for its age, and it alone.
	settle(t, u, now.AddDate(0, 0, 9))
	holds(t, store, "ahead 60, behind 100")
}

func TestWhatAWrongClockHasStampedHasNoAge(t *testing.T) {
	const day = int64(24 * 3600 * 1000)
	now := time.Now()
	week := Retention{Pattern: "*", Age: 7 * 24 * time.Hour}
	at := func(days int64) int64 { return now.UnixMilli() + days*day }
	for _, c := range []struct {
		what    string
		began   int64
		times   []int64
		expired bool
	}{
		{"a month old", at(-30), []int64{at(-29), at(-28)}, true},
		{"a month old, and at its end of today", at(-30), []int64{at(-29), at(0)}, false},
		{"of today, and at its end of a clock that was set back a month", at(-40), []int64{at(0), at(-29)}, false},
		{"of 1970, in an epoch of a month ago", at(-30), []int64{1000, 2000}, false},
		{"of 1970, in an epoch of 1970", 1000, []int64{2000, 3000}, false},
		{"a month old, and at its end of 1970", at(-30), []int64{at(-29), 1000}, false},
		{"of 1970, and at its end a month old", 1000, []int64{1000, at(-29)}, false},
		{"a month old, and in between ahead", at(-30), []int64{at(-29), at(3000), at(-28)}, false},
		{"long before its epoch began", at(-30), []int64{at(-60), at(-59)}, false},
		{"before its epoch began by no more than clocks differ", at(-30), []int64{at(-30) - day/2}, true},
		{"before its epoch began, which is young", at(-7) + 1000, []int64{at(-7) - 1000}, false},
		{"a month old, in an epoch that begins in the future", at(3000), []int64{at(-29)}, true},
	} {
		e := entry{began: c.began, first: 1, count: uint32(len(c.times))}
		for i, ms := range c.times {
			e.times = append(e.times, Time{uint32(i), ms})
		}
		if got := week.expired(&e, now); got != c.expired {
			t.Errorf("a run that is %s has expired: %v", c.what, got)
		}
	}
}

// A limit in bytes takes what a clock that was ahead has stamped first, and not what came in since it was put right.
func TestALimitInBytesTakesWhatIsAheadFirst(t *testing.T) {
	now := time.Now()
	// Each has 16 runs, which become one segment, of 1020 bytes.
	ahead, before, after := now.AddDate(9, 0, 0), now.Add(-2*time.Hour), now.Add(-time.Hour)
	write := func(t *testing.T, store Store, number uint64, clocks ...time.Time) {
		life := startLife(t, store, number)
		for k := range uint64(16) {
			clock := clocks[int(k)*len(clocks)/16]
			r := testRun("a", map[time.Time]string{ahead: "ahead", before: "before", after: "after"}[clock], clock.UnixMilli(), k*10+1, 10, 100)
			r.Times = []Time{{0, clock.UnixMilli()}}
			life.add(r)
		}
		life.put()
	}
	for _, c := range []struct {
		name          string
		first, second []time.Time
		bytes         int64
		want          string
	}{
		{"alone", []time.Time{ahead}, []time.Time{after}, 10_000, "after 160"},
		{"merged with what is older than the rest", []time.Time{before, ahead}, []time.Time{after}, 10_000, "after 160"},
		{"merged, and all others have room", []time.Time{before, ahead}, []time.Time{after}, 20_000, "before 80, after 160"},
		{"and has room itself", []time.Time{before, ahead}, []time.Time{after}, 50_000, "ahead 160, before 80, after 160"},
		{"in the newest segment", []time.Time{before}, []time.Time{after, ahead}, 20_000, "before 160, after 80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := NewMemory()
			u := testUpkeep(t, store, UpkeepConfig{Rules: []Retention{{Pattern: "*", Bytes: c.bytes}}})
			write(t, store, 1, c.first...)
			settle(t, u, now)
			write(t, store, 2, c.second...)
			settle(t, u, now.Add(time.Minute))
			settle(t, u, now.Add(2*time.Hour))
			holds(t, store, c.want)
		})
	}
}

// An upkeep whose clock is years ahead takes nobody for dead whose head it has not watched.
func TestALifeIsWatchedBeforeItIsOver(t *testing.T) {
	store := NewMemory()
	now := time.Now()
	life := startLife(t, store, 1)
	life.fill(16, now.UnixMilli())
	life.head.WrittenMs = now.UnixMilli()
	life.put()
	u := testUpkeep(t, store, UpkeepConfig{})
	ahead := now.AddDate(9, 0, 0)
	for hour := range 12 { // the node goes on
		settle(t, u, ahead.Add(time.Duration(hour)*time.Hour))
		life.head.WrittenMs = now.Add(time.Duration(hour) * time.Hour).UnixMilli()
		life.put()
	}
	kept := func() []ManifestLife {
		e, err := testReader(store, ReaderConfig{}).catalogue.refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return e.manifest.Lives
	}
	if lives := kept(); len(lives) != 1 || lives[0].Over {
		t.Fatalf("a life that goes on is %+v", lives)
	}
	settle(t, u, ahead.Add(12*time.Hour))
	settle(t, u, ahead.Add(12*time.Hour+watchedFor))
	if lives := kept(); len(lives) != 0 {
		t.Errorf("a life that has ended is %+v", lives)
	}
}

func TestGarbageOfAClockThatWasAheadGoes(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	life.fill(16, 0)
	life.put()
	now := time.Now()
	settle(t, testUpkeep(t, store, UpkeepConfig{}), now.AddDate(9, 0, 0))
	u := testUpkeep(t, store, UpkeepConfig{})
	settle(t, u, now)
	if n := len(names(t, store, segmentsFolder)); n != 16 {
		t.Errorf("%d segments are left, of 16 that readers may be at", n)
	}
	settle(t, u, now.Add(11*time.Minute))
	if n := len(names(t, store, segmentsFolder)); n != 0 {
		t.Errorf("%d segments are left, which were replaced long ago", n)
	}
}

// An upkeep whose clock is years ahead, or was just set, has to have seen garbage itself for as long as readers may be at it; only a
// thorough one, which somebody runs by hand, goes by the clock.
func TestGarbageIsSeenForTheGraceBeforeItGoes(t *testing.T) {
	now := time.Now()
	ahead := now.AddDate(9, 0, 0)
	for _, c := range []struct {
		name             string
		doubts, thorough bool
		at               []time.Time // it looks
		left             int
	}{
		{"at once", false, false, []time.Time{ahead}, 16},
		{"a moment before the grace is over", false, false, []time.Time{ahead, ahead.Add(10*time.Minute - 1)}, 16},
		{"when the grace is over", false, false, []time.Time{ahead, ahead.Add(10 * time.Minute)}, 0},
		{"in doubt, at once", true, false, []time.Time{ahead}, 16},
		{"in doubt, when the grace is over", true, false, []time.Time{ahead, ahead.Add(10 * time.Minute)}, 0},
		{"with a clock that is behind", false, false, []time.Time{time.UnixMilli(5000), time.UnixMilli(5000).Add(9 * time.Minute)}, 16},
		{"thorough, and not for so long", false, true, []time.Time{now.Add(9 * time.Minute)}, 16},
		{"thorough", false, true, []time.Time{now.Add(10 * time.Minute)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := NewMemory()
			life := startLife(t, store, 1)
			life.fill(16, now.UnixMilli())
			life.put()
			settle(t, testUpkeep(t, store, UpkeepConfig{}), now)
			u := testUpkeep(t, store, UpkeepConfig{Thorough: c.thorough})
			u.doubts = c.doubts
			for _, at := range c.at {
				settle(t, u, at)
			}
			if n := len(names(t, store, segmentsFolder)); n != c.left {
				t.Errorf("%d segments are left of 16 that were replaced, want %d", n, c.left)
			}
		})
	}
}

// What a sealed life owned can be claimed for a week, of which a clock that was just set says neither the begin nor the end.
func TestASealedLifesWeekDoesNotGoByAClockInDoubt(t *testing.T) {
	store := NewMemory()
	now := time.Now()
	life := startLife(t, store, 1)
	life.fill(16, now.UnixMilli())
	life.head.Sealed = true
	life.put()
	if err := store.Create(t.Context(), sealedName(1), AppendSealed(nil, 1, 1, []Sealed{{"a", "E", now.UnixMilli(), 160}})); err != nil {
		t.Fatal(err)
	}
	u := testUpkeep(t, store, UpkeepConfig{})
	for _, c := range []struct {
		doubts bool
		at     time.Time
		kept   bool
	}{
		{true, time.UnixMilli(5000), true},
		{false, now, true}, // the week begins
		{true, now.AddDate(9, 0, 0), true},
		{true, now.AddDate(9, 0, 0).Add(time.Hour / 2), true},
		{false, now.AddDate(0, 0, 6), true},
		{false, now.AddDate(0, 0, 8), true}, // and is garbage
		{false, now.AddDate(0, 0, 8).Add(11 * time.Minute), false},
	} {
		u.doubts = c.doubts
		settle(t, u, c.at)
		settle(t, u, c.at.Add(time.Second))
		if kept := len(names(t, store, sealedFolder)) == 1; kept != c.kept {
			t.Fatalf("at %v, which is in doubt: %v, the sealed record is kept: %v", c.at, c.doubts, kept)
		}
	}
}

func TestALeaseOfTheFarFutureIsNotKeptTo(t *testing.T) {
	store := NewMemory()
	now := time.Now()
	ahead, right := testUpkeep(t, store, UpkeepConfig{}), testUpkeep(t, store, UpkeepConfig{})
	if mine, err := ahead.lease(t.Context(), now.AddDate(9, 0, 0)); err != nil || !mine {
		t.Fatal(mine, err)
	}
	if mine, err := right.lease(t.Context(), now); err != nil || !mine {
		t.Errorf("a lease until nine years from now is kept to: %v", err)
	}
	if mine, err := ahead.lease(t.Context(), now.Add(time.Second)); err != nil || mine {
		t.Errorf("a lease of the present is not kept to: %v", err)
	}
}

func TestAClockThatWasSetIsNotBelievedAtOnce(t *testing.T) {
	c := wallClock{}
	now := time.Now()
	for i, step := range []struct {
		ran      time.Duration
		offset   time.Duration // of what it says
		set      time.Duration
		believed bool
	}{
		{0, 0, 0, false},
		{believedAfter - 1, 0, 0, false},
		{believedAfter, 30 * time.Second, 0, true}, // it drifts
		{believedAfter + time.Minute, 50000 * time.Hour, 50000*time.Hour - 30*time.Second, false},
		{2 * believedAfter, 50000 * time.Hour, 0, false},
		{2*believedAfter + time.Minute, 50000 * time.Hour, 0, true},
		{3 * believedAfter, 0, -50000 * time.Hour, false},
	} {
		if set := c.look(step.ran, now.Add(step.ran+step.offset)); set != step.set || c.believed() != step.believed {
			t.Errorf("look %d: it was set by %v and is believed: %v", i, set, c.believed())
		}
	}
}

// What goes for its age goes an hour after the start, not at it.
func TestAnUpkeepThatStartsDeletesNothingForItsAge(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		life := startLife(t, store, 1)
		life.fill(16, clockLeastMs)
		life.put()
		time.Sleep(time.Until(time.UnixMilli(clockLeastMs).AddDate(0, 1, 0)))
		u, err := NewUpkeep(store, UpkeepConfig{Rules: []Retention{{Pattern: "*", Age: time.Hour}}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		go u.Run(t.Context())
		for _, c := range []struct {
			after time.Duration
			want  string
		}{{50 * time.Minute, "E 160"}, {25 * time.Minute, ""}} {
			time.Sleep(c.after)
			synctest.Wait()
			holds(t, store, c.want)
		}
	})
}
