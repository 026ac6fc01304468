// Package cli is what the three programs' command lines have in common:
// signals, exit codes, progress bars and machine-readable output.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// ErrReported ends a command with exit status 1 when it has already said on
// stderr what is wrong.
var ErrReported = errors.New("already reported")

// interrupted is the exit status of a program that was not let end in order,
// as a shell gives it after SIGINT.
const interrupted = 128 + int(syscall.SIGINT)

// Main runs a program until it ends or SIGINT or SIGTERM asks it to, and
// returns its exit status: 0 done, 1 failed. To a second Ctrl-C it returns 130
// at once, whatever the program is about: the caller exits, and what becomes of
// a strike is the kernel's affair, as after a kill (docs/hardware.md).
func Main(root *cobra.Command) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	return run(signals, root, os.Args[1:], os.Stdout, os.Stderr)
}

func run(signals <-chan os.Signal, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	status := make(chan int, 1)
	go func() { status <- Run(ctx, root, args, stdout, stderr) }()
	for asked := false; ; asked = true {
		select {
		case s := <-status:
			return s
		case s := <-signals:
			// A service manager and a dying parent may both send SIGTERM.
			if asked && s == os.Interrupt {
				fmt.Fprintf(stderr, "\n%s: interrupted again: ending at once\n", root.Name())
				return interrupted
			}
			cancel()
		}
	}
}

// Run runs one command line and returns its exit status.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrReported):
	default:
		fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	}
	return 1
}

// PrintJSON writes v as one line of JSON.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
