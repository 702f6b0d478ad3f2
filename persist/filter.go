package persist

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Filter says of a topic that a segment surely does not have it, or that it may: a Bloom filter of eight bits for each topic,
// at most filterBitsMax. Its first byte is how many bits each topic sets. An empty one says "may" to all.
type Filter []byte

// filterBitsMax bounds a head, in which each segment has one. Up to 2,048 topics a filter is wrong about one topic in 46; at
// 8,192 about two in five, and past about 20,000 it says little and is left out.
const filterBitsMax = 16 << 10

const filterHashesMax = 6

func topicHash(topic string) uint64 { return xxhash.Sum64String(topic) }

// makeFilter makes a filter of topics' hashes.
func makeFilter(hashes []uint64) Filter {
	bits := min(8*len(hashes), filterBitsMax)
	if bits == 0 || len(hashes) > filterBitsMax+filterBitsMax/4 {
		return nil
	}
	bits = (bits + 7) &^ 7
	k := min(max(bits*7/(10*len(hashes)), 1), filterHashesMax) // ln 2 times bits for each
	f := make(Filter, 1+bits/8)
	f[0] = byte(k)
	for _, h := range hashes {
		for i := range k {
			at := f.bit(h, i)
			f[1+at/8] |= 1 << (at % 8)
		}
	}
	return f
}

// bit is the i-th place of a hash: double hashing with its two halves.
func (f Filter) bit(hash uint64, i int) uint32 {
	h := uint32(hash) + uint32(i)*(uint32(hash>>32)|1)
	return uint32(uint64(h) * uint64(8*(len(f)-1)) >> 32)
}

// May says whether a topic with this hash may be there.
func (f Filter) May(hash uint64) bool {
	if len(f) == 0 {
		return true
	}
	for i := range int(f[0]) {
		at := f.bit(hash, i)
		if f[1+at/8]&(1<<(at%8)) == 0 {
			return false
		}
	}
	return true
}

func (f Filter) check() error {
	switch {
	case len(f) == 0:
		return nil
	case len(f) == 1 || len(f) > 1+filterBitsMax/8:
		return fmt.Errorf("filter is %d bytes, not 2 to %d", len(f), 1+filterBitsMax/8)
	case f[0] == 0 || f[0] > filterHashesMax:
		return fmt.Errorf("filter has %d bits for each topic, not 1 to %d", f[0], filterHashesMax)
	}
	return nil
}
