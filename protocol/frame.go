package protocol

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Opcode is a frame's type (RFC 6455 §5.2).
type Opcode byte

const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xa
)

// IsControl reports whether o is a control opcode, known or reserved.
func (o Opcode) IsControl() bool { return o&0x8 != 0 }

const (
	bitFin  = 0x80
	bitMask = 0x80

	// controlPayloadMax is the most payload bytes of a control frame (§5.5).
	controlPayloadMax = 125
	// closeReasonMax is what a control frame leaves after the close code.
	closeReasonMax = controlPayloadMax - 2
)

// Header is a frame's header as it stands on the wire, right or wrong.
type Header struct {
	Fin    bool
	Rsv    byte // RSV1 to RSV3 as three bits, RSV1 highest
	Opcode Opcode
	Masked bool
	Mask   [4]byte // zero when not Masked
	Length uint64  // payload bytes, as declared
	Size   int     // bytes of this header on the wire, mask included
}

// NextFrame parses the frame header at the start of b and judges nothing;
// CheckClientFrame and CheckServerFrame do. ok is false while b is shorter
// than the header; the payload need not be there.
func NextFrame(b []byte) (h Header, ok bool) {
	if !h.parse(b) {
		return Header{}, false
	}
	return h, true
}

// parse and check take the header in place: one that was just filled field by
// field is slow to copy, as the wide loads wait for the narrow stores.
func (h *Header) parse(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	h.Fin = b[0]&bitFin != 0
	h.Rsv = b[0] >> 4 & 7
	h.Opcode = Opcode(b[0] & 0xf)
	h.Masked = b[1]&bitMask != 0
	h.Length = uint64(b[1] & 0x7f)
	h.Size = 2
	switch h.Length {
	case 126:
		if len(b) < 4 {
			return false
		}
		h.Length = uint64(binary.BigEndian.Uint16(b[2:]))
		h.Size = 4
	case 127:
		if len(b) < 10 {
			return false
		}
		h.Length = binary.BigEndian.Uint64(b[2:])
		h.Size = 10
	}
	h.Mask = [4]byte{}
	if h.Masked {
		if len(b) < h.Size+4 {
			return false
		}
		h.Mask = [4]byte(b[h.Size:])
		h.Size += 4
	}
	return true
}

// CheckClientFrame judges a header that a client sent (RFC 6455 §5.1, §5.2,
// §5.4, §5.5). fragmented says that a data message has begun and is not
// finished; room is the payload bytes a data frame may still have. The error
// is a *CloseError: 1009 when the payload is over room, else 1002.
func CheckClientFrame(h Header, fragmented bool, room int) error {
	return h.check(true, fragmented, room)
}

// CheckServerFrame is CheckClientFrame for the client's side, which refuses
// masked frames.
func CheckServerFrame(h Header, fragmented bool, room int) error {
	return h.check(false, fragmented, room)
}

// check is what both directions share; masked is what the direction demands.
func (h *Header) check(masked, fragmented bool, room int) error {
	if h.Masked != masked {
		return maskError(h.Masked)
	}
	if h.Rsv != 0 {
		return protocolError(fmt.Sprintf("reserved bits are %03b, no extension was negotiated", h.Rsv))
	}
	switch h.Opcode {
	case OpText, OpBinary:
		if fragmented {
			return protocolError("new data frame inside a fragmented message")
		}
	case OpContinuation:
		if !fragmented {
			return protocolError("continuation frame without a message to continue")
		}
	case OpClose, OpPing, OpPong:
		if !h.Fin {
			return protocolError("control frame is fragmented")
		}
		if h.Length > controlPayloadMax {
			return protocolError(fmt.Sprintf("control frame is %d bytes, limit %d", h.Length, controlPayloadMax))
		}
	default:
		return protocolError(fmt.Sprintf("opcode %#x is reserved", byte(h.Opcode)))
	}
	if !h.minimal() {
		return protocolError(fmt.Sprintf("payload length %d is badly encoded", h.Length))
	}
	if !h.Opcode.IsControl() && (room < 0 || h.Length > uint64(room)) {
		return &CloseError{CloseTooBig, fmt.Sprintf("frame is %d bytes, room for %d", h.Length, max(room, 0))}
	}
	return nil
}

