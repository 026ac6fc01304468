// Package allowlist is the door's cache of who may enter: one SQLite file with
// a row for each credential, found by a keyed hash of the card's number. The
// number itself is not kept, and a row is sealed as a whole.
//
// A file that an import made is never changed in place. The import builds a new
// one aside, checks it, and renames it over the old one; Source notices and swaps
// while lookups go on. A manifest, signed with the site's policy key, vouches for
// the version and for the digest of all that the file says.
//
// What a CRM sends, Source.Apply puts in force: a snapshot is built in a file of
// its own, to which the allowlist's name then leads by a symbolic link, and a delta
// is one transaction in that file (apply.go says how lookups go on meanwhile). Its
// rows are sealed here, so that no signature of the CRM covers them; a sealed head
// vouches for the version and for the sum of the rows.
package allowlist

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the SQLite driver

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
)

// FileName is the allowlist's name in a controller's folder.
const FileName = "allowlist.db"

const (
	applicationID = 0x4748414c // "GHAL", SQLite's application_id
	schemaVersion = 1          // SQLite's user_version
	manifestType  = "gatehouse-allowlist"
	// readCacheKiB is the page cache of one reading connection. The inner nodes
	// of a tree of a million rows fit in it.
	readCacheKiB = 2048
)

// Indexer is the keyed hash under which a credential is looked up.
type Indexer interface {
	Index(canonical []byte) [16]byte
}

// Sealer encrypts and authenticates; what aad is bound to is not hidden.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Verifier checks a compact JWS by the key that governs the policy, and
// returns its payload.
type Verifier interface {
	Verify(jws string) ([]byte, error)
}

// Signer makes a compact JWS with the site's policy key.
type Signer interface {
	Sign(payload []byte) (string, error)
}

// Keys are what reading an allowlist takes.
type Keys struct {
	Index  Indexer
	Sealer Sealer
	// Verifier is of the key that signs what is imported here; nil: the CRM
	// governs, and nothing counts but what Source.Apply has made.
	Verifier Verifier
}

// Manifest is what is signed of an allowlist, or sealed of one from a CRM.
type Manifest struct {
	V        int       `json:"v"`    // 1
	Type     string    `json:"type"` // gatehouse-allowlist, gatehouse-allowlist-applied
	Version  uint64    `json:"version"`
	Created  time.Time `json:"created"`
	Snapshot string    `json:"snapshot"` // 128 random bits, hex: rows of one file do not open in another
	Count    uint64    `json:"count"`    // credentials
	Policy   string    `json:"policy"`   // SHA-256 of the schedules, groups and profiles, hex
	Digest   string    `json:"digest"`   // SHA-256 of the policy and all rows, or the keyed sum of the rows, hex
}

// ErrNotTrusted marks an allowlist that is there but cannot be trusted.
var ErrNotTrusted = errors.New("allowlist cannot be trusted")

// List is one allowlist file, open for reading. Its methods may be used from
// several goroutines.
type List struct {
	// A pool would open further connections by the file's name, which is
	// another file's after a swap. So there are two, opened at once and kept:
	// one for lookups, and one for reading all rows meanwhile.
	db   *sql.DB
	look conn
	scan conn
	get  statement // on look

	keys   Keys
	live   bool // from a CRM: the file goes on changing, and each connection keeps to what it saw first
	sealed []byte
	head   sealedHead // of a live one
	// confirmed is when a live one was last known to be current; zero: not since it
	// was made.
	confirmed time.Time
	manifest  Manifest
	snapshot  []byte
	policy    []byte // as stored, for the digest
	compiled
}

// statement is prepared by the driver itself. On a connection that is kept, the
// pool's layer above it would only double the time of a lookup.
type statement interface {
	driver.Stmt
	driver.StmtQueryContext
}

// conn is one connection, which one goroutine at a time may use.
type conn struct {
	mu sync.Mutex
	*sql.Conn
	pinned bool // in a transaction that only reads
}

// Open opens an allowlist and checks its signature and its policy; Check
// checks the rows. It fails with fs.ErrNotExist where there is no file, and
// with ErrNotTrusted where the file is not what was signed or others can read
// it. What it returns stays as it is, whatever is applied meanwhile.
func Open(path string, keys Keys) (*List, error) {
	file, live, err := locate(path)
	if err != nil {
		return nil, err
	}
	return openList(file, live, keys)
}

