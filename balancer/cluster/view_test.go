package cluster

import (
	"slices"
	"testing"

	"rayflux/engine"
)

func slotsAt(addresses ...string) []engine.Slot { return occupied(addresses) }

// Like places, fingerprints have to mean the same to every version.
func TestFingerprintsNeverChange(t *testing.T) {
	for _, c := range []struct {
		slots []engine.Slot
		want  uint64
	}{
		{nil, 0xef46db3751d8e999},
		{slotsAt("h1:8080"), 0x61f12562ecad95d7},
		{slotsAt("h1:8080", "h2:8080"), 0xcc2b4035b254d7ea},
		{slotsAt("h2:8080", "h1:8080"), 0x4117844cfbb5474a},
		{slotsAt("h1:8080", "", "h2:8080"), 0x979626685cdc01f7},
		{[]engine.Slot{{Address: "h1:8080", Draining: true}, {Address: "h2:8080"}}, 0xcc2b4035b254d7ea},
	} {
		if got := Fingerprint(c.slots); got != c.want {
			t.Errorf("of %v it is %016x, want %016x", c.slots, got, c.want)
		}
	}
}

func TestVersionsRiseOnlyOnAChange(t *testing.T) {
	view := &engine.View{}
	for i, c := range []struct {
		found   []engine.Slot
		version uint64
	}{
		{nil, 0},
		{slotsAt("h1:1", "h2:1"), 1},
		{slotsAt("h1:1", "h2:1"), 1},
		{slotsAt("h2:1", "h1:1"), 2},
		{[]engine.Slot{{Address: "h2:1", Ready: true}, {Address: "h1:1"}}, 3},
		{[]engine.Slot{{Address: "h2:1", Ready: true, Draining: true}, {Address: "h1:1"}}, 4},
		{slotsAt("h2:1"), 5},
		{slotsAt("h2:1", ""), 6},
	} {
		last := view
		view = Renew(view, c.found)
		if view.Version != c.version || (view == last) != slices.Equal(view.Slots, last.Slots) {
			t.Errorf("step %d: view is %+v, want version %d", i, view, c.version)
		}
		if view != last && view.Fingerprint != Fingerprint(c.found) {
			t.Errorf("step %d: fingerprint is %016x", i, view.Fingerprint)
		}
	}
}

func TestAViewKeepsNothingOfWhatWasFound(t *testing.T) {
	found := slotsAt("h1:1")
	view := Renew(&engine.View{}, found)
	found[0].Address = "h2:1"
	if view.Slots[0].Address != "h1:1" {
		t.Error("a view changed with the slots it was made of")
	}
}
