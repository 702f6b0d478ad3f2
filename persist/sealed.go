package persist

import (
	"encoding/binary"
	"math"
)

// Sealed is where a topic's epoch stood when its owner shut down in good order: it may go on from there, with the next offset.
type Sealed struct {
	Topic string
	Epoch string
	Began int64
	Last  uint64 // offset of the last message, 0 if there was none
}

const sealedBytesMax = 64 << 20

// AppendSealed appends the record of what a life still owned when it ended. newest is the newest life that there was then: later
// ones have begun without these topics' epochs.
func AppendSealed(dst []byte, life, newest uint64, topics []Sealed) []byte {
	b := binary.AppendUvarint(nil, life)
	b = binary.AppendUvarint(b, newest)
	b = binary.AppendUvarint(b, uint64(len(topics)))
	for i := range topics {
		s := &topics[i]
		b = appendStr8(b, s.Topic)
		b = appendStr8(b, s.Epoch)
		b = binary.AppendVarint(b, s.Began)
		b = binary.AppendUvarint(b, s.Last)
	}
	return appendEnvelope(dst, kindSealed, b)
}

// ParseSealed reads the sealed record of a life.
func ParseSealed(b []byte, life uint64) (newest uint64, topics []Sealed, err error) {
	body, err := openEnvelope(b, kindSealed, sealedBytesMax)
	if err != nil {
		return 0, nil, err
	}
	r := &fields{what: kindSealed.String(), rest: body}
	if of := r.uvarint("life", maxNumber); r.err == nil && of != life {
		r.fail("is of life %d, not %d", of, life)
	}
	if newest = r.uvarint("newest life", maxNumber); r.err == nil && newest < life {
		r.fail("the newest life is %d", newest)
	}
	n := r.count("number of topics", 6)
	topics = make([]Sealed, 0, n)
	for range n {
		topics = append(topics, Sealed{r.str8("topic", 1), r.str8("epoch", 1), r.varint("epoch's begin"), r.uvarint("last offset", math.MaxUint64)})
	}
	return newest, topics, r.end()
}
