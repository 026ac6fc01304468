package allowlist

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

const (
	maxCredentials = 5_000_000 // some 200 bytes of memory each while they are imported
	maxText        = 200       // bytes in a name or a visit's field
	maxIDForm      = 64        // characters in a form of identification
	progressEvery  = 1000
	chunkRows      = 1 << 14
)

// Faults is all that is wrong with an import file.
type Faults = fields.Faults

// Formats knows the card formats.
type Formats interface {
	Format(name string) (*badge.Format, bool)
}

// ReadOptions say how an import file is read.
type ReadOptions struct {
	Index   Indexer
	Formats Formats
	Zone    *time.Location // of dates and times without an offset
	Advance func(int64)    // told how many more bytes were read; may be nil
}

// Plan is a checked import: a whole policy, ready to be applied. Card numbers
// are not in it.
type Plan struct {
	rules    Rules
	profiles profiles
	formats  []string // by row.format
	chunks   [][]row
	order    []uint32 // rows in the order of their keys
	people   int
}

// row is one credential. There may be millions at once.
type row struct {
	key         [16]byte
	person      string
	name        string
	visit       *access.Visit
	personal    *personal
	code        *access.Code
	from, until int64 // Unix seconds, 0: no bound
	profile     uint32
	line        uint32
	format      uint16 // index into Plan.formats
	kind, state uint8
	extended    bool
	breakGlass  bool
}

func (p *Plan) row(i uint32) *row { return &p.chunks[i/chunkRows][i%chunkRows] }

func (p *Plan) size() int {
	if len(p.chunks) == 0 {
		return 0
	}
	return (len(p.chunks)-1)*chunkRows + len(p.chunks[len(p.chunks)-1])
}

// Credentials is the number of credentials.
func (p *Plan) Credentials() int { return p.size() }

// People is the number of people.
func (p *Plan) People() int { return p.people }

// Doors are all doors that anybody has a right to, sorted; "*" among them
// stands for every door.
func (p *Plan) Doors() []string { return p.profiles.doors() }

// Ruled are the doors of which the policy says what they ask for on the way in
// or out, sorted.
func (p *Plan) Ruled(side access.Direction) []string {
	var doors []string
	for name, rules := range p.rules.Doors {
		if slices.ContainsFunc(rules, func(r DoorRule) bool { return r.Direction == side }) {
			doors = append(doors, name)
		}
	}
	slices.Sort(doors)
	return doors
}

// Sites are the doors of which the policy says what they ask beside factors, sorted.
func (p *Plan) Sites() []string { return slices.Sorted(maps.Keys(p.rules.Sites)) }

// planner checks rows one by one and gathers what is wrong.
type planner struct {
	o       ReadOptions
	plan    Plan
	faults  Faults
	sched   map[string]*access.Schedule
	formats map[string]*formatInfo
	rights  map[[2]string]uint32
}

type formatInfo struct {
	format *badge.Format
	number uint16
	needs  [2]bool // facility, number: the format has it and does not say what it is
}

func newPlanner(o ReadOptions) *planner {
	o.Zone = cmp.Or(o.Zone, time.UTC)
	return &planner{o: o, formats: make(map[string]*formatInfo), rights: make(map[[2]string]uint32)}
}

// BiometricFormat stands where a card's format stands, for people who may be
// identified by a finger or an eye alone.
const BiometricFormat = "biometric"

// credential checks a card, a one-time code, or what stands for the person without
// either, and returns its key.
func (p *planner) credential(line int, person string, c card, code typed, biometric, breakGlass bool) (key [16]byte, format uint16, ok bool) {
	before := p.faults.Total()
	switch {
	case code != typed{}:
		key, format = p.code(line, c, code, biometric, breakGlass)
		return key, format, p.faults.Total() == before
	case biometric:
		return p.biometric(line, person, c, breakGlass)
	default:
		return p.key(line, c)
	}
}

// biometric is the key of somebody who may be identified without a card.
func (p *planner) biometric(line int, person string, c card, breakGlass bool) (key [16]byte, format uint16, ok bool) {
	before := p.faults.Total()
	if c.said() {
		p.faults.Add(line, "biometric stands for the person's finger or eye: give no format and no numbers of a card with it")
	}
	if breakGlass {
		p.faults.Add(line, "only a card breaks the glass")
	}
	return personKey(p.o.Index, person), p.formatNumber(BiometricFormat), p.faults.Total() == before
}

