package floor

import (
	"crypto/sha1"
	"encoding/base64"

	"rayflux/protocol"
)

const (
	headMax      = 8 << 10
	acceptGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	switching    = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
	accepted     = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n" + `{"status":"message accepted"}`
	healthy      = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	notFound     = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
	notJSON      = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
	nativeBinary = "rayflux.v1.bin"
	nativeJSON   = "rayflux.v1.json"
)

// takeHead acts on one request at the front of b and returns its length with the body, 0 while it is incomplete.
func (s *server) takeHead(fd int32, b []byte) int {
	c := &s.conns[fd]
	req, ok, err := protocol.NextHead(b, headMax)
	if err != nil {
		s.drop(fd)
		return len(b)
	}
	if !ok {
		return 0
	}
	if req.Upgrade {
		c.phase = phaseNative
		if string(req.Path) == "/subscribe" {
			c.phase = phaseClassic
		}
		s.upgrade(fd, b[:req.Size])
		return req.Size
	}
	size := req.Size + int(max(0, req.ContentLength))
	if size > len(b) {
		if size > inputBytes/2 {
			s.drop(fd)
			return len(b)
		}
		return 0
	}
	switch string(req.Path) {
	case "/publish":
	case "/healthz":
		s.say(fd, append(s.answer[:0], healthy...))
		return size
	default:
		s.say(fd, append(s.answer[:0], notFound...))
		return size
	}
	name, message, err := protocol.ParseClassicPublish(b[req.Size:size], &s.scratch, payloadMax)
	if err != nil {
		s.say(fd, append(s.answer[:0], notJSON...))
		return size
	}
	s.publish(name, protocol.KindText, message)
	s.say(fd, append(s.answer[:0], accepted...))
	return size
}

// upgrade answers an upgrade by hand, because a library's garbage would be most of what an idle connection costs here.
func (s *server) upgrade(fd int32, head []byte) {
	c := &s.conns[fd]
	var sum [sha1.Size]byte
	key := append(s.answer[:0], field(head, "sec-websocket-key:")...)
	sum = sha1.Sum(append(key, acceptGUID...))
	s.answer = key
	answer := append(s.answer[:0], switching...)
	answer = base64.StdEncoding.AppendEncode(answer, sum[:])
	named := string(field(head, "sec-websocket-protocol:"))
	switch {
	case c.phase == phaseClassic:
		c.format, named = protocol.FormatClassic, ""
	case named == nativeBinary:
		c.format = protocol.FormatBinary
	default:
		c.format = protocol.FormatJSON
		if named != nativeJSON {
			named = ""
		}
	}
	if named != "" {
		answer = append(append(answer, "\r\nSec-WebSocket-Protocol: "...), named...)
	}
	s.say(fd, append(answer, "\r\n\r\n"...))
	if c.phase == phaseNative {
		s.event(fd, &protocol.Event{Op: protocol.EvWelcome, Session: epoch, Version: epoch, PingIntervalMs: 25_000, MaxMessageBytes: payloadMax})
	}
}

// field is the value of a head's field; name is in small letters, with its colon.
func field(head []byte, name string) []byte {
	for at := 0; at < len(head); {
		end := at
		for end < len(head) && head[end] != '\r' {
			end++
		}
		if line := head[at:end]; len(line) > len(name) && sameName(line[:len(name)], name) {
			value := line[len(name):]
			for len(value) > 0 && value[0] == ' ' {
				value = value[1:]
			}
			return value
		}
		at = end + 2
	}
	return nil
}

func sameName(b []byte, name string) bool {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
