package engine

import (
	"slices"

	"rayflux/persist"
	"rayflux/protocol"
)

const (
	batchBytes  = 512 << 10 // of one batch: it is offered when the next run does not fit
	timesMax    = 4 << 10   // of one batch
	batchesKept = 64        // pooled, at most: under load dozens are under way, and a new one is memory to clear
	batchesIdle = 2         // pooled when a batch's time comes before it is full

	// What is new goes into the batch while it is in the processor's cache, but not message by message: each run has a price.
	warmBytes = 64 << 10
	runBytes  = 4 << 10
)

// keeper brings the messages of a loop's topics to the archive, and its readers what the logs have forgotten. It is one more
// cursor into every log: topic.offered is how far it is, and what a log drops it takes first. Loop-owned; a balancer's loops, and those
// of a node without a store, have none.
type keeper struct {
	loop    *loop
	archive archivist

	unsaved []*topic // with messages that are in no batch
	bytes   int64    // of these
	due     bool     // they are to be taken into the batch at the end of this event
	late    bool     // and it is to be offered then
	timer   timer
	batch   *saving   // being filled
	filled  int       // batches that were full, since one was late
	free    []*saving // pooled
	under   map[*persist.Batch]*saving

	waits   waitLine
	asking  map[*inquiry]struct{} // starts and pages of history that readers wait for
	line    []*inquiry            // of these, what is not asked for yet, oldest first
	lineMax int
	begins  map[asker]*inquiry    // of all these, subscriptions
	reads   map[*inquiry]struct{} // stretches for cursors

	dormant    map[string]dormant
	dormantMax int
	sleepers   []string // their names, in the order in which they fell asleep; some of them are awake again
	inherited  bool     // it was told what of it is from before this process
	sealed     bool     // nothing is taken any more
}

// saving is a batch and the memory that its runs lie in. Loop-owned but for what the archive reads of it between offer and saved,
// in which nothing is changed.
type saving struct {
	persist.Batch
	frames []byte
	times  []persist.Time
	waits  []*wait // for this batch; nil: has been told
}

func newKeeper(l *loop, a archivist) *keeper {
	k := &keeper{loop: l, archive: a, under: make(map[*persist.Batch]*saving), asking: make(map[*inquiry]struct{}), reads: make(map[*inquiry]struct{}),
		begins: make(map[asker]*inquiry), lineMax: int(max(l.bufferMax/8/inquiryCost, 1)), dormant: make(map[string]dormant), dormantMax: max(l.cfg.MaxTopics/len(l.peers), 1)}
	l.readsMax = max(l.readsMax, inquiriesMax) // each waits for the store, of which a link's topics all have need when a node is lost
	k.timer.owner = k
	k.waits.timer.owner = &k.waits
	return k
}

// note remembers that a topic has n more bytes of sealed messages.
func (k *keeper) note(t *topic, n int) {
	k.bytes += int64(n)
	if !t.unsaved {
		t.unsaved = true
		k.unsaved = append(k.unsaved, t)
		k.arm()
	}
	k.due = k.due || k.bytes >= batchBytes || k.bytes >= max(warmBytes, runBytes*int64(len(k.unsaved)))
}

// arm sets the time at which what is new is offered at the latest: the archive waits for more of it once again.
func (k *keeper) arm() {
	if !k.timer.set() {
		k.loop.wheel.start(&k.timer, k.loop.now+int64(k.loop.cfg.SnapshotInterval)/4)
	}
}

// expire is the end of the time that messages wait for more of them.
func (k *keeper) expire(*loop) { k.due, k.late = true, true }

// settle is called at the end of each event.
func (k *keeper) settle() {
	if k.due {
		k.collect()
	}
	if k.late {
		k.offer()
		if n := min(len(k.free), batchesIdle); k.filled == 0 {
			clear(k.free[n:])
			k.free = k.free[:n]
		}
		k.late, k.filled = false, 0
	}
}

// collect puts what is new in every log into the batch.
func (k *keeper) collect() {
	for i, t := range k.unsaved {
		k.unsaved[i] = nil
		t.unsaved = false
		k.take(t)
	}
	k.unsaved, k.bytes, k.due = k.unsaved[:0], 0, false
}

// take puts what is new in a topic's log, and sealed, into the batch.
func (k *keeper) take(t *topic) {
	for c := t.oldest; c != nil; c = c.next {
		buf, count := c.buf, c.count
		if c == t.newest {
			buf, count = buf[:t.frontFrom], count-t.frontCount
		}
		after := c.first + uint64(count)
		if after <= t.offered+1 {
			continue
		}
		first, from := max(c.first, t.offered+1), c.offered
		if from == 0 {
			from = skipUnits(buf, protocol.FormatBinary, first-c.first)
		}
		k.add(t, c, first, buf[from:], uint32(after-first))
		t.offered, c.offered = after-1, len(buf)
	}
}

