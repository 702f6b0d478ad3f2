package persist

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReaderGivesBackWhatIsThere(t *testing.T) {
	seeds := 25
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			store := counting(NewMemory())
			m, backlog, broken := randomWorld(t, rng, store)
			if rng.IntN(2) == 0 { // a head that nobody can read, of a life without segments
				store.Put(t.Context(), headName(uint64(len(m.topics)+20)), []byte("not a head"))
			}
			r := testReader(store, ReaderConfig{Backlog: backlog, CacheBytes: 4 << 20})
			checkAgainstModel(t, rng, r, m)
			asked := map[string]int{}
			for _, name := range broken {
				if r.faults.has(name) {
					asked[name] = store.gets[name]
				}
			}
			faults := r.Faults()
			checkAgainstModel(t, rng, r, m)
			if r.Faults() != faults {
				t.Errorf("faults were found twice: %d, then %d", faults, r.Faults())
			}
			for name, gets := range asked {
				if store.gets[name] != gets {
					t.Errorf("%s is broken, and was asked for %d times more", name, store.gets[name]-gets)
				}
			}
			if store.lists > 1 {
				t.Errorf("the store was listed %d times, want once, for want of a manifest", store.lists)
			}
		})
	}
}

func TestReaderSeesWhatIsStoredBeforeItIsAsked(t *testing.T) {
	store := NewMemory()
	life := startLife(t, store, 1)
	r := testReader(store, ReaderConfig{})
	if page, err := r.Read(t.Context(), "a", Position{"E", 0}, 100); err != nil || page.Count+uint32(page.Hole) != 0 || page.NextEpoch != "" {
		t.Fatalf("of nothing: %v: %v", page, err)
	}
	for i := range uint64(5) {
		life.add(modelRun("a", "E", 0, i*10+1, 10))
		life.put()
		page, err := r.Read(t.Context(), "a", Position{"E", i * 10}, 1<<20)
		if err != nil || page.Count != 10 {
			t.Fatalf("after segment %d: %d messages: %v", i, page.Count, err)
		}
	}
	second := startLife(t, store, 2)
	second.add(modelRun("a", "F", 0, 1, 3))
	second.put()
	if page, err := r.Read(t.Context(), "a", Position{"E", 50}, 1<<20); err != nil || page.NextEpoch != "F" {
		t.Fatalf("at the end of an epoch: %v: %v", page, err)
	}
}

func TestReaderIsSureBeforeItSaysThatNothingIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := counting(NewMemory())
		life := startLife(t, store, 1)
		life.add(modelRun("a", "E", 0, 1, 10))
		life.put()
		r := NewReader(store, ReaderConfig{Log: quietLog()}) // asks once a second
		if page, err := r.Read(t.Context(), "a", Position{"E", 0}, 1<<20); err != nil || page.Count != 10 {
			t.Fatalf("%d messages: %v", page.Count, err)
		}
		life.add(modelRun("a", "E", 0, 11, 10))
		life.put()
		time.Sleep(time.Millisecond)
		heads := store.count(headName(1))
		for range 5 { // readers at once are one request
			go func() {
				if page, err := r.Read(t.Context(), "a", Position{"E", 10}, 1<<20); err != nil || page.Count != 10 {
					t.Errorf("a millisecond after it was stored: %d messages: %v", page.Count, err)
				}
			}()
		}
		start, err := r.Resolve(t.Context(), "a", Query{From: FromLast, Last: 15})
		if err != nil || start != (Start{Position: Position{"E", 5}, Whole: true}) {
			t.Errorf("of 20 messages the last 15 are behind %v: %v", start, err)
		}
		synctest.Wait()
		if n := store.count(headName(1)) - heads; n != 1 {
			t.Errorf("the head was asked for %d times", n)
		}
	})
}

// A topic that began anew many times is read without a wait at each border, but for those that are no older than clocks may differ.
func TestReaderCrossesOldEpochsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const epochs = 50
		store := NewMemory()
		life := startLife(t, store, 1)
		now := time.Now().UnixMilli()
		for i := range int64(epochs) {
			life.add(modelRun("a", fmt.Sprintf("E%d", i), (now/modelEpochMs-epochs+i)*modelEpochMs, 1, 2))
		}
		life.put()
		r := NewReader(store, ReaderConfig{Log: quietLog()})
		began := time.Now()
		for i := range epochs - 1 {
			time.Sleep(time.Millisecond) // a reader's, who writes what he got before he asks again
			page, err := r.Read(t.Context(), "a", Position{fmt.Sprintf("E%d", i), 2}, 1<<20)
			if err != nil || page.Count != 0 || page.NextEpoch != fmt.Sprintf("E%d", i+1) {
				t.Fatalf("behind epoch %d: %+v (%v)", i, page, err)
			}
		}
		if waited := time.Since(began); waited > 2*time.Second {
			t.Errorf("reading %d epochs has taken %v", epochs, waited)
		}
	})
}

