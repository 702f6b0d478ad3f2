package bench

import (
	"bytes"
	"testing"
)

func TestStampSurvivesBothForms(t *testing.T) {
	for _, want := range []stamp{
		{},
		{due: 1, seq: 2, lane: 3, run: 4},
		{due: 1<<63 - 1, seq: 1<<64 - 1, lane: 1<<32 - 1, run: 1<<32 - 1},
		{due: 0x0123456789abcdef, seq: 0xfedcba9876543210, lane: 0x89abcdef, run: 0x76543210},
	} {
		payload := make([]byte, payloadBytesDefault)
		stampBinary.put(payload, want)
		if got := getBinary(payload); got != want {
			t.Errorf("binary: %+v, want %+v", got, want)
		}
		stampText.put(payload, want)
		if got := getText(payload); got != want {
			t.Errorf("text: %+v, want %+v", got, want)
		}
		if i := bytes.IndexFunc(payload[:stampTextBytes], func(r rune) bool { return r < 'a' || r > 'p' }); i >= 0 {
			t.Errorf("text stamp has %q at %d, want letters a to p", payload[i], i)
		}
	}
}
