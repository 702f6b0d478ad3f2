package persist

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// The checksums keep a fuzzer out, so it is let in behind them: what it makes is put into an envelope that is right.

func fuzzBody(f *testing.F, object []byte, k kind, check func(t *testing.T, sealed []byte)) {
	body, err := openEnvelope(object, k, headBytesMax)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) { check(t, appendEnvelope(nil, k, body)) })
}

func FuzzHead(f *testing.F) {
	fuzzBody(f, objects(f)["head"].body, kindHead, func(t *testing.T, b []byte) {
		h, err := ParseHead(b, 3)
		if err != nil {
			return
		}
		if again := AppendHead(nil, h); !bytes.Equal(again, b) {
			t.Errorf("another spelling of the same head: %x and %x", b, again)
		}
	})
}

func FuzzManifest(f *testing.F) {
	fuzzBody(f, objects(f)["manifest"].body, kindManifest, func(t *testing.T, b []byte) {
		m, err := ParseManifest(b, 4)
		if err != nil {
			return
		}
		if again := AppendManifest(nil, m); !bytes.Equal(again, b) {
			t.Errorf("another spelling of the same manifest: %x and %x", b, again)
		}
	})
}

func FuzzSealed(f *testing.F) {
	fuzzBody(f, objects(f)["sealed"].body, kindSealed, func(t *testing.T, b []byte) {
		newest, s, err := ParseSealed(b, 3)
		if err != nil {
			return
		}
		if again := AppendSealed(nil, 3, newest, s); !bytes.Equal(again, b) {
			t.Errorf("another spelling of the same record: %x and %x", b, again)
		}
	})
}

func FuzzClaim(f *testing.F) {
	fuzzBody(f, objects(f)["claim"].body, kindClaim, func(t *testing.T, b []byte) {
		c, err := ParseClaim(b, 3, 2)
		if err == nil && !bytes.Equal(AppendClaim(nil, 3, 2, c), b) {
			t.Errorf("another spelling of the same claim: %x", b)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	for _, o := range objects(f) {
		f.Add(o.body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseHead(b, 3)
		ParseManifest(b, 4)
		ParseSealed(b, 3)
		ParseClaim(b, 3, 2)
		parseLatest(b)
		parseLease(b)
		if len(b) > sumBytes { // as if its checksum were right
			b = appendSum(b[:len(b)-sumBytes:len(b)-sumBytes], b[:len(b)-sumBytes])
			openEnvelope(b, kindHead, 1<<20)
		}
		readSegment(b)
	})
}

// FuzzIndex makes an index of its own for the blocks of a segment.
func FuzzIndex(f *testing.F) {
	segment, ref := mustSegment(f, testRun("a", "E", 5, 1, 2, 200<<10), testRun("b", "E", 6, 4, 1, 9), testRun("b", "F", 6, 4, 1, 9), testRun("b", "F", 6, 9, 1, 9))
	blocks := segment[:ref.Size-ref.Tail]
	x, err := parseIndex(segment, ref.Size)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x.plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		b := bytes.Clone(blocks)
		packed, coding := appendPacked(nil, plain, thorough)
		b = append(b, packed...)
		b = footer{coding: coding, packed: uint32(len(packed)), plain: uint32(len(plain))}.append(b, packed)
		runs, err := readSegment(b)
		if err != nil {
			return
		}
		var frames int
		for i := range runs {
			frames += len(runs[i].Frames)
		}
		if want := int(ref.Plain); frames != want {
			t.Errorf("its runs have %d bytes of %d", frames, want)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	plain := bytes.Repeat([]byte("what repeats itself "), 20)
	for _, e := range []effort{thorough, quick, none} {
		packed, coding := appendPacked(nil, plain, e)
		f.Add(packed, coding, uint16(len(plain)))
	}
	f.Fuzz(func(t *testing.T, packed []byte, coding byte, n uint16) {
		if plain, err := unpack(packed, coding, int(n)); err == nil && len(plain) != int(n) {
			t.Errorf("%d bytes of coding %d are %d, said to be %d", len(packed), coding, len(plain), n)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(testFrame(testFrame(nil, "a", 1, 200), "a", 2, 70_000))
	f.Add(binary.BigEndian.AppendUint64([]byte{0x82, 127}, 1<<63))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, whole := countFrames(b)
		if whole && len(skipFrames(b, uint64(n))) != 0 {
			t.Errorf("%d frames, and then %d bytes more", n, len(skipFrames(b, uint64(n))))
		}
	})
}
