package engine

import (
	"strings"
	"testing"

	"rayflux/protocol"
)

// FuzzConnection throws arbitrary bytes, cut anywhere, at a fresh connection whose kernel keeps so many bytes for it.
// Whatever they are, nothing panics, the books stay right, the loops can serve somebody else, and nothing is left when
// everybody has gone.
func FuzzConnection(f *testing.F) {
	ws := handshake("/ws", subprotocolBinary)
	json := handshake("/ws", subprotocolJSON)
	for _, stream := range []string{
		json + string(maskedText(`{"op":"subscribe","id":1,"topic":"t","from":"earliest"}`)) + string(maskedText(`{"op":"publish","id":2,"topic":"t","data":[1]}`)),
		json + string(maskedText(`{"op":"publish","topic":"u","base64":"AAEC","ack":"stored"}`)) + string(maskedText(`{"op":"unsubscribe","id":0,"topic":"t"}`)),
		ws + string(maskedBinary(protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdSubscribe, Topic: []byte("t"),
			From: protocol.From{Mode: protocol.FromPosition, Epoch: []byte("E"), Offset: 3}}))) +
			string(maskedBinary(protocol.AppendCommandBinary(nil, &protocol.Command{Op: protocol.CmdPublish, Topic: []byte("t"),
				Kind: protocol.KindBinary, Payload: make([]byte, 300)}))),
		json + "\x01\x83\x00\x00\x00\x00{\"o" + "\x89\x80\x00\x00\x00\x00" + "\x80\x84\x00\x00\x00\x00p\":1" + "\x88\x82\x00\x00\x00\x00\x03\xe8",
		handshake("/subscribe", "") + string(maskedText(`{"subscriber_id":"s","topic":"t"}`)) + string(maskedText("more")),
		request("GET", "/v1/sse?topic=t&topic=u%2Fv", "", "Last-Event-ID: E:1,"),
		request("POST", "/publish", `{"topic":"t","message":"m"}`) + request("GET", "/v1/topics/t/messages?last=3", "") + request("GET", "/healthz", ""),
		request("POST", "/v1/publish", `{"messages":[{"topic":"t","text":"1"},{"topic":"u","data":2},{"topic":"","text":""}]}`),
		"POST /v1/topics/t/messages?kind=text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n" +
			request("GET", "/v1/topics/t/messages?from=earliest", ""),
		strings.Repeat(request("GET", "/v1/topics/t/messages", ""), 40),
	} {
		f.Add([]byte(stream), []byte{255}, uint16(60_000))
		f.Add([]byte(stream), []byte{1, 3, 50, 0}, uint16(100))
	}
	f.Fuzz(func(t *testing.T, stream, cuts []byte, kernel uint16) {
		if len(stream) > 20_000 {
			return // nothing new, but slow
		}
		cfg := testConfig(2)
		cfg.MaxMessage, cfg.MaxBatch, cfg.MaxTopicBytes = 300, 1<<10, 4<<10
		cfg.MaxAnswers, cfg.MaxTopics, cfg.MaxSubscriptions = 4<<10, 4, 3
		cfg.BufferMemory, cfg.LogMemory = 64<<10, 32<<10
		r := newRig(t, cfg, 1)
		s := r.connect(0)
		s.capacity = int(kernel)
		for at := 0; len(stream) > 0; at++ {
			n := len(stream)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[at%len(cuts)]))
			}
			r.feed(s, stream[:n])
			stream = stream[n:]
			if at%16 == 0 {
				r.pass(2*msec, msec)
				r.audit()
			}
			if n%2 == 0 {
				s.readSome(n)
			}
		}
		r.pass(10*msec, msec)
		r.audit()

		// Somebody else is served as if nothing had been.
		other := subscribed(r, 1, protocol.FormatJSON, "other")
		other.readSome(1 << 20)
		r.feed(other, maskedText(`{"op":"ping","id":99}`))
		if got := string(other.readSome(1 << 20)); !strings.Contains(got, `{"op":"pong","id":99}`) {
			t.Fatalf("a ping of another client was answered with %q", got)
		}
		if len(other.conn.subs) == 1 { // else max-topics is reached
			put(r, topicNamed(r, "other"), "other", "hello")
			r.settle()
			if got := string(other.readSome(1 << 20)); !strings.Contains(got, `"data":"hello"`) {
				t.Fatalf("another client got %q", got)
			}
		}

		r.hangUp(other)
		r.hangUp(s)
		r.pass(4*cfg.MaxTopicAge, cfg.MaxTopicAge/4)
		r.auditRest()
		for _, l := range r.loops {
			if len(l.conns)+len(l.topics)+len(l.mirrors) > 0 || l.buffered != 0 || l.logBytes() != 0 {
				t.Fatalf("loop %d keeps %d connections, %d topics, %d mirrors, %d bytes of buffers, %d of logs", l.index, len(l.conns),
					len(l.topics), len(l.mirrors), l.buffered, l.logBytes())
			}
		}
	})
}

// topicNamed is the loop at which a topic is at home.
func topicNamed(r *rig, name string) *loop {
	return r.loops[0].homeOf(r.loops[0].hash([]byte(name)))
}
