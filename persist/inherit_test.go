package persist

import (
	"fmt"
	"testing"
)

// slotByLength places topics as "t", "tt", "ttt".
func slotByLength(topic string, slots int) int { return len(topic) % slots }

func sealTopics(t *testing.T, n *node, lengths ...int) {
	t.Helper()
	var positions []Sealed
	for _, length := range lengths {
		topic := fmt.Sprintf("%0*d", length, 0)
		positions = append(positions, Sealed{topic, n.epoch, n.began, uint64(length)})
	}
	if err := n.archive.Seal(t.Context(), positions); err != nil {
		t.Fatal(err)
	}
}

func claimed(t *testing.T, n *node, slot, slots int) (lines []string) {
	t.Helper()
	topics, err := n.archive.Claim(t.Context(), slot, slots, slotByLength)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range topics {
		lines = append(lines, fmt.Sprintf("%d %s:%d", len(s.Topic), s.Epoch, s.Last))
	}
	return lines
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("claimed %v, want %v", got, want)
	}
}

func TestSealedTopicsAreClaimedOnce(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		start := func(seed uint64, slot int) *node {
			return startNode(t, newWeather(store, seed, 0), seed, Config{Slot: slot})
		}
		one := start(1, 0)
		want(t, claimed(t, one, 0, 1))
		sealTopics(t, one, 1, 2, 3, 4, 5)

		// It comes back as two, then two more want something.
		two, three := start(2, 0), start(3, 1)
		want(t, claimed(t, two, 0, 2), "2 e1:2", "4 e1:4")
		want(t, claimed(t, two, 0, 2), "2 e1:2", "4 e1:4") // as often as it asks
		want(t, claimed(t, three, 1, 2), "1 e1:1", "3 e1:3", "5 e1:5")
		want(t, claimed(t, start(4, 2), 2, 3))
		want(t, claimed(t, start(5, 5), 5, 7))

		// The newest of two epochs counts.
		sealTopics(t, two, 2, 6)
		sealTopics(t, three, 1, 2)
		want(t, claimed(t, start(6, 9), 0, 1), "1 e3:1", "2 e3:2", "6 e2:6")
	})
}

func TestALifeWithoutMessagesStandsInNobodysWay(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		sealTopics(t, startNode(t, store, 1, Config{}), 1, 2)
		// Of a node that had no answer, and took another one.
		if err := store.Create(t.Context(), headName(2), AppendHead(nil, &Head{Life: 2, Name: "node"})); err != nil {
			t.Fatal(err)
		}
		want(t, claimed(t, startNode(t, store, 3, Config{}), 0, 1), "1 e1:1", "2 e1:2")
	})
}

func TestALifeThatWasPassedOverIsNotClaimed(t *testing.T) {
	simulate(t, func(t *testing.T) {
		store := NewMemory()
		one := startNode(t, store, 1, Config{})
		sealTopics(t, one, 1, 2)
		crashed := startNode(t, store, 2, Config{})
		crashed.publish() // with an epoch of its own
		if err := crashed.archive.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		crashed.publish()
		if err := crashed.close(0); err == nil {
			t.Error("closed in good order")
		}
		want(t, claimed(t, startNode(t, store, 3, Config{}), 0, 1))
	})
}
