package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rayflux/engine"
)

// names is a resolver that knows what the test says.
type names struct {
	known
	lock  sync.Mutex // of known, once somebody else asks
	asked []time.Time
}

type known struct {
	v4, v6 []string
	srv    []*net.SRV
	err    error
	silent bool // it answers nothing until its caller gives up
}

func (n *names) set(k known) {
	n.lock.Lock()
	defer n.lock.Unlock()
	n.known = k
}

func (n *names) ask(ctx context.Context) (known, error) {
	n.lock.Lock()
	k := n.known
	n.lock.Unlock()
	n.asked = append(n.asked, time.Now())
	if k.silent {
		<-ctx.Done()
		return k, ctx.Err()
	}
	return k, k.err
}

var errNoSuchHost = &net.DNSError{Err: "no such host", Name: "nodes", IsNotFound: true}

func (n *names) LookupNetIP(ctx context.Context, network, _ string) (found []netip.Addr, err error) {
	k, err := n.ask(ctx)
	addresses := k.v4
	if network == "ip6" {
		addresses = k.v6
	}
	if err == nil && len(addresses) == 0 {
		err = errNoSuchHost
	}
	for _, a := range addresses {
		found = append(found, netip.MustParseAddr(a))
	}
	return found, err
}

func (n *names) LookupSRV(ctx context.Context, _, _, _ string) (string, []*net.SRV, error) {
	k, err := n.ask(ctx)
	if err == nil && len(k.srv) == 0 {
		err = errNoSuchHost
	}
	return "", k.srv, err
}

func TestAddressesAreSlotsByTheirOrder(t *testing.T) {
	for _, c := range []struct {
		name   string
		v4, v6 []string
		want   []string // empty: an error
	}{
		{"sorted as numbers", []string{"10.0.0.10", "10.0.0.9"}, nil, []string{"10.0.0.9:80", "10.0.0.10:80"}},
		{"each once", []string{"10.0.0.9", "10.0.0.9", "::ffff:10.0.0.9"}, nil, []string{"10.0.0.9:80"}},
		{"one family", []string{"10.0.0.9"}, []string{"2001:db8::1"}, []string{"10.0.0.9:80"}},
		{"IPv6 alone", nil, []string{"2001:db8::2", "2001:db8::1"}, []string{"[2001:db8::1]:80", "[2001:db8::2]:80"}},
		{"none", nil, nil, nil},
	} {
		s := &dnsSource{name: "nodes", port: 80, resolver: &names{known: known{v4: c.v4, v6: c.v6}}}
		slots, err := s.Next(t.Context())
		if !slices.Equal(slots, slotsAt(c.want...)) || (err == nil) != (len(c.want) > 0) {
			t.Errorf("%s: slots are %v (%v), want %v", c.name, slots, err, c.want)
		}
	}
}

func TestALostAnswerIsNoMoveToTheOtherFamily(t *testing.T) {
	lost := &net.DNSError{Err: "server misbehaving", Name: "nodes", IsTemporary: true}
	s := &dnsSource{name: "nodes", port: 80, resolver: &names{known: known{v6: []string{"2001:db8::1"}, err: lost}}}
	if slots, err := s.Next(t.Context()); !errors.Is(err, lost) {
		t.Errorf("slots are %v (%v)", slots, err)
	}
}

func TestTargetsAreSlotsByTheirOrdinals(t *testing.T) {
	for _, c := range []struct {
		name    string
		targets string // each port 80, but for target=port
		want    []string
		says    string // in the error
	}{
		{"in any order", "rf-1.rf.ns. rf-0.rf.ns.", []string{"rf-0.rf.ns:80", "rf-1.rf.ns:80"}, ""},
		{"one is missing", "rf-2.rf. rf-0.rf.", []string{"rf-0.rf:80", "", "rf-2.rf:80"}, ""},
		{"the first is missing", "rf-1.rf.", []string{"", "rf-1.rf:80"}, ""},
		{"twice the same", "rf-0.rf. RF-0.rf.", []string{"rf-0.rf:80"}, ""},
		{"ports of their own", "rf-0.rf.=81 rf-1.rf.=82", []string{"rf-0.rf:81", "rf-1.rf:82"}, ""},
		{"without ordinals", "b.rf. a.rf. b.rf.", []string{"a.rf:80", "b.rf:80"}, ""},
		{"pods without names", "10-0-0-9.rf. 10-0-0-10.rf. 2001-db8--1.rf.", []string{"10-0-0-10.rf:80", "10-0-0-9.rf:80", "2001-db8--1.rf:80"}, ""},
		{"no ordinals", "rf-01.rf. rf-.rf. rf-x2.rf. rf-4294967296.rf.", []string{"rf-.rf:80", "rf-01.rf:80", "rf-4294967296.rf:80", "rf-x2.rf:80"}, ""},
		{"some without", "rf-0.rf. other.rf.", nil, "other.rf:80 does not"},
		{"two for a slot", "a-0.rf. b-0.rf.", nil, "slot 0 is both a-0.rf:80 and b-0.rf:80"},
		{"two ports", "rf-0.rf.=81 rf-0.rf.=80", nil, "slot 0 is both rf-0.rf:80 and rf-0.rf:81"},
		{"far off", "rf-1024.rf.", nil, "1025 slots, limit 1024"},
		{"not available", ".", nil, "host name is 0 bytes"},
		{"none", "", nil, "no such host"},
	} {
		n := &names{}
		for target := range strings.FieldsSeq(c.targets) {
			r := &net.SRV{Port: 80}
			target, port, _ := strings.Cut(target, "=")
			if r.Target = target; port != "" {
				fmt.Sscan(port, &r.Port)
			}
			n.srv = append(n.srv, r)
		}
		slots, err := (&dnsSource{name: "_ws._tcp.rf", resolver: n}).Next(t.Context())
		if !slices.Equal(slots, slotsAt(c.want...)) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: slots are %v (%v), want %v %s", c.name, slots, err, c.want, c.says)
		}
	}
	slots, err := slotsOfTargets("rf", []*net.SRV{{Target: "rf-1.rf.", Port: 80}})
	if err != nil || slots[0] != (engine.Slot{}) {
		t.Errorf("the slot nobody has is %+v (%v)", slots[0], err)
	}
}

