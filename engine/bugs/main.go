// Command bugs shows that the simulation of a cluster finds bugs. Each *.bug file beside it is one: a few lines of the
// engine, and what to have in their place. "make bugs" builds the simulation once with all of them, runs it with none
// switched on, which has to pass, and then with one after the other, each of which has to be found: it prints how many
// schedules that took, and what the judge said.
//
// The sources stay as they are: what the compiler is given in their place is written to a temporary folder (go build
// -overlay). A build tag for each bug would put its lines among those that are read every day, and 20 tags are 20 builds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"
)

func main() {
	var (
		engine = flag.String("engine", "engine", "folder of the package that is simulated")
		folder = flag.String("bugs", "engine/bugs", "folder of the bugs")
		only   = flag.String("only", "", "the one bug to look for, by the name of its file; what its schedule said comes in full")
		runs   = flag.Int("runs", 2000, "schedules in which a bug has to be found")
		clean  = flag.Int("clean", 300, "schedules that have to pass without a bug")
		limit  = flag.Duration("limit", 2*time.Minute, "time in which a bug has to be found; a busy machine needs more")
		jobs   = flag.Int("jobs", runtime.GOMAXPROCS(0), "simulations at a time")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *engine, *folder, *only, *runs, *clean, *limit, *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "bugs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, engine, folder, only string, runs, clean int, limit time.Duration, jobs int) error {
	bugs, err := readBugs(folder)
	if err != nil {
		return err
	}
	began := time.Now()
	program, remove, err := build(ctx, engine, bugs)
	if err != nil {
		return err
	}
	defer remove()
	fmt.Printf("%d bugs, built in %v\n", len(bugs), time.Since(began).Round(100*time.Millisecond))
	if only != "" {
		return look(ctx, program, only, runs, limit)
	}
	found := program.simulate(ctx, "", clean, 2*limit)
	if found.err != nil || found.judge != "" {
		return fmt.Errorf("the simulation fails without a bug: %w", errors.Join(found.err, errors.New(found.judge)))
	}
	fmt.Printf("without a bug %d schedules pass\n\n", clean)
	verdicts := make([]verdict, len(bugs))
	turn := make(chan int)
	var wait sync.WaitGroup
	for range jobs {
		wait.Go(func() {
			for i := range turn {
				verdicts[i] = program.simulate(ctx, bugs[i].name, runs, limit)
			}
		})
	}
	for i := range bugs {
		turn <- i
	}
	close(turn)
	wait.Wait()
	return report(os.Stdout, bugs, verdicts)
}

// look shows how one bug is found.
func look(ctx context.Context, p *program, name string, runs int, limit time.Duration) error {
	v := p.simulate(ctx, name, runs, limit)
	if v.err != nil {
		return v.err
	}
	fmt.Printf("%s: found by schedule %d\n%s", name, v.schedules, v.output)
	return nil
}
