package k8s

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	discovery "k8s.io/api/discovery/v1"
	"k8s.io/client-go/rest"

	"rayflux/balancer/cluster"
	"rayflux/engine"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{ // "": it is taken
		"default/flux-node":                  "",
		"0/a":                                "",
		"flux-node":                          "is no service, want k8s:NAMESPACE/SERVICE",
		"":                                   "is no service",
		"/flux-node":                         `namespace ""`,
		"default/":                           `service ""`,
		"default/flux-node/x":                `service "flux-node/x"`,
		"default/flux-node:8080":             `service "flux-node:8080"`,
		"Default/flux-node":                  `namespace "Default"`,
		"default/0":                          `service "0"`,
		"default/" + strings.Repeat("a", 64): "must be no more than 63",
	} {
		s, err := Parse(text)
		switch {
		case want == "" && (err != nil || s.String() != "k8s:"+text):
			t.Errorf("%q is %v (%v)", text, s, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q is %v (%v), want %q", text, s, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"default/flux-node", "/", "a/b/c", "a/b:80", "a/ü"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			if s != nil || len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: source %v, error %q", text, s, err)
			}
			return
		}
		if s.String() != Scheme+text {
			t.Fatalf("%q is %v", text, s)
		}
	})
}

// shown is a row as the tests write it: address, ready (+), draining (x).
func shown(slots []engine.Slot) string {
	var words []string
	for _, s := range slots {
		word := s.Address
		switch {
		case word == "":
			word = "empty"
		case s.Draining:
			word += "+x"
		case s.Ready:
			word += "+"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestSlotsArePodsByTheirOrdinals(t *testing.T) {
	const ok = " ready serving -terminating"
	ports := func(s *discovery.EndpointSlice, ports ...string) *discovery.EndpointSlice {
		s.Ports = nil
		for _, text := range ports {
			var p discovery.EndpointPort
			if name, number, named := strings.Cut(text, "="); named {
				p.Name, p.Port = &name, new(int32)
				fmt.Sscan(number, p.Port)
			}
			s.Ports = append(s.Ports, p)
		}
		return s
	}
	unnamed := slice("a", "nodes-1 10.0.0.1"+ok)
	unnamed.Endpoints[0].Hostname = nil
	nobody := slice("a", "nodes-1 10.0.0.1"+ok)
	nobody.Endpoints[0].Hostname, nobody.Endpoints[0].TargetRef = nil, nil
	homeless := slice("a", "nodes-1 10.0.0.1"+ok)
	homeless.Endpoints[0].Addresses = nil
	names := slice("a", "nodes-0 10.0.0.1"+ok)
	names.AddressType = discovery.AddressTypeFQDN

	for _, c := range []struct {
		name   string
		found  []*discovery.EndpointSlice
		wanted int
		want   string
		says   string // in the error
	}{
		{"in any order", []*discovery.EndpointSlice{slice("a", "nodes-1 10.0.0.2"+ok, "nodes-0 10.0.0.1"+ok)}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+", ""},
		{"in two slices", []*discovery.EndpointSlice{slice("a", "nodes-1 10.0.0.2"+ok), slice("b", "nodes-0 10.0.0.1"+ok)}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+", ""},
		{"the middle one is missing", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok, "nodes-2 10.0.0.3"+ok)}, 3, "10.0.0.1:8080+ empty 10.0.0.3:8080+", ""},
		{"the last one is missing", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok)}, 2, "10.0.0.1:8080+ empty", ""},
		{"no set of that name", []*discovery.EndpointSlice{slice("a", "nodes-1 10.0.0.1"+ok)}, 0, "empty 10.0.0.1:8080+", ""},
		{"one too many, which drains", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok, "nodes-1 10.0.0.2 ready -serving terminating")}, 1, "10.0.0.1:8080+ 10.0.0.2:8080+x", ""},
		{"told to end, and serving", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok, "nodes-1 10.0.0.2 -ready serving terminating")}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+", ""},
		{"told to end, before there was serving", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1 ready terminating", "nodes-1 10.0.0.2 -ready terminating")}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+x", ""},
		{"not ready, though its address is published", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok, "nodes-1 10.0.0.2 ready -serving -terminating")}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+", ""},
		{"conditions unknown", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1", "nodes-1 10.0.0.2 -ready", "nodes-2 10.0.0.3 terminating")}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+ 10.0.0.3:8080+", ""},
		{"nobody is ready", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1 -serving", "nodes-2 10.0.0.2 -serving terminating", "nodes-3 10.0.0.3 -ready")}, 0,
			"10.0.0.1:8080+ empty 10.0.0.2:8080+x 10.0.0.3:8080+", ""},
		{"twice, once with older conditions", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok, "nodes-1 10.0.0.2 -serving"), slice("b", "nodes-1 10.0.0.2"+ok)}, 2, "10.0.0.1:8080+ 10.0.0.2:8080+", ""},
		{"beside its predecessor", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1 -serving terminating"), slice("b", "nodes-0 10.0.0.9 -serving")}, 1, "10.0.0.9:8080+", ""},
		{"two for one, alike", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.2"+ok), slice("b", "nodes-0 10.0.0.1"+ok)}, 1, "10.0.0.1:8080+", ""},
		{"IPv6", []*discovery.EndpointSlice{slice("a", "nodes-1 2001:db8::2"+ok, "nodes-0 2001:DB8:0::1"+ok)}, 2, "[2001:db8::1]:8080+ [2001:db8::2]:8080+", ""},
		{"both families are one pod", []*discovery.EndpointSlice{slice("a", "nodes-0 2001:db8::1"+ok), slice("b", "nodes-0 10.0.0.1"+ok)}, 1, "10.0.0.1:8080+", ""},
		{"names are no addresses", []*discovery.EndpointSlice{names}, 1, "", "no pod has an address yet"},
		{"named by its pod", []*discovery.EndpointSlice{unnamed}, 2, "empty 10.0.0.1:8080+", ""},
		{"not named at all", []*discovery.EndpointSlice{nobody}, 2, "", `pod "" has no ordinal`},
		{"a Deployment's", []*discovery.EndpointSlice{slice("a", "nodes-5d4f8c-x2x 10.0.0.1"+ok)}, 2, "", "nodes are a StatefulSet"},
		{"without address", []*discovery.EndpointSlice{homeless}, 2, "", "pod nodes-1 has no address"},
		{"a bad address", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0"+ok)}, 2, "", `"10.0.0" is no IP address`},
		{"none", nil, 2, "", "no pod has an address yet"},
		{"an empty slice without ports", []*discovery.EndpointSlice{ports(slice("a")), slice("b", "nodes-0 10.0.0.1"+ok)}, 1, "10.0.0.1:8080+", ""},
		{"ports of two names", []*discovery.EndpointSlice{ports(slice("a", "nodes-0 10.0.0.1"+ok), "admin=9080", "ws=80")}, 1, "10.0.0.1:80+", ""},
		{"one port of any name", []*discovery.EndpointSlice{ports(slice("a", "nodes-0 10.0.0.1"+ok), "http=81")}, 1, "10.0.0.1:81+", ""},
		{"two other ports", []*discovery.EndpointSlice{ports(slice("a", "nodes-0 10.0.0.1"+ok), "admin=9080", "http=81")}, 1, "", "none of its 2 ports"},
		{"a port that is any", []*discovery.EndpointSlice{ports(slice("a", "nodes-0 10.0.0.1"+ok), "any")}, 1, "", "none of its 1 ports"},
		{"far off", []*discovery.EndpointSlice{slice("a", "nodes-1024 10.0.0.1"+ok)}, 1, "", "1025 slots, limit 1024"},
		{"too many wanted", []*discovery.EndpointSlice{slice("a", "nodes-0 10.0.0.1"+ok)}, 1025, "", "1025 slots, limit 1024"},
	} {
		slots, err := slotsOf(c.found, c.wanted)
		if shown(slots) != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: slots are %s (%v), want %s %s", c.name, shown(slots), err, c.want, c.says)
		}
	}
}

