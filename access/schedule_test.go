package access

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestScheduleFollowsTheWallClock(t *testing.T) {
	const ams, nyc, lordHowe, kolkata = "Europe/Amsterdam", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"
	type moment struct {
		at string // with its offset, so that a repeated hour is told apart
		in bool
	}
	for _, tt := range []struct {
		name     string
		zone     string
		week     map[string][]string
		holidays []string
		moments  []moment
	}{
		{"office hours, end exclusive", ams, map[string][]string{"mon-fri": {"07:00-19:00"}, "sat": {"09:00-13:00"}}, nil, []moment{
			{"2026-03-02T06:59:59+01:00", false}, {"2026-03-02T07:00:00+01:00", true}, {"2026-03-02T18:59:59+01:00", true}, {"2026-03-02T19:00:00+01:00", false},
			{"2026-03-07T12:59:00+01:00", true}, {"2026-03-07T13:00:00+01:00", false}, {"2026-03-08T12:00:00+01:00", false},
			{"2026-03-02T08:00:00Z", true}, {"2026-03-02T18:30:00Z", false}}},
		{"over midnight belongs to the day it starts on", ams, map[string][]string{"fri": {"22:00-06:00"}}, nil, []moment{
			{"2026-03-06T21:59:00+01:00", false}, {"2026-03-06T22:00:00+01:00", true}, {"2026-03-07T05:59:59+01:00", true}, {"2026-03-07T06:00:00+01:00", false},
			{"2026-03-06T05:00:00+01:00", false}, {"2026-03-07T22:00:00+01:00", false}}},
		{"over the week's end", ams, map[string][]string{"sun": {"20:00-04:00"}}, nil, []moment{
			{"2026-03-08T20:00:00+01:00", true}, {"2026-03-09T03:59:00+01:00", true}, {"2026-03-09T04:00:00+01:00", false}}},
		{"over the year's end", ams, map[string][]string{"thu": {"22:00-02:00"}}, nil, []moment{
			{"2026-12-31T23:30:00+01:00", true}, {"2027-01-01T01:59:00+01:00", true}, {"2027-01-01T02:00:00+01:00", false}}},
		{"the whole day and an end at midnight", ams, map[string][]string{"sat": {"00:00-24:00"}, "sun": {"22:00-00:00"}}, nil, []moment{
			{"2026-03-06T23:59:59+01:00", false}, {"2026-03-07T00:00:00+01:00", true}, {"2026-03-07T23:59:59+01:00", true}, {"2026-03-08T00:00:00+01:00", false},
			{"2026-03-08T23:59:59+01:00", true}, {"2026-03-09T00:00:00+01:00", false}}},
		{"a range of days over the week's end", ams, map[string][]string{"sat-mon": {"10:00-11:00"}}, nil, []moment{
			{"2026-03-06T10:30:00+01:00", false}, {"2026-03-07T10:30:00+01:00", true}, {"2026-03-08T10:30:00+01:00", true}, {"2026-03-09T10:30:00+01:00", true},
			{"2026-03-10T10:30:00+01:00", false}}},

		{"leap day", ams, map[string][]string{"tue": {"22:00-06:00"}, "thu": {"08:00-09:00"}}, nil, []moment{
			{"2028-02-29T22:00:00+01:00", true}, {"2028-03-01T05:59:00+01:00", true}, {"2028-03-01T06:00:00+01:00", false},
			{"2024-02-29T08:30:00+01:00", true}, {"2024-03-01T08:30:00+01:00", false}}},
		{"leap day as a holiday", ams, map[string][]string{"mon-fri": {"07:00-19:00"}}, []string{"2028-02-29"}, []moment{
			{"2028-02-28T12:00:00+01:00", true}, {"2028-02-29T12:00:00+01:00", false}, {"2028-03-01T12:00:00+01:00", true}}},

		{"a holiday without hours", ams, map[string][]string{"mon-fri": {"07:00-19:00"}}, []string{"2026-12-25"}, []moment{
			{"2026-12-24T12:00:00+01:00", true}, {"2026-12-25T12:00:00+01:00", false}, {"2026-12-28T12:00:00+01:00", true}}},
		{"a holiday with hours of its own", ams, map[string][]string{"mon-fri": {"07:00-19:00"}, "holiday": {"10:00-12:00"}}, []string{"2026-12-25", "2026-12-26"}, []moment{
			{"2026-12-25T09:59:00+01:00", false}, {"2026-12-25T10:00:00+01:00", true}, {"2026-12-25T12:00:00+01:00", false},
			{"2026-12-26T11:00:00+01:00", true}, {"2026-12-27T11:00:00+01:00", false}}},
		{"the eve's night runs into the holiday, the holiday's own does not start", ams, map[string][]string{"mon-sun": {"22:00-06:00"}}, []string{"2026-12-25"}, []moment{
			{"2026-12-25T05:59:00+01:00", true}, {"2026-12-25T22:30:00+01:00", false}, {"2026-12-26T05:00:00+01:00", false}, {"2026-12-26T22:30:00+01:00", true}}},
		{"a holiday's night runs into the day after", ams, map[string][]string{"holiday": {"22:00-02:00"}}, []string{"2026-12-31"}, []moment{
			{"2026-12-31T23:00:00+01:00", true}, {"2027-01-01T01:59:00+01:00", true}, {"2027-01-01T02:00:00+01:00", false}}},
		{"a holiday is the site's date, not UTC's", ams, map[string][]string{"mon-sun": {"00:00-24:00"}}, []string{"2026-07-01"}, []moment{
			{"2026-06-30T21:59:59Z", true}, {"2026-06-30T22:00:00Z", false}, {"2026-07-01T21:59:59Z", false}, {"2026-07-01T22:00:00Z", true}}},

		{"spring in Amsterdam: 02:00 to 03:00 does not happen", ams, map[string][]string{"sun": {"02:15-02:45", "02:50-04:00"}}, nil, []moment{
			{"2026-03-29T01:59:59+01:00", false}, {"2026-03-29T03:00:00+02:00", true}, {"2026-03-29T03:59:59+02:00", true}, {"2026-03-29T04:00:00+02:00", false}}},
		{"autumn in Amsterdam: 02:00 to 03:00 counts twice", ams, map[string][]string{"sun": {"02:15-02:45"}}, nil, []moment{
			{"2026-10-25T02:14:59+02:00", false}, {"2026-10-25T02:15:00+02:00", true}, {"2026-10-25T02:45:00+02:00", false},
			{"2026-10-25T02:14:59+01:00", false}, {"2026-10-25T02:15:00+01:00", true}, {"2026-10-25T02:45:00+01:00", false}}},
		{"a night over Amsterdam's change of clocks ends by the wall clock", ams, map[string][]string{"sat": {"22:00-06:00"}}, nil, []moment{
			{"2026-03-29T05:59:59+02:00", true}, {"2026-03-29T06:00:00+02:00", false}, {"2026-10-25T05:59:59+01:00", true}, {"2026-10-25T06:00:00+01:00", false}}},
		{"a night that ends in Amsterdam's repeated hour", ams, map[string][]string{"sat": {"22:00-02:30"}}, nil, []moment{
			{"2026-10-25T02:29:00+02:00", true}, {"2026-10-25T02:30:00+02:00", false}, {"2026-10-25T02:29:00+01:00", true}, {"2026-10-25T02:30:00+01:00", false}}},
		{"spring in New York", nyc, map[string][]string{"sun": {"01:30-03:30"}}, nil, []moment{
			{"2026-03-08T01:29:00-05:00", false}, {"2026-03-08T01:59:59-05:00", true}, {"2026-03-08T03:00:00-04:00", true}, {"2026-03-08T03:30:00-04:00", false}}},
		{"autumn in New York", nyc, map[string][]string{"sun": {"01:30-01:45"}}, nil, []moment{
			{"2026-11-01T01:30:00-04:00", true}, {"2026-11-01T01:45:00-04:00", false}, {"2026-11-01T01:30:00-05:00", true}, {"2026-11-01T01:45:00-05:00", false}}},
		{"Lord Howe skips half an hour", lordHowe, map[string][]string{"sun": {"02:10-02:40"}}, nil, []moment{
			{"2026-10-04T01:59:59+10:30", false}, {"2026-10-04T02:30:00+11:00", true}, {"2026-10-04T02:39:59+11:00", true}, {"2026-10-04T02:40:00+11:00", false}}},
		{"Lord Howe repeats half an hour", lordHowe, map[string][]string{"sun": {"01:30-01:45"}}, nil, []moment{
			{"2026-04-05T01:30:00+11:00", true}, {"2026-04-05T01:45:00+11:00", false}, {"2026-04-05T01:30:00+10:30", true}, {"2026-04-05T01:45:00+10:30", false}}},
		{"a zone of half hours", kolkata, map[string][]string{"mon": {"00:00-00:15"}}, nil, []moment{
			{"2026-03-01T18:29:59Z", false}, {"2026-03-01T18:30:00Z", true}, {"2026-03-01T18:44:59Z", true}, {"2026-03-01T18:45:00Z", false}}},
		{"midnight that spring skips", "America/Santiago", map[string][]string{"sat": {"23:00-01:30"}, "sun": {"00:00-00:30"}}, nil, []moment{
			{"2026-09-05T23:59:59-04:00", true}, {"2026-09-06T01:00:00-03:00", true}, {"2026-09-06T01:30:00-03:00", false}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			zone := mustZone(t, tt.zone)
			s := mustSchedule(t, "s", tt.week, tt.holidays...)
			for _, m := range tt.moments {
				at, err := time.Parse(time.RFC3339, m.at)
				if err != nil {
					t.Fatal(err)
				}
				if got := s.Contains(at, zone); got != m.in {
					t.Errorf("%s (%s on site): got %v, want %v", m.at, at.In(zone).Format("Mon 15:04:05 MST"), got, m.in)
				}
			}
		})
	}
}

