package engine

import (
	"context"
	"time"

	"rayflux/persist"
)

// Archive keeps the messages of a node's topics beyond its memory. Offer never blocks; the others may, for seconds, and are called on
// goroutines of their own. Safe from any goroutine.
type Archive interface {
	// Offer hands over runs to be stored. When they are, or never will be, Server.Saved is to be called with the same batch.
	Offer(b *persist.Batch)
	// Resolve finds where a reader begins.
	Resolve(ctx context.Context, topic string, q persist.Query) (persist.Start, error)
	// Read reads messages behind a position: at least one if there is one, else no more than maxBytes of frames.
	Read(ctx context.Context, topic string, at persist.Position, maxBytes int) (persist.Page, error)
	// Seal stores what was offered and where topics stand that this process still owns, and ends the archive's writing.
	Seal(ctx context.Context, positions []persist.Sealed) error
}

// archivist is what a loop needs of the goroutines that ask the archive. Both return at once; what was asked comes back by
// keeper.archived, in an event of its own.
type archivist interface {
	offer(b *persist.Batch)
	ask(l *loop, q *inquiry)
}

const (
	inquiriesMax    = 64              // of one loop and kind under way
	inquiryPatience = 5 * time.Second // of a reader with the store, and with those before it
	inquiryCost     = 1 << 10         // of memory, besides its bytes; more than flightCost, of a command that waits behind one
)

// offer hands runs to the archive.
func (s *Server) offer(b *persist.Batch) { s.cfg.Archive.Offer(b) }

// ask puts a loop's question to the archive, on a goroutine of its own, and mails the answer.
func (s *Server) ask(l *loop, q *inquiry) {
	go func() {
		ctx, cancel := context.WithTimeout(s.asking, inquiryPatience)
		defer cancel()
		q.put(ctx, s.cfg.Archive)
		s.mail(l, mail{kind: mailArchived, inquiry: q})
	}()
}

// Saved tells that a batch that was offered is stored, or, with an error, that it never will be. Safe from any goroutine.
func (s *Server) Saved(b *persist.Batch, err error) {
	s.mail(s.loops[b.Tag], mail{kind: mailSaved, saved: b, err: err})
}

// Inherit tells where topics stood that this node goes on with, once. A node of a cluster begins no topic before. Safe from any
// goroutine.
func (s *Server) Inherit(positions []persist.Sealed) {
	s.mailAll(mail{kind: mailInherit, stood: positions})
}

// seal has every loop offer what it has, take nothing more, and say where its topics stand; the archive then stores both.
func (s *Server) seal(ctx context.Context) error {
	found := make(chan []persist.Sealed, len(s.loops))
	s.mailAll(mail{kind: mailSeal, sealed: found})
	var positions []persist.Sealed
	for range s.loops {
		select {
		case some := <-found:
			positions = append(positions, some...)
		case <-s.done:
			return s.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.cfg.Archive.Seal(ctx, positions)
}
