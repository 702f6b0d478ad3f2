package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"rayflux/persist"
	"rayflux/protocol"
)

// What a log has forgotten is read from the archive: a cursor's next stretch (opRead, opFetch), the place where a reader begins
// (opSubscribe, opLocate), a page of history. Each is an inquiry, which takes the errand with it and brings it back.

// inquiry is one question to the archive. The loop's, but for the time between ask and archived.
type inquiry struct {
	errand errand // its bytes are in kept
	kept   buffer
	until  int64  // loop clock: it is asked before, or not any more
	topic  *topic // whose it is; nil: a page of history of one that is not known here
	query  persist.Query
	at     persist.Position // of a read
	bytes  int
	page   *historyPage // of history

	start persist.Start
	read  persist.Page
	err   error

	heldLine // commands of the same connection for the same topic, which come after
}

// starts reports whether it is about where a reader begins.
func (q *inquiry) starts() bool { return q.errand.op == opSubscribe || q.errand.op == opLocate }

// put asks, on a goroutine that is not a loop's.
func (q *inquiry) put(ctx context.Context, a Archive) {
	name := string(q.errand.name)
	switch {
	case q.starts():
		q.start, q.err = a.Resolve(ctx, name, q.query)
	case q.page != nil:
		if q.start, q.err = a.Resolve(ctx, name, q.query); q.err == nil {
			q.err = q.page.read(ctx, a, name, q)
		}
	default:
		q.read, q.err = a.Read(ctx, name, q.at, q.bytes)
	}
}

// inLog reports whether the archive has nothing of what is asked for by its time: it begins in the log, if anywhere.
func (q *inquiry) inLog() bool {
	return q.query.From == persist.FromSince && q.start.Position == q.query.Before
}

// outrun reports whether what is asked for by its time was in the log, and may have been dropped since the archive was asked.
func (q *inquiry) outrun(l *loop) bool {
	if q.topic == nil || q.err != nil || !q.inLog() || q.topic.start == q.query.Before.Offset+1 {
		return false
	}
	next, _ := q.topic.resolve(l, q.errand.from)
	return next == q.topic.start
}

// tells reports whether where a reader begins can be told from what is in memory.
func (t *topic) tells(f protocol.From) bool {
	switch {
	case !t.keeps || f.Mode == protocol.FromLive:
		return true
	case f.Mode == protocol.FromPosition:
		return string(f.Epoch) == t.epoch && (f.Offset+1 >= t.start || f.Offset > t.head)
	case f.Mode == protocol.FromLast:
		return f.Last <= t.head+1-t.start
	}
	return false // there may be older ones, of earlier epochs too
}

// query is a reader's start as the archive is asked for it: f is not live.
func (t *topic) query(l *loop, f protocol.From) persist.Query {
	q := persist.Query{}
	if t != nil {
		q.Before = persist.Position{Epoch: t.epoch, Offset: t.start - 1}
	}
	switch f.Mode {
	case protocol.FromPosition:
		q.From, q.At = persist.FromPosition, persist.Position{Epoch: string(f.Epoch), Offset: min(f.Offset, math.MaxUint64-1)} // it has a next one
	case protocol.FromEarliest:
		q.From = persist.FromEarliest
	case protocol.FromLast:
		q.From, q.Last = persist.FromLast, f.Last
		if t != nil {
			q.Last -= t.head + 1 - t.start
		}
	case protocol.FromSince:
		q.From, q.SinceMs = persist.FromSince, f.Since
	}
	return q
}

// recalls takes an errand to the archive if memory cannot answer it. True: that has been done, or it has been refused.
func (k *keeper) recalls(t *topic, e *errand) bool {
	if t.tells(e.from) {
		return false
	}
	k.recall(t, e)
	return true
}

func (k *keeper) recall(t *topic, e *errand) {
	if !k.mayAsk(e) {
		return
	}
	q := k.inquire(t, e)
	q.query = t.query(k.loop, e.from)
	if q.errand.op == opSubscribe {
		k.begins[q.asker()] = q
	}
	k.queue(q)
}

