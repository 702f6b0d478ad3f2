package engine

import (
	"fmt"
	"strconv"
	"time"

	"rayflux/protocol"
)

// homeOf is the loop that owns a topic.
func (l *loop) homeOf(hash uint64) *loop {
	if len(l.peers) == 1 {
		return l
	}
	// The high bits: the low ones index the topic's slot in other places of the house.
	return l.peers[(hash>>32)*uint64(len(l.peers))>>32]
}

// run takes an errand to its topic's home. On this loop it is done when run returns; elsewhere the answer comes by mail.
// A home loop that is too far behind is not asked: the answer is overloaded, and may overtake earlier ones.
func (l *loop) run(e *errand) {
	home := l.homeOf(e.hash)
	switch {
	case home == l:
		l.execute(e)
	case !l.crowded(home) || e.op == opUnsubscribe || e.op == opLeave || e.op == opRead || e.op >= opHandoff: // these free memory, or are bounded
		l.post(home, e)
	default:
		if e.err == nil {
			e.err = errCrowded(l.mailMax)
		}
		e.conn.answered(e)
	}
}

func errCrowded(limit int64) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeOverloaded, RetryAfter: 100 * time.Millisecond,
		Message: "an event loop is behind with mail, of which it may have " + strconv.FormatInt(limit, 10) + " bytes"}
}

// execute does an errand on the topic's home loop.
func (l *loop) execute(e *errand) {
	if l.up != nil {
		l.up.execute(e)
		return
	}
	if l.keeper != nil && len(l.keeper.begins) > 0 && l.keeper.behind(e) {
		return // nor may it be held: what it is to come after will be, if the topic has left by then
	}
	if l.estate == nil || l.estate.admits(e) {
		l.do(e)
	}
}

// do does an errand of a topic that lives here, or may be made here.
func (l *loop) do(e *errand) {
	if l.keeper != nil && len(l.keeper.begins) > 0 && l.keeper.behind(e) {
		return
	}
	switch e.op {
	case opPublish:
		l.publish(e)
	case opSubscribe:
		if t := l.topicOf(e); t != nil {
			if l.keeper != nil && l.keeper.recalls(t, e) {
				return
			}
			next, whole := t.resolve(l, e.from)
			l.attach(t, e, next, whole)
		}
		l.answer(e)
	case opUnsubscribe, opLeave:
		if l.detach(l.topics[string(e.name)], e); e.op == opUnsubscribe {
			l.answer(e)
		}
	case opRead:
		l.readOn(e)
	case opHistory:
		l.page(e)
	case opLocate:
		l.locate(e)
	case opFetch:
		l.fetch(e)
	case opRefuse:
		l.answer(e)
	case opHandoff:
		l.estate.receive(e)
	case opClaim:
		l.estate.claimed(e)
	case opSettled:
		l.estate.heardSettled(e)
	case opUnlinked:
		l.estate.unlinked(e.conn)
	}
}

// everywhere takes an errand to every loop.
func (l *loop) everywhere(e *errand) {
	for _, to := range l.peers {
		if to != l {
			l.post(to, e)
		}
	}
	l.do(e)
}

// topicOf finds a topic, making it if need be; nil with e.err set if it may not be made.
func (l *loop) topicOf(e *errand) *topic {
	t := l.topics[string(e.name)]
	if t == nil {
		t, e.err = l.newTopic(e.name)
	}
	return t
}

func (l *loop) publish(e *errand) {
	if e.stored || l.keeper != nil && l.keeper.sealed {
		l.publishKept(e)
		return
	}
	if t := l.topicOf(e); t != nil {
		l.accept(t, e)
	}
	if e.err != nil || e.hasID {
		l.answer(e)
	}
}

// accept takes a message.
func (l *loop) accept(t *topic, e *errand) {
	e.topic, e.epoch, e.offset = t, t.epoch, t.append(l, e.kind, e.payload)
	l.metrics.published.Add(1)
	l.soil(t)
}

