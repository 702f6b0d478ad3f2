package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests in the files e2e_*_test.go drive the real binary, a child process,
// over real sockets, as strangers would: what they know of it is the wire, its
// flags, its metrics and what the kernel says about the process.
//
// They run with less of everything than is promised, so that they can be run
// always. RAYFLUX_E2E_LONG=1 runs them at full size.

var longRun = os.Getenv("RAYFLUX_E2E_LONG") != ""

// sized is a number of the usual run, or of the long one.
func sized[T any](usual, long T) T {
	if longRun {
		return long
	}
	return usual
}

// eachLoopCount runs a test against one event loop, where nothing is handed
// over, and against two, where most things are.
func eachLoopCount(t *testing.T, test func(t *testing.T, loops int)) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprintf("loops=%d", loops), func(t *testing.T) { test(t, loops) })
	}
}

// builtWith says whether this test was built with a flag, which the binary
// then is built with too: the race detector watches both sides or none.
var builtWith = sync.OnceValue(func() map[string]string {
	flags := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			flags[s.Key] = s.Value
		}
	}
	return flags
})

// raced says that memory is not to be measured: the race detector takes
// several times as much.
func raced() bool { return builtWith()["-race"] == "true" }

// builtBinary is where the binary of this run can be executed. It is built
// once, and its file is unlinked as soon as it is open, so that nothing is left
// behind however the run ends.
var builtBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rayflux-e2e")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "rayflux")
	args := []string{"build", "-buildvcs=false", "-o", file}
	if raced() {
		args = append(args, "-race")
	}
	if tags := builtWith()["-tags"]; tags != "" {
		args = append(args, "-tags", tags)
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	binaryFile, err = os.Open(file)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), binaryFile.Fd()), nil
})

// binaryFile keeps the unlinked binary alive.
var binaryFile *os.File

// command is a run of the binary that has not begun. The environment of the
// tests is not the binary's.
func command(t testing.TB, shell string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	if shell != "" {
		cmd = exec.Command("sh", append([]string{"-c", shell + `; exec "$0" "$@"`, path}, args...)...)
	}
	for _, line := range os.Environ() {
		if !strings.HasPrefix(line, envPrefix) {
			cmd.Env = append(cmd.Env, line)
		}
	}
	// A race ends the process at once; its absence does not hold it for a second.
	cmd.Env = append(cmd.Env, noStore, "GORACE=halt_on_error=1 atexit_sleep_ms=0")
	return cmd
}

// node is a server process that has said it is ready.
type node struct {
	t             testing.TB
	cmd           *exec.Cmd
	loops         int
	listen, admin string
	stopped       bool // stop has waited for its end

	mu    sync.Mutex
	lines []string      // the newest it said on standard error
	said  chan string   // the ready line
	ended chan struct{} // closed when standard error is
}

const linesKept = 200

// startNode runs "rayflux node" with these loops and flags until the test ends,
// and then wants it to leave by itself, with status 0.
func startNode(t testing.TB, loops int, flags ...string) *node {
	t.Helper()
	return startNodeUnder(t, "", loops, flags...)
}

// startNodeUnder is startNode behind shell commands that change what the
// process may use.
func startNodeUnder(t testing.TB, shell string, loops int, flags ...string) *node {
	t.Helper()
	if os.Getenv(throughBalancer) != "" {
		return startBehind(t, shell, loops, flags...)
	}
	return startServer(t, shell, "node", "127.0.0.1:0", loops, flags...)
}

// startServer runs a server of that role.
func startServer(t testing.TB, shell, role, listen string, loops int, flags ...string) *node {
	t.Helper()
	args := append([]string{role, "--listen=" + listen, "--admin=127.0.0.1:0", fmt.Sprintf("--loops=%d", loops)}, flags...)
	n := &node{t: t, loops: loops, cmd: command(t, shell, args...), said: make(chan string, 1), ended: make(chan struct{})}
	stderr, err := n.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go n.listenTo(bufio.NewScanner(stderr))
	t.Cleanup(n.end)
	select {
	case line := <-n.said:
		n.listen, n.admin = addressIn(line, "listen"), addressIn(line, "admin")
	case <-n.ended:
	case <-time.After(patience):
	}
	if n.listen == "" || n.admin == "" {
		t.Fatalf("it did not say that it is ready, but %q", n.lastWords())
	}
	return n
}

