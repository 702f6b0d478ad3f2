package persist

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// counts are what an archive did. Safe from any goroutine.
type counts struct {
	givenUp atomic.Uint64 // messages
	plain   atomic.Uint64 // bytes of frames that became segments
	packed  atomic.Uint64 // bytes of these segments
}

var (
	descBacklog = prometheus.NewDesc("rayflux_store_backlog_bytes", "Memory of messages that are not in the store yet.", nil, nil)
	descAge     = prometheus.NewDesc("rayflux_store_backlog_age_seconds", "How long the oldest of these messages has waited, or 0 if there is none.", nil, nil)
	descGivenUp = prometheus.NewDesc("rayflux_store_given_up_messages_total", "Messages that were not stored, since the store was away for too long.", nil, nil)
	descPlain   = prometheus.NewDesc("rayflux_store_segment_frames_bytes_total", "Bytes of messages that became segments.", nil, nil)
	descPacked  = prometheus.NewDesc("rayflux_store_segment_bytes_total", "Bytes of these segments.", nil, nil)
	descFaults  = prometheus.NewDesc("rayflux_store_faults_total", "Stored objects, or parts of some, that could not be used.", nil, nil)
)

// Describe is prometheus.Collector's.
func (a *Archive) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descBacklog, descAge, descGivenUp, descPlain, descPacked, descFaults} {
		to <- d
	}
}

// Collect is prometheus.Collector's.
func (a *Archive) Collect(to chan<- prometheus.Metric) {
	a.mu.Lock()
	bytes, age := a.backlog.bytes, a.backlog.age(time.Now())
	a.mu.Unlock()
	to <- prometheus.MustNewConstMetric(descBacklog, prometheus.GaugeValue, float64(bytes))
	to <- prometheus.MustNewConstMetric(descAge, prometheus.GaugeValue, age.Seconds())
	for d, n := range map[*prometheus.Desc]uint64{
		descGivenUp: a.counts.givenUp.Load(), descPlain: a.counts.plain.Load(), descPacked: a.counts.packed.Load(), descFaults: a.reader.Faults(),
	} {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
}
