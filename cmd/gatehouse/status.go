package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/biometric/enroll"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/spf13/cobra"
)

// status is what /status shows.
type status struct {
	Controller string           `json:"controller"`
	Version    string           `json:"version"`
	Keys       string           `json:"keys"` // the provider
	Clock      clockStatus      `json:"clock"`
	Records    recordStatus     `json:"records"`
	Allowlist  allowlist.Status `json:"allowlist"`
	Link       *linkStatus      `json:"link,omitempty"`     // none: works alone
	Enrolled   *enroll.Status   `json:"enrolled,omitempty"` // none: no scanners
	Doors      []door.Status    `json:"doors"`
	Areas      []areaStatus     `json:"areas"`
	LockedOut  lockedOut        `json:"locked_out"`
	Warnings   []metrics.Fault  `json:"warnings"` // what works, and is hardly meant so
	Faults     []metrics.Fault  `json:"faults"`
}

// lockedOut are those who have failed too often, at all doors.
type lockedOut struct {
	People  []string `json:"people"` // pseudonymous ids
	Readers []string `json:"readers"`
}

// areaStatus is how many people are in an area, as far as the records tell.
type areaStatus struct {
	Name     string `json:"name"`
	People   int    `json:"people"`
	At       int    `json:"at_most,omitempty"` // how many may be in at once; 0: any number
	Passback string `json:"passback,omitempty"`
	Damaged  bool   `json:"damaged,omitempty"` // nobody knows, and it counts as full
}

type clockStatus struct {
	Time  time.Time         `json:"time"`
	State access.ClockState `json:"state"`
	Floor time.Time         `json:"floor,omitzero"` // by the CRM's word
	Zone  string            `json:"zone"`
}

type recordStatus struct {
	Epoch        string `json:"epoch"`
	Size         uint64 `json:"size"`
	Acknowledged uint64 `json:"acknowledged"` // by the CRM's receipts

	Verification verificationStatus `json:"verification"`
}

// verificationStatus is how far the verification of the whole log has come,
// which begins at the start and keeps no door waiting.
type verificationStatus struct {
	Done    int64     `json:"done"`
	Total   int64     `json:"total"`
	Ended   time.Time `json:"ended,omitzero"`
	Fault   string    `json:"fault,omitempty"`   // what was found wrong
	Trouble string    `json:"trouble,omitempty"` // why it could not look
}

func (v verificationStatus) String() string {
	switch {
	case v.Fault != "":
		return "DAMAGED: " + v.Fault
	case v.Trouble != "":
		return "not verified: " + v.Trouble
	case !v.Ended.IsZero():
		return fmt.Sprintf("all %d of the start verified", v.Total)
	case v.Total == 0:
		return "about to be verified"
	}
	return fmt.Sprintf("%d of %d verified so far (%d %%)", v.Done, v.Total, 100*v.Done/v.Total)
}

type linkStatus struct {
	Connected   bool      `json:"connected"`
	Since       time.Time `json:"since"`
	LastError   string    `json:"last_error,omitempty"`
	LastReceipt time.Time `json:"last_receipt,omitzero"`
	Overdue     time.Time `json:"overdue,omitzero"` // since when a receipt has stayed out

	Allowlist *follower.Status `json:"allowlist,omitempty"` // none: the site governs who may enter
}

