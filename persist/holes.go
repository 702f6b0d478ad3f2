package persist

import (
	"slices"
	"strings"
	"sync"
)

// holes are messages that a life gave up, the newest HeadHolesMax ranges of them. Safe from any goroutine.
type holes struct {
	mu     sync.Mutex
	ranges []Hole
	last   map[[2]string]int // by topic and epoch: number of its newest range, counted from the first that there ever was
	gone   int               // ranges that were dropped
}

func (h *holes) add(runs []Run) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range runs {
		h.addRun(&runs[i])
	}
}

func (h *holes) addRun(r *Run) {
	key := [2]string{r.Topic, r.Epoch}
	if n, ok := h.last[key]; ok {
		if o := &h.ranges[n-h.gone]; r.First == o.Last+1 {
			o.Last = r.Last()
			return
		}
	}
	if h.last == nil {
		h.last = map[[2]string]int{}
	}
	if len(h.ranges) == HeadHolesMax {
		o := &h.ranges[0]
		if old := [2]string{o.Topic, o.Epoch}; h.last[old] == h.gone {
			delete(h.last, old)
		}
		h.ranges = slices.Delete(h.ranges, 0, 1)
		h.gone++
	}
	key = [2]string{strings.Clone(r.Topic), strings.Clone(r.Epoch)} // the batch's memory is not ours
	h.last[key] = h.gone + len(h.ranges)
	h.ranges = append(h.ranges, Hole{key[0], key[1], r.First, r.Last()})
}

func (h *holes) list() []Hole {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ranges)
}
