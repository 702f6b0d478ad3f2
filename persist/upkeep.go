package persist

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"
)

// UpkeepConfig is what an Upkeep is told; zero values stand for what is in brackets.
type UpkeepConfig struct {
	Rules      []Retention   // [everything is kept]
	Grace      time.Duration // between a manifest that needs an object no more, and its deletion [10 min]
	MergeBytes int64         // read into memory for one merge; about twice as much is used [32 MiB]
	Thorough   bool          // what may go goes at once: not when that is worth it, and by the clock alone
	Log        *slog.Logger  // [slog.Default]
}

const (
	upkeepEvery = 10 * time.Second
	upkeepPause = 5 * time.Minute // at most, between two tries while the store fails
	leaseFor    = 2 * time.Minute
	leaseMax    = 2 * leaseFor // from now; one that is said to last longer is of a clock that is wrong
	sweepEvery  = time.Hour
	lostEvery   = 6 * time.Hour // between two looks for objects that nothing lists

	// overAfter is how old the head of a life is when nobody can be writing it any more, if its node has come back as another
	// life; if it has not, it is silentFor. A head is put once an hour.
	overAfter = 24 * time.Hour
	silentFor = 7 * 24 * time.Hour
	// watchedFor is how long an upkeep has to have seen a head unchanged itself, since either's clock may be wrong.
	watchedFor = 2 * headEvery
	// sealedFor is how long a sealed life waits for somebody to go on with its epochs.
	sealedFor = 7 * 24 * time.Hour
)

// Upkeep keeps a store small and quick to search: it merges segments, and removes what need not be kept. Every node may run one;
// they take turns by a lease, for economy, and a manifest's name, which only one of them gets, makes sure that no two changes
// meet. Its owner is one goroutine, but for Done and what collects metrics. It is a collector of prometheus'.
type Upkeep struct {
	store  Store
	rules  retentions
	cfg    UpkeepConfig
	log    *slog.Logger
	maker  uint64 // who it is, in leases and names
	parts  uint64 // made so far
	reader *Reader
	faults *faults

	counts  upkeepCounts
	trouble *trouble
	swept   time.Time
	purges  []purge // found by the last sweep and not done yet
	fresh   bool    // it has found that what was not compacted yet is to be
	looked  time.Time
	expires time.Time // of its lease; zero: it has none

	heads   sightings[headSeen]
	garbage sightings[Garbage] // in a manifest, without the time that this says
	clock   wallClock
	doubts  bool // its clock is not to be believed yet: nothing goes for its age
}

// headSeen is a head that an upkeep has seen.
type headSeen struct {
	life      uint64
	writtenMs int64
}

// sightings are when each of the things that are there was seen first.
type sightings[K comparable] map[K]time.Time

// see notes what is there now; what is not is forgotten.
func (s *sightings[K]) see(there iter.Seq[K], now time.Time) {
	seen := sightings[K]{}
	for k := range there {
		since, known := (*s)[k]
		if !known {
			since = now
		}
		seen[k] = since
	}
	*s = seen
}

// last reports whether something has been seen for so long.
func (s sightings[K]) last(k K, now time.Time, d time.Duration) bool {
	since, seen := s[k]
	return seen && now.Sub(since) >= d
}

// UpkeepDone counts what was done.
type UpkeepDone struct {
	Merged  int64 // segments that became others
	Made    int64 // segments that they became
	Expired int64 // messages past their retention that were left out of these
	Deleted int64 // objects that were garbage, or lost; a life that went counts as one
}

// Done is what it has done so far.
func (u *Upkeep) Done() UpkeepDone {
	return UpkeepDone{u.counts.merged.Load(), u.counts.made.Load(), u.counts.expired.Load(), u.counts.deleted.Load()}
}

// NewUpkeep makes an upkeep, which asks for nothing yet.
func NewUpkeep(store Store, cfg UpkeepConfig) (*Upkeep, error) {
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Minute
	}
	if cfg.MergeBytes == 0 {
		cfg.MergeBytes = 32 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	u := &Upkeep{store: store, rules: cfg.Rules, cfg: cfg, log: cfg.Log, maker: rand.Uint64()}
	// It reads indexes one after the other, and each once.
	u.reader = NewReader(store, ReaderConfig{CacheBytes: 1 << 20, Log: cfg.Log})
	u.faults = u.reader.faults
	u.counts.failures = newUpkeepFailures()
	u.trouble = newTrouble(cfg.Log, "upkeep of the store fails, and will be tried again", "upkeep of the store works again")
	return u, u.rules.check()
}

