package protocol

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

const headLimit = 8 << 10

// crlfs writes a head in its wire form: lines end in CR LF.
func crlfs(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n\r\n" }

// httpStatusOf is the status of an error, 0 for none.
func httpStatusOf(t testing.TB, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := errors.AsType[*HTTPError](err)
	if !ok {
		t.Fatalf("error is %T, want *HTTPError: %v", err, err)
	}
	if e.Code == "" || e.Message == "" || e.Status != e.Code.Status() {
		t.Fatalf("error is incomplete: %+v", e)
	}
	return e.Status
}

func TestRequestHeads(t *testing.T) {
	tests := []struct {
		name string
		head string
		want Request
	}{
		{
			"curl's publish",
			crlfs("POST /publish HTTP/1.1", "Host: localhost:8083", "User-Agent: curl/8.5.0", "Accept: */*", "Content-Type: application/json", "Content-Length: 31"),
			Request{Method: []byte("POST"), Target: []byte("/publish"), Path: []byte("/publish"), Host: []byte("localhost:8083"),
				ContentType: []byte("application/json"), Minor: 1, ContentLength: 31, KeepAlive: true},
		},
		{
			"a browser's event source",
			crlfs("GET /v1/sse?topic=a%20b&topic=c HTTP/1.1", "host: h", "ORIGIN:https://example.org", "Last-Event-ID: \t E:1,F:2 \t", "Accept: text/event-stream"),
			Request{Method: []byte("GET"), Target: []byte("/v1/sse?topic=a%20b&topic=c"), Path: []byte("/v1/sse"), Query: []byte("topic=a%20b&topic=c"),
				Host: []byte("h"), Origin: []byte("https://example.org"), LastEventID: []byte("E:1,F:2"), Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"a websocket handshake",
			crlfs("GET /ws HTTP/1.1", "Host: h", "Connection: keep-alive, Upgrade", "Upgrade: WebSocket"),
			Request{Method: []byte("GET"), Target: []byte("/ws"), Path: []byte("/ws"), Host: []byte("h"), Minor: 1, ContentLength: -1, KeepAlive: true, Upgrade: true},
		},
		{
			"an upgrade without the connection option",
			crlfs("GET /ws HTTP/1.1", "Host: h", "Upgrade: websocket"),
			Request{Method: []byte("GET"), Target: []byte("/ws"), Path: []byte("/ws"), Host: []byte("h"), Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"an upgrade to something else",
			crlfs("GET / HTTP/1.1", "Host: h", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
			Request{Method: []byte("GET"), Target: []byte("/"), Path: []byte("/"), Host: []byte("h"), Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"connection options over several headers",
			crlfs("GET / HTTP/1.1", "Host: h", "Connection: upgrade", "Connection: ,close ,", "Upgrade: h2c, websocket"),
			Request{Method: []byte("GET"), Target: []byte("/"), Path: []byte("/"), Host: []byte("h"), Minor: 1, ContentLength: -1, Upgrade: true},
		},
		{
			"chunked with expectation",
			crlfs("POST /p HTTP/1.1", "Host: h", "Transfer-Encoding: Chunked", "Expect: 100-Continue"),
			Request{Method: []byte("POST"), Target: []byte("/p"), Path: []byte("/p"), Host: []byte("h"), Minor: 1, ContentLength: -1, Chunked: true, KeepAlive: true, ExpectContinue: true},
		},
		{
			"an expectation without a body",
			crlfs("POST /p HTTP/1.1", "Host: h", "Content-Length: 0", "Expect: 100-continue"),
			Request{Method: []byte("POST"), Target: []byte("/p"), Path: []byte("/p"), Host: []byte("h"), Minor: 1, ContentLength: 0, KeepAlive: true},
		},
		{
			"HTTP/1.0",
			crlfs("POST /p HTTP/1.0", "Content-Length: 5", "Expect: 100-continue"),
			Request{Method: []byte("POST"), Target: []byte("/p"), Path: []byte("/p"), ContentLength: 5},
		},
		{
			"HTTP/1.0 that stays",
			crlfs("GET /p HTTP/1.0", "Connection: Keep-Alive"),
			Request{Method: []byte("GET"), Target: []byte("/p"), Path: []byte("/p"), ContentLength: -1, KeepAlive: true},
		},
		{
			"a later HTTP/1",
			crlfs("GET / HTTP/1.9", "Host: h"),
			Request{Method: []byte("GET"), Target: []byte("/"), Path: []byte("/"), Host: []byte("h"), Minor: 9, ContentLength: -1, KeepAlive: true},
		},
		{
			"an absolute target goes before the host",
			crlfs("GET HTTP://example.org:80?x=http://y HTTP/1.1", "Host: other"),
			Request{Method: []byte("GET"), Target: []byte("HTTP://example.org:80?x=http://y"), Path: []byte(""), Query: []byte("x=http://y"), Host: []byte("example.org:80"),
				Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"an absolute target with a path",
			crlfs("GET https://example.org/a/b?c HTTP/1.1", "Host: example.org"),
			Request{Method: []byte("GET"), Target: []byte("https://example.org/a/b?c"), Path: []byte("/a/b"), Query: []byte("c"), Host: []byte("example.org"),
				Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"an absolute target without a path",
			crlfs("GET http://example.org HTTP/1.1", "Host: example.org"),
			Request{Method: []byte("GET"), Target: []byte("http://example.org"), Path: []byte(""), Host: []byte("example.org"),
				Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"the server as a whole",
			crlfs("OPTIONS * HTTP/1.1", "Host:"),
			Request{Method: []byte("OPTIONS"), Target: []byte("*"), Path: []byte("*"), Host: []byte(""), Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"a target typed in UTF-8",
			crlfs("POST /v1/topics/wörld/messages? HTTP/1.1", "Host: [::1]:80", "Content-Length: 007", "Content-Length: 7"),
			Request{Method: []byte("POST"), Target: []byte("/v1/topics/wörld/messages?"), Path: []byte("/v1/topics/wörld/messages"), Query: []byte(""),
				Host: []byte("[::1]:80"), Minor: 1, ContentLength: 7, KeepAlive: true},
		},
		{
			"an empty line first, the first of two types, values with tabs and high bytes",
			"\r\n" + crlfs("GET / HTTP/1.1", "Host: h", "Content-Type: a/b", "content-type: c/d", "X: \x80\xff\t~", "Y:"),
			Request{Method: []byte("GET"), Target: []byte("/"), Path: []byte("/"), Host: []byte("h"), ContentType: []byte("a/b"), Minor: 1, ContentLength: -1, KeepAlive: true},
		},
		{
			"the longest length",
			crlfs("POST / HTTP/1.1", "Host: h", "Content-Length: 999999999999999999"),
			Request{Method: []byte("POST"), Target: []byte("/"), Path: []byte("/"), Host: []byte("h"), Minor: 1, ContentLength: 999999999999999999, KeepAlive: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Size = len(tt.head)
			for cut := range len(tt.head) {
				if _, ok, err := NextHead([]byte(tt.head[:cut]), headLimit); ok || err != nil {
					t.Fatalf("%d of %d bytes: ok %v, error %v", cut, len(tt.head), ok, err)
				}
			}
			for _, more := range []string{"", "\r\n", "GET / HTTP/1.1\r\n\r\n", "\x00body"} {
				got, ok, err := NextHead([]byte(tt.head+more), headLimit)
				if !ok || err != nil {
					t.Fatalf("with %q behind: ok %v, error %v", more, ok, err)
				}
				if !reflect.DeepEqual(got, tt.want) {
					t.Fatalf("with %q behind: got %+v, want %+v", more, got, tt.want)
				}
			}
		})
	}
}

func TestRefusedRequestHeads(t *testing.T) {
	post := func(fields ...string) string {
		return crlfs(append([]string{"POST / HTTP/1.1", "Host: h"}, fields...)...)
	}
	tests := []struct {
		name   string
		head   string
		status int
	}{
		{"no method", " / HTTP/1.1\r\n\r\n", 400},
		{"two empty lines first", "\r\n\r\n" + crlfs("GET / HTTP/1.1", "Host: h"), 400},
		{"a line feed first", "\n" + crlfs("GET / HTTP/1.1", "Host: h"), 400},
		{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00", 400},
		{"a method with a colon", "GE:T / HTTP/1.1\r\n\r\n", 400},
		{"a tab for a blank", "GET\t/\tHTTP/1.1\r\n\r\n", 400},
		{"two blanks", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"no version", "GET /\r\n\r\n", 400},
		{"no version, more lines", "GET / \r\nHost: h\r\n\r\n", 400},
		{"a blank in the target", "GET /a b HTTP/1.1\r\n\r\n", 400},
		{"a control character in the target", "GET /a\x01b HTTP/1.1\r\n\r\n", 400},
		{"a fragment in the target", "GET /a#b HTTP/1.1\r\n\r\n", 400},
		{"a target without a slash", "GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"a target of another scheme", "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"an absolute target without a host", "GET http:///a HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"an absolute target with a user", "GET http://u@h/a HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"an authority for a target", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		{"a lower case version", "GET / http/1.1\r\n\r\n", 400},
		{"another protocol", "GET / ICAP/1.0\r\n\r\n", 400},
		{"a long version", "GET / HTTP/1.10\r\n\r\n", 400},
		{"a blank after the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"HTTP/0", "GET / HTTP/0.9\r\n\r\n", 505},
		{"bare line feeds", "GET / HTTP/1.1\nHost: h\n\n", 400},
		{"a bare line feed after a field", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400},
		{"a bare line feed for the blank line", "GET / HTTP/1.1\r\nHost: h\r\n\n", 400},
		{"a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400},
		{"a bare carriage return as line end", "GET / HTTP/1.1\rHost: h\r\n\r\n", 400},
		{"a doubled carriage return", "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400},
		{"NUL in a value", post("X: a\x00b"), 400},
		{"DEL in a value", post("X: abcdefghij\x7f"), 400},
		{"a vertical tab before the value", post("Transfer-Encoding:\x0bchunked"), 400},
		{"a folded line", post("X: a", " b"), 400},
		{"a line folded with a tab", post("X: a", "\tb"), 400},
		{"a blank before the first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400},
		{"a blank before the colon", post("Content-Length : 5"), 400},
		{"no colon", post("Content-Length"), 400},
		{"an empty name", post(": x"), 400},
		{"a name with a high byte", post("X\x80: y"), 400},
		{"a name with a control character", post("X\x00: y"), 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"no host besides an absolute target", "GET http://h/ HTTP/1.1\r\n\r\n", 400},
		{"two hosts", post("Host: h"), 400},
		{"two empty hosts", "GET / HTTP/1.1\r\nHost:\r\nHost:\r\n\r\n", 400},
		{"two hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"two hosts in one", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
		{"a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"length and coding", post("Content-Length: 5", "Transfer-Encoding: chunked"), 400},
		{"coding and length", post("Transfer-Encoding: chunked", "Content-Length: 5"), 400},
		{"coding and length zero", post("Transfer-Encoding: chunked", "Content-Length: 0"), 400},
		{"two different lengths", post("Content-Length: 5", "Content-Length: 6"), 400},
		{"a list of lengths", post("Content-Length: 5, 5"), 400},
		{"a negative length", post("Content-Length: -5"), 400},
		{"a length with a plus", post("Content-Length: +5"), 400},
		{"a length with a blank", post("Content-Length: 1 0"), 400},
		{"a length in hex", post("Content-Length: 0x5"), 400},
		{"an empty length", post("Content-Length:"), 400},
		{"a length of 20 digits", post("Content-Length: 18446744073709551621"), 400},
		{"a length past int64", post("Content-Length: 9223372036854775808"), 400},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"chunked twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400},
		{"chunked twice in one", post("Transfer-Encoding: chunked, chunked"), 501},
		{"chunked and identity", post("Transfer-Encoding: chunked, identity"), 501},
		{"gzip and chunked", post("Transfer-Encoding: gzip, chunked"), 501},
		{"identity", post("Transfer-Encoding: identity"), 501},
		{"an unknown coding", post("Transfer-Encoding: xchunked"), 501},
		{"chunked with a parameter", post("Transfer-Encoding: chunked;q=1"), 501},
		{"chunked in quotes", post(`Transfer-Encoding: "chunked"`), 501},
		{"an empty coding", post("Transfer-Encoding:"), 501},
		{"an unknown expectation", post("Expect: 200-ok"), 417},
		{"a long head", post("X: " + strings.Repeat("x", headLimit)), 431},
		{"many fields", post(strings.Split(strings.Repeat("X: y\n", headLimit/5), "\n")[:headLimit/5]...), 431},
		{"an endless method", strings.Repeat("x", headLimit), 431},
		{"an endless target", "GET /" + strings.Repeat("x", headLimit), 431},
		{"an endless name", "GET / HTTP/1.1\r\n" + strings.Repeat("x", headLimit), 431},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, ok, err := NextHead([]byte(tt.head), headLimit)
			if got := httpStatusOf(t, err); ok || got != tt.status {
				t.Fatalf("ok %v, error %v, want %d", ok, err, tt.status)
			}
			// A part is either not enough to know, or refused alike.
			step := 1 + len(tt.head)/500
			for cut := 0; cut < len(tt.head); cut += step {
				_, ok, partErr := NextHead([]byte(tt.head[:cut]), headLimit)
				if ok || partErr != nil && partErr.Error() != err.Error() {
					t.Fatalf("%d of %d bytes: ok %v, error %v, want %v", cut, len(tt.head), ok, partErr, err)
				}
			}
		})
	}
}

func TestTheHeadLimitIsExact(t *testing.T) {
	head := crlfs("GET / HTTP/1.1", "Host: h", "X: "+strings.Repeat("y", 100))
	if _, ok, err := NextHead([]byte(head+"body"), len(head)); !ok || err != nil {
		t.Fatalf("head of the limit: ok %v, error %v", ok, err)
	}
	if _, ok, err := NextHead([]byte(head+"body"), len(head)-1); ok || httpStatusOf(t, err) != 431 {
		t.Fatalf("head over the limit: ok %v, error %v", ok, err)
	}
	if _, ok, err := NextHead([]byte(head[:len(head)-2]), len(head)-1); ok || err != nil {
		t.Fatalf("unfinished head below the limit: ok %v, error %v", ok, err)
	}
}

// curlHead is what curl sends for a classic publish, with one header added.
var curlHead = []byte(crlfs("POST /publish HTTP/1.1", "Host: localhost:8083", "User-Agent: curl/8.5.0", "Accept: */*",
	"Content-Type: application/json", "Content-Length: 31", "Connection: keep-alive"))

// requestsHead is what Python's requests sends for the same.
var requestsHead = []byte(crlfs("POST /publish HTTP/1.1", "Host: localhost:8083", "User-Agent: python-requests/2.31.0",
	"Accept-Encoding: gzip, deflate", "Accept: */*", "Connection: keep-alive", "Content-Length: 40", "Content-Type: application/json"))

func TestReadingHeadsDoesNotAllocate(t *testing.T) {
	upgrade := []byte(crlfs("GET http://h/ws?a=b HTTP/1.1", "Host: h", "Connection: Upgrade", "Upgrade: websocket", "Origin: x", "Last-Event-ID: y"))
	allocs := testing.AllocsPerRun(100, func() {
		for _, head := range [][]byte{curlHead, requestsHead, upgrade} {
			if _, ok, err := NextHead(head, headLimit); !ok || err != nil {
				t.Fatal(err)
			}
			if _, ok, err := NextHead(head[:len(head)-3], headLimit); ok || err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations, want 0", allocs)
	}
}

// FuzzHTTPHead checks that every part of an input is refused alike or not at
// all, and that what is accepted here and by net/http means the same to both.
func FuzzHTTPHead(f *testing.F) {
	f.Add(curlHead)
	f.Add(requestsHead)
	f.Add([]byte(crlfs("GET http://h/a?b HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket")))
	f.Add([]byte(crlfs("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Expect: 100-continue")))
	f.Add([]byte("\r\nGET / HTTP/1.0\r\nContent-Length: 05\r\nContent-Length: 5\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 512
		req, ok, err := NextHead(b, limit)
		status := httpStatusOf(t, err)
		if ok && (err != nil || req.Size > limit || req.Size > len(b)) {
			t.Fatalf("size %d of %d, error %v", req.Size, len(b), err)
		}
		for cut := range min(len(b), limit+1) {
			_, partOK, partErr := NextHead(b[:cut], limit)
			if partOK != (ok && cut >= req.Size) {
				t.Fatalf("%d bytes: ok %v, whole %v with %d", cut, partOK, ok, req.Size)
			}
			if got := httpStatusOf(t, partErr); got != 0 && got != status {
				t.Fatalf("%d bytes: %v, whole %v", cut, partErr, err)
			}
		}
		if !ok {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(b[:req.Size], crlf))))
		if err != nil {
			return
		}
		if theirs.Method != string(req.Method) || theirs.RequestURI != string(req.Target) {
			t.Fatalf("request %q %q, net/http %q %q", req.Method, req.Target, theirs.Method, theirs.RequestURI)
		}
		if ours := max(req.ContentLength, 0); !req.Chunked && ours != theirs.ContentLength {
			t.Fatalf("content length %d, net/http %d", req.ContentLength, theirs.ContentLength)
		}
		if chunked := len(theirs.TransferEncoding) > 0; chunked != req.Chunked {
			t.Fatalf("chunked %v, net/http %v", req.Chunked, theirs.TransferEncoding)
		}
		if theirs.Host != string(req.Host) {
			t.Fatalf("host %q, net/http %q", req.Host, theirs.Host)
		}
		if req.Minor <= 1 && theirs.Close == req.KeepAlive {
			t.Fatalf("keep alive %v, net/http close %v", req.KeepAlive, theirs.Close)
		}
	})
}

func BenchmarkNextHead(b *testing.B) {
	for _, bm := range []struct {
		name string
		head []byte
	}{{"curl", curlHead}, {"requests", requestsHead}} {
		b.Run(fmt.Sprintf("%s=%d", bm.name, len(bm.head)), func(b *testing.B) {
			b.SetBytes(int64(len(bm.head)))
			for b.Loop() {
				if _, ok, err := NextHead(bm.head, headLimit); !ok || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
