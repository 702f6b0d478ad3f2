package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rayflux/balancer/cluster"
	"rayflux/engine"
)

// role is what differs between the servers' settings.
type role struct {
	name, listen, admin string
	joins               bool // it is told who else is in its cluster, and the key
	follows             bool // its topics come from nodes
	alone               bool // it makes up a whole cluster
}

// keeps reports whether there is a node in it, which keeps messages.
func (r role) keeps() bool { return r.alone || !r.follows }

var (
	nodeRole     = role{name: "node", listen: ":8080", admin: "127.0.0.1:9080", joins: true}
	balancerRole = role{name: "balancer", listen: ":8083", admin: "127.0.0.1:9083", joins: true, follows: true}
	devRole      = role{name: "dev", listen: "127.0.0.1:8083", admin: "127.0.0.1:9083", follows: true, alone: true}

	roles = []role{nodeRole, balancerRole, devRole}
)

// settings is everything a server is told: the engine's Config, and what only
// the process around it needs.
type settings struct {
	engine    engine.Config
	admin     string // host:port of the operators' port
	logLevel  slog.Level
	logFormat string // text or json

	role      role
	nodes     cluster.Source // where they are; nil: a node is alone
	slot      int            // of a node among these
	nodeCount int            // of dev

	store        storeAt // where messages are kept
	segmentBytes int     // of one object there, about
	retainAge    time.Duration
	retainBytes  int64
	rules        []topicRule // those of engine.Topics, with how long messages are kept
	key          secret      // the cluster key, or
	keyFile      string      // where it is

	flags  *pflag.FlagSet // whose values are the fields above
	path   string         // of the settings file; "" is none
	from   origins        // filled by load
	topics []string       // where each of engine.Topics came from
}

// addSettings defines the flags of a server, and with them its environment
// variables and file keys.
func addSettings(flags *pflag.FlagSet, r role) *settings {
	s := &settings{engine: engine.DefaultConfig(), admin: r.admin, logFormat: "text", flags: flags, role: r, nodeCount: 2}
	c := &s.engine
	c.Listen, c.Version = r.listen, version
	// These follow from the machine and from each other: see derive.
	c.Loops, c.MaxConnections, c.Memory = 0, 0, 0

	flags.SortFlags = false
	flags.StringVar(&s.path, "config", "", "read settings from this YAML `file`")
	add := func(v pflag.Value, name, usage string) { flags.Var(v, name, usage) }

	add(textOf(&c.Listen), "listen", "`host:port` of the public port; port 0 picks a free one")
	add(textOf(&s.admin), "admin", "`host:port` of the operators' port: health, metrics, profiles; keep it from the public")
	s.addCluster(add)
	add(countOf(&c.Loops), "loops", "event loops (default: the CPUs of the container's quota, rounded up)")

	add(sizeOf(&c.MaxMessage), "max-message", "payload of one message")
	add(sizeOf(&c.MaxBatch), "max-batch", "body of one batch publish over HTTP")
	add(countOf(&c.MaxConnections), "max-connections", "connections of the public port (default: what descriptors and memory allow)")
	add(countOf(&c.MaxTopics), "max-topics", "topics held at one time")
	add(sizeOf(&c.MaxTopicBytes), "max-topic-bytes", "log of one topic, in bytes")
	add(durationOf(&c.MaxTopicAge), "max-topic-age", "log of one topic, in time")
	add(countOf(&c.MaxSubscriptions), "max-subscriptions", "subscriptions of one connection")
	add(sizeOf(&c.MaxHeader), "max-header", "head of one HTTP request")
	add(sizeOf(&c.MaxAnswers), "max-answers", "answers that a connection may leave unread")

	add(durationOf(&c.HandshakeTimeout), "handshake-timeout", "from accept to a complete request head")
	add(durationOf(&c.RequestTimeout), "request-timeout", "from request head to complete body")
	add(durationOf(&c.PingInterval), "ping-interval", "silence after which a connection is pinged; after two it is closed")
	add(durationOf(&c.MaxConnectionAge), "max-connection-age", "after which a client is sent away, to come back to any balancer; 0: never")
	add(durationOf(&c.DrainTimeout), "drain-timeout", "over which a drain spreads its closes")
	add(slowOf(&c.Slow), "slow", "what becomes of a reader that falls off a topic's log: skip, latest or close")

	add(sizeOf(&c.Memory), "memory", "whole budget (default: 80 % of the container's limit, else a quarter of the machine's, at most 4GiB)")
	add(sizeOf(&c.LogMemory), "log-memory", "all logs together (default: 40 % of memory)")
	add(sizeOf(&c.BufferMemory), "buffer-memory", "half-read requests and unread answers together (default: 20 % of memory)")
	add(sizeOf(&c.MailMemory), "mail-memory", "mail between loops (default: 10 % of memory, none with one loop)")

	add(durationOf(&c.TickMax), "tick-max", "longest that a busy loop leaves between two flushes; an idle one flushes at once")
	add(levelOf(&s.logLevel), "log-level", "debug, info, warn or error")
	add(choiceOf(&s.logFormat, "text", "json"), "log-format", "text or json")
	if s.role.keeps() {
		s.addStore(add)
	}
	return s
}

