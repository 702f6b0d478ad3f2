package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line of Main.
type options struct {
	scenarios []Scenario
	addr      string
	pid       int
	spawn     []string
	name      string
	cpu       int
	serverCPU int
	repeat    int
	json      bool
	quiet     bool
	logs      io.Writer
}

// Main measures the scenarios named in args and returns the exit status: 0 clean, 1 failed or not clean, 2 usage.
func Main(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2) // the generator's thread sleeps in the kernel with its processor; signals need another
	}
	if err := Pin(o.cpu); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	results, err := o.measure(ctx, stdout, stderr)
	if !o.json {
		err = errors.Join(err, WriteTable(stdout, results))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	for i := range results {
		if !results[i].Clean() {
			return 1
		}
	}
	return 0
}

// measure runs every scenario, each against a server of its own when the servers are to be spawned.
func (o *options) measure(ctx context.Context, stdout, stderr io.Writer) (results []Result, err error) {
	for range o.repeat {
		for _, s := range o.scenarios {
			if !o.quiet {
				s.Progress = func(p Progress) {
					fmt.Fprintf(stderr, "%s %-8s %8s publishes/s %8s deliveries/s  lost %d  %s\n", p.Scenario, p.Phase,
						rate(p.PublishesPerSecond), rate(p.DeliveriesPerSecond), p.Lost, p.Trouble)
				}
			}
			r, err := o.one(ctx, s)
			if err != nil {
				return results, err
			}
			r.Server = o.name
			results = append(results, r)
			if o.json {
				if err := r.WriteJSON(stdout); err != nil {
					return results, err
				}
			}
		}
	}
	return results, nil
}

func (o *options) one(ctx context.Context, s Scenario) (r Result, err error) {
	addr, pid := o.addr, o.pid
	if len(o.spawn) > 0 {
		server, err := Spawn(ctx, o.spawn, o.serverCPU, o.logs)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		addr, pid = server.Addr, server.PID
	}
	return Run(ctx, addr, pid, s)
}

// parse reads the command line. Flags that describe the load change the named scenarios; those not given leave them be.
func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{logs: stderr}
	var change Scenario
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(stderr)
	names := set.String("scenario", "F1", "scenarios to measure, separated by commas, or all: "+strings.Join(Names(), " "))
	set.StringVar(&o.addr, "addr", "127.0.0.1:8080", "server's address")
	set.IntVar(&o.pid, "pid", 0, "server's process, for its CPU and memory (0: not measured)")
	spawn := set.String("spawn", "", "start the server for each scenario by this command, in which {addr} is where to listen; instead of -addr and -pid")
	set.StringVar(&o.name, "name", "", "what to call the server in reports")
	set.IntVar(&o.cpu, "cpu", -1, "processor to keep the generator on (-1: any)")
	set.IntVar(&o.serverCPU, "server-cpu", -1, "processor to keep a spawned server on (-1: any)")
	set.IntVar(&o.repeat, "repeat", 1, "times to measure each scenario")
	set.BoolVar(&o.json, "json", false, "a JSON line for each result instead of a table")
	set.BoolVar(&o.quiet, "quiet", false, "no progress lines")
	set.IntVar(&change.Topics, "topics", 0, "topics")
	set.IntVar(&change.Subscribers, "subscribers", 0, "subscribed connections")
	set.IntVar(&change.Subscriptions, "subscriptions", 0, "topics per subscriber")
	set.IntVar(&change.Publishers, "publishers", 0, "publishing connections")
	set.IntVar(&change.PayloadBytes, "payload", 0, "payload bytes")
	set.TextVar(&change.Wire, "wire", WireBinary, "what subscribers read: bin, json, classic")
	set.TextVar(&change.Publish, "publish", PublishBinary, "how publishers send: bin (WebSocket), http (POST /publish)")
	set.IntVar(&change.InFlight, "in-flight", 0, "closed loop: publishes in flight per publisher")
	set.Float64Var(&change.Rate, "rate", 0, "open loop: publishes per second over all publishers (0: closed loop)")
	set.IntVar(&change.Pipeline, "pipeline", 0, "http: requests in flight per connection")
	set.IntVar(&change.Stalled, "stalled", 0, "further subscribers that never read")
	set.DurationVar(&change.Duration, "duration", 0, "measured window")
	set.DurationVar(&change.WarmUp, "warm-up", time.Second, "load before the measured window")
	set.BoolVar(&change.Spin, "spin", false, "poll without sleeping")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	o.spawn = strings.Fields(*spawn)
	given := map[string]bool{"warm-up": true}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, name := range chosen(*names) {
		s, err := Named(name)
		if err != nil {
			return nil, err
		}
		o.scenarios = append(o.scenarios, s.changed(change, given))
	}
	return o, nil
}

func chosen(names string) []string {
	if names == "all" {
		return Names()
	}
	return strings.Split(names, ",")
}

// changed is s with the fields of change whose flags were given.
func (s Scenario) changed(change Scenario, given map[string]bool) Scenario {
	for flag, copyField := range map[string]func(){
		"topics":        func() { s.Topics = change.Topics },
		"subscribers":   func() { s.Subscribers = change.Subscribers },
		"subscriptions": func() { s.Subscriptions = change.Subscriptions },
		"publishers":    func() { s.Publishers = change.Publishers },
		"payload":       func() { s.PayloadBytes = change.PayloadBytes },
		"wire":          func() { s.Wire = change.Wire },
		"publish":       func() { s.Publish = change.Publish },
		"in-flight":     func() { s.InFlight = change.InFlight },
		"rate":          func() { s.Rate = change.Rate },
		"pipeline":      func() { s.Pipeline = change.Pipeline },
		"stalled":       func() { s.Stalled = change.Stalled },
		"duration":      func() { s.Duration = change.Duration },
		"warm-up":       func() { s.WarmUp = change.WarmUp },
		"spin":          func() { s.Spin = change.Spin },
	} {
		if given[flag] {
			copyField()
		}
	}
	return s
}
