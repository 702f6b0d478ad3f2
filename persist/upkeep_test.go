package persist

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testUpkeep is an upkeep whose reader asks as often as it likes.
func testUpkeep(t testing.TB, store Store, cfg UpkeepConfig) *Upkeep {
	t.Helper()
	cfg.Log = quietLog()
	u, err := NewUpkeep(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// settle steps until there is nothing to do.
func settle(t testing.TB, u *Upkeep, now time.Time) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = u.Step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
}

func names(t testing.TB, store Store, prefix string) (all []string) {
	t.Helper()
	objects, err := store.List(t.Context(), prefix, "", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		all = append(all, o.Name)
	}
	return all
}

// trim is what a node does to its head when a manifest says that segments were replaced.
func (l *testLife) trim(through uint64) {
	l.head.Segments = slices.DeleteFunc(l.head.Segments, func(s HeadSegment) bool { return s.Seq <= through })
}

func TestUpkeepChangesNothingThatIsRead(t *testing.T) {
	seeds := 20
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 11))
			memory := NewMemory()
			m, backlog, _ := randomWorld(t, rng, memory)
			store := &flakyStore{Store: memory, rng: rng}
			sizes := []int64{0, 1 << 20, 200 << 10}
			two := []*Upkeep{}
			for range 2 {
				two = append(two, testUpkeep(t, store, UpkeepConfig{MergeBytes: sizes[rng.IntN(3)], Grace: time.Minute}))
			}
			now := time.UnixMilli(50 * modelEpochMs)
			for range 60 {
				now = now.Add(time.Duration(rng.IntN(40)) * time.Second)
				if rng.IntN(8) == 0 { // one that starts anew
					two[rng.IntN(2)] = testUpkeep(t, store, UpkeepConfig{MergeBytes: sizes[rng.IntN(3)], Grace: time.Minute})
				}
				if _, err := two[rng.IntN(2)].Step(t.Context(), now); err != nil && !errors.Is(err, errFlaky) {
					t.Fatal(err)
				}
			}
			store.off = true
			r := testReader(memory, ReaderConfig{Backlog: backlog, CacheBytes: 4 << 20})
			checkAgainstModel(t, rng, r, m)
			settle(t, two[0], now.Add(time.Hour))
			settle(t, two[0], now.Add(2*time.Hour))
			if _, err := two[0].Lost(t.Context(), true, func(Object, string) error { return nil }); err != nil {
				t.Fatal(err)
			}
			checkAgainstModel(t, rng, testReader(memory, ReaderConfig{Backlog: backlog}), m)
			n, err := two[0].Lost(t.Context(), false, func(o Object, why string) error {
				if !strings.Contains(why, "stays") {
					t.Errorf("%s is lost still: %s", o.Name, why)
				}
				return nil
			})
			if err != nil {
				t.Fatal(n, err)
			}
		})
	}
}

// flakyStore fails now and then, before or after it has done what it was asked, or does it twice.
type flakyStore struct {
	Store
	mu  sync.Mutex // heads are asked for several at once
	rng *rand.Rand
	off bool
}

var errFlaky = errors.New("the connection was reset")

func (f *flakyStore) try(do func() error) error {
	if f.off {
		return do()
	}
	f.mu.Lock()
	what := f.rng.IntN(30)
	f.mu.Unlock()
	switch what {
	case 0:
		return errFlaky
	case 1:
		if err := do(); err != nil {
			return err
		}
		return errFlaky
	case 2: // a client that tries again by itself
		do()
	}
	return do()
}

func (f *flakyStore) Get(ctx context.Context, name string, offset, length int64) (b []byte, err error) {
	err = f.try(func() error { b, err = f.Store.Get(ctx, name, offset, length); return err })
	return b, err
}

func (f *flakyStore) Put(ctx context.Context, name string, body []byte) error {
	return f.try(func() error { return f.Store.Put(ctx, name, body) })
}

func (f *flakyStore) Create(ctx context.Context, name string, body []byte) error {
	return f.try(func() error { return f.Store.Create(ctx, name, body) })
}

