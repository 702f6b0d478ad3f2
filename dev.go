package main

import "github.com/spf13/cobra"

func devCommand() *cobra.Command {
	return serverCommand(devRole, &cobra.Command{
		Use:   "dev",
		Short: "Run RayFlux on this machine, for development",
		Long: `Run RayFlux on this machine, for development: one node on loopback, with nothing else to install.
Clients connect to ws://127.0.0.1:8083/ws, operators to http://127.0.0.1:9083/metrics.`,
	})
}
