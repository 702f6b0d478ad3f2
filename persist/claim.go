package persist

import (
	"encoding/binary"
	"math"
)

// Claim says that a life goes on with those epochs of a sealed one whose topics are in one slot of so many. A topic is with the
// first claim, in order of their numbers, that covers it.
type Claim struct {
	Life  uint64 // who claims
	Slot  int
	Slots int
}

// AppendClaim appends the n-th claim on what a sealed life owned.
func AppendClaim(dst []byte, sealed, n uint64, c Claim) []byte {
	b := binary.AppendUvarint(nil, sealed)
	b = binary.AppendUvarint(b, n)
	b = binary.AppendUvarint(b, c.Life)
	b = binary.AppendUvarint(b, uint64(c.Slot))
	b = binary.AppendUvarint(b, uint64(c.Slots))
	return appendEnvelope(dst, kindClaim, b)
}

// ParseClaim reads the n-th claim on what a sealed life owned.
func ParseClaim(b []byte, sealed, n uint64) (Claim, error) {
	body, err := openEnvelope(b, kindClaim, 64)
	if err != nil {
		return Claim{}, err
	}
	r := &fields{what: kindClaim.String(), rest: body}
	if of, number := r.uvarint("life", maxNumber), r.uvarint("number", maxNumber); r.err == nil && (of != sealed || number != n) {
		r.fail("is number %d of life %d, not %d of %d", number, of, n, sealed)
	}
	c := Claim{Life: r.uvarint("claimant", maxNumber), Slot: int(r.uvarint("slot", math.MaxInt32)), Slots: int(r.uvarint("slots", math.MaxInt32))}
	if r.err == nil && c.Slot >= c.Slots {
		r.fail("is of slot %d of %d", c.Slot, c.Slots)
	}
	return c, r.end()
}
