package registry

import (
	"context"

	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// KindClient is what the audit's lines of those who call the API are of.
const KindClient Kind = "client"

const (
	actionLetIn   = "let_in"
	actionShutOut = "shut_out"
)

// LetIn notes in the audit that a program may call the API, and by a keyed hash
// what it may do.
func (r *Registry) LetIn(ctx context.Context, c Change, client, what string) error {
	return r.noteClient(ctx, c, Line{Action: actionLetIn, ID: client, After: r.hash(objectName{KindClient, client}, []byte(what))})
}

// ShutOut notes in the audit that a program may call the API no more.
func (r *Registry) ShutOut(ctx context.Context, c Change, client string) error {
	return r.noteClient(ctx, c, Line{Action: actionShutOut, ID: client})
}

func (r *Registry) noteClient(ctx context.Context, c Change, l Line) error {
	var f faults
	f.name("client", l.ID)
	if err := f.of(KindClient, fields.Quote(l.ID)); err != nil {
		return err
	}
	l.Kind = KindClient
	return r.write(ctx, c, func(t *tx) error { return t.line(l) })
}
