// Command guard says whether one build of the server is worse than another, by more than the noise of the machine it runs
// on. "make bench-guard BASE=<commit>" compares the working tree with a commit; two programs can be named instead:
//
//	guard -base v1.2.0
//	guard -a rayflux.before -b rayflux.after F1 F2
//
// Three things are compared, each where it says most:
//
//   - server CPU per delivery under load, in one interleaved run (A B B A, B A A B, …). What two runs of the same program
//     differ by is the noise; a change fails that is worse by more than such noise explains one time in 200.
//   - instructions per operation of the Go benchmarks, counted by valgrind: blind to the kernel, where most of the time
//     goes, but the same on the busiest machine. Only with -base, which has the sources.
//   - allocations per operation of the same benchmarks: exact.
//
// docs/performance.md tells how far to trust it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"rayflux/bench"
)

// usual are the scenarios compared when none is named: most deliveries per write, most topics per write, latency with
// writes of one message, and ingest.
var usual = []string{"F1", "F2", "F2-2k", "F6"}

type options struct {
	base         string // commit; or the two programs:
	a, b         string
	scenarios    []bench.Scenario
	blocks       int
	cpu          int
	serverCPU    int
	calm         float64
	load         bool
	instructions bool
	cache        string
}

// errWorse is the finding that the exit status tells.
var errWorse = errors.New("worse than before")

func main() {
	bench.RunTool("guard", parse, func(o *options, ctx context.Context) error { return o.run(ctx, os.Stdout, os.Stderr) })
}

func parse(args []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("guard", flag.ContinueOnError)
	set.StringVar(&o.base, "base", "", "commit to compare the working tree with")
	set.StringVar(&o.a, "a", "", "the program before, instead of -base")
	set.StringVar(&o.b, "b", "", "the program after, instead of -base")
	set.IntVar(&o.blocks, "blocks", 4, "rounds of A B B A per scenario; more of them see smaller changes")
	server, generator := bench.Processors()
	set.IntVar(&o.cpu, "cpu", generator, "processor to keep the generator on (-1: any)")
	set.IntVar(&o.serverCPU, "server-cpu", server, "processor to keep the servers on (-1: any)")
	set.Float64Var(&o.calm, "calm", 0.25, "repeat a run, at most twice, in which other processes used more cores than this")
	set.BoolVar(&o.load, "load", true, "compare CPU per delivery; without it a busy machine will do")
	set.BoolVar(&o.instructions, "instructions", true, "with -base: count instructions, if valgrind is here")
	set.StringVar(&o.cache, "cache", ".cache/guard", "folder for what is built")
	duration := set.Duration("duration", 2*time.Second, "measured window of one run")
	warmUp := set.Duration("warm-up", 500*time.Millisecond, "load before the measured window")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if programs := o.a != "" && o.b != ""; programs == (o.base != "") || !programs && o.a+o.b != "" {
		return nil, errors.New("name a commit with -base, or two programs with -a and -b")
	}
	if o.blocks < 1 || o.blocks > len(quantiles) {
		return nil, fmt.Errorf("%d blocks, must be 1 to %d", o.blocks, len(quantiles))
	}
	names := set.Args()
	if len(names) == 0 {
		names = usual
	}
	for _, name := range names {
		s, err := bench.Named(name)
		if err != nil {
			return nil, err
		}
		s.Duration, s.WarmUp = *duration, *warmUp
		o.scenarios = append(o.scenarios, s)
	}
	return o, nil
}

func (o *options) run(ctx context.Context, stdout, stderr io.Writer) error {
	var verdicts []verdict
	worse := false
	if o.base != "" {
		ofSources, fewer, err := o.compareSources(ctx, stdout, stderr)
		if err != nil {
			return err
		}
		verdicts, worse = ofSources, fewer
	}
	if o.load {
		if runtime.GOMAXPROCS(0) < 2 {
			runtime.GOMAXPROCS(2) // the generator's thread sleeps in the kernel with its processor
		}
		if err := bench.Pin(o.cpu); err != nil {
			return err
		}
		underLoad, err := o.compareLoad(ctx, stderr)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, underLoad...)
	}
	if worse = writeVerdicts(stdout, verdicts) || worse; worse {
		return errWorse
	}
	return nil
}

// compareSources builds both trees and compares what needs sources: allocations, which it reports, and instructions.
func (o *options) compareSources(ctx context.Context, stdout, stderr io.Writer) (verdicts []verdict, worse bool, err error) {
	before := tree{dir: filepath.Join(o.cache, "base"), program: filepath.Join(o.cache, "base.rayflux")}
	after := tree{dir: ".", program: filepath.Join(o.cache, "head.rayflux")}
	if err := before.unpack(ctx, o.base); err != nil {
		return nil, false, err
	}
	for _, t := range []tree{before, after} {
		if err := t.build(ctx); err != nil {
			return nil, false, err
		}
	}
	o.a, o.b = before.program, after.program
	changes, err := compareAllocations(ctx, before, after)
	if err != nil {
		return nil, false, err
	}
	worse = writeAllocations(stdout, changes)
	if !o.instructions {
		return nil, worse, nil
	}
	verdicts, err = o.compareInstructions(ctx, before, after, stderr)
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Fprintln(stderr, "guard: instructions are not counted:", err)
		err = nil
	}
	return verdicts, worse, err
}
