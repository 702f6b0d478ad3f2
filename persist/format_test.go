package persist

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
)

// The codecs' channels belong to no test's bubble (testing/synctest), so they are made before any.
func TestMain(m *testing.M) {
	packed, coding := appendPacked(nil, make([]byte, 2*packLeast), thorough)
	if _, err := unpack(packed, coding, 2*packLeast); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// testFrame is a whole server frame with size bytes of payload that tell it from others.
func testFrame(dst []byte, topic string, offset uint64, size int) []byte {
	at := len(dst)
	switch {
	case size < 126:
		dst = append(dst, 0x82, byte(size))
	case size < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x82, 126), uint16(size))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x82, 127), uint64(size))
	}
	head := len(dst) - at
	for text := fmt.Sprintf("%s %d;", topic, offset); len(dst)-at < size+head; {
		dst = append(dst, text[:min(len(text), size+head-(len(dst)-at))]...)
	}
	return dst
}

// testRun is messages first to first+count-1 of size bytes each; message i is of time began+offset.
func testRun(topic, epoch string, began int64, first uint64, count uint32, size int) Run {
	r := Run{Topic: topic, Epoch: epoch, Began: began, First: first, Count: count}
	for i := range count {
		offset := first + uint64(i)
		r.Frames = testFrame(r.Frames, topic+epoch, offset, size)
		r.Times = append(r.Times, Time{i, began + int64(offset)})
	}
	return r
}

func mustSegment(t testing.TB, runs ...Run) ([]byte, SegmentRef) {
	t.Helper()
	b, ref, err := AppendSegment(nil, runs)
	if err != nil {
		t.Fatal(err)
	}
	return b, ref
}

// readSegment is all runs of a whole segment, those that were cut for blocks put together again.
func readSegment(b []byte) (runs []Run, err error) {
	if err := checkHeader(b, kindSegment); err != nil {
		return nil, err
	}
	x, err := parseIndex(b, int64(len(b)))
	if err != nil {
		return nil, err
	}
	for topic, entries := range x.all() {
		for _, e := range entries {
			bl := &x.blocks[e.block]
			plain, err := bl.unpack(b[bl.at : bl.at+int64(bl.packed)])
			if err != nil {
				return nil, fmt.Errorf("block %d: %w", e.block, err)
			}
			r := Run{Topic: topic, Epoch: e.epoch, Began: e.began, First: e.first, Count: e.count, Frames: plain[e.offset : e.offset+e.length], Times: e.times}
			if err := r.check(); err != nil {
				return nil, err
			}
			if n := len(runs); n > 0 && runs[n-1].Topic == topic && runs[n-1].Epoch == e.epoch && runs[n-1].Last()+1 == e.first {
				last := &runs[n-1]
				for _, at := range r.Times {
					last.Times = append(last.Times, Time{last.Count + at.Index, at.UnixMs})
				}
				last.Frames, last.Count = append(bytes.Clone(last.Frames), r.Frames...), last.Count+r.Count
				continue
			}
			runs = append(runs, r)
		}
	}
	return runs, nil
}