// addStore defines what is about keeping messages beyond memory.
func (s *settings) addStore(add func(v pflag.Value, name, usage string)) {
	c := &s.engine
	s.store, s.segmentBytes, s.retainAge = storeAt{directory: "./data"}, 8<<20, 7*24*time.Hour
	add(storeOf(&s.store), "store", "where messages are kept: dir:PATH, s3://BUCKET/PREFIX or none")
	add(patternsOf(&c.Persist), "persist", "`patterns` of the topics that are kept there, separated by commas")
	add(durationOf(&s.retainAge), "retain-age", "how long messages are kept; 0: for good")
	add(sizeOf(&s.retainBytes), "retain-bytes", "how many bytes of one topic are kept; 0: no limit")
	add(durationOf(&c.SnapshotInterval), "snapshot-interval", "how often what is new is stored")
	add(sizeOf(&s.segmentBytes), "snapshot-bytes", "size at which it is stored before that")
	add(sizeOf(&c.SnapshotBacklog), "snapshot-backlog", "messages that wait to be stored while the store is away, before the oldest are given up (default: 8 % of memory, at most 64MiB)")
	add(durationOf(&c.StoredTimeout), "stored-timeout", "how long a publisher waits for its message to be stored")
}

// addCluster defines what is about other processes of the same cluster.
func (s *settings) addCluster(add func(v pflag.Value, name, usage string)) {
	c := &s.engine
	if s.role.alone {
		add(countOf(&s.nodeCount), "node-count", "nodes behind the balancer; 0: one node and no balancer")
	}
	if s.role.joins {
		add(textOf(&c.Name), "name", "how this process calls itself to the others (default: the host's name)")
		add(secretOf(&s.key), "cluster-key", "`text` that all processes of the cluster know, and nobody else; better from the environment or a file")
		add(textOf(&s.keyFile), "cluster-key-file", "`file` that the cluster key is in")
	}
	if s.role.joins {
		add(nodesOf(&s.nodes), "nodes", "where the nodes are: static:HOST:PORT,…, dns:NAME:PORT, dns:_SERVICE._PROTO.NAME or k8s:NAMESPACE/SERVICE (default: none)")
	}
	if s.role.joins && !s.role.follows {
		add(countOf(&s.slot), "slot", "with --nodes, which of them this one is, from 0 (default: the number at the end of the host's name)")
	}
	add(durationOf(&c.LinkTimeout), "link-timeout", "silence that ends a link between a balancer and a node")
	add(durationOf(&c.Heartbeat), "heartbeat", "how often each node is asked for a sign of life")
	add(durationOf(&c.TakeOver), "take-over", "how long a node may be out of reach before its topics go to the next choice")
	add(durationOf(&c.HoldTimeout), "hold-timeout", "how long a command waits for a node that owns its topic")
	if !s.role.follows {
		return
	}
	add(durationOf(&c.FollowLinger), "follow-linger", "how long a balancer goes on following a topic that nobody reads any more")
	add(countOf(&c.MaxInFlight), "max-in-flight", "publishes of one connection that the owners have not answered")
}

// load reads the environment and the file behind the flags, derives what nobody
// said from m, and checks the whole. Its errors are usage errors.
func (s *settings) load(env map[string]string, m machine) error {
	if s.path == "" {
		s.path = env[envName("config")]
	}
	file, fileErr := s.readFile()
	var err error
	s.from, err = fill(s.flags, env, file)
	if err := errors.Join(fileErr, err); err != nil {
		return usageError{err}
	}
	if file != nil {
		for _, rule := range file.topics {
			s.engine.Topics = append(s.engine.Topics, rule.TopicRule)
			s.rules = append(s.rules, rule)
			s.topics = append(s.topics, file.at(rule.line))
		}
	}
	s.derive(m)
	if err := s.readKey(); err != nil {
		return usageError{err}
	}
	if err := s.check(m); err != nil {
		return usageError{err}
	}
	return nil
}

