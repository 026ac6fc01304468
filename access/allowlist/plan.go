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
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
)

const (
	maxFaults      = 50        // how many faults are kept; the rest are counted
	maxCredentials = 5_000_000 // some 200 bytes of memory each while they are imported
	maxText        = 200       // bytes in a name or a visit's field
	maxIDForm      = 64        // characters in a form of identification
	progressEvery  = 1000
	chunkRows      = 1 << 14
)

// Fault is something wrong at a line of an import file. Its text has no card
// number.
type Fault struct {
	Line int    `json:"line"` // from 1
	Text string `json:"text"`
}

// Faults is all that is wrong with an import file.
type Faults struct {
	List []Fault // the first of them, in the order of their lines
	More int     // how many more there are
}

// Total is the number of faults.
func (f *Faults) Total() int { return len(f.List) + f.More }

// Error has a line for each fault that is kept.
func (f *Faults) Error() string {
	lines := make([]string, 0, len(f.List)+1)
	for _, v := range f.List {
		lines = append(lines, fmt.Sprintf("line %d: %s", v.Line, v.Text))
	}
	if f.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", f.More))
	}
	return strings.Join(lines, "\n")
}

func (f *Faults) add(line int, format string, args ...any) {
	if len(f.List) == maxFaults {
		f.More++
		return
	}
	f.List = append(f.List, Fault{line, spelling.Printable(fmt.Sprintf(format, args...))})
}

// addAll adds a fault for each line of err's text.
func (f *Faults) addAll(line int, prefix string, err error) {
	for text := range strings.SplitSeq(err.Error(), "\n") {
		f.add(line, "%s%s", prefix, text)
	}
}

// err is nil where there is no fault.
func (f *Faults) err() error {
	if len(f.List) == 0 {
		return nil
	}
	slices.SortStableFunc(f.List, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return f
}

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

// Ruled are the doors of which the policy says what they ask for, sorted.
func (p *Plan) Ruled() []string { return slices.Sorted(maps.Keys(p.rules.Doors)) }

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
	return &planner{o: o, formats: make(map[string]*formatInfo), rights: make(map[[2]string]uint32)}
}

// BiometricFormat stands where a card's format stands, for people who may be
// identified by a finger or an eye alone.
const BiometricFormat = "biometric"

// credential checks a card, or what stands for the person without one, and
// returns its key.
func (p *planner) credential(line int, person string, c card, biometric, breakGlass bool) (key [16]byte, format uint16, ok bool) {
	if !biometric {
		return p.key(line, c)
	}
	return p.biometric(line, person, c, breakGlass)
}

