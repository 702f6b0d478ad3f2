package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"rayflux/bench/cgroup"

	"golang.org/x/sys/unix"
)

// Output is the form of a report.
type Output string

// The forms of a report. JSON lines and progress come as things happen, the others at the end.
const (
	OutputTable     Output = "table"
	OutputJSON      Output = "json"
	OutputBenchstat Output = "benchstat"
)

// Part says what of a Plan a line of JSON tells.
type Part string

// The parts of a Plan's JSON lines.
const (
	PartRun     Part = "run"     // a measurement
	PartSearch  Part = "search"  // a step of a search for the highest rate
	PartSweep   Part = "sweep"   // a point of a chart's curve
	PartSummary Part = "summary" // all runs of one scenario on one contender
)

// Contender is a server that is measured.
type Contender struct {
	Name string
	Argv []string                // starts a fresh server for every measurement, see [Spawn]; empty: it runs already
	Addr string                  // of one that runs already
	PID  int                     // of one that runs already; 0: unknown, its CPU and memory are not measured
	Wire func(Scenario) Scenario // the scenario in a peer's own wire; nil: as it is
}

// Plan is what is measured, on whom, and how it is reported.
type Plan struct {
	Scenarios  []Scenario
	Contenders []Contender
	Repeat     int           // measurements of each scenario on each contender; 0: 1
	FindP99    time.Duration // not 0: search the highest open-loop rate that keeps this 99th percentile
	CPU        int           // processor to keep the generator on; negative: any
	ServerCPU  int           // processor to keep spawned servers on; negative: any
	Calm       float64       // processors that other processes may use while it measures, else it waits and tries anew; 0: any
	Nice       int           // of the generator's thread, for when it shares the server's processors
	Groups     cgroup.Groups // for scenarios with limits
	Output     Output
	Chart      string    // file of a throughput-latency chart, .svg or .png; "": none
	Quiet      bool      // no progress
	Stdout     io.Writer // the report
	Stderr     io.Writer // progress and servers' complaints
}

// Check finds what cannot be measured or reported, before anything is.
func (p *Plan) Check() error {
	if p.Repeat < 0 || p.FindP99 < 0 || p.Calm < 0 {
		return fmt.Errorf("repeat is %d, the p99 to find %s and calm %g, want none below 0", p.Repeat, p.FindP99, p.Calm)
	}
	if !slices.Contains([]Output{OutputTable, OutputJSON, OutputBenchstat}, p.Output) {
		return fmt.Errorf("unknown output %q", p.Output)
	}
	if p.Chart != "" {
		if _, err := pictureFormat(p.Chart); err != nil {
			return err
		}
	}
	for _, s := range p.Scenarios {
		if err := s.withDefaults().check(descriptorLimit()); err != nil {
			return err
		}
		if p.FindP99 > 0 && s.Publishers == 0 {
			return fmt.Errorf("scenario %q has no publishers, and so no rate to find", s.Name)
		}
	}
	return nil
}

// campaign is a Plan under way.
type campaign struct {
	*Plan
	console console
	rows    []row // scenarios in their order, and in each the contenders in theirs
	failed  []error
	curves  []curve
}

// row is one scenario on one contender.
type row struct {
	s       Scenario
	of      *Contender
	results []Result
	steps   []Result // of searches
}

// Run measures everything, every scenario on every contender in turn and the whole again until it has been repeated
// enough, so that what else the machine does hits all alike. What fails is reported and left out; the rest goes on. A
// cancelled ctx ends the measuring, not the report. The error is also for results that are not clean.
func (p *Plan) Run(ctx context.Context) error {
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2) // the generator's thread sleeps in the kernel with its processor; signals need another
	}
	if err := Pin(p.CPU); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if p.Nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), p.Nice); err != nil {
			return fmt.Errorf("nice %d: %w", p.Nice, err)
		}
	}
	c := &campaign{Plan: p, console: newConsole(p.Stderr, p.Quiet)}
	for _, s := range p.Scenarios {
		for i := range p.Contenders {
			c.rows = append(c.rows, row{s: s, of: &p.Contenders[i]})
		}
	}
	c.measure(ctx)
	if p.Chart != "" && ctx.Err() == nil {
		c.sweep(ctx)
	}
	c.console.clear()
	c.failed = append(c.failed, ctx.Err(), c.report())
	return errors.Join(c.failed...)
}