// formatNumber is the place of a format in Plan.formats.
func (p *planner) formatNumber(name string) uint16 {
	n := slices.Index(p.plan.formats, name)
	if n < 0 {
		n = len(p.plan.formats)
		p.plan.formats = append(p.plan.formats, name)
	}
	return uint16(n)
}

// card is the numbers of a card as they stand in the file. They never go into
// a fault.
type card struct {
	format                       string
	facility, number, issue, oem *uint64
	unread                       bool // a field of it is no number, which was said
}

func (c card) said() bool {
	return c.format != "" || c.facility != nil || c.number != nil || c.issue != nil || c.oem != nil
}

// key checks a card and returns its keyed hash.
func (p *planner) key(line int, c card) (key [16]byte, format uint16, ok bool) {
	info := p.formats[c.format]
	if info == nil {
		f, known := p.o.Formats.Format(c.format)
		if !known {
			p.faults.Add(line, "format %s is not known: see `gatehouse badge formats`", fields.Quote(c.format))
			return key, 0, false
		}
		info = &formatInfo{format: f, number: p.formatNumber(f.Name())}
		for _, field := range f.Fields() {
			if !field.Fixed {
				info.needs[0] = info.needs[0] || field.Name == "facility"
				info.needs[1] = info.needs[1] || field.Name == "number"
			}
		}
		p.formats[strings.Clone(c.format)] = info
	}
	if info.needs[0] && c.facility == nil {
		p.faults.Add(line, "facility is empty, and a card of format %s has one", c.format)
		return key, 0, false
	}
	if info.needs[1] && c.number == nil {
		p.faults.Add(line, "number is empty")
		return key, 0, false
	}
	if c.unread {
		return key, 0, false
	}
	cred := info.format.New()
	for _, v := range [...]struct{ to, from *uint64 }{{&cred.Facility, c.facility}, {&cred.Number, c.number}, {&cred.Issue, c.issue}, {&cred.OEM, c.oem}} {
		if v.from != nil {
			*v.to = *v.from
		}
	}
	if _, err := info.format.Encode(cred); err != nil {
		p.faults.AddAll(line, "", err)
		return key, 0, false
	}
	return p.o.Index.Index(cred.Canonical()), info.number, true
}

// add takes a row that has been checked.
func (p *planner) add(r row) {
	n := len(p.plan.chunks)
	if n == 0 || len(p.plan.chunks[n-1]) == chunkRows {
		p.plan.chunks = append(p.plan.chunks, make([]row, 0, chunkRows))
		n++
	}
	p.plan.chunks[n-1] = append(p.plan.chunks[n-1], r)
}

// full says whether there are too many credentials, which is a fault.
func (p *planner) full(line int) bool {
	if p.plan.size() < maxCredentials {
		return false
	}
	p.faults.Add(line, "more than %d credentials", maxCredentials)
	return true
}

// finish looks for what is wrong between rows, and returns the plan.
func (p *planner) finish() (*Plan, error) {
	plan := &p.plan
	plan.order = make([]uint32, plan.size())
	for i := range plan.order {
		plan.order[i] = uint32(i)
	}
	p.comparePeople()
	byKey := func(a, b uint32) int { return bytes.Compare(plan.row(a).key[:], plan.row(b).key[:]) }
	slices.SortFunc(plan.order, func(a, b uint32) int { return cmp.Or(byKey(a, b), cmp.Compare(a, b)) })
	for i := 1; i < len(plan.order); i++ {
		if byKey(plan.order[i-1], plan.order[i]) != 0 {
			continue
		}
		a, b := plan.row(plan.order[i-1]), plan.row(plan.order[i])
		what := "card"
		switch plan.formats[b.format] {
		case BiometricFormat:
			what = "biometric credential"
		case CodeFormat:
			what = "one-time code"
		}
		p.faults.Add(int(b.line), "the same %s as in line %d (person %s)", what, a.line, a.person)
	}
	p.compareCodes()
	if err := p.faults.Err(); err != nil {
		return nil, err
	}
	return plan, nil
}

