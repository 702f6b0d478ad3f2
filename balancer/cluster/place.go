package cluster

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
	"github.com/dgryski/go-jump"
)

// SlotsMax is the most slots of a cluster. It bounds what a wrong source can make us believe, and Choice's stack.
const SlotsMax = 1024

// drawsPerSlot times the slots is how often Choice draws before it takes what is left in order. That one of n slots is
// not drawn by then has a chance of about n/e^32.
const drawsPerSlot = 32

// Hash is where a topic is on the ring of names: xxhash64 without a seed, the same in every process and version.
func Hash(topic []byte) uint64 { return xxhash.Sum64(topic) }

// Choice is the slot that a topic of this hash belongs to when the attempt slots before it (0: none) cannot have it.
// With attempt from 0 to slots-1 each slot comes once; further attempts begin again. It is -1 if there are no slots.
//
// The slots are those of the sequence jump(hash), jump(mix(hash, 1)), jump(mix(hash, 2)), … each where it comes first;
// should any be missing after 32 draws a slot, they follow in order. That is a promise to other processes and versions: to change it moves topics. Rendezvous hashing would give the same
// order more simply, but looks at every slot for the first choice too.
func Choice(hash uint64, attempt, slots int) int {
	switch {
	case attempt < 0:
		panic(fmt.Sprintf("BUG: choice %d of a topic", attempt))
	case slots <= 0:
		return -1
	}
	slot := int(jump.Hash(hash, slots))
	left := attempt % slots
	if left == 0 {
		return slot
	}
	var few [SlotsMax / 64]uint64
	taken := few[:]
	if slots > SlotsMax {
		taken = make([]uint64, (slots+63)/64)
	}
	for i := uint64(1); ; i++ {
		if bit := uint64(1) << (slot % 64); taken[slot/64]&bit == 0 {
			if left--; left < 0 {
				return slot
			}
			taken[slot/64] |= bit
		}
		if i <= drawsPerSlot*uint64(slots) {
			slot = int(jump.Hash(mix(hash, i), slots))
		} else {
			slot = int(i % uint64(slots))
		}
	}
}

// mix is the i-th output of splitmix64 seeded with hash. jump's own generator is too weak to be given neighbours.
func mix(hash, i uint64) uint64 {
	z := hash + i*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
