package main

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"rayflux/engine"
	"rayflux/persist"
)

// value makes a pflag.Value of a parser and a printer: what one kind of
// setting looks like, wherever it is read from. What print writes parse reads.
type value[T any] struct {
	at    *T
	parse func(string) (T, error)
	print func(T) string
	kind  string // what --help calls it
}

func (v value[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.at = parsed
	return nil
}

func (v value[T]) String() string { return v.print(*v.at) }
func (v value[T]) Type() string   { return v.kind }

func sizeOf[T int | int64](at *T) pflag.Value {
	return value[T]{at, parseSize[T], func(n T) string { return formatSize(int64(n)) }, "size"}
}

func countOf(at *int) pflag.Value {
	return value[int]{at, parseCount, strconv.Itoa, "n"}
}

func durationOf(at *time.Duration) pflag.Value {
	return value[time.Duration]{at, parseDuration, formatDuration, "time"}
}

// patternsOf is a list of patterns, as of persist.MatchTopic.
func patternsOf(at *[]string) pflag.Value {
	parse := func(s string) ([]string, error) {
		all := strings.Split(s, ",")
		for i, pattern := range all {
			all[i] = strings.TrimSpace(pattern)
			if persist.CheckPattern(all[i]) != nil || all[i] == "" {
				return nil, fmt.Errorf("%q is no pattern, want orders.*,chat.*", pattern)
			}
		}
		return all, nil
	}
	return value[[]string]{at, parse, func(all []string) string { return strings.Join(all, ",") }, "patterns"}
}

func textOf(at *string) pflag.Value {
	return value[string]{at, func(s string) (string, error) { return s, nil }, func(s string) string { return s }, "text"}
}

// secret is text that is not shown.
type secret string

// secretShown stands for a secret that is set.
const secretShown = "(set)"

func secretOf(at *secret) pflag.Value {
	return value[secret]{at, func(s string) (secret, error) { return secret(s), nil }, func(s secret) string {
		if s == "" {
			return ""
		}
		return secretShown
	}, "text"}
}

func slowOf(at *engine.SlowPolicy) pflag.Value {
	return value[engine.SlowPolicy]{at, engine.ParseSlowPolicy, engine.SlowPolicy.String, "policy"}
}

func levelOf(at *slog.Level) pflag.Value {
	parse := func(s string) (slog.Level, error) {
		word, err := parseChoice(s, "debug", "info", "warn", "error")
		if err != nil {
			return 0, err
		}
		var level slog.Level
		err = level.UnmarshalText([]byte(word))
		return level, err
	}
	return value[slog.Level]{at, parse, func(l slog.Level) string { return strings.ToLower(l.String()) }, "level"}
}

func choiceOf(at *string, words ...string) pflag.Value {
	parse := func(s string) (string, error) { return parseChoice(s, words...) }
	return value[string]{at, parse, func(s string) string { return s }, "word"}
}

func parseChoice(s string, words ...string) (string, error) {
	for _, w := range words {
		if s == w {
			return w, nil
		}
	}
	last := len(words) - 1
	return "", fmt.Errorf("%q is none of %s or %s", s, strings.Join(words[:last], ", "), words[last])
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	return n, nil
}

// parseSize reads bytes: 65536, 64KiB and 64KB are three different numbers but
// the first two, as everywhere outside Docker.
func parseSize[T int | int64](s string) (T, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size: want bytes, or a number with KiB, MiB, GiB, KB, MB or GB", s)
	}
	return T(n), nil
}

// formatSize is exact: the largest binary unit that divides n, else plain bytes.
func formatSize(n int64) string {
	units := [...]string{"", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for n != 0 && n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + units[unit]
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time: want a number with its unit, as in 1ms, 25s, 5m or 1h30m", s)
	}
	return d, nil
}

// formatDuration is Duration.String without the zero parts: 5m, not 5m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
