package allowlist

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math/bits"
	"regexp"
	"time"
)

// headType is the type of a sealed head.
const headType = "gatehouse-allowlist-applied"

// liveFile is the name of a file that Apply makes: by its snapshot. Each has a name
// of its own, since what SQLite keeps beside a database goes by the name, and one
// database's must never be taken for another's.
var liveFile = regexp.MustCompile(`^allowlist-[0-9a-f]{32}\.db$`)

func liveName(snapshot string) string { return "allowlist-" + snapshot + ".db" }

// sealedHead is what a list from a CRM says of itself: sealed, in the same transaction
// as the rows. Digest is the sum of the rows.
type sealedHead struct {
	Manifest
	Generation string `json:"generation"` // of the pepper by which its rows are found
	SumKey     []byte `json:"sum_key"`    // of the sum: known only to who opens the head
}

const headAAD = "gatehouse allowlist head\x00"

func (h *sealedHead) seal(s Sealer) ([]byte, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return s.Seal(b, []byte(headAAD)), nil
}

func openHead(s Sealer, sealed []byte) (h sealedHead, err error) {
	b, err := s.Open(sealed, []byte(headAAD))
	if err != nil {
		return h, err
	}
	if err := strictJSON(b, &h); err != nil {
		return h, err
	}
	if h.V != 1 || h.Type != headType || h.Version == 0 || len(h.SumKey) != sha256.Size {
		return h, fmt.Errorf("v %d, type %q, version %d: not the head of an allowlist", h.V, h.Type, h.Version)
	}
	return h, nil
}

// rowSum is the sum, modulo 2^256, of the HMAC-SHA256 of each row. Unlike a digest
// it can be kept up to date row by row. Who has not its key cannot make up rows
// that give the same: rows that were removed, exchanged or put back are found.
type rowSum struct {
	mac   hash.Hash
	total [4]uint64 // the least significant word first
}

func newRowSum(key []byte) *rowSum { return &rowSum{mac: hmac.New(sha256.New, key)} }

// resume goes on from what sum returned.
func (s *rowSum) resume(sum string) error {
	b, err := hex.DecodeString(sum)
	if err != nil || len(b) != sha256.Size {
		return errors.New("the sum of the rows is damaged")
	}
	s.total = words(b)
	return nil
}

// words reads a number of 256 bits, the most significant byte first.
func words(b []byte) (w [4]uint64) {
	for i := range w {
		w[i] = binary.BigEndian.Uint64(b[8*(3-i):])
	}
	return w
}

func (s *rowSum) term(key, sealed []byte) [4]uint64 {
	s.mac.Reset()
	s.mac.Write(key) // always of the same length
	s.mac.Write(sealed)
	var sum [sha256.Size]byte
	return words(s.mac.Sum(sum[:0]))
}

// row adds a row.
func (s *rowSum) row(key, sealed []byte) {
	t, carry := s.term(key, sealed), uint64(0)
	for i := range s.total {
		s.total[i], carry = bits.Add64(s.total[i], t[i], carry)
	}
}

// forget takes away a row that was added.
func (s *rowSum) forget(key, sealed []byte) {
	t, borrow := s.term(key, sealed), uint64(0)
	for i := range s.total {
		s.total[i], borrow = bits.Sub64(s.total[i], t[i], borrow)
	}
}

func (s *rowSum) sum() string {
	var b []byte
	for i := range s.total {
		b = binary.BigEndian.AppendUint64(b, s.total[3-i])
	}
	return hex.EncodeToString(b)
}

// pin has both connections see the file as it is now, and go on doing so whatever
// is written to it, until they are pinned again or closed.
func (l *List) pin(ctx context.Context) error {
	for _, c := range []*conn{&l.look, &l.scan} {
		if err := c.pin(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *conn) pin(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pinned {
		if _, err := c.ExecContext(ctx, `ROLLBACK`); err != nil {
			return err
		}
		c.pinned = false
	}
	if _, err := c.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	c.pinned = true
	var n int // SQLite begins to read at the first query
	return c.QueryRowContext(ctx, `SELECT count(*) FROM meta`).Scan(&n)
}

// Generation names the pepper by which the rows of a list from a CRM are found.
func (l *List) Generation() string { return l.head.Generation }

// confirmation is when a version was last known to be current. It is kept beside
// the head, so that a list does not grow old by a restart.
type confirmation struct {
	Version uint64    `json:"version"`
	At      time.Time `json:"at"`
}

// confirmationAAD binds a confirmation to its file.
func confirmationAAD(snapshot string) []byte {
	return []byte("gatehouse allowlist confirmation\x00" + snapshot)
}

func (l *List) readConfirmation(ctx context.Context) error {
	var sealed []byte
	switch err := l.look.QueryRowContext(ctx, readMetaSQL, "confirmed").Scan(&sealed); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("confirmation: %w", err)
	}
	b, err := l.keys.Sealer.Open(sealed, confirmationAAD(l.manifest.Snapshot))
	if err != nil {
		return fmt.Errorf("confirmation: %w", err)
	}
	var c confirmation
	if err := strictJSON(b, &c); err != nil {
		return fmt.Errorf("confirmation: %w", err)
	}
	if c.Version == l.manifest.Version {
		l.confirmed = c.At
	}
	return nil
}

// keepConfirmed writes to the file when its list was last known to be current,
// where that is later by more than step than what the file says.
func (s *Source) keepConfirmed(step time.Duration) {
	if !s.applying.TryLock() {
		return // what is being applied is newer
	}
	defer s.applying.Unlock()
	if err := s.keep(step); err != nil {
		s.o.Logger.Warn("allowlist: when it was last known to be current is not kept", "error", err)
	}
}

func (s *Source) keep(step time.Duration) (err error) {
	s.looking.Lock() // so that what is served stays
	defer s.looking.Unlock()
	s.mu.RLock()
	l, at := s.list, s.confirmed
	s.mu.RUnlock()
	if l == nil || !l.live || at.Sub(l.confirmed) <= step {
		return nil
	}
	if s.serving == (fileID{}) {
		return nil // the file has a version that is not served yet: l is not to see its rows
	}
	l.confirmed = at // also where it fails: not every second again
	b, err := json.Marshal(confirmation{l.Version(), at.UTC()})
	if err != nil {
		return err
	}
	file, _, err := locate(s.o.Path)
	if err != nil {
		return err
	}
	db, err := openWriter(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, `INSERT OR REPLACE INTO meta (name, value) VALUES ('confirmed', ?)`,
		l.keys.Sealer.Seal(b, confirmationAAD(l.manifest.Snapshot))); err != nil {
		return err
	}
	if err := l.pin(ctx); err != nil { // to what was written, or it cannot be written back
		return err
	}
	return writeBack(ctx, db, l)
}
