package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// contentionSeconds is how long mutex and block profiles are taken. The server samples them while it is asked for them
// with a time, and at no other.
const contentionSeconds = 3

// capture is one profile.
type capture struct {
	name  string // under /debug/pprof/
	query string
	file  string
	admin string     // host:port
	views [][]string // flags of pprof for the tables worth reading
}

// capturesOf are the profiles in the order in which they are taken; the CPU's, the first, is not disturbed by the others.
func capturesOf(admin, dir string, seconds int) []capture {
	file := func(name string) string { return filepath.Join(dir, name+".pprof") }
	contention := fmt.Sprintf("?seconds=%d", contentionSeconds)
	return []capture{
		{"profile", fmt.Sprintf("?seconds=%d", seconds), file("cpu"), admin, [][]string{nil, {"-cum"}}},
		{"heap", "", file("heap"), admin, [][]string{{"-sample_index=inuse_space"}, {"-sample_index=alloc_objects"}}},
		{"mutex", contention, file("mutex"), admin, [][]string{nil}},
		{"block", contention, file("block"), admin, [][]string{nil}},
	}
}

func (c capture) url() string { return "http://" + c.admin + "/debug/pprof/" + c.name + c.query }

// command is how to take the same by hand.
func (c capture) command() string {
	return fmt.Sprintf("curl -so %s 'http://ADMIN/debug/pprof/%s%s'", filepath.Base(c.file), c.name, c.query)
}

// takeAll takes the captures one after the other once there is load.
func takeAll(ctx context.Context, captures []capture, begun <-chan struct{}) error {
	select {
	case <-begun:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, c := range captures {
		if err := c.take(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c capture) take(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	profile, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", c.url(), err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.200s", c.url(), response.Status, profile)
	}
	return os.WriteFile(c.file, profile, 0o644)
}

// serverLog keeps what the server wrote, and finds in it where the operators' port is. Safe from any goroutine.
type serverLog struct {
	mu      sync.Mutex
	written bytes.Buffer
}

func newServerLog() *serverLog { return &serverLog{} }

func (l *serverLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.Write(b)
}

func (l *serverLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written.String()
}

// adminWord is part of the line a server writes when it is ready.
var adminWord = regexp.MustCompile(`\badmin=(\S+)`)

// admin waits for the address: the server answers clients a moment before it has told.
func (l *serverLog) admin(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("the server did not tell its operators' port"))
	defer cancel()
	for {
		if match := adminWord.FindStringSubmatch(l.String()); match != nil {
			return match[1], nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// output runs a program and returns what it printed.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, name, args...)
	printed, err := command.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%s: %w\n%s", command, err, exit.Stderr)
	}
	return printed, err
}
