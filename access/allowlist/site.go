package allowlist

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Area is what is asked of everybody in an area, in the words of the TOML file.
type Area struct {
	Passback  access.Passback `json:"passback,omitempty"`  // soft or hard; none: off
	Timed     string          `json:"timed,omitempty"`     // how long nobody comes in twice, such as 10m
	Occupancy int             `json:"occupancy,omitempty"` // how many may be in at once; 0: any number
}

// Site is what is asked at a door beside the factors, in the words of the TOML
// file. Times are such as 30s or 72h.
type Site struct {
	Into        string   `json:"into,omitempty"` // an area; none: none, or outside
	OutOf       string   `json:"out_of,omitempty"`
	ServerRoom  bool     `json:"server_room,omitempty"` // never left unlocked
	TwoPerson   bool     `json:"two_person,omitempty"`
	Together    string   `json:"together,omitempty"`  // how long people wait for each other
	Interlock   []string `json:"interlock,omitempty"` // doors that must be closed first
	Free        string   `json:"free,omitempty"`      // the schedule in which it stands unlocked
	FirstPerson bool     `json:"first_person,omitempty"`
	Disabled    string   `json:"disabled,omitempty"` // why nobody passes
	// The door's own ladder of age; none of the three: the controller's.
	StaleAfter      string        `json:"stale_after,omitempty"`
	ExpiredAfter    string        `json:"expired_after,omitempty"`
	ExpiredKinds    []access.Kind `json:"expired_kinds,omitempty"`
	ClockUnsetKinds []access.Kind `json:"clock_unset_kinds,omitempty"`
}

func (s Site) said() bool {
	return s.ServerRoom || s.TwoPerson || s.FirstPerson || len(s.Interlock)+len(s.ExpiredKinds)+len(s.ClockUnsetKinds) > 0 ||
		s.Into+s.OutOf+s.Together+s.Free+s.Disabled+s.StaleAfter+s.ExpiredAfter != ""
}

// Bounds of what a site may say.
const (
	minTimed, maxTimed       = time.Second, 24 * time.Hour
	minTogether, maxTogether = time.Second, 5 * time.Minute
	minAge, maxAge           = time.Minute, 365 * 24 * time.Hour
	maxOccupancy             = 1_000_000
	maxInterlock             = 8 // doors of a controller
)

// wordFault is something wrong with the words of a policy, and where they stand.
type wordFault struct {
	path []string
	text string
}

// siteReader makes areas and doors of words, and gathers what is wrong.
type siteReader struct {
	schedules map[string]*access.Schedule
	areas     map[string]*access.Area
	at        []string
	faults    []wordFault
}

func (r *siteReader) fault(key, format string, args ...any) {
	r.faults = append(r.faults, wordFault{append(slices.Clone(r.at), key), fmt.Sprintf(format, args...)})
}

// sites are the areas and doors as decisions take them, by the doors' names, and
// all that is wrong with their words.
func (r Rules) sites(schedules map[string]*access.Schedule) (map[string]*access.Door, []wordFault) {
	read := siteReader{schedules: schedules, areas: make(map[string]*access.Area, len(r.Areas))}
	for _, name := range slices.Sorted(maps.Keys(r.Areas)) {
		read.area(name, r.Areas[name])
	}
	doors := make(map[string]*access.Door, len(r.Sites))
	for _, name := range slices.Sorted(maps.Keys(r.Sites)) {
		doors[name] = read.door(name, r.Sites[name])
	}
	for _, name := range slices.Sorted(maps.Keys(doors)) {
		read.at = []string{"doors", name}
		for _, other := range doors[name].Interlock {
			if o := doors[other]; o != nil && o.Free != nil && other != name {
				read.fault("interlock", "interlock: door %s stands unlocked in schedule %s: this door would not open then", fields.Quote(other), o.Free.Name)
			}
		}
	}
	return doors, read.faults
}

