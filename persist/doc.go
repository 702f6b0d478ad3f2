// Package persist is where messages rest: segments of many topics in an object store, the heads that list them, and the readers
// that bring them back. It imports nothing of the rest of the house; the engine hands it runs and asks it for pages.
//
// # The one idea
//
// What is written is written once: every node puts what came in since a moment ago, of all its topics together, into one object
// that never changes, and then says so in one small object of its own, its head. Nobody else writes that head, and nobody waits
// for anybody. Whoever reads knows by arithmetic which objects there are: lives are numbered, and so are segments.
//
// # Objects
//
// Names are under the store's prefix; numbers have ten digits. "Created" means: only if nothing has that name, so that of several
// who try exactly one succeeds.
//
//	heads/LIFE             created by a node that starts, which so takes the next free number, its life; then
//	                       put by that node alone: which segments it has written
//	segments/LIFE/SEQ      created: messages of one interval, of all topics of that node
//	sealed/LIFE            created at the end of a drain, before the head that says so: where each topic that the
//	                       life still owned stands, and which life was the newest then
//	claims/LIFE/N          created: who goes on with the topics of a sealed life
//	manifest/N             created: which lives are kept, how far their segments were replaced, and by which
//	manifest/latest        put: the number of a manifest that was the newest not long ago
//	compact/N/MAKER-PART   created by who tries to make manifest N: a segment made of others
//	leases/upkeep/TERM     created: who looks after the store for a while
//
// # Promises
//
//   - A segment, sealed record, claim, manifest or lease is never overwritten. It can only go.
//   - What a head or manifest lists was in the store before it. A message counts as stored once the head that lists its segment
//     is in the store.
//   - A segment goes only when it was replaced, or all in it is older than its retention, a manifest has said so, and ten minutes
//     (Upkeep's grace) have passed: a reader with a catalogue of the last minutes finds all that it lists.
//   - A head of which a try had no answer is its life's last one, and the node takes another life: whenever the store carries that
//     try out, it changes nothing.
//   - A head that says sealed is its life's last one. One that does not is put at least once an hour, even if nothing has come.
//     A life whose head is older than a day, and whose node has come back as another one, is over, sealed or not, as is any whose
//     head is older than a week, if the upkeep has itself seen it unchanged for two hours: clocks may be wrong (clock.go). A node
//     that finds itself cut off for so long takes another.
//   - The number of a life that has gone is never used again: a node that starts begins to look at the manifest's next life.
//   - A node leaves segments out of its head only if it has read a manifest that says they were replaced.
//   - The same messages may be stored twice, by two lives, around a hand-over. (topic, epoch, offset) names one payload, so one
//     of them is left out.
//   - What cannot be read is told from what is not there: a broken object is named in the log, counted, and passed over. Its
//     messages are a hole, which readers are told of; all others are unharmed. Nothing of a later version is guessed at.
//
// # Finding a topic
//
// A reader's catalogue is the newest manifest and the heads of the lives that are not over. It looks at manifest/latest once, and
// then asks for numbers: the next manifest, the next life, until there is none. It does so when asked, once a second on average,
// and again before it says that something is not there. Each segment has a filter of its topics in the list, so that those which
// surely do not have a topic cost nothing. Of each other one the end is read, which is its index and footer, and then the blocks
// that have the topic's messages, which are next to each other: two requests. Who reads on finds the next 2 MiB asked for already,
// if readers are few enough for that to stay in memory.
//
// # Upkeep
//
// A store of segments of a second would be 86,400 of them a day. An Upkeep, which every node runs and one at a time does, merges
// them: sixteen or more of what nodes wrote become one of level 1 (of all nodes together, what is oldest first), sixteen of a
// level one of the next, until they are half of what fits into memory for a merge (32 MiB). Where more than a quarter of that
// comes together, it is split into sixteen shards by the topics' hash, so that a reader need not step over all other topics; from
// then on a shard is merged by itself. Of a level there are at most fifteen, and as many of a topic's shard: a day of 86,400
// segments is 18 that may have a topic, and read from its begin in 41 requests (TestADayOfOneTopicIsFewRequests). A node that
// writes more than about 16 GB a day, compressed, has more: one for each 16 to 32 MiB of the topic's shard.
//
// A block that one run fills, of 64 KiB or more, is copied as it is, so that whoever publishes much to few topics does not pay for it
// again; others are unpacked and packed anew, by S2 if most of a merge was. A node packs by S2, a third of zstd's work for half of
// its gain, what comes at more than 4 MiB/s.
//
// What is past its retention is left out of merges; and once an hour the indexes are read, and segments of which half may go are
// rewritten, or go. Each change is one new manifest, made by Create of the next number: of two that meet one has to begin anew.
// Objects that nothing lists, since who made them crashed or came second, are found by listing the store, four times a day.
//
// # Bytes
//
// Integers are unsigned varints (LEB128, as in encoding/binary) in their shortest form unless something else is said; "signed"
// ones are zigzagged. u32 and u64 are little-endian. str8 is one length byte and that many bytes. Checksums are xxhash64 without
// a seed. Times are Unix milliseconds. Everything begins with
//
//	"RFLX", kind byte, version byte
//
// so that a stranger's file or a later version is told from a broken one. Small objects are an envelope around a body:
//
//	+--------+------+---------+--------+--------+------------------+-----+
//	| "RFLX" | kind | version | coding | length | body             | sum |
//	|      4 |    1 |       1 |      1 | varint | raw (0), zstd (1)|   8 |
//	+--------+------+---------+--------+--------+------------------+-----+
//
// length is that of the body before compression, which is used where it saves a sixteenth; sum is over all before it. The body
// of each kind:
//
//	h head      life, str8 name, signed slot, signed started, signed written, byte sealed,
//	            number of segments, and for each: number less that of the one before, segment,
//	            number of holes, and for each: str8 topic, str8 epoch, first, last less first
//	d sealed    life, number of topics, and for each: str8 topic, str8 epoch, signed began, last offset
//	c claim     sealed life, number, claimant life, slot, slots
//	m manifest  number, signed written, next life,
//	            number of lives, and for each: life, replaced through, byte over, and if it is 1 signed end,
//	            number of segments, and for each: manifest, u64 maker, part, bytes level, shard and shards, segment,
//	            number of garbage, and for each: signed since, life, and then first, last or manifest, u64 maker, part
//	n latest    number
//	l lease     u64 holder, signed expiry
//
//	segment     size, size of its end, bytes before compression, messages, signed first time, last less first time,
//	            length of filter, filter
//
// A segment's first time is told from that of the segment before it, or from the head's start; in a manifest from its writing.
// A filter is one byte, how many bits each topic sets, and the bits (makeFilter).
//
// A segment:
//
//	+--------+-----+---------+---------+-----+-------+--------------------------------------------------+
//	| "RFLX" | 's' | version | block 0 | ... | index | footer                                           |
//	+--------+-----+---------+---------+-----+-------+--------------------------------------------------+
//	                                                   "RFLX" 'f' version, coding of the index, u32 its
//	                                                   length packed, u32 its length, u64 its sum, u64 sum
//	                                                   of the footer before it
//
// A block is frames, back to back, raw (0) or packed by zstd (1) or S2 (2): whole binary server frames as a topic's log has them. It
// is closed at 256 KiB, or holds one frame that is larger. A topic of which a segment has 64 KiB or more shares no block with others.
// Topics are in order of their names, epochs of when they began, messages of their offsets; a run of messages that crosses blocks is
// one run in each. The index:
//
//	number of blocks, and for each: coding, length packed, length, u64 sum of the packed bytes
//	number of topics, and for each: str8 topic, length of what follows, block and offset in it of its first run, and
//	  runs: byte flags (1: of another epoch, 2: first of the next block),
//	        if of another epoch: str8 epoch, signed began
//	        first offset, less the one after the run before it (1 for an epoch's first)
//	        messages, bytes, number of times
//	        for each time: message it begins with, less that of the time before it (left out for the first, which is 0)
//	                       signed, less the time before it (the epoch's begin for its first)
//
// Runs fill the blocks without a gap, so only a topic's first one says where it is.
//
// # What it costs
//
// A node writes two objects an interval in which anything came, and none otherwise (but a head an hour): with the default of 1 s
// at most 172,800 requests a day, whether it has one topic or a hundred thousand. Upkeep adds about an eighth to that (Upkeep).
// A reader's catalogue costs one request a second while it is asked, and one more for each node that lives.
package persist
