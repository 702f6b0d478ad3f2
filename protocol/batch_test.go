package protocol

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// readBatch is what each was told, one line a message, and the batch's error.
func readBatch(body string, maxMessages int) (lines []string, err error) {
	var s Scratch
	err = ParseBatch([]byte(body), &s, maxMessages, testLimit, func(i int, c Command, err error) {
		line := fmt.Sprintf("%d %s %s %q", i, c.Topic, c.Kind, c.Payload)
		if c.Stored {
			line += " stored"
		}
		if err != nil {
			line = fmt.Sprintf("%d %s", i, err.(*Error).Code)
		}
		lines = append(lines, line)
	})
	return lines, err
}

func TestBatches(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       []string
	}{
		{"empty", `{"messages":[]}`, nil},
		{"all kinds", `{"messages":[{"topic":"a","data":{"x":1}}, {"topic":"b","text":"\u00e9","ack":"stored"} ,{"base64":"AP8=","topic":"c"}]}`,
			[]string{`0 a json "{\"x\":1}"`, `1 b text "é" stored`, `2 c binary "\x00\xff"`}},
		{"unknown members", ` {"x":[1],"messages":[{"op":"ping","id":1.5,"topic":"a","data":1}],"y":{}} `, []string{`0 a json "1"`}},
		{"errors of their own", `{"messages":[7,{"topic":"$a","data":1},{"topic":"a"},{"topic":"a","data":1,"text":""},` +
			`{"topic":"a","topic":"b","data":1},[[{"topic":"a","data":1}]],{},{"topic":"a","text":"` + strings.Repeat("x", 101) + `"},{"topic":"a","text":""}]}`,
			[]string{"0 bad_request", "1 topic_invalid", "2 data_invalid", "3 bad_request", "4 bad_request", "5 bad_request",
				"6 topic_invalid", "7 message_too_large", `8 a text ""`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readBatch(tt.body, 9)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("batch is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestNothingOfAMalformedBatchIsReported(t *testing.T) {
	const good = `{"topic":"a","data":1}`
	for _, tt := range []struct {
		body string
		code Code
		word string
	}{
		{``, CodeBadRequest, "batch is not valid JSON"},
		{`[]`, CodeBadRequest, "not a JSON object"},
		{`{}`, CodeBadRequest, "messages is missing"},
		{`{"messages":null}`, CodeBadRequest, "messages is null"},
		{`{"messages":{"a":1}}`, CodeBadRequest, `messages is {"a":1}`},
		{`{"messages":[` + good + `],"messages":[]}`, CodeBadRequest, "messages occurs twice"},
		{`{"messages":[` + good + `,]}`, CodeBadRequest, "byte 36"},
		{`{"messages":[` + good + `]`, CodeBadRequest, "ends after"},
		{`{"messages":[` + good + `]}x`, CodeBadRequest, "byte 37"},
		{`{"messages":[` + good + `,` + good + `,` + good + `]}`, CodeBatchTooLarge, "3 messages, limit 2"},
	} {
		lines, err := readBatch(tt.body, 2)
		wantError(t, err, tt.code, tt.word)
		if len(lines) > 0 {
			t.Errorf("%s reported %q", tt.body, lines)
		}
	}
	eachCut([]byte(`{"messages":[`+good+`,{"topic":"\u00e9","text":"é"}]}`), func(cut []byte) {
		lines, err := readBatch(string(cut), 2)
		wantError(t, err, CodeBadRequest)
		if len(lines) > 0 {
			t.Errorf("%s reported %q", cut, lines)
		}
	})
}

// A payload may nest as deep in a batch as alone.
func TestDepthIsCountedFromThePayload(t *testing.T) {
	for depth, ok := range map[int]bool{MaxJSONDepth: true, MaxJSONDepth + 1: false} {
		data := nested(depth)
		message := `{"topic":"t","data":` + data + `}`
		_, err := ParseJSONCommand([]byte(`{"op":"publish",`+message[1:]), &Scratch{}, 1000)
		if (err == nil) != ok {
			t.Errorf("depth %d alone: %v", depth, err)
		}
		seen := 0
		err = ParseBatch([]byte(`{"messages":[`+message+`]}`), &Scratch{}, 1, 1000, func(_ int, _ Command, err error) {
			if err == nil {
				seen++
			}
		})
		if (err == nil && seen == 1) != ok {
			t.Errorf("depth %d in a batch: %v", depth, err)
		}
		if CheckPayload(KindJSON, []byte(data), 1000) == nil != ok {
			t.Errorf("depth %d as a payload", depth)
		}
		if !ok {
			continue
		}
		frame := AppendMessage(nil, FormatJSON, "t", 1, KindJSON, []byte(data))
		if _, err := ParseEventJSON(unframed(t, frame, OpText)); err != nil {
			t.Errorf("depth %d in a message: %v", depth, err)
		}
	}
	// What is no message may even be a little deeper.
	lines, err := readBatch(`{"messages":[`+nested(MaxJSONDepth+1)+`]}`, 1)
	if err != nil || len(lines) != 1 {
		t.Errorf("a deep array for a message: %q, %v", lines, err)
	}
}

func TestReadingBatchesDoesNotAllocate(t *testing.T) {
	body := []byte(`{"messages":[{"topic":"a","data":{"x":1}},{"topic":"b","text":"\u00e9"},{"base64":"AP8=","topic":"c"}]}`)
	var s Scratch
	seen := 0
	each := func(_ int, _ Command, err error) {
		if err == nil {
			seen++
		}
	}
	wantNoAllocs(t, "ParseBatch", func() {
		if err := ParseBatch(body, &s, 10, testLimit, each); err != nil {
			t.Fatal(err)
		}
	})
	if seen%3 != 0 {
		t.Errorf("%d messages were read", seen)
	}
}

// FuzzBatch: a message means in a batch what it means as a command.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"messages":[{"topic":"a","data":{"x":1}},{"topic":"b","text":"\u00e9","ack":"stored"},{"base64":"AP8=","topic":"c"}]}`))
	f.Add([]byte(`{"messages":[1,[],{"topic":"a","topic":"b"}],"x":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var s Scratch
		seen := 0
		var batch map[string]json.RawMessage
		var messages []json.RawMessage
		valid := json.Unmarshal(body, &batch) == nil && json.Unmarshal(batch["messages"], &messages) == nil
		err := ParseBatch(body, &s, 5, testLimit, func(i int, c Command, err error) {
			if seen++; i != seen-1 || !valid || i >= 5 {
				t.Fatalf("message %d reported as number %d of %q", i, seen-1, body)
			}
			if err != nil {
				wantError(t, err, err.(*Error).Code)
				return
			}
			var members map[string]json.RawMessage
			if err := json.Unmarshal(messages[i], &members); err != nil {
				t.Fatal(err)
			}
			members["op"] = json.RawMessage(`"publish"`)
			delete(members, "id")
			compareCommand(t, c, members)
		})
		if err == nil && seen != len(messages) {
			t.Fatalf("%d messages reported of %q, which has %d", seen, body, len(messages))
		}
		if err != nil && seen > 0 {
			t.Fatalf("%d messages reported of %q, which is refused: %v", seen, body, err)
		}
	})
}
