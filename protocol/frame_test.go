package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// closeCodeOf is the close code of an error, 0 for none.
func closeCodeOf(t testing.TB, err error) CloseCode {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*CloseError](err)
	if !ok {
		t.Fatalf("error is %T, want *CloseError: %v", err, err)
	}
	return e.Code
}

func TestFrameHeadersAreParsedAsTheyStand(t *testing.T) {
	mask := [4]byte{1, 2, 3, 4}
	tests := []struct {
		name string
		in   string
		want Header
	}{
		{"empty final text", "\x81\x00", Header{Fin: true, Opcode: OpText, Size: 2}},
		{"masked", "\x82\x83\x01\x02\x03\x04", Header{Fin: true, Opcode: OpBinary, Masked: true, Mask: mask, Length: 3, Size: 6}},
		{"not final", "\x01\x05", Header{Opcode: OpText, Length: 5, Size: 2}},
		{"reserved bits", "\xf1\x00", Header{Fin: true, Rsv: 7, Opcode: OpText, Size: 2}},
		{"first reserved bit", "\xc1\x00", Header{Fin: true, Rsv: 4, Opcode: OpText, Size: 2}},
		{"longest short length", "\x82\x7d", Header{Fin: true, Opcode: OpBinary, Length: 125, Size: 2}},
		{"two byte length", "\x82\x7e\x01\x00", Header{Fin: true, Opcode: OpBinary, Length: 256, Size: 4}},
		{"two byte length, masked", "\x82\xfe\xff\xff\x01\x02\x03\x04", Header{Fin: true, Opcode: OpBinary, Masked: true, Mask: mask, Length: 65535, Size: 8}},
		{"eight byte length", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", Header{Fin: true, Opcode: OpBinary, Length: 65536, Size: 10}},
		{"eight byte length, masked", "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04", Header{Fin: true, Opcode: OpBinary, Masked: true, Mask: mask, Length: 1<<64 - 1, Size: 14}},
		{"unknown opcode", "\x0f\x00", Header{Opcode: 0xf, Size: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for cut := range len(tt.in) {
				if h, ok := NextFrame([]byte(tt.in[:cut])); ok {
					t.Fatalf("header from %d of %d bytes: %+v", cut, len(tt.in), h)
				}
			}
			for _, more := range []string{"", "x", "payload"} {
				h, ok := NextFrame([]byte(tt.in + more))
				if !ok || h != tt.want {
					t.Fatalf("got %+v %v, want %+v", h, ok, tt.want)
				}
			}
		})
	}
}

func TestFramesAreJudgedByDirectionStateAndSize(t *testing.T) {
	const room = 70000
	tests := []struct {
		name       string
		header     string // without mask
		fragmented bool
		want       CloseCode
	}{
		{"text", "\x81\x05", false, 0},
		{"binary", "\x82\x05", false, 0},
		{"first fragment", "\x01\x05", false, 0},
		{"middle fragment", "\x00\x05", true, 0},
		{"last fragment", "\x80\x05", true, 0},
		{"ping", "\x89\x7d", false, 0},
		{"ping between fragments", "\x89\x00", true, 0},
		{"pong", "\x8a\x00", false, 0},
		{"close", "\x88\x02", false, 0},
		{"reserved bit 1", "\xc1\x05", false, CloseProtocol},
		{"reserved bit 2", "\xa1\x05", false, CloseProtocol},
		{"reserved bit 3", "\x91\x05", false, CloseProtocol},
		{"reserved data opcode", "\x83\x05", false, CloseProtocol},
		{"reserved control opcode", "\x8b\x05", false, CloseProtocol},
		{"continuation of nothing", "\x80\x05", false, CloseProtocol},
		{"text inside a message", "\x81\x05", true, CloseProtocol},
		{"binary inside a message", "\x02\x05", true, CloseProtocol},
		{"fragmented ping", "\x09\x00", false, CloseProtocol},
		{"ping of 126 bytes", "\x89\x7e\x00\x7e", false, CloseProtocol},
		{"ping with a long length for a short payload", "\x89\x7e\x00\x05", false, CloseProtocol},
		{"two byte length for 125", "\x82\x7e\x00\x7d", false, CloseProtocol},
		{"two byte length for 126", "\x82\x7e\x00\x7e", false, 0},
		{"eight byte length for 65535", "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", false, CloseProtocol},
		{"eight byte length for 65536", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", false, 0},
		{"exactly the room", "\x82\x7f\x00\x00\x00\x00\x00\x01\x11\x70", false, 0},
		{"one over the room", "\x82\x7f\x00\x00\x00\x00\x00\x01\x11\x71", false, CloseTooBig},
		{"fragment over the room", "\x00\x7f\x00\x00\x00\x00\x00\x01\x11\x71", true, CloseTooBig},
		{"63 bits", "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", false, CloseTooBig},
		{"64 bits", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", false, CloseProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plain, ok := NextFrame([]byte(tt.header))
			if !ok {
				t.Fatal("header is incomplete")
			}
			b := []byte(tt.header + "mask")
			b[1] |= bitMask
			masked, ok := NextFrame(b)
			if !ok {
				t.Fatal("masked header is incomplete")
			}
			if got := closeCodeOf(t, CheckClientFrame(masked, tt.fragmented, room)); got != tt.want {
				t.Errorf("from a client: %d, want %d", got, tt.want)
			}
			if got := closeCodeOf(t, CheckServerFrame(plain, tt.fragmented, room)); got != tt.want {
				t.Errorf("from a server: %d, want %d", got, tt.want)
			}
			if got := closeCodeOf(t, CheckClientFrame(plain, tt.fragmented, room)); got != CloseProtocol {
				t.Errorf("unmasked from a client: %d, want 1002", got)
			}
			if got := closeCodeOf(t, CheckServerFrame(masked, tt.fragmented, room)); got != CloseProtocol {
				t.Errorf("masked from a server: %d, want 1002", got)
			}
		})
	}
}

func TestControlFramesNeedNoRoom(t *testing.T) {
	h, _ := NextFrame([]byte("\x89\x85mask"))
	if err := CheckClientFrame(h, true, 0); err != nil {
		t.Fatal(err)
	}
	h, _ = NextFrame([]byte("\x80\x81mask"))
	for _, room := range []int{0, -1} {
		if got := closeCodeOf(t, CheckClientFrame(h, true, room)); got != CloseTooBig {
			t.Fatalf("1 byte with room %d: %d, want 1009", room, got)
		}
	}
}

func TestAppendedFramesParseBack(t *testing.T) {
	mask := [4]byte{0xde, 0xad, 0xbe, 0xef}
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 65537} {
		payload := bytes.Repeat([]byte("rayflux"), n/7+1)[:n]

		frame := AppendFrame([]byte("before"), OpBinary, payload)[len("before"):]
		h, ok := NextFrame(frame)
		if !ok || CheckServerFrame(h, false, n) != nil || h.Opcode != OpBinary || !bytes.Equal(frame[h.Size:], payload) {
			t.Fatalf("%d bytes: header %+v ok %v", n, h, ok)
		}

		for _, m := range [][4]byte{mask, {}} {
			frame = AppendMaskedFrame([]byte("before"), OpText, m, payload)[len("before"):]
			h, ok = NextFrame(frame)
			if !ok || CheckClientFrame(h, false, n) != nil || h.Opcode != OpText || h.Mask != m {
				t.Fatalf("%d bytes masked: header %+v ok %v", n, h, ok)
			}
			Unmask(frame[h.Size:], h.Mask, 0)
			if !bytes.Equal(frame[h.Size:], payload) {
				t.Fatalf("%d bytes masked: payload differs", n)
			}
		}
	}
}

