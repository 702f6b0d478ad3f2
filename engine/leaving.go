package engine

import "time"

// drainState is how far a node that goes away has come with handing its topics over.
type drainState uint8

const (
	drainNot drainState = iota
	drainHanding
	drainLinger // everything is handed over; commands under way are told where
	drainOver
)

// beginDrain hands every topic over to its next choice, within a time in nanoseconds.
func (s *estate) beginDrain(window int64) {
	if s.drain != drainNot {
		return
	}
	s.drain = drainHanding
	s.drainEnd = s.loop.now + window
	for _, n := range s.neighbours {
		if n != nil {
			n.rest(farewellPause)
		}
	}
	s.changed()
}

// settleDrain looks how far the drain has come.
func (s *estate) settleDrain() {
	l := s.loop
	switch s.drain {
	case drainNot, drainOver:
		return
	case drainHanding:
		if !s.handedOver() && l.now < s.drainEnd {
			return
		}
		s.drain = drainLinger
		s.drainEnd = l.now + lingerDrained
		if s.alone() {
			s.drainEnd = l.now
		}
		if n := len(l.topics); n > 0 && !s.alone() {
			l.cfg.Log.Warn("topics could not be handed over", "topics", n, "loop", l.index, "after", l.cfg.DrainTimeout.Round(time.Millisecond))
		}
	}
	if s.drain == drainLinger && l.now >= s.drainEnd {
		s.drain = drainOver
		if l.shared.estates.Add(-1) == 0 {
			l.shared.lookIdle()
		}
	}
}

// handedOver reports whether nothing is left that another node would have.
func (s *estate) handedOver() bool {
	if s.sweep || s.stuck > 0 {
		return false
	}
	for _, n := range s.neighbours {
		if n != nil && (n.refused || n.sending != nil || len(n.first)+len(n.queue)+len(n.waiting) > 0) {
			return false
		}
	}
	return true
}

// alone reports whether there is no node to hand anything over to.
func (s *estate) alone() bool {
	for _, n := range s.neighbours {
		if n != nil && n.usable() {
			return false
		}
	}
	return true
}
