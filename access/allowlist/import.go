package allowlist

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatehouse-acs/gatehouse/access"
)

// buildCacheKiB is the page cache while a file is built. Rows come in the
// order of their keys, so that a page is finished before the next begins.
const buildCacheKiB = 8192

// maxVersion is the highest version that a record can name: every JSON reader
// keeps it exact.
const maxVersion = 1<<53 - 1

// Import is the making of a new allowlist. At most one goes on in a folder.
type Import struct {
	path    string
	keys    Keys
	lock    *os.File
	present *List
	fault   error
}

// Begin starts an import in a controller's folder. It fails where another
// import is going on there. Close ends it.
func Begin(dir string, keys Keys) (*Import, error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	i := &Import{path: filepath.Join(dir, FileName), keys: keys, lock: lock}
	if i.present, err = Open(i.path, keys); err != nil && !absent(err) {
		i.fault = err
	}
	return i, nil
}

// lockDir keeps others from writing the allowlist of a folder until the file that
// it returns is closed.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "allowlist.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("lock %s: %w", lock.Name(), err)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another import is going on in %s", dir)
		}
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// Present is what is wrong with the allowlist that is to be replaced, if
// anything. An import repairs it, but cannot tell its version.
func (i *Import) Present() error { return i.fault }

// Close ends the import.
func (i *Import) Close() error {
	var err error
	if i.present != nil {
		err = i.present.Close()
	}
	return errors.Join(err, i.lock.Close())
}

// ReadTOML reads a whole policy. What is wrong with it comes as *Faults.
func (i *Import) ReadTOML(r io.Reader, o ReadOptions) (*Plan, error) { return readTOML(r, o) }

// ReadCSV reads people and their credentials, and keeps the schedules,
// holidays, door groups and doors' rules that are there. People are as the file says:
// one that lacks a column of which they would lose something is refused. What is
// wrong comes as *Faults.
func (i *Import) ReadCSV(r io.Reader, o ReadOptions) (*Plan, error) {
	if i.fault != nil {
		return nil, fmt.Errorf("%w: %w", errNoRules, i.fault)
	}
	return readCSV(r, i.present, o)
}

// Meter is told how far long work has come.
type Meter interface {
	Add(n int64)
	Done()
}

// ApplyOptions say how a plan is applied.
type ApplyOptions struct {
	Signer Signer
	Now    time.Time
	// Above is a version that the new one must exceed, as the one it replaces.
	Above uint64
	// Progress starts the report on one stage of the work; may be nil.
	Progress func(what string, total int64) Meter
}

func (o ApplyOptions) meter(what string, total int) Meter {
	if o.Progress == nil {
		return silent{}
	}
	return o.Progress(what, int64(total))
}

type silent struct{}

func (silent) Add(int64) {}
func (silent) Done()     {}

