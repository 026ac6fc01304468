package main

import (
	"fmt"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

func newReasonsCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reasons",
		Short: "Print what every reason code means and what to do",
		Long: `Print the page of reason codes, in Markdown: for each code that a decision may
have, what it means and what staff should do. With --json, one object a line.`,
		Example: "  gatehouse reasons > reasons.md",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !asJSON {
				_, err := fmt.Fprint(cmd.OutOrStdout(), access.ReasonsPage())
				return err
			}
			for _, r := range access.Reasons() {
				if err := cli.PrintJSON(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}
