package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// bug is one way to have the engine wrong.
type bug struct {
	name  string
	does  string // in a sentence
	edits []edit
}

// edit is one stretch of a file, and what a bug has in its place. In the latter BUG is true if the bug is switched on.
type edit struct {
	file     string
	old, new string
}

// parse reads a bug: its first line says what it does, then, for each stretch of code,
//
//	@@ mailbox.go
//	 a line that stays
//	-a line that goes
//	+a line that comes
func parse(name, text string) (bug, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	b := bug{name: name, does: lines[0]}
	for i, line := range lines[1:] {
		file, begins := strings.CutPrefix(line, "@@ ")
		switch {
		case begins:
			b.edits = append(b.edits, edit{file: file})
			continue
		case len(b.edits) == 0 || line == "":
			return bug{}, fmt.Errorf("%s: line %d is %q, want @@ and a file", name, i+2, line)
		}
		e := &b.edits[len(b.edits)-1]
		rest := line[1:] + "\n"
		switch line[0] {
		case ' ':
			e.old += rest
			e.new += rest
		case '-':
			e.old += rest
		case '+':
			e.new += strings.ReplaceAll(rest, "BUG", fmt.Sprintf("(injected == %q)", name))
		default:
			return bug{}, fmt.Errorf("%s: line %d begins with %q, want a space, - or +", name, i+2, line[:1])
		}
	}
	if b.does == "" || len(b.edits) == 0 {
		return bug{}, fmt.Errorf("%s: a bug without a first line that says what it does, or without an edit", name)
	}
	return b, nil
}

// readBugs reads all bugs of a folder, in the order of their names.
func readBugs(folder string) (bugs []bug, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.bug"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		b, err := parse(strings.TrimSuffix(filepath.Base(file), ".bug"), string(text))
		if err != nil {
			return nil, err
		}
		bugs = append(bugs, b)
	}
	if len(bugs) == 0 {
		return nil, fmt.Errorf("no *.bug files in %s", folder)
	}
	return bugs, nil
}

// infest puts all bugs into the sources of a folder and returns the files that differ, by their names.
func infest(folder string, bugs []bug) (map[string]string, error) {
	files := map[string]string{}
	for _, b := range bugs {
		for _, e := range b.edits {
			text, ok := files[e.file]
			if !ok {
				read, err := os.ReadFile(filepath.Join(folder, e.file))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", b.name, err)
				}
				text = string(read)
			}
			if n := strings.Count("\n"+text, "\n"+e.old); n != 1 || e.old == "" {
				return nil, fmt.Errorf("%s: its lines are %d times in %s, want once:\n%s", b.name, n, e.file, e.old)
			}
			files[e.file] = strings.TrimPrefix(strings.Replace("\n"+text, "\n"+e.old, "\n"+e.new, 1), "\n")
		}
	}
	return files, nil
}

// theSwitch is the file that says which bug is switched on.
const theSwitch = `package engine

import "os"

var injected = os.Getenv("` + injectedVariable + `")
`

const injectedVariable = "RAYFLUX_BUG"
