package floor

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"rayflux/protocol"
)

const (
	inputBytes   = 256 << 10
	refusedMax   = 8 << 20 // bytes kept for a connection the kernel takes no more from, before it is closed
	eventsMax    = 1024
	gatherMax    = 128 // topics of one connection
	listenerSlot = -1  // in an epoll event, where connections have their descriptor
)

// server is the whole process. Owned by its only thread.
type server struct {
	epoll, listener int
	conns           []conn // by descriptor
	topics          []topic
	byName          map[string]int32
	dirty           []int32               // topics with bytes of this pass
	gather          []int32               // connections of several topics with bytes of this pass
	ranges          [gatherMax]unix.Iovec // of one gathering write
	whole           [gatherMax][]byte     // the same as slices
	input           []byte
	answer          []byte // reused for whatever is said to one connection
	scratch         protocol.Scratch
}

// topic holds the bytes of one pass in each form somebody reads.
type topic struct {
	name    string
	offset  uint64 // of the newest message
	dirty   bool
	views   [formats][]byte
	readers [formats][]int32 // descriptors
}

const formats = protocol.FormatClassic + 1

// phase is what a connection's next bytes are.
type phase byte

const (
	phaseFree phase = iota
	phaseHead       // HTTP requests
	phaseNative
	phaseClassic // the subscribe message
	phaseReading // classic, subscribed
)

// conn is kept small: it is most of what an idle connection costs.
type conn struct {
	phase    phase
	format   protocol.Format
	gathered bool    // in server.gather
	last     int32   // topic of its last publish
	topics   []int32 // subscribed
	rest     []byte  // start of a frame or head whose end has not come
	refused  []byte  // what the kernel did not take
}

func newServer(listener int) *server {
	var limit unix.Rlimit
	descriptors := 1 << 16
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		descriptors = int(min(limit.Cur, 1<<20))
	}
	return &server{
		listener: listener,
		conns:    make([]conn, descriptors),
		byName:   make(map[string]int32),
		input:    make([]byte, inputBytes),
	}
}

// run serves until epoll fails.
func (s *server) run() (err error) {
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if err = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, s.listener, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: listenerSlot}); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	var events [eventsMax]unix.EpollEvent
	for {
		const forever = ^uintptr(0)
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epoll), uintptr(unsafe.Pointer(&events)), eventsMax, forever, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return fmt.Errorf("epoll: %w", errno)
		}
		for _, event := range events[:n] {
			if event.Fd == listenerSlot {
				s.accept()
				continue
			}
			if event.Events&unix.EPOLLOUT != 0 {
				s.resume(event.Fd)
			}
			if event.Events&^unix.EPOLLOUT != 0 && s.conns[event.Fd].phase != phaseFree {
				s.receive(event.Fd)
			}
		}
		s.fanOut()
	}
}

func (s *server) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		if fd >= len(s.conns) || unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) != nil ||
			unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}) != nil {
			unix.Close(fd)
			continue
		}
		s.conns[fd] = conn{phase: phaseHead, last: -1}
	}
}

// receive reads a connection once and acts on what is whole.
func (s *server) receive(fd int32) {
	c := &s.conns[fd]
	kept := copy(s.input, c.rest)
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&s.input[kept])), uintptr(len(s.input)-kept))
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return
	}
	if errno != 0 || n == 0 {
		s.drop(fd)
		return
	}
	b := s.input[:kept+int(n)]
	for used := 1; used > 0 && len(b) > 0 && c.phase != phaseFree; b = b[used:] {
		if c.phase == phaseHead {
			used = s.takeHead(fd, b)
		} else {
			used = s.takeFrames(fd, b)
		}
	}
	if c.phase == phaseFree {
		return
	}
	if len(b) == len(s.input) {
		s.drop(fd)
		return
	}
	if len(b) > 0 || c.rest != nil {
		c.rest = append(c.rest[:0], b...)
	}
}

// drop closes a connection and forgets it.
func (s *server) drop(fd int32) {
	c := &s.conns[fd]
	if c.phase == phaseFree {
		return
	}
	for _, t := range c.topics {
		readers := &s.topics[t].readers[c.format]
		for i, other := range *readers {
			if other == fd {
				(*readers)[i] = (*readers)[len(*readers)-1]
				*readers = (*readers)[:len(*readers)-1]
				break
			}
		}
	}
	unix.Close(int(fd))
	*c = conn{}
}

// topicOf finds a topic by name or makes it.
func (s *server) topicOf(name []byte) int32 {
	i, ok := s.byName[string(name)]
	if !ok {
		i = int32(len(s.topics))
		s.topics = append(s.topics, topic{name: string(name)})
		s.byName[string(name)] = i
	}
	return i
}
