package protocol

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestResponses(t *testing.T) {
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{
			"with a body",
			AppendResponse([]byte("before"), 200, "application/json", []byte(`{"a":1}`), true),
			"beforeHTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n{\"a\":1}",
		},
		{
			"without a body, with headers, for the last time",
			AppendResponse(nil, 404, "", nil, false, "X-A: b", "X-C: d"),
			"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\nX-A: b\r\nX-C: d\r\n\r\n",
		},
		{
			"a status without a phrase",
			AppendResponse(nil, 299, "", nil, true),
			"HTTP/1.1 299 \r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
		},
		{
			"a stream",
			AppendStreamHead(nil, "text/event-stream", "Cache-Control: no-cache"),
			"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nCache-Control: no-cache\r\n\r\n",
		},
		{
			"a request to go on",
			AppendContinue(nil),
			"HTTP/1.1 100 Continue\r\n\r\n",
		},
		{
			"an error",
			AppendHTTPError(nil, &HTTPError{Status: 400, Code: CodeBadRequest, Message: `a "quote"`}, false),
			"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 56\r\nConnection: close\r\n\r\n" +
				`{"error":{"code":"bad_request","message":"a \"quote\""}}`,
		},
		{
			"a method that is not allowed",
			AppendHTTPError(nil, &HTTPError{Status: 405, Code: CodeMethodNotAllowed, Message: "no", Allow: "GET, POST"}, true, "X-A: b"),
			"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, POST\r\nContent-Type: application/json\r\nContent-Length: 54\r\nConnection: keep-alive\r\nX-A: b\r\n\r\n" +
				`{"error":{"code":"method_not_allowed","message":"no"}}`,
		},
		{
			"an overload",
			AppendHTTPError(nil, &HTTPError{Status: 503, Code: CodeOverloaded, Message: "no", RetryAfter: 1001 * time.Millisecond}, true),
			"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Type: application/json\r\nContent-Length: 46\r\nConnection: keep-alive\r\n\r\n" +
				`{"error":{"code":"overloaded","message":"no"}}`,
		},
		{
			"a version of WebSocket that is not spoken",
			AppendHTTPError(nil, &HTTPError{Status: 426, Code: CodeUpgradeRequired, Message: "no"}, false),
			"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nContent-Type: application/json\r\nContent-Length: 52\r\nConnection: close\r\n\r\n" +
				`{"error":{"code":"upgrade_required","message":"no"}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if string(tt.got) != tt.want {
				t.Errorf("got  %q\nwant %q", tt.got, tt.want)
			}
		})
	}
}

func TestErrorResponsesAreReadByOthers(t *testing.T) {
	message := "line\nbreak, \x01, \xff and " + strings.Repeat("ü", 400)
	sent := AppendHTTPError(nil, &HTTPError{Status: 503, Code: CodeDraining, Message: message, RetryAfter: time.Minute}, true)
	sent = AppendResponse(sent, 200, "text/plain", []byte("next"), false)
	r := bufio.NewReader(bytes.NewReader(sent))

	first, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		Error struct{ Code, Message string }
	}
	if err := json.NewDecoder(first.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first.Body); err != nil {
		t.Fatal(err)
	}
	if first.StatusCode != 503 || first.Header.Get("Retry-After") != "60" || first.Close || body.Error.Code != "draining" ||
		body.Error.Message != strings.ToValidUTF8(message, "\ufffd") {
		t.Fatalf("got %d %v %+v", first.StatusCode, first.Header, body)
	}
	second, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(second.Body); err != nil || string(text) != "next" || !second.Close {
		t.Fatalf("got %q %v, close %v", text, err, second.Close)
	}
}

func TestAppendingResponsesDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 1024)
	body := []byte(`{"topic":"t","epoch":"E","offset":42}`)
	refusal := &HTTPError{Status: 429, Code: CodeRateLimited, Message: "100 publishes a second, limit 50", RetryAfter: time.Second}
	allocs := testing.AllocsPerRun(100, func() {
		dst = AppendResponse(dst[:0], 200, "application/json", body, true, "Cache-Control: no-store")
		dst = AppendStreamHead(dst[:0], "text/event-stream", "Cache-Control: no-cache")
		dst = AppendHTTPError(dst[:0], refusal, true)
		dst = AppendContinue(dst)
	})
	if allocs != 0 {
		t.Fatalf("%v allocations, want 0", allocs)
	}
}

func BenchmarkAppendResponse(b *testing.B) {
	dst := make([]byte, 0, 1024)
	body := []byte(`{"status":"message accepted","topic":"t","epoch":"E","offset":42}`)
	for b.Loop() {
		dst = AppendResponse(dst[:0], 200, "application/json", body, true)
	}
}
