package allowlist

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Holder is a person as a controller's doors know them, with what they may
// carry. It holds secrets in clear: it is not logged, and not kept.
type Holder struct {
	// Entry is the person. Its rights, its hashes, its code and its state are not
	// looked at: they are made of what follows.
	Entry access.Entry
	Name  string // sealed, never in records
	// Source names where the rights come from, such as the person's groups in
	// order. Two people of one source have the same rights.
	Source string
	Rights []Right
	// PIN and DuressPIN are decimal digits; empty: there is none.
	PIN, DuressPIN string
	Credentials    []Held
}

// Right is a right to one door, or to access.EveryDoor, within a schedule of the
// policy.
type Right struct{ Door, Schedule string }

// Held is something by which somebody is known: a card, a one-time code, or their
// finger or eye alone. It is exactly one of the three.
type Held struct {
	Card      *badge.Credential
	Biometric bool
	Code      string // decimal digits
	CodeID    string // as records name the code
	CodeDoor  string // the only one that it opens
	State     access.State
	// From and Until bound it further than the person's own bounds; zero: they do
	// not.
	From, Until time.Time
	BreakGlass  bool
	// Removed says that the doors are to forget it.
	Removed bool
}

// Row is one row of an allowlist on its way from the CRM to a controller. An
// Entry of nil says that the row is to be removed.
type Row struct {
	Key   [16]byte
	Entry []byte
}

// Builder makes the rows and the policy of one controller. Rows name their rights
// by the number of a profile, and what a profile allows stands in the policy: so a
// group's new right changes the policy and no row. It is not for several
// goroutines.
type Builder struct {
	index    Indexer
	profiles []builtProfile
	numbers  map[string]uint64 // by source
}

type builtProfile struct {
	source string
	rights []right
	known  bool // rights was given
}

// NewBuilder returns a Builder for the controller with this index. Profiles are
// what Profiles gave when the version was made that this one goes on from, so that
// its rows stay as they are; nil: there is none.
func NewBuilder(index Indexer, profiles []string) *Builder {
	b := &Builder{index: index, numbers: make(map[string]uint64, len(profiles))}
	for _, source := range profiles {
		b.number(source)
	}
	return b
}

// Profiles are the sources of rights that were met so far, in an order that
// NewBuilder takes.
func (b *Builder) Profiles() []string {
	sources := make([]string, len(b.profiles))
	for i, p := range b.profiles {
		sources[i] = p.source
	}
	return sources
}

func (b *Builder) number(source string) uint64 {
	n, ok := b.numbers[source]
	if !ok {
		n = uint64(len(b.profiles))
		b.profiles = append(b.profiles, builtProfile{source: source})
		b.numbers[source] = n
	}
	return n
}

// Define says what the people of a source may. It is an error to say different
// things of one.
func (b *Builder) Define(source string, rights []Right) error {
	_, err := b.define(source, rights)
	return err
}

func (b *Builder) define(source string, rights []Right) (uint64, error) {
	n := b.number(source)
	p := &b.profiles[n]
	given := make([]right, len(rights))
	for i, r := range rights {
		given[i] = right(r)
	}
	given = sortRights(given)
	if p.known && !slices.Equal(p.rights, given) {
		return 0, fmt.Errorf("two people of the source %s have different rights", fields.Quote(source))
	}
	p.rights, p.known = given, true
	return n, nil
}

// sortRights puts rights into the one order that says the same.
func sortRights(rights []right) []right {
	slices.SortFunc(rights, func(a, b right) int {
		return cmp.Or(cmp.Compare(a.Door, b.Door), cmp.Compare(a.Schedule, b.Schedule))
	})
	return slices.Compact(rights)
}

// Rows makes the rows of a person, in the order of their credentials. No error
// holds a number or a digit.
func (b *Builder) Rows(h *Holder) ([]Row, error) {
	rows, err := b.rows(h)
	if err != nil {
		return nil, fmt.Errorf("person %s: %w", fields.Quote(h.Entry.Person), err)
	}
	return rows, nil
}

