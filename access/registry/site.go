package registry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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

// leaves says whether it gave rights that it does not give any more.
func (g *Group) leaves(after object) bool {
	v, ok := after.(*Group)
	return !ok || !slices.Equal(g.Rights, v.Rights)
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

// Area is a part of the site that doors lead into and out of, and what it asks
// of everybody in it. What counts who is in (passback, occupancy) needs all doors
// of the area on one controller: each knows only what went through its own.
type Area struct {
	Name     string          `json:"area"`
	Title    string          `json:"title,omitempty"`
	Passback access.Passback `json:"passback,omitempty"`  // none: off
	Timed    Span            `json:"timed,omitzero"`      // how long nobody comes in twice; 0: no such rule
	Most     int             `json:"occupancy,omitempty"` // how many may be in at once; 0: any number
}

const (
	shortestTimed = Span(time.Second)
	longestTimed  = Span(24 * time.Hour)
	mostOccupants = 1_000_000
)

func (*Area) kind() Kind            { return KindArea }
func (a *Area) key() string         { return a.Name }
func (*Area) secret() any           { return nil }
func (*Area) lookup(Indexer) []byte { return nil }
func (*Area) links() []link         { return nil }
func (*Area) settle()               {}

// counts says whether the area keeps account of who is in.
func (a *Area) counts() bool { return a.Passback != access.PassbackOff || a.Most > 0 }

func (a *Area) check(t *tx, before object, f *faults) error {
	f.name("area", a.Name)
	f.text("title", a.Title, maxText)
	switch a.Passback {
	case access.PassbackOff, access.PassbackSoft, access.PassbackHard:
	default:
		f.add("passback", "%s: use soft, hard, or nothing where there is no such rule", fields.Quote(string(a.Passback)))
	}
	f.span("timed", a.Timed, shortestTimed, longestTimed)
	if a.Most < 0 || a.Most > mostOccupants {
		f.add("occupancy", "%d is not between 0, for any number, and %d", a.Most, mostOccupants)
	}
	if before == nil || !a.counts() {
		return nil // no door leads into a new one
	}
	var controllers []string
	if err := t.eachNaming(KindDoor, objectName{KindArea, a.Name}, func(o object) error {
		controllers = append(controllers, o.(*Door).Controller)
		return nil
	}); err != nil {
		return err
	}
	a.oneController(controllers, "passback", f)
	return nil
}

// oneController holds that who is in an area is known to one controller.
func (a *Area) oneController(controllers []string, field string, f *faults) {
	if all := sorted(controllers); len(all) > 1 {
		f.add(field, "area %s keeps account of who is in, and its doors are on controllers %s, which do not know of each other: put its doors on one, or take passback and occupancy away",
			a.Name, strings.Join(all, ", "))
	}
}

// Door is a door of a controller, and what it asks of everybody beside factors.
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

	ServerRoom  bool     `json:"server_room,omitempty"`  // it is never left unlocked
	TwoPerson   bool     `json:"two_person,omitempty"`   // people come in only two at a time
	Together    Span     `json:"together,omitzero"`      // how long they wait for each other; 0: access.DefaultTogether
	Interlock   []string `json:"interlock,omitempty"`    // doors of the same controller that must be closed before this one opens
	Free        string   `json:"free,omitempty"`         // the schedule in which it stands unlocked; "": never
	FirstPerson bool     `json:"first_person,omitempty"` // nobody comes in before a supervisor has, that day
	Disabled    string   `json:"disabled,omitempty"`     // why nobody passes for the time being; "": it is in use

	// The door's own ladder of age; 0: the controller's configuration says.
	StaleAfter   Span          `json:"stale_after,omitzero"`
	ExpiredAfter Span          `json:"expired_after,omitzero"`
	ExpiredKinds []access.Kind `json:"expired_kinds,omitempty"` // who enters when it has expired; only with expired_after
	// ClockUnsetKinds may enter by rights that are bound in time while the
	// controller does not know the time.
	ClockUnsetKinds []access.Kind `json:"clock_unset_kinds,omitempty"`
}

const (
	shortestTogether = Span(time.Second)
	longestTogether  = Span(5 * time.Minute)
	shortestAge      = Span(time.Minute) // as the controller's configuration has it
	longestAge       = Span(365 * 24 * time.Hour)
	mostInterlocked  = 8 // doors that a controller has
)

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
	d.Interlock, d.ExpiredKinds, d.ClockUnsetKinds = sorted(d.Interlock), sorted(d.ExpiredKinds), sorted(d.ClockUnsetKinds)
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
	for _, other := range d.Interlock {
		if other != d.Name { // which is told already, and could not be there
			links = append(links, to("interlock", KindDoor, other))
		}
	}
	if d.Free != "" {
		links = append(links, toSchedule("free", d.Free)...)
	}
	return links
}

// leaves says whether rights led to it that lead elsewhere now.
func (d *Door) leaves(after object) bool {
	v, ok := after.(*Door)
	return !ok || d.Controller != v.Controller || d.Into != v.Into
}

