package protocol

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Request is the head of an HTTP/1 request. Its slices point into the input
// and are valid as long as that is.
type Request struct {
	Method []byte
	Target []byte // as sent
	Path   []byte // of Target, still percent-encoded
	Query  []byte // of Target, after the '?', still encoded

	ContentType, LastEventID, IfNoneMatch, Host, Origin []byte // nil: not sent; the first one, if there are more

	Minor          int   // HTTP/1.Minor
	ContentLength  int64 // bytes; -1: none was sent
	Chunked        bool  // the body is chunked; ContentLength is -1
	KeepAlive      bool  // the client can take another answer on this connection
	ExpectContinue bool  // the client may wait for AppendContinue before it sends the body
	Upgrade        bool  // the client wants a WebSocket; Upgrade judges the details

	Size int // bytes of the head, blank line included
}

// NextHead parses the request head at the start of b (RFC 9112). ok is false
// while its end is not in b. err is a *HTTPError: 400 malformed, 417 unknown
// expectation, 431 longer than limit bytes (judged before the end is there),
// 501 unknown transfer coding, 505 not HTTP/1. Lines are judged as they come,
// so that what is not HTTP is refused at once, not at the handshake timeout.
//
// There is one way to read what is accepted: whatever another server could
// read as a request that ends elsewhere (RFC 9112 §11.2) is refused. That is
// both or different lengths, lengths with signs or blanks, line folding, blanks
// before a colon, control characters, line ends other than CR LF, a second
// Host, and any transfer coding but a lone "chunked". An empty line before the
// request line is allowed once (§2.2), bytes from 0x80 up in a target as well,
// because curl sends them as they are typed.
func NextHead(b []byte, limit int) (req Request, ok bool, err error) {
	p := headParser{b: b[:min(len(b), limit)]}
	switch p.parse() {
	case stepDone:
		return p.req, true, nil
	case stepError:
		return Request{}, false, p.err
	}
	if len(b) >= limit {
		return Request{}, false, &HTTPError{Status: 431, Code: CodeHeaderTooLarge,
			Message: fmt.Sprintf("request head is over %d bytes", limit)}
	}
	return Request{}, false, nil
}

// step is how far a part of the parser came.
type step int

const (
	stepDone  step = iota
	stepMore       // the input ends inside this part
	stepError      // headParser.err says why
)

// headParser is the state of one NextHead call; nothing is kept between calls.
type headParser struct {
	b   []byte
	at  int // what is before was parsed
	req Request
	err *HTTPError

	hostSeen          bool
	connectionClose   bool
	connectionKeep    bool
	connectionUpgrade bool
	upgradeWebSocket  bool
}

func (p *headParser) parse() step {
	p.req.ContentLength = -1
	if len(p.b) > 0 && p.b[0] == '\r' {
		if s := p.lineEnd(); s != stepDone {
			return s
		}
	}
	if s := p.requestLine(); s != stepDone {
		return s
	}
	for {
		if p.at < len(p.b) && p.b[p.at] == '\r' {
			if s := p.lineEnd(); s != stepDone {
				return s
			}
			p.req.Size = p.at
			return p.whole()
		}
		if s := p.fieldLine(); s != stepDone {
			return s
		}
	}
}

// requestLine takes method SP request-target SP HTTP-version CR LF (§3).
func (p *headParser) requestLine() step {
	method := p.span(classToken)
	if p.at == len(p.b) {
		return stepMore
	}
	if p.b[p.at] != ' ' || len(method) == 0 {
		return p.bad("malformed request line: byte %#02x in the method", p.b[p.at])
	}
	p.at++
	target := p.span(classTarget)
	if p.at == len(p.b) {
		return stepMore
	}
	if p.b[p.at] != ' ' {
		return p.bad("malformed request line: byte %#02x in the target", p.b[p.at])
	}
	p.req.Method, p.req.Target = method, target
	if !p.target() {
		return p.bad("request target is neither a path nor an http URL: %.40q", target)
	}
	p.at++
	return p.version()
}

// span takes the bytes of one class that come next.
func (p *headParser) span(c class) []byte {
	i := p.at
	for i < len(p.b) && classes[p.b[i]]&c != 0 {
		i++
	}
	span := p.b[p.at:i]
	p.at = i
	return span
}

