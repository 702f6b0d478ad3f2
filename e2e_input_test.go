package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rayflux/protocol"
)

// Limits small enough to name in the tables below.
var smallLimits = []string{"--max-message=1KiB", "--max-batch=4KiB", "--max-header=1KiB", "--max-subscriptions=3", "--max-topics=200"}

// bystander is a client who did nothing wrong while others do.
type bystander struct {
	*peer
	said int
}

func newBystander(t testing.TB, n *node) *bystander {
	b := &bystander{peer: n.native(t)}
	b.subscribe("bystander", "")
	return b
}

// served wants the bystander, and a newcomer, to be served as ever.
func (b *bystander) served(t *testing.T, n *node) {
	t.Helper()
	b.t = t
	b.patient()
	b.said++
	text := fmt.Sprintf("still here %d", b.said)
	newcomer := n.native(t)
	newcomer.publish("bystander", text)
	if got := b.hear("message"); got.text() != text || got.Offset != uint64(b.said) {
		t.Errorf("the bystander got message %d %q, want %d %q", got.Offset, got.text(), b.said, text)
	}
	newcomer.Close()
}

// httpInput is a request that is not as it should be.
type httpInput struct {
	name   string
	sent   string
	status int
	code   protocol.Code
	says   string // in the error's message: words, by " & "
	lives  bool   // the connection takes another request
}

const (
	hostField     = "Host: rayflux.test\r\n"
	messagesPath  = "/v1/topics/t/messages"
	octetsField   = "Content-Type: application/octet-stream\r\n"
	textField     = "Content-Type: text/plain\r\n"
	jsonField     = "Content-Type: application/json\r\n"
	postMessages  = "POST " + messagesPath + " HTTP/1.1\r\n" + hostField
	postClassic   = "POST /publish HTTP/1.1\r\n" + hostField
	chunkedField  = "Transfer-Encoding: chunked\r\n"
	handshakeLine = "GET /ws HTTP/1.1\r\n"
)

func postRequest(path, fields, body string) string {
	return "POST " + path + " HTTP/1.1\r\n" + hostField + fields + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + body
}

func getRequest(target string) string { return "GET " + target + " HTTP/1.1\r\n" + hostField + "\r\n" }

