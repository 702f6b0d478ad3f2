package persist

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

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
				if away > cutOff {
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

func TestABacklogSaysHowLongItHasWaited(t *testing.T) {
	simulate(t, func(t *testing.T) {
		w := newWeather(NewMemory(), 1, 0)
		n := startNode(t, w, 1, Config{})
		age := func() time.Duration {
			n.archive.mu.Lock()
			defer n.archive.mu.Unlock()
			return n.archive.backlog.age(time.Now())
		}
		n.publish()
		if err := n.archive.Flush(t.Context()); err != nil || age() != 0 {
			t.Errorf("when all is stored the oldest has waited %v (%v)", age(), err)
		}
		w.set(func(w *weather) { w.away = true })
		for range 60 { // in segments that wait, and behind them
			n.publish()
			time.Sleep(time.Second)
		}
		if got := age(); got != time.Minute {
			t.Errorf("the oldest has waited %v, want a minute", got)
		}
		w.set(func(w *weather) { w.away = false })
		if err := n.close(time.Minute); err != nil || age() != 0 {
			t.Errorf("at the end the oldest has waited %v (%v)", age(), err)
		}
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
