package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reads, writes and waits go through RawSyscall: the ordinary wrapper lets the scheduler take the processor away, which
// costs the generator context switches that the measurement would carry.

// read takes what has arrived on fd. n is 0 at the end of the stream.
func read(fd int, b []byte) (n int, err unix.Errno) {
	r, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if err != 0 {
		return 0, err
	}
	return int(r), 0
}

// write gives b to the kernel, which may take only a part.
func write(fd int, b []byte) (n int, err unix.Errno) {
	r, _, err := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if err != 0 {
		return 0, err
	}
	return int(r), 0
}

// poller is an epoll descriptor and the events of its last wait.
type poller struct {
	fd     int
	events [1024]unix.EpollEvent
}

func (p *poller) open() (err error) {
	p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return err
}

// watch adds or changes the events fd is waited for.
func (p *poller) watch(op, fd int, events uint32) error {
	return unix.EpollCtl(p.fd, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// wait returns the events that came within the timeout; they are valid until the next wait. A signal ends it early.
// epoll_pwait2, because a publish that is due in 50 microseconds cannot wait for epoll_wait's next millisecond.
func (p *poller) wait(timeout time.Duration) []unix.EpollEvent {
	spec := unix.NsecToTimespec(int64(max(timeout, 0)))
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)),
		uintptr(len(p.events)), uintptr(unsafe.Pointer(&spec)), 0, 0)
	if err != 0 {
		return nil
	}
	return p.events[:n]
}

// target is the server's address as the kernel wants it.
type target struct {
	text     string
	family   int
	sockaddr unix.Sockaddr
	loopback bool // of IPv4: sources may be spread over 127.0.0.0/8
}

func resolve(addr string) (target, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return target{}, fmt.Errorf("address %q: %w", addr, err)
	}
	at := tcp.AddrPort()
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return target{addr, unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: ip.As4()}, ip.IsLoopback()}, nil
	}
	return target{addr, unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port()), Addr: ip.As16()}, false}, nil
}

// source is the local address of the i-th connection: none while one address has ports enough, 127.0.0.2 and on after.
func (t target) source(i int) (addr netip.Addr, ok bool) {
	block := i / connectionsPerSource
	if !t.loopback || block == 0 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + block)}), true
}

// dial starts a non-blocking connect of the i-th connection. receiveBytes, when not 0, is its SO_RCVBUF, which has to be
// set before the connect to bound the window the server is told.
func (t target) dial(i, receiveBytes int) (fd int, err error) {
	fd, err = unix.Socket(t.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return -1, fmt.Errorf("TCP_NODELAY: %w", err)
	}
	if receiveBytes > 0 {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBytes); err != nil {
			return -1, fmt.Errorf("SO_RCVBUF %d: %w", receiveBytes, err)
		}
	}
	if from, ok := t.source(i); ok {
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // only spares ports; an old kernel may lack it
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
			return -1, fmt.Errorf("bind %s: %w", from, err)
		}
	}
	if err = unix.Connect(fd, t.sockaddr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, fmt.Errorf("connect %s: %w", t.text, err)
	}
	return fd, nil
}

// connected returns how the connect that dial started ended.
func connected(fd int) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

// Pin keeps every thread of this process, those to come included, on one processor, so that the generator never shares
// the server's. A negative cpu changes nothing.
func Pin(cpu int) error {
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return fmt.Errorf("thread %q: %w", task.Name(), err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin thread %d to processor %d: %w", tid, cpu, err)
		}
	}
	return nil
}

// Processors are those a server and a generator are best kept on: the first two of this process's, or -1 for any where it
// has fewer.
func Processors() (server, generator int) {
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil || own.Count() < 2 {
		return -1, -1
	}
	server = -1
	for cpu := 0; ; cpu++ {
		switch {
		case !own.IsSet(cpu):
		case server < 0:
			server = cpu
		default:
			return server, cpu
		}
	}
}

// descriptorLimit is how many descriptors this process may have open.
func descriptorLimit() uint64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return limit.Cur
}