// biometric is the key of somebody who may be identified without a card.
func (p *planner) biometric(line int, person string, c card, breakGlass bool) (key [16]byte, format uint16, ok bool) {
	before := p.faults.Total()
	if c.format != "" || c.facility != nil || c.number != nil || c.issue != nil || c.oem != nil {
		p.faults.add(line, "biometric stands for the person's finger or eye: give no format and no numbers of a card with it")
	}
	if breakGlass {
		p.faults.add(line, "only a card breaks the glass")
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

// key checks a card and returns its keyed hash.
func (p *planner) key(line int, c card) (key [16]byte, format uint16, ok bool) {
	info := p.formats[c.format]
	if info == nil {
		f, known := p.o.Formats.Format(c.format)
		if !known {
			p.faults.add(line, "format %s is not known: see `gatehouse badge formats`", quote(c.format))
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
		p.faults.add(line, "facility is empty, and a card of format %s has one", c.format)
		return key, 0, false
	}
	if info.needs[1] && c.number == nil {
		p.faults.add(line, "number is empty")
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
		p.faults.addAll(line, "", err)
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
	p.faults.add(line, "more than %d credentials", maxCredentials)
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
		if plan.formats[b.format] == BiometricFormat {
			what = "biometric credential"
		}
		p.faults.add(int(b.line), "the same %s as in line %d (person %s)", what, a.line, a.person)
	}
	if err := p.faults.err(); err != nil {
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
			p.faults.add(int(r.line), "person %s has another name in line %d", r.person, first.line)
		case first.kind != r.kind:
			p.faults.add(int(r.line), "person %s is %s here and %s in line %d", r.person, kinds[r.kind], kinds[first.kind], first.line)
		default:
			if what := r.personal.differs(first.personal); what != "" {
				p.faults.add(int(r.line), "person %s has another %s in line %d", r.person, what, first.line)
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
		p.faults.addAll(line("holidays"), "holidays: ", err)
	}
	p.sched = map[string]*access.Schedule{access.AlwaysName: access.Always()}
	for name, week := range r.Schedules {
		p.checkName(line("schedules", name), "schedule", name)
		s, err := access.NewSchedule(name, week, holidays)
		if err != nil {
			p.faults.addAll(line("schedules", name), fmt.Sprintf("schedule %s: ", quote(name)), err)
			s = &access.Schedule{Name: name} // it is there, so that who names it is not at fault
		}
		p.sched[name] = s
	}
	for name, doors := range r.DoorGroups {
		at := line("door_groups", name)
		p.checkName(at, "door group", name)
		if len(doors) == 0 {
			p.faults.add(at, "door group %s has no doors", quote(name))
		}
		for _, d := range doors {
			if d != access.EveryDoor {
				p.checkName(at, "door", d)
			}
			if _, group := r.DoorGroups[d]; group {
				p.faults.add(at, "door group %s names %s, which is a group itself", quote(name), quote(d))
			}
		}
	}
	p.checkDoors(r, line)
}

// checkDoors checks what doors ask for.
func (p *planner) checkDoors(r Rules, line func(path ...string) int) {
	for name, rules := range r.Doors {
		at := line("doors", name)
		p.checkName(at, "door", name)
		if _, group := r.DoorGroups[name]; group {
			p.faults.add(at, "%s is a door group: name each of its doors", quote(name))
		}
		for i, rule := range rules {
			p.checkDoorRule(line("doors", name, "rules", strconv.Itoa(i)), rule, i == len(rules)-1)
		}
		if len(rules) == 0 {
			p.faults.add(at, "door %s has no rules", quote(name))
		}
	}
}

func (p *planner) checkDoorRule(line int, rule DoorRule, last bool) {
	switch {
	case last && rule.Schedule != access.AlwaysName:
		p.faults.add(line, "the last rule of a door has the schedule %q, so that there is always one that holds", access.AlwaysName)
	case !last && rule.Schedule == access.AlwaysName:
		p.faults.add(line, "no rule after this one would ever hold, as its schedule is %q", access.AlwaysName)
	}
	if _, ok := p.sched[rule.Schedule]; !ok {
		p.faults.add(line, "schedule %s is not there: there are %s", quote(rule.Schedule), strings.Join(p.scheduleNames(), ", "))
	}
	if len(rule.AnyOf) == 0 {
		p.faults.add(line, "any_of is empty: name what the door asks for, such as badge+fingerprint")
	}
	seen := make(map[access.Factor]bool)
	for _, text := range rule.AnyOf {
		set, err := access.ParseFactors(text)
		switch {
		case err != nil:
			p.faults.add(line, "any_of: %s", digits.ReplaceAllString(err.Error(), "…"))
		case set == access.PIN:
			p.faults.add(line, "any_of: a pin alone does not say whose it is: write badge+pin")
		case seen[set]:
			p.faults.add(line, "any_of has %s twice", set)
		}
		seen[set] = true
	}
}

func (p *planner) checkName(line int, what, name string) {
	if !validName(name) {
		p.faults.add(line, "%s %s: use 1 to 64 letters, digits, dots, dashes and underscores", what, quote(name))
	}
}

// expand appends the rights to a door or a door group.
func (p *planner) expand(rights []right, line int, door, schedule string) []right {
	if _, ok := p.sched[schedule]; !ok {
		if schedule == "" {
			p.faults.add(line, "door %s has no schedule: name one, such as %s", quote(door), access.AlwaysName)
		} else {
			p.faults.add(line, "schedule %s is not there: there are %s", quote(schedule), strings.Join(p.scheduleNames(), ", "))
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
	if !validName(id) {
		p.faults.add(line, "person %s: use 1 to 64 letters, digits, dots, dashes and underscores; it stands in records, so it should not be a name", quote(id))
	}
	p.checkText(line, "name", name)
	i := place(kinds[:], access.Kind(kind))
	if i < 0 {
		p.faults.add(line, "kind %s: use staff, contractor or visitor", quote(kind))
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
		p.faults.add(line, "state %s: use active, lost or revoked", quote(s))
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
		p.faults.add(line, "host, organisation, purpose, escort, authoriser and id_form are for visitors and contractors, not for staff")
	}
	// The log refuses a record that says anything else of a visit.
	for i, name := range visitNames {
		switch s := *visitFields(&v)[i]; name {
		case "host", "escort", "authoriser":
			if s != "" && !validName(s) {
				p.faults.add(line, "%s %s: it is the id of a person, 1 to 64 letters, digits, dots, dashes and underscores; it stands in records, so it should not be a name", name, quote(s))
			}
		case "id_form":
			if p.checkText(line, name, s); utf8.RuneCountInString(s) > maxIDForm {
				p.faults.add(line, "id_form is longer than %d characters: name the sort of document, such as passport, and not its number", maxIDForm)
			}
		default:
			p.checkText(line, name, s)
		}
	}
	return &v
}

var visitNames = [...]string{"host", "organisation", "purpose", "escort", "authoriser", "id_form"}

func (p *planner) checkText(line int, what, s string) {
	switch {
	case len(s) > maxText:
		p.faults.add(line, "%s is longer than %d bytes", what, maxText)
	case !utf8.ValidString(s):
		p.faults.add(line, "%s is not UTF-8: save the file as UTF-8", what)
	case strings.ContainsFunc(s, unicode.IsControl):
		p.faults.add(line, "%s has a control character", what)
	}
}

// bounds checks a validity and returns it as Unix seconds, 0 for no bound.
func (p *planner) bounds(line int, from, until string) (int64, int64) {
	f := p.bound(line, "from", from, false)
	u := p.bound(line, "until", until, true)
	if f != 0 && u != 0 && f >= u {
		p.faults.add(line, "until is not after from")
	}
	return f, u
}

// Bounds outside these years are slips of the pen.
const firstYear, lastYear = 2000, 2200

func (p *planner) bound(line int, what, s string, end bool) int64 {
	if s == "" {
		return 0
	}
	t, err := parseMoment(s, p.o.Zone, end)
	if err != nil {
		p.faults.add(line, "%s: %v", what, err)
		return 0
	}
	if y := t.Year(); y < firstYear || y > lastYear {
		p.faults.add(line, "%s %s: the year is not between %d and %d", what, quote(s), firstYear, lastYear)
		return 0
	}
	return t.Unix()
}

// ParseMoment reads a moment: RFC 3339, or the site's wall clock as
// 2026-03-01T08:00, 2026-03-01 08:00 (with or without seconds) or 2026-03-01,
// which is its first moment.
func ParseMoment(s string, zone *time.Location) (time.Time, error) {
	return parseMoment(s, zone, false)
}

// parseMoment takes a date alone for its first moment, or for the first moment
// after it where it is an end.
func parseMoment(s string, zone *time.Location, end bool) (time.Time, error) {
	if zone == nil {
		zone = time.UTC
	}
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

// validName says whether s is 1 to 64 letters, digits, dots, dashes and
// underscores.
func validName(s string) bool {
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

// quote quotes what came from a file, cut to what is needed to find it. Digits
// alone are masked: in a file whose columns are mixed up they may be a card's.
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
