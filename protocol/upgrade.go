package protocol

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/gobwas/ws"
)

// handshakeKeySize is the bytes of a decoded Sec-WebSocket-Key (RFC 6455 §4.1).
const handshakeKeySize = 16

// Upgrade answers a WebSocket handshake (RFC 6455 §4.2). head is one request
// head, blank line included, as NextHead measured it. chosen is the first
// subprotocol in the client's order that is among subprotocols; it is "", and
// the response names none, when the client named none or none that is known.
// Extensions are never negotiated.
//
// err is a *HTTPError, to be answered with AppendHTTPError before the
// connection closes: 405 for anything but GET, 426 for a version other than
// 13, else 400.
func Upgrade(head []byte, subprotocols []string) (response []byte, chosen string, err error) {
	req, ok, err := NextHead(head, len(head)+1)
	if err != nil {
		return nil, "", err
	}
	if !ok {
		return nil, "", badHandshake("incomplete request head")
	}
	if err := checkHandshake(&req, head[:req.Size]); err != nil {
		return nil, "", err
	}
	// The upgrader does not know the empty line that may come first.
	pipe := handshakePipe{in: bytes.TrimPrefix(head[:req.Size], crlf)}
	upgrader := ws.Upgrader{Protocol: func(offered []byte) bool {
		return slices.Contains(subprotocols, string(offered))
	}}
	handshake, err := upgrader.Upgrade(&pipe)
	if err != nil {
		return nil, "", handshakeError(err)
	}
	return pipe.out, handshake.Protocol, nil
}

var crlf = []byte("\r\n")

// checkHandshake refuses what the upgrader lets through: a body, which would
// be read as frames; a repeated key or version, of which it takes the last
// (§11.3.1, §11.3.5: at most once); and a key of the right length that is
// nothing of the right length in base64.
func checkHandshake(req *Request, head []byte) error {
	if string(req.Method) != http.MethodGet {
		return &HTTPError{Status: http.StatusMethodNotAllowed, Code: CodeMethodNotAllowed,
			Message: "websocket handshake is not a GET", Allow: http.MethodGet}
	}
	if req.Chunked || req.ContentLength > 0 {
		return badHandshake("websocket handshake with a body")
	}
	var keys, versions int
	for line := range bytes.SplitSeq(head, crlf) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case equalFold(name, "sec-websocket-key"):
			keys++
			key, err := base64.StdEncoding.AppendDecode(nil, trimBlanks(value))
			if err != nil || len(key) != handshakeKeySize {
				return badHandshake("Sec-WebSocket-Key is not 16 bytes in base64")
			}
		case equalFold(name, "sec-websocket-version"):
			versions++
		}
	}
	if keys > 1 || versions > 1 {
		return badHandshake("more than one Sec-WebSocket-Key or Sec-WebSocket-Version header")
	}
	return nil
}

// handshakeError is an upgrader's error in our words.
func handshakeError(err error) error {
	rejected, ok := errors.AsType[*ws.ConnectionRejectedError](err)
	if !ok {
		return badHandshake("malformed websocket handshake")
	}
	if rejected.StatusCode() == http.StatusUpgradeRequired {
		return &HTTPError{Status: http.StatusUpgradeRequired, Code: CodeUpgradeRequired,
			Message: "websocket version is not 13"}
	}
	return badHandshake(rejected.Error())
}

func badHandshake(message string) *HTTPError {
	return &HTTPError{Status: http.StatusBadRequest, Code: CodeBadRequest, Message: message}
}

// handshakePipe is the connection that the upgrader sees: the request's bytes,
// then end of input, and room for the response.
type handshakePipe struct {
	in, out []byte
}

func (p *handshakePipe) Read(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

func (p *handshakePipe) Write(b []byte) (int, error) {
	p.out = append(p.out, b...)
	return len(b), nil
}
