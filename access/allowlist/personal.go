package allowlist

import (
	"bytes"
	"cmp"
	"encoding/base32"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// personal is what few people have beside their card. All rows of a person share
// one; nil stands for one with nothing in it.
type personal struct {
	may
	pin, duress []byte                // keyed hashes; nil: none
	totp        []byte                // the secret; nil: none
	instead     []access.Substitution // by what they stand for
}

// may is what a person may do, or only with others.
type may struct {
	operator, escorted, mayEscort, supervisor, exempt bool
	clearance                                         access.Threat
}

// mayNames are the words of a file for those of may that are true or false.
var mayNames = [...]string{"operator", "escorted", "may_escort", "supervisor", "exempt"}

func (m *may) flags() [len(mayNames)]*bool {
	return [...]*bool{&m.operator, &m.escorted, &m.mayEscort, &m.supervisor, &m.exempt}
}

// differs names the first thing in which two people differ; "" if there is none.
func (p *personal) differs(q *personal) string {
	if p == nil {
		p = &personal{}
	}
	if q == nil {
		q = &personal{}
	}
	mine, theirs := p.flags(), q.flags()
	for i, name := range mayNames {
		if *mine[i] != *theirs[i] {
			return name
		}
	}
	switch {
	case p.clearance != q.clearance:
		return "clearance"
	case !bytes.Equal(p.totp, q.totp):
		return "totp"
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
	may
	pin, duress string
	totp        string
	instead     [][2]string // of, by
	unread      bool        // something of it could not be read, which was said
}

func (s *said) nothing() bool {
	return s.may == may{} && s.pin+s.duress+s.totp == "" && s.instead == nil
}

// personal checks what is said of a person. No fault holds a digit of a PIN or a
// letter of a TOTP's secret.
func (p *planner) personal(line int, person string, s said) *personal {
	out := &personal{may: s.may, totp: p.totp(line, s.totp)}
	if s.escorted && (s.mayEscort || s.supervisor) {
		p.faults.Add(line, "the person is escorted, and so may neither escort others nor be a first person in: take away escorted, or may_escort and supervisor")
	}
	if s.clearance > access.MaxThreat {
		p.faults.Add(line, "clearance is above %d, the level of a lockdown", access.MaxThreat)
	}
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
		out.instead = p.substitution(out.instead, line, w[0], w[1], s)
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

// totp reads the secret of a device that shows codes, as base32: what every such
// device takes. It never goes into a fault.
func (p *planner) totp(line int, text string) []byte {
	if text == "" {
		return nil
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.TrimRight(text, "=")))
	switch {
	case err != nil:
		p.faults.Add(line, "totp is not base32: letters and the digits 2 to 7, as the device takes them")
	case len(secret) < access.MinTOTPSecret || len(secret) > access.MaxTOTPSecret:
		p.faults.Add(line, "totp is a secret of %d bytes: use %d to %d", len(secret), access.MinTOTPSecret, access.MaxTOTPSecret)
	default:
		return secret
	}
	return nil
}

// substitution checks one and puts it in its place.
func (p *planner) substitution(all []access.Substitution, line int, of, by string, has said) []access.Substitution {
	before := p.faults.Total()
	s := access.Substitution{Of: p.factor(line, of), By: p.factor(line, by)}
	switch {
	case p.faults.Total() > before:
		return all
	case s.Of == s.By:
		p.faults.Add(line, "instead of %s stands %s itself", s.Of, s.By)
	case s.Of == access.OneTimeCode || s.By == access.OneTimeCode:
		p.faults.Add(line, "a one-time code is issued to be used once, and stands neither instead of anything nor anything instead of it")
	case s.Of == access.Badge:
		p.faults.Add(line, "nothing stands instead of a badge: give the person a biometric credential")
	case s.By == access.Badge:
		p.faults.Add(line, "instead of %s the person gives a badge, which anybody can carry: name it in a rule of the door, beside something else", s.Of)
	case s.By == access.PIN && has.pin == "" && !has.unread, s.By == access.TOTP && has.totp == "" && !has.unread:
		p.faults.Add(line, "instead of %s the person gives a %s, but has none", s.Of, s.By)
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
		p.faults.Add(line, "instead: %s is not a factor: use pin, fingerprint, iris, totp", fields.Quote(name))
		return 0
	}
	return f
}
