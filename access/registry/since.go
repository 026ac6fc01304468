package registry

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
)

// mostTouched is how many changes are looked at one by one, and how many people
// kept in mind at once. Where there are more, everybody is looked at.
const mostTouched = 20_000

// errMany is that there are more.
var errMany = errors.New("very many were changed")

// touched are those of whom something was changed after a line of the audit.
type touched struct {
	*publication
	seq    uint64
	people map[string]bool
	stock  []*Credential // cards that are nobody's now
}

// since visits those of whom something was changed after the audit's line seq, up
// to head.
func (p *publication) since(seq, head uint64) error {
	forgotten, err := readForgotten(p.ctx, p.q)
	switch {
	case err != nil:
		return err
	case seq > head || seq < forgotten:
		return fmt.Errorf("since line %d of %d: %w", seq, head, ErrForgotten)
	}
	t := &touched{publication: p, seq: seq, people: make(map[string]bool)}
	err = t.find()
	switch {
	case errors.Is(err, errMany):
		err = errors.Join(p.everybody(), p.everyStock())
	case err == nil:
		err = errors.Join(t.everybody(), p.nobodys(t.stock))
	}
	if err != nil {
		return err
	}
	return p.gone(seq)
}

// find gathers those of whom anything was changed.
func (t *touched) find() error {
	names, err := t.names()
	if err != nil {
		return err
	}
	site := false // where rights lead was changed
	for _, name := range names {
		if err := t.touch(name); err != nil {
			return err
		}
		site = site || name.kind == KindDoor || name.kind == KindGroup
	}
	if !site {
		return nil
	}
	return t.flipped()
}