// minimal reports whether the length is in its shortest encoding and leaves
// the highest bit clear (§5.2). The header's size tells the encoding.
func (h *Header) minimal() bool {
	size := h.Size
	if h.Masked {
		size -= len(h.Mask)
	}
	switch size {
	case 2:
		return true
	case 4:
		return h.Length > 125
	}
	return h.Length > 0xffff && h.Length>>63 == 0
}

func maskError(masked bool) error {
	if masked {
		return protocolError("server frame is masked")
	}
	return protocolError("client frame is not masked")
}

func protocolError(text string) *CloseError { return &CloseError{CloseProtocol, text} }

// AppendFrameHeader appends the header of a final, unmasked frame, the form a
// server sends, with n payload bytes to follow.
func AppendFrameHeader(dst []byte, op Opcode, n int) []byte {
	return appendHeader(dst, op, n, 0)
}

func appendHeader(dst []byte, op Opcode, n int, mask byte) []byte {
	switch {
	case n <= 125:
		return append(dst, bitFin|byte(op), mask|byte(n))
	case n <= 0xffff:
		return append(dst, bitFin|byte(op), mask|126, byte(n>>8), byte(n))
	}
	dst = append(dst, bitFin|byte(op), mask|127)
	return binary.BigEndian.AppendUint64(dst, uint64(n))
}

// AppendFrame appends a final, unmasked frame around payload.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	return append(AppendFrameHeader(dst, op, len(payload)), payload...)
}

// AppendMaskedFrame appends a final, masked frame around payload, the form a
// client sends; payload itself stays as it is.
func AppendMaskedFrame(dst []byte, op Opcode, mask [4]byte, payload []byte) []byte {
	dst = appendHeader(dst, op, len(payload), bitMask)
	dst = append(dst, mask[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	Unmask(dst[start:], mask, 0)
	return dst
}

// AppendClose appends an unmasked close frame. A code that may not be on the
// wire, such as CloseNoStatus, gives an empty one. The reason is cut to 123
// bytes at a rune border, and what is not UTF-8 in it becomes '?'.
func AppendClose(dst []byte, code CloseCode, reason string) []byte {
	if !code.OnWire() {
		return AppendFrameHeader(dst, OpClose, 0)
	}
	if len(reason) > closeReasonMax {
		end := closeReasonMax
		for end > closeReasonMax-utf8.UTFMax && !utf8.RuneStart(reason[end]) {
			end--
		}
		reason = reason[:end]
	}
	reason = strings.ToValidUTF8(reason, "?")
	dst = AppendFrameHeader(dst, OpClose, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// ParseClose reads the unmasked payload of a close frame (RFC 6455 §5.5.1). An
// empty one is CloseNoStatus. reason is a slice of payload. The error is a
// *CloseError to answer with: 1002, or 1007 for a reason that is not UTF-8.
func ParseClose(payload []byte) (code CloseCode, reason []byte, err error) {
	switch len(payload) {
	case 0:
		return CloseNoStatus, nil, nil
	case 1:
		return 0, nil, protocolError("close frame is 1 byte, a code is 2")
	}
	code = CloseCode(binary.BigEndian.Uint16(payload))
	if !code.OnWire() {
		return 0, nil, protocolError(fmt.Sprintf("close code %d is not for the wire", code))
	}
	reason = payload[2:]
	if !utf8.Valid(reason) {
		return 0, nil, &CloseError{CloseInvalidUTF8, "close reason is not UTF-8"}
	}
	return code, reason, nil
}

// Unmask applies the mask to b in place (RFC 6455 §5.3; masking is the same
// operation). offset is the number of payload bytes before b. The zero mask
// touches nothing.
func Unmask(b []byte, mask [4]byte, offset int) {
	if mask != [4]byte{} {
		ws.Cipher(b, mask, offset)
	}
}
