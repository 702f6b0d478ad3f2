package engine

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"rayflux/protocol"
)

// What a simulated client says.

// greet is what a connection begins with.
func (p *simPeer) greet() {
	rng := p.sim.rng
	switch p.kind {
	case peerJSON:
		p.toSend = append(p.toSend, handshake("/ws", pick(rng, subprotocolJSON, ""))...)
	case peerBinary:
		p.toSend = append(p.toSend, handshake("/ws", subprotocolBinary)...)
	case peerClassic:
		p.topics = []string{pick(rng, p.sim.topics...)}
		p.readings[p.topics[0]] = &reading{}
		p.toSend = append(p.toSend, handshake("/subscribe", "")...)
		name := string(protocol.AppendJSONStringOf(nil, p.topics[0]))
		p.toSend = append(p.toSend, maskedText(`{"subscriber_id":"s","topic":`+name+`}`)...)
	case peerSSE:
		p.openStream()
	}
}

// openStream asks for some topics, and half of the time goes on where an earlier stream was.
func (p *simPeer) openStream() {
	rng := p.sim.rng
	order := rng.Perm(len(p.sim.topics))
	var query []string
	var ids []string
	for _, i := range order[:1+rng.IntN(min(len(order), p.sim.cfg.MaxSubscriptions))] {
		topic := p.sim.topics[i]
		p.topics = append(p.topics, topic)
		query = append(query, "topic="+url.QueryEscape(topic))
		r := &reading{fresh: true}
		p.readings[topic] = r
		id := ""
		if at, ok := p.knownPlace(topic); ok && rng.IntN(2) == 0 {
			r.asked = at
			id = fmt.Sprintf("%s:%d", at.epoch, at.offset)
		}
		ids = append(ids, id)
	}
	headers := []string{"Accept: text/event-stream"}
	if joined := strings.Join(ids, ","); strings.Trim(joined, ",") != "" {
		headers = append(headers, "Last-Event-ID: "+joined)
	}
	p.toSend = append(p.toSend, request("GET", "/v1/sse?"+strings.Join(query, "&"), "", headers...)...)
}

// knownPlace is a position of a topic that somebody has been told, a recent one as a rule.
func (p *simPeer) knownPlace(topic string) (place, bool) {
	all := p.sim.truth.places
	for range 20 {
		if len(all) == 0 {
			break
		}
		at := all[len(all)-1-p.sim.rng.IntN(min(len(all), pick(p.sim.rng, 20, 1000)))]
		if at.topic == topic {
			return at, true
		}
	}
	return place{}, false
}

// speak says one thing more.
func (p *simPeer) speak() {
	if p.leaving || p.sock.gone() {
		return
	}
	switch p.kind {
	case peerJSON, peerBinary:
		p.command()
	case peerHTTP:
		p.ask()
	case peerClassic:
		if p.sim.rng.IntN(10) == 0 { // means nothing, as it always did
			p.toSend = append(p.toSend, maskedText(`{"hello":1}`)...)
		}
	}
}

func (p *simPeer) command() {
	rng := p.sim.rng
	topic := pick(rng, p.sim.topics...)
	cmd := protocol.Command{Topic: []byte(topic), HasID: true, ID: p.nextID}
	a := &await{topic: topic, id: p.nextID}
	p.nextID++
	switch n := rng.IntN(100); {
	case n < 65:
		a.op, cmd.Op = "publish", protocol.CmdPublish
		cmd.Kind = pick(rng, protocol.KindJSON, protocol.KindText, protocol.KindBinary)
		serial := p.compose(topic, cmd.Kind)
		a.serial, cmd.Payload = []int{serial}, p.sim.truth.sent[serial].payload
		if rng.IntN(3) == 0 {
			cmd.HasID = false
			p.mute++
		}
	case n < 85:
		a.op, cmd.Op = "subscribe", protocol.CmdSubscribe
		cmd.From = p.from(a)
	case n < 93:
		a.op, cmd.Op = "unsubscribe", protocol.CmdUnsubscribe
	default:
		a.op, cmd.Op = "ping", protocol.CmdPing
	}
	if cmd.HasID {
		p.awaiting[a.id] = a
		if a.op != "ping" {
			p.queues[topic] = append(p.queues[topic], a)
		}
	}
	p.send(&cmd)
}

// send frames a command, now and then in pieces.
func (p *simPeer) send(cmd *protocol.Command) {
	op, body := protocol.OpText, []byte(nil)
	if p.kind == peerJSON {
		body = protocol.AppendCommandJSON(nil, cmd)
	} else {
		op, body = protocol.OpBinary, protocol.AppendCommandBinary(nil, cmd)
	}
	mask := [4]byte{0x11, 0x22, 0x33, byte(p.nextID)}
	if p.sim.rng.IntN(8) > 0 {
		p.toSend = protocol.AppendMaskedFrame(p.toSend, op, mask, body)
		return
	}
	cut, start := p.sim.rng.IntN(len(body)), len(p.toSend)
	p.toSend = protocol.AppendMaskedFrame(p.toSend, op, mask, body[:cut])
	p.toSend[start] &^= 0x80 // the first piece is not the last
	p.toSend = protocol.AppendMaskedFrame(p.toSend, protocol.OpContinuation, mask, body[cut:])
}

