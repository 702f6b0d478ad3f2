package persist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// weather is a store on a bad day: requests take a while, fail, hang, or have an effect and no answer. After a number of them
// the process that makes them is dead: nothing it does has an effect any more.
type weather struct {
	Store
	mu   sync.Mutex
	rng  *rand.Rand
	fail int // of 100 requests, and so many more that hang, and that lose their answer
	away bool
	left int // requests until the crash; negative: none comes
	made map[string]int
}

var errWeather = errors.New("the weather is bad")

func newWeather(store Store, seed uint64, fail int) *weather {
	return &weather{Store: store, rng: rand.New(rand.NewPCG(seed, 1)), fail: fail, left: -1, made: map[string]int{}}
}

func (w *weather) try(ctx context.Context, kind string, do func() error) error {
	w.mu.Lock()
	if w.left > 0 {
		w.left--
	}
	dead, away := w.left == 0, w.away
	fate, delay := w.rng.IntN(100), time.Duration(w.rng.IntN(50))*time.Millisecond
	w.made[kind]++
	w.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case dead, away, fate < w.fail:
		return errWeather
	case fate < 2*w.fail:
		<-ctx.Done()
		return ctx.Err()
	case fate < 3*w.fail:
		_ = do() // whether it went well is not told
		return errWeather
	}
	return do()
}

func (w *weather) set(f func(*weather)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// requests is how many there were of some kinds.
func (w *weather) requests(kinds ...string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range kinds {
		n += w.made[kind]
	}
	return n
}

func (w *weather) Get(ctx context.Context, name string, offset, length int64) (b []byte, err error) {
	err = w.try(ctx, "get", func() error { b, err = w.Store.Get(ctx, name, offset, length); return err })
	return b, err
}

func (w *weather) Put(ctx context.Context, name string, body []byte) error {
	return w.try(ctx, "put", func() error { return w.Store.Put(ctx, name, body) })
}

func (w *weather) Create(ctx context.Context, name string, body []byte) error {
	return w.try(ctx, "create", func() error { return w.Store.Create(ctx, name, body) })
}

func (w *weather) List(ctx context.Context, prefix, after string, max int) (all []Object, err error) {
	err = w.try(ctx, "list", func() error { all, err = w.Store.List(ctx, prefix, after, max); return err })
	return all, err
}

// node is an archive with someone who publishes into it.
type node struct {
	t       testing.TB
	archive *Archive
	rng     *rand.Rand
	epoch   string
	began   int64
	heads   map[string]uint64 // by topic: the last offset

	mu       sync.Mutex
	offered  int
	handed   int
	stored   map[string]map[uint64]bool // by topic
	givenUp  map[string]map[uint64]bool
	failures []error
}

func startNode(t testing.TB, store Store, seed uint64, cfg Config) *node {
	t.Helper()
	n := &node{
		t: t, rng: rand.New(rand.NewPCG(seed, 2)), epoch: fmt.Sprint("e", seed), began: int64(seed+1) * modelEpochMs,
		heads: map[string]uint64{}, stored: map[string]map[uint64]bool{}, givenUp: map[string]map[uint64]bool{},
	}
	cfg.Name, cfg.Log, cfg.Done = "node", quietLog(), n.done
	a, err := Open(cfg, store)
	if err != nil {
		t.Fatal(err)
	}
	n.archive = a
	t.Cleanup(a.stop) // of a test that fails
	return n
}

func (n *node) done(b *Batch, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handed++
	into := n.stored
	if err != nil {
		into = n.givenUp
		n.failures = append(n.failures, err)
	}
	for _, r := range b.Runs {
		if into[r.Topic] == nil {
			into[r.Topic] = map[uint64]bool{}
		}
		for offset := r.First; offset <= r.Last(); offset++ {
			if into[r.Topic][offset] {
				n.t.Errorf("topic %s: message %d was handed back twice", r.Topic, offset)
			}
			into[r.Topic][offset] = true
		}
	}
	for i := range b.Bytes {
		b.Bytes[i] = 0xee // whoever still reads it has kept what is not his
	}
}

// publish offers a batch of a few topics.
func (n *node) publish() {
	n.offer(n.rng.IntN(4)+1, n.rng.IntN(5)+1)
}

func (n *node) offer(topics, messages int) {
	b := &Batch{}
	for range topics {
		topic := fmt.Sprint("topic-", n.rng.IntN(6))
		if slices.ContainsFunc(b.Runs, func(r Run) bool { return r.Topic == topic }) {
			continue
		}
		b.Runs = append(b.Runs, modelRun(topic, n.epoch, n.began, n.heads[topic]+1, uint32(messages)))
		n.heads[topic] += uint64(messages)
	}
	for i := range b.Runs {
		b.Bytes = append(b.Bytes, b.Runs[i].Frames...)
	}
	at := 0
	for i := range b.Runs {
		r := &b.Runs[i]
		r.Frames = b.Bytes[at : at+len(r.Frames) : at+len(r.Frames)]
		at += len(r.Frames)
	}
	n.mu.Lock()
	n.offered++
	n.mu.Unlock()
	n.archive.Offer(b)
}

// check reads everything back, and holds it against what was reported.
func (n *node) check(r *Reader) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for topic := range n.heads {
		there := map[uint64]bool{}
		last := uint64(0)
		for _, line := range replay(n.t, r, topic, Position{Epoch: n.epoch}, 1<<20) {
			var offset uint64
			if _, err := fmt.Sscanf(line, n.epoch+":%d", &offset); err != nil {
				continue // a hole
			}
			if offset <= last {
				n.t.Errorf("topic %s: %d comes after %d", topic, offset, last)
			}
			there[offset], last = true, offset
		}
		for _, offset := range slices.Sorted(maps.Keys(n.stored[topic])) {
			if !there[offset] {
				n.t.Errorf("topic %s: message %d was reported as stored, and is not there", topic, offset)
			}
		}
	}
}

