package protocol

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
)

// unframed is the payload of frame, which must be one whole final frame of a
// server with nothing behind it.
func unframed(t testing.TB, frame []byte, op Opcode) []byte {
	t.Helper()
	h, ok := NextFrame(frame)
	if !ok || h.Opcode != op || CheckServerFrame(h, false, len(frame)) != nil || h.Size+int(h.Length) != len(frame) {
		t.Fatalf("% x is not one whole server frame: %+v", frame, h)
	}
	return frame[h.Size:]
}

// eventRows has the vectors of the table in doc.go.
var eventRows = []struct {
	hex  string
	want Event
}{
	{"81 00 01 73 02 76 31 a8 c3 01 80 80 04",
		Event{Op: EvWelcome, Session: "s", Version: "v1", PingIntervalMs: 25000, MaxMessageBytes: 65536}},
	{"82 03 01 01 74 02 45 31 29", Event{Op: EvSubscribed, HasID: true, ID: 1, Topic: "t", Epoch: "E1", Offset: 41, Recovered: true}},
	{"82 04 01 74 02 45 31 00", Event{Op: EvSubscribed, Topic: "t", Epoch: "E1", Partial: true}},
	{"83 01 02 01 74", Event{Op: EvUnsubscribed, HasID: true, ID: 2, Topic: "t"}},
	{"84 01 03 01 74 02 45 31 2a", Event{Op: EvPublished, HasID: true, ID: 3, Topic: "t", Epoch: "E1", Offset: 42}},
	{"85 01 04", Event{Op: EvPong, HasID: true, ID: 4}},
	{"86 01 74 2a 01 7b 22 61 22 3a 31 7d", Event{Op: EvMessage, Topic: "t", Offset: 42, Kind: KindJSON, Payload: []byte(`{"a":1}`)}},
	{"86 01 74 2b 02 68 69", Event{Op: EvMessage, Topic: "t", Offset: 43, Kind: KindText, Payload: []byte("hi")}},
	{"86 01 74 ac 02 03 00 ff", Event{Op: EvMessage, Topic: "t", Offset: 300, Kind: KindBinary, Payload: []byte{0, 255}}},
	{"87 02 01 74 02 45 31 39 0f 04 73 6c 6f 77",
		Event{Op: EvGap, Topic: "t", Epoch: "E1", Offset: 57, HasMissed: true, Missed: 15, Reason: GapSlow}},
	{"87 00 01 74 02 45 32 00 05 72 65 73 65 74", Event{Op: EvGap, Topic: "t", Epoch: "E2", Reason: GapReset}},
	{"88 00 aa 0e", Event{Op: EvDrain, ReconnectAfterMs: 1834}},
	{"89 03 03 0c 72 61 74 65 5f 6c 69 6d 69 74 65 64 fa 01 6e 6f",
		Event{Op: EvError, HasID: true, ID: 3, Code: CodeRateLimited, Message: "no", RetryAfterMs: 250}},
}

func sameEvent(t testing.TB, got, want Event) {
	t.Helper()
	if len(got.Payload) == 0 && len(want.Payload) == 0 {
		got.Payload, want.Payload = nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("event is\n%+v, want\n%+v", got, want)
	}
}

func TestBinaryEvents(t *testing.T) {
	for _, row := range eventRows {
		t.Run(row.hex, func(t *testing.T) {
			b := unhex(t, row.hex)
			got, err := ParseEventBinary(b)
			if err != nil {
				t.Fatal(err)
			}
			sameEvent(t, got, row.want)
			if again := unframed(t, AppendEventBinary(nil, &row.want), OpBinary); !bytes.Equal(again, b) {
				t.Errorf("event is written % x", again)
			}
		})
	}
}

