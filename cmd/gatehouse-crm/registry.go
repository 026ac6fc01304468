package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// registrySession is an open registry and what its commands take.
type registrySession struct {
	*registry.Registry
	zone   *time.Location // the site's
	pepper *keys.Pepper   // of the registry
	data   string         // the CRM's folder
	ctx    context.Context
	out    io.Writer
	json   bool
}

// registryFlags are what all commands of the registry take.
type registryFlags struct {
	data string
	json bool
}

func (f *registryFlags) register(cmd *cobra.Command) {
	dataFlag(cmd, &f.data)
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON, an object a line")
}

// with runs do on the registry of the CRM in the folder.
func (f *registryFlags) with(cmd *cobra.Command, do func(*registrySession) error) (err error) {
	s, err := f.open(cmd.Context())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.out = cmd.OutOrStdout()
	err = do(s)
	if _, ok := errors.AsType[*registry.Invalid](err); ok {
		return cli.ReportFaults(cmd.ErrOrStderr(), err)
	}
	return err
}

func (f *registryFlags) open(ctx context.Context) (*registrySession, error) {
	site, k, err := openRegistryKeys(f.data)
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(site.Timezone)
	if err != nil {
		return nil, fmt.Errorf("the site's time zone: %w", err)
	}
	r, err := openRegistry(ctx, f.data, k)
	if err != nil {
		return nil, err
	}
	return &registrySession{Registry: r, zone: zone, pepper: k.Pepper, data: f.data, ctx: ctx, json: f.json}, nil
}

// openRegistryKeys is openSite for those who work with the registry: a CRM that
// was set up before there was one is given its keys.
func openRegistryKeys(data string) (*pki.Site, *keys.CRMKeys, error) {
	site, k, err := openSite(data)
	if err != nil || k.Registry != nil && k.Pepper != nil {
		return site, k, err
	}
	path := filepath.Join(data, registry.FileName)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errors.Join(fmt.Errorf("%s or %s is missing in %s, without which %s cannot be read: restore it", keys.NameSeal, keys.NamePepper, pki.KeysDir(data), path), err)
	}
	if _, err := keys.InitRegistry(pki.KeysDir(data)); err != nil {
		return nil, nil, err
	}
	return openSite(data)
}

// openRegistry opens the registry of the CRM in a folder.
func openRegistry(ctx context.Context, data string, k *keys.CRMKeys) (*registry.Registry, error) {
	return registry.Open(ctx, filepath.Join(data, registry.FileName), registry.Options{Index: k.Pepper, Sealer: k.Registry, Formats: badge.Builtin(), Clock: time.Now})
}

// viewFlags are what commands take that show what is held of people: the audit
// says who looked.
type viewFlags struct {
	registryFlags
	by string
}

func (f *viewFlags) register(cmd *cobra.Command) {
	f.registryFlags.register(cmd)
	cmd.Flags().StringVar(&f.by, "by", "", "`who` looks; it stands in the audit (default: the user of this machine)")
}

// viewing runs do once the audit says who looks, and at what.
func (f *viewFlags) viewing(cmd *cobra.Command, v registry.View, do func(*registrySession) error) error {
	return f.with(cmd, func(s *registrySession) error {
		if v.By = f.by; v.By == "" {
			v.By = loggedIn()
		}
		if err := s.Viewed(s.ctx, v); err != nil {
			return fmt.Errorf("nothing is shown without saying so in the audit: %w", err)
		}
		return do(s)
	})
}

// loggedIn is the user of this machine who runs the command, also by sudo; ""
// where that is not known.
func loggedIn() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// filter writes which of a list is shown, such as "group=ops left".
func filter(words ...string) string {
	var given []string
	for _, w := range words {
		if w != "" && !strings.HasSuffix(w, "=") {
			given = append(given, w)
		}
	}
	return strings.Join(given, " ")
}

func mark(name string, on bool) string {
	if !on {
		return ""
	}
	return name
}

// changeFlags say in whose name something is changed, and why.
type changeFlags struct {
	registryFlags
	change  registry.Change
	version uint64
}

