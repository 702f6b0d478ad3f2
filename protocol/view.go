package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"
)

// Format is a wire form in which messages leave.
type Format byte

const (
	FormatBinary  Format = iota // rayflux.v1.bin, and the form in which topics are logged
	FormatJSON                  // rayflux.v1.json
	FormatClassic               // the payload alone
	FormatSSE                   // a block of a Server-Sent Events stream

	// NumFormats is the length of a table indexed by Format.
	NumFormats
)

// AppendMessage appends one message in the form f, ready to be sent: a whole
// server frame (FIN, unmasked), or for FormatSSE a whole block without id. The
// topic must have passed CheckTopic and the payload CheckPayload (what the
// parsers of commands return has): they are embedded as they are, so nothing
// in a payload can end the envelope around it.
func AppendMessage(dst []byte, f Format, topic string, offset uint64, kind Kind, payload []byte) []byte {
	switch f {
	case FormatBinary:
		return appendBinaryMessage(dst, topic, offset, kind, payload)
	case FormatJSON:
		dst, frame := openFrame(dst, jsonMessageGuess(topic, kind, payload))
		dst = append(dst, `{"op":"message","topic":`...)
		dst = appendMessageFields(dst, topic, offset, kind, payload)
		return closeFrame(dst, frame, OpText)
	case FormatClassic:
		dst = slices.Grow(dst, serverHeaderSize(len(payload))+len(payload))
		return append(AppendFrameHeader(dst, OpBinary, len(payload)), payload...)
	case FormatSSE:
		dst = append(dst, "event: message\ndata: {\"topic\":"...)
		start := len(dst)
		dst = appendMessageFields(dst, topic, offset, kind, payload)
		if kind == KindJSON {
			spaceLineBreaks(dst[start:])
		}
		return append(dst, "\n\n"...)
	}
	panic("BUG: no such format")
}

// BinaryMessageSize is how many bytes AppendMessage appends for FormatBinary,
// the frame's header included.
func BinaryMessageSize(topicLen int, offset uint64, payloadLen int) int {
	n := binaryMessageBody(topicLen, offset, payloadLen)
	return serverHeaderSize(n) + n
}

func binaryMessageBody(topicLen int, offset uint64, payloadLen int) int {
	return 1 + 1 + topicLen + uvarintSize(offset) + 1 + payloadLen
}

func appendBinaryMessage(dst []byte, topic string, offset uint64, kind Kind, payload []byte) []byte {
	n := binaryMessageBody(len(topic), offset, len(payload))
	dst = slices.Grow(dst, serverHeaderSize(n)+n)
	dst = AppendFrameHeader(dst, OpBinary, n)
	dst = append(dst, typeMessage)
	dst = appendStr8(dst, topic)
	dst = binary.AppendUvarint(dst, offset)
	dst = append(dst, byte(kind))
	return append(dst, payload...)
}

