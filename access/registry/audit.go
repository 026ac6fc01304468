package registry

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Line is one line of the audit.
type Line struct {
	Seq     uint64    `json:"seq"` // from 1, without a gap
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
	Action  string    `json:"action"`
	Kind    Kind      `json:"kind"`
	ID      string    `json:"id"`
	Version uint64    `json:"version,omitempty"` // of the object after the change; 0: it is none
	Before  Hash      `json:"before,omitempty"`  // of what was said; empty: it was not there
	After   Hash      `json:"after,omitempty"`   // empty: it is not there any more
}

// Hash is a keyed hash: only who has the registry's key can tell whether it is
// that of a guess.
type Hash []byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h) }

// MarshalText writes the hash in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// Head is where the audit ends. Noted elsewhere, it proves later that nothing
// up to there was changed, not even together with the whole file.
type Head struct {
	Seq   uint64
	chain [16]byte
}

// String writes a head as 1234:9f86d081884c7d659a2feaa0c55ad015.
func (h Head) String() string { return fmt.Sprintf("%d:%x", h.Seq, h.chain) }

// MarshalText writes the head as String does.
func (h Head) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// ParseHead reads what String wrote, and nothing else.
func ParseHead(s string) (Head, error) {
	var h Head
	seq, chain, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(seq, 10, 63)
	b, errHex := hex.DecodeString(chain)
	if !ok || err != nil || errHex != nil || len(b) != len(h.chain) {
		return Head{}, fmt.Errorf("%q is not a head such as %s", s, Head{Seq: 12})
	}
	h.Seq = n
	copy(h.chain[:], b)
	if h.String() != s {
		return Head{}, fmt.Errorf("%q is not a head as it is written here: it would be %s", s, h)
	}
	return h, nil
}

// What the keyed hash is of begins with its purpose. No card's format has a
// name that begins so.
const (
	hashLine = "\x00audit line\x00"
	hashHead = "\x00audit head\x00"
	hashBody = "\x00registered\x00"
)

// next is the head after a line.
func (r *Registry) next(h Head, l Line) (Head, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return Head{}, err
	}
	b := append([]byte(hashLine), h.chain[:]...)
	return Head{l.Seq, r.o.Index.Index(append(b, text...))}, nil
}

// vouch is what stands beside the head, so that the lines before it cannot be
// made the last ones.
func (r *Registry) vouch(h Head) []byte {
	sum := r.o.Index.Index([]byte(hashHead + h.String()))
	return append([]byte(h.String()+" "), hex.EncodeToString(sum[:])...)
}

func (r *Registry) readHead(ctx context.Context, q queryer) (Head, error) {
	value, err := readMeta(ctx, q, metaHead)
	if errors.Is(err, sql.ErrNoRows) {
		return Head{}, nil
	}
	if err != nil {
		return Head{}, err
	}
	text, _, _ := strings.Cut(string(value), " ")
	h, err := ParseHead(text)
	if err != nil || !bytes.Equal(r.vouch(h), value) {
		return Head{}, &Tampered{What: "the head of the audit was changed"}
	}
	return h, nil
}

func (t *tx) writeHead() error { return writeMeta(t.ctx, t.Tx, metaHead, t.r.vouch(t.head)) }