// comparePeople finds people who are described differently from one row to
// another, and counts them. It leaves order sorted by person.
func (p *planner) comparePeople() {
	plan := &p.plan
	slices.SortFunc(plan.order, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(plan.row(a).person, plan.row(b).person), cmp.Compare(a, b))
	})
	var first *row
	for _, i := range plan.order {
		r := plan.row(i)
		switch {
		case first == nil || first.person != r.person:
			first = r
			plan.people++
		case first.name != r.name:
			p.faults.Add(int(r.line), "person %s has another name in line %d", r.person, first.line)
		case first.kind != r.kind:
			p.faults.Add(int(r.line), "person %s is %s here and %s in line %d", r.person, kinds[r.kind], kinds[first.kind], first.line)
		default:
			if what := r.personal.differs(first.personal); what != "" {
				p.faults.Add(int(r.line), "person %s has another %s in line %d", r.person, what, first.line)
			}
		}
	}
}

// setRules takes the schedules, holidays, door groups and doors; line gives the place
// of each.
func (p *planner) setRules(r Rules, line func(path ...string) int) {
	p.plan.rules = r
	holidays, err := access.ParseHolidays(r.Holidays)
	if err != nil {
		p.faults.AddAll(line("holidays"), "holidays: ", err)
	}
	p.sched = map[string]*access.Schedule{access.AlwaysName: access.Always()}
	for name, week := range r.Schedules {
		p.checkName(line("schedules", name), "schedule", name)
		s, err := access.NewSchedule(name, week, holidays)
		if err != nil {
			p.faults.AddAll(line("schedules", name), fmt.Sprintf("schedule %s: ", fields.Quote(name)), err)
			s = &access.Schedule{Name: name} // it is there, so that who names it is not at fault
		}
		p.sched[name] = s
	}
	for name, doors := range r.DoorGroups {
		at := line("door_groups", name)
		p.checkName(at, "door group", name)
		if len(doors) == 0 {
			p.faults.Add(at, "door group %s has no doors", fields.Quote(name))
		}
		for _, d := range doors {
			if d != access.EveryDoor {
				p.checkName(at, "door", d)
			}
			if _, group := r.DoorGroups[d]; group {
				p.faults.Add(at, "door group %s names %s, which is a group itself", fields.Quote(name), fields.Quote(d))
			}
		}
	}
	p.checkDoors(r, line)
	p.checkSites(r, line)
}

// checkDoors checks what doors ask for.
func (p *planner) checkDoors(r Rules, line func(path ...string) int) {
	for name, rules := range r.Doors {
		at := line("doors", name)
		p.checkName(at, "door", name)
		if _, group := r.DoorGroups[name]; group {
			p.faults.Add(at, "%s is a door group: name each of its doors", fields.Quote(name))
		}
		last := make(map[access.Direction]int)
		for i, rule := range rules {
			last[rule.Direction] = i
		}
		for i, rule := range rules {
			p.checkDoorRule(line("doors", name, "rules", strconv.Itoa(i)), rule, i == last[rule.Direction])
		}
		if len(rules) == 0 {
			p.faults.Add(at, "door %s has no rules, and nothing else is said of it", fields.Quote(name))
		}
	}
}

func (p *planner) checkDoorRule(line int, rule DoorRule, last bool) {
	switch side := rule.Direction; {
	case side != access.In && side != access.Out:
		p.faults.Add(line, "direction %s: use %s or %s", fields.Quote(string(side)), access.In, access.Out)
	case last && rule.Schedule != access.AlwaysName:
		p.faults.Add(line, "the last rule of a door for the way %s has the schedule %q, so that there is always one that holds", side, access.AlwaysName)
	case !last && rule.Schedule == access.AlwaysName:
		p.faults.Add(line, "no rule for the way %s after this one would ever hold, as its schedule is %q", side, access.AlwaysName)
	}
	if _, ok := p.sched[rule.Schedule]; !ok {
		p.faults.Add(line, "schedule %s is not there: there are %s", fields.Quote(rule.Schedule), strings.Join(p.scheduleNames(), ", "))
	}
	if len(rule.AnyOf) == 0 {
		p.faults.Add(line, "any_of is empty: name what the door asks for, such as badge+fingerprint")
	}
	seen := make(map[access.Factor]bool)
	for _, text := range rule.AnyOf {
		set, err := access.ParseFactors(text)
		switch {
		case err != nil:
			p.faults.Add(line, "any_of: %s", digits.ReplaceAllString(err.Error(), "…"))
		case set&^(access.PIN|access.TOTP) == 0:
			p.faults.Add(line, "any_of: a %s alone does not say whose it is: write badge+%[1]s", set)
		case set.Has(access.Badge | access.OneTimeCode):
			p.faults.Add(line, "any_of: %s: a code stands in the place of a badge: make two sets of it", set)
		case seen[set]:
			p.faults.Add(line, "any_of has %s twice", set)
		}
		seen[set] = true
	}
}

