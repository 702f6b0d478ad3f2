package persist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

func (b testBacklog) AppendFrames(dst []byte, topic, epoch string, first uint64) ([]byte, bool) {
	for _, r := range b {
		if r.Topic == topic && r.Epoch == epoch && r.First == first {
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

// replay reads a topic from a start to its end, as lines: "E 5-9" for messages, "E hole 12", "epoch F". It checks every frame.
func replay(t testing.TB, r *Reader, topic string, at Position, bytesMax int) (lines []string) {
	t.Helper()
	for at.Epoch != "" {
		page, err := r.Read(t.Context(), topic, at, bytesMax)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case page.Count > 0:
			if page.First != at.Offset+1 {
				t.Fatalf("page of %v begins at %d", at, page.First)
			}
			rest := page.Frames
			for i := range page.Count {
				want := testFrame(nil, topic+at.Epoch, page.First+uint64(i), modelSize(page.First+uint64(i)))
				if !bytes.HasPrefix(rest, want) {
					t.Fatalf("topic %s, %s:%d is another message", topic, at.Epoch, page.First+uint64(i))
				}
				rest = rest[len(want):]
			}
			if len(rest) > 0 {
				t.Fatalf("page of %d messages has %d bytes more", page.Count, len(rest))
			}
			for _, m := range page.Times {
				if offset := page.First + uint64(m.Index); m.UnixMs%modelEpochMs != int64(offset) {
					t.Fatalf("message %d has time %d", offset, m.UnixMs)
				}
			}
			if len(page.Times) != int(page.Count) {
				t.Fatalf("%d messages have %d times", page.Count, len(page.Times))
			}
			for range page.Count {
				at.Offset++
				lines = append(lines, fmt.Sprintf("%s:%d", at.Epoch, at.Offset))
			}
		case page.Hole > 0:
			if page.Hole <= at.Offset+1 {
				t.Fatalf("behind %v there is a hole up to %d", at, page.Hole)
			}
			lines = append(lines, fmt.Sprintf("%s hole %d", at.Epoch, page.Hole))
			at.Offset = page.Hole - 1
		default:
			at = Position{Epoch: page.NextEpoch}
			if at.Epoch != "" {
				lines = append(lines, "epoch "+at.Epoch)
			}
		}
	}
	return lines
}

const modelEpochMs = 1_000_000 // between the beginnings of two epochs of a topic

// modelSize is the payload of a message by its offset.
func modelSize(offset uint64) int {
	if offset%61 == 0 {
		return 150_000
	}
	return int(offset*7) % 300
}

func modelRun(topic, epoch string, began int64, first uint64, count uint32) Run {
	r := Run{Topic: topic, Epoch: epoch, Began: began, First: first, Count: count}
	for i := range count {
		r.Frames = testFrame(r.Frames, topic+epoch, first+uint64(i), modelSize(first+uint64(i)))
		r.Times = append(r.Times, Time{i, began + int64(first) + int64(i)})
	}
	return r
}

// model is what a store should give back: of each topic its epochs in order, of each the offsets that are there.
type model struct {
	topics map[string][]*modelEpoch
}

type modelEpoch struct {
	name  string
	began int64
	have  map[uint64]int // copies
}

func (m *model) count(r *Run, by int) {
	for _, e := range m.topics[r.Topic] {
		if e.name == r.Epoch {
			for offset := r.First; offset <= r.Last(); offset++ {
				e.have[offset] += by
			}
		}
	}
}

// offsets is those that are there, in order.
func (e *modelEpoch) offsets() (all []uint64) {
	for offset, copies := range e.have {
		if copies > 0 {
			all = append(all, offset)
		}
	}
	slices.Sort(all)
	return all
}

// lines is what replay should say from the earliest message on.
func (m *model) lines(topic string) (lines []string) {
	first := true
	for _, e := range m.topics[topic] {
		offsets := e.offsets()
		if len(offsets) == 0 {
			continue
		}
		last := uint64(0)
		if first {
			last = offsets[0] - 1
		} else {
			lines = append(lines, "epoch "+e.name)
		}
		first = false
		for _, offset := range offsets {
			if offset != last+1 {
				lines = append(lines, fmt.Sprintf("%s hole %d", e.name, offset))
			}
			lines = append(lines, fmt.Sprintf("%s:%d", e.name, offset))
			last = offset
		}
	}
	return lines
}

// positions is those of all messages in order, with their times.
func (m *model) positions(topic string) (all []Position, times []int64) {
	for _, e := range m.topics[topic] {
		for _, offset := range e.offsets() {
			all, times = append(all, Position{e.name, offset}), append(times, e.began+int64(offset))
		}
	}
	return all, times
}

// randomWorld fills a store with lives, duplicates, holes and broken objects.
func randomWorld(t testing.TB, rng *rand.Rand, store Store) (m *model, backlog testBacklog, broken []string) {
	m = &model{topics: map[string][]*modelEpoch{}}
	lives := make([]*testLife, 1+rng.IntN(4))
	for i := range lives {
		lives[i] = startLife(t, store, uint64(i+1))
	}
	pending := make([][]Run, len(lives))
	flush := func(i int) {
		if len(pending[i]) == 0 {
			return
		}
		name, body := lives[i].add(pending[i]...)
		kept, note := breakSegment(t, rng, store, name, body)
		for k := range kept {
			m.count(&kept[k], 1)
		}
		if note {
			broken = append(broken, name)
		}
		pending[i] = nil
	}
	for n := range 1 + rng.IntN(5) {
		topic := fmt.Sprint("topic ", n)
		for k := range 1 + rng.IntN(3) {
			// Names are not in the epochs' order.
			e := &modelEpoch{name: fmt.Sprintf("%c%d", 'z'-rune(k), rng.IntN(10)), began: int64(k+1) * modelEpochMs, have: map[uint64]int{}}
			m.topics[topic] = append(m.topics[topic], e)
			life := rng.IntN(len(lives))
			for offset := uint64(1 + rng.IntN(2)*rng.IntN(50)); offset < 400; {
				r := modelRun(topic, e.name, e.began, offset, uint32(1+rng.IntN(60)))
				offset += uint64(r.Count)
				switch rng.IntN(20) {
				case 0: // never stored
					continue
				case 1: // stored twice, by two
					other := rng.IntN(len(lives))
					pending[other] = append(pending[other], r)
				case 2: // the last messages once more, as after a hand-off
					offset -= uint64(rng.Uint32N(r.Count))
					life = rng.IntN(len(lives))
				}
				pending[life] = append(pending[life], r)
				if rng.IntN(3) == 0 {
					flush(life)
				}
			}
		}
	}
	for i, l := range lives {
		if rng.IntN(3) == 0 {
			for _, r := range pending[i] {
				m.count(&r, 1)
			}
			backlog = append(backlog, pending[i]...)
		} else {
			flush(i)
		}
		l.head.Sealed = rng.IntN(2) == 0
		l.put()
	}
	return m, backlog, broken
}

// breakSegment does something to some segments; what is left of it is returned.
func breakSegment(t testing.TB, rng *rand.Rand, store Store, name string, body []byte) (kept []Run, broken bool) {
	runs, err := readSegment(body)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := parseIndex(body, int64(len(body)))
	spoilt := bytes.Clone(body)
	switch rng.IntN(24) {
	default:
		return runs, false
	case 0:
		store.Delete(t.Context(), name)
		return nil, true
	case 1:
		spoilt = spoilt[:rng.IntN(len(spoilt))]
	case 2: // the index or footer
		spoilt[x.blocks[len(x.blocks)-1].at+int64(x.blocks[len(x.blocks)-1].packed)+rng.Int64N(20)] ^= 4
	case 3:
		copy(spoilt, "GIF89a")
		copy(spoilt[len(spoilt)-footerBytes:], "whatever this may be")
	case 4:
		spoilt[len(spoilt)-footerBytes+headerBytes-1] = 2
	case 5, 6: // one block, and only what is in it is lost
		lost := rng.IntN(len(x.blocks))
		spoilt[x.blocks[lost].at+rng.Int64N(int64(x.blocks[lost].packed))] ^= 1
		for topic, entries := range x.all() {
			for _, e := range entries {
				if e.block != lost {
					kept = append(kept, Run{Topic: topic, Epoch: e.epoch, First: e.first, Count: e.count})
				}
			}
		}
	}
	if err := store.Put(t.Context(), name, spoilt); err != nil {
		t.Fatal(err)
	}
	return kept, true
}

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

func checkAgainstModel(t testing.TB, rng *rand.Rand, r *Reader, m *model) {
	t.Helper()
	ctx := t.Context()
	for topic, epochs := range m.topics {
		// The first reading may meet a broken block behind what the index says is the first message.
		replay(t, r, topic, Position{Epoch: epochs[0].name}, 1<<20)
		for _, e := range epochs[1:] {
			replay(t, r, topic, Position{Epoch: e.name}, 1<<20)
		}
		start, err := r.Resolve(ctx, topic, Query{})
		if err != nil {
			t.Fatal(err)
		}
		want := m.lines(topic)
		if got := replay(t, r, topic, start.Position, 1+rng.IntN(100_000)); !slices.Equal(got, want) {
			t.Fatalf("topic %q: read\n%v\nwant\n%v", topic, got, want)
		}
		positions, times := m.positions(topic)
		if len(positions) == 0 {
			continue
		}
		before := func(i int) Position { return Position{positions[i].Epoch, positions[i].Offset - 1} }
		for range 20 {
			n := rng.IntN(len(positions)) + 1
			start, err = r.Resolve(ctx, topic, Query{From: FromLast, Last: uint64(n)})
			if err != nil || start.Position != before(len(positions)-n) || !start.Whole {
				t.Fatalf("last %d of %d: %v, want %v: %v", n, len(positions), start, before(len(positions)-n), err)
			}
			i := rng.IntN(len(positions))
			start, err = r.Resolve(ctx, topic, Query{From: FromSince, SinceMs: times[i]})
			if err != nil || start.Position != before(i) || start.Whole != (i > 0 || positions[0].Offset == 1) {
				t.Fatalf("since %d: %v, want %v: %v", times[i], start, before(i), err)
			}
			// A position is whole if all offsets from there to another one are there.
			k := i + rng.IntN(len(positions)-i)
			whole := positions[i].Epoch == positions[k].Epoch && positions[k].Offset-positions[i].Offset == uint64(k-i)
			start, err = r.Resolve(ctx, topic, Query{From: FromPosition, At: before(i), Before: positions[k]})
			partial := positions[i].Epoch != positions[k].Epoch
			if err != nil || start.Whole != whole || start.Partial != partial || (whole || partial) != (start.Position == before(i)) {
				t.Fatalf("from %v with %v in memory: %+v, want whole %v, partial %v: %v", before(i), positions[k], start, whole, partial, err)
			}
		}
		start, err = r.Resolve(ctx, topic, Query{From: FromLast, Last: uint64(len(positions) + 1)})
		if err != nil || start.Whole || start.Position != before(0) {
			t.Fatalf("more than there are: %v: %v", start, err)
		}
		start, err = r.Resolve(ctx, topic, Query{From: FromPosition, At: Position{"gone", 5}, Before: Position{"now", 3}})
		if err != nil || start != (Start{Position: Position{"now", 3}}) {
			t.Fatalf("a position that nobody knows: %v: %v", start, err)
		}
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
