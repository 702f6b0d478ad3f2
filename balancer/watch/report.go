package watch

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Report is what a look found, and how it differs from the look before.
type Report struct {
	At        time.Time
	Processes []Process // in the order in which they were named
	Totals    []Total   // of each role with several processes: balancers and nodes count the same messages
	Topics    []Topic   // of all processes, busiest first
}

// Process is one server.
type Process struct {
	Address     string `json:"address"`
	Role        string `json:"role,omitempty"`
	Version     string `json:"version,omitempty"`
	State       State  `json:"state"`
	Reason      string `json:"reason,omitempty"`       // why it is failing or unreachable
	TopicsError string `json:"topics_error,omitempty"` // why its topics are not known
	*Gauges            // nil: unreachable
	*Rates             // nil: it was not there at the look before
}

// Total is what the processes of one role do together.
type Total struct {
	Role      string `json:"role,omitempty"`
	Processes int    `json:"processes"`
	Ready     int    `json:"ready"`
	Gauges
	*Rates // nil: no process has any
}

// Gauges are what a process has now.
type Gauges struct {
	Connections   float64            `json:"connections"`
	Subscriptions float64            `json:"subscriptions"`
	Topics        float64            `json:"topics"`
	ResidentBytes float64            `json:"resident_bytes"`
	Links         map[string]float64 `json:"links,omitempty"` // by state
}

// Rates are a second's, on average since the look before.
type Rates struct {
	Published     float64            `json:"published_per_second"`
	Delivered     float64            `json:"delivered_per_second"`
	SentBytes     float64            `json:"sent_bytes_per_second"`
	Dropped       float64            `json:"dropped_per_second"`
	DroppedBy     map[string]float64 `json:"dropped_by_reason,omitempty"` // those above 0
	Recovered     float64            `json:"recovered_per_second"`
	NotRecovered  float64            `json:"not_recovered_per_second"`
	Busiest       float64            `json:"busiest_loop"`        // share of a processor
	BusyBy        map[string]float64 `json:"busy_loop,omitempty"` // the same of each loop
	Latency99     *float64           `json:"publish_to_write_p99_seconds,omitempty"`
	Latency99Over bool               `json:"publish_to_write_p99_over,omitempty"` // it is more than that, how much is not counted

	latency []bucket // of the time in between
}

// Topic is one of the busiest topics of a process. In a cluster the owner's node has it, and each balancer with
// subscribers.
type Topic struct {
	Topic       string  `json:"topic"`
	Address     string  `json:"address"`
	Epoch       string  `json:"epoch"`
	Head        uint64  `json:"head"`
	Messages    float64 `json:"messages_per_second"`
	Subscribers int     `json:"subscribers"`
	Bytes       int64   `json:"bytes"`
}

// Watcher looks at processes, and remembers what it saw. For one goroutine at a time.
type Watcher struct {
	addresses []string
	timeout   time.Duration
	client    http.Client
	last      []*sample // of each address
}

// NewWatcher watches the operators' ports at these addresses. A process that takes longer than timeout to say all that
// it is asked counts as unreachable.
func NewWatcher(addresses []string, timeout time.Duration) *Watcher {
	return &Watcher{addresses: addresses, timeout: timeout, last: make([]*sample, len(addresses)),
		client: http.Client{Transport: &http.Transport{}}} // no proxy: these ports are kept from the public
}

// Close ends the connections that are kept between looks.
func (w *Watcher) Close() { w.client.CloseIdleConnections() }

// Look asks all processes at one time, and returns when the last has answered or its time is over.
func (w *Watcher) Look(ctx context.Context) *Report {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	now := make([]*sample, len(w.addresses))
	var asked sync.WaitGroup
	for i, address := range w.addresses {
		asked.Go(func() { now[i] = scrape(ctx, &w.client, address) })
	}
	asked.Wait()
	r := reportOf(w.addresses, w.last, now)
	r.At = time.Now()
	w.last = now
	return r
}

// reportOf compares two looks. before may have nothing of a process.
func reportOf(addresses []string, before, now []*sample) *Report {
	r := &Report{}
	for i, s := range now {
		p := Process{Address: addresses[i], Role: s.role, Version: s.version, State: s.state, Reason: s.reason, TopicsError: s.topicsError}
		was := before[i]
		if s.state != Unreachable {
			p.Gauges = &s.gauges
			if was != nil && was.state != Unreachable && was.started == s.started {
				p.Rates = ratesOf(was, s)
				r.addTopics(p.Address, s.topics)
			}
		} else if was != nil {
			p.Role, p.Version = was.role, was.version // what was watched a moment ago
			s.role, s.version = was.role, was.version
		}
		r.Processes = append(r.Processes, p)
	}
	r.addTotals()
	slices.SortStableFunc(r.Topics, func(a, b Topic) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(b.Subscribers, a.Subscribers),
			strings.Compare(a.Topic, b.Topic))
	})
	return r
}

func (r *Report) addTopics(address string, topics []topicLoad) {
	for _, t := range topics {
		r.Topics = append(r.Topics, Topic{Topic: t.Topic, Address: address, Epoch: t.Epoch, Head: t.Head,
			Messages: float64(t.Messages) / max(t.Seconds, 1e-3), Subscribers: t.Subscribers, Bytes: t.Bytes})
	}
}

