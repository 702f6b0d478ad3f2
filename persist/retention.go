package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

func (e *entry) newestMs() int64 { return e.times[len(e.times)-1].UnixMs }

// expired says whether the whole of a run is past its age. One of a clock that was never set has none, and none is older than its
// epoch.
func (r Retention) expired(e *entry, now time.Time) bool {
	newest := e.newestMs()
	if e.began < aheadFrom(now) {
		newest = max(newest, e.began)
	}
	return r.Age > 0 && newest >= clockLeastMs && newest < now.Add(-r.Age).UnixMilli()
}

// purge is a segment that is to be rewritten without what is past its retention: what is too old, and of each topic so many of its
// first runs.
type purge struct {
	name string
	drop map[string]int
	all  bool // nothing would be left
}

// sweep finds the compacted segments of which at least half may go. From the newest to the oldest it reads their indexes and
// counts the bytes of topics; segments that were not compacted yet are looked at for that, too, but left to compaction.
func (u *Upkeep) sweep(ctx context.Context, e *edition, now time.Time) (purges []purge, err error) {
	age, countsBytes := u.rules.limits()
	if age == 0 && !countsBytes {
		return nil, nil
	}
	compacted := map[string]bool{}
	var segments []segment
	for i := range e.manifest.Segments {
		c := &e.manifest.Segments[i]
		compacted[c.name()] = true
		segments = append(segments, segment{c.name(), &c.SegmentRef})
	}
	if countsBytes {
		for _, p := range e.fresh() {
			segments = append(segments, p.segment)
		}
	}
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
			return nil, err
		}
		if x == nil {
			continue
		}
		p, dropped := u.judge(x, totals, now)
		if p.name = s.name; compacted[s.name] && 2*dropped >= x.bytes {
			p.all = dropped == x.bytes
			purges = append(purges, p)
		}
	}
	return purges, nil
}

// judge is which runs of a segment may go, and how many bytes that is. totals is what newer segments have.
func (u *Upkeep) judge(x *index, totals map[string]int64, now time.Time) (p purge, dropped int64) {
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
				dropped += int64(e.length)
			}
		}
	}
	return p, dropped
}