// asker is whose subscription an inquiry is about: there is one at most.
type asker struct {
	conn  *conn
	topic string
}

func (q *inquiry) asker() asker { return asker{q.errand.conn, q.topic.name} }

// queue has a reader's inquiry answered in its turn.
func (k *keeper) queue(q *inquiry) {
	k.asking[q] = struct{}{}
	q.until = k.loop.now + int64(inquiryPatience)
	k.line = append(k.line, q)
	k.askNext()
}

// askNext asks for those whose turn it is. Who has waited too long is told: the store does not answer.
func (k *keeper) askNext() {
	for len(k.line) > 0 && len(k.asking)-len(k.line) < inquiriesMax {
		q := k.line[0]
		k.line[0] = nil
		if k.line = k.line[1:]; len(k.line) == 0 {
			k.line = nil
		}
		if k.loop.now >= q.until {
			q.err = errTurn
			k.conclude(q)
			continue
		}
		k.ask(q)
	}
}

var errTurn = fmt.Errorf("%d readers that came before wait for it", inquiriesMax)

// ask sends an inquiry away, behind what its topic's log has dropped since the last batch.
func (k *keeper) ask(q *inquiry) {
	if k.alone(q) {
		k.offer()
	}
	k.archive.ask(k.loop, q)
}

// alone reports whether the batch that is being filled may be the only place where messages are that an inquiry is about.
func (k *keeper) alone(q *inquiry) bool {
	return k.batch != nil && slices.ContainsFunc(k.batch.Runs, func(r persist.Run) bool {
		return r.Topic == string(q.errand.name) && (q.topic == nil || r.Epoch != q.topic.epoch || r.First < q.topic.start)
	})
}

// mayAsk reports whether one more reader may wait for the archive. If not it is told.
func (k *keeper) mayAsk(e *errand) bool {
	switch {
	case len(k.line) >= k.lineMax:
		e.err = errAsking(k.lineMax)
	case !k.hasRoom(e):
		e.err = errFull(k.loop.bufferMax)
	default:
		return true
	}
	k.loop.answer(e)
	return false
}

// hasRoom reports whether an errand may be kept: what is kept is rounded up.
func (k *keeper) hasRoom(e *errand) bool {
	return k.loop.buffered+inquiryCost+2*(1<<blockClassMin+int64(len(e.name)+len(e.payload)+len(e.from.Epoch))) <= k.loop.bufferMax
}

func errAsking(limit int) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: retryAdvised, Message: fmt.Sprintf("%d readers wait for the store, the limit", limit)}
}

func (k *keeper) inquire(t *topic, e *errand) *inquiry {
	q := &inquiry{topic: t, errand: *e}
	q.kept.keepErrand(k.loop, &q.errand)
	k.loop.buffered += inquiryCost
	return q
}

// release gives the memory back that an inquiry was charged.
func (q *inquiry) release(l *loop) {
	q.kept.release(l)
	l.buffered -= inquiryCost
}

// page reads a stretch for a cursor, a short one while many are read. An answer is due at once if it cannot be had.
func (k *keeper) page(t *topic, e *errand, epoch string, bytes int) {
	if len(k.reads) >= inquiriesMax/stridesMax {
		bytes = min(bytes, readBytesMax)
	}
	if len(k.reads) >= inquiriesMax || !k.hasRoom(e) {
		e.err = errFetch
		k.loop.answer(e)
		return
	}
	q := k.inquire(t, e)
	if epoch != t.epoch {
		q.errand.past = epoch
	}
	q.at, q.bytes = persist.Position{Epoch: epoch, Offset: max(q.wanted(), 1) - 1}, bytes
	k.reads[q] = struct{}{}
	k.ask(q)
}

