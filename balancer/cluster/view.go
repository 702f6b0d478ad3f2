package cluster

import (
	"slices"

	"github.com/cespare/xxhash/v2"

	"rayflux/engine"
)

// Fingerprint is the same in every process that sees the same addresses at the same slots: xxhash64 over each address
// and a line end, in order. Who is ready and who drains is not in it: that is known at different times in different
// places, and moves no slot. It is never 0, which stands for knowing no slots at all.
func Fingerprint(slots []engine.Slot) uint64 {
	var d xxhash.Digest
	d.Reset()
	for i := range slots {
		d.WriteString(slots[i].Address)
		d.WriteString("\n")
	}
	return max(d.Sum64(), 1)
}

// Renew is the view that comes after last when slots is what was found: last itself if it says so already, or else one
// with the next version. It keeps no reference to slots.
func Renew(last *engine.View, found []engine.Slot) *engine.View {
	if slices.Equal(last.Slots, found) {
		return last
	}
	return &engine.View{Version: last.Version + 1, Fingerprint: Fingerprint(found), Slots: slices.Clone(found)}
}
