package main

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/command/receiver"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// newReceiver makes what takes the CRM's commands.
func (c *controller) newReceiver(l *link, a *authority) (*receiver.Receiver, error) {
	doors := make(map[string]receiver.Door, len(c.doors))
	for _, d := range c.doors {
		doors[d.Name()] = d
	}
	return receiver.New(receiver.Options{
		Controller: c.cfg.Name,
		Doors:      doors,
		Verifier: func(jws []string) (wire.Verifier, error) {
			k, err := a.commander(jws, passedClock{c.clock}.Passed())
			if err != nil {
				return nil, err
			}
			// Where the site governs, nothing else tells of a new key.
			if err := a.keep(k); err != nil {
				c.log.Error("the policy key's certificate is not kept", "error", err)
			}
			return keys.NewVerifier(k.JWK, keys.TypeCommand)
		},
		Announce: l.uplink.Announce,
		Clock:    c.clock,
		Log:      c.records,
		Logger:   c.log,
	})
}

// commander verifies what leads to the policy key that signs commands.
func (a *authority) commander(jws []string, passed time.Time) (*keys.PolicyKey, error) {
	k, err := a.open(jws)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	highest := a.serial
	a.mu.Unlock()
	return k, k.Check(passed, highest)
}

// spend notes what the CRM knows to be used up. The log is written to elsewhere: of
// what comes meanwhile the newest counts.
func (l *link) spend(used []string) {
	select {
	case <-l.used:
	default:
	}
	l.used <- used // the uplink alone sends, and has made room
}

// keepUsed makes what the CRM knows to be used up known here, until ctx ends.
func (l *link) keepUsed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case used := <-l.used:
			if err := l.restore(ctx, used); err != nil && ctx.Err() == nil {
				l.log.Error("what was used up before is not kept", "error", err)
			}
		}
	}
}

// restoreUsed keeps what was used up and is not known here, which is so where the
// records are older than what the CRM has of them.
func (c *controller) restoreUsed(ctx context.Context, used []string) error {
	get := func(key string) ([]byte, error) { return c.records.State(ctx, key) }
	revived, err := door.NotUsed(get, c.secrets(), used)
	if err != nil || len(revived) == 0 {
		return err
	}
	_, err = c.records.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.OperatorAction, Data: visitorlog.Data{
			Detail: fmt.Sprintf("by the CRM's word %d things were used up of which nothing was known here; they stay so", len(revived)),
		}}, door.RestoreUsed(tx, c.secrets(), revived)
	})
	return err
}
