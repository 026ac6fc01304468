package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric/enroll"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/control"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/spf13/cobra"
)

func newEnrollCmd() *cobra.Command {
	e := &enrollCommand{args: map[string]string{}}
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Enrol people's fingers and eyes at a door, revoke and check them",
		Long: `Enrol a person's fingers and eyes at the scanners of one side of a door, step by
step: your badge, the person and the notice, the person's badge twice, two
fingers of both hands and the eyes, each tried at once, and the badge of a second
operator. Operators are people of whom the allowlist says operator = true.

The daemon does it, and this is its terminal: it must run. For as long as the
session goes on, at most 15 minutes, that side of the door opens for nobody.
Ctrl-C ends it at any step, and leaves nothing half-enrolled.

A person who refuses, or cannot give a finger, has another factor, which the
allowlist names for them: instead = { fingerprint = "pin" }.`,
		Example: `  sudo -u gatehouse gatehouse enroll
  sudo -u gatehouse gatehouse enroll --door server-room --side in --person p-1044 --notice 2026-01
  sudo -u gatehouse gatehouse enroll revoke --person p-1044 --by p-0007
  sudo -u gatehouse gatehouse enroll list --json
  sudo -u gatehouse gatehouse enroll orphans --wipe --by p-0007`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := e.do(cmd, doEnroll, cmd.OutOrStdout())
			return err
		},
	}
	cmd.PersistentFlags().String("config", defaultConfig, "configuration `file`")
	cobra.CheckErr(cmd.MarkPersistentFlagFilename("config", "toml"))
	e.flag(cmd, argDoor, "`name` of the door; not needed where only one has scanners")
	e.flag(cmd, argSide, "`side` of the door, in or out; not needed where only one has scanners")
	e.flag(cmd, argAt, "`name` of the one scanner to enrol at; default: all of that side")
	e.flag(cmd, argPerson, "the person's `id`, as on the allowlist; default: asked for")
	e.flag(cmd, argNotice, "`version` of the notice that the person was given; default: asked for")
	cmd.AddCommand(newEnrollRevokeCmd(), newEnrollListCmd(), newEnrollOrphansCmd(), newEnrollCopyCmd())
	return cmd
}

func newEnrollRevokeCmd() *cobra.Command {
	e := &enrollCommand{args: map[string]string{}}
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Take back everything that is enrolled of a person",
		Long: `Take back everything that is enrolled of a person, at every scanner. From that
moment nothing of it matches; it is recorded, and each slot is emptied and read
back. A scanner that cannot be reached owes that: it is done when it is back.`,
		Example: "  sudo -u gatehouse gatehouse enroll revoke --person p-1044 --by p-0007",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := e.do(cmd, doRevoke, cmd.OutOrStdout())
			return err
		},
	}
	e.flag(cmd, argPerson, "the person's `id`")
	e.flag(cmd, argBy, "your own `id`: it stands in the record")
	require(cmd, argPerson, argBy)
	return cmd
}

func newEnrollCopyCmd() *cobra.Command {
	e := &enrollCommand{args: map[string]string{}}
	cmd := &cobra.Command{
		Use:   "copy",
		Short: "Copy a person's enrolment from one scanner to another of its family",
		Long: `Copy what is enrolled of a person from one scanner of this controller to another
that takes its templates. They are in the daemon's memory for as long as that
takes, and nowhere else. It is recorded. Have the person try the other scanner.`,
		Example: "  sudo -u gatehouse gatehouse enroll copy --person p-1044 --from a-finger --to b-finger --by p-0007",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := e.do(cmd, doCopy, cmd.OutOrStdout())
			return err
		},
	}
	e.flag(cmd, argPerson, "the person's `id`")
	e.flag(cmd, argFrom, "`name` of the scanner that has it")
	e.flag(cmd, argTo, "`name` of the scanner that is to have it")
	e.flag(cmd, argBy, "your own `id`: it stands in the record")
	require(cmd, argPerson, argFrom, argTo, argBy)
	return cmd
}

func newEnrollListCmd() *cobra.Command {
	e := &enrollCommand{args: map[string]string{}}
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what is enrolled, of whom and where",
		Example: "  sudo -u gatehouse gatehouse enroll list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := e.do(cmd, doList, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), results)
			}
			return printEnrolled(cmd.OutOrStdout(), results)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newEnrollOrphansCmd() *cobra.Command {
	e := &enrollCommand{args: map[string]string{}}
	var asJSON, wipe bool
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "Compare what the scanners keep with what was enrolled",
		Long: `Compare what the scanners keep with what was enrolled and with the allowlist, as
the daemon does every night at three. With --wipe, slots that nobody enrolled
are emptied, and what no scanner or no allowlist stands behind is revoked.

The exit status is 1 when something is found that is still there.`,
		Example: `  sudo -u gatehouse gatehouse enroll orphans
  sudo -u gatehouse gatehouse enroll orphans --wipe --by p-0007`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wipe {
				if e.args[argBy] == "" {
					return errors.New("--wipe: say with --by who does it: it stands in the record")
				}
				e.args[argWipe] = "yes"
			}
			results, err := e.do(cmd, doOrphans, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				err = cli.PrintJSON(cmd.OutOrStdout(), results)
			} else {
				err = printOrphans(cmd.OutOrStdout(), results)
			}
			if err == nil && len(results) > 0 {
				return cli.ErrReported
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&wipe, "wipe", false, "put right what is found")
	e.flag(cmd, argBy, "your own `id`, for --wipe: it stands in the record")
	return cmd
}

