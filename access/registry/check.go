package registry

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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

const nameRule = "use 1 to 64 letters, digits, dots, dashes and underscores"

func (f *faults) name(field, s string) {
	if !validName(s) {
		f.add(field, "%s: %s", quote(s), nameRule)
	}
}

func (f *faults) text(field, s string, most int) {
	switch {
	case len(s) > most:
		f.add(field, "is longer than %d bytes", most)
	case !utf8.ValidString(s):
		f.add(field, "is not UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		f.add(field, "has a control character")
	}
}

func (f *faults) needed(field, s string) {
	if s == "" {
		f.add(field, "is missing")
	}
}

// Bounds outside these years are slips of the pen.
const firstYear, lastYear = 2000, 2200

func (f *faults) bounds(from, until time.Time) {
	for _, b := range [...]struct {
		field string
		at    time.Time
	}{{"from", from}, {"until", until}} {
		if y := b.at.Year(); !b.at.IsZero() && (y < firstYear || y > lastYear) {
			f.add(b.field, "the year %d is not between %d and %d", y, firstYear, lastYear)
		}
	}
	if !from.IsZero() && !until.IsZero() && !from.Before(until) {
		f.add("until", "is not after from")
	}
}

// instant is a moment as it is kept: in whole seconds, UTC.
func instant(t *time.Time) {
	if !t.IsZero() {
		*t = t.UTC().Truncate(time.Second)
	}
}

// validName says whether s is 1 to 64 letters, digits, dots, dashes and
// underscores, as allowlists want the names of people, doors and schedules.
func validName(s string) bool { return validOf(s, ".-_") }

func validBy(s string) bool { return validOf(s, ".-_@") }

func validOf(s, marks string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(marks, c) >= 0:
		default:
			return false
		}
	}
	return true
}

// quote quotes what came from outside, cut to what is needed to find it. Digits
// alone are masked: in the wrong place they may be a card's.
func quote(s string) string {
	const most = 40
	if len(s) > 3 && strings.Trim(s, "0123456789") == "" {
		return fmt.Sprintf("(a number of %d digits)", len(s))
	}
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// ParseMoment reads a moment: RFC 3339, or the wall clock of a zone as
// 2026-03-01T08:00, 2026-03-01 08:00 (with or without seconds) or a date alone,
// which is its first moment, or the first one after it where it is an end.
func ParseMoment(s string, zone *time.Location, end bool) (time.Time, error) {
	if d, err := time.ParseInLocation(time.DateOnly, s, zone); err == nil {
		if end {
			y, m, day := d.Date()
			d = time.Date(y, m, day+1, 0, 0, 0, 0, zone)
		}
		return d, nil
	}
	for _, layout := range [...]string{time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a time such as 2026-03-01, 2026-03-01T08:00 or 2026-03-01T08:00:00+01:00", quote(s))
}

// lines adds a fault for each line of err's text.
func (f *faults) lines(field string, err error) {
	for text := range strings.SplitSeq(err.Error(), "\n") {
		f.add(field, "%s", text)
	}
}
