package bench

import "golang.org/x/sys/unix"

// publisher sends the publishes of one connection. Owned by the generator's thread.
type publisher struct {
	conn  *conn
	lanes []publisherLane // in rotation

	// ring is a run of encoded publishes, frame i in lane i modulo len(lanes). A frame is stamped when its publish is due
	// and may be stamped again once the kernel has taken it.
	ring    []byte
	cursor  int // frame to stamp next
	sendAt  int // first byte stamped that the kernel has not taken
	sendEnd int // end of the stamped bytes

	outstanding int64 // deliveries of its publishes that have not arrived
	fanoutMax   int64 // most subscribers of any of its lanes
	published   uint64
	due         int64   // open loop: when the next publish is due
	answers     int     // HTTP: requests sent and not answered
	asked       []int64 // HTTP: a ring of when those were due, which are answered in their order
	askedFirst  int     // in asked, of the oldest
	blocked     bool    // the kernel took less than all: waiting for EPOLLOUT
	pong        []byte
}

// publisherLane is a publisher's side of a lane.
type publisherLane struct {
	lane   uint32
	seq    uint64 // the next publish's number
	fanout int64  // subscribers alive
}

// ringBytesMax bounds a publisher's ring: all rings together should stay in the processor's second-level cache.
const ringBytesMax = 64 << 10

// prepare encodes the ring. InFlight bounds it from above, because no more is ever stamped at once.
func (p *publisher) prepare(g *generator) {
	frame, stampAt := publishFrame(g.s, g.inlet.text, g.topics[0])
	frames := max(1, min(g.s.InFlight, ringBytesMax/len(frame)))
	frames = (frames + len(p.lanes) - 1) / len(p.lanes) * len(p.lanes)
	p.ring = make([]byte, 0, frames*len(frame))
	for i := range frames {
		topic := g.topics[g.lanes[p.lanes[i%len(p.lanes)].lane].topic]
		frame, _ := publishFrame(g.s, g.inlet.text, topic)
		p.ring = append(p.ring, frame...)
	}
	g.frameBytes, g.stampAt = len(frame), stampAt
	if g.s.Publish == PublishHTTP {
		p.asked = make([]int64, g.s.Pipeline)
	}
}

// pending reports whether stamped bytes wait for the kernel.
func (p *publisher) pending() bool { return p.sendAt < p.sendEnd }

// stampOne makes one publish of the ring's next frame; false when the ring has no frame the kernel has taken.
func (g *generator) stampOne(p *publisher, due int64) bool {
	at := p.cursor * g.frameBytes
	if at == len(p.ring) {
		if p.pending() {
			return false
		}
		p.cursor, p.sendAt, p.sendEnd, at = 0, 0, 0, 0
	}
	l := &p.lanes[p.cursor%len(p.lanes)]
	g.form.put(p.ring[at+g.stampAt:], stamp{due: due, seq: l.seq, origin: originOf(g.run, l.lane)})
	l.seq++
	p.outstanding += l.fanout
	p.published++
	p.cursor++
	p.sendEnd = at + g.frameBytes
	return true
}

// publish lets every publisher send what it may. It returns how long the generator may sleep.
func (g *generator) publish(now int64) (idle int64) {
	idle = int64(waitMax)
	for i := range g.publishers {
		p := &g.publishers[i]
		if p.conn.phase != phaseLive || p.blocked {
			continue
		}
		switch {
		case g.s.Publish == PublishHTTP:
			g.publishHTTP(p, now)
		case g.s.Rate > 0:
			for p.due <= now && g.stampOne(p, p.due) {
				g.lag(now, p.due)
				p.due += g.dueEvery
			}
		default:
			g.refill(p, now)
		}
		if p.pending() {
			g.flush(p)
		}
		if g.s.Rate > 0 && !p.blocked && p.answers < g.s.Pipeline {
			idle = min(idle, p.due-now)
		}
	}
	return idle
}

// refill brings a closed loop's window back to InFlight once half of it is free: a publish at a time would cost both
// sides a system call each.
func (g *generator) refill(p *publisher, now int64) {
	room := g.s.InFlight - int((p.outstanding+p.fanoutMax-1)/p.fanoutMax)
	if room < (g.s.InFlight+1)/2 {
		return
	}
	for ; room > 0; room-- {
		if !g.stampOne(p, now) {
			// The ring's end: send what is stamped and go on at its front.
			g.flush(p)
			if p.blocked || !g.stampOne(p, now) {
				return
			}
		}
	}
}

// publishHTTP sends requests up to the pipeline's depth.
func (g *generator) publishHTTP(p *publisher, now int64) {
	for p.answers < g.s.Pipeline {
		due := now
		if g.s.Rate > 0 {
			if due = p.due; due > now {
				return
			}
		} else if p.outstanding > int64(g.s.InFlight-1)*p.fanoutMax {
			return
		}
		if !g.stampOne(p, due) {
			return
		}
		if g.s.Rate > 0 {
			g.lag(now, due)
			p.due += g.dueEvery
		}
		p.asked[(p.askedFirst+p.answers)%len(p.asked)] = due
		p.answers++
	}
}

// flush gives the kernel the stamped bytes.
func (g *generator) flush(p *publisher) {
	for p.pending() {
		n, err := write(p.conn.fd, p.ring[p.sendAt:p.sendEnd])
		if err == unix.EAGAIN {
			g.block(p, true)
			return
		}
		if err != 0 {
			g.fail(p.conn, "publish: "+err.Error())
			return
		}
		p.sendAt += n
	}
	g.block(p, false)
	if p.pong != nil {
		g.send(p.conn, p.pong)
		p.pong = nil
	}
}

// block starts or ends waiting for the kernel to take more.
func (g *generator) block(p *publisher, blocked bool) {
	if p.blocked == blocked {
		return
	}
	p.blocked = blocked
	events := uint32(unix.EPOLLIN)
	if blocked {
		events |= unix.EPOLLOUT
	}
	if err := g.poller.watch(unix.EPOLL_CTL_MOD, p.conn.fd, events); err != nil {
		g.fail(p.conn, "epoll: "+err.Error())
	}
}

// takeResponses reads the answers to HTTP publishes and returns the bytes used.
func (g *generator) takeResponses(c *conn, b []byte) int {
	used := 0
	for used < len(b) {
		status, body, n, err := takeResponse(b[used:])
		if err != nil {
			g.trouble.add(incidentError, err.Error())
			g.fail(c, "left after a broken response")
			return len(b)
		}
		if n == 0 {
			break
		}
		used += n
		g.answered(c.publisher)
		if status != 200 {
			g.refused(status, body)
		}
	}
	return used
}

// answered takes the oldest request for answered, and enters how long that took.
func (g *generator) answered(p *publisher) {
	if p.answers == 0 {
		g.fail(p.conn, "answered what was not asked")
		return
	}
	due := p.asked[p.askedFirst]
	p.askedFirst = (p.askedFirst + 1) % len(p.asked)
	p.answers--
	if due >= g.windowFrom && due < g.windowTo {
		_ = g.answer.RecordValue(g.readAt - due) // past latencyMax it is in the latency too
	}
}
