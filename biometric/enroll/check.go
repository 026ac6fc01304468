package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Kind is a way in which scanners and rows do not agree.
type Kind string

// The kinds of finding.
const (
	SlotWithoutRow Kind = "slot_without_row" // the scanner keeps what nobody enrolled; it matches nobody
	RowWithoutSlot Kind = "row_without_slot" // the scanner lost what somebody enrolled
	NotListed      Kind = "not_on_allowlist" // the person is not on the allowlist any more
	Exchanged      Kind = "exchanged"        // at a scanner that is not there any more: nobody can look into it
	Unreadable     Kind = "unreadable"       // the row does not open; it matches nobody
	SlotOwed       Kind = "owed"             // revoked or undone, and the slot is still to be emptied
)

// Finding is one thing that does not agree.
type Finding struct {
	Kind Kind `json:"kind"`
	enrolled.Place
	Person string `json:"person,omitempty"`
	Part   string `json:"part,omitempty"`

	row enrolled.Row
}

// Unchecked is a scanner that could not be looked into.
type Unchecked struct {
	Scanner string `json:"scanner"`
	Why     string `json:"why"`
}

// Report is what a check found.
type Report struct {
	At        time.Time   `json:"at,omitzero"`
	Findings  []Finding   `json:"findings"`
	Unchecked []Unchecked `json:"unchecked,omitempty"`
}

// Status is how the enrolments of a controller are, for people and metrics.
type Status struct {
	Rows      map[string]int `json:"rows"` // by state
	Checked   time.Time      `json:"checked,omitzero"`
	Found     map[Kind]int   `json:"found,omitempty"`
	Unchecked []Unchecked    `json:"unchecked,omitempty"`
	Fault     string         `json:"fault,omitempty"` // why it is not known, or cannot be settled
}

// Status is how the enrolments are.
func (d *Desk) Status(ctx context.Context) Status {
	s := Status{Rows: map[string]int{}, Found: map[Kind]int{}}
	count, err := d.o.Store.Count(ctx)
	for state, n := range count {
		s.Rows[state.String()] = n
	}
	checked, failed := d.o.Store.Checked(ctx)
	err = errors.Join(err, failed)
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Checked, s.Unchecked = checked, d.report.Unchecked
	for _, f := range d.report.Findings {
		s.Found[f.Kind]++
	}
	if err := errors.Join(err, d.fault); err != nil {
		s.Fault = err.Error()
	}
	return s
}

// Check compares what the scanners keep with what was enrolled, and with the
// allowlist. With a scanner at which somebody is being enrolled it waits for
// another time, and says so.
func (d *Desk) Check(ctx context.Context, t Talk) (Report, error) {
	now, _ := d.o.Now()
	report := Report{At: now.UTC().Truncate(time.Second), Findings: []Finding{}}
	names := d.names()
	for i, name := range names {
		t.Progress("looking into scanners", i, len(names))
		findings, err := d.compare(ctx, d.scanners[name])
		if ctx.Err() != nil {
			return Report{}, ctx.Err()
		}
		if errors.Is(err, enrolled.ErrDamaged) {
			return Report{}, err
		}
		if err != nil {
			report.Unchecked = append(report.Unchecked, Unchecked{name, err.Error()})
		}
		report.Findings = append(report.Findings, findings...)
	}
	t.Progress("looking into scanners", len(names), len(names))
	rest, err := d.compareRows(ctx)
	if err != nil {
		return Report{}, err
	}
	report.Findings = append(report.Findings, rest...)
	slices.SortStableFunc(report.Findings, func(a, b Finding) int { return strings.Compare(a.Scanner, b.Scanner) })
	return report, nil
}

// compare looks into one scanner.
func (d *Desk) compare(ctx context.Context, s *scanner) ([]Finding, error) {
	release, err := take(s) // what is about to be enrolled has a slot or a row only
	if err != nil {
		return nil, err
	}
	defer release()
	reach, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	about, _, err := d.meet(reach, s)
	if err != nil || about.Capacity == 0 {
		return nil, err
	}
	ctx, cancel = context.WithTimeout(ctx, lookWithin)
	defer cancel()
	slots, err := s.Slots(ctx)
	if err != nil {
		return nil, fmt.Errorf("scanner %q: %w", s.name, err)
	}
	rows, err := d.o.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	has := map[uint32]bool{}
	for _, r := range rows {
		if r.Scanner != s.name || r.Serial != about.Serial {
			continue
		}
		has[r.Slot] = true
		if _, there := slices.BinarySearch(slots, r.Slot); !there && r.Fault == nil && r.State == enrolled.Active {
			findings = append(findings, found(RowWithoutSlot, r))
		}
	}
	for _, slot := range slots {
		if !has[slot] {
			findings = append(findings, Finding{Kind: SlotWithoutRow, Place: enrolled.Place{Scanner: s.name, Serial: about.Serial, Slot: slot}})
		}
	}
	return findings, nil
}