// names are the objects that were changed.
func (t *touched) names() (names []objectName, err error) {
	rows, err := t.q.QueryContext(t.ctx, `SELECT kind, id FROM audit WHERE seq > $1 AND version > 0 ORDER BY seq LIMIT $2`, t.seq, t.r.touched+1)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	defer rows.Close()
	lines, seen := 0, make(map[objectName]bool)
	for rows.Next() {
		var name objectName
		if err := rows.Scan(&name.kind, &name.id); err != nil {
			return nil, fmt.Errorf("read the audit: %w", err)
		}
		if lines++; lines > t.r.touched {
			return nil, errMany
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, rows.Err()
}

// touch notes whom a changed object is about.
func (t *touched) touch(name objectName) error {
	o, err := t.r.find(t.ctx, t.q, name)
	if errors.Is(err, ErrNotFound) {
		return nil // what it left behind is in the trace
	}
	if err != nil {
		return err
	}
	switch name.kind {
	case KindPerson:
		return t.add(name.id)
	case KindCredential:
		row, err := t.r.Credentials.row(o)
		if err != nil {
			return err
		}
		if row.Value.Person == "" {
			t.stock = append(t.stock, &row.Value)
			return nil
		}
		return t.add(row.Value.Person)
	case KindVisit:
		row, err := t.r.Visits.row(o)
		if err != nil {
			return err
		}
		return t.add(row.Value.Visitor)
	case KindCode:
		row, err := t.r.Codes.row(o)
		if err != nil {
			return err
		}
		return t.touch(objectName{KindVisit, row.Value.Visit})
	}
	return nil
}

func (t *touched) add(person string) error {
	if t.people[person] = true; len(t.people) > t.r.touched {
		return errMany
	}
	return nil
}

// flipped notes the people of each group that gives a right here and gave none,
// or the other way round, and all visitors. What other groups give stands in the
// words, and is changed there.
func (t *touched) flipped() error {
	seq, err := t.laidOut()
	if err != nil {
		return err
	}
	l, err := t.r.before.get(t.seq, seq, t.before)
	if err != nil {
		return err
	}
	before := l.at(t.controller).rights
	for name := range l.groups {
		if (len(before[name]) > 0) == (len(t.rights[name]) > 0) {
			continue
		}
		members, err := naming(t.ctx, t.q, KindPerson, objectName{KindGroup, name}, t.r.touched+1)
		if err != nil {
			return err
		}
		for _, m := range members {
			if err := t.add(m.id); err != nil {
				return err
			}
		}
	}
	for visitor := range t.visits {
		if err := t.add(visitor); err != nil {
			return err
		}
	}
	return nil
}

// before are the doors and groups as they were when the audit stood at seq; a
// group that was not there gave nothing.
func (t *touched) before() (map[string]Door, map[string]Group, error) {
	doors, groups, err := t.readLayout()
	if err != nil {
		return nil, nil, err
	}
	created, err := t.created()
	if err != nil {
		return nil, nil, err
	}
	for name := range created {
		switch name.kind {
		case KindDoor:
			delete(doors, name.id)
		case KindGroup:
			groups[name.id] = Group{Name: name.id}
		}
	}
	// What changed first tells how it was: made, or changed from something.
	seen := make(map[objectName]bool)
	return doors, groups, t.eachTrace(t.seq, func(seq uint64, o stored) error {
		if made, ok := created[o.objectName]; seen[o.objectName] || ok && made < seq {
			return nil
		}
		seen[o.objectName] = true
		switch o.kind {
		case KindDoor:
			row, err := t.r.Doors.row(o)
			doors[o.id] = row.Value
			return err
		case KindGroup:
			row, err := t.r.Groups.row(o)
			groups[o.id] = row.Value
			return err
		}
		return nil
	})
}

// created are the lines of the audit by which doors and groups were first made
// after seq.
func (t *touched) created() (map[objectName]uint64, error) {
	rows, err := t.q.QueryContext(t.ctx, `SELECT kind, id, MIN(seq) FROM audit WHERE seq > $1 AND version > 0 AND kind IN ($2, $3) AND action = $4 GROUP BY kind, id`,
		t.seq, string(KindDoor), string(KindGroup), actionCreate)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	defer rows.Close()
	all := make(map[objectName]uint64)
	for rows.Next() {
		var name objectName
		var seq uint64
		if err := rows.Scan(&name.kind, &name.id, &seq); err != nil {
			return nil, fmt.Errorf("read the audit: %w", err)
		}
		all[name] = seq
	}
	return all, rows.Err()
}

// everybody visits those that were found.
func (t *touched) everybody() error {
	for _, id := range slices.Sorted(maps.Keys(t.people)) {
		row, err := t.r.People.get(t.ctx, t.q, id)
		if err != nil {
			return err
		}
		held, err := t.heldBy(id)
		if err != nil {
			return err
		}
		if err := t.person(&row.Value, held); err != nil {
			return err
		}
	}
	return nil
}

// nobody is who has what has no holder any more, and is to be forgotten.
func nobody() *holder {
	return &holder{allowlist.Holder{Entry: access.Entry{Person: "nobody", Kind: access.Visitor}}}
}

// nobodys tells of cards that are nobody's, and open nothing.
func (p *publication) nobodys(cards []*Credential) error {
	h := nobody()
	for _, c := range cards {
		held := heldCard(c)
		held.Removed = true
		h.Credentials = append(h.Credentials, held)
	}
	return p.tell(h)
}

// everyStock visits all cards that are nobody's, page by page.
func (p *publication) everyStock() error {
	for after := ""; ; {
		rows, err := p.q.QueryContext(p.ctx, `SELECT `+objectColumnsOf("o")+` FROM object o
			WHERE o.kind = $1 AND o.id > $2 AND NOT EXISTS (SELECT 1 FROM link l WHERE l.kind = o.kind AND l.id = o.id) ORDER BY o.id LIMIT $3`,
			string(KindCredential), after, longPage)
		if err != nil {
			return fmt.Errorf("read the badges in stock: %w", err)
		}
		var cards []*Credential
		if err := p.r.Credentials.read(rows, func(row Row[Credential]) error {
			cards = append(cards, &row.Value)
			after = row.Value.ID
			return nil
		}); err != nil || len(cards) == 0 {
			return err
		}
		if err := p.nobodys(cards); err != nil {
			return err
		}
	}
}

// gone visits what is to be forgotten of cards and codes that are not there any
// more, or were others when the audit stood at seq.
func (p *publication) gone(seq uint64) error {
	return p.eachTrace(seq, func(_ uint64, o stored) error {
		h := nobody()
		switch o.kind {
		case KindCredential:
			row, err := p.r.Credentials.row(o)
			if err != nil {
				return err
			}
			h.Entry.Person = cmp.Or(row.Value.Person, h.Entry.Person) // a finger is found by whose it is
			h.Credentials = append(h.Credentials, heldCard(&row.Value))
		case KindCode:
			row, err := p.r.Codes.row(o)
			if err != nil {
				return err
			}
			h.Credentials = append(h.Credentials, heldCode(&row.Value))
		default:
			return nil
		}
		var again bool // somebody's card has the same number now
		if err := p.q.QueryRowContext(p.ctx, `SELECT EXISTS (SELECT 1 FROM object WHERE lookup = $1)`, o.lookup).Scan(&again); err != nil || again {
			return err
		}
		h.Credentials[0].Removed = true
		return p.tell(h)
	})
}

// eachTrace calls f with what each change after a line of the audit took away, as
// it was before, in the order of the changes.
func (p *publication) eachTrace(seq uint64, f func(seq uint64, o stored) error) error {
	for {
		page, err := p.tracesAfter(seq)
		if err != nil {
			return fmt.Errorf("read what was there before: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		for _, v := range page {
			if err := f(v.seq, v.stored); err != nil {
				return err
			}
			seq = v.seq
		}
	}
}

// tracedAt is what an object was before the audit's line seq.
type tracedAt struct {
	stored
	seq uint64
}

func (p *publication) tracesAfter(seq uint64) (page []tracedAt, err error) {
	rows, err := p.q.QueryContext(p.ctx, `SELECT seq, kind, id, version, changed, lookup, body FROM trace WHERE seq > $1 ORDER BY seq LIMIT $2`, seq, longPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v tracedAt
		var changed int64
		if err := rows.Scan(&v.seq, &v.kind, &v.id, &v.version, &changed, &v.lookup, &v.body); err != nil {
			return nil, err
		}
		v.changed = time.UnixMicro(changed).UTC()
		page = append(page, v)
	}
	return page, rows.Err()
}

// readForgotten is the last line of the audit whose trace is not kept any more.
func readForgotten(ctx context.Context, q queryer) (uint64, error) {
	value, err := readMeta(ctx, q, metaForgotten)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case err != nil:
		return 0, err
	case len(value) != 8:
		return 0, &Tampered{What: "how far back changes are known was changed"}
	}
	return binary.BigEndian.Uint64(value), nil
}

// forget deletes the trace of changes from before a moment.
func (t *tx) forget(before time.Time) error {
	var seq uint64
	err := t.QueryRowContext(t.ctx, `SELECT COALESCE(MAX(t.seq), 0) FROM trace t JOIN audit a ON a.seq = t.seq WHERE a.at < $1`, before.UnixMicro()).Scan(&seq)
	if err != nil || seq == 0 {
		return err
	}
	if _, err := t.ExecContext(t.ctx, `DELETE FROM trace WHERE seq <= $1`, seq); err != nil {
		return err
	}
	return writeMeta(t.ctx, t.Tx, metaForgotten, binary.BigEndian.AppendUint64(nil, seq))
}