func TestScheduleWithoutTimetableAllowsNothing(t *testing.T) {
	at, zone := time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC), time.UTC
	none := mustSchedule(t, "none", nil)
	for _, s := range []*Schedule{nil, {}, {Name: AlwaysName}, none} {
		if s.Contains(at, zone) || !s.Bounded() {
			t.Errorf("%#v allows something", s)
		}
		if s.String() != "never" {
			t.Errorf("%#v reads %q", s, s)
		}
	}
	office := mustSchedule(t, "office", map[string][]string{"mon-sun": {"00:00-24:00"}})
	if office.Contains(at, nil) {
		t.Error("a bounded schedule allows something without a zone")
	}
	if !Always().Contains(time.Time{}, nil) || Always().Bounded() {
		t.Error("always depends on the time")
	}
}

func TestWrongSchedulesAreRefusedWithEveryFault(t *testing.T) {
	for _, tt := range []struct {
		name string
		week map[string][]string
		want []string
	}{
		{"s", map[string][]string{"monday": {"07:00-19:00"}}, []string{`"monday" is not a day`}},
		{"s", map[string][]string{"Mon": nil}, []string{`"Mon" is not a day`}},
		{"s", map[string][]string{"mon-mon": nil}, []string{`"mon-mon" is not a day`}},
		{"s", map[string][]string{"mon-holiday": nil}, []string{`"mon-holiday" is not a day`}},
		{"s", map[string][]string{"holiday-mon": nil}, []string{`"holiday-mon" is not a day`}},
		{"s", map[string][]string{"": nil}, []string{`"" is not a day`}},
		{"s", map[string][]string{"mon-fri": nil, "wed": nil}, []string{`wed is in both "mon-fri" and "wed"`}},
		{"s", map[string][]string{"mon": {"7:00-19:00", "07:00", "07:00-19:60", "25:00-26:00", "24:01-02:00", "07:00-19:00 ", "07.00-19.00", "-", ""}},
			[]string{`"7:00-19:00"`, `"07:00"`, `"07:00-19:60"`, `"25:00-26:00"`, `"24:01-02:00"`, `"07:00-19:00 "`, `"07.00-19.00"`, `"-"`, `""`}},
		{"s", map[string][]string{"mon": {"07:00-07:00"}}, []string{"write 00:00-24:00 for the whole day"}},
		{"s", map[string][]string{"mon": {"24:00-06:00"}}, []string{"starts at 24:00"}},
		{"s", map[string][]string{"mon": {"07:00-12:00", "11:59-13:00"}}, []string{"07:00-12:00 and 11:59-13:00 overlap"}},
		{"s", map[string][]string{"mon": {"22:00-06:00", "23:00-24:00"}}, []string{"22:00-06:00 and 23:00-24:00 overlap"}},
		{"always", map[string][]string{"mon": {"07:00-12:00"}}, []string{`"always" is taken`}},
		{"s", map[string][]string{"mon": {"x"}, "toe": nil}, []string{`mon: "x"`, `"toe" is not a day`}},
	} {
		_, err := NewSchedule(tt.name, tt.week, nil)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: got %v, want %q in it", tt.week, err, want)
			}
		}
	}
	for _, dates := range [][]string{{"2026-02-29"}, {"26-12-25"}, {"2026-12-25 "}, {"2026-12-25", "2026-12-25"}, {""}} {
		if _, err := ParseHolidays(dates); err == nil {
			t.Errorf("holidays %q were accepted", dates)
		}
	}
}

