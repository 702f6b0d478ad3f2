package floor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fanOut ends a pass: every reader of a dirty topic gets one write.
func (s *server) fanOut() {
	for _, i := range s.dirty {
		t := &s.topics[i]
		for f := range formats {
			view := t.views[f]
			if len(view) == 0 {
				continue
			}
			// Backwards, because a reader that fails is replaced by the last one.
			for r := len(t.readers[f]) - 1; r >= 0; r-- {
				fd := t.readers[f][r]
				if c := &s.conns[fd]; len(c.topics) == 1 {
					s.write(fd, view)
				} else if !c.gathered {
					c.gathered = true
					s.gather = append(s.gather, fd)
				}
			}
		}
	}
	for _, fd := range s.gather {
		s.writeTopics(fd)
	}
	s.gather = s.gather[:0]
	for _, i := range s.dirty {
		t := &s.topics[i]
		for f := range t.views {
			t.views[f] = t.views[f][:0]
		}
		t.dirty = false
	}
	s.dirty = s.dirty[:0]
}

// write gives b to the kernel behind what it refused before, and keeps a copy of what it refuses now.
func (s *server) write(fd int32, b []byte) {
	c := &s.conns[fd]
	if len(c.refused) > 0 {
		s.refuse(fd, b)
		return
	}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		if errno != unix.EAGAIN {
			s.drop(fd)
			return
		}
		n = 0
	}
	if int(n) < len(b) {
		s.refuse(fd, b[n:])
	}
}

// writeTopics gives a connection the bytes of all its topics in one write.
func (s *server) writeTopics(fd int32) {
	c := &s.conns[fd]
	c.gathered = false
	count := 0
	for _, i := range c.topics {
		if view := s.topics[i].views[c.format]; len(view) > 0 && count < gatherMax {
			s.ranges[count].Base = unsafe.SliceData(view)
			s.ranges[count].SetLen(len(view))
			s.whole[count] = view
			count++
		}
	}
	n := 0
	if len(c.refused) == 0 {
		r, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&s.ranges)), uintptr(count))
		if errno != 0 && errno != unix.EAGAIN {
			s.drop(fd)
			return
		}
		if errno == 0 {
			n = int(r)
		}
	}
	for _, view := range s.whole[:count] {
		taken := min(n, len(view))
		n -= taken
		if taken < len(view) && c.phase != phaseFree {
			s.refuse(fd, view[taken:])
		}
	}
}

// refuse keeps a copy of b for when the kernel takes more.
func (s *server) refuse(fd int32, b []byte) {
	c := &s.conns[fd]
	if len(c.refused)+len(b) > refusedMax {
		s.drop(fd)
		return
	}
	if len(c.refused) == 0 {
		s.watch(fd, unix.EPOLLIN|unix.EPOLLOUT)
	}
	c.refused = append(c.refused, b...)
}

// resume goes on with what the kernel refused.
func (s *server) resume(fd int32) {
	c := &s.conns[fd]
	if c.phase == phaseFree || len(c.refused) == 0 {
		return
	}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&c.refused[0])), uintptr(len(c.refused)))
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 {
		s.drop(fd)
		return
	}
	c.refused = c.refused[:copy(c.refused, c.refused[n:])]
	if len(c.refused) == 0 {
		s.watch(fd, unix.EPOLLIN)
	}
}

func (s *server) watch(fd int32, events uint32) {
	if unix.EpollCtl(s.epoll, unix.EPOLL_CTL_MOD, int(fd), &unix.EpollEvent{Events: events, Fd: fd}) != nil {
		s.drop(fd)
	}
}