func TestUnmaskingInPiecesIsUnmaskingAtOnce(t *testing.T) {
	mask := [4]byte{0x11, 0x82, 0x43, 0xf4}
	for _, n := range []int{0, 1, 3, 15, 16, 17, 31, 64, 65, 130, 257} {
		plain := make([]byte, n)
		want := make([]byte, n)
		for i := range plain {
			plain[i] = byte(i * 7)
			want[i] = plain[i] ^ mask[i%4]
		}
		for cut := range n + 1 {
			got := bytes.Clone(plain)
			Unmask(got[:cut], mask, 0)
			Unmask(got[cut:], mask, cut)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes cut at %d: payload differs", n, cut)
			}
		}
	}
}

func TestCloseFrames(t *testing.T) {
	tests := []struct {
		name   string
		code   CloseCode
		reason string
		want   string
	}{
		{"code and reason", CloseGoingAway, "bye", "\x88\x05\x03\xe9bye"},
		{"code alone", CloseNormal, "", "\x88\x02\x03\xe8"},
		{"our own code", CloseSlow, "slow reader", "\x88\x0d\x0f\xa8slow reader"},
		{"no status is an empty frame", CloseNoStatus, "ignored", "\x88\x00"},
		{"abnormal is never sent", CloseAbnormal, "", "\x88\x00"},
		{"longest reason", ClosePolicy, strings.Repeat("a", 123), "\x88\x7d\x03\xf0" + strings.Repeat("a", 123)},
		{"reason is cut", ClosePolicy, strings.Repeat("a", 124), "\x88\x7d\x03\xf0" + strings.Repeat("a", 123)},
		{"reason is cut between runes", ClosePolicy, strings.Repeat("a", 122) + "é", "\x88\x7c\x03\xf0" + strings.Repeat("a", 122)},
		{"reason is cut before a long rune", ClosePolicy, strings.Repeat("a", 120) + "😀b", "\x88\x7a\x03\xf0" + strings.Repeat("a", 120)},
		{"reason that is not UTF-8", ClosePolicy, "a\xffb", "\x88\x05\x03\xf0a?b"},
		{"reason of continuation bytes", ClosePolicy, strings.Repeat("\x80", 130), "\x88\x03\x03\xf0?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := AppendClose(nil, tt.code, tt.reason)
			if string(got) != tt.want {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			code, reason, err := ParseClose(got[2:])
			if err != nil || !utf8.Valid(reason) {
				t.Fatalf("parsed back: %d %q %v", code, reason, err)
			}
			if tt.code.OnWire() && code != tt.code {
				t.Fatalf("parsed back: %d, want %d", code, tt.code)
			}
		})
	}
}