// ratesOf is the difference of two samples of one process.
func ratesOf(was, now *sample) *Rates {
	seconds := max(now.at.Sub(was.at).Seconds(), 1e-3)
	rate := func(was, now float64) float64 { return max(now-was, 0) / seconds }
	r := &Rates{
		Published:    rate(was.published, now.published),
		Delivered:    rate(was.delivered, now.delivered),
		SentBytes:    rate(was.sentBytes, now.sentBytes),
		Recovered:    rate(was.recoveries["recovered"], now.recoveries["recovered"]),
		NotRecovered: rate(was.recoveries["not_recovered"], now.recoveries["not_recovered"]),
		DroppedBy:    map[string]float64{},
		BusyBy:       map[string]float64{},
	}
	for reason, n := range now.dropped {
		if n := rate(was.dropped[reason], n); n > 0 {
			r.DroppedBy[reason] = n
			r.Dropped += n
		}
	}
	for loop, n := range now.busy {
		r.BusyBy[loop] = rate(was.busy[loop], n)
		r.Busiest = max(r.Busiest, r.BusyBy[loop])
	}
	if len(was.latency) == len(now.latency) {
		for i, b := range now.latency {
			r.latency = append(r.latency, bucket{b.bound, max(b.count-was.latency[i].count, 0)})
		}
	}
	r.setLatency99()
	return r
}

func (r *Rates) setLatency99() {
	if at, over, ok := quantile(.99, r.latency); ok {
		r.Latency99, r.Latency99Over = &at, over
	}
}

// quantile is where a histogram, whose last bucket is of infinite bound, has this share of its observations: within the
// bucket as if they were spread evenly over it, as Prometheus does. over is that it is past the last finite bound,
// which is returned.
func quantile(share float64, buckets []bucket) (at float64, over, ok bool) {
	if len(buckets) < 2 || buckets[len(buckets)-1].count == 0 {
		return 0, false, false
	}
	rank := share * buckets[len(buckets)-1].count
	i := slices.IndexFunc(buckets, func(b bucket) bool { return b.count >= rank })
	if i < 0 || math.IsInf(buckets[i].bound, 1) {
		return buckets[len(buckets)-2].bound, true, true
	}
	var below bucket
	if i > 0 {
		below = buckets[i-1]
	}
	return below.bound + (buckets[i].bound-below.bound)*(rank-below.count)/(buckets[i].count-below.count), false, true
}

func (r *Report) addTotals() {
	for _, p := range r.Processes {
		if p.Role == "" && p.Gauges == nil {
			continue // whatever it is
		}
		i := slices.IndexFunc(r.Totals, func(t Total) bool { return t.Role == p.Role })
		if i < 0 {
			i = len(r.Totals)
			r.Totals = append(r.Totals, Total{Role: p.Role})
		}
		r.Totals[i].add(p)
	}
	r.Totals = slices.DeleteFunc(r.Totals, func(t Total) bool { return t.Processes == 1 })
	for _, t := range r.Totals {
		if t.Rates != nil {
			t.setLatency99()
		}
	}
}

func (t *Total) add(p Process) {
	t.Processes++
	if p.State == Ready {
		t.Ready++
	}
	if p.Gauges != nil {
		t.Connections += p.Connections
		t.Subscriptions += p.Subscriptions
		t.Topics += p.Topics
		t.ResidentBytes += p.ResidentBytes
		t.Links = sum(t.Links, p.Links)
	}
	if p.Rates == nil {
		return
	}
	if t.Rates == nil {
		t.Rates = &Rates{}
	}
	t.Published += p.Published
	t.Delivered += p.Delivered
	t.SentBytes += p.SentBytes
	t.Dropped += p.Dropped
	t.DroppedBy = sum(t.DroppedBy, p.DroppedBy)
	t.Recovered += p.Recovered
	t.NotRecovered += p.NotRecovered
	t.Busiest = max(t.Busiest, p.Busiest)
	switch {
	case t.latency == nil:
		t.latency = slices.Clone(p.latency)
	case len(t.latency) == len(p.latency):
		for i := range t.latency {
			t.latency[i].count += p.latency[i].count
		}
	}
}

func sum(a, b map[string]float64) map[string]float64 {
	if a == nil {
		a = map[string]float64{}
	}
	for name, n := range b {
		a[name] += n
	}
	return a
}

// writeJSON writes an object a line, which its type tells.
func (r *Report) writeJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for _, p := range r.Processes {
		if err := encoder.Encode(struct {
			Type string    `json:"type"`
			Time time.Time `json:"time"`
			Process
		}{"process", r.At, p}); err != nil {
			return err
		}
	}
	for _, t := range r.Totals {
		if err := encoder.Encode(struct {
			Type string    `json:"type"`
			Time time.Time `json:"time"`
			Total
		}{"total", r.At, t}); err != nil {
			return err
		}
	}
	for _, t := range r.Topics {
		if err := encoder.Encode(struct {
			Type string    `json:"type"`
			Time time.Time `json:"time"`
			Topic
		}{"topic", r.At, t}); err != nil {
			return err
		}
	}
	return nil
}
