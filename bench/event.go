package bench

import (
	"fmt"

	"rayflux/protocol"
)

// incident is something a measurement must not pass over in silence.
type incident byte

const (
	incidentClosed  incident = iota // the server, or the network, ended a connection
	incidentError                   // an error event, a message that makes no sense, a broken frame
	incidentGap                     // messages were skipped for a subscriber, and it was told
	incidentRefused                 // an HTTP publish was not answered with 200
	incidentKinds
)

// incidents are counted, and the first of each kind is kept as text.
type incidents [incidentKinds]struct {
	count uint64
	text  string
}

func (in *incidents) add(kind incident, text string) {
	if in[kind].count == 0 {
		in[kind].text = text
	}
	in[kind].count++
}

func (in *incidents) any() bool { return in.first() != "" }

// first is the text of the most serious incident.
func (in *incidents) first() string {
	for _, i := range []incident{incidentRefused, incidentError, incidentClosed, incidentGap} {
		if in[i].count > 0 {
			return in[i].text
		}
	}
	return ""
}

// takeFrame takes one frame that is not an ordinary message from the front of b. It returns its length, 0 while it is
// incomplete; all of b once the connection is closed.
func (g *generator) takeFrame(c *conn, b []byte) int {
	h, ok := protocol.NextFrame(b)
	if !ok {
		return 0
	}
	if err := protocol.CheckServerFrame(h, false, len(g.input)/2); err != nil {
		g.trouble.add(incidentError, "frame: "+err.Error())
		g.fail(c, "left after a broken frame")
		return len(b)
	}
	size := h.Size + int(h.Length)
	if len(b) < size {
		return 0
	}
	payload := b[h.Size:size]
	switch {
	case h.Opcode == protocol.OpPing:
		g.pong(c, payload)
	case h.Opcode == protocol.OpPong:
	case h.Opcode == protocol.OpClose:
		code, reason, err := protocol.ParseClose(payload)
		if err != nil {
			g.trouble.add(incidentError, "close frame: "+err.Error())
		}
		g.fail(c, fmt.Sprintf("closed with %d %q", code, reason))
		return len(b)
	case !h.Fin:
		g.trouble.add(incidentError, "a fragmented message, which no RayFlux server sends")
		g.fail(c, "left after a fragmented message")
		return len(b)
	default:
		g.takeWhole(c, h.Opcode, payload)
	}
	return size
}

// takeWhole takes a message too long for the hot path, or of the other kind than deliveries are.
func (g *generator) takeWhole(c *conn, op protocol.Opcode, message []byte) {
	var row streak
	delivery := (op == protocol.OpText) == (c.wire == WireJSON)
	if !delivery || !g.takeMessage(c, message, &row) {
		g.takeEvent(c, op, message)
	}
	g.settle(c, &row)
}

// takeEvent acts on a whole message that is no delivery.
func (g *generator) takeEvent(c *conn, op protocol.Opcode, message []byte) {
	if c.wire == WireClassic {
		g.trouble.add(incidentError, quoted("classic subscriber was told", message))
		return
	}
	parse := protocol.ParseEventJSON
	if op == protocol.OpBinary {
		parse = protocol.ParseEventBinary
	}
	event, err := parse(message)
	if err != nil {
		g.trouble.add(incidentError, quoted("event: "+err.Error()+":", message))
		return
	}
	switch event.Op {
	case protocol.EvWelcome, protocol.EvPublished, protocol.EvPong, protocol.EvUnsubscribed:
	case protocol.EvSubscribed:
		g.subscribed(c, &event)
	case protocol.EvGap:
		g.tally.gaps++
		g.tally.missed += event.Missed
		g.trouble.add(incidentGap, fmt.Sprintf("gap in %q up to %d, %d missed, reason %q", event.Topic, event.Offset, event.Missed, event.Reason))
		if track := g.trackOf(c, event.Topic); track != nil {
			*track = offsetTrack{next: event.Offset + 1}
		}
	case protocol.EvError:
		g.trouble.add(incidentError, fmt.Sprintf("error %s: %s", event.Code, event.Message))
	case protocol.EvDrain:
		g.trouble.add(incidentError, fmt.Sprintf("drain: come back in %d ms", event.ReconnectAfterMs))
	default:
		g.trouble.add(incidentError, quoted("unexpected event", message))
	}
}

// subscribed notes where a topic's numbering stands, and the connection's readiness with its last topic.
func (g *generator) subscribed(c *conn, event *protocol.Event) {
	if track := g.trackOf(c, event.Topic); track != nil {
		*track = offsetTrack{next: event.Offset + 1}
	} else if c.role == roleSubscriber {
		g.trouble.add(incidentError, fmt.Sprintf("subscribed to %q, which was not asked for", event.Topic))
	}
	if c.unmarked--; c.unmarked == 0 && c.phase == phaseSubscribing {
		g.becomeLive(c)
	}
}

// trackOf finds the offsets of a subscriber's topic by name; nil if it has none.
func (g *generator) trackOf(c *conn, topic string) *offsetTrack {
	for slot := range c.offsets {
		if g.topics[(int(c.first)+slot)%len(g.topics)] == topic {
			return &c.offsets[slot]
		}
	}
	return nil
}

// pong answers a server's ping.
func (g *generator) pong(c *conn, payload []byte) {
	g.reply(c, appendClient(nil, protocol.OpPong, payload))
}

// reply sends a frame the server asked for; behind a publish of which the kernel has taken a part, it waits for the rest.
func (g *generator) reply(c *conn, frame []byte) {
	if p := c.publisher; p != nil && p.pending() {
		p.pong = frame
		return
	}
	g.send(c, frame)
}
