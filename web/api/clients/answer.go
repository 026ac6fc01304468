package clients

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// KeepAnswers is for how long a request may come again and be given the same
// answer.
const KeepAnswers = 24 * time.Hour

// ErrOtherRequest is that a key of idempotency came with another request
// before.
var ErrOtherRequest = errors.New("the key was used for another request")

// Answered is what was answered to the request of that hash under a key of a
// client's; nil where nothing was, within KeepAnswers. ErrOtherRequest says that
// the key was used for another request.
func (s *Store) Answered(ctx context.Context, client, key string, request [16]byte) ([]byte, error) {
	var was, sealed []byte
	err := s.db.R.QueryRowContext(ctx, `SELECT request, body FROM answer WHERE client = $1 AND key = $2 AND at > $3`,
		client, key, s.now().Add(-KeepAnswers).UnixMicro()).Scan(&was, &sealed)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read what was answered: %w", err)
	case string(was) != string(request[:]):
		return nil, ErrOtherRequest
	}
	answer, err := s.o.Sealer.Open(sealed, answerPlace(client, key))
	if err != nil {
		return nil, fmt.Errorf("read what was answered: %w", err)
	}
	return answer, nil
}

// Keep keeps an answer for Answered, and forgets those that are too old.
func (s *Store) Keep(ctx context.Context, client, key string, request [16]byte, answer []byte) error {
	now := s.now()
	if _, err := s.db.W.ExecContext(ctx, `DELETE FROM answer WHERE at <= $1`, now.Add(-KeepAnswers).UnixMicro()); err != nil {
		return fmt.Errorf("forget old answers: %w", err)
	}
	_, err := s.db.W.ExecContext(ctx, `INSERT INTO answer (client, key, at, request, body) VALUES ($1, $2, $3, $4, $5)`,
		client, key, now.UnixMicro(), request[:], s.o.Sealer.Seal(answer, answerPlace(client, key)))
	if err != nil {
		return fmt.Errorf("keep an answer: %w", err)
	}
	return nil
}

// answerPlace binds a sealed answer to its row.
func answerPlace(client, key string) []byte {
	return fmt.Appendf(nil, "gatehouse api answer\x00%s\x00%s", client, key)
}