// checkAll is check, and that whatever was offered is there.
func (n *node) checkAll(r *Reader) {
	n.t.Helper()
	for topic, head := range n.heads {
		var want []string
		for offset := range head {
			want = append(want, fmt.Sprintf("%s:%d", n.epoch, offset+1))
		}
		if got := replay(n.t, r, topic, Position{Epoch: n.epoch}, 100_000); !slices.Equal(got, want) {
			n.t.Errorf("topic %s: read %.200v, want 1 to %d", topic, got, head)
		}
	}
}

func (n *node) close(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	err := n.archive.Close(ctx)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.handed != n.offered {
		n.t.Errorf("%d batches were offered, and %d handed back", n.offered, n.handed)
	}
	return err
}

// simulate runs f in a bubble with a clock of its own.
func simulate(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	// The coders are the process's, and must not begin in a bubble.
	packed, coding := appendPacked(nil, make([]byte, 1000), thorough)
	if _, err := unpack(packed, coding, 1000); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f(t)
		time.Sleep(2 * fetchTimeout) // what was asked for, by somebody who has left, comes to its end
	})
}

func TestArchiveStoresWhatIsOffered(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		w := newWeather(store, 1, 0)
		n := startNode(t, w, 1, Config{})
		for range 100 {
			n.publish()
			time.Sleep(100 * time.Millisecond)
		}
		made := w.requests("put", "create")
		for range 20 {
			n.publish()
			n.checkAll(n.archive.reader) // wherever it is by now
		}
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
		n.checkAll(testReader(store, ReaderConfig{}))
		if made > 1+2*10 {
			t.Errorf("10 s took %d writes, want two a second", made)
		}
	})
}

