package engine

import (
	"strings"
	"testing"
	"time"
)

func TestDefaultConfigIsValid(t *testing.T) {
	for _, loops := range []int{1, 2, 8} {
		c := DefaultConfig()
		c.Loops = loops
		if err := c.Validate(); err != nil {
			t.Errorf("%d loops: %v", loops, err)
		}
	}
}

func TestValidateNamesTheSettingItsValueAndItsLimit(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Loops = 0 }, "loops is 0, want 1 to 256"},
		{func(c *Config) { c.MaxMessage = 0 }, "max-message is 0, want 1 to 16777216"},
		{func(c *Config) { c.MaxMessage = 17 << 20 }, "max-message is 17825792, want 1 to 16777216"},
		{func(c *Config) { c.MaxBatch = 1000 }, "max-batch is 1000, want 1024 to 67108864"},
		{func(c *Config) { c.MaxConnections = 0 }, "max-connections is 0, want 1 to 10000000"},
		{func(c *Config) { c.MaxTopics = -1 }, "max-topics is -1, want 1 to 100000000"},
		{func(c *Config) { c.MaxTopicBytes = 100 }, "max-topic-bytes is 100, want 1024 to 2147483647"},
		{func(c *Config) { c.MaxTopicBytes = 60_000 }, "max-topic-bytes is 60000, which cannot hold one message of max-message 65536: want at least 65814"},
		{func(c *Config) { c.MaxSubscriptions = 0 }, "max-subscriptions is 0, want 1 to 65536"},
		{func(c *Config) { c.MaxHeader = 100 }, "max-header is 100, want 512 to 1048576"},
		{func(c *Config) { c.MaxAnswers = 1 }, "max-answers is 1, want 4096 to 67108864"},
		{func(c *Config) { c.MaxTopicAge = time.Millisecond }, "max-topic-age is 1ms, want 1s to 8760h0m0s"},
		{func(c *Config) { c.HandshakeTimeout = 0 }, "handshake-timeout is 0s, want 100ms to 1h0m0s"},
		{func(c *Config) { c.RequestTimeout = 2 * time.Hour }, "request-timeout is 2h0m0s, want 100ms to 1h0m0s"},
		{func(c *Config) { c.PingInterval = time.Millisecond }, "ping-interval is 1ms, want 100ms to 24h0m0s"},
		{func(c *Config) { c.DrainTimeout = -1 }, "drain-timeout is -1ns, want 0s to 1h0m0s"},
		{func(c *Config) { c.LinkTimeout = 0 }, "link-timeout is 0s, want 100ms to 1h0m0s"},
		{func(c *Config) { c.Name = strings.Repeat("x", 256) }, "name is 256 bytes, limit 255"},
		{func(c *Config) { c.TickMax = 2 * time.Second }, "tick-max is 2s, want 0s to 1s"},
		{func(c *Config) { c.Topics = []TopicRule{{Pattern: "["}} }, `topics: pattern "[": syntax error in pattern`},
		{func(c *Config) { c.Topics = []TopicRule{{Pattern: "a", Bytes: 5}} }, `topics: bytes of "a" is 5, want 65814 (one message of max-message) to 2147483647`},
		{func(c *Config) { c.Topics = []TopicRule{{Pattern: "a", Age: 5}} }, `topics: age of "a" is 5ns, want at least 1s`},
		{func(c *Config) { c.Memory = 64 << 20 }, "the limits add up to "},
		{func(c *Config) { c.LogMemory = 2 << 30 }, "the limits add up to "},
		{func(c *Config) { c.MaxConnections = 10_000_000 }, "the limits add up to "},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestBudgetAddsUp(t *testing.T) {
	c := DefaultConfig()
	c.Loops = 2
	want := "logs 409 MiB + buffers 204 MiB + mail 102 MiB + 10000 connections 14 MiB + 2 loops and runtime 26 MiB = 757 of 1024 MiB"
	if got := c.Budget(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOneLoopHasNoMail(t *testing.T) {
	c := DefaultConfig()
	c.MailMemory = 1 << 20
	c.settle()
	if c.MailMemory != 0 {
		t.Errorf("%d bytes are set aside for mail between one loop and itself", c.MailMemory)
	}
}

func TestFirstRuleThatMatchesCounts(t *testing.T) {
	latest := SlowLatest
	c := DefaultConfig()
	c.Topics = []TopicRule{
		{Pattern: "orders.*", Slow: &latest, Bytes: 5 << 20},
		{Pattern: "orders.eu", Age: time.Hour},
		{Pattern: "logs/*", Age: time.Hour},
	}
	for name, want := range map[string]struct {
		slow  SlowPolicy
		bytes int
		age   time.Duration
	}{
		"orders.eu":   {SlowLatest, 5 << 20, c.MaxTopicAge},
		"logs/web":    {SlowSkip, c.MaxTopicBytes, time.Hour},
		"logs/web/eu": {SlowSkip, c.MaxTopicBytes, c.MaxTopicAge},
		"orders":      {SlowSkip, c.MaxTopicBytes, c.MaxTopicAge},
	} {
		if slow, bytes, age := c.limitsOf(name); slow != want.slow || bytes != want.bytes || age != want.age {
			t.Errorf("%s: %v, %d, %v", name, slow, bytes, age)
		}
	}
}

// What is kept, for how long, and with which limits is said by patterns that all mean the same (persist.MatchTopic).
func TestAStarAloneIsEveryTopic(t *testing.T) {
	kept := true
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"*", "orders", true}, {"*", "orders/eu", true}, {"orders/*", "orders/eu", true}, {"orders/*", "orders/eu/de", false}, {"orders.*", "orders/eu", false},
	} {
		rule := Config{Topics: []TopicRule{{Pattern: c.pattern, Age: time.Hour, Persist: &kept}}}
		if _, _, age := rule.limitsOf(c.topic); age == time.Hour != c.want || rule.keeps(c.topic) != c.want {
			t.Errorf("rule %q counts for topic %q: %v, and keeps it: %v, want %v", c.pattern, c.topic, age == time.Hour, rule.keeps(c.topic), c.want)
		}
		if list := (Config{Persist: []string{"none", c.pattern}}); list.keeps(c.topic) != c.want {
			t.Errorf("list %q keeps topic %q: %v", c.pattern, c.topic, list.keeps(c.topic))
		}
	}
}

func TestSlowPoliciesHaveNames(t *testing.T) {
	for p, name := range []string{"skip", "latest", "close"} {
		if got, err := ParseSlowPolicy(name); err != nil || got != SlowPolicy(p) || got.String() != name {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := ParseSlowPolicy("drop"); err == nil || err.Error() != `slow policy is "drop", want skip, latest or close` {
		t.Error(err)
	}
}
