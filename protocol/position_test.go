package protocol

import (
	"math"
	"strings"
	"testing"
)

func TestPositionsThereAndBack(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Position
	}{
		{"E:57", Position{"E", 57}},
		{"E:0", Position{"E", 0}},
		{"0aZ_-:18446744073709551615", Position{"0aZ_-", math.MaxUint64}},
		{"0123456789abcdef:1", Position{"0123456789abcdef", 1}},
	} {
		epoch, offset, err := ParsePosition([]byte(tt.text))
		if err != nil || string(epoch) != tt.want.Epoch || offset != tt.want.Offset {
			t.Errorf("ParsePosition(%q) = %s, %d, %v", tt.text, epoch, offset, err)
		}
		if got := tt.want.String(); got != tt.text {
			t.Errorf("position is written %q, want %q", got, tt.text)
		}
	}
}

func TestPositionsThatAreNone(t *testing.T) {
	for _, tt := range []struct{ text, word string }{
		{"", "EPOCH:OFFSET"}, {"E", `"E"`}, {":1", "epoch is 0 bytes"},
		{"0123456789abcdefg:1", "17 bytes"}, {"a.b:1", `"a.b"`}, {"é:1", `"é"`}, {"a b:1", `"a b"`},
		{"E:", `offset is ""`}, {"E:-1", `"-1"`}, {"E:+1", `"+1"`}, {"E:01", `"01"`}, {"E:1 ", `"1 "`}, {"E:1:2", `"1:2"`},
		{"E:18446744073709551616", "18446744073709551615"}, {"E:99999999999999999999", "offset"},
		{"E:" + strings.Repeat("9", 5000), "999..."}, {"E:\xff", `"?"`},
	} {
		_, _, err := ParsePosition([]byte(tt.text))
		wantError(t, err, CodeBadRequest, tt.word)
	}
}

// A position has no end of its own: a cut can only be told where it takes the
// last digit away.
func TestPositionsCutShort(t *testing.T) {
	eachCut([]byte("E1:5"), func(cut []byte) {
		if _, _, err := ParsePosition(cut); err == nil {
			t.Errorf("ParsePosition(%q) has no error", cut)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add([]byte("E:57"))
	f.Fuzz(func(t *testing.T, b []byte) {
		epoch, offset, err := ParsePosition(b)
		if err != nil {
			return
		}
		if again := (Position{string(epoch), offset}).String(); again != string(b) {
			t.Fatalf("%q was read and is written %q", b, again)
		}
	})
}
