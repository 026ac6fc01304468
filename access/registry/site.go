package registry

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Group gives all its people the same rights.
type Group struct {
	Name   string  `json:"group"`
	Title  string  `json:"title,omitempty"` // for people
	Rights []Right `json:"rights,omitempty"`
}

// Right is the right to one door, or to all doors that lead into an area,
// within a schedule.
type Right struct {
	Door     string `json:"door,omitempty"` // or access.EveryDoor
	Area     string `json:"area,omitempty"`
	Schedule string `json:"schedule"` // or access.AlwaysName
}

// String writes a right as door@schedule, or area:name@schedule.
func (r Right) String() string {
	if r.Area != "" {
		return "area:" + r.Area + "@" + r.Schedule
	}
	return r.Door + "@" + r.Schedule
}

func (*Group) kind() Kind            { return KindGroup }
func (g *Group) key() string         { return g.Name }
func (*Group) secret() any           { return nil }
func (*Group) lookup(Indexer) []byte { return nil }

func (g *Group) settle() {
	g.Rights = slices.SortedFunc(slices.Values(g.Rights), func(a, b Right) int { return cmp.Compare(a.String(), b.String()) })
	g.Rights = slices.Compact(g.Rights)
}

func (g *Group) links() []link {
	var links []link
	for _, r := range g.Rights {
		if r.Door != "" && r.Door != access.EveryDoor {
			links = append(links, to("rights", KindDoor, r.Door))
		}
		if r.Area != "" {
			links = append(links, to("rights", KindArea, r.Area))
		}
		links = append(links, toSchedule("rights", r.Schedule)...)
	}
	return links
}

// toSchedule is the naming of a schedule, unless it is the built-in one.
func toSchedule(field, name string) []link {
	if name == access.AlwaysName {
		return nil
	}
	return []link{to(field, KindSchedule, name)}
}

func (g *Group) check(_ *tx, _ object, f *faults) error {
	f.name("group", g.Name)
	f.text("title", g.Title, maxText)
	for _, r := range g.Rights {
		if (r.Door == "") == (r.Area == "") {
			f.add("rights", "a right is to a door or to an area: %s", fields.Quote(r.String()))
		}
	}
	return nil
}

// Schedule is a weekly timetable, in the words of the allowlist: the keys are
// days (mon), ranges of days (mon-fri) or holiday, the values intervals such as
// 07:00-19:00.
type Schedule struct {
	Name  string              `json:"schedule"`
	Title string              `json:"title,omitempty"`
	Week  map[string][]string `json:"week,omitempty"`
}

func (*Schedule) kind() Kind            { return KindSchedule }
func (s *Schedule) key() string         { return s.Name }
func (*Schedule) secret() any           { return nil }
func (*Schedule) lookup(Indexer) []byte { return nil }
func (*Schedule) links() []link         { return nil }

func (s *Schedule) settle() {
	if len(s.Week) == 0 {
		s.Week = nil
	}
}

func (s *Schedule) check(_ *tx, _ object, f *faults) error {
	f.name("schedule", s.Name)
	f.text("title", s.Title, maxText)
	if _, err := access.NewSchedule(s.Name, s.Week, nil); err != nil {
		f.lines("week", err)
	}
	return nil
}

// String is the timetable in words.
func (s *Schedule) String() string {
	compiled, err := access.NewSchedule(s.Name, s.Week, nil)
	if err != nil {
		return fmt.Sprintf("unreadable: %v", err)
	}
	return compiled.String()
}

// Holiday is a date on which the holiday intervals of schedules hold.
type Holiday struct {
	Date  string `json:"date"` // such as 2026-12-25
	Title string `json:"title,omitempty"`
}

func (*Holiday) kind() Kind            { return KindHoliday }
func (h *Holiday) key() string         { return h.Date }
func (*Holiday) secret() any           { return nil }
func (*Holiday) lookup(Indexer) []byte { return nil }
func (*Holiday) links() []link         { return nil }
func (*Holiday) settle()               {}

func (h *Holiday) check(_ *tx, _ object, f *faults) error {
	switch d, err := access.ParseDate(h.Date); {
	case err != nil:
		f.add("date", "%s is not a date such as 2026-12-25", fields.Quote(h.Date))
	case d.Year < fields.FirstYear || d.Year > fields.LastYear:
		f.add("date", "the year %d is not between %d and %d", d.Year, fields.FirstYear, fields.LastYear)
	}
	f.text("title", h.Title, maxText)
	return nil
}

