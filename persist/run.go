package persist

// Run is consecutive messages of one epoch of a topic, as they stand in its log: whole binary frames (protocol.FormatBinary), back
// to back, in order of their offsets.
type Run struct {
	Topic  string
	Epoch  string
	Began  int64 // when the epoch began, in Unix milliseconds by its owner's clock: epochs of a topic are in this order
	First  uint64
	Count  uint32
	Frames []byte
	Times  []Time // the first one has index 0; at least one
}

// Time says that the messages from an index of a run on were taken at a Unix millisecond.
type Time struct {
	Index  uint32
	UnixMs int64
}

// Last is the offset of the run's last message.
func (r *Run) Last() uint64 { return r.First + uint64(r.Count) - 1 }

// Position is a place in a topic: behind the message at Offset of an epoch.
type Position struct {
	Epoch  string
	Offset uint64
}