func openList(file string, live bool, keys Keys) (*List, error) {
	db, err := openReadOnly(file, live)
	if err != nil {
		return nil, err
	}
	l := &List{db: db, keys: keys, live: live}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrNotTrusted, file, err), l.close())
	}
	return l, nil
}

// locate finds the file to which the allowlist's name leads, and says whether it
// is one that goes on changing.
func locate(path string) (file string, live bool, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", false, err
	}
	file = path
	if info.Mode().Type() == fs.ModeSymlink {
		name, err := os.Readlink(path)
		if err != nil {
			return "", false, err
		}
		if live = liveFile.MatchString(name); live {
			file = filepath.Join(filepath.Dir(path), name)
			if info, err = os.Lstat(file); err != nil {
				return "", false, err
			}
		}
	}
	if !info.Mode().IsRegular() {
		return "", false, fmt.Errorf("%w: %s is not a regular file", ErrNotTrusted, file)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return "", false, fmt.Errorf("%w: %s can be used by others (mode %#o): chmod 600 %s", ErrNotTrusted, file, perm, file)
	}
	return file, live, nil
}

// openReadOnly opens a file. One that was imported is not changed once it has its
// name, so that SQLite need not lock it at every lookup (immutable=1).
func openReadOnly(path string, live bool) (*sql.DB, error) {
	query := fmt.Sprintf("mode=ro&_query_only=1&_cache_size=-%d", readCacheKiB)
	if !live {
		query += "&immutable=1"
	}
	return openSQLite(path, query)
}

func openSQLite(path, query string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: query}
	return sql.Open("sqlite3", dsn.String())
}

const lookupSQL = `SELECT entry FROM credential WHERE key = ?`

func (l *List) load() (err error) {
	ctx := context.Background()
	if l.look.Conn, err = l.db.Conn(ctx); err != nil {
		return err
	}
	if l.scan.Conn, err = l.db.Conn(ctx); err != nil {
		return err
	}
	if err := l.readHead(ctx); err != nil {
		return err
	}
	if l.snapshot, err = hex.DecodeString(l.manifest.Snapshot); err != nil {
		return fmt.Errorf("manifest: snapshot: %w", err)
	}
	if err := l.look.QueryRowContext(ctx, readMetaSQL, "policy").Scan(&l.policy); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if sum := sha256.Sum256(l.policy); hex.EncodeToString(sum[:]) != l.manifest.Policy {
		return fmt.Errorf("policy: not what the manifest vouches for")
	}
	if l.compiled, err = parsePolicy(l.policy); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return l.prepare()
}

func (l *List) prepare() error {
	return l.look.Raw(func(c any) error {
		s, err := c.(driver.Conn).Prepare(lookupSQL)
		if err != nil {
			return err
		}
		l.get = s.(statement) // go-sqlite3 has it
		return nil
	})
}

// readHead reads what vouches for the list. Both connections must see the same.
func (l *List) readHead(ctx context.Context) error {
	name := "manifest"
	switch byCRM := l.keys.Verifier == nil; {
	case byCRM && !l.live:
		return errors.New("it was imported, and the CRM governs who may enter here: connect the controller, which fetches the CRM's allowlist")
	case !byCRM && l.live:
		return errors.New("it is from a CRM, which does not govern who may enter here: import one")
	case l.live:
		name = "head"
		if err := l.pin(ctx); err != nil {
			return err
		}
	}
	var err error
	if l.sealed, err = readSigned(ctx, l.look.Conn, name); err != nil {
		return err
	}
	if same, err := readSigned(ctx, l.scan.Conn, name); err != nil || !bytes.Equal(same, l.sealed) {
		return errors.Join(errors.New("replaced while it was opened"), err)
	}
	if l.live {
		if l.head, err = openHead(l.keys.Sealer, l.sealed); err != nil {
			return fmt.Errorf("head: %w", err)
		}
		l.manifest = l.head.Manifest
		return l.readConfirmation(ctx)
	}
	payload, err := l.keys.Verifier.Verify(string(l.sealed))
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if l.manifest, err = parseManifest(payload); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

const readMetaSQL = `SELECT value FROM meta WHERE name = ?`

// readSigned finds out whether a file is an allowlist of a known format, and
// returns its manifest or its head, not yet verified.
func readSigned(ctx context.Context, c *sql.Conn, name string) (value []byte, err error) {
	var app, schema int64
	if err := c.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&app); err != nil {
		return nil, err
	}
	if err := c.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&schema); err != nil {
		return nil, err
	}
	if app != applicationID {
		return nil, fmt.Errorf("not an allowlist")
	}
	if schema != schemaVersion {
		return nil, fmt.Errorf("made in format %d, this version reads format %d: import again", schema, schemaVersion)
	}
	if err := c.QueryRowContext(ctx, readMetaSQL, name).Scan(&value); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

