package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rayflux/bench/cgroup"

	"github.com/prometheus/client_golang/prometheus"
)

type fakeHealth struct {
	ready bool
	err   error
}

func (f fakeHealth) Ready() bool    { return f.ready }
func (f fakeHealth) Healthy() error { return f.err }

func TestProbes(t *testing.T) {
	stuck := errors.New("loop 1 has not answered for 3s")
	for _, c := range []struct {
		name                 string
		server               fakeHealth
		live, ready, healthy int
		says                 string
	}{
		{"serving", fakeHealth{ready: true}, 200, 200, 200, "ok"},
		{"draining", fakeHealth{}, 200, 503, 503, "draining"},
		{"stuck", fakeHealth{ready: true, err: stuck}, 503, 503, 503, "loop 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			handler := adminHandler(c.server, prometheus.NewRegistry())
			for path, want := range map[string]int{"/livez": c.live, "/readyz": c.ready, "/healthz": c.healthy} {
				status, body := get(handler, path)
				if status != want {
					t.Errorf("%s is %d, want %d", path, status, want)
				}
				if path == "/readyz" && !strings.Contains(body, c.says) {
					t.Errorf("%s says %q, want %q", path, body, c.says)
				}
			}
		})
	}
}

func TestOperatorsPages(t *testing.T) {
	groups, err := cgroup.Find(tree{
		"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/cpu.stat": "throttled_usec 2500000\n",
	}.fs())
	if err != nil {
		t.Fatal(err)
	}
	connections := prometheus.NewGauge(prometheus.GaugeOpts{Name: "rayflux_connections"})
	handler := adminHandler(fakeHealth{ready: true}, newRegistry(connections, groups))
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"/metrics", 200, "rayflux_connections 0"},
		{"/metrics", 200, "\nrayflux_cpu_throttled_seconds_total 2.5\n"},
		{"/metrics", 200, "\ngo_goroutines "},
		{"/metrics", 200, "\nprocess_open_fds "},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"/debug/pprof/cmdline", 200, ""},
		{"/debug/pprof/symbol", 200, "num_symbols"},
		{"/", 404, ""},
		{"/publish", 404, ""},
	} {
		status, body := get(handler, c.path)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s is %d, want %d saying %q", c.path, status, c.status, c.says)
		}
	}
}

func TestThrottlingIsNotMadeUp(t *testing.T) {
	handler := adminHandler(fakeHealth{}, newRegistry(prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"}), cgroup.Groups{}))
	if _, body := get(handler, "/metrics"); strings.Contains(body, "throttled") {
		t.Error("throttling is exported where the kernel does not count it")
	}
}

func get(handler http.Handler, path string) (status int, body string) {
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	text, _ := io.ReadAll(recorder.Result().Body)
	return recorder.Code, string(text)
}
