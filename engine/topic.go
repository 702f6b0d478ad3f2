package engine

import (
	"fmt"
	"time"

	"rayflux/protocol"
)

// topicCost is what the log budget is charged for a topic besides its chunks: the struct, its name, its map entry.
const topicCost = 368

// topic is the log of one topic and the list of loops that want its batches. Owned by its home loop; name, epoch, slow,
// keeps, follow and recalls never change once the topic is shared, and may be read by any loop that was handed a pointer.
type topic struct {
	name  string
	epoch string
	slow  SlowPolicy

	head  uint64 // offset of the newest message taken; 0: none yet
	start uint64 // offset of the oldest message kept; head+1: none
	gone  uint64 // no message before this one can be had: the log has had it, and dropped it

	surveyed uint64 // head at the last survey, or with which the topic came here; beside head, as a walk reads both

	oldest, newest *chunk
	bytes          int64 // cost of the chunks above
	bytesMax       int64
	ageMax         int64 // milliseconds

	frontFrom  int    // the front is newest.buf[frontFrom:]: taken, not yet sealed
	frontCount uint32 // messages in it
	frontTaken int64  // loop clock when its oldest message was taken

	feeds []feed // by loop; nil until somebody subscribes
	subs  int    // subscriptions of all loops

	used   int64   // loop clock of the last publish, subscription or end of one
	follow *follow // in a balancer: where its messages come from

	recalls bool   // in a balancer: its owner can be asked for earlier epochs
	known   uint64 // in a balancer: up to where readers had been in its epoch before it began here

	moving *transfer // being handed over to another node: nothing is accepted
	left   bool      // it is another node's now
	index  int32     // in estate.topics, in a node of a cluster

	began   int64  // Unix milliseconds: when the epoch began
	keeps   bool   // the archive is to have its messages
	unsaved bool   // on the keeper's list of those with new ones
	offered uint64 // what the archive was offered
	stored  uint64 // what it has
	waits   waits  // for that

	owed      uint64 // messages up to this one may yet be stored, by the node that the topic came from,
	owedUntil int64  // loop clock: until then

	timer timer // ages the log, then forgets the topic
	dirty bool  // on the loop's list of topics to seal
}

// feed is what the home loop knows of one loop's subscribers.
type feed struct {
	mirror *mirror // that loop's; only ever handed back to it
	wants  [protocol.NumFormats]int32
	subs   int32
	stale  bool // batches were withheld, as the loop is too far behind, and it was told
}

// newTopic makes a topic at home on l, or says why not.
func (l *loop) newTopic(name []byte) (*topic, *protocol.Error) {
	var t *topic
	if l.keeper != nil {
		t = l.keeper.wake(name)
	} else {
		t = l.blankTopic(name, l.newEpoch(), 0)
	}
	if err := l.enter(t); err != nil {
		if l.keeper != nil {
			l.keeper.rest(t)
		}
		return nil, err
	}
	if l.up != nil {
		l.up.newFollow(t)
		return t, nil
	}
	l.wheel.start(&t.timer, l.now+t.ageMax*int64(time.Millisecond))
	return t, nil
}

// blankTopic is a topic that is not at home here yet, with nothing in its log after a head.
func (l *loop) blankTopic(name []byte, epoch string, head uint64) *topic {
	t := &topic{name: string(name), epoch: epoch, head: head, start: head + 1, gone: head + 1, used: l.now}
	slow, bytes, age := l.cfg.limitsOf(t.name)
	t.slow, t.bytesMax, t.ageMax = slow, int64(bytes), age.Milliseconds()
	t.keeps, t.began = l.keeper != nil && l.cfg.keeps(t.name), l.logMs()+l.skew
	t.timer.owner = t
	return t
}

// enter makes l a topic's home, or says why not.
func (l *loop) enter(t *topic) *protocol.Error {
	if n := l.shared.topics.Add(1); n > int64(l.cfg.MaxTopics) {
		l.shared.topics.Add(-1)
		return &protocol.Error{Code: protocol.CodeTooManyTopics,
			Message: fmt.Sprintf("this server has %d topics, its limit", l.cfg.MaxTopics), RetryAfter: time.Second}
	}
	l.topics[t.name] = t
	l.topicBytes += topicCost
	if s := l.estate; s != nil {
		t.index = int32(len(s.topics))
		s.topics = append(s.topics, t)
	}
	return nil
}

// newEpoch names a life of a topic's numbering: 48 random bits as 8 letters. Two lives of one topic meet the same name
// once in 2.8e14 times.
func (l *loop) newEpoch() string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
	var e [8]byte
	bits := l.rand.Uint64()
	for i := range e {
		e[i] = letters[bits&63]
		bits >>= 6
	}
	return string(e[:])
}

