package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

var personSort = sort[registry.Person]{
	name: "person", plural: "people",
	of:      func(r *registry.Registry) table[registry.Person] { return r.People },
	id:      func(p registry.Person) string { return p.ID },
	heading: "PERSON\tNAME\tKIND\tGROUPS\tFROM\tUNTIL\tMARKS",
	columns: func(s *registrySession, p registry.Person) []string {
		return []string{p.ID, p.Name, string(p.Kind), strings.Join(p.Groups, " "), s.shown(p.From), s.shown(p.Until), personMarks(s, p)}
	},
}

func personMarks(s *registrySession, p registry.Person) string {
	var marks []string
	for _, m := range []struct {
		on   bool
		mark string
	}{{p.Extended, "extended"}, {p.Operator, "operator"}, {p.HasPIN, "pin"}, {p.HasSign, "duress-pin"}, {p.HasTOTP, "totp"}, {len(p.Instead) > 0, "instead"},
		{p.Escorted, "escorted"}, {p.MayEscort, "may-escort"}, {p.Supervisor, "supervisor"}, {p.Exempt, "exempt"},
		{p.Clearance > 0, fmt.Sprintf("clearance %d", p.Clearance)}, {!p.Left.IsZero(), "left " + s.shown(p.Left)}} {
		if m.on {
			marks = append(marks, m.mark)
		}
	}
	return strings.Join(marks, ", ")
}

func newPeopleCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "people",
		Short: "Add, list and change people, and remove leavers",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(
		personSort.editCmd(true, `Add a person. PERSON is an id that stands in records, so it should not be a name;
"new" makes one up. Times without an offset are the site's.`,
			`  gatehouse-crm people add p-1001 --name "Ada Lovelace" --kind staff --group ops --by m.jansen --why CHG-1042
  gatehouse-crm people add new --name "Vera Visitor" --kind visitor --by m.jansen --why "visit of Acme"`,
			personFlags, func(id string) registry.Person {
				if id == "new" {
					id = registry.NewID("p")
				}
				return registry.Person{ID: id, Kind: access.Staff}
			}),
		personSort.editCmd(false, "", `  gatehouse-crm people change p-1001 --group ops --group guards --until 2026-12-31 --by m.jansen --why CHG-1042
  gatehouse-crm people change p-1001 --may-escort --supervisor --clearance 3 --by m.jansen --why CHG-1043`, personFlags, nil),
		newPeopleListCmd(), newPeopleShowCmd(), newPeoplePINCmd(), newPeopleTOTPCmd(), newPeopleRemoveCmd(),
	)
	return cmd
}

func personFlags(cmd *cobra.Command) func(*registrySession, *registry.Person) error {
	var groups []string
	var instead map[string]string
	cmd.Flags().String("name", "", "the person's `name`; it is sealed, and never in records")
	cmd.Flags().String("kind", "staff", "staff, contractor or visitor")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "a `group` that the person is in (may be repeated; once and empty: none)")
	cmd.Flags().String("from", "", "valid from this `time`")
	cmd.Flags().String("until", "", "valid until this `time`; a date alone: to its end")
	cmd.Flags().Bool("extended", false, "doors stay unlocked for longer")
	cmd.Flags().Bool("operator", false, "may enrol others")
	cmd.Flags().Bool("escorted", false, "passes only together with somebody who may escort")
	cmd.Flags().Bool("may-escort", false, "may escort visitors and others")
	cmd.Flags().Bool("supervisor", false, "is a first person in, where a door asks for one")
	cmd.Flags().Bool("exempt", false, "from anti-passback")
	cmd.Flags().Uint8("clearance", 0, "the highest `level` of threat, 0 to 5, at which the person still passes")
	cmd.Flags().StringToStringVar(&instead, "instead", nil, "another `factor` for one that the person cannot give, such as fingerprint=pin")
	return func(s *registrySession, p *registry.Person) error {
		setText(cmd, "name", &p.Name)
		kind := string(p.Kind)
		setText(cmd, "kind", &kind)
		p.Kind = access.Kind(kind)
		setList(cmd, "group", groups, &p.Groups)
		for flag, to := range map[string]*bool{"extended": &p.Extended, "operator": &p.Operator, "escorted": &p.Escorted, "may-escort": &p.MayEscort,
			"supervisor": &p.Supervisor, "exempt": &p.Exempt} {
			setBool(cmd, flag, to)
		}
		if cmd.Flags().Changed("clearance") {
			level, _ := cmd.Flags().GetUint8("clearance") // it is one
			p.Clearance = access.Threat(level)
		}
		if cmd.Flags().Changed("instead") {
			p.Instead = instead
		}
		return errors.Join(s.setMoment(cmd, "from", &p.From), s.setMoment(cmd, "until", &p.Until))
	}
}

