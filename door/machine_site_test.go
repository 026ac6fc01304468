package door

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"pgregory.net/rapid"
)

func cleared(level access.Threat) func(*Grant) { return func(g *Grant) { g.Clearance = level } }

// ordered is an order to unlock.
func ordered(seq uint64) UnlockOrdered {
	return UnlockOrdered{Grant: &Grant{Sequence: seq, Durable: true, Direction: access.In, Clearance: access.MaxThreat - 1}}
}

// together is a grant of two.
func together(d, with Decided) Decided {
	d.With = with.Grant
	return d
}

// waits is somebody who has given all and waits for company, for 30 s.
func waits(person string) Proved {
	return gives(person, access.Badge, 0, func(ev *Proved) { ev.Together = 30 * time.Second })
}

// with is somebody who has given all and passes with whoever waits.
func with(ev Proved, attempt uint64) Proved {
	ev.With = attempt
	return ev
}

func TestTheStoriesOfWhatASiteAsks(t *testing.T) {
	const pin = access.PIN
	tell(t, []story{
		{name: "free access begins and ends", steps: []happens{
			{1, FreeBegan{}, "unlock, show granted"},
			{2, FreeBegan{}, ""},
			{3, Opened{}, ""},
			{300, Closed{}, ""},
			{301, FreeEnded{"its schedule ended"}, "lock, record free_access false (its schedule ended), show idle"},
			{302, FreeEnded{"again"}, ""},
			{303, Opened{}, "record forced, alarm forced"},
		}},
		{name: "who badges while it is free passes as ever", steps: []happens{
			{1, FreeBegan{}, "unlock, show granted"},
			{2, granted(7, "ada"), ""},
			{3, Opened{}, "record entered #7"},
			{4, Closed{}, ""},
			{5, granted(8, "bob"), ""},
			{10, Tick{}, ""},
			{10.5, Tick{}, "record not_entered #8"},
		}},
		{name: "a grant outlives free access", steps: []happens{
			{1, FreeBegan{}, "unlock, show granted"},
			{2, granted(7, "ada"), ""},
			{3, FreeEnded{"its schedule ended"}, "record free_access false (its schedule ended)"},
			{7, Tick{}, "lock, show idle"},
		}},
		{name: "free access outlives a grant", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, FreeBegan{}, ""},
			{6, Tick{}, ""},
			{7, FreeEnded{"x"}, "record not_entered #7, lock, record free_access false (x), show idle"},
		}},
		{name: "a door that is left open when free access ends is held one day", steps: []happens{
			{1, FreeBegan{}, "unlock, show granted"},
			{2, Opened{}, ""},
			{1000, FreeEnded{"x"}, "lock, record free_access false (x), show idle"},
			{1020, Tick{}, "show held_warning"},
			{1030, Tick{}, "record held, alarm held"},
		}},
		{name: "a lockdown ends free access, and it does not begin in one", steps: []happens{
			{1, FreeBegan{}, "unlock, show granted"},
			{2, LockdownChanged{true}, "lock, record free_access false (a lockdown began), record lockdown true, show denied"},
			{3, FreeBegan{}, "lock, record free_access false (a lockdown began)"},
		}},
		{name: "nobody passes a threat that they are not cleared for, but out", steps: []happens{
			{1, ThreatChanged{3}, ""},
			{2, granted(7, "ada", cleared(2)), "record not_entered #7 (the door stayed locked: the level of threat rose), show denied"},
			{3, granted(8, "bob", cleared(3)), "unlock, show granted"},
			{4, ThreatChanged{5}, "lock, record not_entered #8 (a lockdown began), show denied"},
			{5, granted(9, "bob", cleared(4)), "record not_entered #9 (the door stayed locked: a lockdown began), show denied"},
			{6, granted(10, "ada", out), "unlock, show granted"},
			{7, Opened{}, "record left #10"},
			{8, Closed{}, "lock, show denied"},
			{9, granted(11, "eve", cleared(5)), "unlock, show granted"},
			{10, ThreatChanged{0}, ""},
		}},
		{name: "a threat that falls locks nobody out", steps: []happens{
			{1, ThreatChanged{3}, ""},
			{2, granted(7, "ada", cleared(3)), "unlock, show granted"},
			{3, ThreatChanged{1}, ""},
		}},
		{name: "a threat beside a lockdown is no news", steps: []happens{
			{1, LockdownChanged{true}, "record lockdown true, show denied"},
			{2, granted(7, "ada", cleared(5)), "unlock, show granted"},
			{3, ThreatChanged{5}, ""},
			{4, LockdownChanged{false}, "record lockdown false"},
			{7, Tick{}, "lock, show denied"},
		}},
		{name: "a disabled door opens to nobody but break-glass", steps: []happens{
			{1, granted(7, "ada"), "unlock, show granted"},
			{2, DisabledChanged{true}, "lock, record not_entered #7 (the door was disabled), show denied"},
			{3, granted(8, "ada", out), "record not_entered #8 (the door stayed locked: the door was disabled), show denied"},
			{4, ordered(9), "record action #9 (the door stayed locked: the door was disabled)"},
			{6, granted(10, "eve", breakGlass), "unlock, record break_glass #10, alarm break_glass, show granted"},
			{11, Tick{}, "lock, show denied"},
			{12, DisabledChanged{false}, "record not_entered #10, show idle"},
		}},
		{name: "an order unlocks once, for whoever is there", steps: []happens{
			{1, ordered(7), "unlock, show granted"},
			{2, Opened{}, ""},
			{3, Closed{}, "lock, show idle"},
			{4, UnlockOrdered{Grant: ordered(8).Grant, TooLate: true}, "record action #8 (the door stayed locked: the record took too long)"},
			{5, ordered(9), "unlock, show granted"},
			{10, Tick{}, "lock, show idle"},
			{10.5, Tick{}, ""},
		}},
		{name: "a door shows which one it is", steps: []happens{
			{1, IdentifyOrdered{}, "show identify"},
			{16, Tick{}, "show idle"},
		}},
		{name: "two pass together", steps: []happens{
			{1, waits("ada"), "await ada in, show ask_company"},
			{20, with(gives("bob", access.Badge, 0), 1), "await nobody in, conclude bob with badge along with ada, show idle"},
			{20.1, together(granted(7, "bob"), granted(7, "ada")), "unlock, show granted"},
			{21, Opened{}, "record entered #7 (2 people were granted before the door opened once), record entered #7 (2 people were granted before the door opened once)"},
		}},
		{name: "of two neither passes without the other", steps: []happens{
			{1, ThreatChanged{1}, ""},
			{2, together(granted(7, "bob", cleared(1)), granted(7, "ada")), "record not_entered #7 (the door stayed locked: the level of threat rose), record not_entered #7 (the door stayed locked: the level of threat rose), show denied"},
		}},
		{name: "the other one of two may be threatened", steps: []happens{
			{1, Decided{Granted: true, Grant: granted(7, "ada").Grant, With: granted(8, "bob").Grant, WithDuress: true}, "unlock, record duress #8, alarm duress, show granted"},
		}},
		{name: "who waits gives what is asked for once more, and waits no longer for it", steps: []happens{
			{1, waits("ada"), "await ada in, show ask_company"},
			{20, waits("ada"), "await nobody in, await ada in"},
			{31, Tick{}, "await nobody in, conclude ada with badge, over, show idle"},
		}},
		{name: "another person's attempt and those who wait do not know of each other", steps: []happens{
			{1, waits("ada"), "await ada in, show ask_company"},
			{2, gives("bob", access.Badge, pin), "ask bob for pin, show ask_pin"},
			{12, Tick{}, "stop asking in, conclude bob with badge, over, show ask_company"},
			{13, waits("via"), "await ada+via in"},
			{14, CompanyCame{access.In, 3}, "await ada in, conclude via with badge"},
			{15, CompanyCame{access.In, 3}, ""},
			{31, Tick{}, "await nobody in, conclude ada with badge, over, show idle"},
		}},
		{name: "a lockdown ends the waiting", steps: []happens{
			{1, waits("ada"), "await ada in, show ask_company"},
			{2, ThreatChanged{5}, "await nobody in, conclude ada with badge, over (a lockdown began), show denied"},
		}},
	})
}

