package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests run rayflux as a process: the test binary, told to be it.

const beRayflux = "TEST_BINARY_IS_RAYFLUX"

func TestMain(m *testing.M) {
	if os.Getenv(beRayflux) != "" {
		main()
	}
	os.Exit(m.Run())
}

// noStore, in the environment, keeps servers from leaving a ./data behind. A test of what is stored gives a directory of its own.
const noStore = envPrefix + "STORE=none"

// patience is how long anything may take on a machine that is busy with other
// tests.
const patience = 30 * time.Second

func rayflux(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	for _, line := range os.Environ() {
		if !strings.HasPrefix(line, envPrefix) {
			cmd.Env = append(cmd.Env, line)
		}
	}
	// Under the race detector a process sleeps for a second before it exits.
	cmd.Env = append(cmd.Env, beRayflux+"=1", noStore, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// status is the exit status behind what Cmd.Run or Wait returned.
func status(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return exitClean
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return 0
}

func TestExitStatuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().String()
	closed := "127.0.0.1:1" // nobody has this port

	for _, c := range []struct {
		args string
		env  string
		want int
		says string // on either output
	}{
		{"", "", 0, "Usage:"},
		{"version", "", 0, "rayflux " + version},
		{"node --help", "", 0, "--max-message size"},
		{"config print", "", 0, "max-message: 64KiB"},
		{"config print dev", "", 0, "listen: 127.0.0.1:8083"},
		{"config print dev --listen=:1", "", 0, "# flag --listen"},
		{"config print node", "RAYFLUX_SLOW=close", 0, "# environment RAYFLUX_SLOW"},
		{"config check", "", 0, "ok"},
		{"config check", "RAYFLUX_MAX_MESAGE=1", 2, "did you mean RAYFLUX_MAX_MESSAGE?"},
		{"config print", "RAYFLUX_MAX_MESAGE=1", 0, "max-message: 64KiB"},
		{"config check --max-message=0", "", 2, "max-message is 0"},
		{"config check balancer", "", 2, "nodes is not set"},
		{"config check broker", "", 2, `unknown command "broker"`},
		{"config", "", 2, "print or check"},
		{"nod", "", 2, "did you mean node?"},
		{"node --max-mesage=1", "", 2, "unknown flag --max-mesage, did you mean --max-message?"},
		{"node -x", "", 2, "'x'"},
		{"node extra", "", 2, `"extra"`},
		{"node --loops=some", "", 2, `flag --loops: "some" is not a whole number`},
		{"node", "RAYFLUX_LOOPS=some", 2, `variable RAYFLUX_LOOPS: "some"`},
		{"node --config=/does/not/exist", "", 2, "/does/not/exist"},
		{"dev --listen=" + busy + " --admin=127.0.0.1:0", "", 1, "public port: "},
		{"dev --admin=" + busy + " --listen=127.0.0.1:0", "", 1, "operators' port: "},
		{"pub", "", 2, "TOPIC"},
		{"pub $t x", "", 2, "reserved"},
		{"pub t x --kind=xml", "", 2, `"xml" is none of json, text or binary`},
		{"pub t x --count=-1", "", 2, "count is -1"},
		{"pub t x --server=ws://" + closed, "", 1, "refused"},
		{"pub t x", "RAYFLUX_SERVER=ws://" + closed, 1, "refused"},
		{"sub", "", 2, "TOPIC"},
		{"top --admin=" + closed + " --once --interval=200ms", "", 1, "refused"},
		{"top --once --interval=200ms", "RAYFLUX_ADMIN=" + closed + ",127.0.0.1:2", 1, "none of 2 processes could be reached"},
		{"top --admin=127.0.0.1", "", 2, `admin is "127.0.0.1", want host:port`},
		{"top --admin=a:1,,b:1", "", 2, "empty address"},
		{"top --admin=a:1 --admin=a:1", "", 2, "names a:1 twice"},
		{"top --interval=1ms", "", 2, "interval is 1ms, want at least 200ms"},
		{"sub t --from=now", "", 2, `from is "now"`},
		{"sub t --server=ws://" + closed, "", 1, "refused"},
		{"route t --nodes=static:h1:1", "", 0, "h1:1"},
		{"route t", "RAYFLUX_NODES=static:h1:1", 0, "h1:1"},
		{"route t", "", 2, "route wants --nodes"},
		{"route", "", 2, "TOPIC"},
		{"route t - --nodes=static:h1:1", "", 2, "got both"},
		{"route $t --nodes=static:h1:1", "", 2, "reserved"},
		{"route t --nodes=sttic:h1:1", "", 2, "did you mean static?"},
		{"route t --nodes=static:h1", "", 2, `flag --nodes: slot 0: "h1" has no port`},
		{"route t --nodes=k8s:default", "", 2, "want k8s:NAMESPACE/SERVICE"},
		{"route t --nodes=k8s:default/nodes", "KUBERNETES_SERVICE_HOST=", 1, "in-cluster"},
		{"route t --nodes=static:h1:1 --alternatives=-1", "", 2, "alternatives is -1"},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := rayflux(t, strings.Fields(c.args)...)
			if c.env != "" {
				cmd.Env = append(cmd.Env, c.env)
			}
			out, err := cmd.CombinedOutput()
			if got := status(t, err); got != c.want {
				t.Errorf("exit status %d, want %d", got, c.want)
			}
			if !bytes.Contains(out, []byte(c.says)) {
				t.Errorf("it said %q, want %q", out, c.says)
			}
		})
	}
}

