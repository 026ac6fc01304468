package main

import (
	"fmt"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
)

// misfits are what the doors' rules and readers do not have in common: rules
// that let nobody in, and sets by which something opens a door alone though it
// is not authenticated. Neither keeps a door from working for others.
func (c *controller) misfits() []metrics.Fault {
	found := []metrics.Fault{}
	for i := range c.cfg.Doors {
		cfg := &c.cfg.Doors[i]
		for _, what := range misfits(cfg, c.rules(cfg)) {
			found = append(found, metrics.Fault{Part: "door " + cfg.Name + ", rules", What: what})
		}
	}
	return found
}

// rules are those that a door goes by: the allowlist's, or else its own.
func (c *controller) rules(cfg *config.Door) []access.Rule {
	if rules := c.policy.Rules(cfg.Name); rules != nil {
		return rules
	}
	return ownRules(cfg)
}

// ownRules are a door's where the allowlist has none for it.
func ownRules(cfg *config.Door) []access.Rule {
	return []access.Rule{{Schedule: access.Always(), AnyOf: cfg.Sets()}}
}

// misfits are those of one door.
func misfits(cfg *config.Door, rules []access.Rule) (found []string) {
	for _, side := range cfg.Sides() {
		for i, rule := range rules {
			which := fmt.Sprintf("on the way %s, rule %d", side, i+1)
			if len(rules) == 1 {
				which = fmt.Sprintf("on the way %s", side)
			}
			var causes []string
			for _, set := range rule.AnyOf {
				if err := cfg.Fits(set, side); err != nil {
					causes = append(causes, fmt.Sprintf("%s: %v", set, err))
				} else if names := cfg.Exposed(set, side); len(names) > 0 {
					found = append(found, fmt.Sprintf("%s opens to %s alone, by %s, which is not authenticated: the configuration allows it",
						which, set, strings.Join(names, " and ")))
				}
			}
			if len(causes) == len(rule.AnyOf) {
				found = append(found, fmt.Sprintf("%s opens to nobody: %s", which, strings.Join(causes, "; ")))
			}
		}
	}
	return found
}
