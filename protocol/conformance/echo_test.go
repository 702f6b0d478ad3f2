package main

import (
	"bytes"
	"io"
	"net"
	"testing"

	"rayflux/protocol"
)

const handshake = "GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// exchange sends everything at once and returns what came after the handshake, up to the end.
func exchange(t *testing.T, frames ...[]byte) []byte {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serveEcho(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(append([]byte(handshake), bytes.Join(frames, nil)...)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := bytes.Cut(got, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("no handshake in %q", got)
	}
	return after
}

func masked(op protocol.Opcode, payload string) []byte {
	return protocol.AppendMaskedFrame(nil, op, [4]byte{1, 2, 3, 4}, []byte(payload))
}

func TestEchoesAnswersPingsAndCloses(t *testing.T) {
	got := exchange(t,
		masked(protocol.OpText, "a"), masked(protocol.OpPing, "p"), masked(protocol.OpBinary, "b"),
		masked(protocol.OpClose, "\x03\xe8"), masked(protocol.OpText, "after the close"))
	var want []byte
	want = protocol.AppendFrame(want, protocol.OpText, []byte("a"))
	want = protocol.AppendFrame(want, protocol.OpPong, []byte("p"))
	want = protocol.AppendFrame(want, protocol.OpBinary, []byte("b"))
	want = protocol.AppendClose(want, protocol.CloseNormal, "")
	if !bytes.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

func TestBrokenFrameIsAnsweredBeforeTheConnectionEnds(t *testing.T) {
	unmasked := protocol.AppendFrame(nil, protocol.OpText, make([]byte, 1<<20))
	got := exchange(t, unmasked)
	h, ok := protocol.NextFrame(got)
	if !ok || h.Opcode != protocol.OpClose {
		t.Fatalf("got %q, want a close frame", got)
	}
	if code, _, _ := protocol.ParseClose(got[h.Size:]); code != protocol.CloseProtocol {
		t.Fatalf("closed with %d, want %d", code, protocol.CloseProtocol)
	}
}
