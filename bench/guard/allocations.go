package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// benchmarked are the packages whose benchmarks allocate the same at every run.
var benchmarked = []string{"./protocol", "./engine"}

// allocations are those of one benchmark, per operation.
type allocations struct {
	benchmark     string
	before, after int
}

// compareAllocations runs the Go benchmarks of both trees and returns those that both have. A fixed number of operations
// makes the counts repeatable, and divides what is allocated once to nothing.
func compareAllocations(ctx context.Context, before, after tree) (all []allocations, err error) {
	args := append([]string{"test", "-buildvcs=false", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", "1000x"}, benchmarked...)
	printed, err := before.goTool(ctx, args...)
	if err != nil {
		return nil, err
	}
	old := map[string]int{}
	for _, r := range readAllocations(printed) {
		old[r.benchmark] = r.after
	}
	if printed, err = after.goTool(ctx, args...); err != nil {
		return nil, err
	}
	for _, r := range readAllocations(printed) {
		if n, ok := old[r.benchmark]; ok {
			all = append(all, allocations{r.benchmark, n, r.after})
		}
	}
	return all, nil
}

// benchmarkLine is the name, without the number of processors, and the last column of -benchmem.
var benchmarkLine = regexp.MustCompile(`^(Benchmark\S*?)(?:-\d+)?\s.*\s(\d+) allocs/op$`)

// readAllocations finds the benchmarks in the output of go test -benchmem, their allocations as those after.
func readAllocations(printed []byte) (all []allocations) {
	for line := range bytes.Lines(printed) {
		if match := benchmarkLine.FindSubmatch(bytes.TrimSpace(line)); match != nil {
			n, _ := strconv.Atoi(string(match[2])) // digits, as matched
			all = append(all, allocations{benchmark: string(match[1]), after: n})
		}
	}
	return all
}

// writeAllocations prints the benchmarks that differ and reports whether one is worse.
func writeAllocations(w io.Writer, all []allocations) (worse bool) {
	fmt.Fprintf(w, "allocations per operation: %d benchmarks compared\n", len(all))
	for _, c := range all {
		switch {
		case c.after > c.before:
			worse = true
			fmt.Fprintf(w, "  %s: %d, before %d: WORSE\n", c.benchmark, c.after, c.before)
		case c.after < c.before:
			fmt.Fprintf(w, "  %s: %d, before %d: better\n", c.benchmark, c.after, c.before)
		}
	}
	return worse
}
