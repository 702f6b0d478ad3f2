package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rayflux/persist"
	"rayflux/persist/s3/s3test"
	"rayflux/protocol"
)

// storedRun is messages from an offset on, each a second after the one before it: 2026-01-02T15:04:00Z is second 0.
func storedRun(topic, epoch string, second int64, first uint64, payloads ...string) persist.Run {
	const base = 1767366240
	r := persist.Run{Topic: topic, Epoch: epoch, Began: (base + second) * 1000, First: first}
	for i, payload := range payloads {
		kind := protocol.KindText
		switch payload[0] {
		case '{':
			kind = protocol.KindJSON
		case 0:
			kind = protocol.KindBinary
		}
		r.Frames = protocol.AppendMessage(r.Frames, protocol.FormatBinary, topic, first+uint64(i), kind, []byte(payload))
		r.Times = append(r.Times, persist.Time{Index: uint32(i), UnixMs: r.Began + int64(i)*1000})
		r.Count++
	}
	return r
}

// fillStore writes one sealed life with two segments that are listed, and one that is not.
func fillStore(t *testing.T, store persist.Store) {
	t.Helper()
	head := &persist.Head{Life: 1, Name: "n-0", Slot: 0, StartedMs: 1767366240000, WrittenMs: 1767366300000, Sealed: true}
	put := func(name string, body []byte) {
		if err := store.Create(t.Context(), name, body); err != nil {
			t.Fatal(err)
		}
	}
	for i, runs := range [][]persist.Run{
		{storedRun("prices", "e1", 0, 1, "one", `{"a": 2}`, "\x00\xff"), storedRun("news", "x", 3, 1, "hello")},
		{storedRun("prices", "e1", 10, 6, "six"), storedRun("prices", "e2", 20, 1, "again")},
		{storedRun("prices", "e3", 30, 1, "never listed")},
	} {
		body, ref, err := persist.AppendSegment(nil, runs)
		if err != nil {
			t.Fatal(err)
		}
		put(fmt.Sprintf("segments/0000000001/%010d", i+1), body)
		if i < 2 {
			head.Segments = append(head.Segments, persist.HeadSegment{Seq: uint64(i + 1), SegmentRef: ref})
		}
	}
	put("sealed/0000000001", persist.AppendSealed(nil, 1, 1, []persist.Sealed{{Topic: "news", Epoch: "x", Began: 1, Last: 1}}))
	put("heads/0000000001", persist.AppendHead(nil, head))
}

func storeInDirectory(t *testing.T) (directory string) {
	t.Helper()
	directory = t.TempDir()
	store, err := persist.OpenDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, store)
	return directory
}

