package protocol

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestJSONTexts(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `false`, `0`, `-0`, `-12.5e+10`, `1E9`, `0.0`, `10e-0`, `""`, `"a"`, `[]`, `{}`, ` [ ] `, "\t\r\n{ }\n",
		`[1,2,[3]]`, `{"a":1,"b":{"c":[null]}}`, `{"a":1,"a":2}`, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\uD83D\uDE00"`,
		`"\ud800"`, `"\udc00\ud800"`, `"é€😀"`, "\"\x7f\"", "\"\u0085\u2028\"", `"12345678"`, `"1234567\""`, nested(MaxJSONDepth),
		strings.Repeat(`{"a":`, MaxJSONDepth) + `1` + strings.Repeat(`}`, MaxJSONDepth),
	} {
		if !ValidJSON([]byte(text)) {
			t.Errorf("ValidJSON(%q) = false", text)
		}
	}
	for _, text := range []string{
		``, ` `, `nul`, `nulL`, `True`, `01`, `-`, `-01`, `+1`, `1.`, `.5`, `1e`, `1e+`, `0x1`, `1 2`, `NaN`, `"`, `"a`, `'a'`, `a`,
		`[`, `]`, `[1,]`, `[,1]`, `[1 2]`, `[1}`, `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{1:1}`, `{"a":1 "b":2}`, `{"a" 1}`, `{"a":1]`,
		`"\x"`, `"\u12"`, `"\u12g4"`, `"\`, `"\u`, "\"\n\"", "\"\x00\"", "\"12345678\x1f\"", "\"\xff\"", "\"\xc3\"", "\"\xed\xa0\x80\"",
		"\xef\xbb\xbf1", "1\x00", "\v1", "\u00a01", nested(MaxJSONDepth + 1), `null,`, `//1`, `[1]/**/`,
	} {
		if ValidJSON([]byte(text)) {
			t.Errorf("ValidJSON(%q) = true", text)
		}
	}
}

func TestJSONTextsCutShort(t *testing.T) {
	for _, text := range []string{
		`{"a":[1,2.5e1,{"b":"\u00e9é\n"}],"c":null,"d":true,"e":false,"long enough for a word":""}`, `"12345678 12345678"`, `[[[]]]`,
	} {
		eachCut([]byte(text), func(cut []byte) {
			if ValidJSON(cut) {
				t.Errorf("ValidJSON(%q) = true", cut)
			}
			if at := jsonFault(cut); at != len(cut) && utf8.Valid(cut) {
				t.Errorf("%q is at fault at byte %d, want its end", cut, at)
			}
		})
	}
}

func TestScanningJSONDoesNotAllocate(t *testing.T) {
	text := []byte(`{"a":[1,2.5e1,{"b":"\u00e9é\n"}],"c":null}`)
	wantNoAllocs(t, "ValidJSON", func() {
		if !ValidJSON(text) {
			t.Fatal("not valid")
		}
	})
}

// depthOf is how deep valid JSON nests.
func depthOf(text []byte) (deepest int) {
	depth, inString, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped = c == '\\'
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

func FuzzValidJSON(f *testing.F) {
	for _, text := range []string{
		`{"a":[1,2.5e1,{"b":"\u00e9é\n"}],"c":null}`, ` "12345678\"" `, `[-0.1e-5,true,false]`, "\"\xff\"", nested(70), `"\ud800"`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want := json.Valid(text) && utf8.Valid(text) && depthOf(text) <= MaxJSONDepth
		if got := ValidJSON(text); got != want {
			t.Fatalf("ValidJSON(%q) = %t, want %t", text, got, want)
		}
	})
}
