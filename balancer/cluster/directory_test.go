package cluster

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rayflux/engine"
)

// found is one answer of a scripted source.
type found struct {
	slots []engine.Slot
	err   error
}

// scripted is a source that says what the test sends.
type scripted chan found

func (s scripted) String() string { return "scripted" }

func (s scripted) Next(ctx context.Context) ([]engine.Slot, error) {
	select {
	case f := <-s:
		return f.slots, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// directoryOf starts a directory in a bubble of synctest; what it logs is to be read after synctest.Wait.
func directoryOf(t *testing.T, s Source) (*Directory, *bytes.Buffer) {
	var logged bytes.Buffer
	d := Start(t.Context(), s, slog.New(slog.NewTextHandler(&logged, nil)))
	t.Cleanup(d.Close)
	return d, &logged
}

func has(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestADirectoryFollowsItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := make(scripted)
		d, _ := directoryOf(t, s)
		if v := d.View(); v.Version != 0 || v.Fingerprint != 0 || len(v.Slots) != 0 || has(d.Known()) {
			t.Errorf("before anything is known the view is %+v", v)
		}
		for i, c := range []struct {
			slots   []engine.Slot
			version uint64
			news    bool
		}{
			{slotsAt("h1:1"), 1, true},
			{slotsAt("h1:1"), 1, false},
			{slotsAt("h1:1", "h2:1"), 2, true},
		} {
			s <- found{slots: c.slots}
			synctest.Wait()
			if v := d.View(); v.Version != c.version || !slices.Equal(v.Slots, c.slots) || has(d.Watch()) != c.news || !has(d.Known()) {
				t.Errorf("step %d: view is %+v, want version %d and news: %v", i, v, c.version, c.news)
			}
		}
		for _, address := range []string{"h3:1", "h4:1"} { // which nobody waits for
			s <- found{slots: slotsAt(address)}
		}
		synctest.Wait()
		if !has(d.Watch()) || has(d.Watch()) || d.View().Version != 4 {
			t.Errorf("two changes are not one token for the last view: %+v", d.View())
		}
		if got, want := d.Choice(7, 1, 5), Choice(7, 1, 5); got != want {
			t.Errorf("choice is %d, want %d", got, want)
		}
	})
}

func TestTheLastGoodViewStaysAndTroubleIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := make(scripted)
		d, logged := directoryOf(t, s)
		s <- found{slots: slotsAt("h1:1")}
		s <- found{err: errors.New("no answer")}
		s <- found{err: errors.New("no such host")}
		synctest.Wait()
		if v := d.View(); v.Version != 1 || !slices.Equal(v.Slots, slotsAt("h1:1")) {
			t.Errorf("after a failure the view is %+v", v)
		}
		s <- found{slots: slotsAt("h1:1")}
		s <- found{slots: slotsAt("h1:1")}
		s <- found{err: errors.New("once more")}
		synctest.Wait()
		for message, times := range map[string]int{"view of the nodes": 1, "cannot find nodes": 2, "no answer": 1, "no such host": 0, "found again": 1, "nodes=scripted": 4} {
			if n := strings.Count(logged.String(), message); n != times {
				t.Errorf("%q is logged %d times, want %d:\n%s", message, n, times, logged)
			}
		}
	})
}

func TestADirectoryEndsWithItsContextOrClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := Start(ctx, make(scripted), slog.New(slog.DiscardHandler))
		cancel()
		synctest.Wait()
		if !has(d.ended) {
			t.Error("it goes on after the end of its context")
		}
		d.Close()
		d = Start(t.Context(), &dnsSource{name: "nodes", port: 1, resolver: &names{}, interval: time.Hour}, slog.New(slog.DiscardHandler))
		d.Close()
		d.Close()
		if d.View() == nil {
			t.Error("it has no view after Close")
		}
	})
}
