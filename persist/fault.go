package persist

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// faults are objects that are there and cannot be used, or should be there and are not. Each is counted and named once, and not
// asked for again: what is broken for good must not cost a request for every reader. Safe from any goroutine.
type faults struct {
	log   *slog.Logger
	count atomic.Uint64

	mu    sync.Mutex
	known *simplelru.LRU[string, error]
}

// faultsMax bounds what is known; one that falls out is found again.
const faultsMax = 4096

func newFaults(log *slog.Logger) *faults {
	known, err := simplelru.NewLRU[string, error](faultsMax, nil)
	if err != nil {
		panic("BUG: a list with a size is refused: " + err.Error())
	}
	return &faults{log: log, known: known}
}

// note remembers that part of the store is broken; it says so if that is news.
func (f *faults) note(what string, err error) {
	f.mu.Lock()
	said, ok := f.known.Get(what)
	f.known.Add(what, err)
	f.mu.Unlock()
	if ok && said.Error() == err.Error() {
		return
	}
	f.count.Add(1)
	f.log.Error("a stored object cannot be used; what it has is missing", "object", what, "error", err)
}

func (f *faults) has(what string) bool {
	if f.count.Load() == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known.Contains(what)
}

// fault is one that is known.
type fault struct {
	what string
	err  error
}

// all is what is known, oldest first.
func (f *faults) all() (all []fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, what := range f.known.Keys() {
		err, _ := f.known.Peek(what)
		all = append(all, fault{what, err})
	}
	return all
}

// passing says whether an error may be another one next time, as those of networks are. What does not parse stays as it is.
func passing(err error) bool {
	var p *unusable
	return !errors.As(err, &p) && !errors.Is(err, ErrNotFound)
}

// unusable is an error that an object itself causes.
type unusable struct{ error }

func (u *unusable) Unwrap() error { return u.error }
