package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// frame is a function in the place it has in the stacks above it: the same function called from elsewhere is another.
type frame struct {
	name   string
	total  int64 // nanoseconds in it and what it called
	called []*frame
}

// child is the frame that f called by name.
func (f *frame) child(name string) *frame {
	for _, c := range f.called {
		if c.name == name {
			return c
		}
	}
	c := &frame{name: name}
	f.called = append(f.called, c)
	return c
}

// add enters a stack, the innermost function first, as pprof prints it.
func (f *frame) add(stack []string, spent int64) {
	f.total += spent
	for _, name := range slices.Backward(stack) {
		f = f.child(name)
		f.total += spent
	}
}

// tracesOf are the arguments of go that print a CPU profile's stacks.
func tracesOf(file string) []string { return []string{"tool", "pprof", "-traces", "-unit=ns", file} }

// readStacks reads the stacks of a CPU profile.
func readStacks(ctx context.Context, file string) (*frame, error) {
	printed, err := output(ctx, "go", tracesOf(file)...)
	if err != nil {
		return nil, err
	}
	root := parseTraces(printed)
	if root.total == 0 {
		return nil, fmt.Errorf("%s has no samples", file)
	}
	return root, nil
}

// parseTraces reads blocks between dashed lines: time and innermost function, then its callers, a line each.
func parseTraces(printed []byte) *frame {
	root := &frame{name: "all"}
	var stack []string
	var spent time.Duration
	inside := false
	for line := range bytes.Lines(printed) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "-----------+") {
			if len(stack) > 0 {
				root.add(stack, int64(spent))
			}
			stack, spent, inside = nil, 0, true
			continue
		}
		if !inside || text == "" {
			continue
		}
		if value, function, ok := strings.Cut(text, " "); ok && len(stack) == 0 {
			if d, err := time.ParseDuration(value); err == nil {
				spent, text = d, strings.TrimSpace(function)
			}
		}
		stack = append(stack, strings.TrimSuffix(text, " (inline)"))
	}
	return root
}
