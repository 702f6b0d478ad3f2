package main

import "github.com/spf13/cobra"

func nodeCommand() *cobra.Command {
	return serverCommand(nodeRole, &cobra.Command{
		Use:   "node",
		Short: "Run one node",
		Long: `Run one node, which owns whatever topics it is asked for.
SIGTERM drains it: /readyz goes off, clients are sent away over --drain-timeout, then it exits. A second SIGTERM stops it at once.`,
	})
}
