package protocol

import (
	"bytes"
	"encoding/base64"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendJSONString appends s as a quoted JSON string. Escaped are what RFC 8259
// demands (quote, backslash, C0) and U+2028 and U+2029, which end lines in
// older JavaScript. Bytes that are not UTF-8 become U+FFFD.
func AppendJSONString(dst, s []byte) []byte { return appendQuoted(dst, s) }

// AppendJSONStringOf is AppendJSONString for a string.
func AppendJSONStringOf(dst []byte, s string) []byte { return appendQuoted(dst, s) }

func appendQuoted[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	plain := 0 // s[plain:i] needs no escape and is not appended yet
	for i := 0; i < len(s); {
		if i+8 <= len(s) {
			stops := stringStops(uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
				uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56)
			if stops == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stops) >> 3
		}
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size, escaped := 1, true
		var r rune
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			escaped = r == '\u2028' || r == '\u2029' || r == utf8.RuneError && size == 1
		}
		if escaped {
			dst = append(dst, s[plain:i]...)
			dst = appendEscape(dst, c, r)
			plain = i + size
		}
		i += size
	}
	dst = append(dst, s[plain:]...)
	return append(dst, '"')
}

// appendEscape appends the escape of the ASCII byte c, or of the character r
// if c is not ASCII.
func appendEscape(dst []byte, c byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch {
	case r == utf8.RuneError:
		return append(dst, "\uFFFD"...)
	case r != 0:
		return append(dst, '\\', 'u', '2', '0', '2', hex[r&0xf])
	}
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// appendUnescaped appends what the inside of a JSON string means. s has been
// walked by skipString. As encoding/json does, it makes U+FFFD of a lone
// surrogate, which has no UTF-8.
func appendUnescaped(dst, s []byte) []byte {
	for {
		n := bytes.IndexByte(s, '\\')
		if n < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:n]...)
		c := s[n+1]
		if c != 'u' {
			dst = append(dst, unescape(c))
			s = s[n+2:]
			continue
		}
		r := unescapeUnit(s[n:])
		s = s[n+6:]
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
				pair = utf16.DecodeRune(r, unescapeUnit(s))
			}
			if r = pair; pair != utf8.RuneError {
				s = s[6:]
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
}

func unescape(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// unescapeUnit is the UTF-16 unit of the \uXXXX at the start of s.
func unescapeUnit(s []byte) (r rune) {
	for _, c := range s[2:6] {
		r = r<<4 | rune(hexDigit(c))
	}
	return r
}

// strictBase64 is RFC 4648 §4 in its one canonical spelling: padded, so that a
// payload cut short is noticed, and with zero bits after the last byte.
var strictBase64 = base64.StdEncoding.Strict()

// base64Size is how many bytes s will decode to if it is well formed.
func base64Size(s []byte) int {
	n := len(s) / 4 * 3
	for k := 1; k <= 2 && k <= len(s) && s[len(s)-k] == '='; k++ {
		n--
	}
	return max(n, 0)
}

// appendBase64Decoded appends the decoded bytes. encoding/base64 skips line
// breaks, this protocol does not: then fewer bytes come out than there should.
func appendBase64Decoded(dst, s []byte) (decoded []byte, ok bool) {
	decoded, err := strictBase64.AppendDecode(dst, s)
	return decoded, err == nil && len(s)%4 == 0 && len(decoded)-len(dst) == base64Size(s)
}
