// Command gatehouse-demo starts gatehouse and gatehouse-crm as real processes
// around a virtual site with four doors, so that anyone can watch people come in
// without hardware.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func main() { os.Exit(cli.Main(newRoot())) }

func newRoot() *cobra.Command {
	var data string
	var once bool
	cmd := &cobra.Command{
		Use:   "gatehouse-demo",
		Short: "Watch people come in at a virtual site",
		Long: `Start gatehouse and gatehouse-crm around a virtual site: four server rooms, six
readers, a fingerprint module, an iris scanner, nine people. Everything but the
wires is real: keys, certificates, broker, enrolments, decisions, signed records,
receipts. People come and go by themselves and by your keys; each is one line,
from the badge to the CRM's receipt. Who may enter is governed at the CRM: there
people are hired and leave, and visits are planned.

With --once a story is played to its end: badges, fingers and eyes, somebody who is
hired and leaves, a lockdown, a visitor with a one-time code and an escort, a forced
door, a network that is cut. Then both logs are verified and compared, and the exit
status is 1 if anything is not as it should be.

gatehouse-demo reader and gatehouse-demo module are single devices without a site.`,
		Example: "  gatehouse-demo\n  gatehouse-demo --once --data /tmp/demo",
		Args:    cobra.NoArgs,
		Version: cli.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd, data, once)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "keep the files in this `folder`, and go on with what is there: FOLDER/door, FOLDER/crm (default: one that is removed at the end)")
	cmd.Flags().BoolVar(&once, "once", false, "play the story once, verify both logs, and end")
	cmd.AddCommand(newReaderCmd(), newModuleCmd())
	return cmd
}

func run(cmd *cobra.Command, data string, once bool) (err error) {
	out := cmd.OutOrStdout()
	if data == "" {
		if data, err = os.MkdirTemp("", "gatehouse-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(data)
	} else if data, err = filepath.Abs(data); err != nil {
		return err
	}
	s := &site{dir: data, screen: newScreen(out), held: make(map[string]time.Time)}
	interrupted := cmd.Context()
	// The network lasts beyond a Ctrl-C, until everything is countersigned.
	ctx, cancel := context.WithCancel(context.WithoutCancel(interrupted))
	defer cancel()

	fmt.Fprintf(out, "Setting up a site in %s\n", data)
	if err := s.setUp(interrupted); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, s.stop(), g.Wait())
	}()
	if err := s.start(ctx, g); err != nil {
		return err
	}
	s.screen.settle()
	fmt.Fprintf(out, "The doors are ready; the controller's pages are at http://%s/status\n\n", s.doorHTTP)
	people, leave := context.WithCancel(ctx)
	defer leave()
	defer context.AfterFunc(interrupted, leave)()
	if err := s.enrolPeople(people); err != nil {
		if interrupted.Err() != nil {
			err = nil
		}
		return err
	}
	if once {
		return play(people, s)
	}
	err = live(people, s, cmd.InOrStdin())
	if interrupted.Err() != nil || errors.Is(err, errQuit) {
		err = nil
		fmt.Fprintln(out, "\nEnding.")
	}
	return errors.Join(err, s.finish(ctx))
}
