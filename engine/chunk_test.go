package engine

import "testing"

func TestChunksComeInPowersOfTwo(t *testing.T) {
	for size, want := range map[int]int{1: 256, 255: 256, 256: 256, 257: 512, 512: 512, 513: 1024, 1 << 20: 1 << 20, 1<<24 + 1: 1 << 25} {
		p := chunks{}
		if c := p.get(size, nil, 1); cap(c.buf) != want || c.room() != want {
			t.Errorf("a chunk for %d bytes has %d", size, cap(c.buf))
		}
	}
}

// marked is a chunk whose messages were taken at the given milliseconds.
func marked(t *testing.T, ms ...int64) *chunk {
	t.Helper()
	p := chunks{}
	c := p.get(4096, nil, 1)
	for _, m := range ms {
		if !c.stamp(m) {
			t.Fatalf("no room for a mark at %d", m)
		}
		c.count++
	}
	return c
}

func TestChunkKnowsWhenItsMessagesWereTaken(t *testing.T) {
	c := marked(t, 1000, 1000, 1003, 1003, 1003, 1010)
	for i, want := range []int64{1000, 1000, 1003, 1003, 1003, 1010} {
		if ms := c.timeOf(uint32(i)); ms != want {
			t.Errorf("message %d was taken at %d, want %d", i, ms, want)
		}
	}
	if len(c.marks) != 3 || c.base != 1000 || c.last != 1010 {
		t.Errorf("%d marks from %d to %d, want one for each of three milliseconds", len(c.marks), c.base, c.last)
	}
	for ms, want := range map[int64]uint32{0: 0, 1000: 0, 1001: 2, 1003: 2, 1004: 5, 1010: 5, 1011: 6} {
		if i := c.since(ms); i != want {
			t.Errorf("since %d is message %d, want %d", ms, i, want)
		}
	}
}

func TestChunkTimeDoesNotStepBack(t *testing.T) {
	c := marked(t, 1000, 1005, 990, 1005, 1006)
	for i, want := range []int64{1000, 1005, 1005, 1005, 1006} {
		if ms := c.timeOf(uint32(i)); ms != want {
			t.Errorf("message %d was taken at %d, want %d", i, ms, want)
		}
	}
}

func TestChunkEndsWhenItsMarksAreFull(t *testing.T) {
	p := chunks{}
	c := p.get(1024, nil, 1)
	n := 0
	for ms := int64(5000); c.stamp(ms); ms += 2 {
		c.count++
		n++
	}
	if want := 2 + 1024/markBytes; n != want || len(c.marks) != want {
		t.Fatalf("%d messages a millisecond or more apart, want %d", n, want)
	}
	if !c.stamp(c.last) {
		t.Error("a message of the last millisecond needs no mark of its own")
	}
	if c := marked(t, 0); c.stamp(1<<31 + 1) {
		t.Error("a time that no mark can hold was taken")
	}
}

func TestChunksAreReusedAndCounted(t *testing.T) {
	p := chunks{freeMax: 3000}
	a, b, big := p.get(256, nil, 1), p.get(256, nil, 1), p.get(4096, nil, 1)
	if p.used != a.cost()+b.cost()+big.cost() {
		t.Fatalf("%d bytes are used", p.used)
	}
	for _, c := range []*chunk{a, b, big} {
		c.stamp(7)
		c.count = 3
		p.unlink(c)
		p.put(c)
	}
	if p.used != 0 || p.freeBytes != a.cost()+b.cost() {
		t.Fatalf("%d bytes are used, %d free: the large one is past the pool's limit", p.used, p.freeBytes)
	}
	if c := p.get(200, nil, 9); c != b || c.count != 0 || c.first != 9 || len(c.buf) != 0 || len(c.marks) != 0 || c.dead {
		t.Fatalf("not the chunk put last, or not empty: %+v", c)
	}
	if p.freeBytes != a.cost() || p.used != b.cost() {
		t.Fatalf("%d bytes are used, %d free", p.used, p.freeBytes)
	}
}

func TestChunksAreOrderedByLastAppend(t *testing.T) {
	p := chunks{}
	a, b, c := p.get(1, nil, 1), p.get(1, nil, 1), p.get(1, nil, 1)
	order := func() (got []*chunk) {
		for k := p.oldest; k != nil; k = k.newer {
			got = append(got, k)
		}
		return got
	}
	same := func(want ...*chunk) {
		t.Helper()
		got := order()
		if len(got) != len(want) {
			t.Fatalf("%d chunks, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("chunk %d is another one", i)
			}
		}
		if len(want) > 0 && p.newest != want[len(want)-1] {
			t.Fatal("the newest is another one")
		}
	}
	same(a, b, c)
	p.touch(a)
	same(b, c, a)
	p.touch(a)
	same(b, c, a)
	p.touch(c)
	same(b, a, c)
	p.unlink(a)
	same(b, c)
	p.unlink(b)
	p.unlink(c)
	same()
}