func TestReaderTakesTwoRequestsForASegment(t *testing.T) {
	store := counting(NewMemory())
	life := startLife(t, store, 1)
	for i := range uint64(10) {
		life.add(testRun("a", "E", 0, i*1000+1, 1000, 1000), testRun("b", "E", 0, i*10+1, 10, 10)) // four blocks of a
	}
	life.put()
	r := testReader(store, ReaderConfig{CacheBytes: 64 << 20})
	page, err := r.Read(t.Context(), "a", Position{"E", 0}, 10<<20)
	if err != nil || page.Count != 10_000 {
		t.Fatalf("%d messages: %v", page.Count, err)
	}
	if n := store.count(segmentsFolder); n != 20 {
		t.Errorf("10 segments took %d requests, want 20", n)
	}
	if page, err = r.Read(t.Context(), "a", Position{"E", 500}, 10<<20); err != nil || page.Count != 9500 || store.count(segmentsFolder) != 20 {
		t.Errorf("reading them again took %d more: %v", store.count(segmentsFolder)-20, err)
	}
	if page, err = r.Read(t.Context(), "b", Position{"E", 0}, 1); err != nil || page.Count != 1 {
		t.Errorf("a page is %d messages, want the one that is always there: %v", page.Count, err)
	}
}

func TestReadersShareARequest(t *testing.T) {
	store := counting(NewMemory())
	life := startLife(t, store, 1)
	life.add(testRun("a", "E", 0, 1, 10, 1000))
	life.put()
	r := testReader(store, ReaderConfig{})
	r.catalogue.every = time.Hour
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if page, err := r.Read(t.Context(), "a", Position{"E", 0}, 10<<20); err != nil || page.Count != 10 {
				t.Errorf("%d messages: %v", page.Count, err)
			}
		})
	}
	wait.Wait()
	if n := store.count(""); n > 2+4+2*20 || store.count(headName(1)) > 20 {
		t.Errorf("20 readers took %d requests: %v", n, store.gets)
	}
	before := store.count("")
	if _, err := r.Read(t.Context(), "a", Position{"E", 0}, 10<<20); err != nil || store.count("") != before {
		t.Errorf("one more took %d requests: %v", store.count("")-before, err)
	}
}

func TestReaderSaysThatTheStoreIsAway(t *testing.T) {
	store := counting(NewMemory())
	startLife(t, store, 1)
	r := testReader(store, ReaderConfig{})
	store.fail = errors.New("no route")
	if _, err := r.Read(t.Context(), "a", Position{"E", 0}, 10); err == nil || !strings.Contains(err.Error(), `cannot read topic "a"`) {
		t.Errorf("read: %v", err)
	}
	if _, err := r.Resolve(t.Context(), "a", Query{}); err == nil {
		t.Error("resolved")
	}
	if r.Faults() != 0 {
		t.Error("a store that is away is taken for broken objects")
	}
	store.fail = nil
	if _, err := r.Read(t.Context(), "a", Position{"E", 0}, 10); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestCacheKeepsToItsBytes(t *testing.T) {
	c := newCache(10_000)
	for i := range 100 {
		c.put(fmt.Sprint(i), i, 700)
		c.put(fmt.Sprint(i), i, 700)
	}
	if c.bytes > 10_000 || c.items.Len() != 10_000/(700+itemCost) {
		t.Errorf("%d items of %d bytes, limit 10000", c.items.Len(), c.bytes)
	}
	c.put("large", 0, 6000)
	if _, ok := c.get("large"); ok {
		t.Error("one item pushed out most others")
	}
	if v, ok := c.get("99"); !ok || v != 99 {
		t.Error("the newest item is gone")
	}
}

// When a node is lost each of its topics' readers must know for certain, twice or three times, what the store has: that is not to take
// seconds. Who goes on asking does so once a second.
func TestCertaintyCostsNoTimeUnlessItIsAskedForAllTheTime(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		life := startLife(t, store, 1)
		life.add(modelRun("a", "E", 5, 1, 10))
		life.put()
		r := NewReader(store, ReaderConfig{Log: quietLog()})
		ask := func(times int) time.Duration {
			began := time.Now()
			for range times {
				time.Sleep(time.Millisecond)
				if page, err := r.Read(t.Context(), "a", Position{"E", 10}, 1000); err != nil || page.Count > 0 {
					t.Fatalf("%d messages: %v", page.Count, err)
				}
			}
			return time.Since(began)
		}
		if took := ask(3); took > 150*time.Millisecond {
			t.Errorf("three answers took %v", took)
		}
		if took := ask(20); took < 10*time.Second {
			t.Errorf("twenty more took %v, want about a second each of them but ten", took)
		}
	})
}

// A topic that leaves a node and comes back is offered anew from what is known to be stored: its messages wait twice, in other pieces.
func TestReaderTakesTheLongerOfTwoRunsThatWait(t *testing.T) {
	for name, backlog := range map[string]testBacklog{
		"the shorter first": {modelRun("a", "E", 5, 5, 6), modelRun("a", "E", 5, 5, 16), modelRun("a", "E", 5, 21, 4)},
		"the longer first":  {modelRun("a", "E", 5, 5, 16), modelRun("a", "E", 5, 5, 6), modelRun("a", "E", 5, 21, 4)},
	} {
		store := counting(NewMemory())
		startLife(t, store.Store, 1)
		r := testReader(store, ReaderConfig{Backlog: backlog})
		for _, behind := range []uint64{4, 10, 15, 20} {
			page, err := r.Read(t.Context(), "a", Position{"E", behind}, 1<<20)
			if err != nil || page.First != behind+1 || page.First+uint64(page.Count) != 25 {
				t.Errorf("%s: behind %d: %d messages from %d on: %v", name, behind, page.Count, page.First, err)
			}
		}
	}
}
