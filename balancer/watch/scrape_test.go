package watch

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeServer is an operators' port that says what a real one once said.
type fakeServer struct {
	metrics string // a file of testdata
	ready   string // what /readyz answers 503 with; "" is 200
	topics  string
	hangs   bool
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	switch {
	case f.hangs:
		<-request.Context().Done()
	case request.URL.Path == "/readyz" && f.ready != "":
		http.Error(w, f.ready, http.StatusServiceUnavailable)
	case request.URL.Path == "/readyz":
		fmt.Fprintln(w, "ok")
	case request.URL.Path == "/metrics":
		http.ServeFile(w, request, filepath.Join("testdata", f.metrics))
	case request.URL.Path == "/topics" && request.URL.RawQuery == "top=100" && f.topics != "":
		fmt.Fprint(w, f.topics)
	default:
		http.NotFound(w, request)
	}
}

func serve(t *testing.T, handler http.Handler) (address string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestRatesAreTheDifferenceOfTwoLooks(t *testing.T) {
	fake := &fakeServer{metrics: "before.txt", topics: `{"topics":[{"topic":"t","epoch":"e","head":70,"messages":60,"seconds":2,"subscribers":3,"bytes":99}]}`}
	address := serve(t, fake)
	w := NewWatcher([]string{address}, 20*time.Second)
	defer w.Close()
	first := w.Look(t.Context())
	if p := first.Processes[0]; p.Gauges == nil || p.Rates != nil || p.State != Ready || p.Role != "node" || len(first.Topics) > 0 {
		t.Errorf("the first look finds %+v, topics %v", p, first.Topics)
	}

	fake.metrics = "after.txt"
	before, after := w.last, []*sample{scrape(t.Context(), &w.client, address)}
	after[0].at = before[0].at.Add(10 * time.Second)
	r := reportOf(w.addresses, before, after)
	p := r.Processes[0]
	if p.Rates == nil || p.TopicsError != "" {
		t.Fatalf("the second look finds %+v", p)
	}
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"connections", p.Connections, 1},
		{"subscriptions", p.Subscriptions, 2},
		{"topics", p.Topics, 2},
		{"resident bytes", p.ResidentBytes, 18644992},
		{"links up", p.Links["up"], 3},
		{"links down", p.Links["down"], 1},
		{"published", p.Published, 330},
		{"delivered", p.Delivered, 330},
		{"sent bytes", p.SentBytes, (160321 - 243) / 10.},
		{"dropped", p.Dropped, 6.5},
		{"dropped by slow_skip", p.DroppedBy["slow_skip"], 6},
		{"dropped by invalid", p.DroppedBy["invalid"], .5},
		{"kinds of drops", float64(len(p.DroppedBy)), 2},
		{"recovered", p.Recovered, .9},
		{"not recovered", p.NotRecovered, .1},
		{"busiest loop", p.Busiest, .0175257149},
		{"other loop", p.BusyBy["0"], .0099053254},
		{"p99", *p.Latency99, .0002 + .0003*(3058*.99-2924)/(3055-2924)},
	} {
		if math.Abs(c.got-c.want) > 1e-9*math.Abs(c.want) {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
	if want := (Topic{Topic: "t", Address: address, Epoch: "e", Head: 70, Messages: 30, Subscribers: 3, Bytes: 99}); len(r.Topics) != 1 || r.Topics[0] != want {
		t.Errorf("topics are %+v", r.Topics)
	}
}

func TestRestartedProcessHasNoRates(t *testing.T) {
	was, now := &sample{state: Ready, started: 1, published: 100}, &sample{state: Ready, started: 2}
	r := reportOf([]string{"a"}, []*sample{was}, []*sample{now})
	if p := r.Processes[0]; p.Rates != nil || p.Gauges == nil {
		t.Errorf("it has %+v", p)
	}
}

func TestStates(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, c := range []struct {
		name    string
		address string
		state   State
		reason  string
	}{
		{"ready", serve(t, &fakeServer{metrics: "after.txt"}), Ready, ""},
		{"draining", serve(t, &fakeServer{metrics: "after.txt", ready: "draining"}), Draining, ""},
		{"failing", serve(t, &fakeServer{metrics: "after.txt", ready: "event loop 1 has not answered"}), Failing, "event loop 1 has not answered"},
		{"hanging", serve(t, &fakeServer{hangs: true}), Unreachable, "no answer in time"},
		{"gone", strings.TrimPrefix(gone.URL, "http://"), Unreachable, "connection refused"},
		{"no operators' port", serve(t, http.NotFoundHandler()), Unreachable, "/readyz is answered 404"},
		{"another program", serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "go_goroutines 1") })), Unreachable, "not RayFlux's"},
		{"no metrics", serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "<html>") })), Unreachable, "/metrics: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The one that hangs is waited for, the others never are.
			w := NewWatcher([]string{c.address}, 20*time.Second)
			if c.name == "hanging" {
				w.timeout = 50 * time.Millisecond
			}
			defer w.Close()
			p := w.Look(t.Context()).Processes[0]
			if p.State != c.state || !strings.Contains(p.Reason, c.reason) || (p.Gauges == nil) != (c.state == Unreachable) {
				t.Errorf("it is %+v", p)
			}
		})
	}
}

