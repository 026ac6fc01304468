package publisher

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/sqlite"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// keepMade is how many versions of a controller are remembered with their times.
	keepMade   = 1000
	maxReaders = 16
	// rowsAtOnce bounds how long a new list keeps others from writing.
	rowsAtOnce = 2000
)

// errOvertaken is that another publisher made a version meanwhile.
var errOvertaken = errors.New("another publisher was faster")

// store is policy.db. Several processes may have it open.
type store struct {
	db *sqlite.DB
	w  *sql.DB // db.W
	r  *sql.DB // db.R
	// watch is one connection that is kept: it tells whether anybody else has
	// written.
	watch *sql.Conn
}

func openStore(ctx context.Context, path string) (*store, error) {
	s := new(store)
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open what was published, %q: %w", path, err), s.close())
	}
	return s, nil
}

func (s *store) open(ctx context.Context, path string) (err error) {
	if s.db, err = sqlite.Open(ctx, path, migrations, maxReaders); err != nil {
		return err
	}
	s.w, s.r = s.db.W, s.db.R
	s.watch, err = s.r.Conn(ctx)
	return err
}

func (s *store) close() error {
	var errs []error
	if s.watch != nil {
		errs = append(errs, s.watch.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

func (s *store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.w.BeginTx(ctx, nil)
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

// changed is a number that changes when anybody has written since it was last
// asked for. It is for one goroutine.
func (s *store) changed(ctx context.Context) (n int64, err error) {
	err = s.watch.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&n)
	return n, err
}

// queryer is what reads inside and outside of a transaction.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// published is what was published for a controller; of version 0: nothing.
type published struct {
	name       string
	version    uint64
	revision   uint64
	created    time.Time
	generation string
	list       int64
	head       uint64
	taken      uint64
	mark       string
	rows       uint64
	words      []byte
	document   [sha256.Size]byte
	urgent     bool
	manifest   string
	key        string
	expires    time.Time
}

const publishedColumns = `name, version, revision, created, generation, list, head, taken, rows, words, document, urgent, manifest, key, expires, mark`

func scanPublished(row interface{ Scan(...any) error }) (p published, err error) {
	var created, expires int64
	var document []byte
	err = row.Scan(&p.name, &p.version, &p.revision, &created, &p.generation, &p.list, &p.head, &p.taken, &p.rows, &p.words, &document, &p.urgent, &p.manifest, &p.key, &expires, &p.mark)
	p.created, p.expires = time.UnixMicro(created).UTC(), time.UnixMicro(expires).UTC()
	copy(p.document[:], document)
	return p, err
}

func readPublished(ctx context.Context, q queryer, name string) (published, error) {
	p, err := scanPublished(q.QueryRowContext(ctx, `SELECT `+publishedColumns+` FROM controller WHERE name = $1`, name))
	if errors.Is(err, sql.ErrNoRows) {
		return published{name: name}, nil
	}
	if err != nil {
		return p, fmt.Errorf("read what was published for %s: %w", name, err)
	}
	return p, nil
}

func (s *store) allPublished(ctx context.Context) (map[string]published, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT `+publishedColumns+` FROM controller`)
	if err != nil {
		return nil, fmt.Errorf("read what was published: %w", err)
	}
	defer rows.Close()
	all := make(map[string]published)
	for rows.Next() {
		p, err := scanPublished(rows)
		if err != nil {
			return nil, fmt.Errorf("read what was published: %w", err)
		}
		all[p.name] = p
	}
	return all, rows.Err()
}

// profile is a source of rights. Its number is its place.
type profile struct {
	source string
	rights []allowlist.Right
}

func (s *store) profiles(ctx context.Context, list int64) (all []profile, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT source, rights FROM profile WHERE list = $1 ORDER BY number`, list)
	if err != nil {
		return nil, fmt.Errorf("read the profiles: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p profile
		var rights []byte
		if err := rows.Scan(&p.source, &rights); err != nil {
			return nil, fmt.Errorf("read the profiles: %w", err)
		}
		if err := json.Unmarshal(rights, &p.rights); err != nil {
			return nil, fmt.Errorf("read the profiles: %w", err)
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

func writeProfiles(ctx context.Context, tx *sql.Tx, list int64, all []profile) error {
	for n, p := range all {
		rights, err := json.Marshal(p.rights)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO profile (list, number, source, rights) VALUES ($1, $2, $3, $4)
			ON CONFLICT (list, number) DO UPDATE SET rights = excluded.rights WHERE rights <> excluded.rights`, list, n, p.source, rights)
		if err != nil {
			return fmt.Errorf("write the profiles: %w", err)
		}
	}
	return nil
}

// sentRow is a row that a controller has.
type sentRow struct {
	key     [16]byte
	person  string
	profile int
	active  bool
	digest  [16]byte
}

const sentColumns = `key, person, profile, active, digest`

func scanSent(row interface{ Scan(...any) error }) (v sentRow, err error) {
	var key, digest []byte
	err = row.Scan(&key, &v.person, &v.profile, &v.active, &digest)
	copy(v.key[:], key)
	copy(v.digest[:], digest)
	return v, err
}

// find is a row of a list, and whether there is one.
func (s *store) find(ctx context.Context, list int64, key [16]byte) (sentRow, bool, error) {
	v, err := scanSent(s.r.QueryRowContext(ctx, `SELECT `+sentColumns+` FROM sent WHERE list = $1 AND key = $2`, list, key[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return v, false, nil
	}
	return v, err == nil, err
}

// eachSent visits the rows of a list in the order of their keys.
func (s *store) eachSent(ctx context.Context, list int64, visit func(sentRow) error) error {
	rows, err := s.r.QueryContext(ctx, `SELECT `+sentColumns+` FROM sent WHERE list = $1 ORDER BY key`, list)
	if err != nil {
		return fmt.Errorf("read the rows: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scanSent(rows)
		if err != nil {
			return fmt.Errorf("read the rows: %w", err)
		}
		if err := visit(v); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ofPerson are the rows of somebody in a list.
func (s *store) ofPerson(ctx context.Context, list int64, person string) (all []sentRow, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT `+sentColumns+` FROM sent WHERE person = $1 AND list = $2`, person, list)
	if err != nil {
		return nil, fmt.Errorf("read the rows of a person: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scanSent(rows)
		if err != nil {
			return nil, fmt.Errorf("read the rows of a person: %w", err)
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// holding are the controllers that have a row of somebody.
func (s *store) holding(ctx context.Context, person string) (names []string, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT name FROM controller c
		WHERE EXISTS (SELECT 1 FROM sent WHERE person = $1 AND list = c.list) ORDER BY name`, person)
	if err != nil {
		return nil, fmt.Errorf("find who has a person's rows: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// admitting are the controllers that have a row by which somebody may enter.
func (s *store) admitting(ctx context.Context, person string) (names []string, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT name FROM controller c
		WHERE EXISTS (SELECT 1 FROM sent WHERE person = $1 AND list = c.list AND active) ORDER BY name`, person)
	if err != nil {
		return nil, fmt.Errorf("find who lets a person in: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// members is how many people have a profile.
func (s *store) members(ctx context.Context, list int64, profile int) (n int, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT COUNT(DISTINCT person) FROM sent WHERE list = $1 AND profile = $2`, list, profile).Scan(&n)
	return n, err
}

// newList writes a list that nothing names yet, a part at a time, so that others
// write meanwhile.
func (s *store) newList(ctx context.Context, rows []sentRow, profiles []profile) (list int64, err error) {
	err = s.transact(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT 1 + MAX(COALESCE((SELECT MAX(list) FROM profile), 0), COALESCE((SELECT MAX(list) FROM controller), 0))`).Scan(&list); err != nil {
			return err
		}
		// One that has no number yet keeps the list's from being given twice.
		if len(profiles) == 0 {
			profiles = []profile{{}}
		}
		return writeProfiles(ctx, tx, list, profiles)
	})
	for len(rows) > 0 && err == nil {
		n := min(len(rows), rowsAtOnce)
		err = s.transact(ctx, func(tx *sql.Tx) error { return writeSent(ctx, tx, list, rows[:n]) })
		rows = rows[n:]
	}
	return list, err
}

func writeSent(ctx context.Context, tx *sql.Tx, list int64, rows []sentRow) error {
	add, err := tx.PrepareContext(ctx, `INSERT INTO sent (list, key, person, profile, active, digest) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (list, key) DO UPDATE SET person = excluded.person, profile = excluded.profile, active = excluded.active, digest = excluded.digest`)
	if err != nil {
		return err
	}
	defer add.Close()
	for _, v := range rows {
		if _, err := add.ExecContext(ctx, list, v.key[:], v.person, v.profile, v.active, v.digest[:]); err != nil {
			return fmt.Errorf("write the rows: %w", err)
		}
	}
	return nil
}

// dropList deletes a list that nothing names, a part at a time.
func (s *store) dropList(ctx context.Context, list int64) error {
	for {
		var n int64
		err := s.transact(ctx, func(tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, `DELETE FROM sent WHERE list = $1 AND key IN (SELECT key FROM sent WHERE list = $1 LIMIT $2)`, list, rowsAtOnce)
			if err != nil {
				return err
			}
			if n, err = res.RowsAffected(); err != nil || n > 0 {
				return err
			}
			_, err = tx.ExecContext(ctx, `DELETE FROM profile WHERE list = $1`, list)
			return err
		})
		if err != nil || n == 0 {
			return err
		}
	}
}

// orphans are lists that nothing names: a publisher was stopped while it made
// them, or while it deleted them.
func (s *store) orphans(ctx context.Context) (lists []int64, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT DISTINCT list FROM profile WHERE list NOT IN (SELECT list FROM controller)`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var list int64
		if err := rows.Scan(&list); err != nil {
			return nil, err
		}
		lists = append(lists, list)
	}
	return lists, rows.Err()
}

// storedBlob is a blob that is kept in a file.
type storedBlob struct {
	wire.Blob
	controller string
	superseded time.Time // zero: the manifest names it
}

const blobColumns = `id, controller, first, last, rows, bytes, parts, superseded`

func scanBlob(row interface{ Scan(...any) error }) (b storedBlob, err error) {
	var parts []byte
	var superseded sql.NullInt64
	if err := row.Scan(&b.ID, &b.controller, &b.From, &b.To, &b.Rows, &b.Bytes, &parts, &superseded); err != nil {
		return b, err
	}
	if superseded.Valid {
		b.superseded = time.UnixMicro(superseded.Int64).UTC()
	}
	for ; len(parts) >= sha256.Size; parts = parts[sha256.Size:] {
		b.Parts = append(b.Parts, wire.Hash(parts[:sha256.Size]))
	}
	return b, nil
}

// current are the blobs that a controller's manifest names: the snapshot, and the
// deltas, the oldest first.
func current(ctx context.Context, q queryer, controller string) (all []wire.Blob, err error) {
	rows, err := q.QueryContext(ctx, `SELECT `+blobColumns+` FROM blob WHERE controller = $1 AND superseded IS NULL ORDER BY first`, controller)
	if err != nil {
		return nil, fmt.Errorf("read the blobs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		b, err := scanBlob(rows)
		if err != nil {
			return nil, fmt.Errorf("read the blobs: %w", err)
		}
		all = append(all, b.Blob)
	}
	return all, rows.Err()
}

func (s *store) blob(ctx context.Context, controller, id string) (storedBlob, error) {
	b, err := scanBlob(s.r.QueryRowContext(ctx, `SELECT `+blobColumns+` FROM blob WHERE id = $1 AND controller = $2`, id, controller))
	if errors.Is(err, sql.ErrNoRows) {
		err = errGone
	}
	if err != nil {
		return b, fmt.Errorf("blob %s of %s: %w", id, controller, err)
	}
	return b, nil
}

func insertBlob(ctx context.Context, tx *sql.Tx, controller string, b wire.Blob) error {
	var parts []byte
	for _, h := range b.Parts {
		parts = append(parts, h[:]...)
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO blob (id, controller, first, last, rows, bytes, parts) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		b.ID, controller, b.From, b.To, b.Rows, b.Bytes, parts)
	if err != nil {
		return fmt.Errorf("write a blob's line: %w", err)
	}
	return nil
}

func supersede(ctx context.Context, tx *sql.Tx, b wire.Blob, now time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE blob SET superseded = $1 WHERE id = $2 AND superseded IS NULL`, now.UnixMicro(), b.ID)
	return err
}

// forgotten deletes the lines of blobs that were superseded before a moment, and
// returns them: their files are to be deleted then.
func (s *store) forgotten(ctx context.Context, before time.Time) (all []storedBlob, err error) {
	err = s.transact(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `DELETE FROM blob WHERE superseded < $1 RETURNING `+blobColumns, before.UnixMicro())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			b, err := scanBlob(rows)
			if err != nil {
				return err
			}
			all = append(all, b)
		}
		return rows.Err()
	})
	return all, err
}

// isBlob says whether a file's name is that of a blob that is kept.
func (s *store) isBlob(ctx context.Context, id string) (is bool, err error) {
	err = s.r.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM blob WHERE id = $1)`, id).Scan(&is)
	return is, err
}

// writeController writes what is published now, in the place of the version
// before. It is errOvertaken if that is not there any more.
func writeController(ctx context.Context, tx *sql.Tx, before uint64, p published) error {
	res, err := tx.ExecContext(ctx, `
		INSERT INTO controller (`+publishedColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version, revision = controller.revision + 1, created = excluded.created, generation = excluded.generation, list = excluded.list,
			head = excluded.head, taken = excluded.taken, rows = excluded.rows, words = excluded.words, document = excluded.document, urgent = excluded.urgent,
			manifest = excluded.manifest, key = excluded.key, expires = excluded.expires, mark = excluded.mark
		WHERE version = $17`,
		p.name, p.version, 1, p.created.UnixMicro(), p.generation, p.list, p.head, p.taken, p.rows, p.words, p.document[:], p.urgent,
		p.manifest, p.key, p.expires.UnixMicro(), p.mark, before)
	if err != nil {
		return fmt.Errorf("write what is published for %s: %w", p.name, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return errors.Join(errOvertaken, err)
	}
	return nil
}

// advance notes that nothing of the registry up to a line is left to publish.
func (s *store) advance(ctx context.Context, before published, head, taken uint64, mark string) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE controller SET head = $1, taken = $2, mark = $3 WHERE name = $4 AND version = $5 AND head = $6 AND mark = $7`,
			head, taken, mark, before.name, before.version, before.head, before.mark); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE made SET head = $1, taken = $2 WHERE controller = $3 AND version = $4 AND head <= $1 AND taken <= $2`,
			head, taken, before.name, before.version)
		return err
	})
}

