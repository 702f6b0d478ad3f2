package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"rayflux/protocol"
)

// socket is a raw connection to a public port. It reads frames with code of its
// own, so that a fault which client and server shared would show. Its methods
// return errors and may be used from any one goroutine; those of peer end the
// test.
type socket struct {
	net.Conn
	in       *bufio.Reader
	payload  []byte // of the last frame
	mask     [4]byte
	sent     int // bytes
	received int // bytes
}

// dialing is what can be odd about a connection.
type dialing struct {
	receiveBuffer int // bytes; 0: the kernel's own choice
	readAhead     int // bytes of the reader; 0: 4 KiB
}

func (d dialing) dial(address string) (*socket, error) {
	dialer := net.Dialer{Timeout: patience}
	if d.receiveBuffer > 0 {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			_ = c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, d.receiveBuffer)
			})
			return err
		}
	}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: conn, mask: [4]byte{0x37, 0xfa, 0x21, 0x3d}}
	s.in = bufio.NewReaderSize(countedReader{s}, max(d.readAhead, 4<<10))
	s.patient()
	return s, nil
}

// patient gives reads and writes from now on their time.
func (s *socket) patient() { _ = s.SetDeadline(time.Now().Add(patience)) }

type countedReader struct{ s *socket }

func (r countedReader) Read(b []byte) (int, error) {
	n, err := r.s.Conn.Read(b)
	r.s.received += n
	return n, err
}

func (s *socket) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.sent += n
	return n, err
}

// reset ends the connection with an RST.
func (s *socket) reset() {
	_ = s.Conn.(*net.TCPConn).SetLinger(0)
	s.Close()
}

const upgradeFields = "Host: rayflux.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// upgrade makes a WebSocket of a fresh connection. A refusal is a
// *protocol.HTTPError.
func (s *socket) upgrade(path, subprotocol string) error {
	head := "GET " + path + " HTTP/1.1\r\n" + upgradeFields
	if subprotocol != "" {
		head += "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	if _, err := io.WriteString(s, head+"\r\n"); err != nil {
		return err
	}
	a, err := s.answer()
	switch {
	case err != nil:
		return err
	case a.status != http.StatusSwitchingProtocols:
		return &protocol.HTTPError{Status: a.status, Code: protocol.Code(a.Error.Code), Message: a.Error.Message}
	case a.header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || a.header.Get("Sec-WebSocket-Protocol") != subprotocol:
		return fmt.Errorf("upgraded with %v", a.header)
	}
	return nil
}

// answer is an HTTP response; its fields are those of every JSON body there is.
type answer struct {
	status int
	header http.Header
	body   string

	Error struct {
		Code, Message string
	}
	Topic, Epoch, Status, Next string
	Offset, Head               uint64
	Messages                   []event
	Results                    []struct {
		Epoch  string
		Offset uint64
		Error  *struct{ Code, Message string }
	}
}

func (s *socket) answer() (answer, error) {
	response, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: response.StatusCode, header: response.Header}
	if a.status == http.StatusSwitchingProtocols {
		return a, nil
	}
	body, err := io.ReadAll(response.Body)
	if err == nil {
		a.body = string(body)
		err = json.Unmarshal(body, &a)
	}
	return a, err
}

// post is one HTTP publish on a connection that is kept.
func (s *socket) post(path, contentType string, body []byte) (answer, error) {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: rayflux.test\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", path, contentType, len(body))
	if _, err := s.Write(append([]byte(head), body...)); err != nil {
		return answer{}, err
	}
	return s.answer()
}

// get is one HTTP request without a body on a connection that is kept.
func (s *socket) get(target string) (answer, error) {
	if _, err := io.WriteString(s, "GET "+target+" HTTP/1.1\r\nHost: rayflux.test\r\n\r\n"); err != nil {
		return answer{}, err
	}
	return s.answer()
}

func (s *socket) send(op protocol.Opcode, payload []byte) error {
	_, err := s.Write(protocol.AppendMaskedFrame(nil, op, s.mask, payload))
	return err
}

