package persist

import "encoding/binary"

// frameBytes is how long the whole frame at the beginning of b is: an unmasked frame of RFC 6455, which is all that is known
// here of what a run holds. 0: it is cut off, or masked.
func frameBytes(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	n, head := uint64(b[1]), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, head = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, head = binary.BigEndian.Uint64(b[2:]), 10
	case n >= 126:
		return 0
	}
	if n > uint64(len(b)-head) {
		return 0
	}
	return head + int(n)
}

// countFrames is how many whole frames b is; false: something is left over.
func countFrames(b []byte) (n uint32, whole bool) {
	for len(b) > 0 {
		size := frameBytes(b)
		if size == 0 {
			return n, false
		}
		b = b[size:]
		n++
	}
	return n, true
}

// skipFrames is b behind its first n frames, of which there are that many.
func skipFrames(b []byte, n uint64) []byte {
	for ; n > 0; n-- {
		b = b[frameBytes(b):]
	}
	return b
}
