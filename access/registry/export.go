package registry

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// maxExport is the largest policy that `gatehouse allowlist import` reads.
const maxExport = 32 << 20

const (
	actionExport = "export"
	// kindController is what the audit's lines of exports are of.
	kindController Kind = "controller"
)

// Export is what one controller's doors need.
type Export struct {
	TOML        []byte // a policy for `gatehouse allowlist import`. It holds the numbers of cards
	Doors       []string
	People      int
	Credentials int
}

// policy is an allowlist's source, as `gatehouse allowlist import` reads it.
type policy struct {
	Holidays  []string                       `toml:"holidays,omitempty"`
	Schedules map[string]map[string][]string `toml:"schedules,omitempty"`
	Doors     map[string]policyDoor          `toml:"doors,omitempty"`
	People    []policyPerson                 `toml:"people,omitempty"`
}

type policyDoor struct {
	Rules []policyRule `toml:"rules"`
}

type policyRule struct {
	Direction access.Direction `toml:"direction,omitempty"`
	Schedule  string           `toml:"schedule"`
	AnyOf     []string         `toml:"any_of"`
}

type policyPerson struct {
	Person       string             `toml:"person"`
	Name         string             `toml:"name,omitempty"`
	Kind         access.Kind        `toml:"kind"`
	Extended     bool               `toml:"extended,omitempty"`
	Operator     bool               `toml:"operator,omitempty"`
	PIN          string             `toml:"pin,omitempty"`
	DuressPIN    string             `toml:"duress_pin,omitempty"`
	Instead      map[string]string  `toml:"instead,omitempty"`
	Host         string             `toml:"host,omitempty"`
	Organisation string             `toml:"organisation,omitempty"`
	Purpose      string             `toml:"purpose,omitempty"`
	Escort       string             `toml:"escort,omitempty"`
	Authoriser   string             `toml:"authoriser,omitempty"`
	IDForm       string             `toml:"id_form,omitempty"`
	Rights       []policyRight      `toml:"rights,omitempty"`
	Credentials  []policyCredential `toml:"credentials"`
}

type policyRight struct {
	Doors    []string `toml:"doors"`
	Schedule string   `toml:"schedule"`
}

type policyCredential struct {
	Biometric  bool         `toml:"biometric,omitempty"`
	Format     string       `toml:"format,omitempty"`
	Facility   *uint64      `toml:"facility,omitempty"`
	Number     *uint64      `toml:"number,omitempty"`
	Issue      *uint64      `toml:"issue,omitempty"`
	OEM        *uint64      `toml:"oem,omitempty"`
	State      access.State `toml:"state"`
	From       string       `toml:"from,omitempty"`
	Until      string       `toml:"until,omitempty"`
	BreakGlass bool         `toml:"break_glass,omitempty"`
}

// Export writes what the doors of a controller need to know, and no more: the
// rules of its doors, the people who have a right to one of them with all that
// decides about them, and the schedules of both. Visitors are in it who are in
// and have a badge. Cards that were lost or revoked are in it in any case, without
// a name where the person has no right here, so that their use is told for what
// it is. What goes out is a line of the audit.
func (r *Registry) Export(ctx context.Context, c Change, controller string) (out Export, err error) {
	err = r.write(ctx, c, func(t *tx) error {
		e := exporter{tx: t, controller: controller, uses: make(map[string]bool)}
		if out, err = e.export(); err != nil {
			return err
		}
		return t.line(Line{Action: actionExport, Kind: kindController, ID: controller, After: t.r.hash(objectName{kindController, controller}, out.TOML)})
	})
	return out, err
}

type exporter struct {
	*tx
	controller string
	doors      []Door
	rights     map[string][]Right // of groups, expanded to this controller's doors
	uses       map[string]bool    // schedules
	visits     map[string]*Visit  // of visitors who are in with a badge
	held       map[string][]*Credential
}