// measure repeats all rows. Every second round takes the contenders of a scenario in reverse, so that none always comes
// after the same other.
func (c *campaign) measure(ctx context.Context) {
	each := len(c.Contenders)
	for round := range max(1, c.Repeat) {
		for first := 0; first < len(c.rows); first += each {
			for i := range each {
				if round%2 == 1 {
					i = each - 1 - i
				}
				if ctx.Err() != nil {
					return
				}
				c.failed = append(c.failed, c.one(ctx, round+1, &c.rows[first+i]))
			}
		}
	}
}

// one measures one row once.
func (c *campaign) one(ctx context.Context, round int, w *row) error {
	title := fmt.Sprintf("%s %s %d/%d", w.s.Name, w.of.Name, round, max(1, c.Repeat))
	if c.FindP99 > 0 {
		best, steps, err := c.search(ctx, w.s, w.of)
		w.steps = append(w.steps, steps...)
		if best != nil {
			best.Round = round
			w.results = append(w.results, *best)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && best == nil:
			return fmt.Errorf("%s: no rate keeps a p99 of %s", title, c.FindP99)
		}
		return err
	}
	r, err := c.calmly(ctx, func() (Result, error) { return c.once(ctx, w.s, w.of) })
	if ctx.Err() != nil {
		return nil // which Run tells
	}
	if err != nil {
		c.console.line("%s: %v", title, err)
		return fmt.Errorf("%s: %w", title, err)
	}
	r.Part, r.Round = PartRun, round
	c.console.line("%s: %s", title, r.brief())
	w.results = append(w.results, r)
	return c.stream(&r)
}

// once measures one scenario on one contender.
func (c *campaign) once(ctx context.Context, s Scenario, of *Contender) (r Result, err error) {
	if len(of.Argv) == 0 {
		return c.load(ctx, s, of, of.Addr, of.PID)
	}
	server, err := c.start(ctx, s, of)
	if err != nil {
		return r, err
	}
	r, err = c.load(ctx, s, of, server.Addr, server.PID)
	r.ServerThrottledSeconds = server.limit.throttled().Seconds()
	return r, errors.Join(err, server.stop(err != nil || !r.Clean()))
}

// load runs a scenario against a server.
func (c *campaign) load(ctx context.Context, s Scenario, of *Contender, addr string, pid int) (Result, error) {
	if of.Wire != nil {
		s = of.Wire(s)
	}
	s.Progress = func(p Progress) {
		c.console.status("%s %s %-7s  %8s publishes/s  %8s deliveries/s  lost %d  %s", s.Name, of.Name, p.Phase,
			rate(p.PublishesPerSecond), rate(p.DeliveriesPerSecond), p.Lost, p.Trouble)
	}
	r, err := Run(ctx, addr, pid, s)
	r.Server = of.Name
	if err == nil && s.limited() && len(of.Argv) == 0 {
		r.Warnings = append(r.Warnings, "the server was running already: no limit was put around it")
	}
	return r, err
}

// started is a server of the campaign's own.
type started struct {
	*Server
	log *tail
	to  io.Writer
}

// start starts a contender, inside the scenario's limits.
func (c *campaign) start(ctx context.Context, s Scenario, of *Contender) (*started, error) {
	var limit *confinement
	if s.limited() {
		var err error
		if limit, err = confine(s, c.Groups); err != nil {
			return nil, err
		}
	}
	log := &tail{}
	server, err := spawn(ctx, of.Argv, c.ServerCPU, limit, log)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, log.kept)
	}
	return &started{server, log, c.Stderr}, nil
}

// stop ends the server, and shows what it had to say if that may tell why something went wrong.
func (s *started) stop(wrong bool) error {
	err := s.Stop()
	if wrong || err != nil {
		_, _ = s.to.Write(s.log.kept) // nobody to tell of a failure here
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

const tailBytes = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	t.kept = t.kept[max(0, len(t.kept)-tailBytes):]
	return len(b), nil
}
