package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	minutesPerHour = 60
	minutesPerDay  = 24 * minutesPerHour
	// holiday is the index, after the seven weekdays, of the timetable that
	// replaces a weekday's on a holiday.
	holiday = 7
)

// Schedule is a weekly timetable, read by the clock on the wall in the site's
// time zone.
//
// An interval that runs over midnight belongs to the day on which it starts:
// "fri 22:00-06:00" includes the early Saturday, also where that Saturday is a
// holiday. On a holiday the weekday's intervals are replaced by the holiday's
// own, by default none.
//
// Where daylight saving skips an hour, the part of an interval that lies in it
// does not happen. Where an hour comes twice, an interval in it counts both
// times.
//
// The zero Schedule, and a nil one, never allow anything.
type Schedule struct {
	Name     string
	always   bool
	days     [8][]interval // by time.Weekday, then the holiday's
	holidays Holidays
}

// interval is a time of day, in minutes since midnight by the wall clock.
// End is exclusive, and above minutesPerDay where it runs over midnight.
type interval struct{ start, end int }

var always = &Schedule{Name: AlwaysName, always: true}

// AlwaysName is the name of the schedule that is built in.
const AlwaysName = "always"

// Always is the schedule that does not depend on time. It is the only one that
// allows anything while the controller's clock is unset.
func Always() *Schedule { return always }

// Holidays are the dates on which a schedule's holiday intervals replace those
// of the weekday.
type Holidays map[Date]struct{}

// Date is a day of the Gregorian calendar.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// ParseDate reads a date written as 2026-12-25.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("%q is not a date such as 2026-12-25", s)
	}
	y, m, d := t.Date()
	return Date{y, m, d}, nil
}