func TestAnIdleArchiveWritesAHeadAnHour(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := newWeather(NewMemory(), 1, 0)
		n := startNode(t, w, 1, Config{})
		time.Sleep(10*time.Hour + time.Minute)
		if created, put := w.requests("create"), w.requests("put"); created != 1 || put != 10 {
			t.Errorf("10 h took %d creates and %d puts, want the first head and one an hour", created, put)
		}
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
	})
}

func TestArchiveInBadWeather(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				store := NewMemory()
				w := newWeather(store, seed, 10)
				n := startNode(t, w, seed, Config{SegmentBytes: 100_000, BacklogBytes: 1 << 30})
				for range 100 {
					n.publish()
					time.Sleep(time.Duration(n.rng.IntN(300)) * time.Millisecond)
					if n.rng.IntN(30) == 0 {
						if err := n.archive.Flush(t.Context()); err != nil {
							t.Error(err)
						}
						n.checkAll(testReader(store, ReaderConfig{}))
					}
				}
				if err := n.close(time.Hour); err != nil {
					t.Error(err)
				}
				if len(n.failures) > 0 {
					t.Errorf("%d batches were not stored: %v", len(n.failures), n.failures[0])
				}
				n.checkAll(testReader(store, ReaderConfig{}))
			})
		})
	}
}

func TestWhatWasReportedOutlivesACrashAnywhere(t *testing.T) {
	for crash := 1; crash <= 60; crash++ {
		t.Run(fmt.Sprint("at request ", crash), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				store := NewMemory()
				w := newWeather(store, uint64(crash), 5)
				w.left = crash
				n := startNode(t, w, 1, Config{SegmentBytes: 200_000, BacklogBytes: 1 << 30})
				for range 60 {
					n.publish()
					time.Sleep(time.Duration(n.rng.IntN(300)) * time.Millisecond)
				}
				_ = n.close(time.Nanosecond) // it is dead
				next := startNode(t, store, 2, Config{})
				if err := next.archive.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				n.check(next.archive.reader)
				for range 20 {
					next.publish()
				}
				if err := next.close(time.Hour); err != nil {
					t.Error(err)
				}
				n.check(testReader(store, ReaderConfig{}))
				next.checkAll(testReader(store, ReaderConfig{}))
			})
		})
	}
}

func TestAStoreThatIsAwayLosesNothingForALongTime(t *testing.T) {
	for _, away := range []time.Duration{2 * time.Minute, 3 * time.Hour, 20 * time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				store := NewMemory()
				w := newWeather(store, 1, 0)
				n := startNode(t, w, 1, Config{SegmentBytes: 1 << 20})
				offer := func(d time.Duration) {
					for range 20 {
						n.publish()
						time.Sleep(d / 20)
					}
				}
				offer(3 * time.Second)
				w.set(func(w *weather) { w.away = true })
				offer(away)
				w.set(func(w *weather) { w.away = false })
				offer(3 * time.Second)
				n.checkAll(n.archive.reader)
				if err := n.close(time.Minute); err != nil {
					t.Error(err)
				}
				if len(n.failures) > 0 {
					t.Errorf("%d batches were not stored: %v", len(n.failures), n.failures[0])
				}
				n.checkAll(testReader(store, ReaderConfig{}))
				want := uint64(1)
				if away > headEvery { // one was tried meanwhile
					want = 2
				}
				if got := n.archive.Life(); got != want {
					t.Errorf("it is life %d, want %d", got, want)
				}
			})
		})
	}
}

