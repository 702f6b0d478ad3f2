package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Progress is what a run shows while it lasts; the rates are those since the report before.
type Progress struct {
	Scenario            string
	Phase               string // warm-up or measure
	PublishesPerSecond  float64
	DeliveriesPerSecond float64
	Lost                uint64 // so far; includes what is merely late if it was overtaken
	Trouble             string // the first error, refusal, close or gap
}

// Result is one measured scenario. Rates and CPU are those of the measured window, checks those of the whole run with
// warm-up and drain.
type Result struct {
	Part          Part     `json:"part,omitempty"` // of a Plan
	Scenario      Scenario `json:"scenario"`
	Server        string   `json:"server,omitempty"`    // the caller's name for what was measured
	Round         int      `json:"round,omitempty"`     // of a Plan's repetitions, from 1
	Sustained     bool     `json:"sustained,omitempty"` // a step of a search that held
	WindowSeconds float64  `json:"window_seconds"`

	Publishes           uint64  `json:"publishes"`
	Deliveries          uint64  `json:"deliveries"`
	PublishesPerSecond  float64 `json:"publishes_per_second"`
	DeliveriesPerSecond float64 `json:"deliveries_per_second"`
	ReceivedBytes       uint64  `json:"received_bytes"`
	DeliveriesPerRead   float64 `json:"deliveries_per_read"`
	Unsent              uint64  `json:"unsent"` // open loop: due in the window and not sent by its end

	Lost         uint64 `json:"lost"` // published and never arrived; refused publishes and announced gaps included
	Repeated     uint64 `json:"repeated"`
	Reordered    uint64 `json:"reordered"`
	Foreign      uint64 `json:"foreign"`       // not of this run, or not of a topic subscribed to
	OffsetBreaks uint64 `json:"offset_breaks"` // offsets that do not follow the one before, without a gap announced

	Gaps          uint64 `json:"gaps"`
	GapMissed     uint64 `json:"gap_missed"` // messages the gap events spoke of
	Errors        uint64 `json:"errors"`
	Refused       uint64 `json:"refused"` // HTTP publishes not answered with 200
	Closed        uint64 `json:"closed"`
	StalledClosed uint64 `json:"stalled_closed"` // subscribers that never read, closed by the server

	FirstGap     string `json:"first_gap,omitempty"`
	FirstError   string `json:"first_error,omitempty"`
	FirstRefused string `json:"first_refused,omitempty"`
	FirstClosed  string `json:"first_closed,omitempty"`

	Latency Quantiles `json:"latency_ms"`            // from due to read, of what was due in the window
	SendLag Quantiles `json:"send_lag_ms,omitempty"` // open loop: from due to sent; the generator's part of Latency
	Answer  Quantiles `json:"answer_ms,omitzero"`    // HTTP: from due to the publish's answer

	ServerMeasured         bool    `json:"server_measured"` // false: no process was named, its numbers are zero
	ServerCPUSeconds       float64 `json:"server_cpu_seconds"`
	ServerCores            float64 `json:"server_cores"`
	ServerMicrosPerDeliv   float64 `json:"server_us_per_delivery"`
	ServerThrottledSeconds float64 `json:"server_throttled_seconds,omitempty"` // of the whole run, by its limit
	GeneratorCores         float64 `json:"generator_cores"`
	OtherCores             float64 `json:"other_cores"`  // spent by neither of the two: noise
	StolenCores            float64 `json:"stolen_cores"` // taken by the hypervisor: noise
	ServerResidentBefore   int64   `json:"server_resident_before_bytes"`
	ServerResidentAfter    int64   `json:"server_resident_after_bytes"`
	ResidentKBPerIdleConn  float64 `json:"resident_kb_per_connection,omitempty"` // idle scenarios; true of a fresh server only, a used one reuses memory

	Warnings []string `json:"warnings,omitempty"`
}

// Quantiles of a histogram in milliseconds; Count 0 means that nothing was recorded.
type Quantiles struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99.9"`
	P9999 float64 `json:"p99.99"`
	Max   float64 `json:"max"`
	Over  uint64  `json:"over_a_minute,omitempty"` // not in the quantiles
}

func quantiles(h *hdrhistogram.Histogram, over uint64) Quantiles {
	ms := func(percent float64) float64 { return float64(h.ValueAtPercentile(percent)) / 1e6 }
	return Quantiles{Count: h.TotalCount(), Mean: h.Mean() / 1e6, P50: ms(50), P90: ms(90), P95: ms(95), P99: ms(99), P999: ms(99.9), P9999: ms(99.99),
		Max: float64(h.Max()) / 1e6, Over: over}
}

// Clean reports whether every subscriber saw every message once and in order, and the server did nothing unexpected.
func (r *Result) Clean() bool {
	return r.Lost+r.Repeated+r.Reordered+r.Foreign+r.OffsetBreaks+r.Gaps+r.Errors+r.Refused+r.Closed == 0
}

