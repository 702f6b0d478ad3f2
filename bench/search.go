package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

const (
	achievedLeast     = 0.99   // of the publishes that were due: less is another rate than the one asked for
	hopelessBelow     = 0.90   // of them: no noise explains that, the step is not taken again
	searchPrecision   = 0.05   // by which the rate found may be too low
	searchDeliveries  = 100e3  // per second: where a search begins that knows no better
	searchRateLeast   = 1      // publishes per second
	searchRateMost    = 1e9    // publishes per second
	searchStepsAtMost = 1 << 6 // of one search; doubling and halving take about a dozen
)

// highest finds the highest rate that holds: doubling from start until one does not (or halving until one does), then
// bisecting the logarithm. It returns 0 when none holds. It takes for granted that below a rate that holds all do.
func highest(start float64, holds func(rate float64) (bool, error)) (float64, error) {
	low, high := 0.0, math.Inf(1)
	at := start
	for range searchStepsAtMost {
		ok, err := holds(at)
		if err != nil {
			return low, err
		}
		if ok {
			low = at
		} else {
			high = at
		}
		switch {
		case low == 0:
			at = high / 2
		case math.IsInf(high, 1):
			at = low * 2
		case high <= low*(1+searchPrecision):
			return low, nil
		default:
			at = math.Sqrt(low * high)
		}
		if at < searchRateLeast || at > searchRateMost {
			break
		}
	}
	return low, nil
}

// achieved is the share of the publishes due in an open loop's window that were sent. What became due within the limit
// before the window's end may rightly still wait to be.
func (r *Result) achieved(limit time.Duration) float64 {
	due := r.Scenario.Rate * r.WindowSeconds
	late := float64(r.Unsent) - r.Scenario.Rate*limit.Seconds()
	return 1 - max(0, late)/due
}

// sustained judges one step of a search: nil, or what did not hold.
func (r *Result) sustained(limit time.Duration) error {
	switch ms := float64(limit) / 1e6; {
	case !r.Clean():
		return fmt.Errorf("not clean: %s", r.trouble())
	case r.achieved(limit) < achievedLeast:
		return fmt.Errorf("only %.1f %% of the publishes were sent", 100*r.achieved(limit))
	case r.Latency.Count == 0:
		return fmt.Errorf("nothing was delivered")
	case r.Latency.P99 > ms:
		return fmt.Errorf("p99 %s ms is over %s ms", millis(r.Latency.P99), millis(ms))
	}
	return nil
}

// search finds the highest open-loop rate at which the contender keeps the plan's p99, and returns its result (nil: none)
// and all steps. A step that does not hold is taken once more, because other processes' noise only ever makes it fail; not
// one that is hopeless.
func (c *campaign) search(ctx context.Context, s Scenario, of *Contender) (best *Result, steps []Result, err error) {
	start := s.Rate
	if start == 0 {
		start = max(searchRateLeast, searchDeliveries/s.fanout())
	}
	limit := c.FindP99
	var lowest Result // of those that did not hold
	step := func(perSecond float64) (Result, error) {
		s.Rate = perSecond
		r, err := c.calmly(ctx, func() (Result, error) { return c.once(ctx, s, of) })
		if err != nil {
			return r, err
		}
		refusal := r.sustained(limit)
		r.Part, r.Sustained = PartSearch, refusal == nil
		verdict := "holds"
		if refusal != nil {
			verdict = "does not hold: " + refusal.Error()
		}
		c.console.line("%s %s at %s publishes/s: %s: %s", s.Name, of.Name, rate(r.Scenario.Rate), r.brief(), verdict)
		steps = append(steps, r)
		return r, c.stream(&r)
	}
	_, err = highest(start, func(perSecond float64) (bool, error) {
		r, err := step(perSecond)
		if err == nil && !r.Sustained && r.achieved(limit) >= hopelessBelow {
			r, err = step(perSecond)
		}
		if r.Sustained {
			best = &r
		} else {
			lowest = r
		}
		return r.Sustained, err
	})
	if best != nil && lowest.generatorBound() {
		best.Warnings = append(best.Warnings, "the generator was the limit: it was busy at the first rate that did not hold")
	}
	return best, steps, err
}
