package persist

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// refreshBurst is how many refreshes may follow each other after some seconds without, a twentieth of the usual time apart: as many as
// the readers of all topics ask for whose node is lost, until they know where its epochs end and go on in the next ones.
const refreshBurst = 10

// catalogue is which segments there are: the newest manifest, and the heads of the lives that it does not speak for. It never
// lists the store. Safe from any goroutine.
type catalogue struct {
	store  Store
	cache  *cache
	faults *faults
	every  time.Duration // between two refreshes
	pace   *rate.Limiter // of those that somebody must have: one each time, and a burst
	spread *rate.Limiter // of a burst's, so that many who ask share one

	mu  sync.Mutex
	now *edition // nil: never read
	own *Head    // of this process, which needs not be asked for; nil: none

	broken uint64 // the highest number of a manifest that is there and cannot be used
}

// edition is the catalogue at one moment. It never changes.
type edition struct {
	manifest *Manifest
	heads    map[uint64]*Head
	next     uint64    // the first life that was not there
	begun    time.Time // everything that was in the store by then is in it
}

// segment is one that an edition has.
type segment struct {
	name string
	ref  *SegmentRef
}

// learn is told of a head that this process wrote.
func (c *catalogue) learn(h *Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own = h
	if c.now != nil {
		l := *c.now
		l.heads = maps.Clone(l.heads)
		l.heads[h.Life] = h
		c.now = &l
	}
}

func newCatalogue(store Store, cache *cache, faults *faults, every time.Duration) *catalogue {
	return &catalogue{store: store, cache: cache, faults: faults, every: every,
		pace: rate.NewLimiter(rate.Every(every), refreshBurst), spread: rate.NewLimiter(rate.Every(every/20), 1)}
}

func (c *catalogue) current() *edition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// recent is an edition that is at most as old as refreshes are apart.
func (c *catalogue) recent(ctx context.Context) (*edition, error) {
	if l := c.current(); l != nil && time.Since(l.begun) < c.every {
		return l, nil
	}
	c.pace.Allow() // whether it does or not, it is one more
	return c.refresh(ctx)
}

// since is an edition of what was in the store at a time, or later. It may wait for the next refresh: one that would say that
// something is not there has to be sure, and many of them must not cost more requests than a few.
func (c *catalogue) since(ctx context.Context, at time.Time) (*edition, error) {
	for {
		if l := c.current(); l != nil && !l.begun.Before(at) {
			return l, nil
		}
		_, err := c.cache.share(ctx, "the catalogue's turn", func(ctx context.Context) (any, error) {
			if err := errors.Join(c.pace.Wait(ctx), c.spread.Wait(ctx)); err != nil {
				return nil, err
			}
			return c.refresh(ctx)
		})
		if err != nil {
			return nil, err
		}
	}
}

