package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"rayflux/protocol"
)

// survey has all loops look through their topics, with meanwhile between any two of their events.
func (r *rig) survey(meanwhile func()) *survey {
	r.tb.Helper()
	v := newSurvey(len(r.loops), r.now)
	r.shared.survey.Store(v)
	for _, l := range r.loops {
		l.send(&parcel{mails: []mail{{kind: mailSurvey}}})
	}
	for i := range r.loops {
		for r.mailed(i) {
			r.deliver(i)
			meanwhile()
		}
	}
	select {
	case <-v.done:
	default:
		r.tb.Fatal("the survey does not end")
	}
	return v
}

func nothing() {}

func TestSurveyFindsTheBusiestTopics(t *testing.T) {
	cfg := testConfig(2)
	cfg.MaxTopics = 1000
	r := newRig(t, cfg, 1)
	name := func(i int) string { return fmt.Sprintf("topic-%03d", i) }
	home := func(name string) *loop {
		l := r.loops[0]
		return l.homeOf(l.hash([]byte(name)))
	}
	for i := range 300 {
		for range 1 + i%7 {
			put(r, home(name(i)), name(i), "x")
		}
	}
	r.advance(3 * time.Second)
	first := r.survey(nothing).top(TopTopicsMax)
	if len(first) != TopTopicsMax {
		t.Fatalf("%d topics found, want %d", len(first), TopTopicsMax)
	}
	if got := first[0]; got.Messages != 7 || got.Topic != name(6) || got.Head != 7 || got.Seconds != 3 || got.Bytes == 0 {
		t.Errorf("the busiest is %+v", got)
	}

	r.advance(2 * time.Second)
	for range 5 {
		put(r, home(name(200)), name(200), "x")
	}
	put(r, home("new"), "new", "x")
	second := r.survey(nothing).top(3)
	if got := second[0]; got.Topic != name(200) || got.Messages != 5 || got.Seconds != 2 || got.Head != uint64(5+1+200%7) {
		t.Errorf("the busiest is %+v", got)
	}
	if got := second[1]; got.Topic != "new" || got.Messages != 1 || got.Epoch != home("new").topics["new"].epoch {
		t.Errorf("the second is %+v", got)
	}
	if got := second[2]; len(second) != 3 || got.Messages != 0 || got.Topic != name(6) {
		t.Errorf("the third of %d is %+v", len(second), got)
	}
	r.audit()
}

func TestSurveyCountsSubscribersOfAllLoops(t *testing.T) {
	r := newRig(t, testConfig(2), 1)
	for i := range 2 {
		c := r.connect(i)
		r.feed(c, []byte(handshake("/ws", "")))
		r.feed(c, maskedText(`{"op":"subscribe","topic":"t"}`))
	}
	r.settle()
	if got := r.survey(nothing).top(1); len(got) != 1 || got[0].Subscribers != 2 || got[0].Head != 0 {
		t.Errorf("found %+v", got)
	}
}

// A walk takes several events, and topics come and go in between.
func TestSurveyIsTakenInSteps(t *testing.T) {
	const topics = 3*surveyTopicsMax + surveyTopicsMax/2 // and 300 may come, or go unmet
	r, l := topicRig(t, func(cfg *Config) { cfg.MaxTopics = 2 * topics })
	for i := range topics {
		put(r, l, fmt.Sprint("old-", i), "x")
	}
	put(r, l, "busy", "x")
	put(r, l, "busy", "x")
	steps := 0
	found := r.survey(func() {
		steps++
		for i := range 100 {
			put(r, l, fmt.Sprint("new-", steps, i), "x")
			if t := l.topics[fmt.Sprint("old-", 100*steps+i)]; t != nil {
				t.drop(l)
				t.used = -t.ageMax * int64(time.Millisecond) * 2
				t.expire(l)
			}
		}
	}).top(TopTopicsMax)
	if steps != 4 {
		t.Errorf("%d events for %d topics", steps, topics)
	}
	if found[0].Topic != "busy" {
		t.Errorf("the busiest is %+v", found[0])
	}
	seen := map[string]bool{}
	for _, f := range found {
		if seen[f.Topic] {
			t.Errorf("%s was found twice", f.Topic)
		}
		seen[f.Topic] = true
	}
	for name, t1 := range l.topics {
		if strings.HasPrefix(name, "old-") && t1.surveyed != t1.head {
			t.Errorf("%s was there all the time, and was not met", name)
		}
	}
	if l.surveyor.walk != nil || l.surveyor.found != nil {
		t.Error("the loop keeps what belongs to a survey that is over")
	}
	r.audit()
}

func TestSurveyIsSharedByThoseWhoAskAtOneTime(t *testing.T) {
	s := startServer(t, nil)
	a := call(t, s, handshake("/ws", ""))
	a.say(maskedText(`{"op":"publish","id":1,"topic":"t","text":"x"}`))
	a.want(`"published","id":1`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	first, err := s.TopTopics(ctx, 10)
	if err != nil || len(first) != 1 || first[0].Topic != "t" || first[0].Messages != 1 {
		t.Fatalf("found %+v (%v)", first, err)
	}
	v := s.surveys.last
	v.ended = s.clock() + int64(time.Hour) // and so it stays fresh
	if s.survey() != v {
		t.Error("a survey that has just ended was made again")
	}
	v.ended = v.began - 2*surveyKept
	if s.survey() == v {
		t.Error("an old survey was not made again")
	}
}

func TestSurveyEndsWithItsCallerAndWithTheEngine(t *testing.T) {
	s := startServer(t, nil)
	stuck := newSurvey(2, s.clock()) // its loops were never asked
	s.surveys.last = stuck
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.TopTopics(ctx, 1); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "2 event loops") {
		t.Errorf("the caller is told %v", err)
	}
	s.Stop()
	if _, err := s.TopTopics(t.Context(), 1); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end the caller is told %v", err)
	}
	s.surveys.last = nil
	if _, err := s.TopTopics(t.Context(), 1); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end the first caller is told %v", err)
	}
}

func TestTopicCostCoversTheTopic(t *testing.T) {
	const mapEntry = 16 + 8 + 8 // name, pointer, and a share of control bytes and empty slots
	if size := unsafe.Sizeof(topic{}) + mapEntry; size > topicCost {
		t.Errorf("a topic takes %d bytes besides its name, and %d are charged", size, topicCost)
	}
}

func BenchmarkSurvey(b *testing.B) {
	cfg := testConfig(1)
	r := newRig(b, cfg, 1)
	l := r.loops[0]
	for i := range 100_000 {
		e := errand{op: opPublish, name: fmt.Appendf(nil, "topic-%d", i), kind: protocol.KindText, payload: []byte("x")}
		l.begin()
		l.publish(&e)
		l.finish()
		l.topics[string(e.name)].head += uint64(i % 9973) // whose heads are mostly unlike
	}
	for b.Loop() {
		r.survey(nothing)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/100_000, "ns/topic")
}