func (d *Door) check(t *tx, before object, f *faults) error {
	f.name("door", d.Name)
	f.name("controller", d.Controller)
	f.text("title", d.Title, maxText)
	if d.Into != "" && d.Into == d.OutOf {
		f.add("out_of", "the door leads out of the area that it leads into")
	}
	d.checkRules(f)
	d.checkWords(f)
	if err := d.checkAreas(t, f); err != nil {
		return err
	}
	return d.checkInterlock(t, before, f)
}

// checkWords checks what the door asks for beside factors.
func (d *Door) checkWords(f *faults) {
	if d.Free != "" {
		for _, v := range [...]struct {
			on   bool
			what string
		}{
			{d.ServerRoom, "it is marked as a server room's, which is never left unlocked (server_room)"},
			{d.TwoPerson, "it lets people in only two at a time (two_person)"},
			{len(d.Interlock) > 0, "it opens only while others are closed (interlock)"},
		} {
			if v.on {
				f.add("free", "the door cannot stand unlocked for everybody: %s: take one of the two away", v.what)
			}
		}
	}
	f.text("disabled", d.Disabled, maxText)
	f.span("together", d.Together, shortestTogether, longestTogether)
	f.span("stale_after", d.StaleAfter, shortestAge, longestAge)
	f.span("expired_after", d.ExpiredAfter, shortestAge, longestAge)
	switch {
	case d.ExpiredAfter != 0 && d.ExpiredAfter <= d.StaleAfter:
		f.add("expired_after", "%s is not longer than stale_after, which is %s", d.ExpiredAfter, d.StaleAfter)
	case d.ExpiredAfter == 0 && len(d.ExpiredKinds) > 0:
		f.add("expired_kinds", "without expired_after nothing of this door expires: give both")
	}
	f.kinds("expired_kinds", d.ExpiredKinds)
	f.kinds("clock_unset_kinds", d.ClockUnsetKinds)
}

// checkAreas holds that who is in an area is known to one controller.
func (d *Door) checkAreas(t *tx, f *faults) error {
	for _, v := range [...]struct{ field, area string }{{"into", d.Into}, {"out_of", d.OutOf}} {
		if v.area == "" {
			continue
		}
		name := objectName{KindArea, v.area}
		o, err := t.old(name)
		if errors.Is(err, ErrNotFound) {
			continue // which is told already
		}
		if err != nil {
			return err
		}
		area := o.value.(*Area)
		if !area.counts() {
			continue
		}
		controllers := []string{d.Controller}
		if err := t.eachNaming(KindDoor, name, func(o object) error {
			if other := o.(*Door); other.Name != d.Name {
				controllers = append(controllers, other.Controller)
			}
			return nil
		}); err != nil {
			return err
		}
		area.oneController(controllers, v.field, f)
	}
	return nil
}

// checkInterlock holds that a door and those that it waits for are of one
// controller, which is the only one that sees them.
func (d *Door) checkInterlock(t *tx, before object, f *faults) error {
	if len(d.Interlock) > mostInterlocked {
		f.add("interlock", "it names %d doors, and a controller has no more than %d", len(d.Interlock), mostInterlocked)
	}
	for _, other := range d.Interlock {
		if other == d.Name {
			f.add("interlock", "the door waits for itself")
			continue
		}
		o, err := t.old(objectName{KindDoor, other})
		switch {
		case errors.Is(err, ErrNotFound): // which is told already
		case err != nil:
			return err
		case o.value.(*Door).Controller != d.Controller:
			f.add("interlock", "door %s is on controller %s and this one on %s: only doors of the same one can wait for each other", other, o.value.(*Door).Controller, d.Controller)
		case o.value.(*Door).Free != "":
			f.add("interlock", "door %s stands unlocked in schedule %s: this one would not open then", other, o.value.(*Door).Free)
		}
	}
	if before == nil {
		return nil // nothing waits for a new one
	}
	return t.eachNaming(KindDoor, objectName{KindDoor, d.Name}, func(o object) error {
		waiting := o.(*Door)
		if waiting.Controller != d.Controller {
			f.add("controller", "door %s waits for this one to be closed, and is on %s: take that interlock away first", waiting.Name, waiting.Controller)
		}
		if d.Free != "" {
			f.add("free", "door %s waits for this one to be closed: take that interlock away first", waiting.Name)
		}
		return nil
	})
}

func (d *Door) checkRules(f *faults) {
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
			case set&^(access.PIN|access.TOTP) == 0:
				f.add("rules", "rule %d: a %s alone does not say whose it is: write badge+%[2]s", i+1, set)
			case set.Has(access.Badge | access.OneTimeCode):
				f.add("rules", "rule %d: %s: a code stands in the place of a badge: make two sets of it", i+1, set)
			case seen[text]:
				f.add("rules", "rule %d has %s twice", i+1, text)
			}
			seen[text] = true
		}
	}
}
