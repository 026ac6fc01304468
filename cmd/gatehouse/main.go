// Command gatehouse is the daemon on a door controller, and the tools of the
// people who install and check one.
package main

import (
	"os"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

func main() { os.Exit(cli.Main(newRoot())) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse",
		Short: "Let people into server rooms and prove who came in",
		Args:  cobra.NoArgs,

		Version: cli.Version(),
	}
	root.AddCommand(
		newRunCmd(), newCheckCmd(), newStatusCmd(),
		newInitCmd(), newJoinCmd(), newKeysCmd(),
		newAllowlistCmd(), newBadgeCmd(), newReasonsCmd(),
		newLogCmd(), newIOCmd(), newOSDPCmd(), newEnrollCmd(),
	)
	return root
}