// Area is a part of the site that doors lead into and out of.
type Area struct {
	Name  string `json:"area"`
	Title string `json:"title,omitempty"`
}

func (*Area) kind() Kind            { return KindArea }
func (a *Area) key() string         { return a.Name }
func (*Area) secret() any           { return nil }
func (*Area) lookup(Indexer) []byte { return nil }
func (*Area) links() []link         { return nil }
func (*Area) settle()               {}

func (a *Area) check(_ *tx, _ object, f *faults) error {
	f.name("area", a.Name)
	f.text("title", a.Title, maxText)
	return nil
}

// Door is a door of a controller.
type Door struct {
	Name       string `json:"door"`
	Title      string `json:"title,omitempty"`
	Controller string `json:"controller"`
	Into       string `json:"into,omitempty"`   // the area behind it
	OutOf      string `json:"out_of,omitempty"` // the area before it; "": outside
	// Rules say which factors the door asks for, in the order of their directions;
	// of those for a way whose schedule contains the moment, the first. None for a
	// way: what the controller's configuration says.
	Rules []Rule `json:"rules,omitempty"`
}

// Rule is what a door asks for on the way in or out, within a schedule: any one of
// the sets, such as badge+fingerprint.
type Rule struct {
	Direction access.Direction `json:"direction,omitempty"` // none: in
	Schedule  string           `json:"schedule"`
	AnyOf     []string         `json:"any_of"`
}

func (*Door) kind() Kind            { return KindDoor }
func (d *Door) key() string         { return d.Name }
func (*Door) secret() any           { return nil }
func (*Door) lookup(Indexer) []byte { return nil }

func (d *Door) settle() {
	if len(d.Rules) == 0 {
		d.Rules = nil
	}
	for i := range d.Rules {
		d.Rules[i].Direction = cmp.Or(d.Rules[i].Direction, access.In)
		for j, text := range d.Rules[i].AnyOf {
			if set, err := access.ParseFactors(text); err == nil {
				d.Rules[i].AnyOf[j] = set.String()
			}
		}
	}
	slices.SortStableFunc(d.Rules, func(a, b Rule) int { return cmp.Compare(a.Direction, b.Direction) })
}

func (d *Door) links() []link {
	var links []link
	if d.Into != "" {
		links = append(links, to("into", KindArea, d.Into))
	}
	if d.OutOf != "" {
		links = append(links, to("out_of", KindArea, d.OutOf))
	}
	for _, r := range d.Rules {
		links = append(links, toSchedule("rules", r.Schedule)...)
	}
	return links
}

func (d *Door) check(_ *tx, _ object, f *faults) error {
	f.name("door", d.Name)
	f.name("controller", d.Controller)
	f.text("title", d.Title, maxText)
	if d.Into != "" && d.Into == d.OutOf {
		f.add("out_of", "the door leads out of the area that it leads into")
	}
	for i, r := range d.Rules {
		last := i == len(d.Rules)-1 || d.Rules[i+1].Direction != r.Direction
		switch {
		case r.Direction != access.In && r.Direction != access.Out:
			f.add("rules", "rule %d has the direction %s: use %s or %s", i+1, fields.Quote(string(r.Direction)), access.In, access.Out)
		case last && r.Schedule != access.AlwaysName:
			f.add("rules", "the last rule for the way %s has the schedule %q, so that there is always one that holds", r.Direction, access.AlwaysName)
		case !last && r.Schedule == access.AlwaysName:
			f.add("rules", "no rule for the way %s after number %d would ever hold, as its schedule is %q", r.Direction, i+1, access.AlwaysName)
		}
		if len(r.AnyOf) == 0 {
			f.add("rules", "rule %d asks for nothing: name a set such as badge+fingerprint", i+1)
		}
		seen := make(map[string]bool)
		for _, text := range r.AnyOf {
			set, err := access.ParseFactors(text)
			switch {
			case err != nil:
				f.add("rules", "rule %d: %v", i+1, err)
			case set == access.PIN:
				f.add("rules", "rule %d: a pin alone does not say whose it is: write badge+pin", i+1)
			case seen[text]:
				f.add("rules", "rule %d has %s twice", i+1, text)
			}
			seen[text] = true
		}
	}
	return nil
}
