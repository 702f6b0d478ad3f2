package protocol

import (
	"encoding/hex"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheTableInTheDocIsTheCode reads the examples below the rows of the tables
// in doc.go. In each pair of lines the bytes and the JSON, or for a link the
// words, must be the same command or event, and the bytes must be among the
// vectors of the tests.
func TestTheTableInTheDocIsTheCode(t *testing.T) {
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	vectors := map[string]bool{} // true once seen in the doc
	for _, row := range commandRows {
		vectors[row.hex] = false
	}
	for _, row := range eventRows {
		vectors[row.hex] = false
	}
	for _, row := range linkV1Commands {
		vectors[row.hex] = false
	}
	for _, row := range linkV1Events {
		vectors[row.hex] = false
	}
	row := regexp.MustCompile(`^//\t0x([0-9a-f]{2})  `)
	example := regexp.MustCompile(`^//\t {6}([0-9a-f]{2}(?: [0-9a-f]{2})+)$`)
	lines := strings.Split(string(source), "\n")
	rows, kind := 0, ""
	for i, line := range lines {
		if m := row.FindStringSubmatch(line); m != nil {
			rows, kind = rows+1, m[1]
		}
		m := example.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if !strings.HasPrefix(m[1], kind) {
			t.Errorf("doc.go:%d: an example of 0x%s starts otherwise: %s", i+1, kind, m[1])
		}
		if _, ok := vectors[m[1]]; !ok {
			t.Errorf("doc.go:%d: %s is in no test", i+1, m[1])
		}
		vectors[m[1]] = true
		checkExample(t, i+1, m[1], strings.TrimSpace(strings.TrimPrefix(lines[i+1], "//")))
	}
	want := len(commandFlags) - 1 + len(eventFlags) - 1
	for _, row := range slices.Concat(linkCommands[:], linkEvents[:]) {
		if row.word != "" {
			want++
		}
	}
	if rows != want {
		t.Errorf("the tables have %d rows, the code %d", rows, want)
	}
	for vector, seen := range vectors {
		if !seen {
			t.Errorf("%s is not in doc.go", vector)
		}
	}
}

func checkExample(t *testing.T, line int, vector, text string) {
	var gotText, gotVector []byte
	b := unhex(t, vector)
	if b[0]&^eventTypeBit >= linkCommandFirst {
		if got := linkWords(t, b); got != text {
			t.Errorf("doc.go:%d: the bytes mean\n%s, the doc says\n%s", line, got, text)
		}
		return
	}
	if b[0]&eventTypeBit == 0 {
		c, err := ParseBinaryCommand(b, testLimit)
		d, err2 := ParseJSONCommand([]byte(text), &Scratch{}, testLimit)
		if err != nil || err2 != nil {
			t.Errorf("doc.go:%d: %v, %v", line, err, err2)
			return
		}
		gotText, gotVector = AppendCommandJSON(nil, &c), AppendCommandBinary(nil, &d)
	} else {
		e, err := ParseEventBinary(b)
		d, err2 := ParseEventJSON([]byte(text))
		if err != nil || err2 != nil {
			t.Errorf("doc.go:%d: %v, %v", line, err, err2)
			return
		}
		gotText, gotVector = unframed(t, AppendEventJSON(nil, &e), OpText), unframed(t, AppendEventBinary(nil, &d), OpBinary)
	}
	if string(gotText) != text {
		t.Errorf("doc.go:%d: the bytes mean\n%s, the doc says\n%s", line, gotText, text)
	}
	if hex.EncodeToString(gotVector) != strings.ReplaceAll(vector, " ", "") {
		t.Errorf("doc.go:%d: the JSON is % x, the doc says %s", line, gotVector, vector)
	}
}
