package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A bug whose lines have changed is one that nobody looks for any more.
func TestEveryBugFitsTheEngine(t *testing.T) {
	bugs, err := readBugs(".")
	if err != nil {
		t.Fatal(err)
	}
	files, err := infest("..", bugs)
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, text := range files {
		all += text
	}
	for _, b := range bugs {
		if !strings.Contains(all, `(injected == "`+b.name+`")`) {
			t.Errorf("%s: nothing switches it on", b.name)
		}
	}
}

func TestBugsThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "without a first line"},
		{"It does harm.\n", "without an edit"},
		{"It does harm.\n-a\n", "want @@"},
		{"It does harm.\n@@ a.go\n\n-a\n", "want @@"},
		{"It does harm.\n@@ a.go\n*a\n", "want a space"},
	} {
		if _, err := parse("b", tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.text, err, tt.want)
		}
	}
}

func TestABugIsPutWhereItsLinesAre(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "a.go"), []byte("one\ntwo\nthree\ntwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ edit, want string }{
		{"@@ a.go\n-one\n+1 BUG\n", "1 (injected == \"b\")\ntwo\nthree\ntwo\n"},
		{"@@ a.go\n three\n-two\n+2\n@@ a.go\n-one\n", "two\nthree\n2\n"},
		{"@@ a.go\n-two\n+2\n", ""},  // which of them
		{"@@ a.go\n-wo\n+2\n", ""},   // not whole lines
		{"@@ a.go\n-four\n+4\n", ""}, // not there
	} {
		b, err := parse("b", "It does harm.\n"+tt.edit)
		if err != nil {
			t.Fatal(err)
		}
		files, err := infest(folder, []bug{b})
		if files["a.go"] != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q makes %q, %v; want %q", tt.edit, files["a.go"], err, tt.want)
		}
	}
}

func TestABugThatIsNotFoundFails(t *testing.T) {
	bugs := []bug{{name: "found"}, {name: "missed"}}
	var table strings.Builder
	err := report(&table, bugs, []verdict{{schedules: 7, judge: "offset 2, want 1"}, {err: errors.New("not found in 9 schedules")}})
	if err == nil || !strings.HasSuffix(err.Error(), ": missed") {
		t.Errorf("it says %v", err)
	}
	for _, want := range []string{"7 ", "offset 2, want 1", "not found in 9 schedules"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("%q is not in\n%s", want, table.String())
		}
	}
}
