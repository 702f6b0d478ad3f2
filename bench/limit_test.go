package bench

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rayflux/bench/cgroup"

	"golang.org/x/sys/unix"
)

// files are those below dir with what is in them.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths, _ := filepath.Glob(filepath.Join(dir, "*", groupPrefix+"*", "*"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.Split(path, "/")[len(strings.Split(dir, "/"))]+"/"+filepath.Base(path)] = string(text)
	}
	return found
}

func folders(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLimitsAreWrittenAsTheKernelWantsThem(t *testing.T) {
	s := Scenario{LimitCPU: 0.5, LimitMemory: 256 << 20}
	const thisThread = "this thread"
	for name, c := range map[string]struct {
		groups func(dir string) cgroup.Groups
		want   map[string]string
		stat   string
	}{
		"version 1": {
			func(dir string) cgroup.Groups {
				return cgroup.Groups{CPU: cgroup.Hierarchy{Dirs: []string{dir + "/cpu"}}, Memory: cgroup.Hierarchy{Dirs: []string{dir + "/memory", dir}}}
			},
			map[string]string{"cpu/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "50000", "cpu/tasks": thisThread,
				"memory/memory.limit_in_bytes": "268435456", "memory/tasks": thisThread},
			"throttled_time 1500000000\n",
		},
		"version 2": {
			func(dir string) cgroup.Groups { // the own group cannot have limited groups below it
				group := cgroup.Hierarchy{V2: true, Dirs: []string{dir + "/own/not/there", dir + "/above"}}
				return cgroup.Groups{CPU: group, Memory: group}
			},
			map[string]string{"above/cpu.max": "50000 100000", "above/memory.max": "268435456"},
			"throttled_usec 1500000\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folders(t, "cpu", "memory", "above")
			limit, err := confine(s, c.groups(dir))
			if err != nil {
				t.Fatal(err)
			}
			runtime.LockOSThread() // until the test's goroutine ends, and the thread with it
			var attributes syscall.SysProcAttr
			if err := limit.admit(&attributes); err != nil {
				t.Fatal(err)
			}
			if v2 := name == "version 2"; attributes.UseCgroupFD != v2 {
				t.Errorf("started by clone3 into the group: %v, want %v", attributes.UseCgroupFD, v2)
			}
			got := files(t, dir)
			for file, want := range c.want {
				if want == thisThread {
					want = strconv.Itoa(unix.Gettid())
				}
				if got[file] != want {
					t.Errorf("%s has %q, want %q", file, got[file], want)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("written: %v", got)
			}
			if err := limit.dismiss(); err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				if want != thisThread {
					continue
				}
				if own, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(own) != strconv.Itoa(unix.Gettid()) {
					t.Errorf("%s of the process's own group has %q (%v), want this thread back", file, own, err)
				}
			}
			if err := os.WriteFile(filepath.Join(limit.dirs[0], "cpu.stat"), []byte("nr_periods 3\n"+c.stat), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := limit.throttled(); got != 1500*time.Millisecond {
				t.Errorf("throttled for %s, want 1.5s", got)
			}
			for _, made := range limit.dirs { // the kernel's directories are empty to rmdir, these are not
				for _, file := range []string{"cpu.cfs_period_us", "cpu.cfs_quota_us", "tasks", "memory.limit_in_bytes", "cpu.stat", "cpu.max", "memory.max"} {
					os.Remove(filepath.Join(made, file))
				}
			}
			if err := limit.remove(); err != nil || len(files(t, dir)) != 0 {
				t.Errorf("left behind: %v (%v)", files(t, dir), err)
			}
		})
	}
}

func TestLimitThatCannotBeSetIsAnError(t *testing.T) {
	missing := cgroup.Hierarchy{Dirs: []string{"/does/not/exist"}}
	for name, groups := range map[string]cgroup.Groups{
		"not mounted":     {},
		"not writable":    {CPU: missing, Memory: missing},
		"mixed":           {CPU: cgroup.Hierarchy{V2: true, Dirs: missing.Dirs}, Memory: missing},
		"not writable v2": {CPU: cgroup.Hierarchy{V2: true, Dirs: missing.Dirs}, Memory: cgroup.Hierarchy{V2: true, Dirs: missing.Dirs}},
	} {
		if _, err := confine(Scenario{LimitCPU: 0.5}, groups); err == nil || !strings.Contains(err.Error(), "limit of 0.5 CPU") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestWhatAKilledMeasurementLeftIsRemoved(t *testing.T) {
	const nobody = "4194305" // past the highest number of a process
	dir := folders(t, groupPrefix+nobody+"-1", groupPrefix+strconv.Itoa(os.Getpid())+"-1", groupPrefix+"x", "other")
	removeDead(dir)
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 3 {
		t.Errorf("left are %v, want all but the dead process's", left)
	}
}