// Status is a snapshot of the controller.
func (c *controller) Status(ctx context.Context) (status, error) {
	head, err := c.records.Head(ctx)
	if err != nil {
		return status{}, err
	}
	now, state := c.clock.Now()
	s := status{
		Controller: c.cfg.Name,
		Version:    cli.Version(),
		Keys:       c.cfg.Keys.Provider,
		Clock:      clockStatus{Time: now, State: state, Floor: c.clock.Floor(), Zone: c.zone.String()},
		Records:    recordStatus{Epoch: head.Epoch, Size: head.Size, Acknowledged: c.records.Acknowledged()},
		Allowlist:  c.policy.Status(now),
		Enrolled:   c.enrolled.Status(ctx),
		Warnings:   c.misfits(),
		Faults:     c.Faults(ctx),
	}
	if s.LockedOut, err = c.lockedOut(ctx); err != nil {
		return status{}, err
	}
	if s.Areas, err = c.areas(ctx); err != nil {
		return status{}, err
	}
	v := c.records.Verification()
	s.Records.Verification = verificationStatus{v.Done, v.Total, v.Ended, v.Fault, v.Trouble}
	for _, d := range c.doors {
		s.Doors = append(s.Doors, d.Status())
	}
	if c.link != nil {
		conn, up := c.link.conn.Status(), c.link.uplink.Status()
		s.Link = &linkStatus{
			Connected: conn.Connected, Since: conn.Since, LastError: conn.LastError,
			LastReceipt: up.LastReceipt, Overdue: up.Overdue,
		}
		if c.link.policy != nil {
			heard := c.link.policy.Status()
			s.Link.Allowlist = &heard
		}
	}
	return s, nil
}

// lockedOut reads who is locked out.
func (c *controller) lockedOut(ctx context.Context) (lockedOut, error) {
	states, err := c.records.States(ctx, door.LockoutStates)
	if err != nil {
		return lockedOut{}, err
	}
	people, readers := door.LockedOut(states, c.secrets(), c.clock.Moment(), c.limits())
	return lockedOut{people, readers}, nil
}

// areas reads how many people are in the areas between which the doors lead.
func (c *controller) areas(ctx context.Context) ([]areaStatus, error) {
	states, err := c.records.States(ctx, door.OccupancyStates)
	if err != nil {
		return nil, err
	}
	found := make(map[string]areaStatus)
	for i := range c.cfg.Doors {
		site := c.policy.Site(c.cfg.Doors[i].Name)
		if site == nil {
			continue
		}
		for _, a := range []*access.Area{site.Into, site.OutOf} {
			if a == nil {
				continue
			}
			n, ok := door.ParseOccupancy(states[door.OccupancyStates+a.Name])
			if !ok {
				n = 0
			}
			found[a.Name] = areaStatus{Name: a.Name, People: n, At: a.Occupancy, Passback: string(a.Passback), Damaged: !ok}
		}
	}
	all := []areaStatus{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[name])
	}
	return all, nil
}

// Faults is what is wrong with the controller itself. A CRM out of reach is no
// fault: the doors work for weeks without one.
func (c *controller) Faults(ctx context.Context) []metrics.Fault {
	faults := []metrics.Fault{}
	for _, d := range c.doors {
		s := d.Status()
		for _, f := range s.Faults {
			faults = append(faults, metrics.Fault{Part: "door " + s.Door + ", " + f.Part, What: f.Fault})
		}
		for _, r := range s.Readers {
			if r.Likely != "" {
				faults = append(faults, metrics.Fault{Part: "door " + s.Door + ", wires of reader " + r.Name, What: r.Likely})
			}
		}
	}
	faults = append(faults, c.enrolled.Faults(ctx)...)
	if v := c.records.Verification(); v.Fault != "" {
		faults = append(faults, metrics.Fault{Part: "records", What: "the log is damaged: " + v.Fault})
	}
	s := c.policy.Status(time.Now())
	if s.Fault != "" {
		faults = append(faults, metrics.Fault{Part: "allowlist", What: s.Fault})
	}
	if c.link != nil && c.link.policy != nil {
		if heard := c.link.policy.Status(); heard.Fault != "" {
			faults = append(faults, metrics.Fault{Part: "allowlist", What: fmt.Sprintf("version %d of the CRM is not in use yet: %s", heard.Version, heard.Fault)})
		}
	} else if c.link != nil {
		if newest := c.link.newest.Load(); newest > s.Version {
			faults = append(faults, metrics.Fault{Part: "allowlist", What: fmt.Sprintf(
				"version %d is served, and version %d was used here already: import the newest again with --above %d", s.Version, newest, newest)})
		}
	}
	return faults
}

