package protocol

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestClassicPublishes(t *testing.T) {
	for _, tt := range []struct{ body, topic, message string }{
		{`{"topic":"t","message":"text"}`, "t", "text"},
		{` {"message":"{\"a\":1}\n","x":null,"topic":"\u00e9"} `, "é", "{\"a\":1}\n"},
	} {
		var s Scratch
		topic, message, err := ParseClassicPublish([]byte(tt.body), &s, testLimit)
		if err != nil || string(topic) != tt.topic || string(message) != tt.message {
			t.Errorf("%s is %q, %q, %v", tt.body, topic, message, err)
		}
	}
	for _, tt := range []struct {
		body string
		code Code
		word string
	}{
		{``, CodeBadRequest, "publish request is not valid JSON"},
		{`{"topic":"t","message":"x"`, CodeBadRequest, "ends after"},
		{`[]`, CodeBadRequest, "not a JSON object"},
		{`{"message":"x"}`, CodeBadRequest, "topic is missing"},
		{`{"topic":"t"}`, CodeBadRequest, "message is missing"},
		{`{"topic":"","message":"x"}`, CodeBadRequest, "topic is empty"},
		{`{"topic":"t","message":""}`, CodeBadRequest, "message is empty"},
		{`{"topic":"t","message":{"a":1}}`, CodeBadRequest, `message is {"a":1}, not a string`},
		{`{"topic":1,"message":"x"}`, CodeBadRequest, "topic is 1"},
		{`{"topic":"t","message":"x","topic":"u"}`, CodeBadRequest, "topic occurs twice"},
		{`{"topic":"$t","message":"x"}`, CodeTopicInvalid, `"$t"`},
		{`{"topic":"t","message":"` + strings.Repeat("x", 101) + `"}`, CodeMessageTooLarge, "101 bytes, limit 100"},
	} {
		_, _, err := ParseClassicPublish([]byte(tt.body), &Scratch{}, testLimit)
		wantError(t, err, tt.code, tt.word)
	}
}

func TestClassicSubscribes(t *testing.T) {
	var s Scratch
	id, topic, err := ParseClassicSubscribe([]byte(`{"subscriber_id":"x\ty","topic":"a\/b"}`), &s)
	if err != nil || string(id) != "x\ty" || string(topic) != "a/b" {
		t.Errorf("subscribe is %q, %q, %v", id, topic, err)
	}
	for _, tt := range []struct {
		body string
		code Code
		word string
	}{
		{`{"topic":"t"}`, CodeBadRequest, "subscriber_id is missing"},
		{`{"subscriber_id":"x"}`, CodeBadRequest, "topic is missing"},
		{`{"subscriber_id":"","topic":"t"}`, CodeBadRequest, "subscriber_id is empty"},
		{`{"subscriber_id":7,"topic":"t"}`, CodeBadRequest, "subscriber_id is 7"},
		{`{"subscriber_id":"x","topic":"\u0000"}`, CodeTopicInvalid, "U+0000"},
	} {
		_, _, err := ParseClassicSubscribe([]byte(tt.body), &s)
		wantError(t, err, tt.code, tt.word)
	}
}

func TestClassicRequestsCutShort(t *testing.T) {
	eachCut([]byte(`{"topic":"t","message":"te\u00e9\nxt","x":[1,{}]}`), func(cut []byte) {
		if _, _, err := ParseClassicPublish(cut, &Scratch{}, testLimit); err == nil {
			t.Errorf("%s is accepted", cut)
		}
	})
	eachCut([]byte(`{"subscriber_id":"x","topic":"t"}`), func(cut []byte) {
		if _, _, err := ParseClassicSubscribe(cut, &Scratch{}); err == nil {
			t.Errorf("%s is accepted", cut)
		}
	})
}

func TestReadingClassicRequestsDoesNotAllocate(t *testing.T) {
	var s Scratch
	publish, subscribe := []byte(`{"topic":"\u0074","message":"te\nxt"}`), []byte(`{"subscriber_id":"x","topic":"t"}`)
	wantNoAllocs(t, "ParseClassicPublish", func() {
		if _, _, err := ParseClassicPublish(publish, &s, testLimit); err != nil {
			t.Fatal(err)
		}
	})
	wantNoAllocs(t, "ParseClassicSubscribe", func() {
		if _, _, err := ParseClassicSubscribe(subscribe, &s); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzClassic(f *testing.F) {
	f.Add([]byte(`{"topic":"t","message":"te\u00e9\nxt","x":[1,{}]}`))
	f.Add([]byte(`{"subscriber_id":"x","topic":"t"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		compare := func(names [2]string, first, second []byte, err error) {
			if err != nil {
				wantError(t, err, err.(*Error).Code)
				return
			}
			var members map[string]json.RawMessage
			if err := json.Unmarshal(b, &members); err != nil {
				t.Fatalf("%q is accepted, and json says: %v", b, err)
			}
			for k, got := range [2][]byte{first, second} {
				var want string
				if err := json.Unmarshal(members[names[k]], &want); err != nil || want == "" || string(got) != want {
					t.Fatalf("%s is %q, want %q, %v", names[k], got, want, err)
				}
			}
		}
		var s Scratch
		topic, message, err := ParseClassicPublish(b, &s, testLimit)
		compare([2]string{"topic", "message"}, topic, message, err)
		id, topic, err := ParseClassicSubscribe(b, &s)
		compare([2]string{"subscriber_id", "topic"}, id, topic, err)
	})
}
