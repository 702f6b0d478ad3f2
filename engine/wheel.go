package engine

// timed is what a timer wakes: a connection, a lagging connection's retry, a topic.
type timed interface {
	expire(l *loop)
}

// timer is one pending wake-up, embedded in what it wakes so that setting one allocates nothing. Loop-owned.
type timer struct {
	next, prev *timer // neighbours in the slot's ring; nil when not set
	due        int64  // in wheel ticks
	owner      timed
}

func (t *timer) set() bool { return t.next != nil }

// stop takes the timer off its wheel, if it is on one.
func (t *timer) stop() {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
}

// wheel is a hashed timer wheel of one level: O(1) to set and stop, whatever the number of timers. A timer due beyond
// the wheel's turn waits in the last slot and is put back when that slot comes round. Loop-owned.
type wheel struct {
	shift uint // a tick is 1<<shift nanoseconds
	slots []timer
	tick  int64 // the next tick to run
	first int64 // no timer is due before this time; never: there is none
}

func newWheel(shift uint, slots int, now int64) wheel {
	w := wheel{shift: shift, slots: make([]timer, slots), tick: now >> shift, first: never}
	for i := range w.slots {
		s := &w.slots[i]
		s.next, s.prev = s, s
	}
	return w
}

// start sets t to wake its owner at the first tick that ends at or after the given time (nanoseconds of the loop's clock).
func (w *wheel) start(t *timer, at int64) {
	t.stop()
	t.due = (at + 1<<w.shift - 1) >> w.shift
	w.insert(t)
}

func (w *wheel) insert(t *timer) {
	slot := max(t.due, w.tick)
	if last := w.tick + int64(len(w.slots)) - 1; slot > last {
		slot = last
	}
	w.first = min(w.first, slot<<w.shift)
	head := &w.slots[slot%int64(len(w.slots))]
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
}

// advance wakes what is due at now, at most limit timers. What it did not get to is woken by the next call: a storm of
// timers must not keep a loop from its sockets.
func (w *wheel) advance(l *loop, now int64, limit int) {
	if w.first == never {
		w.tick = max(w.tick, now>>w.shift) // an empty wheel has nothing to catch up on
	}
	if now < w.first {
		return
	}
	for end := now >> w.shift; w.tick <= end; w.tick++ {
		head := &w.slots[w.tick%int64(len(w.slots))]
		for t := head.next; t != head; t = head.next {
			if limit == 0 {
				return // first is in the past, so the loop calls again in its next round
			}
			limit--
			t.stop()
			if t.due > w.tick {
				w.insert(t) // beyond the turn: never this slot again, insert sees to that
				continue
			}
			t.owner.expire(l)
		}
	}
	w.first = w.soonest()
}

// soonest finds the time of the next slot that holds a timer. It looks at every slot, so it runs once per alarm, not
// per event.
func (w *wheel) soonest() int64 {
	for i := range int64(len(w.slots)) {
		tick := w.tick + i
		if head := &w.slots[tick%int64(len(w.slots))]; head.next != head {
			return tick << w.shift
		}
	}
	return never
}