func (b *Builder) rows(h *Holder) ([]Row, error) {
	person, err := b.person(h)
	if err != nil {
		return nil, err
	}
	var profile uint64
	if slices.ContainsFunc(h.Credentials, func(c Held) bool { return !c.Removed }) {
		if profile, err = b.define(h.Source, h.Rights); err != nil {
			return nil, err
		}
	}
	rows := make([]Row, 0, len(h.Credentials))
	for i := range h.Credentials {
		c := &h.Credentials[i]
		key, format, err := b.key(person.Person, c)
		switch {
		case err != nil:
			return nil, err
		case c.Removed:
			rows = append(rows, Row{Key: key})
			continue
		case place(states[:], c.State) < 0:
			return nil, fmt.Errorf("a credential has the state %q, which is not known", c.State)
		case c.BreakGlass && c.Card == nil:
			return nil, errors.New("only a card breaks the glass")
		}
		s := stored{entry: person, profile: profile, name: h.Name, format: format}
		s.entry.State, s.entry.BreakGlass = c.State, c.BreakGlass
		s.entry.From, s.entry.Until = within(&person, c)
		if c.Code != "" {
			s.entry.Code = &access.Code{ID: c.CodeID, Door: c.CodeDoor}
		}
		rows = append(rows, Row{Key: key, Entry: appendEntry(nil, &s)})
	}
	return rows, nil
}

// person is the part of the entries that all credentials share.
func (b *Builder) person(h *Holder) (access.Entry, error) {
	e := h.Entry
	switch {
	case !fields.IsName(e.Person):
		return e, errors.New(fields.NameRule)
	case place(kinds[:], e.Kind) < 0:
		return e, fmt.Errorf("kind %q is not known", e.Kind)
	case e.Clearance > access.MaxThreat:
		return e, fmt.Errorf("clearance %d is above %d", e.Clearance, access.MaxThreat)
	case h.DuressPIN != "" && (h.PIN == "" || h.PIN == h.DuressPIN):
		return e, errors.New("the duress PIN is there without a PIN, or is the same")
	}
	e.Rights, e.PIN, e.DuressPIN, e.Code, e.BreakGlass = nil, nil, nil, nil, false
	for _, p := range [...]struct {
		digits string
		to     *[]byte
	}{{h.PIN, &e.PIN}, {h.DuressPIN, &e.DuressPIN}} {
		if p.digits == "" {
			continue
		}
		if !validPIN(p.digits) {
			return e, fmt.Errorf("a PIN is not %d to %d digits", minPIN, maxPIN)
		}
		sum := hashPIN(b.index, e.Person, []byte(p.digits))
		*p.to = sum[:]
	}
	return e, nil
}

// key is the key of a row, and what stands in it for the card's format.
func (b *Builder) key(person string, c *Held) (key [16]byte, format string, err error) {
	switch {
	case c.Card != nil && !c.Biometric && c.Code == "":
		return b.index.Index(c.Card.Canonical()), c.Card.Format, nil
	case c.Card == nil && c.Biometric && c.Code == "":
		return personKey(b.index, person), BiometricFormat, nil
	case c.Card == nil && !c.Biometric && c.Code != "":
		if strings.Trim(c.Code, "0123456789") != "" {
			return key, "", errors.New("a one-time code is not of digits alone")
		}
		return codeKey(b.index, []byte(c.Code)), CodeFormat, nil
	}
	return key, "", errors.New("a credential is not exactly one of card, biometric and one-time code")
}

// within are the bounds within which both the person and the credential hold.
func within(person *access.Entry, c *Held) (from, until time.Time) {
	from, until = person.From, person.Until
	if c.From.After(from) {
		from = c.From
	}
	if !c.Until.IsZero() && (until.IsZero() || c.Until.Before(until)) {
		until = c.Until
	}
	return from, until
}

// Policy writes the policy's document: what doors ask for, and the rights of the
// profiles. A profile that nobody was visited of and that was not defined has no
// rights: where only people who changed were visited, Define the others first.
func (b *Builder) Policy(words Rules) ([]byte, error) {
	p := policy{Rules: words, Profiles: make([][]right, len(b.profiles))}
	for i, built := range b.profiles {
		p.Profiles[i] = built.rights
	}
	content, err := p.marshal()
	if err != nil {
		return nil, err
	}
	if _, err := parsePolicy(content); err != nil { // as every door will
		return nil, fmt.Errorf("policy: %w", err)
	}
	return content, nil
}