// Apply makes the plan the allowlist: it builds a file aside, signs it, reads
// it back and checks it, makes it durable, and renames it over the old one.
// Until the rename nothing changes for anybody.
func (i *Import) Apply(ctx context.Context, p *Plan, o ApplyOptions) (_ Manifest, err error) {
	aside := i.path + ".new"
	defer func() {
		if err != nil {
			err = errors.Join(err, removeIfThere(aside))
		}
	}()
	if err := removeIfThere(aside); err != nil { // left by an import that was killed
		return Manifest{}, err
	}
	if o.Above >= maxVersion {
		return Manifest{}, fmt.Errorf("version %d is too high: a record can name one up to %d", o.Above, uint64(maxVersion))
	}
	m := Manifest{V: 1, Type: manifestType, Version: o.Above + 1, Created: o.Now.UTC().Truncate(time.Second), Count: uint64(p.size())}
	if i.present != nil {
		m.Version = max(m.Version, i.present.Version()+1)
	}
	if err := i.build(ctx, aside, p, &m, o); err != nil {
		return Manifest{}, fmt.Errorf("build the allowlist: %w", err)
	}
	if err := i.check(ctx, aside, o, p.size()); err != nil {
		return Manifest{}, fmt.Errorf("read the new allowlist back: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return Manifest{}, err
	}
	if err := replace(aside, i.path); err != nil {
		return Manifest{}, err
	}
	return m, sweep(i.path) // the list of a CRM that governs no more
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !absent(err) {
		return err
	}
	return nil
}

const schemaSQL = `
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE credential (key BLOB PRIMARY KEY, entry BLOB NOT NULL) STRICT, WITHOUT ROWID;
`

func (i *Import) build(ctx context.Context, path string, p *Plan, m *Manifest, o ApplyOptions) (err error) {
	// Made by us first, so that nobody else can ever read it.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// Nothing reads the file before it is finished, and one that is not is
	// thrown away: a journal would be work for nothing.
	db, err := openSQLite(path, fmt.Sprintf("mode=rw&_journal_mode=OFF&_synchronous=OFF&_locking_mode=EXCLUSIVE&_cache_size=-%d", buildCacheKiB))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	defer func() { err = errors.Join(err, db.Close()) }()

	var snapshot [16]byte
	rand.Read(snapshot[:]) // never fails
	m.Snapshot = hex.EncodeToString(snapshot[:])
	content, err := policy{Rules: p.rules, Profiles: p.profiles.all}.marshal()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(content)
	m.Policy = hex.EncodeToString(sum[:])

	if _, err := db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", applicationID, schemaVersion)+schemaSQL); err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	if m.Digest, err = i.insert(ctx, tx, p, snapshot[:], newDigest(content), o); err != nil {
		return err
	}
	payload, err := json.Marshal(m)
	if err != nil {
		return err
	}
	jws, err := o.Signer.Sign(payload)
	if err != nil {
		return fmt.Errorf("sign the manifest: %w", err)
	}
	if _, err := tx.Exec(`INSERT INTO meta (name, value) VALUES ('manifest', ?), ('policy', ?)`, []byte(jws), content); err != nil {
		return err
	}
	return tx.Commit()
}

// insert writes the rows in the order of their keys and returns the digest.
func (i *Import) insert(ctx context.Context, tx *sql.Tx, p *Plan, snapshot []byte, d digest, o ApplyOptions) (string, error) {
	add, err := tx.Prepare(`INSERT INTO credential (key, entry) VALUES (?, ?)`)
	if err != nil {
		return "", err
	}
	defer add.Close()
	meter := o.meter("writing", p.size())
	defer meter.Done()
	var plain, aad []byte
	for n, at := range p.order {
		if n%progressEvery == 0 {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			meter.Add(min(progressEvery, int64(n)))
		}
		r := p.row(at)
		s := p.stored(r)
		plain = appendEntry(plain[:0], &s)
		aad = rowAAD(aad[:0], snapshot, r.key[:])
		sealed := i.keys.Sealer.Seal(plain, aad)
		if _, err := add.Exec(r.key[:], sealed); err != nil {
			return "", err
		}
		d.row(r.key[:], sealed)
	}
	return d.sum(), nil
}

func (p *Plan) stored(r *row) stored {
	e := access.Entry{Person: r.person, Kind: kinds[r.kind], State: states[r.state], Extended: r.extended, BreakGlass: r.breakGlass, Visit: r.visit, Code: r.code}
	if m := r.personal; m != nil {
		e.Operator, e.Escorted, e.MayEscort, e.Supervisor, e.Exempt, e.Clearance = m.operator, m.escorted, m.mayEscort, m.supervisor, m.exempt, m.clearance
		e.PIN, e.DuressPIN, e.TOTP, e.Instead = m.pin, m.duress, m.totp, m.instead
	}
	if r.from != 0 {
		e.From = time.Unix(r.from, 0)
	}
	if r.until != 0 {
		e.Until = time.Unix(r.until, 0)
	}
	return stored{entry: e, profile: uint64(r.profile), name: r.name, format: p.formats[r.format]}
}

// check reads the file back as the daemon will.
func (i *Import) check(ctx context.Context, path string, o ApplyOptions, rows int) (err error) {
	l, err := Open(path, i.keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	meter := o.meter("checking", rows)
	defer meter.Done()
	return l.checkAll(ctx, meter.Add)
}

// replace makes a finished file durable and gives it its name.
func replace(aside, path string) error {
	if err := syncFile(aside); err != nil {
		return err
	}
	if err := os.Rename(aside, path); err != nil {
		return err
	}
	return syncFile(filepath.Dir(path))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
