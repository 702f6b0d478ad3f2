package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"
)

// Retention is how long messages are kept of the topics whose name matches a pattern. Limits are not to the message: what is
// past one goes when the segment that it is in is rewritten anyhow, or when half of that segment may go.
type Retention struct {
	Pattern string        // path.Match syntax: "orders.*"
	Age     time.Duration // 0: no limit
	Bytes   int64         // of one topic; 0: no limit
}

// retentions is rules, of which the first one that matches a topic counts. A topic that none matches is kept for good.
type retentions []Retention

func (rules retentions) check() error {
	for _, r := range rules {
		if _, err := path.Match(r.Pattern, ""); err != nil {
			return fmt.Errorf("retention: pattern %q: %w", r.Pattern, err)
		}
		if r.Age < 0 || r.Bytes < 0 {
			return fmt.Errorf("retention of %q is %v and %d bytes, want 0 (no limit) or more", r.Pattern, r.Age, r.Bytes)
		}
	}
	return nil
}

func (rules retentions) of(topic string) Retention {
	for _, r := range rules {
		if ok, _ := path.Match(r.Pattern, topic); ok {
			return r
		}
	}
	return Retention{}
}

// limits is the shortest age of any rule, 0 if none has one, and whether a rule counts bytes.
func (rules retentions) limits() (age time.Duration, bytes bool) {
	for _, r := range rules {
		if r.Age > 0 && (age == 0 || r.Age < age) {
			age = r.Age
		}
		bytes = bytes || r.Bytes > 0
	}
	return age, bytes
}

// span is the times of its oldest and newest message. Clocks are set back, so that these need not be its first and last.
func (e *entry) span() (oldest, newest int64) {
	oldest, newest = e.times[0].UnixMs, e.times[0].UnixMs
	for _, t := range e.times[1:] {
		oldest, newest = min(oldest, t.UnixMs), max(newest, t.UnixMs)
	}
	return oldest, newest
}

// expired says whether the whole of a run is past its age. One with a time that no right clock has said has none: before 2025, long
// before its epoch began, or ahead of now. None is older than its epoch.
func (r Retention) expired(e *entry, now time.Time) bool {
	if r.Age == 0 {
		return false
	}
	least := int64(clockLeastMs)
	oldest, newest := e.span()
	if e.began < aheadFrom(now) {
		least, newest = max(least, e.began-aheadMax.Milliseconds()), max(newest, e.began)
	}
	return oldest >= least && newest < now.Add(-r.Age).UnixMilli()
}

// purge is a segment that is to be rewritten without what is past its retention: what is too old, and of each topic so many of its
// first runs.
type purge struct {
	name string
	drop map[string]int
	all  bool // nothing would be left
}

// sweep finds the compacted segments of which at least half may go, or, if cfg.Thorough says so, anything; then also whether
// anything may of those that were not compacted yet.
func (u *Upkeep) sweep(ctx context.Context, e *edition, now time.Time) (purges []purge, fresh bool, err error) {
	compacted := map[string]bool{}
	for i := range e.manifest.Segments {
		compacted[e.manifest.Segments[i].name()] = true
	}
	err = u.judgeAll(ctx, e, now, func(name string, x *index, totals map[string]int64) {
		dropped := int64(0)
		p := u.judge(x, totals, now, func(_ string, of *entry) { dropped += int64(of.length) })
		switch p.name = name; {
		case !compacted[name]:
			fresh = fresh || u.cfg.Thorough && dropped > 0
		case 2*dropped >= x.bytes, u.cfg.Thorough && dropped > 0:
			p.all = dropped == x.bytes
			purges = append(purges, p)
		}
	})
	return purges, fresh, err
}

// Expired is messages of a topic that are past their retention.
type Expired struct {
	Topic    string
	Messages uint64
	Bytes    int64 // of frames, before compression
}

// Expired is what there is of these, in order of topics. Nothing is changed.
func (u *Upkeep) Expired(ctx context.Context, now time.Time) ([]Expired, error) {
	e, err := u.reader.catalogue.refresh(ctx)
	if err != nil {
		return nil, err
	}
	found := map[string]*Expired{}
	err = u.judgeAll(ctx, e, now, func(_ string, x *index, totals map[string]int64) {
		u.judge(x, totals, now, func(topic string, of *entry) {
			if found[topic] == nil {
				found[topic] = &Expired{Topic: topic}
			}
			found[topic].Messages += uint64(of.count)
			found[topic].Bytes += int64(of.length)
		})
	})
	all := make([]Expired, 0, len(found))
	for _, topic := range slices.Sorted(maps.Keys(found)) {
		all = append(all, *found[topic])
	}
	return all, err
}

// judgeAll calls judge with the indexes of the segments of which anything may be past its retention, from the newest to the oldest,
// and for each with the bytes of topics that are counted up on the way.
func (u *Upkeep) judgeAll(ctx context.Context, e *edition, now time.Time, judge func(name string, x *index, totals map[string]int64)) error {
	age, countsBytes := u.rules.limits()
	if age == 0 && !countsBytes {
		return nil
	}
	segments := e.all()
	slices.SortStableFunc(segments, func(a, b segment) int { return cmp.Compare(b.ref.LastMs, a.ref.LastMs) })
	totals := map[string]int64{} // of topics whose bytes count
	for i := range segments {
		s := &segments[i]
		if u.faults.has(s.name) || !countsBytes && s.ref.FirstMs >= now.Add(-age).UnixMilli() {
			continue
		}
		x, err := u.reader.indexOf(ctx, s)
		if gone := (*goneError)(nil); errors.As(err, &gone) {
			u.faults.note(gone.name, err)
		} else if err != nil {
			return err
		}
		if x != nil {
			judge(s.name, x, totals)
		}
	}
	return nil
}

// judge is which runs of a segment may go, and tells of each. totals is what newer segments have.
func (u *Upkeep) judge(x *index, totals map[string]int64, now time.Time, goes func(topic string, e *entry)) (p purge) {
	p.drop = map[string]int{}
	for topic, entries := range x.all() {
		rule := u.rules.of(topic)
		for n := len(entries) - 1; n >= 0; n-- {
			e := &entries[n]
			if rule.Bytes > 0 {
				if totals[topic] >= rule.Bytes && p.drop[topic] == 0 {
					p.drop[topic] = n + 1 // and all that are older
				}
				totals[topic] += int64(e.length)
			}
			if p.drop[topic] > 0 || rule.expired(e, now) {
				goes(topic, e)
			}
		}
	}
	return p
}
