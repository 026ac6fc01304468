package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/publisher"
)

// doorsWait is how long a leaver's doors are waited for unless told.
const doorsWait = 10 * time.Second

// doorsLook is how often it is looked whether they have applied it.
const doorsLook = 100 * time.Millisecond

// shownLeft is what "people remove --json" prints.
type shownLeft struct {
	registry.Left
	Doors   []goneAt `json:"doors"`
	Waiting []string `json:"waiting"` // doors that have not applied it
}

// remove takes everything away from somebody, and waits for the doors.
func (s *registrySession) remove(f changeFlags, person string, wait time.Duration) error {
	switch _, err := os.Lstat(filepath.Join(f.data, publisher.FileName)); {
	case errors.Is(err, fs.ErrNotExist): // nothing was ever published
		return s.removeAnd(f, person, nil)
	case err != nil:
		return err
	}
	known := false
	err := s.withPublisher(f.data, func(p *publisher.Publisher) error {
		// Before, since afterwards they may have forgotten already.
		controllers, err := p.Holding(s.ctx, person)
		if err != nil {
			return err
		}
		known = true
		return s.removeAnd(f, person, func(left registry.Left, tell func(goneAt) error) error {
			return s.tellGone(p, controllers, left.Seq, wait, tell)
		})
	})
	if err == nil || known {
		return err
	}
	// A leaver goes, whatever is wrong with what was published.
	return errors.Join(s.removeAnd(f, person, nil), fmt.Errorf("which doors knew them is not known: %w", err))
}

// removeAnd takes everything away from somebody, and tells what becomes of it at
// the doors; doors may be nil.
func (s *registrySession) removeAnd(f changeFlags, person string, doors func(registry.Left, func(goneAt) error) error) error {
	left, err := s.Leave(s.ctx, f.change, person, f.version)
	if err != nil {
		return err
	}
	shown := shownLeft{Left: left, Doors: []goneAt{}, Waiting: []string{}}
	if !s.json {
		s.printLeft(left)
	}
	if doors != nil {
		err = doors(left, func(g goneAt) error {
			shown.Doors = append(shown.Doors, g)
			if g.At.IsZero() {
				shown.Waiting = append(shown.Waiting, g.Door)
			}
			if s.json {
				return nil
			}
			return s.printGone(left, g)
		})
	}
	if err != nil {
		return err
	}
	switch {
	case s.json:
		return cli.PrintJSON(s.out, shown)
	case len(shown.Waiting) > 0:
		_, err = fmt.Fprintf(s.out, "DOORS THAT HAVE NOT APPLIED IT: %s\n", strings.Join(shown.Waiting, ", "))
	case len(shown.Doors) == 0:
		_, err = fmt.Fprintln(s.out, "No door was told of them from here. Export and import the allowlists of those that are fed by hand.")
	}
	return err
}

func (s *registrySession) printLeft(left registry.Left) {
	fmt.Fprintf(s.out, "%s has left, as of %s.\n", left.Person, s.shown(left.At))
	for _, l := range []struct {
		what string
		ids  []string
	}{{"credentials revoked", left.Revoked}, {"groups left", left.Groups}, {"visits cancelled", left.Cancelled}, {"VISITS THAT SOMEBODY ELSE HAS TO SEE TO", left.Open}} {
		if len(l.ids) > 0 {
			fmt.Fprintf(s.out, "%s: %s\n", l.what, strings.Join(l.ids, ", "))
		}
	}
}

func (s *registrySession) printGone(left registry.Left, g goneAt) (err error) {
	switch {
	case !g.At.IsZero():
		_, err = fmt.Fprintf(s.out, "door %s: applied at %s, after %v\n", g.Door, g.At.In(s.zone).Format(time.TimeOnly), max(g.At.Sub(left.At), 0).Round(time.Millisecond))
	case g.Version == 0:
		_, err = fmt.Fprintf(s.out, "door %s: not published yet: is the daemon running?\n", g.Door)
	default:
		_, err = fmt.Fprintf(s.out, "door %s: not applied yet: its controller %s has not said that it uses version %d\n", g.Door, g.Controller, g.Version)
	}
	return err
}

// goneAt is what became of a leaver at one door.
type goneAt struct {
	Door string `json:"door"`
	publisher.Applied
}

// tellGone waits until the doors that knew somebody have forgotten them, and tells
// of each when that was, or that it is not yet.
func (s *registrySession) tellGone(p *publisher.Publisher, controllers []string, line uint64, wait time.Duration, tell func(goneAt) error) error {
	doors, err := s.doorsOf(controllers)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, wait)
	defer cancel()
	tick := time.NewTicker(doorsLook)
	defer tick.Stop()
	for open := slices.Clone(controllers); len(open) > 0; {
		var left []string
		for _, name := range open {
			a, err := p.Applied(s.ctx, name, line)
			if err != nil {
				return err
			}
			if a.At.IsZero() && ctx.Err() == nil {
				left = append(left, name)
				continue
			}
			for _, door := range doors[name] {
				if err := tell(goneAt{door, a}); err != nil {
					return err
				}
			}
		}
		if open = left; len(open) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if err := s.ctx.Err(); err != nil {
				return err
			}
		case <-tick.C:
		}
	}
	return nil
}

// doorsOf are the doors of controllers.
func (s *registrySession) doorsOf(controllers []string) (map[string][]string, error) {
	doors := make(map[string][]string)
	err := doorSort.each(s, nil, func(row registry.Row[registry.Door]) error {
		if slices.Contains(controllers, row.Value.Controller) {
			doors[row.Value.Controller] = append(doors[row.Value.Controller], row.Value.Name)
		}
		return nil
	})
	return doors, err
}
