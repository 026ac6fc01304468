package clients

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

var (
	// ErrUnknown is that nobody may call with this token or certificate: it is
	// none of ours, ended, or was revoked. Why it is, callers are not told.
	ErrUnknown = errors.New("no token or certificate of this site's that is valid")
	// ErrTaken is that a name or a certificate is a client's already.
	ErrTaken = errors.New("there already")
	// ErrNotFound is that there is no client of that name.
	ErrNotFound = errors.New("not there")
)

// Kind says by what a client is known.
type Kind string

// The kinds of client.
const (
	ByToken       Kind = "token"
	ByCertificate Kind = "certificate"
)

const (
	// MaxValidity is how long a client is let in at most.
	MaxValidity = 2 * 366 * 24 * time.Hour

	secretBytes = 32 // random, so that nobody guesses one
	maxWhy      = 200
	// usedEvery is how exact the time of the last use is: a write for each
	// request would cost more than it tells.
	usedEvery = time.Minute
)

// Client is a program that may call the API.
type Client struct {
	Name       string    `json:"client"` // stands in the registry's audit
	Kind       Kind      `json:"kind"`
	Scopes     []Scope   `json:"scopes"`
	Made       time.Time `json:"made"`
	By         string    `json:"by"`
	Why        string    `json:"why"`
	Until      time.Time `json:"until"`         // exclusive
	Used       time.Time `json:"used,omitzero"` // to the minute or so; zero: never
	Revoked    time.Time `json:"revoked,omitzero"`
	RevokedBy  string    `json:"revoked_by,omitempty"`
	RevokedWhy string    `json:"revoked_why,omitempty"`
}

// May says whether the client has all of some scopes.
func (c Client) May(scopes ...Scope) bool {
	return !slices.ContainsFunc(scopes, func(s Scope) bool { return !slices.Contains(c.Scopes, s) })
}

// Valid says whether the client is let in at a time.
func (c Client) Valid(at time.Time) bool { return c.Revoked.IsZero() && at.Before(c.Until) }

// New is a client that is to be.
type New struct {
	Name   string
	Scopes []Scope
	Until  time.Time // after now, by at most MaxValidity
	By     string    // who lets it in
	Why    string
}

func (n New) check(now time.Time) error {
	var errs []error
	if !fields.IsName(n.Name) {
		errs = append(errs, fmt.Errorf("name %s: %s", fields.Quote(n.Name), fields.NameRule))
	}
	if len(n.Scopes) == 0 {
		errs = append(errs, errors.New("a client without a scope may do nothing: give one"))
	}
	if !n.Until.After(now) || n.Until.After(now.Add(MaxValidity)) {
		errs = append(errs, fmt.Errorf("it would be valid until %s: choose a time from now to %s", n.Until.Format(time.DateOnly), now.Add(MaxValidity).Format(time.DateOnly)))
	}
	return errors.Join(append(errs, checkWho(n.By, n.Why))...)
}

func checkWho(by, why string) error {
	if !fields.IsName(strings.ReplaceAll(by, "@", "_")) {
		return fmt.Errorf("by %s: say who changes it, in 1 to 64 letters, digits, dots, dashes, underscores and @", fields.Quote(by))
	}
	if why == "" {
		return errors.New("why is missing: say it, such as the number of a ticket")
	}
	if err := fields.CheckText(why, maxWhy); err != nil {
		return fmt.Errorf("why %w", err)
	}
	return nil
}

// Token is what a client shows to be let in. It masks itself; Reveal is for the
// one time that it is handed over.
type Token struct{ text string }

const mask = "[token]"

// String masks the token.
func (Token) String() string { return mask }

// GoString masks the token.
func (Token) GoString() string { return mask }

// LogValue masks the token.
func (Token) LogValue() slog.Value { return slog.StringValue(mask) }

// Reveal is the token as a client sends it: gatehouse.NAME.SECRET.
func (t Token) Reveal() string { return t.text }

// tokenPrefix lets those who search files for forgotten secrets find ours.
const tokenPrefix = "gatehouse."

func token(name string, secret []byte) Token {
	return Token{tokenPrefix + name + "." + base64.RawURLEncoding.EncodeToString(secret)}
}

// maxToken is how long a token can be: the prefix, a name, a dot, the secret.
var maxToken = len(tokenPrefix) + 64 + 1 + base64.RawURLEncoding.EncodedLen(secretBytes)

