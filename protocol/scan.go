package protocol

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// MaxJSONDepth is how deep arrays and objects may nest in a JSON value. A
// published payload is counted from its own root, not from the envelope's, so
// that it is valid or not whichever way it came.
const MaxJSONDepth = 64

// The functions below walk JSON text (RFC 8259) and build nothing. Each takes
// the index of the first byte it judges and returns the index after the last;
// a negative result is the complement of the index where the text went wrong.

// ValidJSON reports whether b is exactly one JSON value, white space around it
// allowed. It is as strict as RFC 8259, and stricter in two points: all text
// must be UTF-8, and nesting ends at MaxJSONDepth. Escapes of lone surrogates
// are allowed, as the RFC does.
func ValidJSON(b []byte) bool { return jsonFault(b) < 0 }

// jsonFault is the index at which b stops being one JSON value, or -1.
func jsonFault(b []byte) int {
	i := skipValue(b, skipSpace(b, 0), MaxJSONDepth)
	if i < 0 {
		return ^i
	}
	if i = skipSpace(b, i); i < len(b) {
		return i
	}
	return -1
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue walks one value in which room containers may still be opened.
func skipValue(b []byte, i, room int) int {
	if i >= len(b) {
		return ^i
	}
	switch c := b[i]; {
	case c == '"':
		end, _ := skipString(b, i)
		return end
	case c == '{':
		return skipObject(b, i, room)
	case c == '[':
		end, _ := skipArray(b, i, room)
		return end
	case c == '-' || isDigit(c):
		return skipNumber(b, i)
	case c == 't':
		return skipWord(b, i, "true")
	case c == 'f':
		return skipWord(b, i, "false")
	case c == 'n':
		return skipWord(b, i, "null")
	}
	return ^i
}

func skipWord(b []byte, i int, word string) int {
	for k := 0; k < len(word); k++ {
		if i+k >= len(b) || b[i+k] != word[k] {
			return ^(i + k)
		}
	}
	return i + len(word)
}

func skipNumber(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return i
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return i
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		i = skipDigits(b, i)
	}
	return i
}

// skipDigits wants at least one.
func skipDigits(b []byte, i int) int {
	first := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == first {
		return ^i
	}
	return i
}

// skipArray also counts the elements.
func skipArray(b []byte, i, room int) (end, elements int) {
	if room == 0 {
		return ^i, 0
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1, 0
	}
	for {
		if i = skipValue(b, i, room-1); i < 0 {
			return i, 0
		}
		elements++
		var closed bool
		if i, closed = nextElement(b, i, ']'); i < 0 || closed {
			return i, elements
		}
	}
}

func skipObject(b []byte, i, room int) int {
	if room == 0 {
		return ^i
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if _, i, _ = skipKey(b, i); i < 0 {
			return i
		}
		if i = skipValue(b, i, room-1); i < 0 {
			return i
		}
		var closed bool
		if i, closed = nextElement(b, i, '}'); i < 0 || closed {
			return i
		}
	}
}

// skipKey walks `"key" : ` up to the value. keyEnd is the index after the
// key's closing quote.
func skipKey(b []byte, i int) (keyEnd, value int, escaped bool) {
	if i >= len(b) || b[i] != '"' {
		return 0, ^i, false
	}
	keyEnd, escaped = skipString(b, i)
	if keyEnd < 0 {
		return 0, keyEnd, false
	}
	i = skipSpace(b, keyEnd)
	if i >= len(b) || b[i] != ':' {
		return 0, ^i, false
	}
	return keyEnd, skipSpace(b, i+1), escaped
}

// nextElement walks what may follow an element: a comma, up to the next
// element, or the closing bracket.
func nextElement(b []byte, i int, closing byte) (next int, closed bool) {
	i = skipSpace(b, i)
	switch {
	case i >= len(b):
		return ^i, false
	case b[i] == ',':
		return skipSpace(b, i+1), false
	case b[i] == closing:
		return i + 1, true
	}
	return ^i, false
}

// skipString walks the string whose opening quote is b[i]. Plain ASCII goes
// eight bytes at a time; escaped tells whether there is any escape in it.
func skipString(b []byte, i int) (end int, escaped bool) {
	i++
	for i < len(b) {
		if i+8 <= len(b) {
			stops := stringStops(binary.LittleEndian.Uint64(b[i:]))
			if stops == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stops) >> 3
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			if i = skipEscape(b, i); i < 0 {
				return i, true
			}
			escaped = true
		case c < ' ':
			return ^i, escaped
		case c < utf8.RuneSelf:
			i++
		default:
			if i = skipRunes(b, i); i < 0 {
				return i, escaped
			}
		}
	}
	return ^i, escaped
}

// skipRunes walks a run of characters outside ASCII.
func skipRunes(b []byte, i int) int {
	for i < len(b) && b[i] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return ^i
		}
		i += n
	}
	return i
}

func skipEscape(b []byte, i int) int {
	if i++; i >= len(b) {
		return ^i
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		for k := 1; k <= 4; k++ {
			if i+k >= len(b) || hexDigit(b[i+k]) < 0 {
				return ^(i + k)
			}
		}
		return i + 5
	}
	return ^i
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// utf8Fault is the index of the first byte of b that is not UTF-8, or -1.
func utf8Fault(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	i := 0
	for {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
}

// Eight bytes in one word. A result has the high bit set in each byte that
// answers the question; above the lowest such byte there may be false ones
// (a borrow), so callers use only "none" and "the lowest".
const (
	lowBits  = 0x0101010101010101
	highBits = 0x8080808080808080
)

func bytesBelow(w uint64, c byte) uint64 { return (w - lowBits*uint64(c)) &^ w & highBits }

func bytesEqual(w uint64, c byte) uint64 { return bytesBelow(w^lowBits*uint64(c), 1) }

// stringStops marks the bytes of w that are not plain inside a JSON string:
// quote, backslash, control characters, and all that is not ASCII. Flipping
// bit 1 moves the quote to 0x20, next to the control characters, and nothing
// else below 0x21: one comparison finds both.
func stringStops(w uint64) uint64 {
	return (bytesBelow(w^lowBits*0x02, 0x21) | bytesEqual(w, '\\') | w) & highBits
}
