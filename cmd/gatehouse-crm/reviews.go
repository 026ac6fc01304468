package main

import (
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/spf13/cobra"
)

func newReviewsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reviews",
		Short: "List the breakings of the glass that owe a review, and write what it found",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newReviewsListCmd(), newReviewsSignCmd())
	return cmd
}

// reviewJSON is a review as programs read it.
type reviewJSON struct {
	ID         int64     `json:"review"`
	Controller string    `json:"controller"`
	Door       string    `json:"door"`
	Person     string    `json:"person,omitempty"`
	At         time.Time `json:"at"`
	Reviewed   time.Time `json:"reviewed,omitzero"`
	Reviewer   string    `json:"reviewer,omitempty"`
	Justified  *bool     `json:"justified,omitempty"`
	Finding    string    `json:"finding,omitempty"`
}

func showReview(r central.Review) reviewJSON {
	out := reviewJSON{ID: r.ID, Controller: r.Controller, Door: r.Door, Person: r.Person, At: r.At, Reviewed: r.Reviewed, Reviewer: r.Reviewer, Finding: r.Finding}
	if !r.Owed() {
		out.Justified = &r.Justified
	}
	return out
}

func newReviewsListCmd() *cobra.Command {
	var data string
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the reviews that are owed",
		Example: "  gatehouse-crm reviews list --all",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			store, err := openExisting(cmd.Context(), data)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			reviews, err := store.Reviews(cmd.Context(), all)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			if !asJSON && len(reviews) > 0 {
				fmt.Fprintln(w, "REVIEW\tGLASS BROKEN\tCONTROLLER\tDOOR\tPERSON\tREVIEW")
			}
			for _, r := range reviews {
				if asJSON {
					if err := cli.PrintJSON(cmd.OutOrStdout(), showReview(r)); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.At.Local().Format(time.DateTime), r.Controller, r.Door, r.Person, reviewState(r))
			}
			return w.Flush()
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().BoolVar(&all, "all", false, "list those that were made too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, a review a line")
	return cmd
}

func reviewState(r central.Review) string {
	if r.Owed() {
		return "owed"
	}
	judged := "not justified"
	if r.Justified {
		judged = "justified"
	}
	return fmt.Sprintf("%s, by %s on %s: %s", judged, spelling.Printable(r.Reviewer), r.Reviewed.Local().Format(time.DateOnly), spelling.Printable(r.Finding))
}

func newReviewsSignCmd() *cobra.Command {
	var data, by, finding string
	var justified bool
	cmd := &cobra.Command{
		Use:   "sign REVIEW",
		Short: "Write what a review found, once and for good",
		Long: "Write what a review found, once and for good. Nobody reviews a breaking of the\n" +
			"glass of their own. --justified=false is as good an answer: say what is done\n" +
			"about it.",
		Example: "  gatehouse-crm reviews sign 512 --by m.jansen --justified --finding \"fire drill of 21 November, agreed with the site\"",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not the number of a review: `gatehouse-crm reviews list` shows them", args[0])
			}
			store, err := openExisting(cmd.Context(), data)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			return store.SetReview(cmd.Context(), id, by, justified, finding)
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().StringVar(&by, "by", "", "`who` reviewed it")
	cmd.Flags().StringVar(&finding, "finding", "", "`what` was found")
	cmd.Flags().BoolVar(&justified, "justified", false, "whether breaking the glass was")
	for _, name := range []string{"by", "finding", "justified"} {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
	return cmd
}
