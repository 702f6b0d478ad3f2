package s3test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// build has the program's binary in the repository's .cache, and says where. Tests of several packages may want it at once: one
// of them builds, the others wait.
func (p program) build() (path string, err error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("where the repository is: %w", err)
	}
	_, version, _ := strings.Cut(p.module, "@")
	dir := filepath.Join(strings.TrimSpace(string(root)), ".cache", "stores", p.name+"-"+version)
	path = filepath.Join(dir, p.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close() // and with it ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	command := exec.Command("go", "install", p.module)
	command.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if said, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w: %s", p.module, err, said)
	}
	return path, nil
}
