package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// What is read of one answer at most.
const (
	metricsBytesMax = 8 << 20
	topicsBytesMax  = 1 << 20
	reasonBytesMax  = 512
)

// topicsWanted is how many topics each process is asked for; it is the most that one tells.
const topicsWanted = 100

// State is how a process is.
type State string

const (
	Ready       State = "ready"
	Draining    State = "draining"
	Failing     State = "failing" // it answers, and says that it cannot serve
	Unreachable State = "unreachable"
)

// sample is what one process said at one moment.
type sample struct {
	at      time.Time // when its metrics came
	state   State
	reason  string
	role    string
	version string
	started float64 // Unix seconds; another one is another process

	gauges     Gauges
	published  float64
	delivered  float64
	sentBytes  float64
	dropped    map[string]float64 // by reason
	recoveries map[string]float64 // by result
	busy       map[string]float64 // seconds, by loop
	latency    []bucket

	topics      []topicLoad
	topicsError string
}

// bucket is one of a histogram's: how many were at most that.
type bucket struct{ bound, count float64 }

// topicLoad is a topic as GET /topics tells it.
type topicLoad struct {
	Topic       string  `json:"topic"`
	Epoch       string  `json:"epoch"`
	Head        uint64  `json:"head"`
	Messages    uint64  `json:"messages"`
	Seconds     float64 `json:"seconds"`
	Subscribers int     `json:"subscribers"`
	Bytes       int64   `json:"bytes"`
}

// scrape asks one process for everything. What it could not be asked for is told in the sample.
func scrape(ctx context.Context, client *http.Client, address string) *sample {
	s := &sample{}
	if err := s.read(ctx, client, address); err != nil {
		return &sample{state: Unreachable, reason: reasonOf(err)}
	}
	return s
}

func (s *sample) read(ctx context.Context, client *http.Client, address string) error {
	status, said, err := get(ctx, client, address, "/readyz", reasonBytesMax)
	if err != nil {
		return err
	}
	s.reason = strings.TrimSpace(string(said))
	switch {
	case status == http.StatusOK:
		s.state, s.reason = Ready, ""
	case status == http.StatusServiceUnavailable && s.reason == "draining":
		s.state, s.reason = Draining, ""
	case status == http.StatusServiceUnavailable:
		s.state = Failing
	default:
		return fmt.Errorf("/readyz is answered %d", status)
	}

	status, text, err := get(ctx, client, address, "/metrics", metricsBytesMax)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("/metrics is answered %d", status)
	}
	s.at = time.Now()
	if err := s.parse(text); err != nil {
		return fmt.Errorf("/metrics: %w", err)
	}
	if err := s.readTopics(ctx, client, address); err != nil {
		s.topicsError = reasonOf(err)
	}
	return nil
}

func (s *sample) readTopics(ctx context.Context, client *http.Client, address string) error {
	status, text, err := get(ctx, client, address, "/topics?top="+strconv.Itoa(topicsWanted), topicsBytesMax)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("/topics is answered %d", status)
	}
	var answer struct {
		Topics []topicLoad `json:"topics"`
	}
	err = json.Unmarshal(text, &answer)
	s.topics = answer.Topics
	return err
}

func get(ctx context.Context, client *http.Client, address, path string, bytesMax int64) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, bytesMax+1))
	if err == nil && int64(len(body)) > bytesMax {
		err = fmt.Errorf("%s has more than %d bytes", path, bytesMax)
	}
	return response.StatusCode, body, err
}

// reasonOf is an error without the address, which stands beside it already.
func reasonOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	return err.Error()
}

// parse takes what is wanted out of a text of metrics. What is not there stays 0.
func (s *sample) parse(text []byte) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		return err
	}
	if families["rayflux_connections"] == nil {
		return errors.New("these are not RayFlux's")
	}
	total := func(name string) (sum float64) {
		for _, m := range families[name].GetMetric() {
			sum += valueOf(m)
		}
		return sum
	}
	by := func(name, label string) map[string]float64 {
		values := map[string]float64{}
		for _, m := range families[name].GetMetric() {
			values[labelOf(m, label)] += valueOf(m)
		}
		return values
	}
	for _, m := range families["rayflux_build_info"].GetMetric() {
		s.role, s.version = labelOf(m, "role"), labelOf(m, "version")
	}
	s.started = total("process_start_time_seconds")
	s.gauges = Gauges{
		Connections:   total("rayflux_connections"),
		Subscriptions: total("rayflux_subscriptions"),
		Topics:        total("rayflux_topics"),
		ResidentBytes: total("process_resident_memory_bytes"),
		Links:         by("rayflux_links", "state"),
	}
	s.published = total("rayflux_messages_published_total")
	s.delivered = total("rayflux_messages_delivered_total")
	s.sentBytes = total("rayflux_bytes_sent_total")
	s.dropped = by("rayflux_messages_dropped_total", "reason")
	s.recoveries = by("rayflux_recoveries_total", "result")
	s.busy = by("rayflux_loop_busy_seconds_total", "loop")
	for _, m := range families["rayflux_publish_to_write_seconds"].GetMetric() {
		for _, b := range m.GetHistogram().GetBucket() {
			s.latency = append(s.latency, bucket{b.GetUpperBound(), float64(b.GetCumulativeCount())})
		}
	}
	return nil
}

// valueOf is a sample's, whichever type it has.
func valueOf(m *dto.Metric) float64 {
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
