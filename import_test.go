package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// rooms says which rooms of ours each room may import, apart from itself. A
// folder belongs to the nearest room above it; one that has none has no place
// in the house. "." is the root package, which nobody can import.
var rooms = map[string][]string{
	".":                    {"balancer", "balancer/cluster", "balancer/cluster/k8s", "balancer/watch", "bench", "client", "engine", "persist", "persist/s3", "protocol"},
	"protocol":             {},
	"protocol/conformance": {"protocol"},
	"engine":               {"persist", "protocol"},
	"balancer":             {"balancer/cluster", "engine", "protocol"},
	"balancer/cluster":     {"engine", "protocol"},
	"balancer/cluster/k8s": {"balancer/cluster", "engine"},
	"balancer/watch":       {},
	"persist":              {},
	"persist/s3":           {"persist"},
	"client":               {"protocol"},
	"bench":                {"client", "protocol"},
}

// fences keep a vendor to one room and, there, to one package or even one file.
var fences = []struct {
	vendor  string // how the import path begins
	room    string
	oneFile bool
}{
	{"github.com/panjf2000/gnet/", "engine", true},
	{"github.com/aws/", "persist/s3", false},
	{"k8s.io/", "balancer/cluster/k8s", false},
	{"github.com/dgryski/go-jump", "balancer/cluster", false},
	{"charm.land/", "balancer/watch", false},
	{"github.com/charmbracelet/", "balancer/watch", false},
	{"github.com/spf13/", ".", false},
	{"go.yaml.in/", ".", false},
}

// impure is what package protocol does without: sockets, files, and whatever
// makes a goroutine worth starting.
var impure = []string{"context", "log", "log/slog", "net", "os", "os/signal", "runtime", "sync", "sync/atomic"}

func TestImportsKeepToTheirDirections(t *testing.T) {
	imports, err := readImports(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(imports) == 0 {
		t.Fatal("no imports found: the test looks at the wrong place")
	}
	for _, v := range violations(imports) {
		t.Error(v)
	}
}

// importOf is one import of one file, both as paths from the root.
type importOf struct{ file, path string }

func (i importOf) dir() string { return path.Dir(i.file) }

// readImports finds the imports of every Go file, whatever its build tags.
// Tests are left out: a test may well drive the neighbours.
func readImports(root fs.FS) (imports []importOf, err error) {
	err = fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") || strings.HasSuffix(base, "_test.go") {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, importOf{name, imported})
		}
		return nil
	})
	return imports, err
}

func violations(imports []importOf) (found []string) {
	for _, i := range imports {
		from := roomOf(i.dir())
		if from == "" {
			found = append(found, fmt.Sprintf("%s: folder %s is in no room: give it one in this test's table", i.file, i.dir()))
			continue
		}
		if ours, ok := strings.CutPrefix(i.path, "rayflux/"); ok {
			if to := roomOf(ours); to != from && !slices.Contains(rooms[from], to) {
				found = append(found, fmt.Sprintf("%s: %s may not import %s", i.file, from, ours))
			}
		}
		if from == "protocol" && slices.Contains(impure, i.path) {
			found = append(found, fmt.Sprintf("%s: protocol does without %s", i.file, i.path))
		}
	}
	return append(found, brokenFences(imports)...)
}

func brokenFences(imports []importOf) (found []string) {
	for _, fence := range fences {
		var home string // the file or package that imports the vendor first
		for _, i := range imports {
			if !strings.HasPrefix(i.path, fence.vendor) {
				continue
			}
			if roomOf(i.dir()) != fence.room {
				found = append(found, fmt.Sprintf("%s: %s is for %s alone", i.file, i.path, fence.room))
				continue
			}
			place := i.dir()
			if fence.oneFile {
				place = i.file
			}
			if home == "" {
				home = place
			} else if place != home {
				found = append(found, fmt.Sprintf("%s: %s is imported in %s already, and in no second place", i.file, i.path, home))
			}
		}
	}
	return found
}

// roomOf is the nearest room at or above dir; "" if there is none. The root is
// above everything, and a room for its own files only.
func roomOf(dir string) string {
	if dir == "." {
		return dir
	}
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := rooms[dir]; ok {
			return dir
		}
	}
	return ""
}

func TestWrongImportsAreFound(t *testing.T) {
	const gnet = "github.com/panjf2000/gnet/v2"
	for _, c := range []struct {
		name  string
		files map[string]string // file to its import
		want  string            // in the only violation; "" for none
	}{
		{"root imports all", map[string]string{"main.go": "rayflux/persist/s3"}, ""},
		{"own room", map[string]string{"bench/run/main.go": "rayflux/bench"}, ""},
		{"down", map[string]string{"engine/a.go": "rayflux/protocol"}, ""},
		{"up", map[string]string{"protocol/a.go": "rayflux/engine"}, "protocol may not import engine"},
		{"sideways", map[string]string{"client/a.go": "rayflux/engine"}, "client may not import engine"},
		{"into a room behind a room", map[string]string{"engine/a.go": "rayflux/persist/s3"}, "engine may not import persist/s3"},
		{"from below a room", map[string]string{"bench/run/main.go": "rayflux/engine"}, "bench may not import engine"},
		{"the other system's file", map[string]string{"protocol/a_windows.go": "rayflux/engine"}, "protocol may not import engine"},
		{"a test may", map[string]string{"client/a_test.go": "rayflux/engine"}, ""},
		{"no room", map[string]string{"util/a.go": "fmt"}, "folder util is in no room"},
		{"no room below no room", map[string]string{"internal/pkg/a.go": "fmt"}, "folder internal/pkg is in no room"},
		{"impure protocol", map[string]string{"protocol/a.go": "net"}, "protocol does without net"},
		{"one file with gnet", map[string]string{"engine/a.go": gnet}, ""},
		{"two files with gnet", map[string]string{"engine/a.go": gnet, "engine/b.go": gnet}, "imported in engine/a.go already"},
		{"gnet elsewhere", map[string]string{"balancer/a.go": gnet}, "is for engine alone"},
		{"a screen elsewhere", map[string]string{"top.go": "charm.land/bubbletea/v2"}, "is for balancer/watch alone"},
		{"AWS elsewhere", map[string]string{"persist/a.go": "github.com/aws/aws-sdk-go-v2/service/s3"}, "is for persist/s3 alone"},
		{"a second way to place topics", map[string]string{"engine/a.go": "github.com/dgryski/go-jump"}, "is for balancer/cluster alone"},
		{"client-go elsewhere", map[string]string{"balancer/cluster/a.go": "k8s.io/api/core/v1"}, "is for balancer/cluster/k8s alone"},
		{"client-go in two packages", map[string]string{
			"balancer/cluster/k8s/a.go":   "k8s.io/client-go/kubernetes",
			"balancer/cluster/k8s/b.go":   "k8s.io/api/core/v1",
			"balancer/cluster/k8s/x/a.go": "k8s.io/client-go/kubernetes",
		}, "imported in balancer/cluster/k8s already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for name, imported := range c.files {
				tree[name] = &fstest.MapFile{Data: []byte("package p\n\nimport _ " + strconv.Quote(imported) + "\n")}
			}
			imports, err := readImports(tree)
			if err != nil {
				t.Fatal(err)
			}
			found := strings.Join(violations(imports), "\n")
			if c.want == "" && found != "" || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}
