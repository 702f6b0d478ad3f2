// Command conformance holds the framing code of package protocol against
// RFC 6455, as the Autobahn test suite reads it.
//
// It serves an echo over WebSockets that is made of nothing but that code and
// a listener, lets the suite's fuzzing client loose on it, prints a table of
// verdicts and exits with 1 unless every case is OK or is excused, with a
// written reason, in allow.txt. The engine's own connections are not tested
// here: what they add (loops, batches, cursors) is not part of the RFC.
//
// The suite is fetched once, from the Python package index, into a cache
// directory; python3 with its venv module is all that must be there before.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.cache, "cache", ".cache/autobahn", "directory for the installed suite and its reports")
	flag.StringVar(&o.python, "python", "python3", "Python interpreter to install the suite with")
	flag.StringVar(&o.cases, "cases", "", "run only these cases, for instance 6.4.*,7.1.5 (default: all groups)")
	flag.BoolVar(&o.limits, "limits", false, "also run group 9, megabytes in one message: half a minute more")
	flag.DurationVar(&o.timeout, "timeout", 15*time.Minute, "give up after this long")
	flag.StringVar(&o.serve, "serve", "", "only serve the echo on this address, for other clients")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

type options struct {
	cache, python, cases, serve string
	limits                      bool
	timeout                     time.Duration
}

func run(ctx context.Context, o options) error {
	address := "127.0.0.1:0"
	if o.serve != "" {
		address = o.serve
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer l.Close()
	go serveEcho(l)
	if o.serve != "" {
		fmt.Printf("echo on ws://%s\n", l.Addr())
		<-ctx.Done()
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	s, err := install(ctx, o.cache, o.python)
	if err != nil {
		return err
	}
	excuses, err := parseExcuses(allowList)
	if err != nil {
		return err
	}
	began := time.Now()
	results, err := s.run(ctx, "ws://"+l.Addr().String(), o.patterns())
	if err != nil {
		return err
	}
	v := judge(results, excuses)
	if o.cases == "" {
		v.requireAll(o.limits)
	}
	v.print(os.Stdout)
	fmt.Printf("%d cases in %s; details in %s\n", len(results), time.Since(began).Round(time.Second), s.reports())
	if v.failed() {
		return errors.New("not conformant")
	}
	return nil
}

// patterns are the cases to run, as the suite's own spec files name them.
func (o options) patterns() []string {
	if o.cases != "" {
		return strings.Split(o.cases, ",")
	}
	var p []string
	for _, g := range groups {
		if !g.limits || o.limits {
			p = append(p, fmt.Sprintf("%d.*", g.number))
		}
	}
	return p
}
