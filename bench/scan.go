package bench

import (
	"encoding/binary"

	"rayflux/protocol"
)

// The hot path: stepping over the frames of one read. scan takes whole frames from the front of b, hands what is not an
// ordinary message of at most 64 KiB to takeFrame, and returns the bytes it used; the rest is the start of a frame still
// to come.

// burst gathers neighbouring messages with the same due time into one histogram entry: a closed loop stamps hundreds of
// publishes with one time, and recording each would cost more than reading it.
type burst struct {
	due   int64
	count int64
}

// scan reads the frames of a connection that is past its handshake.
func (g *generator) scan(c *conn, b []byte) int {
	ordinary := frameBinaryFinal
	if c.wire == WireJSON {
		ordinary = frameTextFinal
	}
	var run burst
	used := 0
	for {
		rest := b[used:]
		if len(rest) < 4 || rest[0] != ordinary || rest[1] > frameLengthOf16 {
			n := g.takeFrame(c, rest)
			if n == 0 {
				break
			}
			used += n
			continue
		}
		head, length := 2, int(rest[1])
		if length == frameLengthOf16 {
			head, length = 4, int(binary.BigEndian.Uint16(rest[2:]))
		}
		if len(rest) < head+length {
			break
		}
		used += head + length
		g.takeMessage(c, protocol.Opcode(ordinary&0xf), rest[head:head+length], &run)
	}
	g.record(run)
	return used
}

// takeMessage accounts for one whole message in the form the connection reads.
func (g *generator) takeMessage(c *conn, op protocol.Opcode, message []byte, run *burst) {
	switch {
	case c.wire == WireBinary && op == protocol.OpBinary:
		if g.takeBinary(c, message, run) {
			return
		}
	case c.wire == WireClassic && op == protocol.OpBinary:
		g.takePayload(c, message, run)
		return
	case c.wire == WireJSON && op == protocol.OpText:
		if g.takeJSON(c, message, run) {
			return
		}
	}
	g.takeEvent(c, op, message)
}

// takeBinary accounts for one message of rayflux.v1.bin (type, str8 topic, varint offset, byte kind, payload); false if it
// is another event.
func (g *generator) takeBinary(c *conn, message []byte, run *burst) bool {
	if len(message) < 3 || message[0] != messageType {
		return false
	}
	at := 2 + int(message[1])
	if at >= len(message) {
		return false
	}
	topic := message[2:at]
	offset := uint64(message[at])
	at++
	if offset >= 0x80 {
		var n int
		if offset, n = binary.Uvarint(message[at-1:]); n <= 0 {
			return false
		}
		at += n - 1
	}
	at++ // the kind: a stamp that reads right leaves no doubt about it
	if len(message) < at+g.stampBytes {
		g.tally.foreign++
		return true
	}
	var s stamp
	if g.form == stampBinary {
		s = getBinary(message[at:])
	} else {
		s = getText(message[at:])
	}
	if slot := g.takeStamp(c, s, run); slot >= 0 {
		if string(topic) != g.topics[g.lanes[s.lane].topic] {
			g.tally.foreign++
		}
		if o := &c.offsets[slot]; o.next == offset {
			o.next++
		} else {
			o.take(&g.tally, offset)
		}
	}
	return true
}

// takePayload accounts for a payload that came without topic or offset; it returns the topic's slot, -1 for a payload
// that is not ours.
func (g *generator) takePayload(c *conn, payload []byte, run *burst) int {
	if len(payload) < g.stampBytes {
		g.tally.foreign++
		return -1
	}
	if g.form == stampBinary {
		return g.takeStamp(c, getBinary(payload), run)
	}
	return g.takeStamp(c, getText(payload), run)
}

// takeStamp accounts for one delivery. It returns the slot of its topic among those of the connection, -1 if the message
// was not for it.
func (g *generator) takeStamp(c *conn, s stamp, run *burst) int {
	if s.run != g.run || int(s.lane) >= len(g.lanes) || len(c.places) == 0 {
		g.tally.foreign++
		return -1
	}
	l := &g.lanes[s.lane]
	slot := int(l.topic - c.first)
	if slot < 0 {
		slot += len(g.topics)
	}
	if slot >= len(c.offsets) {
		g.tally.foreign++
		return -1
	}
	place := &c.places[slot*g.lanesPerTopic+int(l.ordinal)]
	if s.seq == place.next {
		place.next++
		place.seen = place.seen<<1 | 1
		g.tally.delivered++
		g.publishers[l.publisher].outstanding--
	} else {
		g.publishers[l.publisher].outstanding -= g.tally.outOfStep(place, s.seq)
	}
	if s.due != run.due {
		g.record(*run)
		*run = burst{due: s.due}
	}
	run.count++
	return slot
}

// record enters the latency of a burst, if it was due in the measured window: by due time and not by arrival, so that
// what an overloaded server delivers late is in.
func (g *generator) record(run burst) {
	if run.count == 0 || run.due < g.windowFrom || run.due >= g.windowTo {
		return
	}
	wait := g.readAt - run.due
	if wait > int64(latencyMax) {
		g.latencyOver += uint64(run.count)
		return
	}
	_ = g.latency.RecordValues(wait, run.count) // fails, and allocates to say so, only past the limit
}
