package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or check the settings a server would run with",
		Args:  subcommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a command: print or check", cmd.Name())
		},
	}
	cmd.AddCommand(
		settingsCommands("print", "Print each setting and where it came from, as a YAML file that --config reads", printSettings),
		settingsCommands("check", "Check the settings, unknown RAYFLUX_ variables included; exit status 2 if they are wrong", checkSettings),
	)
	return cmd
}

// settingsWork is what is done with settings that were read.
type settingsWork func(cmd *cobra.Command, s *settings, env map[string]string) error

// settingsCommands is a command with one below it for each server. By itself it means a node.
func settingsCommands(use, short string, do settingsWork) *cobra.Command {
	cmd := settingsCommand(nodeRole, do)
	cmd.Use, cmd.Short, cmd.Args = use+" [node | balancer | dev] [flags]", short, subcommand
	for _, r := range roles {
		below := settingsCommand(r, do)
		below.Use, below.Short = r.name, short+": those of rayflux "+r.name
		cmd.AddCommand(below)
	}
	return cmd
}

// settingsCommand is a command that reads settings just as the server of that role would, and hands them to do.
func settingsCommand(r role, do settingsWork) *cobra.Command {
	cmd := &cobra.Command{Args: noArguments}
	s := addSettings(cmd.Flags(), r)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		env := environment(os.Environ())
		m, limitErr := thisMachine()
		if limitErr != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "rayflux: cannot read all limits of this process: %v\n", limitErr)
		}
		if err := s.load(env, m); err != nil {
			return err
		}
		return do(cmd, s, env)
	}
	return cmd
}

func checkSettings(cmd *cobra.Command, s *settings, env map[string]string) error {
	var errs []error
	for _, complaint := range strangers(cmd.Root(), env) {
		errs = append(errs, errors.New(complaint))
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "ok: %s\n", s.engine.Budget())
	return err
}

func printSettings(cmd *cobra.Command, s *settings, _ map[string]string) error {
	return s.print(cmd.OutOrStdout())
}

// print writes a file that readFile reads back to the same values, with each
// value's origin as its comment.
func (s *settings) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	s.flags.VisitAll(func(f *pflag.Flag) {
		if !isSetting(f.Name) {
			return
		}
		origin := s.from[f.Name]
		if origin == "" {
			origin = "default"
		}
		switch text := f.Value.String(); text {
		case "", secretShown: // what cannot be read back as it is
			fmt.Fprintf(table, "# %s: %s\t# %s\n", f.Name, text, origin)
		default:
			fmt.Fprintf(table, "%s: %s\t# %s\n", f.Name, yamlScalar(text), origin)
		}
	})
	if len(s.engine.Topics) > 0 {
		fmt.Fprintln(table, "topics:")
	}
	for i, rule := range s.rules {
		fmt.Fprintf(table, "  - pattern: %s\t# %s\n", yamlScalar(rule.Pattern), s.topics[i])
		if rule.Slow != nil {
			fmt.Fprintf(table, "    slow: %s\n", rule.Slow)
		}
		if rule.Bytes != 0 {
			fmt.Fprintf(table, "    bytes: %s\n", formatSize(int64(rule.Bytes)))
		}
		if rule.Age != 0 {
			fmt.Fprintf(table, "    age: %s\n", formatDuration(rule.Age))
		}
		if rule.Persist != nil {
			fmt.Fprintf(table, "    persist: %v\n", *rule.Persist)
		}
		if rule.retains {
			fmt.Fprintf(table, "    retain-age: %s\n    retain-bytes: %s\n", formatDuration(rule.age), formatSize(rule.bytes))
		}
	}
	fmt.Fprintf(table, "# budget: %s\n", s.engine.Budget())
	return table.Flush()
}

// yamlScalar quotes text where YAML would take it for something else.
func yamlScalar(text string) string {
	out, err := yaml.Marshal(&yaml.Node{Kind: yaml.ScalarNode, Value: text})
	if err != nil {
		return fmt.Sprintf("%q", text)
	}
	return strings.TrimSpace(string(out))
}