func (s *settings) readFile() (*settingsFile, error) {
	if s.path == "" {
		return nil, nil
	}
	return readFile(s.path, s.keys())
}

// keys is what a settings file may have, but for its list of topics.
func (s *settings) keys() (keys []string) {
	for _, name := range flagNames(s.flags) {
		if isSetting(name) {
			keys = append(keys, name)
		}
	}
	return keys
}

// check looks for what the engine cannot know is wrong, then asks the engine.
func (s *settings) check(m machine) error {
	c := &s.engine
	for _, a := range []struct{ name, address string }{{"listen", c.Listen}, {"admin", s.admin}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			return fmt.Errorf("%s is %q, want host:port", a.name, a.address)
		}
	}
	if s.role.joins && s.role.follows {
		switch {
		case s.nodes == nil:
			return errors.New("nodes is not set, want static:HOST:PORT,…, dns:NAME:PORT, dns:_SERVICE._PROTO.NAME or k8s:NAMESPACE/SERVICE")
		case s.key == "":
			return errNoKey
		}
	}
	if s.role.joins && !s.role.follows {
		if err := s.checkSlot(); err != nil {
			return err
		}
	}
	if s.role.alone && (s.nodeCount < 0 || s.nodeCount > nodeCountMax) {
		return fmt.Errorf("node-count is %d, want 0 to %d", s.nodeCount, nodeCountMax)
	}
	// An accept that finds no descriptor left ends the engine, so the cap on
	// connections has to hold first.
	if most := m.descriptors - descriptorReserveMin; c.MaxConnections > most {
		return fmt.Errorf("max-connections is %d, want at most %d: the limit of %d descriptors (ulimit -n) less %d for everything else",
			c.MaxConnections, most, m.descriptors, descriptorReserveMin)
	}
	if m.memoryLimit != 0 && c.Memory > m.memoryLimit {
		return fmt.Errorf("memory is %s, the container's limit is %s", formatSize(c.Memory), formatSize(m.memoryLimit))
	}
	if s.keepsSomewhere() && int64(s.segmentBytes) > c.SnapshotBacklog {
		return fmt.Errorf("snapshot-bytes is %s, want at most snapshot-backlog, which is %s", formatSize(int64(s.segmentBytes)), formatSize(c.SnapshotBacklog))
	}
	return c.Validate()
}

// keepsSomewhere reports whether there is a store.
func (s *settings) keepsSomewhere() bool { return s.role.keeps() && s.store != storeAt{} }

var errNoKey = errors.New("neither cluster-key nor cluster-key-file is set: nodes take links only from who knows the cluster key")

// checkSlot looks whether a node knows which of the nodes it is.
func (s *settings) checkSlot() error {
	switch {
	case s.nodes == nil:
	case s.key == "":
		return errNoKey
	case strings.HasPrefix(s.nodes.String(), "dns:") && !strings.HasPrefix(s.nodes.String(), "dns:_"):
		return fmt.Errorf("nodes is %s: addresses of a name have no slots of their own, so a node cannot know which it is; want static:HOST:PORT,…, dns:_SERVICE._PROTO.NAME or k8s:NAMESPACE/SERVICE", s.nodes)
	case s.unsaid("slot"):
		return errors.New("slot is not set, and the host's name does not end in a number: with --nodes a node has to know which of them it is")
	case s.slot < 0 || s.slot >= cluster.SlotsMax:
		return fmt.Errorf("slot is %d, want 0 to %d", s.slot, cluster.SlotsMax-1)
	}
	return nil
}

// logger is the process's only one; it is handed down, never global.
func (s *settings) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// nodeCountMax keeps dev to what one machine carries.
const nodeCountMax = 16

// readKey settles the cluster key. A file's last line break is not part of it.
func (s *settings) readKey() error {
	if s.keyFile != "" {
		if s.key != "" {
			return errors.New("both cluster-key and cluster-key-file are given")
		}
		text, err := os.ReadFile(s.keyFile)
		if err != nil {
			return fmt.Errorf("cluster-key-file: %w", err)
		}
		s.key = secret(strings.TrimRight(string(text), "\r\n"))
	}
	if s.key != "" && len(s.key) < clusterKeyMin {
		return fmt.Errorf("cluster key is %d bytes, want at least %d", len(s.key), clusterKeyMin)
	}
	s.engine.ClusterKey = []byte(s.key)
	return nil
}

// clusterKeyMin keeps out what can be guessed.
const clusterKeyMin = 16
