package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
)

// misfits are what the doors' rules and readers do not have in common: rules
// that let nobody through, or only after another factor, and sets by which
// something opens a door alone though it is not authenticated. None of them keeps
// a door from working for others.
func (c *controller) misfits() []metrics.Fault {
	found := []metrics.Fault{}
	for i := range c.cfg.Doors {
		cfg := &c.cfg.Doors[i]
		for _, side := range []access.Direction{access.In, access.Out} {
			for _, what := range misfits(cfg, side, c.rules(cfg, side)) {
				found = append(found, metrics.Fault{Part: "door " + cfg.Name + ", rules", What: what})
			}
		}
		for _, what := range c.siteMisfits(cfg) {
			found = append(found, metrics.Fault{Part: "door " + cfg.Name + ", site", What: what})
		}
	}
	return found
}

// siteMisfits are those of what the allowlist asks at a door beside factors.
func (c *controller) siteMisfits(cfg *config.Door) (found []string) {
	site := c.policy.Site(cfg.Name)
	if site == nil {
		return nil
	}
	for _, other := range site.Interlock {
		if !slices.ContainsFunc(c.cfg.Doors, func(d config.Door) bool { return d.Name == other }) {
			found = append(found, fmt.Sprintf("it opens to nobody: door %q, which must be closed first, is not at this controller", other))
		}
	}
	if a := site.Into; a != nil && (a.Passback != access.PassbackOff || a.Occupancy > 0) && !c.leaves(a.Name) {
		found = append(found, fmt.Sprintf("nobody is ever seen to leave area %q: no door here has a reader on a way out of it", a.Name))
	}
	return found
}

// leaves reports whether a reader or scanner stands on a way out of an area.
func (c *controller) leaves(area string) bool {
	return slices.ContainsFunc(c.cfg.Doors, func(cfg config.Door) bool {
		site, sides := c.policy.Site(cfg.Name), cfg.Sides()
		return site != nil && (site.Into != nil && site.Into.Name == area && slices.Contains(sides, access.Out) ||
			site.OutOf != nil && site.OutOf.Name == area && slices.Contains(sides, access.In))
	})
}

// rules are those that a side of a door goes by: the allowlist's, or else its
// own; none where nothing is on that side.
func (c *controller) rules(cfg *config.Door, side access.Direction) []access.Rule {
	if rules := c.policy.Rules(cfg.Name, side); rules != nil || !slices.Contains(cfg.Sides(), side) {
		return rules
	}
	return ownRules(cfg)[side]
}

// ownRules are a door's where the allowlist has none for a side of it.
func ownRules(cfg *config.Door) map[access.Direction][]access.Rule {
	rules := make(map[access.Direction][]access.Rule)
	for _, side := range cfg.Sides() {
		rules[side] = []access.Rule{{Schedule: access.Always(), AnyOf: cfg.Sets(side)}}
	}
	return rules
}

// misfits are those of one side of a door.
func misfits(cfg *config.Door, side access.Direction, rules []access.Rule) (found []string) {
	for i, rule := range rules {
		which := fmt.Sprintf("on the way %s", side)
		if len(rules) > 1 {
			which += fmt.Sprintf(", rule %d", i+1)
		}
		var causes []string
		for _, set := range rule.AnyOf {
			if err := cfg.Fits(set, side); err != nil {
				causes = append(causes, fmt.Sprintf("%s: %v", set, err))
				continue
			}
			if names := cfg.Exposed(set, side); len(names) > 0 {
				found = append(found, fmt.Sprintf("%s opens to %s alone, by %s, which is not authenticated: the configuration allows it",
					which, set, strings.Join(names, " and ")))
			}
			if first := cfg.First(set, side); first != 0 {
				found = append(found, fmt.Sprintf("%s asks for the %s first: nothing in %s says who somebody is",
					which, strings.Join(first.Names(), " or the "), set))
			}
		}
		if len(causes) == len(rule.AnyOf) {
			found = append(found, fmt.Sprintf("%s opens to nobody: %s", which, strings.Join(causes, "; ")))
		}
	}
	return found
}
