package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// What a drain may take past --drain-timeout, over which it spreads its
// closes, for the last of them to be said.
const drainGrace = 2 * time.Second

// serverCommand is a command that runs a server until it is told to stop.
func serverCommand(r role, cmd *cobra.Command) *cobra.Command {
	s := addSettings(cmd.Flags(), r)
	cmd.Args = noArguments
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		env := environment(os.Environ())
		m, limitErr := thisMachine()
		if err := s.load(env, m); err != nil {
			return err
		}
		log := s.logger(cmd.ErrOrStderr())
		if limitErr != nil {
			log.Warn("cannot read all limits of this process", "err", limitErr)
		}
		for _, complaint := range strangers(cmd.Root(), env) {
			log.Warn(complaint)
		}
		return serve(s, m, log)
	}
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no arguments, got %q", cmd.Name(), args[0])
	}
	return nil
}

// serve runs a server, or the several of dev, until a signal, or until one ends by itself. nil is a stop that cut nobody off.
func serve(s *settings, m machine, log *slog.Logger) error {
	signals := make(chan os.Signal, 2) // both of an impatient operator's
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	m.apply(s.engine.Memory)
	sampleWaits()
	all, err := startAll(s, m, log)
	defer all.close()
	if err != nil {
		return err
	}
	ended := all.ended()
	known := all.known()
	for {
		select {
		case <-known:
			announce(log, s, all)
			known = nil
		case err := <-ended:
			return err
		case sig := <-signals:
			log.Info("draining; a second signal stops at once", "signal", sig.String(), "timeout", s.engine.DrainTimeout)
			return drain(all, s.engine.DrainTimeout+drainGrace, signals, log)
		}
	}
}

// announce says once that the process is ready, whatever --log-level says: the
// addresses are not known otherwise when port 0 was asked for.
func announce(log *slog.Logger, s *settings, all *members) {
	front := all.front()
	record := slog.NewRecord(time.Now(), slog.LevelInfo, "ready", 0)
	record.Add("listen", front.server.Addr().String(), "admin", front.operators.addr())
	if s.role.name != nodeRole.name {
		record.Add("role", s.role.name)
	}
	if nodes := all.behind(); len(nodes) > 0 {
		var admins []string
		for _, n := range nodes {
			admins = append(admins, n.operators.addr())
		}
		record.Add("nodes", len(nodes), "node-admins", strings.Join(admins, ","))
	}
	record.Add("version", version, "loops", s.engine.Loops, "budget", s.engine.Budget())
	// Handle, unlike Log, does not ask whether the level is wanted.
	if err := log.Handler().Handle(context.Background(), record); err != nil {
		log.Error("cannot announce", "err", err)
	}
}

// drainer is the part of the engine that a drain needs.
type drainer interface {
	Drain(context.Context) error
	Stop()
}

func drain(server drainer, timeout time.Duration, signals <-chan os.Signal, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- server.Drain(ctx) }()
	select {
	case err := <-drained:
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		log.Info("drained")
		return nil
	case <-signals:
		server.Stop()
		return errors.New("stopped by a second signal, before the drain was over")
	}
}
