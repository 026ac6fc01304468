package access

import (
	"fmt"
	"slices"
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func mustZone(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func mustSchedule(t testing.TB, name string, week map[string][]string, holidays ...string) *Schedule {
	t.Helper()
	h, err := ParseHolidays(holidays)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSchedule(name, week, h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheOrderOfTheReasonsIsTheDocumentedOne(t *testing.T) {
	var order []Reason
	for _, r := range Reasons() {
		if !r.Granted {
			order = append(order, r.Code)
		}
		if passes := slices.Contains(passedByBreakGlass, r.Code); !r.Granted && r.BreakGlassPasses != passes {
			t.Errorf("the table says that break-glass passes %s: %v", r.Code, !passes)
		}
	}
	if !slices.Equal(order, precedence) {
		t.Errorf("the table documents the order %v", order)
	}
}

func TestEveryThreeThingsAreDecidedAsTheRulesSay(t *testing.T) {
	w := newWorld(t)
	seen := make(map[Reason]int)
	n := 0
	everySituation(usual, 3, func(s situation) {
		n++
		got, want := Decide(w.query(s)), s.want()
		seen[got.Reason]++
		if got != want {
			t.Fatalf("%+v: got %+v, want %+v", s, got, want)
		}
	})
	for _, r := range Reasons() {
		if seen[r.Code] == 0 {
			t.Errorf("no combination has reason %q", r.Code)
		}
	}
	t.Logf("%d combinations", n)
}

func TestAnyNumberOfThingsIsDecidedAsTheRulesSay(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		s := anySituation(t)
		if got, want := Decide(w.query(s)), s.want(); got != want {
			t.Fatalf("%+v: got %+v, want %+v", s, got, want)
		}
	})
}

// stricter are rules that a site, or a command, may add to what holds already.
var stricter = aspectsOf(
	otherwise(func(s *situation, v Freshness) { s.freshness = v }, Absent),
	otherwise(func(s *situation, v State) { s.state = v }, Lost, Revoked),
	otherwise(func(s *situation, v string) { s.right = v }, "none"),
	otherwise(func(s *situation, v string) { s.disabled = v }, "door", "command"),
	otherwise(func(s *situation, v bool) { s.lockdown = v }, true),
	otherwise(func(s *situation, v Threat) { s.threat = max(s.threat, v) }, 1, 3, MaxThreat),
	otherwise(func(s *situation, v bool) { s.timed = v }, true),
	otherwise(func(s *situation, v Passback) {
		if s.passback != "firm" {
			s.passback = v
		}
	}, PassbackHard),
	otherwise(func(s *situation, v bool) { s.interlocked = v }, true),
	otherwise(func(s *situation, v string) { s.occupants = v }, "full"),
	otherwise(func(s *situation, v bool) { s.twoPerson = v }, true),
	otherwise(func(s *situation, v bool) { s.escorted = v }, true),
	otherwise(func(s *situation, _ string) {
		if s.firstPerson == "" {
			s.firstPerson = "waiting"
		}
	}, ""),
	otherwise(func(s *situation, v bool) { s.clockKind = v }, false),
)

func aspectsOf(all ...aspect) aspect { return slices.Concat(all...) }

func TestMoreRulesNeverTurnADenialIntoAGrant(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		s := anySituation(t)
		before := Decide(w.query(s))
		for range rapid.IntRange(1, 4).Draw(t, "rules") {
			rapid.SampledFrom(stricter).Draw(t, "rule")(&s)
			after := Decide(w.query(s))
			if after.Granted && !before.Granted {
				t.Fatalf("%+v: denied with %q, and then %+v", s, before.Reason, after)
			}
			before = after
		}
	})
}

