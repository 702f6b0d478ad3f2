package persist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// claimsAtOnce bounds how many sealed lives are looked at at once.
const claimsAtOnce = 8

// Claim takes over what sealed lives owned of the topics in one slot of so many: their epochs go on here, and nowhere else. It is
// called before any of these topics has an epoch of this life's. slotOf places a topic. With an error there may have been claims
// whose topics nobody learns of: they begin new epochs, as they do elsewhere.
func (a *Archive) Claim(ctx context.Context, slot, slots int, slotOf func(topic string, slots int) int) ([]Sealed, error) {
	err := a.await(ctx, func(time.Time) (bool, time.Time) { return a.head.life != 0, time.Time{} })
	if err != nil {
		return nil, fmt.Errorf("cannot claim topics, having no life: %w", err)
	}
	e, err := a.reader.catalogue.refresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot claim topics: %w", err)
	}
	mine := heir{a: a, edition: e, claim: Claim{Life: a.Life(), Slot: slot, Slots: slots}, slotOf: slotOf}
	newest := map[string]Sealed{}
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(claimsAtOnce)
	for _, life := range e.sealed() {
		group.Go(func() error {
			topics, err := mine.claimOf(groupCtx, life)
			mu.Lock()
			defer mu.Unlock()
			for _, s := range topics {
				if other, ok := newest[s.Topic]; !ok || cmp.Or(cmp.Compare(other.Began, s.Began), cmp.Compare(other.Epoch, s.Epoch)) < 0 {
					newest[s.Topic] = s
				}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("cannot claim topics: %w", err)
	}
	all := make([]Sealed, 0, len(newest))
	for _, s := range newest {
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y Sealed) int { return cmp.Compare(x.Topic, y.Topic) })
	return all, nil
}

// sealed is the lives that a claim may be laid to.
func (l *edition) sealed() (lives []uint64) {
	for _, h := range l.heads {
		if h.Sealed {
			lives = append(lives, h.Life)
		}
	}
	for _, of := range l.manifest.Lives {
		if of.Over { // sealed, or a crash's
			lives = append(lives, of.Life)
		}
	}
	return lives
}

// outlived reports whether the slot of a claim has had a life after the newest one that a sealed record knows of: its topics have
// gone on without that record's epochs. A life that has stored nothing had no topics.
func (l *edition) outlived(by Claim, newest uint64) bool {
	for _, h := range l.heads {
		of, _ := l.manifest.life(h.Life)
		if h.Slot == by.Slot && h.Life != by.Life && h.Life > newest && (len(h.Segments) > 0 || of.Through > 0) {
			return true
		}
	}
	return false
}

// heir is who claims.
type heir struct {
	a       *Archive
	edition *edition
	claim   Claim
	slotOf  func(topic string, slots int) int
}

// claimOf claims what is left for this one of a sealed life. A topic is with the first claim that covers it.
func (h *heir) claimOf(ctx context.Context, life uint64) ([]Sealed, error) {
	record, err := h.a.store.Get(ctx, sealedName(life), 0, -1)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	newest, topics, err := ParseSealed(record, life)
	if err == nil && h.edition.outlived(h.claim, newest) {
		return nil, nil
	}
	if err != nil {
		h.a.reader.faults.note(sealedName(life), err)
		return nil, nil
	}
	topics = slices.DeleteFunc(topics, func(s Sealed) bool { return !h.covers(h.claim, s.Topic) })
	for n := uint64(1); len(topics) > 0; n++ {
		claim, err := h.claimNumber(ctx, life, n)
		if err != nil {
			return nil, err
		}
		if claim.Life == h.claim.Life {
			return topics, nil
		}
		topics = slices.DeleteFunc(topics, func(s Sealed) bool { return h.covers(claim, s.Topic) })
	}
	return nil, nil
}

func (h *heir) covers(c Claim, topic string) bool { return h.slotOf(topic, c.Slots) == c.Slot }

// claimNumber is the n-th claim on a life: this one's, if there was none.
func (h *heir) claimNumber(ctx context.Context, life, n uint64) (Claim, error) {
	name := claimName(life, n)
	body, err := h.a.store.Get(ctx, name, 0, -1)
	if errors.Is(err, ErrNotFound) {
		err = h.a.store.Create(ctx, name, AppendClaim(nil, life, n, h.claim))
		if err == nil {
			return h.claim, nil
		}
		if errors.Is(err, ErrExists) { // by another, or by a try of this one's that had no answer
			body, err = h.a.store.Get(ctx, name, 0, -1)
		}
	}
	if err != nil {
		return Claim{}, err
	}
	claim, err := ParseClaim(body, life, n)
	if err != nil {
		// Whose it is nobody can tell: all topics are as if claimed.
		return Claim{}, fmt.Errorf("%s: %w", name, err)
	}
	return claim, nil
}
