package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"rayflux/protocol"
)

// What a store does wrong, with a node as a process: it goes on without, says why, and stores again when it can.

// onDisk is a directory on a file system of its own, as large as size says, for a process that is started behind its shell
// commands, and gone with that process.
type onDisk struct {
	path  string // as the process sees it
	shell string
}

func newDisk(t *testing.T, size string) onDisk {
	t.Helper()
	apart := "unshare --mount"
	if os.Geteuid() != 0 {
		apart = "unshare --user --map-root-user --mount"
	}
	d := onDisk{path: t.TempDir()}
	mount := fmt.Sprintf("mount -t tmpfs -o size=%s tmpfs %s", size, d.path)
	if out, err := exec.Command("sh", "-c", apart+" "+mount).CombinedOutput(); err != nil {
		t.Skipf("a process cannot be given a file system of its own here: %v: %s", err, out)
	}
	d.shell = fmt.Sprintf(`exec %s sh -c '%s && exec "$0" "$@"' "$0" "$@"`, apart, mount)
	return d
}

// seen is where everybody else sees the directory of a process.
func (d onDisk) seen(n *node) string {
	return fmt.Sprintf("/proc/%d/root%s", n.cmd.Process.Pid, d.path)
}

// fill writes a file until there is no room for more of it.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for page := make([]byte, 4<<10); err == nil; {
		_, err = file.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
}

func TestAFullDiskIsToldAndOutlived(t *testing.T) {
	disk := newDisk(t, "4m")
	n := startServer(t, disk.shell, "node", "127.0.0.1:0", 2, "--store=dir:"+filepath.Join(disk.path, "store"), "--snapshot-interval=50ms", "--stored-timeout=1s")
	s := &shelf{t: t, at: "dir:" + filepath.Join(disk.seen(n), "store"), front: n}
	const topic = "full"
	reader, p := n.native(t), n.native(t)
	reader.subscribe(topic, "")
	publish := func(offset uint64, ack, answer string) event {
		t.Helper()
		e := p.ask(fmt.Sprintf(`{"op":"publish","id":%d,"topic":%q,"text":"%d"%s}`, offset, topic, offset, ack), answer)
		if m := reader.hear("message"); m.Offset != offset || m.text() != fmt.Sprint(offset) {
			t.Errorf("message %d is delivered as %+v", offset, m)
		}
		return e
	}
	const stored = `,"ack":"stored"`
	publish(1, stored, "published")
	filler := filepath.Join(disk.seen(n), "filler")
	fillDisk(t, filler)
	if e := publish(2, stored, "error"); e.Code != string(protocol.CodeStoreUnavailable) {
		t.Errorf("told %+v", e)
	}
	publish(3, "", "published")
	mentions(t, n.lastWords(), "the store fails", "segments/0000000001/", "no space left on device")
	if m := n.metrics(); m[`rayflux_store_requests_total{op="create",result="full"}`] == 0 || m["rayflux_store_backlog_bytes"] == 0 {
		t.Errorf("it counts %v", m)
	}
	if held := s.holds(topic); !slices.Equal(held, []string{"1"}) {
		t.Errorf("the full store holds %q", held)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.counted("rayflux_store_backlog_bytes", 0)
	publish(4, stored, "published")
	mentions(t, n.lastWords(), "the store is back")
	if held := s.holds(topic); !slices.Equal(held, []string{"1", "2", "3", "4"}) {
		t.Errorf("the store holds %q", held)
	}
	if halves, err := filepath.Glob(filepath.Join(disk.seen(n), "store", "*", "*", ".half-*")); err != nil || len(halves) > 0 {
		t.Errorf("what did not fit is left: %q (%v)", halves, err)
	}
	exit, out, complaints := said(t, "snapshot", "verify", "--store="+s.at)
	if exit != exitClean || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("verify: exit status %d: %s%s", exit, out, complaints)
	}
}