// publishKept takes a message whose publisher waits for it to be stored.
func (l *loop) publishKept(e *errand) {
	var t *topic
	if e.err = l.mayAwait(); e.err == nil {
		t = l.topicOf(e)
	}
	if t != nil && !t.keeps {
		e.err = &protocol.Error{Code: protocol.CodeNotPersisted, Message: fmt.Sprintf("ack is stored, but topic %q is not one that is kept", t.name)}
	}
	if e.err == nil {
		l.accept(t, e)
		l.keeper.await(t, e)
	}
	if e.err != nil || e.phased {
		l.answer(e)
	}
}

// soil puts a topic on the list of those to seal at the next flush. A front that is a good part of the topic's limit
// does not wait for its time: trimming cannot touch it.
func (l *loop) soil(t *topic) {
	if !t.dirty {
		t.dirty = true
		l.dirty = append(l.dirty, t)
	}
	if len(t.newest.buf)-t.frontFrom > frontBytesMax {
		l.urgent = true
	}
}

// attach adds a subscription to its topic, and the subscriber's loop to those that get the topic's batches. next is the
// offset of the first message to come; whole says that nothing is missing of what was asked for.
func (l *loop) attach(t *topic, e *errand, next uint64, whole bool) {
	if t.feeds == nil {
		t.feeds = make([]feed, len(l.peers))
	}
	f := &t.feeds[e.conn.loop.index]
	f.stale = false                                               // a subscription begins behind what was withheld
	if m := e.sub.mirror; f.subs == 0 || m.born > f.mirror.born { // one that waited for the archive may come after a later one
		f.mirror = m
	}
	f.wants[e.sub.format]++
	f.subs++
	t.subs++
	e.sub.attached = t
	t.used = l.now
	e.topic, e.epoch, e.offset, e.head, e.start, e.whole = t, t.epoch, next-1, t.head, t.start, whole
}

// detach takes a subscription off its topic. One that was refused, which its connection did not know yet, is on none.
func (l *loop) detach(t *topic, e *errand) {
	was := e.sub.attached
	if was == nil {
		e.err = errNotSubscribed(e.name)
		return
	}
	e.sub.attached = nil
	if was.left {
		e.topic = was // it is another node's now, and took its readers off itself
		return
	}
	if t == nil {
		bug("a topic with subscribers was forgotten")
	}
	f := &t.feeds[e.conn.loop.index]
	f.wants[e.sub.format]--
	t.subs--
	t.used = l.now
	if f.subs--; f.subs == 0 {
		*f = feed{}
	}
	e.topic = t
}

// readOn renders the next messages for a lagging subscription of another loop.
func (l *loop) readOn(e *errand) {
	t := l.topics[string(e.name)]
	if was := e.sub.attached; was == nil || was.left {
		e.err = errFetch // its end is on its way to the reader
		l.answer(e)
		return
	}
	if t == nil {
		bug("a topic with subscribers was forgotten")
	}
	if epoch := t.beyond(e); epoch != "" {
		l.keeper.page(t, e, epoch, e.size)
		return
	}
	e.payload = l.readInto(t, e)
	t.feeds[e.conn.loop.index].stale = false // it may have all there is now, and must hear of what is withheld next
	l.answer(e)
}

// beyond is the epoch, if a cursor is to read from the archive; "": the log has what it wants.
func (t *topic) beyond(e *errand) string {
	switch {
	case e.past != "":
		return e.past
	case t.keeps && e.deep && e.offset < t.start:
		return t.epoch
	}
	return ""
}

// readInto reads for a lagging subscription from e.offset on; the bytes are the loop's scratch, good until its next use.
func (l *loop) readInto(t *topic, e *errand) []byte {
	from := e.offset
	e.head, e.start, e.topic = t.head, t.start, t
	if from < t.start {
		e.offset = from - 1
		return nil // the subscriber's loop decides, by its policy, where to go on
	}
	var data []byte
	data, e.offset = t.read(l.scratch[:0], e.sub.format, from, readBytesMax)
	l.scratch = data[:0]
	return data
}
