// Package s3test runs real S3 servers for tests: processes on loopback, with directories of their own, that end with the test.
package s3test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	Bucket    = "attic"
	AccessKey = "tester"
	SecretKey = "not-a-secret"
	Region    = "us-east-1"
)

const (
	startPatience = 30 * time.Second // on a machine that is busy with other tests
	startTries    = 3                // of free ports, which may not be free any more
)

// A program is a server that can be built.
type program struct {
	name    string
	module  string // with the version, in full
	args    func(address, root string) []string
	env     []string
	healthy string // path of a request that it answers without a signature when it is up
}

var versitygw = program{
	name:   "versitygw",
	module: "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
	args: func(address, root string) []string {
		return []string{"--quiet", "--keep-alive", "--port", address, "--health", "/health", "posix", root}
	},
	env:     []string{"ROOT_ACCESS_KEY=" + AccessKey, "ROOT_SECRET_KEY=" + SecretKey},
	healthy: "/health",
}

var minio = program{
	name:   "minio",
	module: "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c",
	args: func(address, root string) []string {
		return []string{"server", "--quiet", "--address", address, "--console-address", "127.0.0.1:0", root}
	},
	env:     []string{"MINIO_ROOT_USER=" + AccessKey, "MINIO_ROOT_PASSWORD=" + SecretKey, "MINIO_UPDATE=off"},
	healthy: "/minio/health/live",
}

// Server is one server. Its methods are the test goroutine's.
type Server struct {
	Endpoint string

	tb      testing.TB
	program program
	path    string // of the binary
	address string
	root    string // what is kept outlives a Stop
	process *os.Process
	ended   chan struct{} // closed when the process has
	said    *tail
}

// Start runs versitygw with an empty bucket until the test ends. The first test on a machine waits minutes for its build.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return start(tb, versitygw)
}

// StartMinIO runs MinIO, a much larger program, in the same way. The bucket is not there yet.
func StartMinIO(tb testing.TB) *Server {
	tb.Helper()
	return start(tb, minio)
}

func start(tb testing.TB, p program) *Server {
	tb.Helper()
	path, err := p.build()
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{tb: tb, program: p, path: path, root: tb.TempDir()}
	if p.name == versitygw.name { // whose buckets are directories
		if err := os.Mkdir(filepath.Join(s.root, Bucket), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	for try := 1; ; try++ {
		if s.address, err = freeAddress(); err == nil {
			err = s.run()
		}
		if err == nil {
			break
		}
		if try == startTries {
			tb.Fatal(err)
		}
	}
	s.Endpoint = "http://" + s.address
	tb.Cleanup(s.Stop)
	return s
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// Environment is what a program needs in its environment to use the server.
func (s *Server) Environment() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey, "AWS_REGION=" + Region, "AWS_ENDPOINT_URL_S3=" + s.Endpoint,
	}
}

// Stop kills the server, if it runs. What it has kept stays.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Kill() // fails if it has ended by itself
	<-s.ended
	s.process = nil
}

// Restart runs a stopped server again, at the same address.
func (s *Server) Restart() {
	s.tb.Helper()
	if err := s.run(); err != nil {
		s.tb.Fatal(err)
	}
}

// Pause makes the server hang: the kernel takes connections and requests, and nobody answers. When it returns no thread runs any more.
func (s *Server) Pause() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, s.process.Pid, nil, unix.WSTOPPED, nil); err != nil {
		s.tb.Fatalf("%s does not stop: %v", s.program.name, err)
	}
}

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal os.Signal) {
	s.tb.Helper()
	if err := s.process.Signal(signal); err != nil {
		s.tb.Fatalf("%s: %v", s.program.name, err)
	}
}

func (s *Server) run() error {
	s.said = &tail{}
	command := exec.Command(s.path, s.program.args(s.address, s.root)...)
	command.Env = append(os.Environ(), s.program.env...)
	command.Stdout, command.Stderr = s.said, s.said
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves no server behind
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends Pdeathsig when the thread ends that started the process: it waits with it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // killed
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.process, s.ended = command.Process, ended
	if err := s.ready(); err != nil {
		s.Stop()
		return fmt.Errorf("%s at %s: %w; it said: %s", s.program.name, s.address, err, s.said)
	}
	return nil
}

func (s *Server) ready() error {
	client := http.Client{Timeout: startPatience}
	defer client.CloseIdleConnections()
	patience := time.After(startPatience)
	for {
		answer, err := client.Get("http://" + s.address + s.program.healthy)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(answer.Status)
		}
		select {
		case <-s.ended:
			return errors.New("ended at once")
		case <-patience:
			return fmt.Errorf("not ready after %s: %w", startPatience, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// tail is the last words of a process. Safe from any goroutine.
type tail struct {
	mu    sync.Mutex
	words []byte
}

const tailMax = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.words = append(t.words, p...)
	if over := len(t.words) - tailMax; over > 0 {
		t.words = t.words[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.words))
}
