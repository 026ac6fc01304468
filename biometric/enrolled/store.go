// Package enrolled keeps whose finger or eye a scanner knows: one SQLite file
// with a row for each, found by a keyed hash of the person. A row is sealed as
// a whole and bound to its person, its scanner, its slot and its state: moved
// or changed, it does not open, and matches nobody.
//
// A row is written before its scanner stores anything, and matches only when
// it was approved. So a crash leaves nobody half-enrolled: what is pending
// then is undone.
package enrolled

import (
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// FileName is the store's name in a controller's folder.
const FileName = "enrolled.db"

// Indexer is the keyed hash under which a person is looked up.
type Indexer interface {
	Index(canonical []byte) [16]byte
}

// Sealer encrypts and authenticates; what aad is bound to is not hidden.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Keys are what a Store is kept with.
type Keys struct {
	Index  Indexer
	Sealer Sealer
}

var (
	// ErrDamaged marks a store that is there but cannot be read: nobody is matched
	// by it.
	ErrDamaged = errors.New("the enrolments cannot be read")
	// ErrFull is that a scanner has no free slot.
	ErrFull = errors.New("the scanner is full")
	// ErrShared marks a store that other users of the machine can read.
	ErrShared = errors.New("the enrolments can be read by others")
)

// Store is what was enrolled at a controller. Its methods may be used from
// several goroutines.
type Store struct {
	keys Keys
	db   *sqlite.DB
	w    *sql.DB // db.W
	r    *sql.DB // db.R

	mu      sync.RWMutex
	serials map[string]string // of the scanners, by name
}

// Open opens the file at path and creates or migrates it. It fails with
// ErrShared where others can read it, and with ErrDamaged where it cannot be
// read or was sealed with another key.
func Open(ctx context.Context, path string, keys Keys) (*Store, error) {
	s := &Store{keys: keys}
	switch err := s.open(ctx, path); {
	case errors.Is(err, sqlite.ErrShared):
		return nil, fmt.Errorf("%w: %w", ErrShared, err)
	case err != nil:
		return nil, errors.Join(fmt.Errorf("%w: %q: %w: restore it, or move it away and enrol again", ErrDamaged, path, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string) (err error) {
	if s.db, err = sqlite.Open(ctx, path, migrations, 2); err != nil {
		return err
	}
	s.w, s.r = s.db.W, s.db.R
	var verdict string
	if err := s.r.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("quick_check: %s", verdict)
	}
	if s.serials, err = s.readSerials(ctx); err != nil {
		return err
	}
	rows, err := s.List(ctx)
	if err != nil {
		return err
	}
	// Single rows that do not open are told by List. None that does is another
	// key.
	var fault error
	for _, r := range rows {
		if r.Fault == nil {
			return nil
		}
		fault = r.Fault
	}
	return fault
}

// Close closes the file.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

func (s *Store) readSerials(ctx context.Context) (map[string]string, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT name, serial FROM scanner`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	serials := map[string]string{}
	for rows.Next() {
		var name, serial string
		if err := rows.Scan(&name, &serial); err != nil {
			return nil, err
		}
		serials[name] = serial
	}
	return serials, rows.Err()
}

// Serial is the serial number of the scanner that was last found under a name,
// and whether one ever was.
func (s *Store) Serial(scanner string) (serial string, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	serial, known = s.serials[scanner]
	return serial, known
}

// SetSerial says which scanner was found under a name. What was enrolled at
// another matches no more.
func (s *Store) SetSerial(ctx context.Context, scanner, serial string) error {
	if before, known := s.Serial(scanner); known && before == serial {
		return nil
	}
	if _, err := s.w.ExecContext(ctx, `INSERT INTO scanner (name, serial) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET serial = excluded.serial`, scanner, serial); err != nil {
		return fmt.Errorf("keep the serial number of scanner %q: %w", scanner, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serials = maps.Clone(s.serials)
	s.serials[scanner] = serial
	return nil
}

// References are what an approved enrolment left of a person at a scanner, by
// rising slot; none where there is nothing. The caller clears them. After an
// error nobody may be taken for matched.
func (s *Store) References(person, scanner string) ([]biometric.Reference, error) {
	serial, known := s.Serial(scanner)
	if !known {
		return nil, nil
	}
	key := s.index(person)
	rows, err := s.query(context.Background(), `WHERE person = ? AND scanner = ? AND serial = ? AND state = ? ORDER BY slot`,
		key[:], scanner, serial, Active)
	var references []biometric.Reference
	for _, r := range rows {
		err = errors.Join(err, r.Fault)
		references = append(references, biometric.Reference{Part: r.Part, Slot: r.Slot, Template: r.Template, Duress: r.Duress})
	}
	if err != nil {
		biometric.Clear(references)
		return nil, fmt.Errorf("%w: scanner %q: %w", ErrDamaged, scanner, err)
	}
	return references, nil
}

// Person is whose the finger or eye in a slot is, and whether it is given only
// under a threat; "" where nobody's is approved there.
func (s *Store) Person(scanner string, slot uint32) (person string, duress bool, err error) {
	serial, known := s.Serial(scanner)
	if !known {
		return "", false, nil
	}
	rows, err := s.query(context.Background(), `WHERE scanner = ? AND serial = ? AND slot = ? AND state = ?`, scanner, serial, slot, Active)
	for _, r := range rows {
		r.Template.Clear()
		err = errors.Join(err, r.Fault)
		person, duress = r.Person, r.Duress
	}
	if err != nil {
		return "", false, fmt.Errorf("%w: scanner %q, slot %d: %w", ErrDamaged, scanner, slot, err)
	}
	return person, duress, nil
}

// List is every row without its template, by scanner and slot.
func (s *Store) List(ctx context.Context) ([]Row, error) {
	rows, err := s.query(ctx, `ORDER BY scanner, serial, slot`)
	for i := range rows {
		rows[i].Template.Clear()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return rows, nil
}

// Count is how many rows there are in each state.
func (s *Store) Count(ctx context.Context) (map[State]int, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT state, count(*) FROM enrolled GROUP BY state`)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer rows.Close()
	count := map[State]int{}
	for rows.Next() {
		var state State
		var n int
		if err := rows.Scan(&state, &n); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		count[state] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return count, nil
}

// query reads rows, each of which says itself whether it opened. After an
// error there are none.
func (s *Store) query(ctx context.Context, where string, args ...any) (all []Row, err error) {
	rows, err := s.r.QueryContext(ctx, `SELECT id, person, scanner, serial, slot, state, session, body FROM enrolled `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	defer func() {
		if err != nil {
			for _, r := range all {
				r.Template.Clear()
			}
			all = nil
		}
	}()
	for rows.Next() {
		var r Row
		var person, session, body sql.RawBytes
		if err := rows.Scan(&r.id, &person, &r.Scanner, &r.Serial, &r.Slot, &r.State, &session, &body); err != nil {
			return all, err
		}
		if len(session) == len(r.Session) {
			r.Session = Session(session)
		}
		r.Fault = s.unseal(&r, person, body)
		all = append(all, r)
	}
	return all, rows.Err()
}

// unseal opens a row's body, bound to what stands beside it.
func (s *Store) unseal(r *Row, person, body []byte) error {
	plain, err := s.keys.Sealer.Open(body, r.aad(person))
	if err != nil {
		return fmt.Errorf("the row of slot %d does not open: %w", r.Slot, err)
	}
	defer clear(plain)
	if err := r.parseBody(plain); err != nil {
		return fmt.Errorf("the row of slot %d: %w", r.Slot, err)
	}
	if key := s.index(r.Person); string(key[:]) != string(person) {
		r.Template.Clear()
		return fmt.Errorf("the row of slot %d is another person's", r.Slot)
	}
	return nil
}

// aad binds a row's body to its person, state, slot, session and scanner.
func (r *Row) aad(person []byte) []byte {
	b := append([]byte("gatehouse enrolled row\x00"), byte(len(person)))
	b = append(b, person...)
	b = append(b, byte(r.State))
	b = binary.BigEndian.AppendUint32(b, r.Slot)
	b = append(b, r.Session[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Scanner)))
	b = append(b, r.Scanner...)
	return append(b, r.Serial...)
}

func (s *Store) index(person string) [16]byte {
	return s.keys.Index.Index([]byte("enrolled person\x00" + person))
}

// seal gives a row's key and its sealed body.
func (s *Store) seal(r *Row) (person [16]byte, body []byte) {
	person = s.index(r.Person)
	plain := r.body()
	defer clear(plain)
	return person, s.keys.Sealer.Seal(plain, r.aad(person[:]))
}

// Add writes a pending row. Its template stays the caller's to clear.
func (s *Store) Add(ctx context.Context, r Row) (Row, error) {
	r.State = Pending
	if err := r.check(); err != nil {
		return Row{}, err
	}
	person, body := s.seal(&r)
	done, err := s.w.ExecContext(ctx, `INSERT INTO enrolled (person, scanner, serial, slot, state, session, body) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		person[:], r.Scanner, r.Serial, r.Slot, r.State, r.Session[:], body)
	if err == nil {
		r.id, err = done.LastInsertId()
	}
	if err != nil {
		return Row{}, fmt.Errorf("write an enrolment: %w", err)
	}
	return r, nil
}

// Approve makes all pending rows of a session match from now on.
func (s *Store) Approve(ctx context.Context, session Session, approver string) error {
	return s.change(ctx, `WHERE session = ? AND state = ?`, []any{session[:], Pending}, func(r *Row) {
		r.State, r.Approver = Active, approver
	})
}

// Revoke ends the matching of active rows, at once and of all or none. Their
// templates are gone with that, also where the scanner is away.
func (s *Store) Revoke(ctx context.Context, operator string, rows ...Row) error {
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.id
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	if err := s.change(ctx, `WHERE id IN (SELECT value FROM json_each(?)) AND state = ?`, []any{string(list), Active}, func(r *Row) {
		r.State, r.Operator, r.Approver = Revoked, operator, ""
		r.Template.Clear()
	}); err != nil {
		return err
	}
	return s.scrub(ctx)
}

// scrub empties the write-ahead log. What was overwritten or removed stands in
// it otherwise, sealed, for as long as the daemon runs.
func (s *Store) scrub(ctx context.Context) error {
	var busy, pages, done int
	err := s.w.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &done)
	if err == nil && busy != 0 {
		err = errors.New("it is being read")
	}
	if err != nil {
		return fmt.Errorf("what was removed of the enrolments is still in %s-wal, until the daemon starts again: %w", FileName, err)
	}
	return nil
}

// Owe says of a row that only its slot is left to be emptied.
func (s *Store) Owe(ctx context.Context, r Row) error {
	return s.change(ctx, `WHERE id = ?`, []any{r.id}, func(r *Row) { r.State = Owed })
}

// change seals rows anew after f has changed them, all or none.
func (s *Store) change(ctx context.Context, where string, args []any, f func(*Row)) (err error) {
	rows, err := s.query(ctx, where, args...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer func() {
		for _, r := range rows {
			r.Template.Clear()
		}
	}()
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("change enrolments: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("change enrolments: %w", errors.Join(err, tx.Rollback()))
		}
	}()
	for i := range rows {
		r := &rows[i]
		if r.Fault != nil {
			return r.Fault
		}
		before := r.State
		f(r)
		if err := r.check(); err != nil {
			return err
		}
		_, body := s.seal(r)
		done, err := tx.ExecContext(ctx, `UPDATE enrolled SET state = ?, body = ? WHERE id = ? AND state = ?`, r.State, body, r.id, before)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("the row of slot %d changed meanwhile: try again", r.Slot), err)
		}
	}
	return tx.Commit()
}

// Remove forgets a row, and leaves nothing of it in the file. What its scanner
// keeps is the caller's affair.
func (s *Store) Remove(ctx context.Context, r Row) error {
	if _, err := s.w.ExecContext(ctx, `DELETE FROM enrolled WHERE id = ?`, r.id); err != nil {
		return fmt.Errorf("remove an enrolment: %w", err)
	}
	return s.scrub(ctx)
}

// FreeSlot is the lowest slot of a scanner that neither a row nor the scanner
// itself uses, as far as used says; ErrFull where there is none.
func (s *Store) FreeSlot(ctx context.Context, scanner string, about biometric.About, used []uint32) (uint32, error) {
	taken := make(map[uint32]bool, len(used))
	for _, slot := range used {
		taken[slot] = true
	}
	rows, err := s.query(ctx, `WHERE scanner = ? AND serial = ?`, scanner, about.Serial)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for _, r := range rows {
		r.Template.Clear()
		taken[r.Slot] = true
	}
	slots := uint64(about.Capacity)
	if slots == 0 { // it keeps nothing: the number is only ours
		slots = 1 << 31
	}
	for i := range slots {
		slot := uint64(about.First) + i
		if slot > 1<<32-1 {
			break
		}
		if !taken[uint32(slot)] {
			return uint32(slot), nil
		}
	}
	return 0, fmt.Errorf("%w: scanner %q has %d slots, and all are in use: revoke somebody, or look for orphans with gatehouse enroll orphans", ErrFull, scanner, about.Capacity)
}

// Checked is when the scanners were last compared with the rows; zero: never.
func (s *Store) Checked(ctx context.Context) (time.Time, error) {
	var at int64
	err := s.r.QueryRowContext(ctx, `SELECT at FROM checked`).Scan(&at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return time.Unix(at, 0).UTC(), nil
}

// SetChecked says when the scanners were last compared with the rows.
func (s *Store) SetChecked(ctx context.Context, at time.Time) error {
	if _, err := s.w.ExecContext(ctx, `INSERT OR REPLACE INTO checked (one, at) VALUES (1, ?)`, at.Unix()); err != nil {
		return fmt.Errorf("keep the time of the check: %w", err)
	}
	return nil
}
