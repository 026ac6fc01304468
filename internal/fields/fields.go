// Package fields reads what people write into the fields of files and forms:
// names, texts and moments, and gathers by their lines what is wrong with them.
package fields

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// NameRule says what IsName asks of a name.
const NameRule = "use 1 to 64 letters, digits, dots, dashes and underscores"

// Bounds in time outside these years are slips of the pen.
const FirstYear, LastYear = 2000, 2200

// IsName says whether s is 1 to 64 letters, digits, dots, dashes and
// underscores, as are the names of people, doors and schedules.
func IsName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// CheckText says why s is no text of one line and at most so many bytes.
func CheckText(s string, most int) error {
	switch {
	case len(s) > most:
		return fmt.Errorf("is longer than %d bytes", most)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8: save files as UTF-8")
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("has a control character")
	}
	return nil
}

// Quote quotes what came from outside, cut to what is needed to find it. Digits
// alone are masked: in a file whose columns are mixed up they may be a card's.
func Quote(s string) string {
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
	return time.Time{}, fmt.Errorf("%s is not a time such as 2026-03-01, 2026-03-01T08:00 or 2026-03-01T08:00:00+01:00", Quote(s))
}