func TestTooManyAddresses(t *testing.T) {
	n := &names{}
	for i := range SlotsMax + 1 {
		n.v4 = append(n.v4, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String())
	}
	_, err := (&dnsSource{name: "nodes", port: 80, resolver: n}).Next(t.Context())
	if err == nil || !strings.Contains(err.Error(), "1025 slots, limit 1024") {
		t.Errorf("error is %v", err)
	}
}

func TestLookupsAreRepeatedAndBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{known: known{v4: []string{"10.0.0.1"}}}
		s := &dnsSource{name: "nodes", port: 80, resolver: n, interval: lookupInterval}
		began := time.Now()
		next := func() error { _, err := s.Next(t.Context()); return err }
		// about is when a lookup has to be, its jitter aside, after the one before.
		about := func(want time.Duration) {
			t.Helper()
			at := n.asked[len(n.asked)-1]
			if took := at.Sub(began); took < want*8/10 || took > want*12/10 {
				t.Errorf("lookup %d is %v after the one before, want about %v", len(n.asked), took, want)
			}
			began = time.Now()
		}
		for _, want := range []time.Duration{0, lookupInterval, lookupInterval} {
			if err := next(); err != nil {
				t.Fatal(err)
			}
			about(want)
		}
		n.err = errors.New("server misbehaving")
		for _, want := range []time.Duration{lookupInterval, retryMin, 2 * retryMin, 4 * retryMin, 8 * retryMin, 16 * retryMin, 32 * retryMin, retryMax, retryMax} {
			if err := next(); !errors.Is(err, n.err) {
				t.Fatal(err)
			}
			about(want)
		}
		n.err = nil
		for _, want := range []time.Duration{retryMax, lookupInterval} {
			if err := next(); err != nil {
				t.Fatal(err)
			}
			about(want)
		}
		n.silent = true
		if err := next(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v", err)
		}
		about(lookupInterval)
	})
}

func TestJitterKeepsProcessesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := map[time.Duration]bool{}
		for range 8 {
			began := time.Now()
			if err := pause(t.Context(), time.Hour); err != nil {
				t.Fatal(err)
			}
			took[time.Since(began)] = true
		}
		if len(took) < 4 {
			t.Errorf("eight waits took %d different times", len(took))
		}
	})
}

// Who hears that somebody sees other nodes looks at once, but not all the time.
func TestADoubtBringsTheNextLookupForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{known: known{v4: []string{"10.0.0.1"}}}
		s := &dnsSource{name: "nodes", port: 80, resolver: n, interval: lookupInterval, doubts: make(chan struct{}, 1)}
		next := func(least, most time.Duration) {
			t.Helper()
			began := time.Now()
			if _, err := s.Next(t.Context()); err != nil && n.err == nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took < least || took > most {
				t.Errorf("lookup %d is %v after the one before, want %v to %v", len(n.asked), took, least, most)
			}
		}
		next(0, 0)
		s.Doubt()
		s.Doubt() // as good as one
		next(doubtedWait*8/10, doubtedWait*12/10)
		next(lookupInterval*8/10, lookupInterval*12/10)
		time.AfterFunc(time.Second, s.Doubt)
		next(time.Second, time.Second)
		n.err = errors.New("server misbehaving")
		next(lookupInterval*8/10, lookupInterval*12/10)
		n.err = nil
		s.Doubt() // of what is not known anyway
		next(retryMin*8/10, retryMin*12/10)
		next(lookupInterval*8/10, lookupInterval*12/10)
	})
}

func TestADirectoryLooksNamesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{known: known{v4: []string{"10.0.0.1", "10.0.0.2"}}}
		d, logged := directoryOf(t, &dnsSource{name: "nodes", port: 80, resolver: n, interval: lookupInterval})
		<-d.Watch()
		n.set(known{}) // gone, or a server that has not heard of them yet
		time.Sleep(time.Hour)
		if v := d.View(); v.Version != 1 || len(v.Slots) != 2 {
			t.Errorf("view is %+v", v)
		}
		n.set(known{v4: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}})
		<-d.Watch()
		if v := d.View(); v.Version != 2 || len(v.Slots) != 3 {
			t.Errorf("view is %+v", v)
		}
		d.Close()
		if n := strings.Count(logged.String(), "cannot find nodes"); n != 1 {
			t.Errorf("an hour of failures is logged %d times", n)
		}
	})
}
