package bench

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strconv"

	"rayflux/protocol"
)

// What a generator sends besides publishes, all of it before the measurement or off its path.

const (
	upgradeKey       = "cmF5Zmx1eCBiZW5jaCAhIQ==" // 16 bytes in base64; a generator has no use for a fresh one
	acceptGUID       = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	subprotocolName  = "Sec-WebSocket-Protocol"
	messageType      = 0x86 // the event `message` of the binary protocol
	publishType      = 0x03 // its command `publish`
	responseHeadMax  = 16 << 10
	frameShort       = 125
	frameLengthOf16  = 126
	frameBinaryFinal = 0x80 | byte(protocol.OpBinary)
	frameTextFinal   = 0x80 | byte(protocol.OpText)
	frameMasked      = 0x80
)

// upgradeRequest asks for a WebSocket in the form w.
func upgradeRequest(host string, w Wire) []byte {
	path, subprotocol := "/ws", ""
	switch w {
	case WireClassic:
		path = "/subscribe"
	case WireBinary:
		subprotocol = subprotocolName + ": rayflux.v1.bin\r\n"
	case WireJSON:
		subprotocol = subprotocolName + ": rayflux.v1.json\r\n"
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s\r\n", path, host, upgradeKey, subprotocol)
}

// takeUpgrade judges the answer to upgradeRequest at the front of b and returns its length, 0 while it is incomplete.
func takeUpgrade(b []byte, w Wire) (n int, err error) {
	head, complete := responseHead(b)
	if !complete {
		return 0, nil
	}
	status, _, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 101")) {
		return 0, fmt.Errorf("upgrade answered %q %q", status, cut(b[len(head):]))
	}
	sum := sha1.Sum([]byte(upgradeKey + acceptGUID))
	want := base64.StdEncoding.EncodeToString(sum[:])
	if got := fieldValue(head, "Sec-WebSocket-Accept"); string(got) != want {
		return 0, fmt.Errorf("upgrade accepted with key %q, want %q", got, want)
	}
	if got := fieldValue(head, subprotocolName); w == WireBinary && string(got) != "rayflux.v1.bin" {
		return 0, fmt.Errorf("upgrade chose subprotocol %q, want rayflux.v1.bin", got)
	}
	return len(head), nil
}

// responseHead is the status line and the fields at the front of b, the blank line included.
func responseHead(b []byte) (head []byte, complete bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, false
	}
	return b[:end+4], true
}

// fieldValue is the value of a head's field, nil if it is not there. Names are matched without regard to case.
func fieldValue(head []byte, name string) []byte {
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\r\n"))
		head = rest
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}

// appendClient appends a whole client frame with masking key zero.
func appendClient(dst []byte, op protocol.Opcode, payload []byte) []byte {
	return protocol.AppendMaskedFrame(dst, op, [4]byte{}, payload)
}

// subscribeRequest subscribes one connection to all its topics.
func subscribeRequest(w Wire, subscriber int, topics []string) (b []byte) {
	for i, topic := range topics {
		command := protocol.Command{Op: protocol.CmdSubscribe, HasID: true, ID: uint64(i), Topic: []byte(topic)}
		switch w {
		case WireBinary:
			b = appendClient(b, protocol.OpBinary, protocol.AppendCommandBinary(nil, &command))
		case WireJSON:
			b = appendClient(b, protocol.OpText, protocol.AppendCommandJSON(nil, &command))
		case WireClassic:
			b = appendClient(b, protocol.OpText, fmt.Appendf(nil, `{"subscriber_id":"bench-%d","topic":%q}`, subscriber, topic))
		}
	}
	return b
}

// publishFrame encodes one publish to topic with room for a stamp at stampAt. All of a scenario's frames are equally long.
func publishFrame(s Scenario, host, topic string) (frame []byte, stampAt int) {
	payload := bytes.Repeat([]byte{'x'}, s.PayloadBytes)
	form := s.stampForm()
	form.put(payload, stamp{})
	if s.Publish == PublishNATS {
		return natsPublish(topic, payload)
	}
	if s.Publish == PublishBinary {
		kind := protocol.KindText
		if form == stampBinary {
			kind = protocol.KindBinary
		}
		command := protocol.Command{Op: protocol.CmdPublish, Topic: []byte(topic), Kind: kind, Payload: payload}
		frame = appendClient(nil, protocol.OpBinary, protocol.AppendCommandBinary(nil, &command))
		return frame, len(frame) - len(payload)
	}
	body := fmt.Sprintf(`{"topic":%q,"message":"%s"}`, topic, payload)
	frame = fmt.Appendf(nil, "POST /publish HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		host, len(body), body)
	return frame, len(frame) - len(payload) - len(`"}`)
}

// takeResponse takes one HTTP response with a Content-Length from the front of b. n is 0 while it is incomplete.
func takeResponse(b []byte) (status int, body []byte, n int, err error) {
	head, complete := responseHead(b)
	if !complete {
		if len(b) > responseHeadMax {
			return 0, nil, 0, fmt.Errorf("response head is over %d bytes, limit %d", len(b), responseHeadMax)
		}
		return 0, nil, 0, nil
	}
	if len(head) < len("HTTP/1.1 200") || string(head[:7]) != "HTTP/1." {
		return 0, nil, 0, fmt.Errorf("not a response: %q", cut(b))
	}
	for _, c := range head[9:12] {
		status = status*10 + int(c-'0')
	}
	length := 0
	value := fieldValue(head, "Content-Length")
	if value == nil {
		return 0, nil, 0, fmt.Errorf("response without Content-Length: %q", cut(b))
	}
	for _, c := range value {
		if c < '0' || c > '9' || length > responseHeadMax {
			return 0, nil, 0, fmt.Errorf("response with Content-Length %q", value)
		}
		length = length*10 + int(c-'0')
	}
	if len(b) < len(head)+length {
		return 0, nil, 0, nil
	}
	return status, b[len(head) : len(head)+length], len(head) + length, nil
}

// cut shortens what a server said to what fits an error.
func cut(b []byte) []byte {
	const most = 200
	return b[:min(len(b), most)]
}

// quoted is how the first of several events is kept for the report.
func quoted(what string, b []byte) string { return what + " " + strconv.Quote(string(cut(b))) }
