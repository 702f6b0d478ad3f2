package protocol

import (
	"strings"
	"testing"
)

// The messages of the benchmarks: what a device would publish, and what a
// server does with it.
const (
	benchTopic = "sensors/hall-7/temperature"
	benchLimit = 64 << 10
)

// benchJSON is 127 bytes.
var benchJSON = []byte(`{"device":"hall-7/rack-12/probe-3","celsius":21.375,"battery":0.98,"seq":184467,"at":"2026-01-02T15:04:05.123Z","flags":["ok"]}`)

func benchPublish() []byte {
	return []byte(`{"op":"publish","id":123456,"topic":"` + benchTopic + `","data":` + string(benchJSON) + `}`)
}

func BenchmarkParseJSONCommand(b *testing.B) {
	long := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 1400)
	for _, row := range []struct{ name, command string }{
		{"publish/data", string(benchPublish())},
		{"publish/text", `{"op":"publish","id":123456,"topic":"` + benchTopic + `","text":"` + long[:128] + `"}`},
		{"publish/escaped", `{"op":"publish","id":123456,"topic":"` + benchTopic + `","text":"` + long[:60] + `\n` + long[:60] + `\u00e9"}`},
		{"publish/63KB", `{"op":"publish","id":123456,"topic":"` + benchTopic + `","text":"` + long + `"}`},
		{"subscribe", `{"op":"subscribe","id":1,"topic":"` + benchTopic + `","from":{"epoch":"E1","offset":30}}`},
		{"ping", `{"op":"ping","id":4}`},
	} {
		b.Run(row.name, func(b *testing.B) {
			command := []byte(row.command)
			var s Scratch
			b.SetBytes(int64(len(command)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseJSONCommand(command, &s, benchLimit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseBinaryCommand(b *testing.B) {
	for _, kind := range []Kind{KindBinary, KindText, KindJSON} {
		b.Run(kind.String(), func(b *testing.B) {
			command := AppendCommandBinary(nil, &Command{
				Op: CmdPublish, HasID: true, ID: 123456, Topic: []byte(benchTopic), Kind: kind, Payload: benchJSON,
			})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseBinaryCommand(command, benchLimit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	for _, row := range []struct {
		name   string
		format Format
		kind   Kind
	}{
		{"binary", FormatBinary, KindJSON},
		{"json/json", FormatJSON, KindJSON},
		{"json/text", FormatJSON, KindText},
		{"json/binary", FormatJSON, KindBinary},
		{"classic", FormatClassic, KindText},
		{"sse/json", FormatSSE, KindJSON},
	} {
		b.Run(row.name, func(b *testing.B) {
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendMessage(dst[:0], row.format, benchTopic, 123456789, row.kind, benchJSON)
			}
		})
	}
}

func BenchmarkNextBinaryMessage(b *testing.B) {
	var log []byte
	for i := range uint64(64) {
		log = AppendMessage(log, FormatBinary, benchTopic, 1000+i, KindJSON, benchJSON)
	}
	at := log
	for b.Loop() {
		_, _, _, n := NextBinaryMessage(at)
		if at = at[n:]; len(at) == 0 {
			at = log
		}
	}
}

func BenchmarkValidJSON(b *testing.B) {
	b.SetBytes(int64(len(benchJSON)))
	for b.Loop() {
		if !ValidJSON(benchJSON) {
			b.Fatal("not valid")
		}
	}
}

func BenchmarkParseBatch(b *testing.B) {
	message := `{"topic":"` + benchTopic + `","data":` + string(benchJSON) + `},`
	body := []byte(`{"messages":[` + strings.TrimSuffix(strings.Repeat(message, 100), ",") + `]}`)
	var s Scratch
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		err := ParseBatch(body, &s, 1000, benchLimit, func(i int, c Command, err error) {
			if err != nil {
				b.Fatal(err)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	published := Event{Op: EvPublished, HasID: true, ID: 123456, Topic: benchTopic, Epoch: "E1", Offset: 42}
	message := Event{Op: EvMessage, Topic: benchTopic, Offset: 42, Kind: KindJSON, Payload: benchJSON}
	dst := make([]byte, 0, 4096)
	b.Run("append/json/published", func(b *testing.B) {
		for b.Loop() {
			dst = AppendEventJSON(dst[:0], &published)
		}
	})
	b.Run("append/binary/published", func(b *testing.B) {
		for b.Loop() {
			dst = AppendEventBinary(dst[:0], &published)
		}
	})
	jsonMessage := AppendEventJSON(nil, &message)[4:]
	b.Run("parse/json/message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseEventJSON(jsonMessage); err != nil {
				b.Fatal(err)
			}
		}
	})
	binaryMessage := AppendEventBinary(nil, &message)[4:]
	b.Run("parse/binary/message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseEventBinary(binaryMessage); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse/binary/message/slices", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, _, _, err := ParseBinaryMessage(binaryMessage); err != nil {
				b.Fatal(err)
			}
		}
	})
}
