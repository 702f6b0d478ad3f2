package protocol

import (
	"testing"
	"unicode/utf8"
)

// texts is valid and invalid UTF-8 around every rule of RFC 3629.
var texts = []string{
	"", "a", "ascii only", "é", "κόσμε", "€", "😀", "a😀b€cé",
	"\u0000", "\u007f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff",
	"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3\x28", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x82",
	"\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x9f\x98", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
	"\xfe", "\xff", "ok\xffok", "κόσμε\xed\xa0\x80edited", "a\xe2\x28\xa1", "\xf0\x9f\x98\xf0\x9f\x98\x80",
}

func TestTextInPiecesIsTextAtOnce(t *testing.T) {
	for _, text := range texts {
		for i := range len(text) + 1 {
			for j := i; j <= len(text); j++ {
				var u UTF8
				ok := u.Write([]byte(text[:i]))
				ok = u.Write([]byte(text[i:j])) && ok
				ok = u.Write([]byte(text[j:])) && ok
				if got := ok && u.Complete(); got != utf8.ValidString(text) {
					t.Fatalf("%q cut at %d and %d: valid %v", text, i, j, got)
				}
			}
		}
	}
}

func TestTextFailsAtTheFirstImpossibleByte(t *testing.T) {
	tests := []struct {
		text string
		at   int // index of the byte that decides
	}{
		{"\x80", 0},
		{"\xc0\x80", 0},
		{"\xf5\x80\x80\x80", 0},
		{"\xe0\x80\x80", 1},
		{"\xed\xa0\x80", 1},
		{"\xf4\x90\x80\x80", 1},
		{"\xe2\x82\x28", 2},
		{"\xf0\x9f\x98\x28", 3},
		{"κόσμε\xed\xa0\x80", 11},
	}
	for _, tt := range tests {
		var u UTF8
		for i := range len(tt.text) {
			ok := u.Write([]byte{tt.text[i]})
			if want := i < tt.at; ok != want {
				t.Errorf("%q: byte %d accepted: %v, want %v", tt.text, i, ok, want)
			}
		}
		if u.Complete() {
			t.Errorf("%q is complete", tt.text)
		}
	}
}