func (f *changeFlags) register(cmd *cobra.Command) {
	f.registryFlags.register(cmd)
	cmd.Flags().StringVar(&f.change.By, "by", "", "`who` makes the change; it stands in the audit")
	cmd.Flags().StringVar(&f.change.Why, "why", "", "the `reason`, such as a ticket; it stands in the audit, in clear")
	cobra.CheckErr(cmd.MarkFlagRequired("by"))
	cobra.CheckErr(cmd.MarkFlagRequired("why"))
}

// atVersion adds --version to a command that changes what is there.
func (f *changeFlags) atVersion(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&f.version, "version", 0, "only if it is of this `version` still")
}

// table is what all tables of the registry can do.
type table[T any] interface {
	Get(ctx context.Context, id string) (registry.Row[T], error)
	List(ctx context.Context, p registry.Page) ([]registry.Row[T], error)
	Create(ctx context.Context, c registry.Change, v T) (registry.Row[T], error)
	Update(ctx context.Context, c registry.Change, id string, version uint64, f func(*T) error) (registry.Row[T], error)
	Remove(ctx context.Context, c registry.Change, id string, version uint64) error
}

// sort is how one kind of object is listed, shown and removed.
type sort[T any] struct {
	name    string // of one
	plural  string
	of      func(*registry.Registry) table[T]
	id      func(T) string
	heading string // of the columns, separated by tabs
	columns func(*registrySession, T) []string
}

// one is the name with its article.
func (k sort[T]) one() string {
	if strings.ContainsRune("aeiou", rune(k.name[0])) {
		return "an " + k.name
	}
	return "a " + k.name
}

// done tells what became of one.
func (k sort[T]) done(s *registrySession, what string, row registry.Row[T]) error {
	if s.json {
		return cli.PrintJSON(s.out, row)
	}
	_, err := fmt.Fprintf(s.out, "%s %s %s, version %d.\n", what, k.name, k.id(row.Value), row.Version)
	return err
}

// doneSecretly is done where a secret was made, which is shown this once: in a new
// file of that name, or, where there is none, on the terminal.
func (k sort[T]) doneSecretly(s *registrySession, what string, row registry.Row[T], file, secret string) error {
	if file == "" {
		_, err := fmt.Fprintln(s.out, secret)
		return errors.Join(k.done(s, what, row), err)
	}
	if err := keys.Create(file, []byte(secret+"\n")); err != nil {
		return fmt.Errorf("%s is changed, and what was made for it could not be written and is lost: do it again: %w", k.id(row.Value), err)
	}
	return k.done(s, what, row)
}

// toShow says why a secret cannot be shown: it goes to a terminal, or to a file that
// is not there yet.
func toShow(cmd *cobra.Command, what, file string) error {
	if file == "" {
		if !isTerminal(cmd.OutOrStdout()) {
			return fmt.Errorf("%s is shown on a terminal only: use one, or write it to a new file with --out", what)
		}
		return nil
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%q is there already: name a new file", file), err)
	}
	return nil
}

// each calls f with all, or with those that name another.
func (k sort[T]) each(s *registrySession, names *registry.Reference, f func(registry.Row[T]) error) error {
	const page = 500
	for after := ""; ; {
		rows, err := k.of(s.Registry).List(s.ctx, registry.Page{After: after, Limit: page, Names: names})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if err := f(row); err != nil {
				return err
			}
			after = k.id(row.Value)
		}
	}
}

// print lists those that keep wants, or that name another.
func (k sort[T]) print(s *registrySession, names *registry.Reference, keep func(T) bool) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if !s.json {
		fmt.Fprintln(w, k.heading)
	}
	if err := k.each(s, names, func(row registry.Row[T]) error {
		switch {
		case keep != nil && !keep(row.Value):
			return nil
		case s.json:
			return cli.PrintJSON(s.out, row)
		}
		columns := k.columns(s, row.Value)
		for i, c := range columns {
			if columns[i] = spelling.Printable(c); c == "" {
				columns[i] = "-"
			}
		}
		_, err := fmt.Fprintln(w, strings.Join(columns, "\t"))
		return err
	}); err != nil {
		return err
	}
	return w.Flush()
}

