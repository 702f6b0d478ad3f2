package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestALineServesInTurn plays against a plain list what a lagging connection does with its line.
func TestALineServesInTurn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var q line
	var want []*subscription
	served := 0
	for range 100_000 {
		switch n := rng.IntN(10); {
		case n < 3 && len(want) < 50:
			s := &subscription{state: subLagging}
			q.join(s)
			want = append(want, s)
		case n < 8 && len(want) > 0: // it reads, and perhaps has caught up
			s := q.front()
			if s != want[0] {
				t.Fatal("another one is in front")
			}
			q.shift()
			q.join(s)
			want = append(want[1:], s)
			served++
			if rng.IntN(4) == 0 {
				s.state = subJoining
				q.leave(s)
				want = want[:len(want)-1]
			}
		case len(want) > 0: // it ends, wherever it is
			i := rng.IntN(len(want))
			want[i].state = subGone
			want = slices.Delete(want, i, i+1)
		}
		if s := q.front(); len(want) == 0 && s != nil || len(want) > 0 && s != want[0] {
			t.Fatal("the front is not who has waited longest")
		}
	}
	if served < 10_000 || cap(q.subs) > 1000 {
		t.Errorf("%d were served; the line of at most 50 takes %d places", served, cap(q.subs))
	}
	q.reset()
	if q.front() != nil || len(q.waiting()) > 0 {
		t.Error("somebody waits in a line that was reset")
	}
}
