package persist

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// upkeepCounts are what an upkeep did. Safe from any goroutine.
type upkeepCounts struct {
	merged, mergedBytes atomic.Int64 // segments that became others
	made, madeBytes     atomic.Int64 // segments that they became
	expired             atomic.Int64 // messages
	deleted             atomic.Int64 // objects
	lease               atomic.Bool  // it is this one's turn
	passed              atomic.Int64 // Unix milliseconds when all was done that there was to do; 0: never
	failures            *prometheus.CounterVec
}

// add counts what has gone into a draft, which nobody can discard any more.
func (c *upkeepCounts) add(d *draft) {
	c.merged.Add(d.merged)
	c.mergedBytes.Add(d.mergedBytes)
	c.made.Add(int64(len(d.made)))
	c.madeBytes.Add(d.madeBytes)
	c.expired.Add(d.expired)
}

var (
	descMerged      = prometheus.NewDesc("rayflux_store_upkeep_merged_segments_total", "Segments that upkeep has read, to make others of them.", nil, nil)
	descMergedBytes = prometheus.NewDesc("rayflux_store_upkeep_merged_bytes_total", "Bytes of these segments.", nil, nil)
	descMade        = prometheus.NewDesc("rayflux_store_upkeep_made_segments_total", "Segments that upkeep has made of others.", nil, nil)
	descMadeBytes   = prometheus.NewDesc("rayflux_store_upkeep_made_bytes_total", "Bytes of these segments.", nil, nil)
	descExpired     = prometheus.NewDesc("rayflux_store_upkeep_expired_messages_total", "Messages past their retention that upkeep has left out of the segments it made.", nil, nil)
	descDeleted     = prometheus.NewDesc("rayflux_store_upkeep_deleted_objects_total", "Objects that upkeep has deleted; a life that went counts as one.", nil, nil)
	descLease       = prometheus.NewDesc("rayflux_store_upkeep_lease", "1 while this process looks after the store, 0 while another one does.", nil, nil)
	descPassed      = prometheus.NewDesc("rayflux_store_upkeep_last_pass_timestamp_seconds", "When this process last had nothing left to do there; 0: never.", nil, nil)
)

func newUpkeepFailures() *prometheus.CounterVec {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rayflux_store_upkeep_failures_total",
		Help: "Passes of upkeep that a request to the store has ended.",
	}, []string{"result"})
	for _, result := range []string{"denied", "full", "timeout", "unavailable", "other"} {
		failures.WithLabelValues(result)
	}
	return failures
}

// Describe is prometheus.Collector's.
func (u *Upkeep) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descMerged, descMergedBytes, descMade, descMadeBytes, descExpired, descDeleted, descLease, descPassed} {
		to <- d
	}
	u.counts.failures.Describe(to)
}

// Collect is prometheus.Collector's.
func (u *Upkeep) Collect(to chan<- prometheus.Metric) {
	c := &u.counts
	for d, n := range map[*prometheus.Desc]int64{
		descMerged: c.merged.Load(), descMergedBytes: c.mergedBytes.Load(), descMade: c.made.Load(), descMadeBytes: c.madeBytes.Load(),
		descExpired: c.expired.Load(), descDeleted: c.deleted.Load(),
	} {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	lease := 0.0
	if c.lease.Load() {
		lease = 1
	}
	to <- prometheus.MustNewConstMetric(descLease, prometheus.GaugeValue, lease)
	to <- prometheus.MustNewConstMetric(descPassed, prometheus.GaugeValue, (time.Duration(c.passed.Load()) * time.Millisecond).Seconds())
	c.failures.Collect(to)
}
