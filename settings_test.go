package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"rayflux/engine"
	"rayflux/persist"
)

// roomy is a machine on which nothing is short.
var roomy = machine{cpus: 4, cpusFrom: "test", memory: 4 << 30, memoryFrom: "test", descriptors: 1 << 16}

// loaded is a node's settings from all their sources. file "" is none.
func loaded(t *testing.T, m machine, args []string, env map[string]string, file string) (*settings, error) {
	t.Helper()
	return loadedAs(t, nodeRole, m, args, env, file)
}

// loadedAs is the settings of a server of any role.
func loadedAs(t *testing.T, r role, m machine, args []string, env map[string]string, file string) (*settings, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s := addSettings(flags, r)
	if file != "" {
		path := filepath.Join(t.TempDir(), "settings.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s, s.load(env, m)
}

func TestFlagsWinOverEnvironmentOverFileOverDefault(t *testing.T) {
	const file = "max-message: 3KiB\n"
	env := map[string]string{"RAYFLUX_MAX_MESSAGE": "2KiB"}
	args := []string{"--max-message", "1KiB"}
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want int
		from string // in the origin
	}{
		{"all", args, env, file, 1 << 10, "flag --max-message"},
		{"no flag", nil, env, file, 2 << 10, "environment RAYFLUX_MAX_MESSAGE"},
		{"file", nil, nil, file, 3 << 10, "settings.yaml:1"},
		{"nothing", nil, nil, "", 64 << 10, ""},
		{"flag over file", args, nil, file, 1 << 10, "flag --max-message"},
		{"a flag that repeats the default still wins", []string{"--max-message=64KiB"}, env, file, 64 << 10, "flag --max-message"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := loaded(t, roomy, c.args, c.env, c.file)
			if err != nil {
				t.Fatal(err)
			}
			if s.engine.MaxMessage != c.want {
				t.Errorf("max-message is %d, want %d", s.engine.MaxMessage, c.want)
			}
			if from := s.from["max-message"]; !strings.Contains(from, c.from) || c.from == "" && from != "" {
				t.Errorf("it came from %q, want %q", from, c.from)
			}
		})
	}
}

