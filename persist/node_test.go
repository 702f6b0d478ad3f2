package persist

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
