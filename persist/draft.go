package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// draft is the next manifest while it is being made.
type draft struct {
	Manifest
	edition *edition
	now     time.Time
	made    []string // objects that were made for it

	// What has gone into it, which counts once it is published.
	merged                          int64 // segments
	mergedBytes, madeBytes, expired int64
}

func newDraft(e *edition, now time.Time) *draft {
	m := *e.manifest
	m.Number, m.WrittenMs, m.NextLife = m.Number+1, now.UnixMilli(), max(e.next, m.NextLife)
	m.Lives, m.Segments, m.Garbage = slices.Clone(m.Lives), slices.Clone(m.Segments), slices.Clone(m.Garbage)
	return &draft{Manifest: m, edition: e, now: now}
}

// settleLives takes up new lives, and judges which are over and which may go, unless the clock is in doubt: both go by it. still is
// those whose heads do not change.
func (d *draft) settleLives(still map[uint64]bool, doubts bool) (changed bool) {
	for life := range d.edition.heads {
		if _, known := slices.BinarySearchFunc(d.edition.manifest.Lives, life, byLife); !known {
			d.Lives = append(d.Lives, ManifestLife{Life: life})
			changed = true
		}
	}
	slices.SortFunc(d.Lives, func(a, b ManifestLife) int { return cmp.Compare(a.Life, b.Life) })
	if doubts {
		return changed
	}
	kept := d.Lives[:0]
	for _, l := range d.Lives {
		sealed := l.Over // others go at once
		if h := d.edition.heads[l.Life]; h != nil && d.over(h, l.Through, still[l.Life]) {
			l.Over, l.EndMs, sealed, changed = true, d.WrittenMs, h.Sealed, true
		}
		if l.Over && !(sealed && d.WrittenMs-l.EndMs < sealedFor.Milliseconds()) {
			d.Garbage = append(d.Garbage, Garbage{SinceMs: d.WrittenMs, Life: l.Life})
			changed = true
			continue
		}
		kept = append(kept, l)
	}
	d.Lives = kept
	return changed
}

// over says whether nobody will write a head again, and all that it lists was replaced.
func (d *draft) over(h *Head, through uint64, still bool) bool {
	if n := len(h.Segments); n > 0 && h.Segments[n-1].Seq > through || h.WrittenMs == 0 {
		return false // a head that could not be read has no time
	}
	if h.Sealed || !still {
		return h.Sealed
	}
	silent := d.WrittenMs - h.WrittenMs
	if silent > silentFor.Milliseconds() {
		return true
	}
	for _, other := range d.edition.heads {
		if other.Life > h.Life && other.Name == h.Name && silent > overAfter.Milliseconds() {
			return true
		}
	}
	return false
}

func byLife(l ManifestLife, life uint64) int { return cmp.Compare(l.Life, life) }

// job is segments that are to become others, or nothing.
type job struct {
	fresh  []freshSegment
	old    []Compacted
	level  int // of what is made
	shard  int // of so many shards is what the old ones have
	shards int
	drop   map[string][]int // of old[0], if it is purged: which of each topic's runs, in order
	empty  bool             // nothing is left
}

const (
	fanIn    = 16 // segments are merged when there are so many
	fanInMax = 64 // and at most as many at once, when there are more
	// shardsMax is into how many parts topics are split once a quarter of what can be merged was: from there on a reader of one
	// topic need not step over all others.
	shardsMax = 16
)

// weight is about what a segment takes in memory when it is merged: itself, and its index unpacked.
func weight(s *SegmentRef) int64 { return s.Size + 3*s.Tail }

// fitting is how many of some segments, in order, can be merged at once, and whether more cannot.
func fitting(n int, at func(i int) *SegmentRef, bytesMax int64) (k int, full bool) {
	bytes := int64(0)
	for k < min(n, fanInMax) {
		w := weight(at(k))
		if k > 0 && bytes+w > bytesMax {
			break
		}
		bytes += w
		k++
	}
	return k, k < n || bytes >= bytesMax
}

// batch is how many of some segments, in order, are merged at once; 0: it is not time yet. One alone is only if single is true.
func batch(n int, at func(i int) *SegmentRef, bytesMax int64, single bool) int {
	switch k, full := fitting(n, at, bytesMax); {
	case k >= fanIn, full && k > 1, full && single:
		return k
	default:
		return 0
	}
}

// choose is what is to be done next: what nodes wrote first, since the most of it comes; then what was compacted, the fewest
// times first; then what may go.
func (u *Upkeep) choose(ctx context.Context, d *draft) (_ *job, err error) {
	// Lives take turns by the age of what they wrote, but each one's segments go in order.
	fresh := d.edition.fresh()
	slices.SortStableFunc(fresh, func(a, b freshSegment) int {
		return cmp.Or(cmp.Compare(a.ref.FirstMs, b.ref.FirstMs), cmp.Compare(a.life, b.life), cmp.Compare(a.seq, b.seq))
	})
	fresh = inOrder(fresh)
	of := func(i int) *SegmentRef { return fresh[i].ref }
	if n := batch(len(fresh), of, u.cfg.MergeBytes, true); n > 0 {
		return &job{fresh: fresh[:n], level: 1, shards: 1}, nil
	}
	if j := u.chooseOld(d); j != nil {
		return j, nil
	}
	if u.doubts {
		u.swept, u.purges = time.Time{}, nil
	} else if len(u.purges) == 0 && d.now.Sub(u.swept) >= sweepEvery {
		if u.purges, u.fresh, err = u.sweep(ctx, d.edition, d.now); err != nil {
			return nil, err
		}
		if u.swept = d.now; u.cfg.Thorough && (len(u.purges) > 0 || u.fresh) {
			u.swept = time.Time{} // and again, when these are done
		}
	}
	if u.fresh {
		u.fresh = false
		n, _ := fitting(len(fresh), of, u.cfg.MergeBytes)
		return &job{fresh: fresh[:n], level: 1, shards: 1}, nil
	}
	for len(u.purges) > 0 {
		p := u.purges[0]
		u.purges = u.purges[1:]
		for _, c := range d.Segments {
			if c.name() == p.name { // else it was merged since
				return &job{old: []Compacted{c}, level: c.Level, shard: c.Shard, shards: c.Shards, drop: p.drop, empty: p.all}, nil
			}
		}
	}
	return nil, nil
}