func found(k Kind, r enrolled.Row) Finding {
	return Finding{Kind: k, Place: r.Place, Person: r.Person, Part: string(r.Part), row: r}
}

// compareRows looks at the rows by themselves.
func (d *Desk) compareRows(ctx context.Context) ([]Finding, error) {
	rows, err := d.o.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	var persons []string
	for _, r := range rows {
		if r.Fault == nil && r.State == enrolled.Active {
			persons = append(persons, r.Person)
		}
	}
	slices.Sort(persons)
	known, err := d.o.Known(ctx, slices.Compact(persons))
	if err != nil {
		return nil, fmt.Errorf("who is on the allowlist is not known: %w", err)
	}
	var findings []Finding
	for _, r := range rows {
		serial, met := d.o.Store.Serial(r.Scanner)
		_, here := d.scanners[r.Scanner]
		switch {
		case r.Fault != nil:
			findings = append(findings, found(Unreadable, r))
		case met && r.Serial != serial, !here && r.State != enrolled.Active:
			findings = append(findings, found(Exchanged, r)) // nobody can empty that slot
		case r.State == enrolled.Pending && d.isEnrolling(r.Person):
		case r.State != enrolled.Active:
			findings = append(findings, found(SlotOwed, r))
		case !known[r.Person]:
			findings = append(findings, found(NotListed, r))
		}
	}
	return findings, nil
}

// Wipe puts right what a check found: slots without a row are emptied, and what
// no scanner or no allowlist stands behind is revoked.
func (d *Desk) Wipe(ctx context.Context, report Report, operator string, t Talk) error {
	ctx = context.WithoutCancel(ctx)
	var revoke []enrolled.Row
	for _, f := range report.Findings {
		switch f.Kind {
		case RowWithoutSlot, NotListed, Exchanged:
			if f.row.State == enrolled.Active {
				revoke = append(revoke, f.row)
			}
		}
	}
	if len(revoke) > 0 {
		if err := d.o.Store.Revoke(ctx, operator, revoke...); err != nil {
			return err
		}
		t.Say("Revoked: " + words(revoke) + ".")
	}
	if err := d.recordRevoked(ctx); err != nil {
		return err
	}
	errs := []error{d.settle(ctx)}
	emptied := map[string][]uint32{}
	for i, f := range report.Findings {
		t.Progress("wiping", i, len(report.Findings))
		err := d.wipe(ctx, f)
		if err == nil && f.Kind == SlotWithoutRow {
			emptied[f.Scanner] = append(emptied[f.Scanner], f.Slot)
		}
		errs = append(errs, err)
	}
	t.Progress("wiping", len(report.Findings), len(report.Findings))
	for _, name := range slices.Sorted(maps.Keys(emptied)) {
		detail := fmt.Sprintf("slots that nobody enrolled were emptied: %s, by %s", numbers(emptied[name]), operator)
		t.Say("Scanner " + name + ": " + detail + ".")
		errs = append(errs, d.o.Journal.Append(ctx, visitorlog.Draft{
			Type: visitorlog.OperatorAction, Data: visitorlog.Data{Reader: name, Detail: detail},
		}, "", nil))
	}
	return errors.Join(errs...)
}

// wipe puts right what settling does not.
func (d *Desk) wipe(ctx context.Context, f Finding) error {
	switch f.Kind {
	case Exchanged: // the scanner with the slot is gone
		return d.o.Store.Remove(ctx, f.row)
	case SlotWithoutRow, Unreadable:
	default:
		return nil
	}
	s, err := d.scanner(f.Scanner)
	if errors.Is(err, ErrNoScanner) && f.Kind == Unreadable {
		return d.o.Store.Remove(ctx, f.row)
	}
	if err != nil {
		return err
	}
	release, err := take(s)
	if err != nil {
		return err
	}
	defer release()
	defer s.want()()
	reach, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	about, _, err := d.meet(reach, s)
	if err != nil {
		return err
	}
	if about.Serial == f.Serial && about.Capacity > 0 {
		if f.Kind == SlotWithoutRow {
			if taken, err := d.hasRow(ctx, f.Place); err != nil || taken {
				return err // somebody was enrolled there since
			}
		}
		if err := s.Delete(reach, f.Slot); err != nil {
			return fmt.Errorf("scanner %q: slot %d: %w", s.name, f.Slot, err)
		}
	}
	if f.Kind == Unreadable {
		return d.o.Store.Remove(ctx, f.row)
	}
	return nil
}

func (d *Desk) hasRow(ctx context.Context, p enrolled.Place) (bool, error) {
	rows, err := d.o.Store.List(ctx)
	return slices.ContainsFunc(rows, func(r enrolled.Row) bool { return r.Place == p }), err
}

