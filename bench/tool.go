package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// RunTool is the main function of a program in the folders below: parse reads its arguments, run does its work until a signal ends
// ctx. What either says is wrong goes to standard error behind the program's name, and ends the process: with status 2, or 1.
func RunTool[O any](name string, parse func(args []string) (O, error), run func(o O, ctx context.Context) error) {
	fail := func(err error, status int) {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(status)
	}
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fail(err, 2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(o, ctx); err != nil {
		fail(err, 1)
	}
}
