package engine

import (
	"fmt"
	"time"

	"rayflux/protocol"
)

const waitCost = 512 // of a publish that waits to be stored

// wait is a publish with ack stored, which is answered once its message is in the archive. It is charged to its loop's share of
// buffer-memory until it is told, or, if that is before its message was offered, until it is. Loop-owned.
type wait struct {
	errand errand // without its name and payload
	until  int64  // loop clock
	told   bool
	in     *saving // whose waits[at] it is; nil: its message was not offered yet
	at     int
	next   *wait
}

// waits are those of one topic whose messages have not been offered yet, by offset. Loop-owned.
type waits struct{ first, last *wait }

func (q *waits) push(w *wait) {
	if q.last == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
}

func (q *waits) pop() *wait {
	w := q.first
	if q.first, w.next = w.next, nil; q.first == nil {
		q.last = nil
	}
	return w
}

// waitLine is every wait in the order in which they end: all have as long.
type waitLine struct {
	line    []*wait // line[gone:]
	gone    int
	charged int // waits
	timer   timer
}

// pass forgets the first one.
func (q *waitLine) pass() {
	q.line[q.gone] = nil
	if q.gone++; q.gone > len(q.line)/2 {
		n := copy(q.line, q.line[q.gone:])
		clear(q.line[n:])
		q.line, q.gone = q.line[:n], 0
	}
}

// await answers a publish later, when the message it was just given an offset for is stored.
func (k *keeper) await(t *topic, e *errand) {
	l := k.loop
	w := &wait{errand: *e, until: l.now + int64(l.cfg.StoredTimeout)}
	w.errand.name, w.errand.payload, w.errand.from = nil, nil, protocol.From{}
	if e.phased {
		w.errand.op = opStored
	}
	t.waits.push(w)
	k.charge(1)
	q := &k.waits
	if q.line = append(q.line, w); !q.timer.set() {
		l.wheel.start(&q.timer, w.until)
	}
}

// charge counts n waits more, or less.
func (k *keeper) charge(n int) {
	k.waits.charged += n
	k.loop.buffered += int64(n) * waitCost
}

// mayAwait says why no publish may wait to be stored; nil: one may.
func (l *loop) mayAwait() *protocol.Error {
	k := l.keeper
	switch {
	case k == nil:
		return &protocol.Error{Code: protocol.CodeNotPersisted, Message: "ack is stored, but this server has no store"}
	case k.sealed:
		return &protocol.Error{Code: protocol.CodeDraining, RetryAfter: retryAdvised, Message: "this server has handed its topics to the store"}
	case int64(k.waits.charged+1)*waitCost > l.bufferMax/4, l.buffered+waitCost > l.bufferMax:
		return &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: 100 * time.Millisecond,
			Message: fmt.Sprintf("%d publishes wait to be stored, in %d bytes of all that waits, limits %d and %d", k.waits.charged, l.buffered, l.bufferMax/4/waitCost, l.bufferMax)}
	}
	return nil
}

// put makes a wait one of a batch that has its message, if it was not told before.
func (k *keeper) put(b *saving, w *wait) {
	if w.told {
		k.charge(-1)
		return
	}
	w.in, w.at = b, len(b.waits)
	b.waits = append(b.waits, w)
}

// tell answers a publish: its message is stored, or the archive has given it up.
func (k *keeper) tell(w *wait, err error) {
	w.told = true
	k.charge(-1)
	e := &w.errand
	if err != nil {
		e.err = errNotStored("the store has not taken the message: " + err.Error())
	}
	if e.hasID || err != nil {
		k.loop.answer(e)
	}
	for q := &k.waits; q.gone < len(q.line) && q.line[q.gone].told; {
		q.pass()
	}
}

func errNotStored(text string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeStoreUnavailable, Message: text, RetryAfter: time.Second}
}

// expire tells those who have waited long enough. Their messages were delivered, and may be stored yet.
func (q *waitLine) expire(l *loop) {
	for q.gone < len(q.line) {
		w := q.line[q.gone]
		if !w.told && w.until > l.now {
			l.wheel.start(&q.timer, w.until)
			return
		}
		q.pass()
		if !w.told {
			w.told = true
			if w.in != nil { // which may be under way for as long as the store is away
				w.in.waits[w.at] = nil
				l.keeper.charge(-1)
			}
			w.errand.err = errNotStored(fmt.Sprintf("the message was delivered, but not stored within %v", l.cfg.StoredTimeout))
			l.answer(&w.errand)
		}
	}
}
