package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Wire is the form in which subscribers read.
type Wire byte

const (
	WireBinary  Wire = iota // rayflux.v1.bin on /ws
	WireJSON                // rayflux.v1.json on /ws
	WireClassic             // raw payloads on /subscribe, one topic a connection
	WireNATS                // a peer's: the NATS protocol in binary frames
	wireHTTP                // no WebSocket at all: a publisher's connection
)

var wireWords = []string{WireBinary: "bin", WireJSON: "json", WireClassic: "classic", WireNATS: "nats"}

// Publish is the way in which publishers send.
type Publish byte

const (
	PublishBinary Publish = iota // rayflux.v1.bin on /ws, no id, so no answer unless a publish fails
	PublishHTTP                  // POST /publish on a kept-alive connection
	PublishNATS                  // a peer's: PUB in a binary frame
)

var publishWords = []string{PublishBinary: "bin", PublishHTTP: "http", PublishNATS: "nats"}

// MarshalText is the word of w in reports.
func (w Wire) MarshalText() ([]byte, error) { return []byte(wireWords[w]), nil }

// UnmarshalText reads the word of a flag.
func (w *Wire) UnmarshalText(text []byte) error {
	i := slices.Index(wireWords, string(text))
	if i < 0 {
		return fmt.Errorf("unknown wire %q, known are %v", text, wireWords)
	}
	*w = Wire(i)
	return nil
}

// MarshalText is the word of p in reports.
func (p Publish) MarshalText() ([]byte, error) { return []byte(publishWords[p]), nil }

// UnmarshalText reads the word of a flag.
func (p *Publish) UnmarshalText(text []byte) error {
	i := slices.Index(publishWords, string(text))
	if i < 0 {
		return fmt.Errorf("unknown way to publish %q, known are %v", text, publishWords)
	}
	*p = Publish(i)
	return nil
}

// Scenario says who is connected and what they send. The zero value of a field marked with a default takes it.
type Scenario struct {
	Name          string        `json:"name"`
	Topics        int           `json:"topics"`
	Subscribers   int           `json:"subscribers"`   // connections that subscribe and read
	Subscriptions int           `json:"subscriptions"` // topics each of them subscribes to; default 1
	Publishers    int           `json:"publishers"`    // connections that publish; 0: nobody does, the connections idle
	PayloadBytes  int           `json:"payload_bytes"` // default 128; at least the stamp
	Wire          Wire          `json:"wire"`
	Publish       Publish       `json:"publish"`
	PublishAddr   string        `json:"publish_addr,omitempty"`       // host:port that publishers connect to, such as a node's behind a balancer; "": where subscribers do
	InFlight      int           `json:"in_flight"`                    // closed loop: publishes of one publisher not yet delivered to all; default 64
	Rate          float64       `json:"rate,omitempty"`               // open loop: publishes per second over all publishers; 0: closed loop
	Pipeline      int           `json:"pipeline"`                     // PublishHTTP: requests of one connection not yet answered; default 1
	Stalled       int           `json:"stalled"`                      // further subscribers that never read
	WarmUp        time.Duration `json:"warm_up_ns"`                   // load before the measured window
	Duration      time.Duration `json:"duration_ns"`                  // the measured window; default 5 s
	Spin          bool          `json:"spin"`                         // poll without sleeping: takes the generator's wake-ups out of the latency
	LimitCPU      float64       `json:"limit_cpu,omitempty"`          // processors the server is given, as a container's limit would; 0: all
	LimitMemory   int64         `json:"limit_memory_bytes,omitempty"` // memory the server is given; 0: all

	Progress func(Progress) `json:"-"` // called about once a second by the generator's thread; nil: nobody watches
}

const (
	payloadBytesDefault  = 128
	payloadBytesMax      = 64 << 10
	inFlightDefault      = 64
	stalledReceiveBytes  = 4096  // SO_RCVBUF of a subscriber that never reads; the kernel doubles it
	descriptorsOverhead  = 64    // what a process has open besides the scenario's connections
	connectionsPerSource = 8_000 // from one loopback address, which has 28,000 ports by default, some of them still closing
)

