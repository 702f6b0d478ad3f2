package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rayflux/bench"
	"rayflux/bench/floor"
)

// benchOptions are what a measurement is told besides the load.
type benchOptions struct {
	plan    bench.Plan
	output  string
	floor   bool
	addr    string
	pid     int
	against []string
}

// What a load is called that was given by its parameters alone, the scenario that they change, and the word for most.
const (
	scenarioOfParameters = "custom"
	scenarioChanged      = "F1"
	scenarioAll          = "all"
	scenarioLong         = "churn" // which takes a minute, and is not among all
)

func benchCommand() *cobra.Command {
	o := benchOptions{output: string(bench.OutputTable)}
	cmd := &cobra.Command{
		Use:   "bench [SCENARIO...] [-- NODE-FLAG...]",
		Short: "Measure deliveries, latency and processor time of a server",
		Long: `Measure a server in another process: deliveries per second, its processor time for each, latency from the moment
a message was due, and whether every subscriber got every message once and in order.

Every measurement starts a fresh "rayflux node" on a free port, on a processor of its own, with the flags after --,
and without a store unless they name one; --addr measures a server that runs already. Flags that describe the load
change the named scenarios. Without a scenario they change F1, under the name "` + scenarioOfParameters + `".

` + benchScenarios(),
		Example: `  rayflux bench F1 --floor --repeat 3
  rayflux bench F7 --find-p99 100ms
  rayflux bench --topics 20 --subscribers 500 --publishers 10 --rate 5000 --chart latency.svg
  rayflux bench all --against 'before=/tmp/old/rayflux node --listen {addr} --admin 127.0.0.1:0' --output benchstat
  rayflux bench F2 --server-cpu -1 --cpu -1 --nice 10 -- --loops 2`,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	addLoad(flags, &bench.Scenario{}) // whose values are only said again, to each scenario
	flags.VisitAll(func(f *pflag.Flag) { f.DefValue = "" })
	o.addFlags(flags)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, err := fill(flags, environment(os.Environ()), nil)
		if err != nil {
			return usageError{err}
		}
		nodeFlags := []string{}
		if at := cmd.ArgsLenAtDash(); at >= 0 {
			args, nodeFlags = args[:at], args[at:]
		}
		if err := o.choose(args, flags, from); err != nil {
			return usageError{err}
		}
		if err := o.contend(nodeFlags); err != nil {
			return err
		}
		o.plan.Stdout, o.plan.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
		return o.run()
	}
	return cmd
}

// addLoad binds a scenario's fields to flags. What a flag's value prints it reads, so that it can be said again to
// another scenario.
func addLoad(flags *pflag.FlagSet, s *bench.Scenario) {
	flags.Var(countOf(&s.Topics), "topics", "topics")
	flags.Var(countOf(&s.Subscribers), "subscribers", "connections that subscribe and read")
	flags.Var(countOf(&s.Subscriptions), "subscriptions", "topics that each of them subscribes to")
	flags.Var(countOf(&s.Publishers), "publishers", "connections that publish; 0: the others idle")
	flags.Var(countOf(&s.PayloadBytes), "payload", "bytes of a message")
	flags.TextVar(&s.Wire, "wire", s.Wire, "`word` for what subscribers read: bin, json or classic")
	flags.TextVar(&s.Publish, "publish", s.Publish, "`word` for how publishers send: bin (WebSocket) or http (POST /publish)")
	flags.StringVar(&s.PublishAddr, "publish-addr", s.PublishAddr, "`host:port` that publishers connect to, such as the node's behind a balancer (default: where subscribers do)")
	flags.Var(countOf(&s.InFlight), "in-flight", "closed loop: publishes of one publisher that have not reached all readers")
	flags.Var(numberOf(&s.Rate), "rate", "open loop: publishes per second over all publishers; 0: closed loop")
	flags.Var(countOf(&s.Pipeline), "pipeline", "http: requests of one connection that are not answered")
	flags.Var(countOf(&s.Stalled), "stalled", "further subscribers that never read")
	flags.Var(durationOf(&s.Duration), "duration", "measured `time` (default: 5s)")
	flags.Var(durationOf(&s.WarmUp), "warm-up", "`time` under load before it (default: 1s)")
	flags.BoolVar(&s.Spin, "spin", s.Spin, "the generator polls without sleeping")
	flags.Var(numberOf(&s.LimitCPU), "limit-cpu", "processors that the server's container would have (needs a control group)")
	flags.Var(sizeOf(&s.LimitMemory), "limit-memory", "memory that the server's container would have")
}

func numberOf(at *float64) pflag.Value {
	parse := func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("%q is not a number", s)
		}
		return v, nil
	}
	return value[float64]{at, parse, func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }, "number"}
}

