package persist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
)

// fetchesMax is how many requests for blocks a reader has under way at once, for all who read.
const fetchesMax = 64

// fetcher brings blocks from the store to the cache. Nobody asks for a block that is on its way. Safe from any goroutine.
type fetcher struct {
	store  Store
	cache  *cache
	faults *faults
	slots  *semaphore.Weighted

	mu    sync.Mutex
	under map[string]*fetch // by the keys of its blocks
}

// fetch is blocks that are back to back in a segment, and one request for them.
type fetch struct {
	segment string
	first   int
	blocks  []block

	done   chan struct{} // closed when the next two are set
	plains [][]byte      // unpacked; nil: it is broken
	err    error
}

func newFetcher(store Store, c *cache, f *faults) *fetcher {
	return &fetcher{store: store, cache: c, faults: f, slots: semaphore.NewWeighted(fetchesMax), under: map[string]*fetch{}}
}

// read is the blocks of a plan by their keys, those that are broken left out. Where somebody else's request has failed it asks
// once more.
func (f *fetcher) read(ctx context.Context, plan []piece) (map[string][]byte, error) {
	got, others, own := f.begin(plan)
	err := collect(ctx, got, others)
	if err != nil && ctx.Err() == nil {
		got, others, own = f.begin(plan)
		err = collect(ctx, got, others)
	}
	if err == nil {
		err = collect(ctx, got, own)
	}
	return got, err
}

// collect waits for blocks.
func collect(ctx context.Context, got map[string][]byte, fetches []*fetch) error {
	for _, w := range fetches {
		select {
		case <-w.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if w.err != nil {
			return w.err
		}
		for i, plain := range w.plains {
			if plain != nil {
				got[blockKey(w.segment, w.first+i)] = plain
			}
		}
	}
	return nil
}

// lacks reports whether a block of a plan is neither in memory nor on its way.
func (f *fetcher) lacks(plan []piece) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(plan, func(p piece) bool {
		if p.in == nil {
			return false
		}
		key := blockKey(p.in.segment, p.block)
		_, cached := f.cache.get(key)
		return !cached && f.under[key] == nil
	})
}

// begin sees to it that all blocks of a plan are in memory or on their way, by requests of others or its own. Of each segment those
// from the first to the last that are neither are one request.
func (f *fetcher) begin(plan []piece) (got map[string][]byte, others, own []*fetch) {
	got = map[string][]byte{}
	f.mu.Lock()
	for i := range plan {
		p := &plan[i]
		if p.in == nil {
			continue
		}
		key := blockKey(p.in.segment, p.block)
		if w := f.under[key]; w != nil {
			if !slices.Contains(others, w) && !slices.Contains(own, w) {
				others = append(others, w)
			}
			continue
		}
		if plain, ok := f.cache.get(key); ok {
			got[key] = plain.([]byte)
			continue
		}
		w := &fetch{segment: p.in.segment, first: p.block, done: make(chan struct{})}
		if n := len(own); n > 0 && own[n-1].segment == w.segment {
			w = own[n-1]
		} else {
			own = append(own, w)
		}
		for next := w.first + len(w.blocks); next <= p.block; next++ {
			w.blocks = append(w.blocks, *p.blockAt(next))
			if between := blockKey(w.segment, next); f.under[between] == nil {
				f.under[between] = w
			}
		}
	}
	f.mu.Unlock()
	for _, w := range own {
		go f.fetch(w)
	}
	return got, others, own
}

// fetch makes a request, which goes on if those who wanted it have left.
func (f *fetcher) fetch(w *fetch) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	if w.err = f.slots.Acquire(ctx, 1); w.err == nil {
		w.plains, w.err = f.unpacked(ctx, w)
		f.slots.Release(1)
	}
	if w.err != nil && ctx.Err() != nil { // which is nobody's who waits
		w.err = fmt.Errorf("%s: not read within %v: %w", w.segment, fetchTimeout, ErrUnavailable)
	}
	f.mu.Lock()
	for i := range w.blocks {
		if key := blockKey(w.segment, w.first+i); f.under[key] == w {
			delete(f.under, key)
		}
	}
	f.mu.Unlock()
	close(w.done)
}

// unpacked is blocks from the store, which are in the cache then.
func (f *fetcher) unpacked(ctx context.Context, w *fetch) ([][]byte, error) {
	from, last := w.blocks[0].at, &w.blocks[len(w.blocks)-1]
	b, err := f.store.Get(ctx, w.segment, from, last.at+int64(last.packed)-from)
	if errors.Is(err, ErrNotFound) {
		return nil, &goneError{w.segment, err}
	}
	if err != nil {
		return nil, err
	}
	plains := make([][]byte, len(w.blocks))
	for i := range w.blocks {
		bl := &w.blocks[i]
		key := blockKey(w.segment, w.first+i)
		plain, err := bl.unpack(bl.in(b, from))
		if err != nil {
			f.faults.note(key, err)
			continue
		}
		if bl.coding == codingRaw {
			plain = slices.Clone(plain) // not to keep its neighbours with it
		}
		plains[i] = plain
		f.cache.put(key, plain, int64(cap(plain)))
	}
	return plains, nil
}
