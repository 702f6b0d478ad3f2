package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rayflux/persist"
)

// snapshot is what the commands below "rayflux snapshot" share: a store, and where they speak to people.
type snapshot struct {
	at    storeAt
	file  *settingsFile // a server's, if the command reads one; nil: none
	store persist.Store
	bar   progress
	log   *slog.Logger
}

func snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Look into the store that messages are kept in",
		Long: `Look into the store that messages are kept in, whether servers use it at the moment or not: list its topics, print
messages, check that everything can be read, delete what nothing needs.`,
		Example: `  rayflux snapshot ls --store dir:./data
  rayflux snapshot cat prices.eur --from since:2026-01-02T15:00:00Z --output json --store s3://bucket/prefix | jq .data
  RAYFLUX_STORE=s3://bucket/prefix rayflux snapshot verify`,
		Args: subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a command: ls, cat, verify or gc", cmd.Name())
		},
	}
	cmd.AddCommand(snapshotListCommand(), snapshotCatCommand(), snapshotVerifyCommand(), snapshotCollectCommand())
	return cmd
}

// snapshotBelow makes cmd one of these commands: work is done with the store open, until a signal ends ctx.
func snapshotBelow(cmd *cobra.Command, check func() error, work func(ctx context.Context, s *snapshot, cmd *cobra.Command, args []string) error) *cobra.Command {
	s := &snapshot{}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(storeOf(&s.at), "store", "`place` of the store: dir:PATH or s3://BUCKET/PREFIX")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		env := environment(os.Environ())
		var err error
		if s.file, err = serversFile(flags.Lookup("config"), env); err != nil {
			return usageError{err}
		}
		if _, err := fill(flags, env, s.file); err != nil {
			return usageError{err}
		}
		if s.at == (storeAt{}) {
			return usagef("%s wants --store dir:PATH or s3://BUCKET/PREFIX", cmd.Name())
		}
		if err := check(); err != nil {
			return usageError{err}
		}
		if err := s.there(); err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer cancel()
		if s.store, err = s.at.open(ctx); err != nil {
			return err
		}
		s.bar = newProgress(cmd.ErrOrStderr())
		s.log = slog.New(slog.NewTextHandler(&s.bar, nil))
		err = work(ctx, s, cmd, args)
		s.bar.clear()
		return err
	}
	return cmd
}

// serversFile is the settings file that a flag names, which may have what any server can be told; nil: there is no flag, or no file.
func serversFile(flag *pflag.Flag, env map[string]string) (*settingsFile, error) {
	if flag == nil {
		return nil, nil
	}
	path := flag.Value.String()
	if path == "" {
		path = env[envName(flag.Name)]
	}
	if path == "" {
		return nil, nil
	}
	var keys []string
	for _, r := range roles {
		keys = append(keys, addSettings(pflag.NewFlagSet(r.name, pflag.ContinueOnError), r).keys()...)
	}
	return readFile(path, keys)
}

// there keeps a misspelt directory from being made, and found empty.
func (s *snapshot) there() error {
	if s.at.directory == "" {
		return nil
	}
	_, err := os.Stat(s.at.directory)
	return err
}

// refreshLeast is enough for one reader, and keeps it from waiting for its own last look.
const refreshLeast = 100 * time.Millisecond

func (s *snapshot) reader(cacheBytes int64) *persist.Reader {
	return persist.NewReader(s.store, persist.ReaderConfig{Log: s.log, CacheBytes: cacheBytes, Refresh: refreshLeast})
}

func always() error { return nil }

func snapshotListCommand() *cobra.Command {
	pattern, output := "", "table"
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the topics that have messages in the store",
		Long: `List the topics that have messages in the store: how many, in how many segments and epochs, and from when to when.
Bytes are those of the messages, before compression. The index of each segment is read, one request each.`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.Var(textOf(&pattern), "pattern", "only topics that match, as in a server's topics list: prices.*")
	flags.Var(choiceOf(&output, "table", "json"), "output", "table, or json: an object a line")
	check := func() error {
		if err := persist.CheckPattern(pattern); err != nil {
			return fmt.Errorf("pattern is %q: %w", pattern, err)
		}
		return nil
	}
	return snapshotBelow(cmd, check, func(ctx context.Context, s *snapshot, cmd *cobra.Command, _ []string) error {
		r := s.reader(64 << 20)
		topics, err := r.Survey(ctx, func(done, of int) { s.bar.show("segments", int64(done), int64(of), false) })
		if err != nil {
			return err
		}
		s.bar.clear()
		var matching []persist.TopicSummary
		for _, t := range topics {
			if pattern == "" || persist.MatchTopic(pattern, t.Topic) {
				matching = append(matching, t)
			}
		}
		if err := listTopics(cmd.OutOrStdout(), matching, output == "json"); err != nil {
			return err
		}
		return brokenIn(r)
	})
}

// brokenIn is the exit status of who could not see all.
func brokenIn(r *persist.Reader) error {
	if n := r.Faults(); n > 0 {
		return fmt.Errorf("%d objects of the store cannot be used, and what they have is missing: see above", n)
	}
	return nil
}

// topicLine is one line of snapshot ls --output json.
type topicLine struct {
	Topic    string `json:"topic"`
	Messages uint64 `json:"messages"`
	Bytes    int64  `json:"bytes"`
	Segments int    `json:"segments"`
	Epochs   int    `json:"epochs"`
	First    string `json:"first"` // position of the oldest message
	Last     string `json:"last"`
	Oldest   string `json:"oldest"` // RFC 3339
	Newest   string `json:"newest"`
}

