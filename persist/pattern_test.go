package persist

import "testing"

func TestPatternsOfTopics(t *testing.T) {
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"*", "orders", true},
		{"*", "orders/eu", true},
		{"*", "orders/eu/de", true},
		{"orders.*", "orders.eu", true},
		{"orders.*", "orders.eu/de", false},
		{"orders/*", "orders/eu", true},
		{"orders/*", "orders/eu/de", false},
		{"orders/*", "orders", false},
		{"**", "orders/eu", false},
		{"*/*", "orders/eu", true},
		{"order?", "orders", true},
		{"[a-o]rders", "orders", true},
		{"orders", "orders/eu", false},
		{"", "orders", false},
	} {
		if err := CheckPattern(c.pattern); err != nil {
			t.Errorf("pattern %q: %v", c.pattern, err)
		}
		if got := MatchTopic(c.pattern, c.topic); got != c.want {
			t.Errorf("topic %q matches %q: %v", c.topic, c.pattern, got)
		}
		rule := Retention{Pattern: c.pattern, Bytes: 1}
		if got := (retentions{rule}).of(c.topic) == rule; got != c.want {
			t.Errorf("the retention of %q is that of %q: %v", c.topic, c.pattern, got)
		}
	}
	for _, pattern := range []string{"[", "orders.[a-", `orders\`} {
		if CheckPattern(pattern) == nil || MatchTopic(pattern, pattern) {
			t.Errorf("pattern %q was taken", pattern)
		}
	}
}
