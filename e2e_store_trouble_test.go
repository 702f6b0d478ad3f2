package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rayflux/persist"
	"rayflux/protocol"
)

// What a store does wrong, with a node as a process: it goes on without, says why, and stores again when it can.

// onDisk is a directory on a file system of its own, as large as size says, for a process that is started behind its shell
// commands, and gone with that process.
type onDisk struct {
	path  string // as the process sees it
	shell string
}

func newDisk(t *testing.T, size string) onDisk {
	t.Helper()
	apart := "unshare --mount"
	if os.Geteuid() != 0 {
		apart = "unshare --user --map-root-user --mount"
	}
	d := onDisk{path: t.TempDir()}
	mount := fmt.Sprintf("mount -t tmpfs -o size=%s tmpfs %s", size, d.path)
	if out, err := exec.Command("sh", "-c", apart+" "+mount).CombinedOutput(); err != nil {
		t.Skipf("a process cannot be given a file system of its own here: %v: %s", err, out)
	}
	d.shell = fmt.Sprintf(`exec %s sh -c '%s && exec "$0" "$@"' "$0" "$@"`, apart, mount)
	return d
}

// seen is where everybody else sees the directory of a process.
func (d onDisk) seen(n *node) string {
	return fmt.Sprintf("/proc/%d/root%s", n.cmd.Process.Pid, d.path)
}

// fill writes a file until there is no room for more of it.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for page := make([]byte, 4<<10); err == nil; {
		_, err = file.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
}

func TestAFullDiskIsToldAndOutlived(t *testing.T) {
	disk := newDisk(t, "4m")
	n := startServer(t, disk.shell, "node", "127.0.0.1:0", 2, "--store=dir:"+filepath.Join(disk.path, "store"), "--snapshot-interval=50ms", "--stored-timeout=1s")
	s := &shelf{t: t, at: "dir:" + filepath.Join(disk.seen(n), "store"), front: n}
	const topic = "full"
	reader, p := n.native(t), n.native(t)
	reader.subscribe(topic, "")
	publish := func(offset uint64, ack, answer string) event {
		t.Helper()
		e := p.ask(fmt.Sprintf(`{"op":"publish","id":%d,"topic":%q,"text":"%d"%s}`, offset, topic, offset, ack), answer)
		if m := reader.hear("message"); m.Offset != offset || m.text() != fmt.Sprint(offset) {
			t.Errorf("message %d is delivered as %+v", offset, m)
		}
		return e
	}
	const stored = `,"ack":"stored"`
	publish(1, stored, "published")
	filler := filepath.Join(disk.seen(n), "filler")
	fillDisk(t, filler)
	if e := publish(2, stored, "error"); e.Code != string(protocol.CodeStoreUnavailable) {
		t.Errorf("told %+v", e)
	}
	publish(3, "", "published")
	mentions(t, n.lastWords(), "the store fails", "segments/0000000001/", "no space left on device")
	if m := n.metrics(); m[`rayflux_store_requests_total{op="create",result="full"}`] == 0 || m["rayflux_store_backlog_bytes"] == 0 || m["rayflux_store_backlog_age_seconds"] == 0 {
		t.Errorf("it counts %v", m)
	}
	if held := s.holds(topic); !slices.Equal(held, []string{"1"}) {
		t.Errorf("the full store holds %q", held)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.counted("rayflux_store_backlog_bytes", 0)
	publish(4, stored, "published")
	mentions(t, n.lastWords(), "the store is back")
	if held := s.holds(topic); !slices.Equal(held, []string{"1", "2", "3", "4"}) {
		t.Errorf("the store holds %q", held)
	}
	if halves, err := filepath.Glob(filepath.Join(disk.seen(n), "store", "*", "*", ".half-*")); err != nil || len(halves) > 0 {
		t.Errorf("what did not fit is left: %q (%v)", halves, err)
	}
	exit, out, complaints := said(t, "snapshot", "verify", "--store="+s.at)
	if exit != exitClean || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("verify: exit status %d: %s%s", exit, out, complaints)
	}
}

// tardy is an HTTP proxy in front of a bucket that puts every write off.
type tardy struct {
	*httptest.Server
	delay time.Duration

	mu      sync.Mutex
	sending int   // segments under way
	overlap int   // the most of them at once
	listed  []int // of each head that was written: what published was then

	published atomic.Int64 // the test's
}

