package protocol

import (
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

// decodeChunks feeds chunks to c as a connection does and returns the body's
// data, how many bytes the body took, and whether it ended.
func decodeChunks(t testing.TB, c *ChunkedBody, chunks ...string) (body string, taken int, done bool, err error) {
	t.Helper()
	for _, chunk := range chunks {
		b := []byte(chunk)
		for {
			data, n, end, err := c.Next(b)
			if end && len(data) > 0 {
				t.Fatal("data came with the end")
			}
			if n > len(b) || len(data) > n {
				t.Fatalf("%d bytes of data, %d of %d taken", len(data), n, len(b))
			}
			body += string(data)
			taken += n
			b = b[n:]
			if end || err != nil {
				return body, taken, end, err
			}
			if n == 0 {
				break
			}
		}
		if len(b) > 0 {
			t.Fatalf("%q was left", b)
		}
	}
	return body, taken, false, nil
}

func TestChunkedBodies(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want string
	}{
		{"empty", "0\r\n\r\n", ""},
		{"one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"two chunks", "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", "hello, world"},
		{"hexadecimal in both cases", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a"},
		{"leading zeros", "005\r\nhello\r\n000\r\n\r\n", "hello"},
		{"line ends inside data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"},
		{"extensions", "5;a=b;c=\"d;e\"\r\nhello\r\n0;last\r\n\r\n", "hello"},
		{"blanks around an extension", "5 \t; a = b\r\nhello\r\n0\r\n\r\n", "hello"},
		{"trailers", "5\r\nhello\r\n0\r\nX: y\r\nExpires: never\r\n\r\n", "hello"},
		{"as many trailers as fit", "0\r\n" + strings.Repeat("x", chunkSkipMax) + "\r\n\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const more = "GET / HTTP/1.1\r\n"
			check := func(cut int, chunks ...string) {
				t.Helper()
				body, taken, done, err := decodeChunks(t, &ChunkedBody{}, chunks...)
				if body != tt.want || !done || err != nil || taken != len(tt.in) {
					t.Fatalf("cut at %d: %q, %d of %d bytes, done %v, error %v", cut, body, taken, len(tt.in), done, err)
				}
			}
			step := 1 + len(tt.in)/500
			for cut := 0; cut < len(tt.in); cut += step {
				if _, _, done, err := decodeChunks(t, &ChunkedBody{}, tt.in[:cut]); done || err != nil {
					t.Fatalf("%d of %d bytes: done %v, error %v", cut, len(tt.in), done, err)
				}
				check(cut, tt.in[:cut], tt.in[cut:]+more)
			}
			check(len(tt.in), bytewise(tt.in)...)
		})
	}
}

func TestRefusedChunkedBodies(t *testing.T) {
	tests := []struct{ name, in string }{
		{"no size", "\r\n\r\n"},
		{"no size before an extension", ";a=b\r\n"},
		{"a sign", "+5\r\nhello\r\n0\r\n\r\n"},
		{"a prefix", "0x5\r\nhello\r\n0\r\n\r\n"},
		{"a blank first", " 5\r\nhello\r\n0\r\n\r\n"},
		{"a blank last", "5 \r\nhello\r\n0\r\n\r\n"},
		{"a size of 16 digits", "0000000000000005\r\n"},
		{"a size past 64 bits", "10000000000000005\r\nhello"},
		{"a bare line feed after the size", "5\nhello\r\n0\r\n\r\n"},
		{"a bare carriage return after the size", "5\rhello\r\n0\r\n\r\n"},
		{"a bare line feed in an extension", "5;a\nhello\r\n0\r\n\r\n"},
		{"NUL in an extension", "5;a\x00\r\nhello\r\n0\r\n\r\n"},
		{"data longer than its size", "4\r\nhello\r\n0\r\n\r\n"},
		{"data shorter than its size", "6\r\nhello\r\n0\r\n\r\n"},
		{"a bare line feed after the data", "5\r\nhello\n0\r\n\r\n"},
		{"a bare line feed at the end", "0\r\n\n"},
		{"a bare carriage return at the end", "0\r\n\rx"},
		{"a bare line feed in a trailer", "0\r\nX: y\n\r\n"},
		{"a bare carriage return in a trailer", "0\r\nX: y\rz\r\n\r\n"},
		{"too many trailers", "0\r\n" + strings.Repeat("X: y\r\n", chunkSkipMax/4+1)},
		{"too many extensions", strings.Repeat("1;aaaaaaa\r\nx\r\n", chunkSkipMax/7+1)},
		{"too many blanks", "1" + strings.Repeat(" ", chunkSkipMax+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c ChunkedBody
			_, taken, done, err := decodeChunks(t, &c, tt.in)
			if done || httpStatusOf(t, err) != 400 {
				t.Fatalf("done %v, error %v, want 400", done, err)
			}
			step := 1 + len(tt.in)/500
			for cut := 0; cut < len(tt.in); cut += step {
				_, n, done, partErr := decodeChunks(t, &ChunkedBody{}, tt.in[:cut], tt.in[cut:])
				if done || n != taken || partErr == nil || partErr.Error() != err.Error() {
					t.Fatalf("cut at %d: %d bytes, done %v, error %v, want %d, %v", cut, n, done, partErr, taken, err)
				}
			}
		})
	}
}

func TestAChunkedBodyEndsOnce(t *testing.T) {
	var c ChunkedBody
	decodeChunks(t, &c, "0\r\n\r\n")
	if data, n, done, err := c.Next([]byte("5\r\nhello\r\n")); data != nil || n != 0 || !done || err != nil {
		t.Fatalf("after the end: %q %d %v %v", data, n, done, err)
	}
}

func TestReadingChunksDoesNotAllocate(t *testing.T) {
	in := []byte("5;a=b\r\nhello\r\n7\r\n, world\r\n0\r\nX: y\r\n\r\n")
	allocs := testing.AllocsPerRun(100, func() {
		var c ChunkedBody
		for b := in; ; {
			_, n, done, err := c.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			if done {
				return
			}
			b = b[n:]
		}
	})
	if allocs != 0 {
		t.Fatalf("%v allocations, want 0", allocs)
	}
}

// FuzzChunkedBody checks that no chunking of the input changes what is read,
// and that what ends here is the same body to net/http.
func FuzzChunkedBody(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), uint16(3))
	f.Add([]byte("5 ;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n00\r\nX: y\r\n\r\nGET"), uint16(20))
	f.Fuzz(func(t *testing.T, in []byte, at uint16) {
		s := string(in)
		body, taken, done, err := decodeChunks(t, &ChunkedBody{}, s)
		same := func(name string, chunks ...string) {
			t.Helper()
			b, n, d, e := decodeChunks(t, &ChunkedBody{}, chunks...)
			if b != body || n != taken || d != done || httpStatusOf(t, e) != httpStatusOf(t, err) {
				t.Fatalf("%s: %q %d %v %v, at once %q %d %v %v", name, b, n, d, e, body, taken, done, err)
			}
		}
		cut := int(at) % (len(s) + 1)
		same("cut", s[:cut], s[cut:])
		same("byte by byte", bytewise(s)...)
		if !done {
			return
		}
		theirs, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if err == nil && string(theirs) != body {
			t.Fatalf("body %q, net/http %q", body, theirs)
		}
	})
}

func BenchmarkChunkedBody(b *testing.B) {
	in := []byte("64\r\n" + strings.Repeat("x", 100) + "\r\n0\r\n\r\n")
	for b.Loop() {
		var c ChunkedBody
		for rest := in; ; {
			_, n, done, err := c.Next(rest)
			if err != nil {
				b.Fatal(err)
			}
			if done {
				break
			}
			rest = rest[n:]
		}
	}
}
