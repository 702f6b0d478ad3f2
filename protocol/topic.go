package protocol

import (
	"encoding/binary"
	"unicode/utf8"
)

// MaxTopicBytes is the length limit of a topic's name. 255, so that its length
// is one byte in the binary protocol.
const MaxTopicBytes = 255

// CheckTopic returns nil if t may name a topic: 1 to 255 bytes of UTF-8,
// without control characters (C0, DEL, C1), and no leading '$', which is
// reserved. Otherwise the error is an *Error with CodeTopicInvalid.
func CheckTopic(t []byte) error {
	if e := topicFault(t); e != nil {
		return e
	}
	return nil
}

// topicFault is CheckTopic with a concrete result, for callers that fill in
// an answer.
func topicFault(t []byte) *Error {
	switch {
	case len(t) == 0:
		return refuse(CodeTopicInvalid, "topic name is empty")
	case len(t) > MaxTopicBytes:
		return refuse(CodeTopicInvalid, "topic name is %d bytes, limit %d", len(t), MaxTopicBytes)
	case t[0] == '$':
		return refuse(CodeTopicInvalid, "topic name %q starts with $, which is reserved", shown(t))
	}
	i := 0
	for i+8 <= len(t) && topicStops(binary.LittleEndian.Uint64(t[i:])) == 0 {
		i += 8
	}
	for i < len(t) {
		if c := t[i]; c >= ' ' && c < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(t[i:])
		if r == utf8.RuneError && n <= 1 {
			return refuse(CodeTopicInvalid, "topic name is not UTF-8 at byte %d of %d", i, len(t))
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return refuse(CodeTopicInvalid, "topic name has the control character %U at byte %d of %d", r, i, len(t))
		}
		i += n
	}
	return nil
}

// topicStops marks the bytes of w that are not plain printable ASCII.
func topicStops(w uint64) uint64 {
	return (bytesBelow(w, ' ') | bytesEqual(w, 0x7f) | w) & highBits
}
