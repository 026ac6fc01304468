package door

import (
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"pgregory.net/rapid"
)

// world is a machine and what must be true of it, kept in other words: by
// when each grant ends, which opening nobody allowed, what became of each
// grant.
type world struct {
	m     *Machine
	times Times
	now   time.Time
	seq   uint64

	mayUnlock time.Time // no later than this may the strike be unlocked
	mustOpen  time.Time // until then it must be unlocked; zero: it need not
	open      bool
	known     bool // where the door is
	grace     time.Time
	exit      bool
	exitEnds  time.Time
	lockdown  bool
	alarmed   bool // it is forced

	grants   map[*Grant]int // outcomes of each grant that must have exactly one
	excused  map[*Grant]bool
	unlocked bool // as the commands said
}

func newWorld(t *rapid.T) *world {
	w := &world{
		times: Times{
			Unlock: time.Duration(rapid.IntRange(1, 10).Draw(t, "unlock")) * time.Second,
		},
		now: epoch, grants: map[*Grant]int{}, excused: map[*Grant]bool{},
	}
	w.times.UnlockExtended = w.times.Unlock + time.Duration(rapid.IntRange(0, 10).Draw(t, "longer"))*time.Second
	w.times.HeldAfter = time.Duration(rapid.IntRange(2, 30).Draw(t, "held"))*time.Second + time.Millisecond
	w.times.HeldWarning = time.Duration(rapid.IntRange(0, 1).Draw(t, "warning")) * time.Second
	w.times.ExitShunt = time.Duration(rapid.IntRange(0, 10).Draw(t, "shunt")) * time.Second
	w.start(t)
	return w
}

// start is a new machine, after a crash or for the first time.
func (w *world) start(t *rapid.T) {
	w.m = NewMachine(w.times, DefaultFactorWindow, true)
	w.known, w.open, w.alarmed, w.exit, w.lockdown = false, false, false, false, false
	w.grace, w.exitEnds, w.mayUnlock, w.mustOpen = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	clear(w.grants) // their outcomes went with the machine
	w.unlocked = true
	if w.step(t, Started{}); w.unlocked || !w.m.State().Locked {
		t.Fatal("a machine that starts does not lock the door")
	}
}

// wait lets time pass, ticking when the machine asks for it.
func (w *world) wait(t *rapid.T, d time.Duration, ticking bool) {
	until := w.now.Add(d)
	for ticking {
		next := w.m.Next()
		if next.IsZero() || next.After(until) {
			break
		}
		if next.After(w.now) {
			w.now = next
		}
		w.step(t, Tick{})
		if after := w.m.Next(); !after.IsZero() && !after.After(w.now) {
			t.Fatalf("a tick at %v leaves %v still to come", w.now, after)
		}
	}
	w.now = until
}

// step steps the machine and looks at what it says.
func (w *world) step(t *rapid.T, ev Event) []Command {
	// What time alone does, the machine does before the event.
	if w.unlocked && w.known && !w.open && !w.now.Before(w.mayUnlock) {
		w.grace = w.now.Add(Grace)
	}
	commands := w.m.Step(w.now, ev)
	for _, c := range commands {
		switch c := c.(type) {
		case Unlock:
			w.unlocked = true
			d, ok := ev.(Decided)
			if !ok || !d.Granted || c.Grant != d.Grant {
				t.Fatalf("%#v unlocked the door", ev)
			}
			if !c.Grant.Durable && !c.Grant.BreakGlass {
				t.Fatal("unlocked without a durable record")
			}
			if w.lockdown && !c.Grant.BreakGlass && c.Grant.Direction == access.In {
				t.Fatal("unlocked in a lockdown")
			}
		case Lock:
			w.unlocked = false
		case Record:
			switch c.Type {
			case visitorlog.PassageEntered, visitorlog.PassageLeft, visitorlog.PassageNotEntered:
				if c.Grant == nil {
					t.Fatal("a passage of nobody")
				}
				w.grants[c.Grant]++
				if w.grants[c.Grant] > 1 {
					t.Fatalf("grant %d has %d outcomes", c.Grant.Sequence, w.grants[c.Grant])
				}
			}
		}
	}
	return commands
}

// seldom lets what begins everything anew happen not too often, so that long
// stories come about.
func seldom(t *rapid.T) bool { return rapid.IntRange(0, 7).Draw(t, "seldom") == 0 }

