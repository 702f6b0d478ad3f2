package protocol

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// commandRows has the vectors of the table in doc.go, once more and by hand as
// values; TestTheTableInTheDocIsTheCode sees to it that no row is missing.
var commandRows = []struct {
	hex  string
	want Command
}{
	{"01 01 07 01 74", Command{Op: CmdSubscribe, HasID: true, ID: 7, Topic: []byte("t")}},
	{"01 02 01 74 02 45 31 1e", Command{Op: CmdSubscribe, Topic: []byte("t"), From: From{Mode: FromPosition, Epoch: []byte("E1"), Offset: 30}}},
	{"01 05 ac 02 01 74", Command{Op: CmdSubscribe, HasID: true, ID: 300, Topic: []byte("t"), From: From{Mode: FromEarliest}}},
	{"01 06 01 74 0a", Command{Op: CmdSubscribe, Topic: []byte("t"), From: From{Mode: FromLast, Last: 10}}},
	{"01 08 01 74 88 f5 f2 f9 b7 33", Command{Op: CmdSubscribe, Topic: []byte("t"), From: From{Mode: FromSince, Since: 1767366245000}}},
	{"02 01 02 01 74", Command{Op: CmdUnsubscribe, HasID: true, ID: 2, Topic: []byte("t")}},
	{"03 03 03 01 74 01 7b 22 61 22 3a 31 7d",
		Command{Op: CmdPublish, HasID: true, ID: 3, Topic: []byte("t"), Kind: KindJSON, Payload: []byte(`{"a":1}`), Stored: true}},
	{"03 00 01 74 02 68 69", Command{Op: CmdPublish, Topic: []byte("t"), Kind: KindText, Payload: []byte("hi")}},
	{"03 00 01 74 03 00 ff", Command{Op: CmdPublish, Topic: []byte("t"), Kind: KindBinary, Payload: []byte{0, 255}}},
	{"04 01 00", Command{Op: CmdPing, HasID: true}},
}

func TestBinaryCommands(t *testing.T) {
	for _, tt := range commandRows {
		t.Run(tt.hex, func(t *testing.T) {
			b := unhex(t, tt.hex)
			got, err := ParseBinaryCommand(b, testLimit)
			if err != nil {
				t.Fatal(err)
			}
			sameCommand(t, got, tt.want)
			if again := AppendCommandBinary(nil, &tt.want); !bytes.Equal(again, b) {
				t.Errorf("command is written % x", again)
			}
		})
	}
}