func TestTooLongAnswerIsRefused(t *testing.T) {
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 2000)) }))
	if _, _, err := get(t.Context(), http.DefaultClient, address, "/", 1999); err == nil || !strings.Contains(err.Error(), "1999 bytes") {
		t.Errorf("it is %v", err)
	}
}

func TestQuantile(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name     string
		share    float64
		buckets  []bucket
		at       float64
		over, ok bool
	}{
		{"none", .99, nil, 0, false, false},
		{"no observation", .99, []bucket{{1, 0}, {inf, 0}}, 0, false, false},
		{"in the first", .5, []bucket{{1, 10}, {inf, 10}}, .5, false, true},
		{"in the second", .5, []bucket{{1, 2}, {3, 10}, {inf, 10}}, 1 + 2*3/8., false, true},
		{"behind an empty one", .99, []bucket{{1, 0}, {2, 0}, {4, 100}, {inf, 100}}, 2 + 2*.99, false, true},
		{"past the last", .99, []bucket{{1, 90}, {inf, 100}}, 1, true, true},
	} {
		at, over, ok := quantile(c.share, c.buckets)
		if math.Abs(at-c.at) > 1e-12 || over != c.over || ok != c.ok {
			t.Errorf("%s: %v %v %v, want %v %v %v", c.name, at, over, ok, c.at, c.over, c.ok)
		}
	}
}

func TestTotalsAreOfARole(t *testing.T) {
	was := []*sample{}
	now := []*sample{}
	for i, role := range []string{"node", "balancer", "node", "node"} {
		at := time.Unix(100, 0)
		was = append(was, &sample{state: Ready, role: role, at: at, latency: []bucket{{1, 0}, {2, 0}, {math.Inf(1), 0}}})
		now = append(now, &sample{state: Ready, role: role, at: at.Add(2 * time.Second), published: 10 * math.Pow(2, float64(i)),
			gauges: Gauges{Connections: 1, Links: map[string]float64{"up": 1}}, busy: map[string]float64{"0": float64(i)},
			latency: []bucket{{1, 1}, {2, float64(1 + i)}, {math.Inf(1), float64(1 + i)}}})
	}
	now[3] = &sample{state: Unreachable, reason: "gone"}
	r := reportOf([]string{"a", "b", "c", "d"}, was, now)
	if len(r.Totals) != 1 {
		t.Fatalf("totals are %+v", r.Totals)
	}
	total := r.Totals[0]
	if total.Role != "node" || total.Processes != 3 || total.Ready != 2 || total.Connections != 2 || total.Links["up"] != 2 ||
		total.Published != 25 || total.Busiest != 1 || math.Abs(*total.Latency99-(1+1*(4*.99-2)/2)) > 1e-12 {
		t.Errorf("the total is %+v, %+v", total, *total.Rates)
	}
	if r.reached() != nil {
		t.Error("nobody was reached")
	}
}

func TestOnceIsATableOrLines(t *testing.T) {
	address := serve(t, &fakeServer{metrics: "after.txt", topics: `{"topics":[{"topic":"a\u202eb","messages":1,"seconds":1}]}`})
	for _, c := range []struct {
		json bool
		says []string
	}{
		{false, []string{"1 process, 1 ready\n", "\nPROCESS ", "\n" + address, "links: down 1, up 3\n", `a\u202eb `}},
		{true, []string{`{"type":"process",`, `"address":"` + address + `"`, `"delivered_per_second":0,`, `{"type":"topic",`, "\"topic\":\"a\u202eb\""}},
	} {
		var out strings.Builder
		err := Run(t.Context(), Options{Addresses: []string{address}, Interval: time.Millisecond, Once: true, JSON: c.json, Out: &out})
		if err != nil {
			t.Fatal(err)
		}
		for _, says := range c.says {
			if !strings.Contains(out.String(), says) {
				t.Errorf("%q is not in %s", says, out.String())
			}
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("it has colours: %q", out.String())
		}
	}
}

func TestRunGoesOnUntilItIsToldToEnd(t *testing.T) {
	address := serve(t, &fakeServer{metrics: "after.txt"})
	ctx, cancel := context.WithCancel(t.Context())
	reports := 0
	out := writer(func(b []byte) (int, error) {
		if reports++; reports == 3 {
			cancel()
		}
		return len(b), nil
	})
	if err := Run(ctx, Options{Addresses: []string{address}, Interval: time.Millisecond, Out: out}); err != nil || reports != 3 {
		t.Errorf("%d reports, %v", reports, err)
	}
	full := writer(func([]byte) (int, error) { return 0, os.ErrClosed })
	if err := Run(t.Context(), Options{Addresses: []string{address}, Interval: time.Millisecond, Out: full}); err != os.ErrClosed {
		t.Errorf("nobody reads: %v", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
