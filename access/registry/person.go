package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"maps"
	"math"
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
	HasTOTP  bool              `json:"has_totp,omitempty"`
	Left     time.Time         `json:"left,omitzero"` // zero: still here

	Escorted   bool          `json:"escorted,omitempty"`   // passes only together with somebody who may escort
	MayEscort  bool          `json:"may_escort,omitempty"` // others
	Supervisor bool          `json:"supervisor,omitempty"` // is a first person in
	Exempt     bool          `json:"exempt,omitempty"`     // from anti-passback
	Clearance  access.Threat `json:"clearance,omitempty"`  // the highest threat at which they still pass

	own *own // nil: nothing. A pointer, so that nothing prints it
}

// own is what a person knows or carries that proves who they are.
type own struct {
	PIN    string `json:"pin"`
	Duress string `json:"duress,omitempty"`
	TOTP   []byte `json:"totp,omitempty"` // the secret of RFC 6238
}

// The length of a PIN, in decimal digits.
const minPIN, maxPIN = 4, 16

// SetPIN gives the person a PIN of 4 to 16 digits, and another one for when
// they are threatened; two empty ones take both away. What is wrong with them is
// said when the person is written.
func (p *Person) SetPIN(pin, duress string) {
	p.setOwn(func(o *own) { o.PIN, o.Duress = pin, duress })
}

// setOwn changes what the person has, which others may hold a copy of.
func (p *Person) setOwn(f func(*own)) {
	var o own
	if p.own != nil {
		o = *p.own
	}
	f(&o)
	p.own = &o
	if o.PIN == "" && o.Duress == "" && o.TOTP == nil {
		p.own = nil
	}
}

func (*Person) kind() Kind            { return KindPerson }
func (p *Person) key() string         { return p.ID }
func (p *Person) secret() any         { return &p.own }
func (*Person) lookup(Indexer) []byte { return nil }

func (p *Person) settle() {
	instant(&p.From)
	instant(&p.Until)
	instant(&p.Left)
	p.Groups = sorted(p.Groups)
	if len(p.Instead) == 0 {
		p.Instead = nil
	}
	p.HasPIN = p.own != nil && p.own.PIN != ""
	p.HasSign = p.own != nil && p.own.Duress != ""
	p.HasTOTP = p.own != nil && p.own.TOTP != nil
}

// sorted is the list without repetitions; nil where it is empty.
func sorted[T cmp.Ordered](list []T) []T {
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
		if p.Escorted {
			f.add("escorted", "whether a visitor is escorted is said by the visit")
		}
		if p.MayEscort || p.Supervisor || p.Exempt || p.Clearance > 0 {
			f.add("kind", "a visitor escorts nobody, is no first person in, is exempt from nothing and has no clearance")
		}
		if !p.From.IsZero() || !p.Until.IsZero() {
			f.add("until", "a visitor is valid as long as the visit")
		}
	default:
		f.add("kind", "%s: use staff, contractor or visitor", fields.Quote(string(p.Kind)))
	}
	if p.Escorted && (p.MayEscort || p.Supervisor) {
		f.add("escorted", "somebody who is escorted may neither escort others nor be a first person in")
	}
	if p.Clearance > access.MaxThreat {
		f.add("clearance", "%d is not between 0 and %d", p.Clearance, access.MaxThreat)
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
	if !p.Left.IsZero() && (len(p.Groups) > 0 || p.own != nil || p.Operator || p.MayEscort || p.Supervisor || p.Exempt || p.Clearance > 0) {
		f.add("left", "somebody who has left is in no group, has no PIN and no one-time codes, and may do nothing for others")
	}
	if before == nil {
		return nil // nothing names who is new
	}
	return p.checkCredentials(t, f)
}

func (p *Person) checkPINs(f *faults) {
	if p.own == nil {
		return
	}
	for _, v := range [...]struct{ field, digits string }{{"pin", p.own.PIN}, {"duress_pin", p.own.Duress}} {
		if n := len(v.digits); n > 0 && (n < minPIN || n > maxPIN || strings.Trim(v.digits, "0123456789") != "") {
			f.add(v.field, "is not %d to %d digits", minPIN, maxPIN)
		}
	}
	switch {
	case p.own.PIN == "" && p.own.Duress == "":
	case p.own.PIN == "":
		f.add("duress_pin", "without a pin: give both")
	case p.own.PIN == p.own.Duress:
		f.add("duress_pin", "is the same as pin: nobody could tell a threat")
	}
}

func (p *Person) checkInstead(f *faults) {
	for _, name := range slices.Sorted(maps.Keys(p.Instead)) {
		of, errOf := access.ParseFactors(name)
		by, errBy := access.ParseFactors(p.Instead[name])
		switch {
		case errOf != nil || errBy != nil || of.Count() != 1 || by.Count() != 1 || of.String() != name || by.String() != p.Instead[name]:
			f.add("instead", "%s by %s: each is one of pin, fingerprint, iris, totp", fields.Quote(name), fields.Quote(p.Instead[name]))
		case of == by:
			f.add("instead", "instead of %s stands %s itself", of, by)
		case of == access.Badge:
			f.add("instead", "nothing stands instead of a badge: give the person a biometric credential")
		case by == access.PIN && (p.own == nil || p.own.PIN == ""):
			f.add("instead", "instead of %s the person gives a pin, but has none", of)
		case by == access.TOTP && (p.own == nil || p.own.TOTP == nil):
			f.add("instead", "instead of %s the person gives a one-time code, but has no device for them: `gatehouse-crm people totp`", of)
		case of == access.OneTimeCode || by == access.OneTimeCode:
			f.add("instead", "a code that is issued once stands in the place of a badge, and of nothing else")
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
		if _, _, ok := within(p.From, p.Until, c.From, c.Until); !ok {
			f.add("until", "credential %s would never be valid: change its bounds first", c.ID)
		}
		c.checkHolder(p, f)
		return nil
	})
}

func (p *Person) objectName() objectName { return objectName{KindPerson, p.ID} }

// within are the bounds in which both a person and what they carry are valid, and
// whether anything is left of them.
func within(personFrom, personUntil, itsFrom, itsUntil time.Time) (from, until time.Time, ok bool) {
	from, until = personFrom, personUntil
	if itsFrom.After(from) {
		from = itsFrom
	}
	if until.IsZero() || !itsUntil.IsZero() && itsUntil.Before(until) {
		until = itsUntil
	}
	return from, until, from.IsZero() || until.IsZero() || from.Before(until)
}

// eachNaming calls f with every object of a kind that names another.
func (t *tx) eachNaming(kind Kind, to objectName, f func(object) error) error {
	names, err := naming(t.ctx, t, kind, to, math.MaxInt32)
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

var errPeopleStay = refused("records name people for years; say that the person has left")

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
	Seq       uint64    `json:"seq"`                 // the last line of the audit that tells of it
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
		left.Seq = t.head.Seq
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
			return refused("person %q has left already, on %s", id, p.Left.Format(time.DateOnly))
		}
		left.Groups = p.Groups
		p.Groups, p.Operator, p.Instead, p.Left = nil, false, nil, left.At
		p.MayEscort, p.Supervisor, p.Exempt, p.Clearance = false, false, false, 0
		p.own = nil
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
		if v.State() == VisitIn && v.Visitor == id {
			return t.endCodes(v.ID, actionWithdraw, CodeWithdrawn)
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