// TestNothingUnlocksAgainstAnOrderOrAThreat holds the machine to these, whatever
// happens: a door that is disabled opens to nobody but break-glass; on the way in
// nobody passes a threat that they are not cleared for; free access never goes on
// under a threat, and each of its beginnings has one end.
func TestNothingUnlocksAgainstAnOrderOrAThreat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, now := NewMachine(DefaultTimes(), DefaultFactorWindow, rapid.Bool().Draw(t, "contact")), epoch
		unlocked, free, ends, begins := false, false, 0, 0
		var threat access.Threat
		lockdown, disabled := false, false
		level := func() access.Threat {
			if lockdown {
				return access.MaxThreat
			}
			return threat
		}
		passes := func(g *Grant) bool {
			return g.BreakGlass || !disabled && (g.Direction == access.Out || g.Clearance >= level())
		}
		step := func(ev Event) {
			before := level()
			switch ev := ev.(type) {
			case ThreatChanged:
				threat = ev.Level
			case LockdownChanged:
				lockdown = ev.Active
			case DisabledChanged:
				disabled = ev.Active
			case FreeBegan:
				if !m.State().Free {
					begins++
				}
			}
			for _, c := range m.Step(now, ev) {
				switch c := c.(type) {
				case Lock:
					unlocked = false
				case Unlock:
					unlocked = true
					switch ev := ev.(type) {
					case Decided:
						if !ev.Granted || !passes(ev.Grant) || ev.With != nil && !passes(ev.With) {
							t.Fatalf("%#v unlocked at threat %d, disabled: %v", ev, level(), disabled)
						}
					case UnlockOrdered:
						if !passes(ev.Grant) || ev.TooLate {
							t.Fatalf("%#v unlocked at threat %d, disabled: %v", ev, level(), disabled)
						}
					case FreeBegan:
						if level() > 0 || disabled {
							t.Fatalf("free at threat %d, disabled: %v", level(), disabled)
						}
					default:
						t.Fatalf("%#v unlocked the door", ev)
					}
				case Record:
					if c.Type == visitorlog.FreeAccess {
						if *c.Active {
							t.Fatal("the machine recorded a beginning")
						}
						ends++
					}
				}
			}
			s := m.State()
			if free = s.Free; free && (level() > 0 || disabled) {
				t.Fatalf("%+v", s)
			}
			if unlocked == s.Locked || begins-ends != map[bool]int{true: 1}[free] {
				t.Fatalf("%+v, unlocked: %v, %d beginnings and %d ends", s, unlocked, begins, ends)
			}
			if level() > before && unlocked {
				t.Fatalf("unlocked though the threat rose from %d to %d", before, level())
			}
		}
		step(Started{})
		grant := func(t *rapid.T) *Grant {
			return &Grant{
				Durable: true, Person: rapid.SampledFrom([]string{"ada", "bob"}).Draw(t, "person"), BreakGlass: rapid.IntRange(0, 5).Draw(t, "glass") == 0,
				Direction: rapid.SampledFrom([]access.Direction{access.In, access.Out}).Draw(t, "way"),
				Clearance: access.Threat(rapid.IntRange(0, 5).Draw(t, "clearance")),
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"decide": func(t *rapid.T) {
				ev := Decided{Granted: true, Grant: grant(t)}
				if rapid.IntRange(0, 3).Draw(t, "two") == 0 {
					ev.With = grant(t)
				}
				step(ev)
			},
			"order": func(t *rapid.T) {
				step(UnlockOrdered{Grant: ordered(1).Grant, TooLate: rapid.IntRange(0, 5).Draw(t, "late") == 0})
			},
			"free": func(t *rapid.T) {
				step(rapid.SampledFrom([]Event{FreeBegan{}, FreeBegan{}, FreeEnded{"x"}}).Draw(t, "event"))
			},
			"state": func(t *rapid.T) {
				step(rapid.SampledFrom([]Event{
					ThreatChanged{0}, ThreatChanged{2}, ThreatChanged{5}, LockdownChanged{true}, LockdownChanged{false}, DisabledChanged{true}, DisabledChanged{false},
				}).Draw(t, "event"))
			},
			"others": func(t *rapid.T) {
				step(rapid.SampledFrom([]Event{Opened{}, Closed{}, ContactLost{}, Stopped{"x"}, IdentifyOrdered{}, ExitRequested{true}, Tick{}}).Draw(t, "event"))
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 40000).Draw(t, "ms")) * time.Millisecond)
				step(Tick{})
			},
		})
		step(FreeEnded{"the end"})
		now = now.Add(time.Hour)
		if step(Tick{}); unlocked {
			t.Fatal("unlocked an hour later")
		}
	})
}

