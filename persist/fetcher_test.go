package persist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// farStore answers after a while, and counts how many requests it has at once.
type farStore struct {
	*countingStore
	mu          sync.Mutex
	now, atOnce int
}

const farAway = 30 * time.Millisecond

func (s *farStore) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	s.mu.Lock()
	s.now++
	s.atOnce = max(s.atOnce, s.now)
	s.mu.Unlock()
	b, err := s.countingStore.Get(ctx, name, offset, length)
	time.Sleep(farAway)
	s.mu.Lock()
	s.now--
	s.mu.Unlock()
	return b, err
}

// farTopics is a store with topics t0, t1 and so on, each of so many messages of a thousand bytes, in a segment for each part of them.
func farTopics(t *testing.T, topics int, messages, parts uint32) *farStore {
	memory := NewMemory()
	life := startLife(t, memory, 1)
	each := messages / parts
	for i := range parts {
		var runs []Run
		for topic := range topics {
			runs = append(runs, testRun(fmt.Sprint("t", topic), "E", 5, uint64(i*each)+1, each, 1000))
		}
		life.add(runs...)
	}
	life.put()
	return &farStore{countingStore: counting(memory)}
}

// readAll reads a topic in pages of 64 KiB.
func readAll(t *testing.T, r *Reader, topic string, messages uint64) {
	at := Position{Epoch: "E"}
	for at.Offset < messages {
		page, err := r.Read(t.Context(), topic, at, 64<<10)
		if err != nil || page.First != at.Offset+1 || page.Count == 0 {
			t.Errorf("%s behind %d: %d messages from %d on: %v", topic, at.Offset, page.Count, page.First, err)
			return
		}
		at.Offset += uint64(page.Count)
	}
}

// A reader that takes its pages as fast as they come waits for the store about once for as much as is read ahead, not for each block.
func TestReadAheadHidesTheStoresDistance(t *testing.T) {
	for _, parts := range []uint32{1, 40} {
		simulate(t, func(t *testing.T) {
			s := farTopics(t, 1, 20_000, parts) // 20 MB: 77 blocks or more
			r := testReader(s, ReaderConfig{})
			r.catalogue.every = time.Hour
			began := time.Now()
			readAll(t, r, "t0", 20_000)
			if waited := time.Since(began) / farAway; waited > 35 {
				t.Errorf("%d segments: the reader waited as long as %d answers take, want at most 35", parts, waited)
			}
			if n := s.count(segmentsFolder); parts == 1 && n > 25 {
				t.Errorf("%d requests for 80 blocks of a segment, want at most 25", n)
			}
		})
	}
}

// Where there are so many readers that what is read ahead would push out what others have not used yet, nobody asks twice: whether they
// all wait for the store at once, or each takes its time between two pages.
func TestManyReadersDoNotReadAheadOfTheirMemory(t *testing.T) {
	const topics, messages = 40, 2000
	for name, read := range map[string]func(t *testing.T, r *Reader){
		"at once": func(t *testing.T, r *Reader) {
			var all sync.WaitGroup
			for topic := range topics {
				all.Go(func() { readAll(t, r, fmt.Sprint("t", topic), messages) })
			}
			all.Wait()
		},
		"in turn": func(t *testing.T, r *Reader) {
			at := make([]Position, topics)
			for at[topics-1].Offset < messages {
				for topic := range at {
					page, err := r.Read(t.Context(), fmt.Sprint("t", topic), Position{"E", at[topic].Offset}, 64<<10)
					if err != nil || page.Count == 0 {
						t.Fatalf("topic %d behind %d: %d messages: %v", topic, at[topic].Offset, page.Count, err)
					}
					at[topic].Offset += uint64(page.Count)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T) {
				s := farTopics(t, topics, messages, 1)
				r := testReader(s, ReaderConfig{CacheBytes: 24 << 20}) // so much is the two blocks that a page may be in, for each
				r.catalogue.every = time.Hour
				read(t, r)
				body, err := s.countingStore.Store.Get(t.Context(), segmentName(1, 1), 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				if s.bytes > int64(len(body))*5/4 {
					t.Errorf("%d bytes were read of a segment of %d", s.bytes, len(body))
				}
				if s.atOnce > fetchesMax {
					t.Errorf("%d requests at once, limit %d", s.atOnce, fetchesMax)
				}
			})
		})
	}
}

// Who asks for one page gets one page.
func TestNobodyReadsAheadForOnePage(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := farTopics(t, 1, 5000, 1)
		r := testReader(s, ReaderConfig{})
		r.catalogue.every = time.Hour
		for _, offset := range []uint64{0, 3000} {
			if _, err := r.Read(t.Context(), "t0", Position{"E", offset}, 1000); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * farAway)
		if n := s.count(segmentsFolder); n != 1+2 {
			t.Errorf("two pages took %d requests, want one for the index and one for each", n)
		}
	})
}

// failingStore fails one request for blocks, after a while.
type failingStore struct {
	Store
	next atomic.Bool
}

func (s *failingStore) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if strings.HasPrefix(name, segmentsFolder) && s.next.Swap(false) {
		time.Sleep(farAway)
		return nil, ErrUnavailable
	}
	return s.Store.Get(ctx, name, offset, length)
}

// What was asked for ahead, and failed, is no failure of the reader's who then wants it.
func TestAFetchThatFailsForAnotherIsAskedForAgain(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := &failingStore{Store: farTopics(t, 1, 5000, 1)}
		r := testReader(s, ReaderConfig{})
		r.catalogue.every = time.Hour
		at := Position{Epoch: "E"}
		for at.Offset < 5000 {
			page, err := r.Read(t.Context(), "t0", at, 64<<10)
			if err != nil {
				t.Fatalf("behind %d: %v", at.Offset, err)
			}
			if s.next.Store(at.Offset == 0); at.Offset > 0 && s.next.Load() {
				t.Fatal("nothing was read ahead")
			}
			at.Offset += uint64(page.Count)
		}
	})
}

func TestFetchGoesOnWhenItsReaderLeaves(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := farTopics(t, 1, 100, 1)
		r := testReader(s, ReaderConfig{})
		r.catalogue.every = time.Hour
		readAll(t, r, "t0", 100)
		r.cache.replace(blockKey(segmentName(1, 1), 0), []byte(nil), 1<<40) // it is forgotten
		leaving, leave := context.WithCancel(t.Context())
		time.AfterFunc(farAway/2, leave)
		if _, err := r.Read(leaving, "t0", Position{Epoch: "E"}, 1000); !errors.Is(err, context.Canceled) {
			t.Errorf("who leaves is told %v", err)
		}
		asked := s.count(segmentsFolder)
		readAll(t, r, "t0", 100)
		if n := s.count(segmentsFolder); n != asked {
			t.Errorf("what was on its way was asked for again, %d times", n-asked)
		}
	})
}