func TestSegmentGivesBackWhatItWasGiven(t *testing.T) {
	for name, runs := range map[string][]Run{
		"one message":       {testRun("a", "E", 5, 1, 1, 0)},
		"two topics":        {testRun("b", "E", 5, 7, 3, 30), testRun("a", "E", 5, 1, 2, 300)},
		"two epochs":        {testRun("a", "Z", 5, 3, 3, 30), testRun("a", "B", 9, 1, 2, 300), testRun("a", "C", 9, 1, 1, 1)},
		"a gap":             {testRun("a", "E", 5, 3, 3, 30), testRun("a", "E", 5, 9, 3, 30)},
		"many blocks":       {testRun("a", "E", 5, 1, 5000, 200), testRun("b", "E", 5, 1, 5000, 200)},
		"messages > blocks": {testRun("a", "E", 5, 1, 3, 300<<10), testRun("b", "E", 5, 1, 1, 10), testRun("c", "E", 5, 1, 2, 1<<20)},
		"late offsets":      {testRun("a", "E", 5, offsetMax, 2, 10)},
	} {
		t.Run(name, func(t *testing.T) {
			b, ref := mustSegment(t, append([]Run(nil), runs...)...)
			got, err := readSegment(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range []effort{quick, none} {
				other, _, err := appendSegment(nil, append([]Run(nil), runs...), e)
				if err != nil {
					t.Fatal(err)
				}
				if same, err := readSegment(other); err != nil || !reflect.DeepEqual(same, got) {
					t.Errorf("with effort %d it is another segment: %v", e, err)
				}
			}
			want := append([]Run(nil), runs...)
			var messages uint64
			var plain int64
			for i := range want {
				messages += uint64(want[i].Count)
				plain += int64(len(want[i].Frames))
				if !ref.Filter.May(topicHash(want[i].Topic)) {
					t.Errorf("the filter denies topic %q", want[i].Topic)
				}
			}
			b2, _ := mustSegment(t, want...) // sorts them
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %d runs, want %d", len(got), len(want))
			}
			if !bytes.Equal(b, b2) {
				t.Error("the same runs in another order make another segment")
			}
			if ref.Messages != messages || ref.Plain != plain || ref.Size != int64(len(b)) {
				t.Errorf("says %d messages, %d of %d bytes, want %d, %d of %d", ref.Messages, ref.Plain, ref.Size, messages, plain, len(b))
			}
			if x, err := parseIndex(b[int64(len(b))-ref.Tail:], ref.Size); err != nil || x.messages != messages || x.bytes != plain {
				t.Errorf("from its last %d bytes: %v", ref.Tail, err)
			}
		})
	}
}

func TestSegmentJoinsRunsAndLeavesOutWhatItHas(t *testing.T) {
	whole := testRun("a", "E", 0, 1, 100, 20)
	b, ref := mustSegment(t, testRun("a", "E", 0, 41, 60, 20), testRun("a", "E", 0, 1, 30, 20), testRun("a", "E", 0, 21, 20, 20), testRun("a", "E", 0, 50, 10, 20))
	got, err := readSegment(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, []Run{whole}) || ref.Messages != 100 {
		t.Fatalf("got %d runs and %d messages, want 1 and 100", len(got), ref.Messages)
	}
	if x, _ := parseIndex(b, int64(len(b))); len(x.runs("a")) != 1 || x.runs("0") != nil || x.runs("b") != nil {
		t.Error("the index has more than the one run")
	}
}

