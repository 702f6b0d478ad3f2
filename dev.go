package main

import "github.com/spf13/cobra"

func devCommand() *cobra.Command {
	return serverCommand(devRole, &cobra.Command{
		Use:   "dev",
		Short: "Run RayFlux on this machine, for development",
		Long: `Run RayFlux on this machine, for development: a balancer and --node-count nodes in one process, with nothing else to
install. Everything listens on loopback; the nodes' operators' ports are those behind the balancer's.
Clients connect to ws://127.0.0.1:8083/ws, operators to http://127.0.0.1:9083/metrics.`,
	})
}
