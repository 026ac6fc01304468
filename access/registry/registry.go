// Package registry keeps who may enter, on the CRM's side: people, their
// credentials, groups with rights to doors, schedules, holidays, areas, doors
// and visits.
//
// What is said of each is sealed as a whole, in one SQLite file. A card's number
// is found by a keyed hash and shown to nobody. Each change is one transaction
// with a line for the audit in it (when, who, what, why, and keyed hashes of
// what was said before and after), and each line is bound to the one before, so
// that a line or an object that was changed or removed behind the registry's
// back is found by Verify.
package registry

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
	"github.com/gatehouse-acs/gatehouse/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// FileName is the registry's name in a CRM's folder.
const FileName = "registry.db"

var (
	// ErrNotFound is that there is no such object.
	ErrNotFound = errors.New("not there")
	// ErrExists is that there is an object of that kind and id already.
	ErrExists = errors.New("there already")
	// ErrChanged is that an object is not any more of the version that a change
	// was meant for.
	ErrChanged = errors.New("changed meanwhile")
	// ErrInUse is that an object cannot be removed, as others name it.
	ErrInUse = errors.New("in use")
	// ErrDamaged marks an object that does not open: it was changed behind the
	// registry's back.
	ErrDamaged = errors.New("damaged")
	// ErrBusy is that another process has been writing for longer than a change
	// waits.
	ErrBusy = errors.New("another process is writing")
	// ErrKey marks a registry that was sealed with another key.
	ErrKey = errors.New("the registry was sealed with another key")
)

// Indexer is the keyed hash under which a card is looked up. It keys the
// hashes of the audit too.
type Indexer interface {
	Index(canonical []byte) [16]byte
}

// Sealer encrypts and authenticates; what aad is bound to is not hidden.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Formats knows the card formats.
type Formats interface {
	Format(name string) (*badge.Format, bool)
}

// Options is what a Registry needs from outside. All of it is needed.
type Options struct {
	Index   Indexer
	Sealer  Sealer
	Formats Formats
	Clock   func() time.Time
}

// Registry is an open registry. It may be used from several goroutines, and
// beside other processes that have the same file open.
type Registry struct {
	People      Table[Person, *Person]
	Credentials Table[Credential, *Credential]
	Groups      Table[Group, *Group]
	Schedules   Table[Schedule, *Schedule]
	Holidays    Table[Holiday, *Holiday]
	Areas       Table[Area, *Area]
	Doors       Table[Door, *Door]
	Visits      Table[Visit, *Visit]
	Codes       Table[Code, *Code]

	o       Options
	touched int     // mostTouched
	now     layouts // as doors and groups are
	before  layouts // and as they were when a publication was made last
	db      *sqlite.DB
	w       *sql.DB // db.W
	r       *sql.DB // db.R
}

// Open opens the registry at path and creates or migrates it. It fails with
// ErrKey where it was sealed with another key. The file must not be readable by
// others.
func Open(ctx context.Context, path string, o Options) (*Registry, error) {
	r := &Registry{o: o, touched: mostTouched}
	r.People.r, r.Credentials.r, r.Groups.r, r.Schedules.r = r, r, r, r
	r.Holidays.r, r.Areas.r, r.Doors.r, r.Visits.r, r.Codes.r = r, r, r, r, r
	if err := r.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open the registry %q: %w", path, err), r.Close())
	}
	return r, nil
}

func (r *Registry) open(ctx context.Context, path string) (err error) {
	if r.db, err = sqlite.Open(ctx, path, migrations, 4); err != nil {
		return err
	}
	r.w, r.r = r.db.W, r.db.R
	err = r.checkKey(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		err = r.makeTheirs(ctx)
	}
	if err != nil {
		return err
	}
	return r.noteDue(ctx)
}

// Close closes the registry.
func (r *Registry) Close() error {
	if r.db == nil {
		return nil
	}
	return r.db.Close()
}

const keyCheck = "gatehouse registry"

