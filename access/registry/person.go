package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Person is somebody who may enter, or once might. Staff and contractors enter
// by the rights of their groups; visitors by their visits.
type Person struct {
	ID       string            `json:"person"` // pseudonymous, as it stands in records
	Name     string            `json:"name,omitempty"`
	Kind     access.Kind       `json:"kind"`
	Groups   []string          `json:"groups,omitempty"`
	From     time.Time         `json:"from,omitzero"`  // zero: no lower bound
	Until    time.Time         `json:"until,omitzero"` // zero: no upper bound; exclusive
	Extended bool              `json:"extended,omitempty"`
	Operator bool              `json:"operator,omitempty"`
	Instead  map[string]string `json:"instead,omitempty"` // factors by those that they stand for
	HasPIN   bool              `json:"has_pin,omitempty"`
	HasSign  bool              `json:"has_duress_pin,omitempty"`
	Left     time.Time         `json:"left,omitzero"` // zero: still here

	pins *pins // nil: none. A pointer, so that nothing prints them
}

type pins struct {
	PIN    string `json:"pin"`
	Duress string `json:"duress,omitempty"`
}

// The length of a PIN, in decimal digits.
const minPIN, maxPIN = 4, 16

// SetPIN gives the person a PIN of 4 to 16 digits, and another one for when
// they are threatened; two empty ones take both away. What is wrong with them is
// said when the person is written.
func (p *Person) SetPIN(pin, duress string) {
	p.pins = &pins{pin, duress}
	if pin == "" && duress == "" {
		p.pins = nil
	}
}

func (*Person) kind() Kind            { return KindPerson }
func (p *Person) key() string         { return p.ID }
func (p *Person) secret() any         { return &p.pins }
func (*Person) lookup(Indexer) []byte { return nil }

func (p *Person) settle() {
	instant(&p.From)
	instant(&p.Until)
	instant(&p.Left)
	p.Groups = sorted(p.Groups)
	if len(p.Instead) == 0 {
		p.Instead = nil
	}
	p.HasPIN = p.pins != nil
	p.HasSign = p.pins != nil && p.pins.Duress != ""
}

