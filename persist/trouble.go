package persist

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

// trouble is what the log is told of something that is tried again and again: each kind of failure once, however long it lasts,
// and once that it works again. Safe from any goroutine.
type trouble struct {
	log   *slog.Logger
	fails string // the messages
	works string

	mu    sync.Mutex
	now   map[string]bool      // kinds that were told since it worked
	told  map[string]time.Time // when a kind was told last
	since time.Time            // when it failed first since it worked; zero: it works
}

const (
	// tellEvery is between two lines of one kind of failure that comes and goes.
	tellEvery = time.Minute
	// kindsMax bounds what is told until it works.
	kindsMax = 16
)

func newTrouble(log *slog.Logger, fails, works string) *trouble {
	return &trouble{log: log, fails: fails, works: works, now: map[string]bool{}, told: map[string]time.Time{}}
}

// failed is told of each failure, and of which object; "": of several. Those that differ in its name alone are of one kind.
func (t *trouble) failed(object string, err error) {
	kind := resultOf(err)
	if kind == "other" {
		kind = strings.ReplaceAll(err.Error(), object, "")
	}
	at := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() {
		t.since = at
	}
	if last, ok := t.told[kind]; t.now[kind] || len(t.now) >= kindsMax || ok && at.Sub(last) < tellEvery {
		return
	}
	if len(t.told) >= kindsMax {
		clear(t.told)
	}
	t.now[kind], t.told[kind] = true, at
	if object == "" {
		t.log.Warn(t.fails, "error", err)
	} else {
		t.log.Warn(t.fails, "write", object, "error", err)
	}
}

// worked is told of each success.
func (t *trouble) worked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.now) > 0 {
		clear(t.now)
		t.log.Info(t.works, "after", time.Since(t.since).Round(time.Millisecond))
	}
	t.since = time.Time{}
}
