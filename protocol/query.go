package protocol

import (
	"bytes"
	"fmt"
)

// QueryValue finds the nth (from 0) parameter called key in a query, and
// returns its value as it stands there, to be decoded with AppendUnescape. A
// parameter without '=' has an empty value. Keys are compared as they stand,
// too: no client escapes the letters that ours are made of.
func QueryValue(query []byte, key string, nth int) (value []byte, ok bool) {
	for range nth + 1 {
		if value, query, ok = NextQueryValue(query, key); !ok {
			return nil, false
		}
	}
	return value, true
}

// NextQueryValue finds the first parameter called key, and the query behind it:
// for parameters that may occur many times.
func NextQueryValue(query []byte, key string) (value, rest []byte, ok bool) {
	for len(query) > 0 {
		pair := query
		if i := bytes.IndexByte(query, '&'); i >= 0 {
			pair, query = query[:i], query[i+1:]
		} else {
			query = nil
		}
		name := pair
		value = pair[len(pair):]
		if i := bytes.IndexByte(pair, '='); i >= 0 {
			name, value = pair[:i], pair[i+1:]
		}
		if string(name) == key {
			return value, query, true
		}
	}
	return nil, nil, false
}

// AppendUnescape appends s with its percent escapes decoded (RFC 3986 §2.1).
// plusIsSpace is for queries, where forms write a blank as '+'; in a path a
// plus is a plus. A broken escape is an *Error bad_request, and dst comes back
// as it was.
func AppendUnescape(dst, s []byte, plusIsSpace bool) ([]byte, error) {
	start := len(dst)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+2 >= len(s) || hexDigit(s[i+1]) < 0 || hexDigit(s[i+2]) < 0 {
				return dst[:start], &Error{Code: CodeBadRequest,
					Message: fmt.Sprintf("broken percent escape %q", s[i:min(i+3, len(s))])}
			}
			c = byte(hexDigit(s[i+1])<<4 | hexDigit(s[i+2]))
			i += 2
		case c == '+' && plusIsSpace:
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst, nil
}