// TestNoSequenceOfEventsBreaksTheWaiting: whatever happens, each attempt is
// concluded once; those who wait are different people, few, and wait no longer
// than they may; who passes with another one has given all, and so has the other.
func TestNoSequenceOfEventsBreaksTheWaiting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, now := NewMachine(DefaultTimes(), DefaultFactorWindow, true), epoch
		concluded := map[uint64]int{}
		ends := map[uint64]time.Time{} // of the waiting, at the latest
		said := map[access.Direction][]string{}
		names := func(side access.Direction) (all []string) {
			for _, a := range m.Waiting(side) {
				all = append(all, fmt.Sprint(a.ID, a.Person))
			}
			return all
		}
		step := func(ev Event) {
			waiting := map[uint64]bool{}
			for _, side := range []access.Direction{access.In, access.Out} {
				for _, a := range m.Waiting(side) {
					waiting[a.ID] = true
				}
			}
			for _, c := range m.Step(now, ev) {
				switch c := c.(type) {
				case Await:
					said[c.Side] = nil
					for _, a := range c.Attempts {
						said[c.Side] = append(said[c.Side], fmt.Sprint(a.ID, a.Person))
					}
				case Conclude:
					concluded[c.Attempt.ID]++
					if c.With != nil {
						concluded[c.With.ID]++
						p, ok := ev.(Proved)
						if !ok || c.Over || p.More != 0 || p.With != c.With.ID || !waiting[c.With.ID] || c.With.Person == c.Attempt.Person || c.With.Side != c.Attempt.Side {
							t.Fatalf("%#v concluded %+v along with %+v", ev, c.Attempt, c.With)
						}
					}
					if _, came := ev.(CompanyCame); came && (c.Over || !waiting[c.Attempt.ID]) {
						t.Fatalf("%#v concluded %+v", ev, c.Attempt)
					}
				case Unlock:
					t.Fatalf("%#v unlocked the door", ev)
				}
			}
			for _, side := range []access.Direction{access.In, access.Out} {
				all, people := m.Waiting(side), map[string]bool{}
				if a, ok := m.Attempt(side); ok {
					people[a.Person] = true
				}
				for _, a := range all {
					if ends[a.ID].IsZero() {
						ends[a.ID] = now.Add(30 * time.Second)
					}
					next := m.Next()
					if people[a.Person] || a.More != 0 || a.Until.After(ends[a.ID]) || !now.Before(a.Until) || next.IsZero() || next.After(a.Until) || m.Lent(side) {
						t.Fatalf("%+v waits until %v; the next tick is at %v", a, ends[a.ID], next)
					}
					people[a.Person] = true
				}
				if len(all) > maxWaiting || !slices.Equal(names(side), said[side]) {
					t.Fatalf("%v wait, and %v was said", names(side), said[side])
				}
			}
			for id, n := range concluded {
				if n > 1 {
					t.Fatalf("attempt %d was concluded %d times", id, n)
				}
			}
		}
		step(Started{})
		side := rapid.SampledFrom([]access.Direction{access.In, access.Out})
		person := rapid.SampledFrom(strings.Split("a b c d e f g h i j", " "))
		which := func(t *rapid.T, s access.Direction) uint64 {
			if all := m.Waiting(s); len(all) > 0 && rapid.IntRange(0, 4).Draw(t, "stale") > 0 {
				return all[rapid.IntRange(0, len(all)-1).Draw(t, "which")].ID
			}
			return rapid.Uint64Range(0, m.attempts+1).Draw(t, "attempt")
		}
		t.Repeat(map[string]func(*rapid.T){
			"prove": func(t *rapid.T) {
				ev := Proved{
					Side: side.Draw(t, "side"), Person: person.Draw(t, "person"), Factor: access.Badge, Reader: "r", Tries: Tries,
					More: rapid.SampledFrom([]access.Factor{0, 0, access.PIN}).Draw(t, "more"),
				}
				switch rapid.IntRange(0, 4).Draw(t, "company") {
				case 0:
				case 1:
					ev.With = which(t, ev.Side)
				default:
					ev.Together = 30 * time.Second
				}
				for _, a := range m.Waiting(ev.Side) {
					if a.ID == ev.With && a.Person == ev.Person {
						ev.With = 0 // the loop never says that
					}
				}
				step(ev)
			},
			"company": func(t *rapid.T) {
				s := side.Draw(t, "side")
				step(CompanyCame{s, which(t, s)})
			},
			"others": func(t *rapid.T) {
				if seldom(t) {
					s := side.Draw(t, "side")
					step(rapid.SampledFrom([]Event{Lent{s}, Returned{s}, LockdownChanged{true}, LockdownChanged{false}, DisabledChanged{true}, DisabledChanged{false}, Stopped{"x"}}).Draw(t, "event"))
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 20000).Draw(t, "ms")) * time.Millisecond)
				step(Tick{})
			},
		})
		now = now.Add(time.Hour)
		step(Tick{})
		if n := len(concluded); uint64(n) != m.attempts {
			t.Fatalf("of %d attempts %d were concluded", m.attempts, n)
		}
	})
}
