package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/google/go-cmp/cmp"
)

const eyeDoor = `controller = "north-1"
timezone = "UTC"
[[door]]
name = "a"
factors_out = ["iris"]
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
	always := func(sets ...access.Factor) []access.Rule {
		return []access.Rule{{Schedule: access.Always(), AnyOf: sets}}
	}
	for name, tt := range map[string]struct {
		side  access.Direction
		rules []access.Rule
		want  []string
	}{
		"one set that fits is enough": {access.In, always(access.Badge, access.Iris, access.Fingerprint|access.Iris), nil},
		"what may open alone is named": {access.Out, always(access.Iris), []string{
			"on the way out opens to iris alone, by reader \"a-open-eye\", which is not authenticated: the configuration allows it",
		}},
		"nothing takes a finger": {access.In, always(access.Badge|access.Fingerprint, access.Iris), []string{
			"on the way in opens to nobody: badge+fingerprint: nothing with the direction \"in\" takes fingerprint: describe what does in a [[door.reader]] or a [[door.scanner]]; iris: reader \"a-eye\" is not authenticated, and whoever reaches its wires can speak in its name: add a second factor, or set allow_unauthenticated_single_factor = true on it",
		}},
		"each side for itself": {access.Out, always(access.Badge), []string{
			"on the way out opens to nobody: badge: nothing with the direction \"out\" takes badge: describe what does in a [[door.reader]] or a [[door.scanner]]",
		}},
		"each rule for itself": {access.Out, append(always(access.Badge|access.PIN, access.Iris), always(access.Iris|access.PIN)...), []string{
			"on the way out, rule 1 opens to iris alone, by reader \"a-open-eye\", which is not authenticated: the configuration allows it",
			"on the way out, rule 2 opens to nobody: pin+iris: no reader with the direction \"out\" has a keypad: say of the device that has one how it sends",
		}},
		"a set that says nothing of who somebody is": {access.In, always(access.PIN), []string{
			"on the way in asks for the badge or the iris first: nothing in pin says who somebody is",
		}},
	} {
		if d := cmp.Diff(tt.want, misfits(&cfg.Doors[0], tt.side, tt.rules)); d != "" {
			t.Errorf("%s: - wanted + found:\n%s", name, d)
		}
	}
}

func TestWhatASiteAsksAndTheDoorsCannotGiveIsNamed(t *testing.T) {
	c := importing(t, `[areas.hall]
passback = "hard"
[doors.a]
into = "hall"
interlock = ["b"]
[doors.b]
into = "hall"
[[people]]
person = "p-1"
kind = "staff"
credentials = [{ format = "H10301", facility = 1, number = 1 }]
`)
	found := []string{}
	for _, m := range c.misfits() {
		if m.Part == "door a, site" {
			found = append(found, m.What)
		}
	}
	want := []string{
		"it opens to nobody: door \"b\", which must be closed first, is not at this controller",
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Errorf("- wanted + found:\n%s", d)
	}
	areas, err := c.areas(t.Context())
	must(t, err)
	if d := cmp.Diff([]areaStatus{{Name: "hall", Passback: "hard"}}, areas); d != "" {
		t.Errorf("- wanted + found:\n%s", d)
	}
	c.cfg.Doors[0].Readers = c.cfg.Doors[0].Readers[:2] // none inside
	if found := c.siteMisfits(&c.cfg.Doors[0]); len(found) != 2 || !strings.HasPrefix(found[1], "nobody is ever seen to leave area \"hall\"") {
		t.Errorf("%q", found)
	}
}

// importing is a controller of the door with eyes, with an allowlist.
func importing(t *testing.T, policy string) *controller {
	t.Helper()
	data := t.TempDir()
	must(t, os.Chmod(data, 0o700))
	file := filepath.Join(data, "policy.toml")
	must(t, os.WriteFile(file, []byte(policy), 0o600))
	for _, args := range [][]string{{"init", "--data", data, "--controller", "north-1"}, {"allowlist", "import", file, "--data", data}} {
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		must(t, root.ExecuteContext(t.Context()))
	}
	cfg, err := config.ParseController("gatehouse.toml", "data = \""+data+"\"\n"+eyeDoor, config.Options{})
	must(t, err)
	c, err := openForRecords(t.Context(), cfg)
	must(t, err)
	must(t, c.openPolicy(t.Context()))
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func TestEachWayGoesByTheAllowlistsRulesOrElseByItsOwn(t *testing.T) {
	data := t.TempDir()
	must(t, os.Chmod(data, 0o700))
	policy := filepath.Join(data, "policy.toml")
	must(t, os.WriteFile(policy, []byte(`[doors.a]
rules = [{ direction = "out", schedule = "always", any_of = ["badge+iris", "pin+iris"] }]
[[people]]
person = "p-1"
kind = "staff"
credentials = [{ format = "H10301", facility = 1, number = 1 }]
`), 0o600))
	for _, args := range [][]string{{"init", "--data", data, "--controller", "north-1"}, {"allowlist", "import", policy, "--data", data}} {
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		must(t, root.ExecuteContext(t.Context()))
	}
	for _, inside := range []bool{true, false} {
		text, _, _ := strings.Cut(eyeDoor, "[[door.reader]]\nname = \"a-open-eye\"")
		if inside {
			text = eyeDoor
		} else {
			text = strings.Replace(text, "factors_out = [\"iris\"]\n", "", 1)
		}
		cfg, err := config.ParseController("gatehouse.toml", "data = \""+data+"\"\n"+text, config.Options{})
		must(t, err)
		c, err := openForRecords(t.Context(), cfg)
		must(t, err)
		must(t, c.openPolicy(t.Context()))
		if in := c.rules(&cfg.Doors[0], access.In); len(in) != 1 || !slices.Equal(in[0].AnyOf, []access.Factor{access.Badge}) {
			t.Errorf("on the way in %v", in)
		}
		found := c.misfits()
		if len(found) != 1 || found[0].Part != "door a, rules" || !strings.HasPrefix(found[0].What, "on the way out opens to nobody: badge+iris: nothing with the direction \"out\" takes badge") {
			t.Errorf("a reader inside: %t: %+v", inside, found)
		}
		cfg.Doors[0].Name = "b" // of which the allowlist says nothing
		out := c.rules(&cfg.Doors[0], access.Out)
		if want := ownRules(&cfg.Doors[0])[access.Out]; len(out) != len(want) || inside != (len(out) == 1) {
			t.Errorf("a reader inside: %t: on the way out %v", inside, out)
		}
		must(t, c.Close())
	}
}
