package persist

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// A day of one node: 86,400 segments of a second each. What is scaled is what is in them: topics and bytes, and with these the
// size at which segments are large enough. RAYFLUX_DAY_BYTES makes messages larger (default 40), RAYFLUX_DAY_TOPICS topics more.
const (
	daySeconds     = 86_400
	dayGetsMax     = 200
	dayMergeBytes  = 256 << 10
	dayTopicsOfSec = 3
)

func dayNumber(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s is %q, not a number", name, text)
	}
	return n
}

func TestADayOfOneTopicIsFewRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("86,400 segments take some seconds")
	}
	size, topics := dayNumber(t, "RAYFLUX_DAY_BYTES", 40), dayNumber(t, "RAYFLUX_DAY_TOPICS", 48)
	memory := NewMemory()
	store := counting(memory)
	life := startLife(t, store, 1)
	upkeep := testUpkeep(t, store, UpkeepConfig{MergeBytes: dayMergeBytes * int64(max(size/40, 1))})
	next := make([]uint64, topics)
	began := time.Now()
	for second := range int64(daySeconds) {
		runs := make([]Run, dayTopicsOfSec)
		for i := range runs {
			topic := (int(second)*dayTopicsOfSec + i) % topics
			next[topic]++
			r := Run{Topic: fmt.Sprint("topic ", topic), Epoch: "E", First: next[topic], Count: 1, Times: []Time{{0, second * 1000}}}
			r.Frames = testFrame(nil, r.Topic, r.First, size)
			runs[i] = r
		}
		life.add(runs...)
		if second%10 == 9 { // as often as an upkeep looks
			life.put()
			settle(t, upkeep, time.Unix(second, 0))
			of, _ := upkeep.reader.catalogue.current().manifest.life(1)
			life.trim(of.Through)
		}
	}
	life.put()
	built := time.Since(began)
	written := store.puts
	asked := counting(memory)
	r := testReader(asked, ReaderConfig{})
	r.catalogue.every = time.Hour
	start, err := r.Resolve(t.Context(), "topic 7", Query{})
	if err != nil {
		t.Fatal(err)
	}
	at, pages := start.Position, 0
	for at.Offset < next[7] {
		page, err := r.Read(t.Context(), "topic 7", at, 64<<10)
		if err != nil || page.Count == 0 {
			t.Fatalf("behind %v: hole %d: %v", at, page.Hole, err)
		}
		at.Offset += uint64(page.Count)
		pages++
	}
	gets, m := asked.count(""), r.catalogue.current().manifest
	t.Logf("%d segments in %v, %d compacted ones in %d manifests; topic of %d messages: %d pages, %d requests (%d for segments), %d bytes read; %d objects created",
		daySeconds, built.Round(time.Millisecond), len(m.Segments), m.Number, next[7], pages, gets, asked.count(segmentsFolder)+asked.count(compactFolder), asked.bytes, written)
	if start.Offset != 0 || gets > dayGetsMax {
		t.Errorf("from %v on a day is %d requests, limit %d", start.Position, gets, dayGetsMax)
	}
	// Each manifest is a put of its number, too.
	if more := float64(written-daySeconds+int(m.Number)) / (2 * daySeconds); more > 0.125 {
		t.Errorf("upkeep adds %.0f %% to what a node writes", 100*more)
	}
}
