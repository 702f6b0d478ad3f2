package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"rayflux/engine"
)

// staticSource is the nodes that somebody wrote down.
type staticSource struct {
	addresses []string // by slot
	told      bool
}

func parseStatic(list string) (Source, error) {
	if n := strings.Count(list, ",") + 1; n > SlotsMax {
		return nil, fmt.Errorf("%d nodes, limit %d", n, SlotsMax)
	}
	s := &staticSource{}
	slots := map[string]int{}
	for text := range strings.SplitSeq(list, ",") {
		slot := len(s.addresses)
		if text == "" {
			return nil, fmt.Errorf("slot %d has no address, want host:port", slot)
		}
		host, port, err := splitAddress(text)
		if err != nil {
			return nil, fmt.Errorf("slot %d: %w", slot, err)
		}
		address := joinAddress(host, port)
		if first, ok := slots[address]; ok {
			return nil, fmt.Errorf("%s is there twice, as slot %d and as slot %d", address, first, slot)
		}
		slots[address] = slot
		s.addresses = append(s.addresses, address)
	}
	return s, nil
}

func (s *staticSource) String() string { return "static:" + strings.Join(s.addresses, ",") }

// Next has nothing to say a second time.
func (s *staticSource) Next(ctx context.Context) ([]engine.Slot, error) {
	if s.told {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.told = true
	return occupied(s.addresses), nil
}

// occupied gives each address the slot of its index, and nobody the slot of an address "". A source cannot see whether
// the node there is ready: links do.
func occupied(addresses []string) []engine.Slot {
	slots := slices.Grow([]engine.Slot(nil), len(addresses))
	for _, a := range addresses {
		slots = append(slots, engine.Slot{Address: a, Ready: a != ""})
	}
	return slots
}
