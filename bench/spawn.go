package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Server is a server process started for a measurement.
type Server struct {
	Addr string
	PID  int

	command *exec.Cmd
	ended   chan error // the process's end; closed by nobody, holds one value
	limit   *confinement
}

const (
	startPatience = 10 * time.Second
	stopPatience  = 5 * time.Second
)

// Spawn starts argv pinned to a processor (negative: to none in particular) and returns once it answers requests.
// Every "{addr}" in argv becomes the loopback address the server has to listen on. What the server writes goes to log. RayFlux has no
// store, unless argv names one: nobody measures one by mistake, and nothing is left behind.
func Spawn(ctx context.Context, argv []string, cpu int, log io.Writer) (*Server, error) {
	return spawn(ctx, argv, cpu, nil, log)
}

// spawn is Spawn inside a confinement (nil: none), which ends with the server.
func spawn(ctx context.Context, argv []string, cpu int, limit *confinement, log io.Writer) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, errors.Join(err, limit.remove())
	}
	args := make([]string, len(argv))
	for i, arg := range argv {
		args[i] = strings.ReplaceAll(arg, "{addr}", addr)
	}
	command := exec.Command(args[0], args[1:]...)
	command.Stdout, command.Stderr = log, log
	command.Env = append(os.Environ(), "RAYFLUX_STORE=none")
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // a generator that is killed leaves no server behind
	s := &Server{Addr: addr, command: command, ended: make(chan error, 1), limit: limit}
	if err := s.startPinned(cpu); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", args[0], err), limit.remove())
	}
	s.PID = command.Process.Pid
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", args[0], err), s.Stop())
	}
	return s, nil
}

// startPinned starts the process from a thread that has the wanted affinity and is in the wanted control group, both of
// which the child inherits before its first instruction: a Go server counts its processors only once. The thread waits for
// the child, because the kernel sends Pdeathsig when the thread that started it ends, and is not given back, its affinity
// being nobody else's.
func (s *Server) startPinned(cpu int) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		var set unix.CPUSet
		if cpu >= 0 {
			set.Set(cpu)
		} else {
			set.Fill() // this process may be pinned, and its child would be with it; the kernel leaves out what is not there
		}
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			started <- fmt.Errorf("pin to processor %d: %w", cpu, err)
			return
		}
		err := s.limit.admit(s.command.SysProcAttr)
		if err == nil {
			err = s.command.Start()
		}
		running := err == nil
		if left := s.limit.dismiss(); left != nil {
			err = errors.Join(err, left)
			if running {
				_ = s.command.Process.Kill() // fails if it has ended by itself
			}
		}
		started <- err
		if running {
			s.ended <- s.command.Wait()
		}
	}()
	return <-started
}

// ready waits until the server answers a request. That its port takes connections is not enough: the kernel takes them
// before the server does.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("answers no request on %s after %s", s.Addr, startPatience))
	defer cancel()
	for !s.answers(ctx) {
		select {
		case end := <-s.ended:
			s.ended <- end
			return fmt.Errorf("ended before it answered a request: %v", end)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// answers asks once whether the server can serve. A server that does not know the question can.
func (s *Server) answers(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr+"/healthz", nil)
	if err != nil {
		return false
	}
	request.Close = true // the measurement wants a server without connections
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode != http.StatusServiceUnavailable
}

// Stop ends the server: SIGTERM first, SIGKILL when that is not heard.
func (s *Server) Stop() error { return s.StopWithin(stopPatience) }

// StopWithin is Stop for a server that takes its time to go.
func (s *Server) StopWithin(patience time.Duration) error {
	return errors.Join(s.end(patience), s.limit.remove())
}

func (s *Server) end(patience time.Duration) error {
	err := s.command.Process.Signal(unix.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case end := <-s.ended:
		s.ended <- end
		return err
	case <-time.After(patience):
	}
	killed := s.command.Process.Kill()
	end := <-s.ended
	s.ended <- end
	return errors.Join(err, fmt.Errorf("server did not stop within %s of SIGTERM and was killed", patience), killed)
}

// freeAddr finds a loopback port that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
