package persist

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Two nodes write, their heads are trimmed, and an upkeep merges and deletes what they wrote, for twenty minutes. A reader that
// follows sees every message once, and so does one that comes at the end.
func TestArchivesUpkeepAndReadersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds, perSecond = 1200, 3
		store := NewMemory()
		var archives []*Archive
		for i := range 2 {
			a, err := Open(Config{Name: fmt.Sprint("n-", i), Slot: i, Log: quietLog(), Done: func(_ *Batch, err error) {
				if err != nil {
					t.Error(err)
				}
			}}, store)
			if err != nil {
				t.Fatal(err)
			}
			archives = append(archives, a)
		}
		u := testUpkeep(t, store, UpkeepConfig{Grace: time.Minute})
		topics := []string{"of the first", "of the second"}
		follower, at := NewReader(store, ReaderConfig{Log: quietLog()}), Position{Epoch: "E"}
		follow := func() {
			for {
				page, err := follower.Read(t.Context(), topics[0], at, 1<<20)
				if err != nil || page.Hole != 0 {
					t.Fatalf("behind %v there is a hole up to %d: %v", at, page.Hole, err)
				}
				if at.Offset += uint64(page.Count); page.Count == 0 {
					return
				}
			}
		}
		for second := range uint64(seconds) {
			for i, a := range archives {
				a.Offer(&Batch{Runs: []Run{testRun(topics[i], "E", 0, second*perSecond+1, perSecond, 20)}})
			}
			time.Sleep(time.Second)
			if second%10 == 9 {
				settle(t, u, time.Now())
			}
			if second%97 == 96 {
				follow()
			}
		}
		for _, a := range archives {
			if err := a.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if follow(); at.Offset != seconds*perSecond {
			t.Errorf("who followed is at %v, want %d", at, seconds*perSecond)
		}
		fresh := NewReader(store, ReaderConfig{Log: quietLog()})
		for i, topic := range topics {
			page, err := archives[i].Read(t.Context(), topic, Position{Epoch: "E"}, 64<<20)
			other, otherErr := fresh.Read(t.Context(), topic, Position{Epoch: "E"}, 64<<20)
			if err != nil || otherErr != nil || page.Count == 0 || page.Count != other.Count {
				t.Errorf("topic %s: %d and %d messages: %v, %v", topic, page.Count, other.Count, err, otherErr)
			}
		}
		if n := len(names(t, store, segmentsFolder)); n > 300 {
			t.Errorf("%d segments of %d are left", n, 2*seconds)
		}
		if follower.Faults() != 0 {
			t.Error("something that was replaced was taken for broken")
		}
		for _, a := range archives {
			if err := a.Seal(t.Context(), nil); err != nil {
				t.Error(err)
			}
			if err := a.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
}
