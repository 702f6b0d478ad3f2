package engine

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"rayflux/persist"
	"rayflux/protocol"
)

// SlowPolicy says what becomes of a reader whose cursor falls off its topic's log.
type SlowPolicy uint8

const (
	// SlowSkip jumps to the head of the log and tells the reader with one gap event.
	SlowSkip SlowPolicy = iota
	// SlowLatest jumps to the newest message only, after one gap event.
	SlowLatest
	// SlowClose closes with 4008; the reader comes back with its position.
	SlowClose
)

var slowNames = [...]string{SlowSkip: "skip", SlowLatest: "latest", SlowClose: "close"}

func (p SlowPolicy) String() string { return slowNames[p] }

// ParseSlowPolicy reads the word a setting uses for a policy.
func ParseSlowPolicy(s string) (SlowPolicy, error) {
	for i, name := range slowNames {
		if s == name {
			return SlowPolicy(i), nil
		}
	}
	return 0, fmt.Errorf("slow policy is %q, want skip, latest or close", s)
}

// TopicRule overrides limits for the topics whose name matches Pattern. The first rule that matches counts.
type TopicRule struct {
	Pattern string        // as of persist.MatchTopic: "orders.*"
	Slow    *SlowPolicy   // nil: Config.Slow
	Bytes   int           // 0: Config.MaxTopicBytes
	Age     time.Duration // 0: Config.MaxTopicAge
	Persist *bool         // whether the archive keeps it; nil: as Config.Persist says
}

// Config is everything the engine can be told. The zero value is not usable: start from DefaultConfig.
// Sizes are bytes.
type Config struct {
	Listen  string       // host:port of the public port; port 0 picks a free one
	Loops   int          // event loops; each is one goroutine on one CPU
	Log     *slog.Logger // connections and rarer, never messages
	Version string       // told to clients in welcome
	Name    string       // how this process calls itself to others of its cluster, at most 255 bytes

	ClusterKey []byte // what links must prove to know; empty: none is taken, and hello is an unknown type. Never logged

	// Directory tells where topics live. nil: all of them here.
	Directory Directory
	Links     LinkDialer // with a Directory
	Slot      int        // with a Directory: this node's own; -1: it is a balancer, whose topics all live elsewhere

	MaxMessage       int // payload of one message
	MaxBatch         int // body of POST /v1/publish
	MaxConnections   int // connections of the public port, half-open handshakes included
	MaxTopics        int
	MaxTopicBytes    int           // one topic's log
	MaxTopicAge      time.Duration // one topic's log
	MaxSubscriptions int           // per connection
	MaxHeader        int           // one HTTP request head
	MaxAnswers       int           // bytes of answers a connection may leave unread

	HandshakeTimeout time.Duration // accept to complete request head
	RequestTimeout   time.Duration // request head to complete body
	PingInterval     time.Duration // a connection silent for one interval is pinged, for two it is closed
	MaxConnectionAge time.Duration // a WebSocket or stream that is older is sent away, to come back somewhere; 0: never
	DrainTimeout     time.Duration // the window over which Drain paces its closes
	LinkTimeout      time.Duration // silence that ends a link; its peer says something much more often

	Slow   SlowPolicy
	Topics []TopicRule

	Memory       int64 // the whole budget
	LogMemory    int64 // logs, views and pinned bytes; 0 takes LogShare
	BufferMemory int64 // half-read requests, answers, half-written frames of all connections; 0 takes BufferShare
	MailMemory   int64 // mail under way between loops; 0 takes MailShare. One loop has none

	Heartbeat    time.Duration // a link's node is asked for a sign of life this often
	TakeOver     time.Duration // a node that cannot be linked for so long loses its topics to the next choice
	HoldTimeout  time.Duration // a command waits at most so long for its topic's owner
	FollowLinger time.Duration // a topic is followed for so long after its last reader has left
	MaxInFlight  int           // publishes of one connection that are not answered

	Inherited        []persist.Sealed // without a Directory: where topics stood that this node goes on with
	Archive          Archive          // keeps messages beyond memory; nil: nothing does
	Persist          []string         // patterns, as of TopicRule, of the topics that it keeps
	SnapshotInterval time.Duration    // messages are stored this often
	SnapshotBacklog  int64            // bytes of messages that wait to be stored while the store is away; 0 takes SnapshotShare, at most 64 MiB
	SnapshotCache    int64            // bytes of what was read from the store; 0 takes a quarter of SnapshotBacklog
	StoredTimeout    time.Duration    // a publisher waits at most so long for its message to be stored

	// TickMax is the most time that a busy loop leaves between two flushes. An idle one flushes at once; between the
	// two it leaves as long as its last flush took, so that batches grow just where writes are the bottleneck.
	TickMax time.Duration
}

