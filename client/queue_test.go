package client

import (
	"math/rand/v2"
	"testing"
)

func TestQueueKeepsOrderAndItsLimit(t *testing.T) {
	const limit = 37
	q := queue{limit: limit}
	var pushed, popped uint64
	for range 10_000 {
		if rand.IntN(2) == 0 {
			var d Delivery
			d.Position.Offset = pushed
			d.Payload = []byte{1}
			if took := q.push(d); took != (pushed-popped < limit) {
				t.Fatalf("push with %d queued: %v", pushed-popped, took)
			} else if took {
				pushed++
			}
		} else if q.n > 0 {
			if got := q.pop().Position.Offset; got != popped {
				t.Fatalf("got %d, want %d", got, popped)
			}
			popped++
		}
		held := uint64(0)
		for _, d := range q.ring {
			if d.Payload != nil {
				held++
			}
		}
		if held != pushed-popped {
			t.Fatalf("%d payloads are held for %d deliveries", held, pushed-popped)
		}
	}
}
