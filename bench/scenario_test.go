package bench

import (
	"strings"
	"testing"
)

func TestNamedScenariosCanBeRun(t *testing.T) {
	for _, name := range Names() {
		s, err := Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.withDefaults().check(20_000); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Named("F9"); err == nil {
		t.Error("F9 is known, want an error")
	}
}

func TestScenarioThatCannotBeRunIsRefused(t *testing.T) {
	for _, test := range []struct {
		s    Scenario
		want string
	}{
		{Scenario{Subscribers: 1}, "below its least value"},
		{Scenario{Topics: 1, Subscribers: 1, Publishers: 1, PayloadBytes: 23}, "payload is 23 bytes, must be 24 to 65536"},
		{Scenario{Topics: 1, Subscribers: 1, Publishers: 1, PayloadBytes: 47, Publish: PublishHTTP}, "payload is 47 bytes, must be 48 to 65536"},
		{Scenario{Topics: 1, Subscribers: 1, Subscriptions: 2}, "2 subscriptions per subscriber, limit 1 topics"},
		{Scenario{Topics: 2, Subscribers: 1, Subscriptions: 2, Wire: WireClassic}, "limit 1 on the classic wire"},
		{Scenario{Topics: 2, Subscribers: 1, Publishers: 1}, "without a subscriber"},
		{Scenario{Topics: 1, Subscribers: 1000}, "1000 connections need 1064 descriptors, limit 500"},
	} {
		err := test.s.withDefaults().check(500)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want one with %q", test.s, err, test.want)
		}
	}
}

func TestLanesReachEveryTopicAndUseEveryPublisher(t *testing.T) {
	for _, test := range []struct{ topics, publishers, lanes, perTopic int }{
		{1, 1, 1, 1}, {10, 40, 40, 4}, {1000, 50, 1000, 1}, {3, 7, 7, 3}, {7, 3, 7, 1}, {5, 0, 0, 0},
	} {
		s := Scenario{Topics: test.topics, Publishers: test.publishers}
		lanes, perTopic := s.lanes()
		if len(lanes) != test.lanes || perTopic != test.perTopic {
			t.Errorf("%+v: %d lanes, %d per topic", test, len(lanes), perTopic)
		}
		topics, publishers := map[int32]bool{}, map[int32]bool{}
		places := map[[2]int32]bool{}
		for _, l := range lanes {
			topics[l.topic], publishers[l.publisher], places[[2]int32{l.topic, l.ordinal}] = true, true, true
		}
		if test.publishers > 0 && (len(topics) != test.topics || len(publishers) != test.publishers || len(places) != len(lanes)) {
			t.Errorf("%+v: lanes reach %d topics from %d publishers at %d places", test, len(topics), len(publishers), len(places))
		}
	}
}