func TestJSONEvents(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Event
	}{
		{`{"op":"pong"}`, Event{Op: EvPong}},
		{`{"op":"welcome","session":"a\"b","version":"","ping_interval_ms":0,"max_message_bytes":18446744073709551615}`,
			Event{Op: EvWelcome, Session: `a"b`, MaxMessageBytes: math.MaxUint64}},
		{`{"op":"subscribed","topic":"t\\é","epoch":"E","offset":0,"recovered":false,"partial":true}`,
			Event{Op: EvSubscribed, Topic: `t\é`, Epoch: "E", Partial: true}},
		{`{"op":"message","topic":"t","offset":1,"data":null}`, Event{Op: EvMessage, Topic: "t", Offset: 1, Kind: KindJSON, Payload: []byte("null")}},
		{`{"op":"message","topic":"t","offset":1,"data":"a\n\"é"}`, Event{Op: EvMessage, Topic: "t", Offset: 1, Kind: KindText, Payload: []byte("a\n\"é")}},
		{`{"op":"message","topic":"t","offset":1,"base64":""}`, Event{Op: EvMessage, Topic: "t", Offset: 1, Kind: KindBinary}},
		{`{"op":"error","code":"internal","message":""}`, Event{Op: EvError, Code: CodeInternal}},
	} {
		t.Run(tt.text, func(t *testing.T) {
			got, err := ParseEventJSON([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			sameEvent(t, got, tt.want)
			if again := unframed(t, AppendEventJSON(nil, &tt.want), OpText); string(again) != tt.text {
				t.Errorf("event is written %s", again)
			}
		})
	}
}

func TestWhatAnEventDoesNotHaveIsIgnored(t *testing.T) {
	got, err := ParseEventJSON([]byte(` {"op":"pong","topic":5,"id":1,"new":[{}]} `))
	if err != nil {
		t.Fatal(err)
	}
	sameEvent(t, got, Event{Op: EvPong, HasID: true, ID: 1})

	e := Event{Op: EvDrain, HasID: true, ID: 9, Topic: "t", ReconnectAfterMs: 7}
	if b := unframed(t, AppendEventBinary(nil, &e), OpBinary); !bytes.Equal(b, []byte{0x88, 0, 7}) {
		t.Errorf("drain is written % x", b)
	}
	if b := unframed(t, AppendEventJSON(nil, &e), OpText); string(b) != `{"op":"drain","reconnect_after_ms":7}` {
		t.Errorf("drain is written %s", b)
	}
}

func TestEventsThatAreNone(t *testing.T) {
	for _, tt := range []struct {
		text string
		code Code
		word string
	}{
		{``, CodeBadRequest, "ends after"},
		{`[]`, CodeBadRequest, "not a JSON object"},
		{`{}`, CodeBadRequest, "op is missing"},
		{`{"op":"Pong"}`, CodeUnknownOp, `"Pong"`},
		{`{"op":"none"}`, CodeUnknownOp, `"none"`},
		{`{"op":"pong","op":"pong"}`, CodeBadRequest, "twice"},
		{`{"op":"pong","id":1.5}`, CodeBadRequest, `id is "1.5"`},
		{`{"op":"pong","id":9007199254740992}`, CodeBadRequest, `id is "9007199254740992"`},
		{`{"op":"message","topic":"t","data":1}`, CodeBadRequest, "offset"},
		{`{"op":"message","topic":"t","offset":1}`, CodeBadRequest, "data and base64"},
		{`{"op":"message","topic":"t","offset":1,"data":1,"base64":""}`, CodeBadRequest, "data and base64"},
		{`{"op":"message","topic":"t","offset":1,"base64":"A"}`, CodeBadRequest, `base64 is "A"`},
		{`{"op":"message","topic":"t","offset":1,"base64":1}`, CodeBadRequest, `base64 is 1`},
		{`{"op":"message","topic":7,"offset":1,"data":1}`, CodeBadRequest, "topic is 7"},
		{`{"op":"subscribed","topic":"t","epoch":"E","offset":1}`, CodeBadRequest, "recovered"},
		{`{"op":"subscribed","topic":"t","epoch":"E","offset":-1,"recovered":true}`, CodeBadRequest, `offset is "-1"`},
		{`{"op":"published","topic":"t","offset":1}`, CodeBadRequest, "epoch is missing"},
		{`{"op":"gap","topic":"t","epoch":"E","offset":1}`, CodeBadRequest, "reason is missing"},
		{`{"op":"error","message":"x"}`, CodeBadRequest, "code is missing"},
		{`{"op":"drain"}`, CodeBadRequest, "reconnect_after_ms"},
		{`{"op":"welcome","session":"s"}`, CodeBadRequest, "version is missing"},
	} {
		_, err := ParseEventJSON([]byte(tt.text))
		wantError(t, err, tt.code, tt.word)
	}
	for _, tt := range []struct {
		hex  string
		code Code
		word string
	}{
		{"", CodeBadRequest, "empty"},
		{"05 00", CodeUnknownOp, "0x05"}, {"80 00", CodeUnknownOp, "0x80"}, {"8a 00", CodeUnknownOp, "0x8a"}, {"90 00", CodeUnknownOp, "0x90"},
		{"85 02", CodeBadRequest, "unknown"}, {"82 08 01 74 01 45 00", CodeBadRequest, "0x08 are unknown"}, {"88 01 00 00", CodeBadRequest, "unknown"}, {"85 00 00", CodeBadRequest, "follow"},
		{"86 01 74 01 00", CodeBadRequest, "kind"}, {"86 01 74 81 00 01", CodeBadRequest, "shortest"},
		{"89 02 01 61 00", CodeBadRequest, "retry_after_ms"},
	} {
		_, err := ParseEventBinary(unhex(t, tt.hex))
		wantError(t, err, tt.code, tt.word)
	}
}

func TestEventsCutShort(t *testing.T) {
	for _, row := range eventRows {
		eachCut(unframed(t, AppendEventJSON(nil, &row.want), OpText), func(cut []byte) {
			if _, err := ParseEventJSON(cut); err == nil {
				t.Errorf("%s is accepted", cut)
			}
		})
		b := unhex(t, row.hex)
		tail := len(b) - len(row.want.Payload) - len(row.want.Message) // what goes to the end can be cut unseen
		eachCut(b, func(cut []byte) {
			e, err := ParseEventBinary(cut)
			if len(cut) < tail && err == nil {
				t.Errorf("% x cut to % x is accepted", b, cut)
			}
			if len(cut) >= tail && (err != nil || string(e.Payload)+e.Message != string(cut[tail:])) {
				t.Errorf("% x cut to % x is %+v, %v", b, cut, e, err)
			}
		})
	}
}

// Escapes make the length of a JSON event unknown before it is written; the
// frame header must be right on both sides of each of its lengths.
func TestFramesOfJSONEventsHaveTheRightLength(t *testing.T) {
	for _, unit := range []string{"a", "\n", "\x01"} {
		for n := 0; n < 70_000; n += 1 + n/40 {
			e := Event{Op: EvError, Code: CodeInternal, Message: strings.Repeat(unit, n)}
			b := AppendEventJSON([]byte("before"), &e)
			got, err := ParseEventJSON(unframed(t, b[len("before"):], OpText))
			if err != nil || string(b[:6]) != "before" {
				t.Fatal(n, err)
			}
			sameEvent(t, got, e)
		}
	}
	for n := range 400 { // around 126, by one
		for _, f := range []func([]byte, *Event) []byte{AppendEventJSON, AppendEventBinary} {
			e := Event{Op: EvError, Code: CodeInternal, Message: strings.Repeat("a", n)}
			b := f(nil, &e)
			if h, _ := NextFrame(b); CheckServerFrame(h, false, 1000) != nil || h.Size+int(h.Length) != len(b) {
				t.Fatalf("message of %d bytes: frame %+v of %d bytes", n, h, len(b))
			}
		}
	}
}

func TestWritingEventsDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for _, row := range eventRows {
		row.want.Message = strings.Repeat(row.want.Message, 100) // past a header's border
		wantNoAllocs(t, "AppendEventJSON "+row.want.Op.String(), func() { dst = AppendEventJSON(dst[:0], &row.want) })
		wantNoAllocs(t, "AppendEventBinary "+row.want.Op.String(), func() { dst = AppendEventBinary(dst[:0], &row.want) })
	}
	message := unhex(t, "86 01 74 2b 02 68 69")
	wantNoAllocs(t, "ParseBinaryMessage", func() {
		if _, _, _, _, err := ParseBinaryMessage(message); err != nil {
			t.Fatal(err)
		}
	})
}

