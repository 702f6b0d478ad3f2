package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
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
	Scenario      Scenario `json:"scenario"`
	Server        string   `json:"server,omitempty"` // the caller's name for what was measured
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

	ServerMeasured        bool    `json:"server_measured"` // false: no process was named, its numbers are zero
	ServerCPUSeconds      float64 `json:"server_cpu_seconds"`
	ServerCores           float64 `json:"server_cores"`
	ServerMicrosPerDeliv  float64 `json:"server_us_per_delivery"`
	GeneratorCores        float64 `json:"generator_cores"`
	OtherCores            float64 `json:"other_cores"`  // spent by neither of the two: noise
	StolenCores           float64 `json:"stolen_cores"` // taken by the hypervisor: noise
	ServerResidentBefore  int64   `json:"server_resident_before_bytes"`
	ServerResidentAfter   int64   `json:"server_resident_after_bytes"`
	ResidentKBPerIdleConn float64 `json:"resident_kb_per_connection,omitempty"` // idle scenarios; true of a fresh server only, a used one reuses memory

	Warnings []string `json:"warnings,omitempty"`
}

// Quantiles of a histogram in milliseconds; Count 0 means that nothing was recorded.
type Quantiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99.9"`
	P9999 float64 `json:"p99.99"`
	Max   float64 `json:"max"`
	Over  uint64  `json:"over_a_minute,omitempty"` // not in the quantiles
}

func quantiles(h *hdrhistogram.Histogram, over uint64) Quantiles {
	ms := func(percent float64) float64 { return float64(h.ValueAtPercentile(percent)) / 1e6 }
	return Quantiles{Count: h.TotalCount(), P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), P9999: ms(99.99),
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
		Latency:  quantiles(g.latency, g.latencyOver), SendLag: quantiles(g.sendLag, 0),
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

const saturatedCores = 0.95

// warn says what keeps the numbers from being the server's.
func (r *Result) warn() {
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if !r.ServerMeasured {
		warn("no server process was named: its CPU and memory are not measured")
	}
	if r.GeneratorCores > saturatedCores && r.ServerCores < saturatedCores && !r.Scenario.Spin && r.ServerMeasured {
		warn("the generator was the limit: %.2f of a core against the server's %.2f", r.GeneratorCores, r.ServerCores)
	}
	closed := r.Scenario.Publishers > 0 && r.Scenario.Rate == 0
	if closed && r.GeneratorCores < saturatedCores && r.ServerCores < saturatedCores && r.ServerMeasured {
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

// WriteTable writes results as a table for people, troubles and warnings under it.
func WriteTable(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "scenario\tserver\tload\tpub/s\tdeliv/s\tus/deliv\tcore\tgen core\tp50 ms\tp99 ms\tp99.9\tmax\tlost\trepeat\treorder\tRSS MB\tKB/conn\t")
	for i := range results {
		r := &results[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.3f\t%.2f\t%.2f\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t%d\t%d\t%.1f\t%s\t\n",
			r.Scenario.Name, r.Server, load(&r.Scenario), rate(r.PublishesPerSecond), rate(r.DeliveriesPerSecond), r.ServerMicrosPerDeliv,
			r.ServerCores, r.GeneratorCores, r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max,
			r.Lost, r.Repeated, r.Reordered, float64(r.ServerResidentAfter)/(1<<20), perConn(r))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for i := range results {
		if text := results[i].remarks(); text != "" {
			if _, err := fmt.Fprint(w, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// remarks are the lines under the table that one result needs.
func (r *Result) remarks() string {
	var b strings.Builder
	line := func(count uint64, what, first string) {
		if count > 0 {
			fmt.Fprintf(&b, "%s: %d %s", r.Scenario.Name, count, what)
			if first != "" {
				fmt.Fprintf(&b, ", the first: %s", first)
			}
			b.WriteByte('\n')
		}
	}
	line(r.Errors, "errors", r.FirstError)
	line(r.Refused, "publishes refused", r.FirstRefused)
	line(r.Closed, "connections closed", r.FirstClosed)
	line(r.Gaps, fmt.Sprintf("gaps (%d missed)", r.GapMissed), r.FirstGap)
	line(r.OffsetBreaks, "offsets that do not follow the one before", "")
	line(r.Foreign, "messages that were not for who got them", "")
	line(r.StalledClosed, "stalled subscribers closed by the server", "")
	for _, text := range r.Warnings {
		fmt.Fprintf(&b, "%s: warning: %s\n", r.Scenario.Name, text)
	}
	return b.String()
}

// rate shortens a number per second to four digits or so.
func rate(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

// load is how a scenario's publishes are paced.
func load(s *Scenario) string {
	switch {
	case s.Publishers == 0:
		return "idle"
	case s.Rate > 0:
		return rate(s.Rate) + "/s"
	case s.Publish == PublishHTTP:
		return fmt.Sprintf("%d x %d http", s.Publishers, s.Pipeline)
	}
	return fmt.Sprintf("%d x %d", s.Publishers, s.InFlight)
}

func perConn(r *Result) string {
	if r.ResidentKBPerIdleConn == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r.ResidentKBPerIdleConn)
}