// What the parts of the budget take of Memory, in percent, unless they are set.
const (
	LogShare    = 40
	BufferShare = 20
	MailShare   = 10

	SnapshotShare        = 8
	SnapshotBacklogMax   = 64 << 20
	SnapshotCacheDivisor = 4
)

// DefaultConfig is what a process runs with when nothing is said.
func DefaultConfig() Config {
	return Config{
		Listen:           ":8080",
		Loops:            1,
		Log:              slog.New(slog.DiscardHandler),
		Version:          "dev",
		MaxMessage:       64 << 10,
		MaxBatch:         1 << 20,
		MaxConnections:   10_000,
		MaxTopics:        100_000,
		MaxTopicBytes:    1 << 20,
		MaxTopicAge:      5 * time.Minute,
		MaxSubscriptions: 128,
		MaxHeader:        8 << 10,
		MaxAnswers:       64 << 10,
		HandshakeTimeout: 5 * time.Second,
		RequestTimeout:   10 * time.Second,
		PingInterval:     25 * time.Second,
		DrainTimeout:     20 * time.Second,
		LinkTimeout:      5 * time.Second,
		Memory:           1 << 30,
		TickMax:          time.Millisecond,
		Slot:             -1,
		Heartbeat:        time.Second,
		TakeOver:         time.Second,
		HoldTimeout:      5 * time.Second,
		FollowLinger:     30 * time.Second,
		MaxInFlight:      1024,
		Persist:          []string{"*"},
		SnapshotInterval: time.Second,
		StoredTimeout:    10 * time.Second,
	}
}

// follows reports whether topics come from other processes: it is a balancer's configuration.
func (c *Config) follows() bool { return c.Directory != nil && c.Slot < 0 }

// loopsMax is gnet's limit.
const loopsMax = 256

// nameBytesMax is what the length byte of a link's rows can say.
const nameBytesMax = 255

// What one idle connection, one topic and one loop are reckoned to cost in the budget. Measured with the idle
// scenario and with 100,000 topics of one message, rounded up.
const (
	connectionCost = 1536
	loopCost       = 1 << 20
	runtimeCost    = 24 << 20
)

// settle fills in what follows from other settings.
func (c *Config) settle() {
	if c.LogMemory == 0 {
		c.LogMemory = c.Memory / 100 * LogShare
	}
	if c.BufferMemory == 0 {
		c.BufferMemory = c.Memory / 100 * BufferShare
	}
	if c.Archive != nil && c.SnapshotBacklog == 0 {
		c.SnapshotBacklog = min(c.Memory/100*SnapshotShare, SnapshotBacklogMax)
	}
	if c.Archive != nil && c.SnapshotCache == 0 {
		c.SnapshotCache = c.SnapshotBacklog / SnapshotCacheDivisor
	}
	if c.Loops == 1 {
		c.MailMemory = 0
	} else if c.MailMemory == 0 {
		c.MailMemory = c.Memory / 100 * MailShare
	}
}

