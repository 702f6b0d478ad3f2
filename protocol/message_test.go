package protocol

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"
)

// fragment is a masked frame without the final bit if more is to follow.
func fragment(op Opcode, final bool, payload string) string {
	frame := AppendMaskedFrame(nil, op, [4]byte{0x37, 0xfa, 0x21, 0x3d}, []byte(payload))
	if !final {
		frame[0] &^= bitFin
	}
	return string(frame)
}

// readChunks feeds chunks to r as a connection does: what was not consumed is
// shown again with the next chunk behind it. It returns a line for each
// message and for the error that ended it.
func readChunks(r *MessageReader, limit int, chunks ...string) (lines []string) {
	var pending []byte
	for _, chunk := range chunks {
		pending = append(pending, chunk...)
		b := bytes.Clone(pending)
		for {
			m, n, err := r.Next(b, limit)
			if err != nil {
				return append(lines, err.Error())
			}
			if m.Opcode != 0 {
				lines = append(lines, fmt.Sprintf("%x %q", byte(m.Opcode), m.Payload))
			}
			if n == 0 {
				break
			}
			b, pending = b[n:], pending[n:]
		}
	}
	return lines
}

// bytewise is s in chunks of one byte.
func bytewise(s string) (chunks []string) {
	for i := range len(s) {
		chunks = append(chunks, s[i:i+1])
	}
	return chunks
}

