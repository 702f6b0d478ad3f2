package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"rayflux/balancer/cluster"
	"rayflux/engine"
)

// fixedNodes is a source that knows these slots, or fails.
type fixedNodes struct {
	slots []engine.Slot
	err   error
}

func (f fixedNodes) Next(context.Context) ([]engine.Slot, error) { return f.slots, f.err }
func (f fixedNodes) String() string                              { return "fixed" }

func TestRoutesArePrinted(t *testing.T) {
	// news has the choices 1, 2, 0 of three slots, chat/room-1 has 2, 0, 1.
	nodes := fixedNodes{slots: []engine.Slot{{Address: "h0:1"}, {}, {Address: "h2:1"}}}
	for _, c := range []struct {
		name   string
		o      routeOptions
		topics []string
		input  string
		want   string
	}{
		{"table", routeOptions{nodes, 9, "table"}, []string{"news", "chat/room-1"}, "", "" +
			"TOPIC        HASH              SLOT  NODE     ALTERNATIVES\n" +
			"news         703a743d3c9da1ee  1     (empty)  2 h2:1, 0 h0:1\n" +
			"chat/room-1  8be046907a335a4e  2     h2:1     0 h0:1, 1 (empty)\n"},
		{"no alternatives", routeOptions{nodes, 0, "json"}, []string{"chat/room-1"}, "",
			`{"topic":"chat/room-1","hash":"8be046907a335a4e","slot":2,"node":"h2:1"}` + "\n"},
		{"standard input", routeOptions{nodes, 1, "json"}, []string{"-"}, "news\nchat/room-1\n", "" +
			`{"topic":"news","hash":"703a743d3c9da1ee","slot":1,"node":"","alternatives":[{"slot":2,"node":"h2:1"}]}` + "\n" +
			`{"topic":"chat/room-1","hash":"8be046907a335a4e","slot":2,"node":"h2:1","alternatives":[{"slot":0,"node":"h0:1"}]}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := c.o.run(strings.NewReader(c.input), &out, c.topics); err != nil || out.String() != c.want {
				t.Errorf("it printed\n%s(%v), want\n%s", &out, err, c.want)
			}
		})
	}
}

func TestARouteThatCannotBeFound(t *testing.T) {
	var out bytes.Buffer
	lost := errors.New("lookup nodes: no such host")
	o := routeOptions{fixedNodes{err: lost}, 1, "table"}
	if err := o.run(strings.NewReader(""), &out, []string{"news"}); !errors.Is(err, lost) || out.Len() != 0 {
		t.Errorf("it printed %q and failed with %v", &out, err)
	}
	o.nodes = fixedNodes{slots: []engine.Slot{{Address: "h0:1"}}}
	err := o.run(strings.NewReader("news\n$x\nmore\n"), &out, []string{"-"})
	if err == nil || !strings.Contains(err.Error(), "$x") {
		t.Errorf("a line that names no topic: %v", err)
	}
	if !strings.Contains(out.String(), "news") || strings.Contains(out.String(), "more") {
		t.Errorf("up to the line that names no topic it printed %q", &out)
	}
}

func TestUnknownNodesNameTheNearest(t *testing.T) {
	for text, want := range map[string]string{
		"statc:h1:8080": "did you mean static?",
		"dsn:h1:8080":   "did you mean dns?",
		"h1:8080":       `begins with "h1"`,
		"k8s:default":   "want k8s:NAMESPACE/SERVICE",
	} {
		if _, err := parseNodes(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"static:h1:8080,h2:8080", "dns:nodes:8080", "dns:_ws._tcp.nodes", "k8s:default/nodes"} {
		var source cluster.Source
		v := nodesOf(&source)
		if err := v.Set(text); err != nil || v.String() != text {
			t.Errorf("%s is printed as %q (%v)", text, v, err)
		}
	}
}