// String writes the date as 2026-12-25.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// ParseHolidays reads dates; one that is given twice is an error. Every fault
// is in the error.
func ParseHolidays(dates []string) (Holidays, error) {
	h := make(Holidays, len(dates))
	var errs []error
	for _, s := range dates {
		d, err := ParseDate(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, twice := h[d]; twice {
			errs = append(errs, fmt.Errorf("%s is given twice", d))
		}
		h[d] = struct{}{}
	}
	return h, errors.Join(errs...)
}

var dayNames = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat", "holiday"}

// NewSchedule reads a timetable. The keys of week are days (mon), ranges of
// days (mon-fri, and sat-mon over the week's end) or holiday; the values are
// intervals such as 07:00-19:00, 22:00-06:00 over midnight, and 24:00 as an
// end. A day may be named once only and its intervals may not overlap. Every
// fault is in the error, a line each.
func NewSchedule(name string, week map[string][]string, holidays Holidays) (*Schedule, error) {
	s := &Schedule{Name: name, holidays: holidays}
	var errs []error
	if name == AlwaysName {
		errs = append(errs, fmt.Errorf("the name %q is taken by the schedule that is built in", name))
	}
	keys := make([]string, 0, len(week))
	for k := range week {
		keys = append(keys, k)
	}
	slices.Sort(keys) // so that the same faults come in the same order
	var named [len(dayNames)]string
	for _, key := range keys {
		days, err := parseDays(key)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		intervals, err := parseIntervals(week[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		for _, d := range days {
			if named[d] != "" {
				errs = append(errs, fmt.Errorf("%s is in both %q and %q", dayNames[d], named[d], key))
				continue
			}
			named[d] = key
			s.days[d] = intervals
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// parseDays reads "mon", "mon-fri" or "holiday" into indexes of Schedule.days.
func parseDays(key string) ([]int, error) {
	from, to, isRange := strings.Cut(key, "-")
	first := slices.Index(dayNames[:], from)
	if first < 0 || isRange && first == holiday {
		return nil, notADay(key)
	}
	if !isRange {
		return []int{first}, nil
	}
	last := slices.Index(dayNames[:holiday], to)
	if last < 0 || last == first {
		return nil, notADay(key)
	}
	days := []int{first}
	for d := first; d != last; {
		d = (d + 1) % 7
		days = append(days, d)
	}
	return days, nil
}

func notADay(key string) error {
	return fmt.Errorf("%q is not a day: use mon, tue, wed, thu, fri, sat, sun, holiday, or a range such as mon-fri", key)
}

func parseIntervals(words []string) ([]interval, error) {
	var errs []error
	out := make([]interval, 0, len(words))
	for _, w := range words {
		i, err := parseInterval(w)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range out {
			if i.start < o.end && o.start < i.end {
				errs = append(errs, fmt.Errorf("%s and %s overlap", o, i))
			}
		}
		out = append(out, i)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b interval) int { return a.start - b.start })
	return out, nil
}

func parseInterval(s string) (interval, error) {
	from, to, ok := strings.Cut(s, "-")
	start, okStart := parseClock(from)
	end, okEnd := parseClock(to)
	switch {
	case !ok || !okStart || !okEnd:
		return interval{}, fmt.Errorf("%q is not an interval such as 07:00-19:00", s)
	case start == minutesPerDay:
		return interval{}, fmt.Errorf("%q starts at 24:00: write it on the next day, from 00:00", s)
	case start == end:
		return interval{}, fmt.Errorf("%q starts when it ends: write 00:00-24:00 for the whole day", s)
	case end < start:
		end += minutesPerDay
	}
	return interval{start, end}, nil
}

// parseClock reads hh:mm, from 00:00 to 24:00, into minutes since midnight.
func parseClock(s string) (int, bool) {
	if len(s) != len("hh:mm") || s[2] != ':' {
		return 0, false
	}
	for _, i := range [...]int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	if m >= minutesPerHour || h > 24 || h == 24 && m > 0 {
		return 0, false
	}
	return h*minutesPerHour + m, true
}

// String writes the interval with its end on the clock, so that it reads back
// to the same interval.
func (i interval) String() string {
	end := i.end
	if end > minutesPerDay {
		end -= minutesPerDay
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", i.start/minutesPerHour, i.start%minutesPerHour, end/minutesPerHour, end%minutesPerHour)
}

// Bounded says whether the schedule depends on the time.
func (s *Schedule) Bounded() bool { return s == nil || !s.always }

func (s *Schedule) name() string {
	if s == nil {
		return "never"
	}
	return s.Name
}

// Contains says whether the schedule allows the moment at, seen on the wall
// clock of zone. A schedule that is bounded contains nothing where zone is nil.
func (s *Schedule) Contains(at time.Time, zone *time.Location) bool {
	if s == nil {
		return false
	}
	if s.always {
		return true
	}
	if zone == nil {
		return false
	}
	local := at.In(zone)
	y, m, d := local.Date()
	minute := local.Hour()*minutesPerHour + local.Minute()
	for _, i := range s.on(Date{y, m, d}, local.Weekday()) {
		if i.start <= minute && minute < i.end {
			return true
		}
	}
	// The day before by the calendar, whatever the clocks did in between.
	eve := time.Date(y, m, d-1, 12, 0, 0, 0, time.UTC)
	y, m, d = eve.Date()
	for _, i := range s.on(Date{y, m, d}, eve.Weekday()) {
		if minute < i.end-minutesPerDay {
			return true
		}
	}
	return false
}

// on is the timetable that holds on a date.
func (s *Schedule) on(date Date, day time.Weekday) []interval {
	if _, ok := s.holidays[date]; ok {
		return s.days[holiday]
	}
	return s.days[day]
}

// Words is the timetable as NewSchedule reads it, a day a key. It is nil for
// the schedule that is built in.
func (s *Schedule) Words() map[string][]string {
	if s == nil || s.always {
		return nil
	}
	words := make(map[string][]string)
	for d, intervals := range s.days {
		for _, i := range intervals {
			words[dayNames[d]] = append(words[dayNames[d]], i.String())
		}
	}
	return words
}

// String is the timetable in words, neighbouring days with the same intervals
// taken together: "mon-fri 07:00-19:00, sat 09:00-13:00".
func (s *Schedule) String() string {
	if s == nil {
		return "never"
	}
	if s.always {
		return "at any time"
	}
	var parts []string
	week := [...]int{1, 2, 3, 4, 5, 6, 0} // Monday first
	for i := 0; i < len(week); {
		j := i + 1
		for j < len(week) && slices.Equal(s.days[week[j]], s.days[week[i]]) {
			j++
		}
		if intervals := s.days[week[i]]; len(intervals) > 0 {
			name := dayNames[week[i]]
			if j-i > 1 {
				name += "-" + dayNames[week[j-1]]
			}
			parts = append(parts, name+" "+joinIntervals(intervals))
		}
		i = j
	}
	if intervals := s.days[holiday]; len(intervals) > 0 {
		parts = append(parts, "holiday "+joinIntervals(intervals))
	}
	if len(parts) == 0 {
		return "never"
	}
	return strings.Join(parts, ", ")
}

func joinIntervals(intervals []interval) string {
	words := make([]string, len(intervals))
	for i, v := range intervals {
		words[i] = v.String()
	}
	return strings.Join(words, " and ")
}