func listTopics(out io.Writer, topics []persist.TopicSummary, asJSON bool) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(table, "TOPIC\tMESSAGES\tBYTES\tSEGMENTS\tEPOCHS\tFIRST\tLAST\tOLDEST\tNEWEST")
	}
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	position := func(p persist.Position) string { return fmt.Sprintf("%s:%d", p.Epoch, p.Offset) }
	for _, t := range topics {
		l := topicLine{t.Topic, t.Messages, t.Bytes, t.Segments, t.Epochs, position(t.First), position(t.Last), at(t.FirstMs), at(t.LastMs)}
		if asJSON {
			if err := encoder.Encode(l); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", l.Topic, l.Messages, l.Bytes, l.Segments, l.Epochs, l.First, l.Last, l.Oldest, l.Newest)
	}
	return table.Flush()
}

func snapshotVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Read everything in the store, and say what is broken",
		Long: `Read everything that the store lists, to the last byte, and compare it with its checksums and with what is said of it
elsewhere. Each object that is broken is a line; exit status 1 if there is one. Nothing is changed.`,
		Args: noArguments,
	}
	return snapshotBelow(cmd, always, func(ctx context.Context, s *snapshot, cmd *cobra.Command, _ []string) error {
		s.log = slog.New(slog.DiscardHandler) // what it would say is printed
		broken := 0
		done, err := s.reader(1<<20).Verify(ctx,
			func(done, of int64) { s.bar.show("bytes", done, of, true) },
			func(object string, err error) {
				broken++
				s.bar.clear()
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", object, err)
			})
		if err != nil {
			return err
		}
		s.bar.clear()
		if broken > 0 {
			return fmt.Errorf("%d objects are broken, %d are good", broken, done.Objects)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %d objects, of them %d segments of %s with %d messages\n", done.Objects, done.Segments, formatSize(done.Bytes), done.Messages)
		return err
	})
}

func snapshotCollectCommand() *cobra.Command {
	o := collectOptions{grace: 10 * time.Minute}
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Merge segments, and delete what nothing needs",
		Long: `Do at once what nodes do from time to time: merge segments, delete those that were replaced --grace ago, and look for
objects that nothing lists, as a crash may leave behind. Servers may use the store meanwhile. No message is deleted, unless
it is said for how long they are kept, as for a server: by flags, or by a settings file. That is applied at once.`,
		Args: noArguments,
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.dry, "dry-run", false, "only say which objects nothing lists, and which messages are past their retention")
	flags.Var(durationOf(&o.grace), "grace", "how long what was replaced stays for readers that know no better")
	flags.String("config", "", "read how long messages are kept, and where, from this YAML `file` of a server's")
	flags.Var(durationOf(&o.retainAge), "retain-age", "how long messages are kept; 0: for good")
	flags.Var(sizeOf(&o.retainBytes), "retain-bytes", "how many bytes of one topic are kept; 0: no limit")
	return snapshotBelow(cmd, o.check, func(ctx context.Context, s *snapshot, cmd *cobra.Command, _ []string) error {
		u, err := persist.NewUpkeep(s.store, persist.UpkeepConfig{Grace: o.grace, Rules: o.retention(s.file), Thorough: true, Log: s.log})
		if err != nil {
			return usageError{err}
		}
		return s.collect(ctx, u, o.dry, cmd.OutOrStdout())
	})
}

type collectOptions struct {
	dry         bool
	grace       time.Duration
	retainAge   time.Duration
	retainBytes int64
}

// retention is for how long messages are kept: what nobody has said anything of, for good.
func (o *collectOptions) retention(file *settingsFile) []persist.Retention {
	var rules []topicRule
	if file != nil {
		rules = file.topics
	}
	return retentionOf(rules, o.retainAge, o.retainBytes)
}

func (o *collectOptions) check() error {
	if o.grace < graceMin {
		return fmt.Errorf("grace is %s, want at least %s", formatDuration(o.grace), formatDuration(graceMin))
	}
	return nil
}

// graceMin is longer than a reader that runs goes on with a list of segments.
const graceMin = 2 * time.Minute

func (s *snapshot) collect(ctx context.Context, u *persist.Upkeep, dry bool, out io.Writer) error {
	for more := !dry; more; {
		var err error
		if more, err = u.Step(ctx, time.Now()); err != nil {
			return err
		}
		s.bar.show("segments merged", u.Done().Merged, -1, false)
	}
	s.bar.clear()
	if dry {
		expired, err := u.Expired(ctx, time.Now())
		if err != nil {
			return err
		}
		for _, e := range expired {
			if _, err := fmt.Fprintf(out, "topic %q: %d messages (%s) are past their retention\n", e.Topic, e.Messages, formatSize(e.Bytes)); err != nil {
				return err
			}
		}
	}
	lost, err := u.Lost(ctx, !dry, func(o persist.Object, why string) error {
		_, err := fmt.Fprintf(out, "%s (%s): %s\n", o.Name, formatSize(o.Size), why)
		return err
	})
	if err != nil {
		return err
	}
	done := u.Done()
	if dry {
		_, err = fmt.Fprintf(out, "%d objects are listed by nothing\n", lost)
	} else {
		expired := ""
		if done.Expired > 0 {
			expired = fmt.Sprintf(" without %d messages past their retention", done.Expired)
		}
		_, err = fmt.Fprintf(out, "%d segments became %d%s, %d objects were deleted\n", done.Merged, done.Made, expired, done.Deleted)
	}
	return err
}