// line adds one line to the audit.
func (t *tx) line(l Line) error {
	l.Seq, l.At, l.By, l.Why = t.head.Seq+1, t.now, t.change.By, t.change.Why
	next, err := t.r.next(t.head, l)
	if err != nil {
		return err
	}
	_, err = t.ExecContext(t.ctx, `
		INSERT INTO audit (seq, at, who, why, action, kind, id, version, before, after, chain)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		l.Seq, l.At.UnixMicro(), l.By, l.Why, l.Action, string(l.Kind), l.ID, l.Version, notNil(l.Before), notNil(l.After), next.chain[:])
	if err != nil {
		return fmt.Errorf("write the audit's line %d: %w", l.Seq, err)
	}
	t.head = next
	return nil
}

// notNil keeps an empty value from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

const lineColumns = `seq, at, who, why, action, kind, id, version, before, after, chain`

func scanLine(rows *sql.Rows) (l Line, chain []byte, err error) {
	var at int64
	var before, after []byte
	err = rows.Scan(&l.Seq, &at, &l.By, &l.Why, &l.Action, &l.Kind, &l.ID, &l.Version, &before, &after, &chain)
	l.At = time.UnixMicro(at).UTC()
	if len(before) > 0 {
		l.Before = before
	}
	if len(after) > 0 {
		l.After = after
	}
	return l, chain, err
}

// AuditQuery says which lines of the audit are wanted.
type AuditQuery struct {
	After uint64 // those above this one
	Kind  Kind   // of this kind; "": all
	ID    string // of this object; "": all
	Limit int    // at most so many; 0 or less: 100
}

const (
	pageSize = 100  // where nobody says how many
	longPage = 1000 // where everything is read
)

// Audit reads lines, the oldest first.
func (r *Registry) Audit(ctx context.Context, q AuditQuery) ([]Line, error) {
	if q.Limit <= 0 {
		q.Limit = pageSize
	}
	rows, err := r.r.QueryContext(ctx, `SELECT `+lineColumns+` FROM audit
		WHERE seq > $1 AND ($2 = '' OR kind = $2) AND ($3 = '' OR id = $3) ORDER BY seq LIMIT $4`, q.After, string(q.Kind), q.ID, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	defer rows.Close()
	var list []Line
	for rows.Next() {
		l, _, err := scanLine(rows)
		if err != nil {
			return nil, fmt.Errorf("read the audit: %w", err)
		}
		list = append(list, l)
	}
	return list, rows.Err()
}

// Tampered is the first thing found that was changed behind the registry's
// back.
type Tampered struct {
	Seq  uint64 // the line of the audit; 0: it is not one line
	Kind Kind   // the object; "": it is not one object
	ID   string
	What string
}

func (e *Tampered) Error() string {
	switch {
	case e.Seq != 0:
		return fmt.Sprintf("audit, line %d: %s", e.Seq, e.What)
	case e.Kind != "":
		return fmt.Sprintf("%s %s: %s", e.Kind, fields.Quote(e.ID), e.What)
	}
	return e.What
}

// Verified is what Verify found in order.
type Verified struct {
	Lines   uint64 `json:"lines"`
	Objects uint64 `json:"objects"`
	Head    Head   `json:"head"`
}

// objectName names an object over all kinds.
type objectName struct {
	kind Kind
	id   string
}

// last is what the audit says of an object in its last line.
type last struct {
	version uint64
	after   string
}

// Verify reads the whole audit and every object. Each line must follow from the
// one before, the last must be the one that the registry wrote last, and each
// object must be what its last line says, no more and no fewer. What is not so
// comes as *Tampered. Where noted is not its zero value, the audit must have
// passed there. Told of what is done and of how much, progress may be nil.
func (r *Registry) Verify(ctx context.Context, noted Head, progress func(done, total int64)) (v Verified, err error) {
	// One view of everything, while others may write.
	tx, err := r.r.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	var total int64
	if err := tx.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM audit) + (SELECT COUNT(*) FROM object)`).Scan(&total); err != nil {
		return v, fmt.Errorf("verify: %w", err)
	}
	c := checker{r: r, noted: noted, said: make(map[objectName]last), step: func() {}}
	if progress != nil {
		c.step = func() {
			if c.done++; c.done%1000 == 0 || c.done == total {
				progress(c.done, total)
			}
		}
	}
	if err := c.lines(ctx, tx); err != nil {
		return v, err
	}
	objects, err := c.objects(ctx, tx)
	if err != nil {
		return v, err
	}
	return Verified{c.head.Seq, objects, c.head}, nil
}

type checker struct {
	r     *Registry
	noted Head
	head  Head
	said  map[objectName]last // of what should be there
	step  func()
	done  int64
}

