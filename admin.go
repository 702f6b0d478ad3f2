package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"time"

	"rayflux/bench/cgroup"
	"rayflux/engine"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the operators' port. It is ordinary net/http: nothing on it is hot,
// and it has to answer while the engine's loops do not.
type admin struct {
	http     http.Server
	listener net.Listener
	failed   chan error // at most one: why the port stopped serving
}

// listenAdmin takes the port, so that a taken one is told before anybody is
// served. It answers from serve on.
func listenAdmin(address string, log *slog.Logger) (*admin, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return &admin{
		listener: listener,
		failed:   make(chan error, 1),
		http: http.Server{
			ReadHeaderTimeout: 5 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
			// A CPU profile takes as long as it is asked to, so there is no
			// WriteTimeout, and no ReadTimeout either: it ends the request that
			// outlives it.
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		},
	}, nil
}

func (a *admin) addr() string { return a.listener.Addr().String() }

func (a *admin) serve(server operated, metrics prometheus.Gatherer) {
	a.http.Handler = adminHandler(server, metrics)
	go func() {
		if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- err
		}
	}()
}

// close gives the port back, requests under way or not.
func (a *admin) close() {
	a.http.Close()
	a.listener.Close() // the server does not know it before serve
}

// operated is what a server says about itself.
type operated interface {
	Ready() bool    // false before it accepts and while it drains
	Healthy() error // nil when every loop answered lately
	TopTopics(ctx context.Context, n int) ([]engine.TopicLoad, error)
}

func adminHandler(server operated, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	// A draining process is alive and must not be restarted, but should get no
	// new clients; one whose loop is stuck is helped by nothing but a restart.
	alive := server.Healthy
	ready := func() error {
		if !server.Ready() {
			return errors.New("draining")
		}
		return nil
	}
	mux.Handle("GET /livez", probe(alive))
	mux.Handle("GET /readyz", probe(alive, ready))
	mux.Handle("GET /healthz", probe(alive, ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("GET /topics", topTopics(server))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// What of waiting is sampled for /debug/pprof/mutex and /block: one contended lock in lockSample, and a wait once for
// each waitSample nanoseconds of waiting, on average. No hot path locks or waits on a channel, so nothing there pays.
const (
	lockSample = 10
	waitSample = int(100 * time.Microsecond)
)

// sampleWaits makes the profiles of locks and of other waits more than empty files.
func sampleWaits() {
	runtime.SetMutexProfileFraction(lockSample)
	runtime.SetBlockProfileRate(waitSample)
}

// probe answers 200 "ok" if every check passes, else 503 and the first reason.
func probe(checks ...func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		for _, check := range checks {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
}

const (
	topTopicsDefault = 20
	topTopicsTimeout = 2 * time.Second
)

// topTopics answers with the busiest topics. They are no metrics: how many topics there are is the clients' to choose.
func topTopics(server operated) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		n := topTopicsDefault
		if text := request.URL.Query().Get("top"); text != "" {
			var err error
			if n, err = strconv.Atoi(text); err != nil || n < 1 || n > engine.TopTopicsMax {
				http.Error(w, fmt.Sprintf("top is %.40q, want 1 to %d", text, engine.TopTopicsMax), http.StatusBadRequest)
				return
			}
		}
		ctx, cancel := context.WithTimeout(request.Context(), topTopicsTimeout)
		defer cancel()
		topics, err := server.TopTopics(ctx, n)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]any{"topics": topics}) // fails only if nobody waits any more
	})
}

// newRegistry collects the metrics of the server in its role, the runtime, the
// process and its container.
func newRegistry(role string, server prometheus.Collector, groups cgroup.Groups) *prometheus.Registry {
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "rayflux_build_info", Help: "1: what runs here.",
		ConstLabels: prometheus.Labels{"role": role, "version": version}})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		server,
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		throttling{groups},
	)
	return registry
}

// throttling exports how long the kernel held the process back to keep it
// within its quota: under half a CPU that, not work, makes the p99.
type throttling struct{ cgroup.Groups }

var throttledDesc = prometheus.NewDesc("rayflux_cpu_throttled_seconds_total",
	"Time for which the container's CPU quota kept its threads from running.", nil, nil)

func (throttling) Describe(descs chan<- *prometheus.Desc) { descs <- throttledDesc }

// Collect reads the kernel's counter at each scrape; without one there is no
// sample, rather than a 0 that would claim to have looked.
func (t throttling) Collect(metrics chan<- prometheus.Metric) {
	if seconds, ok := t.Throttled(); ok {
		metrics <- prometheus.MustNewConstMetric(throttledDesc, prometheus.CounterValue, seconds)
	}
}