func (o *benchOptions) addFlags(flags *pflag.FlagSet) {
	p := &o.plan
	server, generator := bench.Processors()
	flags.BoolVar(&o.floor, "floor", false, "also measure the floor: what the kernel leaves of a server that does nothing else")
	flags.StringArrayVar(&o.against, "against", nil, "also measure `NAME=COMMAND`, in which {addr} is where to listen (can be repeated)")
	flags.Var(countOf(&p.Repeat), "repeat", "measurements of each scenario and server, in turn (default: 1)")
	flags.Var(durationOf(&p.FindP99), "find-p99", "search the highest rate that keeps the 99th percentile of latency below this `time`")
	flags.StringVar(&o.addr, "addr", "", "measure the server at `host:port` instead of starting any")
	flags.Var(countOf(&o.pid), "pid", "its process, for its processor time and memory")
	p.ServerCPU, p.CPU = server, generator
	flags.Var(countOf(&p.ServerCPU), "server-cpu", "processor to keep a server on; -1: any (default: the first of two or more)")
	flags.Var(countOf(&p.CPU), "cpu", "processor to keep the generator on; -1: any (default: the second)")
	flags.Var(numberOf(&p.Calm), "calm", "wait until other processes use no more than this `number` of processors, and measure anew if they did")
	flags.Var(countOf(&p.Nice), "nice", "the generator's, where it shares the server's processors")
	flags.Var(choiceOf(&o.output, string(bench.OutputTable), string(bench.OutputJSON), string(bench.OutputBenchstat)), "output", "table, json (a line for each measurement) or benchstat")
	flags.StringVar(&p.Chart, "chart", "", "draw latency against throughput, under a load that grows, into this .svg or .png `file`")
	flags.BoolVar(&p.Quiet, "quiet", false, "show no progress")
	for _, name := range []string{"find-p99", "server-cpu", "cpu"} {
		flags.Lookup(name).DefValue = "" // said above, or none
	}
}

// benchScenarios are the named ones, for people.
func benchScenarios() string {
	var b strings.Builder
	b.WriteString("Scenarios:\n")
	for _, name := range bench.Names() {
		s, _ := bench.Named(name) // it has just been listed
		fmt.Fprintf(&b, "  %-8s %s\n", name, s.Describe())
	}
	fmt.Fprintf(&b, "  %-8s all of these but %s", scenarioAll, scenarioLong)
	return b.String()
}

// choose fills in the scenarios: the named ones, changed by the flags of the load that were given.
func (o *benchOptions) choose(names []string, flags *pflag.FlagSet, from origins) error {
	unnamed := len(names) == 0
	if unnamed {
		names = []string{scenarioChanged}
	}
	if slices.Equal(names, []string{scenarioAll}) {
		names = slices.DeleteFunc(bench.Names(), func(name string) bool { return name == scenarioLong })
	}
	for _, name := range names {
		s, err := bench.Named(name)
		if err != nil {
			return fmt.Errorf("unknown scenario %q%s", name, didYouMean("", name, append(bench.Names(), scenarioAll)))
		}
		own := pflag.NewFlagSet(name, pflag.ContinueOnError)
		addLoad(own, &s)
		own.VisitAll(func(f *pflag.Flag) {
			if from[f.Name] == "" {
				return
			}
			err = errors.Join(err, f.Value.Set(flags.Lookup(f.Name).Value.String()))
			if unnamed {
				s.Name = scenarioOfParameters
			}
		})
		if err != nil {
			return err
		}
		o.plan.Scenarios = append(o.plan.Scenarios, s)
	}
	return nil
}

// contend fills in who is measured.
func (o *benchOptions) contend(nodeFlags []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	switch {
	case o.addr != "" && len(nodeFlags) > 0:
		return usagef("%q is for a node that is started, and --addr names one that runs", nodeFlags[0])
	case o.addr == "" && o.pid != 0:
		return usagef("--pid is for a server that runs, which --addr names")
	}
	rayflux := bench.Contender{Name: "rayflux", Addr: o.addr, PID: o.pid}
	if o.addr == "" {
		rayflux.Argv = append([]string{self, "node", "--listen", "{addr}", "--admin", "127.0.0.1:0"}, nodeFlags...)
	}
	o.plan.Contenders = []bench.Contender{rayflux}
	if o.floor {
		o.plan.Contenders = append(o.plan.Contenders, bench.Contender{Name: bench.FloorName, Argv: []string{self, "floor", "{addr}"}})
	}
	for _, other := range o.against {
		name, command, _ := strings.Cut(other, "=")
		argv := strings.Fields(command)
		if name == "" || len(argv) == 0 {
			return usagef("against is %q, want NAME=COMMAND", other)
		}
		o.plan.Contenders = append(o.plan.Contenders, bench.Contender{Name: name, Argv: argv})
	}
	return nil
}

// run measures until it is done, or a signal.
func (o *benchOptions) run() error {
	p := &o.plan
	p.Output = bench.Output(o.output)
	m, err := thisMachine()
	if err != nil {
		fmt.Fprintf(p.Stderr, "rayflux: cannot read all limits of this process: %v\n", err)
	}
	p.Groups = m.cgroups
	if err := p.Check(); err != nil {
		return usageError{err}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	return p.Run(ctx)
}

// floorCommand is the server that "rayflux bench --floor" compares with. It is of no other use.
func floorCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "floor ADDRESS",
		Short:  "Serve the scenarios of rayflux bench, and do nothing that the kernel does not",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return floor.Serve(args[0]) },
	}
}
