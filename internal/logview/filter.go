package logview

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/pflag"
)

// Filter chooses records. Empty fields choose all.
type Filter struct {
	Since, Until time.Time // by the record's own time; Until is exclusive
	Door         string
	Person       string
	Types        []visitorlog.Type
	Decision     string // granted or denied
	Reason       string
	Foreign      bool // only badges whose timing was not the reader's
}

// Match says whether the filter chooses a record.
func (f Filter) Match(r *visitorlog.Record) bool {
	d := &r.Data
	switch {
	case !f.Since.IsZero() && r.Time.Before(f.Since),
		!f.Until.IsZero() && !r.Time.Before(f.Until),
		f.Door != "" && d.Door != f.Door,
		f.Person != "" && r.Subject != f.Person,
		len(f.Types) > 0 && !slices.Contains(f.Types, r.Type),
		f.Decision != "" && d.Decision != f.Decision,
		f.Reason != "" && string(d.Reason) != f.Reason,
		f.Foreign && !d.Foreign:
		return false
	}
	return true
}

// Flags are a filter as the command line gives it.
type Flags struct {
	since, until, door, person, decision, reason string
	types                                        []string
	foreign                                      bool
}

// Register adds the filter's flags to a command.
func (f *Flags) Register(fs *pflag.FlagSet) {
	fs.StringVar(&f.since, "since", "", "from this `time` on: 2006-01-02, \"2006-01-02 15:04\", RFC 3339, or an age such as 90m or 7d")
	fs.StringVar(&f.until, "until", "", "before this `time`, in the same forms; a bare date means its end")
	fs.StringVar(&f.door, "door", "", "of this door")
	fs.StringVar(&f.person, "person", "", "of this person, by the pseudonymous `id`")
	fs.StringSliceVar(&f.types, "type", nil, "of this `type`, such as decision.denied or door.forced; may be repeated")
	fs.StringVar(&f.decision, "decision", "", "granted or denied")
	fs.StringVar(&f.reason, "reason", "", "with this reason `code`")
	fs.BoolVar(&f.foreign, "foreign", false, "of badges whose timing was not the reader's: something else may be sending on its wires")
}

// Filter checks the flags. Times without a zone are in zone; ages count back
// from now.
func (f *Flags) Filter(now time.Time, zone *time.Location) (Filter, error) {
	out := Filter{Door: f.door, Person: f.person, Decision: f.decision, Reason: f.reason, Foreign: f.foreign}
	var errs []error
	var err error
	if out.Since, err = parseTime(f.since, now, zone, false); err != nil {
		errs = append(errs, fmt.Errorf("--since: %w", err))
	}
	if out.Until, err = parseTime(f.until, now, zone, true); err != nil {
		errs = append(errs, fmt.Errorf("--until: %w", err))
	}
	switch f.decision {
	case "", "granted", "denied":
	default:
		errs = append(errs, fmt.Errorf("--decision %q: granted or denied", f.decision))
	}
	for _, name := range f.types {
		t := visitorlog.Type("gatehouse." + strings.TrimPrefix(name, "gatehouse."))
		if !slices.Contains(visitorlog.Types, t) {
			errs = append(errs, fmt.Errorf("--type %q: one of %s", name, typeNames()))
		}
		out.Types = append(out.Types, t)
	}
	return out, errors.Join(errs...)
}

// Span reads a beginning and an end in the forms that --since and --until take;
// what is empty is zero.
func Span(from, until string, now time.Time, zone *time.Location) (begin, end time.Time, err error) {
	if begin, err = parseTime(from, now, zone, false); err != nil {
		return begin, end, fmt.Errorf("--from: %w", err)
	}
	if end, err = parseTime(until, now, zone, true); err != nil {
		return begin, end, fmt.Errorf("--until: %w", err)
	}
	if !end.IsZero() && !begin.Before(end) {
		return begin, end, errors.New("--until is not after --from")
	}
	return begin, end, nil
}

func typeNames() string {
	names := make([]string, len(visitorlog.Types))
	for i, t := range visitorlog.Types {
		names[i] = strings.TrimPrefix(string(t), "gatehouse.")
	}
	return strings.Join(names, ", ")
}

func parseTime(s string, now time.Time, zone *time.Location, end bool) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, zone); err == nil {
		if end {
			return t.AddDate(0, 0, 1), nil
		}
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339Nano} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, nil
		}
	}
	var days int
	if n, err := fmt.Sscanf(s, "%dd", &days); err == nil && n == 1 && s == fmt.Sprintf("%dd", days) && days >= 0 {
		return now.AddDate(0, 0, -days), nil
	}
	if age, err := time.ParseDuration(s); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time, a date or an age", s)
}