func writeMade(ctx context.Context, tx *sql.Tx, p published) error {
	if _, err := tx.ExecContext(ctx, `INSERT INTO made (controller, version, at, head, taken) VALUES ($1, $2, $3, $4, $5)`,
		p.name, p.version, p.created.UnixMicro(), p.head, p.taken); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM made WHERE controller = $1 AND version + $2 <= $3`, p.name, keepMade, p.version)
	return err
}

// unmake notes of all versions of a controller that nothing is known to be in
// them: they were made of a registry that is there no more.
func (s *store) unmake(ctx context.Context, controller string) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE made SET head = 0, taken = 0 WHERE controller = $1`, controller)
		return err
	})
}

// taking is the first version of a controller in which everything that the
// registry took away up to a line is gone, and when it was made; 0: none yet.
func (s *store) taking(ctx context.Context, controller string, line uint64) (version uint64, at time.Time, err error) {
	var micros int64
	err = s.r.QueryRowContext(ctx, `SELECT version, at FROM made WHERE controller = $1 AND taken >= $2 ORDER BY version LIMIT 1`, controller, line).Scan(&version, &micros)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, time.Time{}, nil
	}
	return version, time.UnixMicro(micros).UTC(), err
}

// report is what a controller said that it uses.
type report struct {
	version uint64
	at      time.Time // when it first said so; zero: it never said anything
}

