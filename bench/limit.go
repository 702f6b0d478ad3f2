package bench

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"rayflux/bench/cgroup"

	"golang.org/x/sys/unix"
)

const (
	groupPrefix   = "rayflux-bench-"
	groupPatience = 2 * time.Second        // for the last thread of a group to be gone
	quotaPeriod   = 100 * time.Millisecond // that of every container run-time
)

// confinement is a server's own control group, made to its scenario's limits. Kernel pages: cgroups(7),
// Documentation/admin-guide/cgroup-v2.rst.
type confinement struct {
	dirs  []string // to be removed at the end
	tasks []string // version 1: files that take the number of the thread that is to start the server
	fd    *os.File // version 2: the group, for clone3(2)
}

var groupCount atomic.Int32

// confine makes a group below this process's own (version 1), so that the server stays in what limits and accounts for
// this process, or beside it (version 2, where a group with processes can have no groups below it that limit anything).
func confine(s Scenario, groups cgroup.Groups) (c *confinement, err error) {
	c = &confinement{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("limit of%s: %w", s.limits(), err), c.remove())
		}
	}()
	name := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), groupCount.Add(1))
	if groups.CPU.V2 && groups.Memory.V2 {
		return c, c.unified(name, groups.CPU.Dirs, s)
	}
	if s.LimitCPU > 0 {
		err = c.classic(name, "cpu", groups.CPU, [][2]string{
			{"cpu.cfs_period_us", strconv.FormatInt(quotaPeriod.Microseconds(), 10)}, {"cpu.cfs_quota_us", quota(s.LimitCPU)}})
	}
	if s.LimitMemory > 0 && err == nil {
		err = c.classic(name, "memory", groups.Memory, [][2]string{{"memory.limit_in_bytes", strconv.FormatInt(s.LimitMemory, 10)}})
	}
	return c, err
}

func quota(cpus float64) string {
	return strconv.FormatInt(int64(cpus*float64(quotaPeriod.Microseconds())), 10)
}

// classic makes a version 1 group.
func (c *confinement) classic(name, controller string, group cgroup.Hierarchy, settings [][2]string) error {
	if group.V2 || len(group.Dirs) == 0 {
		return fmt.Errorf("the %s controller of control groups is not mounted as version 1, nor cpu and memory both as version 2", controller)
	}
	dir, err := c.make(absolute(group.Dirs[0]), name)
	if err != nil {
		return err
	}
	c.tasks = append(c.tasks, filepath.Join(dir, "tasks"))
	return set(dir, settings)
}

// unified makes a version 2 group in the first place that lets it.
func (c *confinement) unified(name string, dirs []string, s Scenario) error {
	settings := [][2]string{}
	if s.LimitCPU > 0 {
		settings = append(settings, [2]string{"cpu.max", fmt.Sprintf("%s %d", quota(s.LimitCPU), quotaPeriod.Microseconds())})
	}
	if s.LimitMemory > 0 {
		settings = append(settings, [2]string{"memory.max", strconv.FormatInt(s.LimitMemory, 10)})
	}
	var refusals []error
	for _, dir := range dirs {
		parent := absolute(dir)
		err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+cpu +memory"), 0o644)
		if err == nil {
			var dir string
			if dir, err = c.make(parent, name); err != nil {
				return err
			}
			if err = set(dir, settings); err != nil {
				return err
			}
			c.fd, err = os.Open(dir)
			return err
		}
		refusals = append(refusals, err)
	}
	return fmt.Errorf("no control group here can have limited groups below it: %w", errors.Join(refusals...))
}

// absolute is a directory of cgroup.Hierarchy as this process sees it.
func absolute(dir string) string { return path.Join("/", dir) }

func (c *confinement) make(parent, name string) (dir string, err error) {
	removeDead(parent)
	dir = filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("%w (making a control group takes root, or a group of one's own)", err)
	}
	c.dirs = append(c.dirs, dir)
	return dir, nil
}

// removeDead removes what a measurement that was killed left behind.
func removeDead(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, groupPrefix+"*")) // fails on a bad pattern only
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(unix.Kill(n, 0), unix.ESRCH) {
			_ = unix.Rmdir(dir)
		}
	}
}

func set(dir string, settings [][2]string) error {
	for _, setting := range settings {
		if err := os.WriteFile(filepath.Join(dir, setting[0]), []byte(setting[1]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// admit makes sure that what the calling thread, which must be locked, starts with attributes is in the group from its
// first instruction on: a server reads its limits once, when it starts. A nil confinement admits to nothing.
func (c *confinement) admit(attributes *syscall.SysProcAttr) error {
	if c == nil {
		return nil
	}
	if c.fd != nil {
		attributes.UseCgroupFD, attributes.CgroupFD = true, int(c.fd.Fd())
	}
	for _, tasks := range c.tasks {
		if err := os.WriteFile(tasks, []byte(strconv.Itoa(unix.Gettid())), 0o644); err != nil {
			return fmt.Errorf("enter a control group: %w", err)
		}
	}
	return nil
}

// dismiss takes the calling thread out of the group again, which stays a member of it otherwise for as long as it lives: for
// ever, if it is the process's first thread, which Go's scheduler parks where it would end another.
func (c *confinement) dismiss() error {
	if c == nil {
		return nil
	}
	for _, tasks := range c.tasks {
		own := filepath.Join(filepath.Dir(filepath.Dir(tasks)), filepath.Base(tasks))
		if err := os.WriteFile(own, []byte(strconv.Itoa(unix.Gettid())), 0o644); err != nil {
			return fmt.Errorf("leave a control group: %w", err)
		}
	}
	return nil
}

// throttled is how long the group has been kept from running by its quota; 0 where there is none.
func (c *confinement) throttled() time.Duration {
	if c == nil {
		return 0
	}
	for _, dir := range c.dirs {
		stat, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		if err != nil {
			continue // the memory controller's group of version 1 has none
		}
		for line := range strings.Lines(string(stat)) {
			key, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
			unit := map[string]time.Duration{"throttled_time": time.Nanosecond, "throttled_usec": time.Microsecond}[key]
			if n, err := strconv.ParseInt(digits, 10, 64); err == nil && unit > 0 {
				return time.Duration(n) * unit
			}
		}
	}
	return 0
}

// remove ends the group, once its processes have ended.
func (c *confinement) remove() (err error) {
	if c == nil {
		return nil
	}
	if c.fd != nil {
		err = c.fd.Close()
	}
	deadline := time.Now().Add(groupPatience)
	for _, dir := range c.dirs {
		failed := unix.Rmdir(dir)
		for ; errors.Is(failed, unix.EBUSY) && time.Now().Before(deadline); failed = unix.Rmdir(dir) {
			time.Sleep(time.Millisecond)
		}
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("remove control group %s: %w", dir, failed))
		}
	}
	return err
}