func count(commands []Command, typ visitorlog.Type) (records, alarms int) {
	for _, c := range commands {
		switch c := c.(type) {
		case Record:
			if c.Type == typ {
				records++
			}
		case Alarm:
			if c.Type == typ {
				alarms++
			}
		}
	}
	return records, alarms
}

func (w *world) decide(t *rapid.T) {
	w.seq++
	g := &Grant{
		Sequence:   w.seq,
		Durable:    rapid.Bool().Draw(t, "durable"),
		Person:     rapid.SampledFrom([]string{"ada", "bob"}).Draw(t, "person"),
		Direction:  rapid.SampledFrom([]access.Direction{access.In, access.Out}).Draw(t, "direction"),
		Extended:   rapid.Bool().Draw(t, "extended"),
		BreakGlass: rapid.IntRange(0, 3).Draw(t, "break-glass") == 0,
	}
	ev := Decided{Granted: rapid.IntRange(0, 3).Draw(t, "granted") > 0, Grant: g, TooLate: rapid.IntRange(0, 5).Draw(t, "late") == 0}
	if !ev.Granted {
		ev.Grant = nil
	}
	opens := ev.Granted && (g.BreakGlass || g.Durable && !ev.TooLate && (!w.lockdown || g.Direction == access.Out))
	before := w.m.State()
	commands := w.step(t, ev)
	records, alarms := count(commands, visitorlog.BreakGlass)
	if used := opens && g.BreakGlass; (records == 1) != used || (alarms == 1) != used {
		t.Fatalf("break-glass opened: %v, but %d records and %d alarms", used, records, alarms)
	}
	if !opens {
		return
	}
	if w.known {
		if _, done := w.grants[g]; !done {
			w.grants[g] = 0
		}
	} else {
		w.excused[g] = true
	}
	d := w.times.Unlock
	if g.Extended {
		d = w.times.UnlockExtended
	}
	after := w.m.State()
	if after.Locked || after.Until.Before(w.now.Add(d)) {
		t.Fatalf("granted for %v, but the door relocks %v after", d, after.Until.Sub(w.now))
	}
	if !before.Locked && after.Until.Before(before.Until) && w.now.Before(before.Until) {
		t.Fatal("a grant cut another one short")
	}
	w.grace = time.Time{}
	if until := w.now.Add(d); until.After(w.mayUnlock) {
		w.mayUnlock = until
	}
	w.mustOpen = w.mayUnlock
}

func (w *world) opens(t *rapid.T) {
	allowed := w.now.Before(w.mustOpen) || w.now.Before(w.grace) || w.exit || w.now.Before(w.exitEnds) || !w.known || w.alarmed
	// The time that ends now gives its grace to this very opening.
	allowed = allowed || w.unlocked && !w.open && w.known
	wasOpen := w.known && w.open
	commands := w.step(t, Opened{})
	records, alarms := count(commands, visitorlog.DoorForced)
	if forced := !wasOpen && !allowed; (records == 1) != forced || (alarms == 1) != forced {
		t.Fatalf("forced: %v, but %d records and %d alarms", forced, records, alarms)
	} else if forced {
		w.alarmed = true
	}
	w.known, w.open = true, true
	w.grace = time.Time{}
}

func (w *world) closes(t *rapid.T) {
	wasOpen := w.known && w.open
	w.step(t, Closed{})
	if wasOpen {
		w.mustOpen, w.mayUnlock = time.Time{}, time.Time{}
		if !w.alarmed {
			w.grace = w.now.Add(Grace)
		}
		if !w.exit {
			w.exitEnds = time.Time{}
		}
	}
	w.alarmed = false
	w.known, w.open = true, false
}

func (w *world) check(t *rapid.T) {
	s := w.m.State()
	if s.Locked == w.unlocked {
		t.Fatalf("the machine says locked: %v, its commands said unlocked: %v", s.Locked, w.unlocked)
	}
	if w.unlocked {
		if next := w.m.Next(); next.IsZero() || next.After(w.mayUnlock) {
			t.Fatalf("unlocked until %v, but the next tick is at %v", w.mayUnlock, next)
		}
	} else if w.now.Before(w.mustOpen) {
		t.Fatalf("locked before %v, when the grant ends", w.mustOpen)
	}
}

// TestNoSequenceOfEventsBreaksTheRules holds the machine to these, whatever
// happens and however late its ticks come: no unlocking without a durable
// record, break-glass excepted, which alarms; no door unlocked after its time;
// no grant that cuts another short; each forced opening recorded; each grant
// with exactly one outcome; a crash ends locked.
func TestNoSequenceOfEventsBreaksTheRules(t *testing.T) {
	for range 10 { // rapid's hundred stories are too few for two grants that meet
		rapid.Check(t, noRuleIsBroken)
	}
}

