package persist

import "encoding/binary"

// Manifest is what is kept: which lives, how far their own segments were replaced, and by which. Manifests are numbered and
// never change; the newest one counts.
type Manifest struct {
	Number    uint64 // from 1; 0 is the one that nobody wrote
	WrittenMs int64
	NextLife  uint64 // no life below it is kept but those in Lives
	Lives     []ManifestLife
	Segments  []Compacted
	Garbage   []Garbage
}

// ManifestLife is a life that is kept.
type ManifestLife struct {
	Life    uint64
	Through uint64 // its segments up to this number were replaced, and count no more
	Over    bool   // its head will never change, and all its segments were replaced: nobody has to read it
	EndMs   int64  // when that was found, if it is over
}

// Compacted is a segment that was made of others: everything of one shard of the topics that these had.
type Compacted struct {
	Manifest uint64 // and
	Maker    uint64 // and
	Part     uint64 // are its name; from 1
	Level    int    // 1 and up: how often its messages were rewritten
	Shard    int    // of topics by their hash
	Shards   int
	SegmentRef
}

func (c *Compacted) name() string { return compactName(c.Manifest, c.Maker, c.Part) }

// Garbage is segments that no longer count, and are deleted when nobody can be reading them on the word of an older manifest.
type Garbage struct {
	SinceMs int64
	// Of a life: its segments First to Last.
	Life, First, Last uint64
	// With First and Last 0, all that there is of that life, and its head.
	// Or, if Life is 0, a compacted one. With Part 0, that manifest itself.
	Manifest, Maker, Part uint64
}

const (
	manifestBytesMax = 64 << 20
	manifestsKept    = 8 // the newest ones
	garbageRunMax    = 1 << 20
)

// AppendManifest appends m as an object.
func AppendManifest(dst []byte, m *Manifest) []byte {
	b := binary.AppendUvarint(nil, m.Number)
	b = binary.AppendVarint(b, m.WrittenMs)
	b = binary.AppendUvarint(b, m.NextLife)
	b = binary.AppendUvarint(b, uint64(len(m.Lives)))
	for _, l := range m.Lives {
		b = binary.AppendUvarint(b, l.Life)
		b = binary.AppendUvarint(b, l.Through)
		if b = appendBool(b, l.Over); l.Over {
			b = binary.AppendVarint(b, l.EndMs)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(m.Segments)))
	for i := range m.Segments {
		c := &m.Segments[i]
		b = binary.AppendUvarint(b, c.Manifest)
		b = binary.LittleEndian.AppendUint64(b, c.Maker)
		b = binary.AppendUvarint(b, c.Part)
		b = append(b, byte(c.Level), byte(c.Shard), byte(c.Shards))
		b = appendRef(b, &c.SegmentRef, m.WrittenMs)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Garbage)))
	for _, g := range m.Garbage {
		b = binary.AppendVarint(b, g.SinceMs)
		if b = binary.AppendUvarint(b, g.Life); g.Life != 0 {
			b = binary.AppendUvarint(b, g.First)
			b = binary.AppendUvarint(b, g.Last)
			continue
		}
		b = binary.AppendUvarint(b, g.Manifest)
		b = binary.LittleEndian.AppendUint64(b, g.Maker)
		b = binary.AppendUvarint(b, g.Part)
	}
	return appendEnvelope(dst, kindManifest, b)
}

// ParseManifest reads the manifest with a number.
func ParseManifest(b []byte, number uint64) (*Manifest, error) {
	body, err := openEnvelope(b, kindManifest, manifestBytesMax)
	if err != nil {
		return nil, err
	}
	r := &fields{what: "manifest", rest: body}
	m := &Manifest{Number: r.uvarint("number", maxNumber), WrittenMs: r.varint("time"), NextLife: r.uvarint("next life", maxNumber)}
	if r.err == nil && m.Number != number {
		r.fail("is number %d, not %d", m.Number, number)
	}
	n := r.count("number of lives", 3)
	for range n {
		l := ManifestLife{Life: r.uvarint("life", maxNumber), Through: r.uvarint("replaced through", maxNumber), Over: r.bool("over")}
		if l.Over {
			l.EndMs = r.varint("end")
		}
		if k := len(m.Lives); k > 0 && l.Life <= m.Lives[k-1].Life || l.Life >= m.NextLife {
			r.fail("life %d is out of order, or not below %d", l.Life, m.NextLife)
		}
		m.Lives = append(m.Lives, l)
	}
	n = r.count("number of segments", 13+refLeast)
	for range n {
		c := Compacted{Manifest: r.uvarint("segment's manifest", maxNumber), Maker: r.uint64("segment's maker"), Part: r.uvarint("segment's part", maxNumber)}
		c.Level, c.Shard, c.Shards = int(r.byte("level")), int(r.byte("shard")), int(r.byte("shards"))
		if r.err == nil && (c.Level == 0 || c.Shard >= c.Shards) {
			r.fail("a segment is of level %d, shard %d of %d", c.Level, c.Shard, c.Shards)
		}
		c.SegmentRef = r.ref(m.WrittenMs)
		m.Segments = append(m.Segments, c)
	}
	n = r.count("number of garbage", 4)
	for range n {
		g := Garbage{SinceMs: r.varint("garbage's time"), Life: r.uvarint("garbage's life", maxNumber)}
		if g.Life != 0 {
			g.First, g.Last = r.uvarint("garbage's first", maxNumber), r.uvarint("garbage's last", maxNumber)
			if r.err == nil && (g.Last < g.First || g.Last-g.First >= garbageRunMax) {
				r.fail("garbage is segments %d to %d, limit %d", g.First, g.Last, garbageRunMax)
			}
		} else {
			g.Manifest, g.Maker, g.Part = r.uvarint("garbage's manifest", maxNumber), r.uint64("garbage's maker"), r.uvarint("garbage's part", maxNumber)
		}
		m.Garbage = append(m.Garbage, g)
	}
	return m, r.end()
}

func appendLatest(dst []byte, number uint64) []byte {
	return appendEnvelope(dst, kindLatest, binary.AppendUvarint(nil, number))
}

func parseLatest(b []byte) (uint64, error) {
	body, err := openEnvelope(b, kindLatest, 16)
	if err != nil {
		return 0, err
	}
	r := &fields{what: kindLatest.String(), rest: body}
	number := r.uvarint("number", maxNumber)
	return number, r.end()
}

// lease is who looks after the store for a while. Two at once do no harm, only twice the work: a manifest's number is had once.
type lease struct {
	holder    uint64
	expiresMs int64
}

func appendLease(dst []byte, l lease) []byte {
	b := binary.LittleEndian.AppendUint64(nil, l.holder)
	return appendEnvelope(dst, kindLease, binary.AppendVarint(b, l.expiresMs))
}

func parseLease(b []byte) (lease, error) {
	body, err := openEnvelope(b, kindLease, 64)
	if err != nil {
		return lease{}, err
	}
	r := &fields{what: kindLease.String(), rest: body}
	l := lease{r.uint64("holder"), r.varint("end")}
	return l, r.end()
}

// life is what m says of a life; not kept: false.
func (m *Manifest) life(number uint64) (ManifestLife, bool) {
	for _, l := range m.Lives {
		if l.Life == number {
			return l, true
		}
	}
	return ManifestLife{Life: number}, number >= m.NextLife
}

// covers says whether a compacted segment may have a topic.
func (c *Compacted) covers(hash uint64) bool {
	return hash%uint64(c.Shards) == uint64(c.Shard) && c.Filter.May(hash)
}
