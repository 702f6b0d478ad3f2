package protocol

import (
	"net/http"
	"strconv"
	"time"
)

// AppendResponse appends a whole response: status line, Content-Type unless it
// is "", Content-Length, Connection, the given headers ("Name: value", which
// must not hold CR or LF), and body. There is no Date, as there is no clock
// here; a caller that wants one passes it as a header.
func AppendResponse(dst []byte, status int, contentType string, body []byte, keepAlive bool, headers ...string) []byte {
	dst = appendStatusLine(dst, status)
	return appendRest(dst, contentType, body, keepAlive, headers)
}

// AppendNotModified appends the response that the client has what it asks for:
// it has no content, and the headers that the content would have come with (RFC
// 9110 §15.4.5).
func AppendNotModified(dst []byte, keepAlive bool, headers ...string) []byte {
	dst = appendStatusLine(dst, http.StatusNotModified)
	if keepAlive {
		dst = append(dst, "Connection: keep-alive\r\n"...)
	} else {
		dst = append(dst, "Connection: close\r\n"...)
	}
	dst = appendFields(dst, headers)
	return append(dst, "\r\n"...)
}

// AppendStreamHead appends the head of a 200 response whose body goes on until
// the connection closes (RFC 9112 §6.3 rule 8), so that bytes rendered once
// can be sent to every reader, without chunk sizes of its own.
func AppendStreamHead(dst []byte, contentType string, headers ...string) []byte {
	dst = appendStatusLine(dst, http.StatusOK)
	dst = appendField(dst, "Content-Type: ", contentType)
	dst = append(dst, "Connection: close\r\n"...)
	dst = appendFields(dst, headers)
	return append(dst, "\r\n"...)
}

// AppendHTTPError appends the response that tells e, with the JSON body
// {"error":{"code":"…","message":"…"}} and the headers its status asks for:
// Allow for 405, Retry-After, and for 426 the upgrade that is wanted (RFC 9110
// §15.5.22) and the version of it that is spoken (RFC 6455 §4.4).
func AppendHTTPError(dst []byte, e *HTTPError, keepAlive bool, headers ...string) []byte {
	// On the stack: the messages written in this package are shorter.
	body := make([]byte, 0, 512)
	body = append(body, `{"error":{"code":`...)
	body = AppendJSONStringOf(body, string(e.Code))
	body = append(body, `,"message":`...)
	body = AppendJSONStringOf(body, e.Message)
	body = append(body, "}}"...)

	dst = appendStatusLine(dst, e.Status)
	if e.Allow != "" {
		dst = appendField(dst, "Allow: ", e.Allow)
	}
	if e.Status == http.StatusUpgradeRequired {
		dst = append(dst, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"...)
	}
	if e.RetryAfter > 0 {
		seconds := (e.RetryAfter + time.Second - 1) / time.Second
		dst = append(dst, "Retry-After: "...)
		dst = strconv.AppendInt(dst, int64(seconds), 10)
		dst = append(dst, "\r\n"...)
	}
	return appendRest(dst, "application/json", body, keepAlive, headers)
}

// AppendContinue appends the interim response that asks for a body which
// waits for it (RFC 9110 §15.2.1).
func AppendContinue(dst []byte) []byte {
	return append(dst, "HTTP/1.1 100 Continue\r\n\r\n"...)
}

// appendStatusLine leaves the phrase of an unregistered status empty, which is
// legal (RFC 9112 §4).
func appendStatusLine(dst []byte, status int) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(status)...)
	return append(dst, "\r\n"...)
}

// appendRest appends what every response with a length ends with.
func appendRest(dst []byte, contentType string, body []byte, keepAlive bool, headers []string) []byte {
	if contentType != "" {
		dst = appendField(dst, "Content-Type: ", contentType)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	// Said in both cases: to an HTTP/1.0 client silence means close.
	if keepAlive {
		dst = append(dst, "\r\nConnection: keep-alive\r\n"...)
	} else {
		dst = append(dst, "\r\nConnection: close\r\n"...)
	}
	dst = appendFields(dst, headers)
	dst = append(dst, "\r\n"...)
	return append(dst, body...)
}

func appendFields(dst []byte, fields []string) []byte {
	for _, f := range fields {
		dst = appendField(dst, f, "")
	}
	return dst
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}
