package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rayflux/balancer/cluster"
	"rayflux/balancer/cluster/k8s"
	"rayflux/engine"
	"rayflux/protocol"
)

type routeOptions struct {
	nodes        cluster.Source
	alternatives int
	output       string
}

func routeCommand() *cobra.Command {
	o := routeOptions{alternatives: 2, output: "table"}
	cmd := &cobra.Command{
		Use:   "route TOPIC... | -",
		Short: "Print which node each topic belongs to",
		Long: `Print which node each topic belongs to, and which ones come next while that one is away; with - in place of topics,
each line of standard input is one. Names are looked up as a server does it, but no node is asked. An empty slot is
one that nobody has at the moment: its topics are at the first alternative that somebody has.`,
		Example: `  rayflux route prices.eur --nodes static:h1:8080,h2:8080
  rayflux route - --nodes dns:_ws._tcp.rayflux --output json <topics`,
		Args: routeArguments,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(nodesOf(&o.nodes), "nodes", "static:HOST:PORT,…, dns:NAME:PORT, dns:_SERVICE._PROTO.NAME or k8s:NAMESPACE/SERVICE (default: none)")
	flags.Var(countOf(&o.alternatives), "alternatives", "next choices to print")
	flags.Var(choiceOf(&o.output, "table", "json"), "output", "table, or json: an object a line")
	cmd.RunE = func(cmd *cobra.Command, topics []string) error {
		if _, err := fill(flags, environment(os.Environ()), nil); err != nil {
			return usageError{err}
		}
		switch {
		case o.nodes == nil:
			return usagef("%s wants --nodes", cmd.Name())
		case o.alternatives < 0:
			return usagef("alternatives is %d, want 0 or more", o.alternatives)
		}
		return o.run(cmd.InOrStdin(), cmd.OutOrStdout(), topics)
	}
	return cmd
}

func routeArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usagef("%s wants at least one TOPIC, or -", cmd.Name())
	case slices.Equal(args, []string{"-"}):
		return nil
	case slices.Contains(args, "-"):
		return usagef("%s wants topics or -, got both", cmd.Name())
	}
	return checkTopics(args)
}

func nodesOf(at *cluster.Source) value[cluster.Source] {
	text := func(s cluster.Source) string {
		if s == nil {
			return ""
		}
		return s.String()
	}
	return value[cluster.Source]{at, parseNodes, text, "nodes"}
}

func parseNodes(text string) (cluster.Source, error) {
	if service, ok := strings.CutPrefix(text, k8s.Scheme); ok {
		return k8s.Parse(service)
	}
	source, err := cluster.ParseNodes(text)
	if unknown := (*cluster.SchemeError)(nil); errors.As(err, &unknown) {
		err = fmt.Errorf("%w%s", err, didYouMean("", unknown.Scheme, cluster.Schemes))
	}
	return source, err
}

// run finds the nodes once and prints the way of each topic.
func (o routeOptions) run(in io.Reader, out io.Writer, topics []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	slots, err := o.nodes.Next(ctx)
	if err != nil {
		return err
	}
	p := newRoutePrinter(out, o.output == "json")
	show := func(topic []byte) error { return p.print(routeOf(topic, slots, o.alternatives)) }
	if topics[0] == "-" {
		err = eachLine(ctx, in, 0, func(line []byte) error {
			if err := protocol.CheckTopic(line); err != nil {
				return err
			}
			return show(line)
		})
	} else {
		for _, topic := range topics {
			if err = show([]byte(topic)); err != nil {
				break
			}
		}
	}
	return errors.Join(err, p.flush())
}

// route is one line of --output json.
type route struct {
	Topic string `json:"topic"`
	Hash  string `json:"hash"` // hexadecimal, since JSON's numbers are too short for it
	place
	Alternatives []place `json:"alternatives,omitempty"`
}

type place struct {
	Slot int    `json:"slot"`
	Node string `json:"node"` // "": nobody has the slot
}

func routeOf(topic []byte, slots []engine.Slot, alternatives int) route {
	hash := cluster.Hash(topic)
	at := func(attempt int) place {
		slot := cluster.Choice(hash, attempt, len(slots))
		return place{slot, slots[slot].Address}
	}
	r := route{Topic: string(topic), Hash: fmt.Sprintf("%016x", hash), place: at(0)}
	for attempt := 1; attempt <= min(alternatives, len(slots)-1); attempt++ {
		r.Alternatives = append(r.Alternatives, at(attempt))
	}
	return r
}

func (p place) String() string {
	if p.Node == "" {
		return fmt.Sprintf("%d (empty)", p.Slot)
	}
	return fmt.Sprintf("%d %s", p.Slot, p.Node)
}

// routePrinter writes routes for people, in columns as wide as all of them need, or for programs, as they come.
type routePrinter struct {
	buffer  *bufio.Writer
	columns *tabwriter.Writer // nil: JSON
}

func newRoutePrinter(out io.Writer, asJSON bool) *routePrinter {
	p := &routePrinter{buffer: bufio.NewWriter(out)}
	if !asJSON {
		p.columns = tabwriter.NewWriter(p.buffer, 0, 0, 2, ' ', 0)
		fmt.Fprintln(p.columns, "TOPIC\tHASH\tSLOT\tNODE\tALTERNATIVES")
	}
	return p
}

func (p *routePrinter) print(r route) error {
	if p.columns == nil {
		encoder := json.NewEncoder(p.buffer) // ends each object with a line end
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(r); err != nil {
			return err
		}
		return p.buffer.Flush()
	}
	var next []string
	for _, a := range r.Alternatives {
		next = append(next, a.String())
	}
	node := r.Node
	if node == "" {
		node = "(empty)"
	}
	_, err := fmt.Fprintf(p.columns, "%s\t%s\t%d\t%s\t%s\n", r.Topic, r.Hash, r.Slot, node, strings.Join(next, ", "))
	return err
}

func (p *routePrinter) flush() error {
	if p.columns != nil {
		if err := p.columns.Flush(); err != nil {
			return err
		}
	}
	return p.buffer.Flush()
}
