package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Go's profiles end where a system call begins, and a fan-out server spends nearly all its time beyond. perf, where it is
// installed and allowed, sees the kernel's functions as well.

const (
	kernelSeconds = 3
	kernelHertz   = 499 // not a divisor of the server's own rhythms
)

// recordArgs are those of perf that sample a process. The software clock, because virtual machines seldom have counters.
func recordArgs(pid, file string) []string {
	return []string{"record", "-q", "-e", "cpu-clock", "-F", strconv.Itoa(kernelHertz), "-g", "-o", file, "-p", pid, "--", "sleep", strconv.Itoa(kernelSeconds)}
}

// takeKernel samples the process and returns its stacks, those of the kernel on top.
func takeKernel(ctx context.Context, pid int) (*frame, error) {
	dir, err := os.MkdirTemp("", "profile")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "perf.data")
	if _, err := output(ctx, "perf", recordArgs(strconv.Itoa(pid), data)...); err != nil {
		return nil, err
	}
	printed, err := output(ctx, "perf", "script", "-i", data, "-F", "ip,sym,dso")
	if err != nil {
		return nil, err
	}
	root := parseScript(printed)
	if root.total == 0 {
		return nil, fmt.Errorf("perf took no sample of process %d", pid)
	}
	return root, nil
}

const kernelMark = " [kernel]"

// parseScript reads one sample per paragraph: address, function and the program it is of, the innermost first.
func parseScript(printed []byte) *frame {
	root := &frame{name: "all"}
	var stack []string
	add := func() {
		if len(stack) > 0 {
			root.add(stack, int64(time.Second/kernelHertz))
		}
		stack = nil
	}
	for line := range bytes.Lines(printed) {
		text := strings.TrimSpace(string(line))
		_, text, _ = strings.Cut(text, " ")
		at := strings.LastIndex(text, " (")
		if at < 0 {
			add()
			continue
		}
		name := text[:at]
		if strings.HasPrefix(text[at:], " ([kernel") {
			name += kernelMark
		}
		stack = append(stack, name)
	}
	add()
	return root
}

// leaves adds up what was spent in each function itself.
func (f *frame) leaves(into map[string]int64) {
	own := f.total
	for _, c := range f.called {
		own -= c.total
		c.leaves(into)
	}
	into[f.name] += own
}
