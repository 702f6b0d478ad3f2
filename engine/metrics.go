package engine

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rayflux/protocol"
)

// counter and flag are words that any goroutine may read. Most have one writer, their loop.
type (
	counter = atomic.Int64
	flag    = atomic.Bool
)

// metrics are what one loop counts. Written by the loop, read by whoever scrapes.
type metrics struct {
	connections   counter
	subscriptions counter
	links         counter
	requests      counter
	published     counter
	delivered     atomic.Uint64
	receivedBytes atomic.Uint64
	sentBytes     atomic.Uint64
	writes        atomic.Uint64
	logBytes      counter
	bufferBytes   counter
	recovered     [numSources]counter
	notRecovered  [numSources]counter
	dropped       [protocol.NumReasons]atomic.Uint64
	disconnects   [protocol.NumReasons]atomic.Uint64

	flushMessages  histogram
	publishToWrite histogram

	beat    counter // loop clock of the last time it was woken: it is alive
	linksUp counter // links that this process made, and that are ready

	handoffsDone, handoffsRefused, handoffsLost, handoffsReceived counter

	busy counter // nanoseconds of processor time
}

func (m *metrics) init() {
	m.flushMessages.bounds = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}
	m.publishToWrite.bounds = []float64{.00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1}
}

// source is where a reader of older messages begins to read.
type source byte

const (
	fromMemory source = iota // the log of this process
	fromStore
	fromOwner // the node that a balancer follows
	numSources
)

var sourceWords = [numSources]string{"memory", "store", "owner"}

func (m *metrics) recovery(whole bool, from source) {
	if whole {
		m.recovered[from].Add(1)
	} else {
		m.notRecovered[from].Add(1)
	}
}

// beginning is where a new subscription reads first.
func (e *errand) beginning() source {
	switch {
	case e.past == "" && (e.offset >= e.head || e.offset+1 >= e.start):
		return fromMemory
	case e.topic.follow != nil:
		return fromOwner
	}
	return fromStore
}

// histogram has one writer. The sum is in millionths, so that it fits an integer word.
type histogram struct {
	bounds  []float64
	buckets [16]atomic.Uint64
	sum     atomic.Uint64
}

func (h *histogram) observe(v float64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(uint64(v * 1e6))
}

// merged is one histogram out of every loop's.
func merged(desc *prometheus.Desc, loops []*loop, of func(*loop) *histogram) prometheus.Metric {
	bounds := of(loops[0]).bounds
	buckets := make(map[float64]uint64, len(bounds))
	var count, sum uint64
	for i := 0; i <= len(bounds); i++ {
		for _, l := range loops {
			count += of(l).buckets[i].Load()
		}
		if i < len(bounds) {
			buckets[bounds[i]] = count
		}
	}
	for _, l := range loops {
		sum += of(l).sum.Load()
	}
	return prometheus.MustNewConstHistogram(desc, count, float64(sum)/1e6, buckets)
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("rayflux_"+name, help, labels, nil)
}

var (
	descConnections   = describe("connections", "Open connections of the public port.")
	descSubscriptions = describe("subscriptions", "Subscriptions of all connections.")
	descLinks         = describe("links", "Connections between servers of one cluster.", "state")
	descViewVersion   = describe("view_version", "Changes in what is known of the cluster's nodes; 0: nothing is, or there is none.")
	descHandoffs      = describe("handoffs_total", "Topics handed over between nodes.", "result")
	descTopics        = describe("topics", "Topics that are known.")
	descRequests      = describe("http_requests_total", "Whole HTTP requests, upgrades included.")
	descPublished     = describe("messages_published_total", "Messages taken.")
	descDelivered     = describe("messages_delivered_total", "Messages handed to the kernel, counted once per subscriber.")
	descDropped       = describe("messages_dropped_total", "Messages refused from publishers, or skipped for one subscriber.", "reason")
	descDisconnects   = describe("disconnects_total", "Connections ended.", "reason")
	descReceived      = describe("bytes_received_total", "Bytes read from the public port.")
	descSent          = describe("bytes_sent_total", "Bytes the kernel took for the public port.")
	descWrites        = describe("writes_total", "Write calls, refused ones included.")
	descLogBytes      = describe("log_bytes", "Memory of topic logs, their views and topics.")
	descBufferBytes   = describe("buffer_bytes", "Memory of half-read requests, answers and half-written frames.")
	descRecoveries    = describe("recoveries_total", "Subscriptions that asked for older messages.", "result", "source")
	descFlush         = describe("flush_messages", "Messages of one topic sealed by one flush.")
	descLatency       = describe("publish_to_write_seconds", "From taking a batch's oldest message to the end of the pass that wrote it.")
	descBusy          = describe("loop_busy_seconds_total", "Processor time of an event loop's thread.", "loop")
)

