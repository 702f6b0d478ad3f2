// Package storetest is what a persist.Store must do, as tests. Every implementation runs them.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"rayflux/persist"
)

// Run holds stores against the contract. Each test opens an empty one.
func Run(t *testing.T, open func(t *testing.T) persist.Store) {
	for _, test := range []struct {
		name string
		of   func(t *testing.T, store persist.Store)
	}{
		{"GetReadsRanges", getReadsRanges},
		{"AnEmptyObjectIsAnObject", anEmptyObjectIsAnObject},
		{"PutReplacesTheWhole", putReplacesTheWhole},
		{"ReadersSeeTheOldOrTheNew", readersSeeTheOldOrTheNew},
		{"CreateNeverReplaces", createNeverReplaces},
		{"OneOfManyCreatesWins", oneOfManyCreatesWins},
		{"ListIsInOrderAndInPages", listIsInOrderAndInPages},
		{"DeleteOfNothingIsNoError", deleteOfNothingIsNoError},
		{"ADeletedNameIsFreeAgain", aDeletedNameIsFreeAgain},
		{"NamesAreChecked", namesAreChecked},
		{"ACancelledCallFails", aCancelledCallFails},
		{"LargeObjectsComeBack", largeObjectsComeBack},
		{"BodiesAreTheCallersAgain", bodiesAreTheCallersAgain},
	} {
		t.Run(test.name, func(t *testing.T) { test.of(t, open(t)) })
	}
}

func getReadsRanges(t *testing.T, store persist.Store) {
	const body = "0123456789"
	must(t, store.Put(t.Context(), "a/digits", []byte(body)))
	for _, c := range []struct {
		offset, length int64
		want           string
	}{
		{0, -1, body},
		{0, 10, body},
		{0, 11, body},
		{0, 0, ""},
		{0, 1, "0"},
		{3, 4, "3456"},
		{3, -1, "3456789"},
		{9, 1, "9"},
		{9, 100, "9"},
		{10, 1, ""},
		{10, -1, ""},
		{11, -1, ""},
		{1 << 40, 5, ""},
		{-1, -1, "9"},
		{-4, -1, "6789"},
		{-4, 2, "67"},
		{-4, 100, "6789"},
		{-4, 0, ""},
		{-10, -1, body},
		{-11, -1, body},
		{-1 << 40, 3, "012"},
	} {
		got, err := store.Get(t.Context(), "a/digits", c.offset, c.length)
		if err != nil || string(got) != c.want {
			t.Errorf("get %d bytes from %d on: %q, %v; want %q", c.length, c.offset, got, err, c.want)
		}
	}
	for _, name := range []string{"a/digit", "a/digits0", "a", "b", "b/c/d"} {
		for _, length := range []int64{-1, 0, 1} {
			if got, err := store.Get(t.Context(), name, 0, length); !errors.Is(err, persist.ErrNotFound) {
				t.Errorf("get %d bytes of %s, which is no object: %q, %v", length, name, got, err)
			} else if !strings.Contains(err.Error(), name) {
				t.Errorf("the error does not name %s: %v", name, err)
			}
		}
	}
}

func anEmptyObjectIsAnObject(t *testing.T, store persist.Store) {
	must(t, store.Put(t.Context(), "put", nil))
	must(t, store.Create(t.Context(), "created", nil))
	for _, name := range []string{"put", "created"} {
		for _, offset := range []int64{-3, 0, 3} {
			for _, length := range []int64{-1, 0, 1} {
				if got, err := store.Get(t.Context(), name, offset, length); err != nil || len(got) != 0 {
					t.Errorf("get %d bytes of %s from %d on: %q, %v", length, name, offset, got, err)
				}
			}
		}
		if err := store.Create(t.Context(), name, []byte("x")); !errors.Is(err, persist.ErrExists) {
			t.Errorf("create %s, which is there and empty: %v", name, err)
		}
	}
	wantList(t, store, "", "", 10, "created:0", "put:0")
}

