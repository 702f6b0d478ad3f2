package cluster

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"rayflux/balancer/cluster/zonetest"
)

func TestNodesAreFoundOverTheNetwork(t *testing.T) {
	z := zonetest.Serve(t, "127.0.0.1:0")
	a := func(s string) dnsmessage.ResourceBody { return &dnsmessage.AResource{A: netip.MustParseAddr(s).As4()} }
	z.Set("both.test.", a("10.0.0.20"), a("10.0.0.3"), &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()})
	z.Set("six.test.", &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()})
	z.Set("_ws._tcp.rf.test.", zonetest.Target("rf-2.rf.test.", 8080), zonetest.Target("rf-0.rf.test.", 8080))
	z.Set("bare.test.")

	for text, want := range map[string][]string{
		"dns:both.test.:80":     {"10.0.0.3:80", "10.0.0.20:80"},
		"dns:six.test.:80":      {"[2001:db8::1]:80"},
		"dns:_ws._tcp.rf.test.": {"rf-0.rf.test:8080", "", "rf-2.rf.test:8080"},
		"dns:bare.test.:80":     nil,
		"dns:unknown.test.:80":  nil,
		"dns:_ws._tcp.x.test.":  nil,
	} {
		s, err := ParseNodes(text)
		if err != nil {
			t.Fatal(err)
		}
		s.(*dnsSource).resolver = z.Resolver()
		slots, err := s.Next(t.Context())
		if !slices.Equal(slots, slotsAt(want...)) || (err == nil) != (want != nil) {
			t.Errorf("%s: slots are %v (%v), want %v", text, slots, err, want)
		}
	}
}

func TestADirectoryFollowsRecords(t *testing.T) {
	z := zonetest.Serve(t, "127.0.0.1:0")
	z.Set("_ws._tcp.rf.test.", zonetest.Target("rf-0.rf.test.", 8080))
	s := &dnsSource{name: "_ws._tcp.rf.test.", resolver: z.Resolver(), interval: time.Millisecond}
	d := Start(t.Context(), s, slog.New(slog.DiscardHandler))
	defer d.Close()
	for _, targets := range []string{"rf-0", "rf-0 rf-1", "rf-1", "rf-1 rf-2"} {
		var records []dnsmessage.ResourceBody
		for target := range strings.FieldsSeq(targets) {
			records = append(records, zonetest.Target(target+".rf.test.", 8080))
		}
		z.Set("_ws._tcp.rf.test.", records...)
		want, err := slotsOfTargets("rf", srvOf(targets))
		if err != nil {
			t.Fatal(err)
		}
		for !slices.Equal(d.View().Slots, want) {
			<-d.Watch()
		}
	}
}

func srvOf(targets string) (records []*net.SRV) {
	for target := range strings.FieldsSeq(targets) {
		records = append(records, &net.SRV{Target: target + ".rf.test.", Port: 8080})
	}
	return records
}
