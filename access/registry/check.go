package registry

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

const (
	maxText     = 200 // bytes in a name, a reason and such
	maxIDForm   = 64  // characters in a form of identification
	maxTicket   = 64  // bytes
	maxPurpose  = maxText - maxTicket - len(" ()")
	longestList = 1000 // things that one object names
)

// Fault is what is wrong with one field. Its text has no card number and no
// digit of a PIN.
type Fault struct {
	Field string `json:"field"`
	Text  string `json:"text"`
}

// Invalid is all that is wrong with an object that was to be written.
type Invalid struct {
	Kind   Kind
	ID     string
	Faults []Fault
}

// Error has a line for each fault.
func (e *Invalid) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = strings.TrimSpace(fmt.Sprintf("%s %s", e.Kind, e.ID)) + ": " + f.Field + ": " + f.Text
	}
	return strings.Join(lines, "\n")
}

// faults gathers what is wrong with one object.
type faults []Fault

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, Fault{field, spelling.Printable(fmt.Sprintf(format, args...))})
}

// of is nil where there is no fault.
func (f faults) of(kind Kind, id string) error {
	if len(f) == 0 {
		return nil
	}
	return &Invalid{kind, id, f}
}

func (f *faults) name(field, s string) {
	if !fields.IsName(s) {
		f.add(field, "%s: %s", fields.Quote(s), fields.NameRule)
	}
}

func (f *faults) text(field, s string, most int) {
	if err := fields.CheckText(s, most); err != nil {
		f.add(field, "%v", err)
	}
}

func (f *faults) needed(field, s string) {
	if s == "" {
		f.add(field, "is missing")
	}
}

func (f *faults) bounds(from, until time.Time) {
	for _, b := range [...]struct {
		field string
		at    time.Time
	}{{"from", from}, {"until", until}} {
		if y := b.at.Year(); !b.at.IsZero() && (y < fields.FirstYear || y > fields.LastYear) {
			f.add(b.field, "the year %d is not between %d and %d", y, fields.FirstYear, fields.LastYear)
		}
	}
	if !from.IsZero() && !until.IsZero() && !from.Before(until) {
		f.add("until", "is not after from")
	}
}

// span checks a length of time that is given; 0 is not.
func (f *faults) span(field string, d, least, most Span) {
	if d != 0 && (d < least || d > most) {
		f.add(field, "%s is not between %s and %s", d, least, most)
	}
}

func (f *faults) kinds(field string, list []access.Kind) {
	for _, k := range list {
		switch k {
		case access.Staff, access.Contractor, access.Visitor:
		default:
			f.add(field, "%s: use staff, contractor or visitor", fields.Quote(string(k)))
		}
	}
}

// Span is a length of time, written as 30s, 10m or 1h30m.
type Span time.Duration

// String writes the span without what is zero in it.
func (d Span) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// word is the span as an allowlist has it; "" where there is none.
func (d Span) word() string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// MarshalText writes the span as String does.
func (d Span) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what String writes, and all else that time.ParseDuration
// reads.
func (d *Span) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a length of time such as 30s, 10m or 1h30m", fields.Quote(string(text)))
	}
	*d = Span(v)
	return nil
}

// instant is a moment as it is kept: in whole seconds, UTC.
func instant(t *time.Time) {
	if !t.IsZero() {
		*t = t.UTC().Truncate(time.Second)
	}
}

// validBy says whether s may name who changes something: a name, or an address.
func validBy(s string) bool { return fields.IsName(strings.ReplaceAll(s, "@", "_")) }

// lines adds a fault for each line of err's text.
func (f *faults) lines(field string, err error) {
	for text := range strings.SplitSeq(err.Error(), "\n") {
		f.add(field, "%s", text)
	}
}
