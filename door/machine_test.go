package door

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func seconds(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// told writes commands as a person would.
func told(commands []Command) string {
	var all []string
	for _, c := range commands {
		switch c := c.(type) {
		case Unlock:
			all = append(all, "unlock")
		case Lock:
			all = append(all, "lock")
		case Signal:
			all = append(all, "show "+string(c.Pattern))
		case Alarm:
			all = append(all, "alarm "+eventName(c.Type))
		case Ask:
			all = append(all, fmt.Sprintf("ask %s for %s", c.Attempt.Person, c.Attempt.More))
		case StopAsking:
			all = append(all, "stop asking "+string(c.Side))
		case Await:
			who := "nobody"
			for i, a := range c.Attempts {
				if i == 0 {
					who = ""
				} else {
					who += "+"
				}
				who += a.Person
			}
			all = append(all, fmt.Sprintf("await %s %s", who, c.Side))
		case Conclude:
			s := fmt.Sprintf("conclude %s with %s", c.Attempt.Person, c.Attempt.Given)
			if c.Over {
				s += ", over"
			}
			if c.Attempt.Refused != 0 {
				s += fmt.Sprintf(", %s refused", c.Attempt.Refused)
			}
			if c.With != nil {
				s += " along with " + c.With.Person
			}
			if c.Attempt.Duress {
				s += ", under duress"
			}
			if c.Detail != "" {
				s += " (" + c.Detail + ")"
			}
			all = append(all, s)
		case Record:
			s := "record " + eventName(c.Type)
			if c.Grant != nil {
				s += fmt.Sprintf(" #%d", c.Grant.Sequence)
			}
			if c.Active != nil {
				s += fmt.Sprintf(" %v", *c.Active)
			}
			if c.Detail != "" {
				s += " (" + c.Detail + ")"
			}
			all = append(all, s)
		}
	}
	return strings.Join(all, ", ")
}

func granted(seq uint64, person string, more ...func(*Grant)) Decided {
	g := &Grant{Sequence: seq, Durable: true, Person: person, Kind: access.Staff, Reader: "in", Direction: access.In}
	for _, f := range more {
		f(g)
	}
	return Decided{Granted: true, Grant: g}
}

func out(g *Grant)        { g.Direction = access.Out }
func extended(g *Grant)   { g.Extended = true }
func breakGlass(g *Grant) { g.BreakGlass = true }
func unwritten(g *Grant)  { g.Durable, g.Sequence = false, 0 }

func tooLate(d Decided) Decided {
	d.TooLate = true
	return d
}

// happens is one step of a story.
type happens struct {
	at   float64 // seconds
	ev   Event
	want string
}

type story struct {
	name      string
	noContact bool
	steps     []happens // after Started at 0 and, with a contact, Closed at 0
}

// The default times: unlocked for 5 s (15 s), held after 30 s (40 s), warning
// 10 s before, shunt 10 s.
func TestTheDoorsStories(t *testing.T) {
	tell(t, []story{
		{name: "a person badges, enters and lets the door fall shut", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, "record entered #7"},
			{4, Closed{}, "lock, show idle"},
			{9, Tick{}, ""},
		}},
		{name: "the reader inside records who left", steps: []happens{
			{1, granted(7, "ada", out), "unlock, show granted"},
			{2, Opened{}, "record left #7"},
		}},
		{name: "the unlocked time ends at its deadline, and nobody entered", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{5.9, Tick{}, ""},
			{6, Tick{}, "lock, show idle"},
			{6.4, Tick{}, ""},
			{6.5, Tick{}, "record not_entered #7"},
			{8, Opened{}, "record forced, alarm forced"},
		}},
		{name: "a door that was already moving as it relocked is not forced", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{6, Tick{}, "lock, show idle"},
			{6.3, Opened{}, "record entered #7"},
		}},
		{name: "a tick that comes late locks first", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{60, Opened{}, "lock, record entered #7, show idle"},
		}},
		{name: "a person who needs longer gets longer, also to hold the door", steps: []happens{
			{1, granted(7, "ada", extended), "unlock, show granted"},
			{14.9, Tick{}, ""},
			{15, Opened{}, "record entered #7"},
			{16, Tick{}, "lock, show idle"},
			{44.9, Tick{}, ""},
			{45, Tick{}, "show held_warning"},
			{54.9, Tick{}, ""},
			{55, Tick{}, "record held, alarm held"},
		}},
		{name: "a denied person sees it for two seconds", steps: []happens{
			{1, Decided{}, "show denied"},
			{2, Decided{}, "show denied"},
			{3.9, Tick{}, ""},
			{4, Tick{}, "show idle"},
		}},
		{name: "a denial does not shorten another's grant", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Decided{}, "show denied"},
			{4, Tick{}, "show granted"},
			{6, Tick{}, "lock, show idle"},
		}},
		{name: "a grant without a durable record opens nothing", steps: []happens{
			{1, granted(0, "ada", unwritten), "record not_entered #0 (the door stayed locked: the decision could not be recorded in time), show fault"},
			{3, Tick{}, "show idle"},
		}},
		{name: "break-glass opens without a durable record, and alarms", steps: []happens{
			{1, granted(0, "ada", unwritten, breakGlass), "unlock, record break_glass #0, alarm break_glass, show granted"},
			{2, Opened{}, "record entered #0"},
		}},
		{name: "a grant that comes too late opens nothing", steps: []happens{
			{1, tooLate(granted(7, "ada")), "record not_entered #7 (the door stayed locked: the decision took too long), show fault"},
		}},
		{name: "a slow decision is shown as waiting", steps: []happens{
			{1, DecisionDelayed{}, "show waiting"},
			{1.5, granted(7, "ada"), "unlock, show granted"},
		}},
		{name: "a second grant extends the first", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{5, granted(8, "bob"), ""},
			{6, Tick{}, ""},
			{9.9, Tick{}, ""},
			{10, Tick{}, "lock, show idle"},
			{10.5, Tick{}, "record not_entered #7, record not_entered #8"},
		}},
		{name: "a short grant does not cut a long one short", steps: []happens{
			{1, granted(7, "ada", extended), "unlock, show granted"},
			{2, granted(8, "bob"), ""},
			{7, Tick{}, ""},
			{16, Tick{}, "lock, show idle"},
		}},
		{name: "two people and one opening: both count as inside, and it is said", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, granted(8, "bob"), ""},
			{3, Opened{}, "record entered #7 (2 people were granted before the door opened once), record entered #8 (2 people were granted before the door opened once)"},
			{5, Closed{}, "lock, show idle"},
		}},
		{name: "who badges twice entered once", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{3, granted(8, "ada"), "record not_entered #7 (badged again before the door opened)"},
			{4, Opened{}, "record entered #8"},
		}},
		{name: "who is granted in the grace of another has a time of their own", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{6, Tick{}, "lock, show idle"},
			{6.2, granted(8, "bob"), "record not_entered #7, unlock, show granted"},
			{7, Opened{}, "record entered #8"},
		}},
		{name: "a grant while the door stands open", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, "record entered #7"},
			{4, granted(8, "bob"), "record entered #8 (the door already stood open)"},
			{6, Tick{}, ""},
			{8, Closed{}, "lock, show idle"},
		}},
		{name: "a grant gives a door that stands open its time again", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, "record entered #7"},
			{6, Tick{}, "lock, show idle"},
			{22, Tick{}, "show held_warning"},
			{23, granted(8, "bob"), "unlock, record entered #8 (the door already stood open), show granted"},
			{28, Tick{}, "lock, show idle"},
			{43, Tick{}, "show held_warning"},
			{53, Tick{}, "record held, alarm held"},
		}},
		{name: "a held door warns, alarms once, and is closed", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, "record entered #7"},
			{6, Tick{}, "lock, show idle"},
			{22, Tick{}, "show held_warning"},
			{32, Tick{}, "record held, alarm held"},
			{90, Tick{}, ""},
			{92, Closed{}, "record closed (opened 1m30s before), show idle"},
		}},
		{name: "a warning that is heeded leaves no trace", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, "record entered #7"},
			{25, Tick{}, "lock, show held_warning"},
			{26, Closed{}, "show idle"},
		}},
		{name: "a forced door", steps: []happens{
			{1, Opened{}, "record forced, alarm forced"},
			{60, Tick{}, ""},
			{61, Closed{}, "record closed (forced 1m0s before)"},
		}},
		{name: "a contact that bounces as the door falls shut forces nothing", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, "record entered #7"},
			{4, Closed{}, "lock, show idle"},
			{4.05, Opened{}, ""},
			{4.1, Closed{}, ""},
			{5, Opened{}, "record forced, alarm forced"},
		}},
		{name: "leaving by request to exit forces nothing and moves nothing", steps: []happens{
			{1, ExitRequested{true}, "record request_to_exit"},
			{1.5, ExitRequested{false}, ""},
			{5, Opened{}, ""},
			{7, Closed{}, ""},
			{8, Opened{}, "record forced, alarm forced"},
		}},
		{name: "the shunt ends", steps: []happens{
			{1, ExitRequested{true}, "record request_to_exit"},
			{2, ExitRequested{false}, ""},
			{12, Opened{}, "record forced, alarm forced"},
		}},
		{name: "a sensor that sees people pass by is one record", steps: []happens{
			{1, ExitRequested{true}, "record request_to_exit"},
			{2, ExitRequested{false}, ""},
			{3, ExitRequested{true}, ""},
			{40, Opened{}, ""},
			{41, Closed{}, ""},
			{60, ExitRequested{false}, ""},
			{75, ExitRequested{true}, "record request_to_exit"},
		}},
		{name: "a lockdown locks at once", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, LockdownChanged{true}, "lock, record lockdown true, record not_entered #7 (a lockdown began), show denied"},
			{3, LockdownChanged{true}, ""},
			{4, granted(8, "bob"), "record not_entered #8 (the door stayed locked: a lockdown began), show denied"},
			{5, granted(9, "eve", breakGlass), "unlock, record break_glass #9, alarm break_glass, show granted"},
			{6, Opened{}, "record entered #9"},
			{7, Closed{}, "lock, show denied"},
			{9, LockdownChanged{false}, "record lockdown false, show idle"},
		}},
		{name: "tampering alarms once", steps: []happens{
			{1, TamperChanged{true}, "record tamper true, alarm tamper"},
			{2, TamperChanged{true}, ""},
			{3, TamperChanged{false}, "record tamper false"},
		}},
		{name: "a broken part is shown", steps: []happens{
			{1, FaultChanged{true}, "show fault"},
			{2, granted(7, "ada"), "unlock, show granted"},
			{3, Opened{}, "record entered #7"},
			{4, Closed{}, "lock, show fault"},
			{5, FaultChanged{false}, "show idle"},
		}},
		{name: "a part that panics locks the door", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Stopped{"it broke"}, "lock, record not_entered #7 (it broke), show idle"},
		}},
		{name: "without a contact nothing is known of passages", noContact: true, steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, Opened{}, ""},
			{3, Closed{}, ""},
			{6, Tick{}, "lock, show idle"},
			{60, Tick{}, ""},
		}},
		{name: "a contact that breaks ends what it alone could tell", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, ContactLost{}, ""},
			{6, Tick{}, "lock, show idle"},
			{9, Opened{}, ""},
			{29, Tick{}, "show held_warning"},
			{39, Tick{}, "record held (the door was open when its contact was first read), alarm held"},
			{40, ContactLost{}, ""},
			{50, Closed{}, "record closed (opened 41s before), show idle"},
		}},
	})
}

