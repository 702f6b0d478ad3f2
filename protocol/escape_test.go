package protocol

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

func TestStringsAreQuoted(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `""`},
		{"abc", `"abc"`},
		{`a"b\c`, `"a\"b\\c"`},
		{"\n\r\t\b\f\x00\x1f", `"\n\r\t\u0008\u000c\u0000\u001f"`},
		{"</script>&", `"</script>&"`},
		{"\x7fé😀", "\"\x7fé😀\""},
		{"a\u2028b\u2029", `"a\u2028b\u2029"`},
		{"a\xffb\xc3", "\"a\uFFFDb\uFFFD\""},
		{"\xed\xa0\x80", "\"\uFFFD\uFFFD\uFFFD\""},
		{"\uFFFD", "\"\uFFFD\""},
		{"12345678", `"12345678"`},
		{"1234567\n", `"1234567\n"`},
		{"12345678\n12345678", `"12345678\n12345678"`},
	} {
		if got := string(AppendJSONString([]byte("x"), []byte(tt.in))); got != "x"+tt.want {
			t.Errorf("AppendJSONString(%q) = %s, want %s", tt.in, got[1:], tt.want)
		}
		if got := string(AppendJSONStringOf([]byte("x"), tt.in)); got != "x"+tt.want {
			t.Errorf("AppendJSONStringOf(%q) = %s, want %s", tt.in, got[1:], tt.want)
		}
	}
}

func TestQuotingDoesNotAllocate(t *testing.T) {
	text := strings.Repeat("a line, \"quoted\"\n é \u2028 \xff ", 5)
	raw, dst := []byte(text), make([]byte, 0, 1024)
	wantNoAllocs(t, "AppendJSONString", func() { dst = AppendJSONString(dst[:0], raw) })
	wantNoAllocs(t, "AppendJSONStringOf", func() { dst = AppendJSONStringOf(dst[:0], text) })
}

// Base64 has one spelling here, so that two messages that differ are two
// payloads, and a payload cut short is noticed.
func TestBase64HasOneSpelling(t *testing.T) {
	for _, good := range []string{"", "AA==", "AAA=", "AAAA", "+/+/", "AAAAAA=="} {
		if _, ok := appendBase64Decoded(nil, []byte(good)); !ok {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"A", "AA", "AAA", "AA=", "=", "====", "A===", "AB==", "AAB=", "-_-_", "AA==AA==", "AA== ", "AA\n==", "\nAAA", "\n\n\n\n", "AAAA\r\n\r\n", "é",
	} {
		if _, ok := appendBase64Decoded(nil, []byte(bad)); ok {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzStrings(f *testing.F) {
	f.Add([]byte("a\n\"é\u2028\xff"))
	f.Add([]byte(`\ud83d\ude00\ud800\/`))
	f.Fuzz(func(t *testing.T, b []byte) {
		quoted := AppendJSONString(nil, b)
		var got string
		if err := json.Unmarshal(quoted, &got); err != nil {
			t.Fatalf("%q became %s: %v", b, quoted, err)
		}
		if want := string([]rune(string(b))); got != want {
			t.Fatalf("%q came back as %q, want %q", b, got, want)
		}
		if inside := quoted[1 : len(quoted)-1]; string(appendUnescaped(nil, inside)) != got {
			t.Fatalf("%s is unescaped to %q, want %q", quoted, appendUnescaped(nil, inside), got)
		}

		literal := append(append([]byte{'"'}, b...), '"') // b as the inside of a string, escapes and all
		if end, _ := skipString(literal, 0); end == len(literal) {
			if err := json.Unmarshal(literal, &got); err != nil {
				t.Fatalf("%s is a string here, and json says: %v", literal, err)
			}
			if mine := string(appendUnescaped(nil, b)); mine != got {
				t.Fatalf("%s means %q here and %q to json", literal, mine, got)
			}
		}

		if decoded, ok := appendBase64Decoded(nil, b); ok {
			if again := base64.StdEncoding.EncodeToString(decoded); again != string(b) {
				t.Fatalf("base64 %q was accepted, its one spelling is %q", b, again)
			}
			if base64Size(b) != len(decoded) {
				t.Fatalf("base64 %q is %d bytes, foretold %d", b, len(decoded), base64Size(b))
			}
		}
	})
}
