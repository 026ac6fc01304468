package door

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// gives is somebody who gives a factor outside, and what may come next.
func gives(person string, f, more access.Factor, change ...func(*Proved)) Proved {
	ev := Proved{Side: access.In, Person: person, Factor: f, Reader: "r", More: more, Tries: Tries}
	for _, c := range change {
		c(&ev)
	}
	return ev
}

func inside(ev *Proved)     { ev.Side = access.Out }
func threatened(ev *Proved) { ev.Duress = true }
func oneTry(ev *Proved)     { ev.Tries = 1 }

// wrong is a finger that is not the person's.
func wrong(attempt uint64) Failed {
	return Failed{access.In, attempt, access.Fingerprint, "f", visitorlog.OutcomeNoMatch}
}

func duress(d Decided) Decided {
	d.Duress = true
	return d
}

// Ten seconds from one factor to the next.
func TestTheStoriesOfGathering(t *testing.T) {
	const finger, pin, iris = access.Fingerprint, access.PIN, access.Iris
	tell(t, []story{
		{name: "a badge, then the finger", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{4, gives("ada", finger, 0), "stop asking in, conclude ada with badge+fingerprint, show idle"},
			{4.1, granted(7, "ada"), "unlock, show granted"},
		}},
		{name: "the finger, then a badge", steps: []happens{
			{1, gives("ada", finger, access.Badge), "ask ada for badge, show ask_badge"},
			{4, gives("ada", access.Badge, 0), "stop asking in, conclude ada with badge+fingerprint, show idle"},
		}},
		{name: "of several the badge is shown, which leads further", steps: []happens{
			{1, gives("ada", finger, access.Badge|pin), "ask ada for badge+pin, show ask_badge"},
		}},
		{name: "each factor has a window of its own", steps: []happens{
			{1, gives("ada", access.Badge, finger|pin), "ask ada for pin+fingerprint, show ask_fingerprint"},
			{10.9, gives("ada", finger, pin|iris), "ask ada for pin+iris, show ask_iris"},
			{20.8, gives("ada", iris, pin), "ask ada for pin, show ask_pin"},
			{30.7, Tick{}, ""},
			{30.8, Tick{}, "stop asking in, conclude ada with badge+fingerprint+iris, over, show idle"},
			{60, Tick{}, ""},
		}},
		{name: "a finger that comes too late begins anew", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{11, gives("ada", finger, access.Badge), "stop asking in, conclude ada with badge, over, ask ada for badge, show ask_badge"},
		}},
		{name: "the same badge again goes on", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{9, gives("ada", access.Badge, finger), "ask ada for fingerprint"},
			{18, gives("ada", finger, 0), "stop asking in, conclude ada with badge+fingerprint, show idle"},
		}},
		{name: "the same badge again does not make the finger before it newer", steps: []happens{
			{1, gives("ada", finger, access.Badge), "ask ada for badge, show ask_badge"},
			{5, gives("ada", access.Badge, pin), "ask ada for pin, show ask_pin"},
			{14, gives("ada", access.Badge, pin), "ask ada for pin"},
			{15, Tick{}, "stop asking in, conclude ada with badge+fingerprint, over, show idle"},
		}},
		{name: "another person's badge ends the attempt", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, gives("bob", access.Badge, pin), "stop asking in, conclude ada with badge, over (another person came), ask bob for pin, show ask_pin"},
			{3, gives("bob", pin, 0), "stop asking in, conclude bob with badge+pin, show idle"},
		}},
		{name: "the two sides do not know of each other", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, gives("bob", access.Badge, pin, inside), "ask bob for pin, show ask_pin"},
			{3, gives("ada", finger, 0), "stop asking in, conclude ada with badge+fingerprint"},
			{12, Tick{}, "stop asking out, conclude bob with badge, over, show idle"},
		}},
		{name: "a wrong finger may be tried again, but not for ever", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, wrong(1), "show try_again"},
			{3, wrong(1), "show try_again"},
			{4, wrong(1), "stop asking in, conclude ada with badge, over, fingerprint refused"},
			{4.1, Decided{}, "show denied"},
			{5, wrong(1), ""},
		}},
		{name: "a wrong finger does not make the window longer", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{9, wrong(1), "show try_again"},
			{11, Tick{}, "stop asking in, conclude ada with badge, over, fingerprint refused, show idle"},
		}},
		{name: "the right finger after a wrong one is right", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, wrong(1), "show try_again"},
			{3, gives("ada", finger, 0), "stop asking in, conclude ada with badge+fingerprint"},
		}},
		{name: "what became of the one before does not hide what is asked", steps: []happens{
			{1, Decided{}, "show denied"},
			{1.5, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{3, Tick{}, ""},
		}},
		{name: "whose lock-out is near has fewer tries", steps: []happens{
			{1, gives("ada", access.Badge, finger, oneTry), "ask ada for fingerprint, show ask_fingerprint"},
			{2, wrong(1), "stop asking in, conclude ada with badge, over, fingerprint refused, show idle"},
		}},
		{name: "too little of a finger costs nothing", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, Unclear{access.In, 1}, "show try_again"},
			{4, Tick{}, "show ask_fingerprint"},
			{5, Unclear{access.In, 2}, ""},
		}},
		{name: "a scanner that breaks leaves another factor, or none", steps: []happens{
			{1, gives("ada", access.Badge, finger|pin), "ask ada for pin+fingerprint, show ask_fingerprint"},
			{2, Reconsidered{access.In, 1, pin}, "ask ada for pin, show ask_pin"},
			{3, Reconsidered{access.In, 1, 0}, "stop asking in, conclude ada with badge, over, show idle"},
			{4, Reconsidered{access.In, 1, pin}, ""},
		}},
		{name: "what asks for nothing more is concluded at once", steps: []happens{
			{1, gives("ada", access.Badge, 0), "conclude ada with badge"},
		}},
		{name: "a lockdown ends every attempt", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{1, gives("bob", access.Badge, pin, inside), "ask bob for pin"},
			{2, LockdownChanged{true}, "record lockdown true, stop asking in, conclude ada with badge, over (a lockdown began), stop asking out, conclude bob with badge, over (a lockdown began), show denied"},
			{3, gives("ada", access.Badge, finger), "conclude ada with badge"},
		}},
		{name: "tampering ends every attempt", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, TamperChanged{true}, "record tamper true, alarm tamper, stop asking in, conclude ada with badge, over (the door was tampered with), show idle"},
		}},
		{name: "so does the end of the program", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, Stopped{"it stopped"}, "stop asking in, conclude ada with badge, over (it stopped), show idle"},
		}},
		{name: "somebody who passes does not end another's attempt", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, granted(7, "bob", out), "unlock, show granted"},
			{3, Opened{}, "record left #7"},
			{4, Closed{}, "lock, show ask_fingerprint"},
			{5, gives("ada", finger, 0), "stop asking in, conclude ada with badge+fingerprint, show idle"},
		}},
		{name: "duress looks like any grant", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, gives("ada", finger, 0, threatened), "stop asking in, conclude ada with badge+fingerprint, under duress, show idle"},
			{2.1, duress(granted(7, "ada")), "unlock, record duress #7, alarm duress, show granted"},
			{7.1, Tick{}, "lock, show idle"},
		}},
		{name: "duress looks like any denial", steps: []happens{
			{2, duress(Decided{Grant: granted(7, "ada").Grant}), "record duress #7, alarm duress, show denied"},
			{4, Tick{}, "show idle"},
		}},
		{name: "duress is not forgotten by a later factor", steps: []happens{
			{1, gives("ada", finger, access.Badge, threatened), "ask ada for badge, show ask_badge"},
			{2, gives("ada", access.Badge, 0), "stop asking in, conclude ada with badge+fingerprint, under duress, show idle"},
		}},
		{name: "a lent side decides nothing", steps: []happens{
			{1, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
			{2, Lent{access.In}, "stop asking in, conclude ada with badge, over (the reader was lent to enrol somebody), show idle"},
			{3, gives("ada", access.Badge, finger), ""},
			{3, gives("ada", access.Badge, 0), ""},
			{3, Unclear{Side: access.In}, ""},
			{4, LentShows{access.In, AskFingerprint}, "show ask_fingerprint"},
			{5, gives("bob", access.Badge, 0, inside), "conclude bob with badge"},
			{5, granted(7, "bob", out), "unlock, show granted"},
			{10, Tick{}, "lock, show ask_fingerprint"},
			{11, Returned{access.In}, "record not_entered #7, show idle"},
			{12, LentShows{access.In, AskFingerprint}, ""},
			{13, gives("ada", access.Badge, finger), "ask ada for fingerprint, show ask_fingerprint"},
		}},
	})
}

