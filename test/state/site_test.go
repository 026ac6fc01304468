// Package state holds the real programs to their promises while what they keep
// on disk, their clock and their certificates go wrong: after each fault every
// opening has its record, what was recorded arrives once as far as it can be
// read, and nobody is let in wrongly.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const door = "server-room"

// The cards that are known to every controller; any other is unknown.
const (
	staff      = 1
	breakGlass = 2
	revoked    = 3
	weekday    = 4 // bound in time
)

// staffs are the cards of the same person as staff's.
var staffs = []uint64{staff, 5, 6}

const policy = `
[schedules.daily]
mon-sun = ["00:00-24:00"]
holiday = ["00:00-24:00"]

[[people]]
person = "p-staff"
name = "Ada Lovelace"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 1 }, { format = "H10301", facility = 123, number = 5 }, { format = "H10301", facility = 123, number = 6 }]

[[people]]
person = "p-guard"
name = "Grace Hopper"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 2, break_glass = true }]

[[people]]
person = "p-gone"
name = "Tony Hoare"
kind = "staff"
rights = [{ doors = ["*"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 3, state = "revoked" }]

[[people]]
person = "p-daily"
name = "Barbara Liskov"
kind = "staff"
rights = [{ doors = ["*"], schedule = "daily" }]
credentials = [{ format = "H10301", facility = 123, number = 4 }]
`

// site is a CRM whose alarms are looked at.
type site struct{ *rig.Site }

// controller is one controller with one door.
type controller struct {
	*rig.Controller
	site *site

	card      uint64 // that was presented last
	presented time.Time
	entrances int // of the staff
	before    int // openings that the test no longer looks at
	destroyed int // openings whose records the test itself destroyed

	mu        sync.Mutex
	decisions []rig.Event
}

// newSite makes a CRM and a controller named north-1.
func newSite(t *testing.T) (*site, *controller) {
	t.Helper()
	s := &site{rig.New(t)}
	c := s.controller(s.Enrol("north-1", door))
	c.Import(policy)
	return s, c
}

func (s *site) controller(of *rig.Controller) *controller {
	c := &controller{Controller: of, site: s}
	c.Args, c.Heard = []string{"--log-level", "debug"}, c.hear
	return c
}

// clone is another machine with a copy of all that the controller has.
func (c *controller) clone(name string) *controller {
	c.T.Helper()
	data := filepath.Join(c.Dir, name)
	copyTree(c.T, c.Data, data)
	return c.site.controller(c.Site.Controller(c.Name, data, door))
}

// copyTree copies a folder with its permissions and without what only a
// running process has use for.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_ = os.Remove(filepath.Join(to, "s"))
}

func (s *site) stopCRM() {
	s.T.Helper()
	s.CRM.Stop(s.T)
}

func (c *controller) stop() {
	c.T.Helper()
	c.Process.Stop(c.T)
}

func (c *controller) kill() {
	c.T.Helper()
	c.Process.Kill(c.T)
}

func (c *controller) hear(e rig.Event) {
	if e.Msg != "decision" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decisions = append(c.decisions, e)
}

func (c *controller) decided() []rig.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.decisions)
}

// unlocked is how often the strike was unlocked.
func (c *controller) unlocked() int { return len(c.Unlocks()) }

// present presents a card. The same one has to be away for a while, or the
// door takes it for one that was left on the reader.
func (c *controller) present(number uint64) {
	c.T.Helper()
	if wait := time.Until(c.presented.Add(1100 * time.Millisecond)); number == c.card && wait > 0 {
		time.Sleep(wait)
	}
	frame := rig.Card(c.T, number)
	rig.Eventually(c.T, fmt.Sprintf("card %d is read", number), func() bool { return c.Wires.Swipe(door+"-in", frame) == nil })
	c.card, c.presented = number, time.Now()
}

// enters presents a card that must open the door, and walks through.
func (c *controller) enters(number uint64) {
	c.T.Helper()
	rig.Eventually(c.T, "the door is locked", c.Locked)
	if number == staff {
		number = staffs[c.entrances%len(staffs)]
		c.entrances++
	}
	c.opens(number)
	if err := errors.Join(c.Wires.Set(door+".contact", true), c.Wires.Set(door+".contact", false)); err != nil {
		c.T.Fatal(err)
	}
	rig.Eventually(c.T, "the door is locked again", c.Locked)
}

// opens presents a card that must open the door.
func (c *controller) opens(number uint64) {
	c.T.Helper()
	before := c.unlocked()
	c.present(number)
	rig.Eventually(c.T, fmt.Sprintf("card %d opens the door", number), func() bool { return c.unlocked() > before })
}

