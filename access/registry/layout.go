package registry

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/gatehouse-acs/gatehouse/access"
)

// layout is which doors are whose, and where the rights of groups lead. It is
// worked out for all controllers at once, and kept until a door or a group is
// changed: there may be a thousand controllers that ask at each change of a person.
type layout struct {
	since, seq  uint64 // the lines of the audit that it is of
	groups      map[string]Group
	controllers []string // sorted
	of          map[string]*estate
}

// estate are the doors of one controller, and the rights that groups give to them.
type estate struct {
	doors  []Door // sorted by name
	rights map[string][]Right
}

func newLayout(doors map[string]Door, groups map[string]Group) *layout {
	l := &layout{groups: groups, of: make(map[string]*estate)}
	into := make(map[string][]Door) // by area
	for _, d := range doors {
		e := l.of[d.Controller]
		if e == nil {
			e = &estate{rights: make(map[string][]Right)}
			l.of[d.Controller] = e
			l.controllers = append(l.controllers, d.Controller)
		}
		e.doors = append(e.doors, d)
		if d.Into != "" {
			into[d.Into] = append(into[d.Into], d)
		}
	}
	slices.Sort(l.controllers)
	for _, e := range l.of {
		slices.SortFunc(e.doors, func(a, b Door) int { return cmp.Compare(a.Name, b.Name) })
	}
	for _, g := range groups {
		for _, right := range g.Rights {
			if right.Door == access.EveryDoor {
				for _, e := range l.of {
					e.rights[g.Name] = append(e.rights[g.Name], right)
				}
				continue
			}
			to := into[right.Area]
			if d, ok := doors[right.Door]; ok {
				to = append(to[:len(to):len(to)], d)
			}
			for _, d := range to {
				e := l.of[d.Controller]
				e.rights[g.Name] = append(e.rights[g.Name], Right{Door: d.Name, Schedule: right.Schedule})
			}
		}
	}
	return l
}

// at is what a controller has; of one without doors it is nothing.
func (l *layout) at(controller string) *estate {
	if e := l.of[controller]; e != nil {
		return e
	}
	return new(estate)
}

// layouts keeps the last one that was worked out.
type layouts struct{ last atomic.Pointer[layout] }

// get is the one of these lines of the audit, made where another is kept.
func (k *layouts) get(since, seq uint64, read func() (map[string]Door, map[string]Group, error)) (*layout, error) {
	if l := k.last.Load(); l != nil && l.since == since && l.seq == seq {
		return l, nil
	}
	doors, groups, err := read()
	if err != nil {
		return nil, err
	}
	l := newLayout(doors, groups)
	l.since, l.seq = since, seq
	k.last.Store(l)
	return l, nil
}

// laidOut is the audit's last line by which a door or a group was changed.
func (p *publication) laidOut() (seq uint64, err error) {
	err = p.q.QueryRowContext(p.ctx, `SELECT COALESCE(MAX(seq), 0) FROM audit WHERE kind IN ($1, $2) AND version > 0`, string(KindDoor), string(KindGroup)).Scan(&seq)
	if err != nil {
		return 0, fmt.Errorf("read the audit: %w", err)
	}
	return seq, nil
}

// readLayout reads the doors and groups as they are.
func (p *publication) readLayout() (doors map[string]Door, groups map[string]Group, err error) {
	doors, groups = make(map[string]Door), make(map[string]Group)
	if err := p.r.Doors.each(p.ctx, p.q, func(d *Door) error {
		doors[d.Name] = *d
		return nil
	}); err != nil {
		return nil, nil, err
	}
	err = p.r.Groups.each(p.ctx, p.q, func(g *Group) error {
		groups[g.Name] = *g
		return nil
	})
	return doors, groups, err
}
