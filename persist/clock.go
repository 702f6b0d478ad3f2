package persist

import (
	"cmp"
	"slices"
	"time"
)

// Clocks of nodes go wrong. One says 1970 until somebody sets it, another 2036 because somebody has, and what they stamped stays in
// the store. Nothing is deleted and nobody is taken for dead on the word of such a clock, and what it stamped can be read:
//
//   - An epoch that begins in the future comes before all others, so that whoever reads it goes on to those.
//   - A message with a time that no right clock has said is of no age: it is neither found by time nor deleted for it.
//   - Upkeep looks at a life for hours before it takes it for over (watchedFor), and at garbage for the whole grace before it deletes
//     it, and believes a clock that was just set, as that of a process that has just started, an hour later (believedAfter).

const (
	// clockLeastMs is what any right clock says at least: this program is younger. 2025-01-01.
	clockLeastMs = 1_735_689_600_000
	// aheadMax is how far clocks may differ, and be right.
	aheadMax = 24 * time.Hour
)

// aheadFrom is the first time that no right clock has said by now, in Unix milliseconds.
func aheadFrom(now time.Time) int64 { return now.Add(aheadMax).UnixMilli() + 1 }

// sortPieces puts pieces into the order in which they are read.
func sortPieces(pieces []piece, now time.Time) {
	ahead := aheadFrom(now)
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if a.began >= ahead != (b.began >= ahead) {
			return cmp.Compare(b.began, a.began)
		}
		return comparePieces(a, b)
	})
}

// wallClock is whether the clock of this process is to be believed. Upkeep's own.
type wallClock struct {
	ran  time.Duration // since some moment, when it was looked at
	said time.Time     // by it then
	set  time.Duration // when it was set last: ran
}

const (
	clockStep     = time.Minute // less than which is what clocks are put right by all day long
	believedAfter = time.Hour
)

// look reads the clock, and returns by how much it was set since the last look; 0: not at all.
func (c *wallClock) look(ran time.Duration, says time.Time) (step time.Duration) {
	says = says.Round(0) // or Sub would not ask it
	if c.said.IsZero() {
		c.set = ran
	} else if step = says.Sub(c.said) - (ran - c.ran); step.Abs() < clockStep {
		step = 0
	} else {
		c.set = ran
	}
	c.ran, c.said = ran, says
	return step
}

// believed reports whether it has run for long enough that nobody seems to put it right.
func (c *wallClock) believed() bool { return c.ran-c.set >= believedAfter }
