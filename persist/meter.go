package persist

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Meter counts and times what its stores are asked. It is a collector of prometheus'. Safe from any goroutine.
type Meter struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
}

// NewMeter counts nothing yet.
func NewMeter() *Meter {
	return &Meter{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rayflux_store_requests_total",
			Help: "Requests to the object store; the store's own retries count as one.",
		}, []string{"op", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "rayflux_store_request_seconds",
			Help:    "From a request to its whole answer, or the last retry's.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}, []string{"op"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rayflux_store_bytes_total",
			Help: "Bytes of objects written and read.",
		}, []string{"op"}),
	}
}

// Describe is prometheus.Collector's.
func (m *Meter) Describe(to chan<- *prometheus.Desc) {
	m.requests.Describe(to)
	m.seconds.Describe(to)
	m.bytes.Describe(to)
}

// Collect is prometheus.Collector's.
func (m *Meter) Collect(to chan<- prometheus.Metric) {
	m.requests.Collect(to)
	m.seconds.Collect(to)
	m.bytes.Collect(to)
}

// Metered is a store whose requests m counts.
func (m *Meter) Metered(store Store) Store { return &metered{store, m} }

type metered struct {
	store Store
	meter *Meter
}

func (s *metered) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	start := time.Now()
	body, err := s.store.Get(ctx, name, offset, length)
	s.meter.observe("get", start, len(body), err)
	return body, err
}

func (s *metered) Put(ctx context.Context, name string, body []byte) error {
	start := time.Now()
	err := s.store.Put(ctx, name, body)
	s.meter.observe("put", start, len(body), err)
	return err
}

func (s *metered) Create(ctx context.Context, name string, body []byte) error {
	start := time.Now()
	err := s.store.Create(ctx, name, body)
	s.meter.observe("create", start, len(body), err)
	return err
}

func (s *metered) List(ctx context.Context, prefix, after string, max int) ([]Object, error) {
	start := time.Now()
	objects, err := s.store.List(ctx, prefix, after, max)
	s.meter.observe("list", start, 0, err)
	return objects, err
}

func (s *metered) Delete(ctx context.Context, name string) error {
	start := time.Now()
	err := s.store.Delete(ctx, name)
	s.meter.observe("delete", start, 0, err)
	return err
}

func (m *Meter) observe(op string, start time.Time, bytes int, err error) {
	m.seconds.WithLabelValues(op).Observe(time.Since(start).Seconds())
	m.requests.WithLabelValues(op, resultOf(err)).Inc()
	if err == nil && bytes > 0 {
		m.bytes.WithLabelValues(op).Add(float64(bytes))
	}
}

// resultOf is the word for how a request went. Not found and exists are answers, and no failures.
func resultOf(err error) string {
	var slow net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrExists):
		return "exists"
	case errors.Is(err, ErrDenied), errors.Is(err, fs.ErrPermission):
		return "denied"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "full"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return "timeout"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "other"
}
