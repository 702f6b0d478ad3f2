package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"rayflux/engine"
)

// Descriptors that are no client's: the operators' port, files, pollers, and
// the connections that are refused for being too many.
const (
	descriptorReserveMin = 256
	descriptorReservePct = 10
)

// derive settles what was left unsaid and follows from the machine or from
// other settings, and notes in s.from how.
func (s *settings) derive(m machine) {
	c := &s.engine
	if s.unsaid("loops") {
		c.Loops = m.cpus
		s.from["loops"] = "derived: " + m.cpusFrom
	}
	if s.unsaid("memory") {
		c.Memory = m.memory
		s.from["memory"] = "derived: " + m.memoryFrom
	}
	// The engine takes the same shares for a 0; taken here, to the whole MiB,
	// config print can show them.
	s.deriveShare("log-memory", &c.LogMemory, engine.LogShare)
	s.deriveShare("buffer-memory", &c.BufferMemory, engine.BufferShare)
	if c.Loops > 1 {
		s.deriveShare("mail-memory", &c.MailMemory, engine.MailShare)
	} else if s.unsaid("mail-memory") {
		s.from["mail-memory"] = "derived: one loop has no mail"
	}
	if s.keepsSomewhere() {
		s.deriveSnapshots()
	}
	if s.role.joins && s.unsaid("name") {
		c.Name = m.name
		s.from["name"] = "derived: the host's name"
	}
	if s.role.joins && !s.role.follows && s.nodes != nil && s.unsaid("slot") {
		if n, ok := ordinalOf(m.name); ok {
			s.slot, s.from["slot"] = n, "derived: the end of the host's name"
		}
	}
	if s.unsaid("max-connections") {
		c.MaxConnections, s.from["max-connections"] = deriveConnections(*c, m)
	}
}

// ordinalOf is the number that a name ends with, behind a dash: that of a StatefulSet's pod.
func ordinalOf(name string) (n int, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return 0, false
	}
	n, err := strconv.Atoi(name[i+1:])
	return n, err == nil && n >= 0 && strconv.Itoa(n) == name[i+1:]
}

func (s *settings) unsaid(name string) bool { return s.from[name] == "" }

func (s *settings) deriveShare(name string, at *int64, percent int64) {
	if s.unsaid(name) {
		*at = s.engine.Memory / 100 * percent >> 20 << 20
		s.from[name] = fmt.Sprintf("derived: %d %% of memory", percent)
	}
}

// deriveSnapshots sets aside what waits to be stored, and what was read back.
func (s *settings) deriveSnapshots() {
	c := &s.engine
	if s.unsaid("snapshot-backlog") {
		c.SnapshotBacklog = min(c.Memory/100*engine.SnapshotShare>>20<<20, engine.SnapshotBacklogMax)
		s.from["snapshot-backlog"] = fmt.Sprintf("derived: %d %% of memory, at most %s", engine.SnapshotShare, formatSize(engine.SnapshotBacklogMax))
	}
	c.SnapshotCache = c.SnapshotBacklog / engine.SnapshotCacheDivisor
	if s.unsaid("snapshot-bytes") && int64(s.segmentBytes) > c.SnapshotBacklog/2 {
		s.segmentBytes = int(c.SnapshotBacklog / 2)
		s.from["snapshot-bytes"] = "derived: half of snapshot-backlog"
	}
}

func deriveConnections(c engine.Config, m machine) (n int, origin string) {
	reserve := max(descriptorReserveMin, m.descriptors*descriptorReservePct/100)
	most := max(0, m.descriptors-reserve)
	if fit := connectionsThatFit(c, most); fit > 0 && fit < most {
		return fit, "derived: what memory holds beside logs, buffers and mail"
	}
	return most, fmt.Sprintf("derived: limit of %d descriptors less a reserve of %d", m.descriptors, reserve)
}

// connectionsThatFit is the largest number up to most that the engine finds
// room for. It asks instead of reckoning, because what a connection costs is
// the engine's to know. 0: none fits, or something else is wrong with c.
func connectionsThatFit(c engine.Config, most int) int {
	return sort.Search(most, func(n int) bool {
		c.MaxConnections = n + 1
		return c.Validate() != nil
	})
}