// onlyItsOwn is e with the fields alone that its op has.
func onlyItsOwn(e Event) Event {
	own := Event{Op: e.Op}
	if eventFlags[e.Op]&flagID != 0 && e.HasID {
		own.HasID, own.ID = true, e.ID
	}
	switch e.Op {
	case EvWelcome:
		own.Session, own.Version, own.PingIntervalMs, own.MaxMessageBytes = e.Session, e.Version, e.PingIntervalMs, e.MaxMessageBytes
	case EvUnsubscribed:
		own.Topic = e.Topic
	case EvSubscribed, EvPublished, EvGap:
		own.Topic, own.Epoch, own.Offset = e.Topic, e.Epoch, e.Offset
	case EvMessage:
		own.Topic, own.Offset, own.Kind, own.Payload = e.Topic, e.Offset, e.Kind, e.Payload
	case EvDrain:
		own.ReconnectAfterMs = e.ReconnectAfterMs
	case EvError:
		own.Code, own.Message, own.RetryAfterMs = e.Code, e.Message, e.RetryAfterMs
	}
	switch {
	case e.Op == EvSubscribed:
		own.Recovered, own.Partial = e.Recovered, e.Partial
	case e.Op == EvGap:
		own.Reason = e.Reason
		if e.HasMissed {
			own.HasMissed, own.Missed = true, e.Missed
		}
	}
	return own
}