// aliveWithin bounds the answer of one door.
const aliveWithin = 5 * time.Second

// Alive fails when a door hangs, which a restart mends.
func (c *controller) Alive() error {
	ctx, cancel := context.WithTimeout(context.Background(), aliveWithin)
	defer cancel()
	return c.Ready(ctx)
}

// Ready waits until every door answers.
func (c *controller) Ready(ctx context.Context) error {
	for _, d := range c.doors {
		if err := d.Alive(ctx); err != nil {
			return err
		}
	}
	return nil
}

func newStatusCmd() *cobra.Command {
	var file string
	var demo, asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the running controller is",
		Long: `Show how the running controller is: its doors, readers, records, allowlist and
link to the CRM. The exit status is 1 when something is wrong.`,
		Example: "  gatehouse status --config gatehouse.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadController(file, config.Options{Demo: demo})
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			var s status
			if err := metrics.Status(cmd.Context(), cfg.HTTP.Listen, &s); err != nil {
				return err
			}
			if asJSON {
				err = cli.PrintJSON(cmd.OutOrStdout(), s)
			} else {
				err = s.print(cmd.OutOrStdout())
			}
			if err == nil && len(s.Faults) > 0 {
				return cli.ErrReported
			}
			return err
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (s status) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	row("controller", "%s, version %s", s.Controller, s.Version)
	row("clock", "%s, %s", s.Clock.Time.Format(time.RFC3339), s.Clock.State)
	row("keys", "provider %s", s.Keys)
	row("records", "%d, %d of them countersigned by the CRM; epoch %s", s.Records.Size, s.Records.Acknowledged, s.Records.Epoch)
	row("", "%s", s.Records.Verification)
	row("allowlist", "version %d, %d credentials, %s", s.Allowlist.Version, s.Allowlist.Credentials, s.Allowlist.Freshness)
	switch {
	case s.Link == nil:
		row("CRM", "none: works alone")
	case s.Link.Connected && !s.Link.Overdue.IsZero():
		row("CRM", "connected since %s, but RECEIPTS STAY OUT since %s: is gatehouse-crm running, and do the broker's rules let records through?",
			s.Link.Since.Local().Format(time.DateTime), s.Link.Overdue.Local().Format(time.DateTime))
	case s.Link.Connected:
		row("CRM", "connected since %s", s.Link.Since.Local().Format(time.DateTime))
	default:
		row("CRM", "not connected since %s: %s", s.Link.Since.Local().Format(time.DateTime), s.Link.LastError)
	}
	if s.Link != nil && s.Link.Allowlist != nil {
		row("", "%s", heardWords(s.Link.Allowlist))
	}
	if e := s.Enrolled; e != nil {
		row("enrolled", "%s", enrolledWords(e))
	}
	for _, d := range s.Doors {
		row("door "+d.Door, "%s", strings.Join(doorWords(d), ", "))
		for _, r := range d.Readers {
			for i, words := range readerWords(r) {
				name := ""
				if i == 0 {
					name = "  reader " + r.Name
				}
				row(name, "%s", words)
			}
		}
		for _, c := range d.Scanners {
			words := "ready for " + c.Factor
			if c.Fault != "" {
				words = "FAULTY: " + c.Fault
			}
			row("  scanner "+c.Name, "%s", words)
		}
		for _, a := range d.Attempts {
			row("  on the way "+string(a.Direction), "%s has given %s and is asked for %s until %s", a.Person,
				strings.Join(a.Given, " and "), strings.Join(a.Asked, " or "), a.Until.Local().Format(time.TimeOnly))
		}
		for _, a := range d.Waiting {
			row("  on the way "+string(a.Direction), "%s waits for another person until %s", a.Person, a.Until.Local().Format(time.TimeOnly))
		}
		for _, side := range d.Lent {
			row("  on the way "+string(side), "somebody is being enrolled: it opens to nobody")
		}
	}
	for _, a := range s.Areas {
		row("area "+a.Name, "%s", areaWords(a))
	}
	for _, who := range s.LockedOut.People {
		row("locked out", "person %s", who)
	}
	for _, reader := range s.LockedOut.Readers {
		row("locked out", "reader %s", reader)
	}
	for _, w := range s.Warnings {
		row("WARNING", "%s: %s", w.Part, w.What)
	}
	for _, f := range s.Faults {
		row("FAULT", "%s: %s", f.Part, f.What)
	}
	return w.Flush()
}

