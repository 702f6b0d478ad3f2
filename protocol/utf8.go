package protocol

import "unicode/utf8"

// UTF8 checks text that comes in pieces, whose borders may be inside a rune.
// It refuses at the first byte that no valid text can have there, not at the
// end of the rune. The zero value is ready; whoever has it owns it.
type UTF8 struct {
	partial [utf8.UTFMax]byte // the unfinished rune at the end of what was seen
	n       uint8             // bytes in partial
	invalid bool
}

// Write takes the next piece and reports whether everything so far can still
// become valid text. Once false, it stays false. p is not kept.
func (u *UTF8) Write(p []byte) bool {
	if u.invalid {
		return false
	}
	for u.n > 0 && len(p) > 0 {
		u.partial[u.n] = p[0]
		u.n++
		p = p[1:]
		// FullRune is also true once the rune cannot become valid any more.
		if seq := u.partial[:u.n]; utf8.FullRune(seq) {
			if !utf8.Valid(seq) {
				u.invalid = true
				return false
			}
			u.n = 0
		}
	}
	whole := len(p) - unfinished(p)
	u.n += uint8(copy(u.partial[u.n:], p[whole:]))
	u.invalid = !utf8.Valid(p[:whole])
	return !u.invalid
}

// Complete reports whether what was written is valid text as it stands.
func (u *UTF8) Complete() bool { return !u.invalid && u.n == 0 }

// unfinished is the length of the rune at p's end that wants more bytes, 0 if
// p ends between runes or in an error.
func unfinished(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if tail := p[len(p)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
