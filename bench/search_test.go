package bench

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// queue is a fake server: one that takes 1/capacity for a publish, in front of which publishes wait.
type queue struct {
	capacity float64 // publishes per second
	steps    int
}

// load is what an open loop of the given rate sees in a window of 4 s: the waiting time of a queue with exponential
// service (M/M/1), and a backlog that grows past capacity.
func (q *queue) load(perSecond float64) Result {
	q.steps++
	r := Result{Scenario: Scenario{Rate: perSecond}, WindowSeconds: 4, Latency: Quantiles{Count: 1}}
	if perSecond < q.capacity {
		r.Latency.P99 = math.Log(100) / (q.capacity - perSecond) * 1e3
		return r
	}
	r.Latency.P99 = 4e3
	r.Unsent = uint64(4 * (perSecond - q.capacity))
	return r
}

func TestSearchFindsTheHighestRateThatKeepsTheP99(t *testing.T) {
	const limit = 100 * time.Millisecond
	for _, capacity := range []float64{60, 999, 20_000, 312_500, 7e6} {
		for _, start := range []float64{1, 1000, 62_500, 5e6} {
			q := queue{capacity: capacity}
			found, err := highest(start, func(perSecond float64) (bool, error) {
				r := q.load(perSecond)
				return r.sustained(limit) == nil, nil
			})
			want := capacity - math.Log(100)/limit.Seconds() // the rate at which the queue's p99 is the limit
			if err != nil || found > want || found < want/(1+searchPrecision) {
				t.Errorf("capacity %.0f from %.0f: found %.1f (%v), want %.1f or at most %.0f %% less", capacity, start, found, err, want, 100*searchPrecision)
			}
			if most := int(math.Abs(math.Log2(want/start))) + 8; q.steps > most {
				t.Errorf("capacity %.0f from %.0f took %d steps, want at most %d", capacity, start, q.steps, most)
			}
		}
	}
}

func TestSearchEnds(t *testing.T) {
	if found, err := highest(1000, func(float64) (bool, error) { return false, nil }); found != 0 || err != nil {
		t.Errorf("of rates that never hold, %v is found (%v)", found, err)
	}
	if found, err := highest(1000, func(float64) (bool, error) { return true, nil }); found < searchRateMost/2 || err != nil {
		t.Errorf("of rates that always hold, %v is found (%v)", found, err)
	}
	broken := errors.New("broken")
	if found, err := highest(1000, func(perSecond float64) (bool, error) {
		if perSecond > 3000 {
			return false, broken
		}
		return true, nil
	}); found != 2000 || !errors.Is(err, broken) {
		t.Errorf("before it broke, %v was found (%v)", found, err)
	}
}

func TestStepOfASearchIsJudged(t *testing.T) {
	const limit = 100 * time.Millisecond
	good := Result{Scenario: Scenario{Rate: 1000}, WindowSeconds: 4, Latency: Quantiles{Count: 4000, P99: 99}}
	for _, c := range []struct {
		name   string
		change func(r *Result)
		want   string // in the verdict; "" for none
	}{
		{"holds", func(*Result) {}, ""},
		{"lost", func(r *Result) { r.Lost = 1 }, "1 lost"},
		{"refused", func(r *Result) { r.Refused, r.FirstRefused = 1, "publish answered 503" }, "answered 503"},
		{"late", func(r *Result) { r.Latency.P99 = 101 }, "p99 101.0 ms is over 100.0 ms"},
		{"silent", func(r *Result) { r.Latency.Count = 0 }, "nothing was delivered"},
		{"a limit's worth may wait", func(r *Result) { r.Unsent = 100 }, ""},
		{"and one in a hundred", func(r *Result) { r.Unsent = 139 }, ""},
		{"but no more", func(r *Result) { r.Unsent = 150 }, "only 98.8 %"},
	} {
		r := good
		c.change(&r)
		verdict := ""
		if err := r.sustained(limit); err != nil {
			verdict = err.Error()
		}
		if (c.want == "") != (verdict == "") || !strings.Contains(verdict, c.want) {
			t.Errorf("%s: verdict %q, want %q", c.name, verdict, c.want)
		}
	}
}

// An HTTP publisher that waits for each answer has a highest rate of its own.
func TestSearchOnAServer(t *testing.T) {
	t.Parallel()
	s := Scenario{Name: "one", Topics: 1, Subscribers: 1, Publishers: 1, Publish: PublishHTTP, Rate: 8000, Duration: 50 * time.Millisecond}
	plan := Plan{FindP99: 50 * time.Millisecond, CPU: -1, ServerCPU: -1, Output: OutputTable, Stdout: io.Discard, Stderr: io.Discard}
	c := campaign{Plan: &plan, console: newConsole(io.Discard, true)}
	best, steps, err := c.search(context.Background(), s, &Contender{Name: FloorName, Argv: floorArgv(t)})
	if err != nil || best == nil || len(steps) < 3 {
		t.Fatalf("%d steps, best %+v, %v", len(steps), best, err)
	}
	held := sustainedSteps(steps)
	if last := held[len(held)-1]; !best.Sustained || best.Scenario.Rate != last.Scenario.Rate || best.Latency.P99 > 50 {
		t.Errorf("best is %+v, the highest step that held %+v", best, last)
	}
}
