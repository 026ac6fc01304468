package main

import (
	"testing"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/google/go-cmp/cmp"
)

const eyeDoor = `controller = "north-1"
timezone = "UTC"
[[door]]
name = "a"
strike = { driver = "gpio", line = "GPIO17", wiring = "fail-secure" }
[[door.reader]]
name = "a-in"
direction = "in"
formats = ["H10301"]
device = { driver = "wiegand", d0 = "GPIO23", d1 = "GPIO24", keypad = "4-bit" }
[[door.reader]]
name = "a-eye"
direction = "in"
formats = ["H10301"]
factor = "iris"
device = { driver = "wiegand", d0 = "GPIO18", d1 = "GPIO19" }
[[door.reader]]
name = "a-open-eye"
direction = "out"
formats = ["H10301"]
factor = "iris"
allow_unauthenticated_single_factor = true
device = { driver = "wiegand", d0 = "GPIO5", d1 = "GPIO6" }
`

func TestARuleThatTheReadersDoNotFitIsNamed(t *testing.T) {
	cfg, err := config.ParseController("gatehouse.toml", eyeDoor, config.Options{})
	must(t, err)
	out := "on the way out opens to iris alone, by reader \"a-open-eye\", which is not authenticated: the configuration allows it"
	always := func(sets ...access.Factor) []access.Rule {
		return []access.Rule{{Schedule: access.Always(), AnyOf: sets}}
	}
	for name, tt := range map[string]struct {
		rules []access.Rule
		want  []string
	}{
		"one set that fits is enough": {always(access.Badge, access.Iris, access.Fingerprint|access.Iris), []string{out}},
		"nothing takes a finger": {always(access.Badge|access.Fingerprint, access.Iris), []string{
			"on the way in opens to nobody: badge+fingerprint: nothing takes fingerprint: describe what does in a [[door.reader]] or a [[door.scanner]]; iris: reader \"a-eye\" is not authenticated, and whoever reaches its wires can speak in its name: add a second factor, or set allow_unauthenticated_single_factor = true on it",
			out,
		}},
		"each rule for itself": {append(always(access.Badge|access.PIN, access.Iris), always(access.Iris|access.PIN)...), []string{
			"on the way out, rule 1 opens to iris alone, by reader \"a-open-eye\", which is not authenticated: the configuration allows it",
			"on the way out, rule 2 opens to nobody: pin+iris: no reader has a keypad: say of the device that has one how it sends",
		}},
	} {
		if d := cmp.Diff(tt.want, misfits(&cfg.Doors[0], tt.rules)); d != "" {
			t.Errorf("%s: - wanted + found:\n%s", name, d)
		}
	}
}
