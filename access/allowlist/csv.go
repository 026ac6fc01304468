package allowlist

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// columns are the columns that a CSV file may have, in any order.
var columns = []string{"person", "name", "kind", "format", "facility", "number", "issue", "oem", "state", "from", "until", "doors", "schedule",
	"extended", "break_glass", "biometric", "code", "code_id", "code_door", "operator", "escorted", "may_escort", "supervisor", "exempt", "clearance",
	"pin", "duress_pin", "totp", "instead", "host", "organisation", "purpose", "escort", "authoriser", "id_form", "visit", "ticket"}

// needed are the columns that it must have.
var needed = []string{"person", "kind", "format", "number", "doors", "schedule"}

// personalColumns are what a person may have beside cards. Nobody loses any of it
// for want of a column.
var personalColumns = [...]personalColumn{
	{"operator", func(e *access.Entry) bool { return e.Operator }},
	{"escorted", func(e *access.Entry) bool { return e.Escorted }},
	{"may_escort", func(e *access.Entry) bool { return e.MayEscort }},
	{"supervisor", func(e *access.Entry) bool { return e.Supervisor }},
	{"exempt", func(e *access.Entry) bool { return e.Exempt }},
	{"clearance", func(e *access.Entry) bool { return e.Clearance > 0 }},
	{"totp", func(e *access.Entry) bool { return e.TOTP != nil }},
	{"pin", func(e *access.Entry) bool { return e.PIN != nil }},
	{"duress_pin", func(e *access.Entry) bool { return e.DuressPIN != nil }},
	{"instead", func(e *access.Entry) bool { return len(e.Instead) > 0 }},
}

type personalColumn struct {
	name string
	has  func(*access.Entry) bool
}

const byteOrderMark = "\ufeff"

// readCSV reads people and their credentials, a credential a row, under the
// schedules and door groups of the present allowlist; nil: there is none.
func readCSV(r io.Reader, present *List, o ReadOptions) (*Plan, error) {
	p := newPlanner(o)
	var rules Rules
	if present != nil {
		rules = present.Words()
	}
	p.setRules(rules, func(...string) int { return 1 })
	in := bufio.NewReaderSize(r, 1<<16)
	if mark, err := in.Peek(len(byteOrderMark)); err == nil && string(mark) == byteOrderMark {
		if _, err := in.Discard(len(byteOrderMark)); err != nil {
			return nil, err
		}
	}
	c := csv.NewReader(in)
	c.ReuseRecord = true
	c.FieldsPerRecord = -1
	header, err := c.Read()
	switch {
	case err == io.EOF:
		p.faults.Add(1, "the file is empty")
		return nil, p.faults.Err()
	case err != nil:
		return nil, p.csvError(err)
	}
	rows := csvRows{p: p, column: p.header(header)}
	if rows.column == nil {
		return nil, p.faults.Err()
	}
	if err := p.nothingLost(rows.column, present); err != nil {
		return nil, err
	}
	width := len(header)
	var told int64
	for n := 0; ; n++ {
		record, err := c.Read()
		if err == io.EOF {
			break
		}
		if _, bad := errors.AsType[*csv.ParseError](err); err != nil {
			if err := p.csvError(err); !bad {
				return nil, err
			}
			continue
		}
		line, _ := c.FieldPos(0)
		if o.Advance != nil && n%progressEvery == 0 {
			o.Advance(c.InputOffset() - told)
			told = c.InputOffset()
		}
		if len(record) != width {
			p.faults.Add(line, "%d fields, the heading has %d", len(record), width)
			continue
		}
		if p.full(line) {
			break
		}
		rows.add(line, record)
	}
	return p.finish()
}

// csvError turns an error of the CSV reader into a fault, or returns it as it
// is where the file could not be read.
func (p *planner) csvError(err error) error {
	parse, ok := errors.AsType[*csv.ParseError](err)
	if !ok {
		return err
	}
	p.faults.Add(parse.Line, "%v", parse.Err)
	return p.faults.Err()
}

// header returns each column's place, or nil where the heading is wrong.
func (p *planner) header(names []string) map[string]int {
	if len(names) == 1 && strings.ContainsAny(names[0], ";\t") {
		p.faults.Add(1, "the columns are separated by semicolons or tabs: save the file with commas")
		return nil
	}
	column := make(map[string]int, len(names))
	for i, n := range names {
		if !slices.Contains(columns, n) {
			p.faults.Add(1, "column %s is not known: use %s", fields.Quote(n), strings.Join(columns, ", "))
		}
		if _, twice := column[n]; twice {
			p.faults.Add(1, "column %s is there twice", fields.Quote(n))
		}
		column[n] = i
	}
	for _, n := range needed {
		if _, ok := column[n]; !ok {
			p.faults.Add(1, "column %q is missing", n)
		}
	}
	if p.faults.Err() != nil {
		return nil
	}
	return column
}

var errAllFound = errors.New("all found")

// nothingLost finds columns that are missing though somebody has what they would
// say. It reads the present allowlist only where one is missing.
func (p *planner) nothingLost(column map[string]int, present *List) error {
	missing := slices.DeleteFunc(slices.Clone(personalColumns[:]), func(c personalColumn) bool { _, ok := column[c.name]; return ok })
	if present == nil || len(missing) == 0 {
		return nil
	}
	err := present.Each(context.Background(), func(l *Listed) error {
		missing = slices.DeleteFunc(missing, func(c personalColumn) bool {
			if !c.has(&l.Entry) {
				return false
			}
			p.faults.Add(1, "column %q is missing, and people who have one now would lose it: add the column, empty where nobody shall have one", c.name)
			return true
		})
		if len(missing) == 0 {
			return errAllFound
		}
		return nil
	})
	if errors.Is(err, errAllFound) {
		return nil
	}
	return err
}

