package engine

import (
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fdWaker wakes a loop through two descriptors in its poll set: an eventfd for other goroutines, and a timerfd for the
// loop's own next deadline. A Go timer would be a goroutine's and late by a millisecond; gnet's own wake-ups allocate.
type fdWaker struct {
	event, timer int
	clock        func() int64
	loop         *loop // set before the reactor starts
}

// alarm is what the timerfd's connection carries, the eventfd's carries the waker itself.
type alarm struct{ *fdWaker }

func newWaker(clock func() int64) (*fdWaker, error) {
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &fdWaker{event: event, timer: timer, clock: clock}, nil
}

// wake makes the loop's next round call woken. Safe from any goroutine.
func (w *fdWaker) wake() {
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(w.event), uintptr(unsafe.Pointer(&one)), 8)
}

// arm sets the loop's one deadline.
func (w *fdWaker) arm(at int64) {
	after := max(at-w.clock(), 1)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(after)}
	_, _, _ = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(w.timer), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}

func (w *fdWaker) close() {
	_ = unix.Close(w.event)
	_ = unix.Close(w.timer)
}

// conn dresses a descriptor as the net.Conn that gnet enrols. gnet takes only the net package's own types and copies
// their descriptor: so ours is put in the place of a socket's.
func (w *fdWaker) conn(fd int) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	f := os.NewFile(uintptr(pair[0]), "waker")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var dupErr error
	err = raw.Control(func(socket uintptr) { dupErr = unix.Dup3(fd, int(socket), unix.O_CLOEXEC) })
	if err == nil {
		err = os.NewSyscallError("dup3", dupErr)
	}
	return c, err
}

// rawWrite writes buffers to a non-blocking descriptor. The runtime's ordinary call would let the scheduler take the
// processor away at each of some hundred thousand writes a second.
func rawWrite(fd int, bufs [][]byte) (int, error) {
	var n uintptr
	var errno unix.Errno
	for {
		if len(bufs) == 1 {
			b := bufs[0]
			n, _, errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		} else {
			var iov [writeRanges + 2]unix.Iovec
			for i, b := range bufs {
				iov[i].Base = unsafe.SliceData(b)
				iov[i].SetLen(len(b))
			}
			n, _, errno = unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(bufs)))
		}
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// threadTime is the processor time of the calling thread, in nanoseconds; a loop keeps its thread.
func threadTime() int64 {
	var ts unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}
