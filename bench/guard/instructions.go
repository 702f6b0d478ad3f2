package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"rayflux/bench"
)

const valgrind = "valgrind"

// counter counts by cachegrind, because callgrind 3.19 aborts on the signals of a Go program with sockets (an assertion of
// its own in threads.c), and perf counts no instructions in most virtual machines. GOGC=off and no asynchronous
// preemption leave little that differs between two runs.
var counter = []string{"env", "GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMAXPROCS=1",
	valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"}

const (
	countedRate   = 1000 // publishes per second, 16 deliveries each: what a server 30 times slower still keeps up with
	countedBlocks = 2
	shortRun      = time.Second
	longRun       = 6 * time.Second
)

// compareInstructions counts what both programs execute outside the kernel for a delivery.
func (o *options) compareInstructions(ctx context.Context, progress io.Writer) (verdict, error) {
	if _, err := exec.LookPath(valgrind); err != nil {
		return verdict{}, err
	}
	s, err := bench.Named("F2-2k")
	if err != nil {
		return verdict{}, err
	}
	s.Rate, s.WarmUp = countedRate, time.Nanosecond
	return o.compare(ctx, "user code", "instructions/delivery", countedBlocks, progress, func(program string) (float64, error) {
		return o.instructions(ctx, program, s)
	})
}

// instructions are those of a delivery: a long run less a short one leaves start and end out. An open loop makes as many
// deliveries every time, in passes of one publish.
func (o *options) instructions(ctx context.Context, program string, s bench.Scenario) (float64, error) {
	short, err := o.count(ctx, program, s, shortRun)
	if err != nil {
		return 0, err
	}
	long, err := o.count(ctx, program, s, longRun)
	if err != nil {
		return 0, err
	}
	deliveries := countedRate * (longRun - shortRun).Seconds() * float64(s.Subscribers/s.Topics)
	return (long - short) / deliveries, nil
}

// count is the number of instructions a server executes from its start to its end, with the scenario between.
func (o *options) count(ctx context.Context, program string, s bench.Scenario, d time.Duration) (float64, error) {
	s.Duration = d
	_, log, err := o.measure(ctx, slices.Concat(counter, server(program)[2:]), s)
	if err != nil {
		return 0, err
	}
	return instructionsIn(log)
}

// instructionsIn finds "==123== I   refs:      27,486,503" in what valgrind wrote.
func instructionsIn(log []byte) (float64, error) {
	for line := range bytes.Lines(log) {
		fields := bytes.Fields(line)
		if len(fields) == 4 && string(fields[1]) == "I" && string(fields[2]) == "refs:" {
			return strconv.ParseFloat(string(bytes.ReplaceAll(fields[3], []byte(","), nil)), 64)
		}
	}
	return 0, fmt.Errorf("valgrind told no count:\n%s", log)
}