func TestAFullBacklogGivesTheOldestUp(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		w := newWeather(store, 1, 0)
		n := startNode(t, w, 1, Config{SegmentBytes: 500_000, BacklogBytes: 2_000_000})
		for range 5 {
			n.publish()
		}
		if err := n.archive.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.set(func(w *weather) { w.away = true })
		for range 200 {
			n.publish()
			time.Sleep(50 * time.Millisecond)
			n.archive.mu.Lock()
			bytes := n.archive.backlog.bytes
			n.archive.mu.Unlock()
			if bytes > 2_000_000 {
				t.Fatalf("the backlog is %d bytes, limit 2000000", bytes)
			}
		}
		w.set(func(w *weather) { w.away = false })
		if err := n.archive.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if len(n.failures) == 0 || !errors.Is(n.failures[0], ErrGivenUp) {
			t.Fatalf("failures are %v", n.failures)
		}
		r := testReader(store, ReaderConfig{})
		n.check(r)
		var givenUp, said uint64
		for topic, offsets := range n.givenUp {
			givenUp += uint64(len(offsets))
			lines := replay(t, r, topic, Position{Epoch: n.epoch}, 1<<20)
			if !strings.HasSuffix(lines[len(lines)-1], fmt.Sprint(":", n.heads[topic])) {
				t.Errorf("topic %s ends with %s, want the newest, %d", topic, lines[len(lines)-1], n.heads[topic])
			}
			for offset := range offsets {
				if n.stored[topic][offset] {
					t.Errorf("topic %s: message %d was reported both ways", topic, offset)
				}
			}
		}
		body, err := store.Get(t.Context(), headName(1), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHead(body, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, hole := range h.Holes {
			said += hole.Last - hole.First + 1
			for offset := hole.First; offset <= hole.Last; offset++ {
				if !n.givenUp[hole.Topic][offset] {
					t.Errorf("topic %s: message %d is said to be a hole", hole.Topic, offset)
				}
			}
		}
		if counted := n.archive.counts.givenUp.Load(); counted != givenUp || said != givenUp {
			t.Errorf("%d messages were given up, %d counted, %d in the head", givenUp, counted, said)
		}
		if !strings.Contains(collected(t, n.archive), fmt.Sprintf("rayflux_store_given_up_messages_total{} %g\n", float64(givenUp))) {
			t.Errorf("metrics are\n%s", collected(t, n.archive))
		}
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
	})
}

func TestHeadsListSegmentsInOrder(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		slow := &slowFirst{Store: store, first: segmentName(1, 1), release: make(chan struct{})}
		n := startNode(t, slow, 1, Config{})
		for range 3 {
			n.publish()
			time.Sleep(1500 * time.Millisecond)
		}
		names, err := store.List(t.Context(), segmentsFolder, "", 10)
		if err != nil || len(names) != 2 {
			t.Fatalf("in the store are %v, %v; want segments 2 and 3", names, err)
		}
		n.mu.Lock()
		if n.handed != 0 {
			t.Errorf("%d batches are said to be stored while the oldest is not", n.handed)
		}
		n.mu.Unlock()
		n.checkAll(n.archive.reader)
		close(slow.release)
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
		n.checkAll(testReader(store, ReaderConfig{}))
	})
}

// slowFirst holds one object back.
type slowFirst struct {
	Store
	first   string
	release chan struct{}
}

func (s *slowFirst) Create(ctx context.Context, name string, body []byte) error {
	if name == s.first {
		<-s.release
	}
	return s.Store.Create(ctx, name, body)
}

