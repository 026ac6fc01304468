package allowlist

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// personal is what few people have beside their card. All rows of a person share
// one; nil stands for one with nothing in it.
type personal struct {
	operator    bool
	pin, duress []byte                // keyed hashes; nil: none
	instead     []access.Substitution // by what they stand for
}

// differs names the first thing in which two people differ; "" if there is none.
func (p *personal) differs(q *personal) string {
	if p == nil {
		p = &personal{}
	}
	if q == nil {
		q = &personal{}
	}
	switch {
	case p.operator != q.operator:
		return "operator"
	case !bytes.Equal(p.pin, q.pin):
		return "pin"
	case !bytes.Equal(p.duress, q.duress):
		return "duress_pin"
	case !slices.Equal(p.instead, q.instead):
		return "instead"
	}
	return ""
}

// said is what a file says of a person beside the card.
type said struct {
	operator    bool
	pin, duress string
	instead     [][2]string // of, by
	unread      bool        // something of it could not be read, which was said
}

// personal checks what is said of a person. No fault holds a digit of a PIN.
func (p *planner) personal(line int, person string, s said) *personal {
	out := &personal{operator: s.operator}
	for _, v := range [...]struct {
		name, digits string
		to           *[]byte
	}{{"pin", s.pin, &out.pin}, {"duress_pin", s.duress, &out.duress}} {
		switch {
		case v.digits == "":
		case !validPIN(v.digits):
			p.faults.Add(line, "%s is not %d to %d digits", v.name, minPIN, maxPIN)
		default:
			sum := hashPIN(p.o.Index, person, []byte(v.digits))
			*v.to = sum[:]
		}
	}
	switch {
	case s.unread || s.duress == "":
	case s.pin == "":
		p.faults.Add(line, "duress_pin without a pin: give both")
	case s.pin == s.duress:
		p.faults.Add(line, "duress_pin is the same as pin: nobody could tell a threat")
	}
	for _, w := range s.instead {
		out.instead = p.substitution(out.instead, line, w[0], w[1], s.pin != "" || s.unread)
	}
	for _, a := range out.instead {
		for _, b := range out.instead {
			if a != b && a.By == b.Of {
				p.faults.Add(line, "instead of %s the person gives %s, and instead of that %s: name what they do give", a.Of, a.By, b.By)
			}
		}
	}
	if out.differs(nil) == "" {
		return nil
	}
	return out
}

// substitution checks one and puts it in its place.
func (p *planner) substitution(all []access.Substitution, line int, of, by string, hasPIN bool) []access.Substitution {
	before := p.faults.Total()
	s := access.Substitution{Of: p.factor(line, of), By: p.factor(line, by)}
	switch {
	case p.faults.Total() > before:
		return all
	case s.Of == s.By:
		p.faults.Add(line, "instead of %s stands %s itself", s.Of, s.By)
	case s.Of == access.Badge:
		p.faults.Add(line, "nothing stands instead of a badge: give the person a biometric credential")
	case s.By == access.Badge:
		p.faults.Add(line, "instead of %s the person gives a badge, which anybody can carry: name it in a rule of the door, beside something else", s.Of)
	case s.By == access.PIN && !hasPIN:
		p.faults.Add(line, "instead of %s the person gives a pin, but has none", s.Of)
	}
	n, twice := slices.BinarySearchFunc(all, s, func(a, b access.Substitution) int { return cmp.Compare(a.Of, b.Of) })
	if twice {
		p.faults.Add(line, "instead has %s twice", s.Of)
	}
	return slices.Insert(all, n, s)
}

// factor reads the name of one factor.
func (p *planner) factor(line int, name string) access.Factor {
	f, err := access.ParseFactors(name)
	if err != nil || f.Count() != 1 {
		p.faults.Add(line, "instead: %s is not a factor: use pin, fingerprint, iris", fields.Quote(name))
		return 0
	}
	return f
}
