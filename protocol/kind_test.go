package protocol

import (
	"strings"
	"testing"
)

func TestKindsAndTheirWords(t *testing.T) {
	for kind, word := range map[Kind]string{KindJSON: "json", KindText: "text", KindBinary: "binary"} {
		if kind.String() != word {
			t.Errorf("Kind(%d) is %q, want %q", kind, kind, word)
		}
		if got, ok := ParseKind([]byte(word)); !ok || got != kind {
			t.Errorf("ParseKind(%q) = %d, %t", word, got, ok)
		}
	}
	for _, word := range []string{"", "JSON", "jso", "unknown"} {
		if kind, ok := ParseKind(word); ok || kind != 0 {
			t.Errorf("ParseKind(%q) = %v", word, kind)
		}
	}
	if Kind(0).String() != "unknown" || Kind(9).String() != "unknown" {
		t.Error("a kind that does not exist has a word")
	}
}

func TestPayloadsAreJudgedByKind(t *testing.T) {
	for _, tt := range []struct {
		kind    Kind
		payload string
	}{
		{KindJSON, `null`}, {KindJSON, " {} \n"}, {KindText, ""}, {KindText, "é\x00"}, {KindBinary, ""}, {KindBinary, "\xff"},
		{KindText, strings.Repeat("x", 100)},
	} {
		if err := CheckPayload(tt.kind, []byte(tt.payload), 100); err != nil {
			t.Errorf("%s payload %q: %v", tt.kind, tt.payload, err)
		}
	}
	wantError(t, CheckPayload(KindJSON, nil, 100), CodeDataInvalid, "ends after 0 bytes")
	wantError(t, CheckPayload(KindJSON, []byte(`{"a":nul}`), 100), CodeDataInvalid, "byte 8 of 9", "}")
	wantError(t, CheckPayload(KindText, []byte("ab\xff"), 100), CodeDataInvalid, "byte 2 of 3")
	wantError(t, CheckPayload(KindBinary, make([]byte, 101), 100), CodeMessageTooLarge, "101 bytes", "limit 100")
	wantError(t, CheckPayload(4, nil, 100), CodeBadRequest, "kind is 4")
}
