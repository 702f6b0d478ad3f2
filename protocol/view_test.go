package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

func TestViewsOfAMessage(t *testing.T) {
	for _, tt := range []struct {
		name    string
		topic   string
		kind    Kind
		payload string
		json    string // the message in JSON, from "topic" on
	}{
		{"json", "t", KindJSON, `{"a": [1]}`, `"topic":"t","offset":42,"data":{"a": [1]}}`},
		{"json null", "t", KindJSON, `null`, `"topic":"t","offset":42,"data":null}`},
		{"text", `a"b\`, KindText, "two\nlines\u2028", `"topic":"a\"b\\","offset":42,"data":"two\nlines\u2028"}`},
		{"text that looks like an envelope", "t", KindText, `","op":"gap`, `"topic":"t","offset":42,"data":"\",\"op\":\"gap"}`},
		{"empty text", "t", KindText, ``, `"topic":"t","offset":42,"data":""}`},
		{"binary", "é", KindBinary, "\x00\xff", `"topic":"é","offset":42,"base64":"AP8="}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			view := func(f Format) []byte {
				return AppendMessage([]byte("before"), f, tt.topic, 42, tt.kind, []byte(tt.payload))[len("before"):]
			}
			if got := unframed(t, view(FormatJSON), OpText); string(got) != `{"op":"message",`+tt.json {
				t.Errorf("JSON is %s", got)
			}
			if got := unframed(t, view(FormatClassic), OpBinary); string(got) != tt.payload {
				t.Errorf("classic is %q", got)
			}
			if got := view(FormatSSE); string(got) != "event: message\ndata: {"+tt.json+"\n\n" {
				t.Errorf("SSE is %q", got)
			}
			e := Event{Op: EvMessage, Topic: tt.topic, Offset: 42, Kind: tt.kind, Payload: []byte(tt.payload)}
			got, err := ParseEventBinary(unframed(t, view(FormatBinary), OpBinary))
			if err != nil {
				t.Fatal(err)
			}
			sameEvent(t, got, e)
			if !bytes.Equal(AppendEventJSON(nil, &e), view(FormatJSON)) || !bytes.Equal(AppendEventBinary(nil, &e), view(FormatBinary)) {
				t.Error("the event and the message are not written alike")
			}
		})
	}
}

// A line break would end the data of an SSE block, and what follows it could
// pose as a field of the stream.
func TestLineBreaksInJSONBecomeSpacesInSSEOnly(t *testing.T) {
	payload := []byte("\r\n{\r\"a\":\n\n\"b\\n\"\r\n,\"c\":1}\n\n")
	sse := AppendMessage(nil, FormatSSE, "t", 1, KindJSON, payload)
	want := "event: message\ndata: {\"topic\":\"t\",\"offset\":1,\"data\":  { \"a\":  \"b\\n\"  ,\"c\":1}  }\n\n"
	if string(sse) != want {
		t.Errorf("SSE is %q, want %q", sse, want)
	}
	if b := AppendMessage(nil, FormatJSON, "t", 1, KindJSON, payload); !bytes.Contains(b, payload) {
		t.Errorf("JSON is %q, want the payload as it was sent", b)
	}
}

func TestSSEGaps(t *testing.T) {
	e := Event{Op: EvGap, Topic: "a\nb", Epoch: "E", Offset: 57, HasMissed: true, Missed: 15, Reason: GapSlow}
	want := "event: gap\ndata: {\"topic\":\"a\\nb\",\"epoch\":\"E\",\"offset\":57,\"missed\":15,\"reason\":\"slow\"}\n\n"
	if got := string(AppendSSEGap(nil, &e)); got != want {
		t.Errorf("gap is %q, want %q", got, want)
	}
	e.HasMissed = false
	if got := string(AppendSSEGap(nil, &e)); strings.Contains(got, "missed") {
		t.Errorf("gap is %q, want no missed", got)
	}
}