// Whoever waits for another person is let in with one, unless it is under a threat,
// which nobody at the door is to notice.
func TestNobodyWaitsForCompanyInVain(t *testing.T) {
	w := newWorld(t)
	waited := 0
	wait := func(t rapid.TB, s situation) {
		if !Decide(w.query(s)).Together || s.duress == "denied" {
			return
		}
		waited++
		s.company = "host"
		if s.firstPerson == "waiting" {
			s.company = "supervisor"
		}
		if d := Decide(w.query(s)); !d.Granted {
			t.Fatalf("%+v: %+v", s, d)
		}
	}
	for _, a := range aspects {
		for _, set := range a {
			for _, alone := range []situation{{escorted: true}, {twoPerson: true}} {
				s := usual
				s.escorted, s.twoPerson = alone.escorted, alone.twoPerson
				set(&s)
				wait(t, s)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) { wait(t, anySituation(t)) })
	if waited == 0 {
		t.Error("nobody waited")
	}
}

func TestExplanationsAgreeWithTheDecision(t *testing.T) {
	w := newWorld(t)
	agree := func(t rapid.TB, s situation) {
		q := w.query(s)
		steps, d := Explain(q)
		if d != Decide(q) {
			t.Fatalf("%+v: explained %+v", s, d)
		}
		ok := !slices.ContainsFunc(steps, func(s Step) bool { return !s.OK })
		if want := d.Granted && !d.BreakGlass; ok != want || len(steps) == 0 {
			t.Fatalf("%+v: decided %+v, explained %+v", s, d, steps)
		}
	}
	everySituation(usual, 2, func(s situation) { agree(t, s) })
	rapid.Check(t, func(t *rapid.T) { agree(t, anySituation(t)) })
}

func TestSenselessQueriesAreDenied(t *testing.T) {
	w := newWorld(t)
	good := usual
	if d := Decide(w.query(good)); !d.Granted {
		t.Fatalf("the query to be spoilt is denied already: %+v", d)
	}
	for name, spoil := range map[string]func(*Query) (want Reason){
		"no door":  func(q *Query) Reason { q.Door = ""; return ReasonNoRight },
		"no zone":  func(q *Query) Reason { q.Zone = nil; return ReasonClockUnset },
		"all zero": func(q *Query) Reason { *q = Query{}; return ReasonAllowlistAbsent },
	} {
		q := w.query(good)
		want := spoil(q)
		if d := Decide(q); d.Granted || d.Reason != want {
			t.Errorf("%s: got %+v, want %q", name, d, want)
		}
	}
	if d := Decide(nil); d.Granted || d.Reason != ReasonUnreadable {
		t.Errorf("nil: got %+v", d)
	}
	q := w.query(good)
	q.Door, q.Entry.Rights = "", []Right{{"", Always()}, {EveryDoor, Always()}}
	if d := Decide(q); d.Granted {
		t.Errorf("a right to every door opened a door without a name: %+v", d)
	}
}

// Rule 12: time is doubted.
func TestUnsetClockDeniesWhateverDependsOnTime(t *testing.T) {
	w := newWorld(t)
	for _, at := range []time.Time{w.now, {}, time.Unix(0, 0), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)} {
		for right, want := range map[string]Reason{"in schedule": ReasonClockUnset, "out of schedule": ReasonClockUnset, "always": ReasonGranted} {
			q := w.query(situation{onList: true, state: Active, kind: Staff, validity: "unbounded", right: right, clock: ClockUnset, freshness: Fresh})
			q.At = at
			if d := Decide(q); d.Reason != want {
				t.Errorf("right %q at %v: got %q, want %q", right, at, d.Reason, want)
			}
		}
	}
}

func TestDecidingAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	everySituation(usual, 1, func(s situation) {
		q := w.query(s)
		if n := testing.AllocsPerRun(10, func() { Decide(q) }); n != 0 {
			t.Errorf("%+v: %v allocations", s, n)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	w := newWorld(b)
	for name, right := range map[string]string{"granted": "in schedule", "denied": "out of schedule"} {
		q := w.query(situation{onList: true, state: Active, kind: Staff, validity: "within", right: right, clock: ClockSynchronised, freshness: Fresh})
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Decide(q)
			}
		})
		b.Run(name+", allocations", func(b *testing.B) {
			b.ReportMetric(testing.AllocsPerRun(1000, func() { Decide(q) }), "got-allocs/op")
			b.ReportMetric(0, "max-allocs/op")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func ExampleExplain() {
	zone, _ := time.LoadLocation("Europe/Amsterdam")
	office, _ := NewSchedule("office", map[string][]string{"mon-fri": {"07:00-19:00"}}, nil)
	steps, d := Explain(&Query{
		Door: "server-room-a", Direction: In, At: time.Date(2026, 3, 7, 11, 0, 0, 0, time.UTC), Zone: zone, Clock: ClockSynchronised,
		Policy: Policy{Version: 7, Age: 3 * time.Hour, Freshness: Fresh},
		Rules:  []Rule{{office, []Factor{Badge}}, {Always(), []Factor{Badge | Fingerprint, Badge | Iris}}}, Given: Badge, Possible: Fingerprint,
		Entry: &Entry{Person: "p-1001", Kind: Staff, State: Active, Rights: []Right{{"server-room-a", office}}},
	})
	for _, s := range steps {
		fmt.Println(s.OK, s.Text)
	}
	fmt.Println(d.Reason)
	// Output:
	// true The allowlist is version 7, known to be current 3 h ago: fresh.
	// true The card is on it, and belongs to p-1001 (staff).
	// true The credential is active.
	// true Its validity has no bounds.
	// true The person has a right to door "server-room-a": office (mon-fri 07:00-19:00).
	// false It is Sat 2026-03-07 12:00 CET on site: out of schedule.
	// true On the way in the door asks for badge+fingerprint or badge+iris (schedule always).
	// false Given: badge; next may come fingerprint.
	// out_of_schedule
}