// splitToken reads a token, and nothing that is almost one.
func splitToken(text string) (name string, secret []byte, ok bool) {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	dot := strings.LastIndexByte(rest, '.')
	if !ok || dot < 0 || len(text) > maxToken {
		return "", nil, false
	}
	secret, err := base64.RawURLEncoding.Strict().DecodeString(rest[dot+1:])
	name = rest[:dot]
	// The decoder passes over ends of lines: there is one way to write a token.
	return name, secret, err == nil && len(secret) == secretBytes && fields.IsName(name) && token(name, secret).text == text
}

// AddToken lets a client in by a token, which is shown this once.
func (s *Store) AddToken(ctx context.Context, n New) (Client, Token, error) {
	var secret [secretBytes]byte
	rand.Read(secret[:]) // never fails
	c, err := s.add(ctx, n, ByToken, sha256.Sum256(secret[:]))
	if err != nil {
		return Client{}, Token{}, err
	}
	return c, token(n.Name, secret[:]), nil
}

// AddCertificate lets a client in by a certificate, for no longer than that is
// valid.
func (s *Store) AddCertificate(ctx context.Context, n New, cert *x509.Certificate) (Client, error) {
	if n.Until.After(cert.NotAfter) {
		n.Until = cert.NotAfter
	}
	return s.add(ctx, n, ByCertificate, sha256.Sum256(cert.Raw))
}

const clientColumns = `name, kind, hash, scopes, made, made_by, made_why, until, used, revoked, revoked_by, revoked_why, seal`

// place binds the seal of a row to what stands there: whoever can write to the
// file and has no key lets nobody in.
func (c Client) place(hash []byte) []byte {
	var revoked int64
	if !c.Revoked.IsZero() {
		revoked = c.Revoked.UnixMicro()
	}
	return fmt.Appendf(nil, "gatehouse api client\x00%q %q %x %q %d %q %q %d %d %q %q",
		c.Name, c.Kind, hash, joinScopes(c.Scopes), c.Made.UnixMicro(), c.By, c.Why, c.Until.UnixMicro(), revoked, c.RevokedBy, c.RevokedWhy)
}

func (s *Store) add(ctx context.Context, n New, kind Kind, hash [sha256.Size]byte) (Client, error) {
	now := s.now()
	if err := n.check(now); err != nil {
		return Client{}, err
	}
	words := make([]string, len(n.Scopes))
	for i, scope := range n.Scopes {
		words[i] = string(scope)
	}
	scopes, err := ParseScopes(words)
	if err != nil {
		return Client{}, err
	}
	c := Client{Name: n.Name, Kind: kind, Scopes: scopes, Made: now, By: n.By, Why: n.Why, Until: n.Until.UTC().Truncate(time.Second)}
	done, err := s.db.W.ExecContext(ctx, `INSERT INTO client (`+clientColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, '', '', $9) ON CONFLICT DO NOTHING`,
		c.Name, string(kind), hash[:], joinScopes(scopes), c.Made.UnixMicro(), c.By, c.Why, c.Until.UnixMicro(), s.o.Sealer.Seal(nil, c.place(hash[:])))
	if err != nil {
		return Client{}, fmt.Errorf("add client %q: %w", n.Name, err)
	}
	if rows, err := done.RowsAffected(); err != nil || rows == 0 {
		return Client{}, errors.Join(err, fmt.Errorf("a client %q is %w, or one with this certificate; names are not used twice, as the audit names them", n.Name, ErrTaken))
	}
	return c, nil
}

func joinScopes(scopes []Scope) string {
	var b strings.Builder
	for i, s := range scopes {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(string(s))
	}
	return b.String()
}

// Revoke lets a client in no more, from its next request on. Where it was
// revoked already nothing changes.
func (s *Store) Revoke(ctx context.Context, name, by, why string) (Client, error) {
	if err := checkWho(by, why); err != nil {
		return Client{}, err
	}
	tx, err := s.db.W.BeginTx(ctx, nil)
	if err != nil {
		return Client{}, fmt.Errorf("revoke client %q: %w", name, err)
	}
	c, err := s.revoke(ctx, tx, name, by, why)
	if err != nil {
		return Client{}, errors.Join(err, tx.Rollback())
	}
	return c, tx.Commit()
}

func (s *Store) revoke(ctx context.Context, tx *sql.Tx, name, by, why string) (Client, error) {
	c, hash, err := s.find(ctx, tx, `name = $1`, name)
	if errors.Is(err, sql.ErrNoRows) {
		return Client{}, fmt.Errorf("client %s is %w", fields.Quote(name), ErrNotFound)
	}
	if err != nil || !c.Revoked.IsZero() {
		return c, err
	}
	c.Revoked, c.RevokedBy, c.RevokedWhy = s.now(), by, why
	if _, err := tx.ExecContext(ctx, `UPDATE client SET revoked = $1, revoked_by = $2, revoked_why = $3, seal = $4 WHERE name = $5`,
		c.Revoked.UnixMicro(), by, why, s.o.Sealer.Seal(nil, c.place(hash)), name); err != nil {
		return Client{}, fmt.Errorf("revoke client %q: %w", name, err)
	}
	return c, nil
}

// List reads all clients, sorted by name, those too that were revoked.
func (s *Store) List(ctx context.Context) ([]Client, error) {
	rows, err := s.db.R.QueryContext(ctx, `SELECT `+clientColumns+` FROM client ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list the API's clients: %w", err)
	}
	defer rows.Close()
	var list []Client
	for rows.Next() {
		c, _, err := s.scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// WithToken is the client that has a token; ErrUnknown where nobody valid has.
// How long it takes says nothing of the secret.
func (s *Store) WithToken(ctx context.Context, text string) (Client, error) {
	name, secret, ok := splitToken(text)
	if !ok {
		return Client{}, ErrUnknown
	}
	c, hash, err := s.find(ctx, s.db.R, `name = $1 AND kind = 'token'`, name)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return Client{}, err
	}
	// A client that is not there has an empty hash, which nothing equals.
	sum := sha256.Sum256(secret)
	if subtle.ConstantTimeCompare(sum[:], hash) != 1 {
		return Client{}, ErrUnknown
	}
	return s.use(ctx, c)
}

