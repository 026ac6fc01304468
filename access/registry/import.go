package registry

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

const (
	progressEvery = 500 // rows
	byteOrderMark = "\ufeff"
)

// ImportColumns are the columns that an import may have, in any order. Of these
// person and kind are needed.
var ImportColumns = []string{"person", "name", "kind", "groups", "from", "until", "extended", "operator", "pin", "duress_pin", "instead",
	"format", "facility", "number", "issue", "oem", "biometric", "state", "card_from", "card_until", "break_glass"}

// ImportFaults is all that is wrong with an import.
type ImportFaults = fields.Faults

// ImportOptions say how a file is read.
type ImportOptions struct {
	Zone    *time.Location // of dates and times without an offset
	Advance func(n int64)  // told how many more bytes were read; may be nil
}

// Imported is what an import did.
type Imported struct {
	Rows        int `json:"rows"`
	People      int `json:"people"`      // that are in it
	Credentials int `json:"credentials"` // that are in it
	Changes     int `json:"changes"`     // lines of the audit
}

// Import reads people and their credentials as CSV, a credential a row, or a
// person without one. It adds them, or changes them where they are there
// already, and leaves all others as they are. A column that is not there leaves
// what it is about as it is; so do an empty PIN and an empty state. Everything is
// in one transaction: where anything is wrong nothing is changed, and all that is
// wrong comes as *ImportFaults.
func (r *Registry) Import(ctx context.Context, c Change, in io.Reader, o ImportOptions) (out Imported, err error) {
	err = r.write(ctx, c, func(t *tx) error {
		out, err = t.imports(in, o)
		return err
	})
	if err != nil {
		return Imported{}, err
	}
	return out, nil
}

func (t *tx) imports(in io.Reader, o ImportOptions) (Imported, error) {
	i := importer{tx: t, o: o, people: make(map[string]imported), cards: make(map[string]int)}
	i.o.Zone = cmp.Or(i.o.Zone, time.UTC)
	before := t.head.Seq
	if err := i.read(in); err != nil {
		return Imported{}, err
	}
	if err := i.faults.Err(); err != nil {
		return Imported{}, err
	}
	return Imported{Rows: i.rows, People: len(i.people), Credentials: len(i.cards), Changes: int(t.head.Seq - before)}, nil
}

type importer struct {
	*tx
	o      ImportOptions
	column map[string]int
	record []string
	line   int
	faults ImportFaults
	people map[string]imported // by id
	cards  map[string]int      // by the id of the credential: the line
	rows   int
}

// imported is a person as a line describes them.
type imported struct {
	line   int
	person Person
	bad    bool // which was said
}

func (i *importer) read(in io.Reader) error {
	buffered := bufio.NewReaderSize(in, 1<<16)
	if mark, err := buffered.Peek(len(byteOrderMark)); err == nil && string(mark) == byteOrderMark {
		if _, err := buffered.Discard(len(byteOrderMark)); err != nil {
			return err
		}
	}
	c := csv.NewReader(buffered)
	c.ReuseRecord, c.FieldsPerRecord = true, -1
	header, err := c.Read()
	switch {
	case err == io.EOF:
		i.faults.Add(1, "the file is empty")
		return nil
	case err != nil:
		return i.csvError(err)
	}
	if !i.heading(header) {
		return nil
	}
	width := len(header)
	for told := int64(0); ; i.rows++ {
		if i.record, err = c.Read(); err == io.EOF {
			return nil
		}
		if err != nil {
			if err := i.csvError(err); err != nil {
				return err
			}
			continue
		}
		if i.o.Advance != nil && i.rows%progressEvery == 0 {
			i.o.Advance(c.InputOffset() - told)
			told = c.InputOffset()
		}
		if i.line, _ = c.FieldPos(0); len(i.record) != width {
			i.fault("%d fields, the heading has %d", len(i.record), width)
			continue
		}
		if err := i.row(); err != nil {
			return err
		}
	}
}

func (i *importer) fault(format string, args ...any) { i.faults.Add(i.line, format, args...) }