// Validate says what is wrong with the settings, naming the setting, its value and its limit.
func (c Config) Validate() error {
	c.settle()
	for _, s := range []struct {
		name          string
		value, lo, hi int64
	}{
		{"loops", int64(c.Loops), 1, loopsMax},
		{"max-message", int64(c.MaxMessage), 1, 16 << 20},
		{"max-batch", int64(c.MaxBatch), 1 << 10, 64 << 20},
		{"max-in-flight", int64(c.MaxInFlight), 1, 1 << 20},
		{"max-connections", int64(c.MaxConnections), 1, 10_000_000},
		{"max-topics", int64(c.MaxTopics), 1, 100_000_000},
		{"max-topic-bytes", int64(c.MaxTopicBytes), 1 << 10, math.MaxInt32},
		{"max-subscriptions", int64(c.MaxSubscriptions), 1, 65_536},
		{"max-header", int64(c.MaxHeader), 512, 1 << 20},
		{"max-answers", int64(c.MaxAnswers), 4 << 10, 64 << 20},
	} {
		if s.value < s.lo || s.value > s.hi {
			return fmt.Errorf("%s is %d, want %d to %d", s.name, s.value, s.lo, s.hi)
		}
	}
	for _, d := range []struct {
		name   string
		value  time.Duration
		lo, hi time.Duration
	}{
		{"max-topic-age", c.MaxTopicAge, time.Second, 24 * 365 * time.Hour},
		{"handshake-timeout", c.HandshakeTimeout, 100 * time.Millisecond, time.Hour},
		{"request-timeout", c.RequestTimeout, 100 * time.Millisecond, time.Hour},
		{"ping-interval", c.PingInterval, 100 * time.Millisecond, 24 * time.Hour},
		{"max-connection-age", c.MaxConnectionAge, 0, 30 * 24 * time.Hour},
		{"drain-timeout", c.DrainTimeout, 0, time.Hour},
		{"link-timeout", c.LinkTimeout, 100 * time.Millisecond, time.Hour},
		{"heartbeat", c.Heartbeat, 10 * time.Millisecond, time.Hour},
		{"take-over", c.TakeOver, 0, time.Hour},
		{"hold-timeout", c.HoldTimeout, 0, time.Hour},
		{"follow-linger", c.FollowLinger, 0, 24 * time.Hour},
		{"snapshot-interval", c.SnapshotInterval, 10 * time.Millisecond, time.Hour},
		{"stored-timeout", c.StoredTimeout, 10 * time.Millisecond, time.Hour},
		{"tick-max", c.TickMax, 0, time.Second},
	} {
		if d.value < d.lo || d.value > d.hi {
			return fmt.Errorf("%s is %v, want %v to %v", d.name, d.value, d.lo, d.hi)
		}
	}
	if c.Heartbeat >= c.LinkTimeout {
		return fmt.Errorf("heartbeat is %v, want less than link-timeout, which is %v", c.Heartbeat, c.LinkTimeout)
	}
	if len(c.Name) > nameBytesMax {
		return fmt.Errorf("name is %d bytes, limit %d", len(c.Name), nameBytesMax)
	}
	least := protocol.BinaryMessageSize(protocol.MaxTopicBytes, math.MaxUint64, c.MaxMessage)
	if c.MaxTopicBytes < least {
		return fmt.Errorf("max-topic-bytes is %d, which cannot hold one message of max-message %d: want at least %d", c.MaxTopicBytes, c.MaxMessage, least)
	}
	for _, r := range c.Topics {
		if err := persist.CheckPattern(r.Pattern); err != nil {
			return fmt.Errorf("topics: pattern %q: %w", r.Pattern, err)
		}
		if r.Bytes != 0 && (r.Bytes < least || r.Bytes > math.MaxInt32) {
			return fmt.Errorf("topics: bytes of %q is %d, want %d (one message of max-message) to %d", r.Pattern, r.Bytes, least, math.MaxInt32)
		}
		if r.Age != 0 && r.Age < time.Second {
			return fmt.Errorf("topics: age of %q is %v, want at least 1s", r.Pattern, r.Age)
		}
	}
	if sum := c.total(); sum > c.Memory {
		return fmt.Errorf("the limits add up to %d bytes, memory is %d: %s", sum, c.Memory, c.Budget())
	}
	return nil
}

func (c Config) total() int64 {
	return runtimeCost + int64(c.Loops)*loopCost + c.LogMemory + c.BufferMemory + c.MailMemory + int64(c.MaxConnections)*connectionCost + c.snapshots()
}

// snapshots is what keeping messages takes besides the logs: what waits to be stored, and what was read back.
func (c Config) snapshots() int64 { return c.SnapshotBacklog + c.SnapshotCache }

// Budget is the sum of the limits in one line, for the start-up log.
func (c Config) Budget() string {
	c.settle()
	const mib = 1 << 20
	snapshots := ""
	if c.snapshots() > 0 {
		snapshots = fmt.Sprintf("snapshots %d MiB + ", c.snapshots()/mib)
	}
	return fmt.Sprintf("logs %d MiB + buffers %d MiB + mail %d MiB + %s%d connections %d MiB + %d loops and runtime %d MiB = %d of %d MiB",
		c.LogMemory/mib, c.BufferMemory/mib, c.MailMemory/mib, snapshots, c.MaxConnections, int64(c.MaxConnections)*connectionCost/mib,
		c.Loops, (runtimeCost+int64(c.Loops)*loopCost)/mib, c.total()/mib, c.Memory/mib)
}

// keeps reports whether the archive keeps a topic. Runs when a topic is created, never per message.
func (c *Config) keeps(topic string) bool {
	for _, r := range c.Topics {
		if persist.MatchTopic(r.Pattern, topic) {
			if r.Persist != nil {
				return *r.Persist
			}
			break
		}
	}
	return slices.ContainsFunc(c.Persist, func(pattern string) bool { return persist.MatchTopic(pattern, topic) })
}

// limitsOf resolves the rules for one topic. Runs when a topic is created, never per message.
func (c *Config) limitsOf(topic string) (slow SlowPolicy, bytes int, age time.Duration) {
	slow, bytes, age = c.Slow, c.MaxTopicBytes, c.MaxTopicAge
	for _, r := range c.Topics {
		if !persist.MatchTopic(r.Pattern, topic) {
			continue
		}
		if r.Slow != nil {
			slow = *r.Slow
		}
		if r.Bytes != 0 {
			bytes = r.Bytes
		}
		if r.Age != 0 {
			age = r.Age
		}
		break
	}
	return slow, bytes, age
}
