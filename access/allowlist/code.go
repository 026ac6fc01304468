package allowlist

import (
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// CodeFormat stands where a card's format stands, for one-time codes.
const CodeFormat = "code"

const codePrefix = "\x00code\x00"

// codeKey is the key of the row of a one-time code.
func codeKey(index Indexer, digits []byte) [16]byte {
	b := make([]byte, 0, len(codePrefix)+len(digits)) // at once: no copy is left behind
	b = append(append(b, codePrefix...), digits...)
	defer clear(b)
	return index.Index(b)
}

// The length of a one-time code, in decimal digits.
const minCode, maxCode = 6, 12

// typed is a one-time code as it stands in a file. Its digits never go into a
// fault.
type typed struct{ digits, id, door string }

// code is what is kept of it beside its key.
func (t typed) code() *access.Code {
	if t == (typed{}) {
		return nil
	}
	return &access.Code{ID: t.id, Door: t.door}
}

func validCode(digits string) bool {
	return minCode <= len(digits) && len(digits) <= maxCode && strings.Trim(digits, "0123456789") == ""
}

// code checks a one-time code, and returns its key.
func (p *planner) code(line int, c card, t typed, biometric, breakGlass bool) (key [16]byte, format uint16) {
	if biometric || c.said() {
		p.faults.Add(line, "code stands in the place of a card: give no biometric, no format and no numbers of a card with it")
	}
	if breakGlass {
		p.faults.Add(line, "only a card breaks the glass")
	}
	if !validCode(t.digits) {
		p.faults.Add(line, "code is not %d to %d digits", minCode, maxCode)
	}
	p.checkCodeName(line, "id", t.id)
	if t.digits != "" && strings.Contains(t.id, t.digits) {
		p.faults.Add(line, "the code's id has the code in it, and stands in records: take another")
	}
	p.checkCodeName(line, "door", t.door)
	return codeKey(p.o.Index, []byte(t.digits)), p.formatNumber(CodeFormat)
}

func (p *planner) checkCodeName(line int, what, name string) {
	if !fields.IsName(name) {
		p.faults.Add(line, "the code's %s %s: "+fields.NameRule, what, withoutCode(name))
	}
}

var codeDigits = regexp.MustCompile(`[0-9]{6,}`)

// withoutCode quotes what may be a code that stands in the wrong place.
func withoutCode(s string) string { return codeDigits.ReplaceAllString(fields.Quote(s), "…") }

// codeOpens checks that a row's code, if it is one, is for a while only and for a
// door to which the person has a right.
func (p *planner) codeOpens(r *row) {
	if r.code == nil {
		return
	}
	if r.until == 0 {
		p.faults.Add(int(r.line), "a code without until would be valid for ever: say until when")
	}
	if door := r.code.Door; !slices.ContainsFunc(p.plan.profiles.all[r.profile], func(o right) bool { return o.Door == door || o.Door == access.EveryDoor }) {
		p.faults.Add(int(r.line), "the code is for door %s, to which the person has no right", withoutCode(door))
	}
}

// compareCodes finds ids of codes that stand for several: what is used up is known
// by its id.
func (p *planner) compareCodes() {
	first := make(map[string]uint32)
	for i := range uint32(p.plan.size()) {
		r := p.plan.row(i)
		if r.code == nil {
			continue
		}
		if line, twice := first[r.code.ID]; twice {
			p.faults.Add(int(r.line), "the code's id %s is in line %d too", fields.Quote(r.code.ID), line)
			continue
		}
		first[r.code.ID] = r.line
	}
}
