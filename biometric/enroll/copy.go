package enroll

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// ErrFamily is that two scanners do not take each other's templates.
var ErrFamily = errors.New("these scanners do not take each other's templates")

// Copy enrols a person at a scanner by what is enrolled at another of the same
// family. Templates are in memory for as long as it takes, and nowhere else.
func (d *Desk) Copy(ctx context.Context, person, from, to, operator string, t Talk) (err error) {
	source, err := d.scanner(from)
	if err != nil {
		return err
	}
	target, err := d.scanner(to)
	if err != nil {
		return err
	}
	if source == target {
		return fmt.Errorf("scanner %q cannot be copied to itself", from)
	}
	release, err := take(source, target)
	if err != nil {
		return err
	}
	defer release()
	defer d.begin(person)()
	c := &copying{d: d, t: t, from: source, to: target, person: person, operator: operator}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.cleanHeld(context.WithoutCancel(ctx), target))
		}
	}()
	return c.copy(ctx)
}

// copying is one call of Copy.
type copying struct {
	d                *Desk
	t                Talk
	from, to         *scanner
	person, operator string

	about, target biometric.About
	used          []uint32 // slots of the target, before
	session       enrolled.Session
	made          []enrolled.Row
}

func (c *copying) copy(ctx context.Context) (err error) {
	if c.about, _, err = c.d.meet(ctx, c.from); err != nil {
		return err
	}
	if c.target, _, err = c.d.meet(ctx, c.to); err != nil {
		return err
	}
	if c.about.Family == "" || c.about.Family != c.target.Family || (c.about.Capacity == 0) != (c.target.Capacity == 0) {
		return fmt.Errorf("%w: %q is of family %q, %q of family %q", ErrFamily, c.from.name, c.about.Family, c.to.name, c.target.Family)
	}
	rows, err := c.d.o.Store.List(ctx)
	if err != nil {
		return err
	}
	active := func(r enrolled.Row, scanner, serial string) bool {
		return r.Fault == nil && r.State == enrolled.Active && r.Person == c.person && r.Scanner == scanner && r.Serial == serial
	}
	var sources []enrolled.Row
	for _, r := range rows {
		there := func(o enrolled.Row) bool { return o.Part == r.Part && active(o, c.to.name, c.target.Serial) }
		if active(r, c.from.name, c.about.Serial) && !slices.ContainsFunc(rows, there) {
			sources = append(sources, r)
		}
	}
	if len(sources) == 0 {
		return fmt.Errorf("%w enrolled of person %q at scanner %q that %q does not have: see gatehouse enroll list", ErrNothing, c.person, c.from.name, c.to.name)
	}
	if c.used, err = c.to.Slots(ctx); err != nil {
		return fmt.Errorf("scanner %q: %w", c.to.name, err)
	}
	rand.Read(c.session[:]) // never fails
	made := &visitorlog.Enrollment{Scanner: c.to.name, From: c.from.name, Operator: c.operator}
	for i, r := range sources {
		c.t.Progress("copying", i, len(sources))
		if err := c.one(ctx, r); err != nil {
			return err
		}
		made.Parts, made.Notice = append(made.Parts, string(r.Part)), r.Notice
	}
	c.t.Progress("copying", len(sources), len(sources))
	if err := c.readBack(ctx); err != nil {
		return err
	}
	_, err = c.d.commit(ctx, visitorlog.Draft{
		Type: visitorlog.EnrollmentMade, Subject: c.person, Data: visitorlog.Data{Reader: c.to.name, Enrollment: made},
	}, c.session, "")
	if err == nil {
		c.t.Say(fmt.Sprintf("Copied from %s to %s: %s of %s.", c.from.name, c.to.name, partWords(parts(sources)), c.person))
	}
	return err
}

func parts(rows []enrolled.Row) []biometric.Part {
	all := make([]biometric.Part, len(rows))
	for i, r := range rows {
		all[i] = r.Part
	}
	return all
}

// one copies one row.
func (c *copying) one(ctx context.Context, source enrolled.Row) error {
	templates, err := c.read(ctx, source)
	defer func() {
		for _, t := range templates {
			t.Clear()
		}
	}()
	if err != nil {
		return fmt.Errorf("scanner %q: %w", c.from.name, err)
	}
	slot, err := c.d.o.Store.FreeSlot(ctx, c.to.name, c.target, c.used)
	if err != nil {
		return err
	}
	now, _ := c.d.o.Now()
	row := source
	row.Place = enrolled.Place{Scanner: c.to.name, Serial: c.target.Serial, Slot: slot}
	row.Session, row.Operator, row.Approver, row.From, row.At = c.session, c.operator, "", c.from.name, now.Truncate(time.Second).UTC()
	if c.target.Capacity == 0 {
		row.Template = templates[0]
	}
	if row, err = c.d.o.Store.Add(ctx, row); err != nil {
		return err
	}
	c.made = append(c.made, row)
	if c.target.Capacity == 0 {
		return nil
	}
	copier, ok := c.to.Enroller.(biometric.Copier)
	if !ok {
		return fmt.Errorf("scanner %q: %w", c.to.name, biometric.ErrUnsupported)
	}
	if err := copier.WriteSlot(ctx, slot, templates); err != nil {
		return fmt.Errorf("scanner %q: %w", c.to.name, err)
	}
	return nil
}

// readBack looks whether the target has what was written into it.
func (c *copying) readBack(ctx context.Context) error {
	if c.target.Capacity == 0 {
		return nil
	}
	used, err := c.to.Slots(ctx)
	if err != nil {
		return fmt.Errorf("scanner %q: %w", c.to.name, err)
	}
	for _, r := range c.made {
		if !slices.Contains(used, r.Slot) {
			return fmt.Errorf("scanner %q: slot %d was written, and is not there", c.to.name, r.Slot)
		}
	}
	return nil
}

// read gives the templates of a row. The caller clears them.
func (c *copying) read(ctx context.Context, r enrolled.Row) ([]biometric.Template, error) {
	if c.about.Capacity > 0 {
		copier, ok := c.from.Enroller.(biometric.Copier)
		if !ok {
			return nil, biometric.ErrUnsupported
		}
		templates, err := copier.ReadSlot(ctx, r.Slot)
		if err == nil && len(templates) == 0 {
			err = fmt.Errorf("slot %d is empty", r.Slot)
		}
		return templates, err
	}
	references, err := c.d.o.Store.References(c.person, c.from.name)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, o := range references {
			if o.Slot != r.Slot {
				o.Template.Clear()
			}
		}
	}()
	for _, o := range references {
		if o.Slot == r.Slot && !o.Template.Empty() {
			return []biometric.Template{o.Template}, nil
		}
	}
	return nil, fmt.Errorf("there is no template of the %s", r.Part.Words())
}
