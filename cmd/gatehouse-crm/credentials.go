package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/badgeview"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
)

var credentialSort = sort[registry.Credential]{
	name: "credential", plural: "credentials",
	of:      func(r *registry.Registry) table[registry.Credential] { return r.Credentials },
	id:      func(c registry.Credential) string { return c.ID },
	heading: "CREDENTIAL\tPERSON\tCARD\tSTATE\tFROM\tUNTIL\tMARKS",
	columns: func(s *registrySession, c registry.Credential) []string {
		card := c.Format + " ••" + c.Ends
		if c.Biometric {
			card = "(finger or eye)"
		}
		var marks []string
		if c.Visitors {
			marks = append(marks, "visitors")
		}
		if c.BreakGlass {
			marks = append(marks, "break-glass")
		}
		return []string{c.ID, c.Person, card, string(c.State), s.shown(c.From), s.shown(c.Until), strings.Join(marks, ", ")}
	},
}

func newCredentialsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Add, find, list and revoke cards and visitors' badges",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newCredentialsAddCmd(), newCredentialsListCmd(), newCredentialsFindCmd(), newCredentialsFormatsCmd(),
		credentialSort.editCmd(false, `Change a credential: its state (active, lost, revoked), its validity, or whether it
breaks the glass. Whoever has it keeps it.`, "  gatehouse-crm credentials change c-6gq2m4zt3y --state lost --by m.jansen --why INC-12", credentialFlags, nil),
		credentialSort.removeCmd(`Remove a revoked credential. Until then the doors know that its card was taken
back, and say so when it is used; afterwards it is a stranger's.`))
	return cmd
}

func credentialFlags(cmd *cobra.Command) func(*registrySession, *registry.Credential) error {
	var breakGlass bool
	cmd.Flags().String("state", "active", "active, lost or revoked")
	cmd.Flags().String("from", "", "valid from this `time` (default: as the person)")
	cmd.Flags().String("until", "", "valid until this `time`; a date alone: to its end (default: as the person)")
	cmd.Flags().BoolVar(&breakGlass, "break-glass", false, "opens in an emergency, always alarmed")
	return func(s *registrySession, c *registry.Credential) error {
		state := string(c.State)
		setText(cmd, "state", &state)
		c.State = access.State(state)
		if cmd.Flags().Changed("break-glass") {
			c.BreakGlass = breakGlass
		}
		return errors.Join(s.setMoment(cmd, "from", &c.From), s.setMoment(cmd, "until", &c.Until))
	}
}

func newCredentialsAddCmd() *cobra.Command {
	var f changeFlags
	var c registry.Credential
	cmd := &cobra.Command{
		Use:   "add --person PERSON | --visitors",
		Short: "Add a card that is read from standard input",
		Long: `Add the card of a person, or a badge for visitors, or (--biometric) that a person
may be identified by finger or eye without a card.

The card is read from the first line of standard input, as a command line can be
read by everybody on the machine: FORMAT:facility:number[:issue[:oem]], or
FORMAT:number where the format has no facility, or what "gatehouse badge decode"
prints.`,
		Example: `  gatehouse-crm credentials add --person p-1001 --by m.jansen --why CHG-1042 < card.txt
  gatehouse badge decode --format H10301 < frame.txt | gatehouse-crm credentials add --visitors --id b-12 --by m.jansen --why "new badges"`,
		Args: cobra.NoArgs,
	}
	apply := credentialFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return f.with(cmd, func(s *registrySession) error {
			if c.ID == "" {
				c.ID = registry.NewID("c")
			}
			c.State = access.Active
			if !c.Biometric {
				card, err := readCard(cmd)
				if err != nil {
					return err
				}
				c.SetCard(card)
			}
			if err := apply(s, &c); err != nil {
				return err
			}
			row, err := s.Credentials.Create(s.ctx, f.change, c)
			if err != nil {
				return err
			}
			return credentialSort.done(s, "Added", row)
		})
	}
	f.register(cmd)
	cmd.Flags().StringVar(&c.ID, "id", "", "an `id` of your own (default: one is made up)")
	cmd.Flags().StringVar(&c.Person, "person", "", "whose it is, by `id`")
	cmd.Flags().BoolVar(&c.Visitors, "visitors", false, "a badge that is lent to visitors")
	cmd.Flags().BoolVar(&c.Biometric, "biometric", false, "no card: the person may be identified by finger or eye")
	cmd.MarkFlagsMutuallyExclusive("person", "visitors")
	cmd.MarkFlagsOneRequired("person", "visitors")
	return cmd
}

// readCard reads a card from standard input. No error has its number.
func readCard(cmd *cobra.Command) (badge.Credential, error) {
	if isTerminal(cmd.InOrStdin()) {
		fmt.Fprint(cmd.ErrOrStderr(), "Card: ")
	}
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1024)).ReadString('\n')
	if err != nil && err != io.EOF {
		return badge.Credential{}, fmt.Errorf("read the card: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return badge.Credential{}, errors.New("no card was given: write it to standard input as FORMAT:facility:number")
	}
	return badgeview.ParseCard(badge.Builtin(), line)
}

func newCredentialsListCmd() *cobra.Command {
	var f viewFlags
	var person, state string
	var visitors bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the credentials; of a card's number the last two digits",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			look := registry.View{Kind: registry.KindCredential, Filter: filter("person="+person, "state="+state, mark("visitors", visitors))}
			return f.viewing(cmd, look, func(s *registrySession) error {
				var names *registry.Reference
				if person != "" {
					if _, err := s.People.Get(s.ctx, person); err != nil {
						return err
					}
					names = &registry.Reference{Kind: registry.KindPerson, ID: person}
				}
				return credentialSort.print(s, names, func(c registry.Credential) bool {
					return (state == "" || state == string(c.State)) && (!visitors || c.Visitors)
				})
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&person, "person", "", "only this person's, by `id`")
	cmd.Flags().StringVar(&state, "state", "", "only those in this `state`")
	cmd.Flags().BoolVar(&visitors, "visitors", false, "only visitors' badges")
	return cmd
}

func newCredentialsFindCmd() *cobra.Command {
	var f viewFlags
	cmd := &cobra.Command{
		Use:     "find",
		Short:   "Say whose card it is that is read from standard input",
		Long:    "Say whose card it is that is read from standard input, as \"credentials add\"\nreads it.",
		Example: "  gatehouse-crm credentials find < card.txt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.viewing(cmd, registry.View{Kind: registry.KindCredential, Filter: "by its card"}, func(s *registrySession) error {
				card, err := readCard(cmd)
				if err != nil {
					return err
				}
				row, err := s.WithCard(s.ctx, card)
				if err != nil {
					return err
				}
				if s.json {
					return cli.PrintJSON(s.out, row)
				}
				c := row.Value
				_, err = fmt.Fprintf(s.out, "%s: %s, of %s\n", c.ID, c.State, orNone(c.Person))
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newCredentialsFormatsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "formats",
		Short: "List the formats of cards",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return badgeview.List(cmd.OutOrStdout(), badge.Builtin().Formats())
		},
	}
}