// wanted is the offset of the first message that is read.
func (q *inquiry) wanted() uint64 {
	if q.errand.op == opFetch {
		return q.errand.from.Offset
	}
	return q.errand.offset
}

// behind reports whether an errand is to come after a subscription that the same connection has asked for to the same topic, of
// which there is one at most, and keeps it if so. Whoever asks otherwise waits, or needs no order.
func (k *keeper) behind(e *errand) bool {
	q := k.begins[asker{e.conn, string(e.name)}]
	if q == nil || e.op == opRead {
		return false
	}
	if e.op != opUnsubscribe && e.op != opLeave && !k.hasRoom(e) {
		if e.op != opRefuse { // which may overtake, but is not put off
			e.err = errFull(k.loop.bufferMax)
		}
		k.loop.answer(e)
		return true
	}
	w := &held{errand: *e}
	if e.op == opUnsubscribe || e.op == opLeave {
		w.errand.name = q.errand.name // it lives as long
	} else {
		w.kept.keepErrand(k.loop, &w.errand)
		k.loop.buffered += flightCost
	}
	q.push(w)
	return true
}

// archived brings an inquiry back.
func (k *keeper) archived(q *inquiry) {
	if !q.starts() && q.page == nil {
		delete(k.reads, q)
		k.turned(q)
		q.release(k.loop)
		return
	}
	k.conclude(q)
	k.askNext()
}

// conclude answers a reader, and does what was to come after.
func (k *keeper) conclude(q *inquiry) {
	l, e, t := k.loop, &q.errand, q.topic
	delete(k.asking, q)
	if e.op == opSubscribe {
		delete(k.begins, q.asker())
	}
	switch {
	case t != nil && (l.topics[t.name] != t || t.moving != nil), // it is on its way to another node, or was forgotten
		q.outrun(l):
		l.execute(e)
	case q.err != nil:
		e.err = errStore(q.err)
		l.answer(e)
	case q.page != nil:
		k.paged(q)
	default:
		k.begun(q)
	}
	for q.first != nil {
		w := q.pop()
		if !w.kept.empty() { // else nothing was charged for it
			l.buffered -= flightCost
		}
		l.execute(&w.errand)
		w.kept.release(l)
	}
	q.release(l)
}

func errStore(err error) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeStoreUnavailable, RetryAfter: retryAdvised, Message: "the store cannot be read now: " + err.Error()}
}

// begun places a reader where the archive has found that it begins.
func (k *keeper) begun(q *inquiry) {
	l, e, t := k.loop, &q.errand, q.topic
	next, whole, past := q.start.Offset+1, q.start.Whole, ""
	switch {
	case q.query.From == persist.FromPosition && !q.start.Whole && q.query.At.Epoch == t.epoch && t.owes(l, q.query.At.Offset+1):
		next, whole = q.query.At.Offset+1, true // as soon as it is there
	case q.query.From == persist.FromPosition && !q.start.Whole && !q.start.Partial: // nothing is replayed
		next = t.head + 1
	case q.inLog():
		var all bool
		next, all = t.resolve(l, e.from)
		whole = whole || all
	case q.start.Epoch != t.epoch:
		past = q.start.Epoch
	}
	switch q.query.From {
	case persist.FromEarliest:
		whole = next == 1
	case persist.FromLast, persist.FromSince: // there never were more
		whole = whole || next == 1
	}
	if past != "" && e.op == opLocate && !e.phased { // the asker cannot be told
		past, next, whole = "", t.head+1, false
	}
	if e.op == opLocate {
		l.placed(t, e, next, whole)
	} else {
		l.attach(t, e, next, whole)
	}
	if e.past = past; past != "" {
		e.epoch = past
	}
	l.answer(e)
}

// owes reports whether a message that is not stored may yet be.
func (t *topic) owes(l *loop, offset uint64) bool { return offset <= t.owed && l.now < t.owedUntil }

