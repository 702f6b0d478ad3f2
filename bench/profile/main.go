// Command profile runs a scenario against a server on a processor of its own and keeps what the server's operators' port
// tells meanwhile: CPU, heap, mutex and block profiles. Of the first it draws a flame graph, and another, with the kernel's
// functions, where perf can be used.
//
//	make profile SCENARIO=F1
//	go run ./bench/profile -program ./rayflux -dir profiles F1
//
// It writes into dir/F1: the profiles, flame.svg, kernel.svg, and capture.txt with the command for each and what it says.
// profiles/README.md tells how to read them.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"rayflux/bench"
)

type options struct {
	program   string
	flags     []string // of the server, beyond its addresses
	dir       string
	scenario  bench.Scenario
	seconds   int // of the CPU profile
	cpu       int
	serverCPU int
}

func main() { bench.RunTool("profile", parse, (*options).run) }

func parse(args []string) (*options, error) {
	o := &options{}
	set := flag.NewFlagSet("profile", flag.ContinueOnError)
	set.StringVar(&o.program, "program", "./rayflux", "the server")
	flags := set.String("flags", "", "further flags for rayflux node, separated by blanks")
	dir := set.String("dir", "profiles", "folder in which the scenario gets one")
	set.IntVar(&o.seconds, "seconds", 10, "length of the CPU profile")
	server, generator := bench.Processors()
	set.IntVar(&o.cpu, "cpu", generator, "processor to keep the generator on (-1: any)")
	set.IntVar(&o.serverCPU, "server-cpu", server, "processor to keep the server on (-1: any)")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() != 1 || o.seconds < 1 {
		return nil, errors.New("name one scenario, and at least one second")
	}
	var err error
	if o.scenario, err = bench.Named(set.Arg(0)); err != nil {
		return nil, err
	}
	o.flags, o.dir = strings.Fields(*flags), filepath.Join(*dir, o.scenario.Name)
	o.scenario.WarmUp, o.scenario.Duration = time.Second, o.length()
	return o, nil
}

// length is for how long there has to be load: all captures, one after the other, and some time between.
func (o *options) length() time.Duration {
	return time.Duration(o.seconds+2*contentionSeconds+kernelSeconds+3) * time.Second
}

// serverCommand is the server's command line; {addr} is where it listens.
func (o *options) serverCommand() []string {
	return append([]string{o.program, "node", "--listen", "{addr}", "--admin", "127.0.0.1:0"}, o.flags...)
}

func (o *options) run(ctx context.Context) error {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2) // the generator's thread sleeps in the kernel with its processor, the captures need another
	}
	if err := bench.Pin(o.cpu); err != nil {
		return err
	}
	log := newServerLog()
	server, err := bench.Spawn(ctx, o.serverCommand(), o.serverCPU, log)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, log)
	}
	seen, err := o.underLoad(ctx, server, log)
	if err = errors.Join(err, server.Stop()); err != nil {
		return fmt.Errorf("%w\n%s", err, log)
	}
	if err := o.draw(ctx, seen); err != nil {
		return err
	}
	return o.note(ctx, seen)
}

// sight is all that was learned of one server.
type sight struct {
	result    bench.Result
	captures  []capture
	kernel    *frame // nil: perf was of no use
	kernelErr error  // why
}

// underLoad runs the scenario and takes the captures while it lasts.
func (o *options) underLoad(ctx context.Context, server *bench.Server, log *serverLog) (seen sight, err error) {
	admin, err := log.admin(ctx)
	if err != nil {
		return seen, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen.captures = capturesOf(admin, o.dir, o.seconds)
	begun := o.announceLoad()
	done := make(chan error, 1)
	go func() {
		err := takeAll(ctx, seen.captures, begun)
		if err == nil {
			seen.kernel, seen.kernelErr = takeKernel(ctx, server.PID)
		}
		done <- err
	}()
	if seen.result, err = bench.Run(ctx, server.Addr, server.PID, o.scenario); err != nil {
		cancel()
	}
	return seen, errors.Join(err, <-done)
}

// idleSettle is when the connections of a scenario without load are up; nothing tells.
const idleSettle = 5 * time.Second

// announceLoad returns a channel that is closed when the measured window has begun.
func (o *options) announceLoad() <-chan struct{} {
	begun := make(chan struct{})
	if o.scenario.Publishers == 0 {
		o.scenario.Duration += idleSettle
		time.AfterFunc(idleSettle, func() { close(begun) })
		return begun
	}
	told := false // the generator's thread alone
	o.scenario.Progress = func(p bench.Progress) {
		fmt.Fprintf(os.Stderr, "%s %s %.0f deliveries/s\n", p.Scenario, p.Phase, p.DeliveriesPerSecond)
		if p.Phase == "measure" && !told {
			told = true
			close(begun)
		}
	}
	return begun
}

// note writes capture.txt: what ran, what it did, how each file was made, and the first lines of each profile.
func (o *options) note(ctx context.Context, seen sight) error {
	var b bytes.Buffer
	version, err := output(ctx, o.program, "version")
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "%s\nserver on processor %d:   %s\ngenerator on processor %d: scenario %s\n\n",
		bytes.TrimSpace(version), o.serverCPU, strings.Join(o.serverCommand(), " "), o.cpu, o.scenario.Name)
	if err := bench.WriteTable(&b, []bench.Result{seen.result}); err != nil {
		return err
	}
	for _, c := range seen.captures {
		fmt.Fprintf(&b, "\n== %s\n%s\n", filepath.Base(c.file), c.command())
		for _, view := range c.views {
			args := append(append([]string{"tool", "pprof", "-top", "-nodecount=" + strconv.Itoa(topFunctions)}, view...), c.file)
			top, err := output(ctx, "go", args...)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "\ngo %s\n%s", strings.Join(args, " "), body(top))
		}
		if c.name == "profile" {
			fmt.Fprintf(&b, "\nflame.svg is drawn by bench/profile from: go %s\n", strings.Join(tracesOf(c.file), " "))
		}
	}
	o.noteKernel(&b, seen)
	return os.WriteFile(filepath.Join(o.dir, "capture.txt"), b.Bytes(), 0o644)
}

// noteKernel tells where the time went below the system calls.
func (o *options) noteKernel(b *bytes.Buffer, seen sight) {
	fmt.Fprintf(b, "\n== kernel.svg\nperf %s\n", strings.Join(recordArgs("PID", "perf.data"), " "))
	if seen.kernel == nil {
		fmt.Fprintf(b, "not taken: %v\n", seen.kernelErr)
		return
	}
	spent := map[string]int64{}
	seen.kernel.leaves(spent)
	names := slices.SortedFunc(maps.Keys(spent), func(a, b string) int {
		return cmp.Or(cmp.Compare(spent[b], spent[a]), cmp.Compare(a, b))
	})
	fmt.Fprintln(b, "\nthe functions with most time of their own:")
	for _, name := range names[:min(len(names), topFunctions)] {
		fmt.Fprintf(b, "%6.2f %%  %s\n", 100*float64(spent[name])/float64(seen.kernel.total), name)
	}
}

// topFunctions is how many of them capture.txt lists.
const topFunctions = 15

// body leaves out the lines on which pprof names the program and the day.
func body(top []byte) []byte {
	for _, word := range []string{"File:", "Build ID:", "Type:", "Time:"} {
		if bytes.HasPrefix(top, []byte(word)) {
			_, top, _ = bytes.Cut(top, []byte("\n"))
		}
	}
	return top
}
