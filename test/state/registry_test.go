package state

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// TestWhoIsRegisteredBesideTheCRMIsKnownAtTheDoor takes people all the way from
// the CRM's registry to a controller's allowlist, by the programs' own commands.
func TestWhoIsRegisteredBesideTheCRMIsKnownAtTheDoor(t *testing.T) {
	s := rig.New(t)
	c := s.Enrol("north-1", "front", "lab")
	crm := func(args ...string) string {
		t.Helper()
		return rig.Tool(t, "gatehouse-crm", append(args, "--data", s.CRMDir(), "--by", "m.jansen", "--why", "CHG-1")...)
	}
	crm("areas", "add", "inside")
	crm("schedules", "add", "office", "--on", "mon-fri=07:00-19:00")
	crm("holidays", "add", "2026-12-25")
	crm("doors", "add", "front", "--controller", "north-1", "--into", "inside")
	crm("doors", "add", "lab", "--controller", "north-1", "--into", "inside", "--rule", "office=badge", "--rule", "always=badge+pin")
	crm("groups", "add", "ops", "--right", "area:inside@always")
	crm("groups", "add", "day", "--right", "lab@office")
	people := filepath.Join(s.Dir, "people.csv")
	rig.Write(t, people, `person,name,kind,groups,pin,format,facility,number,state
p-1,Ada Lovelace,staff,ops,271828,H10301,123,4567,
p-2,Grace Hopper,contractor,day,,H10301,123,4568,
p-3,Edith Clarke,staff,ops,,H10301,123,4569,lost
`)
	crm("registry", "import", people)
	publish := func() {
		t.Helper()
		policy := filepath.Join(s.Dir, "north-1.toml")
		crm("registry", "export", "--controller", "north-1", "--out", policy)
		rig.Tool(t, "gatehouse", "allowlist", "import", policy, "--data", c.Data, "--timezone", rig.Zone)
	}
	publish()
	explain := func(card, door, at, factors string) (reason string) {
		t.Helper()
		var said struct{ Reason string }
		out, stderr, _ := rig.Run(t, "gatehouse", "allowlist", "explain", "--badge", "H10301:123:"+card, "--door", door, "--at", at, "--factors", factors,
			"--data", c.Data, "--timezone", rig.Zone, "--json")
		if err := json.Unmarshal([]byte(out), &said); err != nil {
			t.Fatalf("%v: %s%s", err, out, stderr)
		}
		return said.Reason
	}
	check := func(card, door, at, factors, want string) {
		t.Helper()
		if got := explain(card, door, at, factors); got != want {
			t.Errorf("card %s at %s, %s, with %s: %s, want %s", card, door, at, factors, got, want)
		}
	}
	check("4567", "front", "2026-12-25 03:00", "badge", "granted")
	check("4567", "lab", "2026-12-24 10:00", "badge", "granted")
	check("4567", "lab", "2026-12-25 10:00", "badge", "factor_missing") // a holiday: the rule of the night
	check("4567", "lab", "2026-12-25 10:00", "badge+pin", "granted")
	check("4568", "lab", "2026-12-24 10:00", "badge", "granted")
	check("4568", "lab", "2026-12-25 10:00", "badge", "out_of_schedule")
	check("4568", "front", "2026-12-24 10:00", "badge", "no_right")
	check("4569", "front", "2026-12-24 10:00", "badge", "lost")
	check("4570", "front", "2026-12-24 10:00", "badge", "unknown")

	crm("people", "remove", "p-1")
	publish()
	check("4567", "front", "2026-12-25 03:00", "badge", "revoked")
	if out := rig.Tool(t, "gatehouse-crm", "registry", "audit", "--verify", "--data", s.CRMDir()); !strings.HasPrefix(out, "ok: ") {
		t.Error(out)
	}
}

// TestAnImportThatIsKilledChangesNothing kills gatehouse-crm whenever that is.
func TestAnImportThatIsKilledChangesNothing(t *testing.T) {
	s := rig.New(t)
	people := filepath.Join(s.Dir, "people.csv")
	var b strings.Builder
	b.WriteString("person,kind\n")
	for n := range 3000 {
		fmt.Fprintf(&b, "p-%d,staff\n", n)
	}
	rig.Write(t, people, b.String())
	count := func() int {
		t.Helper()
		return strings.Count(rig.Tool(t, "gatehouse-crm", "people", "list", "--json", "--data", s.CRMDir()), "\n")
	}
	killed := 0
	for after := 10 * time.Millisecond; after < rig.Patience; after *= 2 {
		cmd := exec.Command(filepath.Join(rig.Programs(t), "gatehouse-crm"), "registry", "import", people, "--data", s.CRMDir(), "--by", "m.jansen", "--why", "CHG-1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if kill.Stop() && err != nil {
			t.Fatalf("it failed by itself: %v", err)
		}
		rig.Tool(t, "gatehouse-crm", "registry", "audit", "--verify", "--data", s.CRMDir())
		n := count()
		if err == nil {
			if n != 3000 {
				t.Errorf("%d people of an import that ended", n)
			}
			break
		}
		if killed++; n != 0 && n != 3000 {
			t.Fatalf("killed after %s: %d people of 3000", after, n)
		}
		if n == 3000 { // just before it could say so
			break
		}
	}
	if killed == 0 {
		t.Error("it was over before it could be killed")
	}
}