func (r *siteReader) area(name string, a Area) {
	r.at = []string{"areas", name}
	if !fields.IsName(name) {
		r.fault("", "area %s: "+fields.NameRule, fields.Quote(name))
	}
	switch a.Passback {
	case access.PassbackOff, access.PassbackSoft, access.PassbackHard:
	default:
		r.fault("passback", "passback %s: use %s or %s, or leave it out", fields.Quote(string(a.Passback)), access.PassbackSoft, access.PassbackHard)
	}
	if a.Occupancy < 0 || a.Occupancy > maxOccupancy {
		r.fault("occupancy", "occupancy is not between 0, for any number, and %d", maxOccupancy)
	}
	r.areas[name] = &access.Area{Name: name, Passback: a.Passback, Timed: r.duration("timed", a.Timed, minTimed, maxTimed), Occupancy: a.Occupancy}
}

func (r *siteReader) door(name string, s Site) *access.Door {
	r.at = []string{"doors", name}
	if !fields.IsName(name) {
		r.fault("", "door %s: "+fields.NameRule, fields.Quote(name))
	}
	d := &access.Door{Name: name, Into: r.areaOf("into", s.Into), OutOf: r.areaOf("out_of", s.OutOf), ServerRoom: s.ServerRoom, TwoPerson: s.TwoPerson,
		Together: r.duration("together", s.Together, minTogether, maxTogether), FirstPerson: s.FirstPerson, Disabled: s.Disabled,
		Interlock: r.interlock(name, s.Interlock), Free: r.free(s), Age: r.ages(s), ClockUnsetKinds: r.kinds("clock_unset_kinds", s.ClockUnsetKinds)}
	if s.Into != "" && s.Into == s.OutOf {
		r.fault("out_of", "the door leads out of area %s and into it: name the two sides", fields.Quote(s.Into))
	}
	if err := fields.CheckText(s.Disabled, maxText); err != nil {
		r.fault("disabled", "disabled %v", err)
	}
	return d
}

func (r *siteReader) areaOf(key, name string) *access.Area {
	if name == "" {
		return nil
	}
	a := r.areas[name]
	if a == nil {
		r.fault(key, "%s: area %s is not there: write [areas.NAME], with what is asked in it", key, fields.Quote(name))
	}
	return a
}

func (r *siteReader) interlock(name string, others []string) []string {
	if len(others) > maxInterlock {
		r.fault("interlock", "interlock has more than %d doors", maxInterlock)
	}
	for i, other := range others {
		switch {
		case !fields.IsName(other):
			r.fault("interlock", "interlock: door %s: "+fields.NameRule, fields.Quote(other))
		case other == name:
			r.fault("interlock", "interlock names the door itself")
		case slices.Contains(others[:i], other):
			r.fault("interlock", "interlock has door %s twice", fields.Quote(other))
		}
	}
	return others
}

// free is when a door stands unlocked. No door does that is to let nobody by
// unseen.
func (r *siteReader) free(s Site) *access.Schedule {
	if s.Free == "" {
		return nil
	}
	free, ok := r.schedules[s.Free]
	switch {
	case !ok:
		r.fault("free", "free: schedule %s is not there: there are %s", fields.Quote(s.Free), strings.Join(slices.Sorted(maps.Keys(r.schedules)), ", "))
	case s.ServerRoom:
		r.fault("free", "free: the door is one of a server room, and never stands unlocked: take away one of free and server_room")
	case s.TwoPerson:
		r.fault("free", "free: the door lets people in only two at a time, and would let in anybody while it stands unlocked: take away one of free and two_person")
	case len(s.Interlock) > 0:
		r.fault("free", "free: the door opens only while others are closed, and nothing holds that while it stands unlocked: take away one of free and interlock")
	}
	return free
}

func (r *siteReader) ages(s Site) *access.Ages {
	if s.StaleAfter == "" && s.ExpiredAfter == "" && len(s.ExpiredKinds) == 0 {
		return nil
	}
	a := &access.Ages{StaleAfter: r.duration("stale_after", s.StaleAfter, minAge, maxAge), ExpiredAfter: r.duration("expired_after", s.ExpiredAfter, minAge, maxAge),
		ExpiredKinds: r.kinds("expired_kinds", s.ExpiredKinds)}
	if a.ExpiredAfter != 0 && a.ExpiredAfter <= a.StaleAfter {
		r.fault("expired_after", "expired_after is not later than stale_after")
	}
	if s.ExpiredAfter == "" && len(s.ExpiredKinds) > 0 {
		r.fault("expired_kinds", "expired_kinds without expired_after: say when the allowlist expires at this door")
	}
	return a
}