func putReplacesTheWhole(t *testing.T, store persist.Store) {
	for _, body := range []string{"a long body", "short", "", "and a longer one again"} {
		must(t, store.Put(t.Context(), "x/y", []byte(body)))
		wantBody(t, store, "x/y", body)
		wantList(t, store, "x/", "", 10, fmt.Sprintf("x/y:%d", len(body)))
	}
}

func readersSeeTheOldOrTheNew(t *testing.T, store persist.Store) {
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 100_000+i) }
	must(t, store.Put(t.Context(), "x", version(0)))
	written := make(chan error, 1)
	go func() {
		var err error
		for i := range 20 {
			err = errors.Join(err, store.Put(t.Context(), "x", version(i)))
		}
		written <- err
	}()
	for reading := true; reading; {
		select {
		case err := <-written:
			must(t, err)
			reading = false
		default:
		}
		got, err := store.Get(t.Context(), "x", 0, -1)
		must(t, err)
		if len(got) < 100_000 || !bytes.Equal(got, version(int(got[0]-'a'))) {
			t.Fatalf("read %d bytes, the first is %.1q: no version is like this", len(got), got)
		}
	}
}

func createNeverReplaces(t *testing.T, store persist.Store) {
	must(t, store.Create(t.Context(), "x/1", []byte("first")))
	must(t, store.Put(t.Context(), "x/2", []byte("first")))
	for _, name := range []string{"x/1", "x/2"} {
		err := store.Create(t.Context(), name, []byte("second"))
		if !errors.Is(err, persist.ErrExists) {
			t.Errorf("create %s, which is there: %v", name, err)
		} else if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
		wantBody(t, store, name, "first")
	}
	must(t, store.Put(t.Context(), "x/1", []byte("third")))
	wantBody(t, store, "x/1", "third")
}

func oneOfManyCreatesWins(t *testing.T, store persist.Store) {
	const rivals = 16
	for round := range 5 {
		name := fmt.Sprintf("prize/%d/x", round)
		var errs [rivals]error
		var start, end sync.WaitGroup
		start.Add(1)
		for i := range rivals {
			end.Go(func() {
				start.Wait()
				errs[i] = store.Create(t.Context(), name, fmt.Appendf(nil, "rival %d", i))
			})
		}
		start.Done()
		end.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("both %d and %d have created %s", winner, i, name)
			case !errors.Is(err, persist.ErrExists):
				t.Errorf("rival %d: %v", i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("nobody has created %s", name)
		}
		wantBody(t, store, name, fmt.Sprintf("rival %d", winner))
	}
}

func listIsInOrderAndInPages(t *testing.T, store persist.Store) {
	// '-' and '.' come before '/', and digits and letters behind it.
	names := []string{"a-b", "a.b", "a/b/c", "a/b/d", "a/c", "a0", "b/00", "b/01", "b/010/x", "b/02", "c"}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(names)) {
		must(t, store.Put(t.Context(), names[i], make([]byte, i)))
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "a-", "b/0", "b/01", "c", "c/", "d", "a/b/c", "a/b/c/"} {
		for _, after := range []string{"", "0", "a", "a-b", "a/", "a/b", "a/b/c", "a/b0", "a/c", "b/01", "b/010", "b/01/", "c", "d"} {
			for _, max := range []int{0, 1, 3, len(names), 1000} {
				var want []string
				for i, name := range names {
					if strings.HasPrefix(name, prefix) && name > after && len(want) < max {
						want = append(want, fmt.Sprintf("%s:%d", name, i))
					}
				}
				wantList(t, store, prefix, after, max, want...)
			}
		}
	}
}

func deleteOfNothingIsNoError(t *testing.T, store persist.Store) {
	must(t, store.Delete(t.Context(), "nothing"))
	must(t, store.Put(t.Context(), "a/b/c", []byte("x")))
	for _, name := range []string{"a", "a/b", "a/b/d", "a/d/c", "a/b/c/d"} {
		must(t, store.Delete(t.Context(), name))
	}
	wantBody(t, store, "a/b/c", "x")
}

