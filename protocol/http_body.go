package protocol

import "fmt"

const (
	// chunkDigitsMax bounds a chunk size to 60 bits, leading zeros included.
	chunkDigitsMax = 15
	// chunkSkipMax is how many bytes of chunk extensions and trailers, which
	// nobody here reads, one body may have in all.
	chunkSkipMax = 8 << 10
)

// ChunkedBody decodes a chunked body (RFC 9112 §7.1) in whatever pieces it
// comes. It keeps no bytes. The zero value is at the start of a body; whoever
// reads the body owns it.
type ChunkedBody struct {
	left    uint64 // data bytes to come in this chunk
	skipped uint16 // bytes of extensions and trailers so far
	digits  uint8  // of the chunk size being read
	state   chunkState
}

type chunkState uint8

const (
	chunkSize      chunkState = iota // in the digits of a chunk's size
	chunkBlank                       // blanks before an extension, which §7.1.1 has us accept
	chunkExtension                   // after a ';'
	chunkSizeLF                      // the size line's CR was seen
	chunkData                        // left bytes of data
	chunkDataCR                      // after the data
	chunkDataLF                      //
	trailerStart                     // at the start of a line after the last chunk
	trailerLine                      // inside a trailer field
	trailerLF                        // a trailer's CR was seen
	bodyLF                           // the last CR was seen
	bodyDone
)

// Next takes the next stretch of data from b: data is a slice of b, n bytes of
// b are consumed. Call it again, with what is behind them, until done, which
// comes without data, or n is 0: then the body goes on in bytes not yet in b.
// Extensions and trailers are skipped, at most 8 KiB of them. err is a
// *HTTPError 400; the body is lost then, and with it the connection.
func (c *ChunkedBody) Next(b []byte) (data []byte, n int, done bool, err error) {
	for n < len(b) && c.state != bodyDone {
		if c.state == chunkData {
			end := n + int(min(c.left, uint64(len(b)-n)))
			data = b[n:end]
			c.left -= uint64(len(data))
			if c.left == 0 {
				c.state = chunkDataCR
			}
			return data, end, false, nil
		}
		if !c.frame(b[n]) {
			return nil, n, false, c.malformed(b[n])
		}
		n++
	}
	return nil, n, c.state == bodyDone, nil
}

// frame takes one byte of what is not data; false: it may not be there.
func (c *ChunkedBody) frame(b byte) bool {
	switch c.state {
	case chunkSize:
		return c.size(b)
	case chunkBlank:
		switch b {
		case ' ', '\t':
			return c.skip(b)
		case ';':
			return c.to(chunkExtension)
		}
		return false
	case chunkExtension:
		if b == '\r' {
			return c.to(chunkSizeLF)
		}
		return c.skip(b)
	case chunkSizeLF:
		if c.left > 0 {
			return b == '\n' && c.to(chunkData)
		}
		return b == '\n' && c.to(trailerStart)
	case chunkDataCR:
		return b == '\r' && c.to(chunkDataLF)
	case chunkDataLF:
		c.digits = 0
		return b == '\n' && c.to(chunkSize)
	case trailerStart:
		if b == '\r' {
			return c.to(bodyLF)
		}
		return c.skip(b) && c.to(trailerLine)
	case trailerLine:
		if b == '\r' {
			return c.to(trailerLF)
		}
		return c.skip(b)
	case trailerLF:
		return b == '\n' && c.to(trailerStart)
	case bodyLF:
		return b == '\n' && c.to(bodyDone)
	}
	panic("BUG: chunked body in a state without framing")
}

func (c *ChunkedBody) size(b byte) bool {
	if digit := hexDigit(b); digit >= 0 {
		c.left = c.left<<4 | uint64(digit)
		c.digits++
		return c.digits <= chunkDigitsMax
	}
	switch {
	case c.digits == 0:
		return false
	case b == '\r':
		return c.to(chunkSizeLF)
	case b == ';':
		return c.to(chunkExtension)
	case b == ' ' || b == '\t':
		return c.skip(b) && c.to(chunkBlank)
	}
	return false
}

// skip counts a byte that is not looked at beyond its class.
func (c *ChunkedBody) skip(b byte) bool {
	c.skipped++
	return classes[b]&classText != 0 && c.skipped <= chunkSkipMax
}

func (c *ChunkedBody) to(s chunkState) bool {
	c.state = s
	return true
}

func (c *ChunkedBody) malformed(b byte) error {
	e := &HTTPError{Status: 400, Code: CodeBadRequest}
	switch {
	case c.digits > chunkDigitsMax:
		e.Message = fmt.Sprintf("chunk size has over %d digits", chunkDigitsMax)
	case c.skipped > chunkSkipMax:
		e.Message = fmt.Sprintf("chunk extensions and trailers are over %d bytes", chunkSkipMax)
	default:
		e.Message = fmt.Sprintf("malformed chunked body: byte %#02x", b)
	}
	return e
}
