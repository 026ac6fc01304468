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

// Rules are what rights are made of, and what doors ask for, in the words of the
// TOML file.
type Rules struct {
	Schedules  map[string]map[string][]string `json:"schedules,omitempty"`
	Holidays   []string                       `json:"holidays,omitempty"`
	DoorGroups map[string][]string            `json:"door_groups,omitempty"`
	Doors      map[string][]DoorRule          `json:"doors,omitempty"`
	Areas      map[string]Area                `json:"areas,omitempty"`
	// Sites are what doors ask beside factors. In the TOML file that stands with
	// the door's rules.
	Sites map[string]Site `json:"sites,omitempty"`
}

// DoorRule is what a door asks for on the way in or out, within a schedule: any
// one of the sets of factors. Of a door's rules for that way, the first whose
// schedule contains the moment holds.
type DoorRule struct {
	Direction access.Direction `json:"direction"`
	Schedule  string           `json:"schedule"`
	AnyOf     []string         `json:"any_of"` // such as badge+fingerprint
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

// compiled is a policy as decisions take it.
type compiled struct {
	words    Rules
	profiles [][]access.Right
	doors    map[string]map[access.Direction][]access.Rule
	sites    map[string]*access.Door
}

func parsePolicy(b []byte) (compiled, error) {
	var p policy
	if err := strictJSON(b, &p); err != nil {
		return compiled{}, err
	}
	schedules, err := p.compile()
	if err != nil {
		return compiled{}, err
	}
	c := compiled{words: p.Rules, profiles: make([][]access.Right, len(p.Profiles)), doors: make(map[string]map[access.Direction][]access.Rule, len(p.Doors))}
	for i, rights := range p.Profiles {
		for _, r := range rights {
			s, ok := schedules[r.Schedule]
			if !ok {
				return compiled{}, fmt.Errorf("rights name schedule %q, which is not there", r.Schedule)
			}
			c.profiles[i] = append(c.profiles[i], access.Right{Door: r.Door, Schedule: s})
		}
	}
	for door, rules := range p.Doors {
		if len(rules) == 0 {
			return compiled{}, fmt.Errorf("door %q has no rules", door) // which would be no more than a badge
		}
		c.doors[door] = make(map[access.Direction][]access.Rule)
		for i := range rules {
			r := &rules[i]
			r.Direction = cmp.Or(r.Direction, access.In) // in files from before rules had one
			rule, err := r.compile(schedules)
			if err != nil {
				return compiled{}, fmt.Errorf("door %q: %w", door, err)
			}
			c.doors[door][r.Direction] = append(c.doors[door][r.Direction], rule)
		}
	}
	var faults []wordFault
	if c.sites, faults = p.sites(schedules); len(faults) > 0 {
		return compiled{}, joined(faults)
	}
	return c, nil
}

func (r *DoorRule) compile(schedules map[string]*access.Schedule) (access.Rule, error) {
	if r.Direction != access.In && r.Direction != access.Out {
		return access.Rule{}, fmt.Errorf("a rule has the direction %q, which is not known", r.Direction)
	}
	s, ok := schedules[r.Schedule]
	if !ok {
		return access.Rule{}, fmt.Errorf("a rule names schedule %q, which is not there", r.Schedule)
	}
	rule := access.Rule{Schedule: s}
	for _, text := range r.AnyOf {
		set, err := access.ParseFactors(text)
		if err != nil {
			return access.Rule{}, err
		}
		rule.AnyOf = append(rule.AnyOf, set)
	}
	return rule, nil
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
