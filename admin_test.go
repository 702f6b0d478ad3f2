package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rayflux/bench/cgroup"
	"rayflux/engine"

	"github.com/prometheus/client_golang/prometheus"
)

type fakeServer struct {
	ready  bool
	err    error // of its health, and of TopTopics
	topics []engine.TopicLoad
}

func (f fakeServer) Ready() bool    { return f.ready }
func (f fakeServer) Healthy() error { return f.err }
func (f fakeServer) TopTopics(_ context.Context, n int) ([]engine.TopicLoad, error) {
	return f.topics[:min(n, len(f.topics))], f.err
}

func TestProbes(t *testing.T) {
	stuck := errors.New("loop 1 has not answered for 3s")
	for _, c := range []struct {
		name                 string
		server               fakeServer
		live, ready, healthy int
		says                 string
	}{
		{"serving", fakeServer{ready: true}, 200, 200, 200, "ok"},
		{"draining", fakeServer{}, 200, 503, 503, "draining"},
		{"stuck", fakeServer{ready: true, err: stuck}, 503, 503, 503, "loop 1"},
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
	handler := adminHandler(fakeServer{ready: true}, newRegistry("node", connections, groups))
	for _, c := range []struct {
		path   string
		status int
		says   string
	}{
		{"/metrics", 200, "rayflux_connections 0"},
		{"/metrics", 200, "\nrayflux_cpu_throttled_seconds_total 2.5\n"},
		{"/metrics", 200, "\nrayflux_build_info{role=\"node\",version=\"" + version + "\"} 1\n"},
		{"/metrics", 200, "\ngo_goroutines "},
		{"/metrics", 200, "\nprocess_open_fds "},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
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

func TestTopTopics(t *testing.T) {
	server := fakeServer{topics: make([]engine.TopicLoad, 30)}
	server.topics[0] = engine.TopicLoad{Topic: "a \"b\" <c>", Epoch: "e", Head: 9, Messages: 3, Seconds: 1.5, Subscribers: 2, Bytes: 100}
	handler := adminHandler(server, prometheus.NewRegistry())
	for _, c := range []struct {
		query  string
		status int
		topics int
		says   string
	}{
		{"", 200, 20, `"messages":3,"seconds":1.5,"subscribers":2,"bytes":100}`},
		{"?top=1", 200, 1, `{"topics":[{"topic":"a \"b\" \u003cc\u003e","epoch":"e","head":9,`},
		{"?top=100", 200, 30, ""},
		{"?top=0", 400, 0, `top is "0", want 1 to 100`},
		{"?top=101", 400, 0, "want 1 to 100"},
		{"?top=x", 400, 0, "want 1 to 100"},
	} {
		status, body := get(handler, "/topics"+c.query)
		if status != c.status || strings.Count(body, `"topic":`) != c.topics || !strings.Contains(body, c.says) {
			t.Errorf("%q is %d %s, want %d and %d topics saying %q", c.query, status, body, c.status, c.topics, c.says)
		}
	}
	server.err = errors.New("1 event loops have not looked")
	if status, body := get(adminHandler(server, prometheus.NewRegistry()), "/topics"); status != 503 || !strings.Contains(body, "have not looked") {
		t.Errorf("without an answer it is %d %q", status, body)
	}
}

func TestThrottlingIsNotMadeUp(t *testing.T) {
	handler := adminHandler(fakeServer{}, newRegistry("node", prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"}), cgroup.Groups{}))
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
