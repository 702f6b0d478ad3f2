package main

import (
	"fmt"
	"io"
	"path/filepath"

	"rayflux/bench"
)

// peer is a server that is measured, and what a reader of its numbers has to know.
type peer struct {
	bench.Contender
	settings string
}

// oneCore makes a server's argv one that uses a single processor even if it does not look at its affinity. env replaces
// itself, so that the process measured is the server.
func oneCore(argv ...string) []string { return append([]string{"env", "GOMAXPROCS=1"}, argv...) }

// peers are the servers in bin, with the settings file of NATS. The floor comes first: the others are compared with it.
func peers(bin, natsConfig string) []peer {
	program := func(name string) string { return filepath.Join(bin, name) }
	return []peer{
		{bench.Contender{
			Name: bench.FloorName,
			Argv: oneCore(program("rayflux"), "floor", "{addr}"),
		}, "one thread, one write per subscriber and pass, no waiting for more; no server for real use"},
		{bench.Contender{
			Name: "rayflux",
			Argv: oneCore(program("rayflux"), "node", "--listen", "{addr}", "--admin", "127.0.0.1:0"),
		}, "defaults: one loop, a log of 1 MiB per topic, pings every 25 s; rayflux.v1.bin"},
		{bench.Contender{
			Name: "nats",
			Argv: oneCore("LISTEN={addr}", program("nats-server"), "-c", natsConfig),
			Wire: natsWire,
		}, "nats-server v2.15.2, WebSocket listener, defaults, no JetStream; NATS protocol, each PUB in a frame of its own"},
		{bench.Contender{
			Name: "gws",
			Argv: oneCore(program("gws"), "-listen", "{addr}"),
		}, "lxzan/gws v1.8.9, a Broadcaster per message, the library's own buffer sizes; rayflux.v1.bin, no log"},
	}
}

// natsWire is the scenario in the words of NATS.
func natsWire(s bench.Scenario) bench.Scenario {
	s.Wire, s.Publish = bench.WireNATS, bench.PublishNATS
	return s
}

// writeSettings names what was measured and how each server was set.
func writeSettings(w io.Writer, measured []bench.Contender) {
	fmt.Fprintln(w, "\nEvery server on one processor with GOMAXPROCS=1, the generator on another; no auth, TLS or compression.")
	for _, p := range peers("", "") {
		for _, c := range measured {
			if c.Name == p.Name {
				fmt.Fprintf(w, "%s: %s\n", p.Name, p.settings)
			}
		}
	}
}
