package engine

import (
	"time"

	"rayflux/protocol"
)

const (
	writeBytesMax = 64 << 10 // one write call; it runs with the processor held
	writeRanges   = 64       // buffers of one gathering write
	readBytesMax  = 64 << 10 // one turn of a lagging subscription
	frontBytesMax = 128 << 10
	pendingsMax   = 64 << 10 // ranges of one pass; mail of many batches takes several
)

// pending is a byte range for one subscriber: the part of a batch's view from from on. The ranges of one connection are
// chained in the order in which they are to be written.
type pending struct {
	sub   *subscription
	batch *batch
	from  int32
	next  int32 // index of the connection's next range; 0: none
	count uint32
}

func (p *pending) view() []byte  { return p.batch.views[p.sub.format] }
func (p *pending) first() uint64 { return p.batch.first + uint64(p.batch.count-p.count) }

type sealed struct {
	topic *topic
	batch *batch
}

// pend notes a range for a subscriber's connection.
func (l *loop) pend(s *subscription, b *batch, from int32, count uint32) {
	i := int32(len(l.pendings))
	l.pendings = append(l.pendings, pending{sub: s, batch: b, from: from, count: count})
	c := s.conn
	if c.firstPending == 0 {
		c.firstPending = i
		l.dirtyConns = append(l.dirtyConns, c)
	} else {
		l.pendings[c.lastPending].next = i
	}
	c.lastPending = i
}

// flush seals what was published since the last flush, hands it to the loops that subscribed, and writes to this loop's
// subscribers all they have pending, connection by connection.
func (l *loop) flush() {
	began := l.clock()
	l.urgent = false
	for _, t := range l.dirty {
		t.dirty = false
		t.seal(l)
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]
	for _, s := range l.sealed {
		l.handOver(s.topic, s.batch)
	}
	clear(l.sealed)
	l.sealed = l.sealed[:0]
	l.dispatch() // before the writes, so that the other loops' passes run beside this one's

	l.pushPending()
	l.finishPass()
	l.tally.count(&l.metrics)
	l.tally = tally{}
	l.flushed, l.passTook = l.now, l.now-began
	l.evict() // views and late batches weigh on the logs' pool
}

// finishPass lets go of the batches that pushPending has written.
func (l *loop) finishPass() {
	l.now = l.clock()
	for i, b := range l.inPass {
		l.metrics.publishToWrite.observe(time.Duration(l.now - b.taken).Seconds())
		l.release(b)
		l.inPass[i] = nil
	}
	l.inPass = l.inPass[:0]
}

// pushPending writes every connection's pending ranges.
func (l *loop) pushPending() {
	for _, c := range l.dirtyConns {
		l.push(c)
	}
	clear(l.dirtyConns)
	l.dirtyConns = l.dirtyConns[:0]
	clear(l.pendings)
	l.pendings = l.pendings[:1]
}

// handOver gives a batch to each loop that has subscribers of its topic. A loop that is far behind with its mail gets
// none: its subscribers read the log in their own time, which holds no batch.
func (l *loop) handOver(t *topic, b *batch) {
	refs := int32(1) // ours, so that nobody else can be the last before we are through
	cost := b.bytes()
	b.refs.Store(refs + int32(len(t.feeds)))
	unused := int32(1)
	for i := range t.feeds {
		f := &t.feeds[i]
		switch to := l.peers[i]; {
		case f.subs == 0:
			unused++
		case to == l:
			f.mirror.deliver(l, b)
		case l.crowded(to):
			unused++
			if !f.stale {
				f.stale = true
				_, m := l.letter(to, mailStale, 0, 0)
				m.mirror = f.mirror
			}
		default:
			f.stale = false
			_, m := l.letter(to, mailBatch, 0, cost)
			m.mirror, m.batch = f.mirror, b
		}
	}
	if b.refs.Add(-unused) == 0 {
		l.recycle(b)
	}
}

// tally counts a pass; the shared counters are touched once at its end.
type tally struct {
	delivered, bytes, writes uint64
}

func (p *tally) count(m *metrics) {
	m.delivered.Add(p.delivered)
	m.sentBytes.Add(p.bytes)
	m.writes.Add(p.writes)
}