// Run looks after the store until ctx is over. What fails is tried again later, and later each time.
func (u *Upkeep) Run(ctx context.Context) {
	began, pause := time.Now(), upkeepEvery
	for {
		if step := u.clock.look(time.Since(began), time.Now()); step != 0 {
			u.log.Warn("the clock was set; nothing is deleted for its age in the next hour", "by", step)
		}
		u.doubts = !u.clock.believed()
		wait := upkeepEvery
		if err := u.turn(ctx); err == nil {
			u.trouble.worked()
			pause = upkeepEvery
		} else if ctx.Err() == nil {
			u.counts.failures.WithLabelValues(resultOf(err)).Inc()
			u.trouble.failed("", err)
			pause = min(2*pause, upkeepPause)
			wait = jitter(pause)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// turn does all that there is to do, if the lease is this one's.
func (u *Upkeep) turn(ctx context.Context) error {
	for {
		now := time.Now()
		mine, err := u.lease(ctx, now)
		u.counts.lease.Store(mine)
		if err != nil || !mine {
			return err
		}
		more, err := u.Step(ctx, now)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if now := time.Now(); now.Sub(u.looked) >= lostEvery {
		u.looked = now
		if _, err := u.Lost(ctx, true, func(Object, string) error { return nil }); err != nil {
			return err
		}
	}
	u.counts.passed.Store(time.Now().UnixMilli())
	return nil
}

// lease says whether this one is to look after the store now. It asks anew when half of its time is over.
func (u *Upkeep) lease(ctx context.Context, now time.Time) (bool, error) {
	if left := u.expires.Sub(now); left > leaseFor/2 && left <= leaseFor {
		return true, nil
	}
	objects, err := u.store.List(ctx, leasesFolder, "", 1000)
	if err != nil {
		return false, err
	}
	var term uint64
	for _, o := range objects {
		var n uint64
		if parseNumbers(o.Name, leasesFolder, &n) {
			term = max(term, n)
		}
	}
	if term > 0 {
		b, err := u.store.Get(ctx, leaseName(term), 0, -1)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
		// One that cannot be read is as good as over.
		if l, err := parseLease(b); err == nil && l.holder != u.maker && now.UnixMilli() < l.expiresMs && l.expiresMs <= now.Add(leaseMax).UnixMilli() {
			return false, nil
		}
	}
	expires := now.Add(leaseFor)
	err = u.store.Create(ctx, leaseName(term+1), appendLease(nil, lease{u.maker, expires.UnixMilli()}))
	if errors.Is(err, ErrExists) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	u.expires = expires
	for _, o := range objects {
		if err := u.store.Delete(ctx, o.Name); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Step makes the next manifest, if anything is to be done; more: there may be more to do. It may be called without a lease.
func (u *Upkeep) Step(ctx context.Context, now time.Time) (more bool, err error) {
	e, err := u.reader.catalogue.refresh(ctx)
	if err != nil {
		return false, err
	}
	if err := u.reader.catalogue.trust(e.manifest); err != nil {
		return false, err
	}
	next := newDraft(e, now)
	changed := next.settleLives(u.watch(e, now), u.doubts)
	u.seeGarbage(e.manifest.Garbage, now)
	if cleared, err := u.clear(ctx, next); err != nil {
		return false, err
	} else if cleared {
		changed = true
	}
	job, err := u.choose(ctx, next)
	if err != nil {
		return false, err
	}
	if job == nil && !changed {
		return false, nil
	}
	if job != nil {
		if err := u.carryOut(ctx, job, next); err != nil {
			return false, err
		}
	}
	return job != nil, u.publish(ctx, next)
}

// watch is the lives whose heads have not changed for as long as one that is alive may take.
func (u *Upkeep) watch(e *edition, now time.Time) (still map[uint64]bool) {
	u.heads.see(func(yield func(headSeen) bool) {
		for life, h := range e.heads {
			if !yield(headSeen{life, h.WrittenMs}) {
				return
			}
		}
	}, now)
	still = map[uint64]bool{}
	for life, h := range e.heads {
		still[life] = u.heads.last(headSeen{life, h.WrittenMs}, now, watchedFor)
	}
	return still
}

// seeGarbage notes what is garbage by a manifest that is in the store.
func (u *Upkeep) seeGarbage(garbage []Garbage, now time.Time) {
	u.garbage.see(func(yield func(Garbage) bool) {
		for _, g := range garbage {
			if !yield(g.timeless()) {
				return
			}
		}
	}, now)
}

// timeless is the same without its time, which a clock that was wrong may have said, and another one puts right.
func (g Garbage) timeless() Garbage {
	g.SinceMs = 0
	return g
}

// rested reports whether something has been garbage for long enough that nobody reads it: by the clocks of who made it garbage and of
// this one, of which either may be wrong, and by what this one has seen itself. A thorough one does not run for so long.
func (u *Upkeep) rested(g Garbage, now time.Time) bool {
	if now.UnixMilli()-g.SinceMs < u.cfg.Grace.Milliseconds() {
		return false
	}
	return u.cfg.Thorough || u.garbage.last(g.timeless(), now, u.cfg.Grace)
}

// clear deletes what has been garbage for long enough.
func (u *Upkeep) clear(ctx context.Context, d *draft) (cleared bool, err error) {
	kept := d.Garbage[:0]
	for _, g := range d.Garbage {
		if g.SinceMs > d.WrittenMs { // said a clock that was ahead
			g.SinceMs, cleared = d.WrittenMs, true
		}
		if !u.rested(g, d.now) {
			kept = append(kept, g)
			continue
		}
		n, err := u.remove(ctx, g)
		u.counts.deleted.Add(n)
		if err != nil {
			return false, err
		}
		cleared = true
	}
	d.Garbage = kept
	return cleared, nil
}

func (u *Upkeep) remove(ctx context.Context, g Garbage) (n int64, err error) {
	switch {
	case g.Life == 0 && g.Part == 0:
		return 1, u.store.Delete(ctx, manifestName(g.Manifest))
	case g.Life == 0:
		return 1, u.store.Delete(ctx, compactName(g.Manifest, g.Maker, g.Part))
	case g.Last == 0:
		return 1, u.removeLife(ctx, g.Life)
	}
	for seq := g.First; seq <= g.Last; seq++ {
		if err := u.store.Delete(ctx, segmentName(g.Life, seq)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// removeLife deletes what there is of a life, its head last: it can be begun again.
func (u *Upkeep) removeLife(ctx context.Context, life uint64) error {
	for _, folder := range []string{segmentName(life, 0), claimName(life, 0)} {
		folder = folder[:len(folder)-10]
		for {
			objects, err := u.store.List(ctx, folder, "", 1000)
			if err != nil {
				return err
			}
			if len(objects) == 0 {
				break
			}
			for _, o := range objects {
				if err := u.store.Delete(ctx, o.Name); err != nil {
					return err
				}
			}
		}
	}
	if err := u.store.Delete(ctx, sealedName(life)); err != nil {
		return err
	}
	return u.store.Delete(ctx, headName(life))
}

// publish makes the draft the newest manifest. If somebody else was first, what was made for it is of no use.
func (u *Upkeep) publish(ctx context.Context, d *draft) error {
	if d.Number > manifestsKept {
		d.Garbage = append(d.Garbage, Garbage{SinceMs: d.WrittenMs, Manifest: d.Number - manifestsKept})
	}
	name, body := manifestName(d.Number), AppendManifest(nil, &d.Manifest)
	err := u.store.Create(ctx, name, body)
	if errors.Is(err, ErrExists) {
		// A client that tries again after an answer that was lost is told so of its own object, too.
		there, err := u.store.Get(ctx, name, 0, -1)
		if err != nil {
			return err
		}
		if !bytes.Equal(there, body) {
			return u.discard(ctx, d)
		}
	} else if err != nil {
		return err
	}
	u.counts.add(d)
	u.seeGarbage(d.Garbage, d.now)
	return u.store.Put(ctx, latestManifest, appendLatest(nil, d.Number))
}

func (u *Upkeep) discard(ctx context.Context, d *draft) error {
	for _, name := range d.made {
		if err := u.store.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