// eachSize calls f with payload sizes on both sides of each border at which a
// frame header grows.
func eachSize(f func(size int)) {
	for _, border := range []int{0, 126, 1 << 16} {
		for size := max(0, border-60); size < border+10; size++ {
			f(size)
		}
	}
}

func TestTheSizeOfABinaryMessageIsForetold(t *testing.T) {
	for _, offset := range []uint64{0, 1, 127, 128, 1<<14 - 1, 1 << 14, 1 << 56, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		for _, topic := range []string{"t", strings.Repeat("x", 255)} {
			eachSize(func(size int) {
				b := AppendMessage(nil, FormatBinary, topic, offset, KindBinary, make([]byte, size))
				if n := BinaryMessageSize(len(topic), offset, size); n != len(b) {
					t.Fatalf("topic %d, offset %d, payload %d: foretold %d bytes, written %d", len(topic), offset, size, n, len(b))
				}
				unframed(t, b, OpBinary)
			})
		}
	}
}

func TestFramesOfViewsHaveTheRightLength(t *testing.T) {
	for f := range NumFormats {
		eachSize(func(size int) {
			for _, kind := range []Kind{KindText, KindBinary} {
				b := AppendMessage([]byte("before"), f, "t\"", 7, kind, bytes.Repeat([]byte("\n"), size))[6:]
				if n := NextUnit(append(b, "after"...), f); n != len(b) {
					t.Fatalf("format %d, payload %d: unit is %d bytes, written %d", f, size, n, len(b))
				}
			}
		})
	}
}

func TestALogOfMessagesIsWalked(t *testing.T) {
	type message struct {
		offset  uint64
		kind    Kind
		payload string
	}
	want := []message{
		{1, KindText, ""}, {127, KindJSON, `{}`}, {128, KindBinary, strings.Repeat("x", 130)}, {1<<64 - 1, KindText, strings.Repeat("y", 70_000)}, {5, KindBinary, "z"},
	}
	var log []byte
	for _, m := range want {
		log = AppendMessage(log, FormatBinary, "topic", m.offset, m.kind, []byte(m.payload))
	}
	rest := log
	for i, m := range want {
		offset, kind, payload, n := NextBinaryMessage(rest)
		if (message{offset, kind, string(payload)}) != m || n != BinaryMessageSize(5, m.offset, len(m.payload)) {
			t.Fatalf("message %d is %d, %s, %d bytes of payload, %d in all", i, offset, kind, len(payload), n)
		}
		if unit := NextUnit(rest, FormatBinary); unit != n {
			t.Fatalf("message %d is a unit of %d bytes, want %d", i, unit, n)
		}
		rest = rest[n:]
	}
	if _, _, _, n := NextBinaryMessage(rest); n != 0 || NextUnit(nil, FormatSSE) != 0 {
		t.Errorf("an empty log has a message")
	}
}

func TestAMessageCutShortIsNoUnit(t *testing.T) {
	for f := range NumFormats {
		for _, size := range []int{0, 10, 200} {
			eachCut(AppendMessage(nil, f, "t", 7, KindBinary, make([]byte, size)), func(cut []byte) {
				if n := NextUnit(cut, f); n != 0 {
					t.Errorf("format %d: %q is a unit of %d bytes", f, cut, n)
				}
				if _, _, _, n := NextBinaryMessage(cut); f == FormatBinary && n != 0 {
					t.Errorf("%q is a message of %d bytes", cut, n)
				}
			})
		}
	}
	if n := NextUnit([]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0}, FormatClassic); n != 0 {
		t.Errorf("a frame of 2^64-1 bytes is a unit of %d", n)
	}
}

func TestWritingAndWalkingViewsDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 8192)
	for f := range NumFormats {
		for kind := KindJSON; kind <= KindBinary; kind++ {
			for _, size := range []int{1, 40, 1000} {
				payload := bytes.Repeat([]byte("1"), size)
				wantNoAllocs(t, "AppendMessage", func() { dst = AppendMessage(dst[:0], f, "t\n", 42, kind, payload) })
				wantNoAllocs(t, "NextUnit", func() { NextUnit(dst, f) })
			}
		}
	}
	e := Event{Op: EvGap, Topic: "t", Epoch: "E", Offset: 57, Reason: GapSlow}
	wantNoAllocs(t, "AppendSSEGap", func() { dst = AppendSSEGap(dst[:0], &e) })
	log := AppendMessage(nil, FormatBinary, "t", 42, KindText, []byte("x"))
	wantNoAllocs(t, "NextBinaryMessage", func() { NextBinaryMessage(log) })
}

// FuzzView: whatever publish is accepted, in JSON its envelope is the server's
// and its payload the publisher's, and in SSE it is one block.
func FuzzView(f *testing.F) {
	f.Add("t", byte(1), []byte("{\"a\":\r\n1}"), uint64(1))
	f.Add("t\"\\\u2028", byte(2), []byte("\",\"offset\":7,\"x\":\"\n\ndata: {}"), uint64(1<<64-1))
	f.Add("é", byte(3), []byte("\x00\xff\n\n"), uint64(0))
	f.Fuzz(func(t *testing.T, topic string, kindByte byte, payload []byte, offset uint64) {
		kind := Kind(kindByte)
		if CheckTopic([]byte(topic)) != nil || CheckPayload(kind, payload, 1<<20) != nil {
			return
		}
		frame := AppendMessage(nil, FormatJSON, topic, offset, kind, payload)
		checkJSONView(t, unframed(t, frame, OpText), topic, offset, kind, payload)

		sse := string(AppendMessage(nil, FormatSSE, topic, offset, kind, payload))
		data, ok := strings.CutPrefix(sse, "event: message\ndata: ")
		data, ok2 := strings.CutSuffix(data, "\n\n")
		if !ok || !ok2 || strings.ContainsAny(data, "\r\n") || NextUnit([]byte(sse), FormatSSE) != len(sse) {
			t.Fatalf("not one SSE block: %q", sse)
		}
		checkJSONView(t, []byte(`{"op":"message",`+data[1:]), topic, offset, kind, payload)

		binary := AppendMessage(nil, FormatBinary, topic, offset, kind, payload)
		gotOffset, gotKind, gotPayload, n := NextBinaryMessage(binary)
		if gotOffset != offset || gotKind != kind || !bytes.Equal(gotPayload, payload) || n != len(binary) {
			t.Fatalf("walked to %d, %s, %q, %d bytes", gotOffset, gotKind, gotPayload, n)
		}
	})
}

func checkJSONView(t *testing.T, text []byte, topic string, offset uint64, kind Kind, payload []byte) {
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal(text, &envelope); err != nil || len(envelope) != 4 {
		t.Fatalf("%s: %v", text, err)
	}
	var m struct {
		Op, Topic string
		Offset    uint64
		Data      json.RawMessage
		Base64    []byte
	}
	if err := json.Unmarshal(text, &m); err != nil || m.Op != "message" || m.Topic != topic || m.Offset != offset {
		t.Fatalf("%s is %+v, %v, want topic %q, offset %d", text, m, err, topic, offset)
	}
	var got, want bytes.Buffer
	switch kind {
	case KindJSON:
		if json.Compact(&got, m.Data) != nil || json.Compact(&want, payload) != nil {
			t.Fatalf("data is %s", m.Data)
		}
	case KindText:
		var s string
		if err := json.Unmarshal(m.Data, &s); err != nil {
			t.Fatal(err)
		}
		got.WriteString(s)
		want.Write(payload)
	case KindBinary:
		got.WriteString(base64.StdEncoding.EncodeToString(m.Base64))
		want.WriteString(base64.StdEncoding.EncodeToString(payload))
	}
	if got.String() != want.String() {
		t.Fatalf("payload is %q, want %q", got.String(), want.String())
	}
	e, err := ParseEventJSON(text)
	if err != nil || e.Op != EvMessage || e.Topic != topic || e.Offset != offset {
		t.Fatalf("event is %+v, %v", e, err)
	}
}