var httpInputs = []httpInput{
	{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request", "0x16", false},
	{"a line of nothing", "hello\r\n\r\n", 400, "bad_request", "0x0d & method", false},
	{"no path", "GET rayflux HTTP/1.1\r\n" + hostField + "\r\n", 400, "bad_request", "rayflux", false},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_http_version", "2.0", false},
	{"bare line feeds", "GET /healthz HTTP/1.1\nHost: x\n\n", 400, "bad_request", "line feed", false},
	{"bare carriage return", "GET /healthz HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400, "bad_request", "carriage return", false},
	{"NUL in a field", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400, "bad_request", "0x00", false},
	{"no host", "GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_request", "Host", false},
	{"two hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request", "more than one Host", false},
	{"head too long", "GET /healthz HTTP/1.1\r\n" + hostField + "X: " + strings.Repeat("y", 1100) + "\r\n\r\n", 431, "header_too_large", "1024", false},
	{"head too long before it ends", "GET /" + strings.Repeat("y", 1100), 431, "header_too_large", "1024", false},
	{"unknown expectation", postClassic + "Expect: miracles\r\n\r\n", 417, "expectation_failed", "miracles", false},

	{"smuggling: length and chunks", postClassic + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request", "Transfer-Encoding & Content-Length", false},
	{"smuggling: two lengths", postClassic + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400, "bad_request", "4 & 5", false},
	{"smuggling: list of lengths", postClassic + "Content-Length: 4, 4\r\n\r\nabcd", 400, "bad_request", "4, 4", false},
	{"smuggling: signed length", postClassic + "Content-Length: +4\r\n\r\nabcd", 400, "bad_request", "+4", false},
	{"smuggling: endless length", postClassic + "Content-Length: 99999999999999999999\r\n\r\n", 400, "bad_request", "99999999999999999999 & 18", false},
	{"smuggling: folded field", postClassic + "X: a\r\n Content-Length: 4\r\n\r\n", 400, "bad_request", "0x20", false},
	{"smuggling: blank before the colon", postClassic + "Content-Length : 4\r\n\r\nabcd", 400, "bad_request", "Content-Length & 0x20", false},
	{"smuggling: unknown coding", postClassic + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "unsupported_transfer_coding", "gzip, chunked", false},
	{"smuggling: coding with an accent", postClassic + "Transfer-Encoding: \x0bchunked\r\n\r\n", 400, "bad_request", "0x0b", false},
	{"smuggling: chunks twice", postClassic + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request", "more than one Transfer-Encoding", false},
	{"smuggling: chunks of 1.0", "POST /publish HTTP/1.0\r\n" + hostField + chunkedField + "\r\n0\r\n\r\n", 400, "bad_request", "HTTP/1.0", false},
	{"smuggling: chunk size in hex notation", postMessages + chunkedField + "\r\n0x4\r\nabcd\r\n0\r\n\r\n", 400, "bad_request", "chunked & 0x78", false},
	{"smuggling: chunk longer than it says", postMessages + chunkedField + "\r\n2\r\nabcd\r\n0\r\n\r\n", 400, "bad_request", "chunked & 0x63", false},
	{"chunks too long", postMessages + chunkedField + "\r\n401\r\n" + strings.Repeat("a", 1025) + "\r\n0\r\n\r\n", 413, "message_too_large", "1024", false},
	{"handshake with a body", handshakeLine + upgradeFields + "Content-Length: 4\r\n\r\nabcd", 400, "bad_request", "body", false},

	{"unknown path", getRequest("/nowhere"), 404, "not_found", "/nowhere", false},
	{"wrong method", "DELETE /publish HTTP/1.1\r\n" + hostField + "\r\n", 405, "method_not_allowed", "DELETE & /publish & POST", false},
	{"wrong method of a topic", "PUT " + messagesPath + " HTTP/1.1\r\n" + hostField + "\r\n", 405, "method_not_allowed", "PUT & GET, POST", false},
	{"no length", postMessages + "\r\n", 411, "length_required", "Content-Length", false},
	{"body too long by its header", postMessages + "Content-Length: 1025\r\n\r\n", 413, "message_too_large", "1025 & 1024", false},
	{"batch too long by its header", "POST /v1/publish HTTP/1.1\r\n" + hostField + "Content-Length: 4097\r\n\r\n", 413, "batch_too_large", "4097 & 4096", false},
	{"old WebSocket", handshakeLine + strings.Replace(upgradeFields, "13", "8", 1) + "\r\n", 426, "upgrade_required", "13", false},
	{"handshake without a key", handshakeLine + strings.Replace(upgradeFields, "Key", "Kex", 1) + "\r\n", 400, "bad_request", "", false},
	{"handshake with a bad key", handshakeLine + strings.Replace(upgradeFields, "dGhl", "dG", 1) + "\r\n", 400, "bad_request", "16 bytes", false},
	{"no handshake", getRequest("/ws"), 400, "bad_request", "", false},

	{"classic: not JSON", postRequest("/publish", "", `{"topic":"t","message":`), 400, "bad_request", "JSON", true},
	{"classic: no topic", postRequest("/publish", "", `{"message":"m"}`), 400, "bad_request", "topic", true},
	{"classic: empty message", postRequest("/publish", "", `{"topic":"t","message":""}`), 400, "bad_request", "message is empty", true},
	{"classic: number for a topic", postRequest("/publish", "", `{"topic":7,"message":"m"}`), 400, "bad_request", "topic is 7", true},
	{"classic: reserved topic", postRequest("/publish", "", `{"topic":"$sys","message":"m"}`), 400, "topic_invalid", "$sys", true},
	{"classic: message too long", postRequest("/publish", "", `{"topic":"t","message":"`+strings.Repeat("m", 1025)+`"}`), 413, "message_too_large", "1025 & 1024", true},
	{"one: topic too long", postRequest("/v1/topics/"+strings.Repeat("t", 301)+"/messages", "", "m"), 400, "topic_invalid", "301 & 255", true},
	{"one: control character in a topic", postRequest("/v1/topics/a%07b/messages", "", "m"), 400, "topic_invalid", "U+0007", true},
	{"one: topic not UTF-8", postRequest("/v1/topics/a%ffb/messages", "", "m"), 400, "topic_invalid", "UTF-8", true},
	{"one: broken escape", postRequest("/v1/topics/a%4/messages", "", "m"), 400, "bad_request", "%4", true},
	{"one: no topic", postRequest("/v1/topics//messages", "", "m"), 400, "topic_invalid", "empty", true},
	{"one: bad JSON", postRequest(messagesPath, jsonField, `{"a":}`), 400, "data_invalid", "JSON", true},
	{"one: text not UTF-8", postRequest(messagesPath, textField, "a\xffb"), 400, "data_invalid", "UTF-8 & byte 1 of 3", true},
	{"one: unknown kind", postRequest(messagesPath+"?kind=xml", octetsField, "m"), 400, "bad_request", "xml", true},
	{"one: unknown ack", postRequest(messagesPath+"?ack=maybe", octetsField, "m"), 400, "bad_request", "maybe", true},
	{"one: nothing is stored here", postRequest(messagesPath+"?ack=stored", octetsField, "m"), 409, "not_persisted", "store", true},
	{"batch: no array", postRequest("/v1/publish", "", `{"messages":{}}`), 400, "bad_request", "not an array", true},
	{"batch: no messages", postRequest("/v1/publish", "", `{}`), 400, "bad_request", "messages is missing", true},
	{"batch: cut short", postRequest("/v1/publish", "", `{"messages":[{"topic":"t","text":"m"}`), 400, "bad_request", "JSON", true},
	{"batch: too many", postRequest("/v1/publish", "", `{"messages":[`+strings.Repeat("0,", 1000)+"0]}"), 413, "batch_too_large", "1001 & 1000", true},
	{"history: unknown topic", getRequest("/v1/topics/never/messages"), 404, "not_found", "never", true},
	{"history: bad position", getRequest(messagesPath + "?from=yesterday"), 400, "bad_request", "yesterday", true},
	{"history: bad time", getRequest(messagesPath + "?since=yesterday"), 400, "bad_request", "yesterday", true},
	{"history: too much", getRequest(messagesPath + "?limit=1001"), 400, "bad_request", "1001 & 1000", true},
	{"history: two starts", getRequest(messagesPath + "?last=1&from=earliest"), 400, "bad_request", "more than one", true},
	{"stream: no topic", getRequest("/v1/sse"), 400, "bad_request", "topic", true},
	{"stream: topic twice", getRequest("/v1/sse?topic=a&topic=a"), 400, "bad_request", "twice", true},
	{"stream: too many topics", getRequest("/v1/sse?topic=a&topic=b&topic=c&topic=d"), 400, "too_many_subscriptions", "3", true},
	{"stream: bad id", "GET /v1/sse?topic=a HTTP/1.1\r\n" + hostField + "Last-Event-ID: 1,2\r\n\r\n", 400, "bad_request", "2 & 1", true},
}

func TestBadHTTPIsToldWhatIsWrong(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, smallLimits...)
		others := newBystander(t, n)
		for _, c := range httpInputs {
			t.Run(c.name, func(t *testing.T) {
				c.run(t, n)
				others.served(t, n)
			})
		}
	})
}

func (c httpInput) run(t *testing.T, n *node) {
	p := n.dial(t, dialing{})
	p.raw(c.sent)
	a := p.hearAnswer()
	if a.status != c.status || a.Error.Code != string(c.code) {
		t.Errorf("answered %d %q (%s), want %d %q", a.status, a.Error.Code, a.Error.Message, c.status, c.code)
	}
	mentions(t, a.Error.Message, strings.Split(c.says, " & ")...)
	switch a.status {
	case 405:
		if allow := a.header.Get("Allow"); allow == "" || !strings.HasSuffix(c.says, allow) {
			t.Errorf("Allow is %q, want what ends %q", allow, c.says)
		}
	case 426:
		mentions(t, a.header.Get("Sec-WebSocket-Version"), "13")
	}
	if !c.lives {
		p.hearEnd()
		return
	}
	p.raw("GET /healthz HTTP/1.1\r\nHost: rayflux.test\r\n\r\n")
	if a := p.hearAnswer(); a.status != 200 {
		t.Errorf("the next request was answered %d %s", a.status, a.body)
	}
}

// frameInput is what no client may send once it is a WebSocket.
type frameInput struct {
	name string
	as   string // json, bin or classic
	sent string
	code protocol.CloseCode
	says string // in the close frame: words, by " & "
}

// The parts of a frame's first byte.
const (
	fin        = 0x80
	opText     = byte(protocol.OpText)
	opBinary   = byte(protocol.OpBinary)
	opClose    = byte(protocol.OpClose)
	opPing     = byte(protocol.OpPing)
	longHeader = "\xfe\x28\x01\x01\x02\x03\x04" // announces 10241 bytes, one too many
)

// rawFrame is a masked frame whose first byte is free to be wrong.
func rawFrame(first byte, payload string) string {
	b := protocol.AppendMaskedFrame(nil, 0, [4]byte{1, 2, 3, 4}, []byte(payload))
	b[0] = first
	return string(b)
}

var frameInputs = []frameInput{
	{"not masked", "json", "\x81\x02{}", 1002, "masked"},
	{"reserved bit", "json", rawFrame(0xc0|opText, "{}"), 1002, "100"},
	{"all reserved bits", "json", rawFrame(0xf0|opText, "{}"), 1002, "111"},
	{"reserved data opcode", "json", rawFrame(fin|3, ""), 1002, "0x3"},
	{"reserved control opcode", "json", rawFrame(fin|0xb, ""), 1002, "0xb"},
	{"continuation of nothing", "json", rawFrame(fin, "{}"), 1002, "continu"},
	{"message inside a message", "json", rawFrame(opText, "{") + rawFrame(fin|opText, "}"), 1002, "fragment"},
	{"ping in fragments", "json", rawFrame(opPing, ""), 1002, "fragment"},
	{"ping too long", "json", rawFrame(fin|opPing, strings.Repeat("p", 126)), 1002, "126 & 125"},
	{"length not minimal", "json", "\x81\xfe\x00\x02\x01\x02\x03\x04{}", 1002, "length"},
	{"length with its highest bit", "json", "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04", 1002, "length"},
	{"too long by its header", "json", "\x81" + longHeader, 1009, "10241 & 10240"},
	{"far too long by its header", "json", "\x81\xff\x00\x00\x00\x00\x40\x00\x00\x00\x01\x02\x03\x04", 1009, "1073741824 & 10240"},
	{"too long by its header, binary", "bin", "\x82" + longHeader, 1009, "10241 & 10240"},
	{"too long by its header, classic", "classic", "\x81" + longHeader, 1009, "10241 & 10240"},
	{"too long in fragments", "json", rawFrame(opText, strings.Repeat("a", 10240)) + rawFrame(fin, "b"), 1009, "1 byte & 0"},
	{"not UTF-8", "json", rawFrame(fin|opText, "{\"\xff\"}"), 1007, "UTF-8"},
	{"not UTF-8 in a fragment", "json", rawFrame(opText, "\xff"), 1007, "UTF-8"},
	{"UTF-8 cut short", "json", rawFrame(opText, "\xe2\x82") + rawFrame(fin, ""), 1007, "UTF-8"},
	{"close of one byte", "json", rawFrame(fin|opClose, "\x03"), 1002, "1 byte"},
	{"close 1005", "json", rawFrame(fin|opClose, "\x03\xed"), 1002, "1005"},
	{"close 999", "json", rawFrame(fin|opClose, "\x03\xe7"), 1002, "999"},
	{"close 2999", "json", rawFrame(fin|opClose, "\x0b\xb7"), 1002, "2999"},
	{"close reason not UTF-8", "json", rawFrame(fin|opClose, "\x03\xe8\xff"), 1007, "UTF-8"},
	{"binary to the text protocol", "json", rawFrame(fin|opBinary, "{}"), 1003, "rayflux.v1.json"},
	{"text to the binary protocol", "bin", rawFrame(fin|opText, "{}"), 1003, "rayflux.v1.bin"},
}

func TestBadFramesAreClosedWithTheirCode(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, smallLimits...)
		others := newBystander(t, n)
		for _, c := range frameInputs {
			t.Run(c.name, func(t *testing.T) {
				began := time.Now()
				p := c.connect(t, n)
				p.raw(c.sent)
				mentions(t, p.hearClose(c.code), strings.Split(c.says, " & ")...)
				if took := time.Since(began); took > patience/2 {
					t.Errorf("it took %v: something was waited for that never comes", took)
				}
				others.served(t, n)
			})
		}
	})
}

