package registry

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Kind is a sort of object.
type Kind string

// The kinds of object.
const (
	KindPerson     Kind = "person"
	KindCredential Kind = "credential"
	KindGroup      Kind = "group"
	KindSchedule   Kind = "schedule"
	KindHoliday    Kind = "holiday"
	KindArea       Kind = "area"
	KindDoor       Kind = "door"
	KindVisit      Kind = "visit"
	KindCode       Kind = "code"
)

// What the audit says that was done, beside the words of the commands that do
// more than one thing.
const (
	actionCreate = "create"
	actionChange = "change"
	actionRemove = "remove"
)

// object is what stands in a table.
type object interface {
	kind() Kind
	key() string // its id
	// settle gives the object its one form, in which two that say the same are
	// equal.
	settle()
	// check finds what is wrong with it. Before is the object that it replaces;
	// nil: none. That what it names is there is checked already.
	check(t *tx, before object, f *faults) error
	// links are the objects that it names.
	links() []link
	// secret is where that part of it stands which is never shown; nil: nowhere.
	secret() any
	// lookup is the keyed hash of its card or code; nil: it has none.
	lookup(Indexer) []byte
}

// timed is an object with which something is to be done at a time; zero: not any
// more.
type timed interface{ due() time.Time }

// dueOf is when something is to be done with an object, as it is stored.
func dueOf(v object) sql.NullInt64 {
	t, ok := v.(timed)
	if !ok || t.due().IsZero() {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: t.due().UnixMicro(), Valid: true}
}

// traced is an object that doors know of: what a change of it takes away stays
// until they have heard.
type traced interface {
	object
	// leaves says whether doors may know something of it that after does not tell;
	// nil: it is not there any more.
	leaves(after object) bool
}

// link is the naming of another object, in a field.
type link struct {
	field string
	objectName
}

func to(field string, kind Kind, id string) link { return link{field, objectName{kind, id}} }

func distinct(links []link) map[objectName]bool {
	set := make(map[objectName]bool, len(links))
	for _, l := range links {
		set[l.objectName] = true
	}
	return set
}

// newObject is an empty one.
func newObject(k Kind) (object, error) {
	switch k {
	case KindPerson:
		return new(Person), nil
	case KindCredential:
		return new(Credential), nil
	case KindGroup:
		return new(Group), nil
	case KindSchedule:
		return new(Schedule), nil
	case KindHoliday:
		return new(Holiday), nil
	case KindArea:
		return new(Area), nil
	case KindDoor:
		return new(Door), nil
	case KindVisit:
		return new(Visit), nil
	case KindCode:
		return new(Code), nil
	}
	return nil, fmt.Errorf("kind %q is not known", k)
}

// body is what is sealed of an object.
type body struct {
	Shown  any `json:"shown"`
	Secret any `json:"secret,omitempty"`
}

func encode(v object) ([]byte, error) { return json.Marshal(body{v, v.secret()}) }

func decode(k Kind, plain []byte) (object, error) {
	v, err := newObject(k)
	if err != nil {
		return nil, err
	}
	return v, decodeInto(v, plain)
}

func decodeInto(v object, plain []byte) error {
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	return d.Decode(&body{v, v.secret()})
}

// stored is a row of the table of objects.
type stored struct {
	objectName
	version uint64
	changed time.Time
	lookup  []byte
	body    []byte
	due     sql.NullInt64
}

const objectColumns = `kind, id, version, changed, lookup, body, due`

// objectColumnsOf are the columns of a table of that name in a query.
func objectColumnsOf(table string) string {
	return table + "." + strings.ReplaceAll(objectColumns, ", ", ", "+table+".")
}

func scanStored(rows interface{ Scan(...any) error }) (o stored, err error) {
	var changed int64
	err = rows.Scan(&o.kind, &o.id, &o.version, &changed, &o.lookup, &o.body, &o.due)
	o.changed = time.UnixMicro(changed).UTC()
	return o, err
}

// aad binds a body to its row.
func (o stored) aad() []byte {
	return fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d", o.kind, o.id, o.version, o.changed.UnixMicro())
}

