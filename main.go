// Command rayflux is a publish/subscribe server over WebSockets, and the tools
// to drive it. This package holds no logic: it turns flags, environment and a
// file into an engine.Config, and a Config into a running process.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	// For TLS where a system has no certificates, as in the image: it is all there is. A file of the build's machine would
	// carry that machine's own authorities into everybody's image.
	_ "golang.org/x/crypto/x509roots/fallback"
)

// What a process ends with.
const (
	exitClean  = 0
	exitFailed = 1 // it ran, and something went wrong
	exitUsage  = 2 // it was told something it cannot do, and never ran
)

// usageError marks an error that only its caller can put right, by saying
// something else.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() { os.Exit(run(os.Args[1:])) }

// run is main with its exit status as a value.
func run(args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	// Whatever cobra finds wrong before a command's own code begins is the
	// caller's doing; it has no error type of its own to tell by.
	began := false
	root.PersistentPreRun = func(*cobra.Command, []string) { began = true }

	cmd, err := root.ExecuteC()
	if err == nil {
		return exitClean
	}
	fmt.Fprintf(os.Stderr, "rayflux: %v\n", err)
	if usage := (usageError{}); errors.As(err, &usage) || !began {
		fmt.Fprintf(os.Stderr, "%q says more\n", cmd.CommandPath()+" --help")
		return exitUsage
	}
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "rayflux",
		Short: "Publish and subscribe over WebSockets",
		Long: `RayFlux is a publish/subscribe server over WebSockets: one binary, no database, no broker.
"rayflux dev" starts everything on loopback.

Every flag below a command has a twin in the environment (--max-message is RAYFLUX_MAX_MESSAGE).
Servers also read a YAML file (--config) whose keys are the flags' names.
Flags win over the environment, the environment over the file, the file over the default.
Exit status: 0 clean, 1 failed, 2 usage.`,
		Args:              subcommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(devCommand(), balancerCommand(), nodeCommand(), pubCommand(), subCommand(), routeCommand(), topCommand(), snapshotCommand(), benchCommand(), floorCommand(), configCommand(), versionCommand())
	return root
}

// subcommand is the Args of a command that only has commands below it.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return usagef("unknown command %q%s", args[0], didYouMean("", args[0], names))
}

// flagError rewords what pflag has to say, so that a bad value reads the same
// whether it came from a flag, the environment or the file.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		name := unknown.GetSpecifiedName()
		return usagef("unknown flag --%s%s", name, didYouMean("--", name, flagNames(cmd.Flags())))
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return usagef("flag --%s: %w", invalid.GetFlag().Name, errors.Unwrap(err))
	}
	return usageError{err}
}
