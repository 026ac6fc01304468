package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Controller is what is registered of a controller.
type Controller struct {
	Name        string
	JWK         []byte // the public key of its log
	VKey        string // the same as a note verifier key, for people to compare
	Fingerprint string // of its client certificate
	Approved    time.Time
	Revoked     time.Time // zero: it may send

	// What it has last shown of itself.
	Online        bool
	Seen          time.Time // zero: never
	ReportedEpoch string    // the head that its last state named
	ReportedSize  uint64
	PolicyVersion uint64 // the highest in a checked record
}

// Approve registers a controller, or registers the new key of one whose
// machine was replaced; it may send from now on. The keys that it had are
// kept to verify its old epochs. A new machine takes no allowlist of the old
// one, and counts its versions from the beginning.
func (s *Store) Approve(ctx context.Context, c Controller) error {
	if c.Name == "" || len(c.JWK) == 0 {
		return errors.New("approve controller: name or key is missing")
	}
	if _, err := s.key(string(c.JWK)); err != nil {
		return fmt.Errorf("approve controller %q: %w", c.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(ctx, func(t *tx) error {
		at := micros(t.now)
		if !c.Approved.IsZero() {
			at = micros(c.Approved)
		}
		var key int64
		err := t.QueryRowContext(ctx, `
			INSERT INTO keys (controller, jwk, vkey, fingerprint, approved) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (controller, jwk) DO UPDATE SET vkey = excluded.vkey, fingerprint = excluded.fingerprint
			RETURNING id`, c.Name, string(c.JWK), c.VKey, c.Fingerprint, at).Scan(&key)
		if err != nil {
			return fmt.Errorf("approve controller %q: %w", c.Name, err)
		}
		_, err = t.ExecContext(ctx, `
			INSERT INTO controllers (name, key, approved) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET key = excluded.key, approved = excluded.approved, revoked = NULL,
				policy_version = CASE WHEN controllers.key = excluded.key THEN controllers.policy_version ELSE 0 END`,
			c.Name, key, at)
		if err != nil {
			return fmt.Errorf("approve controller %q: %w", c.Name, err)
		}
		return nil
	})
}

// Revoke stops accepting anything from a controller. What it sent stays.
func (s *Store) Revoke(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(ctx, func(t *tx) error {
		res, err := t.ExecContext(ctx, `UPDATE controllers SET revoked = $1, online = 0 WHERE name = $2 AND revoked IS NULL`,
			micros(t.now), name)
		if err != nil {
			return fmt.Errorf("revoke controller %q: %w", name, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("revoke controller %q: %w", name, ErrUnknownController))
		}
		return nil
	})
}

// Controllers lists the registered controllers by name.
func (s *Store) Controllers(ctx context.Context) ([]Controller, error) {
	rows, err := s.r.QueryContext(ctx, `
		SELECT c.name, k.jwk, k.vkey, k.fingerprint, c.approved, c.revoked, c.online, c.seen,
			c.reported_epoch, c.reported_size, c.policy_version
		FROM controllers c JOIN keys k ON k.id = c.key ORDER BY c.name`)
	if err != nil {
		return nil, fmt.Errorf("list controllers: %w", err)
	}
	defer rows.Close()
	var list []Controller
	for rows.Next() {
		var c Controller
		var approved, seen int64
		var revoked sql.NullInt64
		err := rows.Scan(&c.Name, &c.JWK, &c.VKey, &c.Fingerprint, &approved, &revoked, &c.Online, &seen,
			&c.ReportedEpoch, &c.ReportedSize, &c.PolicyVersion)
		if err != nil {
			return nil, fmt.Errorf("list controllers: %w", err)
		}
		c.Approved, c.Revoked, c.Seen = fromMicros(approved), fromMicros(revoked.Int64), fromMicros(seen)
		list = append(list, c)
	}
	return list, rows.Err()
}

// May says whether a controller may send: nil, ErrUnknownController or
// ErrRevoked.
func (s *Store) May(ctx context.Context, name string) error {
	_, err := sender(ctx, s.r, name)
	return err
}

// registered is what the writer needs to know of a sender.
type registered struct {
	key      int64
	jwk      string
	policy   uint64
	sessions string
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// sender reads the registration of a controller that may send.
func sender(ctx context.Context, q queryer, name string) (registered, error) {
	var r registered
	var revoked sql.NullInt64
	err := q.QueryRowContext(ctx, `
		SELECT c.key, k.jwk, c.policy_version, c.sessions, c.revoked
		FROM controllers c JOIN keys k ON k.id = c.key WHERE c.name = $1`, name).
		Scan(&r.key, &r.jwk, &r.policy, &r.sessions, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return r, fmt.Errorf("%q: %w", name, ErrUnknownController)
	case err != nil:
		return r, fmt.Errorf("read controller %q: %w", name, err)
	case revoked.Valid:
		return r, fmt.Errorf("%q: %w", name, ErrRevoked)
	}
	return r, nil
}

// keptSessions bounds how far back a late state is known for what it is.
const keptSessions = 16

// addSession puts a session in front of the list, unless it is on it.
func addSession(list, session string) (longer string, added bool) {
	known := strings.Fields(list)
	if slices.Contains(known, session) {
		return list, false
	}
	known = slices.Insert(known, 0, session)
	return strings.Join(known[:min(len(known), keptSessions)], " "), true
}
