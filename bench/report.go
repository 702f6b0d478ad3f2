package bench

import (
	"encoding/json"
	"fmt"
	"os"
)

// stream writes a result at once, where results are wanted as they come.
func (c *campaign) stream(r *Result) error {
	if c.Output != OutputJSON {
		return nil
	}
	return r.WriteJSON(c.Stdout)
}

// report writes what is known at the end. Its error is also for results that are not clean.
func (c *campaign) report() error {
	summaries, unclean, runs := c.summaries()
	var err error
	switch c.Output {
	case OutputJSON:
		lines := json.NewEncoder(c.Stdout)
		for i := 0; i < len(summaries) && err == nil; i++ {
			err = lines.Encode(&summaries[i])
		}
	case OutputBenchstat:
		var results []Result
		for i := range c.Contenders {
			for j := i; j < len(c.rows); j += len(c.Contenders) {
				results = append(results, c.rows[j].results...)
			}
		}
		err = writeBenchstat(c.Stdout, results)
	default:
		if c.FindP99 > 0 {
			fmt.Fprintf(c.Stdout, "Highest open-loop rate, within %.0f %%, with p99 at most %s, %.0f %% of the publishes sent, nothing lost:\n",
				100*searchPrecision, c.FindP99, 100*achievedLeast)
		}
		err = writeTable(c.Stdout, summaries)
	}
	if err == nil && len(c.curves) > 0 {
		err = c.draw()
	}
	if err == nil && unclean > 0 {
		err = fmt.Errorf("%d of %d measurements were not clean", unclean, runs)
	}
	return err
}

func (c *campaign) summaries() (all []Summary, unclean, runs int) {
	each := len(c.Contenders)
	for first := 0; first < len(c.rows); first += each {
		var floor *Summary
		begin := len(all)
		for _, w := range c.rows[first : first+each] {
			if len(w.results) == 0 {
				continue
			}
			s := summarize(w.results)
			s.Scenario.Name = w.s.Name
			all = append(all, s)
			unclean, runs = unclean+s.Unclean, runs+s.Runs
			if s.Server == FloorName {
				floor = &s
			}
		}
		if floor != nil {
			for i := range all[begin:] {
				all[begin+i].compare(floor)
			}
		}
	}
	return all, unclean, runs
}

// draw writes the chart's file.
func (c *campaign) draw() error {
	picture, err := drawChart(c.Chart, c.curves)
	if err != nil {
		return fmt.Errorf("chart %s: %w", c.Chart, err)
	}
	if err := os.WriteFile(c.Chart, picture, 0o644); err != nil {
		return err
	}
	c.console.line("chart in %s", c.Chart)
	return nil
}
