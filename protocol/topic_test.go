package protocol

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// wantError fails unless err is an *Error with code whose message has each of
// the words.
func wantError(t testing.TB, err error, code Code, words ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e == nil {
		t.Fatalf("error is %v, want code %s", err, code)
	}
	if e.Code != code {
		t.Fatalf("error is %q, want code %s", e, code)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			t.Fatalf("error says %q, want %q in it", e.Message, word)
		}
	}
	if !utf8.ValidString(e.Message) {
		t.Fatalf("error says %q, which is not UTF-8", e.Message)
	}
}

func wantNoAllocs(t *testing.T, name string, f func()) {
	t.Helper()
	f() // a Scratch or a buffer may grow once
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times, want 0", name, n)
	}
}

// eachCut calls f with every proper prefix of b, in memory of its own that
// ends where the prefix does.
func eachCut(b []byte, f func(cut []byte)) {
	for n := range b {
		f(append(make([]byte, 0, n), b[:n]...))
	}
}

func TestTopicNames(t *testing.T) {
	for _, name := range []string{
		"t", "a/b.c:d", "with space", " ", "a$", "Größe", "温度/七", "\u00a0", strings.Repeat("x", 255),
		strings.Repeat("é", 127), "12345678", "123456789", "{}\"\\",
	} {
		if err := CheckTopic([]byte(name)); err != nil {
			t.Errorf("CheckTopic(%q) = %v", name, err)
		}
	}
	for _, tt := range []struct {
		name  string
		words []string
	}{
		{"", []string{"empty"}},
		{strings.Repeat("x", 301), []string{"301 bytes", "limit 255"}},
		{"$sys", []string{`"$sys"`}},
		{"a\x00b", []string{"U+0000", "byte 1 of 3"}},
		{"12345678\n", []string{"U+000A", "byte 8"}},
		{"1234567\x1f90", []string{"U+001F", "byte 7"}},
		{"del\x7f", []string{"U+007F"}},
		{"c1\u0085", []string{"U+0085"}},
		{"c1\u009fx", []string{"U+009F"}},
		{"\xff", []string{"UTF-8", "byte 0 of 1"}},
		{"12345678\xc3", []string{"UTF-8", "byte 8 of 9"}},
		{"\xed\xa0\x80", []string{"UTF-8"}}, // a surrogate
		{"\xc0\x80", []string{"UTF-8"}},     // not the shortest form
	} {
		wantError(t, CheckTopic([]byte(tt.name)), CodeTopicInvalid, tt.words...)
	}
}

func TestEveryControlCharacterIsRefusedAtEveryPlace(t *testing.T) {
	for c := rune(0); c < 0x100; c++ {
		for at := range 20 {
			name := strings.Repeat("x", at) + string(c) + strings.Repeat("y", 20-at)
			control := c < ' ' || c >= 0x7f && c <= 0x9f
			reserved := c == '$' && at == 0
			if err := CheckTopic([]byte(name)); (err == nil) == (control || reserved) {
				t.Fatalf("CheckTopic(%q) = %v", name, err)
			}
		}
	}
}

func TestCheckingTopicsDoesNotAllocate(t *testing.T) {
	ascii, other := []byte(benchTopic), []byte("温度/七/Größe")
	wantNoAllocs(t, "CheckTopic", func() {
		if CheckTopic(ascii) != nil || CheckTopic(other) != nil {
			t.Fatal("refused")
		}
	})
}
