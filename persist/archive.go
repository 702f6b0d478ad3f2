package persist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Config is what an Archive is told; zero values stand for what is in brackets.
type Config struct {
	Name string // of the node
	Slot int    // -1: it has none

	Interval     time.Duration // between the oldest message that is not in a segment, and the segment [1 s]
	SegmentBytes int           // at which one is written before that [8 MiB]
	BacklogBytes int           // kept while the store is away, before the oldest are given up [64 MiB]
	Uploads      int           // segments under way at once [4]
	CacheBytes   int64         // of the reader [16 MiB]
	Log          *slog.Logger  // [slog.Default]

	// Done hands a batch back: nil, it is stored; else it is not. On a goroutine of the archive, which waits.
	Done func(b *Batch, err error)
}

func (c *Config) fill() error {
	if c.Interval == 0 {
		c.Interval = time.Second
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = 8 << 20
	}
	if c.BacklogBytes == 0 {
		c.BacklogBytes = 64 << 20
	}
	if c.Uploads == 0 {
		c.Uploads = 4
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.SegmentBytes > c.BacklogBytes {
		return fmt.Errorf("a segment of %d bytes has no room in a backlog of %d", c.SegmentBytes, c.BacklogBytes)
	}
	return nil
}

// What Done is told, and Flush's callers.
var (
	ErrGivenUp = errors.New("given up: the store was away for too long")
	ErrClosed  = errors.New("the archive is closed")
)

// Archive is a process's door to its store. What is offered goes into the backlog; the writer takes it from there into cargos, each
// of which becomes a segment; uploads bring these to the store, several at once; the lister writes the head that lists them, in
// their order, and hands the batches back. A store that is away costs nothing but memory, up to a limit, and then the oldest
// messages. Safe from any goroutine.
type Archive struct {
	cfg    Config
	store  Store
	log    *slog.Logger
	reader *Reader

	mu         sync.Mutex // never held while waiting, nor for longer than a list of batches takes to copy
	backlog    backlog
	head       headState
	closing    bool          // no more offers
	complained time.Time     // of messages that were given up
	changed    chan struct{} // closed, and replaced, when one of the above has

	sending, listing *trouble // of segments, and of heads and what comes with them: one may fail while the other works

	// frames is held by readers while they look into batches, and taken for a moment before batches are handed back.
	frames sync.RWMutex

	share  float64 // of a cargo's bytes that its segment was, the last time; the writer's
	holes  holes
	counts counts
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

// Open starts an archive. That the store is away is no error: it goes on trying.
func Open(cfg Config, store Store) (*Archive, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &Archive{cfg: cfg, store: store, log: cfg.Log, changed: make(chan struct{}), stop: stop, share: 1.0 / 3}
	for _, t := range []**trouble{&a.sending, &a.listing} {
		*t = newTrouble(cfg.Log, "the store fails, and will be tried again", "the store is back")
	}
	a.reader = NewReader(store, ReaderConfig{CacheBytes: cfg.CacheBytes, Backlog: a, Log: cfg.Log})
	a.tasks.Go(func() { a.write(ctx) })
	a.tasks.Go(func() { a.list(ctx) })
	a.tasks.Go(func() { a.shed(ctx) })
	return a, nil
}

// Resolve finds where a reader of a topic begins, in the store or the backlog. It blocks.
func (a *Archive) Resolve(ctx context.Context, topic string, q Query) (Start, error) {
	return a.reader.Resolve(ctx, topic, q)
}

// Read is the page behind a position, from the store or the backlog. It blocks.
func (a *Archive) Read(ctx context.Context, topic string, at Position, bytesMax int) (Page, error) {
	return a.reader.Read(ctx, topic, at, bytesMax)
}

// change runs f with the lock and wakes whoever waits for a change.
func (a *Archive) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// await waits until ready is true. It is called with the lock, at every change, and says when else to look again; zero: never.
func (a *Archive) await(ctx context.Context, ready func(now time.Time) (done bool, again time.Time)) error {
	for {
		a.mu.Lock()
		done, again := ready(time.Now())
		changed := a.changed
		a.mu.Unlock()
		if done {
			return nil
		}
		var late <-chan time.Time
		var timer *time.Timer
		if !again.IsZero() {
			timer = time.NewTimer(time.Until(again))
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
		case <-ctx.Done():
		}
		if timer != nil {
			timer.Stop()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// Flush returns when everything that was offered before is in the store, and was handed back. ErrGivenUp: some of it is not.
func (a *Archive) Flush(ctx context.Context) error {
	var through, lost uint64
	a.change(func() {
		through = a.backlog.offered
		a.backlog.flush = through
		lost = a.backlog.lost
	})
	err := a.await(ctx, func(time.Time) (bool, time.Time) { return a.backlog.settled(through), time.Time{} })
	if err != nil {
		return fmt.Errorf("cannot flush: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.backlog.lost != lost {
		return ErrGivenUp
	}
	return nil
}

// Seal ends a life in good order: everything offered is stored, and then where its topics stand, so that another life may go on
// with their epochs. Nothing may be offered any more. If ctx ends before that, the life ends as if by a crash.
func (a *Archive) Seal(ctx context.Context, positions []Sealed) error {
	a.change(func() { a.closing = true })
	if err := a.Flush(ctx); err != nil {
		return fmt.Errorf("cannot seal: %w", err)
	}
	// A life it needs, if only to be sealed.
	err := a.await(ctx, func(time.Time) (bool, time.Time) { return a.head.life != 0 && !a.head.renew, time.Time{} })
	if err != nil {
		return fmt.Errorf("cannot seal, having no life: %w", err)
	}
	life := a.Life()
	err = persevere(ctx, a.listing, "sealed record", func(ctx context.Context) error {
		e, err := a.reader.catalogue.refresh(ctx)
		if err != nil {
			return err
		}
		record := AppendSealed(nil, life, max(e.next, life+1)-1, positions)
		return a.createOwn(ctx, sealedName(life), record)
	})
	if err == nil {
		a.change(func() { a.head.seal = a.head.life == life })
		err = a.await(ctx, func(time.Time) (bool, time.Time) { return a.head.sealed || a.head.life != life, time.Time{} })
	}
	if err == nil && a.Life() != life {
		err = errors.New("it was over before")
	}
	if err != nil {
		return fmt.Errorf("cannot seal life %d: %w", life, err)
	}
	return nil
}

// Life is the number of the archive's life; 0: it has none yet.
func (a *Archive) Life() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.head.life
}

// Close flushes, as long as ctx lasts, and ends the archive's goroutines. What is not stored by then is handed back as given up.
func (a *Archive) Close(ctx context.Context) error {
	a.change(func() { a.closing = true })
	err := a.Flush(ctx)
	a.stop()
	a.tasks.Wait()
	var rest *handover
	a.change(func() { rest = a.backlog.takeAll() })
	a.giveUp(rest, ErrGivenUp)
	return err
}

const (
	requestPatience = time.Minute // of one try; stores have shorter ones of their own
	pauseMin        = 100 * time.Millisecond
	pauseMax        = 5 * time.Second
	giveUpEvery     = 10 * time.Minute // between two lines of what was given up; a metric counts it
)

// persevere tries until it works, or ctx is over.
func persevere(ctx context.Context, t *trouble, what string, try func(context.Context) error) error {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		trying, cancel := context.WithTimeout(ctx, requestPatience)
		err := try(trying)
		cancel()
		if err == nil {
			t.worked()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.failed(what, err)
		timer := time.NewTimer(jitter(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// jitter is between a half and the whole of d: those whom one store failed do not come back as one.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
