package protocol

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// handshake is RFC 6455's example (§1.2), with fields changed: a field given
// as "Name:" is left out, one that is not in the example is added.
func handshake(fields ...string) string {
	lines := []string{"GET /ws HTTP/1.1", "Host: server.example.com", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: http://example.com", "Sec-WebSocket-Version: 13"}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		for i, line := range lines {
			if strings.HasPrefix(line, name+":") {
				lines = append(lines[:i], lines[i+1:]...)
				break
			}
		}
		if value != "" {
			lines = append(lines, f)
		}
	}
	return crlfs(lines...)
}

var nativeSubprotocols = []string{"rayflux.v1.json", "rayflux.v1.bin"}

func TestHandshakesAreAnswered(t *testing.T) {
	tests := []struct {
		name   string
		head   string
		chosen string
	}{
		{"the example of the RFC", handshake(), ""},
		{"the first that the client wants", handshake("Sec-WebSocket-Protocol: rayflux.v1.bin, rayflux.v1.json"), "rayflux.v1.bin"},
		{"the first that is known", handshake("Sec-WebSocket-Protocol: chat,  rayflux.v1.json ,rayflux.v1.bin"), "rayflux.v1.json"},
		{"wishes over several headers", strings.Replace(handshake("Sec-WebSocket-Protocol: chat"), "\r\n\r\n", "\r\nSec-WebSocket-Protocol: rayflux.v1.bin\r\n\r\n", 1), "rayflux.v1.bin"},
		{"none that is known", handshake("Sec-WebSocket-Protocol: chat, superchat"), ""},
		{"names differ in case", handshake("Sec-WebSocket-Protocol: RAYFLUX.V1.BIN"), ""},
		{"extensions are not taken", handshake("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), ""},
		{"what Firefox sends", handshake("Connection: keep-alive, Upgrade"), ""},
		{"header names in lower case", strings.ReplaceAll(handshake(), "Sec-WebSocket-", "sec-websocket-"), ""},
		{"an empty line first", "\r\n" + handshake("Sec-WebSocket-Protocol: rayflux.v1.bin"), "rayflux.v1.bin"},
		{"a long cookie", handshake("Cookie: " + strings.Repeat("c", 6000)), ""},
		{"an empty body", handshake("Content-Length: 0"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head := []byte(tt.head)
			response, chosen, err := Upgrade(head, nativeSubprotocols)
			if err != nil {
				t.Fatal(err)
			}
			if chosen != tt.chosen {
				t.Fatalf("chosen %q, want %q", chosen, tt.chosen)
			}
			if string(head) != tt.head {
				t.Fatal("the head was changed")
			}
			got, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(response)), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}}
			if tt.chosen != "" {
				want["Sec-Websocket-Protocol"] = []string{tt.chosen}
			}
			if got.StatusCode != 101 || len(got.Header) != len(want) {
				t.Fatalf("got %d %v, want %v", got.StatusCode, got.Header, want)
			}
			for name := range want {
				if got.Header.Get(name) != want.Get(name) {
					t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want.Get(name))
				}
			}
			if !bytes.HasSuffix(response, []byte("\r\n\r\n")) {
				t.Errorf("response does not end its head: %q", response)
			}
		})
	}
}

