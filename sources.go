package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A flag set is the one table of settings: its names, types and defaults. The
// environment and the file only feed the flags that the command line left
// alone, through the same pflag.Value, so a value means the same wherever it
// stands. (koanf was tried on paper and left: it merges into an untyped map,
// which has to be decoded again beside the flags, and forgets which source won.)

const envPrefix = "RAYFLUX_"

// origins says where each setting's value came from, in the words that
// "config print" shows. A setting that is not in it has its default.
type origins map[string]string

// fill sets the flags that the command line did not from the environment, then
// from file (nil: none). It goes on past errors, to tell them all at once.
func fill(flags *pflag.FlagSet, env map[string]string, file *settingsFile) (origins, error) {
	from := origins{}
	var errs []error
	try := func(f *pflag.Flag, text, origin, name string) {
		from[f.Name] = origin
		if err := f.Value.Set(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !isSetting(f.Name) {
			return
		}
		if f.Changed {
			from[f.Name] = "flag --" + f.Name
		} else if text := env[envName(f.Name)]; text != "" {
			try(f, text, "environment "+envName(f.Name), "variable "+envName(f.Name))
		} else if v, ok := file.value(f.Name); ok {
			try(f, v.text, file.at(v.line), file.at(v.line)+": "+f.Name)
		}
	})
	return from, errors.Join(errs...)
}

// isSetting tells the settings of a command from the flags that steer the
// reading of them.
func isSetting(flag string) bool { return flag != "help" && flag != "config" }

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func flagNames(flags *pflag.FlagSet) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// environment picks our variables out of os.Environ's lines. An empty one
// counts as unset: that is what a compose file's ${X:-} leaves behind.
func environment(lines []string) map[string]string {
	env := map[string]string{}
	for _, line := range lines {
		if name, text, _ := strings.Cut(line, "="); strings.HasPrefix(name, envPrefix) && text != "" {
			env[name] = text
		}
	}
	return env
}

// serviceLink matches what Kubernetes puts into every pod's environment for a
// Service that happens to be called rayflux or rayflux-something.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// strangers names the variables that no command reads, each with a suggestion.
// They are told apart from the errors: an environment is shared with other
// commands, other versions and other programs, unlike a file.
func strangers(root *cobra.Command, env map[string]string) (complaints []string) {
	known := map[string]bool{}
	for _, cmd := range commandsBelow(root) {
		for _, flag := range flagNames(cmd.LocalFlags()) {
			if flag != "help" {
				known[strings.TrimPrefix(envName(flag), envPrefix)] = true
			}
		}
	}
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		word := strings.TrimPrefix(name, envPrefix)
		if !known[word] && !serviceLink.MatchString(name) {
			complaints = append(complaints, fmt.Sprintf("unknown variable %s%s", name, didYouMean(envPrefix, word, names)))
		}
	}
	return complaints
}

func commandsBelow(cmd *cobra.Command) (all []*cobra.Command) {
	for _, c := range cmd.Commands() {
		all = append(append(all, c), commandsBelow(c)...)
	}
	return all
}