func newPeopleListCmd() *cobra.Command {
	var f viewFlags
	var group string
	var left bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the people",
		Example: "  gatehouse-crm people list --group ops",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			look := registry.View{Kind: registry.KindPerson, Filter: filter("group="+group, mark("left", left))}
			return f.viewing(cmd, look, func(s *registrySession) error {
				var names *registry.Reference
				if group != "" {
					if _, err := s.Groups.Get(s.ctx, group); err != nil {
						return err
					}
					names = &registry.Reference{Kind: registry.KindGroup, ID: group}
				}
				return personSort.print(s, names, func(p registry.Person) bool { return left || p.Left.IsZero() })
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&group, "group", "", "only those in this `group`")
	cmd.Flags().BoolVar(&left, "left", false, "those who have left too")
	return cmd
}

func newPeopleShowCmd() *cobra.Command {
	var f viewFlags
	cmd := &cobra.Command{
		Use:     "show PERSON",
		Short:   "Show a person, their credentials and visits",
		Example: "  gatehouse-crm people show p-1001",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.viewing(cmd, registry.View{Kind: registry.KindPerson, ID: args[0]}, func(s *registrySession) error { return s.showPerson(args[0]) })
		},
	}
	f.register(cmd)
	return cmd
}

func (s *registrySession) showPerson(id string) error {
	row, err := s.People.Get(s.ctx, id)
	if err != nil {
		return err
	}
	named := &registry.Reference{Kind: registry.KindPerson, ID: id}
	if s.json {
		if err := cli.PrintJSON(s.out, row); err != nil {
			return err
		}
	} else {
		p := row.Value
		fmt.Fprintf(s.out, "%s, %s, %s, version %d of %s\n", p.ID, orNone(p.Name), p.Kind, row.Version, s.shown(row.Changed))
		fmt.Fprintf(s.out, "groups: %s\nvalid: from %s until %s\n", orNone(strings.Join(p.Groups, ", ")), orNone(s.shown(p.From)), orNone(s.shown(p.Until)))
		if marks := personMarks(s, p); marks != "" {
			fmt.Fprintln(s.out, marks)
		}
		fmt.Fprintln(s.out)
	}
	if err := credentialSort.print(s, named, nil); err != nil {
		return err
	}
	if !s.json {
		fmt.Fprintln(s.out)
	}
	return visitSort.print(s, named, nil)
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func newPeoplePINCmd() *cobra.Command {
	var f changeFlags
	var none bool
	cmd := &cobra.Command{
		Use:   "pin PERSON",
		Short: "Give a person a PIN, and one for when they are threatened",
		Long: `Give a person a PIN of 4 to 16 digits. It is read from the first line of standard
input, or asked for on a terminal without showing it; a second line, if it is not
empty, is the PIN that the person gives under a threat.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(s *registrySession) error {
				var pin, duress string
				if !none {
					var err error
					if pin, duress, err = readPINs(cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
						return err
					}
				}
				row, err := s.People.Update(s.ctx, f.change, args[0], f.version, func(p *registry.Person) error {
					p.SetPIN(pin, duress)
					return nil
				})
				if err != nil {
					return err
				}
				return personSort.done(s, "Changed", row)
			})
		},
	}
	f.register(cmd)
	f.atVersion(cmd)
	cmd.Flags().BoolVar(&none, "none", false, "take both away")
	return cmd
}

func readPINs(in io.Reader, prompt io.Writer) (pin, duress string, err error) {
	lines := []*string{&pin, &duress}
	if file, ok := in.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		for i, question := range []string{"PIN: ", "PIN under a threat (empty: none): "} {
			fmt.Fprint(prompt, question)
			b, err := term.ReadPassword(int(file.Fd()))
			fmt.Fprintln(prompt)
			if err != nil {
				return "", "", fmt.Errorf("read the PIN: %w", err)
			}
			*lines[i] = string(b)
		}
	} else {
		r := bufio.NewReader(io.LimitReader(in, 1024))
		for _, to := range lines {
			line, err := r.ReadString('\n')
			if err != nil && err != io.EOF {
				return "", "", fmt.Errorf("read the PIN: %w", err)
			}
			*to = strings.TrimRight(line, "\r\n")
		}
	}
	if pin == "" {
		return "", "", errors.New("no PIN was given: write it to standard input, or use --none")
	}
	return pin, duress, nil
}

func newPeopleTOTPCmd() *cobra.Command {
	var f changeFlags
	var none bool
	var out string
	cmd := &cobra.Command{
		Use:   "totp PERSON",
		Short: "Give a person a device that shows one-time codes, as a second factor",
		Long: `Make a new secret for the one-time codes (RFC 6238) that an authenticator on the
person's telephone shows. It is written once, as an otpauth URI: on a terminal, or
to a new file (--out) that only its owner can read and that is to be deleted when
the device has read it. A secret that the person had before is forgotten.`,
		Example: `  gatehouse-crm people totp p-1001 --by m.jansen --why CHG-1042
  gatehouse-crm people totp p-1001 --out p-1001.otpauth --by m.jansen --why CHG-1042
  gatehouse-crm people totp p-1001 --none --by m.jansen --why INC-12`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !none {
				if err := toShow(cmd, "the secret", out); err != nil {
					return err
				}
			}
			return f.with(cmd, func(s *registrySession) error {
				if none {
					row, err := s.People.Update(s.ctx, f.change, args[0], f.version, func(p *registry.Person) error {
						p.ForgetTOTP()
						return nil
					})
					if err != nil {
						return err
					}
					return personSort.done(s, "Changed", row)
				}
				row, uri, err := s.GiveTOTP(s.ctx, f.change, args[0], f.version)
				if err != nil {
					return err
				}
				return personSort.doneSecretly(s, "Changed", row, out, uri)
			})
		},
	}
	f.register(cmd)
	f.atVersion(cmd)
	cmd.Flags().BoolVar(&none, "none", false, "take the device away")
	cmd.Flags().StringVar(&out, "out", "", "write the URI to this new `file`")
	cmd.MarkFlagsMutuallyExclusive("none", "out")
	return cmd
}

func newPeopleRemoveCmd() *cobra.Command {
	var f changeFlags
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "remove PERSON",
		Short: "Take everything away from somebody who leaves, and see that the doors know",
		Long: `Take everything away from somebody who leaves: all credentials are revoked, all
groups left, the PIN forgotten, and the visits that they were to host cancelled.
Visits that somebody else has to see to now are named. The person stays on
record.

Then it waits until the doors that knew the person have applied it, tells of each
when that was, and names those that have not yet. They do when they are reached
again. A door that is fed by hand knows of it once its allowlist is exported and
imported.`,
		Example: `  gatehouse-crm people remove p-1001 --by m.jansen --why HR-77
  gatehouse-crm people remove p-1001 --wait 1m --by m.jansen --why HR-77`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(s *registrySession) error { return s.remove(f, args[0], wait) })
		},
	}
	f.register(cmd)
	f.atVersion(cmd)
	cmd.Flags().DurationVar(&wait, "wait", doorsWait, "how `long` to wait for the doors")
	return cmd
}