func (c *checker) lines(ctx context.Context, tx *sql.Tx) error {
	want, err := c.r.readHead(ctx, tx)
	if err != nil {
		return err
	}
	rows, err := tx.QueryContext(ctx, `SELECT `+lineColumns+` FROM audit ORDER BY seq`)
	if err != nil {
		return fmt.Errorf("read the audit: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		l, chain, err := scanLine(rows)
		if err != nil {
			return &Tampered{Seq: c.head.Seq + 1, What: "it cannot be read: " + err.Error()}
		}
		if l.Seq != c.head.Seq+1 {
			return &Tampered{Seq: c.head.Seq + 1, What: "it was removed"}
		}
		if c.head, err = c.r.next(c.head, l); err != nil {
			return err
		}
		if !bytes.Equal(chain, c.head.chain[:]) {
			return &Tampered{Seq: l.Seq, What: "it, or one before it, was changed"}
		}
		if c.noted.Seq == l.Seq && c.noted != c.head {
			return &Tampered{Seq: l.Seq, What: "it is another than the one that was noted"}
		}
		c.follow(l)
		c.step()
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the audit: %w", err)
	}
	switch {
	case c.head != want:
		return &Tampered{What: fmt.Sprintf("the audit ends at line %d and not at %d, where the registry ended it", c.head.Seq, want.Seq)}
	case c.noted.Seq > c.head.Seq:
		return &Tampered{What: fmt.Sprintf("the audit ends at line %d, before the noted line %d: the registry is older than it was", c.head.Seq, c.noted.Seq)}
	}
	return nil
}

func (c *checker) follow(l Line) {
	name := objectName{l.Kind, l.ID}
	switch {
	case l.Version == 0:
	case l.After == nil:
		delete(c.said, name)
	default:
		c.said[name] = last{l.Version, string(l.After)}
	}
}

func (c *checker) objects(ctx context.Context, tx *sql.Tx) (n uint64, err error) {
	for after := (objectName{}); ; {
		page, err := storedAfter(ctx, tx, after)
		if err != nil {
			return 0, fmt.Errorf("read the objects: %w", err)
		}
		if len(page) == 0 {
			break
		}
		for _, o := range page {
			if err := c.object(ctx, tx, o); err != nil {
				return 0, err
			}
			after = o.objectName
			n++
			c.step()
		}
	}
	for name := range c.said {
		return 0, &Tampered{Kind: name.kind, ID: name.id, What: "it is missing, and by the audit it is there"}
	}
	return n, nil
}

// storedAfter are the next objects after one, of whatever kind.
func storedAfter(ctx context.Context, q queryer, after objectName) (page []stored, err error) {
	rows, err := q.QueryContext(ctx, `SELECT `+objectColumns+` FROM object
		WHERE kind > $1 OR kind = $1 AND id > $2 ORDER BY kind, id LIMIT $3`, string(after.kind), after.id, longPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		o, err := scanStored(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, o)
	}
	return page, rows.Err()
}

func (c *checker) object(ctx context.Context, tx *sql.Tx, o stored) error {
	bad := func(what string) error { return &Tampered{Kind: o.kind, ID: o.id, What: what} }
	said, ok := c.said[o.objectName]
	if !ok {
		return bad("it is there, and by the audit it is not")
	}
	delete(c.said, o.objectName)
	plain, err := c.r.openBody(o)
	switch {
	case err != nil:
		return bad("it does not open: it was changed")
	case o.version != said.version || string(c.r.hash(o.objectName, plain)) != said.after:
		return bad(fmt.Sprintf("it is not what the audit says of its version %d", said.version))
	}
	v, err := decode(o.kind, plain)
	switch {
	case err != nil:
		return bad("it cannot be read: " + err.Error())
	case !bytes.Equal(v.lookup(c.r.o.Index), o.lookup):
		return bad("the hash of its card was changed")
	case dueOf(v) != o.due:
		return bad("when something is to be done with it was changed")
	}
	return c.links(ctx, tx, o.objectName, v)
}

// links checks the rows that are made of what an object names.
func (c *checker) links(ctx context.Context, tx *sql.Tx, name objectName, v object) error {
	rows, err := tx.QueryContext(ctx, `SELECT to_kind, to_id FROM link WHERE kind = $1 AND id = $2`, string(name.kind), name.id)
	if err != nil {
		return fmt.Errorf("read what %s %q names: %w", name.kind, name.id, err)
	}
	defer rows.Close()
	want := distinct(v.links())
	for rows.Next() {
		var to objectName
		if err := rows.Scan(&to.kind, &to.id); err != nil {
			return err
		}
		if !want[to] {
			return &Tampered{Kind: name.kind, ID: name.id, What: fmt.Sprintf("it was made to name %s %s", to.kind, fields.Quote(to.id))}
		}
		delete(want, to)
	}
	for to := range want {
		return &Tampered{Kind: name.kind, ID: name.id, What: fmt.Sprintf("that it names %s %s was removed", to.kind, fields.Quote(to.id))}
	}
	return rows.Err()
}
