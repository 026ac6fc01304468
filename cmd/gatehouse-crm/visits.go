package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

var visitSort = sort[registry.Visit]{
	name: "visit", plural: "visits",
	of:      func(r *registry.Registry) table[registry.Visit] { return r.Visits },
	id:      func(v registry.Visit) string { return v.ID },
	heading: "VISIT\tVISITOR\tORGANISATION\tHOST\tPURPOSE\tFROM\tUNTIL\tSTATE\tBADGE",
	columns: func(s *registrySession, v registry.Visit) []string {
		state := string(v.State())
		switch {
		case v.How != "":
			state += " (" + string(v.How) + ")"
		case v.Overstayed(time.Now()):
			state += ", OVERSTAYED"
		}
		held := ""
		if v.BadgeOut() {
			held = v.Badge
		}
		return []string{v.ID, v.Visitor, v.Organisation, v.Host, v.Purpose, s.shown(v.From), s.shown(v.Until), state, held}
	},
}

func newVisitsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "visits",
		Short: "Plan visits, check visitors in, issue their badges and sign them out",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(
		visitSort.editCmd(true, `Plan a visit. VISIT is an id; "new" makes one up. The visitor is a person of kind
visitor. The host is staff, and who authorises the visit is neither host nor
escort.`, `  gatehouse-crm visits add new --visitor p-k3v9x2mq7d --organisation Acme --host p-1001 --authoriser p-1002 \
      --purpose "replace a disk" --ticket INC-7 --escort-needed --escort p-1003 \
      --from 2026-03-02T09:00 --until 2026-03-02T17:00 --door front --door server-room-a --by guard.1 --why INC-7`,
			visitFlags, func(id string) registry.Visit {
				if id == "new" {
					id = registry.NewID("visit")
				}
				return registry.Visit{ID: id}
			}),
		visitSort.editCmd(false, "Change a visit that is not over.", "", visitFlags, nil),
		newVisitsListCmd(), newVisitsShowCmd(), newVisitsCheckInCmd(), newVisitsBadgeCmd(), newVisitsSurrenderCmd(), newVisitsSignOutCmd(),
		newVisitsCancelCmd(), newVisitsCodeCmd(), newVisitsCodesCmd(), newVisitsWithdrawCmd(), newVisitsCloseOverdueCmd())
	return cmd
}

func visitFlags(cmd *cobra.Command) func(*registrySession, *registry.Visit) error {
	var doors []string
	var escortNeeded bool
	texts := []struct {
		flag, usage string
		to          func(*registry.Visit) *string
	}{
		{"visitor", "who comes, by `id`", func(v *registry.Visit) *string { return &v.Visitor }},
		{"organisation", "whom the visitor represents", func(v *registry.Visit) *string { return &v.Organisation }},
		{"host", "who is visited, by `id`", func(v *registry.Visit) *string { return &v.Host }},
		{"purpose", "what for, in a few words", func(v *registry.Visit) *string { return &v.Purpose }},
		{"ticket", "the `ticket` of the work", func(v *registry.Visit) *string { return &v.Ticket }},
		{"authoriser", "who authorises it, by `id`; neither host nor escort", func(v *registry.Visit) *string { return &v.Authoriser }},
		{"escort", "who goes with the visitor, by `id`", func(v *registry.Visit) *string { return &v.Escort }},
	}
	for _, t := range texts {
		cmd.Flags().String(t.flag, "", t.usage)
	}
	cmd.Flags().BoolVar(&escortNeeded, "escort-needed", false, "the visitor may not be alone")
	cmd.Flags().String("from", "", "from this `time`")
	cmd.Flags().String("until", "", "until this `time`; a date alone: to its end")
	cmd.Flags().StringSliceVar(&doors, "door", nil, "a `door` that the visitor may use (may be repeated)")
	return func(s *registrySession, v *registry.Visit) error {
		for _, t := range texts {
			setText(cmd, t.flag, t.to(v))
		}
		if cmd.Flags().Changed("escort-needed") {
			v.EscortNeeded = escortNeeded
		}
		if cmd.Flags().Changed("door") {
			v.Doors = doors
		}
		return errors.Join(s.setMoment(cmd, "from", &v.From), s.setMoment(cmd, "until", &v.Until))
	}
}

