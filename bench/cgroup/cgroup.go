// Package cgroup reads the limits that a container sets for this process: the kernel's control groups, both versions, also
// mixed on one machine. The server settles its defaults by them, rayflux bench makes groups of its own below them. It keeps
// no state; every function is safe from any goroutine.
package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Groups is where the kernel shows the control groups of this process.
type Groups struct {
	fsys   fs.FS // the root of the file system
	CPU    Hierarchy
	Memory Hierarchy
}

// Hierarchy is the groups of one controller.
type Hierarchy struct {
	V2 bool
	// Dirs are paths from the root of the file system, without the leading slash: the process's own group first, then
	// those above it that can be seen from here. Empty: the controller is not mounted.
	Dirs []string
}

// Kernel pages: Documentation/admin-guide/cgroup-v2.rst and cgroups(7);
// the fields of mountinfo are in proc_pid_mountinfo(5).

// Find never fails for want of control groups: a process outside any
// has hierarchies without directories.
func Find(fsys fs.FS) (Groups, error) {
	groups := Groups{fsys: fsys}
	memberships, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return groups, nil
	} else if err != nil {
		return groups, err
	}
	mounts, err := fs.ReadFile(fsys, "proc/self/mountinfo")
	if err != nil {
		return groups, err
	}
	for line := range bytes.Lines(memberships) {
		// hierarchy-ID:controller,controller:path; version 2 is 0::path.
		_, rest, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		if !ok {
			return groups, fmt.Errorf("/proc/self/cgroup: malformed line %q", line)
		}
		for name, at := range map[string]*Hierarchy{"cpu": &groups.CPU, "memory": &groups.Memory} {
			switch {
			case hasWord(controllers, name):
				*at = Hierarchy{Dirs: groupDirs(mounts, "cgroup", name, group)}
			case controllers == "" && len(at.Dirs) == 0:
				// A controller is in version 2 unless a version 1 line claims it.
				*at = Hierarchy{V2: true, Dirs: groupDirs(mounts, "cgroup2", "", group)}
			}
		}
	}
	return groups, nil
}

// groupDirs finds the mount of a hierarchy and returns the directories from
// group's own up to the mount point. A container may see its group's path as
// the host names it while only that group is mounted; the mount's root tells.
func groupDirs(mounts []byte, fsType, controller, group string) (dirs []string) {
	for line := range bytes.Lines(mounts) {
		before, after, ok := strings.Cut(string(line), " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 5 || len(super) < 3 || super[0] != fsType {
			continue
		}
		if controller != "" && !hasWord(super[2], controller) {
			continue
		}
		root, point := mount[3], strings.TrimPrefix(mount[4], "/")
		below, ok := strings.CutPrefix(group, strings.TrimSuffix(root, "/"))
		if !ok {
			below = "/"
		}
		for below = path.Clean("/" + below); below != "/"; below = path.Dir(below) {
			dirs = append(dirs, path.Join(point, below))
		}
		return append(dirs, point)
	}
	return nil
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// CPUQuota is the tightest quota, in CPUs; 0 is none.
func (g Groups) CPUQuota() (cpus float64, err error) {
	for _, dir := range g.CPU.Dirs {
		quota, period, err := g.cpuMax(dir)
		if err != nil {
			return 0, err
		}
		if quota > 0 && period > 0 && (cpus == 0 || float64(quota)/float64(period) < cpus) {
			cpus = float64(quota) / float64(period)
		}
	}
	return cpus, nil
}

// cpuMax reads one group's quota and period in microseconds; no quota is 0.
func (g Groups) cpuMax(dir string) (quota, period int64, err error) {
	if !g.CPU.V2 {
		if quota, err = g.number(path.Join(dir, "cpu.cfs_quota_us")); err != nil {
			return 0, 0, err
		}
		period, err = g.number(path.Join(dir, "cpu.cfs_period_us"))
		return quota, period, err
	}
	name := path.Join(dir, "cpu.max")
	text, err := g.text(name)
	if err != nil || text == "" {
		return 0, 0, err // the root group has no such file
	}
	q, p, _ := strings.Cut(text, " ")
	if q == "max" {
		return 0, 0, nil
	}
	if quota, err = parseNumber(name, q); err != nil {
		return 0, 0, err
	}
	period, err = parseNumber(name, p)
	return quota, period, err
}

// MemoryLimit is the tightest limit, in bytes; 0 is none. Version 1 writes
// "none" as a number near 2^63, which is for the caller to compare with the
// machine's memory.
func (g Groups) MemoryLimit() (limit int64, err error) {
	file := "memory.limit_in_bytes"
	if g.Memory.V2 {
		file = "memory.max"
	}
	for _, dir := range g.Memory.Dirs {
		n, err := g.number(path.Join(dir, file))
		if err != nil {
			return 0, err
		}
		if n > 0 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	return limit, nil
}

// Throttled is the time, in seconds, for which the group was kept from running
// by its quota. ok is false where the kernel does not count it.
func (g Groups) Throttled() (seconds float64, ok bool) {
	if len(g.CPU.Dirs) == 0 {
		return 0, false
	}
	key, perSecond := "throttled_time", 1e9
	if g.CPU.V2 {
		key, perSecond = "throttled_usec", 1e6
	}
	text, err := g.text(path.Join(g.CPU.Dirs[0], "cpu.stat"))
	if err != nil {
		return 0, false
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if name, digits, _ := strings.Cut(lines.Text(), " "); name == key {
			n, err := strconv.ParseUint(digits, 10, 64)
			return float64(n) / perSecond, err == nil
		}
	}
	return 0, false
}

// number reads a file of one number. No file, an empty one, "max" and -1 are 0.
func (g Groups) number(name string) (int64, error) {
	text, err := g.text(name)
	if err != nil || text == "" || text == "max" {
		return 0, err
	}
	n, err := parseNumber(name, text)
	return max(0, n), err
}

func (g Groups) text(name string) (string, error) {
	text, err := fs.ReadFile(g.fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

func parseNumber(name, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/%s: %q is not a number", name, text)
	}
	return n, nil
}