// lookWithin is what a scanner is given to tell which slots it uses. Some are
// asked for each slot by itself, over a slow line.
const lookWithin = 5 * time.Minute

// checkHour is when the scanners are looked into, by the site's clock: when
// nobody wants to enter.
const checkHour = 3

// lookEvery is how often Run looks whether there is something to do.
const lookEvery = time.Minute

// Run settles what a crash left over, and checks the scanners each night, until
// ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := d.tend(ctx)
		if ctx.Err() != nil {
			return nil
		}
		d.mu.Lock()
		before := d.fault
		d.fault = err
		d.mu.Unlock()
		if err != nil && (before == nil || before.Error() != err.Error()) {
			d.o.Logger.Warn("enrolments", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tend is done every minute. A scanner that is away, and owes something, keeps
// no other from being looked into.
func (d *Desk) tend(ctx context.Context) error {
	return errors.Join(d.settle(ctx), d.checkIfDue(ctx))
}

// due says whether the scanners were not looked into since the last time that
// the site's clock struck the hour. A last time in the future is a clock that
// was wrong.
func due(last, now time.Time, zone *time.Location) bool {
	now = now.In(zone)
	hour := time.Date(now.Year(), now.Month(), now.Day(), checkHour, 0, 0, 0, zone)
	if now.Before(hour) {
		hour = time.Date(now.Year(), now.Month(), now.Day()-1, checkHour, 0, 0, 0, zone)
	}
	return last.Before(hour) || last.After(now)
}

func (d *Desk) checkIfDue(ctx context.Context) error {
	now, clock := d.o.Now()
	last, err := d.o.Store.Checked(ctx)
	if err != nil || len(d.scanners) == 0 || clock == access.ClockUnset {
		return err
	}
	again, err := d.mustLookAgain(ctx)
	if err != nil || !again && !due(last, now, d.o.Zone) {
		return err
	}
	report, err := d.Check(ctx, silent{})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.report = report
	d.mu.Unlock()
	if err := d.recordFound(ctx, report); err != nil {
		return err
	}
	return d.o.Store.SetChecked(ctx, report.At)
}

// mustLookAgain says that the last check, before this start, found something,
// and that it is not known any more what.
func (d *Desk) mustLookAgain(ctx context.Context) (bool, error) {
	d.mu.Lock()
	looked := !d.report.At.IsZero()
	d.mu.Unlock()
	if looked {
		return false, nil
	}
	for _, name := range d.names() {
		if before, err := d.o.Journal.State(ctx, stateFound+name); err != nil || len(before) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// recordFound records what a check found at each scanner that it could look
// into, when that is not what was recorded last.
func (d *Desk) recordFound(ctx context.Context, report Report) error {
	for _, name := range d.names() {
		if slices.ContainsFunc(report.Unchecked, func(u Unchecked) bool { return u.Scanner == name }) {
			continue
		}
		detail := report.words(name)
		before, err := d.o.Journal.State(ctx, stateFound+name)
		if err != nil {
			return err
		}
		if string(before) == detail {
			continue
		}
		active, said := detail != "", detail
		if !active {
			said = "what the scanner keeps is what was enrolled"
		}
		if err := d.o.Journal.Append(ctx, visitorlog.Draft{
			Type: visitorlog.EnrollmentOrphaned, Data: visitorlog.Data{Reader: name, Detail: said, Active: &active},
		}, stateFound+name, []byte(detail)); err != nil {
			return err
		}
	}
	return nil
}

// words say in a sentence what was found at a scanner.
func (r Report) words(scanner string) string {
	slots := map[Kind][]uint32{}
	for _, f := range r.Findings {
		if f.Scanner == scanner {
			slots[f.Kind] = append(slots[f.Kind], f.Slot)
		}
	}
	var all []string
	for _, k := range []struct {
		kind  Kind
		words string
	}{
		{SlotWithoutRow, "nobody enrolled what is in slots"},
		{RowWithoutSlot, "what was enrolled is gone from slots"},
		{NotListed, "the allowlist has no more the people of slots"},
		{Exchanged, "another scanner than this one had what was enrolled in slots"},
		{Unreadable, "rows do not open, of slots"},
		{SlotOwed, "still to be emptied are slots"},
	} {
		if s := slots[k.kind]; len(s) > 0 {
			slices.Sort(s)
			all = append(all, k.words+" "+numbers(s))
		}
	}
	text := strings.Join(all, "; ")
	return text[:min(len(text), maxWords)]
}

// silent is nobody at the terminal.
type silent struct{}

func (silent) Say(string)                {}
func (silent) Progress(string, int, int) {}
func (silent) Ask(context.Context, string, ...string) (string, error) {
	return "", ErrEnded
}