// said runs rayflux and is its exit status and what it wrote.
func said(t *testing.T, args ...string) (exit int, out, complaints string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := rayflux(t, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return status(t, err), stdout.String(), stderr.String()
}

const (
	catOne   = `{"topic":"prices","epoch":"e1","offset":1,"kind":"text","data":"one"}` + "\n"
	catTwo   = `{"topic":"prices","epoch":"e1","offset":2,"kind":"json","data":{"a":2}}` + "\n"
	catThree = `{"topic":"prices","epoch":"e1","offset":3,"kind":"binary","base64":"AP8="}` + "\n"
	catHole  = `{"topic":"prices","epoch":"e1","offset":5,"gap":{"reason":"reset","missed":2}}` + "\n"
	catSix   = `{"topic":"prices","epoch":"e1","offset":6,"kind":"text","data":"six"}` + "\n"
	catReset = `{"topic":"prices","epoch":"e2","offset":0,"gap":{"reason":"reset"}}` + "\n"
	catAgain = `{"topic":"prices","epoch":"e2","offset":1,"kind":"text","data":"again"}` + "\n"
)

func TestSnapshotCommands(t *testing.T) {
	directory := storeInDirectory(t)
	at := "--store=dir:" + directory
	for _, c := range []struct {
		args string
		exit int
		out  string
		says string // on standard error
	}{
		{"ls", 0, "" +
			"TOPIC   MESSAGES  BYTES  SEGMENTS  EPOCHS  FIRST  LAST  OLDEST                NEWEST\n" +
			"news    1         15     1         1       x:1    x:1   2026-01-02T15:04:03Z  2026-01-02T15:04:03Z\n" +
			"prices  5         81     2         2       e1:1   e2:1  2026-01-02T15:04:00Z  2026-01-02T15:04:20Z\n", ""},
		{"ls --pattern=n* --output=json", 0, `{"topic":"news","messages":1,"bytes":15,"segments":1,"epochs":1,"first":"x:1","last":"x:1",` +
			`"oldest":"2026-01-02T15:04:03Z","newest":"2026-01-02T15:04:03Z"}` + "\n", ""},
		{"ls --pattern=[", 2, "", `pattern is "["`},
		{"cat prices --output=json", 0, catOne + catTwo + catThree + catHole + catSix + catReset + catAgain, ""},
		{"cat prices", 0, "one\n{\"a\": 2}\n\x00\xff\nsix\nagain\n", `topic "prices": messages up to e1:5 are missing, 2 of them (reset)`},
		{"cat prices --output=json --count=2", 0, catOne + catTwo, ""},
		{"cat prices --output=json --from=last:2", 0, catSix + catReset + catAgain, ""},
		{"cat prices --output=json --from=e1:2", 0, catThree + catHole + catSix + catReset + catAgain, ""},
		{"cat prices --output=json --from=since:2026-01-02T15:04:10Z", 0, catSix + catReset + catAgain, ""},
		{"cat prices --from=since:2026-01-03T00:00:00Z", 0, "", ""},
		{"cat prices --from=e9:2", 1, "", `topic "prices": the store has nothing of epoch e9`},
		{"cat prices --from=now", 2, "", `from is "now"`},
		{"cat prices --from=", 2, "", "from is empty"},
		{"cat prices --count=-1", 2, "", "count is -1"},
		{"cat other", 1, "", `topic "other": the store has no messages of it`},
		{"cat", 2, "", "cat wants one TOPIC"},
		{"cat $x", 2, "", "reserved"},
		{"verify", 0, "ok: 4 objects, of them 2 segments of 289 with 6 messages\n", ""},
		{"verify --store=none", 2, "", "verify wants --store"},
		{"verify --store=dir:" + directory + "/absent", 1, "", "no such file"},
		{"verify --store=file:/x", 2, "", `"file:/x" is no store`},
		{"gc --dry-run", 0, "segments/0000000001/0000000003 (99): its life ended without listing it\n1 objects are listed by nothing\n", ""},
		{"gc --grace=1s", 2, "", "grace is 1s, want at least 2m"},
		{"gc --dry-run --retain-bytes=20", 0, "topic \"prices\": 3 messages (49) are past their retention\n" +
			"segments/0000000001/0000000003 (99): its life ended without listing it\n1 objects are listed by nothing\n", ""},
		{"gc", 0, "segments/0000000001/0000000003 (99): its life ended without listing it\n0 segments became 0, 1 objects were deleted\n", ""},
		{"gc", 0, "0 segments became 0, 0 objects were deleted\n", ""},
		{"gc --retain-age=-1s", 2, "", "-1s"},
		{"gc --config=" + directory + "/absent", 2, "", "settings file"},
		{"verify", 0, "ok: 5 objects, of them 2 segments of 289 with 6 messages\n", ""},
		{"", 2, "", "needs a command"},
		{"list", 2, "", `unknown command "list"`},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := append([]string{"snapshot"}, strings.Fields(c.args)...)
			if len(args) > 2 || c.args == "ls" || c.args == "verify" || c.args == "gc" || c.args == "cat" {
				args = append(args[:2:2], append([]string{at}, args[2:]...)...)
			}
			exit, out, complaints := said(t, args...)
			if exit != c.exit || out != c.out {
				t.Errorf("exit status %d, it printed\n%s\nwant %d and\n%s", exit, out, c.exit, c.out)
			}
			if !strings.Contains(complaints, c.says) || c.says == "" && complaints != "" {
				t.Errorf("it complained %q, want %q", complaints, c.says)
			}
		})
	}
}