func TestClosePayloads(t *testing.T) {
	payload := func(code CloseCode, reason string) string {
		return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
	}
	tests := []struct {
		name    string
		payload string
		code    CloseCode
		reason  string
		err     CloseCode
	}{
		{"empty", "", CloseNoStatus, "", 0},
		{"one byte", "\x03", 0, "", CloseProtocol},
		{"code", payload(1000, ""), CloseNormal, "", 0},
		{"reason", payload(1001, "so long"), CloseGoingAway, "so long", 0},
		{"reason that is not UTF-8", payload(1000, "\xc3\x28"), 0, "", CloseInvalidUTF8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, reason, err := ParseClose([]byte(tt.payload))
			if got := closeCodeOf(t, err); got != tt.err {
				t.Fatalf("error %v, want %d", err, tt.err)
			}
			if code != tt.code || string(reason) != tt.reason {
				t.Fatalf("got %d %q, want %d %q", code, reason, tt.code, tt.reason)
			}
		})
	}
	for _, code := range []CloseCode{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		if _, _, err := ParseClose([]byte(payload(code, ""))); closeCodeOf(t, err) != CloseProtocol {
			t.Errorf("close code %d: %v, want 1002", code, err)
		}
	}
	for _, code := range []CloseCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4008, 4999} {
		if got, _, err := ParseClose([]byte(payload(code, ""))); err != nil || got != code {
			t.Errorf("close code %d: %d %v", code, got, err)
		}
	}
}

func TestFramesDoNotAllocate(t *testing.T) {
	frame := AppendMaskedFrame(nil, OpText, [4]byte{1, 2, 3, 4}, []byte("hello, world"))
	dst := make([]byte, 0, 256)
	payload := []byte("hello, world")
	allocs := testing.AllocsPerRun(100, func() {
		h, ok := NextFrame(frame)
		if !ok || CheckClientFrame(h, false, 1<<16) != nil {
			t.Fatal("frame was refused")
		}
		Unmask(frame[h.Size:], h.Mask, 0)
		dst = AppendFrame(dst[:0], OpBinary, payload)
		dst = AppendMaskedFrame(dst[:0], OpBinary, h.Mask, payload)
		dst = AppendClose(dst[:0], CloseGoingAway, "going away")
		if _, _, err := ParseClose(dst[2:]); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations a frame, want 0", allocs)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x85\x01\x02\x03\x04hello"), false)
	f.Add([]byte("\x82\x7e\x01\x00"), true)
	f.Add([]byte("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00mask"), false)
	f.Add([]byte("\x88\x02\x03\xe8"), false)
	f.Fuzz(func(t *testing.T, b []byte, fragmented bool) {
		const room = 1 << 16
		h, ok := NextFrame(b)
		if !ok {
			if len(b) >= 14 {
				t.Fatalf("no header in %d bytes", len(b))
			}
			return
		}
		if h.Size > len(b) || h.Size < 2 {
			t.Fatalf("header of %d bytes from %d", h.Size, len(b))
		}
		for cut := range h.Size {
			if _, ok := NextFrame(b[:cut]); ok {
				t.Fatalf("header from %d of %d bytes", cut, h.Size)
			}
		}
		client, server := CheckClientFrame(h, fragmented, room), CheckServerFrame(h, fragmented, room)
		if client == nil && server == nil {
			t.Fatal("accepted in both directions")
		}
		if client != nil && server != nil || !h.Fin || h.Opcode == OpContinuation {
			return
		}
		// What was accepted is what an encoder of ours would have written.
		payload := make([]byte, h.Length)
		var again []byte
		if h.Masked {
			again = AppendMaskedFrame(nil, h.Opcode, h.Mask, payload)
		} else {
			again = AppendFrame(nil, h.Opcode, payload)
		}
		if !bytes.Equal(again[:h.Size], b[:h.Size]) {
			t.Fatalf("header %x, encoded again %x", b[:h.Size], again[:h.Size])
		}
	})
}

func BenchmarkNextFrame(b *testing.B) {
	frame := AppendMaskedFrame(nil, OpText, [4]byte{1, 2, 3, 4}, bytes.Repeat([]byte("x"), 100))
	for b.Loop() {
		h, ok := NextFrame(frame)
		if !ok || CheckClientFrame(h, false, 1<<16) != nil {
			b.Fatal("frame was refused")
		}
	}
}