// add puts messages of a chunk, from offset first on, into the batch, as one run.
func (k *keeper) add(t *topic, c *chunk, first uint64, frames []byte, count uint32) {
	from := c.markOf(uint32(first - c.first))
	marks := c.marks[from:]
	b := k.batch
	if b != nil && (len(b.frames)+len(frames) > cap(b.frames) || len(b.times)+len(marks) > cap(b.times)) {
		k.offer()
		k.filled++
		b = nil
	}
	if b == nil {
		b = k.newBatch(len(frames), len(marks))
	}
	at, timesAt := len(b.frames), len(b.times)
	b.frames = append(b.frames, frames...)
	for _, m := range marks {
		index := uint32(max(int64(m.index)-int64(first-c.first), 0))
		if index >= count {
			break // of the front
		}
		b.times = append(b.times, persist.Time{Index: index, UnixMs: c.base + int64(m.after) + k.loop.skew})
	}
	b.Runs = append(b.Runs, persist.Run{Topic: t.name, Epoch: t.epoch, Began: t.began, First: first, Count: count,
		Frames: b.frames[at:len(b.frames):len(b.frames)], Times: b.times[timesAt:len(b.times):len(b.times)]})
	for t.waits.first != nil && t.waits.first.errand.offset < first+uint64(count) {
		k.put(b, t.waits.pop())
	}
}

// newBatch is an empty batch with room for one run at least: its memory never grows, as runs refer to it.
func (k *keeper) newBatch(bytes, times int) *saving {
	b := &saving{}
	if n := len(k.free); n > 0 && bytes <= batchBytes && times <= timesMax {
		b, k.free[n-1] = k.free[n-1], nil
		k.free = k.free[:n-1]
	} else {
		b.frames = make([]byte, 0, max(bytes, batchBytes))
		b.times = make([]persist.Time, 0, max(times, timesMax))
		b.Tag = k.loop.index
	}
	k.batch = b
	k.arm()
	return b
}

// fitted is what is in a batch, in memory of its size: the archive may keep it for as long as the store is away, and counts what
// is in it.
func (b *saving) fitted() *saving {
	f := &saving{frames: slices.Clone(b.frames), times: slices.Clone(b.times), waits: b.waits}
	f.Tag, f.Runs = b.Tag, slices.Clone(b.Runs)
	at, timesAt := 0, 0
	for i := range f.Runs {
		r := &f.Runs[i]
		n, timesN := len(r.Frames), len(r.Times)
		r.Frames, r.Times = f.frames[at:at+n:at+n], f.times[timesAt:timesAt+timesN:timesAt+timesN]
		at, timesAt = at+n, timesAt+timesN
	}
	b.waits = nil
	for _, w := range f.waits {
		if w != nil {
			w.in = f
		}
	}
	return f
}

// offer hands the batch to the archive.
func (k *keeper) offer() {
	if b := k.batch; b != nil {
		k.batch = nil
		if len(b.frames) < batchBytes/2 {
			roomy := b
			b = roomy.fitted()
			k.pool(roomy)
		}
		b.Bytes = b.frames
		k.under[&b.Batch] = b
		k.archive.offer(&b.Batch)
	}
}

// saved takes a batch back: who waits for it is told.
func (k *keeper) saved(of *persist.Batch, err error) {
	b := k.under[of]
	if b == nil {
		bug("a batch comes back that is not under way")
	}
	delete(k.under, of)
	if err == nil {
		for i := range b.Runs {
			if t := k.loop.topics[b.Runs[i].Topic]; t != nil && t.epoch == b.Runs[i].Epoch {
				t.stored = max(t.stored, b.Runs[i].Last())
			}
		}
	}
	for i, w := range b.waits {
		if b.waits[i] = nil; w != nil {
			k.tell(w, err)
		}
	}
	b.waits = b.waits[:0]
	k.pool(b)
}

// pool keeps a batch to be filled again, if it is of the size that most are made in.
func (k *keeper) pool(b *saving) {
	if !k.hasPlace() || cap(b.frames) != batchBytes || cap(b.times) != timesMax {
		return
	}
	poison(b.frames)
	clear(b.Runs)
	b.Runs, b.frames, b.times = b.Runs[:0], b.frames[:0], b.times[:0]
	k.free = append(k.free, b)
}

// hasPlace reports whether one more batch may be pooled: with those under way they keep to this loop's share of the backlog.
func (k *keeper) hasPlace() bool {
	held := int64(len(k.free) + len(k.under) + 1)
	return len(k.free) == 0 || len(k.free) < batchesKept && held*batchBytes <= k.loop.cfg.SnapshotBacklog/int64(len(k.loop.peers))
}

// adopt makes a topic that another node has handed over one that is kept here, if it is to be: what is not known to be stored is
// offered, and what the other node has offered as well is stored twice, alike.
func (k *keeper) adopt(t *topic) {
	k.recollect(t.name) // an epoch before this one
	if t.keeps = k.loop.cfg.keeps(t.name); !t.keeps {
		return
	}
	if t.stored+1 < t.start {
		t.owed, t.owedUntil = t.start-1, k.loop.now+int64(k.loop.cfg.StoredTimeout)
	}
	if t.offered = max(t.stored, t.start-1); t.offered < t.head {
		k.note(t, int(t.bytes))
	}
}

// seal takes nothing more, offers everything, and says where the topics stand.
func (k *keeper) seal(found chan<- []persist.Sealed) {
	l := k.loop
	k.sealed = true
	l.flush()
	k.collect()
	k.offer()
	var positions []persist.Sealed
	for _, t := range l.topics {
		if t.keeps && t.moving == nil && t.head > 0 {
			positions = append(positions, persist.Sealed{Topic: t.name, Epoch: t.epoch, Began: t.began, Last: t.head})
		}
	}
	for name, d := range k.dormant {
		positions = append(positions, persist.Sealed{Topic: name, Epoch: d.epoch, Began: d.began, Last: d.head})
	}
	found <- positions // it has room for every loop's
}
