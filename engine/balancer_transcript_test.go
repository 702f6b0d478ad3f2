package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBalancerTranscripts plays the conversations with a balancer (testdata/balancer/*.txt), in which things happen to
// its nodes.
func TestBalancerTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/balancer/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, loops := range []int{1, 3} {
				got := play(t, string(want), loops, 2)
				if *update && loops == 1 {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					want = []byte(got)
				}
				compare(t, file, loops, string(want), got)
			}
		})
	}
}

// nodeSettings takes what is about the nodes out of a transcript's settings.
func (s *stage) nodeSettings(words []string) (others []string) {
	var change []func(cfg *Config)
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "nodes":
			s.nodes = n
		case "node-max-topics":
			change = append(change, func(cfg *Config) { cfg.MaxTopics = n })
		case "node-max-topic-bytes":
			change = append(change, func(cfg *Config) { cfg.MaxTopicBytes = n })
		default:
			others = append(others, word)
		}
	}
	s.node = func(cfg *Config) {
		for _, c := range change {
			c(cfg)
		}
	}
	return others
}

// befall is what happens to the node that a topic belongs to while all are well.
func (s *stage) befall(topic, what string, words []string) error {
	c := s.cables
	i := c.ownerOf(topic)
	switch what {
	case "kill":
		c.kill(i)
	case "start":
		c.start(i)
	case "hang":
		c.hung[i] = true
	case "wake":
		c.hung[i] = false
	case "drain":
		c.drain(i)
	case "cut": // after so many bytes more
		n, _ := strconv.Atoi(words[0])
		for _, w := range c.wires {
			if w.number == i {
				s.feed(w.ours, w.node.readSome(n))
				c.cut(w)
			}
		}
		c.sweep()
	case "limit": // what each kernel between the two keeps
		n, _ := strconv.Atoi(words[0])
		for _, w := range c.wires {
			if w.number == i {
				w.node.capacity = n
			}
		}
	case "publish", "fill": // somebody else's clients
		count, text := 1, strings.Join(words, " ")
		if what == "fill" {
			n, _ := strconv.Atoi(words[1])
			count, _ = strconv.Atoi(words[0])
			text = strings.Repeat("x", n)
		}
		for range count {
			put(c.nodes[i], c.nodes[i].loops[0], topic, text)
		}
	case "unready", "ready", "leaving":
		slots := append([]Slot(nil), c.view.Slots...)
		for k := range slots {
			if c.numberOf(slots[k].Address) == i {
				slots[k].Ready, slots[k].Draining = what != "unready", what == "leaving"
			}
		}
		c.see(slots...)
	case "replace":
		slots := append([]Slot(nil), c.view.Slots...)
		c.start(len(c.nodes))
		for k := range slots {
			if c.numberOf(slots[k].Address) == i {
				slots[k] = slotOf(len(c.nodes) - 1)
			}
		}
		c.see(slots...)
	case "has":
		return s.has(c.nodes[i], topic)
	default:
		return fmt.Errorf("a node cannot %s", what)
	}
	return nil
}

// has writes down how many read a topic at its node.
func (s *stage) has(n *rig, topic string) error {
	s.pass(lineTime, time.Millisecond)
	if t := n.loops[0].topics[topic]; t != nil {
		fmt.Fprintf(&s.out, "> %d readers, newest message %d\n", t.subs, t.head)
	} else {
		fmt.Fprintf(&s.out, "> nothing of it\n")
	}
	return nil
}
