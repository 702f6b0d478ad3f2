package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what the operating system says was spent up to one moment.
type usage struct {
	server    time.Duration // CPU time of the server process, all threads
	generator time.Duration // CPU time of this process
	machine   time.Duration // CPU time of everything on the machine, in the kernel's 10 ms ticks
	stolen    time.Duration // time the hypervisor gave to others
}

// measureUsage reads the clocks; pid 0 leaves the server out.
func measureUsage(pid int) (u usage, err error) {
	if pid > 0 {
		if u.server, err = processCPU(pid); err != nil {
			return u, err
		}
	}
	var self unix.Rusage
	if err = unix.Getrusage(unix.RUSAGE_SELF, &self); err != nil {
		return u, fmt.Errorf("getrusage: %w", err)
	}
	u.generator = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	u.machine, u.stolen, err = machineCPU()
	return u, err
}

// processCPU reads another process's CPU clock (clock_getcpuclockid(3)): nanoseconds over all its threads, those that
// have ended included. /proc/PID/stat has the same in 10 ms ticks, /proc/PID/schedstat only the first thread's.
func processCPU(pid int) (time.Duration, error) {
	const clockOfScheduler = 2 // CPUCLOCK_SCHED
	var spec unix.Timespec
	if err := unix.ClockGettime(^int32(pid)<<3|clockOfScheduler, &spec); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(spec.Nano()), nil
}

// machineCPU sums the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, …
func machineCPU() (busy, stolen time.Duration, err error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	for i, field := range bytes.Fields(line) {
		n, _ := strconv.ParseInt(string(field), 10, 64)
		switch i {
		case 1, 2, 3, 6, 7:
			busy += time.Duration(n) * tick
		case 8:
			stolen = time.Duration(n) * tick
		}
	}
	return busy, stolen, nil
}

// residentBytes is the server's resident memory; pid 0 reads 0. smaps_rollup counts pages, statm lags by a batch of them
// per processor, so it is only the second choice (smaps_rollup needs the right to trace the process).
func residentBytes(pid int) (int64, error) {
	if pid <= 0 {
		return 0, nil
	}
	if rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid)); err == nil {
		if _, rest, ok := bytes.Cut(rollup, []byte("\nRss:")); ok {
			if fields := bytes.Fields(rest); len(fields) > 0 {
				if kib, err := strconv.ParseInt(string(fields[0]), 10, 64); err == nil {
					return kib << 10, nil
				}
			}
		}
	}
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return 0, fmt.Errorf("memory of process %d: statm reads %q", pid, statm)
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}