// scenarios are the rows of the table every measurement is compared by. F7 is F2's shape at one million deliveries a
// second, on a server that is limited as a small container is. A limit holds for servers that a [Plan] starts; nothing can
// put one around a server that runs already.
//
// The deeper a closed loop's window, the more messages share a system call, for every server alike: rates of different
// windows cannot be compared. These are the ones with which the floor does what it did when the table was made (10 million
// deliveries a second in F1, 23 in F2, 2.8 in F3, 5.9 in F4, 4 in F6, 6 in F8).
var scenarios = []Scenario{
	{Name: "F1", Topics: 1, Subscribers: 1000, Publishers: 1, InFlight: 64},
	{Name: "F2", Topics: 10, Subscribers: 160, Publishers: 40, InFlight: 64},
	{Name: "F2-20k", Topics: 10, Subscribers: 160, Publishers: 40, Rate: 20_000},
	{Name: "F2-2k", Topics: 10, Subscribers: 160, Publishers: 40, Rate: 2_000},
	{Name: "F3", Topics: 1000, Subscribers: 2000, Publishers: 50, InFlight: 448},
	{Name: "F4", Topics: 1, Subscribers: 1000, Publishers: 1, InFlight: 64, PayloadBytes: 1024},
	{Name: "F5", Topics: 10, Subscribers: 9000},
	{Name: "F6", Topics: 50, Subscribers: 50, Publishers: 50, InFlight: 20},
	{Name: "F7", Topics: 10, Subscribers: 160, Publishers: 40, Rate: 62_500, LimitCPU: 0.5, LimitMemory: 256 << 20},
	{Name: "F8", Topics: 10, Subscribers: 160, Subscriptions: 10, Publishers: 40, InFlight: 1},
	{Name: "churn", Topics: 10, Subscribers: 160, Publishers: 40, Wire: WireClassic, Publish: PublishHTTP, Duration: time.Minute},
}

const warmUpDefault = time.Second

// Named returns the scenario of that name: F1 to F8, F2-20k, F2-2k, churn. It warms up for a second.
func Named(name string) (Scenario, error) {
	i := slices.IndexFunc(scenarios, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return Scenario{}, fmt.Errorf("unknown scenario %q, known are %v", name, Names())
	}
	s := scenarios[i]
	s.WarmUp = warmUpDefault
	return s, nil
}

// Names lists the named scenarios in the order of their table.
func Names() []string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.Name
	}
	return names
}

// Shape says in a few words who is connected and what they send.
func (s Scenario) Shape() string {
	s = s.withDefaults()
	words := []string{count(s.Topics, "topic"), count(s.Subscribers, "subscriber")}
	if s.Subscriptions > 1 {
		words[1] += fmt.Sprintf(" of %d topics each", s.Subscriptions)
	}
	if s.Publishers == 0 {
		return strings.Join(append(words, "idle"), ", ")
	}
	words = append(words, count(s.Publishers, "publisher"), count(s.PayloadBytes, "byte"))
	if s.Wire != WireBinary || s.Publish != PublishBinary {
		words = append(words, fmt.Sprintf("%s from %s", wireWords[s.Wire], publishWords[s.Publish]))
	}
	if s.limited() {
		words = append(words, "limit"+s.limits())
	}
	return strings.Join(words, ", ")
}

// Describe is Shape, and how fast they send.
func (s Scenario) Describe() string {
	s = s.withDefaults()
	switch {
	case s.Publishers == 0:
		return s.Shape()
	case s.Rate > 0:
		return fmt.Sprintf("%s; %s publishes/s", s.Shape(), rate(s.Rate))
	case s.Publish == PublishHTTP:
		return fmt.Sprintf("%s; %d in flight each", s.Shape(), s.Pipeline)
	}
	return fmt.Sprintf("%s; %d in flight each", s.Shape(), s.InFlight)
}

func (s Scenario) limited() bool { return s.LimitCPU > 0 || s.LimitMemory > 0 }

