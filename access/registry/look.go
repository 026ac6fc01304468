package registry

import (
	"context"
	"fmt"

	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// Look visits some people as Publish would: what the doors of a controller are to
// know of them, to be looked at before it is published. Somebody of whom they are
// to know nothing is not visited.
func (r *Registry) Look(ctx context.Context, controller string, people []string, visit func(*allowlist.Holder) error) (words allowlist.Rules, err error) {
	err = r.view(ctx, controller, func(p *publication) error {
		if words, err = p.words(); err != nil {
			return err
		}
		if err := p.readVisits(); err != nil {
			return err
		}
		p.visit = visit
		t := touched{publication: p, people: make(map[string]bool, len(people))}
		for _, id := range people {
			t.people[id] = true
		}
		return t.everybody()
	})
	if err != nil {
		return allowlist.Rules{}, fmt.Errorf("look at controller %s: %w", fields.Quote(controller), err)
	}
	return words, nil
}
