package persist

import (
	"context"
	"fmt"
	"strings"
)

// Lost calls found for every object that nothing lists and nothing ever will: segments that were uploaded by a node which
// crashed before it could say so, or compacted by one whose manifest came second, and what is left of lives that are gone. With
// remove it deletes them. It lists the whole store. Segments that cannot be read are said to be so, and stay: a later version of
// this program may have written them. n is how many were found.
func (u *Upkeep) Lost(ctx context.Context, remove bool, found func(o Object, why string) error) (n int, err error) {
	e, err := u.reader.catalogue.refresh(ctx)
	if err != nil {
		return 0, err
	}
	if err := u.reader.catalogue.trust(e.manifest); err != nil {
		return 0, err
	}
	known := newKnown(e)
	after := ""
	for {
		objects, err := u.store.List(ctx, "", after, 1000)
		if err != nil || len(objects) == 0 {
			return n, err
		}
		for _, o := range objects {
			after = o.Name
			why := known.lost(o.Name)
			if why == "" {
				continue
			}
			stays, err := u.foreign(ctx, o)
			if err != nil {
				return n, err
			}
			if stays != nil {
				why = fmt.Sprintf("%s, but stays: %v", why, stays)
			}
			n++
			if err := found(o, why); err != nil {
				return n, err
			}
			if remove && stays == nil {
				if err := u.store.Delete(ctx, o.Name); err != nil {
					return n, err
				}
				u.counts.deleted.Add(1)
			}
		}
	}
}

// foreign says why an object is not to be deleted by this program.
func (u *Upkeep) foreign(ctx context.Context, o Object) (why, err error) {
	if !strings.HasPrefix(o.Name, segmentsFolder) && !strings.HasPrefix(o.Name, compactFolder) {
		return nil, nil
	}
	b, err := u.store.Get(ctx, o.Name, 0, int64(headerBytes))
	if err != nil {
		return nil, err
	}
	return checkHeader(b, kindSegment), nil
}

// known is what a catalogue has, by names.
type known struct {
	manifest *Manifest
	lives    map[uint64]ManifestLife
	heads    map[uint64]*Head
	listed   map[string]bool      // compacted segments, garbage too
	garbage  map[uint64][]Garbage // of lives
}

func newKnown(e *edition) *known {
	k := &known{e.manifest, map[uint64]ManifestLife{}, e.heads, map[string]bool{}, map[uint64][]Garbage{}}
	for _, l := range e.manifest.Lives {
		k.lives[l.Life] = l
	}
	for i := range e.manifest.Segments {
		k.listed[e.manifest.Segments[i].name()] = true
	}
	for _, g := range e.manifest.Garbage {
		if g.Life != 0 {
			k.garbage[g.Life] = append(k.garbage[g.Life], g)
		} else {
			k.listed[compactName(g.Manifest, g.Maker, g.Part)] = true
		}
	}
	return k
}

// lost says why an object is needed by nobody; "": it is, or may be yet.
func (k *known) lost(name string) string {
	var life, seq, n uint64
	switch {
	case parseNumbers(name, segmentsFolder, &life, &seq):
		return k.lostSegment(life, seq)
	case parseNumbers(name, headsFolder, &life), parseNumbers(name, sealedFolder, &life), parseNumbers(name, claimsFolder, &life, &n):
		if k.gone(life) && len(k.garbage[life]) == 0 {
			return "its life is gone"
		}
	case strings.HasPrefix(name, compactFolder):
		number, _, _ := strings.Cut(name[len(compactFolder):], "/")
		if parseNumbers(number, "", &n) && n <= k.manifest.Number && !k.listed[name] {
			return "no manifest lists it"
		}
	}
	return ""
}

func (k *known) gone(life uint64) bool {
	_, kept := k.lives[life]
	return !kept && life < k.manifest.NextLife
}

func (k *known) lostSegment(life, seq uint64) string {
	for _, g := range k.garbage[life] {
		if g.Last == 0 || seq >= g.First && seq <= g.Last {
			return "" // its turn comes
		}
	}
	if k.gone(life) {
		return "its life is gone"
	}
	if seq <= k.lives[life].Through {
		return "it was replaced"
	}
	h := k.heads[life]
	if h == nil || !h.Sealed {
		return "" // its node may be about to list it
	}
	for i := range h.Segments {
		if h.Segments[i].Seq == seq {
			return ""
		}
	}
	return "its life ended without listing it"
}