func (s *store) reported(ctx context.Context) (map[string]report, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT controller, version, at FROM reported`)
	if err != nil {
		return nil, fmt.Errorf("read what was reported: %w", err)
	}
	defer rows.Close()
	all := make(map[string]report)
	for rows.Next() {
		var name string
		var v report
		var at int64
		if err := rows.Scan(&name, &v.version, &at); err != nil {
			return nil, fmt.Errorf("read what was reported: %w", err)
		}
		v.at = time.UnixMicro(at).UTC()
		all[name] = v
	}
	return all, rows.Err()
}

func (s *store) report(ctx context.Context, all map[string]report) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		for controller, v := range all {
			_, err := tx.ExecContext(ctx, `INSERT INTO reported (controller, version, at) VALUES ($1, $2, $3)
				ON CONFLICT (controller) DO UPDATE SET version = excluded.version, at = excluded.at WHERE version <> excluded.version`,
				controller, v.version, v.at.UnixMicro())
			if err != nil {
				return fmt.Errorf("write what was reported: %w", err)
			}
		}
		return nil
	})
}

// revisions are those of all manifests, by controller.
func (s *store) revisions(ctx context.Context) (map[string]uint64, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT name, revision FROM controller`)
	if err != nil {
		return nil, fmt.Errorf("read what was published: %w", err)
	}
	defer rows.Close()
	all := make(map[string]uint64)
	for rows.Next() {
		var name string
		var n uint64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, fmt.Errorf("read what was published: %w", err)
		}
		all[name] = n
	}
	return all, rows.Err()
}