func (r *Registry) openBody(o stored) ([]byte, error) {
	plain, err := r.o.Sealer.Open(o.body, o.aad())
	if err != nil {
		return nil, fmt.Errorf("%s %q is %w: %w", o.kind, o.id, ErrDamaged, err)
	}
	return plain, nil
}

func (r *Registry) hash(name objectName, plain []byte) Hash {
	sum := r.o.Index.Index(fmt.Appendf(nil, "%s%s\x00%s\x00%s", hashBody, name.kind, name.id, plain))
	return sum[:]
}

func (r *Registry) find(ctx context.Context, q queryer, name objectName) (stored, error) {
	o, err := scanStored(q.QueryRowContext(ctx, `SELECT `+objectColumns+` FROM object WHERE kind = $1 AND id = $2`, string(name.kind), name.id))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return o, fmt.Errorf("%s %s is %w", name.kind, fields.Quote(name.id), ErrNotFound)
	case err != nil:
		return o, fmt.Errorf("read %s %s: %w", name.kind, fields.Quote(name.id), err)
	}
	return o, nil
}

// old is an object as it was before a change.
type old struct {
	stored
	plain []byte
	value object
}

func (t *tx) old(name objectName) (*old, error) {
	o, plain := t.last, t.plain
	if o.objectName != name {
		var err error
		if o, err = t.r.find(t.ctx, t, name); err != nil {
			return nil, err
		}
		if plain, err = t.r.openBody(o); err != nil {
			return nil, err
		}
	}
	v, err := decode(name.kind, plain)
	if err != nil {
		return nil, fmt.Errorf("%s %q is %w: %w", o.kind, o.id, ErrDamaged, err)
	}
	return &old{o, plain, v}, nil
}

// put writes an object in the place of the one before, if any, and its line in
// the audit. Where it says the same as before, nothing is written.
func (t *tx) put(action string, before *old, v object) (stored, error) {
	v.settle()
	if err := t.check(before, v); err != nil {
		return stored{}, err
	}
	plain, err := encode(v)
	if err != nil {
		return stored{}, err
	}
	o := stored{objectName: objectName{v.kind(), v.key()}, version: 1, changed: t.now, lookup: v.lookup(t.r.o.Index), due: dueOf(v)}
	l := Line{Action: action, Kind: o.kind, ID: o.id, After: t.r.hash(o.objectName, plain)}
	if before != nil {
		if bytes.Equal(plain, before.plain) {
			return before.stored, nil
		}
		o.version = before.version + 1
		l.Before = t.r.hash(before.objectName, before.plain)
	} else if o.version, err = t.firstVersion(o.objectName); err != nil {
		return stored{}, err
	}
	l.Version = o.version
	o.body = t.r.o.Sealer.Seal(plain, o.aad())
	taken, err := t.taken(o)
	if err != nil {
		return stored{}, err
	}
	if taken != "" {
		return stored{}, fmt.Errorf("the same card or finger is %w, as %s", ErrExists, taken)
	}
	if err := t.trace(before, v); err != nil {
		return stored{}, err
	}
	_, err = t.ExecContext(t.ctx, `
		INSERT INTO object (`+objectColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, changed = excluded.changed, lookup = excluded.lookup, body = excluded.body, due = excluded.due`,
		string(o.kind), o.id, o.version, o.changed.UnixMicro(), o.lookup, o.body, o.due)
	if err != nil {
		return stored{}, fmt.Errorf("write %s %q: %w", o.kind, o.id, err)
	}
	if err := t.link(o.objectName, v, before); err != nil {
		return stored{}, err
	}
	t.last, t.plain = o, plain
	return o, t.line(l)
}

// firstVersion is above every version that an object of that name ever had, so
// that nobody takes one for the other.
func (t *tx) firstVersion(name objectName) (v uint64, err error) {
	switch name.kind {
	case KindPerson, KindVisit, KindCode:
		return 1, nil // they are never removed
	}
	if name.id == t.fresh {
		return 1, nil
	}
	err = t.QueryRowContext(t.ctx, `SELECT COALESCE(MAX(version), 0) + 1 FROM audit WHERE kind = $1 AND id = $2`, string(name.kind), name.id).Scan(&v)
	return v, err
}

func (t *tx) check(before *old, v object) error {
	var f faults
	for _, l := range v.links() {
		there, err := t.exists(l.objectName)
		if err != nil {
			return err
		}
		if !there {
			f.add(l.field, "%s %s is not there", l.kind, fields.Quote(l.id))
		}
	}
	if len(v.links()) > longestList {
		f.add("links", "it names more than %d others", longestList)
	}
	var was object
	if before != nil {
		was = before.value
	}
	if err := v.check(t, was, &f); err != nil {
		return err
	}
	return f.of(v.kind(), v.key())
}

func (t *tx) exists(name objectName) (there bool, err error) {
	if t.last.objectName == name {
		return true, nil
	}
	err = t.QueryRowContext(t.ctx, `SELECT EXISTS (SELECT 1 FROM object WHERE kind = $1 AND id = $2)`, string(name.kind), name.id).Scan(&there)
	return there, err
}

// taken names another object with the same card or code; "": there is none.
func (t *tx) taken(o stored) (string, error) {
	if o.lookup == nil {
		return "", nil
	}
	var other objectName
	err := t.QueryRowContext(t.ctx, `SELECT kind, id FROM object WHERE lookup = $1 AND NOT (kind = $2 AND id = $3)`, o.lookup, string(o.kind), o.id).Scan(&other.kind, &other.id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", nil
	case err != nil:
		return "", err
	}
	return fmt.Sprintf("%s %s", other.kind, other.id), nil
}

// trace keeps what doors may know of an object that changes or goes (after is
// nil then), until they have heard of it. The line of the audit is the next one.
func (t *tx) trace(before *old, after object) error {
	if before == nil {
		return nil
	}
	if v, ok := before.value.(traced); !ok || !v.leaves(after) {
		return nil
	}
	o := before.stored
	_, err := t.ExecContext(t.ctx, `INSERT INTO trace (seq, kind, id, version, changed, lookup, body) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		t.head.Seq+1, string(o.kind), o.id, o.version, o.changed.UnixMicro(), o.lookup, o.body)
	if err != nil {
		return fmt.Errorf("keep %s %q as it was: %w", o.kind, o.id, err)
	}
	return nil
}

