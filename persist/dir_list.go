package persist

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

func (d *Dir) List(ctx context.Context, prefix, after string, max int) ([]Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := listing{ctx: ctx, root: d.root, prefix: prefix, after: after, max: max}
	// The deepest directory that holds all of it; a prefix that no name has leads nowhere.
	from := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		if from = prefix[:i]; CheckName(from) != nil {
			return nil, nil
		}
	}
	err := l.walk(from)
	return l.found, d.explain("list", prefix, err)
}

// listing is one List under way.
type listing struct {
	ctx           context.Context
	root          string
	prefix, after string
	max           int
	found         []Object
}

// walk lists a directory; "" is the root. A directory's entries are in order of their names, but a directory stands for names
// that go on with '/', which comes behind '-' and '.'.
func (l *listing) walk(dir string) error {
	entries, err := os.ReadDir(filepath.Join(l.root, filepath.FromSlash(dir)))
	if absent(err) && dir != "" {
		return nil
	}
	if err == nil {
		err = l.ctx.Err()
	}
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(inNames(a), inNames(b)) })
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if len(l.found) >= l.max {
			return nil
		}
		if CheckName(name) != nil {
			continue // half a file, or not ours
		}
		if entry.IsDir() {
			below := name + "/"
			over := below <= l.after && !strings.HasPrefix(l.after, below)
			if !over && (strings.HasPrefix(below, l.prefix) || strings.HasPrefix(l.prefix, below)) {
				err = l.walk(name)
			}
		} else if strings.HasPrefix(name, l.prefix) && name > l.after {
			err = l.add(name, entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) add(name string, entry fs.DirEntry) error {
	about, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted since
	}
	if err == nil {
		l.found = append(l.found, Object{name, about.Size()})
	}
	return err
}

// inNames is how a directory's entry stands in the names of objects.
func inNames(entry fs.DirEntry) string {
	if entry.IsDir() {
		return entry.Name() + "/"
	}
	return entry.Name()
}