func (f *flakyStore) Delete(ctx context.Context, name string) error {
	return f.try(func() error { return f.Store.Delete(ctx, name) })
}

func TestTwoUpkeepsAtOnceMakeOneManifest(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	now := time.UnixMilli(clockLeastMs).Add(24 * time.Hour)
	for i := range uint64(20) {
		life.add(modelRun("a", "E", 0, i*10+1, 10), modelRun("old", "E", clockLeastMs, i*10+1, 10))
	}
	life.put()
	cfg := UpkeepConfig{Rules: []Retention{{Pattern: "old", Age: time.Hour}}}
	second := testUpkeep(t, store, cfg)
	between := &hookStore{Store: store}
	first := testUpkeep(t, between, cfg)
	between.create = func(name string) {
		if strings.HasPrefix(name, manifestsFolder) {
			between.create = nil
			if _, err := second.Step(t.Context(), now); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := first.Step(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	compacted := names(t, store, compactFolder)
	if len(compacted) != 1 || !strings.Contains(compacted[0], fmt.Sprintf("%016x", second.maker)) {
		t.Fatalf("the second one's manifest was first, and there is %v", compacted)
	}
	if got := names(t, store, manifestsFolder); len(got) != 2 {
		t.Fatalf("manifests: %v", got)
	}
	// What came second was discarded, and does not count.
	if done := first.Done(); done != (UpkeepDone{}) || first.counts.mergedBytes.Load() != 0 || first.counts.madeBytes.Load() != 0 {
		t.Errorf("the first one has done %+v", done)
	}
	if done := second.Done(); done != (UpkeepDone{Merged: 20, Made: 1, Expired: 200}) || second.counts.mergedBytes.Load() == 0 || second.counts.madeBytes.Load() == 0 {
		t.Errorf("the second one has done %+v", done)
	}
	r := testReader(store, ReaderConfig{})
	if lines := replay(t, r, "a", Position{Epoch: "E"}, 1000); len(lines) != 200 {
		t.Fatalf("%d messages are left of 200", len(lines))
	}
}

func TestAnAnswerThatWasLostIsNoOtherUpkeep(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	life.fill(16, 0)
	life.put()
	u := testUpkeep(t, repeating{store}, UpkeepConfig{Grace: time.Second})
	settle(t, u, time.UnixMilli(1000))
	settle(t, u, time.UnixMilli(3000))
	if lines := replay(t, testReader(store, ReaderConfig{}), "a", Position{Epoch: "E"}, 1000); len(lines) != 160 {
		t.Fatalf("%d messages are left of 160", len(lines))
	}
}

// repeating is a store whose client makes every Create twice, and hears of the second one.
type repeating struct{ Store }

func (r repeating) Create(ctx context.Context, name string, body []byte) error {
	if err := r.Store.Create(ctx, name, body); err != nil {
		return err
	}
	return r.Store.Create(ctx, name, body)
}

// hookStore calls create before every Create.
type hookStore struct {
	Store
	create func(name string)
}

func (h *hookStore) Create(ctx context.Context, name string, body []byte) error {
	if h.create != nil {
		h.create(name)
	}
	return h.Store.Create(ctx, name, body)
}

func TestReplacedSegmentsGoAfterTheGrace(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	life.fill(16, 0)
	life.put()
	r := testReader(store, ReaderConfig{})
	r.catalogue.every = time.Hour // it stays with what it knows
	if _, err := r.Resolve(t.Context(), "a", Query{}); err != nil {
		t.Fatal(err)
	}
	now := time.UnixMilli(1_000_000)
	u := testUpkeep(t, store, UpkeepConfig{Grace: time.Minute})
	settle(t, u, now)
	settle(t, u, now.Add(59*time.Second))
	if n := len(names(t, store, segmentsFolder)); n != 16 {
		t.Fatalf("within the grace %d of 16 segments are there", n)
	}
	page, err := r.Read(t.Context(), "a", Position{Epoch: "E"}, 1<<20)
	if err != nil || page.Count != 160 {
		t.Fatalf("a reader of before finds %d messages: %v", page.Count, err)
	}
	settle(t, u, now.Add(time.Minute))
	if n := names(t, store, segmentsFolder); len(n) != 0 {
		t.Fatalf("after the grace there are %v", n)
	}
}

func TestReaderAsksAgainForWhatWasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := NewMemory()
		life := startLife(t, store, 1)
		for i := range uint64(16) {
			life.add(modelRun("a", "E", 0, i*10+1, 10), modelRun("b", "E", 0, i*10+1, 10))
		}
		life.put()
		r := NewReader(store, ReaderConfig{Log: quietLog(), CacheBytes: 1})
		if _, err := r.Resolve(t.Context(), "a", Query{}); err != nil {
			t.Fatal(err)
		}
		u := testUpkeep(t, store, UpkeepConfig{Grace: time.Second})
		settle(t, u, time.UnixMilli(1_000_000))
		settle(t, u, time.UnixMilli(1_002_000))
		if n := names(t, store, segmentsFolder); len(n) != 0 {
			t.Fatalf("there are %v", n)
		}
		time.Sleep(time.Millisecond)
		for _, topic := range []string{"b", "a"} {
			if page, err := r.Read(t.Context(), topic, Position{Epoch: "E"}, 1<<20); err != nil || page.Count != 160 {
				t.Fatalf("of topic %s it finds %d messages: %v", topic, page.Count, err)
			}
		}
		if r.Faults() != 0 {
			t.Error("it took what was replaced for broken")
		}
	})
}