func (e *exporter) export() (Export, error) {
	steps := []func() error{e.readDoors, e.readGroups, e.readVisits, e.readCredentials}
	for _, step := range steps {
		if err := step(); err != nil {
			return Export{}, err
		}
	}
	p := policy{Doors: make(map[string]policyDoor)}
	out := Export{}
	for _, d := range e.doors {
		out.Doors = append(out.Doors, d.Name)
		if len(d.Rules) == 0 {
			continue
		}
		var rules []policyRule
		for _, rule := range d.Rules {
			rules = append(rules, policyRule(rule))
			e.uses[rule.Schedule] = true
		}
		p.Doors[d.Name] = policyDoor{rules}
	}
	if err := e.r.People.each(e.ctx, e, func(v *Person) error {
		entry, ok, err := e.person(v)
		if ok && err == nil {
			p.People = append(p.People, entry)
			out.Credentials += len(entry.Credentials)
		}
		return err
	}); err != nil {
		return Export{}, err
	}
	out.People = len(p.People)
	if err := e.readTimes(&p); err != nil {
		return Export{}, err
	}
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(p); err != nil {
		return Export{}, fmt.Errorf("write the policy: %w", err)
	}
	if b.Len() > maxExport {
		return Export{}, fmt.Errorf("the policy has %d MiB, and an import reads no more than %d", b.Len()>>20, maxExport>>20)
	}
	out.TOML = b.Bytes()
	return out, nil
}

func (e *exporter) readDoors() error {
	var controllers []string
	if err := e.r.Doors.each(e.ctx, e, func(d *Door) error {
		controllers = append(controllers, d.Controller)
		if d.Controller == e.controller {
			e.doors = append(e.doors, *d)
		}
		return nil
	}); err != nil {
		return err
	}
	if len(e.doors) == 0 {
		return fmt.Errorf("controller %s is %w: there are doors of %s", fields.Quote(e.controller), ErrNotFound,
			cmp.Or(strings.Join(sorted(controllers), ", "), "none"))
	}
	return nil
}

// readGroups finds what rights the groups give to these doors.
func (e *exporter) readGroups() error {
	e.rights = make(map[string][]Right)
	return e.r.Groups.each(e.ctx, e, func(g *Group) error {
		var rights []Right
		for _, right := range g.Rights {
			if right.Door == access.EveryDoor {
				rights = append(rights, right)
				continue
			}
			for _, d := range e.doors {
				if d.Name == right.Door || right.Area != "" && d.Into == right.Area {
					rights = append(rights, Right{Door: d.Name, Schedule: right.Schedule})
				}
			}
		}
		if len(rights) > 0 {
			e.rights[g.Name] = rights
		}
		return nil
	})
}

func (e *exporter) readVisits() error {
	e.visits = make(map[string]*Visit)
	return e.r.Visits.each(e.ctx, e, func(v *Visit) error {
		if v.State() == VisitIn && v.BadgeOut() {
			e.visits[v.Visitor] = v
		}
		return nil
	})
}

func (e *exporter) readCredentials() error {
	e.held = make(map[string][]*Credential)
	return e.r.Credentials.each(e.ctx, e, func(c *Credential) error {
		if c.Person != "" {
			e.held[c.Person] = append(e.held[c.Person], c)
		}
		return nil
	})
}