func (k sort[T]) listCmd() *cobra.Command {
	var f registryFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the " + k.plural,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(s *registrySession) error { return k.print(s, nil, nil) })
		},
	}
	f.register(cmd)
	return cmd
}

func (k sort[T]) removeCmd(long string) *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "remove " + strings.ToUpper(k.name),
		Short: "Remove " + k.one() + " that nothing names",
		Long:  long,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(s *registrySession) error {
				if err := k.of(s.Registry).Remove(s.ctx, f.change, args[0], f.version); err != nil {
					return err
				}
				if s.json {
					return cli.PrintJSON(s.out, map[string]string{"removed": args[0]})
				}
				_, err := fmt.Fprintf(s.out, "Removed %s %s.\n", k.name, args[0])
				return err
			})
		},
	}
	f.register(cmd)
	f.atVersion(cmd)
	return cmd
}

// editCmd is a command that adds one, or changes the fields whose flags are
// given of one that is there. It takes the id as its argument.
func (k sort[T]) editCmd(add bool, long, example string, flags func(*cobra.Command) func(s *registrySession, v *T) error, start func(id string) T) *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{Use: "change " + strings.ToUpper(k.name), Short: "Change " + k.one() + "; what has no flag stays", Args: cobra.ExactArgs(1)}
	if add {
		cmd.Use, cmd.Short = "add "+strings.ToUpper(k.name), "Add "+k.one()
	}
	cmd.Long, cmd.Example = long, example
	apply := flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return f.with(cmd, func(s *registrySession) error {
			if !add {
				row, err := k.of(s.Registry).Update(s.ctx, f.change, args[0], f.version, func(v *T) error { return apply(s, v) })
				if err != nil {
					return err
				}
				return k.done(s, "Changed", row)
			}
			v := start(args[0])
			if err := apply(s, &v); err != nil {
				return err
			}
			row, err := k.of(s.Registry).Create(s.ctx, f.change, v)
			if err != nil {
				return err
			}
			return k.done(s, "Added", row)
		})
	}
	f.register(cmd)
	if !add {
		f.atVersion(cmd)
	}
	return cmd
}

// setText takes a flag's text if it is given.
func setText(cmd *cobra.Command, flag string, to *string) {
	if cmd.Flags().Changed(flag) {
		*to = cmd.Flags().Lookup(flag).Value.String()
	}
}

func setBool(cmd *cobra.Command, flag string, to *bool) {
	if cmd.Flags().Changed(flag) {
		*to, _ = cmd.Flags().GetBool(flag) // it is one
	}
}

func setSpan(cmd *cobra.Command, flag string, to *registry.Span) {
	if cmd.Flags().Changed(flag) {
		d, _ := cmd.Flags().GetDuration(flag) // it is one
		*to = registry.Span(d)
	}
}

// setList takes the texts of a flag that may be repeated, if it is given; one that
// is empty is none.
func setList[T ~string](cmd *cobra.Command, flag string, texts []string, to *[]T) {
	if !cmd.Flags().Changed(flag) {
		return
	}
	*to = nil
	if len(texts) == 1 && texts[0] == "" {
		return
	}
	for _, text := range texts {
		*to = append(*to, T(text))
	}
}

// setMoment takes a flag's time if it is given; empty is none.
func (s *registrySession) setMoment(cmd *cobra.Command, flag string, to *time.Time) error {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	*to = time.Time{}
	text := cmd.Flags().Lookup(flag).Value.String()
	if text == "" {
		return nil
	}
	at, err := fields.ParseMoment(text, s.zone, strings.HasSuffix(flag, "until"))
	if err != nil {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	*to = at
	return nil
}

// shown is a moment on the site's wall; "" where there is none.
func (s *registrySession) shown(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(s.zone).Format("2006-01-02 15:04")
}

func newRegistryCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Import people, export what a controller needs, and audit the changes",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newRegistryImportCmd(), newRegistryExportCmd(), newRegistryAuditCmd())
	return cmd
}