func TestScheduleReadsInWords(t *testing.T) {
	s := mustSchedule(t, "s", map[string][]string{"mon-wed": {"12:00-13:00", "07:00-11:00"}, "thu": {"07:00-11:00"}, "sun": {"22:00-06:00"}, "holiday": {"10:00-24:00"}})
	const want = "mon-wed 07:00-11:00 and 12:00-13:00, thu 07:00-11:00, sun 22:00-06:00, holiday 10:00-24:00"
	if s.String() != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

// wallClock says what Contains must, by comparing what a person would read off
// the wall.
func wallClock(from, to string, day time.Weekday, at time.Time) bool {
	hm := at.Format("15:04")
	if to == "00:00" {
		to = "24:00"
	}
	if from < to {
		return at.Weekday() == day && from <= hm && hm < to
	}
	return at.Weekday() == day && from <= hm || at.Weekday() == (day+1)%7 && hm < to
}

func TestScheduleIsWhatAPersonReadsOffTheWall(t *testing.T) {
	zones := []*time.Location{mustZone(t, "Europe/Amsterdam"), mustZone(t, "America/New_York"), mustZone(t, "Australia/Lord_Howe"), time.UTC}
	clock := rapid.Custom(func(t *rapid.T) string {
		m := rapid.IntRange(0, minutesPerDay-1).Draw(t, "minute")
		return interval{m, m + 1}.String()[:5]
	})
	rapid.Check(t, func(t *rapid.T) {
		from, to := clock.Draw(t, "from"), clock.Draw(t, "to")
		if from == to {
			return
		}
		day := rapid.IntRange(0, 6).Draw(t, "day")
		s, err := NewSchedule("s", map[string][]string{dayNames[day]: {from + "-" + to}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		at := time.Unix(rapid.Int64Range(1767225600, 1830297600).Draw(t, "at"), 0).In(zone) // 2026 and 2027
		if got, want := s.Contains(at, zone), wallClock(from, to, time.Weekday(day), at); got != want {
			t.Fatalf("%s %s-%s at %s: got %v, want %v", dayNames[day], from, to, at.Format(time.RFC1123), got, want)
		}
	})
}

func FuzzSchedule(f *testing.F) {
	f.Add("mon-fri", "07:00-19:00", "sat", "22:00-06:00", "2026-12-25")
	f.Add("holiday", "00:00-24:00", "sun-mon", "22:00-00:00", "2028-02-29")
	f.Add("mon", "24:00-24:00", "mon", "", "")
	f.Fuzz(func(t *testing.T, day1, hours1, day2, hours2, date string) {
		holidays, err := ParseHolidays([]string{date})
		if err == nil && date != (func() Date { d, _ := ParseDate(date); return d }()).String() {
			t.Fatalf("date %q does not read back", date)
		}
		s, err := NewSchedule("s", map[string][]string{day1: {hours1}, day2: {hours2}}, holidays)
		if err != nil {
			return
		}
		again, err := NewSchedule("s", s.Words(), holidays)
		if err != nil {
			t.Fatalf("%v does not read back: %v", s.Words(), err)
		}
		for i := range s.days {
			if !slices.Equal(again.days[i], s.days[i]) {
				t.Fatalf("%v reads back as %v", s.Words(), again.Words())
			}
		}
		if strings.Contains(s.String(), "\n") || s.String() == "" {
			t.Fatalf("reads %q", s.String())
		}
	})
}