func TestRefusedHandshakes(t *testing.T) {
	tests := []struct {
		name   string
		head   string
		status int
	}{
		{"another method", strings.Replace(handshake(), "GET", "POST", 1), 405},
		{"HTTP/1.0", strings.Replace(handshake(), "HTTP/1.1", "HTTP/1.0", 1), 400},
		{"HTTP/2.0", strings.Replace(handshake(), "HTTP/1.1", "HTTP/2.0", 1), 505},
		{"no host", handshake("Host:"), 400},
		{"no upgrade", handshake("Upgrade:"), 400},
		{"another upgrade", handshake("Upgrade: h2c"), 400},
		{"no connection", handshake("Connection:"), 400},
		{"another connection", handshake("Connection: keep-alive"), 400},
		{"no key", handshake("Sec-WebSocket-Key:"), 400},
		{"an empty key", handshake("Sec-WebSocket-Key: "), 400},
		{"a short key", handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400},
		{"a key of 18 bytes", handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQab"), 400},
		{"a key that is not base64", handshake("Sec-WebSocket-Key: ????????????????????????"), 400},
		{"two keys", strings.Replace(handshake(), "Origin: http://example.com", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", 1), 400},
		{"no version", handshake("Sec-WebSocket-Version:"), 400},
		{"an old version", handshake("Sec-WebSocket-Version: 8"), 426},
		{"several versions", handshake("Sec-WebSocket-Version: 13, 8"), 426},
		{"two version headers", strings.Replace(handshake(), "Origin: http://example.com", "Sec-WebSocket-Version: 13", 1), 400},
		{"a malformed list of subprotocols", handshake("Sec-WebSocket-Protocol: a;b"), 400},
		{"a body", handshake("Content-Length: 5"), 400},
		{"a chunked body", handshake("Transfer-Encoding: chunked"), 400},
		{"half a head", handshake()[:100], 400},
		{"nothing", "", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			response, chosen, err := Upgrade([]byte(tt.head), nativeSubprotocols)
			if got := httpStatusOf(t, err); got != tt.status || response != nil || chosen != "" {
				t.Fatalf("status %d, want %d: response %q, chosen %q, error %v", got, tt.status, response, chosen, err)
			}
		})
	}
}

func TestARefusedVersionIsToldTheRightOne(t *testing.T) {
	_, _, err := Upgrade([]byte(handshake("Sec-WebSocket-Version: 14")), nil)
	e, ok := err.(*HTTPError)
	if !ok {
		t.Fatalf("error is %v", err)
	}
	if got := string(AppendHTTPError(nil, e, false)); !strings.Contains(got, "\r\nSec-WebSocket-Version: 13\r\n") {
		t.Fatalf("answer %q names no version", got)
	}
}

// FuzzUpgrade checks that a handshake is answered only for a head that net/http
// reads as one, and that the answer is one.
func FuzzUpgrade(f *testing.F) {
	f.Add([]byte(handshake()))
	f.Add([]byte(handshake("Sec-WebSocket-Protocol: chat, rayflux.v1.bin", "Connection: keep-alive, Upgrade")))
	f.Add([]byte(handshake("Sec-WebSocket-Version: 8")))
	f.Fuzz(func(t *testing.T, head []byte) {
		kept := bytes.Clone(head)
		response, chosen, err := Upgrade(head, nativeSubprotocols)
		if !bytes.Equal(head, kept) {
			t.Fatal("the head was changed")
		}
		if httpStatusOf(t, err) != 0 {
			return
		}
		if !bytes.HasPrefix(response, []byte("HTTP/1.1 101 ")) || !bytes.HasSuffix(response, []byte("\r\n\r\n")) {
			t.Fatalf("response %q", response)
		}
		if got := bytes.Contains(response, []byte("Sec-WebSocket-Protocol: "+chosen+"\r\n")); got != (chosen != "") {
			t.Fatalf("chosen %q, response %q", chosen, response)
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(head, crlf))))
		if err != nil {
			return
		}
		if req.Method != "GET" || len(req.Header.Get("Sec-Websocket-Key")) != 24 || req.Header.Get("Sec-Websocket-Version") != "13" ||
			!strings.EqualFold(req.Header.Get("Upgrade"), "websocket") {
			t.Fatalf("net/http reads %s %v", req.Method, req.Header)
		}
	})
}

func BenchmarkUpgrade(b *testing.B) {
	head := []byte(handshake("Sec-WebSocket-Protocol: rayflux.v1.bin"))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Upgrade(head, nativeSubprotocols); err != nil {
			b.Fatal(err)
		}
	}
}
