package registry

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
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
	Areas     map[string]policyArea          `toml:"areas,omitempty"`
	Doors     map[string]policyDoor          `toml:"doors,omitempty"`
	People    []policyPerson                 `toml:"people,omitempty"`
}

type policyArea struct {
	Passback  access.Passback `toml:"passback,omitempty"`
	Timed     string          `toml:"timed,omitempty"`
	Occupancy int             `toml:"occupancy,omitempty"`
}

type policyDoor struct {
	Into            string        `toml:"into,omitempty"`
	OutOf           string        `toml:"out_of,omitempty"`
	ServerRoom      bool          `toml:"server_room,omitempty"`
	TwoPerson       bool          `toml:"two_person,omitempty"`
	Together        string        `toml:"together,omitempty"`
	Interlock       []string      `toml:"interlock,omitempty"`
	Free            string        `toml:"free,omitempty"`
	FirstPerson     bool          `toml:"first_person,omitempty"`
	Disabled        string        `toml:"disabled,omitempty"`
	StaleAfter      string        `toml:"stale_after,omitempty"`
	ExpiredAfter    string        `toml:"expired_after,omitempty"`
	ExpiredKinds    []access.Kind `toml:"expired_kinds,omitempty"`
	ClockUnsetKinds []access.Kind `toml:"clock_unset_kinds,omitempty"`
	Rules           []policyRule  `toml:"rules,omitempty"`
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
	Escorted     bool               `toml:"escorted,omitempty"`
	MayEscort    bool               `toml:"may_escort,omitempty"`
	Supervisor   bool               `toml:"supervisor,omitempty"`
	Exempt       bool               `toml:"exempt,omitempty"`
	Clearance    access.Threat      `toml:"clearance,omitempty"`
	PIN          string             `toml:"pin,omitempty"`
	DuressPIN    string             `toml:"duress_pin,omitempty"`
	TOTP         string             `toml:"totp,omitempty"`
	Instead      map[string]string  `toml:"instead,omitempty"`
	Visit        string             `toml:"visit,omitempty"`
	Ticket       string             `toml:"ticket,omitempty"`
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
	Code       string       `toml:"code,omitempty"`
	ID         string       `toml:"id,omitempty"`
	Door       string       `toml:"door,omitempty"`
	State      access.State `toml:"state,omitempty"`
	From       string       `toml:"from,omitempty"`
	Until      string       `toml:"until,omitempty"`
	BreakGlass bool         `toml:"break_glass,omitempty"`
}

// Export writes what Publish tells of a controller as a file: for one that no
// network reaches. Of a visitor with several visits it tells the one that is on, or
// else the next. What goes out is a line of the audit.
func (r *Registry) Export(ctx context.Context, c Change, controller string) (out Export, err error) {
	p := policy{Doors: make(map[string]policyDoor), Areas: make(map[string]policyArea)}
	err = r.view(ctx, controller, func(now *publication) error {
		for _, d := range now.doors {
			out.Doors = append(out.Doors, d.Name)
		}
		words, err := now.publish(0, 0, func(h *allowlist.Holder) error {
			if n := len(p.People); n > 0 && p.People[n-1].Person == h.Entry.Person {
				return nil
			}
			person, err := r.exported(h)
			p.People = append(p.People, person)
			out.Credentials += len(person.Credentials)
			return err
		})
		p.words(words)
		return err
	})
	if err != nil {
		return Export{}, err
	}
	out.People = len(p.People)
	var b bytes.Buffer
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(p); err != nil {
		return Export{}, fmt.Errorf("write the policy: %w", err)
	}
	if b.Len() > maxExport {
		return Export{}, fmt.Errorf("the policy has %d MiB, and an import reads no more than %d: have it published", b.Len()>>20, maxExport>>20)
	}
	out.TOML = b.Bytes()
	if err := r.write(ctx, c, func(t *tx) error {
		return t.line(Line{Action: actionExport, Kind: kindController, ID: controller, After: t.r.hash(objectName{kindController, controller}, out.TOML)})
	}); err != nil {
		return Export{}, err
	}
	return out, nil
}