// running is a server process that has said it is ready.
type running struct {
	*exec.Cmd
	listen, admin string
	lines         *bufio.Scanner // what it says on standard error from then on
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{Cmd: rayflux(t, append(args, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--log-format=json")...)}
	stderr, err := r.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(patience, func() { r.Process.Kill() })
	t.Cleanup(func() {
		stuck.Stop()
		_ = r.Process.Kill() // a test that has failed does not stop it; one that is gone does not mind
	})
	r.lines = bufio.NewScanner(stderr)
	ready := r.said(t, "ready")
	r.listen, _ = ready["listen"].(string)
	r.admin, _ = ready["admin"].(string)
	if budget, _ := ready["budget"].(string); budget == "" || r.listen == "" || r.admin == "" {
		t.Fatalf("ready says %v", ready)
	}
	return r
}

// said waits for the log line with this message.
func (r *running) said(t *testing.T, message string) map[string]any {
	t.Helper()
	var seen []string
	for r.lines.Scan() {
		var entry map[string]any
		if err := json.Unmarshal(r.lines.Bytes(), &entry); err == nil && strings.HasPrefix(fmt.Sprint(entry["msg"]), message) {
			return entry
		}
		seen = append(seen, r.lines.Text())
	}
	t.Fatalf("it ended without saying %q: %q", message, seen)
	return nil
}

func (r *running) wait(t *testing.T) int {
	t.Helper()
	for r.lines.Scan() { // Wait would close the pipe before its end
	}
	return status(t, r.Wait())
}

// get asks the operators' port; 0 is no answer.
func (r *running) get(path string) (status int, body string) {
	response, err := http.Get("http://" + r.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// linger opens a WebSocket that never leaves by itself, and so holds a drain up.
func (r *running) linger(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", r.listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", r.listen)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "101") {
		t.Fatalf("upgrade was answered %q (%v)", line, err)
	}
}

func TestServerServesThenDrains(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		r := start(t, "dev", "--log-level=error", "--drain-timeout=1s") // ready is said all the same
		for path, want := range map[string]string{"/livez": "ok", "/readyz": "ok", "/healthz": "ok", "/metrics": "rayflux_connections", "/debug/pprof/": "heap"} {
			if status, body := r.get(path); status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s is %d, want 200 saying %q", path, status, want)
			}
		}
		if err := r.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if got := r.wait(t); got != exitClean {
			t.Errorf("%v: exit status %d, want %d", signal, got, exitClean)
		}
	}
}

func TestDrainingIsAliveAndNotReady(t *testing.T) {
	r := start(t, "node", "--drain-timeout=1m")
	r.linger(t)
	began := time.Now()
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.said(t, "draining")
	ready := 200
	for ready == 200 && time.Since(began) < patience {
		ready, _ = r.get("/readyz")
	}
	if live, _ := r.get("/livez"); ready != 503 || live != 200 {
		t.Errorf("while it drains, /readyz is %d and /livez is %d", ready, live)
	}
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := r.wait(t); got != exitFailed {
		t.Errorf("exit status after the second signal is %d, want %d", got, exitFailed)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the second signal took %v to stop it", took)
	}
}

func TestStrangeVariablesAreWarnedOf(t *testing.T) {
	cmd := rayflux(t, "node", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0")
	cmd.Env = append(cmd.Env, "RAYFLUX_MAX_MESAGE=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.Contains(lines.Text(), "level=WARN") || !strings.Contains(lines.Text(), "RAYFLUX_MAX_MESSAGE") {
		t.Errorf("first line is %q", lines.Text())
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestPubAndSubThroughAServer(t *testing.T) {
	r := start(t, "dev")
	server := "--server=ws://" + r.listen
	run := func(input string, args ...string) string {
		t.Helper()
		cmd := rayflux(t, append(args, server)...)
		cmd.Stdin = strings.NewReader(input)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if got := status(t, err); got != exitClean {
			t.Fatalf("%q: exit status %d", args, got)
		}
		return string(out)
	}
	position := run("", "pub", "t", "one")
	run("two\nthree\n", "pub", "t", "-")
	run(`{"n":4}`, "pub", "t", "--kind=json")
	run("", "pub", "t", "five", "--kind=binary", "--count=2")

	if got, want := run("", "sub", "t", "--from=earliest", "--count=6"), "one\ntwo\nthree\n{\"n\":4}\nfive\nfive\n"; got != want {
		t.Errorf("sub printed %q, want %q", got, want)
	}
	if got, want := run("", "sub", "t", "--from="+strings.TrimSpace(position), "--count=1"), "two\n"; got != want {
		t.Errorf("after %s sub printed %q, want %q", position, got, want)
	}
	if got, want := run("", "sub", "t", "--from=last:1", "--count=1", "--output=json"), `"offset":6,"kind":"binary","base64":"Zml2ZQ=="}`; !strings.Contains(got, want) {
		t.Errorf("sub printed %q, want %q", got, want)
	}

	refused := rayflux(t, "pub", "t", "{", "--kind=json", server)
	out, err := refused.CombinedOutput()
	if got := status(t, err); got != exitFailed || !bytes.Contains(out, []byte("data_invalid")) {
		t.Errorf("bad JSON: exit status %d, said %q", got, out)
	}
	if err := r.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := r.wait(t); got != exitClean {
		t.Errorf("exit status %d", got)
	}
}

func TestSubFollowsSeveralTopicsUntilASignal(t *testing.T) {
	r := start(t, "dev")
	server := "--server=ws://" + r.listen
	sub := rayflux(t, "sub", "a", "b", "--from=earliest", server)
	stdout, err := sub.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for _, topic := range []string{"a", "b", "a"} {
		if out, err := rayflux(t, "pub", topic, "to "+topic, server).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !lines.Scan() || lines.Text() != "to "+topic {
			t.Fatalf("sub printed %q, want %q", lines.Text(), "to "+topic)
		}
	}
	if err := sub.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := status(t, sub.Wait()); got != exitClean {
		t.Errorf("exit status of an interrupted sub is %d", got)
	}
}
