package bench

import (
	"bytes"
	"testing"
)

func TestStampSurvivesBothForms(t *testing.T) {
	for _, want := range []stamp{
		{},
		{due: 1, seq: 2, origin: originOf(4, 3)},
		{due: 1<<63 - 1, seq: 1<<64 - 1, origin: 1<<64 - 1},
		{due: 0x0123456789abcdef, seq: 0xfedcba9876543210, origin: originOf(0x76543210, 0x89abcdef)},
	} {
		payload := make([]byte, payloadBytesDefault)
		stampBinary.put(payload, want)
		if got := stampBinary.get(payload); got != want {
			t.Errorf("binary: %+v, want %+v", got, want)
		}
		stampText.put(payload, want)
		if got := stampText.get(payload); got != want {
			t.Errorf("text: %+v, want %+v", got, want)
		}
		if i := bytes.IndexFunc(payload[:stampTextBytes], func(r rune) bool { return r < 'a' || r > 'p' }); i >= 0 {
			t.Errorf("text stamp has %q at %d, want letters a to p", payload[i], i)
		}
	}
}