func newRegistryImportCmd() *cobra.Command {
	var f changeFlags
	cmd := &cobra.Command{
		Use:   "import FILE.csv",
		Short: "Add and change people and their credentials, all or nothing",
		Long: `Check a CSV file as a whole, and add the people and credentials that are in it,
or change them where they are there. Every fault is reported with its line, and
then nothing is changed. Whoever is not in the file stays as they are.

A credential is a row, or a person without one. The columns, in any order:

  ` + strings.ReplaceAll(cli.Wrap(strings.Join(registry.ImportColumns, ", ")), "\n", "\n  ") + `

person and kind are needed. What a missing column is about stays as it is; so
do an empty pin and an empty state. Groups are separated by semicolons; instead
is such as fingerprint=pin;iris=pin. extended, operator, biometric and
break_glass are yes or no. The file holds numbers of cards: keep it from others,
and delete it afterwards.`,
		Example: "  gatehouse-crm registry import people.csv --by m.jansen --why CHG-1042",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(s *registrySession) error { return s.importFile(cmd, f.change, args[0]) })
		},
	}
	f.register(cmd)
	return cmd
}

func (s *registrySession) importFile(cmd *cobra.Command, change registry.Change, name string) (err error) {
	// Before it is opened: a pipe would hang there, and a device never ends.
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is not a regular file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	progress := cli.NewProgress(cmd.ErrOrStderr(), "importing bytes", info.Size())
	done, err := s.Import(s.ctx, change, file, registry.ImportOptions{Zone: s.zone, Advance: progress.Add})
	progress.Done()
	if faults, ok := errors.AsType[*registry.ImportFaults](err); ok {
		for _, v := range faults.List {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: %s\n", name, v.Line, v.Text)
		}
		if faults.More > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "and %d more\n", faults.More)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "faults: %d; nothing was changed\n", faults.Total())
		return cli.ErrReported
	}
	if err != nil {
		return err
	}
	if s.json {
		return cli.PrintJSON(s.out, done)
	}
	_, err = fmt.Fprintf(s.out, "%d rows: people %d, credentials %d; changes made: %d. Times without an offset are of %s.\n",
		done.Rows, done.People, done.Credentials, done.Changes, s.zone)
	return err
}

