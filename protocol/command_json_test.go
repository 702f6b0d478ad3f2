package protocol

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const testLimit = 100

// plain is c with nil for empty slices, so that commands compare by meaning.
func plain(c Command) Command {
	for _, s := range []*[]byte{&c.Topic, &c.Payload, &c.From.Epoch} {
		if len(*s) == 0 {
			*s = nil
		}
	}
	return c
}

func sameCommand(t testing.TB, got, want Command) {
	t.Helper()
	if !reflect.DeepEqual(plain(got), plain(want)) {
		t.Fatalf("command is\n%+v, want\n%+v", got, want)
	}
}

func TestJSONCommands(t *testing.T) {
	topic := []byte("t")
	for _, tt := range []struct {
		text string
		want Command
	}{
		{`{"op":"ping"}`, Command{Op: CmdPing}},
		{`{"op":"ping","id":0}`, Command{Op: CmdPing, HasID: true}},
		{` { "id" : 9007199254740991 , "op" : "ping" } `, Command{Op: CmdPing, HasID: true, ID: MaxID}},
		{`{"\u006fp":"pi\u006eg","x":[{"op":"publish"}],"y":1e3}`, Command{Op: CmdPing}},
		{`{"op":"ping","topic":5,"from":[],"text":null}`, Command{Op: CmdPing}},
		{`{"op":"unsubscribe","id":2,"topic":"t"}`, Command{Op: CmdUnsubscribe, HasID: true, ID: 2, Topic: topic}},
		{`{"op":"unsubscribe","topic":"\ud83d\ude00\/\""}`, Command{Op: CmdUnsubscribe, Topic: []byte(`😀/"`)}},
		{`{"op":"subscribe","topic":"t"}`, Command{Op: CmdSubscribe, Topic: topic}},
		{`{"op":"subscribe","topic":"t","from":"earliest"}`, Command{Op: CmdSubscribe, Topic: topic, From: From{Mode: FromEarliest}}},
		{`{"op":"subscribe","topic":"t","from":{"offset":18446744073709551615,"epoch":"E\u0031"}}`,
			Command{Op: CmdSubscribe, Topic: topic, From: From{Mode: FromPosition, Epoch: []byte("E1"), Offset: 1<<64 - 1}}},
		{`{"op":"subscribe","topic":"t","from":{"last":0,"x":1}}`, Command{Op: CmdSubscribe, Topic: topic, From: From{Mode: FromLast}}},
		{`{"op":"subscribe","topic":"t","from":{"since":"2026-01-02T15:04:05.25Z"}}`,
			Command{Op: CmdSubscribe, Topic: topic, From: From{Mode: FromSince, Since: 1767366245250}}},
		{`{"op":"publish","topic":"t","data": {"a" : [1, "é"]} }`,
			Command{Op: CmdPublish, Topic: topic, Kind: KindJSON, Payload: []byte(`{"a" : [1, "é"]}`)}},
		{`{"op":"publish","topic":"t","data":null}`, Command{Op: CmdPublish, Topic: topic, Kind: KindJSON, Payload: []byte(`null`)}},
		{`{"op":"publish","topic":"t","data":"a\n"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindJSON, Payload: []byte(`"a\n"`)}},
		{`{"op":"publish","topic":"t","text":""}`, Command{Op: CmdPublish, Topic: topic, Kind: KindText}},
		{`{"op":"publish","topic":"t","text":"a\n\u0000é"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindText, Payload: []byte("a\n\x00é")}},
		{`{"op":"publish","topic":"t","text":"\b\f\r\t\"\\"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindText, Payload: []byte("\b\f\r\t\"\\")}},
		{`{"op":"publish","topic":"t","text":"\ud800"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindText, Payload: []byte("\uFFFD")}},
		{`{"op":"publish","topic":"t","base64":""}`, Command{Op: CmdPublish, Topic: topic, Kind: KindBinary}},
		{`{"op":"publish","topic":"t","base64":"AP8="}`, Command{Op: CmdPublish, Topic: topic, Kind: KindBinary, Payload: []byte{0, 255}}},
		{`{"op":"publish","topic":"\u0074","base64":"\/\/\/\/"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindBinary, Payload: []byte{255, 255, 255}}},
		{`{"op":"publish","topic":"t","data":1,"ack":"stored"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindJSON, Payload: []byte(`1`), Stored: true}},
		{`{"op":"publish","topic":"t","data":1,"ack":"memory"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindJSON, Payload: []byte(`1`)}},
		{`{"op":"publish","topic":"t","data":1,"from":"nowhere"}`, Command{Op: CmdPublish, Topic: topic, Kind: KindJSON, Payload: []byte(`1`)}},
	} {
		t.Run(tt.text, func(t *testing.T) {
			var s Scratch
			got, err := ParseJSONCommand([]byte(tt.text), &s, testLimit)
			if err != nil {
				t.Fatal(err)
			}
			sameCommand(t, got, tt.want)
			again, err := ParseJSONCommand(AppendCommandJSON(nil, &got), &Scratch{}, testLimit)
			if err != nil {
				t.Fatal(err)
			}
			sameCommand(t, again, tt.want)
		})
	}
}

// What could be read of a command that fails is returned with the error.
func TestJSONCommandsThatFail(t *testing.T) {
	named := Command{HasID: true, ID: 3}
	publish, subscribe := named, named
	publish.Op, subscribe.Op = CmdPublish, CmdSubscribe
	withTopic := func(c Command) Command { c.Topic = []byte("t"); return c }
	for _, tt := range []struct {
		text string
		code Code
		word string
		want Command
	}{
		{``, CodeBadRequest, "ends after 0 bytes", Command{}},
		{`{"id":3,"op":"ping"`, CodeBadRequest, "ends after 19 bytes", Command{}},
		{`{"id":3,"op":"ping"}}`, CodeBadRequest, "byte 20 of 21", Command{}},
		{`{"id":3,"op":"ping",}`, CodeBadRequest, "byte 20", Command{}},
		{`{"id":3,"op":"ping","x":01}`, CodeBadRequest, "byte 25", Command{}},
		{"{\"id\":3,\"op\":\"ping\",\"x\":\"\xff\"}", CodeBadRequest, "byte 25", Command{}},
		{`[1]`, CodeBadRequest, "[1], not a JSON object", Command{}},
		{`"ping"`, CodeBadRequest, "not a JSON object", Command{}},
		{`{"op":"ping","x":` + nested(65) + `}`, CodeBadRequest, "byte 81", Command{}},
		{`{}`, CodeBadRequest, "op is missing", Command{}},
		{`{"id":3}`, CodeBadRequest, "op is missing", named},
		{`{"id":3,"op":4}`, CodeBadRequest, "op is 4", named},
		{`{"id":3,"op":"Ping"}`, CodeUnknownOp, `"Ping"`, named},
		{`{"id":3,"op":"\u0007` + strings.Repeat("é", 100) + `"}`, CodeUnknownOp, `"?é`, named},
		{`{"id":1.0,"op":"ping"}`, CodeBadRequest, "id is 1.0, not an integer from 0 to 9007199254740991", Command{}},
		{`{"id":1e3,"op":"ping"}`, CodeBadRequest, "id is 1e3", Command{}},
		{`{"id":-1,"op":"ping"}`, CodeBadRequest, "id is -1", Command{}},
		{`{"id":-0,"op":"ping"}`, CodeBadRequest, "id is -0", Command{}},
		{`{"id":"3","op":"ping"}`, CodeBadRequest, `id is "3"`, Command{}},
		{`{"id":null,"op":"ping"}`, CodeBadRequest, `id is null`, Command{}},
		{`{"id":9007199254740992,"op":"ping"}`, CodeBadRequest, `9007199254740992`, Command{}},
		{`{"id":18446744073709551617,"op":"ping"}`, CodeBadRequest, `18446744073709551617`, Command{}},
		{`{"id":3,"op":"ping","id":3}`, CodeBadRequest, "id occurs twice", Command{}},
		{`{"id":3,"op":"ping","o\u0070":"ping"}`, CodeBadRequest, "op occurs twice", named},
		{`{"id":3,"op":"publish","topic":"t","data":1,"data":2}`, CodeBadRequest, "data occurs twice", named},
		{`{"id":3,"op":"publish","data":1}`, CodeTopicInvalid, "topic is missing", publish},
		{`{"id":3,"op":"subscribe"}`, CodeTopicInvalid, "topic is missing", subscribe},
		{`{"id":3,"op":"subscribe","topic":["a"]}`, CodeTopicInvalid, `topic is ["a"], not a string`, subscribe},
		{`{"id":3,"op":"publish","topic":"t"}`, CodeDataInvalid, "missing", withTopic(publish)},
		{`{"id":3,"op":"publish","topic":"t","text":null}`, CodeDataInvalid, "text is null", withTopic(publish)},
		{`{"id":3,"op":"publish","topic":"t","base64":7}`, CodeDataInvalid, "base64 is 7", withTopic(publish)},
		{`{"id":3,"op":"publish","topic":"t","data":1,"text":"a"}`, CodeBadRequest, "2 of data, text and base64", withTopic(publish)},
		{`{"id":3,"op":"publish","topic":"t","data":1,"ack":"disk"}`, CodeBadRequest, `ack is "disk"`, withTopic(publish)},
		{`{"id":3,"op":"publish","topic":"t","data":1,"ack":true}`, CodeBadRequest, `ack is true`, withTopic(publish)},
		{`{"id":3,"op":"subscribe","topic":"t","from":"latest"}`, CodeBadRequest, `from is "latest"`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":null}`, CodeBadRequest, `from is null`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{}}`, CodeBadRequest, `from is {}`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"epoch":"E"}}`, CodeBadRequest, `from is {"epoch":"E"}`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"last":1,"since":"x"}}`, CodeBadRequest, `from is`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"epoch":"E","offset":1,"last":1}}`, CodeBadRequest, `from is`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"last":1,"last":1}}`, CodeBadRequest, `last occurs twice`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"last":-1}}`, CodeBadRequest, `last is -1`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"since":0}}`, CodeBadRequest, `since is 0`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"since":"now"}}`, CodeBadRequest, `"now"`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"epoch":1,"offset":1}}`, CodeBadRequest, `epoch is 1`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"epoch":"a b","offset":1}}`, CodeBadRequest, `"a b"`, withTopic(subscribe)},
		{`{"id":3,"op":"subscribe","topic":"t","from":{"epoch":"E","offset":1.5}}`, CodeBadRequest, `offset is 1.5`, withTopic(subscribe)},
	} {
		t.Run(tt.text, func(t *testing.T) {
			var s Scratch
			got, err := ParseJSONCommand([]byte(tt.text), &s, testLimit)
			wantError(t, err, tt.code, tt.word)
			sameCommand(t, got, tt.want)
		})
	}
}

func TestAnInvalidTopicIsReturnedWithItsError(t *testing.T) {
	var s Scratch
	c, err := ParseJSONCommand([]byte(`{"op":"subscribe","id":3,"topic":"$a"}`), &s, testLimit)
	wantError(t, err, CodeTopicInvalid, `"$a"`)
	if string(c.Topic) != "$a" || !c.HasID || c.ID != 3 {
		t.Errorf("command is %+v", c)
	}
}

func TestBadBase64IsRefused(t *testing.T) {
	for _, text := range []string{`AP8`, `AP8=\n`, `A\nP8=`, `AP9=`, `_w==`, `====`, `\u0000`} {
		var s Scratch
		_, err := ParseJSONCommand([]byte(`{"op":"publish","topic":"t","base64":"`+text+`"}`), &s, testLimit)
		wantError(t, err, CodeDataInvalid, "base64 is")
	}
}

// The limit counts what will be delivered, not what was sent.
func TestThePayloadLimitCountsDecodedBytes(t *testing.T) {
	escaped := func(n int) string { return strings.Repeat(`\u0061`, n) }
	encoded := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, tt := range []struct{ name, most, over string }{
		{"data", `"data":  "` + escaped(16) + `ab"  `, `"data":"` + escaped(16) + `abc"`}, // 100 and 101 as sent
		{"text", `"text":"` + escaped(100) + `"`, `"text":"` + escaped(101) + `"`},
		{"base64", `"base64":"` + encoded(100) + `"`, `"base64":"` + encoded(101) + `"`},
		{"base64 without padding", `"base64":"` + encoded(99) + `"`, `"base64":"` + encoded(102) + `"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s Scratch
			if _, err := ParseJSONCommand([]byte(`{"op":"publish","topic":"t",`+tt.most+`}`), &s, testLimit); err != nil {
				t.Fatal(err)
			}
			c, err := ParseJSONCommand([]byte(`{"op":"publish","id":3,"topic":"t",`+tt.over+`}`), &s, testLimit)
			wantError(t, err, CodeMessageTooLarge, "limit 100")
			if !c.HasID || string(c.Topic) != "t" {
				t.Errorf("command is %+v, want its id and topic", c)
			}
		})
	}
}

func TestJSONCommandsCutShort(t *testing.T) {
	for _, text := range []string{
		`{"op":"publish","id":3,"topic":"t\u00e9","data":{"a":[1,"é",null,true,-2.5e3]},"ack":"stored"}`,
		`{"op":"publish","topic":"t","base64":"AP8="}`,
		`{"op":"subscribe","topic":"t","from":{"epoch":"E","offset":30}}`,
		`{"op":"subscribe","topic":"t","from":{"since":"2026-01-02T15:04:05Z"}}`,
	} {
		eachCut([]byte(text), func(cut []byte) {
			c, err := ParseJSONCommand(cut, &Scratch{}, testLimit)
			wantError(t, err, CodeBadRequest)
			sameCommand(t, c, Command{})
		})
	}
}

func TestReadingAndWritingJSONCommandsDoesNotAllocate(t *testing.T) {
	for _, text := range []string{
		string(benchPublish()),
		`{"op":"publish","\u0069d":3,"topic":"t\u00e9","text":"\u00e9\n\ud83d\ude00","ack":"memory"}`,
		`{"op":"publish","topic":"t","base64":"AP8\u003d"}`,
		`{"op":"subscribe","topic":"t","from":{"epoch":"E","offset":30}}`,
		`{"op":"subscribe","topic":"t","from":{"since":"2026-01-02T15:04:05.123+01:00"}}`,
		`{"op":"subscribe","topic":"t","from":"earliest"}`,
		`{"op":"unsubscribe","topic":"t"}`,
		`{"op":"ping","id":1}`,
	} {
		var s Scratch
		b, dst := []byte(text), make([]byte, 0, 1024)
		wantNoAllocs(t, text, func() {
			c, err := ParseJSONCommand(b, &s, benchLimit)
			if err != nil {
				t.Fatal(err)
			}
			dst = AppendCommandJSON(dst[:0], &c)
		})
	}
}

// FuzzJSONCommand compares with encoding/json: what is accepted here is JSON
// there, and means the same.
func FuzzJSONCommand(f *testing.F) {
	for _, text := range []string{
		`{"op":"publish","id":3,"topic":"t\u00e9","data":{"a":[1,"é",null,true,-2.5e3]},"ack":"stored"}`,
		`{"\u006fp":"publish","topic":"t","text":"\ud83d\ude00\ud800"}`,
		`{"op":"publish","topic":"t","base64":"AP8="}`,
		`{"op":"subscribe","topic":"t","from":{"epoch":"E","offset":30}}`,
		`{"op":"subscribe","topic":"t","from":{"since":"2026-01-02T15:04:05Z"}}`,
		`{"op":"subscribe","topic":"t","from":{"last":10},"x":[]}`,
		`{"op":"unsubscribe","id":9007199254740991,"topic":"t"}`,
		` {"op":"ping"} `,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Scratch
		c, err := ParseJSONCommand(b, &s, testLimit)
		if err != nil {
			wantError(t, err, err.(*Error).Code)
			if c.HasID && !json.Valid(b) {
				t.Fatalf("an id was read from %q, which is not JSON", b)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(b, &members); err != nil {
			t.Fatalf("%q is accepted, and json says: %v", b, err)
		}
		compareCommand(t, c, members)
		again, err := ParseJSONCommand(AppendCommandJSON(nil, &c), &Scratch{}, testLimit)
		if err != nil {
			t.Fatal(err)
		}
		sameCommand(t, again, c)
	})
}

func compareCommand(t *testing.T, c Command, members map[string]json.RawMessage) {
	text := func(name string) (s string) {
		if err := json.Unmarshal(members[name], &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return s
	}
	if text("op") != c.Op.String() {
		t.Fatalf("op is %s, want %s", c.Op, text("op"))
	}
	if id, ok := members["id"]; ok != c.HasID || ok && string(id) != fmt.Sprint(c.ID) {
		t.Fatalf("id is %t %d, want %s", c.HasID, c.ID, id)
	}
	if c.Op == CmdPing {
		return
	}
	if text("topic") != string(c.Topic) {
		t.Fatalf("topic is %q, want %q", c.Topic, text("topic"))
	}
	if c.Op == CmdSubscribe {
		compareFrom(t, c.From, members["from"])
	}
	if c.Op != CmdPublish {
		return
	}
	want := string(members["data"])
	switch c.Kind {
	case KindText:
		want = text("text")
	case KindBinary:
		decoded, err := base64.StdEncoding.DecodeString(text("base64"))
		if err != nil {
			t.Fatal(err)
		}
		want = string(decoded)
	}
	if string(c.Payload) != want || len(want) > testLimit {
		t.Fatalf("payload is %q, want %q", c.Payload, want)
	}
	if ack := members["ack"]; c.Stored != (ack != nil && text("ack") == "stored") {
		t.Fatalf("stored is %t, ack %s", c.Stored, ack)
	}
}

func compareFrom(t *testing.T, got From, raw json.RawMessage) {
	var word, epoch, since string
	var members map[string]json.RawMessage
	if raw != nil && json.Unmarshal(raw, &word) != nil && json.Unmarshal(raw, &members) != nil {
		t.Fatalf("from is %+v, want %s", got, raw)
	}
	_ = json.Unmarshal(members["epoch"], &epoch)
	_ = json.Unmarshal(members["since"], &since)
	ok := false
	switch got.Mode {
	case FromLive:
		ok = raw == nil
	case FromEarliest:
		ok = word == "earliest"
	case FromPosition:
		ok = epoch == string(got.Epoch) && string(members["offset"]) == fmt.Sprint(got.Offset)
	case FromLast:
		ok = string(members["last"]) == fmt.Sprint(got.Last)
	case FromSince:
		ms, err := ParseTimestamp([]byte(since))
		ok = err == nil && ms == got.Since
	}
	if !ok {
		t.Fatalf("from is %+v, want %s", got, raw)
	}
}
