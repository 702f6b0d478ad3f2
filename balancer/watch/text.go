package watch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// compact is a number in at most five cells. k, M, G and T are powers of 1000.
func compact(n float64) string {
	const units = "kMGT"
	if n < 999.5 {
		switch {
		case n == float64(int64(n)) || n >= 99.95:
			return strconv.FormatFloat(n, 'f', 0, 64)
		case n < 0.05:
			return "<0.1" // something happens, if seldom
		}
		return strconv.FormatFloat(n, 'f', 1, 64)
	}
	unit := -1
	for n >= 999.5 && unit < len(units)-1 {
		n, unit = n/1000, unit+1
	}
	decimals := 2
	switch {
	case n >= 99.95:
		decimals = 0
	case n >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(n, 'f', decimals, 64) + units[unit:unit+1]
}

// compactSeconds is a time in at most five cells.
func compactSeconds(s float64) string {
	switch {
	case s < .0009995:
		return fmt.Sprintf("%.0fµs", s*1e6)
	case s < .00995:
		return fmt.Sprintf("%.1fms", s*1e3)
	case s < .9995:
		return fmt.Sprintf("%.0fms", s*1e3)
	}
	return fmt.Sprintf("%.0fs", s)
}

// escape makes a stranger's text safe to show: what is not printable, turns the direction of writing, or takes no place,
// is written out as Go would, and so is a backslash, so that the result means one text only.
func escape(s string) string {
	plain := func(r rune) bool {
		return unicode.IsPrint(r) && !unicode.Is(unicode.Mn, r) && r != '\\' && r != utf8.RuneError
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if plain(r) {
			b.WriteRune(r)
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		quoted := strconv.QuoteToASCII(s[i : i+size])
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// cell is a text in exactly so many cells of a terminal, cut if need be.
func cell(s string, width int, right bool) string {
	s = ansi.Truncate(s, width, "…")
	room := strings.Repeat(" ", max(width-ansi.StringWidth(s), 0))
	if right {
		return room + s
	}
	return s + room
}

// counts lists what is above 0, by name.
func counts(of map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if of[name] > 0 {
			parts = append(parts, escape(name)+" "+compact(of[name]))
		}
	}
	return strings.Join(parts, ", ")
}
