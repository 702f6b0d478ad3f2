package main

import (
	"testing"
	"testing/fstest"

	"rayflux/bench/cgroup"
)

// mountV2 is a line as the kernel writes it.
const mountV2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"

type tree map[string]string

func (t tree) fs() fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range t {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestMachineMemory(t *testing.T) {
	const total = "MemTotal:       16777216 kB\nMemFree: 1 kB\n" // 16 GiB
	for _, c := range []struct {
		name    string
		meminfo string
		limit   string
		memory  int64
		enforce int64
	}{
		{"no limit", total, "max", 4 << 30, 0},
		{"no limit on a small machine", "MemTotal: 2097152 kB\n", "max", 512 << 20, 0},
		{"a limit", total, "536870912", 409 << 20, 512 << 20},
		{"a limit past the machine is none", total, "9223372036854771712", 4 << 30, 0},
		{"no idea", "", "max", 1 << 30, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := tree{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
				"proc/meminfo": c.meminfo, "sys/fs/cgroup/memory.max": c.limit,
			}.fs()
			groups, err := cgroup.Find(root)
			if err != nil {
				t.Fatal(err)
			}
			m := machine{cgroups: groups}
			if err := m.readMemory(root); (err != nil) != (c.meminfo == "") {
				t.Errorf("error is %v", err)
			}
			if m.memory != c.memory || m.memoryLimit != c.enforce {
				t.Errorf("memory is %d of %d, want %d of %d", m.memory, m.memoryLimit, c.memory, c.enforce)
			}
		})
	}
}

func TestMachineCPUs(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	for _, c := range []struct {
		cpuMax string
		mask   int
		want   int
	}{
		{"max 100000", 8, 8},
		{"50000 100000", 8, 1},
		{"100000 100000", 8, 1},
		{"100001 100000", 8, 2},
		{"250000 100000", 8, 3},
		{"1600000 100000", 8, 8},
		{"400000 100000", 2, 2},
		{"1000 100000", 1, 1},
	} {
		groups, err := cgroup.Find(tree{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/cpu.max": c.cpuMax}.fs())
		if err != nil {
			t.Fatal(err)
		}
		m := machine{cgroups: groups}
		if err := m.readCPUs(c.mask); err != nil || m.cpus != c.want {
			t.Errorf("cpu.max %s on %d CPUs: %d loops (%v), want %d", c.cpuMax, c.mask, m.cpus, err, c.want)
		}
	}
}

func TestThisMachineCanBeRead(t *testing.T) {
	m, err := thisMachine()
	if err != nil {
		t.Error(err)
	}
	if m.cpus < 1 || m.memory < 1 || m.descriptors < 1 {
		t.Errorf("%+v", m)
	}
}
