package bench

import "encoding/binary"

// stamp is what the front of every payload says.
type stamp struct {
	due    int64  // when it should have been published: nanoseconds since the generator's start
	seq    uint64 // its number in the lane, from 0
	origin uint64 // see originOf
}

// originOf names a lane of one run of the generator; the run tells its messages from those of an earlier one on the same
// server.
func originOf(run, lane uint32) uint64 { return uint64(lane) | uint64(run)<<32 }

const (
	stampBinaryBytes = 24
	stampTextBytes   = 2 * stampBinaryBytes
)

// stampForm is how a stamp is laid out in the payload.
type stampForm byte

const (
	stampBinary stampForm = iota // four little-endian integers
	stampText                    // the same bytes as letters 'a' to 'p', a nibble each, the low one first: safe in JSON without escapes
)

// size is the number of payload bytes the stamp takes.
func (f stampForm) size() int {
	if f == stampText {
		return stampTextBytes
	}
	return stampBinaryBytes
}

// put overwrites the stamp at the front of payload, which must be at least f.size() long.
func (f stampForm) put(payload []byte, s stamp) {
	words := [3]uint64{uint64(s.due), s.seq, s.origin}
	if f == stampBinary {
		for i, w := range words {
			binary.LittleEndian.PutUint64(payload[8*i:], w)
		}
		return
	}
	for i, w := range words {
		binary.LittleEndian.PutUint64(payload[16*i:], letters(uint32(w)))
		binary.LittleEndian.PutUint64(payload[16*i+8:], letters(uint32(w>>32)))
	}
}

// get reads the stamp at the front of payload, which must be at least f.size() long. What is not a stamp reads as some
// other one, which its origin then betrays.
func (f stampForm) get(payload []byte) stamp {
	if f == stampBinary {
		_ = payload[stampBinaryBytes-1]
		return stamp{
			due:    int64(binary.LittleEndian.Uint64(payload)),
			seq:    binary.LittleEndian.Uint64(payload[8:]),
			origin: binary.LittleEndian.Uint64(payload[16:]),
		}
	}
	_ = payload[stampTextBytes-1]
	return stamp{due: int64(word(payload)), seq: word(payload[16:]), origin: word(payload[32:])}
}

// word reads sixteen letters.
func word(text []byte) uint64 {
	return uint64(number(binary.LittleEndian.Uint64(text))) | uint64(number(binary.LittleEndian.Uint64(text[8:])))<<32
}

const lettersA = 0x6161616161616161

// letters spreads the eight nibbles of v over eight bytes, the lowest first.
func letters(v uint32) uint64 {
	x := uint64(v)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
	return x + lettersA
}

// number is the inverse of letters: eight letters at once, because one at a time costs more than the rest of a frame.
func number(x uint64) uint32 {
	x -= lettersA
	x = (x | x>>4) & 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return uint32(x | x>>16)
}
