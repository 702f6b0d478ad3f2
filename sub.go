package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rayflux/client"
	"rayflux/protocol"
)

type subOptions struct {
	server string
	from   string
	count  int
	output string
}

func subCommand() *cobra.Command {
	var o subOptions
	cmd := &cobra.Command{
		Use:   "sub TOPIC...",
		Short: "Print the messages of topics as they come",
		Long: `Print the messages of topics as they come: with --output payload each payload and a line end, with --output json
one object a line. A lost connection is taken up where it broke; where messages were missed all the same, that is
said on standard error, or in an object of its own.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s wants at least one TOPIC", cmd.Name())
			}
			return checkTopics(args)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	o.output = "payload"
	flags.StringVar(&o.server, "server", defaultServer, "`URL` of a node or a balancer")
	flags.StringVar(&o.from, "from", "", "`start` at earliest, last:N, since:RFC3339 or after EPOCH:OFFSET (default: what comes from now on)")
	flags.Var(countOf(&o.count), "count", "end after this many messages (default: never)")
	flags.Var(choiceOf(&o.output, "payload", "json"), "output", "payload or json")
	cmd.RunE = func(cmd *cobra.Command, topics []string) error {
		if _, err := fill(flags, environment(os.Environ()), nil); err != nil {
			return usageError{err}
		}
		if o.count < 0 {
			return usagef("count is %d, want 0 or more", o.count)
		}
		from, err := parseFrom(o.from, len(topics))
		if err != nil {
			return usageError{err}
		}
		p := &printer{out: bufio.NewWriter(cmd.OutOrStdout()), gaps: cmd.ErrOrStderr(), json: o.output == "json"}
		return o.run(topics, from, p, clientLogger(cmd.ErrOrStderr()))
	}
	return cmd
}

// beginning is what --from says.
type beginning struct {
	mode  protocol.FromMode
	last  uint64
	since time.Time
	after protocol.Position
}

func parseStart(s string) (at beginning, err error) {
	word, rest, _ := strings.Cut(s, ":")
	switch word {
	case "":
		if s == "" {
			at.mode = protocol.FromLive
			return at, nil
		}
	case "earliest":
		if s == word {
			at.mode = protocol.FromEarliest
			return at, nil
		}
	case "last":
		at.mode = protocol.FromLast
		at.last, err = strconv.ParseUint(rest, 10, 64)
		if err != nil || at.last == 0 {
			return at, fmt.Errorf("from is %q, want last:N with N of 1 or more", s)
		}
		return at, nil
	case "since":
		at.mode = protocol.FromSince
		at.since, err = time.Parse(time.RFC3339, rest)
		if err != nil {
			return at, fmt.Errorf("from is %q, want since: and a time like 2026-01-02T15:04:05Z", s)
		}
		return at, nil
	}
	epoch, offset, err := protocol.ParsePosition([]byte(s))
	if err != nil {
		return at, fmt.Errorf("from is %q, want earliest, last:N, since:RFC3339 or EPOCH:OFFSET", s)
	}
	at.mode, at.after = protocol.FromPosition, protocol.Position{Epoch: string(epoch), Offset: offset}
	return at, nil
}

// parseFrom reads --from for so many topics. A position is of one topic, so it starts no more.
func parseFrom(s string, topics int) (client.From, error) {
	at, err := parseStart(s)
	if err != nil {
		return client.From{}, err
	}
	switch at.mode {
	case protocol.FromEarliest:
		return client.Earliest(), nil
	case protocol.FromLast:
		return client.Last(at.last), nil
	case protocol.FromSince:
		return client.Since(at.since), nil
	case protocol.FromPosition:
		if topics > 1 {
			return client.From{}, fmt.Errorf("from is %q, a position of one topic, and there are %d topics", s, topics)
		}
		return client.After(at.after), nil
	}
	return client.Live(), nil
}

// run prints deliveries in the order of their arrival until there are o.count,
// a signal comes, or a subscription ends.
func (o subOptions) run(topics []string, from client.From, p *printer, log *slog.Logger) error {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	c, err := client.Dial(ctx, o.server, client.Options{Name: "rayflux-sub", Logger: log})
	if err != nil {
		return err
	}
	defer c.Close()

	// One channel for all keeps the order of arrival, and errors behind what
	// arrived before them. Its room lets bursts be written in one piece.
	arrivals := make(chan arrival, 256)
	for _, topic := range topics {
		// Not one after the other: a topic that has much to replay would keep
		// the client from reading the answer to the next subscribe.
		go follow(ctx, c, topic, from, arrivals)
	}
	err = p.printAll(ctx, arrivals, o.count)
	return errors.Join(err, p.out.Flush())
}

// arrival is what one subscription had to say: a delivery, or why it ended.
type arrival struct {
	client.Delivery
	err error
}

// follow subscribes to topic and passes on what it has to say until it ends.
func follow(ctx context.Context, c *client.Client, topic string, from client.From, arrivals chan<- arrival) {
	s, err := c.Subscribe(ctx, topic, from)
	for {
		var a arrival
		if err == nil {
			a.Delivery, err = s.Next(ctx)
		}
		if err != nil {
			a.err = fmt.Errorf("topic %q: %w", topic, err)
		}
		select {
		case arrivals <- a:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
