package persist

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// streams are the readers that take one page after the other, each known by where its next page begins. Safe from any goroutine.
type streams struct {
	mu   sync.Mutex
	next *simplelru.LRU[stream, time.Time] // since when
}

type stream struct {
	topic string
	at    Position
}

const (
	streamsMax = 256
	// streamPatience is how long a reader may take for a page and still be one of those that what is read ahead is shared among.
	streamPatience = 5 * time.Second
)

func newStreams() *streams {
	next, err := simplelru.NewLRU[stream, time.Time](streamsMax, nil)
	if err != nil {
		panic("BUG: a list with a size is refused: " + err.Error())
	}
	return &streams{next: next}
}

// advance is told of a page that was read, from one position to another. goesOn says whether the page before it was read not long
// ago, and n how many readers there are.
func (s *streams) advance(topic string, from, to Position, now time.Time) (goesOn bool, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		_, since, ok := s.next.GetOldest()
		if !ok || now.Sub(since) < streamPatience {
			break
		}
		s.next.RemoveOldest()
	}
	goesOn = s.next.Remove(stream{topic, from})
	s.next.Add(stream{topic, to}, now)
	return goesOn, s.next.Len()
}