// denied presents a card that must not open the door; reason "" is any.
func (c *controller) denied(number uint64, reason string) {
	c.T.Helper()
	decided, unlocked := len(c.decided()), c.unlocked()
	c.present(number)
	rig.Eventually(c.T, "there is a decision", func() bool { return len(c.decided()) > decided })
	e := c.decided()[decided]
	if e.Decision != "denied" || reason != "" && e.Reason != reason || c.unlocked() != unlocked {
		c.T.Fatalf("card %d: %+v, %d unlocks; want it denied because %s", number, e, c.unlocked()-unlocked, reason)
	}
}

func (c *controller) epoch() string {
	c.T.Helper()
	return c.Now().Records.Epoch
}

// alarms are the kinds of the CRM's open alarms, and what they say.
func (s *site) alarms() map[string]string {
	s.T.Helper()
	out, stderr, err := rig.Run(s.T, "gatehouse-crm", "alarms", "list", "--data", s.CRMDir(), "--json")
	kinds := make(map[string]string)
	lines := json.NewDecoder(strings.NewReader(out))
	for lines.More() {
		var a struct{ Kind, Detail string }
		if derr := lines.Decode(&a); derr != nil {
			s.T.Fatalf("alarms: %v, %v\n%s\n%s", derr, err, out, stderr)
		}
		kinds[a.Kind] += a.Detail + "\n"
	}
	return kinds
}

// alarmed waits for an alarm of a kind that says so.
func (s *site) alarmed(kind, says string) {
	s.T.Helper()
	rig.Eventually(s.T, fmt.Sprintf("there is an alarm %s that says %q", kind, says), func() bool {
		said, ok := s.alarms()[kind]
		return ok && strings.Contains(said, says)
	})
}

// quiet wants no alarms but of these kinds.
func (s *site) quiet(but ...string) {
	s.T.Helper()
	for kind, detail := range s.alarms() {
		if !slices.Contains(but, kind) {
			s.T.Errorf("alarm %s: %s", kind, detail)
		}
	}
}

// stored are the CRM's records, by epoch. Within each they must be all, once.
func (s *site) stored(controller string) map[string][]rig.Record {
	s.T.Helper()
	epochs := make(map[string][]rig.Record)
	for _, r := range s.Stored(controller) {
		if r.Seq != uint64(len(epochs[r.Epoch])) {
			s.T.Fatalf("the CRM's records of epoch %s: after %d comes %d", r.Epoch, len(epochs[r.Epoch]), r.Seq)
		}
		epochs[r.Epoch] = append(epochs[r.Epoch], r)
	}
	return epochs
}

// verified wants both logs to verify, the CRM to have the present epoch, and
// the door to be accounted for.
func (c *controller) verified() {
	c.T.Helper()
	c.Verify()
	own := c.Own()
	stored := c.site.stored(c.Name)[own[0].Epoch]
	rig.Begins(c.T, "the CRM", stored, own)
	if len(stored) != len(own) {
		c.T.Errorf("the CRM has %d records of the present epoch, the controller %d", len(stored), len(own))
	}
	c.accounted()
}

// accounted wants the door to be locked, and a record for each of its
// openings: in the controller's log, in one that was set aside, or at the CRM.
func (c *controller) accounted() {
	c.T.Helper()
	if !c.Locked() {
		c.T.Error("the door is not locked")
	}
	files, err := filepath.Glob(filepath.Join(c.Data, "records*.db"))
	if err != nil || len(files) == 0 {
		c.T.Fatalf("%v, %v: want databases", files, err)
	}
	var all []rig.Record
	seen := make(map[string]bool)
	add := func(records []rig.Record) {
		for _, r := range records {
			if key := fmt.Sprint(r.Epoch, r.Seq, r.Time); !seen[key] { // a fork has two of one sequence
				seen[key] = true
				all = append(all, r)
			}
		}
	}
	for _, f := range files {
		add(c.Readable(filepath.Base(f)))
	}
	unlocks := c.Unlocks()[c.before:]
	left := rig.Unaccounted(unlocks, all)
	if len(left) > 0 && c.site.CRM != nil {
		add(c.site.Stored(c.Name))
		left = rig.Unaccounted(unlocks, all)
	}
	if len(left) > c.destroyed {
		c.T.Errorf("%d of %d openings have no record, of which the test destroyed %d: %v", len(left), len(unlocks), c.destroyed, left)
	}
}

// granted counts decisions that let somebody in.
func granted(records []rig.Record) (n int) {
	for _, r := range records {
		if r.Data.Decision == "granted" {
			n++
		}
	}
	return n
}
