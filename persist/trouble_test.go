package persist

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// said is the lines of a log that mention something.
func said(log *bytes.Buffer, what string) (n int) { return strings.Count(log.String(), what) }

func TestAStoreThatFailsIsToldOnce(t *testing.T) {
	simulate(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newWeather(NewMemory(), 1, 0)
		a, err := Open(Config{Log: slog.New(slog.NewTextHandler(&out, nil)), Done: func(*Batch, error) {}}, w)
		if err != nil {
			t.Fatal(err)
		}
		offset := uint64(1)
		publish := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); offset++ {
				r := modelRun("a", "E", 0, offset, 1)
				a.Offer(&Batch{Runs: []Run{r}, Bytes: r.Frames})
				time.Sleep(time.Second)
			}
		}
		publish(time.Minute)
		for range 2 { // an hour each, of several segments and heads
			w.set(func(w *weather) { w.away = true })
			publish(time.Hour)
			w.set(func(w *weather) { w.away = false })
			publish(10 * time.Minute)
		}
		synctest.Wait()
		if fails, back := said(&out, "the store fails"), said(&out, "the store is back"); fails != 2*2 || back != 2*2 {
			t.Errorf("it was away twice, for segments and a head, and the log says so %d times, and %d times that it is back: %s", fails, back, &out)
		}
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Segments come to the store, and no head: it is not back with each segment.
func TestHeadsThatFailAreToldOnce(t *testing.T) {
	simulate(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &refusingStore{Store: NewMemory()}
		s.heads.Store(1 << 30)
		a, err := Open(Config{Log: slog.New(slog.NewTextHandler(&out, nil)), Done: func(*Batch, error) {}}, s)
		if err != nil {
			t.Fatal(err)
		}
		for offset := range uint64(600) {
			r := modelRun("a", "E", 0, offset+1, 1)
			a.Offer(&Batch{Runs: []Run{r}, Bytes: r.Frames})
			time.Sleep(time.Second)
		}
		if fails, back := said(&out, "the store fails"), said(&out, "the store is back"); fails != 1 || back != 0 {
			t.Errorf("heads have failed for ten minutes, and the log says so %d times, and %d times that the store is back: %s", fails, back, &out)
		}
		s.heads.Store(0)
		if err := a.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if said(&out, "the store is back") != 1 {
			t.Errorf("that it works again is not told: %s", &out)
		}
	})
}

func TestAnUpkeepThatFailsBacksOff(t *testing.T) {
	simulate(t, func(t *testing.T) {
		var out bytes.Buffer
		memory := NewMemory()
		life := startLife(t, memory, 1)
		life.fill(16, 0)
		life.put()
		w := newWeather(memory, 1, 0)
		w.away = true
		u, err := NewUpkeep(w, UpkeepConfig{Log: slog.New(slog.NewTextHandler(&out, nil))})
		if err != nil {
			t.Fatal(err)
		}
		go u.Run(t.Context())
		counted := func(want ...string) {
			t.Helper()
			synctest.Wait()
			all := collected(t, u)
			for _, line := range want {
				if !strings.Contains(all, "rayflux_store_upkeep_"+line+"\n") {
					t.Errorf("want %s in\n%s", line, all)
				}
			}
		}
		time.Sleep(4 * time.Hour)
		counted("lease{} 0", "last_pass_timestamp_seconds{} 0")
		// Pauses are 150 s to 300 s, once they are longest.
		if n := w.requests("list", "get", "create"); n < 4*12 || n > 4*24+10 {
			t.Errorf("in four hours the store was asked %d times", n)
		}
		w.set(func(w *weather) { w.away = false })
		time.Sleep(upkeepPause + time.Second)
		counted("lease{} 1", "merged_segments_total{} 16", "made_segments_total{} 1", fmt.Sprintf("last_pass_timestamp_seconds{} %g", float64(u.counts.passed.Load())/1000))
		if passed := time.UnixMilli(u.counts.passed.Load()); time.Since(passed) > upkeepPause {
			t.Errorf("the last pass was at %v", passed)
		}
		if fails, works := said(&out, "upkeep of the store fails"), said(&out, "upkeep of the store works again"); fails != 1 || works != 1 {
			t.Errorf("the log says that it fails %d times, that it works again %d times: %s", fails, works, &out)
		}
		time.Sleep(20 * time.Minute)
		counted("deleted_objects_total{} 16")
	})
}

func TestFailuresThatComeAndGoAreToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		tr := newTrouble(slog.New(slog.NewTextHandler(&out, nil)), "fails", "works")
		for i := range 600 {
			object := fmt.Sprint("segments/", i)
			tr.failed(object, fmt.Errorf("write %s: bad", object))
			tr.failed(object, fmt.Errorf("write %s: %w", object, ErrDenied))
			tr.worked()
			time.Sleep(time.Second)
		}
		if fails, works := said(&out, "msg=fails"), said(&out, "msg=works"); fails != 20 || works != 10 {
			t.Errorf("in ten minutes it was said %d times that it fails in two ways, and %d times that it works", fails, works)
		}
		for i := range 100 {
			tr.failed("", errors.New(fmt.Sprint("another one: ", i)))
		}
		if fails := said(&out, "another one"); fails > kindsMax {
			t.Errorf("%d kinds were told at once", fails)
		}
	})
}