func (r *siteReader) kinds(key string, all []access.Kind) []access.Kind {
	for i, k := range all {
		switch {
		case place(kinds[:], k) < 0:
			r.fault(key, "%s: kind %s: use staff, contractor or visitor", key, fields.Quote(string(k)))
		case slices.Contains(all[:i], k):
			r.fault(key, "%s has %s twice", key, k)
		}
	}
	return all
}

// duration reads a time such as 10m; 0 where nothing is said.
func (r *siteReader) duration(key, s string, least, most time.Duration) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		r.fault(key, "%s %s: write a time such as 30s, 10m or 72h", key, fields.Quote(s))
	case d < least || d > most:
		r.fault(key, "%s %s is not between %v and %v", key, fields.Quote(s), least, most)
	}
	return d
}

// joined are the faults as one error, for words that were checked before.
func joined(faults []wordFault) error {
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = fmt.Errorf("%s: %s", strings.Join(f.path[:2], " "), f.text)
	}
	return errors.Join(errs...)
}

// checkSites finds what is wrong with areas and with what doors ask beside
// factors.
func (p *planner) checkSites(r Rules, line func(path ...string) int) {
	_, faults := r.sites(p.sched)
	for _, f := range faults {
		p.faults.Add(line(f.path...), "%s", f.text)
	}
	for name := range r.Sites {
		if _, group := r.DoorGroups[name]; group {
			p.faults.Add(line("doors", name), "%s is a door group: name each of its doors", fields.Quote(name))
		}
	}
}

// site reads what a door says beside its rules.
func (t *tomlReader) site(door table) Site {
	return Site{Into: t.str(door, "into"), OutOf: t.str(door, "out_of"), ServerRoom: t.boolean(door, "server_room"), TwoPerson: t.boolean(door, "two_person"),
		Together: t.str(door, "together"), Interlock: t.strings(door, "interlock"), Free: t.str(door, "free"), FirstPerson: t.boolean(door, "first_person"),
		Disabled: t.str(door, "disabled"), StaleAfter: t.str(door, "stale_after"), ExpiredAfter: t.str(door, "expired_after"),
		ExpiredKinds: t.kinds(door, "expired_kinds"), ClockUnsetKinds: t.kinds(door, "clock_unset_kinds")}
}

var siteKeys = []string{"into", "out_of", "server_room", "two_person", "together", "interlock", "free", "first_person", "disabled", "stale_after",
	"expired_after", "expired_kinds", "clock_unset_kinds"}

func (t *tomlReader) kinds(in table, key string) []access.Kind {
	var all []access.Kind
	for _, k := range t.strings(in, key) {
		all = append(all, access.Kind(k))
	}
	return all
}

func (t *tomlReader) areas(root table) map[string]Area {
	areas, ok := t.table(root, "areas")
	if !ok {
		return nil
	}
	all := make(map[string]Area, len(areas.m))
	for name := range areas.m {
		if area, ok := t.table(areas, name); ok {
			t.only(area, "passback", "timed", "occupancy")
			all[name] = Area{Passback: access.Passback(t.str(area, "passback")), Timed: t.str(area, "timed"), Occupancy: t.whole(area, "occupancy", maxOccupancy)}
		}
	}
	return all
}

// whole reads a number that is no secret, from 0 to most.
func (t *tomlReader) whole(in table, key string, most int) int {
	if in.m[key] == nil {
		return 0
	}
	v, ok := in.m[key].(int64)
	if !ok || v < 0 || v > int64(most) {
		t.wrong(in, key, "a whole number from 0 to "+strconv.Itoa(most))
		return 0
	}
	return int(v)
}