func (c frameInput) connect(t *testing.T, n *node) *peer {
	t.Helper()
	switch c.as {
	case "json":
		return n.native(t)
	case "classic":
		p := n.dial(t, dialing{})
		if err := p.upgrade("/subscribe", ""); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := n.dial(t, dialing{})
	if err := p.upgrade("/ws", "rayflux.v1.bin"); err != nil {
		t.Fatal(err)
	}
	if op, _, err := p.message(); err != nil || op != protocol.OpBinary {
		t.Fatalf("welcomed with opcode %d (%v)", op, err)
	}
	return p
}

// commandInput is a command that fails and does no more harm.
type commandInput struct {
	name    string
	command string
	code    protocol.Code
	says    string // in the error's message: words, by " & "
	id      bool   // 7, and echoed
}

var commandInputs = []commandInput{
	{"not JSON", `{"op":`, "bad_request", "JSON", false},
	{"not an object", `[1]`, "bad_request", "object", false},
	{"nothing", ``, "bad_request", "JSON", false},
	{"two objects", `{"op":"ping","id":7}{}`, "bad_request", "JSON", false},
	{"too deep", `{"op":"publish","id":7,"topic":"t","data":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + `}`, "bad_request", "JSON", false},
	{"no op", `{"id":7}`, "bad_request", "op is missing", true},
	{"unknown op", `{"op":"shout","id":7}`, "unknown_op", "shout", true},
	{"id negative", `{"op":"ping","id":-1}`, "bad_request", "-1 & 9007199254740991", false},
	{"id too large", `{"op":"ping","id":9007199254740992}`, "bad_request", "9007199254740992 & 9007199254740991", false},
	{"id twice", `{"op":"ping","id":7,"id":8}`, "bad_request", "id occurs twice", false},
	{"topic twice", `{"op":"publish","id":7,"topic":"a","topic":"b","text":"x"}`, "bad_request", "topic occurs twice", true},
	{"no topic", `{"op":"subscribe","id":7}`, "topic_invalid", "topic is missing", true},
	{"empty topic", `{"op":"subscribe","id":7,"topic":""}`, "topic_invalid", "empty", true},
	{"long topic", `{"op":"subscribe","id":7,"topic":"` + strings.Repeat("t", 301) + `"}`, "topic_invalid", "301 & 255", true},
	{"reserved topic", `{"op":"publish","id":7,"topic":"$x","text":"x"}`, "topic_invalid", "$x", true},
	{"control character", `{"op":"publish","id":7,"topic":"a\u0085b","text":"x"}`, "topic_invalid", "U+0085", true},
	{"no payload", `{"op":"publish","id":7,"topic":"t"}`, "data_invalid", "data, text or base64", true},
	{"two payloads", `{"op":"publish","id":7,"topic":"t","text":"a","data":1}`, "bad_request", "2 of data", true},
	{"text that is none", `{"op":"publish","id":7,"topic":"t","text":5}`, "data_invalid", "text is 5", true},
	{"bad base64", `{"op":"publish","id":7,"topic":"t","base64":"a"}`, "data_invalid", "base64", true},
	{"message too long", `{"op":"publish","id":7,"topic":"t","text":"` + strings.Repeat("m", 1025) + `"}`, "message_too_large", "1025 & 1024", true},
	{"binary message too long", `{"op":"publish","id":7,"topic":"t","base64":"` + strings.Repeat("AAAA", 342) + `"}`, "message_too_large", "1026 & 1024", true},
	{"unknown ack", `{"op":"publish","id":7,"topic":"t","text":"x","ack":"maybe"}`, "bad_request", "maybe", true},
	{"stored where nothing is", `{"op":"publish","id":7,"topic":"t","text":"x","ack":"stored"}`, "not_persisted", "store", true},
	{"unknown start", `{"op":"subscribe","id":7,"topic":"t","from":"noon"}`, "bad_request", "noon", true},
	{"half a position", `{"op":"subscribe","id":7,"topic":"t","from":{"epoch":"E"}}`, "bad_request", "from", true},
	{"long epoch", `{"op":"subscribe","id":7,"topic":"t","from":{"epoch":"` + strings.Repeat("E", 17) + `","offset":1}}`, "bad_request", "17 & 16", true},
	{"bad time", `{"op":"subscribe","id":7,"topic":"t","from":{"since":"noon"}}`, "bad_request", "noon", true},
	{"subscribed already", `{"op":"subscribe","id":7,"topic":"one"}`, "already_subscribed", "one", true},
	{"not subscribed", `{"op":"unsubscribe","id":7,"topic":"four"}`, "not_subscribed", "four", true},
	{"one subscription too many", `{"op":"subscribe","id":7,"topic":"four"}`, "too_many_subscriptions", "3", true},
}

func TestBadCommandsLeaveTheConnection(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, smallLimits...)
		others := newBystander(t, n)
		p := n.native(t)
		for _, topic := range []string{"one", "two", "three"} {
			p.subscribe(topic, "")
		}
		for _, c := range commandInputs {
			t.Run(c.name, func(t *testing.T) {
				p.t = t
				c.run(p)
				others.served(t, n)
			})
		}
	})
}

// run wants the error, and the connection to be as good as before.
func (c commandInput) run(p *peer) {
	p.patient()
	e := p.ask(c.command, "error")
	if e.Code != string(c.code) || (e.ID != nil) != c.id || c.id && *e.ID != 7 {
		p.t.Errorf("told %+v, want code %q, id %v", e, c.code, c.id)
	}
	mentions(p.t, e.Message, strings.Split(c.says, " & ")...)
	p.ask(`{"op":"ping","id":0}`, "pong")
}

func TestClassicRefusesABadFirstMessage(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops)
		for _, first := range []string{`{}`, `x`, `{"subscriber_id":"s"}`, `{"subscriber_id":"","topic":"t"}`, `{"subscriber_id":"s","topic":"$t"}`} {
			p := n.dial(t, dialing{})
			if err := p.upgrade("/subscribe", ""); err != nil {
				t.Fatal(err)
			}
			p.tell(first)
			op, payload, err := p.message()
			if err != nil || op != protocol.OpText || string(payload) != `{"error":"invalid subscribe request"}` {
				t.Fatalf("%s: answered %q with opcode %d (%v)", first, payload, op, err)
			}
			p.hearClose(protocol.ClosePolicy)
		}
		n.counted(disconnects("policy"), 5)
	})
}

func TestMessagesAtTheLimitAreTaken(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, smallLimits...)
		reader, classic, p := n.native(t), n.classic(t, "limit"), n.dial(t, dialing{})
		reader.subscribe("limit", "")
		n.counted("rayflux_subscriptions", 2)
		longest, topic := strings.Repeat("m", 1024), strings.Repeat("t", 255)
		for _, request := range []string{
			postRequest("/publish", "", `{"topic":"limit","message":"`+longest+`"}`),
			postRequest("/publish", "", `{"topic":"limit","message":"`+strings.Repeat(`\u006d`, 1024)+`"}`),
			postRequest("/v1/topics/limit/messages", "", longest),
			postRequest("/v1/topics/limit/messages", chunkedField, longest),
			postRequest("/v1/publish", "", `{"messages":[{"topic":"limit","text":"`+longest+`"}]}`),
		} {
			if strings.Contains(request, chunkedField) {
				request = strings.Replace(request, "Content-Length: 1024\r\n\r\n", "\r\n400\r\n", 1) + "\r\n0\r\n\r\n"
			}
			p.raw(request)
			if a := p.hearAnswer(); a.status != 200 {
				t.Errorf("answered %d %s", a.status, a.body)
			}
			if m := reader.hear("message"); m.text() != longest {
				t.Errorf("came %d bytes, want 1024", len(m.text()))
			}
			classic.hearPayload(longest)
		}
		if e := n.native(t).publish(topic, longest); e.Offset != 1 {
			t.Errorf("published at %d", e.Offset)
		}
	})
}

func TestTopicsPastTheLimitAreRefused(t *testing.T) {
	eachLoopCount(t, func(t *testing.T, loops int) {
		n := startNode(t, loops, "--max-topics=3")
		p := n.native(t)
		for _, topic := range []string{"a", "b", "c"} {
			p.publish(topic, "x")
		}
		if e := p.ask(`{"op":"publish","id":1,"topic":"d","text":"x"}`, "error"); e.Code != "too_many_topics" || e.RetryAfterMs == 0 {
			t.Errorf("told %+v", e)
		}
		if e := p.ask(`{"op":"subscribe","id":1,"topic":"d"}`, "error"); e.Code != "too_many_topics" {
			t.Errorf("told %+v", e)
		}
		a, err := n.dial(t, dialing{}).post("/publish", "application/json", []byte(`{"topic":"d","message":"x"}`))
		if err != nil || a.status != 503 || a.Error.Code != "too_many_topics" || a.header.Get("Retry-After") == "" {
			t.Errorf("answered %d %s (%v)", a.status, a.body, err)
		}
		p.publish("a", "y")
		n.counted(dropped("too_many_topics"), 2)
	})
}