// take makes faults of what is wrong with an object, and returns what is another
// error.
func (i *importer) take(err error) error {
	if invalid, ok := errors.AsType[*Invalid](err); ok {
		for _, v := range invalid.Faults {
			i.fault("%s: %s", v.Field, v.Text)
		}
		return nil
	}
	return err
}

// csvError makes a fault of what is no CSV, and returns what is another error.
func (i *importer) csvError(err error) error {
	parse, ok := errors.AsType[*csv.ParseError](err)
	if !ok {
		return fmt.Errorf("read the file: %w", err)
	}
	i.faults.Add(max(parse.Line, 1), "%v", parse.Err)
	return nil
}

func (i *importer) heading(names []string) bool {
	if len(names) == 1 && strings.ContainsAny(names[0], ";\t") {
		i.faults.Add(1, "the columns are separated by semicolons or tabs: save the file with commas")
		return false
	}
	i.column = make(map[string]int, len(names))
	for n, name := range names {
		if !slices.Contains(ImportColumns, name) {
			i.faults.Add(1, "column %s is not known: use %s", fields.Quote(name), strings.Join(ImportColumns, ", "))
		}
		if _, twice := i.column[name]; twice {
			i.faults.Add(1, "column %s is there twice", fields.Quote(name))
		}
		i.column[name] = n
	}
	for _, name := range [...]string{"person", "kind"} {
		if !i.has(name) {
			i.faults.Add(1, "column %q is missing", name)
		}
	}
	return i.faults.Total() == 0
}

func (i *importer) has(column string) bool {
	_, ok := i.column[column]
	return ok
}

// field is the text in a column; "" where the column is not there. The record's
// texts share one string with the card's number in it: this is a copy.
func (i *importer) field(column string) string {
	n, ok := i.column[column]
	if !ok {
		return ""
	}
	return strings.Clone(i.record[n])
}

// row takes one line.
func (i *importer) row() error {
	before := i.faults.Total()
	p, was, err := i.person()
	if err != nil {
		return err
	}
	first, again := i.people[p.ID]
	switch {
	case again && !first.bad && !reflect.DeepEqual(first.person, p):
		i.fault("person %s is described otherwise in line %d", fields.Quote(p.ID), first.line)
	case !again:
		if i.faults.Total() == before {
			if err := i.take(i.write(was, &p)); err != nil {
				return err
			}
		}
		i.people[p.ID] = imported{i.line, p, i.faults.Total() > before}
	}
	return i.credential(p.ID, i.people[p.ID].bad)
}

// person is whom a line describes: as they are, with what the line says. Nil is
// returned where they are not there yet.
func (i *importer) person() (p Person, was *old, err error) {
	id := i.field("person")
	switch was, err = i.old(objectName{KindPerson, id}); {
	case errors.Is(err, ErrNotFound):
		p.ID = id
	case err != nil:
		return p, nil, err
	default:
		if err := decodeInto(&p, was.plain); err != nil {
			return p, nil, err
		}
		if !p.Left.IsZero() {
			i.fault("person %s has left, on %s", fields.Quote(id), p.Left.Format(time.DateOnly))
		}
	}
	p.Kind = access.Kind(i.field("kind"))
	if i.has("name") {
		p.Name = i.field("name")
	}
	if i.has("groups") {
		p.Groups = i.words("groups")
	}
	i.moment("from", &p.From, false)
	i.moment("until", &p.Until, true)
	i.yes("extended", &p.Extended)
	i.yes("operator", &p.Operator)
	if pin, duress := i.field("pin"), i.field("duress_pin"); pin != "" || duress != "" {
		p.SetPIN(pin, duress)
	}
	if i.has("instead") {
		p.Instead = make(map[string]string)
		for _, word := range i.words("instead") {
			of, by, ok := strings.Cut(word, "=")
			if !ok {
				i.fault("instead %s: write fingerprint=pin, and semicolons between several", fields.Quote(word))
			}
			p.Instead[of] = by
		}
	}
	p.settle()
	return p, was, nil
}

// write puts an object in the place of the one that is there, if any.
func (i *importer) write(was *old, v object) error {
	action := actionChange
	if was == nil {
		action = actionCreate
	}
	_, err := i.put(action, was, v)
	return err
}

