package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/spf13/pflag"

	"rayflux/engine"
)

// role is what differs between the servers' defaults.
type role struct{ name, listen, admin string }

var (
	nodeRole = role{name: "node", listen: ":8080", admin: "127.0.0.1:9080"}
	devRole  = role{name: "dev", listen: "127.0.0.1:8083", admin: "127.0.0.1:9083"}
)

// settings is everything a server is told: the engine's Config, and what only
// the process around it needs.
type settings struct {
	engine    engine.Config
	admin     string // host:port of the operators' port
	logLevel  slog.Level
	logFormat string // text or json

	flags  *pflag.FlagSet // whose values are the fields above
	path   string         // of the settings file; "" is none
	from   origins        // filled by load
	topics []string       // where each of engine.Topics came from
}

// addSettings defines the flags of a server, and with them its environment
// variables and file keys.
func addSettings(flags *pflag.FlagSet, r role) *settings {
	s := &settings{engine: engine.DefaultConfig(), admin: r.admin, logFormat: "text", flags: flags}
	c := &s.engine
	c.Listen, c.Version = r.listen, version
	// These follow from the machine and from each other: see derive.
	c.Loops, c.MaxConnections, c.Memory = 0, 0, 0

	flags.SortFlags = false
	flags.StringVar(&s.path, "config", "", "read settings from this YAML `file`")
	add := func(v pflag.Value, name, usage string) { flags.Var(v, name, usage) }

	add(textOf(&c.Listen), "listen", "`host:port` of the public port; port 0 picks a free one")
	add(textOf(&s.admin), "admin", "`host:port` of the operators' port: health, metrics, profiles; keep it from the public")
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
	add(durationOf(&c.DrainTimeout), "drain-timeout", "over which a drain spreads its closes")
	add(slowOf(&c.Slow), "slow", "what becomes of a reader that falls off a topic's log: skip, latest or close")

	add(sizeOf(&c.Memory), "memory", "whole budget (default: 80 % of the container's limit, else a quarter of the machine's, at most 4GiB)")
	add(sizeOf(&c.LogMemory), "log-memory", "all logs together (default: 40 % of memory)")
	add(sizeOf(&c.BufferMemory), "buffer-memory", "half-read requests and unread answers together (default: 20 % of memory)")
	add(sizeOf(&c.MailMemory), "mail-memory", "mail between loops (default: 10 % of memory, none with one loop)")

	add(durationOf(&c.TickMax), "tick-max", "longest that a busy loop leaves between two flushes; an idle one flushes at once")
	add(levelOf(&s.logLevel), "log-level", "debug, info, warn or error")
	add(choiceOf(&s.logFormat, "text", "json"), "log-format", "text or json")
	return s
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
			s.topics = append(s.topics, file.at(rule.line))
		}
	}
	s.derive(m)
	if err := s.check(m); err != nil {
		return usageError{err}
	}
	return nil
}

func (s *settings) readFile() (*settingsFile, error) {
	if s.path == "" {
		return nil, nil
	}
	var keys []string
	for _, name := range flagNames(s.flags) {
		if isSetting(name) {
			keys = append(keys, name)
		}
	}
	return readFile(s.path, keys)
}

// check looks for what the engine cannot know is wrong, then asks the engine.
func (s *settings) check(m machine) error {
	c := &s.engine
	for _, a := range []struct{ name, address string }{{"listen", c.Listen}, {"admin", s.admin}} {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			return fmt.Errorf("%s is %q, want host:port", a.name, a.address)
		}
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
	return c.Validate()
}

// logger is the process's only one; it is handed down, never global.
func (s *settings) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// assume takes another role's defaults; only before load.
func (s *settings) assume(r role) {
	for name, text := range map[string]string{"listen": r.listen, "admin": r.admin} {
		if f := s.flags.Lookup(name); !f.Changed {
			_ = f.Value.Set(text) // a text value takes anything
		}
	}
}
