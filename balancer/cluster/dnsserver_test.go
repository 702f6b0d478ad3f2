package cluster

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is a miniature DNS server: the real resolver's questions over UDP, answered out of a table.
type zone struct {
	addr string

	lock    sync.Mutex
	records map[string][]dnsmessage.ResourceBody // by name, lower case, with its last dot
}

func serveZone(t *testing.T) *zone {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{addr: socket.LocalAddr().String(), records: map[string][]dnsmessage.ResourceBody{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		question := make([]byte, 1500)
		for {
			n, from, err := socket.ReadFrom(question)
			if err != nil {
				return
			}
			if answer, err := z.answer(question[:n]); err != nil {
				t.Error(err)
			} else if _, err := socket.WriteTo(answer, from); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() { socket.Close(); <-ended })
	return z
}

func (z *zone) set(name string, records ...dnsmessage.ResourceBody) {
	z.lock.Lock()
	defer z.lock.Unlock()
	z.records[name] = records
}

func (z *zone) answer(asked []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(asked)
	if err != nil {
		return nil, err
	}
	question, err := p.Question()
	if err != nil {
		return nil, err
	}
	z.lock.Lock()
	records, known := z.records[strings.ToLower(question.Name.String())]
	z.lock.Unlock()

	m := dnsmessage.Message{Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true}, Questions: []dnsmessage.Question{question}}
	if !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, r := range records {
		var kind dnsmessage.Type
		switch r.(type) {
		case *dnsmessage.AResource:
			kind = dnsmessage.TypeA
		case *dnsmessage.AAAAResource:
			kind = dnsmessage.TypeAAAA
		case *dnsmessage.SRVResource:
			kind = dnsmessage.TypeSRV
		}
		if kind == question.Type {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class}, Body: r})
		}
	}
	return m.Pack()
}

// resolver is the standard one, sent to z whatever the machine's own servers are.
func (z *zone) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", z.addr)
	}}
}

func targetAt(target string, port uint16) dnsmessage.ResourceBody {
	return &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: port}
}

func TestNodesAreFoundOverTheNetwork(t *testing.T) {
	z := serveZone(t)
	a := func(s string) dnsmessage.ResourceBody { return &dnsmessage.AResource{A: netip.MustParseAddr(s).As4()} }
	z.set("both.test.", a("10.0.0.20"), a("10.0.0.3"), &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()})
	z.set("six.test.", &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()})
	z.set("_ws._tcp.rf.test.", targetAt("rf-2.rf.test.", 8080), targetAt("rf-0.rf.test.", 8080))
	z.set("bare.test.")

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
		s.(*dnsSource).resolver = z.resolver()
		slots, err := s.Next(t.Context())
		if !slices.Equal(slots, slotsAt(want...)) || (err == nil) != (want != nil) {
			t.Errorf("%s: slots are %v (%v), want %v", text, slots, err, want)
		}
	}
}

func TestADirectoryFollowsRecords(t *testing.T) {
	z := serveZone(t)
	z.set("_ws._tcp.rf.test.", targetAt("rf-0.rf.test.", 8080))
	s := &dnsSource{name: "_ws._tcp.rf.test.", resolver: z.resolver(), interval: time.Millisecond}
	d := Start(t.Context(), s, slog.New(slog.DiscardHandler))
	defer d.Close()
	for _, targets := range []string{"rf-0", "rf-0 rf-1", "rf-1", "rf-1 rf-2"} {
		var records []dnsmessage.ResourceBody
		for target := range strings.FieldsSeq(targets) {
			records = append(records, targetAt(target+".rf.test.", 8080))
		}
		z.set("_ws._tcp.rf.test.", records...)
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
