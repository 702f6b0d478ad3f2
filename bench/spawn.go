package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
}

const (
	startPatience = 10 * time.Second
	stopPatience  = 5 * time.Second
)

// Spawn starts argv pinned to a processor (negative: to none in particular) and returns once it takes connections.
// Every "{addr}" in argv becomes the loopback address the server has to listen on. What the server writes goes to log.
func Spawn(ctx context.Context, argv []string, cpu int, log io.Writer) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := make([]string, len(argv))
	for i, arg := range argv {
		args[i] = strings.ReplaceAll(arg, "{addr}", addr)
	}
	command := exec.Command(args[0], args[1:]...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // a generator that is killed leaves no server behind
	s := &Server{Addr: addr, command: command, ended: make(chan error, 1)}
	if err := startPinned(command, cpu, s.ended); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	s.PID = command.Process.Pid
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", args[0], err), s.Stop())
	}
	return s, nil
}

// startPinned starts command from a thread that has the wanted affinity, which the child inherits before its first
// instruction: a Go server counts its processors only once. The thread waits for the child, because the kernel sends
// Pdeathsig when the thread that started it ends, and is not given back, its affinity being nobody else's.
func startPinned(command *exec.Cmd, cpu int, ended chan<- error) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if cpu >= 0 {
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				started <- fmt.Errorf("pin to processor %d: %w", cpu, err)
				return
			}
		}
		err := command.Start()
		started <- err
		if err == nil {
			ended <- command.Wait()
		}
	}()
	return <-started
}

// ready waits until the server accepts a connection.
func (s *Server) ready(ctx context.Context) error {
	deadline := time.Now().Add(startPatience)
	for {
		conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case end := <-s.ended:
			s.ended <- end
			return fmt.Errorf("ended before it took connections: %v", end)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("takes no connections on %s after %s", s.Addr, startPatience)
		}
	}
}

// Stop ends the server: SIGTERM first, SIGKILL when that is not heard.
func (s *Server) Stop() error {
	err := s.command.Process.Signal(unix.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case end := <-s.ended:
		s.ended <- end
		return err
	case <-time.After(stopPatience):
	}
	killed := s.command.Process.Kill()
	end := <-s.ended
	s.ended <- end
	return errors.Join(err, fmt.Errorf("server did not stop within %s of SIGTERM and was killed", stopPatience), killed)
}

// freeAddr finds a loopback port that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