func TestRetentionByPatternAgeAndBytes(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	// Message i of each topic is of second i of 2025, and has 102 bytes.
	second := func(i uint64) time.Time { return time.UnixMilli(clockLeastMs).Add(time.Duration(i) * time.Second) }
	run := func(topic string, first uint64, count uint32) Run {
		r := testRun(topic, "E", 0, first, count, 100)
		for i := range r.Times {
			r.Times[i].UnixMs = second(first + uint64(i)).UnixMilli()
		}
		return r
	}
	for i := range uint64(64) {
		life.add(run("keep", i*10+1, 10), run("old.a", i*10+1, 10), run("old.keep", i*10+1, 10), run("small", i*10+1, 10))
	}
	life.put()
	u := testUpkeep(t, store, UpkeepConfig{MergeBytes: 40_000, Rules: []Retention{
		{Pattern: "old.keep"}, {Pattern: "old.*", Age: 100 * time.Second}, {Pattern: "small", Bytes: 10_000},
	}})
	count := func(topic string) int {
		r := testReader(store, ReaderConfig{})
		start, err := r.Resolve(t.Context(), topic, Query{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for at := start.Position; at.Epoch != ""; {
			page, err := r.Read(t.Context(), topic, at, 1<<20)
			if err != nil || page.Hole > 0 {
				t.Fatal(page.Hole, err)
			}
			at.Offset += uint64(page.Count)
			n += int(page.Count)
			if page.Count == 0 {
				break
			}
		}
		return n
	}
	settle(t, u, second(640))
	for topic, bounds := range map[string][2]int{"keep": {640, 640}, "old.keep": {640, 640}, "old.a": {100, 400}, "small": {98, 400}} {
		if n := count(topic); n < bounds[0] || n > bounds[1] {
			t.Errorf("of topic %s %d messages are left, want %d to %d", topic, n, bounds[0], bounds[1])
		}
	}
	settle(t, u, second(640+7200))
	if n := count("old.a"); n > 300 {
		t.Errorf("two hours later %d of 100 s are left", n)
	}
	if _, err := NewUpkeep(store, UpkeepConfig{Rules: []Retention{{Pattern: "["}}}); err == nil {
		t.Error("a pattern that is none was taken")
	}
}

func TestWhatIsAllPastItsRetentionGoesUnread(t *testing.T) {
	store := counting(NewMemory())
	life := startLife(t, store, 1)
	life.fill(16, clockLeastMs)
	life.put()
	u := testUpkeep(t, store, UpkeepConfig{Grace: time.Second, Rules: []Retention{{Pattern: "*", Age: time.Hour}}})
	now := time.UnixMilli(clockLeastMs + 2000)
	settle(t, u, now)
	if n := len(names(t, store, compactFolder)); n != 1 {
		t.Fatalf("%d compacted segments", n)
	}
	before := store.bytes
	settle(t, u, now.Add(2*time.Hour))
	settle(t, u, now.Add(3*time.Hour))
	if n := names(t, store, compactFolder); len(n) != 0 {
		t.Fatalf("there is %v", n)
	}
	if read := store.bytes - before; read > 10_000 {
		t.Errorf("%d bytes were read", read)
	}
}

// A thorough one makes anew whatever has anything past its retention, and stops.
func TestAThoroughUpkeepLeavesNothingPastItsRetention(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	hour := func(i uint64) int64 { return clockLeastMs + int64(i)*time.Hour.Milliseconds() }
	for i := range uint64(37) { // 32 of them are merged
		life.add(modelRun("aged", fmt.Sprint("E", i), hour(i), 1, 2), modelRun("large", "E", hour(0), i*10+1, 10), modelRun("kept", "E", 0, i*10+1, 10))
	}
	life.put()
	now := time.UnixMilli(hour(36)).Add(time.Minute)
	settle(t, testUpkeep(t, store, UpkeepConfig{}), now)
	more := startLife(t, store, 2)
	more.add(modelRun("aged", "E37", hour(1), 1, 2))
	more.put()
	u := testUpkeep(t, store, UpkeepConfig{Thorough: true, Rules: []Retention{{Pattern: "aged", Age: 5 * time.Hour}, {Pattern: "large", Bytes: 10_000}, {Pattern: "*"}}})
	expired, err := u.Expired(t.Context(), now)
	if err != nil || len(expired) != 2 || expired[0].Topic != "aged" || expired[0].Messages != 2*33 || expired[1].Topic != "large" {
		t.Errorf("past their retention are %+v (%v)", expired, err)
	}
	settle(t, u, now)
	if rest, err := u.Expired(t.Context(), now); err != nil || len(rest) > 0 {
		t.Errorf("past their retention are still %+v (%v)", rest, err)
	}
	if n := u.Done().Expired; uint64(n) != expired[0].Messages+expired[1].Messages {
		t.Errorf("%d messages were left out, want those of %+v", n, expired)
	}
	if lines := replay(t, testReader(store, ReaderConfig{}), "kept", Position{Epoch: "E"}, 1<<20); len(lines) != 370 {
		t.Errorf("%d messages are left of 370 that are kept", len(lines))
	}
}

func TestUpkeepLeavesAloneWhatItCannotRead(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	var later string
	for i := range uint64(16) {
		name, body := life.add(modelRun("a", "E", 0, i*10+1, 10))
		if i == 7 {
			later = name
			body[headerBytes-1]++
			body[len(body)-footerBytes+headerBytes-1]++
			store.Put(t.Context(), name, body)
		}
	}
	life.head.Sealed, life.head.WrittenMs = true, 1
	life.put()
	now := time.UnixMilli(5000)
	u := testUpkeep(t, store, UpkeepConfig{Grace: time.Second})
	settle(t, u, now)
	settle(t, u, now.Add(time.Minute))
	said := ""
	if _, err := u.Lost(t.Context(), true, func(o Object, why string) error { said += o.Name + ": " + why; return nil }); err != nil {
		t.Fatal(err)
	}
	if got := names(t, store, segmentsFolder); !slices.Equal(got, []string{later}) {
		t.Errorf("segments: %v, want the one of a later version", got)
	}
	if want := later + ": it was replaced, but stays: segment has version 2, this program reads 1"; said != want {
		t.Errorf("said %q, want %q", said, want)
	}
	newest := names(t, store, manifestsFolder)
	name := newest[len(newest)-2] // before latest
	b, _ := store.Get(t.Context(), name, 0, -1)
	b[len(b)-1] ^= 1
	store.Put(t.Context(), name, b)
	u = testUpkeep(t, store, UpkeepConfig{})
	if _, err := u.Step(t.Context(), now); err == nil || !strings.Contains(err.Error(), name+" cannot be used") {
		t.Errorf("with a broken manifest: %v", err)
	}
	if _, err := u.Lost(t.Context(), true, nil); err == nil {
		t.Error("with a broken manifest things were deleted")
	}
}

func TestLivesEnd(t *testing.T) {
	ctx := t.Context()
	store := NewMemory()
	hour := time.Hour.Milliseconds()
	write := func(life uint64, name string, writtenMs int64, sealed bool) {
		l := startLife(t, store, life)
		l.add(modelRun("a", fmt.Sprint("E", life), int64(life)*modelEpochMs, 1, 5))
		l.head.Name, l.head.WrittenMs, l.head.Sealed = name, writtenMs, sealed
		l.put()
	}
	write(1, "n-0", 1, false)          // crashed, and came back as 3
	write(2, "n-1", 2*hour, true)      // sealed
	write(3, "n-0", 30*hour, false)    // lives
	write(4, "n-2", 1, false)          // silent, and nobody came back
	write(5, "n-3", 20*24*hour, false) // keeps on living
	store.Put(ctx, sealedName(2), AppendSealed(nil, 2, 2, nil))
	store.Put(ctx, claimName(2, 1), AppendClaim(nil, 2, 1, Claim{3, 0, 1}))
	u := testUpkeep(t, store, UpkeepConfig{Grace: time.Second, MergeBytes: 600}) // two segments are a batch
	lives := func(atHour int64) (kept []uint64) {
		settle(t, u, time.UnixMilli(atHour*hour))
		settle(t, u, time.UnixMilli(atHour*hour+2000))
		e, err := testReader(store, ReaderConfig{}).catalogue.refresh(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e.next != 6 {
			t.Errorf("the next life is %d, want 6", e.next)
		}
		for _, l := range e.manifest.Lives {
			kept = append(kept, l.Life)
		}
		return kept
	}
	if got := lives(22); !slices.Equal(got, []uint64{1, 2, 3, 4, 5}) {
		t.Errorf("after 22 hours there are lives %v", got)
	}
	if got := lives(25); !slices.Equal(got, []uint64{2, 3, 4, 5}) {
		t.Errorf("after 25 hours there are lives %v", got)
	}
	if got := names(t, store, headsFolder); len(got) != 4 || len(names(t, store, claimsFolder)) != 1 {
		t.Errorf("heads: %v", got)
	}
	if got := lives(8 * 24); !slices.Equal(got, []uint64{3, 5}) {
		t.Errorf("after 8 days there are lives %v", got)
	}
	if got := append(names(t, store, sealedFolder), names(t, store, claimsFolder)...); len(got) != 0 {
		t.Errorf("there is %v", got)
	}
	if lines := replay(t, testReader(store, ReaderConfig{}), "a", Position{Epoch: "E1"}, 1000); len(lines) != 5*5+4 {
		t.Errorf("of five lives with five messages %d lines are left: %v", len(lines), lines)
	}
}

func TestUpkeepsTakeTurnsByALease(t *testing.T) {
	store := NewMemory()
	a, b := testUpkeep(t, store, UpkeepConfig{}), testUpkeep(t, store, UpkeepConfig{})
	now := time.UnixMilli(1_000_000)
	for i, step := range []struct {
		u     *Upkeep
		after time.Duration
		mine  bool
	}{{a, 0, true}, {b, 0, false}, {a, leaseFor/2 + 1, true}, {b, leaseFor + 1, false}, {b, leaseFor + leaseFor/2 + 2, true}, {a, leaseFor + leaseFor/2 + 3, false}} {
		mine, err := step.u.lease(t.Context(), now.Add(step.after))
		if err != nil || mine != step.mine {
			t.Fatalf("step %d: %v, want %v: %v", i, mine, step.mine, err)
		}
	}
	if got := names(t, store, leasesFolder); len(got) != 1 {
		t.Errorf("leases: %v", got)
	}
	store.Put(t.Context(), leaseName(9), []byte("what is this"))
	if mine, err := a.lease(t.Context(), now.Add(time.Hour)); err != nil || !mine {
		t.Errorf("a lease that cannot be read is kept to: %v", err)
	}
}