// turn is where a cursor goes on when what it reads has come to an end: in another epoch, or behind messages that are lost.
type turn struct {
	epoch  string
	offset uint64 // it has, or has not got, everything up to this one
	missed uint64 // of the epoch that it was in
	known  bool   // how many these are
}

// turned brings a cursor what was read for it, or tells it where to go on.
func (k *keeper) turned(q *inquiry) {
	l, e, t := k.loop, &q.errand, q.topic
	gone, present := l.topics[t.name] != t, q.at.Epoch == t.epoch
	e.topic, e.head, e.start = t, t.head, t.start
	first := q.wanted()
	switch r := &q.read; {
	case gone || q.err != nil:
		if q.err != nil && !errors.Is(q.err, context.DeadlineExceeded) {
			l.cfg.Log.Debug("the store cannot be read", "topic", t.name, "err", q.err)
		}
		e.err = errFetch
	case r.Count > 0:
		e.payload, e.start = r.Frames, min(first, t.start)
		e.offset = first + uint64(r.Count) - 1
		if !present { // the head of this one says nothing about that
			e.head = e.offset
		}
	case present && t.owes(l, first):
		e.err = errFetch // it is asked for again
	case r.Hole > 0:
		next := r.Hole
		if present && first < t.start { // what the archive has given up may still be in the log
			next = min(next, t.start)
		}
		e.turn = &turn{epoch: q.at.Epoch, offset: next - 1, missed: next - first, known: true}
	case present && first < t.start:
		e.turn = &turn{epoch: t.epoch, offset: t.start - 1, missed: t.start - first, known: true}
	case present: // it is in memory meanwhile, or to come
		e.turn = &turn{epoch: t.epoch, offset: first - 1, known: true}
	case r.NextEpoch != "" && r.NextEpoch != t.epoch:
		e.turn = &turn{epoch: r.NextEpoch}
	default:
		e.turn = &turn{epoch: t.epoch}
	}
	if e.op == opRead && !gone {
		t.feeds[e.conn.loop.index].stale = false // as readOn does
	}
	if e.op == opRead && e.payload != nil && e.sub.format != protocol.FormatBinary {
		e.payload = appendView(l.scratch[:0], e.sub.format, t.name, e.payload)
		l.scratch = e.payload[:0]
	}
	l.answer(e)
}

// turnTo moves a cursor to where it goes on, and tells its reader. A turn to where it is already says nothing.
func (l *loop) turnTo(s *subscription, to *turn) bool {
	c, m := s.conn, s.mirror
	same := to.epoch == s.epoch()
	skips := !same || to.offset+1 > s.next
	offset := to.offset
	if !same {
		offset = s.leave(to.epoch, offset)
	}
	s.next = offset + 1
	if s.past = to.epoch; to.epoch == m.topic.epoch {
		s.past = ""
	}
	if !skips {
		return true
	}
	if s.format == protocol.FormatClassic { // it has no way to hear of it
		c.failSlow(s.epoch(), s.next)
		return false
	}
	c.role.gap(c, s, gap{offset: offset, missed: to.missed, reset: !same})
	c.flushAnswers()
	return !c.closed && !c.blocked()
}

// leave remembers how far the subscription has been in the epoch that it leaves, and is where it goes on in another one: epochs of
// nodes that were out of reach come back.
func (s *subscription) leave(epoch string, offset uint64) uint64 {
	if len(s.been) == livesMax {
		s.been = slices.Delete(s.been, 0, 1)
	}
	s.been = append(s.been, life{s.epoch(), s.next - 1})
	return s.behind(epoch, offset)
}

// behind is the offset behind which it goes on in an epoch, if it has not been there.
func (s *subscription) behind(epoch string, offset uint64) uint64 {
	for _, b := range s.been {
		if b.epoch == epoch {
			offset = max(offset, b.head)
		}
	}
	return offset
}

// epoch is what the cursor's offsets are of.
func (s *subscription) epoch() string {
	if s.past != "" {
		return s.past
	}
	return s.mirror.topic.epoch
}
