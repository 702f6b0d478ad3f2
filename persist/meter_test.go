package persist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// failing is a store that has one answer.
type failing struct {
	Store
	err error
}

func (f failing) Put(context.Context, string, []byte) error { return f.err }

// collected is what a collector says, as "name{label,label} value".
func collected(t *testing.T, of prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(of); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, family := range families {
		for _, metric := range family.Metric {
			var labels []string
			for _, label := range metric.Label {
				labels = append(labels, label.GetValue())
			}
			value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			fmt.Fprintf(&b, "%s{%s} %g\n", family.GetName(), strings.Join(labels, ","), value)
		}
	}
	return b.String()
}

func TestMeterCountsByResult(t *testing.T) {
	m := NewMeter()
	store := m.Metered(NewMemory())
	for range 2 {
		_, _ = store.Get(t.Context(), "x", 0, -1)
		_ = store.Create(t.Context(), "x", []byte("12345"))
	}
	for _, err := range []error{
		fmt.Errorf("a: %w", ErrDenied), &os.PathError{Op: "open", Path: "x", Err: os.ErrPermission}, context.Canceled, context.DeadlineExceeded,
		os.ErrDeadlineExceeded, fmt.Errorf("b: %w", ErrUnavailable), errors.New("what is this"), &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC},
	} {
		_ = m.Metered(failing{err: err}).Put(t.Context(), "x", nil)
	}
	got := collected(t, m)
	for _, want := range []string{
		"requests_total{get,not_found} 1", "requests_total{get,ok} 1", "requests_total{create,ok} 1", "requests_total{create,exists} 1",
		"requests_total{put,denied} 2", "requests_total{put,cancelled} 1", "requests_total{put,timeout} 2", "requests_total{put,unavailable} 1",
		"requests_total{put,other} 1", "requests_total{put,full} 1", "request_seconds{put} 8", "bytes_total{create} 5", "bytes_total{get} 5",
	} {
		if !strings.Contains(got, "rayflux_store_"+want+"\n") {
			t.Errorf("want %s in\n%s", want, got)
		}
	}
}