// words takes what doors, areas and schedules say.
func (p *policy) words(w allowlist.Rules) {
	p.Holidays, p.Schedules = w.Holidays, w.Schedules
	for name, a := range w.Areas {
		p.Areas[name] = policyArea(a)
	}
	for name, s := range w.Sites {
		p.Doors[name] = policyDoor{
			Into: s.Into, OutOf: s.OutOf, ServerRoom: s.ServerRoom, TwoPerson: s.TwoPerson, Together: s.Together, Interlock: s.Interlock, Free: s.Free,
			FirstPerson: s.FirstPerson, Disabled: s.Disabled, StaleAfter: s.StaleAfter, ExpiredAfter: s.ExpiredAfter,
			ExpiredKinds: s.ExpiredKinds, ClockUnsetKinds: s.ClockUnsetKinds,
		}
	}
	for name, rules := range w.Doors {
		d := p.Doors[name]
		for _, rule := range rules {
			d.Rules = append(d.Rules, policyRule(rule))
		}
		p.Doors[name] = d
	}
}

// exported is somebody in the words of the file.
func (r *Registry) exported(h *allowlist.Holder) (policyPerson, error) {
	e := &h.Entry
	out := policyPerson{Person: e.Person, Name: h.Name, Kind: e.Kind, Extended: e.Extended, Operator: e.Operator,
		Escorted: e.Escorted, MayEscort: e.MayEscort, Supervisor: e.Supervisor, Exempt: e.Exempt, Clearance: e.Clearance,
		PIN: h.PIN, DuressPIN: h.DuressPIN, Rights: bySchedule(h.Rights)}
	if e.TOTP != nil {
		out.TOTP = encodeTOTP(e.TOTP)
	}
	if len(e.Instead) > 0 {
		out.Instead = make(map[string]string)
	}
	for _, s := range e.Instead {
		out.Instead[s.Of.String()] = s.By.String()
	}
	if v := e.Visit; v != nil {
		out.Visit, out.Ticket, out.Host, out.Organisation, out.Purpose = v.ID, v.Ticket, v.Host, v.Organisation, v.Purpose
		out.Escort, out.Authoriser, out.IDForm = v.Escort, v.Authoriser, v.IDForm
	}
	for i := range h.Credentials {
		c, err := r.exportedCredential(e, &h.Credentials[i])
		if err != nil {
			return out, fmt.Errorf("person %s: %w", e.Person, err)
		}
		out.Credentials = append(out.Credentials, c)
	}
	return out, nil
}

// bySchedule gathers the doors of each schedule.
func bySchedule(rights []allowlist.Right) []policyRight {
	doors := make(map[string][]string)
	for _, r := range rights {
		doors[r.Schedule] = append(doors[r.Schedule], r.Door)
	}
	var out []policyRight
	for _, schedule := range slices.Sorted(maps.Keys(doors)) {
		out = append(out, policyRight{sorted(doors[schedule]), schedule})
	}
	return out
}

func (r *Registry) exportedCredential(e *access.Entry, c *allowlist.Held) (policyCredential, error) {
	out := policyCredential{Biometric: c.Biometric, Code: c.Code, ID: c.CodeID, Door: c.CodeDoor, State: c.State, BreakGlass: c.BreakGlass}
	if c.Code != "" {
		out.State = ""
	}
	if c.Card != nil {
		format, ok := r.o.Formats.Format(c.Card.Format)
		if !ok {
			return out, fmt.Errorf("format %q of a card is not known any more", c.Card.Format)
		}
		out.Format = c.Card.Format
		out.card(format, *c.Card)
	}
	from, until, _ := within(e.From, e.Until, c.From, c.Until)
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
