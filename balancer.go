package main

import "github.com/spf13/cobra"

func balancerCommand() *cobra.Command {
	return serverCommand(balancerRole, &cobra.Command{
		Use:   "balancer",
		Short: "Run one balancer, which clients connect to",
		Long: `Run one balancer. Clients connect to any balancer, use as many topics as they like, and each topic lives on the
node that it belongs to (--nodes; "rayflux route" tells which). Balancers and nodes share a cluster key.
SIGTERM drains it: /readyz goes off, clients are sent away over --drain-timeout, then it exits. A second SIGTERM stops it at once.`,
	})
}