// NextBinaryMessage takes the first message off a buffer of frames that
// AppendMessage wrote as FormatBinary. n is the length of the whole frame, 0
// if there is no whole frame in b; payload is a slice of b. It trusts what is
// inside the frame, as only our own log is read with it.
func NextBinaryMessage(b []byte) (offset uint64, kind Kind, payload []byte, n int) {
	body, n := serverFrame(b)
	if n == 0 {
		return 0, 0, nil, 0
	}
	i := body + 2 + int(b[body+1])
	for shift := 0; ; shift += 7 {
		c := b[i]
		i++
		offset |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	return offset, Kind(b[i]), b[i+1 : n], n
}

// NextUnit is the length of the first whole message in a view of format f that
// AppendMessage wrote: a frame or an SSE block; 0 if b does not hold a whole
// one.
func NextUnit(b []byte, f Format) int {
	if f == FormatSSE {
		if end := bytes.Index(b, []byte("\n\n")); end >= 0 {
			return end + 2
		}
		return 0
	}
	_, n := serverFrame(b)
	return n
}

// serverFrame finds the payload of an unmasked frame of our own making:
// b[body:end]; end is 0 if the frame is not whole. It is not NextFrame because
// cursors walk logs with it: 6 ns a message, and 17 ns by way of a Header.
func serverFrame(b []byte) (body, end int) {
	if len(b) < 2 {
		return 0, 0
	}
	body, end = 2, 2+int(b[1])
	switch b[1] {
	case 126:
		if len(b) < 4 {
			return 0, 0
		}
		body, end = 4, 4+int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if len(b) < 10 {
			return 0, 0
		}
		body, end = 10, 10+int(binary.BigEndian.Uint64(b[2:]))
	}
	if end > len(b) || end < body {
		return 0, 0
	}
	return body, end
}

// AppendSSEGap appends the block that tells an SSE reader of a gap. Only the
// fields of an EvGap are used.
func AppendSSEGap(dst []byte, e *Event) []byte {
	dst = append(dst, "event: gap\ndata: {"...)
	dst = e.appendGapFields(dst)
	return append(dst, "}\n\n"...)
}

// AppendMessageData appends the member that carries a payload in JSON, without
// a comma: "data" with the JSON text or with the text as a string, "base64" for
// binary payloads.
func AppendMessageData(dst []byte, kind Kind, payload []byte) []byte {
	switch kind {
	case KindJSON:
		dst = append(dst, `"data":`...)
		return append(dst, payload...)
	case KindText:
		dst = append(dst, `"data":`...)
		return AppendJSONString(dst, payload)
	}
	dst = append(dst, `"base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, payload)
	return append(dst, '"')
}

func appendMessageFields(dst []byte, topic string, offset uint64, kind Kind, payload []byte) []byte {
	dst = AppendJSONStringOf(dst, topic)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendUint(dst, offset, 10)
	dst = append(dst, ',')
	dst = AppendMessageData(dst, kind, payload)
	return append(dst, '}')
}

// spaceLineBreaks makes spaces of raw CR and LF, which would end the data of
// an SSE block. In valid JSON they stand between tokens only.
func spaceLineBreaks(b []byte) {
	for _, c := range [...]byte{'\n', '\r'} {
		for rest := b; ; {
			i := bytes.IndexByte(rest, c)
			if i < 0 {
				break
			}
			rest[i] = ' '
			rest = rest[i+1:]
		}
	}
}

// jsonMessageGuess is about how long a message becomes in JSON.
func jsonMessageGuess(topic string, kind Kind, payload []byte) int {
	const names, digits = len(`{"op":"message","topic":"","offset":,"data":}`), 6
	n := names + digits + len(topic) + len(payload)
	if kind == KindBinary {
		n += len(payload) / 3
	}
	return n
}

// framing is a server frame under way: its header is at head, what is written
// of its payload starts at body.
type framing struct{ head, body int }

// openFrame starts a frame whose payload's length is not known before it is
// written, because of escapes. It leaves room for the header that a payload of
// guess bytes has; a wrong guess costs closeFrame one move of the payload.
func openFrame(dst []byte, guess int) ([]byte, framing) {
	f := framing{head: len(dst), body: len(dst) + serverHeaderSize(guess)}
	return append(dst, make([]byte, f.body-f.head)...), f
}

// closeFrame writes the header in front of all that was appended since
// openFrame.
func closeFrame(dst []byte, f framing, op Opcode) []byte {
	n := len(dst) - f.body
	body := f.head + serverHeaderSize(n)
	if body > f.body {
		dst = append(dst, make([]byte, body-f.body)...)
	}
	copy(dst[body:], dst[f.body:f.body+n])
	AppendFrameHeader(dst[:f.head], op, n)
	return dst[:body+n]
}

// serverHeaderSize is how many bytes AppendFrameHeader appends for a payload
// of n bytes.
func serverHeaderSize(n int) int {
	switch {
	case n < 126:
		return 2
	case n <= 0xffff:
		return 4
	}
	return 10
}