// limits are the words for a container's limit, each with a space before it.
func (s Scenario) limits() (text string) {
	if s.LimitCPU > 0 {
		text += fmt.Sprintf(" %g CPU", s.LimitCPU)
	}
	if s.LimitMemory > 0 {
		text += fmt.Sprintf(" %d MiB", s.LimitMemory>>20)
	}
	return text
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// fanout is how many deliveries a publish makes on average.
func (s Scenario) fanout() float64 { return float64(s.Subscribers*s.Subscriptions) / float64(s.Topics) }

// withDefaults fills in the fields that were left zero.
func (s Scenario) withDefaults() Scenario {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&s.Subscriptions, 1)
	set(&s.PayloadBytes, payloadBytesDefault)
	set(&s.InFlight, inFlightDefault)
	set(&s.Pipeline, 1)
	if s.Duration == 0 {
		s.Duration = 5 * time.Second
	}
	return s
}

// check refuses what cannot be run; s has its defaults.
func (s Scenario) check(descriptors uint64) error {
	form := s.stampForm()
	switch connections := s.Subscribers + s.Stalled + s.Publishers; {
	case s.Topics < 1 || s.Subscribers < 1 || s.Subscriptions < 1 || s.Publishers < 0 || s.InFlight < 1 || s.Pipeline < 1 || s.Stalled < 0 || s.Rate < 0 || s.LimitCPU < 0 || s.LimitMemory < 0:
		return fmt.Errorf("scenario %q has a count below its least value: %+v", s.Name, s.counts())
	case s.Subscriptions > s.Topics:
		return fmt.Errorf("%d subscriptions per subscriber, limit %d topics", s.Subscriptions, s.Topics)
	case s.Wire == WireClassic && s.Subscriptions > 1:
		return fmt.Errorf("%d subscriptions per subscriber, limit 1 on the classic wire", s.Subscriptions)
	case s.Publishers > 0 && s.Subscribers*s.Subscriptions < s.Topics:
		return fmt.Errorf("%d subscriptions in all leave some of %d topics without a subscriber", s.Subscribers*s.Subscriptions, s.Topics)
	case s.PayloadBytes < form.size() || s.PayloadBytes > payloadBytesMax:
		return fmt.Errorf("payload is %d bytes, must be %d to %d", s.PayloadBytes, form.size(), payloadBytesMax)
	case uint64(connections+descriptorsOverhead) > descriptors:
		return fmt.Errorf("%d connections need %d descriptors, limit %d", connections, connections+descriptorsOverhead, descriptors)
	}
	return nil
}

// counts is what check prints when a number is out of range.
func (s Scenario) counts() map[string]any {
	return map[string]any{"topics": s.Topics, "subscribers": s.Subscribers, "subscriptions": s.Subscriptions,
		"publishers": s.Publishers, "in_flight": s.InFlight, "pipeline": s.Pipeline, "stalled": s.Stalled, "rate": s.Rate,
		"limit_cpu": s.LimitCPU, "limit_memory": s.LimitMemory}
}

// stampForm is the form of the stamp that survives the scenario's wires: HTTP publishing and JSON reading carry text only.
func (s Scenario) stampForm() stampForm {
	if s.Publish != PublishHTTP && s.Wire != WireJSON {
		return stampBinary
	}
	return stampText
}

// topicName returns the name of a topic. Names are equally long, so that a publisher's frames are.
func topicName(i int) string { return fmt.Sprintf("bench-%05d", i) }

// lane is one publisher's numbered stream into one topic.
type lane struct {
	topic     int32
	ordinal   int32 // of the lane among those of its topic
	publisher int32
	rotation  int32 // of the lane among those of its publisher
}

// lanes spreads publishers over topics: with as many publishers as topics or more, each publishes to one topic; with
// fewer, each serves several in rotation. It returns the lanes and the most that any topic has.
func (s Scenario) lanes() (all []lane, perTopicMax int) {
	if s.Publishers == 0 {
		return nil, 0
	}
	ordinals := make([]int32, s.Topics)
	for i := range max(s.Topics, s.Publishers) {
		topic := i % s.Topics
		all = append(all, lane{topic: int32(topic), ordinal: ordinals[topic], publisher: int32(i % s.Publishers)})
		ordinals[topic]++
	}
	return all, int(slices.Max(ordinals))
}

// firstTopic is the first of the consecutive topics (modulo Topics) that a subscriber subscribes to.
func (s Scenario) firstTopic(subscriber int) int { return subscriber * s.Subscriptions % s.Topics }