func (c *catalogue) refresh(ctx context.Context) (*edition, error) {
	l, err := c.cache.share(ctx, "catalogue", func(ctx context.Context) (any, error) {
		l, err := c.read(ctx, c.current())
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.own != nil { // it may have been written meanwhile
			l.heads[c.own.Life] = c.own
		}
		c.now = l
		return l, nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the catalogue: %w", err)
	}
	return l.(*edition), nil
}

// hintAfter is how old a catalogue is when the manifest after its own may have gone again: some time before they do.
const hintAfter = time.Minute

// read is what the store has now. Heads come before the manifest: a node drops segments from its head once a manifest says
// that they were replaced, so that a manifest which is read later speaks for everything that a head left out.
func (c *catalogue) read(ctx context.Context, old *edition) (*edition, error) {
	l := &edition{begun: time.Now()}
	if old == nil || l.begun.Sub(old.begun) > hintAfter {
		m, err := c.hintedManifest(ctx)
		if err != nil {
			return nil, err
		}
		if old == nil || m.Number > old.manifest.Number {
			old = &edition{manifest: m, next: max(m.NextLife, 1)}
		}
	}
	for {
		if err := c.readHeads(ctx, l, old); err != nil {
			return nil, err
		}
		m, err := c.newerManifest(ctx, old.manifest)
		if err != nil {
			return nil, err
		}
		if l.manifest = m; m.NextLife <= l.next {
			break
		}
		// It knows lives that nobody saw come.
		old = &edition{manifest: m, heads: l.heads, next: m.NextLife}
	}
	for life := range l.heads {
		if of, kept := l.manifest.life(life); !kept || of.Over {
			delete(l.heads, life)
		}
	}
	return l, nil
}

// headsAtOnce bounds requests for heads.
const headsAtOnce = 8

// readHeads reads the heads of all lives that may have changed, and of those that are new. One that cannot be used is as if
// empty, until it can.
func (c *catalogue) readHeads(ctx context.Context, l, old *edition) error {
	c.mu.Lock()
	own := c.own
	c.mu.Unlock()
	var lives []uint64
	l.heads = map[uint64]*Head{}
	for life, h := range old.heads {
		if l.heads[life] = h; !h.Sealed && (own == nil || own.Life != life) {
			lives = append(lives, life)
		}
	}
	for _, of := range old.manifest.Lives {
		if l.heads[of.Life] == nil && !of.Over {
			l.heads[of.Life] = &Head{Life: of.Life}
			lives = append(lives, of.Life)
		}
	}
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(headsAtOnce)
	for _, life := range lives {
		group.Go(func() error {
			h, err := c.readHead(groupCtx, life)
			if errors.Is(err, ErrNotFound) {
				c.faults.note(headName(life), err)
				return nil
			}
			if err == nil && h != nil {
				mu.Lock()
				l.heads[life] = h
				mu.Unlock()
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for l.next = old.next; ; l.next++ {
		h, err := c.readHead(ctx, l.next)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			return err
		case h == nil:
			h = &Head{Life: l.next}
		}
		l.heads[l.next] = h
	}
}

// readHead is the head of a life; nil, and noted, if it cannot be used.
func (c *catalogue) readHead(ctx context.Context, life uint64) (*Head, error) {
	name := headName(life)
	b, err := c.store.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	h, err := ParseHead(b, life)
	if err != nil {
		c.faults.note(name, err)
		return nil, nil
	}
	return h, nil
}

// hintedManifest is the one that the hint names, or the empty one. If it is broken, one of those before it is better than none:
// what they list is kept for a while. Without a hint, which is before the first manifest, the store is listed, this once: to take
// a store for empty that has only lost its hint would be to lose it.
func (c *catalogue) hintedManifest(ctx context.Context) (*Manifest, error) {
	hint, err := readLatest(ctx, c.store)
	if err != nil {
		if passing(err) {
			return nil, err
		}
		if !errors.Is(err, ErrNotFound) {
			c.faults.note(latestManifest, err)
		}
		if hint, err = lastManifest(ctx, c.store); err != nil {
			return nil, err
		}
	}
	for n := hint; n > 0 && n+manifestsKept > hint; n-- {
		m, err := readManifest(ctx, c.store, n)
		if err == nil {
			return m, nil
		}
		if passing(err) {
			return nil, err
		}
		c.noteManifest(n, err)
	}
	return &Manifest{}, nil
}

// lastManifest is the highest number in the store, 0 if there is none.
func lastManifest(ctx context.Context, store Store) (last uint64, err error) {
	objects, err := store.List(ctx, manifestsFolder, "", 1000)
	for _, o := range objects {
		var n uint64
		if parseNumbers(o.Name, manifestsFolder, &n) {
			last = max(last, n)
		}
	}
	return last, err
}

// newerManifest is the newest one, found by asking for each that follows m. One that is broken is noted and passed over.
func (c *catalogue) newerManifest(ctx context.Context, m *Manifest) (*Manifest, error) {
	for n := m.Number + 1; ; n++ {
		if c.faults.has(manifestName(n)) {
			continue
		}
		switch next, err := readManifest(ctx, c.store, n); {
		case err == nil:
			m = next
		case errors.Is(err, ErrNotFound):
			return m, nil
		case passing(err):
			return nil, err
		default:
			c.noteManifest(n, err)
		}
	}
}

func (c *catalogue) noteManifest(n uint64, err error) {
	c.faults.note(manifestName(n), err)
	c.mu.Lock()
	c.broken = max(c.broken, n)
	c.mu.Unlock()
}

// trust is an error if there is a manifest after m that cannot be used: to build on m would bring back what was deleted.
func (c *catalogue) trust(m *Manifest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken > m.Number {
		return fmt.Errorf("%s cannot be used, so that nobody knows what is kept: restore it, or delete it and what came after it", manifestName(c.broken))
	}
	return nil
}

func readManifest(ctx context.Context, store Store, n uint64) (*Manifest, error) {
	b, err := store.Get(ctx, manifestName(n), 0, -1)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(b, n)
	if err != nil {
		return nil, &unusable{err}
	}
	return m, nil
}

func readLatest(ctx context.Context, store Store) (uint64, error) {
	b, err := store.Get(ctx, latestManifest, 0, -1)
	if err != nil {
		return 0, err
	}
	n, err := parseLatest(b)
	if err != nil {
		return 0, &unusable{err}
	}
	return n, nil
}

// having is the segments that may have a topic.
func (l *edition) having(hash uint64) (all []segment) {
	for i := range l.manifest.Segments {
		if c := &l.manifest.Segments[i]; c.covers(hash) {
			all = append(all, segment{c.name(), &c.SegmentRef})
		}
	}
	for life, h := range l.heads {
		of, _ := l.manifest.life(life)
		for i := range h.Segments {
			if s := &h.Segments[i]; s.Seq > of.Through && s.Filter.May(hash) {
				all = append(all, segment{segmentName(life, s.Seq), &s.SegmentRef})
			}
		}
	}
	return all
}

// freshSegment is one that a life wrote and no manifest has replaced.
type freshSegment struct {
	segment
	life, seq uint64
}

// fresh is all of them: those of a life in their order.
func (l *edition) fresh() (all []freshSegment) {
	for life, h := range l.heads {
		of, _ := l.manifest.life(life)
		for i := range h.Segments {
			if s := &h.Segments[i]; s.Seq > of.Through {
				all = append(all, freshSegment{segment{segmentName(life, s.Seq), &s.SegmentRef}, life, s.Seq})
			}
		}
	}
	return all
}
