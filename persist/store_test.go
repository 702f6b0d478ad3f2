package persist_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rayflux/persist"
	"rayflux/persist/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) persist.Store { return persist.NewMemory() })
}

func TestDir(t *testing.T) {
	storetest.Run(t, func(t *testing.T) persist.Store { return openDir(t, t.TempDir()) })
}

func openDir(t *testing.T, root string) *persist.Dir {
	t.Helper()
	d, err := persist.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDirForgetsHalfFiles(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	if err := d.Put(t.Context(), "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(root, "a", ".half-old"), filepath.Join(root, ".half-young")
	for _, file := range []string{old, young} {
		if err := os.WriteFile(file, []byte("hal"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lastHour := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old, lastHour, lastHour); err != nil {
		t.Fatal(err)
	}
	if found, err := d.List(t.Context(), "", "", 10); err != nil || len(found) != 1 || found[0].Name != "a/b" {
		t.Errorf("listed %v, %v", found, err)
	}
	openDir(t, root)
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s has outlived an OpenDir: %v", old, err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("another process's %s has gone: %v", young, err)
	}
}

func TestDirLeavesNothingBehind(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	for _, name := range []string{"a/b/c", "a/b/d", "e"} {
		for _, write := range []error{d.Create(t.Context(), name, nil), d.Put(t.Context(), name, nil)} {
			if write != nil {
				t.Fatal(write)
			}
		}
		if err := d.Create(t.Context(), name, nil); !errors.Is(err, persist.ErrExists) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/b/c", "a/b/d", "e"} {
		if err := d.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestDirErrorsNamePathAndReason(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := persist.OpenDir(filepath.Join(root, "file")); err == nil || !strings.Contains(err.Error(), root) {
		t.Errorf("a file is taken for a directory: %v", err)
	}
	d := openDir(t, filepath.Join(root, "gone"))
	if err := d.Put(t.Context(), "file", nil); err != nil {
		t.Fatal(err)
	}
	err := d.Put(t.Context(), "file/x", nil)
	if err == nil || !strings.Contains(err.Error(), "gone/file") || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("an object below an object: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "gone")); err != nil {
		t.Fatal(err)
	}
	// An unmounted disk: nothing is written to what lies beneath.
	if err := d.Put(t.Context(), "a/x", nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a store that has gone: %v", err)
	}
	if _, err := d.List(t.Context(), "", "", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of a store that has gone: %v", err)
	}
}