func newTardy(t *testing.T, target string, delay time.Duration) *tardy {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &tardy{delay: delay}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // it is signed
	}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			forward.ServeHTTP(w, r)
			return
		}
		segment := strings.Contains(r.URL.Path, "/segments/")
		if segment {
			p.mu.Lock()
			p.sending++
			p.overlap = max(p.overlap, p.sending)
			p.mu.Unlock()
		}
		time.Sleep(p.delay) // what it is for
		forward.ServeHTTP(w, r)
		p.mu.Lock()
		defer p.mu.Unlock()
		if segment {
			p.sending--
		} else if strings.Contains(r.URL.Path, "/heads/") {
			p.listed = append(p.listed, int(p.published.Load()))
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// heads is how many heads were written, and what was published when the one before the last few was.
func (p *tardy) heads(few int) (n, published int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n = len(p.listed); n > few {
		published = p.listed[n-1-few]
	}
	return n, published
}

func TestASlowBucketSlowsNobodyDown(t *testing.T) {
	server, at := useS3(t)
	proxy := newTardy(t, server.Endpoint, sized(time.Second, 5*time.Second))
	t.Setenv("AWS_ENDPOINT_URL_S3", proxy.URL)
	s := startShelf(t, at, false, "--stored-timeout=25s", "--snapshot-interval=200ms")
	n := s.front
	reader, p, storing := n.native(t), n.native(t), n.native(t)
	reader.subscribe("kept", "")
	reader.subscribe("other", "")
	pad := strings.Repeat("x", 1000)
	answers := make(chan error, 1)
	asked := make(chan uint64, 1) // how many there are, at the end
	go func() {                   // what is answered stored, in whatever order
		want, seen := uint64(0), map[uint64]bool{}
		for want == 0 || len(seen) < int(want) {
			_ = storing.SetDeadline(time.Now().Add(patience))
			e, err := storing.event()
			if err != nil || e.Op != "published" || e.Offset != *e.ID || seen[e.Offset] {
				answers <- fmt.Errorf("after %d answers came %+v (%v)", len(seen), e, err)
				return
			}
			seen[e.Offset] = true
			select {
			case want = <-asked:
			default:
			}
		}
		answers <- nil
	}()

	// Each message is taken and delivered before the next is published, whatever the store is about.
	const few = 4 // heads, within which what is published is in the store
	most, sent := 0.0, uint64(0)
	for heads := 0; heads < few+2; heads, _ = proxy.heads(few) {
		select {
		case err := <-answers:
			t.Fatal(err)
		default:
		}
		sent++
		reader.patient()
		p.patient()
		storing.tell(fmt.Sprintf(`{"op":"publish","id":%d,"topic":"kept","text":%q,"ack":"stored"}`, sent, pad))
		if e := reader.hear("message"); e.Topic != "kept" || e.Offset != sent {
			t.Fatalf("the reader heard %+v, want message %d", e, sent)
		}
		if e := p.publish("other", "x"); e.Offset != sent {
			t.Fatalf("published %+v, want %d", e, sent)
		}
		if e := reader.hear("message"); e.Topic != "other" || e.Offset != sent {
			t.Fatalf("the reader heard %+v, want message %d", e, sent)
		}
		proxy.published.Store(int64(sent))
		if _, before := proxy.heads(few); sent%50 == 0 {
			backlog := n.metrics()["rayflux_store_backlog_bytes"]
			most = max(most, backlog)
			if limit := float64(sent-uint64(before)) * 2 * 2000; backlog > limit {
				t.Fatalf("%v bytes wait to be stored, and since %d heads ago %d messages were published", backlog, few, int(sent)-before)
			}
		}
		time.Sleep(5 * time.Millisecond) // a rate
	}
	storing.tell(fmt.Sprintf(`{"op":"publish","id":%d,"topic":"kept","text":%q,"ack":"stored"}`, sent+1, pad))
	asked <- sent + 1
	if err := <-answers; err != nil {
		t.Error(err)
	}
	if m := n.metrics(); proxy.overlap < 2 || m["rayflux_store_given_up_messages_total"] != 0 {
		t.Errorf("%d segments were under way at once, %v messages were given up", proxy.overlap, m["rayflux_store_given_up_messages_total"])
	}
	t.Logf("%d messages, %d segments under way at once, at most %.0f bytes waited", sent, proxy.overlap, most)
	p.publish("other", "last")
	n.end()
	t.Setenv("AWS_ENDPOINT_URL_S3", server.Endpoint)
	if held := s.holds("kept"); len(held) != int(sent)+1 {
		t.Errorf("%d messages of kept are in the store, want %d", len(held), sent+1)
	}
	if held := s.holds("other"); len(held) != int(sent)+1 || held[sent] != "last" {
		t.Errorf("%d messages of other are in the store, want %d", len(held), sent+1)
	}
}

// inYear has a node's end of a store at work, messages of one epoch and all, with a clock that says so. It leaves its lease.
func inYear(t *testing.T, year int, store persist.Store, epoch string, payloads ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))) // from 2000 on, in no time
		quiet := slog.New(slog.DiscardHandler)
		upkeep, err := persist.NewUpkeep(store, persist.UpkeepConfig{Rules: []persist.Retention{{Pattern: "*", Age: time.Hour}}, Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			upkeep.Run(ctx)
		}()
		archive, err := persist.Open(persist.Config{Name: "n", Slot: -1, Log: quiet, Done: func(_ *persist.Batch, err error) {
			if err != nil {
				t.Error(err)
			}
		}}, store)
		if err != nil {
			t.Fatal(err)
		}
		for i, payload := range payloads {
			run := storedRun("clocks", epoch, 0, uint64(i+1), payload)
			run.Began = time.Now().UnixMilli()
			run.Times[0].UnixMs = run.Began
			archive.Offer(&persist.Batch{Runs: []persist.Run{run}, Bytes: run.Frames})
			if err := archive.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := archive.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-ended
		time.Sleep(time.Hour) // what was asked for, and is not waited for any more, ends
	})
}