// push writes a connection's pending ranges, as few calls as possible. What the kernel refuses stays with the cursors.
func (l *loop) push(c *conn) {
	at := c.firstPending
	c.firstPending, c.lastPending = 0, 0
	if c.closed {
		return
	}
	if !c.out.empty() {
		c.flushAnswers()
	}
	if c.closed || c.blocked() {
		l.lagFrom(c, at, -1)
		return
	}
	off := int(l.pendings[at].from)
	for at != 0 {
		bufs, size, last := l.gather(c, at, off)
		if size == 0 {
			return
		}
		n, err := c.write(bufs)
		if err != nil {
			c.abort(protocol.ReasonPeerReset)
			return
		}
		at, off = l.advance(at, off, n)
		switch {
		case n == size:
		case at == 0: // only the trailer was cut
			trailer := bufs[len(bufs)-1]
			c.keepTail(trailer[len(trailer)-(size-n):])
			l.block(c)
			return
		default:
			l.lagFrom(c, at, off)
			return
		}
		if last {
			return
		}
	}
}

// gather collects what one call may write, beginning at byte off of the view of range at; last says that nothing is left
// behind it.
func (l *loop) gather(c *conn, at int32, off int) (bufs [][]byte, size int, last bool) {
	bufs = l.bufs[:0]
	for at != 0 && len(bufs) < writeRanges && size < writeBytesMax {
		p := &l.pendings[at]
		if p.sub.state == subLive {
			b := p.view()[off:]
			b = b[:min(len(b), writeBytesMax-size)]
			bufs = append(bufs, b)
			size += len(b)
			if off+len(b) < len(p.view()) {
				return bufs, size, false
			}
		}
		if at = p.next; at != 0 {
			off = int(l.pendings[at].from)
		}
	}
	if at == 0 {
		last = true
		if c.trailed && size > 0 {
			l.trailer = c.role.(trailer).appendTrailer(c, l.trailer[:0])
			bufs = append(bufs, l.trailer)
			size += len(l.trailer)
		}
	}
	return bufs, size, last
}

// trailer is a role whose connection gets a block of its own after each write of shared bytes.
type trailer interface {
	appendTrailer(c *conn, dst []byte) []byte
}

// keepTrailer puts the trailer behind the rest of a message that is half out: that may be the last for a long time.
func (c *conn) keepTrailer() {
	if c.trailed && !c.closed {
		l := c.loop
		l.trailer = c.role.(trailer).appendTrailer(c, l.trailer[:0])
		c.keepTail(l.trailer)
	}
}

// advance moves past n written bytes, counting the ranges that are through. It stops at the first range that is not.
func (l *loop) advance(at int32, off, n int) (int32, int) {
	for at != 0 {
		p := &l.pendings[at]
		if p.sub.state == subLive {
			rest := len(p.view()) - off
			if n < rest {
				return at, off + n
			}
			n -= rest
			l.tally.delivered += uint64(p.count)
		}
		if at = p.next; at != 0 {
			off = int(l.pendings[at].from)
		}
	}
	return 0, 0
}

// lagFrom takes a connection out of the live stream: the kernel would not take the range at beyond byte off of its view
// (off < 0: nothing was tried). Cursors stop where they are; of a message that is half out, the rest is copied.
func (l *loop) lagFrom(c *conn, at int32, off int) {
	torn := false
	for ; at != 0; at = l.pendings[at].next {
		p := &l.pendings[at]
		s := p.sub
		if s.state != subLive {
			continue // ended, or lagging since an earlier range of this pass
		}
		next := p.first()
		if off >= 0 {
			view, pos := p.view(), int(p.from)
			// One message at least: where the kernel is full at a border the next one is kept whole, so that trying
			// again needs no look into the log.
			for pos < off || (pos == off && !torn) {
				unit := protocol.NextUnit(view[pos:], s.format)
				if pos+unit > off {
					torn = true
					c.keepTail(view[off : pos+unit])
					if c.closed {
						return
					}
				}
				pos += unit
				next++
				l.tally.delivered++
			}
			off = -1
		}
		s.mirror.remove(s)
		s.next = next
		l.lag(s)
	}
	if torn {
		c.keepTrailer()
	}
	l.block(c)
}
