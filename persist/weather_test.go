package persist

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
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
