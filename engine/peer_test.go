package engine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"rayflux/protocol"
)

// item is one whole thing a peer was sent: an HTTP response, a WebSocket message or control frame, an SSE block.
type item struct {
	kind    itemKind
	status  int    // response
	header  string // response: the field lines
	payload []byte // body of a response, payload of a frame, text of a block
}

type itemKind uint8

const (
	itemResponse itemKind = iota
	itemText
	itemBinary
	itemPing
	itemPong
	itemClose
	itemBlock
)

// inbox turns the bytes that a peer gets into items, with the client's half of package protocol. Whatever is cut, out of
// place or not finished is an error here, which is how a frame inside another one is found out.
type inbox struct {
	buf    []byte
	wire   wireForm
	reader protocol.MessageReader
	closed bool // a close frame has come
}

type wireForm uint8

const (
	wireHTTP wireForm = iota
	wireFrames
	wireBlocks
)

// next takes the first item; ok is false if there is no whole one.
func (in *inbox) next() (it item, ok bool, err error) {
	if in.closed && len(in.buf) > 0 {
		return it, false, fmt.Errorf("%d bytes behind the close frame: %.60q", len(in.buf), in.buf)
	}
	switch in.wire {
	case wireFrames:
		return in.frame()
	case wireBlocks:
		end := bytes.Index(in.buf, []byte("\n\n"))
		if end < 0 {
			return it, false, nil
		}
		return item{kind: itemBlock, payload: in.take(end + 2)[:end]}, true, nil
	}
	return in.response()
}

func (in *inbox) take(n int) []byte {
	b := append([]byte(nil), in.buf[:n]...)
	in.buf = in.buf[:copy(in.buf, in.buf[n:])]
	return b
}

func (in *inbox) response() (it item, ok bool, err error) {
	end := bytes.Index(in.buf, []byte("\r\n\r\n"))
	if end < 0 {
		return it, false, nil
	}
	status, fields, _ := strings.Cut(string(in.buf[:end]), "\r\n")
	if !strings.HasPrefix(status, "HTTP/1.1 ") || len(status) < 12 {
		return it, false, fmt.Errorf("no status line: %.60q", in.buf)
	}
	it.header = fields
	if it.status, err = strconv.Atoi(status[9:12]); err != nil {
		return it, false, fmt.Errorf("status line %q: %w", status, err)
	}
	body := 0
	if v, found := headerValue(fields, "Content-Length"); found {
		if body, err = strconv.Atoi(v); err != nil {
			return it, false, err
		}
	}
	if len(in.buf) < end+4+body {
		return it, false, nil
	}
	it.payload = in.take(end + 4 + body)[end+4:]
	switch v, _ := headerValue(fields, "Content-Type"); {
	case it.status == 101:
		in.wire, in.reader = wireFrames, protocol.NewServerMessageReader()
	case v == "text/event-stream":
		in.wire = wireBlocks
	}
	return it, true, nil
}

func headerValue(fields, name string) (string, bool) {
	for line := range strings.SplitSeq(fields, "\r\n") {
		if n, v, ok := strings.Cut(line, ": "); ok && strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

func (in *inbox) frame() (it item, ok bool, err error) {
	m, n, err := in.reader.Next(in.buf, 1<<30)
	if err != nil {
		return it, false, fmt.Errorf("frame at %.60q: %w", in.buf, err)
	}
	it.payload = append([]byte(nil), m.Payload...)
	in.take(n)
	switch m.Opcode {
	case protocol.OpContinuation:
		return it, false, nil
	case protocol.OpText:
		it.kind = itemText
	case protocol.OpBinary:
		it.kind = itemBinary
	case protocol.OpPing:
		it.kind = itemPing
	case protocol.OpPong:
		it.kind = itemPong
	case protocol.OpClose:
		it.kind = itemClose
		in.closed = true
		_, _, err = protocol.ParseClose(it.payload)
	}
	return it, true, err
}

// handshake is the request that opens a WebSocket; subprotocol may be empty.
func handshake(path, subprotocol string) string {
	s := "GET " + path + " HTTP/1.1\r\nHost: rig\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if subprotocol != "" {
		s += "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	return s + "\r\n"
}

// request is an HTTP request with a body of known length; headers are whole field lines.
func request(method, target, body string, headers ...string) string {
	s := method + " " + target + " HTTP/1.1\r\nHost: rig\r\n"
	for _, h := range headers {
		s += h + "\r\n"
	}
	if method == "POST" {
		s += "Content-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return s + "\r\n" + body
}

// maskedText and maskedBinary are whole client frames.
func maskedText(s string) []byte {
	return protocol.AppendMaskedFrame(nil, protocol.OpText, [4]byte{0x5a, 0x12, 0xc3, 0x77}, []byte(s))
}

func maskedBinary(b []byte) []byte {
	return protocol.AppendMaskedFrame(nil, protocol.OpBinary, [4]byte{0x91, 0x3e, 0x05, 0xd8}, b)
}