// A store may carry out what its client has given up, long after other writes of the same client: no message that was told to be
// stored may disappear then, not for a moment, and not if the node dies before it can do anything about it.
func TestAHeadThatArrivesLateHidesNothing(t *testing.T) {
	simulate(t, func(t *testing.T) {
		late := &lateStore{Store: NewMemory(), arrives: make(chan struct{})}
		n := startNode(t, late, 1, Config{})
		flush := func() {
			t.Helper()
			n.publish()
			if err := n.archive.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		flush()
		first := n.archive.Life()
		late.once.Store(true)
		flush()
		flush()
		if n.archive.Life() == first {
			t.Error("a life goes on whose head may yet be put back")
		}
		n.checkAll(testReader(late.Store, ReaderConfig{}))
		late.arrives <- struct{}{}
		<-late.arrives
		n.checkAll(testReader(late.Store, ReaderConfig{}))
		if err := n.archive.Seal(t.Context(), nil); err != nil {
			t.Error(err)
		}
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
	})
}

// lateStore has one head arrive, when it is told to, after its writer was told that it failed.
type lateStore struct {
	Store
	once    atomic.Bool
	arrives chan struct{} // the head is to arrive; and then, it has
}

func (s *lateStore) Put(ctx context.Context, name string, body []byte) error {
	if !s.once.Swap(false) {
		return s.Store.Put(ctx, name, body)
	}
	body = bytes.Clone(body)
	go func() {
		<-s.arrives
		_ = s.Store.Put(context.Background(), name, body)
		s.arrives <- struct{}{}
	}()
	return errWeather
}

func TestBatchesWaitForTheirReaders(t *testing.T) {
	for seed := range uint64(20) {
		put := &hookedPut{Store: NewMemory(), done: make(chan struct{}, 10)}
		n := startNode(t, put, seed, Config{Interval: time.Nanosecond})
		n.archive.frames.RLock() // a reader is at it
		n.publish()
		<-put.done
		for range 100 {
			runtime.Gosched()
		}
		n.mu.Lock()
		if n.handed > 0 {
			t.Error("a batch was handed back under the eyes of its reader")
		}
		n.mu.Unlock()
		n.archive.frames.RUnlock()
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// hookedPut says when something was put.
type hookedPut struct {
	Store
	done chan struct{}
}

func (s *hookedPut) Put(ctx context.Context, name string, body []byte) error {
	err := s.Store.Put(ctx, name, body)
	s.done <- struct{}{}
	return err
}

func TestABatchThatNoSegmentCanHaveHurtsNoOther(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		n := startNode(t, store, 1, Config{})
		n.publish()
		bad := modelRun("bad", n.epoch, n.began, 1, 3)
		bad.Count = 4
		n.offered++
		n.archive.Offer(&Batch{Runs: []Run{bad}})
		n.publish()
		if err := n.archive.Flush(t.Context()); !errors.Is(err, ErrGivenUp) {
			t.Errorf("flush: %v", err)
		}
		if len(n.failures) != 1 || !strings.Contains(n.failures[0].Error(), "has 3 frames, count is 4") {
			t.Errorf("failures are %v", n.failures)
		}
		n.checkAll(testReader(store, ReaderConfig{}))
		n.offered++
		bad.First = 10
		n.archive.Offer(&Batch{Runs: []Run{bad}})
		if err := n.close(time.Minute); err == nil {
			t.Error("close says that all is stored")
		}
		n.offer(1, 1)
		if last := n.failures[len(n.failures)-1]; !errors.Is(last, ErrClosed) {
			t.Errorf("offered to a closed archive: %v", last)
		}
	})
}

func TestSealIsTheLastWord(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				store := NewMemory()
				n := startNode(t, newWeather(store, seed, 10), seed, Config{})
				for range 20 {
					n.publish()
				}
				var positions []Sealed
				for topic, head := range n.heads {
					positions = append(positions, Sealed{topic, n.epoch, n.began, head})
				}
				if err := n.archive.Seal(t.Context(), positions); err != nil {
					t.Fatal(err)
				}
				life := n.archive.Life()
				record, err := store.Get(t.Context(), sealedName(life), 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				if _, got, err := ParseSealed(record, life); err != nil || !slices.Equal(got, positions) {
					t.Errorf("sealed is %v, %v; want %v", got, err, positions)
				}
				body, err := store.Get(t.Context(), headName(life), 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				if h, err := ParseHead(body, life); err != nil || !h.Sealed {
					t.Errorf("the head is %+v, %v", h, err)
				}
				n.checkAll(testReader(store, ReaderConfig{}))
				if err := n.close(time.Minute); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestManyNodesTakeLivesOfTheirOwn(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		var nodes []*node
		for seed := range uint64(8) {
			nodes = append(nodes, startNode(t, newWeather(store, seed, 10), seed, Config{}))
		}
		lives := map[uint64]bool{}
		for _, n := range nodes {
			n.publish()
			if err := n.close(time.Hour); err != nil {
				t.Error(err)
			}
			lives[n.archive.Life()] = true
		}
		if len(lives) != len(nodes) || lives[0] {
			t.Errorf("%d nodes have lives %v", len(nodes), lives)
		}
	})
}

func TestHeadsShrinkWhenSegmentsWereReplaced(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		n := startNode(t, store, 1, Config{})
		upkeep := testUpkeep(t, store, UpkeepConfig{})
		for range 300 {
			n.offer(3, 2)
			time.Sleep(1100 * time.Millisecond)
		}
		settle(t, upkeep, time.Now())
		for range 120 {
			n.offer(3, 2)
			time.Sleep(1100 * time.Millisecond)
		}
		body, err := store.Get(t.Context(), headName(1), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if h, err := ParseHead(body, 1); err != nil || len(h.Segments) > 200 {
			t.Errorf("the head lists %d segments, %v", len(h.Segments), err)
		}
		n.checkAll(n.archive.reader)
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
		n.checkAll(testReader(store, ReaderConfig{}))
	})
}

// hanging is a store that answers nobody.
type hanging struct{ Store }

func (hanging) Get(ctx context.Context, _ string, _, _ int64) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (hanging) Create(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

// What is not stored yet is read while the store hangs, in no time at all.
func TestABacklogIsReadWithoutTheStore(t *testing.T) {
	simulate(t, func(t *testing.T) {
		n := startNode(t, hanging{NewMemory()}, 1, Config{})
		var runs []Run
		for i := range uint64(20) {
			r := modelRun("topic-1", n.epoch, n.began, 101+10*i, 10)
			runs = append(runs, r)
			n.archive.Offer(&Batch{Runs: []Run{r}, Bytes: r.Frames})
		}
		before := time.Now()
		ask := func(q Query) (Start, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return n.archive.Resolve(ctx, "topic-1", q)
		}
		present := Position{n.epoch, 290} // the caller has 291 and on
		for _, c := range []struct {
			q    Query
			want uint64
		}{
			{Query{From: FromPosition, At: Position{n.epoch, 150}, Before: present}, 150},
			{Query{From: FromPosition, At: Position{n.epoch, 100}, Before: present}, 100},
			{Query{From: FromLast, Last: 77, Before: present}, 213},
			{Query{From: FromSince, SinceMs: runs[7].Times[3].UnixMs, Before: present}, 173},
		} {
			if start, err := ask(c.q); err != nil || !start.Whole || start.Position != (Position{n.epoch, c.want}) {
				t.Errorf("%+v begins at %+v (%v), want %d", c.q, start, err, c.want)
			}
		}
		at := Position{n.epoch, 150}
		for at.Offset < 300 {
			page, err := n.archive.Read(t.Context(), "topic-1", at, 1000)
			if err != nil || page.First != at.Offset+1 || page.Count == 0 {
				t.Fatalf("behind %d: %+v (%v)", at.Offset, page, err)
			}
			at.Offset += uint64(page.Count)
		}
		if took := time.Since(before); took != 0 {
			t.Errorf("it took %v", took)
		}
		// What the store may have more of has to be asked for there.
		for _, q := range []Query{
			{From: FromEarliest, Before: present}, {From: FromPosition, At: Position{n.epoch, 99}, Before: present},
			{From: FromPosition, At: Position{"another", 7}, Before: present}, {From: FromLast, Last: 200, Before: present},
			{From: FromSince, SinceMs: runs[0].Times[0].UnixMs, Before: present}, {From: FromLast, Last: 10, Before: Position{n.epoch, 400}},
		} {
			if start, err := ask(q); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v begins at %+v (%v), and nobody knows", q, start, err)
			}
		}
		n.archive.stop()
	})
}