func require(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
}

// enrollCommand is one gatehouse enroll.
type enrollCommand struct {
	args map[string]string // of the request
}

// flag is an argument of the request.
func (e *enrollCommand) flag(cmd *cobra.Command, name, usage string) {
	cmd.Flags().Func(name, usage, func(value string) error {
		e.args[name] = value
		return nil
	})
}

// do has the daemon do it. What it says meanwhile is written to out.
func (e *enrollCommand) do(cmd *cobra.Command, what string, out io.Writer) ([]json.RawMessage, error) {
	file, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	// A demonstration's configuration may be looked at: nothing is driven here.
	cfg, err := config.LoadController(file, config.Options{Demo: true})
	if err != nil {
		return nil, cli.ReportFaults(cmd.ErrOrStderr(), err)
	}
	if !hasScanners(cfg) {
		return nil, fmt.Errorf("%s describes no scanner of fingers or eyes: add a [[door.scanner]]", file)
	}
	// Neither a connection that breaks nor Ctrl-Z may leave a door lent.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGQUIT)
	defer stop()
	t := &terminal{out: out}
	results, err := control.Do(ctx, filepath.Join(cfg.Data, control.SocketName), control.Request{Do: what, Args: e.args}, typed(ctx, cmd.InOrStdin()), t)
	t.done()
	if results == nil {
		results = []json.RawMessage{}
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", cmd.CommandPath(), spelling.Printable(strings.TrimSuffix(line, "\n")))
		}
		err = cli.ErrReported
	}
	return results, err
}

// typed are the lines that a person types, until there are no more.
func typed(ctx context.Context, in io.Reader) <-chan string {
	lines := make(chan string)
	go func() { // a read of a terminal cannot be ended: it lasts as long as the program
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// terminal shows what the daemon says.
type terminal struct {
	out   io.Writer
	bar   *cli.Progress
	shown int
}

// Say prints a line.
func (t *terminal) Say(text string) {
	t.done()
	fmt.Fprintln(t.out, spelling.Printable(text))
}

// Ask prints a question, and leaves the cursor behind it.
func (t *terminal) Ask(text string, choices []string) {
	t.done()
	if len(choices) > 0 {
		text += " [" + strings.Join(choices, "/") + "]"
	}
	fmt.Fprintf(t.out, "%s ", spelling.Printable(text))
}

// Progress draws how far long work has come.
func (t *terminal) Progress(what string, done, total int) {
	if t.bar == nil {
		t.bar, t.shown = cli.NewProgress(t.out, spelling.Printable(what), int64(total)), 0
	}
	t.bar.Add(int64(done - t.shown))
	t.shown = done
	if done >= total {
		t.done()
	}
}

func (t *terminal) done() {
	if t.bar != nil {
		t.bar.Done()
		t.bar = nil
	}
}

// listedRow is a row as gatehouse enroll list shows it.
type listedRow struct {
	enrolled.Row
	Fault string `json:"fault,omitempty"`
}

func listed(r enrolled.Row) listedRow {
	l := listedRow{Row: r}
	if r.Fault != nil {
		l.Fault = r.Fault.Error()
	}
	return l
}

func printEnrolled(out io.Writer, results []json.RawMessage) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PERSON\tSCANNER\tSLOT\tWHICH\tSTATE\tENROLLED\tOPERATOR\tAPPROVER\tNOTICE")
	for _, b := range results {
		var r struct {
			Person, Scanner, Part, State, Operator, Approver, Notice, Fault string

			Slot   uint32
			Duress bool
			At     time.Time
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		if r.Fault != "" {
			fmt.Fprintf(w, "?\t%s\t%d\t%s\n", r.Scanner, r.Slot, spelling.Printable(r.Fault))
			continue
		}
		which := r.Part
		if r.Duress {
			which += ", for duress"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Person, r.Scanner, r.Slot, which, r.State,
			r.At.Local().Format(time.DateTime), r.Operator, r.Approver, spelling.Printable(r.Notice))
	}
	return w.Flush()
}

// orphanWords say what a finding is, and what to do about it.
var orphanWords = map[enroll.Kind]string{
	enroll.SlotWithoutRow: "nobody enrolled what is in this slot; it matches nobody: --wipe empties it",
	enroll.RowWithoutSlot: "the scanner does not have it any more: --wipe, and enrol the person again",
	enroll.NotListed:      "the person is not on the allowlist any more: --wipe revokes it",
	enroll.Exchanged:      "at a scanner that was exchanged or taken away; it matches nobody: --wipe, and enrol the person again",
	enroll.Unreadable:     "its row does not open; it matches nobody: --wipe, and enrol the person again",
	enroll.SlotOwed:       "it matches nobody; its slot is emptied when the scanner is back",
}

func printOrphans(out io.Writer, results []json.RawMessage) error {
	if len(results) == 0 {
		_, err := fmt.Fprintln(out, "ok: the scanners keep what was enrolled, and nothing else")
		return err
	}
	for _, b := range results {
		var r struct {
			enroll.Finding
			Why string `json:"why"`
		}
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		if r.Kind == "" {
			fmt.Fprintf(out, "%s: not looked into: %s\n", r.Scanner, spelling.Printable(r.Why))
			continue
		}
		whose := ""
		if r.Person != "" {
			whose = fmt.Sprintf(", %s of %s", r.Part, r.Person)
		}
		fmt.Fprintf(out, "%s, slot %d%s: %s: %s\n", r.Scanner, r.Slot, whose, r.Kind, orphanWords[r.Kind])
	}
	return nil
}
