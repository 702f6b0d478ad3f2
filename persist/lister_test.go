package persist

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

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

// A store that says no has done nothing, and will not: that costs no life, of which each is a request more for every reader.
func TestAHeadThatIsRefusedCostsNoLife(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := &refusingStore{Store: NewMemory()}
		n := startNode(t, s, 1, Config{})
		for range 20 {
			n.publish()
			s.heads.Store(2)
			if err := n.archive.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if life := n.archive.Life(); life != 1 {
			t.Errorf("it is life %d after 40 heads were refused, want 1", life)
		}
		if err := n.close(time.Minute); err != nil {
			t.Error(err)
		}
		n.checkAll(testReader(s.Store, ReaderConfig{}))
	})
}

// refusingStore refuses the next so many heads.
type refusingStore struct {
	Store
	heads atomic.Int32
}

func (s *refusingStore) Put(ctx context.Context, name string, body []byte) error {
	if strings.HasPrefix(name, headsFolder) && s.heads.Add(-1) >= 0 {
		return fmt.Errorf("503: %w", ErrUnavailable)
	}
	return s.Store.Put(ctx, name, body)
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
	return ErrUnanswered
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
