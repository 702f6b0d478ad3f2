// Command run measures a RayFlux server from the command line; see package bench.
package main

import (
	"os"

	"rayflux/bench"
)

func main() { os.Exit(bench.Main(os.Args[1:], os.Stdout, os.Stderr)) }
