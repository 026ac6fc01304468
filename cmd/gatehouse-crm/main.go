// Command gatehouse-crm receives and countersigns the records of door
// controllers beside a central CRM, and has the tools of those who run it.
package main

import (
	"os"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

func main() { os.Exit(cli.Main(newRoot())) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse-crm",
		Short: "Receive, countersign and show the records of door controllers",
		Args:  cobra.NoArgs,

		Version: cli.Version(),
	}
	root.AddCommand(
		newRunCmd(), newCheckCmd(), newStatusCmd(),
		newPKICmd(), newControllersCmd(),
		newLogCmd(), newAlarmsCmd(), newReviewsCmd(), newVerifyCmd(), newCompareCmd(),
		newPeopleCmd(), newCredentialsCmd(), newGroupsCmd(), newDoorsCmd(), newAreasCmd(), newSchedulesCmd(), newHolidaysCmd(), newVisitsCmd(), newRegistryCmd(), newPolicyCmd(), newCommandCmd(), newAccessCmd(), newTokenCmd(),
	)
	return root
}
