package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// settle brings to an end what a crash, a scanner out of reach or a full disk
// left over: what was recorded is approved, what was revoked is recorded, and
// what is neither is undone. It leaves alone the scanners at which somebody is
// being enrolled. What it could not do stays for the next time.
func (d *Desk) settle(ctx context.Context) error {
	count, err := d.o.Store.Count(ctx)
	if err != nil || count[enrolled.Pending]+count[enrolled.Revoked]+count[enrolled.Owed] == 0 {
		return err
	}
	if err := d.approveLast(ctx); err != nil {
		return err
	}
	errs := []error{d.recordRevoked(ctx)}
	for _, name := range d.names() {
		errs = append(errs, d.clean(ctx, d.scanners[name]))
	}
	return errors.Join(errs...)
}

// recordRevoked records what was revoked, by person and scanner.
func (d *Desk) recordRevoked(ctx context.Context) error {
	rows, err := d.o.Store.List(ctx)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(r enrolled.Row) bool { return r.Fault != nil || r.State != enrolled.Revoked })
	for len(rows) > 0 {
		first := rows[0]
		one := func(r enrolled.Row) bool {
			return r.Person == first.Person && r.Scanner == first.Scanner && r.Operator == first.Operator
		}
		var parts []string
		var these []enrolled.Row
		for _, r := range rows {
			if one(r) {
				these, parts = append(these, r), append(parts, string(r.Part))
			}
		}
		slices.Sort(parts)
		if err := d.o.Journal.Append(ctx, visitorlog.Draft{
			Type: visitorlog.EnrollmentRevoked, Subject: first.Person,
			Data: visitorlog.Data{Enrollment: &visitorlog.Enrollment{
				Scanner: first.Scanner, Parts: slices.Compact(parts), Notice: first.Notice, Operator: first.Operator,
			}},
		}, "", nil); err != nil {
			return fmt.Errorf("the revocation of %q is not recorded yet: %w", first.Person, err)
		}
		for _, r := range these {
			if err := d.o.Store.Owe(ctx, r); err != nil {
				return err
			}
		}
		rows = slices.DeleteFunc(rows, one)
	}
	return nil
}

// clean empties the slots of one scanner that nobody is to have, unless it is
// in use.
func (d *Desk) clean(ctx context.Context, s *scanner) error {
	rows, err := d.left(ctx, s.name)
	if err != nil || len(rows) == 0 {
		return err
	}
	release, err := take(s)
	if errors.Is(err, ErrBusy) {
		return nil // its session leaves nothing
	}
	defer release()
	return d.cleanHeld(ctx, s)
}

// cleanHeld is clean of a scanner that is held, so that no session goes on with
// what is pending there.
func (d *Desk) cleanHeld(ctx context.Context, s *scanner) error {
	if err := d.approveLast(ctx); err != nil {
		return err // and so it is not known what was recorded
	}
	rows, err := d.left(ctx, s.name)
	if err != nil {
		return err
	}
	return d.drop(ctx, s, rows...)
}

// left are the rows of a scanner whose slots are to be emptied. A pending row
// counts as one: whoever is being enrolled holds the scanner.
func (d *Desk) left(ctx context.Context, scanner string) ([]enrolled.Row, error) {
	rows, err := d.o.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r enrolled.Row) bool {
		return r.Scanner != scanner || r.Fault != nil || r.State != enrolled.Pending && r.State != enrolled.Owed
	}), nil
}

// drop empties the slots of rows, which the scanner reads back, has the end of
// what was revoked recorded, and removes the rows. Rows of a scanner that was
// exchanged stay until they are wiped: nobody can look into the old one. The
// scanner is held.
func (d *Desk) drop(ctx context.Context, s *scanner, rows ...enrolled.Row) error {
	if len(rows) == 0 {
		return nil
	}
	emptied, keeps, err := d.empty(ctx, s, rows)
	if err := d.recordEmptied(ctx, s.name, emptied, keeps); err != nil {
		return err // it is done again, and recorded then
	}
	for _, r := range emptied {
		if err := d.o.Store.Remove(ctx, r); err != nil {
			return err
		}
	}
	return err
}

// empty empties the slots of rows, and says which of them it did, and whether
// the scanner keeps anything: else there is no slot but in our rows.
func (d *Desk) empty(ctx context.Context, s *scanner, rows []enrolled.Row) (emptied []enrolled.Row, keeps bool, err error) {
	defer s.want()()
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	about, _, err := d.meet(ctx, s)
	if err != nil {
		return nil, false, &owedError{s.name, slotsOf(rows), err}
	}
	keeps = about.Capacity > 0
	for i, r := range rows {
		if r.Serial != about.Serial {
			continue
		}
		if keeps {
			if err := s.Delete(ctx, r.Slot); err != nil {
				return emptied, keeps, &owedError{s.name, slotsOf(rows[i:]), err}
			}
		}
		emptied = append(emptied, r)
	}
	return emptied, keeps, nil
}