// result sums up a run that has ended.
func (m *measurement) result() Result {
	g, t := m.g, &m.g.tally
	seconds := time.Duration(max(1, m.to.at-m.from.at)).Seconds()
	r := Result{
		Scenario: g.s, WindowSeconds: seconds,
		Publishes: m.to.published - m.from.published, Deliveries: m.to.delivered - m.from.delivered,
		ReceivedBytes: m.to.bytesIn - m.from.bytesIn, Unsent: m.unsent,
		Lost: t.lost, Repeated: t.repeated, Reordered: t.reordered, Foreign: t.foreign, OffsetBreaks: t.offsets,
		Gaps: t.gaps, GapMissed: t.missed, StalledClosed: g.stalledClosed,
		Errors: g.trouble[incidentError].count, FirstError: g.trouble[incidentError].text,
		Refused: g.trouble[incidentRefused].count, FirstRefused: g.trouble[incidentRefused].text,
		Closed: g.trouble[incidentClosed].count, FirstClosed: g.trouble[incidentClosed].text,
		FirstGap: g.trouble[incidentGap].text,
		Latency:  quantiles(g.latency, g.latencyOver), SendLag: quantiles(g.sendLag, 0), Answer: quantiles(g.answer, 0),
		ServerMeasured:       m.pid > 0,
		ServerResidentBefore: m.residentBefore, ServerResidentAfter: m.residentAfter,
	}
	r.PublishesPerSecond = float64(r.Publishes) / seconds
	r.DeliveriesPerSecond = float64(r.Deliveries) / seconds
	if reads := m.to.reads - m.from.reads; reads > 0 {
		r.DeliveriesPerRead = float64(r.Deliveries) / float64(reads)
	}
	a, b := m.from.usage, m.to.usage
	server, generator := (b.server - a.server).Seconds(), (b.generator - a.generator).Seconds()
	r.ServerCPUSeconds, r.ServerCores, r.GeneratorCores = server, server/seconds, generator/seconds
	r.OtherCores = max(0, (b.machine-a.machine).Seconds()/seconds-r.ServerCores-r.GeneratorCores)
	r.StolenCores = (b.stolen - a.stolen).Seconds() / seconds
	if r.Deliveries > 0 {
		r.ServerMicrosPerDeliv = server * 1e6 / float64(r.Deliveries)
	}
	if g.s.Publishers == 0 && m.pid > 0 {
		r.ResidentKBPerIdleConn = float64(m.residentAfter-m.residentBefore) / 1024 / float64(g.s.Subscribers)
	}
	r.warn()
	return r
}

const saturatedShare = 0.95

// saturated is how many cores make a side of the measurement its limit. A server of several loops is taken for one of one:
// that it is idle can be told, that it is busy all over cannot.
func saturated(limitCPU float64) float64 {
	if limitCPU > 0 {
		return saturatedShare * min(1, limitCPU)
	}
	return saturatedShare
}

// generatorBound reports whether the generator had no more to give while the server did.
func (r *Result) generatorBound() bool {
	return r.GeneratorCores > saturated(0) && r.ServerCores < saturated(r.Scenario.LimitCPU) && !r.Scenario.Spin && r.ServerMeasured
}

// warn says what keeps the numbers from being the server's.
func (r *Result) warn() {
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if !r.ServerMeasured {
		warn("no server process was named: its CPU and memory are not measured")
	}
	if r.generatorBound() {
		warn("the generator was the limit: %.2f of a core against the server's %.2f", r.GeneratorCores, r.ServerCores)
	}
	closed := r.Scenario.Publishers > 0 && r.Scenario.Rate == 0
	if closed && r.GeneratorCores < saturated(0) && r.ServerCores < saturated(r.Scenario.LimitCPU) && r.ServerMeasured {
		warn("neither side was saturated: the publishes in flight, the server's own waiting, or other processes were the limit")
	}
	if r.OtherCores > 0.1 {
		warn("other processes used %.2f cores", r.OtherCores)
	}
	if r.StolenCores > 0.02 {
		warn("the hypervisor took %.2f cores", r.StolenCores)
	}
	if r.Unsent > 0 {
		warn("%d publishes were due and not sent: the server did not take them in time", r.Unsent)
	}
}

// WriteJSON writes r as one line.
func (r *Result) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// brief is r on one line, for people who watch.
func (r *Result) brief() string {
	if r.Scenario.Publishers == 0 {
		return fmt.Sprintf("%.2f KB per connection", r.ResidentKBPerIdleConn)
	}
	text := fmt.Sprintf("%s deliveries/s, %.3f us each, core %.2f, p50 %s ms, p99 %s ms", rate(r.DeliveriesPerSecond),
		r.ServerMicrosPerDeliv, r.ServerCores, millis(r.Latency.P50), millis(r.Latency.P99))
	if !r.Clean() {
		text += ", NOT CLEAN: " + r.trouble()
	}
	return text
}

// trouble is the first thing that keeps r from being clean.
func (r *Result) trouble() string {
	return cmp.Or(r.FirstError, r.FirstClosed, r.FirstRefused, r.FirstGap,
		fmt.Sprintf("%d lost, %d repeated, %d reordered, %d foreign, %d offset breaks", r.Lost, r.Repeated, r.Reordered, r.Foreign, r.OffsetBreaks))
}
