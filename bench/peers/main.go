// Command peers measures the kernel's floor, RayFlux and other servers with one generator: every scenario on each of them,
// alternating, several times over, a fresh server for every measurement. It prints medians and the spread.
//
// "make bench-peers" builds the servers and runs it:
//
//	peers -bin .cache/peers -repeat 3 F1 F2
//
// Every server is kept on one processor with GOMAXPROCS=1, the generator on another. No auth, no TLS, no compression
// anywhere. Publishes are masked with a key of zero, as always with this generator: RayFlux and the floor see that there is
// nothing to unmask, the others go over the payload all the same, once per publish.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"rayflux/bench"
	"rayflux/bench/cgroup"
)

// usual are the scenarios of a run that names none: those in which servers on one core can be compared.
var usual = []string{"F1", "F2", "F2-20k", "F2-2k", "F3", "F4", "F5", "F6", "F7", "F8"}

func main() {
	bench.RunTool("peers", parse, func(plan *bench.Plan, ctx context.Context) error {
		err := plan.Run(ctx)
		if plan.Output == bench.OutputTable {
			writeSettings(os.Stdout, plan.Contenders)
		}
		return err
	})
}

func parse(args []string) (*bench.Plan, error) {
	plan := &bench.Plan{Stdout: os.Stdout, Stderr: os.Stderr}
	set := flag.NewFlagSet("peers", flag.ContinueOnError)
	bin := set.String("bin", ".cache/peers", "folder of the servers' programs")
	natsConfig := set.String("nats-config", "bench/peers/nats.conf", "settings file of NATS")
	only := set.String("only", "", "servers to measure, separated by commas (default: all)")
	set.IntVar(&plan.Repeat, "repeat", 3, "measurements of each scenario on each server")
	server, generator := bench.Processors()
	set.IntVar(&plan.CPU, "cpu", generator, "processor to keep the generator on")
	set.IntVar(&plan.ServerCPU, "server-cpu", server, "processor to keep the servers on")
	set.Float64Var(&plan.Calm, "calm", 0, "wait until other processes use no more than this many processors, and measure anew if they did; 0: do not")
	set.StringVar(&plan.Chart, "chart", "", "file of a throughput-latency chart, .svg or .png")
	duration := set.Duration("duration", 4*time.Second, "measured window")
	warmUp := set.Duration("warm-up", time.Second, "load before the measured window")
	output := set.String("output", string(bench.OutputTable), "table, json or benchstat")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	plan.Output = bench.Output(*output)
	for _, p := range peers(*bin, *natsConfig) {
		if *only == "" || slices.Contains(strings.Split(*only, ","), p.Name) {
			plan.Contenders = append(plan.Contenders, p.Contender)
		}
	}
	groups, err := cgroup.Find(os.DirFS("/"))
	if err != nil {
		return nil, err
	}
	plan.Groups = groups
	if len(plan.Contenders) == 0 {
		return nil, fmt.Errorf("no server is called %q", *only)
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
		plan.Scenarios = append(plan.Scenarios, s)
	}
	return plan, plan.Check()
}