func newRegistryExportCmd() *cobra.Command {
	var f changeFlags
	var controller, out string
	var force bool
	cmd := &cobra.Command{
		Use:   "export --controller NAME",
		Short: "Write what a controller's doors need, as an allowlist to import there",
		Long: `Write the policy of one controller: what its doors ask for, who has a right to
them, with their cards, and the schedules of both. Take the file to the
controller and run there "gatehouse allowlist import FILE.toml".

The file holds names and the numbers of cards: only its owner can read it, it is
not printed on a terminal without --force, and the audit says who made it and
why. Delete it when it is imported.`,
		Example: "  gatehouse-crm registry export --controller north-1 --out north-1.toml --by m.jansen --why CHG-1042",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" && !force && isTerminal(cmd.OutOrStdout()) {
				return errors.New("the policy holds the numbers of cards and is not printed on a terminal: write it to a file with --out, or use --force")
			}
			return f.with(cmd, func(s *registrySession) error {
				e, err := s.Export(s.ctx, f.change, controller)
				if err != nil {
					return err
				}
				if out == "" {
					_, err := io.Copy(s.out, bytes.NewReader(e.TOML))
					return err
				}
				if err := keys.Replace(out, e.TOML); err != nil {
					return fmt.Errorf("write the policy: %w", err)
				}
				if s.json {
					return cli.PrintJSON(s.out, map[string]any{"controller": controller, "file": out, "doors": e.Doors, "people": e.People, "credentials": e.Credentials})
				}
				_, err = fmt.Fprintf(s.out, "%s: doors %s; people %d, credentials %d. Import it at %s with \"gatehouse allowlist import\", and delete it.\n",
					out, strings.Join(e.Doors, ", "), e.People, e.Credentials, controller)
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&controller, "controller", "", "the controller's `name`")
	cmd.Flags().StringVar(&out, "out", "", "write to this `file` (default: to standard output)")
	cmd.Flags().BoolVar(&force, "force", false, "print it on a terminal all the same")
	cobra.CheckErr(cmd.MarkFlagRequired("controller"))
	return cmd
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newRegistryAuditCmd() *cobra.Command {
	var f viewFlags
	var q registry.AuditQuery
	var kind, head string
	var verify bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List the changes, or verify that none was made behind the registry's back",
		Long: `List who changed what, when and why, the oldest first: each line has keyed hashes
of what was said before and after.

With --verify every line and every object is checked: exit status 0 and the head
of the audit, or 1 and the first thing that was changed, added or removed by
anything but the registry. Note the head elsewhere: with --head it proves later
that the whole file was not put back to an older state either.`,
		Example: `  gatehouse-crm registry audit --kind person --id p-1001
  gatehouse-crm registry audit --verify --head 1234:9f86d081884c7d659a2feaa0c55ad015`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Kind = registry.Kind(kind)
			if verify {
				return f.with(cmd, func(s *registrySession) error { return s.verify(cmd, head) })
			}
			look := registry.View{Kind: registry.KindAudit, Filter: filter("kind="+kind, "id="+q.ID)}
			return f.viewing(cmd, look, func(s *registrySession) error { return s.audit(q) })
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&verify, "verify", false, "check everything")
	cmd.Flags().StringVar(&head, "head", "", "with --verify: a `head` that was noted before")
	cmd.Flags().Uint64Var(&q.After, "after", 0, "lines above this `number`")
	cmd.Flags().IntVar(&q.Limit, "limit", 0, "at most so many `lines` (default: all)")
	cmd.Flags().StringVar(&kind, "kind", "", "only of this `kind`: person, credential, group, schedule, holiday, area, door, visit, code, controller, client, audit")
	cmd.Flags().StringVar(&q.ID, "id", "", "only of the object of this `id`")
	cmd.MarkFlagsMutuallyExclusive("verify", "after")
	cmd.MarkFlagsMutuallyExclusive("verify", "kind")
	return cmd
}

func (s *registrySession) audit(q registry.AuditQuery) error {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	if !s.json {
		fmt.Fprintln(w, "LINE\tTIME\tBY\tACTION\tWHAT\tVERSION\tBEFORE\tAFTER\tWHY")
	}
	all := q.Limit <= 0
	for left := q.Limit; all || left > 0; {
		lines, err := s.Audit(s.ctx, registry.AuditQuery{After: q.After, Kind: q.Kind, ID: q.ID, Limit: max(0, left)})
		if err != nil {
			return err
		}
		if len(lines) == 0 {
			break
		}
		left -= len(lines)
		for _, l := range lines {
			q.After = l.Seq
			if s.json {
				err = cli.PrintJSON(s.out, l)
			} else {
				_, err = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s %s\t%d\t%s\t%s\t%s\n", l.Seq, l.At.In(s.zone).Format(time.DateTime), l.By, l.Action, l.Kind, l.ID, l.Version,
					shortHash(l.Before), shortHash(l.After), spelling.Printable(l.Why))
			}
			if err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

func shortHash(h registry.Hash) string {
	if len(h) == 0 {
		return "-"
	}
	return h.String()[:8]
}

func (s *registrySession) verify(cmd *cobra.Command, noted string) error {
	var head registry.Head
	if noted != "" {
		var err error
		if head, err = registry.ParseHead(noted); err != nil {
			return fmt.Errorf("--head: %w", err)
		}
	}
	progress, end := cli.Report(cmd.ErrOrStderr(), "verifying")
	v, err := s.Verify(s.ctx, head, progress)
	end()
	tampered, bad := errors.AsType[*registry.Tampered](err)
	switch {
	case bad && s.json:
		if err := cli.PrintJSON(s.out, map[string]any{"ok": false, "fault": tampered.Error()}); err != nil {
			return err
		}
		return cli.ErrReported
	case bad:
		fmt.Fprintf(cmd.ErrOrStderr(), "BAD: %s\n", spelling.Printable(tampered.Error()))
		return cli.ErrReported
	case err != nil:
		return err
	case s.json:
		return cli.PrintJSON(s.out, struct {
			OK bool `json:"ok"`
			registry.Verified
		}{true, v})
	}
	_, err = fmt.Fprintf(s.out, "ok: %d lines, %d objects; head %s\n", v.Lines, v.Objects, v.Head)
	return err
}
