package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const valgrind = "valgrind"

// counter counts instructions by cachegrind, which has the numbers of callgrind in a third of the time. A garbage
// collection or an asynchronous preemption would come when it likes; without them two runs differ by about a hundred
// thousand instructions, mostly those of the start.
var counter = []string{valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"}
var counterEnv = []string{"GODEBUG=asyncpreemptoff=1", "GOGC=off", "GOMAXPROCS=1"}

const (
	countTried   = 1001        // operations of a run that shows how many are needed
	countWanted  = 100_000_000 // instructions in the operations of a counted run: a thousand times what the start is off by
	countMost    = 1_000_000   // operations
	countChanged = 0.01        // what is called a change: ten times what the same program differs by
)

// compareInstructions counts what the Go benchmarks of both trees execute per operation.
func (o *options) compareInstructions(ctx context.Context, before, after tree, progress io.Writer) (verdicts []verdict, err error) {
	if _, err := exec.LookPath(valgrind); err != nil {
		return nil, err
	}
	for _, dir := range benchmarked {
		programs := [2]string{}
		for i, t := range []tree{before, after} {
			if programs[i], err = t.buildTest(ctx, dir, o.cache, i); err != nil {
				return nil, err
			}
		}
		names, err := sameBenchmarks(ctx, programs)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			v, err := compareBenchmark(ctx, programs, name)
			if err != nil {
				return nil, err
			}
			v.name = strings.TrimPrefix(dir, "./") + "." + strings.TrimPrefix(name, "Benchmark")
			fmt.Fprintf(progress, "%s: before %.0f, after %.0f instructions\n", v.name, v.before, v.after)
			verdicts = append(verdicts, v)
		}
	}
	return verdicts, nil
}

// buildTest builds the test program of a package.
func (t tree) buildTest(ctx context.Context, dir, cache string, side int) (string, error) {
	program, err := filepath.Abs(filepath.Join(cache, fmt.Sprintf("%s.%d.test", filepath.Base(dir), side)))
	if err != nil {
		return "", err
	}
	_, err = t.goTool(ctx, "test", "-c", "-trimpath", "-buildvcs=false", "-o", program, dir)
	return program, err
}

// sameBenchmarks are those that both programs have, in the order of the second.
func sameBenchmarks(ctx context.Context, programs [2]string) ([]string, error) {
	var lists [2][]string
	for i, program := range programs {
		printed, err := output(exec.CommandContext(ctx, program, "-test.list", "^Benchmark"))
		if err != nil {
			return nil, err
		}
		lists[i] = strings.Fields(string(printed))
	}
	return slices.DeleteFunc(lists[1], func(name string) bool { return !slices.Contains(lists[0], name) }), nil
}

// compareBenchmark counts a run of many operations less one of a single operation, which leaves start and end out. How many
// there are is found on the first program and the same for both.
func compareBenchmark(ctx context.Context, programs [2]string, name string) (v verdict, err error) {
	var one [2]float64
	for i, program := range programs {
		if one[i], err = count(ctx, program, name, 1); err != nil {
			return v, err
		}
	}
	tried, err := count(ctx, programs[0], name, countTried)
	if err != nil {
		return v, err
	}
	operations := operationsFor((tried - one[0]) / (countTried - 1))
	var cost [2]float64
	for i, program := range programs {
		many, err := count(ctx, program, name, operations)
		if err != nil {
			return v, err
		}
		cost[i] = (many - one[i]) / float64(operations-1)
	}
	return verdict{unit: "instructions", before: cost[0], after: cost[1], change: cost[1]/cost[0] - 1, limit: countChanged}, nil
}

// operationsFor is how many operations of a cost drown what a run is off by.
func operationsFor(cost float64) int {
	return int(min(max(countWanted/max(cost, 1), countTried), countMost))
}

// count is the number of instructions a benchmark's program executes in all.
func count(ctx context.Context, program, name string, operations int) (float64, error) {
	args := slices.Concat(counter[1:], []string{program, "-test.run", "^$", "-test.bench", "^" + name + "$",
		"-test.benchtime", fmt.Sprintf("%dx", operations)})
	command := exec.CommandContext(ctx, counter[0], args...)
	command.Env = append(os.Environ(), counterEnv...)
	printed, err := command.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", command, err, printed)
	}
	return instructionsIn(printed)
}

// instructionsIn finds "==123== I   refs:      27,486,503" in what valgrind wrote.
func instructionsIn(printed []byte) (float64, error) {
	for line := range bytes.Lines(printed) {
		fields := bytes.Fields(line)
		if len(fields) == 4 && string(fields[1]) == "I" && string(fields[2]) == "refs:" {
			return strconv.ParseFloat(string(bytes.ReplaceAll(fields[3], []byte(","), nil)), 64)
		}
	}
	return 0, fmt.Errorf("valgrind told no count:\n%s", printed)
}
