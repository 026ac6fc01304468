package main

import (
	"io"
	"os"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

func newCompareCmd() *cobra.Command {
	var f logFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compare EXPORT…",
		Short: "Say what differs between a controller's exported log and the CRM's",
		Long: `Compare what "gatehouse log export" wrote on a controller with what the CRM
holds of it, record by record: which are missing and where, which are others,
which stand elsewhere, and which epochs only one side has. A controller that
began a new epoch has a database for each: give an export of each.

Exit status 0 if nothing differs, else 1. Signatures are not looked at here:
"gatehouse-crm verify" and "gatehouse-crm log verify" do that.`,
		Example: `  gatehouse log export --out north-1.ndjson          # on the controller
  gatehouse-crm compare north-1.ndjson`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			exports := make([]io.Reader, len(files))
			for i, file := range files {
				r, err := os.Open(file)
				if err != nil {
					return err
				}
				defer r.Close()
				exports[i] = r
			}
			return f.with(cmd.Context(), func(s *logSession) error {
				c, err := s.Compare(cmd.Context(), exports...)
				if err != nil {
					return err
				}
				if asJSON {
					err = cli.PrintJSON(cmd.OutOrStdout(), c)
				} else {
					err = c.Print(cmd.OutOrStdout())
				}
				if err == nil && c.Differences > 0 {
					err = cli.ErrReported
				}
				return err
			})
		},
	}
	dataFlag(cmd, &f.data)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}