func TestReplicasOfASet(t *testing.T) {
	silent := set(0)
	silent.Spec.Replicas = nil
	for want, given := range map[int]int{0: 0, 1: 1, 3: 3} {
		if n := replicas(set(int32(given))); n != want {
			t.Errorf("%d replicas are %d slots", given, n)
		}
	}
	if n := replicas(silent); n != 1 {
		t.Errorf("a set that does not say it has %d slots", n)
	}
}

// follower reads a source until a row is as it should be.
type follower struct {
	*testing.T
	source *source
	ctx    context.Context
	cancel context.CancelFunc
}

func follow(t *testing.T, s *source) follower {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return follower{t, s, ctx, cancel}
}

// patience is how long a change may take on a machine that is busy with other tests.
const patience = 30 * time.Second

func (f follower) sees(want string) {
	f.Helper()
	defer time.AfterFunc(patience, f.cancel).Stop()
	last := ""
	for {
		slots, err := f.source.Next(f.ctx)
		switch {
		case f.ctx.Err() != nil:
			f.Fatalf("the row is %s, want %s", last, want)
		case err != nil:
			f.Fatal(err)
		case shown(slots) == want:
			return
		}
		last = shown(slots)
	}
}

func TestChangesAreFollowed(t *testing.T) {
	api := serveAPI(t)
	api.put(set(2))
	api.put(slice("a", "nodes-0 10.0.0.1 serving"))
	f := follow(t, api.source())
	f.sees("10.0.0.1:8080+ empty")
	b := slice("b", "nodes-1 10.0.0.2 serving")
	api.put(b)
	f.sees("10.0.0.1:8080+ 10.0.0.2:8080+")
	api.bookmark()
	api.put(set(3))
	f.sees("10.0.0.1:8080+ 10.0.0.2:8080+ empty")
	api.put(slice("a", "nodes-0 10.0.0.1 -serving terminating"))
	f.sees("10.0.0.1:8080+x 10.0.0.2:8080+ empty")
	api.remove(b)
	f.sees("10.0.0.1:8080+x empty empty")
	api.remove(set(3))
	f.sees("10.0.0.1:8080+x")
	if n := api.listsServed(); n != 2 {
		t.Errorf("%d lists were fetched, want one of each kind", n)
	}
}