func TestBinaryCommandsThatFail(t *testing.T) {
	long := strings.Repeat("61", 101)
	for _, tt := range []struct {
		name, hex string
		code      Code
		word      string
		want      Command
	}{
		{"nothing", "", CodeBadRequest, "empty", Command{}},
		{"unknown type, id echoed", "05 01 07 ff", CodeUnknownOp, "0x05", Command{HasID: true, ID: 7}},
		{"unknown type, id broken", "00 01 80", CodeUnknownOp, "0x00", Command{}},
		{"a link's type", "10 01 07", CodeUnknownOp, "0x10", Command{}},
		{"an event's type", "86 01 07", CodeUnknownOp, "0x86", Command{}},
		{"unknown flags", "04 03 07", CodeBadRequest, "0x02 are unknown", Command{Op: CmdPing, HasID: true, ID: 7}},
		{"unknown flags of subscribe", "01 11 07 01 74", CodeBadRequest, "0x10 are unknown", Command{Op: CmdSubscribe, HasID: true, ID: 7}},
		{"id too large", "04 01 80 80 80 80 80 80 80 10", CodeBadRequest, "9007199254740991", Command{Op: CmdPing}},
		{"id not in shortest form", "04 01 87 00", CodeBadRequest, "shortest", Command{Op: CmdPing}},
		{"id past 64 bits", "04 01 ff ff ff ff ff ff ff ff ff 02", CodeBadRequest, "64 bits", Command{Op: CmdPing}},
		{"bytes after ping", "04 00 00", CodeBadRequest, "1 bytes follow", Command{Op: CmdPing}},
		{"no topic", "02 01 07 00", CodeTopicInvalid, "empty", Command{Op: CmdUnsubscribe, HasID: true, ID: 7}},
		{"topic cut", "02 01 07 02 74", CodeBadRequest, "topic is cut short", Command{Op: CmdUnsubscribe, HasID: true, ID: 7}},
		{"bytes after unsubscribe", "02 00 01 74 00", CodeBadRequest, "follow", Command{Op: CmdUnsubscribe, Topic: []byte("t")}},
		{"reserved topic", "02 00 01 24", CodeTopicInvalid, `"$"`, Command{Op: CmdUnsubscribe, Topic: []byte("$")}},
		{"bytes after subscribe", "01 00 01 74 00", CodeBadRequest, "follow", Command{Op: CmdSubscribe, Topic: []byte("t")}},
		{"mode of from", "01 0a 01 74", CodeBadRequest, "mode is 5", Command{Op: CmdSubscribe, Topic: []byte("t")}},
		{"epoch empty", "01 02 01 74 00 01", CodeBadRequest, "epoch is 0 bytes", Command{Op: CmdSubscribe, Topic: []byte("t")}},
		{"since after 9999", "01 08 01 74 80 b8 ff 90 fd ce 39", CodeBadRequest, "limit 253402300799999", Command{Op: CmdSubscribe, Topic: []byte("t")}},
		{"no kind", "03 00 01 74", CodeBadRequest, "kind is cut short", Command{Op: CmdPublish, Topic: []byte("t")}},
		{"unknown kind", "03 00 01 74 04 61", CodeBadRequest, "kind is 4", Command{Op: CmdPublish, Topic: []byte("t")}},
		{"json payload empty", "03 00 01 74 01", CodeDataInvalid, "ends after 0", Command{Op: CmdPublish, Topic: []byte("t")}},
		{"json payload broken", "03 00 01 74 01 7b 7d 7d", CodeDataInvalid, "byte 2 of 3", Command{Op: CmdPublish, Topic: []byte("t")}},
		{"text payload not UTF-8", "03 00 01 74 02 61 ff", CodeDataInvalid, "byte 1 of 2", Command{Op: CmdPublish, Topic: []byte("t")}},
		{"payload too large", "03 01 07 01 74 03" + long, CodeMessageTooLarge, "101 bytes, limit 100",
			Command{Op: CmdPublish, HasID: true, ID: 7, Topic: []byte("t")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseBinaryCommand(unhex(t, tt.hex), testLimit)
			wantError(t, err, tt.code, tt.word)
			got.From = From{}
			sameCommand(t, got, tt.want)
		})
	}
}

// The payload of a publish goes to the end, so only a cut before it can be
// told; one inside it is a shorter payload, which must still suit its kind.
func TestBinaryCommandsCutShort(t *testing.T) {
	for _, row := range commandRows {
		b := unhex(t, row.hex)
		payload := len(b) - len(row.want.Payload)
		eachCut(b, func(cut []byte) {
			got, err := ParseBinaryCommand(cut, testLimit)
			if len(cut) < payload || row.want.Kind == KindJSON {
				if err == nil {
					t.Errorf("% x cut to % x is accepted", b, cut)
				}
				return
			}
			want := row.want
			want.Payload = cut[payload:]
			sameCommand(t, got, want)
		})
	}
}

func TestATopicWithoutEncodingIsABug(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a topic of 256 bytes was written")
		}
	}()
	AppendCommandBinary(nil, &Command{Op: CmdUnsubscribe, Topic: make([]byte, 256)})
}

func TestReadingAndWritingBinaryCommandsDoesNotAllocate(t *testing.T) {
	for _, row := range commandRows {
		b, dst := unhex(t, row.hex), make([]byte, 0, 256)
		wantNoAllocs(t, row.hex, func() {
			c, err := ParseBinaryCommand(b, testLimit)
			if err != nil {
				t.Fatal(err)
			}
			dst = AppendCommandBinary(dst[:0], &c)
		})
	}
}

// FuzzBinaryCommand: each command has one encoding, and means the same in JSON.
func FuzzBinaryCommand(f *testing.F) {
	for _, row := range commandRows {
		f.Add(unhex(f, row.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseBinaryCommand(b, testLimit)
		if err != nil {
			wantError(t, err, err.(*Error).Code)
			return
		}
		if again := AppendCommandBinary(nil, &c); !bytes.Equal(again, b) {
			t.Fatalf("% x was read and is written % x", b, again)
		}
		asJSON := AppendCommandJSON(nil, &c)
		again, err := ParseJSONCommand(asJSON, &Scratch{}, testLimit)
		if err != nil {
			t.Fatalf("% x is %s: %v", b, asJSON, err)
		}
		if c.Kind == KindJSON { // white space around it does not belong to it there
			c.Payload = bytes.Trim(c.Payload, " \t\r\n")
		}
		sameCommand(t, again, c)
	})
}