func (s *Server) viewVersion() float64 {
	if s.cfg.Directory == nil {
		return 0
	}
	return float64(s.cfg.Directory.View().Version)
}

// Describe is part of prometheus.Collector.
func (s *Server) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, out) }

// Collect is part of prometheus.Collector. Safe from any goroutine.
func (s *Server) Collect(out chan<- prometheus.Metric) {
	sum := func(of func(m *metrics) float64) (total float64) {
		for _, l := range s.loops {
			total += of(&l.metrics)
		}
		return total
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(descConnections, sum(func(m *metrics) float64 { return float64(m.connections.Load()) }))
	gauge(descSubscriptions, sum(func(m *metrics) float64 { return float64(m.subscriptions.Load()) }))
	gauge(descLinks, sum(func(m *metrics) float64 { return float64(m.links.Load()) }), "accepted")
	gauge(descLinks, sum(func(m *metrics) float64 { return float64(m.linksUp.Load()) }), "up")
	gauge(descViewVersion, s.viewVersion())
	count(descHandoffs, sum(func(m *metrics) float64 { return float64(m.handoffsDone.Load()) }), "done")
	count(descHandoffs, sum(func(m *metrics) float64 { return float64(m.handoffsRefused.Load()) }), "refused")
	count(descHandoffs, sum(func(m *metrics) float64 { return float64(m.handoffsLost.Load()) }), "lost")
	count(descHandoffs, sum(func(m *metrics) float64 { return float64(m.handoffsReceived.Load()) }), "received")
	gauge(descTopics, float64(s.shared.topics.Load()))
	gauge(descLogBytes, sum(func(m *metrics) float64 { return float64(m.logBytes.Load()) }))
	gauge(descBufferBytes, sum(func(m *metrics) float64 { return float64(m.bufferBytes.Load()) }))
	count(descRequests, sum(func(m *metrics) float64 { return float64(m.requests.Load()) }))
	count(descPublished, sum(func(m *metrics) float64 { return float64(m.published.Load()) }))
	count(descDelivered, sum(func(m *metrics) float64 { return float64(m.delivered.Load()) }))
	count(descReceived, sum(func(m *metrics) float64 { return float64(m.receivedBytes.Load()) }))
	count(descSent, sum(func(m *metrics) float64 { return float64(m.sentBytes.Load()) }))
	count(descWrites, sum(func(m *metrics) float64 { return float64(m.writes.Load()) }))
	for from, word := range sourceWords {
		count(descRecoveries, sum(func(m *metrics) float64 { return float64(m.recovered[from].Load()) }), "recovered", word)
		count(descRecoveries, sum(func(m *metrics) float64 { return float64(m.notRecovered[from].Load()) }), "not_recovered", word)
	}
	for r := protocol.ReasonNone + 1; r < protocol.NumReasons; r++ {
		if r.IsDrop() {
			count(descDropped, sum(func(m *metrics) float64 { return float64(m.dropped[r].Load()) }), r.Label())
		} else {
			count(descDisconnects, sum(func(m *metrics) float64 { return float64(m.disconnects[r].Load()) }), r.Label())
		}
	}
	for _, l := range s.loops {
		count(descBusy, time.Duration(l.metrics.busy.Load()).Seconds(), strconv.Itoa(l.index))
	}
	out <- merged(descFlush, s.loops, func(l *loop) *histogram { return &l.metrics.flushMessages })
	out <- merged(descLatency, s.loops, func(l *loop) *histogram { return &l.metrics.publishToWrite })
}