// person is what is said of somebody, and whether anything is.
func (e *exporter) person(p *Person) (policyPerson, bool, error) {
	out := policyPerson{Person: p.ID, Kind: p.Kind}
	rights, visit := e.rightsOf(p)
	for _, c := range e.held[p.ID] {
		opens := len(rights) > 0 && (visit == nil || c.ID == visit.Badge)
		if !opens && c.State == access.Active {
			continue
		}
		credential, err := e.credential(p, c, visit)
		if err != nil {
			return out, false, err
		}
		out.Credentials = append(out.Credentials, credential)
	}
	if len(out.Credentials) == 0 {
		return out, false, nil
	}
	if len(rights) == 0 {
		return out, true, nil
	}
	out.Name, out.Extended, out.Operator, out.Instead = p.Name, p.Extended, p.Operator, p.Instead
	if p.pins != nil {
		out.PIN, out.DuressPIN = p.pins.PIN, p.pins.Duress
	}
	if visit != nil {
		out.Host, out.Organisation, out.Escort, out.Authoriser = visit.Host, visit.Organisation, visit.Escort, visit.Authoriser
		out.Purpose, out.IDForm = visit.Purpose, visit.Identified.Form
		if visit.Ticket != "" {
			out.Purpose += " (" + visit.Ticket + ")"
		}
	}
	out.Rights = e.bySchedule(rights)
	return out, true, nil
}

// rightsOf are somebody's rights to these doors, and by which visit.
func (e *exporter) rightsOf(p *Person) (rights []Right, visit *Visit) {
	for _, g := range p.Groups {
		rights = append(rights, e.rights[g]...)
	}
	v := e.visits[p.ID]
	if v == nil {
		return rights, nil
	}
	for _, d := range e.doors {
		if slices.Contains(v.Doors, d.Name) {
			rights = append(rights, Right{Door: d.Name, Schedule: access.AlwaysName})
		}
	}
	return rights, v
}

// bySchedule gathers the doors of each schedule.
func (e *exporter) bySchedule(rights []Right) []policyRight {
	doors := make(map[string][]string)
	for _, r := range rights {
		doors[r.Schedule] = append(doors[r.Schedule], r.Door)
		e.uses[r.Schedule] = true
	}
	var out []policyRight
	for _, schedule := range slices.Sorted(maps.Keys(doors)) {
		out = append(out, policyRight{sorted(doors[schedule]), schedule})
	}
	return out
}

func (e *exporter) credential(p *Person, c *Credential, visit *Visit) (policyCredential, error) {
	out := policyCredential{Biometric: c.Biometric, State: c.State, BreakGlass: c.BreakGlass}
	if c.card != nil {
		format, ok := e.r.o.Formats.Format(c.card.Format)
		if !ok {
			return out, fmt.Errorf("credential %s: format %q is not known any more", c.ID, c.card.Format)
		}
		out.Format = c.card.Format
		out.card(format, *c.card)
	}
	from, until, _ := within(p, c)
	if visit != nil && c.ID == visit.Badge {
		from, until = visit.From, visit.Until
	}
	out.From, out.Until = written(from), written(until)
	return out, nil
}

// card gives the numbers that are not the format's own.
func (out *policyCredential) card(format *badge.Format, card badge.Credential) {
	usual := format.New()
	for _, v := range [...]struct {
		name  string
		to    **uint64
		n     uint64
		usual uint64
	}{
		{"facility", &out.Facility, card.Facility, usual.Facility}, {"number", &out.Number, card.Number, usual.Number},
		{"issue", &out.Issue, card.Issue, usual.Issue}, {"oem", &out.OEM, card.OEM, usual.OEM},
	} {
		named := slices.ContainsFunc(format.Fields(), func(f badge.Field) bool { return f.Name == v.name && !f.Fixed })
		if named || v.n != v.usual {
			*v.to = &v.n
		}
	}
}

func written(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// readTimes adds the schedules that are used, and the holidays.
func (e *exporter) readTimes(p *policy) error {
	delete(e.uses, access.AlwaysName)
	if len(e.uses) == 0 {
		return nil
	}
	p.Schedules = make(map[string]map[string][]string)
	if err := e.r.Schedules.each(e.ctx, e, func(s *Schedule) error {
		if e.uses[s.Name] {
			p.Schedules[s.Name] = s.Week
			if s.Week == nil {
				p.Schedules[s.Name] = map[string][]string{}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return e.r.Holidays.each(e.ctx, e, func(h *Holiday) error {
		p.Holidays = append(p.Holidays, h.Date)
		return nil
	})
}
