package bench

import (
	"bytes"
	"fmt"

	"rayflux/protocol"
)

// The client protocol of NATS inside WebSocket frames, so that the same generator loads it as a peer. NATS packs what one
// flush has into one binary frame, many messages and control lines mixed:
//
//	MSG <topic> <subscription> <bytes>\r\n<payload>\r\n

var (
	natsMessage = []byte("MSG ")
	natsLineEnd = []byte("\r\n")
)

// natsHello opens the protocol on an upgraded connection and subscribes it to topics (none for a publisher). Its PONG says
// that all of it was taken.
func natsHello(topics []string) []byte {
	hello := []byte(`CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1}` + "\r\n")
	for i, topic := range topics {
		hello = fmt.Appendf(hello, "SUB %s %d\r\n", topic, i+1)
	}
	return appendClient(nil, protocol.OpBinary, append(hello, "PING\r\n"...))
}

// natsPublish encodes one publish: a frame of its own, as with the other wires.
func natsPublish(topic string, payload []byte) (frame []byte, stampAt int) {
	body := fmt.Appendf(nil, "PUB %s %d\r\n%s\r\n", topic, len(payload), payload)
	frame = appendClient(nil, protocol.OpBinary, body)
	return frame, len(frame) - len(payload) - len(natsLineEnd)
}

// takeNATS accounts for everything in one frame.
func (g *generator) takeNATS(c *conn, frame []byte, row *streak) {
	for len(frame) > 0 {
		topic, payload, n := nextNATSMessage(frame, len(g.topics[0]))
		if n == 0 {
			line, rest, whole := bytes.Cut(frame, natsLineEnd)
			if !whole || bytes.HasPrefix(line, natsMessage) {
				g.trouble.add(incidentError, quoted("not whole in its frame:", line))
				return
			}
			frame = rest
			g.takeNATSLine(c, line)
			continue
		}
		frame = frame[n:]
		if len(payload) < g.stampBytes {
			g.tally.foreign++
			continue
		}
		g.takeNamed(c, topic, g.form.get(payload), row)
	}
}

// nextNATSMessage takes a whole message from the front of b; n is 0 if that is something else. Topics are topicBytes long.
func nextNATSMessage(b []byte, topicBytes int) (topic, payload []byte, n int) {
	at := len(natsMessage) + topicBytes
	if !bytes.HasPrefix(b, natsMessage) || at >= len(b) || b[at] != ' ' {
		return nil, nil, 0
	}
	topic = b[len(natsMessage):at]
	for at++; at < len(b) && b[at] != ' '; at++ { // the subscription's number, which the topic tells as well
	}
	size := 0
	for at++; at < len(b) && b[at]-'0' < 10 && size < len(b); at++ {
		size = size*10 + int(b[at]-'0')
	}
	at += len(natsLineEnd)
	end := at + size
	if end+len(natsLineEnd) > len(b) {
		return nil, nil, 0
	}
	return topic, b[at:end], end + len(natsLineEnd)
}

// takeNamed accounts for a message that came with its topic, but no offset.
func (g *generator) takeNamed(c *conn, topic []byte, s stamp, row *streak) {
	if s == row.expected && string(topic) == row.topic {
		row.count++
		row.expected.seq++
		return
	}
	if g.startStreak(c, s, row) && string(topic) != row.topic {
		g.tally.foreign++
	}
}

// takeNATSLine acts on one control line.
func (g *generator) takeNATSLine(c *conn, line []byte) {
	word, _, _ := bytes.Cut(line, []byte(" "))
	switch string(word) {
	case "INFO", "+OK":
	case "PING":
		g.reply(c, appendClient(nil, protocol.OpBinary, []byte("PONG\r\n")))
	case "PONG":
		if c.phase == phaseSubscribing {
			g.becomeLive(c)
		}
	default:
		g.trouble.add(incidentError, quoted("NATS said", line))
	}
}
