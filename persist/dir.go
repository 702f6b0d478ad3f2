package persist

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Dir keeps objects as files below a directory, which several processes may share. Safe from any goroutine. A file is written
// beside its place under a name that no object has, brought to the disk, and then moved (Put) or linked (Create: of several
// links to one name the kernel lets one succeed), so that neither a reader nor a crash finds half of one.
type Dir struct {
	root string
}

const (
	halfPrefix = ".half-"         // of files that are being written
	halfAgeMax = 10 * time.Minute // older ones were left by a crash
	writeMax   = 1 << 20          // bytes between two looks at the context
)

// OpenDir makes the directory if there is none, and removes what crashed writers have left in it.
func OpenDir(root string) (*Dir, error) {
	d := &Dir{root: filepath.Clean(root)}
	if err := os.MkdirAll(d.root, 0o755); err != nil {
		return nil, fmt.Errorf("directory store %s: %w", root, err)
	}
	if err := d.sweep(time.Now().Add(-halfAgeMax)); err != nil {
		return nil, fmt.Errorf("directory store %s: %w", root, err)
	}
	return d, nil
}

func (d *Dir) sweep(before time.Time) error {
	return filepath.WalkDir(d.root, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(entry.Name(), halfPrefix) {
			var about fs.FileInfo
			if about, err = entry.Info(); err == nil && about.ModTime().Before(before) {
				err = os.Remove(file)
			}
		}
		if file != d.root && errors.Is(err, fs.ErrNotExist) {
			return nil // another process is at work here
		}
		return err
	})
}

func (d *Dir) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := admit(ctx, name); err != nil {
		return nil, err
	}
	body, err := d.read(name, offset, length)
	if absent(err) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return body, d.explain("read", name, err)
}

func (d *Dir) read(name string, offset, length int64) ([]byte, error) {
	file, err := os.Open(d.place(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	about, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if about.IsDir() {
		return nil, syscall.EISDIR
	}
	start, end := extent(about.Size(), offset, length)
	body := make([]byte, end-start)
	_, err = file.ReadAt(body, start)
	if err == io.EOF && len(body) == 0 {
		err = nil
	}
	return body, err
}

func (d *Dir) Put(ctx context.Context, name string, body []byte) error {
	return d.write(ctx, name, body, os.Rename)
}

func (d *Dir) Create(ctx context.Context, name string, body []byte) error {
	err := d.write(ctx, name, body, func(half, place string) error {
		err := os.Link(half, place)
		os.Remove(half) // in vain: the next OpenDir removes it
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", name, ErrExists)
	}
	return err
}

// write has body written beside name's place, and settle bring it there.
func (d *Dir) write(ctx context.Context, name string, body []byte, settle func(half, place string) error) error {
	if err := admit(ctx, name); err != nil {
		return err
	}
	place := d.place(name)
	for {
		half, err := d.writeHalf(ctx, filepath.Dir(place), body)
		if err == nil {
			err = settle(half, place)
			if err == nil {
				err = syncDir(filepath.Dir(place))
			} else {
				os.Remove(half)
			}
		}
		// Delete removes empty directories, also one that was just made for this object.
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return d.explain("write", name, err)
		}
		if err := d.makeDir(filepath.Dir(place)); err != nil {
			return d.explain("write", name, err)
		}
	}
}

func (d *Dir) writeHalf(ctx context.Context, dir string, body []byte) (name string, err error) {
	name = filepath.Join(dir, halfPrefix+rand.Text())
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	for err == nil && len(body) > 0 {
		n := min(len(body), writeMax)
		if _, err = file.Write(body[:n]); err == nil {
			err = ctx.Err()
		}
		body = body[n:]
	}
	if err == nil {
		err = file.Sync()
	}
	if failed := file.Close(); err == nil {
		err = failed
	}
	if err != nil {
		os.Remove(name)
	}
	return name, err
}

// makeDir makes a directory below the root, with those above it, to outlive a crash. The root itself is OpenDir's: one that has
// gone is a disk that is not mounted, and no place to write to.
func (d *Dir) makeDir(dir string) error {
	if dir == d.root {
		_, err := os.Stat(dir)
		return err
	}
	err := os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := d.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		return d.makeDir(dir)
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir brings a directory's entries to the disk.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

func (d *Dir) Delete(ctx context.Context, name string) error {
	if err := admit(ctx, name); err != nil {
		return err
	}
	place := d.place(name)
	err := syscall.Unlink(place) // os.Remove would remove an empty directory
	if absent(err) {
		return nil
	}
	if err != nil {
		return d.explain("delete", name, err)
	}
	for dir := filepath.Dir(place); dir != d.root && os.Remove(dir) == nil; {
		dir = filepath.Dir(dir)
	}
	return nil
}

func (d *Dir) place(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// explain says what could not be done; the system's errors name the path and the reason.
func (d *Dir) explain(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("directory store %s: %s %s: %w", d.root, verb, name, err)
}

// absent is whether an error says that there is no such file. A directory is no object, nor is there one below a file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR)
}
