package persist

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// countingStore counts what is asked of a store.
type countingStore struct {
	Store
	mu    sync.Mutex
	gets  map[string]int
	lists int
	puts  int
	bytes int64
	fail  error // of every Get, if it is set
}

func counting(s Store) *countingStore { return &countingStore{Store: s, gets: map[string]int{}} }

func (c *countingStore) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	c.mu.Lock()
	c.gets[name]++
	fail := c.fail
	c.mu.Unlock()
	if fail != nil {
		return nil, fail
	}
	b, err := c.Store.Get(ctx, name, offset, length)
	c.mu.Lock()
	c.bytes += int64(len(b))
	c.mu.Unlock()
	return b, err
}

func (c *countingStore) List(ctx context.Context, prefix, after string, max int) ([]Object, error) {
	c.mu.Lock()
	c.lists++
	c.mu.Unlock()
	return c.Store.List(ctx, prefix, after, max)
}

func (c *countingStore) Create(ctx context.Context, name string, body []byte) error {
	c.mu.Lock()
	c.puts++
	c.mu.Unlock()
	return c.Store.Create(ctx, name, body)
}

// count is the requests for objects whose names begin with prefix.
func (c *countingStore) count(prefix string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, gets := range c.gets {
		if strings.HasPrefix(name, prefix) {
			n += gets
		}
	}
	return n
}

// testBacklog is a backlog that keeps whole runs.
type testBacklog []Run

func (b testBacklog) Waiting(topic string) (all []Waiting) {
	for _, r := range b {
		if r.Topic == topic {
			w := Waiting{r, len(r.Frames)}
			w.Frames = nil
			all = append(all, w)
		}
	}
	return all
}

func (b testBacklog) AppendFrames(dst []byte, topic, epoch string, first uint64, count uint32) ([]byte, bool) {
	for _, r := range b {
		if r.Topic == topic && r.Epoch == epoch && r.First == first && r.Count == count {
			return append(dst, r.Frames...), true
		}
	}
	return dst, false
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func testReader(s Store, cfg ReaderConfig) *Reader {
	cfg.Refresh, cfg.Log = time.Nanosecond, quietLog()
	return NewReader(s, cfg)
}

// testLife writes the segments and heads of a life as a node does.
type testLife struct {
	t     testing.TB
	store Store
	head  Head
	seq   uint64 // of its last segment
}

func startLife(t testing.TB, store Store, life uint64) *testLife {
	l := &testLife{t: t, store: store, head: Head{Life: life, Name: fmt.Sprint("node ", life), Slot: -1, WrittenMs: 1}}
	l.put()
	return l
}

func (l *testLife) put() {
	l.t.Helper()
	if err := l.store.Put(l.t.Context(), headName(l.head.Life), AppendHead(nil, &l.head)); err != nil {
		l.t.Fatal(err)
	}
}

// add stores runs as the life's next segment, without listing it in the store yet.
func (l *testLife) add(runs ...Run) (name string, body []byte) {
	l.t.Helper()
	body, ref := mustSegment(l.t, runs...)
	l.seq++
	name = segmentName(l.head.Life, l.seq)
	if err := l.store.Create(l.t.Context(), name, body); err != nil {
		l.t.Fatal(err)
	}
	l.head.Segments = append(l.head.Segments, HeadSegment{l.seq, ref})
	return name, body
}

// fill writes so many segments of ten messages each of topic a.
func (l *testLife) fill(segments int, began int64) {
	for k := range uint64(segments) {
		l.add(modelRun("a", "E", began, k*10+1, 10))
	}
}