type csvRows struct {
	p      *planner
	column map[string]int
	last   access.Visit // visits of a group are often the same from row to row
	shared *access.Visit
}

func (c *csvRows) add(line int, record []string) {
	field := func(name string) string {
		if i, ok := c.column[name]; ok {
			return record[i]
		}
		return ""
	}
	p := c.p
	before := p.faults.Total()
	kind := p.person(line, field("person"), field("name"), field("kind"))
	told := p.faults.Total()
	of := card{format: field("format"), facility: c.number(line, "facility", field("facility")), number: c.number(line, "number", field("number")),
		issue: c.number(line, "issue", field("issue")), oem: c.number(line, "oem", field("oem"))}
	of.unread = p.faults.Total() > told
	breakGlass := c.yes(line, "break_glass", field("break_glass"))
	typed := typed{digits: field("code"), id: strings.Clone(field("code_id")), door: strings.Clone(field("code_door"))}
	key, format, ok := p.credential(line, field("person"), of, typed, c.yes(line, "biometric", field("biometric")), breakGlass)
	r := row{key: key, format: format, kind: kind, breakGlass: breakGlass, state: p.state(line, field("state")), line: uint32(line), code: typed.code()}
	r.from, r.until = p.bounds(line, field("from"), field("until"))
	r.profile = c.rights(line, field("doors"), field("schedule"))
	p.codeOpens(&r)
	r.extended = c.yes(line, "extended", field("extended"))
	r.personal = c.personal(line, field)
	var v access.Visit
	for i, name := range visitNames {
		*visitFields(&v)[i] = field(name)
	}
	r.visit = p.visit(line, kind, v)
	// A row with a fault of its own still takes part in the comparison between
	// rows where its card is known.
	if !ok || p.faults.Total() > before && field("person") == "" {
		return
	}
	// The record's fields are slices of one string with the card's number in
	// it: keep copies only.
	both := strings.Clone(field("person") + field("name"))
	r.person, r.name = both[:len(field("person"))], both[len(field("person")):]
	r.visit = c.share(r.visit)
	p.add(r)
}

func (c *csvRows) personal(line int, field func(string) string) *personal {
	s := said{pin: field("pin"), duress: field("duress_pin"), totp: field("totp")}
	for i, name := range mayNames {
		*s.flags()[i] = c.yes(line, name, field(name))
	}
	if n := c.number(line, "clearance", field("clearance")); n != nil {
		s.clearance = access.Threat(min(*n, uint64(access.MaxThreat)+1)) // which is said to be too high
	}
	if text := field("instead"); text != "" {
		for word := range strings.SplitSeq(text, ";") {
			of, by, ok := strings.Cut(word, "=")
			if !ok {
				c.p.faults.Add(line, "instead %s: write fingerprint=pin, and semicolons between several", fields.Quote(text))
				continue
			}
			s.instead = append(s.instead, [2]string{strings.TrimSpace(of), strings.TrimSpace(by)})
		}
	}
	if s.nothing() {
		return nil // as almost everybody
	}
	return c.p.personal(line, field("person"), s)
}

// share returns a visit that does not hold on to the record, the one of the
// row before where it is the same.
func (c *csvRows) share(v *access.Visit) *access.Visit {
	if v == nil {
		return nil
	}
	if c.shared == nil || *v != c.last {
		own := *v
		for _, f := range visitFields(&own) {
			*f = strings.Clone(*f)
		}
		c.last, c.shared = own, &own
	}
	return c.shared
}

// number reads a decimal number; nil where it is empty. Its value is never
// told.
func (c *csvRows) number(line int, what, s string) *uint64 {
	if s == "" {
		return nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		c.p.faults.Add(line, "%s is not a whole number in decimal digits, or too large", what)
		return new(uint64)
	}
	return &v
}

func (c *csvRows) yes(line int, what, s string) bool {
	switch s {
	case "yes":
		return true
	case "", "no":
	default:
		c.p.faults.Add(line, "%s %s: use yes or no", what, fields.Quote(s))
	}
	return false
}

// rights reads "lab; server-rooms@nights": doors and door groups, each with a
// schedule of its own or the row's.
func (c *csvRows) rights(line int, doors, schedule string) uint32 {
	key := [2]string{doors, schedule}
	if n, ok := c.p.rights[key]; ok {
		return n
	}
	before := c.p.faults.Total()
	var rights []right
	if doors != "" {
		for word := range strings.SplitSeq(doors, ";") {
			word = strings.TrimSpace(word)
			if word == "" {
				c.p.faults.Add(line, "doors %s: nothing stands between two semicolons", fields.Quote(doors))
				continue
			}
			door, own, ok := strings.Cut(word, "@")
			if !ok {
				own = schedule
			}
			rights = c.p.expand(rights, line, door, own)
		}
	}
	n := uint32(c.p.plan.profiles.add(rights))
	if c.p.faults.Total() == before { // a fault is told at each line that has it
		c.p.rights[[2]string{strings.Clone(doors), strings.Clone(schedule)}] = n
	}
	return n
}

var errNoRules = fmt.Errorf("the present allowlist cannot be read, and a CSV file keeps its schedules: import a TOML file, which has the whole policy")