// FuzzEvents: any event comes back from both wires as it was; and whatever
// bytes are accepted as an event are the only ones that mean it.
func FuzzEvents(f *testing.F) {
	f.Add(byte(1), byte(3), uint64(7), uint64(1834), "t", "E1", "message", []byte{0x85, 0})
	for _, row := range eventRows {
		f.Add(byte(row.want.Op), byte(0xff), row.want.ID, row.want.Offset, "t\n", "E\"", strings.Repeat("é", 50), unhex(f, row.hex))
	}
	f.Fuzz(func(t *testing.T, op, bits byte, id, n uint64, topic, epoch, text string, raw []byte) {
		if e, err := ParseEventBinary(raw); err == nil {
			if again := unframed(t, AppendEventBinary(nil, &e), OpBinary); !bytes.Equal(again, raw) {
				t.Fatalf("% x was read and is written % x", raw, again)
			}
		}
		if _, err := ParseEventJSON(raw); err == nil && !json.Valid(raw) {
			t.Fatalf("%q is accepted and no JSON", raw)
		}
		str8 := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), 255)], "") }
		text = strings.ToValidUTF8(text, "")
		e := onlyItsOwn(Event{
			Op: EvWelcome + EventOp(op)%EvError, HasID: bits&1 != 0, ID: id & MaxID,
			Topic: str8(topic), Epoch: str8(epoch), Offset: n, Recovered: bits&2 != 0, Partial: bits&4 != 0,
			Kind: KindText + Kind(bits>>3&1), Payload: []byte(text), HasMissed: bits&16 != 0, Missed: n, Reason: str8(text),
			Code: Code(str8(epoch)), Message: text, RetryAfterMs: n, ReconnectAfterMs: n,
			Session: str8(topic), Version: str8(text), PingIntervalMs: id, MaxMessageBytes: n,
		})
		got, err := ParseEventBinary(unframed(t, AppendEventBinary(nil, &e), OpBinary))
		if err != nil {
			t.Fatal(err)
		}
		sameEvent(t, got, e)
		got, err = ParseEventJSON(unframed(t, AppendEventJSON(nil, &e), OpText))
		if err != nil {
			t.Fatal(err)
		}
		sameEvent(t, got, e)
	})
}
