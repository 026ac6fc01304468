package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/publisher"
	"github.com/spf13/cobra"
)

func newPolicyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Publish who may enter to the doors, and see to the key that signs it",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(
		newPolicyStatusCmd(), newPolicyDiffCmd(), newPolicyReplayCmd(), newPolicyPublishCmd(),
		newPolicyCertifyCmd(), newPolicyRequestCmd(), newPolicyAcceptCmd(), newPolicyRotateCmd(),
	)
	return cmd
}

// policySession is a registry with what was published of it.
type policySession struct {
	*registrySession
	*publisher.Publisher
	data string
}

// withPolicy runs do on what the CRM in the folder has published. The daemon may be
// running.
func (f *registryFlags) withPolicy(cmd *cobra.Command, do func(*policySession) error) error {
	return f.with(cmd, func(s *registrySession) error {
		return s.withPublisher(f.data, func(p *publisher.Publisher) error {
			return do(&policySession{s, p, f.data})
		})
	})
}

func (s *registrySession) withPublisher(data string, do func(*publisher.Publisher) error) (err error) {
	store, err := openExisting(s.ctx, data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p, err := openPublisher(s.ctx, data, s.Registry, store.Controllers, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return do(p)
}

// chosen are the controllers that are named, or all.
func (s *policySession) chosen(names []string) ([]publisher.Status, error) {
	all, err := s.Status(s.ctx)
	if err != nil || len(names) == 0 {
		return all, err
	}
	var list []publisher.Status
	for _, name := range names {
		i := slices.IndexFunc(all, func(v publisher.Status) bool { return v.Controller == name })
		if i < 0 {
			return nil, fmt.Errorf("controller %q is not one that takes its allowlist from here: approve it with --policy crm", name)
		}
		list = append(list, all[i])
	}
	return list, nil
}

func newPolicyPublishCmd() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "publish [CONTROLLER]…",
		Short: "Publish what the registry says to controllers, or to all",
		Long: `Make what the doors need to know of the registry into a new version for each
controller, where anything was changed, and sign it. The running daemon sends
it; if none is running, it does so when it is started.

The daemon publishes each change by itself, unless its configuration says
publish = "by_command" in [policy]: then it publishes only what takes something
away, and this command the rest.`,
		Example: `  gatehouse-crm policy diff
  gatehouse-crm policy publish --by m.jansen --why CHG-1042`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.withPolicy(cmd, func(s *policySession) error {
				list, err := s.chosen(args)
				if err != nil {
					return err
				}
				return s.publish(cmd, f, list)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (s *policySession) publish(cmd *cobra.Command, f changeFlags, list []publisher.Status) error {
	var names []string
	for _, v := range list {
		names = append(names, v.Controller)
	}
	if len(names) == 0 {
		return errors.New("no controller takes its allowlist from here: approve one with --policy crm")
	}
	if _, err := pki.OpenPolicy(s.data, time.Now()); err != nil {
		return err
	}
	if err := s.Published(s.ctx, f.change, names); err != nil {
		return err
	}
	progress := cli.NewProgress(cmd.ErrOrStderr(), "controllers", int64(len(names)))
	var made []publisher.Made
	var errs []error
	for _, name := range names {
		m, err := s.Make(s.ctx, name, publisher.Everything, nil)
		if err != nil {
			errs = append(errs, err)
		} else {
			made = append(made, m)
		}
		progress.Add(1)
	}
	progress.Done()
	for _, m := range made {
		switch {
		case s.json:
			if err := cli.PrintJSON(s.out, m); err != nil {
				return err
			}
		case m.Version == 0:
			fmt.Fprintf(s.out, "%s: the registry has no doors of it\n", m.Controller)
		case m.Versions == 0:
			fmt.Fprintf(s.out, "%s: version %d says all there is to say\n", m.Controller, m.Version)
		default:
			fmt.Fprintf(s.out, "%s: version %d, rows changed: %d\n", m.Controller, m.Version, m.Rows)
		}
	}
	return errors.Join(errs...)
}

// shownPolicy is what "policy status --json" prints.
type shownPolicy struct {
	Key         shownPolicyKey     `json:"key"`
	Controllers []publisher.Status `json:"controllers"`
}

type shownPolicyKey struct {
	Fault  string    `json:"fault,omitempty"` // why nothing can be published
	Until  time.Time `json:"until,omitzero"`
	Ends   bool      `json:"ends_soon,omitempty"`
	Serial uint64    `json:"serial,omitempty"`
	Root   string    `json:"root,omitempty"` // fingerprint
}

func showPolicyKey(data string) shownPolicyKey {
	p, err := pki.OpenPolicy(data, time.Now())
	if err != nil {
		return shownPolicyKey{Fault: err.Error()}
	}
	return shownPolicyKey{Until: p.Until, Ends: p.Ends(time.Now()), Serial: p.Serial, Root: keys.Fingerprint(p.Root)}
}

func newPolicyStatusCmd() *cobra.Command {
	var f registryFlags
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show which version each controller should have, and which it uses",
		Long:    "Show which version each controller should have, and which it uses, as far as it told.",
		Example: "  gatehouse-crm policy status",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.withPolicy(cmd, func(s *policySession) error {
				list, err := s.Status(s.ctx)
				if err != nil {
					return err
				}
				shown := shownPolicy{showPolicyKey(f.data), list}
				if s.json {
					return cli.PrintJSON(s.out, shown)
				}
				return s.printStatus(shown)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func (s *policySession) printStatus(p shownPolicy) error {
	switch {
	case p.Key.Fault != "":
		fmt.Fprintf(s.out, "NOTHING CAN BE PUBLISHED: %s\n", p.Key.Fault)
	default:
		fmt.Fprintf(s.out, "policy key certified until %s by the root %s\n", p.Key.Until.In(s.zone).Format(time.DateOnly), p.Key.Root)
		if p.Key.Ends {
			fmt.Fprintln(s.out, "THAT IS SOON: run \"gatehouse-crm policy certify\" where policy-root.key is")
		}
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nCONTROLLER\tVERSION\tOF\tROWS\tUSES\tSINCE\tREGISTRY")
	for _, v := range p.Controllers {
		version, uses, registry := "none", "unknown", "published"
		if v.Version > 0 {
			version = fmt.Sprint(v.Version)
		}
		if v.Reported > 0 {
			uses = fmt.Sprint(v.Reported)
			if v.Behind() {
				uses += " (not the newest)"
			}
		}
		if v.Changed {
			registry = "changed since"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", v.Controller, version, cmp.Or(s.shown(v.Created), "-"), v.Rows, uses, cmp.Or(s.shown(v.ReportedAt), "-"), registry)
	}
	return w.Flush()
}

func newPolicyDiffCmd() *cobra.Command {
	var f registryFlags
	cmd := &cobra.Command{
		Use:   "diff [CONTROLLER]…",
		Short: "Tell what publishing would change: who gains and loses what",
		Long: `Tell what publishing would change at controllers, or at all: who gains and loses
which doors, and what the doors would ask for. Nothing is changed.`,
		Example: "  gatehouse-crm policy diff north-1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.withPolicy(cmd, func(s *policySession) error {
				list, err := s.chosen(args)
				if err != nil {
					return err
				}
				empty := true
				for _, v := range list {
					d, err := s.Diff(s.ctx, v.Controller)
					if err != nil {
						return err
					}
					switch {
					case s.json:
						err = cli.PrintJSON(s.out, d)
					case !d.Empty():
						empty = false
						err = printDifference(s.out, v, d)
					}
					if err != nil {
						return err
					}
				}
				if empty && !s.json {
					_, err = fmt.Fprintln(s.out, "Nothing: what was published says all there is to say.")
				}
				return err
			})
		},
	}
	f.register(cmd)
	return cmd
}

func printDifference(out io.Writer, v publisher.Status, d publisher.Difference) error {
	fmt.Fprintf(out, "%s, after version %d:\n", d.Controller, v.Version)
	if d.Anew {
		fmt.Fprintln(out, "  everything is sent: nothing that was published before is of use there")
	}
	for _, p := range d.People {
		fmt.Fprintf(out, "  %s %s\n", p.Person, strings.Join(slices.DeleteFunc([]string{
			rightsInWords("gains", p.Gains), rightsInWords("loses", p.Loses),
			counted(p.Added, "credentials new"), counted(p.Changed, "credentials changed"), counted(p.Removed, "credentials gone"),
		}, func(s string) bool { return s == "" }), "; "))
	}
	for _, g := range d.Sources {
		fmt.Fprintf(out, "  everybody of %s (people: %d) %s\n", sourceInWords(g.Source), g.People, strings.Join(slices.DeleteFunc([]string{
			rightsInWords("gains", g.Gains), rightsInWords("loses", g.Loses),
		}, func(s string) bool { return s == "" }), "; "))
	}
	for _, w := range d.Words {
		fmt.Fprintf(out, "  %s: %s is %s\n", w.Part, w.Name, w.Change)
	}
	_, err := fmt.Fprintln(out)
	return err
}

func rightsInWords(verb string, rights []publisher.Right) string {
	if len(rights) == 0 {
		return ""
	}
	var words []string
	for _, r := range rights {
		words = append(words, fmt.Sprintf("%s (%s)", r.Door, r.Schedule))
	}
	return verb + " " + strings.Join(words, ", ")
}

func counted(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d", what, n)
}

// sourceInWords says where rights come from.
func sourceInWords(source string) string {
	of, names, _ := strings.Cut(source, ":")
	names = strings.ReplaceAll(names, "+", " and ")
	switch of {
	case "groups":
		return "the groups " + names
	case "visit":
		return "the visits to " + names
	}
	return source
}
