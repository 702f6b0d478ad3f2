package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rayflux/balancer/cluster"
	"rayflux/engine"
	"rayflux/persist"
)

// claimPatience is how long a node that starts waits for the store to say where topics stood that it may go on with. What it does
// not learn of begins anew.
const claimPatience = 3 * time.Second

// keeping is a node's end of the store: what is written there, and what looks after it.
type keeping struct {
	archive *persist.Archive
	meter   *persist.Meter
	upkeep  *persist.Upkeep
	end     context.CancelFunc // of the upkeep
	ended   chan struct{}      // closed when it has
	server  atomic.Pointer[engine.Server]
}

// keep opens a node's end of a store.
func (s *settings) keep(store persist.Store, c *engine.Config, log *slog.Logger) (*keeping, error) {
	k := &keeping{meter: persist.NewMeter(), ended: make(chan struct{})}
	store = k.meter.Metered(store)
	var err error
	if k.upkeep, err = persist.NewUpkeep(store, persist.UpkeepConfig{Rules: s.retention(), Log: log}); err != nil {
		return nil, err
	}
	k.archive, err = persist.Open(persist.Config{Name: c.Name, Slot: max(c.Slot, 0), Interval: c.SnapshotInterval, SegmentBytes: s.segmentBytes,
		BacklogBytes: int(c.SnapshotBacklog), CacheBytes: c.SnapshotCache, Log: log, Done: k.saved}, store)
	if err != nil {
		return nil, err
	}
	c.Archive = k.archive
	ctx, cancel := context.WithCancel(context.Background())
	k.end = cancel
	go func() {
		defer close(k.ended)
		k.upkeep.Run(ctx)
	}()
	return k, nil
}

// saved brings a batch back to the loop that has offered it.
func (k *keeping) saved(b *persist.Batch, err error) {
	if server := k.server.Load(); server != nil { // else it has not come to life
		server.Saved(b, err)
	}
}

// claim finds out where topics stood that a node may go on with: those of one slot of so many.
func (k *keeping) claim(slot, slots int, log *slog.Logger) []persist.Sealed {
	ctx, cancel := context.WithTimeout(context.Background(), claimPatience)
	defer cancel()
	positions, err := k.archive.Claim(ctx, slot, slots, slotOf)
	if err != nil {
		log.Warn("topics of processes before this one begin anew", "err", err)
	}
	return positions
}

// slotOf is the slot that a topic belongs to while all nodes are well.
func slotOf(topic string, slots int) int {
	return cluster.Choice(cluster.Hash([]byte(topic)), 0, slots)
}

// inherit tells a clustered node what it goes on with, as soon as it knows which topics are its own.
func (k *keeping) inherit(n *member, slot int, log *slog.Logger) {
	select {
	case <-n.directory.Known():
	case <-n.server.Done():
		return
	}
	slots := len(n.directory.View().Slots)
	n.server.Inherit(k.claim(slot, max(slots, slot+1), log))
}

// close ends it. What is not stored yet has a moment left, unless it was sealed before.
func (k *keeping) close(ctx context.Context) error {
	k.end()
	<-k.ended
	if err := k.archive.Close(ctx); err != nil && !errors.Is(err, persist.ErrClosed) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// collectors are what is counted there.
func (k *keeping) collectors() []prometheus.Collector {
	return []prometheus.Collector{k.archive, k.upkeep, k.meter}
}

// retention is how long which messages are kept.
func (s *settings) retention() []persist.Retention {
	return retentionOf(s.rules, s.retainAge, s.retainBytes)
}

// retentionOf is the same of rules, and of what is said of topics that none of them matches.
func retentionOf(of []topicRule, age time.Duration, bytes int64) (rules []persist.Retention) {
	for _, r := range of {
		if r.retains {
			rules = append(rules, persist.Retention{Pattern: r.Pattern, Age: r.age, Bytes: r.bytes})
		}
	}
	return append(rules, persist.Retention{Pattern: "*", Age: age, Bytes: bytes})
}