// tell sends one native JSON command, or several at once.
func (s *socket) tell(commands ...string) error {
	var b []byte
	for _, command := range commands {
		b = protocol.AppendMaskedFrame(b, protocol.OpText, s.mask, []byte(command))
	}
	_, err := s.Write(b)
	return err
}

// frame reads one frame; its payload is valid until the next. Server frames
// are never masked, never fragmented and use no extension.
func (s *socket) frame() (op protocol.Opcode, payload []byte, err error) {
	var head [10]byte
	if _, err := io.ReadFull(s.in, head[:2]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1])
	switch length {
	case 126:
		_, err = io.ReadFull(s.in, head[2:4])
		length = uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		_, err = io.ReadFull(s.in, head[2:10])
		length = binary.BigEndian.Uint64(head[2:])
	}
	if err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 != 0 || length > 64<<20 {
		return 0, nil, fmt.Errorf("no server sends a frame that begins with %x", head)
	}
	if uint64(cap(s.payload)) < length {
		s.payload = make([]byte, length)
	}
	s.payload = s.payload[:length]
	_, err = io.ReadFull(s.in, s.payload)
	return protocol.Opcode(head[0] & 0xf), s.payload, err
}

// message reads the next text or binary message and answers pings before it. A
// close frame is a *protocol.CloseError, and is answered.
func (s *socket) message() (op protocol.Opcode, payload []byte, err error) {
	for {
		op, payload, err = s.frame()
		switch {
		case err != nil:
			return 0, nil, err
		case op == protocol.OpPing:
			if err := s.send(protocol.OpPong, payload); err != nil {
				return 0, nil, err
			}
		case op == protocol.OpClose:
			closed := &protocol.CloseError{Code: protocol.CloseNoStatus}
			if len(payload) >= 2 {
				closed.Code = protocol.CloseCode(binary.BigEndian.Uint16(payload))
				closed.Text = string(payload[2:])
			}
			_ = s.send(protocol.OpClose, payload)
			return 0, nil, closed
		default:
			return op, payload, nil
		}
	}
}

// event is any event or answer of the native JSON protocol, and any message of
// a page of history.
type event struct {
	Op               string          `json:"op"`
	ID               *uint64         `json:"id"`
	Topic            string          `json:"topic"`
	Epoch            string          `json:"epoch"`
	Offset           uint64          `json:"offset"`
	Recovered        *bool           `json:"recovered"`
	Partial          bool            `json:"partial"`
	Data             json.RawMessage `json:"data"`
	Base64           string          `json:"base64"`
	Time             string          `json:"time"`
	Missed           *uint64         `json:"missed"`
	Reason           string          `json:"reason"`
	Code             string          `json:"code"`
	Message          string          `json:"message"`
	RetryAfterMs     uint64          `json:"retry_after_ms"`
	ReconnectAfterMs *uint64         `json:"reconnect_after_ms"`
	Session          string          `json:"session"`
	Version          string          `json:"version"`
	PingIntervalMs   uint64          `json:"ping_interval_ms"`
	MaxMessageBytes  uint64          `json:"max_message_bytes"`
}

func (e event) position() string { return fmt.Sprintf("%s:%d", e.Epoch, e.Offset) }

// event reads the next event.
func (s *socket) event() (e event, err error) {
	op, payload, err := s.message()
	if err != nil {
		return e, err
	}
	if op != protocol.OpText {
		return e, fmt.Errorf("an event with opcode %d", op)
	}
	if err := json.Unmarshal(payload, &e); err != nil {
		return e, fmt.Errorf("event %q: %w", payload, err)
	}
	return e, nil
}