func TestSegmentRefusesWhatNoReaderCouldUse(t *testing.T) {
	good := func() Run { return testRun("a", "E", 0, 1, 2, 5) }
	for want, change := range map[string]func(r *Run){
		"topic name is 0 bytes":     func(r *Run) { r.Topic = "" },
		"topic name is 256 bytes":   func(r *Run) { r.Topic = strings.Repeat("a", 256) },
		"epoch is 17 bytes":         func(r *Run) { r.Epoch = strings.Repeat("e", 17) },
		"2 messages from there":     func(r *Run) { r.First = 0 },
		"has no time":               func(r *Run) { r.Times = nil },
		"time 1 is of message 2":    func(r *Run) { r.Times[1].Index = 2 },
		"has 2 frames, count is 3":  func(r *Run) { r.Count = 3 },
		"frame 1 is 0 bytes":        func(r *Run) { r.Frames = r.Frames[:len(r.Frames)-1] },
		"offset 0: 2 messages from": func(r *Run) { r.First = 0 },
	} {
		r := good()
		change(&r)
		dst := []byte("before")
		b, _, err := AppendSegment(dst, []Run{good(), r})
		if err == nil || !strings.Contains(err.Error(), want) || string(b) != "before" {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	if _, _, err := AppendSegment(nil, nil); err == nil {
		t.Error("a segment of nothing was made")
	}
}

// objects is one small object of each kind, and what reads it to a value that can be compared.
func objects(t testing.TB) map[string]struct {
	body  []byte
	parse func(b []byte) (any, error)
} {
	segment, ref := mustSegment(t, testRun("a", "E", 5, 1, 2, 90), testRun("b", "E", 6, 4, 1, 9))
	head := &Head{Life: 3, Name: "n", Slot: -1, StartedMs: 9, WrittenMs: 10, Segments: []HeadSegment{{2, ref}, {5, ref}}, Holes: []Hole{{"a", "E", 3, 9}}}
	manifest := &Manifest{Number: 4, WrittenMs: 77, NextLife: 9, Lives: []ManifestLife{{2, 8, true, 70}, {5, 0, false, 0}},
		Segments: []Compacted{{Manifest: 4, Maker: 1 << 63, Part: 2, Level: 1, Shard: 3, Shards: 4, SegmentRef: ref}},
		Garbage:  []Garbage{{SinceMs: 5, Life: 2, First: 1, Last: 8}, {SinceMs: 5, Manifest: 3, Maker: 7, Part: 1}}}
	type object = struct {
		body  []byte
		parse func(b []byte) (any, error)
	}
	return map[string]object{
		"segment":  {segment, func(b []byte) (any, error) { return readSegment(b) }},
		"head":     {AppendHead(nil, head), func(b []byte) (any, error) { return ParseHead(b, 3) }},
		"manifest": {AppendManifest(nil, manifest), func(b []byte) (any, error) { return ParseManifest(b, 4) }},
		"sealed":   {AppendSealed(nil, 3, 4, []Sealed{{"a", "E", 5, 0}, {"b", "F", -5, 9}}), func(b []byte) (any, error) { _, s, err := ParseSealed(b, 3); return s, err }},
		"claim":    {AppendClaim(nil, 3, 2, Claim{7, 1, 3}), func(b []byte) (any, error) { return ParseClaim(b, 3, 2) }},
		"latest":   {appendLatest(nil, 300), func(b []byte) (any, error) { return parseLatest(b) }},
		"lease":    {appendLease(nil, lease{1 << 60, 300}), func(b []byte) (any, error) { return parseLease(b) }},
	}
}

func TestObjectsAreRefusedCutAndFlipped(t *testing.T) {
	for name, o := range objects(t) {
		t.Run(name, func(t *testing.T) {
			want, err := o.parse(o.body)
			if err != nil {
				t.Fatal(err)
			}
			for n := range len(o.body) {
				if _, err := o.parse(o.body[:n:n]); err == nil {
					t.Errorf("cut after %d of %d bytes it is read", n, len(o.body))
				}
			}
			for i := range 8 * len(o.body) {
				flipped := bytes.Clone(o.body)
				flipped[i/8] ^= 1 << (i % 8)
				if got, err := o.parse(flipped); err == nil {
					t.Errorf("with bit %d of byte %d flipped it is read (as before: %v)", i%8, i/8, reflect.DeepEqual(got, want))
				}
			}
			if _, err := o.parse(append(bytes.Clone(o.body), 0)); err == nil {
				t.Error("with a byte behind it it is read")
			}
			later := bytes.Clone(o.body)
			later[headerBytes-1] = 3
			if _, err := o.parse(later); err == nil || !strings.Contains(err.Error(), "has version 3, this program reads 1") {
				t.Errorf("of version 3: %v", err)
			}
		})
	}
}

func TestHeadAndManifestGiveBackWhatTheyWereGiven(t *testing.T) {
	for name, o := range objects(t) {
		v, err := o.parse(o.body)
		if err != nil {
			t.Fatal(err)
		}
		var again []byte
		switch v := v.(type) {
		case *Head:
			again = AppendHead(nil, v)
		case *Manifest:
			again = AppendManifest(nil, v)
		case []Sealed:
			again = AppendSealed(nil, 3, 4, v)
		case Claim:
			again = AppendClaim(nil, 3, 2, v)
		default:
			continue
		}
		if !bytes.Equal(again, o.body) {
			t.Errorf("%s: read and written again it differs", name)
		}
	}
	holes := make([]Hole, HeadHolesMax+5)
	for i := range holes {
		holes[i] = Hole{"t", "E", uint64(i + 1), uint64(i + 1)}
	}
	h, err := ParseHead(AppendHead(nil, &Head{Life: 1, Name: strings.Repeat("n", 300), Holes: holes}), 1)
	if err != nil || len(h.Holes) != HeadHolesMax || h.Holes[0].First != 6 || len(h.Name) != 255 {
		t.Errorf("of %d holes the newest %d are not kept: %v", len(holes), HeadHolesMax, err)
	}
	if _, err := ParseHead(AppendHead(nil, &Head{Life: 1}), 2); err == nil {
		t.Error("the head of another life is read")
	}
}

func TestFilterKnowsItsTopicsAndFewOthers(t *testing.T) {
	for _, c := range []struct{ topics, wrongMax int }{{1, 60}, {100, 40}, {2000, 40}, {8192, 450}, {20_000, 1000}, {100_000, 1000}} {
		var hashes []uint64
		for i := range c.topics {
			hashes = append(hashes, topicHash(fmt.Sprint("topic ", i)))
		}
		f := makeFilter(hashes)
		if len(f) > 1+filterBitsMax/8 || f.check() != nil {
			t.Fatalf("%d topics: filter of %d bytes: %v", c.topics, len(f), f.check())
		}
		for i, h := range hashes {
			if !f.May(h) {
				t.Fatalf("%d topics: topic %d is denied", c.topics, i)
			}
		}
		wrong := 0
		for i := range 1000 {
			if f.May(topicHash(fmt.Sprint("other ", i))) {
				wrong++
			}
		}
		if wrong > c.wrongMax {
			t.Errorf("%d topics: wrong about %d of 1000 others, want at most %d", c.topics, wrong, c.wrongMax)
		}
	}
}

func TestUnpackIsBoundedByWhatWasDeclared(t *testing.T) {
	for e, want := range map[effort]byte{thorough: codingZstd, quick: codingS2} {
		bomb, coding := appendPacked(nil, make([]byte, 32<<20), e)
		if coding != want || len(bomb) > 4<<20 {
			t.Fatalf("32 MiB of zeros are %d bytes of coding %d", len(bomb), coding)
		}
		for _, n := range []int{0, 1, 1000, 32<<20 - 1, 32<<20 + 1} {
			if _, err := unpack(bomb, coding, n); err == nil {
				t.Errorf("declared as %d bytes it is unpacked", n)
			}
		}
		if n := testing.AllocsPerRun(1, func() { unpack(bomb, coding, 1000) }); n > 100 {
			t.Errorf("refusing it takes %v allocations", n)
		}
	}
	random := make([]byte, 10_000)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	for _, e := range []effort{thorough, quick, none} {
		if packed, coding := appendPacked([]byte("before"), random, e); coding != codingRaw || string(packed) != "before"+string(random) {
			t.Errorf("with effort %d, what does not compress is not kept raw", e)
		}
	}
	if _, err := unpack(random, 3, len(random)); err == nil {
		t.Error("coding 3 is read")
	}
}

// A block that a later version has packed in a way of its own makes the whole segment one of that version: a merge that took the rest of
// it would have it deleted.
func TestAnUnknownCodingIsALaterVersionsSegment(t *testing.T) {
	r := testRun("a", "E", 5, 1, 10, 100)
	b := newSegmentBuilder(nil, thorough)
	b.begin("a", len(r.Frames))
	b.add(&r)
	b.closeBlock()
	b.blocks[0] = codingS2 + 1
	body, ref, err := b.finish()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseIndex(body, ref.Size); err == nil || !strings.Contains(err.Error(), "block 0 has coding 3, this program reads 0 to 2") {
		t.Errorf("it is read: %v", err)
	}
}