func TestAStoreOfWrongClocksIsUsed(t *testing.T) {
	// The coders are the process's, and must not begin in a bubble.
	if _, _, err := persist.AppendSegment(nil, []persist.Run{storedRun("t", "e", 0, 1, strings.Repeat("x", 1000))}); err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	store, err := persist.OpenDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	inYear(t, time.Now().Year()+9, store, "ahead", "1", "2")
	inYear(t, 2001, store, "behind", "3", "4")

	began := time.Now().UTC().Format(time.RFC3339)
	s := startShelf(t, "dir:"+directory, false)
	p := s.front.native(t)
	p.store("clocks", "5")
	p.store("clocks", "6")
	p.subscribe("clocks", `"earliest"`)
	var heard []string
	for len(heard) < 8 {
		e, err := p.event()
		if err != nil {
			t.Fatalf("after %q: %v", heard, err)
		}
		if e.Op == "message" {
			heard = append(heard, e.text())
		} else {
			heard = append(heard, e.Op)
		}
	}
	if want := []string{"1", "2", "gap", "3", "4", "gap", "5", "6"}; !slices.Equal(heard, want) {
		t.Errorf("the reader heard %q, want %q", heard, want)
	}
	recent := s.front.native(t)
	recent.subscribe("clocks", fmt.Sprintf(`{"since":%q}`, began))
	for _, want := range []string{"5", "6"} {
		if e := recent.hear("message"); e.text() != want {
			t.Errorf("since %s came %+v, want %s", began, e, want)
		}
	}
	eventually(t, func() string {
		leases, err := filepath.Glob(filepath.Join(directory, "leases", "upkeep", "*"))
		if err != nil || len(leases) != 1 || leases[0] < filepath.Join(directory, "leases", "upkeep", "0000000003") {
			return fmt.Sprintf("leases are %q: nobody looks after the store", leases)
		}
		return ""
	})
	if exit, out, complaints := said(t, "snapshot", "gc", "--retain-age=1h", "--store="+s.at); exit != exitClean || strings.Contains(out, "past their retention") {
		t.Errorf("gc: exit status %d: %s%s", exit, out, complaints)
	}
	exit, out, complaints := said(t, "snapshot", "verify", "--store="+s.at)
	if exit != exitClean || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("verify: exit status %d: %s%s", exit, out, complaints)
	}
	if held := s.holds("clocks"); !slices.Equal(held, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Errorf("the store holds %q", held)
	}
}

// What the log has forgotten and the store has not got yet is read from the node that has it, while the bucket hangs.
func TestABucketThatHangsHidesNothingThatIsNotThere(t *testing.T) {
	server, at := useS3(t)
	s := startShelf(t, at, false, "--max-message=1KiB", "--max-topic-bytes=4KiB")
	p, topic := s.front.native(t), "late"
	p.store(topic, "1")
	server.Pause()
	const count = 60
	pad := strings.Repeat("x", 500)
	epoch := ""
	for i := 2; i <= count; i++ {
		epoch = p.publish(topic, fmt.Sprint(i, " ", pad)).Epoch
	}
	for _, c := range []struct {
		from  string
		first uint64
	}{{fmt.Sprintf(`{"epoch":%q,"offset":7}`, epoch), 8}, {`{"last":40}`, count - 39}, {fmt.Sprintf(`{"epoch":%q,"offset":1}`, epoch), 2}} {
		reader := s.front.native(t)
		if start := reader.subscribe(topic, c.from); !*start.Recovered || start.Epoch != epoch || start.Offset != c.first-1 {
			t.Errorf("from %s: subscribed %+v, want %d", c.from, start, c.first-1)
		}
		for offset := c.first; offset <= count; offset++ {
			if e := reader.hear("message"); e.Offset != offset || !strings.HasPrefix(e.text(), fmt.Sprint(offset, " ")) {
				t.Fatalf("from %s: message %d is %+v", c.from, offset, e)
			}
		}
	}
	if e := s.front.native(t).ask(fmt.Sprintf(`{"op":"subscribe","id":1,"topic":%q,"from":"earliest"}`, topic), "error"); e.Code != string(protocol.CodeStoreUnavailable) {
		t.Errorf("who asks for what only the store can tell is told %+v", e)
	}
	server.Resume()
}
