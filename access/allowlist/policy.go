package allowlist

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gatehouse-acs/gatehouse/access"
)

// Rules are what rights are made of, in the words of the TOML file.
type Rules struct {
	Schedules  map[string]map[string][]string `json:"schedules,omitempty"`
	Holidays   []string                       `json:"holidays,omitempty"`
	DoorGroups map[string][]string            `json:"door_groups,omitempty"`
}

// policy is what a file keeps beside its rows. Rows with the same rights share
// a profile.
type policy struct {
	Rules
	Profiles [][]right `json:"profiles"`
}

type right struct {
	Door     string `json:"door"`
	Schedule string `json:"schedule"`
}

// compile reads the schedules.
func (r Rules) compile() (map[string]*access.Schedule, error) {
	holidays, err := access.ParseHolidays(r.Holidays)
	errs := []error{err}
	schedules := map[string]*access.Schedule{access.AlwaysName: access.Always()}
	for _, name := range slices.Sorted(maps.Keys(r.Schedules)) {
		s, err := access.NewSchedule(name, r.Schedules[name], holidays)
		if err != nil {
			errs = append(errs, fmt.Errorf("schedule %q: %w", name, err))
			continue
		}
		schedules[name] = s
	}
	return schedules, errors.Join(errs...)
}

func parsePolicy(b []byte) (Rules, [][]access.Right, error) {
	var p policy
	if err := strictJSON(b, &p); err != nil {
		return Rules{}, nil, err
	}
	schedules, err := p.compile()
	if err != nil {
		return Rules{}, nil, err
	}
	profiles := make([][]access.Right, len(p.Profiles))
	for i, rights := range p.Profiles {
		for _, r := range rights {
			s, ok := schedules[r.Schedule]
			if !ok {
				return Rules{}, nil, fmt.Errorf("rights name schedule %q, which is not there", r.Schedule)
			}
			profiles[i] = append(profiles[i], access.Right{Door: r.Door, Schedule: s})
		}
	}
	return p.Rules, profiles, nil
}

func (p policy) marshal() ([]byte, error) { return json.Marshal(p) }

// profiles collects distinct sets of rights.
type profiles struct {
	all   [][]right
	index map[string]uint64
}

// add returns the number of the profile with these rights, whatever their
// order.
func (p *profiles) add(rights []right) uint64 {
	rights = slices.Clone(rights)
	slices.SortFunc(rights, func(a, b right) int {
		return cmp.Or(cmp.Compare(a.Door, b.Door), cmp.Compare(a.Schedule, b.Schedule))
	})
	rights = slices.Compact(rights)
	var key []byte
	for _, r := range rights {
		key = appendString(appendString(key, r.Door), r.Schedule)
	}
	n, ok := p.index[string(key)]
	if !ok {
		n = uint64(len(p.all))
		p.all = append(p.all, rights)
		if p.index == nil {
			p.index = make(map[string]uint64)
		}
		p.index[string(key)] = n
	}
	return n
}

// doors are the doors that any profile names, sorted.
func (p *profiles) doors() []string {
	set := make(map[string]bool)
	for _, rights := range p.all {
		for _, r := range rights {
			set[r.Door] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
