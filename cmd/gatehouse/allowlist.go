package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
	doors   []config.Door // of the configuration, if one was named
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
		s.dir, s.formats, s.doors = c.Data, c.Table, c.Doors
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

// trust finds out who governs the allowlist.
func (s *allowlistSite) trust(k *keys.ControllerKeys, trust *pki.Trust) (err error) {
	governed := governedByCRM(trust)
	if !governed {
		s.signer = k.Policy
	}
	s.keys, err = allowlistKeys(k, governed)
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

  [doors.server-room-a]            # the first rule whose schedule holds; the last: always
  rules = [
    { schedule = "office", any_of = ["badge+fingerprint", "badge+iris"] },
    { schedule = "always", any_of = ["badge+fingerprint+pin"] },
    { direction = "out", schedule = "always", any_of = ["badge+pin"] }, # none: the badge
  ]

  [areas.vault]                    # of the doors of one controller
  passback = "hard"                # soft: only recorded. timed = "10m": not in again sooner
  occupancy = 4

  [doors.server-room-b]            # beside or instead of rules
  into = "vault"
  server_room = true               # never left unlocked
  two_person = true
  interlock = ["server-room-a"]

  [[people]]
  person = "p-1001"                # stands in records: not a name
  name = "Ada Lovelace"            # sealed, never in records
  kind = "staff"                   # staff, contractor, visitor
  from = 2026-03-01                # also 2026-03-01T08:00 or RFC 3339
  until = 2026-12-31               # a date alone: to its end
  extended = true                  # the door stays unlocked for longer
  operator = true                  # may enrol others
  pin = "4711"                     # 4 to 16 digits; only a keyed hash of it is kept
  duress_pin = "4712"              # given instead of it under a threat
  instead = { fingerprint = "pin" } # cannot give the one, gives the other
  rights = [{ doors = ["server-rooms", "lab"], schedule = "office" }]
  credentials = [
    { format = "H10301", facility = 123, number = 4567 },
    { format = "H10301", facility = 123, number = 4568, state = "lost" },
    { biometric = true },          # may be identified by a finger or an eye, without a card
  ]

Of doors without rules, the configuration says what they ask for. Factors are
badge, pin, fingerprint, iris, totp and code. While the clock is unset, all that
the rules up to the first with the schedule "always" ask for is asked for.

Doors may also have out_of, together = "30s" (how long people wait for each other),
free = "office" (when it stands unlocked), first_person, disabled = "why",
stale_after, expired_after, expired_kinds and clock_unset_kinds. People may also
have escorted, may_escort, supervisor, exempt (from anti-passback), clearance = 3
(the highest threat at which they pass, of 5) and totp = "BASE32".

Visitors and contractors may also have host, organisation, purpose, escort,
authoriser, id_form, visit and ticket. A credential may have break_glass = true, and
a from and until of its own. { code = "48213377", id = "c-1", door = "lab", until =
2026-03-01 } is typed once in the place of a card. The schedule "always" and the door
"*" (every door) are built in.

A CSV file has people only, a credential a row, and keeps the schedules, holidays,
door groups, areas and doors that are there. Its columns, in any order:

  person,name,kind,format,facility,number,issue,oem,biometric,state,from,until,
  doors,schedule,extended,break_glass,code,code_id,code_door,operator,escorted,
  may_escort,supervisor,exempt,clearance,pin,duress_pin,totp,instead,host,
  organisation,purpose,escort,authoriser,id_form,visit,ticket

Doors and groups are separated by semicolons, and one may have a schedule of its
own: "lab;server-rooms@nights". instead is "fingerprint=pin;iris=pin". extended,
break_glass, operator, escorted, may_escort, supervisor, exempt and biometric are yes
or no. A row that is biometric or a code has no format and no numbers. All rows of a
person say the same of operator and what follows it up to instead; while somebody
has one of these, its column must be there.`,
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
	var ruled []string
	for _, side := range []access.Direction{access.In, access.Out} {
		if doors := plan.Ruled(side); len(doors) > 0 {
			fmt.Fprintf(stdout, "doors with rules for the way %s: %s\n", side, strings.Join(doors, ", "))
			ruled = append(ruled, doors...)
		}
	}
	if doors := plan.Sites(); len(doors) > 0 {
		fmt.Fprintf(stdout, "doors of which more is said: %s\n", strings.Join(doors, ", "))
		ruled = append(ruled, doors...)
	}
	if slices.Sort(ruled); len(ruled) > 0 {
		ruled = slices.Compact(ruled)
		if unused := without(ruled, plan.Doors()); len(unused) > 0 {
			fmt.Fprintf(stdout, "of these nobody has a right to %s: if somebody should have, a name is wrong\n", strings.Join(unused, ", "))
		}
		if strange := s.strange(ruled); len(strange) > 0 {
			fmt.Fprintf(stdout, "of these the configuration does not have %s: if another controller does not either, a name is wrong\n", strings.Join(strange, ", "))
		}
	}
	return nil
}

// without are the doors to which none of the rights is.
func without(doors, rights []string) []string {
	return slices.DeleteFunc(slices.Clone(doors), func(name string) bool {
		return slices.Contains(rights, name) || slices.Contains(rights, access.EveryDoor)
	})
}

// strange are the doors that the configuration does not have, if there is one: a
// door whose rules have another's name asks for less than was meant.
func (s *allowlistSite) strange(doors []string) []string {
	if s.doors == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(doors), func(name string) bool {
		return slices.ContainsFunc(s.doors, func(d config.Door) bool { return d.Name == name })
	})
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
	var doors, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the credentials on the allowlist",
		Long: `List the credentials on the allowlist, by person. The numbers of cards are not
shown because they are not kept: a card is known by a keyed hash alone, and so is
a PIN. With --doors, list what the doors ask for instead.`,
		Example: "  gatehouse allowlist list --door server-room-a\n  gatehouse allowlist list --doors",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			site, err := flags.open()
			if err != nil {
				return err
			}
			if doors {
				return site.listDoors(asJSON, cmd.OutOrStdout())
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
	cmd.Flags().BoolVar(&doors, "doors", false, "the doors that the allowlist has rules for, and the factors that they ask for")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object a line")
	cmd.MarkFlagsMutuallyExclusive("doors", "person")
	cmd.MarkFlagsMutuallyExclusive("doors", "door")
	return cmd
}

// doorJSON is a door as list --doors --json shows it.
type doorJSON struct {
	Door  string               `json:"door"`
	Rules []allowlist.DoorRule `json:"rules"`
	Site  *allowlist.Site      `json:"site,omitempty"` // what is asked beside factors
}

// listDoors prints what doors ask for, in the order in which their rules are
// looked at.
func (s *allowlistSite) listDoors(asJSON bool, stdout io.Writer) (err error) {
	l, err := allowlist.Open(s.path, s.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(w, "DOOR\tDIRECTION\tSCHEDULE\tASKS FOR")
	}
	words := l.Words()
	doors := slices.AppendSeq(slices.Collect(maps.Keys(words.Doors)), maps.Keys(words.Sites))
	slices.Sort(doors)
	for _, door := range slices.Compact(doors) {
		rules := words.Doors[door]
		if asJSON {
			j := doorJSON{Door: door, Rules: rules}
			if site, ok := words.Sites[door]; ok {
				j.Site = &site
			}
			if err := cli.PrintJSON(stdout, j); err != nil {
				return err
			}
			continue
		}
		for _, r := range rules {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", door, r.Direction, r.Schedule, strings.Join(r.AnyOf, " or "))
		}
		if site, ok := words.Sites[door]; ok {
			fmt.Fprintf(w, "%s\t-\t-\t%s\n", door, describeSite(site, words.Areas))
		}
	}
	return w.Flush()
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
	if c.Operator {
		words = append(words, "operator")
	}
	for _, m := range [...]struct {
		on   bool
		word string
	}{{c.Escorted, "escorted"}, {c.MayEscort, "may-escort"}, {c.Supervisor, "supervisor"}, {c.Exempt, "exempt"},
		{c.Clearance > 0, fmt.Sprintf("clearance=%d", c.Clearance)}, {c.PIN != nil, "pin"}, {c.DuressPIN != nil, "duress-pin"}, {c.TOTP != nil, "totp"}} {
		if m.on {
			words = append(words, m.word)
		}
	}
	if c.Code != nil {
		words = append(words, c.Code.ID+"@"+c.Code.Door)
	}
	for _, s := range c.Instead {
		words = append(words, s.Of.String()+"="+s.By.String())
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
	Operator   bool          `json:"operator,omitempty"`
	Escorted   bool          `json:"escorted,omitempty"`
	MayEscort  bool          `json:"may_escort,omitempty"`
	Supervisor bool          `json:"supervisor,omitempty"`
	Exempt     bool          `json:"exempt,omitempty"`
	Clearance  access.Threat `json:"clearance,omitempty"`
	PIN        bool          `json:"pin,omitempty"` // there is one
	DuressPIN  bool          `json:"duress_pin,omitempty"`
	TOTP       bool          `json:"totp,omitempty"`
	CodeID     string        `json:"code,omitempty"`
	CodeDoor   string        `json:"code_door,omitempty"`
	Instead    []insteadJSON `json:"instead,omitempty"`
	Visit      *access.Visit `json:"visit,omitempty"`
}

type insteadJSON struct {
	Of string `json:"of"`
	By string `json:"by"`
}

type rightJSON struct {
	Door     string `json:"door"`
	Schedule string `json:"schedule"`
}

func shownCredential(c *allowlist.Listed) *credentialJSON {
	out := &credentialJSON{Person: c.Person, Name: c.Name, Kind: c.Kind, State: c.State, Format: c.Format, Rights: []rightJSON{},
		Extended: c.Extended, BreakGlass: c.BreakGlass, Operator: c.Operator, PIN: c.PIN != nil, DuressPIN: c.DuressPIN != nil, TOTP: c.TOTP != nil, Visit: c.Visit,
		Escorted: c.Escorted, MayEscort: c.MayEscort, Supervisor: c.Supervisor, Exempt: c.Exempt, Clearance: c.Clearance}
	if c.Code != nil {
		out.CodeID, out.CodeDoor = c.Code.ID, c.Code.Door
	}
	if !c.From.IsZero() {
		out.From = &c.From
	}
	if !c.Until.IsZero() {
		out.Until = &c.Until
	}
	for _, r := range c.Rights {
		out.Rights = append(out.Rights, rightJSON{r.Door, r.Schedule.Name})
	}
	for _, s := range c.Instead {
		out.Instead = append(out.Instead, insteadJSON{s.Of.String(), s.By.String()})
	}
	return out
}