// makeTheirs binds a new file to the keys.
func (r *Registry) makeTheirs(ctx context.Context) error {
	return r.transact(ctx, func(tx *sql.Tx) error {
		var used bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM audit) OR EXISTS (SELECT 1 FROM object)`).Scan(&used); err != nil {
			return err
		}
		if used {
			return &Tampered{What: "what tells the registry's key was removed"}
		}
		sum := r.o.Index.Index([]byte(keyCheck))
		return writeMeta(ctx, tx, metaKey, r.o.Sealer.Seal(sum[:], []byte(keyCheck)))
	})
}

// checkKey finds out whether the keys are those of this file.
func (r *Registry) checkKey(ctx context.Context) error {
	sealed, err := readMeta(ctx, r.r, metaKey)
	if err != nil {
		return fmt.Errorf("read what tells its key: %w", err)
	}
	plain, err := r.o.Sealer.Open(sealed, []byte(keyCheck))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if sum := r.o.Index.Index([]byte(keyCheck)); string(plain) != string(sum[:]) {
		return fmt.Errorf("%w: its pepper is another", ErrKey)
	}
	return nil
}

// noteDue fills the column of that name in a file from before it was there.
func (r *Registry) noteDue(ctx context.Context) error {
	if _, err := readMeta(ctx, r.r, metaDue); !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return r.transact(ctx, func(tx *sql.Tx) error {
		if err := r.Visits.each(ctx, tx, func(v *Visit) error {
			_, err := tx.ExecContext(ctx, `UPDATE object SET due = $1 WHERE kind = $2 AND id = $3`, dueOf(v), string(KindVisit), v.ID)
			return err
		}); err != nil {
			return fmt.Errorf("note when visits end: %w", err)
		}
		return writeMeta(ctx, tx, metaDue, []byte{1})
	})
}

func (r *Registry) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := r.w.BeginTx(ctx, nil)
	if e, ok := errors.AsType[sqlite3.Error](err); ok && e.Code == sqlite3.ErrBusy {
		return fmt.Errorf("%w: try again later: %w", ErrBusy, err)
	}
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// The names of the values in meta.
const (
	metaKey  = "key"
	metaHead = "head"
	metaDue  = "due" // the column due is filled
	// metaForgotten is the last line of the audit whose trace is not kept.
	metaForgotten = "forgotten"
)

// queryer is what reads inside and outside of a transaction.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func readMeta(ctx context.Context, q queryer, name string) (value []byte, err error) {
	err = q.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = $1`, name).Scan(&value)
	return value, err
}

func writeMeta(ctx context.Context, tx *sql.Tx, name string, value []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// Change says in whose name something is changed, and why.
type Change struct {
	By  string // who: 1 to 64 letters, digits, dots, dashes, underscores and @
	Why string // such as a ticket: 1 to 200 bytes. It stands in clear
}

func (c Change) check() error {
	var f faults
	if !validBy(c.By) {
		f.add("by", "%s: say who changes it, in 1 to 64 letters, digits, dots, dashes, underscores and @", fields.Quote(c.By))
	}
	if c.Why == "" {
		f.add("why", "say why, such as the number of a ticket")
	}
	f.text("why", c.Why, maxText)
	return f.of("change", "")
}

// tx is one change: a transaction and the lines of the audit that it adds.
type tx struct {
	*sql.Tx
	ctx    context.Context
	r      *Registry
	now    time.Time
	change Change
	head   Head
	guided bool // it changes what only such functions as CheckIn and Leave do
	// What was written last is often what is asked for next, as by an import: the
	// person whose card comes.
	last  stored
	plain []byte // of last
	fresh string // an id that was made up just now: nothing ever had it
}

// guided is write for what changes several objects together.
func (r *Registry) guided(ctx context.Context, c Change, f func(*tx) error) error {
	return r.write(ctx, c, func(t *tx) error {
		t.guided = true
		return f(t)
	})
}

// write runs f in the one writer's transaction.
func (r *Registry) write(ctx context.Context, c Change, f func(*tx) error) error {
	if err := c.check(); err != nil {
		return err
	}
	return r.transact(ctx, func(raw *sql.Tx) error {
		head, err := r.readHead(ctx, raw)
		if err != nil {
			return err
		}
		t := &tx{Tx: raw, ctx: ctx, r: r, now: r.o.Clock().UTC().Truncate(time.Microsecond), change: c, head: head}
		if err := f(t); err != nil {
			return err
		}
		if t.head == head {
			return nil
		}
		return t.writeHead()
	})
}