func aDeletedNameIsFreeAgain(t *testing.T, store persist.Store) {
	for _, body := range []string{"first", "second"} {
		must(t, store.Create(t.Context(), "a/b/c", []byte(body)))
		wantBody(t, store, "a/b/c", body)
		must(t, store.Delete(t.Context(), "a/b/c"))
		must(t, store.Delete(t.Context(), "a/b/c"))
		if got, err := store.Get(t.Context(), "a/b/c", 0, -1); !errors.Is(err, persist.ErrNotFound) {
			t.Errorf("read %q, %v after its end", got, err)
		}
		wantList(t, store, "", "", 10)
	}
}

func namesAreChecked(t *testing.T, store persist.Store) {
	for _, name := range []string{"x", "0", "segments/0000000001/0000000002", "a-b.c/d..e-"} {
		must(t, store.Put(t.Context(), name, []byte(name)))
		wantBody(t, store, name, name)
	}
	for _, name := range []string{"", "/", "/x", "x/", "x//y", ".", "..", "../x", "x/..", "x/../y", "x/./y", ".x", "-x", "x/.y", "X", "x y", "x\\y", "x\x00", "é", "x:y", "%41", strings.Repeat("x", persist.NameMax+1)} {
		_, get := store.Get(t.Context(), name, 0, -1)
		for _, err := range []error{get, store.Put(t.Context(), name, nil), store.Create(t.Context(), name, nil), store.Delete(t.Context(), name)} {
			if err == nil || errors.Is(err, persist.ErrNotFound) || errors.Is(err, persist.ErrExists) {
				t.Errorf("%q is taken for a name: %v", name, err)
			}
		}
	}
}

func aCancelledCallFails(t *testing.T, store persist.Store) {
	must(t, store.Put(t.Context(), "x", []byte("x")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, get := store.Get(ctx, "x", 0, -1)
	_, list := store.List(ctx, "", "", 1)
	for i, err := range []error{get, list, store.Put(ctx, "x", []byte("y")), store.Create(ctx, "y", []byte("y")), store.Delete(ctx, "x")} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("call %d of a cancelled context: %v", i, err)
		}
	}
	wantBody(t, store, "x", "x")
	wantList(t, store, "", "", 10, "x:1")
}

func largeObjectsComeBack(t *testing.T, store persist.Store) {
	body := make([]byte, 20<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(body)
	must(t, store.Create(t.Context(), "large/created", body))
	must(t, store.Put(t.Context(), "large/put", body))
	for _, name := range []string{"large/created", "large/put"} {
		got, err := store.Get(t.Context(), name, 0, -1)
		must(t, err)
		if !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes came back, and not those of %d that were written", name, len(got), len(body))
		}
		got, err = store.Get(t.Context(), name, 10<<20, 1<<20)
		must(t, err)
		if !bytes.Equal(got, body[10<<20:11<<20]) {
			t.Errorf("%s: %d bytes from its middle are not those that were written", name, len(got))
		}
	}
}

func bodiesAreTheCallersAgain(t *testing.T, store persist.Store) {
	body := []byte("first")
	must(t, store.Put(t.Context(), "put", body))
	must(t, store.Create(t.Context(), "created", body))
	copy(body, "-----")
	for _, name := range []string{"put", "created"} {
		got, err := store.Get(t.Context(), name, 0, -1)
		must(t, err)
		if string(got) != "first" {
			t.Errorf("%s is %q: it changed with the caller's body", name, got)
		}
		copy(got, "-----")
		wantBody(t, store, name, "first")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantBody(t *testing.T, store persist.Store, name, want string) {
	t.Helper()
	if got, err := store.Get(t.Context(), name, 0, -1); err != nil || string(got) != want {
		t.Errorf("%s is %q, %v; want %q", name, got, err, want)
	}
}

// wantList wants objects as "name:size".
func wantList(t *testing.T, store persist.Store, prefix, after string, max int, want ...string) {
	t.Helper()
	objects, err := store.List(t.Context(), prefix, after, max)
	if err != nil {
		t.Errorf("list %q after %q: %v", prefix, after, err)
		return
	}
	var got []string
	for _, o := range objects {
		got = append(got, fmt.Sprintf("%s:%d", o.Name, o.Size))
	}
	if !slices.Equal(got, want) {
		t.Errorf("list %q after %q, at most %d: %v, want %v", prefix, after, max, got, want)
	}
}
