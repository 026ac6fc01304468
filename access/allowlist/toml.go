package allowlist

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// maxTOML bounds what is read into memory at once: some hundred thousand
// people. More come as CSV, which is read row by row.
const maxTOML = 32 << 20

// readTOML reads a whole policy: schedules, holidays, door groups, and people
// with their credentials.
func readTOML(r io.Reader, o ReadOptions) (*Plan, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxTOML+1))
	if err != nil {
		return nil, err
	}
	p := newPlanner(o)
	if len(text) > maxTOML {
		p.faults.Add(1, "the file is larger than %d MiB: give the people as CSV", maxTOML>>20)
		return nil, p.faults.Err()
	}
	if o.Advance != nil {
		o.Advance(int64(len(text)))
	}
	var root map[string]any
	if _, err := toml.Decode(string(text), &root); err != nil {
		return nil, p.tomlError(err)
	}
	t := tomlReader{p: p, lines: findLines(string(text))}
	t.file(table{root, nil})
	return p.finish()
}

// digits may be a card's number, which an error must not have.
var digits = regexp.MustCompile(`[0-9]{3,}`)

func (p *planner) tomlError(err error) error {
	parse, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		p.faults.Add(1, "%s", digits.ReplaceAllString(err.Error(), "…"))
		return p.faults.Err()
	}
	p.faults.Add(max(parse.Position.Line, 1), "%s", digits.ReplaceAllString(parse.Message, "…"))
	return p.faults.Err()
}

// table is a TOML table and where it stands.
type table struct {
	m    map[string]any
	path []string
}

func (t table) at(key ...string) []string { return append(slices.Clone(t.path), key...) }

// tomlReader walks what was decoded, so that every fault is found and not only
// the first.
type tomlReader struct {
	p     *planner
	lines lines
}

func (t *tomlReader) fault(path []string, format string, args ...any) {
	t.p.faults.Add(t.lines.of(path...), format, args...)
}

func (t *tomlReader) file(root table) {
	t.only(root, "holidays", "schedules", "door_groups", "areas", "doors", "people")
	rules := Rules{Schedules: make(map[string]map[string][]string), DoorGroups: make(map[string][]string), Doors: make(map[string][]DoorRule),
		Holidays: t.dates(root, "holidays"), Areas: t.areas(root), Sites: make(map[string]Site)}
	if schedules, ok := t.table(root, "schedules"); ok {
		for name := range schedules.m {
			if week, ok := t.table(schedules, name); ok {
				rules.Schedules[name] = make(map[string][]string)
				for day := range week.m {
					rules.Schedules[name][day] = t.strings(week, day)
				}
			}
		}
	}
	if groups, ok := t.table(root, "door_groups"); ok {
		for name := range groups.m {
			rules.DoorGroups[name] = t.strings(groups, name)
		}
	}
	if doors, ok := t.table(root, "doors"); ok {
		for name := range doors.m {
			if door, ok := t.table(doors, name); ok {
				t.door(door, name, &rules)
			}
		}
	}
	t.p.setRules(rules, t.lines.of)
	seen := make(map[string]int)
	for _, person := range t.tables(root, "people") {
		t.person(person, seen)
	}
}

// door reads a door's rules, and what it asks beside factors.
func (t *tomlReader) door(door table, name string, rules *Rules) {
	t.only(door, append([]string{"rules"}, siteKeys...)...)
	site := t.site(door)
	if site.said() {
		rules.Sites[name] = site
	}
	if door.m["rules"] != nil || !site.said() {
		rules.Doors[name] = t.doorRules(door)
	}
}

func (t *tomlReader) doorRules(door table) []DoorRule {
	var out []DoorRule
	for _, r := range t.tables(door, "rules") {
		t.only(r, "direction", "schedule", "any_of")
		side := cmp.Or(access.Direction(t.str(r, "direction")), access.In)
		out = append(out, DoorRule{Direction: side, Schedule: t.str(r, "schedule"), AnyOf: t.strings(r, "any_of")})
	}
	return out
}