// append takes a message: encodes it once, in its final binary form, at the end of the log, and returns its offset.
// The caller marks the topic dirty.
func (t *topic) append(l *loop, kind protocol.Kind, payload []byte) uint64 {
	offset := t.head + 1
	c := t.room(l, protocol.BinaryMessageSize(len(t.name), offset, len(payload)))
	c.buf = protocol.AppendMessage(c.buf, protocol.FormatBinary, t.name, offset, kind, payload)
	t.took(l, c)
	t.used = l.now
	return offset
}

// appendFrame takes the message at head+1 as its owner encoded it: frame is the whole binary frame, copied as it is.
func (t *topic) appendFrame(l *loop, frame []byte) {
	c := t.room(l, len(frame))
	c.buf = append(c.buf, frame...)
	t.took(l, c)
}

// appendOld takes n messages from head+1 on, as another node's log has them, which were taken at ms, in milliseconds of the
// log's time. Nobody is subscribed yet.
func (t *topic) appendOld(l *loop, frames []byte, n uint64, ms int64) {
	c := t.newest
	if c == nil || c.room() < len(frames) || ms-c.base > t.ageMax/4 || !c.stamp(ms) {
		c = t.grow(l, len(frames))
		c.stamp(ms)
	}
	c.buf = append(c.buf, frames...)
	c.count += uint32(n)
	t.head += n
	t.frontFrom = len(c.buf)
	l.chunks.touch(c)
}

// clear takes everything out of the log. Nothing of it may be in the front.
func (t *topic) clear(l *loop) {
	for t.oldest != nil {
		t.drop(l)
	}
}

// room is the chunk that takes the next message, of need bytes.
func (t *topic) room(l *loop, need int) *chunk {
	c, ms := t.newest, l.logMs()
	if c == nil || c.room() < need || ms-c.base > t.ageMax/4 || !c.stamp(ms) {
		c = t.grow(l, need)
		c.stamp(ms)
	}
	return c
}

// took counts the message that was just appended to c.
func (t *topic) took(l *loop, c *chunk) {
	c.count++
	t.head++
	if t.frontCount == 0 {
		t.frontTaken = l.now
		l.chunks.touch(c)
	}
	t.frontCount++
}

// grow ends the newest chunk and starts another: twice as large as what the last one held, up to a sixteenth of the
// topic's limit or 32 KiB, so that trimming is fine-grained and quiet topics stay small.
func (t *topic) grow(l *loop, need int) *chunk {
	size := need
	if old := t.newest; old != nil {
		t.seal(l)
		size = max(need, min(2*len(old.buf), chunkBytesMax, int(max(t.bytesMax/16, min(t.bytesMax/4, 32<<10)))))
	}
	c := l.chunks.get(size, t, t.head+1)
	if t.newest != nil {
		t.newest.next = c
	} else {
		t.oldest, t.start = c, c.first
	}
	t.newest = c
	t.frontFrom = 0
	t.bytes += c.cost()
	for t.bytes > t.bytesMax && t.oldest != c {
		t.drop(l)
	}
	l.evict()
	return c
}

// seal turns the front into a batch for the loops that subscribed, and begins a new front.
func (t *topic) seal(l *loop) {
	if t.frontCount == 0 {
		return
	}
	c, from, count := t.newest, t.frontFrom, t.frontCount
	t.frontFrom, t.frontCount = len(c.buf), 0
	l.metrics.flushMessages.observe(float64(count))
	if t.keeps {
		l.keeper.note(t, len(c.buf)-from)
	}
	if t.subs == 0 {
		return
	}
	b := l.batches.get()
	b.home, b.chunk, b.first, b.count, b.taken = l, c, c.after()-uint64(count), count, t.frontTaken
	b.start = t.gone
	b.views[protocol.FormatBinary] = c.buf[from:len(c.buf):len(c.buf)]
	c.inflight++
	for f := protocol.FormatBinary + 1; f < protocol.NumFormats; f++ {
		for i := range t.feeds {
			if t.feeds[i].wants[f] > 0 {
				b.render(f, t.name)
				l.viewBytes += int64(cap(b.views[f]))
				break
			}
		}
	}
	l.sealed = append(l.sealed, sealed{t, b})
}

// drop takes the oldest chunk out of the log. Never the front's.
func (t *topic) drop(l *loop) {
	c := t.oldest
	if t.keeps && t.offered+1 < c.after() {
		l.keeper.take(t)
	}
	t.oldest, t.start = c.next, c.after()
	t.gone = t.start
	if t.oldest == nil {
		t.newest = nil
	}
	t.bytes -= c.cost()
	c.next = nil
	c.dead = true
	l.chunks.unlink(c)
	l.chunks.dying += c.cost()
	if c.inflight == 0 {
		l.chunks.put(c)
	}
}

