package engine

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// TopTopicsMax is how many topics a survey finds at most.
const TopTopicsMax = 100

// TopicLoad is what one topic has and had to do.
type TopicLoad struct {
	Topic       string  `json:"topic"`
	Epoch       string  `json:"epoch"`
	Head        uint64  `json:"head"`     // offset of the newest message
	Messages    uint64  `json:"messages"` // taken since the survey before
	Seconds     float64 `json:"seconds"`  // since then
	Subscribers int     `json:"subscribers"`
	Bytes       int64   `json:"bytes"` // memory of the log
}

// A survey finds the busiest topics of all loops. Nothing is counted for it: a topic's head says how many messages it
// took, so what the hot path pays is nothing, and the topic remembers the head that the last survey found. Each loop
// walks its own topics, a bounded number an event, with its connections and mail in between, and keeps the TopTopicsMax
// busiest. (A walk costs 0.3 µs a topic, nearly all of it cache misses: 100,000 in one event would stop a loop for 30 ms.)
//
// There is one survey at a time, and its result is kept for a moment: whoever asks meanwhile waits for that one or is
// given its result, so that neither many askers nor many topics make it more than a small part of a loop's work. With
// several askers each survey reaches back to the last one, whosever it was: messages by seconds is right all the same.
type survey struct {
	found [][]TopicLoad // by loop, busiest first; written by that loop before it counts itself off
	left  atomic.Int32  // loops that are not through
	began int64         // server clock
	ended int64         // the same; written by the last loop before done closes
	done  chan struct{}
}

// A result is kept for surveyKept, or surveyPause times as long as it took: surveys never are more than a twentieth of a
// loop's work.
const (
	surveyTopicsMax = 1000 // of one event
	surveyKept      = 200 * int64(time.Millisecond)
	surveyPause     = 20
)

// surveys is the server's. Safe from any goroutine.
type surveys struct {
	mu   sync.Mutex // never held while waiting
	last *survey
}

// TopTopics is the n busiest topics (at most TopTopicsMax) by messages since the survey before this one, busiest first.
// It asks the loops, and gives up when ctx ends; the survey goes on, and the next caller waits for the same.
func (s *Server) TopTopics(ctx context.Context, n int) ([]TopicLoad, error) {
	v := s.survey()
	select {
	case <-v.done:
		return v.top(n), nil
	case <-s.done:
		return nil, fmt.Errorf("the engine has ended: %w", s.Err())
	case <-ctx.Done():
		return nil, fmt.Errorf("%d event loops have not looked through their topics: %w", v.left.Load(), ctx.Err())
	}
}

// survey is the one under way, or a new one if the last is too old.
func (s *Server) survey() *survey {
	s.surveys.mu.Lock()
	defer s.surveys.mu.Unlock()
	now := s.clock()
	if v := s.surveys.last; v != nil && !v.stale(now) {
		return v
	}
	v := newSurvey(len(s.loops), now)
	s.surveys.last = v
	s.shared.survey.Store(v)
	s.mailAll(mail{kind: mailSurvey})
	return v
}

func newSurvey(loops int, now int64) *survey {
	v := &survey{found: make([][]TopicLoad, loops), began: now, done: make(chan struct{})}
	v.left.Store(int32(loops))
	return v
}

func (v *survey) stale(now int64) bool {
	select {
	case <-v.done:
		return now-v.ended > max(surveyKept, surveyPause*(v.ended-v.began))
	default:
		return false
	}
}

// top merges what the loops have found. Only after done.
func (v *survey) top(n int) []TopicLoad {
	all := slices.Concat(v.found...)
	slices.SortFunc(all, busier)
	return all[:min(len(all), n, TopTopicsMax)]
}

// busier orders topics. Head and name decide between idle ones, so that they do not change places from survey to survey.
func busier(a, b TopicLoad) int {
	if a.Messages == b.Messages && a.Head == b.Head {
		return strings.Compare(a.Topic, b.Topic) // seldom: it is not in the cache
	}
	return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(b.Head, a.Head))
}

// surveyor is a loop's part in surveys. Owned by the loop.
type surveyor struct {
	// walk is where it is among the topics; nil when no survey is under way. A range statement cannot be left and taken
	// up again, and a list beside the map would cost every topic two pointers; this iterator can, with a range
	// statement's promise: each topic that stays is met once, whatever comes or goes meanwhile.
	walk  *reflect.MapIter
	found []TopicLoad
	since int64 // loop clock when the walk before this one began
	began int64
}

// surveyOn goes on with the survey under way, or begins it, and mails itself the rest.
func (l *loop) surveyOn() {
	v := &l.surveyor
	if v.walk == nil {
		v.walk = reflect.ValueOf(l.topics).MapRange()
		v.began = l.now
	}
	seconds := time.Duration(max(v.began-v.since, 1)).Seconds()
	for range surveyTopicsMax {
		if !v.walk.Next() {
			l.endSurvey()
			return
		}
		t := v.walk.Value().Interface().(*topic)
		load := TopicLoad{Topic: t.name, Head: t.head, Messages: t.head - t.surveyed}
		if t.surveyed != t.head {
			t.surveyed = t.head
		}
		if i, ok := v.place(load); ok {
			load.Epoch, load.Seconds, load.Subscribers, load.Bytes = t.epoch, seconds, t.subs, t.bytes
			v.found = slices.Insert(v.found, i, load)
		}
	}
	l.send(&parcel{mails: []mail{{kind: mailSurvey}}})
}

// place is where a topic belongs among the busiest so far, and makes room for it; false: it is none of them.
func (v *surveyor) place(load TopicLoad) (int, bool) {
	if n := len(v.found); n == TopTopicsMax {
		if busier(load, v.found[n-1]) > 0 {
			return 0, false
		}
		v.found = v.found[:n-1]
	}
	i, _ := slices.BinarySearchFunc(v.found, load, busier)
	return i, true
}

func (l *loop) endSurvey() {
	v, of := &l.surveyor, l.shared.survey.Load()
	of.found[l.index] = v.found
	*v = surveyor{since: v.began}
	if of.left.Add(-1) == 0 {
		of.ended = l.clock()
		close(of.done)
	}
}
