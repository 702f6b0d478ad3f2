package main

import (
	"strings"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text  string
		want  int64
		print string // how the same size is written back
	}{
		{"0", 0, "0"},
		{"1", 1, "1"},
		{"1023", 1023, "1023"},
		{"65536", 65536, "64KiB"},
		{"64KiB", 65536, "64KiB"},
		{"64kib", 65536, "64KiB"},
		{"64 KiB", 65536, "64KiB"},
		{"64KB", 64000, "64000"},
		{"1MiB", 1 << 20, "1MiB"},
		{"1MB", 1_000_000, "1000000"},
		{"1.5GiB", 3 << 29, "1536MiB"},
		{"2TiB", 2 << 40, "2TiB"},
		{"2048TiB", 2 << 50, "2048TiB"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	} {
		got, err := parseSize[int64](c.text)
		if err != nil || got != c.want {
			t.Errorf("%q is %d (%v), want %d", c.text, got, err, c.want)
		}
		if back := formatSize(got); back != c.print {
			t.Errorf("%d is printed %q, want %q", got, back, c.print)
		}
		if again, err := parseSize[int64](formatSize(got)); err != nil || again != got {
			t.Errorf("%q read back is %d (%v)", formatSize(got), again, err)
		}
	}
	for _, text := range []string{"", "-1", "KiB", "64Qb", "1e3", "0x10", "9223372036854775808", "16EiB", "1..5MiB"} {
		if n, err := parseSize[int64](text); err == nil {
			t.Errorf("%q is taken for %d", text, n)
		} else if !strings.Contains(err.Error(), `"`+text+`"`) {
			t.Errorf("%q: %q does not name the value", text, err)
		}
	}
}

func TestDurationsPrintShort(t *testing.T) {
	for text, want := range map[string]string{
		"0":      "0s",
		"1ms":    "1ms",
		"1.5s":   "1.5s",
		"25s":    "25s",
		"300s":   "5m",
		"90s":    "1m30s",
		"1h":     "1h",
		"90m":    "1h30m",
		"3601s":  "1h0m1s",
		"10m10s": "10m10s",
	} {
		d, err := parseDuration(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := formatDuration(d); got != want {
			t.Errorf("%q is printed %q, want %q", text, got, want)
		}
		if again, err := parseDuration(formatDuration(d)); err != nil || again != d {
			t.Errorf("%q read back is %v (%v)", formatDuration(d), again, err)
		}
	}
	if d, err := parseDuration("5"); err == nil {
		t.Errorf("5 without a unit is taken for %v", d)
	}
	if got := formatDuration(10 * time.Minute); got != "10m" {
		t.Errorf("ten minutes are printed %q", got)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"listen", "admin", "max-message", "max-topics", "max-topic-age", "log-level", "slow"}
	for word, want := range map[string]string{
		"lsiten":      "listen",
		"max-mesage":  "max-message",
		"max-topic":   "max-topics",
		"loglevel":    "log-level",
		"log_level":   "log-level",
		"slwo":        "slow",
		"memory":      "",
		"x":           "",
		"":            "",
		"max-message": "max-message",
	} {
		asked := ""
		if want != "" {
			asked = ", did you mean " + want + "?"
		}
		if got := didYouMean("", word, words); got != asked {
			t.Errorf("%q: %q, want %q", word, got, asked)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "acb", 1},
		{"abcd", "bacd", 1}, {"abc", "cab", 2}, {"kitten", "sitting", 3},
	} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("%q to %q is %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
