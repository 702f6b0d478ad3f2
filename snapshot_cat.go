package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"rayflux/client"
	"rayflux/persist"
	"rayflux/protocol"
)

type catOptions struct {
	from   string
	count  int
	output string
}

func snapshotCatCommand() *cobra.Command {
	o := catOptions{from: "earliest", output: "payload"}
	cmd := &cobra.Command{
		Use:   "cat TOPIC",
		Short: "Print the messages of a topic that are in the store",
		Long: `Print the messages of a topic that are in the store, in order, and end: with --output payload each payload and a line
end, with --output json one object a line, as rayflux sub does. Where messages are missing, or an epoch ends, that is
said on standard error, or in an object of its own.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%s wants one TOPIC", cmd.Name())
			}
			return checkTopics(args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", o.from, "`start` at earliest, last:N, since:RFC3339 or after EPOCH:OFFSET")
	flags.Var(countOf(&o.count), "count", "end after this many messages (default: all)")
	flags.Var(choiceOf(&o.output, "payload", "json"), "output", "payload or json")
	var query persist.Query
	check := func() (err error) {
		if o.count < 0 {
			return fmt.Errorf("count is %d, want 0 or more", o.count)
		}
		query, err = storedFrom(o.from)
		return err
	}
	return snapshotBelow(cmd, check, func(ctx context.Context, s *snapshot, cmd *cobra.Command, args []string) error {
		p := &printer{out: bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10), gaps: &s.bar, json: o.output == "json"}
		r := s.reader(64 << 20)
		err := o.run(ctx, r, args[0], query, p, &s.bar)
		if err := errors.Join(err, p.out.Flush()); err != nil {
			return err
		}
		return brokenIn(r)
	})
}

// storedFrom reads --from as rayflux sub does, but that there is no "from now on".
func storedFrom(text string) (q persist.Query, err error) {
	at, err := parseStart(text)
	if err != nil {
		return q, err
	}
	switch at.mode {
	case protocol.FromEarliest:
	case protocol.FromLast:
		q.From, q.Last = persist.FromLast, at.last
	case protocol.FromSince:
		q.From, q.SinceMs = persist.FromSince, at.since.UnixMilli()
	case protocol.FromPosition:
		q.From, q.At = persist.FromPosition, persist.Position(at.after)
	default:
		return q, errors.New("from is empty, want earliest, last:N, since:RFC3339 or EPOCH:OFFSET")
	}
	return q, nil
}

// catPageBytes is how much of a topic is in memory at once.
const catPageBytes = 1 << 20

func (o catOptions) run(ctx context.Context, r *persist.Reader, topic string, q persist.Query, p *printer, bar *progress) error {
	start, err := r.Resolve(ctx, topic, q)
	if err != nil {
		return err
	}
	if start.Position == (persist.Position{}) {
		return o.nothing(ctx, r, topic, q)
	}
	printed := 0
	for at := start.Position; at.Epoch != ""; {
		page, err := r.Read(ctx, topic, at, catPageBytes)
		if err != nil {
			return err
		}
		switch {
		case page.Count > 0:
			for rest := page.Frames; len(rest) > 0; printed++ {
				if o.count > 0 && printed == o.count {
					return nil
				}
				d, n, err := storedMessage(rest)
				if err != nil {
					return fmt.Errorf("topic %q: the message behind %s:%d: %w", topic, at.Epoch, at.Offset, err)
				}
				rest = rest[n:]
				at.Offset++
				d.Position.Epoch = at.Epoch
				if err := p.print(d); err != nil {
					return err
				}
			}
			bar.show("messages", int64(printed), -1, false)
		case page.Hole > 0:
			gap := client.Gap{Reason: protocol.GapReset, Missed: page.Hole - 1 - at.Offset}
			at.Offset = page.Hole - 1
			err = p.print(client.Delivery{Topic: topic, Position: protocol.Position(at), Gap: &gap})
		case page.NextEpoch != "":
			at = persist.Position{Epoch: page.NextEpoch}
			err = p.print(client.Delivery{Topic: topic, Position: protocol.Position(at), Gap: &client.Gap{Reason: protocol.GapReset}})
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nothing says why there is nothing to print, if that is an error.
func (o catOptions) nothing(ctx context.Context, r *persist.Reader, topic string, q persist.Query) error {
	start, err := r.Resolve(ctx, topic, persist.Query{})
	switch {
	case err != nil:
		return err
	case start.Position == (persist.Position{}):
		return fmt.Errorf("topic %q: the store has no messages of it", topic)
	case q.From == persist.FromPosition:
		return fmt.Errorf("topic %q: the store has nothing of epoch %s", topic, q.At.Epoch)
	}
	return nil
}

// storedMessage is the message whose frame b begins with, n bytes long. The reader has seen to it that the frame is whole, but
// not what is in it.
func storedMessage(b []byte) (d client.Delivery, n int, err error) {
	h, _ := protocol.NextFrame(b)
	n = h.Size + int(h.Length)
	topic, offset, kind, payload, err := protocol.ParseBinaryMessage(b[h.Size:n])
	if err != nil {
		return d, 0, err
	}
	return client.Delivery{Topic: string(topic), Position: protocol.Position{Offset: offset}, Kind: kind, Payload: payload}, n, nil
}
