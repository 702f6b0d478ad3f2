package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	sweepPoints   = 8
	sweepWindow   = time.Second
	sweepWarmUp   = 300 * time.Millisecond
	sweepInFlight = 16  // the widest window of a sweep is at least this
	sweepLowest   = 1e2 // by which a sweep of rates begins below the scenario's own
	sweepAchieved = 0.9 // of the publishes due: a server that is further behind ends a sweep of rates
)

// curve is one contender in one scenario under a load that grows.
type curve struct {
	scenario Scenario
	server   string
	points   []Result
}

// loads are the scenario under growing load: windows of a closed loop up to twice its own, or rates of an open one up to
// four times its own.
func (s Scenario) loads() (all []Scenario) {
	s = s.withDefaults()
	s.Duration, s.WarmUp = min(s.Duration, sweepWindow), min(s.WarmUp, sweepWarmUp)
	low, high := 1.0, float64(max(sweepInFlight, 2*s.InFlight))
	if s.Rate > 0 {
		low, high = s.Rate*4/sweepLowest, s.Rate*4
	}
	for i := range sweepPoints {
		at := low * math.Pow(high/low, float64(i)/(sweepPoints-1))
		if s.Rate > 0 {
			s.Rate = at
		} else {
			s.InFlight = int(math.Round(at))
		}
		if n := len(all); n == 0 || all[n-1].Rate != s.Rate || all[n-1].InFlight != s.InFlight {
			all = append(all, s)
		}
	}
	return all
}

// sweep gathers the chart's curves: from a search's steps where there was one, else from loads of its own.
func (c *campaign) sweep(ctx context.Context) {
	for i := range c.rows {
		w := &c.rows[i]
		if w.s.Publishers == 0 {
			continue
		}
		points, err := sustainedSteps(w.steps), error(nil)
		if c.FindP99 == 0 {
			points, err = c.sweepLoads(ctx, w)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.failed = append(c.failed, fmt.Errorf("sweep of %s on %s: %w", w.s.Name, w.of.Name, err))
		}
		if len(points) > 0 {
			c.curves = append(c.curves, curve{scenario: w.s, server: w.of.Name, points: points})
		}
	}
}

// sweepLoads measures a row's loads, all on one server: a point is too short to be worth a fresh one.
func (c *campaign) sweepLoads(ctx context.Context, w *row) (points []Result, err error) {
	addr, pid := w.of.Addr, w.of.PID
	if len(w.of.Argv) > 0 {
		server, err := c.start(ctx, w.s, w.of)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, server.stop(err != nil)) }()
		addr, pid = server.Addr, server.PID
	}
	for _, s := range w.s.loads() {
		r, err := c.calmly(ctx, func() (Result, error) { return c.load(ctx, s, w.of, addr, pid) })
		if err != nil {
			return points, err
		}
		r.Part = PartSweep
		c.console.line("%s %s sweep, %s: %s", s.Name, w.of.Name, load(&s), r.brief())
		if r.Latency.Count > 0 {
			points = append(points, r)
		}
		if err := c.stream(&r); err != nil {
			return points, err
		}
		if s.Rate > 0 && r.achieved(0) < sweepAchieved {
			break
		}
	}
	return points, nil
}

// sustainedSteps are a search's steps that held, by rising rate.
func sustainedSteps(steps []Result) []Result {
	held := slices.DeleteFunc(slices.Clone(steps), func(r Result) bool { return !r.Sustained })
	slices.SortFunc(held, func(a, b Result) int { return int(a.Scenario.Rate - b.Scenario.Rate) })
	return held
}