// tell plays stories to a machine.
func tell(t *testing.T, stories []story) {
	t.Helper()
	for _, story := range stories {
		t.Run(story.name, func(t *testing.T) {
			m := NewMachine(DefaultTimes(), DefaultFactorWindow, !story.noContact)
			if got := told(m.Step(epoch, Started{})); got != "lock, show idle" {
				t.Fatalf("at the start: %s", got)
			}
			if !story.noContact {
				if got := told(m.Step(epoch, Closed{})); got != "" {
					t.Fatalf("first sight of the door: %s", got)
				}
			}
			for _, s := range story.steps {
				if diff := cmp.Diff(s.want, told(m.Step(seconds(s.at), s.ev))); diff != "" {
					t.Errorf("at %vs, %T (-want +got):\n%s", s.at, s.ev, diff)
				}
			}
		})
	}
}

func TestTimesAreChecked(t *testing.T) {
	if err := DefaultTimes().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := Times{Unlock: 0, UnlockExtended: -1, HeldAfter: 0, HeldWarning: 1, ExitShunt: -1}
	err := bad.Validate()
	for _, want := range []string{"unlock:", "unlock_extended:", "held_after:", "held_warning:", "rex_shunt:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %q", err, want)
		}
	}
}

func BenchmarkStep(b *testing.B) {
	m := NewMachine(DefaultTimes(), DefaultFactorWindow, true)
	m.Step(epoch, Started{})
	m.Step(epoch, Closed{})
	ev := granted(7, "ada")
	now := epoch
	b.ReportAllocs()
	for b.Loop() { // one passage: badge, open, close, and the tick after
		now = now.Add(10 * time.Second)
		m.Step(now, ev)
		m.Step(now.Add(time.Second), Opened{})
		m.Step(now.Add(2*time.Second), Closed{})
		m.Step(now.Add(3*time.Second), Tick{})
	}
}

// TestARequestToExitMovesNothing: egress does not pass through this software,
// which only records it (rule 2). Whatever the door is doing, the button moves
// the strike neither way.
func TestARequestToExitMovesNothing(t *testing.T) {
	for name, before := range map[string][]Event{
		"locked":   {Closed{}},
		"unlocked": {Closed{}, granted(1, "ada")},
		"open":     {Closed{}, granted(1, "ada"), Opened{}},
		"forced":   {Closed{}, Opened{}},
		"lockdown": {Closed{}, LockdownChanged{true}},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMachine(DefaultTimes(), DefaultFactorWindow, true)
			m.Step(epoch, Started{})
			for i, ev := range before {
				m.Step(seconds(float64(i)/10), ev)
			}
			was := m.State().Locked
			for i, active := range []bool{true, false, true} {
				for _, c := range m.Step(seconds(1+float64(i)/10), ExitRequested{active}) {
					switch c.(type) {
					case Unlock, Lock:
						t.Errorf("the request moved the strike: %s", told([]Command{c}))
					}
				}
			}
			if is := m.State().Locked; is != was {
				t.Errorf("locked is %v after the request, and was %v", is, was)
			}
		})
	}
}
