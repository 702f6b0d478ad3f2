package protocol

import (
	"bytes"
	"math"
)

// field acts on one header field. The length of the name decides which names
// to compare it with, so most fields cost one jump.
func (p *headParser) field(name, value []byte) step {
	switch len(name) {
	case len("Host"):
		if equalFold(name, "host") {
			return p.host(value)
		}
	case len("Origin"):
		if equalFold(name, "origin") {
			first(&p.req.Origin, value)
		} else if equalFold(name, "expect") {
			return p.expect(value)
		}
	case len("Upgrade"):
		if equalFold(name, "upgrade") {
			p.upgrade(value)
		}
	case len("Connection"):
		if equalFold(name, "connection") {
			p.connection(value)
		}
	case len("Content-Type"):
		if equalFold(name, "content-type") {
			first(&p.req.ContentType, value)
		}
	case len("Last-Event-ID"): // and of If-None-Match
		if equalFold(name, "last-event-id") {
			first(&p.req.LastEventID, value)
		} else if equalFold(name, "if-none-match") {
			first(&p.req.IfNoneMatch, value)
		}
	case len("Content-Length"):
		if equalFold(name, "content-length") {
			return p.contentLength(value)
		}
	case len("Transfer-Encoding"):
		if equalFold(name, "transfer-encoding") {
			return p.transferEncoding(value)
		}
	}
	return stepDone
}

func first(field *[]byte, value []byte) {
	if *field == nil {
		*field = value
	}
}

// host takes the one Host field (§3.2). The host of an absolute target goes
// before it (§3.2.2).
func (p *headParser) host(value []byte) step {
	if p.hostSeen {
		return p.bad("more than one Host header")
	}
	p.hostSeen = true
	if !all(value, classHost) {
		return p.bad("malformed Host header: %.40q", value)
	}
	first(&p.req.Host, value)
	return stepDone
}

// contentLength takes 1*DIGIT. A repeated field must say the same (§6.3).
func (p *headParser) contentLength(value []byte) step {
	var n int64
	for _, c := range value {
		if !isDigit(c) || n > (math.MaxInt64-9)/10 {
			return p.bad("Content-Length is %.40q, want up to 18 digits", value)
		}
		n = n*10 + int64(c-'0')
	}
	if len(value) == 0 {
		return p.bad("Content-Length is empty")
	}
	if p.req.ContentLength >= 0 && p.req.ContentLength != n {
		return p.bad("two Content-Length headers, %d and %d", p.req.ContentLength, n)
	}
	p.req.ContentLength = n
	return stepDone
}

func (p *headParser) transferEncoding(value []byte) step {
	if p.req.Chunked {
		return p.bad("more than one Transfer-Encoding header")
	}
	if !equalFold(value, "chunked") {
		return p.fail(501, CodeUnsupportedTransferCoding, "transfer coding is %.40q, only chunked is known", value)
	}
	p.req.Chunked = true
	return stepDone
}

func (p *headParser) expect(value []byte) step {
	if !equalFold(value, "100-continue") {
		return p.fail(417, CodeExpectationFailed, "expectation is %.40q, only 100-continue is known", value)
	}
	p.req.ExpectContinue = true
	return stepDone
}

func (p *headParser) connection(value []byte) {
	for len(value) > 0 {
		var option []byte
		option, value = nextListItem(value)
		switch {
		case equalFold(option, "close"):
			p.connectionClose = true
		case equalFold(option, "keep-alive"):
			p.connectionKeep = true
		case equalFold(option, "upgrade"):
			p.connectionUpgrade = true
		}
	}
}

func (p *headParser) upgrade(value []byte) {
	for len(value) > 0 {
		var protocol []byte
		protocol, value = nextListItem(value)
		if equalFold(protocol, "websocket") {
			p.upgradeWebSocket = true
		}
	}
}

// nextListItem splits a comma-separated list (RFC 9110 §5.6.1).
func nextListItem(list []byte) (item, rest []byte) {
	item = list
	if i := bytes.IndexByte(list, ','); i >= 0 {
		item, rest = list[:i], list[i+1:]
	}
	return trimBlanks(item), rest
}

func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares b, which has no control characters, with lower, which is
// in lower-case letters, digits and hyphens. For these, the bit that makes a
// letter lower case changes nothing else into them.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		if b[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// class is a set of the byte classes of RFC 9110 §5.5 and §5.6.2 and RFC 3986.
type class byte

const (
	classToken  class = 1 << iota // tchar
	classTarget                   // a request target: printable ASCII but '#', and 0x80 up
	classHost                     // uri-host, brackets and the port's colon
	classText                     // a field value: tab, printable ASCII, 0x80 up
)

var classes = func() (table [256]class) {
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			table[c] |= classText
		}
		if c > ' ' && c != 0x7f && c != '#' {
			table[c] |= classTarget
		}
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	for _, c := range []byte(letters + "!#$%&'*+-.^_`|~") {
		table[c] |= classToken
	}
	for _, c := range []byte(letters + "!$%&'()*+,;=-._~:[]") {
		table[c] |= classHost
	}
	return table
}()

func all(b []byte, want class) bool {
	for _, c := range b {
		if classes[c]&want == 0 {
			return false
		}
	}
	return true
}