func noRuleIsBroken(t *rapid.T) {
	w := newWorld(t)
	t.Repeat(map[string]func(*rapid.T){
		"":       w.check,
		"decide": w.decide,
		"open":   w.opens,
		"close":  w.closes,
		"wait": func(t *rapid.T) {
			ms := rapid.IntRange(0, 20000).Draw(t, "ms")
			w.wait(t, time.Duration(ms)*time.Millisecond, true)
		},
		"stall": func(t *rapid.T) { // nobody ticks; then one does
			ms := rapid.IntRange(0, 20000).Draw(t, "ms")
			w.wait(t, time.Duration(ms)*time.Millisecond, false)
			w.step(t, Tick{})
		},
		"exit": func(t *rapid.T) {
			active := rapid.Bool().Draw(t, "active")
			w.step(t, ExitRequested{active})
			if active != w.exit {
				w.exit, w.exitEnds = active, w.now.Add(w.times.ExitShunt)
			}
		},
		"lockdown": func(t *rapid.T) {
			active := rapid.Bool().Draw(t, "active")
			commands := w.step(t, LockdownChanged{active})
			if n, _ := count(commands, visitorlog.Lockdown); (n == 1) != (active != w.lockdown) {
				t.Fatalf("lockdown %v after %v: %d records", active, w.lockdown, n)
			}
			if active && !w.lockdown {
				if w.unlocked {
					t.Fatal("unlocked in a lockdown")
				}
				w.mustOpen, w.mayUnlock, w.grace = time.Time{}, time.Time{}, time.Time{}
			}
			w.lockdown = active
		},
		"contact breaks": func(t *rapid.T) {
			if !seldom(t) {
				return
			}
			w.step(t, ContactLost{})
			for g, n := range w.grants {
				if n == 0 {
					w.excused[g] = true
				}
			}
			w.known, w.grace = false, time.Time{}
		},
		"panic": func(t *rapid.T) {
			w.step(t, Stopped{"a panic"})
			if w.unlocked {
				t.Fatal("unlocked after a panic")
			}
			w.mustOpen, w.mayUnlock, w.grace = time.Time{}, time.Time{}, time.Time{}
		},
		"others": func(t *rapid.T) {
			w.step(t, rapid.SampledFrom([]Event{
				TamperChanged{true}, TamperChanged{false}, FaultChanged{true}, FaultChanged{false}, DecisionDelayed{}, Tick{},
			}).Draw(t, "event"))
		},
		"crash": func(t *rapid.T) {
			if seldom(t) {
				w.start(t)
			}
		},
	})
	w.wait(t, time.Hour, true)
	w.check(t)
	if w.unlocked {
		t.Fatal("unlocked an hour later")
	}
	for g, n := range w.grants {
		if n != 1 && !w.excused[g] {
			t.Fatalf("grant %d has %d outcomes", g.Sequence, n)
		}
	}
}

// TestTheMachineSaysTheSameAgain: the machine depends on nothing but its
// events and their times.
func TestTheMachineSaysTheSameAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := []Event{
			granted(1, "ada"), granted(2, "bob", extended, out), granted(3, "eve", unwritten), granted(4, "eve", unwritten, breakGlass), Decided{},
			Opened{}, Closed{}, ContactLost{}, ExitRequested{true}, ExitRequested{false}, LockdownChanged{true}, LockdownChanged{false},
			TamperChanged{true}, FaultChanged{true}, FaultChanged{false}, DecisionDelayed{}, Stopped{"x"}, Tick{},
		}
		which := rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 1, 40).Draw(t, "events")
		gaps := rapid.SliceOfN(rapid.IntRange(0, 20000), len(which), len(which)).Draw(t, "gaps")
		run := func() (all []string) {
			m, now := NewMachine(DefaultTimes(), DefaultFactorWindow, true), epoch
			all = append(all, told(m.Step(now, Started{})))
			for i, e := range which {
				now = now.Add(time.Duration(gaps[i]) * time.Millisecond)
				all = append(all, told(m.Step(now, events[e])))
			}
			return all
		}
		if a, b := run(), run(); !slices.Equal(a, b) {
			t.Fatalf("%q and then %q", a, b)
		}
	})
}