// compose makes a payload, now and then one that is too long.
func (p *simPeer) compose(topic string, kind protocol.Kind) (serial int) {
	rng, limit := p.sim.rng, p.sim.cfg.MaxMessage
	size := rng.IntN(pick(rng, 4, 30, limit/3))
	if rng.IntN(40) == 0 {
		size = limit
	}
	return p.sim.truth.compose(rng, p.number, topic, kind, size, limit)
}

// from draws a start of a subscription.
func (p *simPeer) from(a *await) protocol.From {
	rng := p.sim.rng
	switch rng.IntN(5) {
	case 0:
		at, ok := p.knownPlace(a.topic)
		if !ok {
			break
		}
		a.asked = at
		a.from = protocol.From{Mode: protocol.FromPosition, Epoch: []byte(at.epoch), Offset: at.offset}
	case 1:
		a.from = protocol.From{Mode: protocol.FromEarliest}
	case 2:
		a.from = protocol.From{Mode: protocol.FromLast, Last: rng.Uint64N(20)}
	case 3:
		back := rng.Int64N(int64(3 * time.Second))
		a.from = protocol.From{Mode: protocol.FromSince, Since: (rigEpoch + p.sim.now - back) / int64(time.Millisecond)}
		if at, ok := p.knownPlace(a.topic); ok && p.sim.truth.taken[at] != 0 {
			a.from.Since = p.sim.truth.taken[at] // the very millisecond
		}
	}
	return a.from
}

// ask says one HTTP request; they are pipelined.
func (p *simPeer) ask() {
	rng := p.sim.rng
	topic := pick(rng, p.sim.topics...)
	switch rng.IntN(10) {
	case 0, 1:
		p.requests = append(p.requests, &await{op: "history", topic: topic})
		target := "/v1/topics/" + url.PathEscape(topic) + "/messages?" + pick(rng, "", "last=5", "limit=3", "from=earliest&limit=1000", "from=x:1")
		p.toSend = append(p.toSend, request("GET", target, "")...)
	case 2:
		p.requests = append(p.requests, &await{op: "health"})
		p.toSend = append(p.toSend, request("GET", "/healthz", "")...)
	case 3, 4:
		p.batch()
	case 5, 6:
		serial := p.compose(topic, protocol.KindText)
		p.requests = append(p.requests, &await{op: "publish", topic: topic, serial: []int{serial}})
		body := `{"topic":` + quoted(topic) + `,"message":` + quoted(string(p.sim.truth.sent[serial].payload)) + `}`
		p.toSend = append(p.toSend, request("POST", "/publish", body, "Content-Type: application/json")...)
	default:
		p.post(topic, pick(rng, protocol.KindJSON, protocol.KindText, protocol.KindBinary), -1)
	}
}

func quoted(s string) string { return string(protocol.AppendJSONStringOf(nil, s)) }

// post publishes a raw body, now and then in chunks. A size of -1 is drawn.
func (p *simPeer) post(topic string, kind protocol.Kind, size int) {
	rng := p.sim.rng
	var serial int
	if size < 0 {
		serial = p.compose(topic, kind)
	} else {
		serial = p.sim.truth.compose(rng, p.number, topic, kind, size, p.sim.cfg.MaxMessage)
	}
	m := p.sim.truth.sent[serial]
	if m.tooLong {
		p.leaving = true // it is refused on its head, and the stream with it
	}
	p.requests = append(p.requests, &await{op: "publish", topic: topic, serial: []int{serial}})
	target := "/v1/topics/" + url.PathEscape(topic) + "/messages?kind=" + kind.String()
	if rng.IntN(4) > 0 {
		p.toSend = append(p.toSend, request("POST", target, string(m.payload))...)
		return
	}
	p.toSend = append(p.toSend, "POST "+target+" HTTP/1.1\r\nHost: rig\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	for rest := m.payload; len(rest) > 0; {
		n := 1 + rng.IntN(len(rest))
		p.toSend = fmt.Appendf(p.toSend, "%x\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	p.toSend = append(p.toSend, "0\r\n\r\n"...)
}

func (p *simPeer) batch() {
	rng := p.sim.rng
	a := &await{op: "batch"}
	body := `{"messages":[`
	for i := range rng.IntN(5) {
		topic, kind := pick(rng, p.sim.topics...), pick(rng, protocol.KindJSON, protocol.KindText, protocol.KindBinary)
		serial := p.compose(topic, kind)
		cmd := protocol.Command{Op: protocol.CmdPublish, Topic: []byte(topic), Kind: kind, Payload: p.sim.truth.sent[serial].payload}
		if i > 0 {
			body += ","
		}
		body += string(protocol.AppendCommandJSON(nil, &cmd))
		a.serial = append(a.serial, serial)
	}
	body += "]}"
	if len(body) > p.sim.cfg.MaxBatch {
		p.leaving = true
	}
	p.requests = append(p.requests, a)
	p.toSend = append(p.toSend, request("POST", "/v1/publish", body)...)
}
