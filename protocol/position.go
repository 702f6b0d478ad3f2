package protocol

import (
	"bytes"
	"math"
	"strconv"
)

// MaxEpochBytes is the length limit of an epoch.
const MaxEpochBytes = 16

// Position is a place in a topic's log: just after the message with this
// offset, in the life of the topic that Epoch names. Offset 0 is before the
// first message.
type Position struct {
	Epoch  string
	Offset uint64
}

// String is the form that ParsePosition reads.
func (p Position) String() string { return string(AppendPosition(nil, p.Epoch, p.Offset)) }

// AppendPosition appends "EPOCH:OFFSET".
func AppendPosition(dst []byte, epoch string, offset uint64) []byte {
	dst = append(dst, epoch...)
	dst = append(dst, ':')
	return strconv.AppendUint(dst, offset, 10)
}

// ParsePosition reads "EPOCH:OFFSET": an epoch of 1 to 16 bytes out of
// [0-9A-Za-z_-], and a decimal uint64 without sign or leading zeros. epoch is
// a slice of s. The error is an *Error with CodeBadRequest.
func ParsePosition(s []byte) (epoch []byte, offset uint64, err error) {
	colon := bytes.IndexByte(s, ':')
	if colon < 0 {
		return nil, 0, refuse(CodeBadRequest, "position is %q, not EPOCH:OFFSET", shown(s))
	}
	epoch = s[:colon]
	if e := epochFault(epoch); e != nil {
		return nil, 0, e
	}
	offset, ok := parseUint(s[colon+1:])
	if !ok {
		return nil, 0, refuse(CodeBadRequest, "offset is %q, not an integer from 0 to %d", shown(s[colon+1:]), uint64(math.MaxUint64))
	}
	return epoch, offset, nil
}

func epochFault(epoch []byte) *Error {
	if len(epoch) == 0 || len(epoch) > MaxEpochBytes {
		return refuse(CodeBadRequest, "epoch is %d bytes, not 1 to %d", len(epoch), MaxEpochBytes)
	}
	for _, c := range epoch {
		if !isEpochByte(c) {
			return refuse(CodeBadRequest, "epoch is %q, which has more than letters, digits, _ and -", shown(epoch))
		}
	}
	return nil
}

func isEpochByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-'
}

// parseUint reads a whole decimal uint64 that has one spelling only: digits,
// no sign, no leading zero, no fraction or exponent.
func parseUint(s []byte) (v uint64, ok bool) {
	if len(s) == 0 || len(s) > 20 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	for _, c := range s {
		d := uint64(c - '0')
		if d > 9 || v > math.MaxUint64/10 || v == math.MaxUint64/10 && d > math.MaxUint64%10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}