// native makes a native JSON connection and takes the welcome.
func (d dialing) native(address string) (*socket, error) {
	s, err := d.dial(address)
	if err != nil {
		return nil, err
	}
	var welcome event
	if err = s.upgrade("/ws", "rayflux.v1.json"); err == nil {
		welcome, err = s.event()
	}
	if err == nil && (welcome.Op != "welcome" || welcome.Session == "") {
		err = fmt.Errorf("welcomed with %+v", welcome)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// classic makes a classic connection subscribed to a topic. There is no answer
// to wait for.
func (d dialing) classic(address, topic string) (*socket, error) {
	s, err := d.dial(address)
	if err != nil {
		return nil, err
	}
	if err = s.upgrade("/subscribe", ""); err == nil {
		err = s.tell(fmt.Sprintf(`{"subscriber_id":"s","topic":%q}`, topic))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// peer is a socket whose failures are the test's. Only for the test's own
// goroutine.
type peer struct {
	*socket
	t testing.TB
}

func (n *node) dial(t testing.TB, d dialing) *peer {
	t.Helper()
	return newPeer(t)(d.dial(n.listen))
}

func (n *node) native(t testing.TB) *peer {
	t.Helper()
	return newPeer(t)(dialing{}.native(n.listen))
}

func (n *node) classic(t testing.TB, topic string) *peer {
	t.Helper()
	return newPeer(t)(dialing{}.classic(n.listen, topic))
}

func newPeer(t testing.TB) func(*socket, error) *peer {
	return func(s *socket, err error) *peer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return &peer{s, t}
	}
}

func (p *peer) raw(bytes string) {
	p.t.Helper()
	if _, err := io.WriteString(p.socket, bytes); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) tell(commands ...string) {
	p.t.Helper()
	if err := p.socket.tell(commands...); err != nil {
		p.t.Fatal(err)
	}
}

// hear wants the next event to be of this kind.
func (p *peer) hear(op string) event {
	p.t.Helper()
	e, err := p.event()
	if err != nil {
		p.t.Fatalf("waiting for %q: %v", op, err)
	}
	if e.Op != op {
		p.t.Fatalf("heard %+v, want %q", e, op)
	}
	return e
}

// ask sends a command and wants the next event to be of this kind.
func (p *peer) ask(command, op string) event {
	p.t.Helper()
	p.tell(command)
	return p.hear(op)
}

// hearPayload wants the next message on a classic connection to be this one.
func (p *peer) hearPayload(want string) {
	p.t.Helper()
	op, payload, err := p.message()
	if err != nil || op != protocol.OpBinary || string(payload) != want {
		p.t.Fatalf("heard %q with opcode %d (%v), want %q", payload, op, err, want)
	}
}

// hearClose wants a close frame next, and then the end of the stream. It ends
// this side of it too.
func (p *peer) hearClose(want protocol.CloseCode) (text string) {
	p.t.Helper()
	op, payload, err := p.message()
	var closed *protocol.CloseError
	if !errors.As(err, &closed) {
		p.t.Fatalf("waiting for close %d: heard %q with opcode %d (%v)", want, payload, op, err)
	}
	if closed.Code != want {
		p.t.Fatalf("closed with %d %q, want %d", closed.Code, closed.Text, want)
	}
	p.hearEnd()
	p.Close()
	return closed.Text
}

// hearEnd wants the server to have ended the connection, and nothing before.
func (p *peer) hearEnd() {
	p.t.Helper()
	rest, err := io.ReadAll(p.in)
	if len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("waiting for the end: heard %q (%v)", rest, err)
	}
}

// hearAnswer reads an HTTP response.
func (p *peer) hearAnswer() answer {
	p.t.Helper()
	a, err := p.answer()
	if err != nil {
		p.t.Fatalf("waiting for an answer: %v (%q)", err, a.body)
	}
	return a
}

// publish publishes a text and returns the answer.
func (p *peer) publish(topic, text string) event {
	p.t.Helper()
	return p.ask(fmt.Sprintf(`{"op":"publish","id":1,"topic":%q,"text":%q}`, topic, text), "published")
}

// subscribe subscribes; from is the JSON of that member, "" for live.
func (p *peer) subscribe(topic, from string) event {
	p.t.Helper()
	if from != "" {
		from = `,"from":` + from
	}
	return p.ask(fmt.Sprintf(`{"op":"subscribe","id":1,"topic":%q%s}`, topic, from), "subscribed")
}

// text is the payload of a message of kind text.
func (e event) text() string {
	var text string
	if err := json.Unmarshal(e.Data, &text); err != nil {
		return fmt.Sprintf("not a text: %s", e.Data)
	}
	return text
}

// mentions wants a text to hold all of these.
func mentions(t testing.TB, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("it says %q, which does not mention %q", text, want)
		}
	}
}
