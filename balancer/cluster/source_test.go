package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestNodesAreParsed(t *testing.T) {
	for text, want := range map[string]string{ // "" is as it is written
		"static:h1:8080":                        "",
		"static:h1:8080,h2:8080":                "",
		"static:10.0.0.1:1,[2001:db8::1]:65535": "",
		"static:h1:08080,H2:80":                 "static:h1:8080,h2:80",
		"static:[2001:DB8:0::1]:80":             "static:[2001:db8::1]:80",
		"dns:nodes:8080":                        "",
		"dns:nodes.default.svc:8080":            "",
		"dns:nodes.example.:8080":               "",
		"dns:_ws._tcp.nodes":                    "",
		"dns:_WS._tcp.Nodes.":                   "dns:_ws._tcp.nodes.",
	} {
		if want == "" {
			want = text
		}
		s, err := ParseNodes(text)
		if err != nil || s.String() != want {
			t.Errorf("%s is %v (%v), want %s", text, s, err, want)
		}
	}
}

func TestNodesThatCannotBe(t *testing.T) {
	many := make([]string, SlotsMax+1)
	for i := range many {
		many[i] = fmt.Sprintf("h%d:1", i)
	}
	for text, want := range map[string]string{
		"":                                 "no nodes given",
		"h1:8080":                          `begins with "h1", want one of static:, dns: and k8s:`,
		"static":                           `begins with "static"`,
		"Static:h1:1":                      `begins with "Static"`,
		"static:":                          "slot 0 has no address",
		"static:h1:1,":                     "slot 1 has no address",
		"static:h1":                        `slot 0: "h1" has no port`,
		"static:h1:1,h2:":                  `port of "h2:" is "", want 1 to 65535`,
		"static:h1:0":                      `is "0", want 1 to 65535`,
		"static:h1:65536":                  `is "65536"`,
		"static:h1:http":                   `is "http"`,
		"static:h1:-1":                     `is "-1"`,
		"static:2001:db8::1:80":            "is not host:port",
		"static::80":                       "host name is 0 bytes",
		"static:h1:1, h2:1":                `has a ' '`,
		"static:größe:1":                   `has a 'ö'`,
		"static:http://h1:1":               "is not host:port",
		"static:h1..x:1":                   "is 0 bytes, want 1 to 63",
		"static:[fe80::1%eth0]:1":          "has a zone",
		"static:h1:1,h2:1,H1:01":           "h1:1 is there twice, as slot 0 and as slot 2",
		"static:" + joined(many):           "1025 nodes, limit 1024",
		"dns:":                             "has no port",
		"dns:nodes":                        `"nodes" has no port`,
		"dns:10.0.0.1:80":                  "want static:10.0.0.1:80",
		"dns:_ws.nodes":                    "is no name of SRV records",
		"dns:_ws._tcp":                     "is no name of SRV records",
		"dns:_ws._tcp.":                    "is no name of SRV records",
		"dns:_ws._tcp..":                   "want 1 to 63",
		"dns:_ws._tcp.no des":              "has a ' '",
		"dns:_ws._tcp.nodes:80":            "which SRV records say themselves",
		"dns:" + strings.Repeat("x.", 200): "has no port",
	} {
		s, err := ParseNodes(text)
		if err == nil || s != nil {
			t.Errorf("%.80s is taken for %v", text, s)
		} else if !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%.80s: error is %v, want %q", text, err, want)
		}
	}
	unknown := (*SchemeError)(nil)
	if _, err := ParseNodes("dsn:nodes:1"); !errors.As(err, &unknown) || unknown.Scheme != "dsn" {
		t.Errorf("error is %#v, want a SchemeError of dsn", err)
	}
}

func joined(addresses []string) string { return strings.Join(addresses, ",") }

func TestStaticNodesAreToldOnce(t *testing.T) {
	s, err := ParseNodes("static:h1:1,h2:2")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if slots, err := s.Next(ctx); err != nil || !slices.Equal(slots, slotsAt("h1:1", "h2:2")) {
		t.Errorf("slots are %v (%v)", slots, err)
	}
	cancel()
	if slots, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("there is more to say: %v (%v)", slots, err)
	}
}

func FuzzParseNodes(f *testing.F) {
	for _, text := range []string{"", "static:h1:8080,h2:8080", "static:[::1]:80,", "dns:nodes:8080", "dns:_ws._tcp.nodes", "k8s:a/b", "dsn:x:1", "static:[fe80::1%x]:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseNodes(text)
		if err != nil {
			if s != nil || err.Error() == "" || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
				t.Fatalf("%q: source %v, error %q", text, s, err)
			}
			return
		}
		again, err := ParseNodes(s.String())
		if err != nil || again.String() != s.String() {
			t.Fatalf("%q is %v, and that is %v (%v)", text, s, again, err)
		}
		if !strings.HasPrefix(text, "static:") {
			return
		}
		slots, err := s.Next(t.Context())
		if err != nil || len(slots) == 0 || len(slots) > SlotsMax {
			t.Fatalf("%q: %d slots (%v)", text, len(slots), err)
		}
		seen := map[string]bool{}
		for _, slot := range slots {
			if _, _, err := net.SplitHostPort(slot.Address); err != nil || seen[slot.Address] {
				t.Fatalf("%q: address %q (%v)", text, slot.Address, err)
			}
			seen[slot.Address] = true
		}
	})
}