func addressIn(line, key string) string {
	if m := regexp.MustCompile(key + `=(\S+)`).FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return ""
}

func (n *node) listenTo(lines *bufio.Scanner) {
	defer close(n.ended)
	for lines.Scan() {
		n.mu.Lock()
		n.lines = append(n.lines[max(0, len(n.lines)-linesKept):], lines.Text())
		n.mu.Unlock()
		if strings.Contains(lines.Text(), "msg=ready") {
			n.said <- lines.Text()
		}
	}
}

func (n *node) lastWords() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatalf("signal: %v: it said %s", err, n.lastWords())
	}
}

// exit waits for the process to end by itself and returns its status; -1 if it
// had to be killed, after it has told what it hung on.
func (n *node) exit() int {
	n.t.Helper()
	n.stopped = true
	code := 0
	select {
	case <-n.ended:
	case <-time.After(patience):
		_ = n.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-n.ended:
		case <-time.After(5 * time.Second):
			_ = n.cmd.Process.Kill()
		}
		code = -1
	}
	if err := n.cmd.Wait(); err != nil && code == 0 {
		code = n.cmd.ProcessState.ExitCode()
	}
	return code
}

// end is every test's last word to its server.
func (n *node) end() {
	if n.stopped {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	if code := n.exit(); code != exitClean {
		n.t.Errorf("exit status after SIGTERM is %d, want 0; it said %s", code, n.lastWords())
	}
}

// usage is what the kernel says of the process.
type usage struct {
	descriptors int
	goroutines  int
	rss, peak   int64 // bytes
	heap        int64 // bytes alive after a garbage collection
}

func (u usage) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("%d descriptors, %d goroutines, %.1f MiB heap, %.1f MiB resident (peak %.1f)",
		u.descriptors, u.goroutines, float64(u.heap)/mib, float64(u.rss)/mib, float64(u.peak)/mib)
}

func (n *node) usage() (u usage) {
	n.t.Helper()
	n.collect()
	now := n.metrics()
	u.goroutines, u.heap = int(now["go_goroutines"]), int64(now["go_memstats_heap_alloc_bytes"])
	proc := fmt.Sprintf("/proc/%d/", n.cmd.Process.Pid)
	entries, err := os.ReadDir(proc + "fd")
	if err != nil {
		n.t.Fatal(err)
	}
	u.descriptors = len(entries)
	text, err := os.ReadFile(proc + "status")
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.rss = kib << 10
		case "VmHWM":
			u.peak = kib << 10
		}
	}
	return u
}

// settled waits until nobody is connected and the process holds as few
// descriptors, goroutines and live bytes as before, but for what its pools keep.
func (n *node) settled(before usage) {
	n.t.Helper()
	var now usage
	eventually(n.t, func() string {
		now = n.usage()
		m := n.metrics()
		switch {
		case m["rayflux_connections"] != 0 || m["rayflux_subscriptions"] != 0:
			return fmt.Sprintf("%v connections are open, with %v subscriptions", m["rayflux_connections"], m["rayflux_subscriptions"])
		case m["rayflux_buffer_bytes"] != 0:
			return fmt.Sprintf("%v bytes of buffers belong to nobody", m["rayflux_buffer_bytes"])
		case now.descriptors > before.descriptors, now.goroutines > before.goroutines+goroutineSlack,
			now.heap > before.heap+heapSlack+int64(n.loops-1)*parcelSlack:
			return fmt.Sprintf("it was at %v and is at %v", before, now)
		}
		return ""
	})
	n.t.Logf("server before: %v", before)
	n.t.Logf("server after:  %v", now)
}

const (
	heapSlack      = 4 << 20 // bytes that pools, free lists and grown maps may keep
	parcelSlack    = 8 << 20 // and those of what loops send each other
	goroutineSlack = 4       // the operators' port serves the one who counts
)

// memoryWithin wants the process never to have had more than limit bytes
// resident.
func (n *node) memoryWithin(limit int64) {
	n.t.Helper()
	now := n.usage()
	n.t.Logf("server: %v", now)
	if now.peak > limit && !raced() {
		n.t.Errorf("the server's memory peaked at %d MiB, limit %d MiB", now.peak>>20, limit>>20)
	}
}

// eventually waits for what no event tells: complaint returns "" when all is
// well.
func eventually(t testing.TB, complaint func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		why := complaint()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", patience, why)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
