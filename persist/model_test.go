package persist

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

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