// evict drops the least recently written chunks of any topic until the logs of this loop fit its share of log-memory.
func (l *loop) evict() {
	for l.logBytes()-l.chunks.dying > l.logMax {
		c := l.chunks.oldest
		if c == nil || (c == c.topic.newest && (c.topic.frontCount > 0 || c == l.chunks.newest)) {
			return
		}
		if c != c.topic.oldest {
			bug("the least recently written chunk is not its topic's oldest")
		}
		c.topic.drop(l)
	}
}

// logBytes is what this loop's logs, views and topics hold now.
func (l *loop) logBytes() int64 { return l.chunks.used + l.viewBytes + l.topicBytes }

// expire ages the log; a topic without messages and subscribers, and unused for as long as a message may live, is
// forgotten, and its epoch with it.
func (t *topic) expire(l *loop) {
	limit := l.logMs() - t.ageMax
	for t.oldest != nil && t.oldest.last <= limit && t.frontCount == 0 {
		t.drop(l)
	}
	if t.follow != nil {
		l.up.expireTopic(t)
		return
	}
	age := t.ageMax * int64(time.Millisecond)
	switch {
	case t.oldest != nil:
		l.wheel.start(&t.timer, l.now+max((t.oldest.last-limit)*int64(time.Millisecond), int64(100*time.Millisecond)))
	case t.subs == 0 && l.now-t.used >= age && t.moving == nil:
		if t.keeps {
			l.keeper.rest(t)
		}
		l.forget(t)
	default:
		l.wheel.start(&t.timer, max(t.used, l.now-age/2)+age)
	}
}

// forget ends a topic that has no messages, readers or commands.
func (l *loop) forget(t *topic) {
	delete(l.topics, t.name)
	l.topicBytes -= topicCost
	if s := l.estate; s != nil {
		last := s.topics[len(s.topics)-1]
		s.topics[t.index], last.index = last, t.index
		s.topics[len(s.topics)-1] = nil
		s.topics = s.topics[:len(s.topics)-1]
	}
	l.shared.topics.Add(-1)
}

// read appends to dst, in the given format, the messages from offset from on (which must not be before start), whole,
// until max bytes are reached; at least one if there is one. last is the offset of the last one read, from-1 if none.
func (t *topic) read(dst []byte, f protocol.Format, from uint64, maxBytes int) (out []byte, last uint64) {
	t.walk(from, func(_ *chunk, offset uint64, kind protocol.Kind, payload, frame []byte) bool {
		if last != 0 && len(dst)+len(frame) > maxBytes {
			return false
		}
		if f == protocol.FormatBinary {
			dst = append(dst, frame...)
		} else {
			dst = protocol.AppendMessage(dst, f, t.name, offset, kind, payload)
		}
		last = offset
		return len(dst) < maxBytes
	})
	if last == 0 {
		last = from - 1
	}
	return dst, last
}

// walk visits the messages from offset from on, in order, until visit says no. Slices are valid during the visit.
func (t *topic) walk(from uint64, visit func(c *chunk, offset uint64, kind protocol.Kind, payload, frame []byte) bool) {
	for c := t.oldest; c != nil; c = c.next {
		if c.after() <= from {
			continue
		}
		for b := c.buf; len(b) > 0; {
			offset, kind, payload, n := protocol.NextBinaryMessage(b)
			if offset >= from && !visit(c, offset, kind, payload, b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// resolve finds where a subscription or a history request begins: the offset of the first message to come, and whether
// that is whole, that is, all that was asked for is still there.
func (t *topic) resolve(l *loop, f protocol.From) (next uint64, whole bool) {
	switch f.Mode {
	case protocol.FromPosition:
		if string(f.Epoch) != t.epoch || f.Offset > t.head || f.Offset+1 < t.start {
			return t.head + 1, false
		}
		return f.Offset + 1, true
	case protocol.FromEarliest:
		return t.start, t.start == 1
	case protocol.FromLast:
		if f.Last >= t.head {
			return t.start, t.start == 1
		}
		next = t.head - f.Last + 1
		return max(next, t.start), next >= t.start
	case protocol.FromSince:
		return t.since(f.Since - l.skew)
	}
	return t.head + 1, false
}

// since is the first message taken at or after a millisecond of the log's time. It is whole if an older one is still there, or none
// was ever dropped.
func (t *topic) since(ms int64) (next uint64, whole bool) {
	whole = t.start == 1 || (t.oldest != nil && t.oldest.base < ms)
	for c := t.oldest; c != nil; c = c.next {
		if c.last >= ms {
			return c.first + uint64(c.since(ms)), whole
		}
	}
	return t.head + 1, whole
}
