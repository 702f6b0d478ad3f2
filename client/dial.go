package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"rayflux/protocol"
)

const (
	subprotocol = "rayflux.v1.bin"
	defaultPath = "/ws"

	// handshakeTimeout bounds one attempt: name look-up, TCP, TLS, upgrade and
	// welcome together. A server that needs longer is as good as absent.
	handshakeTimeout = 10 * time.Second

	// refusalBytesMax is how much of an HTTP answer that is not 101 is read for
	// its error message.
	refusalBytesMax = 8 << 10
)

// Options are a client's settings. The zero value is ready to use.
type Options struct {
	Name   string       // sent as User-Agent and put on log lines
	Logger *slog.Logger // connections and rarer, never per message; nil: silent

	// The n-th reconnect in a row waits a random time between 0 and
	// MinBackoff doubled n times, at most MaxBackoff. Zero: 100 ms and 10 s.
	MinBackoff, MaxBackoff time.Duration

	Buffer   int // deliveries a subscription holds before reading stops; 0: 256
	InFlight int // commands that may wait for their answer at once; 0: 1024

	TLSConfig *tls.Config // for wss://; nil: the system's roots
	Header    http.Header // sent with each handshake, never changed

	// NetDial opens the TCP connection; nil: net.Dialer. It is where a proxy,
	// a Unix socket or a source address goes in.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnError is told what no call can return: the failures of PublishAsync.
	// It is called from the goroutine that reads the connection and must not
	// block. nil: they are logged.
	OnError func(error)
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Name != "" {
		o.Logger = o.Logger.With("client", o.Name)
	}
	if o.MinBackoff <= 0 {
		o.MinBackoff = 100 * time.Millisecond
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 10 * time.Second
	}
	o.MaxBackoff = max(o.MaxBackoff, o.MinBackoff)
	if o.Buffer <= 0 {
		o.Buffer = 256
	}
	if o.InFlight <= 0 {
		o.InFlight = 1024
	}
	return o
}

// webSocketURL turns what people type for a server into the URL to dial:
// host:port is taken as ws://, and a missing path is /ws.
func webSocketURL(server string) (string, error) {
	if !strings.Contains(server, "://") {
		server = "ws://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("server address: %w", err)
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		return "", fmt.Errorf("server address %q: scheme %q is none of ws, wss, http, https", server, u.Scheme)
	}
	if u.Hostname() == "" {
		return "", fmt.Errorf("server address %q names no host", server)
	}
	if u.User != nil {
		return "", errors.New("server address carries a user: credentials go into Options.Header")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = defaultPath
	}
	u.Fragment = ""
	return u.String(), nil
}

// dialer makes the connections of one client, all to the same URL.
type dialer struct {
	url string
	ws  ws.Dialer
}

func newDialer(server string, o Options) (dialer, error) {
	target, err := webSocketURL(server)
	if err != nil {
		return dialer{}, err
	}
	header := http.Header{"User-Agent": {"rayflux-go"}}
	if o.Name != "" {
		header.Set("User-Agent", "rayflux-go ("+o.Name+")")
	}
	for name, values := range o.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	return dialer{url: target, ws: ws.Dialer{
		Protocols: []string{subprotocol},
		Header:    ws.HandshakeHeaderHTTP(header),
		NetDial:   o.NetDial,
		TLSConfig: o.TLSConfig,
	}}, nil
}

// dial makes one attempt and returns a connection whose welcome has been read.
// A server that refuses the upgrade with an error body is a *protocol.Error.
func (d dialer) dial(ctx context.Context, o Options) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()

	var refusal error
	attempt := d.ws // a copy: the callback belongs to this attempt alone
	attempt.OnStatusError = func(_ int, _ []byte, answer io.Reader) { refusal = readRefusal(answer) }
	socket, early, handshake, err := attempt.Dial(ctx, d.url)
	if refusal != nil {
		err = refusal
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", d.url, err)
	}

	cn := newConn(socket, o)
	if early != nil {
		cn.in.take(early)
		ws.PutReader(early)
	}
	if handshake.Protocol != subprotocol {
		err = fmt.Errorf("server does not speak %s", subprotocol)
	} else {
		err = cn.readWelcome(ctx)
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("connect to %s: %w", d.url, err)
	}
	return cn, nil
}

// readRefusal makes an error of an HTTP answer that is not a 101: the error
// body the server documents if there is one, the status line if not.
func readRefusal(answer io.Reader) error {
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(answer, refusalBytesMax)), nil)
	if err != nil {
		return fmt.Errorf("unreadable answer to the handshake: %w", err)
	}
	defer response.Body.Close()
	var body struct {
		Error struct{ Code, Message string }
	}
	if json.NewDecoder(response.Body).Decode(&body) != nil || body.Error.Code == "" {
		return fmt.Errorf("handshake refused: %s", response.Status)
	}
	refusal := &protocol.Error{Code: protocol.Code(body.Error.Code), Message: body.Error.Message}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		refusal.RetryAfter = milliseconds(1000 * uint64(min(seconds, 3600)))
	}
	return fmt.Errorf("handshake refused: %s: %w", response.Status, refusal)
}