func parseManifest(payload []byte) (Manifest, error) {
	var m Manifest
	if err := strictJSON(payload, &m); err != nil {
		return Manifest{}, err
	}
	if m.V != 1 || m.Type != manifestType {
		return Manifest{}, fmt.Errorf("v %d, type %q: not an allowlist's manifest", m.V, m.Type)
	}
	if m.Version == 0 {
		return Manifest{}, fmt.Errorf("version is 0")
	}
	return m, nil
}

func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("more follows the JSON object")
	}
	return nil
}

// Close closes the file. No other method may be running.
func (l *List) Close() error { return errors.Join(l.get.Close(), l.close()) }

// close closes what load has opened so far.
func (l *List) close() error {
	var errs []error
	for _, c := range []*conn{&l.look, &l.scan} {
		if c.Conn != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(append(errs, l.db.Close())...)
}

// Manifest is what was signed, or sealed where the list is from a CRM.
func (l *List) Manifest() Manifest { return l.manifest }

// Version is the version of the policy.
func (l *List) Version() uint64 { return l.manifest.Version }

// Applied is when the allowlist was made.
func (l *List) Applied() time.Time { return l.manifest.Created }

// Current is when the allowlist was last known to be the newest, as far as the file
// says: a daemon tells it that now and then.
func (l *List) Current() time.Time {
	if made := l.manifest.Created; made.After(l.confirmed) {
		return made
	}
	return l.confirmed
}

// Size is the number of credentials.
func (l *List) Size() uint64 { return l.manifest.Count }

// Words are the schedules, holidays, door groups and what doors ask for.
func (l *List) Words() Rules { return l.words }

// Rules are what a door asks for on the way in or out; nil where the policy says
// nothing of that. They may not be changed.
func (l *List) Rules(door string, side access.Direction) []access.Rule { return l.doors[door][side] }

// Lookup finds a credential: nil and no error means that it is not on the
// allowlist. An error means that the file cannot be trusted: the decision is
// then made as if there were none.
func (l *List) Lookup(c badge.Credential) (*access.Entry, error) {
	s, err := l.find(c)
	if s == nil || err != nil {
		return nil, err
	}
	return l.entry(s), nil
}

// Find is Lookup with all that the allowlist holds.
func (l *List) Find(c badge.Credential) (*Listed, error) {
	s, err := l.find(c)
	if s == nil || err != nil {
		return nil, err
	}
	return l.listed(s), nil
}

// Person finds who was identified without a card, as Lookup finds a card: nil
// and no error also where the person is known, but may not be identified so.
func (l *List) Person(id string) (*access.Entry, error) {
	s, err := l.findKey(personKey(l.keys.Index, id))
	if s == nil || err != nil {
		return nil, err
	}
	return l.entry(s), nil
}

// FindPerson is Person with all that the allowlist holds.
func (l *List) FindPerson(id string) (*Listed, error) {
	s, err := l.findKey(personKey(l.keys.Index, id))
	if s == nil || err != nil {
		return nil, err
	}
	return l.listed(s), nil
}

// CheckPIN compares digits with the PINs of an entry, in the same time whatever
// they are and whether or not the person has one. Duress is true of the one that
// is given only under a threat; ok is true then, too.
func (l *List) CheckPIN(e *access.Entry, digits []byte) (ok, duress bool) {
	return checkPIN(l.keys.Index, e, digits)
}

func (l *List) find(c badge.Credential) (*stored, error) {
	return l.findKey(l.keys.Index.Index(c.Canonical()))
}

func (l *List) findKey(key [16]byte) (*stored, error) {
	switch sealed, err := l.row(key[:]); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNotTrusted, err)
	case sealed == nil:
		return nil, nil
	default:
		return l.open(key[:], sealed)
	}
}