func TestEveryFactorThatWasTriedStandsInTheOutcomes(t *testing.T) {
	m := NewMachine(DefaultTimes(), DefaultFactorWindow, true)
	var concluded []Command
	for i, ev := range []Event{
		Started{}, gives("ada", access.Badge, access.Fingerprint|access.PIN), wrong(1), gives("ada", access.Badge, access.Fingerprint|access.PIN),
		gives("ada", access.PIN, 0),
	} {
		concluded = m.Step(seconds(float64(i)), ev)
	}
	var got *Attempt
	for _, c := range concluded {
		if c, ok := c.(Conclude); ok {
			got = c.Attempt
		}
	}
	want := &Attempt{
		ID: 1, Side: access.In, Person: "ada", Given: access.Badge | access.PIN, Until: seconds(14), Failures: 1,
		Outcomes: []visitorlog.FactorOutcome{
			{Factor: "badge", Outcome: visitorlog.OutcomeProved, Reader: "r"},
			{Factor: "fingerprint", Outcome: visitorlog.OutcomeNoMatch, Reader: "f"},
			{Factor: "pin", Outcome: visitorlog.OutcomeProved, Reader: "r"},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Attempt{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// gathered is what must be true of the attempts at one side, in other words than
// the machine's.
type gathered struct {
	side   access.Direction
	person string // "": there is no attempt
	id     uint64
	given  access.Factor
	until  time.Time
	asked  bool
	lent   bool
}

// TestNoSequenceOfEventsBreaksAnAttempt holds the gathering to these, whatever
// happens and however late ticks come: every attempt is concluded exactly once,
// with what was given in it and nothing else; one that ended before all was given
// says so; nothing is asked for that is concluded; nothing outlives its window;
// there is no attempt at a side that is lent; and nothing of it moves the strike.
func TestNoSequenceOfEventsBreaksAnAttempt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMachine(DefaultTimes(), DefaultFactorWindow, true)
		now := epoch
		sides := map[access.Direction]*gathered{access.In: {side: access.In}, access.Out: {side: access.Out}}
		begun, concluded := map[uint64]bool{}, map[uint64]int{}
		// What comes of an attempt that is over changes no other.
		stale := func(side access.Direction, in uint64, ev Event) {
			before, goesOn := m.Attempt(side)
			if goesOn && before.ID == in {
				return
			}
			for _, c := range m.Step(now, ev) {
				switch c.(type) {
				case Ask, StopAsking, Conclude:
					t.Fatalf("%#v of an attempt that is over led to %#v", ev, c)
				}
			}
			if after, still := m.Attempt(side); still != goesOn || !cmp.Equal(after, before, cmpopts.IgnoreUnexported(Attempt{})) {
				t.Fatalf("%#v of an attempt that is over made %+v of %+v", ev, after, before)
			}
		}
		step := func(ev Event) {
			lockdown := m.State().Lockdown
			bars := func(side access.Direction) bool { return lockdown && side == access.In }
			begins := func(g *gathered, a *Attempt) {
				ev, ok := ev.(Proved)
				switch {
				case !ok, g.lent, a.Side != g.side, g.side != ev.Side, a.Person != ev.Person:
					t.Fatalf("%#v began %+v", ev, a)
				case begun[a.ID]:
					t.Fatalf("attempt %d began twice", a.ID)
				}
				begun[a.ID] = true
				*g = gathered{side: g.side, person: a.Person, id: a.ID, lent: g.lent}
			}
			// What is proved is part of whatever attempt the event leads to.
			holds := func(g *gathered, a *Attempt) {
				if g.id != a.ID || g.person == "" {
					begins(g, a)
				}
				if ev, ok := ev.(Proved); ok && ev.Side == g.side && ev.Person == g.person {
					if g.given == 0 || g.given == ev.Factor || !g.given.Has(ev.Factor) {
						g.until = now.Add(DefaultFactorWindow)
					}
					g.given |= ev.Factor
				}
				if a.Given != g.given || a.Person != g.person || !a.Until.Equal(g.until) {
					t.Fatalf("%+v, but %s gave %s until %v", a, g.person, g.given, g.until)
				}
			}
			for _, c := range m.Step(now, ev) {
				switch c := c.(type) {
				case Unlock:
					if d, ok := ev.(Decided); !ok || !d.Granted {
						t.Fatalf("%#v unlocked the door", ev)
					}
				case Ask:
					g := sides[c.Attempt.Side]
					holds(g, &c.Attempt)
					if c.Attempt.More == 0 || bars(g.side) || !now.Before(g.until) {
						t.Fatalf("asked for %s in %+v", c.Attempt.More, c.Attempt)
					}
					g.asked = true
				case StopAsking:
					if g := sides[c.Side]; !g.asked {
						t.Fatal("stopped to ask for what nobody was asked for")
					} else {
						g.asked = false
					}
				case Conclude:
					g := sides[c.Attempt.Side]
					if !c.Over {
						holds(g, c.Attempt)
					}
					if g.id != c.Attempt.ID || g.asked {
						t.Fatalf("concluded %+v while %d goes on, asked: %v", c.Attempt, g.id, g.asked)
					}
					if c.Attempt.Given != g.given {
						t.Fatalf("concluded with %s, but %s was given", c.Attempt.Given, g.given)
					}
					p, ok := ev.(Proved)
					if complete := ok && (p.More == 0 || bars(g.side)); !c.Over && !complete {
						t.Fatalf("%#v concluded %+v as if all were given", ev, c.Attempt)
					}
					if concluded[c.Attempt.ID]++; concluded[c.Attempt.ID] > 1 {
						t.Fatalf("attempt %d was concluded twice", c.Attempt.ID)
					}
					g.person, g.given = "", 0
				}
			}
			switch ev := ev.(type) {
			case Lent:
				sides[ev.Side].lent = true
			case Returned:
				sides[ev.Side].lent = false
			}
		}
		step(Started{})
		side := rapid.SampledFrom([]access.Direction{access.In, access.Out})
		factors := rapid.SampledFrom([]access.Factor{0, access.Badge, access.PIN, access.Fingerprint, access.Badge | access.PIN, access.Iris})
		which := func(t *rapid.T, side access.Direction) uint64 {
			if a, ok := m.Attempt(side); ok && rapid.IntRange(0, 4).Draw(t, "stale") > 0 {
				return a.ID
			}
			return rapid.Uint64Range(0, m.attempts).Draw(t, "attempt")
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for _, g := range sides {
					a, ok := m.Attempt(g.side)
					if ok != (g.person != "") || ok && (a.ID != g.id || !g.asked) {
						t.Fatalf("%+v (%v), but %+v", a, ok, g)
					}
					if next := m.Next(); ok && (g.lent || next.IsZero() || next.After(g.until)) {
						t.Fatalf("%+v, lent: %v, goes on until %v, and the next tick is at %v", a, g.lent, g.until, next)
					}
				}
			},
			"prove": func(t *rapid.T) {
				step(Proved{
					Side: side.Draw(t, "side"), Person: rapid.SampledFrom([]string{"ada", "bob"}).Draw(t, "person"),
					Factor: rapid.SampledFrom([]access.Factor{access.Badge, access.PIN, access.Fingerprint}).Draw(t, "factor"),
					Reader: "r", More: factors.Draw(t, "more"), Tries: rapid.IntRange(1, Tries).Draw(t, "tries"),
				})
			},
			"fail": func(t *rapid.T) {
				s := side.Draw(t, "side")
				in := which(t, s)
				ev := Failed{s, in, access.Fingerprint, "f", visitorlog.OutcomeNoMatch}
				step(Tick{})
				stale(s, in, ev)
				step(ev)
			},
			"unclear": func(t *rapid.T) {
				s := side.Draw(t, "side")
				step(Unclear{s, which(t, s)})
			},
			"reconsider": func(t *rapid.T) {
				s := side.Draw(t, "side")
				in := which(t, s)
				ev := Reconsidered{s, in, factors.Draw(t, "more")}
				step(Tick{})
				stale(s, in, ev)
				step(ev)
			},
			"lend": func(t *rapid.T) {
				if !seldom(t) {
					return
				}
				s := side.Draw(t, "side")
				step(rapid.SampledFrom([]Event{Lent{s}, LentShows{s, AskIris}, Returned{s}}).Draw(t, "event"))
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 12000).Draw(t, "ms")) * time.Millisecond)
				step(Tick{})
			},
			"stall": func(t *rapid.T) { // and whatever comes next comes before the tick
				now = now.Add(time.Duration(rapid.IntRange(0, 12000).Draw(t, "ms")) * time.Millisecond)
				for _, g := range sides {
					if g.person != "" && !now.Before(g.until) {
						step(Proved{Side: g.side, Person: g.person, Factor: access.Badge, Reader: "r", More: access.PIN, Tries: Tries})
						if a, _ := m.Attempt(g.side); a.Given != access.Badge {
							t.Fatalf("%+v took what was given before its time", a)
						}
					}
				}
			},
			"others": func(t *rapid.T) {
				step(rapid.SampledFrom([]Event{
					granted(1, "ada"), granted(2, "bob", out), Decided{}, Opened{}, Closed{}, LockdownChanged{true}, LockdownChanged{false},
					TamperChanged{true}, TamperChanged{false}, FaultChanged{true}, Stopped{"x"}, Tick{},
				}).Draw(t, "event"))
			},
		})
		now = now.Add(time.Hour)
		step(Tick{})
		for id := range begun {
			if concluded[id] != 1 {
				t.Fatalf("attempt %d was concluded %d times", id, concluded[id])
			}
		}
	})
}

