package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Credential is a card, or stands for the finger or eye of somebody who may be
// identified without one.
type Credential struct {
	ID         string       `json:"credential"`
	Person     string       `json:"person,omitempty"`   // who has it; of a visitors' badge "": nobody
	Visitors   bool         `json:"visitors,omitempty"` // a badge that is lent to one visitor after another
	Biometric  bool         `json:"biometric,omitempty"`
	Format     string       `json:"format,omitempty"` // of the card
	Ends       string       `json:"ends,omitempty"`   // the last two digits of its number
	State      access.State `json:"state"`
	From       time.Time    `json:"from,omitzero"`  // zero: the person's
	Until      time.Time    `json:"until,omitzero"` // zero: the person's; exclusive
	BreakGlass bool         `json:"break_glass,omitempty"`

	card *badge.Credential // nil: none. A pointer, so that nothing prints it
}

// SetCard gives the credential its card.
func (c *Credential) SetCard(card badge.Credential) { c.card = &card }

func (*Credential) kind() Kind    { return KindCredential }
func (c *Credential) key() string { return c.ID }
func (c *Credential) secret() any { return &c.card }

func (c *Credential) settle() {
	instant(&c.From)
	instant(&c.Until)
	c.Format, c.Ends = "", ""
	if c.card != nil {
		c.Format, c.Ends = c.card.Format, fmt.Sprintf("%02d", c.card.Number%100)
	}
}

func (c *Credential) links() []link {
	if c.Person == "" {
		return nil
	}
	return []link{to("person", KindPerson, c.Person)}
}

// biometricPrefix begins what the keyed hash of a person without a card is of.
const biometricPrefix = "\x00biometric\x00"

func (c *Credential) lookup(index Indexer) []byte {
	var sum [16]byte
	switch {
	case c.card != nil:
		sum = index.Index(c.card.Canonical())
	case c.Biometric:
		sum = index.Index([]byte(biometricPrefix + c.Person))
	default:
		return nil
	}
	return sum[:]
}

func (c *Credential) check(t *tx, before object, f *faults) error {
	f.name("credential", c.ID)
	was, _ := before.(*Credential)
	if was == nil {
		was = &Credential{Person: c.Person, Visitors: c.Visitors}
		if c.Visitors && c.Person != "" {
			f.add("person", "a visitors' badge is nobody's until it is issued")
		}
	}
	switch {
	case c.Visitors != was.Visitors:
		f.add("visitors", "a card stays what it is: register another")
	case c.Person != was.Person && !c.Visitors:
		f.add("person", "a card stays its person's: register another")
	case c.Person != was.Person && !t.guided:
		f.add("person", "a visitors' badge is issued at check-in, and surrendered")
	case c.Visitors && c.Person != "" && c.State == access.Active && was.State != access.Active && !t.guided:
		f.add("state", "a visitors' badge that is found is surrendered, so that it is nobody's again")
	}
	switch c.State {
	case access.Active, access.Lost, access.Revoked:
	default:
		f.add("state", "%s: use active, lost or revoked", fields.Quote(string(c.State)))
	}
	f.bounds(c.From, c.Until)
	c.checkCard(t.r.o.Formats, f)
	switch {
	case c.Visitors && (c.Biometric || c.BreakGlass):
		f.add("visitors", "a visitors' badge is a plain card, which breaks no glass")
	case c.Visitors && !(c.From.IsZero() && c.Until.IsZero()):
		f.add("visitors", "a visitors' badge is valid as long as the visit")
	case c.Visitors && c.Person == "":
		return nil
	case c.Person == "":
		f.add("person", "is missing: say whose it is")
		return nil
	}
	p, err := t.personOf(c.Person)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil // which is told already
	case err != nil:
		return err
	}
	c.checkHolder(p, f)
	if _, _, ok := within(p.From, p.Until, c.From, c.Until); !ok {
		f.add("until", "it would never be valid, as the person is valid in other bounds")
	}
	return nil
}

// checkHolder checks that a person may have the credential.
func (c *Credential) checkHolder(p *Person, f *faults) {
	switch {
	case c.State == access.Active && !p.Left.IsZero():
		f.add("person", "%s has left, and credential %s is active", p.ID, c.ID)
	case c.Visitors != (p.Kind == access.Visitor):
		f.add("person", "%s is %s: visitors have visitors' badges, and nobody else has one (%s)", p.ID, p.Kind, c.ID)
	}
}

func (c *Credential) checkCard(formats Formats, f *faults) {
	switch {
	case c.Biometric && c.card != nil:
		f.add("biometric", "it stands for the person's finger or eye: give no card with it")
	case c.Biometric && c.BreakGlass:
		f.add("break_glass", "only a card breaks the glass")
	case c.card == nil && !c.Biometric:
		f.add("format", "the card is missing")
	}
	if c.card == nil {
		return
	}
	format, ok := formats.Format(c.card.Format)
	if !ok {
		f.add("format", "%s is not known: see `gatehouse-crm credentials formats`", fields.Quote(c.card.Format))
		return
	}
	for _, v := range [...]uint64{c.card.Facility, c.card.Number, c.card.Issue, c.card.OEM} {
		if v > math.MaxInt64 {
			f.add("number", "a number of the card is larger than an allowlist takes")
			return
		}
	}
	if _, err := format.Encode(*c.card); err != nil {
		f.add("number", "it is no card of format %s: a number is out of its range", c.card.Format)
	}
}

// leaves says whether a door may know a card that it was and is not any more.
func (c *Credential) leaves(after object) bool {
	v, ok := after.(*Credential)
	return !ok || c.Biometric != v.Biometric || !reflect.DeepEqual(c.card, v.card)
}

func (c *Credential) mayGo() error {
	switch {
	case c.State != access.Revoked:
		return refused("it is not revoked: revoke it first, so that the doors hear of that")
	case c.Visitors && c.Person != "":
		return refused("a visitor has it: have it surrendered first")
	}
	return nil
}

// WithCard finds the credential that is a card; ErrNotFound where none is.
func (r *Registry) WithCard(ctx context.Context, card badge.Credential) (Row[Credential], error) {
	return r.withCard(ctx, r.r, card)
}

func (r *Registry) withCard(ctx context.Context, q queryer, card badge.Credential) (Row[Credential], error) {
	return r.lookup(ctx, q, (&Credential{card: &card}).lookup(r.o.Index))
}

func (r *Registry) lookup(ctx context.Context, q queryer, hash []byte) (Row[Credential], error) {
	o, err := scanStored(q.QueryRowContext(ctx, `SELECT `+objectColumns+` FROM object WHERE lookup = $1`, hash))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Row[Credential]{}, fmt.Errorf("the card is %w", ErrNotFound)
	case err != nil:
		return Row[Credential]{}, fmt.Errorf("find a card: %w", err)
	}
	return r.Credentials.row(o)
}