// WithCertificate is the client that has a certificate, which the caller has
// verified; ErrUnknown where nobody valid has: a controller's, which is of the
// same authority, is nobody's here.
func (s *Store) WithCertificate(ctx context.Context, cert *x509.Certificate) (Client, error) {
	sum := sha256.Sum256(cert.Raw)
	c, _, err := s.find(ctx, s.db.R, `hash = $1 AND kind = 'certificate'`, sum[:])
	if errors.Is(err, sql.ErrNoRows) {
		return Client{}, ErrUnknown
	}
	if err != nil {
		return Client{}, err
	}
	return s.use(ctx, c)
}

// use notes that a client was let in.
func (s *Store) use(ctx context.Context, c Client) (Client, error) {
	now := s.now()
	if !c.Valid(now) {
		return Client{}, ErrUnknown
	}
	if now.Sub(c.Used) < usedEvery {
		return c, nil
	}
	if _, err := s.db.W.ExecContext(ctx, `UPDATE client SET used = $1 WHERE name = $2`, now.UnixMicro(), c.Name); err != nil {
		return Client{}, fmt.Errorf("note the use of client %q: %w", c.Name, err)
	}
	c.Used = now
	return c, nil
}

// queryer is what reads inside and outside of a transaction.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *Store) find(ctx context.Context, q queryer, where string, arg any) (Client, []byte, error) {
	return s.scan(q.QueryRowContext(ctx, `SELECT `+clientColumns+` FROM client WHERE `+where, arg))
}

// scan reads a row that nobody has changed behind the store's back.
func (s *Store) scan(row interface{ Scan(...any) error }) (c Client, hash []byte, err error) {
	var seal []byte
	var scopes string
	var made, until, used, revoked int64
	if err := row.Scan(&c.Name, &c.Kind, &hash, &scopes, &made, &c.By, &c.Why, &until, &used, &revoked, &c.RevokedBy, &c.RevokedWhy, &seal); err != nil {
		return Client{}, nil, fmt.Errorf("read a client of the API: %w", err)
	}
	for word := range strings.FieldsSeq(scopes) {
		c.Scopes = append(c.Scopes, Scope(word))
	}
	for _, t := range [...]struct {
		to *time.Time
		at int64
	}{{&c.Made, made}, {&c.Until, until}, {&c.Used, used}, {&c.Revoked, revoked}} {
		if t.at != 0 {
			*t.to = time.UnixMicro(t.at).UTC()
		}
	}
	if _, err := s.o.Sealer.Open(seal, c.place(hash)); err != nil {
		return Client{}, nil, fmt.Errorf("client %q of the API was changed, or added, by something else: %w", c.Name, err)
	}
	return c, hash, nil
}