func TestEveryFlagReachesItsSetting(t *testing.T) {
	args := strings.Fields(`--listen=h:1 --admin=h:2 --loops=3 --max-message=5KiB --max-batch=6KiB --max-connections=7
		--max-topics=8 --max-topic-bytes=9KiB --max-topic-age=10s --max-subscriptions=11 --max-header=12KiB --max-answers=13KiB
		--handshake-timeout=14s --request-timeout=15s --ping-interval=16s --drain-timeout=17s --slow=latest --memory=1GiB
		--log-memory=19MiB --buffer-memory=20MiB --mail-memory=21MiB --tick-max=23ms --log-level=warn --log-format=json
		--name=n1 --cluster-key=a-key-of-twenty-bytes --cluster-key-file= --nodes=static:a:1,b:2 --slot=1 --link-timeout=24s
		--heartbeat=2500ms --take-over=26s --hold-timeout=27s --max-connection-age=28s --store=s3://attic/a/b --persist=a.*,b --retain-age=29h --retain-bytes=30MiB
		--snapshot-interval=31ms --snapshot-bytes=3MiB --snapshot-backlog=33MiB --stored-timeout=34s`)
	s, err := loaded(t, roomy, args, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := engine.DefaultConfig()
	want.Version = version
	want.Listen, want.Loops, want.MaxMessage, want.MaxBatch, want.MaxConnections = "h:1", 3, 5<<10, 6<<10, 7
	want.MaxTopics, want.MaxTopicBytes, want.MaxTopicAge, want.MaxSubscriptions = 8, 9<<10, 10*time.Second, 11
	want.MaxHeader, want.MaxAnswers, want.HandshakeTimeout, want.RequestTimeout = 12<<10, 13<<10, 14*time.Second, 15*time.Second
	want.PingInterval, want.DrainTimeout, want.Slow, want.Memory = 16*time.Second, 17*time.Second, engine.SlowLatest, 1<<30
	want.LogMemory, want.BufferMemory, want.MailMemory = 19<<20, 20<<20, 21<<20
	want.TickMax = 23 * time.Millisecond
	want.Name, want.ClusterKey = "n1", []byte("a-key-of-twenty-bytes")
	want.LinkTimeout, want.Heartbeat, want.TakeOver, want.HoldTimeout = 24*time.Second, 25*time.Second/10, 26*time.Second, 27*time.Second
	want.MaxConnectionAge = 28 * time.Second
	want.Persist, want.SnapshotInterval, want.SnapshotBacklog, want.StoredTimeout = []string{"a.*", "b"}, 31*time.Millisecond, 33<<20, 34*time.Second
	want.SnapshotCache = 33 << 20 / engine.SnapshotCacheDivisor
	if got, want := configText(s.engine), configText(want); got != want {
		t.Errorf("config is\n%s, want\n%s", got, want)
	}
	if s.nodes.String() != "static:a:1,b:2" || s.slot != 1 {
		t.Errorf("nodes %v, slot %d", s.nodes, s.slot)
	}
	if s.admin != "h:2" || s.logLevel != slog.LevelWarn || s.logFormat != "json" {
		t.Errorf("admin %q, log %v %q", s.admin, s.logLevel, s.logFormat)
	}
	if s.store.String() != "s3://attic/a/b" || s.segmentBytes != 3<<20 || s.retainAge != 29*time.Hour || s.retainBytes != 30<<20 {
		t.Errorf("store %s, segments of %d bytes, kept for %v and %d bytes", s.store, s.segmentBytes, s.retainAge, s.retainBytes)
	}
	s.flags.VisitAll(func(f *pflag.Flag) {
		if isSetting(f.Name) && !f.Changed {
			t.Errorf("this test forgets --%s", f.Name)
		}
	})
}

func TestTopicRules(t *testing.T) {
	const file = `
topics:
  - pattern: orders.*
    slow: close
    bytes: 4MiB
    age: 1h
    persist: false
  - {pattern: "kept.*", persist: true, retain-age: 2h, retain-bytes: 5MiB}
  - {pattern: "*"}
`
	s, err := loaded(t, roomy, nil, nil, file)
	if err != nil {
		t.Fatal(err)
	}
	rules := s.engine.Topics
	if len(rules) != 3 {
		t.Fatalf("%d rules", len(rules))
	}
	if r := rules[0]; r.Pattern != "orders.*" || r.Slow == nil || *r.Slow != engine.SlowClose || r.Bytes != 4<<20 || r.Age != time.Hour || r.Persist == nil || *r.Persist {
		t.Errorf("first rule is %+v", r)
	}
	if r := rules[1]; r.Persist == nil || !*r.Persist {
		t.Errorf("second rule is %+v", r)
	}
	if r := rules[2]; r.Pattern != "*" || r.Slow != nil || r.Bytes != 0 || r.Age != 0 || r.Persist != nil {
		t.Errorf("third rule is %+v", r)
	}
	if !strings.HasSuffix(s.topics[0], "settings.yaml:3") || !strings.HasSuffix(s.topics[2], "settings.yaml:9") {
		t.Errorf("they came from %q", s.topics)
	}
	want := []persist.Retention{{Pattern: "kept.*", Age: 2 * time.Hour, Bytes: 5 << 20}, {Pattern: "*", Age: 7 * 24 * time.Hour}}
	if got := s.retention(); !slices.Equal(got, want) {
		t.Errorf("messages are kept by %+v, want %+v", got, want)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		file string
		want []string // each in the error
	}{
		{"unknown key", nil, nil, "max-mesage: 1\n", []string{`settings.yaml:1: unknown key "max-mesage", did you mean max-message?`}},
		{"unknown key like nothing", nil, nil, "\ncolour: red\n", []string{`settings.yaml:2: unknown key "colour"`}},
		{"a file names no file", nil, nil, "config: x\n", []string{`unknown key "config"`}},
		{"unknown key of a rule", nil, nil, "topics:\n  - {pattern: a, slwo: skip}\n", []string{`unknown key "slwo", did you mean slow?`}},
		{"a rule without pattern", nil, nil, "topics:\n  - slow: skip\n", []string{"settings.yaml:2: topics: a rule needs a pattern"}},
		{"a bad pattern", nil, nil, "topics:\n  - pattern: '[a'\n", []string{"[a"}},
		{"a bad value in a rule", nil, nil, "topics:\n  - {pattern: a,\n     bytes: many}\n", []string{`settings.yaml:3: bytes: "many"`}},
		{"topics that are no list", nil, nil, "topics: {a: b}\n", []string{"topics: want a list"}},
		{"a key twice", nil, nil, "slow: skip\nslow: close\n", []string{`settings.yaml:2: key "slow" is there twice`}},
		{"a list for a value", nil, nil, "listen: [a]\n", []string{"settings.yaml:1: listen: want one value"}},
		{"no value", nil, nil, "listen:\n", []string{"settings.yaml:1: listen: want one value"}},
		{"no mapping", nil, nil, "- a\n", []string{"want a mapping"}},
		{"two documents", nil, nil, "slow: skip\n---\nslow: close\n", []string{"more than one document"}},
		{"no YAML", nil, nil, "\tx", []string{"settings.yaml"}},
		{"bad value in the file", nil, nil, "\n\nmax-message: big\n", []string{`settings.yaml:3: max-message: "big" is not a size`}},
		{"bad value in the environment", nil, map[string]string{"RAYFLUX_LOOPS": "all"}, "", []string{`RAYFLUX_LOOPS: "all" is not a whole number`}},
		{"all at once", nil, map[string]string{"RAYFLUX_TICK_MAX": "5"}, "slow: lates\nlisten: []\n", []string{`RAYFLUX_TICK_MAX: "5"`, "lates", "listen: want one value"}},
		{"no such file", []string{"--config", "/does/not/exist"}, nil, "", []string{"/does/not/exist"}},
		{"an address without port", []string{"--admin", "localhost"}, nil, "", []string{`admin is "localhost", want host:port`}},
		{"more connections than descriptors", []string{"--max-connections=65400"}, nil, "", []string{"max-connections is 65400, want at most 65280", "65536 descriptors"}},
		{"what the engine refuses", []string{"--max-message=0"}, nil, "", []string{"max-message is 0"}},
		{"a store of no kind", nil, map[string]string{"RAYFLUX_STORE": "gs://a"}, "", []string{`RAYFLUX_STORE: "gs://a" is no store, want dir:PATH, s3://BUCKET/PREFIX or none`}},
		{"a store nowhere", nil, nil, "store: 'dir:'\n", []string{`settings.yaml:1: store: "dir:" has no directory`}},
		{"a pattern of topics to keep", nil, nil, "persist: 'a,[b'\n", []string{"settings.yaml:1: persist: ", "[b"}},
		{"a rule that keeps perhaps", nil, nil, "topics:\n  - {pattern: a, persist: maybe}\n", []string{`persist: "maybe" is neither true nor false`}},
		{"a rule that keeps how much", nil, nil, "topics:\n  - {pattern: a, retain-bytes: much}\n", []string{`retain-bytes: "much"`}},
		{"segments past the backlog", []string{"--snapshot-bytes=2MiB", "--snapshot-backlog=1MiB"}, nil, "", []string{"snapshot-bytes is 2MiB, want at most snapshot-backlog, which is 1MiB"}},
		{"no interval", []string{"--snapshot-interval=0"}, nil, "", []string{"snapshot-interval is 0"}},
		{"limits past the budget", []string{"--memory=1GiB", "--log-memory=1GiB"}, nil, "", []string{"memory is 1073741824"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := loaded(t, roomy, c.args, c.env, c.file)
			if err == nil {
				t.Fatal("no error")
			}
			if _, ok := err.(usageError); !ok {
				t.Errorf("%T is no usage error", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestBalancerNeedsNodesAndAKey(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("a key of twenty bytes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const nodes, key = "--nodes=static:a:1,b:2", "--cluster-key=a key of twenty bytes"
	for _, c := range []struct {
		args []string
		want string // in the error; "": none
	}{
		{[]string{nodes, key}, ""},
		{[]string{nodes, "--cluster-key-file=" + keyFile}, ""},
		{[]string{key}, "nodes is not set"},
		{[]string{nodes}, "neither cluster-key nor cluster-key-file is set"},
		{[]string{nodes, key, "--cluster-key-file=" + keyFile}, "both cluster-key and cluster-key-file"},
		{[]string{nodes, "--cluster-key=short"}, "cluster key is 5 bytes, want at least 16"},
		{[]string{nodes, "--cluster-key-file=/does/not/exist"}, "/does/not/exist"},
		{[]string{nodes, key, "--heartbeat=6s"}, "heartbeat is 6s, want less than link-timeout"},
	} {
		s, err := loadedAs(t, balancerRole, roomy, c.args, nil, "")
		switch {
		case (err == nil) != (c.want == ""), err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%q: error is %v, want %q", c.args, err, c.want)
		case err == nil && string(s.engine.ClusterKey) != "a key of twenty bytes":
			t.Errorf("%q: key is %q", c.args, s.engine.ClusterKey)
		}
	}
}

func TestANodeKnowsWhichOfTheNodesItIs(t *testing.T) {
	const nodes, key = "--nodes=static:a:1,b:2", "--cluster-key=a key of twenty bytes"
	for _, c := range []struct {
		host string
		args []string
		slot int
		want string // in the error; "": none
	}{
		{"rayflux-1", []string{nodes, key}, 1, ""},
		{"rayflux-1", []string{nodes, key, "--slot=0"}, 0, ""},
		{"rayflux-12.example", []string{nodes, key}, 0, "slot is not set"},
		{"host", []string{nodes, key}, 0, "slot is not set"},
		{"host-01", []string{nodes, key}, 0, "slot is not set"},
		{"host", []string{nodes, key, "--slot=1024"}, 0, "slot is 1024, want 0 to 1023"},
		{"host-1", []string{nodes}, 0, "neither cluster-key nor cluster-key-file is set"},
		{"host-1", []string{"--nodes=dns:rayflux:8080", key}, 0, "cannot know which it is"},
		{"host-1", []string{"--nodes=dns:_ws._tcp.rayflux", key}, 1, ""},
		{"host-1", nil, 0, ""},
	} {
		m := roomy
		m.name = c.host
		s, err := loaded(t, m, c.args, nil, "")
		switch {
		case (err == nil) != (c.want == ""), err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s, %q: error is %v, want %q", c.host, c.args, err, c.want)
		case err == nil && s.slot != c.slot:
			t.Errorf("%s, %q: slot is %d, want %d", c.host, c.args, s.slot, c.slot)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	s, err := loaded(t, roomy, []string{"--cluster-key=a key of twenty bytes"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := s.print(&printed); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(printed.String(), "twenty") || !strings.Contains(printed.String(), "# cluster-key: (set)") {
		t.Errorf("printed is\n%s", &printed)
	}
}

func TestMemoryBeyondTheContainerIsRefused(t *testing.T) {
	m := roomy
	m.memoryLimit = 512 << 20
	if _, err := loaded(t, m, []string{"--memory=1GiB"}, nil, ""); err == nil || !strings.Contains(err.Error(), "memory is 1GiB, the container's limit is 512MiB") {
		t.Errorf("error is %v", err)
	}
}

func TestTheFileMayComeFromTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, []byte("slow: close\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loaded(t, roomy, nil, map[string]string{"RAYFLUX_CONFIG": path}, "")
	if err != nil || s.engine.Slow != engine.SlowClose {
		t.Errorf("slow is %v (%v)", s.engine.Slow, err)
	}
}

func TestAnEmptyFileSaysNothing(t *testing.T) {
	if _, err := loaded(t, roomy, nil, nil, "# nothing yet\n"); err != nil {
		t.Error(err)
	}
}

func TestDerivedSettings(t *testing.T) {
	for _, c := range []struct {
		name        string
		m           machine
		args        []string
		loops       int
		connections int // 0: see fits
		why         string
	}{
		{"few descriptors", machine{cpus: 2, memory: 1 << 30, descriptors: 1024}, nil, 2, 768, "limit of 1024 descriptors less a reserve of 256"},
		{"many descriptors", machine{cpus: 1, memory: 1 << 30, descriptors: 20000}, nil, 1, 18000, "limit of 20000 descriptors less a reserve of 2000"},
		{"little memory", machine{cpus: 1, memory: 128 << 20, descriptors: 1 << 20}, nil, 1, 0, "what memory holds"},
		{"little memory said", machine{cpus: 1, memory: 4 << 30, descriptors: 1 << 20}, []string{"--memory=128MiB"}, 1, 0, "what memory holds"},
		{"more descriptors than anybody's limit", machine{cpus: 1, memory: 1 << 40, descriptors: 1<<31 - 1}, nil, 1, 10_000_000, "what memory holds"},
		{"loops said", machine{cpus: 1, memory: 1 << 30, descriptors: 1024}, []string{"--loops=2"}, 2, 768, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := loaded(t, c.m, c.args, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			if s.engine.Loops != c.loops {
				t.Errorf("%d loops, want %d", s.engine.Loops, c.loops)
			}
			if c.connections != 0 && s.engine.MaxConnections != c.connections {
				t.Errorf("%d connections, want %d", s.engine.MaxConnections, c.connections)
			}
			if why := s.from["max-connections"]; !strings.Contains(why, c.why) {
				t.Errorf("max-connections came from %q, want %q", why, c.why)
			}
			if c.connections == 0 {
				more := s.engine
				more.MaxConnections++
				if more.Validate() == nil {
					t.Errorf("%d connections, and one more would fit", s.engine.MaxConnections)
				}
			}
		})
	}
}

func TestDerivedSharesAreTheEngines(t *testing.T) {
	for _, loops := range []string{"--loops=1", "--loops=3"} {
		s, err := loaded(t, roomy, []string{loops}, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		plain := s.engine
		plain.LogMemory, plain.BufferMemory, plain.MailMemory = 0, 0, 0
		ours, _, _ := strings.Cut(s.engine.Budget(), "=")
		theirs, _, _ := strings.Cut(plain.Budget(), "=")
		if ours != theirs {
			t.Errorf("%s: derived budget is %q, the engine's own %q", loops, ours, theirs)
		}
	}
}

func TestPrintedSettingsReadBackTheSame(t *testing.T) {
	const file = "topics:\n  - {pattern: '*', slow: latest, bytes: 3MB, age: 90s, persist: false}\n  - {pattern: '{\"#', retain-bytes: 1GiB}\n"
	args := []string{"--listen=:9", "--max-message=1000", "--tick-max=0"}
	s, err := loaded(t, roomy, args, map[string]string{"RAYFLUX_SLOW": "close"}, file)
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := s.print(&printed); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# flag --listen", "# environment RAYFLUX_SLOW", "# default", "# derived: test", "settings.yaml:2", "# budget: "} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("%q is not in\n%s", want, &printed)
		}
	}
	again, err := loaded(t, roomy, nil, nil, printed.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, &printed)
	}
	if got, want := again.retention(), s.retention(); !slices.Equal(got, want) {
		t.Errorf("read back messages are kept by %+v, want %+v", got, want)
	}
	if got, want := configText(again.engine), configText(s.engine); got != want {
		t.Errorf("read back it is\n%s, want\n%s", got, want)
	}
}

func TestStrangeVariables(t *testing.T) {
	env := environment([]string{
		"RAYFLUX_LISTEN=:1", "RAYFLUX_CONFIG=x", "RAYFLUX_SERVER=ws://x", "PATH=/bin", "RAYFLUXION=1",
		"RAYFLUX_MAX_MESAGE=1", "RAYFLUX_HELP=1", "RAYFLUX_EMPTY=",
		"RAYFLUX_SERVICE_HOST=10.0.0.1", "RAYFLUX_SERVICE_PORT=80", "RAYFLUX_SERVICE_PORT_HTTP=80", "RAYFLUX_PORT=tcp://10.0.0.1:80",
		"RAYFLUX_NODE_PORT_8080_TCP=x", "RAYFLUX_NODE_PORT_8080_TCP_ADDR=x", "RAYFLUX_NODE_PORT_8080_TCP_PROTO=tcp",
	})
	got := strings.Join(strangers(rootCommand(), env), "\n")
	want := "unknown variable RAYFLUX_HELP\nunknown variable RAYFLUX_MAX_MESAGE, did you mean RAYFLUX_MAX_MESSAGE?"
	if got != want {
		t.Errorf("complaints are\n%s, want\n%s", got, want)
	}
}

// configText is c for comparison: all fields but the logger, rules by value.
func configText(c engine.Config) string {
	c.Log = nil
	type rule struct {
		engine.TopicRule
		Slow    string
		Persist string
	}
	var rules []rule
	for _, r := range c.Topics {
		slow := "default"
		if r.Slow != nil {
			slow = r.Slow.String()
		}
		persist := "default"
		if r.Persist != nil {
			persist = fmt.Sprint(*r.Persist)
		}
		r.Slow, r.Persist = nil, nil
		rules = append(rules, rule{r, slow, persist})
	}
	c.Topics = nil
	return fmt.Sprintf("%+v %+v", c, rules)
}