func (t *tx) link(name objectName, v object, before *old) error {
	want := distinct(v.links())
	if before != nil {
		for to := range distinct(before.value.links()) {
			if want[to] {
				delete(want, to)
				continue
			}
			_, err := t.ExecContext(t.ctx, `DELETE FROM link WHERE kind = $1 AND id = $2 AND to_kind = $3 AND to_id = $4`,
				string(name.kind), name.id, string(to.kind), to.id)
			if err != nil {
				return err
			}
		}
	}
	for to := range want {
		_, err := t.ExecContext(t.ctx, `INSERT INTO link (kind, id, to_kind, to_id) VALUES ($1, $2, $3, $4)`, string(name.kind), name.id, string(to.kind), to.id)
		if err != nil {
			return fmt.Errorf("%s %q names %s %q: %w", name.kind, name.id, to.kind, to.id, err)
		}
	}
	return nil
}

// naming are the objects of a kind that name another, sorted, at most so many; of
// every kind where it is "".
func naming(ctx context.Context, q queryer, kind Kind, to objectName, most int) (list []objectName, err error) {
	rows, err := q.QueryContext(ctx, `SELECT kind, id FROM link WHERE to_kind = $1 AND to_id = $2 AND ($3 = '' OR kind = $3) ORDER BY kind, id LIMIT $4`,
		string(to.kind), to.id, string(kind), most)
	if err != nil {
		return nil, fmt.Errorf("read what names %s %q: %w", to.kind, to.id, err)
	}
	defer rows.Close()
	for rows.Next() {
		var n objectName
		if err := rows.Scan(&n.kind, &n.id); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// remove takes an object away that nothing names.
func (t *tx) remove(before *old) error {
	users, err := naming(t.ctx, t, "", before.objectName, math.MaxInt32)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		const most = 5
		var names []string
		for _, u := range users[:min(len(users), most)] {
			names = append(names, fmt.Sprintf("%s %s", u.kind, u.id))
		}
		if more := len(users) - len(names); more > 0 {
			names = append(names, fmt.Sprintf("%d more", more))
		}
		return fmt.Errorf("%s %q is %w: %s: change those first", before.kind, before.id, ErrInUse, strings.Join(names, ", "))
	}
	if err := t.trace(before, nil); err != nil {
		return err
	}
	if t.last.objectName == before.objectName {
		t.last = stored{}
	}
	if _, err := t.ExecContext(t.ctx, `DELETE FROM object WHERE kind = $1 AND id = $2`, string(before.kind), before.id); err != nil {
		return fmt.Errorf("remove %s %q: %w", before.kind, before.id, err)
	}
	return t.line(Line{Action: actionRemove, Kind: before.kind, ID: before.id, Version: before.version + 1, Before: t.r.hash(before.objectName, before.plain)})
}

// Row is an object as it stands in the registry.
type Row[T any] struct {
	Value   T         `json:"value"`
	Version uint64    `json:"version"`
	Changed time.Time `json:"changed"`
}

// ETag is the version as HTTP has it, quotes and all.
func (r Row[T]) ETag() string { return strconv.Quote(strconv.FormatUint(r.Version, 10)) }

// Table is all objects of one kind.
type Table[T any, P interface {
	*T
	object
}] struct{ r *Registry }

func (t Table[T, P]) name(id string) objectName { return objectName{P(new(T)).kind(), id} }

func (t Table[T, P]) row(o stored) (Row[T], error) {
	row := Row[T]{Version: o.version, Changed: o.changed}
	plain, err := t.r.openBody(o)
	if err != nil {
		return row, err
	}
	if err := decodeInto(P(&row.Value), plain); err != nil {
		return row, fmt.Errorf("%s %q is %w: %w", o.kind, o.id, ErrDamaged, err)
	}
	return row, nil
}

// Get reads one; ErrNotFound where there is none.
func (t Table[T, P]) Get(ctx context.Context, id string) (Row[T], error) {
	return t.get(ctx, t.r.r, id)
}

func (t Table[T, P]) get(ctx context.Context, q queryer, id string) (Row[T], error) {
	o, err := t.r.find(ctx, q, t.name(id))
	if err != nil {
		return Row[T]{}, err
	}
	return t.row(o)
}

// Page says which part of a list is wanted.
type Page struct {
	After string     // ids above this one
	Limit int        // at most so many; 0 or less: 100
	Names *Reference // only those that name this one; nil: all
}

// Reference is another object.
type Reference struct {
	Kind Kind
	ID   string
}

// List reads a page, sorted by id.
func (t Table[T, P]) List(ctx context.Context, p Page) ([]Row[T], error) {
	return t.list(ctx, t.r.r, p)
}

func (t Table[T, P]) list(ctx context.Context, q queryer, p Page) ([]Row[T], error) {
	if p.Limit <= 0 {
		p.Limit = pageSize
	}
	kind := string(t.name("").kind)
	query, args := `SELECT `+objectColumns+` FROM object WHERE kind = $1 AND id > $2 ORDER BY id LIMIT $3`, []any{kind, p.After, p.Limit}
	if p.Names != nil {
		query = `SELECT ` + objectColumnsOf("o") + `
			FROM link l JOIN object o ON o.kind = l.kind AND o.id = l.id
			WHERE l.kind = $1 AND l.id > $2 AND l.to_kind = $3 AND l.to_id = $4 ORDER BY l.id LIMIT $5`
		args = []any{kind, p.After, string(p.Names.Kind), p.Names.ID, p.Limit}
	}
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	var list []Row[T]
	err = t.read(rows, func(row Row[T]) error {
		list = append(list, row)
		return nil
	})
	return list, err
}

// read calls f with what a query found, whose columns are objectColumns. It
// closes rows.
func (t Table[T, P]) read(rows *sql.Rows, f func(Row[T]) error) error {
	defer rows.Close()
	for rows.Next() {
		o, err := scanStored(rows)
		if err != nil {
			return fmt.Errorf("read a %s: %w", t.name("").kind, err)
		}
		row, err := t.row(o)
		if err != nil {
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// eachDue calls f with every one with which something is to be done at a moment
// or before it; at any time where it is zero.
func (t Table[T, P]) eachDue(ctx context.Context, q queryer, at time.Time, f func(Row[T]) error) error {
	until := int64(math.MaxInt64)
	if !at.IsZero() {
		until = at.UnixMicro()
	}
	rows, err := q.QueryContext(ctx, `SELECT `+objectColumns+` FROM object WHERE kind = $1 AND due <= $2 ORDER BY due, id`, string(t.name("").kind), until)
	if err != nil {
		return fmt.Errorf("read what is due: %w", err)
	}
	var all []Row[T] // before f, which may write
	if err := t.read(rows, func(row Row[T]) error {
		all = append(all, row)
		return nil
	}); err != nil {
		return err
	}
	for _, row := range all {
		if err := f(row); err != nil {
			return err
		}
	}
	return nil
}

// each calls f with every one, page by page.
func (t Table[T, P]) each(ctx context.Context, q queryer, f func(*T) error) error {
	for after := ""; ; {
		page, err := t.list(ctx, q, Page{After: after, Limit: longPage})
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			if err := f(&page[i].Value); err != nil {
				return err
			}
			after = P(&page[i].Value).key()
		}
	}
}

// Create writes a new one; ErrExists where there is one of that id, *Invalid
// where something is wrong with it.
func (t Table[T, P]) Create(ctx context.Context, c Change, v T) (row Row[T], err error) {
	err = t.r.write(ctx, c, func(tx *tx) error {
		row, err = t.create(tx, actionCreate, v)
		return err
	})
	return row, err
}

func (t Table[T, P]) create(tx *tx, action string, v T) (Row[T], error) {
	name := t.name(P(&v).key())
	there, err := tx.exists(name)
	if err != nil {
		return Row[T]{}, err
	}
	if there {
		return Row[T]{}, fmt.Errorf("%s %s is %w", name.kind, fields.Quote(name.id), ErrExists)
	}
	o, err := tx.put(action, nil, P(&v))
	if err != nil {
		return Row[T]{}, err
	}
	return Row[T]{v, o.version, o.changed}, nil
}

// Update changes one by f, which is given what is there. Where version is not
// 0, it must be that of the object: else ErrChanged. Its id cannot be changed.
// Where f changes nothing, nothing is written.
func (t Table[T, P]) Update(ctx context.Context, c Change, id string, version uint64, f func(*T) error) (row Row[T], err error) {
	err = t.r.write(ctx, c, func(tx *tx) error {
		row, err = t.update(tx, actionChange, id, version, f)
		return err
	})
	return row, err
}

func (t Table[T, P]) update(tx *tx, action, id string, version uint64, f func(*T) error) (Row[T], error) {
	before, err := tx.at(t.name(id), version)
	if err != nil {
		return Row[T]{}, err
	}
	var v T
	if err := decodeInto(P(&v), before.plain); err != nil {
		return Row[T]{}, err
	}
	if err := f(&v); err != nil {
		return Row[T]{}, err
	}
	if P(&v).key() != id {
		return Row[T]{}, (faults{{"id", "cannot be changed"}}).of(before.kind, id)
	}
	o, err := tx.put(action, before, P(&v))
	if err != nil {
		return Row[T]{}, err
	}
	return Row[T]{v, o.version, o.changed}, nil
}

// at is an object of a version; 0: of whichever.
func (t *tx) at(name objectName, version uint64) (*old, error) {
	before, err := t.old(name)
	if err != nil {
		return nil, err
	}
	if version != 0 && version != before.version {
		return nil, fmt.Errorf("%s %s was %w: it is of version %d and not %d", name.kind, fields.Quote(name.id), ErrChanged, before.version, version)
	}
	return before, nil
}

// removable says why an object stays; most do not.
type removable interface{ mayGo() error }

// Remove takes one away that no other names; ErrInUse where one does. Version
// is as of Update. People stay: Leave says that one has left.
func (t Table[T, P]) Remove(ctx context.Context, c Change, id string, version uint64) error {
	return t.r.write(ctx, c, func(tx *tx) error {
		before, err := tx.at(t.name(id), version)
		if err != nil {
			return err
		}
		if v, ok := before.value.(removable); ok {
			if err := v.mayGo(); err != nil {
				return fmt.Errorf("%s %q stays: %w", before.kind, id, err)
			}
		}
		return tx.remove(before)
	})
}
