package persist

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// TopicSummary is what a store has of a topic. What is stored twice counts once, but in Bytes.
type TopicSummary struct {
	Topic    string
	Epochs   int
	Messages uint64
	Segments int
	Bytes    int64    // of frames, before compression
	First    Position // of the oldest message: its own
	Last     Position // of the newest
	FirstMs  int64
	LastMs   int64
}

// Survey reads the index of every segment, and is what there is of each topic, in order of names. Broken segments are noted and
// passed over. progress is told how many segments of how many are done; it is called by one goroutine at a time.
func (r *Reader) Survey(ctx context.Context, progress func(done, of int)) ([]TopicSummary, error) {
	e, err := r.catalogue.refresh(ctx)
	if err != nil {
		return nil, err
	}
	segments := e.all()
	found := map[string][]piece{}
	done := 0
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(r.fetches)
	for i := range segments {
		group.Go(func() error {
			x, err := r.indexOf(groupCtx, &segments[i])
			if gone := (*goneError)(nil); errors.As(err, &gone) {
				r.faults.note(gone.name, err)
			} else if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if x != nil {
				for topic, entries := range x.all() {
					for _, en := range entries {
						found[topic] = append(found[topic], piece{entry: en, in: &posting{segment: segments[i].name}})
					}
				}
			}
			done++
			progress(done, len(segments))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var all []TopicSummary
	for topic, pieces := range found {
		all = append(all, summarise(topic, pieces, e.begun))
	}
	slices.SortFunc(all, func(a, b TopicSummary) int { return strings.Compare(a.Topic, b.Topic) })
	return all, nil
}

func summarise(topic string, pieces []piece, now time.Time) TopicSummary {
	sortPieces(pieces, now)
	v := view{pieces: pieces}
	all := v.stretches(Position{})
	first, last := &all[0], &all[len(all)-1]
	s := TopicSummary{Topic: topic, First: Position{first.epoch, first.first}, Last: Position{last.epoch, last.last}}
	s.FirstMs, s.LastMs = pieces[0].span()
	segments := map[string]bool{}
	for i := range all {
		s.Messages += all[i].last - all[i].first + 1
		if i == 0 || all[i].epoch != all[i-1].epoch {
			s.Epochs++
		}
	}
	for i := range pieces {
		p := &pieces[i]
		segments[p.in.segment] = true
		s.Bytes += int64(p.length)
		oldest, newest := p.span()
		s.FirstMs, s.LastMs = min(s.FirstMs, oldest), max(s.LastMs, newest)
	}
	s.Segments = len(segments)
	return s
}

// all is every segment that counts, in order of names.
func (l *edition) all() (all []segment) {
	for i := range l.manifest.Segments {
		c := &l.manifest.Segments[i]
		all = append(all, segment{c.name(), &c.SegmentRef})
	}
	for _, f := range l.fresh() {
		all = append(all, f.segment)
	}
	slices.SortFunc(all, func(a, b segment) int { return cmp.Compare(a.name, b.name) })
	return all
}