// sorted is the list without repetitions; nil where it is empty.
func sorted(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

func (p *Person) links() []link {
	links := make([]link, 0, len(p.Groups))
	for _, g := range p.Groups {
		links = append(links, to("groups", KindGroup, g))
	}
	return links
}

func (p *Person) check(t *tx, before object, f *faults) error {
	if !fields.IsName(p.ID) {
		f.add("person", "%s: %s; it stands in records, so it should not be a name", fields.Quote(p.ID), fields.NameRule)
	}
	f.text("name", p.Name, maxText)
	switch p.Kind {
	case access.Staff, access.Contractor:
	case access.Visitor:
		if len(p.Groups) > 0 {
			f.add("groups", "a visitor enters by a visit and not by groups")
		}
		if p.Operator {
			f.add("operator", "a visitor enrols nobody")
		}
		if !p.From.IsZero() || !p.Until.IsZero() {
			f.add("until", "a visitor is valid as long as the visit")
		}
	default:
		f.add("kind", "%s: use staff, contractor or visitor", fields.Quote(string(p.Kind)))
	}
	f.bounds(p.From, p.Until)
	p.checkPINs(f)
	p.checkInstead(f)
	var left time.Time
	if was, ok := before.(*Person); ok {
		left = was.Left
	}
	if !t.guided && !p.Left.Equal(left) {
		f.add("left", "who has left is said by `gatehouse-crm people remove`")
	}
	if !p.Left.IsZero() && (len(p.Groups) > 0 || p.pins != nil || p.Operator) {
		f.add("left", "somebody who has left is in no group, has no PIN and is no operator")
	}
	if before == nil {
		return nil // nothing names who is new
	}
	return p.checkCredentials(t, f)
}

func (p *Person) checkPINs(f *faults) {
	if p.pins == nil {
		return
	}
	for _, v := range [...]struct{ field, digits string }{{"pin", p.pins.PIN}, {"duress_pin", p.pins.Duress}} {
		if n := len(v.digits); n > 0 && (n < minPIN || n > maxPIN || strings.Trim(v.digits, "0123456789") != "") {
			f.add(v.field, "is not %d to %d digits", minPIN, maxPIN)
		}
	}
	switch {
	case p.pins.PIN == "":
		f.add("duress_pin", "without a pin: give both")
	case p.pins.PIN == p.pins.Duress:
		f.add("duress_pin", "is the same as pin: nobody could tell a threat")
	}
}

func (p *Person) checkInstead(f *faults) {
	for _, name := range slices.Sorted(maps.Keys(p.Instead)) {
		of, errOf := access.ParseFactors(name)
		by, errBy := access.ParseFactors(p.Instead[name])
		switch {
		case errOf != nil || errBy != nil || of.Count() != 1 || by.Count() != 1 || of.String() != name || by.String() != p.Instead[name]:
			f.add("instead", "%s by %s: each is one of pin, fingerprint, iris", fields.Quote(name), fields.Quote(p.Instead[name]))
		case of == by:
			f.add("instead", "instead of %s stands %s itself", of, by)
		case of == access.Badge:
			f.add("instead", "nothing stands instead of a badge: give the person a biometric credential")
		case by == access.PIN && p.pins == nil:
			f.add("instead", "instead of %s the person gives a pin, but has none", of)
		}
		if _, chain := p.Instead[by.String()]; chain && of != by {
			f.add("instead", "instead of %s the person gives %s, and something else instead of that: name what they do give", of, by)
		}
	}
}

// checkCredentials holds the credentials that are there to what the person has
// become.
func (p *Person) checkCredentials(t *tx, f *faults) error {
	return t.eachNaming(KindCredential, p.objectName(), func(v object) error {
		c := v.(*Credential)
		if _, _, ok := within(p, c); !ok {
			f.add("until", "credential %s would never be valid: change its bounds first", c.ID)
		}
		c.checkHolder(p, f)
		return nil
	})
}

func (p *Person) objectName() objectName { return objectName{KindPerson, p.ID} }

// within are the bounds in which both a person and a credential are valid, and
// whether anything is left of them.
func within(p *Person, c *Credential) (from, until time.Time, ok bool) {
	from, until = p.From, p.Until
	if c.From.After(from) {
		from = c.From
	}
	if until.IsZero() || !c.Until.IsZero() && c.Until.Before(until) {
		until = c.Until
	}
	return from, until, from.IsZero() || until.IsZero() || from.Before(until)
}

// eachNaming calls f with every object of a kind that names another.
func (t *tx) eachNaming(kind Kind, to objectName, f func(object) error) error {
	names, err := naming(t.ctx, t, kind, to)
	if err != nil {
		return err
	}
	for _, name := range names {
		o, err := t.old(name)
		if err != nil {
			return err
		}
		if err := f(o.value); err != nil {
			return err
		}
	}
	return nil
}

var errPeopleStay = errors.New("records name people for years; say that the person has left")

func (*Person) mayGo() error { return errPeopleStay }

// NewID is a new id that says nothing, such as p-k3v9x2mq7d.
func NewID(prefix string) string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return prefix + "-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// Left is what became of a person who has left.
type Left struct {
	Person    string    `json:"person"`
	At        time.Time `json:"at"`
	Revoked   []string  `json:"revoked,omitempty"`   // credentials
	Groups    []string  `json:"groups,omitempty"`    // that they were in
	Cancelled []string  `json:"cancelled,omitempty"` // visits that were planned with them as host or visitor
	// Open are visits that need somebody to see to them: visitors who are inside
	// and whose host or escort has left, visits that another is planned to host
	// and this one to escort, and this one's own, where they are inside.
	Open []string `json:"open,omitempty"`
}

// What the audit says of somebody who leaves.
const (
	actionLeave  = "leave"
	actionRevoke = "revoke"
)

// Leave takes away all that somebody has: credentials are revoked, the visitors'
// badge that they have too, groups left, PIN and office forgotten, and what they
// were to host is cancelled. The person stays, as records name them. Version is as
// of Update.
func (r *Registry) Leave(ctx context.Context, c Change, id string, version uint64) (left Left, err error) {
	err = r.guided(ctx, c, func(t *tx) error {
		if _, err := t.at(objectName{KindPerson, id}, version); err != nil {
			return err
		}
		left, err = t.leave(id)
		return err
	})
	return left, err
}

func (t *tx) leave(id string) (Left, error) {
	left := Left{Person: id, At: t.now.Truncate(time.Second)}
	name := objectName{KindPerson, id}
	// Before the person: who has left has no active credential.
	err := t.eachNaming(KindCredential, name, func(v object) error {
		if v.(*Credential).State == access.Revoked {
			return nil
		}
		left.Revoked = append(left.Revoked, v.key())
		_, err := t.r.Credentials.update(t, actionRevoke, v.key(), 0, func(c *Credential) error {
			c.State = access.Revoked
			return nil
		})
		return err
	})
	if err != nil {
		return left, err
	}
	if _, err := t.r.People.update(t, actionLeave, id, 0, func(p *Person) error {
		if !p.Left.IsZero() {
			return fmt.Errorf("person %q has left already, on %s", id, p.Left.Format(time.DateOnly))
		}
		left.Groups = p.Groups
		p.Groups, p.Operator, p.Instead, p.Left = nil, false, nil, left.At
		p.SetPIN("", "")
		return nil
	}); err != nil {
		return left, err
	}
	return left, t.eachNaming(KindVisit, name, func(o object) error {
		v := o.(*Visit)
		switch {
		case v.State() == VisitPlanned && (v.Host == id || v.Visitor == id):
			left.Cancelled = append(left.Cancelled, v.ID)
			return t.closeVisit(v.ID, CloseCancelled)
		case v.State() == VisitPlanned && v.Escort == id, v.State() == VisitIn && v.Authoriser != id:
			left.Open = append(left.Open, v.ID)
		}
		return nil
	})
}

// personOf reads somebody whom an object names.
func (t *tx) personOf(id string) (*Person, error) {
	o, err := t.old(objectName{KindPerson, id})
	if err != nil {
		return nil, err
	}
	return o.value.(*Person), nil
}

// standing checks that somebody is of a kind and has not left. That nobody is
// there is checked elsewhere.
func (t *tx) standing(f *faults, field, id string, kinds ...access.Kind) (*Person, error) {
	p, err := t.personOf(id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case !p.Left.IsZero():
		f.add(field, "%s has left", id)
	case !slices.Contains(kinds, p.Kind):
		f.add(field, "%s is %s: it must be %s", id, cmp.Or(p.Kind, "of no kind"), orList(kinds))
	}
	return p, nil
}

func orList(kinds []access.Kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, " or ")
}