// words are the parts of a field between semicolons.
func (i *importer) words(column string) []string {
	text := i.field(column)
	if text == "" {
		return nil
	}
	var out []string
	for word := range strings.SplitSeq(text, ";") {
		if word = strings.TrimSpace(word); word == "" {
			i.fault("%s: nothing stands between two semicolons", column)
			continue
		}
		out = append(out, word)
	}
	return out
}

func (i *importer) moment(column string, to *time.Time, end bool) {
	if !i.has(column) {
		return
	}
	*to = time.Time{}
	text := i.field(column)
	if text == "" {
		return
	}
	at, err := fields.ParseMoment(text, i.o.Zone, end)
	if err != nil {
		i.fault("%s: %v", column, err)
		return
	}
	*to = at
}

func (i *importer) yes(column string, to *bool) {
	if !i.has(column) {
		return
	}
	switch text := i.field(column); text {
	case "yes":
		*to = true
	case "no", "":
		*to = false
	default:
		i.fault("%s %s: use yes or no", column, fields.Quote(text))
	}
}

// credential takes the card of a line, if it has one. Where the person is at
// fault it is only read.
func (i *importer) credential(person string, bad bool) error {
	before := i.faults.Total()
	c := Credential{ID: NewID("c"), Person: person, State: access.Active}
	i.yes("biometric", &c.Biometric)
	some := i.card(&c)
	if !some && !c.Biometric {
		for _, column := range [...]string{"state", "card_from", "card_until", "break_glass"} {
			if text := i.field(column); text != "" && text != "no" {
				i.fault("%s is given and no card: fill in format and number", column)
			}
		}
		return nil
	}
	if i.faults.Total() > before {
		return nil
	}
	there, err := i.r.lookup(i.ctx, i, c.lookup(i.r.o.Index))
	known := err == nil
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	case there.Value.Person != person:
		owner := cmp.Or(there.Value.Person, "visitors")
		if line, ok := i.cards[there.Value.ID]; ok {
			i.fault("the same card as in line %d (person %s)", line, owner)
		} else {
			i.fault("the card is registered already, as credential %s of %s", there.Value.ID, owner)
		}
		return nil
	default:
		if line, twice := i.cards[there.Value.ID]; twice {
			i.fault("the same card as in line %d", line)
			return nil
		}
		c = there.Value
	}
	if state := i.field("state"); state != "" {
		c.State = access.State(state)
	}
	i.moment("card_from", &c.From, false)
	i.moment("card_until", &c.Until, true)
	i.yes("break_glass", &c.BreakGlass)
	if bad || i.faults.Total() > before {
		return nil
	}
	var was *old
	if known {
		if was, err = i.old(objectName{KindCredential, c.ID}); err != nil {
			return err
		}
	} else {
		i.fresh = c.ID
	}
	i.cards[c.ID] = i.line
	return i.take(i.write(was, &c))
}

// card reads the numbers of a card, and says whether there are any.
func (i *importer) card(c *Credential) bool {
	name := i.field("format")
	var numbers [4]*uint64
	some := name != ""
	for n, column := range [...]string{"facility", "number", "issue", "oem"} {
		text := i.field(column)
		if text == "" {
			continue
		}
		some = true
		v, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			i.fault("%s is not a whole number in decimal digits, or too large", column)
		}
		numbers[n] = &v
	}
	if !some {
		return false
	}
	format, ok := i.r.o.Formats.Format(name)
	if !ok {
		i.fault("format %s is not known: see `gatehouse-crm credentials formats`", fields.Quote(name))
		return true
	}
	card := format.New()
	for n, v := range [...]*uint64{&card.Facility, &card.Number, &card.Issue, &card.OEM} {
		if numbers[n] != nil {
			*v = *numbers[n]
		}
	}
	for _, f := range format.Fields() {
		for n, column := range [...]string{"facility", "number"} {
			if f.Name == column && !f.Fixed && numbers[n] == nil {
				i.fault("%s is empty, and a card of format %s has one", column, format.Name())
			}
		}
	}
	c.SetCard(card)
	return true
}
