package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"rayflux/client"
	"rayflux/protocol"
)

const defaultServer = "ws://127.0.0.1:8083"

// lineBytesMax is the longest line that is read from standard input. It is the
// most that any server's --max-message can be; the server judges by its own.
const lineBytesMax = 16 << 20

type pubOptions struct {
	server string
	kind   string
	ack    string
	count  int
}

func pubCommand() *cobra.Command {
	var o pubOptions
	cmd := &cobra.Command{
		Use:   "pub TOPIC [MESSAGE | -]",
		Short: "Publish a message, or each line of standard input",
		Long: `Publish MESSAGE, or with - or nothing in its place each line of standard input as one message, as the lines come.
The position of each message is printed once the server has answered, as EPOCH:OFFSET.`,
		Args: pubArguments,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.server, "server", defaultServer, "`URL` of a node or a balancer")
	o.kind, o.ack = "text", "memory"
	flags.Var(choiceOf(&o.kind, "json", "text", "binary"), "kind", "json, text or binary")
	flags.Var(choiceOf(&o.ack, "memory", "stored"), "ack", "what the answer vouches for: memory, or stored")
	flags.Var(countOf(&o.count), "count", "publish MESSAGE this many times, or at most this many lines (default: once, or all)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := fill(flags, environment(os.Environ()), nil); err != nil {
			return usageError{err}
		}
		if o.count < 0 {
			return usagef("count is %d, want 0 or more", o.count)
		}
		return o.run(cmd.InOrStdin(), cmd.OutOrStdout(), clientLogger(cmd.ErrOrStderr()), args)
	}
	return cmd
}

func pubArguments(cmd *cobra.Command, args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return usagef("%s wants TOPIC and at most one MESSAGE, got %d arguments", cmd.Name(), len(args))
	}
	return checkTopics(args[:1])
}

func checkTopics(topics []string) error {
	for _, topic := range topics {
		if err := protocol.CheckTopic([]byte(topic)); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// run publishes until there is nothing more to publish, or a signal.
func (o pubOptions) run(in io.Reader, out io.Writer, log *slog.Logger, args []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	c, err := client.Dial(ctx, o.server, client.Options{Name: "rayflux-pub", Logger: log})
	if err != nil {
		return err
	}
	defer c.Close()

	kind, _ := protocol.ParseKind(o.kind)
	var options []client.PublishOption
	if o.ack == "stored" {
		options = append(options, client.AckStored())
	}
	publish := func(payload []byte) error {
		at, err := c.Publish(ctx, args[0], kind, payload, options...)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, at)
		return err
	}
	if len(args) == 2 && args[1] != "-" {
		return repeat(max(1, o.count), []byte(args[1]), publish)
	}
	return eachLine(ctx, in, o.count, publish)
}

// clientLogger tells people at a terminal why nothing moves: the client waits
// for its server for as long as it takes.
func clientLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func repeat(count int, payload []byte, publish func([]byte) error) error {
	for range count {
		if err := publish(payload); err != nil {
			return err
		}
	}
	return nil
}

// eachLine hands over in's lines without their ends, at most most of them (0:
// all). The end of ctx ends it even while in has nothing to say, which is no
// error: what was read has been published.
func eachLine(ctx context.Context, in io.Reader, most int, do func(line []byte) error) error {
	lines := make(chan []byte)
	var failed error // why reading ended; to be read once lines is closed
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(in)
		scanner.Buffer(make([]byte, 64<<10), lineBytesMax)
		for scanner.Scan() {
			select {
			case lines <- bytes.Clone(scanner.Bytes()):
			case <-ctx.Done():
				return
			}
		}
		if failed = scanner.Err(); errors.Is(failed, bufio.ErrTooLong) {
			failed = fmt.Errorf("line is longer than %s", formatSize(lineBytesMax))
		}
	}()
	for n := 0; most == 0 || n < most; n++ {
		select {
		case line, ok := <-lines:
			if !ok {
				return failed
			}
			if err := do(line); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
