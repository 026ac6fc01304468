package main

import (
	"context"
	"slices"
	"time"
)

// tendEvery is how often the registry is asked what time and the doors have
// brought. Codes and badges end at the doors by themselves: this is for the lists.
const tendEvery = 10 * time.Second

// tend ends visits that nobody signed out, and codes that were used or have
// expired, until ctx ends. What fails is tried again.
func (c *crm) tend(ctx context.Context) error {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		err := c.endUsedCodes(ctx)
		if err == nil {
			err = c.closeOverdue(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			c.log.Error("visits and codes that are over were not closed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *crm) closeOverdue(ctx context.Context) error {
	done, err := c.registry.Tend(ctx, c.cfg.Visits.Grace)
	if err == nil && len(done.Closed)+len(done.Expired) > 0 {
		c.log.Info("visits were closed automatically", "visits", done.Closed, "codes_expired", done.Expired)
	}
	return err
}

// endUsedCodes ends the codes of which a record says that a door used them up.
func (c *crm) endUsedCodes(ctx context.Context) error {
	codes, err := c.registry.OpenCodes(ctx)
	if err != nil {
		return err
	}
	used := make(map[string][]string) // by controller
	for _, row := range codes {
		code := row.Value
		door, err := c.registry.Doors.Get(ctx, code.Door)
		if err != nil {
			return err
		}
		controller := door.Value.Controller
		if _, asked := used[controller]; !asked {
			if used[controller], err = c.store.Used(ctx, controller); err != nil {
				return err
			}
		}
		if !slices.Contains(used[controller], "code:"+code.ID) {
			continue
		}
		if err := c.registry.CodeUsed(ctx, code.ID, time.Now()); err != nil {
			return err
		}
	}
	return nil
}
