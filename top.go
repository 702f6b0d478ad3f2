package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rayflux/balancer/watch"
)

func topCommand() *cobra.Command {
	o := watch.Options{Addresses: []string{devRole.admin}, Interval: time.Second}
	output := "table"
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the servers of a cluster",
		Long: `Watch servers by what their operators' ports say: rates, latency and the busiest topics, on a screen that changes.
If standard output is no terminal, a table is printed every --interval instead. With --once two looks are taken an
interval apart and shown once; exit status 1 means that no server could be reached.
On the screen, s changes what servers are sorted by and q ends it. k, M and G are powers of 1000.`,
		Example: `  rayflux top --admin 10.0.0.1:9080,10.0.0.2:9080 --admin 10.0.0.9:9083
  rayflux top --once --output json | jq 'select(.type == "topic")'`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(addressesOf(&o.Addresses), "admin", "`host:port` of an operators' port (comma separated, or repeated)")
	flags.Var(durationOf(&o.Interval), "interval", "`time` between two looks")
	flags.BoolVar(&o.Once, "once", false, "show it once")
	flags.Var(choiceOf(&output, "table", "json"), "output", "table or json (an object a line, for each server and topic)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := fill(flags, environment(os.Environ()), nil); err != nil {
			return usageError{err}
		}
		if err := o.Check(); err != nil {
			return usageError{err}
		}
		o.JSON, o.Out = output == "json", cmd.OutOrStdout()
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		return watch.Run(ctx, o)
	}
	return cmd
}

// addressesOf is a list whose first value takes the place of the default; further ones are added.
func addressesOf(at *[]string) pflag.Value {
	said := false
	parse := func(s string) ([]string, error) {
		var all []string
		if said {
			all = *at
		}
		for address := range strings.SplitSeq(s, ",") {
			if address = strings.TrimSpace(address); address == "" {
				return nil, fmt.Errorf("%q has an empty address", s)
			}
			all = append(all, address)
		}
		said = true
		return all, nil
	}
	return value[[]string]{at, parse, func(all []string) string { return strings.Join(all, ",") }, "addresses"}
}
