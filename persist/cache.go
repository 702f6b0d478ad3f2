package persist

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"
)

// fetchTimeout bounds a request that nobody may be waiting for any more, since those who share it come and go.
const fetchTimeout = 30 * time.Second

// cache keeps what was read of objects that never change, as many bytes of it as it may, and asks once for what several want
// at the same time. Safe from any goroutine.
type cache struct {
	flights singleflight.Group

	mu    sync.Mutex
	bytes int64
	max   int64
	items *simplelru.LRU[string, cached]
}

type cached struct {
	value any
	cost  int64
}

func newCache(bytesMax int64) *cache {
	c := &cache{max: bytesMax}
	// The number of items is bounded by their costs, each of which is more than nothing.
	items, err := simplelru.NewLRU(1<<30, func(_ string, item cached) { c.bytes -= item.cost })
	if err != nil {
		panic("BUG: a list with a size is refused: " + err.Error())
	}
	c.items = items
	return c
}

func (c *cache) get(key string) (any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	item, ok := c.items.Get(key)
	return item.value, ok
}

// itemCost is what an item costs beside its value: its key, twice, and the list's pointers.
const itemCost = 256

// put keeps a value, unless it alone would push out more than half of all.
func (c *cache) put(key string, value any, cost int64) {
	cost += itemCost
	c.mu.Lock()
	defer c.mu.Unlock()
	if cost > c.max/2 || c.items.Contains(key) {
		return
	}
	c.items.Add(key, cached{value, cost})
	for c.bytes += cost; c.bytes > c.max; {
		c.items.RemoveOldest()
	}
}

// replace is put for a value that takes the place of an older one.
func (c *cache) replace(key string, value any, cost int64) {
	c.mu.Lock()
	c.items.Remove(key)
	c.mu.Unlock()
	c.put(key, value, cost)
}

// share runs f once for all who call with the same key meanwhile. The caller may leave; f goes on.
func (c *cache) share(ctx context.Context, key string, f func(ctx context.Context) (any, error)) (any, error) {
	result := c.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		return f(ctx)
	})
	select {
	case r := <-result:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
