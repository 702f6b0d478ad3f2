package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// tree is a version's sources and the program built of them.
type tree struct{ dir, program string }

// unpack puts a commit's files into t.dir. git archive and not git worktree: an interrupted run leaves nothing behind in
// the repository.
func (t tree) unpack(ctx context.Context, commit string) error {
	if err := os.RemoveAll(t.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	archive := t.dir + ".tar"
	if _, err := output(exec.CommandContext(ctx, "git", "archive", "--output", archive, commit)); err != nil {
		return err
	}
	_, err := output(exec.CommandContext(ctx, "tar", "-x", "-f", archive, "-C", t.dir))
	return errors.Join(err, os.Remove(archive))
}

// build builds the program; without paths and commit in it, so that the same sources give the same bytes.
func (t tree) build(ctx context.Context) error {
	program, err := filepath.Abs(t.program)
	if err != nil {
		return err
	}
	_, err = t.goTool(ctx, "build", "-trimpath", "-buildvcs=false", "-o", program, ".")
	return err
}

// goTool runs go in the tree and returns what it printed.
func (t tree) goTool(ctx context.Context, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = t.dir
	return output(command)
}

func output(command *exec.Cmd) ([]byte, error) {
	printed, err := command.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return printed, fmt.Errorf("%s: %w\n%s%s", command, err, printed, exit.Stderr)
	}
	return printed, err
}
