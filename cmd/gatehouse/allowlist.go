package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/spf13/cobra"
)

func newAllowlistCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "allowlist",
		Short: "Import, list and explain who may enter",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newAllowlistImportCmd(), newAllowlistListCmd(), newAllowlistExplainCmd())
	return cmd
}

// allowlistFlags are what all of the allowlist's commands take.
type allowlistFlags struct{ data, config, timezone string }

func (f *allowlistFlags) register(cmd *cobra.Command) {
	dataFlag(cmd, &f.data)
	cmd.Flags().StringVar(&f.config, "config", "", "the controller's configuration `file`: its folder, time zone and own card formats")
	cmd.Flags().StringVar(&f.timezone, "timezone", "", "the site's time `zone`, such as Europe/Amsterdam (default: the configuration's, the one that the CRM pinned, or this machine's)")
	cmd.MarkFlagsMutuallyExclusive("data", "config")
}

// allowlistSite is what the allowlist's commands know of the controller.
type allowlistSite struct {
	dir     string
	path    string
	zone    *time.Location
	zoneBy  string // who says that it is this one
	formats *badge.Table
	ladder  allowlist.Ladder
	keys    allowlist.Keys
	signer  allowlist.Signer // nil: the CRM governs the allowlist
}

func (f *allowlistFlags) open() (*allowlistSite, error) {
	s := &allowlistSite{dir: f.data, formats: badge.Builtin()}
	ages := config.Allowlist{StaleAfter: 24 * time.Hour}
	provider := keys.File
	if f.config != "" {
		// A demonstration's configuration may be looked at: nothing is driven here.
		c, err := config.LoadController(f.config, config.Options{Demo: true})
		if err != nil {
			return nil, err
		}
		s.dir, s.formats = c.Data, c.Table
		ages = c.Allowlist
		s.zone, s.zoneBy = c.Zone, "by the configuration"
		if c.Keys.Provider == config.KeysCredential {
			provider = func(string) keys.Provider { return keys.Credential() }
		}
	}
	s.path = filepath.Join(s.dir, allowlist.FileName)
	k, err := keys.LoadController(provider(pki.KeysDir(s.dir)))
	if err != nil {
		return nil, err
	}
	trust, err := pki.ReadTrust(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	}
	switch {
	case f.timezone != "":
		if s.zone, err = time.LoadLocation(f.timezone); err != nil {
			return nil, fmt.Errorf("--timezone: %w", err)
		}
		s.zoneBy = "by --timezone"
	case s.zone != nil:
	case trust != nil:
		if s.zone, err = time.LoadLocation(trust.Timezone); err != nil {
			return nil, fmt.Errorf("time zone of the CRM's bundle: %w", err)
		}
		s.zoneBy = "by the CRM"
	default:
		s.zone, s.zoneBy = time.Local, "which is this machine's: if the doors are in another, use --timezone"
	}
	s.ladder = ladder(ages, governedByCRM(trust))
	return s, s.trust(k, trust)
}

// trust chooses the key that governs the allowlist.
func (s *allowlistSite) trust(k *keys.ControllerKeys, trust *pki.Trust) error {
	governor := k.Policy.JWK()
	if governedByCRM(trust) {
		governor = trust.PolicyRoot
	} else {
		s.signer = k.Policy
	}
	verifier, err := keys.NewVerifier(governor, keys.TypePolicy)
	s.keys = allowlist.Keys{Index: k.Pepper, Sealer: k.Allowlist, Verifier: verifier}
	return err
}

