package cgroup

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// Lines as the kernel writes them.
const (
	mountV2     = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
	mountTmpfs  = "30 23 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
	mountCPU    = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
	mountCPUSet = "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
	mountMemory = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	mountHybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	// Docker without a namespace of its own for control groups.
	mountDocker = "35 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n" +
		"36 31 0:29 /docker/0123 /sys/fs/cgroup/cpu,cpuacct ro,relatime - cgroup cgroup rw,cpu,cpuacct\n"

	noLimitV1 = "9223372036854771712\n"
)

type tree map[string]string

func (t tree) fs() fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range t {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestContainerLimits(t *testing.T) {
	for _, c := range []struct {
		name      string
		tree      tree
		quota     float64
		memory    int64
		throttled float64 // -1: not counted
	}{
		{name: "no control groups", tree: tree{}, throttled: -1},
		{
			name: "version 2 in a namespace, as in Kubernetes",
			tree: tree{
				"proc/self/cgroup":         "0::/\n",
				"proc/self/mountinfo":      mountV2,
				"sys/fs/cgroup/cpu.max":    "50000 100000\n",
				"sys/fs/cgroup/memory.max": "268435456\n",
				"sys/fs/cgroup/cpu.stat":   "usage_usec 9\nnr_throttled 3\nthrottled_usec 1500000\nnr_bursts 0\n",
			},
			quota: 0.5, memory: 256 << 20, throttled: 1.5,
		},
		{
			name: "version 2 without limits",
			tree: tree{
				"proc/self/cgroup":         "0::/\n",
				"proc/self/mountinfo":      mountV2,
				"sys/fs/cgroup/cpu.max":    "max 100000\n",
				"sys/fs/cgroup/memory.max": "max\n",
				"sys/fs/cgroup/cpu.stat":   "usage_usec 9\n",
			},
			throttled: -1,
		},
		{
			name: "version 2, the tightest limit is above",
			tree: tree{
				"proc/self/cgroup":                                      "0::/system.slice/rayflux.service\n",
				"proc/self/mountinfo":                                   mountV2,
				"sys/fs/cgroup/system.slice/cpu.max":                    "150000 100000\n",
				"sys/fs/cgroup/system.slice/memory.max":                 "1073741824\n",
				"sys/fs/cgroup/system.slice/rayflux.service/cpu.max":    "400000 100000\n",
				"sys/fs/cgroup/system.slice/rayflux.service/memory.max": "max\n",
				"sys/fs/cgroup/system.slice/rayflux.service/cpu.stat":   "throttled_usec 0\n",
				"sys/fs/cgroup/system.slice/cpu.stat":                   "throttled_usec 7000000\n",
			},
			quota: 1.5, memory: 1 << 30, throttled: 0,
		},
		{
			name: "version 1",
			tree: tree{
				"proc/self/cgroup":                              "4:memory:/a\n3:cpuset:/a\n2:cpu,cpuacct:/a\n",
				"proc/self/mountinfo":                           mountTmpfs + mountCPUSet + mountCPU + mountMemory,
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":    "-1\n",
				"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us":  "250000\n",
				"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/cpu,cpuacct/a/cpu.stat":          "nr_throttled 1\nthrottled_time 2500000000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes":    noLimitV1,
				"sys/fs/cgroup/memory/a/memory.limit_in_bytes":  "536870912\n",
			},
			quota: 2.5, memory: 512 << 20, throttled: 2.5,
		},
		{
			name: "version 1 in Docker: the path is the host's, the mount is the group",
			tree: tree{
				"proc/self/cgroup":                            "4:memory:/docker/0123\n2:cpu,cpuacct:/docker/0123\n",
				"proc/self/mountinfo":                         mountDocker,
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  "100000\n",
				"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes":  "134217728\n",
			},
			quota: 1, memory: 128 << 20, throttled: -1,
		},
		{
			name: "version 1 in a container whose mount hides its group",
			tree: tree{
				"proc/self/cgroup":                           "4:memory:/elsewhere/9\n",
				"proc/self/mountinfo":                        mountDocker,
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "134217728\n",
			},
			memory: 128 << 20, throttled: -1,
		},
		{
			name: "both versions: memory of 1, CPU of 2",
			tree: tree{
				"proc/self/cgroup":                           "4:memory:/\n0::/b\n",
				"proc/self/mountinfo":                        mountTmpfs + mountMemory + mountHybrid,
				"sys/fs/cgroup/memory/memory.limit_in_bytes": noLimitV1,
				"sys/fs/cgroup/unified/b/cpu.max":            "300000 100000\n",
				"sys/fs/cgroup/unified/b/cpu.stat":           "throttled_usec 20\n",
			},
			quota: 3, memory: 9223372036854771712, throttled: 20e-6,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			groups, err := Find(c.tree.fs())
			if err != nil {
				t.Fatal(err)
			}
			if quota, err := groups.CPUQuota(); err != nil || quota != c.quota {
				t.Errorf("quota is %v (%v), want %v", quota, err, c.quota)
			}
			if memory, err := groups.MemoryLimit(); err != nil || memory != c.memory {
				t.Errorf("memory limit is %d (%v), want %d", memory, err, c.memory)
			}
			throttled, ok := groups.Throttled()
			if !ok {
				throttled = -1
			}
			if throttled != c.throttled {
				t.Errorf("throttled for %v s, want %v", throttled, c.throttled)
			}
		})
	}
}

func TestMalformedLimitsNameTheirFile(t *testing.T) {
	for name, text := range map[string]string{
		"sys/fs/cgroup/cpu.max":    "lots 100000",
		"sys/fs/cgroup/memory.max": "1GiB",
	} {
		groups, err := Find(tree{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, name: text}.fs())
		if err != nil {
			t.Fatal(err)
		}
		_, cpuErr := groups.CPUQuota()
		_, memoryErr := groups.MemoryLimit()
		if err := errors.Join(cpuErr, memoryErr); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s holding %q: error is %v", name, text, err)
		}
	}
	if _, err := Find(tree{"proc/self/cgroup": "nonsense\n", "proc/self/mountinfo": mountV2}.fs()); err == nil {
		t.Error("a malformed /proc/self/cgroup is no error")
	}
}
