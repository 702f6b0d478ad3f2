package bench

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// FloorName is the contender by which the others are measured.
const FloorName = "floor"

// Summary is all measurements of one scenario on one contender, medians and their spread.
type Summary struct {
	Part     Part     `json:"part"`
	Scenario Scenario `json:"scenario"` // of a search: at the highest rate found in the first round that found one
	Server   string   `json:"server"`
	Runs     int      `json:"runs"`
	Unclean  int      `json:"unclean"` // of them

	PublishesPerSecond  Spread `json:"publishes_per_second"`
	DeliveriesPerSecond Spread `json:"deliveries_per_second"`
	MicrosPerDelivery   Spread `json:"server_us_per_delivery"`
	ServerCores         Spread `json:"server_cores"`
	GeneratorCores      Spread `json:"generator_cores"`
	P50                 Spread `json:"p50_ms"`
	P99                 Spread `json:"p99_ms"`
	P999                Spread `json:"p99.9_ms"`
	Max                 Spread `json:"max_ms"`
	AnswerMean          Spread `json:"answer_mean_ms,omitzero"`
	AnswerP95           Spread `json:"answer_p95_ms,omitzero"`
	AnswerP99           Spread `json:"answer_p99_ms,omitzero"`
	ResidentMB          Spread `json:"resident_mb"`
	KBPerConnection     Spread `json:"resident_kb_per_connection,omitzero"`

	// Ratios of medians to the floor's in the same run; 0: no floor was measured.
	DeliveriesOfFloor float64 `json:"deliveries_of_floor,omitempty"`
	MicrosOfFloor     float64 `json:"us_per_delivery_of_floor,omitempty"`
	KBOfFloor         float64 `json:"kb_per_connection_of_floor,omitempty"`

	remarks []remark
}

// remark is one kind of thing to know about measurements: how many of them it is true of, and its text in the first.
type remark struct {
	kind, text string
	count      int
}

// summarize takes the results of one scenario on one contender, at least one.
func summarize(results []Result) Summary {
	over := func(value func(r *Result) float64) Spread {
		values := make([]float64, len(results))
		for i := range results {
			values[i] = value(&results[i])
		}
		return spreadOf(values)
	}
	s := Summary{
		Part: PartSummary, Scenario: results[0].Scenario, Server: results[0].Server, Runs: len(results),
		PublishesPerSecond:  over(func(r *Result) float64 { return r.PublishesPerSecond }),
		DeliveriesPerSecond: over(func(r *Result) float64 { return r.DeliveriesPerSecond }),
		MicrosPerDelivery:   over(func(r *Result) float64 { return r.ServerMicrosPerDeliv }),
		ServerCores:         over(func(r *Result) float64 { return r.ServerCores }),
		GeneratorCores:      over(func(r *Result) float64 { return r.GeneratorCores }),
		P50:                 over(func(r *Result) float64 { return r.Latency.P50 }),
		P99:                 over(func(r *Result) float64 { return r.Latency.P99 }),
		P999:                over(func(r *Result) float64 { return r.Latency.P999 }),
		Max:                 over(func(r *Result) float64 { return r.Latency.Max }),
		AnswerMean:          over(func(r *Result) float64 { return r.Answer.Mean }),
		AnswerP95:           over(func(r *Result) float64 { return r.Answer.P95 }),
		AnswerP99:           over(func(r *Result) float64 { return r.Answer.P99 }),
		ResidentMB:          over(func(r *Result) float64 { return float64(r.ServerResidentAfter) / (1 << 20) }),
		KBPerConnection:     over(func(r *Result) float64 { return r.ResidentKBPerIdleConn }),
	}
	for i := range results {
		if !results[i].Clean() {
			s.Unclean++
		}
		for _, text := range results[i].remarks() {
			s.remark(text)
		}
	}
	return s
}

// remark counts a text among those that differ from it by their numbers only.
func (s *Summary) remark(text string) {
	kind := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text)
	if i := slices.IndexFunc(s.remarks, func(m remark) bool { return m.kind == kind }); i >= 0 {
		s.remarks[i].count++
		return
	}
	s.remarks = append(s.remarks, remark{kind: kind, text: text, count: 1})
}

// compare fills in the ratios to floor, which may be s itself.
func (s *Summary) compare(floor *Summary) {
	ratio := func(own, floors Spread) float64 {
		if floors.Median == 0 {
			return 0
		}
		return own.Median / floors.Median
	}
	s.DeliveriesOfFloor = ratio(s.DeliveriesPerSecond, floor.DeliveriesPerSecond)
	s.MicrosOfFloor = ratio(s.MicrosPerDelivery, floor.MicrosPerDelivery)
	s.KBOfFloor = ratio(s.KBPerConnection, floor.KBPerConnection)
}

// remarks are what has to be said about one result besides its row.
func (r *Result) remarks() (lines []string) {
	line := func(count uint64, what, first string) {
		if count > 0 {
			text := rate(float64(count)) + " " + what
			if first != "" {
				text += ", the first: " + first
			}
			lines = append(lines, text)
		}
	}
	line(r.Errors, "errors", r.FirstError)
	line(r.Refused, "publishes refused", r.FirstRefused)
	line(r.Closed, "connections closed", r.FirstClosed)
	line(r.Gaps, "gaps ("+rate(float64(r.GapMissed))+" missed)", r.FirstGap)
	line(r.Repeated, "messages repeated", "")
	line(r.Reordered, "messages reordered", "")
	line(r.OffsetBreaks, "offsets that do not follow the one before", "")
	line(r.Foreign, "messages that were not for who got them", "")
	line(r.StalledClosed, "stalled subscribers closed by the server", "")
	if r.ServerThrottledSeconds > 0 {
		lines = append(lines, fmt.Sprintf("its limit kept the server from running for %.2f s", r.ServerThrottledSeconds))
	}
	for _, text := range r.Warnings {
		lines = append(lines, "warning: "+text)
	}
	return lines
}