// target splits the request target in its three forms that have a path (§3.2).
func (p *headParser) target() bool {
	path := p.req.Target
	switch {
	case len(path) == 0:
		return false
	case path[0] == '/':
	case len(path) == 1 && path[0] == '*':
	default:
		scheme := bytes.Index(path, []byte("://"))
		if scheme < 0 || !(equalFold(path[:scheme], "http") || equalFold(path[:scheme], "https")) {
			return false
		}
		authority := path[scheme+3:]
		end := bytes.IndexAny(authority, "/?")
		if end < 0 {
			end = len(authority)
		}
		path, authority = authority[end:], authority[:end]
		if len(authority) == 0 || !all(authority, classHost) {
			return false
		}
		p.req.Host = authority
	}
	p.req.Path = path
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		p.req.Path, p.req.Query = path[:i], path[i+1:]
	}
	return true
}

// version takes "HTTP/1.x" and the line end. A minor version above 1 is spoken
// to as 1.1 (RFC 9110 §2.5).
func (p *headParser) version() step {
	const form = "HTTP/1.1"
	v := p.b[p.at:min(p.at+len(form), len(p.b))]
	for i, c := range v {
		if c != form[i] && !(isDigit(c) && isDigit(form[i])) {
			return p.bad("malformed request line: byte %#02x in the HTTP version", c)
		}
	}
	if len(v) < len(form) {
		return stepMore
	}
	if v[5] != '1' {
		return p.fail(505, CodeUnsupportedVersion, "HTTP version %s is not spoken, 1.1 is", v[5:])
	}
	p.req.Minor = int(v[7] - '0')
	p.at += len(form)
	return p.lineEnd()
}

// fieldLine takes one header field (§5) and acts on it.
func (p *headParser) fieldLine() step {
	name := p.span(classToken)
	if p.at == len(p.b) {
		return stepMore
	}
	if p.b[p.at] != ':' || len(name) == 0 {
		return p.bad("malformed header field: byte %#02x in the name %.40q", p.b[p.at], name)
	}
	start := p.at + 1
	p.at = start + controlIndex(p.b[start:])
	value := trimBlanks(p.b[start:p.at])
	if s := p.lineEnd(); s != stepDone {
		return s
	}
	return p.field(name, value)
}

// lineEnd takes CR LF.
func (p *headParser) lineEnd() step {
	rest := p.b[p.at:]
	switch {
	case len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n':
		p.at += 2
		return stepDone
	case len(rest) == 0 || len(rest) == 1 && rest[0] == '\r':
		return stepMore
	case rest[0] == '\r':
		return p.bad("carriage return without line feed in the head")
	case rest[0] == '\n':
		return p.bad("line feed without carriage return in the head")
	}
	return p.bad("byte %#02x in the head", rest[0])
}

// whole judges what only the complete head shows.
func (p *headParser) whole() step {
	req := &p.req
	modern := req.Minor >= 1
	if modern && !p.hostSeen {
		return p.bad("no Host header")
	}
	if req.Chunked && req.ContentLength >= 0 {
		return p.bad("both Transfer-Encoding and Content-Length")
	}
	if req.Chunked && !modern {
		return p.bad("Transfer-Encoding in an HTTP/1.0 request")
	}
	// §9.3: HTTP/1.1 persists unless told, 1.0 closes unless told.
	req.KeepAlive = !p.connectionClose && (modern || p.connectionKeep)
	req.Upgrade = p.upgradeWebSocket && p.connectionUpgrade
	// RFC 9110 §10.1.1: nothing to wait for without a body, nor in 1.0.
	req.ExpectContinue = req.ExpectContinue && modern && (req.Chunked || req.ContentLength > 0)
	return stepDone
}

func (p *headParser) bad(format string, args ...any) step {
	return p.fail(400, CodeBadRequest, format, args...)
}

func (p *headParser) fail(status int, code Code, format string, args ...any) step {
	p.err = &HTTPError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
	return stepError
}

// controlIndex is the index of the first control character in b that is not a
// tab, or len(b). Eight bytes at a time: half of a head's bytes are values,
// and this is both the search for their end and their check.
func controlIndex(b []byte) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		hits := bytesBelow(w, ' ') | bytesEqual(w, 0x7f)
		for ; hits != 0; hits &= hits - 1 {
			j := i + bits.TrailingZeros64(hits)/8
			if classes[b[j]]&classText == 0 {
				return j
			}
		}
	}
	for ; i < len(b); i++ {
		if classes[b[i]]&classText == 0 {
			return i
		}
	}
	return i
}
