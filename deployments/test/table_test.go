package test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// table is what a run has shown, a line each, in the form of docs/deploy.md.
type table struct {
	lock sync.Mutex
	rows [][4]string
}

var shown = table{rows: [][4]string{{"", "lost, repeated, reordered", "gaps", "seen"}, {"---", "---", "---", "---"}}}

// TestMain prints the table when all tests have run: each tells its figures once, wherever it stands in the log.
func TestMain(m *testing.M) {
	status := m.Run()
	if len(shown.rows) > 2 {
		fmt.Println(shown.String())
	}
	os.Exit(status)
}

func (s *table) add(what, zeros, gaps, seen string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.rows = append(s.rows, [4]string{what, zeros, gaps, seen})
}

func (s *table) String() string {
	var b strings.Builder
	for _, row := range s.rows {
		fmt.Fprintf(&b, "\n| %s |", strings.Join(row[:], " | "))
	}
	return b.String()
}

// show enters what was seen.
func (l lab) show(what, seen string) {
	l.Helper()
	l.enter(what, "", "", seen)
}

// showTraffic enters what became of messages.
func (l lab) showTraffic(what string, v verdict) {
	l.Helper()
	l.enter(what, v.zeros(), v.gapped(), v.noticed())
}

// enter adds a row, which the test's log has at once.
func (l lab) enter(what, zeros, gaps, seen string) {
	l.Helper()
	l.Log(what, "|", zeros, "|", gaps, "|", seen)
	shown.add(what, zeros, gaps, seen)
}