// inOrder puts the segments of each life into the order of their numbers, in the places that this life has.
func inOrder(fresh []freshSegment) []freshSegment {
	places := map[uint64][]int{}
	for i, f := range fresh {
		places[f.life] = append(places[f.life], i)
	}
	sorted := slices.Clone(fresh)
	for _, at := range places {
		of := make([]freshSegment, 0, len(at))
		for _, i := range at {
			of = append(of, fresh[i])
		}
		slices.SortFunc(of, func(a, b freshSegment) int { return cmp.Compare(a.seq, b.seq) })
		for k, i := range at {
			sorted[i] = of[k]
		}
	}
	return sorted
}

// chooseOld is compacted segments of one level and shard of which there are enough. Those that are half of what can be merged
// stay as they are.
func (u *Upkeep) chooseOld(d *draft) *job {
	type group struct{ level, shards, shard int }
	groups := map[group][]Compacted{}
	var order []group
	for _, c := range d.Segments {
		if weight(&c.SegmentRef) >= u.cfg.MergeBytes/2 || u.faults.has(c.name()) {
			continue
		}
		g := group{c.Level, c.Shards, c.Shard}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], c)
	}
	slices.SortStableFunc(order, func(a, b group) int { return cmp.Compare(a.level, b.level) })
	for _, g := range order {
		of := groups[g]
		if n := batch(len(of), func(i int) *SegmentRef { return &of[i].SegmentRef }, u.cfg.MergeBytes, false); n > 0 {
			return &job{old: of[:n], level: min(g.level+1, 255), shard: g.shard, shards: g.shards}
		}
	}
	return nil
}

// carryOut makes the segments of a job and puts them into the draft, in the place of those that they replace. Those that cannot
// be used stay where they are: a later version of this program may know better.
func (u *Upkeep) carryOut(ctx context.Context, j *job, d *draft) error {
	var sources []*source
	var size int64
	open := func(s segment) (usable bool, err error) {
		size += s.ref.Size
		if j.empty {
			return true, nil
		}
		of, err := openSource(ctx, u.store, u.faults, s)
		if of != nil {
			sources = append(sources, of)
		}
		return of != nil, err
	}
	for i := range j.fresh {
		usable, err := open(j.fresh[i].segment)
		if err != nil {
			return err
		}
		d.passFresh(&j.fresh[i], usable)
	}
	for i := range j.old {
		usable, err := open(segment{j.old[i].name(), &j.old[i].SegmentRef})
		if err != nil {
			return err
		}
		if usable {
			d.passOld(&j.old[i])
		}
	}
	split := 1
	if j.shards == 1 && size >= u.cfg.MergeBytes/4 && j.drop == nil {
		split = shardsMax
	}
	for _, s := range sources {
		d.merged++
		d.mergedBytes += s.ref.Size
	}
	made, err := mergeSources(sources, split, u.faults, func(topic string, n int, e *entry) bool {
		_, dropped := slices.BinarySearch(j.drop[topic], n)
		if !dropped && (u.doubts || !u.rules.of(topic).expired(e, d.now)) {
			return true
		}
		d.expired += int64(e.count)
		return false
	})
	if err != nil {
		return err
	}
	if j.empty {
		d.expired = int64(j.old[0].Messages)
	}
	for i := range made {
		m := &made[i]
		u.parts++
		c := Compacted{Manifest: d.Number, Maker: u.maker, Part: u.parts, Level: j.level, Shard: j.shard, Shards: j.shards, SegmentRef: m.ref}
		if split > 1 {
			c.Shard, c.Shards = m.shard, split
		}
		// Nobody else has this name. If it exists, an answer was lost on the way.
		if err := u.store.Create(ctx, c.name(), m.body); err != nil && !errors.Is(err, ErrExists) {
			return fmt.Errorf("cannot store what was compacted: %w", err)
		}
		d.made, d.madeBytes = append(d.made, c.name()), d.madeBytes+c.Size
		d.Segments = append(d.Segments, c)
	}
	return nil
}

// passFresh says of the next segment of a life that it counts no more, and if it was usable that it may go.
func (d *draft) passFresh(f *freshSegment, usable bool) {
	i, _ := slices.BinarySearchFunc(d.Lives, f.life, byLife)
	first := d.Lives[i].Through + 1
	d.Lives[i].Through = f.seq
	if !usable {
		return
	}
	for k := len(d.Garbage) - 1; k >= 0 && d.Garbage[k].SinceMs == d.WrittenMs; k-- {
		if g := &d.Garbage[k]; g.Life == f.life && g.Last+1 == first && g.Last > 0 {
			g.Last = f.seq
			return
		}
	}
	d.Garbage = append(d.Garbage, Garbage{SinceMs: d.WrittenMs, Life: f.life, First: first, Last: f.seq})
}

// passOld takes a compacted segment out of the draft.
func (d *draft) passOld(c *Compacted) {
	d.Garbage = append(d.Garbage, Garbage{SinceMs: d.WrittenMs, Manifest: c.Manifest, Maker: c.Maker, Part: c.Part})
	d.Segments = slices.DeleteFunc(d.Segments, func(of Compacted) bool { return of.name() == c.name() })
}