// TestDuressChangesNothingThatCanBeSeen: whoever sees the strike and the indicator
// cannot tell whether somebody is threatened.
func TestDuressChangesNothingThatCanBeSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := []func(bool) Event{
			func(d bool) Event { p := gives("ada", access.Badge, access.PIN); p.Duress = d; return p },
			func(d bool) Event { p := gives("ada", access.PIN, 0); p.Duress = d; return p },
			func(d bool) Event { g := granted(1, "ada"); g.Duress = d; return g },
			func(d bool) Event { return Decided{Grant: granted(1, "ada").Grant, Duress: d} },
			func(bool) Event { return wrong(1) }, func(bool) Event { return Opened{} }, func(bool) Event { return Closed{} },
			func(bool) Event { return LockdownChanged{true} }, func(bool) Event { return LockdownChanged{false} }, func(bool) Event { return Tick{} },
		}
		which := rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 1, 30).Draw(t, "events")
		gaps := rapid.SliceOfN(rapid.IntRange(0, 12000), len(which), len(which)).Draw(t, "gaps")
		seen := func(duress bool) (all []string) {
			m, now := NewMachine(DefaultTimes(), DefaultFactorWindow, true), epoch
			m.Step(now, Started{})
			for i, e := range which {
				now = now.Add(time.Duration(gaps[i]) * time.Millisecond)
				for _, c := range m.Step(now, events[e](duress)) {
					switch c.(type) {
					case Unlock, Lock, Signal, Ask, StopAsking:
						all = append(all, told([]Command{c}))
					}
				}
				all = append(all, fmt.Sprint(m.Next()))
			}
			return all
		}
		if calm, threatened := seen(false), seen(true); !slices.Equal(calm, threatened) {
			t.Fatalf("%q, and under duress %q", calm, threatened)
		}
	})
}
