package main

import "github.com/spf13/cobra"

func nodeCommand() *cobra.Command {
	return serverCommand(nodeRole, &cobra.Command{
		Use:   "node",
		Short: "Run one node",
		Long: `Run one node. By itself it owns whatever topics it is asked for; with --nodes those of its slot, and those of nodes that are
away: it hands the others over to the nodes that they belong to, with all their messages.
SIGTERM drains it: /readyz goes off, its topics are handed over, clients are sent away over --drain-timeout, then it exits.
A second SIGTERM stops it at once.`,
	})
}