func TestFramesBecomeMessages(t *testing.T) {
	const limit = 40
	tests := []struct {
		name string
		in   string
		want []string
	}{
		{"text", fragment(OpText, true, "hello"), []string{`1 "hello"`}},
		{"binary", fragment(OpBinary, true, "\xff\x00"), []string{`2 "\xff\x00"`}},
		{"empty", fragment(OpText, true, ""), []string{`1 ""`}},
		{"several", fragment(OpText, true, "a") + fragment(OpText, true, "b") + fragment(OpPing, true, "p"), []string{`1 "a"`, `1 "b"`, `9 "p"`}},
		{"fragments", fragment(OpText, false, "he") + fragment(OpContinuation, false, "l") + fragment(OpContinuation, true, "lo"), []string{`1 "hello"`}},
		{"empty fragments", fragment(OpBinary, false, "") + fragment(OpContinuation, false, "") + fragment(OpContinuation, true, ""), []string{`2 ""`}},
		{"message after fragments", fragment(OpText, false, "a") + fragment(OpContinuation, true, "b") + fragment(OpBinary, true, "c") +
			fragment(OpBinary, false, "d") + fragment(OpContinuation, true, "e"), []string{`1 "ab"`, `2 "c"`, `2 "de"`}},
		{"control frames between fragments", fragment(OpText, false, "one ") + fragment(OpPing, true, "ping") + fragment(OpContinuation, false, "two ") +
			fragment(OpPong, true, "pong") + fragment(OpContinuation, true, "three"), []string{`9 "ping"`, `a "pong"`, `1 "one two three"`}},
		{"close between fragments", fragment(OpText, false, "one") + fragment(OpClose, true, "\x03\xe8"), []string{`8 "\x03\xe8"`}},
		{"rune across fragments", fragment(OpText, false, "\xf0\x9f") + fragment(OpContinuation, true, "\x98\x80"), []string{`1 "😀"`}},
		{"message of the limit", fragment(OpBinary, true, strings.Repeat("x", limit)), []string{`2 "` + strings.Repeat("x", limit) + `"`}},
		{"fragments of the limit", fragment(OpBinary, false, strings.Repeat("x", limit-1)) + fragment(OpPing, true, strings.Repeat("p", limit+1)) + fragment(OpContinuation, true, "x"),
			[]string{`9 "` + strings.Repeat("p", limit+1) + `"`, `2 "` + strings.Repeat("x", limit) + `"`}},
		{"message over the limit", fragment(OpBinary, true, strings.Repeat("x", limit+1)), []string{"websocket close 1009: frame is 41 bytes, room for 40"}},
		{"fragments over the limit", fragment(OpBinary, false, strings.Repeat("x", limit-1)) + fragment(OpContinuation, true, "xy"),
			[]string{"websocket close 1009: frame is 2 bytes, room for 1"}},
		{"text that is not UTF-8", fragment(OpText, true, "a\xff"), []string{errTextInvalid.Error()}},
		{"text that ends inside a rune", fragment(OpText, true, "\xe2\x82"), []string{errTextInvalid.Error()}},
		{"fragments that end inside a rune", fragment(OpText, false, "a") + fragment(OpContinuation, true, "\xe2\x82"), []string{errTextInvalid.Error()}},
		{"first fragment breaks the text", fragment(OpText, false, "\xed\xa0") + fragment(OpPing, true, "never read"), []string{errTextInvalid.Error()}},
		{"binary fragments need not be text", fragment(OpBinary, false, "\xed\xa0") + fragment(OpContinuation, true, "\xff"), []string{`2 "\xed\xa0\xff"`}},
		{"text state does not leak into the next", fragment(OpBinary, false, "\xe2") + fragment(OpContinuation, true, "\x82") + fragment(OpText, false, "a") + fragment(OpContinuation, true, "b"),
			[]string{`2 "\xe2\x82"`, `1 "ab"`}},
		{"continuation of nothing", fragment(OpContinuation, true, "x"), []string{"websocket close 1002: continuation frame without a message to continue"}},
		{"continuation after the last fragment", fragment(OpText, false, "a") + fragment(OpContinuation, true, "b") + fragment(OpContinuation, true, "c"),
			[]string{`1 "ab"`, "websocket close 1002: continuation frame without a message to continue"}},
		{"new message inside a message", fragment(OpText, false, "a") + fragment(OpText, true, "b"), []string{"websocket close 1002: new data frame inside a fragmented message"}},
		{"unmasked", "\x81\x01a", []string{"websocket close 1002: client frame is not masked"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := readChunks(&MessageReader{}, limit, tt.in); !slices.Equal(got, tt.want) {
				t.Fatalf("at once: %q, want %q", got, tt.want)
			}
			for cut := range len(tt.in) {
				if got := readChunks(&MessageReader{}, limit, tt.in[:cut], tt.in[cut:]); !slices.Equal(got, tt.want) {
					t.Fatalf("cut at %d: %q, want %q", cut, got, tt.want)
				}
			}
			if got := readChunks(&MessageReader{}, limit, bytewise(tt.in)...); !slices.Equal(got, tt.want) {
				t.Fatalf("byte by byte: %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAMessageTooBigIsRefusedOnItsHeader(t *testing.T) {
	head := fragment(OpBinary, true, strings.Repeat("x", 1000))[:8]
	if got := readChunks(&MessageReader{}, 999, head); len(got) != 1 || !strings.Contains(got[0], "1009") {
		t.Fatalf("got %q, want 1009", got)
	}
	if got := readChunks(&MessageReader{}, 1000, head); got != nil {
		t.Fatalf("got %q, want nothing yet", got)
	}
}

func TestServerMessagesAreNotMasked(t *testing.T) {
	r := NewServerMessageReader()
	in := "\x01\x02he" + "\x89\x00" + "\x80\x03llo" + "\x82\x01x"
	if got, want := readChunks(&r, 100, in), []string{`9 ""`, `1 "hello"`, `2 "x"`}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	r.Reset()
	if got := readChunks(&r, 100, fragment(OpText, true, "x")); len(got) != 1 || !strings.Contains(got[0], "1002") {
		t.Fatalf("masked: %q, want 1002", got)
	}
}

func TestAnUnfinishedFrameIsLeftUntouched(t *testing.T) {
	whole := fragment(OpText, true, "hello, world")
	b := []byte(whole[:len(whole)-1])
	var r MessageReader
	if m, n, err := r.Next(b, 100); m.Opcode != 0 || n != 0 || err != nil {
		t.Fatalf("got %v %d %v", m, n, err)
	}
	if string(b) != whole[:len(b)] {
		t.Fatal("bytes were changed")
	}
}

func TestFragmentMemoryLivesOnlyBetweenFragments(t *testing.T) {
	if size := unsafe.Sizeof(MessageReader{}); size > 16 {
		t.Errorf("idle reader is %d bytes, limit 16", size)
	}
	var r MessageReader
	readChunks(&r, 100, fragment(OpText, false, "a"))
	if r.fragments == nil {
		t.Fatal("no fragment was kept")
	}
	readChunks(&r, 100, fragment(OpContinuation, true, "b"))
	if r.fragments != nil {
		t.Fatal("memory is held after the message was taken")
	}
	readChunks(&r, 100, fragment(OpText, false, "a"))
	r.Reset()
	if r != (MessageReader{text: r.text}) {
		t.Fatalf("state after Reset: %+v", r)
	}
	if got, want := readChunks(&r, 100, fragment(OpText, true, "fresh")), []string{`1 "fresh"`}; !slices.Equal(got, want) {
		t.Fatalf("after Reset: %q, want %q", got, want)
	}
}

func TestReadingMessagesDoesNotAllocate(t *testing.T) {
	whole := []byte(fragment(OpText, true, strings.Repeat("x", 100)) + fragment(OpPing, true, ""))
	pieces := []byte(fragment(OpText, false, strings.Repeat("x", 100)) + fragment(OpPing, true, "") + fragment(OpContinuation, true, "y"))
	tests := []struct {
		name string
		in   []byte
	}{{"whole", whole}, {"fragmented", pieces}}
	for _, tt := range tests {
		if tt.name == "fragmented" && raceEnabled {
			continue // the race detector has sync.Pool forget at random
		}
		var r MessageReader
		scratch := make([]byte, len(tt.in))
		allocs := testing.AllocsPerRun(100, func() {
			b := scratch[:copy(scratch, tt.in)]
			for {
				_, n, err := r.Next(b, 1<<16)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				b = b[n:]
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations, want 0", tt.name, allocs)
		}
	}
}

// FuzzMessageReader checks that no chunking of the input changes what is read,
// and that what is read keeps the promises.
func FuzzMessageReader(f *testing.F) {
	f.Add([]byte(fragment(OpText, true, "hello")), uint16(3), uint16(7))
	f.Add([]byte(fragment(OpText, false, "\xf0\x9f")+fragment(OpPing, true, "p")+fragment(OpContinuation, true, "\x98\x80")), uint16(6), uint16(9))
	f.Add([]byte(fragment(OpBinary, false, "a")+fragment(OpContinuation, true, "b")+fragment(OpClose, true, "\x03\xe8")), uint16(1), uint16(2))
	f.Add([]byte(fragment(OpText, true, strings.Repeat("x", 300))), uint16(100), uint16(200))
	f.Fuzz(func(t *testing.T, in []byte, cut1, cut2 uint16) {
		const limit = 200
		s := string(in)
		i := int(cut1) % (len(s) + 1)
		j := i + int(cut2)%(len(s)-i+1)
		want := readChunks(&MessageReader{}, limit, s)
		if got := readChunks(&MessageReader{}, limit, s[:i], s[i:j], s[j:]); !slices.Equal(got, want) {
			t.Fatalf("cut at %d and %d: %q, at once %q", i, j, got, want)
		}
		if got := readChunks(&MessageReader{}, limit, bytewise(s)...); !slices.Equal(got, want) {
			t.Fatalf("byte by byte: %q, at once %q", got, want)
		}
		var r MessageReader
		for b := bytes.Clone(in); ; {
			m, n, err := r.Next(b, limit)
			if err != nil {
				closeCodeOf(t, err)
				break
			}
			if len(m.Payload) > limit {
				t.Fatalf("message of %d bytes, limit %d", len(m.Payload), limit)
			}
			if m.Opcode == OpText && !utf8.Valid(m.Payload) {
				t.Fatalf("text is not UTF-8: %q", m.Payload)
			}
			if n == 0 {
				break
			}
			b = b[n:]
		}
	})
}

func BenchmarkMessageReader(b *testing.B) {
	const frames = 100
	for _, size := range []int{16, 100, 1024} {
		b.Run(fmt.Sprintf("text=%d", size), func(b *testing.B) {
			one := fragment(OpText, true, strings.Repeat("x", size))
			in := []byte(strings.Repeat(one, frames))
			scratch := make([]byte, len(in))
			var r MessageReader
			b.SetBytes(int64(len(one)))
			for i := 0; i < b.N; i += frames {
				rest := scratch[:copy(scratch, in)]
				for len(rest) > 0 {
					_, n, err := r.Next(rest, 1<<16)
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
	b.Run("fragments=3x33", func(b *testing.B) {
		part := strings.Repeat("x", 33)
		in := []byte(fragment(OpText, false, part) + fragment(OpContinuation, false, part) + fragment(OpContinuation, true, part))
		scratch := make([]byte, len(in))
		var r MessageReader
		for b.Loop() {
			rest := scratch[:copy(scratch, in)]
			if m, _, err := r.Next(rest, 1<<16); err != nil || len(m.Payload) != 99 {
				b.Fatal(err)
			}
		}
	})
}