func TestWhatWasForgottenIsListedAgain(t *testing.T) {
	api := serveAPI(t)
	api.put(slice("a", "nodes-0 10.0.0.1 serving"))
	f := follow(t, api.source())
	f.sees("10.0.0.1:8080+")
	api.forget(slice("a", "nodes-0 10.0.0.9 serving"))
	f.sees("10.0.0.9:8080+")
	api.put(slice("b", "nodes-1 10.0.0.2 serving"))
	f.sees("10.0.0.9:8080+ 10.0.0.2:8080+")
}

func TestWatchesThatEndAreNoFailure(t *testing.T) {
	api := serveAPI(t)
	api.put(slice("a", "nodes-0 10.0.0.1 serving"))
	f := follow(t, api.source())
	f.sees("10.0.0.1:8080+")
	for i := range 3 {
		api.cut()
		api.put(slice("a", fmt.Sprintf("nodes-0 10.0.1.%d serving", i)))
		f.sees(fmt.Sprintf("10.0.1.%d:8080+", i))
	}
}

// lines is a log that a test can wait for.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(bytes.TrimSpace(line))
	return len(line), nil
}

func (l lines) await(t *testing.T, want string) {
	t.Helper()
	select {
	case line := <-l:
		if !strings.Contains(line, want) {
			t.Fatalf("the log says %s, want %s", line, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the log does not say %s", want)
	}
}

func TestLastViewStaysWhileTheServerIsAway(t *testing.T) {
	api := serveAPI(t)
	api.put(set(1))
	api.put(slice("a", "nodes-0 10.0.0.1 serving"))
	said := make(lines, 100)
	d := cluster.Start(t.Context(), api.source(), slog.New(slog.NewTextHandler(said, nil)))
	defer d.Close()
	said.await(t, "view of the nodes")
	<-d.Watch()
	before := d.View()

	api.goAway(true)
	said.await(t, "cannot find nodes")
	api.goAway(false)
	said.await(t, "nodes are found again")
	if d.View() != before {
		t.Errorf("the view is another one: %+v", d.View())
	}
	api.put(slice("a", "nodes-0 10.0.0.2 serving"))
	<-d.Watch()
	if got := shown(d.View().Slots); got != "10.0.0.2:8080+" {
		t.Errorf("the row is %s", got)
	}
	d.Close()
	close(said)
	for line := range said {
		if !strings.Contains(line, "view of the nodes") {
			t.Errorf("the log also says %s", line)
		}
	}
}

func TestRefusalIsTold(t *testing.T) {
	api := serveAPI(t)
	s := api.source()
	s.service = "others" // for which there is no Role
	api.t = &testing.T{} // whose complaint is not this test's
	if slots, err := s.Next(t.Context()); slots != nil || err == nil || !strings.Contains(err.Error(), "cannot list") {
		t.Errorf("slots are %v (%v)", slots, err)
	}
}

func TestOutsideOfAClusterItIsTold(t *testing.T) {
	s := newSource("test", "nodes", func() (*rest.Config, error) { return nil, rest.ErrNotInCluster })
	s.again.Duration, s.again.Steps = time.Millisecond, 1
	for range 2 {
		if _, err := s.Next(t.Context()); !errors.Is(err, rest.ErrNotInCluster) {
			t.Errorf("error is %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.again.Duration = time.Hour
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	api := serveAPI(t)
	api.put(slice("a", "nodes-0 10.0.0.1 serving"))
	s := api.source()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Next(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	s.ended.Wait() // as Next has done: neither feed is running
}