func (t *tomlReader) person(person table, seen map[string]int) {
	t.only(person, slices.Concat([]string{"person", "name", "kind", "from", "until", "extended", "clearance", "pin", "duress_pin", "totp", "instead", "rights",
		"credentials"}, mayNames[:], visitNames[:])...)
	p, line := t.p, t.lines.of(person.path...)
	id, name := t.str(person, "person"), t.str(person, "name")
	if first, twice := seen[id]; twice {
		p.faults.Add(line, "person %s is there already in line %d", fields.Quote(id), first)
	}
	seen[id] = line
	kind := p.person(line, id, name, t.str(person, "kind"))
	from, until := t.moment(person, "from"), t.moment(person, "until")
	extended := t.boolean(person, "extended")
	var v access.Visit
	for i, key := range visitNames {
		*visitFields(&v)[i] = t.str(person, key)
	}
	visit := p.visit(line, kind, v)
	personal := t.personal(person, line, id)
	profile := uint32(p.plan.profiles.add(t.rights(person)))
	credentials := t.tables(person, "credentials")
	if len(credentials) == 0 {
		p.faults.Add(line, "person %s has no credentials", fields.Quote(id))
	}
	for _, c := range credentials {
		t.only(c, "biometric", "format", "facility", "number", "issue", "oem", "code", "id", "door", "state", "from", "until", "break_glass")
		at := t.lines.of(c.path...)
		if p.full(at) {
			return
		}
		told := p.faults.Total()
		of := card{format: t.str(c, "format"), facility: t.number(c, "facility"), number: t.number(c, "number"), issue: t.number(c, "issue"), oem: t.number(c, "oem")}
		of.unread = p.faults.Total() > told
		breakGlass := t.boolean(c, "break_glass")
		typed := typed{digits: t.str(c, "code"), id: t.str(c, "id"), door: t.str(c, "door")}
		key, format, ok := p.credential(at, id, of, typed, t.boolean(c, "biometric"), breakGlass)
		r := row{key: key, format: format, person: id, name: name, kind: kind, visit: visit, personal: personal, profile: profile, extended: extended,
			state: p.state(at, t.str(c, "state")), breakGlass: breakGlass, line: uint32(at), code: typed.code()}
		f, u := t.moment(c, "from"), t.moment(c, "until")
		if f == "" {
			f = from
		}
		if u == "" {
			u = until
		}
		r.from, r.until = p.bounds(at, f, u)
		p.codeOpens(&r)
		if ok {
			p.add(r)
		}
	}
}

func (t *tomlReader) personal(person table, line int, id string) *personal {
	told := t.p.faults.Total()
	s := said{pin: t.str(person, "pin"), duress: t.str(person, "duress_pin"), totp: t.str(person, "totp")}
	for i, key := range mayNames {
		*s.flags()[i] = t.boolean(person, key)
	}
	s.clearance = access.Threat(t.whole(person, "clearance", int(access.MaxThreat)))
	s.unread = t.p.faults.Total() > told
	if instead, ok := t.table(person, "instead"); ok {
		for _, of := range slices.Sorted(maps.Keys(instead.m)) {
			told := t.p.faults.Total()
			if by := t.str(instead, of); t.p.faults.Total() == told {
				s.instead = append(s.instead, [2]string{of, by})
			}
		}
	}
	return t.p.personal(line, id, s)
}

func (t *tomlReader) rights(person table) []right {
	var rights []right
	for _, r := range t.tables(person, "rights") {
		t.only(r, "doors", "schedule")
		doors := t.strings(r, "doors")
		if len(doors) == 0 {
			t.fault(r.path, "rights to no doors")
		}
		for _, door := range doors {
			rights = t.p.expand(rights, t.lines.of(r.path...), door, t.str(r, "schedule"))
		}
	}
	return rights
}

