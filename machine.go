package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"rayflux/bench/cgroup"
)

// machine is what this process may use of the computer it runs on, and in
// words where each number is from.
type machine struct {
	cgroups cgroup.Groups

	cpus     int
	cpusFrom string

	memory      int64 // the default of --memory, bytes
	memoryFrom  string
	memoryLimit int64 // what the kernel enforces, bytes; 0 is none

	name string // the host's; "" if it cannot be told

	descriptors int // how many may be open
}

// thisMachine reads the limits that hold for this process. An error leaves
// usable numbers behind: those of a process without a container.
func thisMachine() (machine, error) {
	root := os.DirFS("/")
	groups, err := cgroup.Find(root)
	m := machine{cgroups: groups, descriptors: descriptorLimit()}
	name, nameErr := os.Hostname()
	m.name = name
	return m, errors.Join(err, nameErr, m.readCPUs(runtime.NumCPU()), m.readMemory(root))
}

// readCPUs rounds a quota up, and keeps to the mask CPUs that the process may
// run on. Go's own default
// is never below two, which under a quota of half a CPU is two threads taking
// turns at being throttled.
func (m *machine) readCPUs(mask int) error {
	m.cpus, m.cpusFrom = mask, "CPUs of the affinity mask"
	if os.Getenv("GOMAXPROCS") != "" {
		m.cpus, m.cpusFrom = runtime.GOMAXPROCS(0), "GOMAXPROCS"
		return nil
	}
	quota, err := m.cgroups.CPUQuota()
	if rounded := int(math.Ceil(quota)); quota > 0 && rounded < m.cpus {
		m.cpus, m.cpusFrom = rounded, fmt.Sprintf("the container's quota of %.4g CPUs, rounded up", quota)
	}
	return err
}

func (m *machine) readMemory(root fs.FS) error {
	total, err := memoryTotal(root)
	m.memory, m.memoryFrom = min(total/4, 4<<30), "a quarter of the machine's memory, at most 4GiB"
	if total == 0 {
		m.memory, m.memoryFrom = 1<<30, "the machine does not tell its memory"
	}
	limit, limitErr := m.cgroups.MemoryLimit()
	if limit > 0 && (total == 0 || limit < total) {
		m.memoryLimit = limit
		m.memory, m.memoryFrom = limit/100*80>>20<<20, fmt.Sprintf("80 %% of the container's limit of %s", formatSize(limit))
	}
	return errors.Join(err, limitErr)
}

// memoryTotal is the machine's memory in bytes; 0 if it cannot be told.
func memoryTotal(root fs.FS) (int64, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/meminfo: no MemTotal")
}

// descriptorLimit is the soft limit, which the Go runtime raised to the hard
// one at start.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what POSIX systems have always granted
	}
	return int(min(limit.Cur, math.MaxInt32))
}

// apply tells the Go runtime about the limits. An operator who set the
// runtime's own variables is not overruled.
func (m machine) apply(memory int64) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(m.cpus)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
}
