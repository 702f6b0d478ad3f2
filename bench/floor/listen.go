package floor

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// Serve listens on addr, an IPv4 address with its port, and serves from the calling goroutine's thread until epoll fails.
func Serve(addr string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := listenOn(addr)
	if err != nil {
		return err
	}
	return newServer(fd).run()
}

func listenOn(addr string) (fd int, err error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return -1, err
	}
	if !at.Addr().Is4() {
		return -1, fmt.Errorf("address %s is not IPv4", addr)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		return -1, fmt.Errorf("bind %s: %w", addr, err)
	}
	if err = unix.Listen(fd, 4096); err != nil {
		return -1, fmt.Errorf("listen %s: %w", addr, err)
	}
	return fd, nil
}