func newAllowlistImportCmd() *cobra.Command {
	var flags allowlistFlags
	var above uint64
	var empty bool
	cmd := &cobra.Command{
		Use:   "import FILE.csv|FILE.toml",
		Short: "Replace the allowlist by a file, all or nothing",
		Long: `Check a file as a whole and make it the allowlist. Every fault is reported with
its line, and then nothing is changed. The running daemon takes the new
allowlist by itself within seconds.

A TOML file has the whole policy:

  holidays = [2026-12-25, 2026-12-26]

  [schedules.office]
  mon-fri = ["07:00-19:00"]
  sat = ["09:00-13:00"]
  holiday = ["10:00-12:00"]        # instead of the weekday's; default: none

  [schedules.nights]
  mon-sun = ["22:00-06:00"]        # over midnight: belongs to the day it starts on

  [door_groups]
  server-rooms = ["server-room-a", "server-room-b"]

  [[people]]
  person = "p-1001"                # stands in records: not a name
  name = "Ada Lovelace"            # sealed, never in records
  kind = "staff"                   # staff, contractor, visitor
  from = 2026-03-01                # also 2026-03-01T08:00 or RFC 3339
  until = 2026-12-31               # a date alone: to its end
  extended = true                  # the door stays unlocked for longer
  rights = [{ doors = ["server-rooms", "lab"], schedule = "office" }]
  credentials = [
    { format = "H10301", facility = 123, number = 4567 },
    { format = "H10301", facility = 123, number = 4568, state = "lost" },
  ]

Visitors and contractors may also have host, organisation, purpose, escort,
authoriser and id_form. A credential may have break_glass = true, and a from and
until of its own. The schedule "always" and the door "*" (every door) are built in.

A CSV file has people only, a credential a row, and keeps the schedules, holidays
and door groups that are there. Its columns, in any order:

  person,name,kind,format,facility,number,issue,oem,state,from,until,doors,
  schedule,extended,break_glass,host,organisation,purpose,escort,authoriser,id_form

Doors and groups are separated by semicolons, and one may have a schedule of its
own: "lab;server-rooms@nights". extended and break_glass are yes or no.`,
		Example: `  gatehouse allowlist import policy.toml --data /var/lib/gatehouse
  gatehouse allowlist import people.csv --config /etc/gatehouse/gatehouse.toml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			site, err := flags.open()
			if err != nil {
				return err
			}
			return site.importFile(cmd.Context(), args[0], importOptions{above, empty}, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&empty, "empty", false, "import a file that lets nobody in")
	cmd.Flags().Uint64Var(&above, "above", 0, "make the new version higher than this `version`, which the daemon names when it refuses a file as too old")
	return cmd
}

type importOptions struct {
	above uint64 // the new version is higher
	empty bool   // a file without credentials is meant
}

func (s *allowlistSite) importFile(ctx context.Context, name string, o importOptions, stdout, stderr io.Writer) (err error) {
	if s.signer == nil {
		return fmt.Errorf("the CRM governs this controller's allowlist: change it there")
	}
	imp, err := allowlist.Begin(s.dir, s.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, imp.Close()) }()
	if fault := imp.Present(); fault != nil {
		fmt.Fprintf(stderr, "the present allowlist cannot be read: %v\n", fault)
	}
	started := time.Now()
	plan, err := s.readPlan(imp, name, stderr)
	if faults, ok := errors.AsType[*allowlist.Faults](err); ok {
		for _, f := range faults.List {
			fmt.Fprintf(stderr, "%s:%d: %s\n", name, f.Line, f.Text)
		}
		if faults.More > 0 {
			fmt.Fprintf(stderr, "and %d more\n", faults.More)
		}
		fmt.Fprintf(stderr, "%s: nothing was changed\n", count(uint64(faults.Total()), "fault", "faults"))
		return cli.ErrReported
	}
	if err != nil {
		return err
	}
	if plan.Credentials() == 0 && !o.empty {
		return fmt.Errorf("%s has no credentials: nobody could enter any more. Nothing was changed; --empty imports it all the same", name)
	}
	m, err := imp.Apply(ctx, plan, allowlist.ApplyOptions{Signer: s.signer, Now: time.Now(), Above: o.above,
		Progress: func(what string, total int64) allowlist.Meter { return cli.NewProgress(stderr, what, total) }})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "allowlist version %d: %s of %s, in %s\n", m.Version, count(m.Count, "credential", "credentials"),
		count(uint64(plan.People()), "person", "people"), time.Since(started).Round(100*time.Millisecond))
	fmt.Fprintf(stdout, "dates and times without an offset: %s, %s\n", zoneName(s.zone), s.zoneBy)
	if doors := plan.Doors(); len(doors) > 0 {
		fmt.Fprintf(stdout, "doors named: %s\n", strings.Join(doors, ", "))
	}
	return nil
}

func (s *allowlistSite) readPlan(imp *allowlist.Import, name string, stderr io.Writer) (*allowlist.Plan, error) {
	var read func(io.Reader, allowlist.ReadOptions) (*allowlist.Plan, error)
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		read = imp.ReadCSV
	case ".toml":
		read = imp.ReadTOML
	default:
		return nil, fmt.Errorf("%q is neither .csv nor .toml", name)
	}
	// Before it is opened: a pipe would hang there, and a device never ends.
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	progress := cli.NewProgress(stderr, "reading bytes", info.Size())
	defer progress.Done()
	return read(f, allowlist.ReadOptions{Index: s.keys.Index, Formats: s.formats, Zone: s.zone, Advance: progress.Add})
}

// zoneName is what people call a zone. The machine's own may have no name but
// its abbreviation.
func zoneName(zone *time.Location) string {
	if zone != time.Local {
		return zone.String()
	}
	name, _ := time.Now().Zone()
	return name
}

func count(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func newAllowlistListCmd() *cobra.Command {
	var flags allowlistFlags
	var person, door string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the credentials on the allowlist",
		Long: `List the credentials on the allowlist, by person. The numbers of cards are not
shown because they are not kept: a card is known by a keyed hash alone.`,
		Example: "  gatehouse allowlist list --door server-room-a",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			site, err := flags.open()
			if err != nil {
				return err
			}
			keep := func(c *allowlist.Listed) bool {
				return (person == "" || c.Person == person) && (door == "" || opensDoor(c.Rights, door))
			}
			return site.list(cmd.Context(), keep, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&person, "person", "", "only this person's, by `id`")
	cmd.Flags().StringVar(&door, "door", "", "only those with a right to this `door`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	return cmd
}

func opensDoor(rights []access.Right, door string) bool {
	return slices.ContainsFunc(rights, func(r access.Right) bool { return r.Door == door || r.Door == access.EveryDoor })
}

func (s *allowlistSite) list(ctx context.Context, keep func(*allowlist.Listed) bool, asJSON bool, stdout, stderr io.Writer) (err error) {
	l, err := allowlist.Open(s.path, s.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	progress := cli.NewProgress(stderr, "reading", int64(l.Size()))
	defer progress.Done()
	var found []*allowlist.Listed
	if err := l.Each(ctx, func(c *allowlist.Listed) error {
		progress.Add(1)
		if keep(c) {
			found = append(found, c)
		}
		return nil
	}); err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b *allowlist.Listed) int {
		return cmp.Or(cmp.Compare(a.Person, b.Person), cmp.Compare(a.State, b.State), cmp.Compare(a.Format, b.Format))
	})
	progress.Done()
	if asJSON {
		for _, c := range found {
			if err := cli.PrintJSON(stdout, shownCredential(c)); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Fprintf(stderr, "allowlist version %d of %s: %d of %s\n", l.Version(), l.Applied().In(s.zone).Format("2006-01-02 15:04 MST"), len(found),
		count(l.Size(), "credential", "credentials"))
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PERSON\tNAME\tKIND\tSTATE\tFORMAT\tFROM\tUNTIL\tRIGHTS\tMARKS")
	for _, c := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Person, orDash(c.Name), c.Kind, c.State, c.Format, s.bound(c.From), s.bound(c.Until),
			orDash(describeRights(c.Rights)), orDash(marks(c)))
	}
	return w.Flush()
}

func (s *allowlistSite) bound(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(s.zone).Format("2006-01-02 15:04")
}

func orDash(s string) string { return cmp.Or(s, "-") }

func describeRights(rights []access.Right) string {
	words := make([]string, len(rights))
	for i, r := range rights {
		words[i] = r.Door + "@" + r.Schedule.Name
	}
	return strings.Join(words, ";")
}

func marks(c *allowlist.Listed) string {
	var words []string
	if c.Extended {
		words = append(words, "extended")
	}
	if c.BreakGlass {
		words = append(words, "break-glass")
	}
	return strings.Join(words, ",")
}

// credentialJSON is a credential as list --json and explain --json show it.
type credentialJSON struct {
	Person     string        `json:"person"`
	Name       string        `json:"name,omitempty"`
	Kind       access.Kind   `json:"kind"`
	State      access.State  `json:"state"`
	Format     string        `json:"format"`
	From       *time.Time    `json:"from,omitempty"`
	Until      *time.Time    `json:"until,omitempty"`
	Rights     []rightJSON   `json:"rights"`
	Extended   bool          `json:"extended"`
	BreakGlass bool          `json:"break_glass"`
	Visit      *access.Visit `json:"visit,omitempty"`
}

type rightJSON struct {
	Door     string `json:"door"`
	Schedule string `json:"schedule"`
}

func shownCredential(c *allowlist.Listed) *credentialJSON {
	out := &credentialJSON{Person: c.Person, Name: c.Name, Kind: c.Kind, State: c.State, Format: c.Format, Rights: []rightJSON{},
		Extended: c.Extended, BreakGlass: c.BreakGlass, Visit: c.Visit}
	if !c.From.IsZero() {
		out.From = &c.From
	}
	if !c.Until.IsZero() {
		out.Until = &c.Until
	}
	for _, r := range c.Rights {
		out.Rights = append(out.Rights, rightJSON{r.Door, r.Schedule.Name})
	}
	return out
}
