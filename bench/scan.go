package bench

import (
	"encoding/binary"

	"rayflux/protocol"
)

// The hot path: stepping over the frames of one read.

// streak is a row of messages that differ from each other only by being the next: of one lane, due at one time, numbered
// without a hole. A closed loop makes streaks of hundreds, so the books are written once per streak, not per message.
type streak struct {
	expected stamp  // of the next message; its origin is 0 before the first, and no lane's
	offset   uint64 // of the next message, on wires that carry it
	topic    string
	count    int64 // messages not yet in the books
	slot     int   // of the topic among the connection's
}

// scan takes whole frames from the front of b, hands what is not an ordinary message of at most 64 KiB to takeFrame, and
// returns the bytes it used; the rest is the start of a frame still to come.
func (g *generator) scan(c *conn, b []byte) int {
	ordinary := byte(frameBinaryFinal)
	if c.wire == WireJSON {
		ordinary = frameTextFinal
	}
	var row streak
	used := 0
	for {
		rest := b[used:]
		if len(rest) < 4 || rest[0] != ordinary || rest[1] > frameLengthOf16 {
			g.settle(c, &row)
			n := g.takeFrame(c, rest)
			if n == 0 {
				return used
			}
			used += n
			continue
		}
		head, length := 2, int(rest[1])
		if length == frameLengthOf16 {
			head, length = 4, int(binary.BigEndian.Uint16(rest[2:]))
		}
		if len(rest) < head+length {
			g.settle(c, &row)
			return used
		}
		used += head + length
		if message := rest[head : head+length]; !g.takeMessage(c, message, &row) {
			g.settle(c, &row)
			g.takeEvent(c, protocol.Opcode(ordinary&0xf), message)
		}
	}
}

// takeMessage accounts for one message in the form the connection reads; false if it is another event.
func (g *generator) takeMessage(c *conn, message []byte, row *streak) bool {
	switch c.wire {
	case WireBinary:
		return g.takeBinary(c, message, row)
	case WireJSON:
		return g.takeJSON(c, message, row)
	case WireNATS:
		g.takeNATS(c, message, row)
		return true
	}
	if len(message) < g.stampBytes {
		g.tally.foreign++
		return true
	}
	if s := g.form.get(message); s == row.expected {
		row.count++
		row.expected.seq++
	} else {
		g.startStreak(c, s, row)
	}
	return true
}

// takeBinary accounts for a message of rayflux.v1.bin: type, str8 topic, varint offset, byte kind, payload.
func (g *generator) takeBinary(c *conn, message []byte, row *streak) bool {
	if len(message) < 3 || message[0] != messageType {
		return false
	}
	at := 2 + int(message[1])
	if at+2 >= len(message) {
		return false
	}
	topic := message[2:at]
	offset, size := uint64(message[at]), 1
	if offset >= 0x80 {
		if third := uint64(message[at+2]); message[at+1] < 0x80 {
			offset, size = offset&0x7f|uint64(message[at+1])<<7, 2
		} else if third < 0x80 {
			offset, size = offset&0x7f|uint64(message[at+1]&0x7f)<<7|third<<14, 3
		} else if offset, size = binary.Uvarint(message[at:]); size <= 0 {
			return false
		}
	}
	at += size + 1 // past the kind, too: a stamp that reads right leaves no doubt about it
	if len(message) < at+g.stampBytes {
		g.tally.foreign++
		return true
	}
	g.takeNumbered(c, topic, offset, g.form.get(message[at:]), row)
	return true
}

// takeNumbered accounts for a message that came with its topic and offset.
func (g *generator) takeNumbered(c *conn, topic []byte, offset uint64, s stamp, row *streak) {
	if s == row.expected && offset == row.offset && string(topic) == row.topic {
		row.count++
		row.expected.seq++
		row.offset++
		return
	}
	if !g.startStreak(c, s, row) {
		return
	}
	if string(topic) != row.topic {
		g.tally.foreign++
	}
	c.offsets[row.slot].take(&g.tally, offset)
	row.offset = offset + 1
}

// startStreak accounts for a message that does not continue the row, and starts another with it. It returns false, and
// leaves no row, for a message that is not for the connection.
func (g *generator) startStreak(c *conn, s stamp, row *streak) bool {
	g.settle(c, row)
	lane := uint32(s.origin)
	if s.origin>>32 != uint64(g.run) || int(lane) >= len(g.lanes) {
		g.tally.foreign++
		return false
	}
	slot := g.slotOf(c, lane)
	if slot >= len(c.offsets) {
		g.tally.foreign++
		return false
	}
	*row = streak{expected: s, topic: g.topics[g.lanes[lane].topic], slot: slot}
	place := &c.places[g.placeOf(slot, lane)]
	if s.seq == place.next {
		row.count = 1
		row.expected.seq++
		return true
	}
	g.publishers[g.lanes[lane].publisher].outstanding -= g.tally.outOfStep(place, s.seq)
	g.record(s.due, 1)
	row.expected.seq = place.next
	return true
}

// settle enters a row in the books and ends it.
func (g *generator) settle(c *conn, row *streak) {
	switch {
	case row.count == 0:
	case row.expected.origin == 0:
		g.tally.foreign += uint64(row.count) // payloads of zeros, which follow a row that never began
	default:
		lane := uint32(row.expected.origin)
		c.places[g.placeOf(row.slot, lane)].take(row.count)
		if c.wire == WireBinary || c.wire == WireJSON { // which carry offsets
			c.offsets[row.slot].next = row.offset
		}
		g.publishers[g.lanes[lane].publisher].outstanding -= row.count
		g.tally.delivered += uint64(row.count)
		g.record(row.expected.due, row.count)
	}
	*row = streak{}
}

// slotOf is the place of a lane's topic among those of a connection; not below their number if it has not subscribed.
func (g *generator) slotOf(c *conn, lane uint32) int {
	slot := int(g.lanes[lane].topic - c.first)
	if slot < 0 {
		slot += len(g.topics)
	}
	return slot
}

// placeOf is the index of a lane in the places of a connection that has its topic at slot.
func (g *generator) placeOf(slot int, lane uint32) int {
	return slot*g.lanesPerTopic + int(g.lanes[lane].ordinal)
}

// record enters the latency of messages just read, if they were due in the measured window: by due time and not by
// arrival, so that what an overloaded server delivers late is in.
func (g *generator) record(due, count int64) {
	if due < g.windowFrom || due >= g.windowTo {
		return
	}
	wait := g.readAt - due
	if wait > int64(latencyMax) {
		g.latencyOver += uint64(count)
		return
	}
	_ = g.latency.RecordValues(wait, count) // fails, and allocates to say so, only past the limit
}
