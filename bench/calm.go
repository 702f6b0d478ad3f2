package bench

import (
	"context"
	"time"
)

const (
	calmSample   = 500 * time.Millisecond
	calmPatience = 2 * time.Minute // before a measurement; then it is made all the same, and warns
	calmAttempts = 3
)

// calmly measures when other processes leave the machine alone, and anew if they did not after all; it takes the attempt
// they disturbed least. What was measured has no part in the choice.
func (c *campaign) calmly(ctx context.Context, measure func() (Result, error)) (best Result, err error) {
	if c.Calm == 0 {
		return measure()
	}
	for attempt := range calmAttempts {
		if err := c.awaitCalm(ctx); err != nil {
			return best, err
		}
		r, err := measure()
		if err != nil {
			return r, err
		}
		if attempt == 0 || r.OtherCores < best.OtherCores {
			best = r
		}
		if best.OtherCores <= c.Calm {
			break
		}
		c.console.status("%s %s disturbed: other processes used %.2f cores", r.Scenario.Name, r.Server, r.OtherCores)
	}
	return best, nil
}

// awaitCalm returns when all processes together use no more than the plan lets others use, or when its patience ends.
func (c *campaign) awaitCalm(ctx context.Context) error {
	for begun := time.Now(); time.Since(begun) < calmPatience; {
		before, _, err := machineCPU()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(calmSample):
		}
		after, _, err := machineCPU()
		if err != nil {
			return err
		}
		used := (after - before).Seconds() / calmSample.Seconds()
		if used <= c.Calm {
			return nil
		}
		c.console.status("waiting: other processes use %.2f cores, want %g at most", used, c.Calm)
	}
	return nil
}