func (p *planner) checkName(line int, what, name string) {
	if !fields.IsName(name) {
		p.faults.Add(line, "%s %s: "+fields.NameRule, what, fields.Quote(name))
	}
}

// expand appends the rights to a door or a door group.
func (p *planner) expand(rights []right, line int, door, schedule string) []right {
	if _, ok := p.sched[schedule]; !ok {
		if schedule == "" {
			p.faults.Add(line, "door %s has no schedule: name one, such as %s", fields.Quote(door), access.AlwaysName)
		} else {
			p.faults.Add(line, "schedule %s is not there: there are %s", fields.Quote(schedule), strings.Join(p.scheduleNames(), ", "))
		}
	}
	if doors, ok := p.plan.rules.DoorGroups[door]; ok {
		for _, d := range doors {
			rights = append(rights, right{d, schedule})
		}
		return rights
	}
	if door != access.EveryDoor {
		p.checkName(line, "door", door)
	}
	return append(rights, right{door, schedule})
}

func (p *planner) scheduleNames() []string {
	var names []string
	for n := range p.sched {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// person checks what is said of a person.
func (p *planner) person(line int, id, name, kind string) (k uint8) {
	if !fields.IsName(id) {
		p.faults.Add(line, "person %s: "+fields.NameRule+"; it stands in records, so it should not be a name", fields.Quote(id))
	}
	p.checkText(line, "name", name)
	i := place(kinds[:], access.Kind(kind))
	if i < 0 {
		p.faults.Add(line, "kind %s: use staff, contractor or visitor", fields.Quote(kind))
		return 0
	}
	return uint8(i)
}

func (p *planner) state(line int, s string) uint8 {
	if s == "" {
		return 0
	}
	i := place(states[:], access.State(s))
	if i < 0 {
		p.faults.Add(line, "state %s: use active, lost or revoked", fields.Quote(s))
		return 0
	}
	return uint8(i)
}

// visit checks a visit, and returns nil where nothing is said of one.
func (p *planner) visit(line int, kind uint8, v access.Visit) *access.Visit {
	if v == (access.Visit{}) {
		return nil
	}
	if kinds[kind] == access.Staff {
		p.faults.Add(line, "%s are for visitors and contractors, not for staff", strings.Join(visitNames[:], ", "))
	}
	// The log refuses a record that says anything else of a visit.
	for i, name := range visitNames {
		switch s := *visitFields(&v)[i]; name {
		case "host", "escort", "authoriser":
			if s != "" && !fields.IsName(s) {
				p.faults.Add(line, "%s %s: it is the id of a person, 1 to 64 letters, digits, dots, dashes and underscores; it stands in records, so it should not be a name", name, fields.Quote(s))
			}
		case "visit":
			if s != "" && !fields.IsName(s) {
				p.faults.Add(line, "visit %s: it is the visit's id: "+fields.NameRule, fields.Quote(s))
			}
		case "id_form":
			if p.checkText(line, name, s); utf8.RuneCountInString(s) > maxIDForm {
				p.faults.Add(line, "id_form is longer than %d characters: name the sort of document, such as passport, and not its number", maxIDForm)
			}
		default:
			p.checkText(line, name, s)
		}
	}
	return &v
}

var visitNames = [...]string{"host", "organisation", "purpose", "escort", "authoriser", "id_form", "visit", "ticket"}

func (p *planner) checkText(line int, what, s string) {
	if err := fields.CheckText(s, maxText); err != nil {
		p.faults.Add(line, "%s %v", what, err)
	}
}

// bounds checks a validity and returns it as Unix seconds, 0 for no bound.
func (p *planner) bounds(line int, from, until string) (int64, int64) {
	f := p.bound(line, "from", from, false)
	u := p.bound(line, "until", until, true)
	if f != 0 && u != 0 && f >= u {
		p.faults.Add(line, "until is not after from")
	}
	return f, u
}

func (p *planner) bound(line int, what, s string, end bool) int64 {
	if s == "" {
		return 0
	}
	t, err := fields.ParseMoment(s, p.o.Zone, end)
	if err != nil {
		p.faults.Add(line, "%s: %v", what, err)
		return 0
	}
	if y := t.Year(); y < fields.FirstYear || y > fields.LastYear {
		p.faults.Add(line, "%s %s: the year is not between %d and %d", what, fields.Quote(s), fields.FirstYear, fields.LastYear)
		return 0
	}
	return t.Unix()
}
