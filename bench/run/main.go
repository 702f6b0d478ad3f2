// Command run measures a RayFlux server from the command line; see package bench.
//
// A server that runs already, kept off the generator's processor:
//
//	taskset -c 0 rayflux node --listen 127.0.0.1:8080 &
//	go run ./bench/run -scenario F1 -addr 127.0.0.1:8080 -pid $! -cpu 1 -duration 5s
//
// A fresh server for each scenario, the floor as JSON lines:
//
//	go run ./bench/run -spawn 'rayflux node --listen {addr} --admin 127.0.0.1:0' -server-cpu 0 -cpu 1 -scenario all
//	go run ./bench/run -spawn 'floor -listen {addr}' -name floor -server-cpu 0 -cpu 1 -scenario F1,F2 -repeat 3 -json
package main

import (
	"os"

	"rayflux/bench"
)

func main() { os.Exit(bench.Main(os.Args[1:], os.Stdout, os.Stderr)) }