// recordEmptied records that what was revoked of people is destroyed.
func (d *Desk) recordEmptied(ctx context.Context, scanner string, emptied []enrolled.Row, keeps bool) error {
	revoked := map[string][]enrolled.Row{}
	for _, r := range emptied {
		if r.State == enrolled.Owed {
			revoked[r.Person] = append(revoked[r.Person], r)
		}
	}
	for _, person := range slices.Sorted(maps.Keys(revoked)) {
		detail := "what was revoked is destroyed: the scanner keeps nothing, and the controller's templates are removed"
		if keeps {
			detail = "what was revoked is destroyed, and its slots were read back as empty: " + numbers(slotsOf(revoked[person]))
		}
		if err := d.o.Journal.Append(ctx, visitorlog.Draft{
			Type: visitorlog.OperatorAction, Subject: person,
			Data: visitorlog.Data{Reader: scanner, Detail: detail},
		}, "", nil); err != nil {
			return fmt.Errorf("that slots were emptied is not recorded yet: %w", err)
		}
	}
	return nil
}

// owedError is that slots could not be emptied. They match nobody, and are
// emptied when the scanner is back.
type owedError struct {
	scanner string
	slots   []uint32
	cause   error
}

func (e *owedError) Error() string {
	return fmt.Sprintf("scanner %q: slots %s could not be emptied: they match nobody, and are emptied when the scanner is back: %v",
		e.scanner, numbers(e.slots), e.cause)
}

func (e *owedError) Unwrap() error { return e.cause }

func slotsOf(rows []enrolled.Row) []uint32 {
	slots := make([]uint32, len(rows))
	for i, r := range rows {
		slots[i] = r.Slot
	}
	return slots
}

// maxNumbers are as many as a sentence names.
const maxNumbers = 16

// numbers writes slots as 3, 5, 9.
func numbers(slots []uint32) string {
	words := make([]string, 0, maxNumbers+1)
	for i, s := range slots {
		if i == maxNumbers {
			words = append(words, fmt.Sprintf("and %d more", len(slots)-i))
			break
		}
		words = append(words, fmt.Sprint(s))
	}
	return strings.Join(words, ", ")
}

// Revoke takes back everything that is enrolled of a person. It matches no more
// at once; then that is recorded, and the slots are emptied. A scanner that
// cannot be reached owes its slots.
func (d *Desk) Revoke(ctx context.Context, person, operator string, t Talk) error {
	ctx = context.WithoutCancel(ctx) // begun, it goes on
	rows, err := d.revoke(ctx, person, operator)
	if err != nil {
		return err
	}
	t.Say(fmt.Sprintf("Nothing that is enrolled of %s matches any more: %s.", person, words(rows)))
	if err := d.recordRevoked(ctx); err != nil {
		return err
	}
	scanners := map[string]bool{}
	for _, r := range rows {
		scanners[r.Scanner] = true
	}
	names := slices.Sorted(maps.Keys(scanners))
	var errs []error
	for i, name := range names {
		t.Progress("emptying slots", i, len(names))
		s, err := d.scanner(name)
		if err == nil {
			err = d.clean(ctx, s)
		}
		errs = append(errs, err)
	}
	t.Progress("emptying slots", len(names), len(names))
	left, err := d.o.Store.List(ctx)
	left = slices.DeleteFunc(left, func(r enrolled.Row) bool {
		return r.Fault != nil || r.Person != person || r.State == enrolled.Active
	})
	if len(left) == 0 {
		t.Say("Every slot is empty, and was read back.")
	} else {
		t.Say("Still to be emptied: " + words(left) + ".")
	}
	return errors.Join(append(errs, err)...)
}

// revoke ends the matching of everything that is enrolled of a person, and
// gives all of their rows, those of a session that is gone too.
func (d *Desk) revoke(ctx context.Context, person, operator string) ([]enrolled.Row, error) {
	d.people.Lock()
	defer d.people.Unlock()
	if d.enrolling[person] > 0 {
		return nil, fmt.Errorf("person %q is being enrolled at the moment: end that session, and revoke then", person)
	}
	rows, err := d.o.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r enrolled.Row) bool { return r.Fault != nil || r.Person != person })
	if len(rows) == 0 {
		return nil, fmt.Errorf("%w enrolled of person %q: see gatehouse enroll list", ErrNothing, person)
	}
	return rows, d.o.Store.Revoke(ctx, operator, rows...)
}

// words say what rows are of, such as right index finger at a-finger.
func words(rows []enrolled.Row) string {
	all := make([]string, len(rows))
	for i, r := range rows {
		all[i] = r.Part.Words() + " at " + r.Scanner
	}
	return strings.Join(all, ", ")
}

func partWords(parts []biometric.Part) string {
	all := make([]string, len(parts))
	for i, p := range parts {
		all[i] = p.Words()
	}
	return strings.Join(all, ", ")
}
