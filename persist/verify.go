package persist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Verified is what was read and found right.
type Verified struct {
	Objects  int
	Segments int
	Messages uint64
	Bytes    int64 // of segments, as they are stored
}

// Verify reads everything that a store lists, to the last byte: checksums, what indexes say of blocks, and heads and manifests of
// segments. fault is told of each object that is not as it should be; progress of the bytes that are done. Both are called by
// one goroutine at a time. The error is of a store that is away, not of one that is broken.
func (r *Reader) Verify(ctx context.Context, progress func(done, of int64), fault func(object string, err error)) (Verified, error) {
	e, err := r.catalogue.refresh(ctx)
	if err != nil {
		return Verified{}, err
	}
	var done Verified
	for _, f := range r.faults.all() { // the catalogue's own
		fault(f.what, f.err)
	}
	if e.manifest.Number > 0 {
		done.Objects++
	}
	for life, h := range e.heads {
		if h.WrittenMs == 0 && h.Name == "" {
			continue // stands for one that is broken
		}
		n, err := r.verifyLife(ctx, life, h, fault)
		if err != nil {
			return done, err
		}
		done.Objects += n
	}
	segments := e.all()
	var size, read int64
	for i := range segments {
		size += segments[i].ref.Size
	}
	var mu sync.Mutex
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(r.fetches)
	for i := range segments {
		s := &segments[i]
		group.Go(func() error {
			body, err := r.store.Get(groupCtx, s.name, 0, -1)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if err == nil {
				err = verifySegment(body, s.ref)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fault(s.name, err)
			} else {
				done.Objects++
				done.Segments++
				done.Messages += s.ref.Messages
				done.Bytes += s.ref.Size
			}
			read += s.ref.Size
			progress(read, size)
			return nil
		})
	}
	return done, group.Wait()
}

// verifyLife looks at what there is of a life beside its segments; n is how many objects were right.
func (r *Reader) verifyLife(ctx context.Context, life uint64, h *Head, fault func(object string, err error)) (n int, err error) {
	n = 1
	if !h.Sealed {
		return n, nil
	}
	look := func(name string, parse func(b []byte) error) (there bool, err error) {
		b, err := r.store.Get(ctx, name, 0, -1)
		if err != nil {
			return false, err
		}
		if err := parse(b); err != nil {
			fault(name, err)
			return true, nil
		}
		n++
		return true, nil
	}
	_, err = look(sealedName(life), func(b []byte) error { _, _, err := ParseSealed(b, life); return err })
	if errors.Is(err, ErrNotFound) {
		fault(sealedName(life), err)
		err = nil
	}
	for k := uint64(1); err == nil; k++ {
		_, err = look(claimName(life, k), func(b []byte) error { _, err := ParseClaim(b, life, k); return err })
	}
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return n, err
}

// verifySegment compares a whole segment with what is said of it.
func verifySegment(body []byte, ref *SegmentRef) error {
	if int64(len(body)) != ref.Size {
		return fmt.Errorf("segment is %d bytes, listed as %d", len(body), ref.Size)
	}
	if err := checkHeader(body, kindSegment); err != nil {
		return err
	}
	x, err := parseIndex(body[ref.Size-ref.Tail:], ref.Size)
	if err != nil {
		return err
	}
	if x.messages != ref.Messages || x.bytes != ref.Plain {
		return fmt.Errorf("segment has %d messages of %d bytes, listed as %d of %d", x.messages, x.bytes, ref.Messages, ref.Plain)
	}
	plains := make([][]byte, len(x.blocks))
	for i := range x.blocks {
		b := &x.blocks[i]
		if plains[i], err = b.unpack(body[b.at : b.at+int64(b.packed)]); err != nil {
			return fmt.Errorf("block %d: %w", i, err)
		}
	}
	for topic, entries := range x.all() {
		if !ref.Filter.May(topicHash(topic)) {
			return fmt.Errorf("segment has topic %q, which its listed filter denies", topic)
		}
		for i := range entries {
			e := &entries[i]
			run := Run{Topic: topic, Epoch: e.epoch, Began: e.began, First: e.first, Count: e.count, Frames: plains[e.block][e.offset : e.offset+e.length], Times: e.times}
			if err := run.check(); err != nil {
				return fmt.Errorf("block %d: %w", e.block, err)
			}
			outside := func(t Time) bool { return t.UnixMs < ref.FirstMs || t.UnixMs > ref.LastMs }
			if slices.ContainsFunc(e.times, outside) {
				return fmt.Errorf("segment has topic %q outside of the times that are listed for it", topic)
			}
		}
	}
	return nil
}
