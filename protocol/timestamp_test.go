package protocol

import (
	"testing"
	"time"
)

func TestTimestamps(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int64
	}{
		{"1970-01-01T00:00:00Z", 0},
		{"1970-01-01T00:00:00.001Z", 1},
		{"1970-01-01T00:00:00.0019999Z", 1},
		{"1970-01-01T00:00:00.5Z", 500},
		{"1970-01-01t00:00:01z", 1000},
		{"2026-01-02T15:04:05Z", 1767366245000},
		{"2026-01-02T15:04:05.25+01:00", 1767362645250},
		{"2026-01-02T15:04:05-23:59", 1767366245000 + (23*60+59)*60_000},
		{"2024-02-29T00:00:00Z", 1709164800000},
		{"9999-12-31T23:59:59.999Z", MaxSince},
		{"9999-12-31T23:59:59.999-01:00", MaxSince},
		{"1969-12-31T23:59:59.999Z", 0},
		{"0000-01-01T00:00:00Z", 0},
	} {
		if got, err := ParseTimestamp([]byte(tt.text)); err != nil || got != tt.want {
			t.Errorf("ParseTimestamp(%q) = %d, %v, want %d", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{
		"", "2026-01-02", "2026-01-02T15:04:05", "2026-01-02 15:04:05Z", "2026-01-02T15:04Z", "2026-1-02T15:04:05Z",
		"2026-01-02T5:04:05Z", "2026-01-02T15:04:05,5Z", "2026-01-02T15:04:05.Z", "2026-01-02T15:04:05+0100",
		"2026-01-02T15:04:05+24:00", "2026-01-02T15:04:05+01:60", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2023-02-29T00:00:00Z", "2026-01-02T24:00:00Z",
		"2026-01-02T15:60:05Z", "2026-01-02T15:04:60Z", "2026-01-02T15:04:05ZZ", "2026-01-02T15:04:05Z ", "20260102T150405Z",
		"1767366245000",
	} {
		_, err := ParseTimestamp([]byte(text))
		wantError(t, err, CodeBadRequest, "RFC 3339")
	}
}

func TestTimestampsCutShort(t *testing.T) {
	eachCut([]byte("2026-01-02T15:04:05.123+01:00"), func(cut []byte) {
		if ms, err := ParseTimestamp(cut); err == nil {
			t.Errorf("ParseTimestamp(%q) = %d", cut, ms)
		}
	})
}

func FuzzTimestamp(f *testing.F) {
	f.Add("2026-01-02T15:04:05.123456+01:00")
	f.Add("1969-12-31t23:59:59z")
	f.Fuzz(func(t *testing.T, text string) {
		ms, err := ParseTimestamp([]byte(text))
		if err != nil {
			return
		}
		again, err := ParseTimestamp(AppendTimestamp(nil, ms))
		if err != nil || again != ms {
			t.Fatalf("%q is %d, written and read again %d, %v", text, ms, again, err)
		}
		upper := []byte(text)
		for i, c := range upper {
			if c == 't' || c == 'z' {
				upper[i] = c - 'a' + 'A'
			}
		}
		want, err := time.Parse(time.RFC3339Nano, string(upper))
		if err != nil {
			t.Fatalf("%q is accepted here, and time.Parse says: %v", text, err)
		}
		if clamped := min(max(want.UnixMilli(), 0), MaxSince); clamped != ms {
			t.Fatalf("%q is %d here and %d for time.Parse", text, ms, clamped)
		}
	})
}
