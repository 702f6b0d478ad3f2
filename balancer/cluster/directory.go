package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"rayflux/engine"
)

// Directory is the engine's view of a source. Its methods are safe from any goroutine, and only Close blocks.
type Directory struct {
	view   atomic.Pointer[engine.View]
	source Source
	news   chan struct{} // one token: view is another one
	known  chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
}

var _ engine.Directory = (*Directory)(nil)

// Start follows a source until the end of ctx, or Close. Until the source knows the slots the view has none, version 0
// and fingerprint 0. Nobody else may use the source from then on.
func Start(ctx context.Context, from Source, log *slog.Logger) *Directory {
	ctx, cancel := context.WithCancel(ctx)
	d := &Directory{source: from, news: make(chan struct{}, 1), known: make(chan struct{}), cancel: cancel, ended: make(chan struct{})}
	d.view.Store(&engine.View{})
	go d.follow(ctx, from, log.With("nodes", from.String()))
	return d
}

// Close ends the search for changes and returns when it has ended. The last view stays.
func (d *Directory) Close() {
	d.cancel()
	<-d.ended
}

// View is what is known now.
func (d *Directory) View() *engine.View { return d.view.Load() }

// Choice is [Choice].
func (d *Directory) Choice(hash uint64, attempt, slots int) int { return Choice(hash, attempt, slots) }

// Watch has a token after each change of View; one may stand for many changes. One receiver.
func (d *Directory) Watch() <-chan struct{} { return d.news }

// doubter is a source that can be told that it may be behind. The others hear of changes by themselves, or of none.
type doubter interface{ Doubt() }

// Doubt has the source look again soon.
func (d *Directory) Doubt() {
	if s, ok := d.source.(doubter); ok {
		s.Doubt()
	}
}

// Known is closed when View has slots for the first time. Any number of receivers.
func (d *Directory) Known() <-chan struct{} { return d.known }

func (d *Directory) follow(ctx context.Context, from Source, log *slog.Logger) {
	defer close(d.ended)
	failing := false
	for {
		slots, err := from.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			log.Warn("cannot find nodes; those known before stay", "err", err)
		case err == nil && failing:
			log.Info("nodes are found again")
		}
		if failing = err != nil; !failing {
			d.learn(slots, log)
		}
	}
}

func (d *Directory) learn(slots []engine.Slot, log *slog.Logger) {
	last := d.view.Load()
	view := Renew(last, slots)
	if view == last {
		return
	}
	d.view.Store(view)
	log.Info("view of the nodes", "version", view.Version, "slots", len(view.Slots), "fingerprint", fmt.Sprintf("%016x", view.Fingerprint))
	if last.Version == 0 {
		close(d.known)
	}
	select {
	case d.news <- struct{}{}:
	default: // a token waits, and whoever takes it sees this view
	}
}