func newVisitsListCmd() *cobra.Command {
	var f viewFlags
	var state string
	var overstayed bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the visits",
		Example: `  gatehouse-crm visits list --state in
  gatehouse-crm visits list --overstayed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			look := registry.View{Kind: registry.KindVisit, Filter: filter("state="+state, mark("overstayed", overstayed))}
			return f.viewing(cmd, look, func(s *registrySession) error {
				return visitSort.print(s, nil, func(v registry.Visit) bool {
					return (state == "" || state == string(v.State())) && (!overstayed || v.Overstayed(now))
				})
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&state, "state", "", "only those that are planned, in or closed")
	cmd.Flags().BoolVar(&overstayed, "overstayed", false, "only those whose visitor is in after the end")
	return cmd
}

func newVisitsShowCmd() *cobra.Command {
	var f viewFlags
	cmd := &cobra.Command{
		Use:     "show VISIT",
		Short:   "Show all of a visit, as JSON",
		Example: "  gatehouse-crm visits show visit-6gq2m4zt3y",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.viewing(cmd, registry.View{Kind: registry.KindVisit, ID: args[0]}, func(s *registrySession) error {
				row, err := s.Visits.Get(s.ctx, args[0])
				if err != nil {
					return err
				}
				return cli.PrintJSON(s.out, row)
			})
		},
	}
	f.register(cmd)
	return cmd
}

// visitCmd is a command that changes one visit.
func visitCmd(use, short, did string, do func(*registrySession, *changeFlags, string) (registry.Row[registry.Visit], error)) (*cobra.Command, *changeFlags) {
	f := new(changeFlags)
	cmd := &cobra.Command{
		Use:   use + " VISIT",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(s *registrySession) error {
				row, err := do(s, f, args[0])
				if err != nil {
					return err
				}
				return visitSort.done(s, did, row)
			})
		},
	}
	f.register(cmd)
	return cmd, f
}

func newVisitsCheckInCmd() *cobra.Command {
	var a registry.Arrival
	cmd, f := visitCmd("check-in", "Let a visit begin", "Checked in", func(s *registrySession, f *changeFlags, id string) (registry.Row[registry.Visit], error) {
		if a.Identified.By == "" {
			a.Identified.By = f.change.By
		}
		return s.CheckIn(s.ctx, f.change, id, f.version, a)
	})
	f.atVersion(cmd)
	cmd.Long = `Let a visit begin: who checked what form of identification (its type, never its
number), which version of the site's notice the visitor acknowledged by typing
their name, and the badge that is issued.`
	cmd.Example = `  gatehouse-crm visits check-in visit-1 --id-form passport --notice 2026-01 --signed "Vera Visitor" --badge b-12 --by guard.1 --why INC-7`
	cmd.Flags().StringVar(&a.Identified.Form, "id-form", "", "the `form` of identification, such as passport")
	cmd.Flags().StringVar(&a.Identified.By, "checked-by", "", "`who` checked it (default: --by)")
	cmd.Flags().StringVar(&a.Notice.Version, "notice", "", "the `version` of the notice")
	cmd.Flags().StringVar(&a.Notice.Signed, "signed", "", "the `name` as the visitor typed it")
	cmd.Flags().StringVar(&a.Escort, "escort", "", "who goes with the visitor, by `id` (default: as planned)")
	cmd.Flags().StringVar(&a.Badge, "badge", "", "the visitors' `badge` that is issued, by the credential's id")
	return cmd
}

func newVisitsBadgeCmd() *cobra.Command {
	var badge string
	cmd, _ := visitCmd("badge", "Issue a badge to a visitor who is in", "Issued a badge for", func(s *registrySession, f *changeFlags, id string) (registry.Row[registry.Visit], error) {
		return s.Issue(s.ctx, f.change, id, badge)
	})
	cmd.Flags().StringVar(&badge, "badge", "", "the visitors' `badge`, by the credential's id")
	cobra.CheckErr(cmd.MarkFlagRequired("badge"))
	return cmd
}

func newVisitsSurrenderCmd() *cobra.Command {
	cmd, _ := visitCmd("surrender", "Take a visitor's badge back, also one that was lost and is found", "Took the badge back of", func(s *registrySession, f *changeFlags, id string) (registry.Row[registry.Visit], error) {
		return s.Surrender(s.ctx, f.change, id)
	})
	return cmd
}

func newVisitsSignOutCmd() *cobra.Command {
	var lost bool
	cmd, f := visitCmd("sign-out", "End a visit; the badge is surrendered", "Signed out", func(s *registrySession, f *changeFlags, id string) (registry.Row[registry.Visit], error) {
		return s.SignOut(s.ctx, f.change, id, f.version, lost)
	})
	f.atVersion(cmd)
	cmd.Flags().BoolVar(&lost, "lost", false, "the badge was not surrendered: it is lost, and opens nothing any more")
	return cmd
}

func newVisitsCancelCmd() *cobra.Command {
	cmd, f := visitCmd("cancel", "Cancel a visit that has not begun", "Cancelled", func(s *registrySession, f *changeFlags, id string) (registry.Row[registry.Visit], error) {
		if err := s.Cancel(s.ctx, f.change, id, f.version); err != nil {
			return registry.Row[registry.Visit]{}, err
		}
		return s.Visits.Get(s.ctx, id)
	})
	f.atVersion(cmd)
	return cmd
}

var codeSort = sort[registry.Code]{
	name: "code", plural: "codes",
	of:      func(r *registry.Registry) table[registry.Code] { return r.Codes },
	id:      func(c registry.Code) string { return c.ID },
	heading: "CODE\tVISIT\tDOOR\tFROM\tUNTIL\tSTATE\tENDED",
	columns: func(s *registrySession, c registry.Code) []string {
		return []string{c.ID, c.Visit, c.Door, s.shown(c.From), s.shown(c.Until), string(c.State), s.shown(c.Ended)}
	},
}

func newVisitsCodeCmd() *cobra.Command {
	var f changeFlags
	var door, out string
	cmd := &cobra.Command{
		Use:   "code VISIT",
		Short: "Issue a one-time code by which the visitor comes in at one door",
		Long: `Issue a code of 8 digits that opens one door of the visit once, in the place of a
badge, where the door's rules take a code. It is written once: on a terminal, or to
a new file (--out) that only its owner can read. Its window is the visit's, or a part
of that.`,
		Example: `  gatehouse-crm visits code visit-1 --door front --by guard.1 --why INC-7
  gatehouse-crm visits code visit-1 --door front --from 2026-03-02T09:00 --until 2026-03-02T10:00 --out code.txt --by guard.1 --why INC-7`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := toShow(cmd, "the code", out); err != nil {
			return err
		}
		return f.with(cmd, func(s *registrySession) error {
			o := registry.CodeOrder{Visit: args[0], Door: door}
			if err := errors.Join(s.setMoment(cmd, "from", &o.From), s.setMoment(cmd, "until", &o.Until)); err != nil {
				return err
			}
			row, digits, err := s.IssueCode(s.ctx, f.change, o)
			if err != nil {
				return err
			}
			return codeSort.doneSecretly(s, "Issued", row, out, digits)
		})
	}
	f.register(cmd)
	cmd.Flags().StringVar(&door, "door", "", "the `door` that it opens (default: the visit's, where it is one)")
	cmd.Flags().String("from", "", "from this `time` (default: the visit's)")
	cmd.Flags().String("until", "", "until this `time` (default: the visit's)")
	cmd.Flags().StringVar(&out, "out", "", "write the digits to this new `file`")
	return cmd
}

func newVisitsCodesCmd() *cobra.Command {
	var f viewFlags
	cmd := &cobra.Command{
		Use:     "codes VISIT",
		Short:   "List the codes that were issued for a visit, without their digits",
		Example: "  gatehouse-crm visits codes visit-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.viewing(cmd, registry.View{Kind: registry.KindVisit, ID: args[0], Filter: "codes"}, func(s *registrySession) error {
				if _, err := s.Visits.Get(s.ctx, args[0]); err != nil {
					return err
				}
				return codeSort.print(s, &registry.Reference{Kind: registry.KindVisit, ID: args[0]}, nil)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newVisitsWithdrawCmd() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:     "withdraw CODE",
		Short:   "Withdraw a code that was not used",
		Example: "  gatehouse-crm visits withdraw code-6gq2m4zt3y --by guard.1 --why INC-7",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(s *registrySession) error {
				row, err := s.WithdrawCode(s.ctx, f.change, args[0], f.version)
				if err != nil {
					return err
				}
				return codeSort.done(s, "Withdrew", row)
			})
		},
	}
	f.register(cmd)
	f.atVersion(cmd)
	return cmd
}

func newVisitsCloseOverdueCmd() *cobra.Command {
	var f changeFlags
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "close-overdue",
		Short: "End visits that nobody signed out, and mark them so",
		Long: `End all visits whose end is longer ago than --grace: those whose visitor never came
as missed, the others as closed automatically. Their badges are lost, and open
nothing any more, until they are surrendered.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return fmt.Errorf("--grace %s is below 0", grace)
			}
			return f.with(cmd, func(s *registrySession) error {
				closed, err := s.CloseOverdue(s.ctx, f.change, grace)
				if err != nil {
					return err
				}
				if s.json {
					return cli.PrintJSON(s.out, map[string][]string{"closed": append([]string{}, closed...)})
				}
				_, err = fmt.Fprintf(s.out, "Closed: %s.\n", orNone(strings.Join(closed, ", ")))
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().DurationVar(&grace, "grace", 12*time.Hour, "how long after its end a visit may go on")
	return cmd
}