// What a server's file says of how long messages are kept is applied at once; nothing else is deleted.
func TestSnapshotCollectTakesAServersRetention(t *testing.T) {
	directory := storeInDirectory(t)
	file := filepath.Join(t.TempDir(), "rayflux.yaml")
	text := "listen: :1\nstore: none\nnode-count: 3\ntopics:\n  - pattern: news\n    slow: close\n  - pattern: price*\n    retain-age: 1h\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	gc := func(args ...string) string {
		t.Helper()
		exit, out, complaints := said(t, append([]string{"snapshot", "gc", "--config=" + file, "--store=dir:" + directory}, args...)...)
		if exit != exitClean || complaints != "" {
			t.Fatalf("gc: exit status %d: %s%s", exit, out, complaints)
		}
		return out
	}
	if out := gc("--dry-run"); !strings.Contains(out, "topic \"prices\": 5 messages (81) are past their retention\n") || strings.Contains(out, "news") {
		t.Errorf("gc --dry-run says %s", out)
	}
	if out := gc(); !strings.HasSuffix(out, "2 segments became 1 without 5 messages past their retention, 0 objects were deleted\n") {
		t.Errorf("gc says %s", out)
	}
	if out := gc(); out != "0 segments became 0, 0 objects were deleted\n" {
		t.Errorf("the second gc says %s", out)
	}
	if exit, out, _ := said(t, "snapshot", "ls", "--output=json", "--store=dir:"+directory); exit != exitClean || !strings.Contains(out, `"news"`) || strings.Contains(out, "prices") {
		t.Errorf("ls: exit status %d: %s", exit, out)
	}
	if out := gc("--retain-bytes=1", "--retain-age=1s"); !strings.Contains(out, "without 1 messages") {
		t.Errorf("gc with flags beside the file says %s", out)
	}
}

func TestSnapshotSaysWhatIsBroken(t *testing.T) {
	directory := storeInDirectory(t)
	at := "--store=dir:" + directory
	const name = "segments/0000000001/0000000002"
	file := filepath.Join(directory, name)
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	body[20] ^= 1 // in the only block
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, body, 0o644); err != nil {
		t.Fatal(err)
	}
	exit, out, complaints := said(t, "snapshot", "verify", at)
	if exit != 1 || !strings.HasPrefix(out, name+": block 0: checksum is ") || !strings.Contains(complaints, "1 objects are broken, 3 are good") {
		t.Errorf("verify: %d: %s%s", exit, out, complaints)
	}
	exit, out, complaints = said(t, "snapshot", "cat", "prices", "--output=json", at)
	if exit != 1 || out != catOne+catTwo+catThree+catHole || strings.Count(complaints, name) != 1 {
		t.Errorf("cat: %d: %s%s", exit, out, complaints)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	exit, out, complaints = said(t, "snapshot", "ls", "--pattern=prices", at)
	if exit != 1 || !strings.Contains(out, "e1:3") || !strings.Contains(complaints, name) {
		t.Errorf("ls: %d: %s%s", exit, out, complaints)
	}
}

const snapshotsPage = "docs/snapshots.md"

func TestSnapshotsPageShowsWhatCommandsSay(t *testing.T) {
	directory, shown := storeInDirectory(t), 0
	for _, b := range codeBlocks(readPage(t, snapshotsPage)) {
		line, want, _ := strings.Cut(b.text, "\n")
		args, ok := strings.CutPrefix(line, "$ rayflux ")
		if !ok {
			continue
		}
		shown++
		args = strings.ReplaceAll(args, "./data", directory)
		if exit, out, complaints := said(t, strings.Fields(args)...); exit != 0 || out != want || complaints != "" {
			t.Errorf("%s:%d: %s prints\n%s%s", snapshotsPage, b.line, args, out, complaints)
		}
	}
	if shown < 4 {
		t.Errorf("%s shows %d commands", snapshotsPage, shown)
	}
}

func TestSnapshotReadsABucket(t *testing.T) {
	server := s3test.Start(t)
	for _, line := range server.Environment() {
		name, text, _ := strings.Cut(line, "=")
		t.Setenv(name, text)
	}
	place, err := parseStore("s3://" + s3test.Bucket + "/some/prefix")
	if err != nil {
		t.Fatal(err)
	}
	store, err := place.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, store)
	exit, out, complaints := said(t, "snapshot", "cat", "prices", "--output=json", "--from=last:1", "--store", place.String())
	if exit != 0 || out != catAgain || complaints != "" {
		t.Errorf("cat: %d: %s%s", exit, out, complaints)
	}
	if exit, out, complaints = said(t, "snapshot", "verify", "--store", place.String()); exit != 0 || !strings.HasPrefix(out, "ok: 4 objects") {
		t.Errorf("verify: %d: %s%s", exit, out, complaints)
	}
	server.Stop()
	if exit, out, complaints = said(t, "snapshot", "ls", "--store", place.String()); exit != 1 || !strings.Contains(complaints, "refused") {
		t.Errorf("ls of a server that is away: %d: %s%s", exit, out, complaints)
	}
}