// only finds keys that are not known.
func (t *tomlReader) only(in table, known ...string) {
	for _, key := range slices.Sorted(maps.Keys(in.m)) {
		if !slices.Contains(known, key) {
			t.fault(in.at(key), "%s is not known here: use %s", fields.Quote(key), strings.Join(known, ", "))
		}
	}
}

func (t *tomlReader) wrong(in table, key, want string) {
	t.fault(in.at(key), "%s is not %s", key, want)
}

func (t *tomlReader) str(in table, key string) string {
	v, ok := in.m[key].(string)
	if !ok && in.m[key] != nil {
		t.wrong(in, key, "a string in quotes")
	}
	return v
}

func (t *tomlReader) boolean(in table, key string) bool {
	v, ok := in.m[key].(bool)
	if !ok && in.m[key] != nil {
		t.wrong(in, key, "true or false")
	}
	return v
}

// number reads a number of a card; nil where it is not there. Its value is
// never told.
func (t *tomlReader) number(in table, key string) *uint64 {
	if in.m[key] == nil {
		return nil
	}
	v, ok := in.m[key].(int64)
	if !ok || v < 0 {
		t.wrong(in, key, "a whole number, 0 or above")
	}
	u := uint64(max(v, 0))
	return &u
}

func (t *tomlReader) strings(in table, key string) []string {
	if in.m[key] == nil {
		return nil
	}
	list, ok := in.m[key].([]any)
	if !ok {
		t.wrong(in, key, "a list of strings in quotes")
		return nil
	}
	out := make([]string, 0, len(list))
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			t.wrong(in, key, "a list of strings in quotes")
			return nil
		}
		out = append(out, s)
	}
	return out
}

// dates reads a list of dates, in quotes or not.
func (t *tomlReader) dates(in table, key string) []string {
	if in.m[key] == nil {
		return nil
	}
	list, ok := in.m[key].([]any)
	out := make([]string, 0, len(list))
	for _, v := range list {
		switch v := v.(type) {
		case string:
			out = append(out, v)
		case time.Time:
			if v.Location().String() != "date-local" {
				ok = false
			}
			out = append(out, v.Format(time.DateOnly))
		default:
			ok = false
		}
	}
	if !ok {
		t.wrong(in, key, "a list of dates such as 2026-12-25")
		return nil
	}
	return out
}

// moment reads a time, in quotes or not, as the text that bounds reads.
func (t *tomlReader) moment(in table, key string) string {
	switch v := in.m[key].(type) {
	case nil:
	case string:
		return v
	case time.Time:
		// The library marks what has no offset by the name of the location.
		switch v.Location().String() {
		case "date-local":
			return v.Format(time.DateOnly)
		case "datetime-local":
			return v.Format("2006-01-02T15:04:05")
		case "time-local":
		default:
			return v.Format(time.RFC3339)
		}
		t.wrong(in, key, "a date or a time with its date")
	default:
		t.wrong(in, key, "a date or a time with its date")
	}
	return ""
}

func (t *tomlReader) table(in table, key string) (table, bool) {
	if in.m[key] == nil {
		return table{}, false
	}
	m, ok := in.m[key].(map[string]any)
	if !ok {
		t.wrong(in, key, "a table")
	}
	return table{m, in.at(key)}, ok
}

func (t *tomlReader) tables(in table, key string) []table {
	var out []table
	switch list := in.m[key].(type) {
	case nil:
	case []map[string]any:
		for i, m := range list {
			out = append(out, table{m, in.at(key, strconv.Itoa(i))})
		}
	case []any: // written within brackets
		for i, v := range list {
			m, ok := v.(map[string]any)
			if !ok {
				t.wrong(in, key, "a list of tables")
				return nil
			}
			out = append(out, table{m, in.at(key, strconv.Itoa(i))})
		}
	default:
		t.wrong(in, key, fmt.Sprintf("a list of tables: write [[%s]]", key))
	}
	return out
}
