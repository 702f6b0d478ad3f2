// Command floor is what the kernel leaves of a fan-out server: one thread, one epoll descriptor, no log, no recovery, no
// slow-reader policy, and one gathering write per subscriber and pass. Whatever RayFlux costs above it is RayFlux's own.
//
// It understands just enough of the wire to run the scenarios of package bench: the upgrade on /ws and /subscribe,
// subscribe, publish and ping of the native protocols, POST /publish on a kept-alive connection. It trusts its clients and
// is no server for anybody else.
//
//	taskset -c 0 floor -listen 127.0.0.1:8080
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "IPv4 address to listen on")
	flag.Parse()
	runtime.LockOSThread()
	fd, err := listenOn(*listen)
	if err == nil {
		fmt.Fprintf(os.Stderr, "floor: listening on %s, process %d\n", *listen, os.Getpid())
		err = newServer(fd).run()
	}
	fmt.Fprintln(os.Stderr, "floor:", err)
	os.Exit(1)
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
