package test

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"rayflux/bench"
)

// The shape of the first RayFlux' benchmark: 200 users on 10 topics, of whom four in five read on the classic wire and the others publish over HTTP
// as fast as they are answered. The generator is one thread on this machine, outside of the cluster; readers and publishers come in through the Service.
var users = bench.Scenario{
	Name: "users", Topics: 10, Subscribers: 160, Publishers: 40, Wire: bench.WireClassic, Publish: bench.PublishHTTP,
	WarmUp: 2 * time.Second, Duration: 20 * time.Second, // less than what a connection of the lab is left alone for
}

// Who waits for answers makes as many requests as are under way in the time of one. The first RayFlux' 5,974 requests/s of 86.91 ms on average are 519
// under way at any moment, so that is measured as well as one for each publisher. The autoscaler has production's target.
func TestFirstBenchmark(t *testing.T) {
	l := open(t)
	l.target("300m")
	defer l.target("60m")
	for _, each := range []int{1, 13} {
		if s := l.await(sizes{2, 2}, func() {}); s != (sizes{2, 2}) {
			t.Errorf("there are %s, want 2 of each", s)
		}
		s := users
		s.Pipeline = each
		before, began := l.processors(), time.Now()
		r, err := bench.Run(t.Context(), strings.TrimPrefix(front, "ws://"), 0, s)
		if err != nil {
			t.Fatal(err)
		}
		after, whole := l.processors(), time.Since(began).Seconds()
		var spent, busiest, throttled float64
		for name, p := range after {
			used := (p.used - before[name].used) / whole // of a pod that has come meanwhile, all
			spent += used
			busiest = max(busiest, used)
			throttled += p.throttled - before[name].throttled
		}
		l.show(fmt.Sprintf("the first benchmark: %d users, %d topics, %d requests under way, %s", s.Subscribers+s.Publishers, s.Topics, s.Publishers*each, l.sizes()),
			fmt.Sprintf("%.0f publishes/s, %.0f deliveries/s; answered after %.1f ms on average, p95 %.0f, p99 %.0f; %d of %d failed; processors: generator %.2f, pods %.2f (the busiest %.2f of 0.50; throttled for %.1f s of %.0f, all together), everything else %.2f",
				r.PublishesPerSecond, r.DeliveriesPerSecond, r.Answer.Mean, r.Answer.P95, r.Answer.P99, r.Refused+r.Errors, r.Publishes,
				r.GeneratorCores, spent, busiest, throttled, whole, max(0, r.OtherCores-spent)))
		if !r.Clean() || r.Deliveries == 0 {
			t.Errorf("want every message once and in order for every reader, got %+v", r)
		}
	}
	l.show("the first RayFlux", "5,974 requests/s; answered after 86.91 ms on average, p95 160, p99 210; none failed")
}

// target is the processor time of a pod above which the autoscaler adds one.
func (l lab) target(each string) {
	l.Helper()
	for _, name := range []string{"flux-node", "flux-balancer"} {
		l.kubectl("patch", "hpa", name, "--type", "json", "--patch", `[{"op":"replace","path":"/spec/metrics/0/resource/target/averageValue","value":"`+each+`"}]`)
	}
}

// share is what a pod has had of processors, in seconds since it started.
type share struct{ used, throttled float64 }

// processors asks every pod on its operators' port. One that does not answer yet has used next to nothing.
func (l lab) processors() map[string]share {
	l.Helper()
	all := map[string]share{}
	for _, p := range l.pods() {
		response, err := http.Get("http://" + p.admin + "/metrics")
		if err != nil {
			continue
		}
		var had share
		for s := bufio.NewScanner(response.Body); s.Scan(); {
			name, value, _ := strings.Cut(s.Text(), " ")
			n, err := strconv.ParseFloat(value, 64)
			switch {
			case err != nil:
			case name == "process_cpu_seconds_total":
				had.used = n
			case name == "rayflux_cpu_throttled_seconds_total":
				had.throttled = n
			}
		}
		response.Body.Close()
		all[p.name] = had
	}
	return all
}

// pod is one that has an address; admin is its operators' port.
type pod struct{ name, admin string }

func (l lab) pods() (all []pod) {
	l.Helper()
	text := l.kubectl("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.containers[0].ports[?(@.name=="admin")].containerPort}{" "}{.status.podIP}{"\n"}{end}`)
	for line := range strings.Lines(text) {
		if field := strings.Fields(line); len(field) == 3 {
			all = append(all, pod{field[0], field[2] + ":" + field[1]})
		}
	}
	return all
}
