package main

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

// cgroups is where the kernel shows the control groups of this process: for
// each controller the group's own directory and those above it that can be
// seen from here, own first. Both versions are read, also mixed on one machine.
type cgroups struct {
	fsys   fs.FS // the root of the file system
	cpu    hierarchy
	memory hierarchy
}

type hierarchy struct {
	v2   bool
	dirs []string // empty: the controller is not here
}

// Kernel pages: Documentation/admin-guide/cgroup-v2.rst and cgroups(7);
// the fields of mountinfo are in proc_pid_mountinfo(5).

// findCgroups never fails for want of control groups: a process outside any
// has hierarchies without directories.
func findCgroups(fsys fs.FS) (cgroups, error) {
	groups := cgroups{fsys: fsys}
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
		for name, at := range map[string]*hierarchy{"cpu": &groups.cpu, "memory": &groups.memory} {
			switch {
			case hasWord(controllers, name):
				*at = hierarchy{dirs: groupDirs(mounts, "cgroup", name, group)}
			case controllers == "" && len(at.dirs) == 0:
				// A controller is in version 2 unless a version 1 line claims it.
				*at = hierarchy{v2: true, dirs: groupDirs(mounts, "cgroup2", "", group)}
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

// cpuQuota is the tightest quota, in CPUs; 0 is none.
func (g cgroups) cpuQuota() (cpus float64, err error) {
	for _, dir := range g.cpu.dirs {
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
func (g cgroups) cpuMax(dir string) (quota, period int64, err error) {
	if !g.cpu.v2 {
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

// memoryLimit is the tightest limit, in bytes; 0 is none. Version 1 writes
// "none" as a number near 2^63, which is for the caller to compare with the
// machine's memory.
func (g cgroups) memoryLimit() (limit int64, err error) {
	file := "memory.limit_in_bytes"
	if g.memory.v2 {
		file = "memory.max"
	}
	for _, dir := range g.memory.dirs {
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

// throttled is the time, in seconds, for which the group was kept from running
// by its quota. ok is false where the kernel does not count it.
func (g cgroups) throttled() (seconds float64, ok bool) {
	if len(g.cpu.dirs) == 0 {
		return 0, false
	}
	key, perSecond := "throttled_time", 1e9
	if g.cpu.v2 {
		key, perSecond = "throttled_usec", 1e6
	}
	text, err := g.text(path.Join(g.cpu.dirs[0], "cpu.stat"))
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
func (g cgroups) number(name string) (int64, error) {
	text, err := g.text(name)
	if err != nil || text == "" || text == "max" {
		return 0, err
	}
	n, err := parseNumber(name, text)
	return max(0, n), err
}

func (g cgroups) text(name string) (string, error) {
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