// row is the sealed row with a key, or nil.
func (l *List) row(key []byte) (sealed []byte, err error) {
	l.look.mu.Lock()
	defer l.look.mu.Unlock()
	rows, err := l.get.QueryContext(context.Background(), []driver.NamedValue{{Ordinal: 1, Value: key}})
	if err != nil {
		return nil, err
	}
	var value [1]driver.Value
	switch err = rows.Next(value[:]); err {
	case nil:
		sealed, _ = value[0].([]byte) // the column is a BLOB, and copied by the driver
	case io.EOF:
		err = nil
	}
	return sealed, errors.Join(err, rows.Close())
}

func (l *List) open(key, sealed []byte) (*stored, error) {
	plain, err := l.keys.Sealer.Open(sealed, rowAAD(nil, l.snapshot, key))
	if err != nil {
		return nil, fmt.Errorf("%w: a row does not open: %w", ErrNotTrusted, err)
	}
	s, err := decodeEntry(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: a row: %w", ErrNotTrusted, err)
	}
	if s.profile >= uint64(len(l.profiles)) {
		return nil, fmt.Errorf("%w: a row names rights that the policy does not have", ErrNotTrusted)
	}
	return &s, nil
}

// rowAAD binds a row to its key and its file, so that rows cannot be exchanged
// and an old file's row cannot revive a credential.
func rowAAD(b, snapshot, key []byte) []byte {
	b = append(b, "gatehouse allowlist row\x00"...)
	b = append(b, snapshot...)
	return append(b, key...)
}

func (l *List) entry(s *stored) *access.Entry {
	e := s.entry // a copy of its own for the caller
	e.Rights = l.profiles[s.profile]
	return &e
}

// Listed is a credential with all that the allowlist holds of it. The card's
// number is not among that.
type Listed struct {
	access.Entry
	Name   string
	Format string
}

func (l *List) listed(s *stored) *Listed {
	return &Listed{Entry: *l.entry(s), Name: s.name, Format: s.format}
}

// Each calls visit for every credential, in no order that means anything.
func (l *List) Each(ctx context.Context, visit func(*Listed) error) error {
	return l.rows(ctx, func(key, sealed []byte) error {
		s, err := l.open(key, sealed)
		if err != nil {
			return err
		}
		return visit(l.listed(s))
	})
}

func (l *List) rows(ctx context.Context, visit func(key, sealed []byte) error) error {
	l.scan.mu.Lock()
	defer l.scan.mu.Unlock()
	rows, err := l.scan.QueryContext(ctx, `SELECT key, entry FROM credential ORDER BY key`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var key, sealed sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&key, &sealed); err != nil {
			return err
		}
		if err := visit(key, sealed); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Check compares every row with the digest in the manifest, or with the sum of the
// rows. It reads the whole file; lookups go on meanwhile. Advance, if not nil, is
// told how many more rows were read.
func (l *List) Check(ctx context.Context, advance func(int64)) error {
	var d interface {
		row(key, sealed []byte)
		sum() string
	} = newDigest(l.policy)
	if l.live {
		d = newRowSum(l.head.SumKey)
	}
	var n uint64
	err := l.rows(ctx, func(key, sealed []byte) error {
		d.row(key, sealed)
		if n++; advance != nil && n%progressEvery == 0 {
			advance(progressEvery)
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNotTrusted, err)
	case n != l.manifest.Count:
		return fmt.Errorf("%w: it has %d credentials, the manifest says %d", ErrNotTrusted, n, l.manifest.Count)
	case d.sum() != l.manifest.Digest:
		return fmt.Errorf("%w: its content is not what the manifest vouches for", ErrNotTrusted)
	}
	return nil
}

// checkAll is Check, and looks into the parts of the file that no row is in.
func (l *List) checkAll(ctx context.Context, advance func(int64)) error {
	var verdict string
	l.scan.mu.Lock()
	err := l.scan.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict)
	l.scan.mu.Unlock()
	if err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("quick_check: %s", verdict)
	}
	return l.Check(ctx, advance)
}

// digest is the SHA-256 over all that a file says: its policy, then its rows
// in the order of their keys, each part with its length before it.
type digest struct{ h hash.Hash }

func newDigest(policy []byte) digest {
	d := digest{sha256.New()}
	d.part([]byte("gatehouse allowlist v1"))
	d.part(policy)
	return d
}

func (d digest) part(b []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(b)))
	d.h.Write(n[:])
	d.h.Write(b)
}

func (d digest) row(key, sealed []byte) {
	d.part(key)
	d.part(sealed)
}

func (d digest) sum() string { return hex.EncodeToString(d.h.Sum(nil)) }

// absent says whether an error of Open means that there is no file at all.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