// enrolledWords says how many fingers and eyes are enrolled, and what the last
// check of the scanners found.
func enrolledWords(e *enroll.Status) string {
	words := []string{fmt.Sprintf("%d fingers and eyes", e.Rows[enrolled.Active.String()])}
	if e.Checked.IsZero() {
		words = append(words, "the scanners are checked tonight")
	} else {
		words = append(words, "the scanners were checked at "+e.Checked.Local().Format(time.DateTime))
	}
	for _, kind := range slices.Sorted(maps.Keys(e.Found)) {
		words = append(words, fmt.Sprintf("%d %s", e.Found[kind], kind))
	}
	if len(e.Unchecked) > 0 {
		words = append(words, fmt.Sprintf("%d scanners were not looked into", len(e.Unchecked)))
	}
	return strings.Join(words, ", ")
}

// readerWords says in lines how a reader is.
func readerWords(r door.ReaderStatus) []string {
	lines := []string{"reads"}
	if r.Fault != "" {
		lines[0] = "FAULTY: " + r.Fault
	}
	if r.Likely != "" {
		lines = append(lines, "LIKELY WRONG: "+r.Likely)
	}
	if r.Keys > 0 {
		lines = append(lines, fmt.Sprintf("%d keys typed that nobody was asked for", r.Keys))
	}
	h := r.Health
	if h == nil {
		return lines
	}
	words := []string{fmt.Sprintf("%d frames", h.Frames)}
	if !h.Last.IsZero() {
		words[0] += ", the last good one at " + h.Last.Local().Format(time.DateTime)
	}
	for _, reason := range slices.Sorted(maps.Keys(h.Refused)) {
		words = append(words, fmt.Sprintf("%d refused: %s", h.Refused[reason], reason))
	}
	if h.Ghosts > 0 {
		words = append(words, fmt.Sprintf("%d ghost bits", h.Ghosts))
	}
	if h.Foreign > 0 {
		words = append(words, fmt.Sprintf("%d NOT IN THE READER'S TIMING", h.Foreign))
	}
	return append(lines, strings.Join(words, "; "))
}

func doorWords(d door.Status) []string {
	words := []string{"unlocked"}
	if d.Locked {
		words[0] = "locked"
	}
	if d.Free {
		words[0] = "unlocked for everybody by its schedule"
	}
	words = append(words, "contact "+string(d.Contact))
	for _, state := range []struct {
		is   bool
		word string
	}{{d.Forced, "FORCED"}, {d.Held, "HELD OPEN"}, {d.HeldWarning, "held warning"}, {d.Lockdown, "LOCKDOWN"}, {d.Tamper, "TAMPER"}} {
		if state.is {
			words = append(words, state.word)
		}
	}
	if d.Threat > 0 {
		words = append(words, fmt.Sprintf("THREAT %d", d.Threat))
	}
	if d.Disabled != "" {
		words = append(words, "DISABLED: "+d.Disabled)
	}
	return words
}

func areaWords(a areaStatus) string {
	words := fmt.Sprintf("%d in it", a.People)
	switch {
	case a.Damaged:
		words = "NOBODY KNOWS how many are in it, and it counts as full: reset it"
	case a.At > 0:
		words = fmt.Sprintf("%d of %d in it", a.People, a.At)
	}
	if a.Passback != "" {
		words += ", anti-passback " + a.Passback
	}
	return words
}
