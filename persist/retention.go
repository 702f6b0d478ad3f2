package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Retention is how long messages are kept of the topics whose name matches a pattern. Limits are not to the message: what is
// past one goes when the segment that it is in is rewritten anyhow, or when half of that segment may go.
type Retention struct {
	Pattern string        // as of MatchTopic: "orders.*"
	Age     time.Duration // 0: no limit
	Bytes   int64         // of one topic; 0: no limit
}

// retentions is rules, of which the first one that matches a topic counts. A topic that none matches is kept for good.
type retentions []Retention

func (rules retentions) check() error {
	for _, r := range rules {
		if err := CheckPattern(r.Pattern); err != nil {
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
		if MatchTopic(r.Pattern, topic) {
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

// purge is a segment that is to be rewritten without what is past its retention.
type purge struct {
	name string
	drop map[string][]int // of each topic, which of its runs, in order
	all  bool             // nothing would be left
}

// sweep finds the compacted segments of which at least half may go, or, if cfg.Thorough says so, anything; then also whether
// anything may of those that were not compacted yet.
func (u *Upkeep) sweep(ctx context.Context, e *edition, now time.Time) (purges []purge, fresh bool, err error) {
	compacted := map[string]bool{}
	for i := range e.manifest.Segments {
		compacted[e.manifest.Segments[i].name()] = true
	}
	type loss struct {
		drop      map[string][]int
		bytes, of int64
	}
	losses := map[string]*loss{} // by names of segments
	err = u.judgeAll(ctx, e, now, func(j judged) {
		l := losses[j.segment]
		if l == nil {
			l = &loss{drop: map[string][]int{}, of: j.index.bytes}
			losses[j.segment] = l
		}
		l.drop[j.topic] = append(l.drop[j.topic], j.n)
		l.bytes += int64(j.run.length)
	})
	for _, name := range slices.Sorted(maps.Keys(losses)) {
		switch l := losses[name]; {
		case !compacted[name]:
			fresh = fresh || u.cfg.Thorough
		case 2*l.bytes >= l.of, u.cfg.Thorough:
			for _, runs := range l.drop {
				slices.Sort(runs)
			}
			purges = append(purges, purge{name: name, drop: l.drop, all: l.bytes == l.of})
		}
	}
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
	err = u.judgeAll(ctx, e, now, func(j judged) {
		if found[j.topic] == nil {
			found[j.topic] = &Expired{Topic: j.topic}
		}
		found[j.topic].Messages += uint64(j.run.count)
		found[j.topic].Bytes += int64(j.run.length)
	})
	all := make([]Expired, 0, len(found))
	for _, topic := range slices.Sorted(maps.Keys(found)) {
		all = append(all, *found[topic])
	}
	return all, err
}

// judged is a run that is past its retention. It is valid during the call.
type judged struct {
	segment string
	index   *index
	topic   string
	n       int // which of the topic's runs it is there
	run     *entry
}

// judgeAll calls past for every run that is past its retention. What counts towards a limit in bytes is counted from the newest
// to the oldest segment, and what clocks that are ahead have stamped after all others: it would be the newest for years, and what
// is stored now would go in its place.
func (u *Upkeep) judgeAll(ctx context.Context, e *edition, now time.Time, past func(judged)) error {
	age, countsBytes := u.rules.limits()
	if age == 0 && !countsBytes {
		return nil
	}
	ahead := aheadFrom(now)
	var right, wrong []segment   // those with a time ahead are in both
	newest := map[string]int64{} // of the times that are not, by names of segments
	for _, s := range e.all() {
		if u.faults.has(s.name) || !countsBytes && s.ref.FirstMs >= now.Add(-age).UnixMilli() {
			continue
		}
		right, newest[s.name] = append(right, s), s.ref.LastMs
		if s.ref.LastMs >= ahead {
			x, err := u.indexOf(ctx, &s)
			if err != nil {
				return err
			}
			wrong, newest[s.name] = append(wrong, s), x.newestBefore(ahead)
		}
	}
	slices.SortStableFunc(right, func(a, b segment) int { return cmp.Compare(newest[b.name], newest[a.name]) })
	totals := map[string]int64{} // of topics whose bytes count
	for i, s := range slices.Concat(right, wrong) {
		x, err := u.indexOf(ctx, &s)
		if err != nil {
			return err
		}
		u.judge(judged{segment: s.name, index: x}, i >= len(right), totals, now, past)
	}
	return nil
}

// indexOf is a segment's index, an empty one if it cannot be used.
func (u *Upkeep) indexOf(ctx context.Context, s *segment) (*index, error) {
	x, err := u.reader.indexOf(ctx, s)
	if gone := (*goneError)(nil); errors.As(err, &gone) {
		u.faults.note(gone.name, err)
	} else if err != nil {
		return nil, err
	}
	if x == nil {
		return &index{}, nil
	}
	return x, nil
}

// judge calls past for those runs of a segment, of which all times are ahead or not. totals is what was counted before.
func (u *Upkeep) judge(j judged, wrong bool, totals map[string]int64, now time.Time, past func(judged)) {
	ahead := aheadFrom(now)
	for topic, runs := range j.index.all() {
		rule := u.rules.of(topic)
		j.topic = topic
		for n := len(runs) - 1; n >= 0; n-- {
			j.n, j.run = n, &runs[n]
			if j.run.newestBefore(ahead) == never != wrong {
				continue
			}
			goes := rule.Bytes > 0 && totals[topic] >= rule.Bytes || rule.expired(j.run, now)
			if rule.Bytes > 0 {
				totals[topic] += int64(j.run.length)
			}
			if goes {
				past(j)
			}
		}
	}
}

// never is no time.
const never = math.MinInt64

// newestBefore is the newest of a run's times that are before another one.
func (e *entry) newestBefore(ms int64) int64 {
	newest := int64(never)
	for _, t := range e.times {
		if t.UnixMs < ms {
			newest = max(newest, t.UnixMs)
		}
	}
	return newest
}

func (x *index) newestBefore(ms int64) int64 {
	newest := int64(never)
	for _, runs := range x.all() {
		for i := range runs {
			newest = max(newest, runs[i].newestBefore(ms))
		}
	}
	return newest
}
