package access

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var single = []Factor{Badge, PIN, Fingerprint, Iris, OneTimeCode, TOTP}

// atDoor is a query of somebody whom nothing but the factors keeps out.
func atDoor(w world) *Query {
	s := usual
	s.right = "always"
	return w.query(s)
}

func TestADoorAsksForItsFactors(t *testing.T) {
	w := newWorld(t)
	two := []Rule{{Always(), []Factor{Badge | Fingerprint}}}
	either := []Rule{{Always(), []Factor{Badge | Fingerprint, Badge | Iris}}}
	byDay := []Rule{{w.in, []Factor{Badge}}, {Always(), []Factor{Badge | PIN}}}    // it is day
	byNight := []Rule{{w.out, []Factor{Badge}}, {Always(), []Factor{Badge | PIN}}} // it is not night
	stricter := []Rule{{w.in, []Factor{Badge | Fingerprint}}, {Always(), []Factor{Badge | PIN}}}
	noFinger := []Substitution{{Fingerprint, PIN}}
	for name, c := range map[string]struct {
		q    Query // of which the factors count
		own  []Substitution
		want Decision
	}{
		"no rules, a badge":                          {q: Query{Given: Badge}, want: Decision{Granted: true, Reason: "granted"}},
		"no rules, no badge yet":                     {q: Query{Given: Fingerprint, Possible: Badge}, want: Decision{Reason: "factor_missing", More: Badge}},
		"no rules, never a badge":                    {q: Query{Given: Fingerprint}, want: Decision{Reason: "factor_unavailable"}},
		"a badge alone":                              {q: Query{Rules: two, Given: Badge, Possible: Badge | Fingerprint}, want: Decision{Reason: "factor_missing", More: Fingerprint}},
		"a badge alone, and time is up":              {q: Query{Rules: two, Given: Badge, Possible: Fingerprint, Over: true}, want: Decision{Reason: "factor_missing"}},
		"a finger first":                             {q: Query{Rules: two, Given: Fingerprint, Possible: Badge}, want: Decision{Reason: "factor_missing", More: Badge}},
		"both":                                       {q: Query{Rules: two, Given: Badge | Fingerprint}, want: Decision{Granted: true, Reason: "granted"}},
		"no scanner that works":                      {q: Query{Rules: two, Given: Badge, Possible: Badge | PIN}, want: Decision{Reason: "factor_unavailable"}},
		"no scanner that works, and time is up":      {q: Query{Rules: two, Given: Badge, Over: true}, want: Decision{Reason: "factor_unavailable"}},
		"any of two":                                 {q: Query{Rules: either, Given: Badge, Possible: Fingerprint | Iris}, want: Decision{Reason: "factor_missing", More: Fingerprint | Iris}},
		"any of two, of which one is possible":       {q: Query{Rules: either, Given: Badge, Possible: PIN | Iris}, want: Decision{Reason: "factor_missing", More: Iris}},
		"a wrong finger":                             {q: Query{Rules: two, Given: Badge, Possible: Fingerprint, Refused: Fingerprint}, want: Decision{Reason: "factor_missing", More: Fingerprint}},
		"a wrong finger, for the last time":          {q: Query{Rules: two, Given: Badge, Possible: Fingerprint, Refused: Fingerprint, Over: true}, want: Decision{Reason: "factor_mismatch"}},
		"a wrong finger at a scanner that fails":     {q: Query{Rules: two, Given: Badge, Refused: Fingerprint}, want: Decision{Reason: "factor_mismatch"}},
		"a wrong finger that counts as given":        {q: Query{Rules: two, Given: Badge | Fingerprint, Refused: Fingerprint, Over: true}, want: Decision{Reason: "factor_mismatch"}},
		"a wrong finger that counts as given, again": {q: Query{Rules: two, Given: Badge | Fingerprint, Possible: Fingerprint, Refused: Fingerprint}, want: Decision{Reason: "factor_missing", More: Fingerprint}},
		"a wrong finger where none is asked for":     {q: Query{Given: Badge, Refused: Fingerprint}, want: Decision{Reason: "factor_mismatch"}},
		"the first rule that holds":                  {q: Query{Rules: byDay, Given: Badge, Possible: PIN}, want: Decision{Granted: true, Reason: "granted"}},
		"a rule that does not hold":                  {q: Query{Rules: byNight, Given: Badge, Possible: PIN}, want: Decision{Reason: "factor_missing", More: PIN}},
		"no rule that holds":                         {q: Query{Rules: byNight[:1], Given: Badge, Possible: PIN}, want: Decision{Reason: "factor_unavailable"}},
		"no clock: all rules up to the last":         {q: Query{Rules: byDay, Given: Badge, Possible: PIN, Clock: ClockUnset}, want: Decision{Reason: "factor_missing", More: PIN}},
		"no clock, and all that any asks for":        {q: Query{Rules: byDay, Given: Badge | PIN, Clock: ClockUnset}, want: Decision{Granted: true, Reason: "granted"}},
		"no clock, and the first cannot be met":      {q: Query{Rules: stricter, Given: Badge, Possible: PIN, Clock: ClockUnset}, want: Decision{Reason: "factor_unavailable"}},
		"no clock, and the last cannot be met":       {q: Query{Rules: stricter, Given: Badge, Possible: Fingerprint, Clock: ClockUnset}, want: Decision{Reason: "factor_unavailable"}},
		"no clock, and what the first asks for":      {q: Query{Rules: stricter, Given: Badge | PIN, Possible: Fingerprint, Clock: ClockUnset}, want: Decision{Reason: "factor_missing", More: Fingerprint}},
		"no clock, and no rule without bounds":       {q: Query{Rules: byDay[:1], Given: Badge, Clock: ClockUnset}, want: Decision{Reason: "factor_unavailable"}},
		"another factor instead":                     {q: Query{Rules: two, Given: Badge, Possible: PIN | Fingerprint}, own: noFinger, want: Decision{Reason: "factor_missing", More: PIN}},
		"another factor instead, given":              {q: Query{Rules: two, Given: Badge | PIN}, own: noFinger, want: Decision{Granted: true, Reason: "granted"}},
		"another factor instead that counts twice":   {q: Query{Rules: []Rule{{Always(), []Factor{Badge | PIN | Fingerprint}}}, Given: Badge | PIN, Possible: Fingerprint}, own: noFinger, want: Decision{Reason: "factor_unavailable"}},
		"two factors become one":                     {q: Query{Rules: []Rule{{Always(), []Factor{Fingerprint | Iris}}}, Given: PIN}, own: []Substitution{{Fingerprint, PIN}, {Iris, PIN}}, want: Decision{Reason: "factor_unavailable"}},
		"a substitution of two by one":               {q: Query{Rules: []Rule{{Always(), []Factor{Fingerprint | Iris}}}, Given: PIN}, own: []Substitution{{Fingerprint | Iris, PIN}}, want: Decision{Reason: "factor_unavailable"}},
		"a badge instead of a code":                  {q: Query{Rules: []Rule{{Always(), []Factor{OneTimeCode}}}, Given: Badge}, own: []Substitution{{OneTimeCode, Badge}}, want: Decision{Reason: "factor_unavailable"}},
		"a device's code, where there is a keypad":   {q: Query{Rules: []Rule{{Always(), []Factor{Badge | TOTP}}}, Given: Badge, Possible: TOTP}, want: Decision{Reason: "factor_missing", More: TOTP}},
		"a code of whom a badge says who it is":      {q: Query{Rules: []Rule{{Always(), []Factor{Badge | OneTimeCode}}}, Given: Badge | OneTimeCode}, want: Decision{Reason: "factor_unavailable"}},
		"a finger that may not open alone":           {q: Query{Rules: []Rule{{Always(), []Factor{Fingerprint}}}, Given: Fingerprint, Weak: Fingerprint}, want: Decision{Reason: "factor_unavailable"}},
		"a finger that may not, beside a badge":      {q: Query{Rules: two, Given: Badge | Fingerprint, Weak: Fingerprint}, want: Decision{Granted: true, Reason: "granted"}},
		"another instead that may not open alone":    {q: Query{Rules: []Rule{{Always(), []Factor{Fingerprint}}}, Given: PIN, Weak: PIN}, own: noFinger, want: Decision{Reason: "factor_unavailable"}},
		"an empty set":                               {q: Query{Rules: []Rule{{Always(), []Factor{0}}}, Given: Badge}, want: Decision{Reason: "factor_unavailable"}},
		"a set of what is not known":                 {q: Query{Rules: []Rule{{Always(), []Factor{Badge | 1<<7}}}, Given: Badge | 1<<7}, want: Decision{Reason: "factor_unavailable"}},
		"a rule without sets":                        {q: Query{Rules: []Rule{{Always(), nil}}, Given: Badge}, want: Decision{Reason: "factor_unavailable"}},
		"a rule without a schedule":                  {q: Query{Rules: []Rule{{nil, []Factor{Badge}}}, Given: Badge}, want: Decision{Reason: "factor_unavailable"}},
		"a person who is locked out":                 {q: Query{Given: Badge, PersonLocked: true}, want: Decision{Reason: "person_locked_out"}},
		"a reader that is locked out":                {q: Query{Given: Badge, ReaderLocked: true}, want: Decision{Reason: "reader_locked_out"}},
		"locked out, before a finger is asked for":   {q: Query{Rules: two, Given: Badge, Possible: Fingerprint, PersonLocked: true, ReaderLocked: true}, want: Decision{Reason: "person_locked_out"}},
		"a threat, and the door stays locked":        {q: Query{Given: Badge, Duress: true}, want: Decision{Reason: "duress"}},
		"a threat, and the door opens":               {q: Query{Given: Badge, Duress: true, DuressOpens: true}, want: Decision{Granted: true, Reason: "granted_duress"}},
		"a threat shows only when all was given":     {q: Query{Rules: two, Given: Fingerprint, Possible: Badge, Duress: true}, want: Decision{Reason: "factor_missing", More: Badge}},
		"a threat opens no door that is locked out":  {q: Query{Given: Badge, Duress: true, DuressOpens: true, ReaderLocked: true}, want: Decision{Reason: "reader_locked_out"}},
	} {
		q, base := c.q, atDoor(w)
		q.Door, q.At, q.Zone, q.Policy, q.Entry = base.Door, base.At, base.Zone, base.Policy, base.Entry
		if q.Clock == "" {
			q.Clock = base.Clock
		}
		q.Entry.Instead = c.own
		if got := Decide(&q); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestABadgeThatBreaksTheGlassNeedsNoOtherFactor(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		q    Query
		want Reason
	}{
		"alone":                              {Query{Given: Badge}, "granted_break_glass"},
		"locked out":                         {Query{Given: Badge, PersonLocked: true, ReaderLocked: true}, "granted_break_glass"},
		"with a wrong finger":                {Query{Given: Badge, Refused: Fingerprint, Over: true}, "granted_break_glass"},
		"not presented":                      {Query{Given: Fingerprint, Possible: Badge}, "factor_missing"},
		"not presented, and locked out":      {Query{Given: Badge | Fingerprint, ReaderLocked: true, Duress: true}, "reader_locked_out"},
		"under a threat":                     {Query{Given: Badge | PIN, Duress: true}, "factor_missing"},
		"under a threat, with all factors":   {Query{Given: Badge | Fingerprint, Duress: true}, "duress"},
		"under a threat, at one which opens": {Query{Given: Badge | PIN, Duress: true, DuressOpens: true}, "granted_break_glass"},
		"with all factors":                   {Query{Given: Badge | Fingerprint}, "granted"},
	} {
		q := atDoor(w)
		q.Entry.BreakGlass = true
		q.Rules = []Rule{{Always(), []Factor{Badge | Fingerprint}}}
		q.Given, q.Possible, q.Refused, q.Over = c.q.Given, c.q.Possible|Fingerprint, c.q.Refused, c.q.Over
		q.Duress, q.DuressOpens, q.PersonLocked, q.ReaderLocked = c.q.Duress, c.q.DuressOpens, c.q.PersonLocked, c.q.ReaderLocked
		if got := Decide(q); got.Reason != c.want || got.BreakGlass != (c.want == "granted_break_glass") {
			t.Errorf("%s: got %+v, want %s", name, got, c.want)
		}
	}
}

// ask draws a query of somebody on the list, at a door with rules.
func ask(t *rapid.T, w world) *Query {
	set := rapid.Uint8Range(0, allFactors)
	factors := func(label string) Factor { return Factor(set.Draw(t, label)) }
	schedules := []*Schedule{Always(), w.in, w.out, nil}
	drawRule := rapid.Custom(func(t *rapid.T) Rule {
		return Rule{rapid.SampledFrom(schedules).Draw(t, "schedule"), rapid.SliceOfN(rapid.Map(set, func(n uint8) Factor { return Factor(n) }), 0, 3).Draw(t, "any of")}
	})
	flag := func(label string) bool { return rapid.IntRange(0, 9).Draw(t, label) == 0 }
	q := w.query(situation{onList: true,
		state:      rapid.SampledFrom([]State{Active, Active, Active, Active, Lost}).Draw(t, "state"),
		kind:       Staff,
		validity:   rapid.SampledFrom([]string{"unbounded", "unbounded", "unbounded", "within", "over"}).Draw(t, "validity"),
		right:      rapid.SampledFrom([]string{"always", "always", "always", "in schedule", "out of schedule", "none"}).Draw(t, "right"),
		breakGlass: flag("break-glass"), lockdown: flag("lockdown"),
		clock:     rapid.SampledFrom([]ClockState{ClockSynchronised, ClockDrifting, ClockUnset}).Draw(t, "clock"),
		freshness: Fresh, direction: In,
	})
	if flag("by code") {
		q.Entry.Code = &Code{ID: "c-1", Door: q.Door}
	}
	q.Rules = rapid.SliceOfN(drawRule, 0, 3).Draw(t, "rules")
	if rapid.Bool().Draw(t, "complete") {
		q.Rules = append(q.Rules, Rule{Always(), []Factor{factors("at any time")}})
	}
	q.Given, q.Possible, q.Weak = factors("given"), factors("possible"), factors("weak")&factors("weaker")
	q.Over, q.Duress, q.DuressOpens, q.PersonLocked, q.ReaderLocked = flag("over"), flag("duress"), flag("duress opens"), flag("person locked"), flag("reader locked")
	if flag("refused") {
		q.Refused = rapid.SampledFrom(single).Draw(t, "refused factor")
	}
	for range rapid.IntRange(0, 2).Draw(t, "substitutions") {
		q.Entry.Instead = append(q.Entry.Instead, Substitution{rapid.SampledFrom(single).Draw(t, "of"), rapid.SampledFrom(single).Draw(t, "by")})
	}
	return q
}

// forbidding are the causes of a denial, each by itself. None is passed by
// anything but a broken glass.
var forbidding = map[string]func(q *Query){
	"refused":             func(q *Query) { q.Refused = Iris },
	"a threat":            func(q *Query) { q.Duress, q.DuressOpens = true, false },
	"person locked":       func(q *Query) { q.PersonLocked = true },
	"reader locked":       func(q *Query) { q.ReaderLocked = true },
	"lockdown":            func(q *Query) { q.Lockdown, q.Direction, q.Entry.Clearance = true, In, MaxThreat-1 },
	"level of threat":     func(q *Query) { q.Threat, q.Direction, q.Entry.Clearance = 2, In, 1 },
	"revoked":             func(q *Query) { q.Entry.State = Revoked },
	"expired":             func(q *Query) { q.Clock, q.Entry.Until = ClockSynchronised, q.At },
	"no right":            func(q *Query) { q.Entry.Rights = nil },
	"out of schedule":     func(q *Query) { q.Clock, q.Entry.Rights = ClockSynchronised, []Right{{EveryDoor, &Schedule{}}} },
	"unknown":             func(q *Query) { q.Entry = nil },
	"unreadable":          func(q *Query) { q.Unreadable = true },
	"no allowlist":        func(q *Query) { q.Policy.Freshness = Absent },
	"expired allowlist":   func(q *Query) { q.Policy.Freshness, q.Policy.ExpiredKinds = Expired, nil },
	"no clock":            func(q *Query) { q.Clock, q.Entry.From, q.Site.ClockUnsetKinds = ClockUnset, q.At, nil },
	"no clock for a code": func(q *Query) { q.Clock, q.Entry.From, q.Entry.Code = ClockUnset, q.At, &Code{Door: q.Door} },
	"nothing given":       func(q *Query) { q.Given = 0 },
	"no rule holds":       func(q *Query) { q.Rules = []Rule{{nil, single}} },
	"only weak ones":      func(q *Query) { q.Rules, q.Weak = []Rule{{Always(), single}}, allFactors },
	"a code of a badge":   func(q *Query) { q.Rules, q.Entry.Code = []Rule{{Always(), []Factor{OneTimeCode}}}, nil },
	"another door's code": func(q *Query) { q.Entry.Code = &Code{Door: "b"} },
	"no door's code":      func(q *Query) { q.Entry.Code = &Code{} },
	"a used code":         func(q *Query) { q.Entry.Code, q.CodeUsed = &Code{Door: q.Door}, true },
	"disabled":            func(q *Query) { q.Site.Disabled = "repair" },
	"disabled by command": func(q *Query) { q.Disabled = "burglary" },
	"no first person": func(q *Query) {
		q.Site.FirstPerson, q.Direction, q.Begun, q.Entry.Supervisor, q.Company = true, In, false, false, []*Entry{{Person: "p-9", MayEscort: true}}
	},
	"in already": func(q *Query) {
		q.Site.Into.Passback, q.Direction, q.Entry.Exempt, q.Where = PassbackHard, In, false, Whereabouts{vault, true, time.Hour}
	},
	"not in": func(q *Query) {
		q.Site.Into.Passback, q.Direction, q.Entry.Exempt, q.Where = PassbackHard, Out, false, Whereabouts{Known: true}
	},
	"in again too soon": func(q *Query) {
		q.Site.Into.Timed, q.Direction, q.Entry.Exempt, q.Where = time.Hour, In, false, Whereabouts{vault, true, time.Hour - 1}
	},
	"full":              func(q *Query) { q.Site.Into.Occupancy, q.Occupants, q.Direction = 1, 1, In },
	"another door open": func(q *Query) { q.Interlocked = "b" },
	"no escort":         func(q *Query) { q.Entry.Escorted, q.Company = true, nil },
	"another's escort": func(q *Query) {
		q.Entry.Escorted, q.Entry.Visit, q.Company = true, &Visit{Host: "p-6", Escort: "p-7"}, []*Entry{{Person: "p-9", MayEscort: true}}
	},
	"an escort under escort": func(q *Query) {
		q.Entry.Escorted, q.Company = true, []*Entry{{Person: "p-9", MayEscort: true, Escorted: true}, nil}
	},
	"alone": func(q *Query) {
		q.Site.TwoPerson, q.Direction, q.Company = true, In, []*Entry{{Person: q.Entry.Person}, nil}
	},
	"with whom may not": func(q *Query) {
		q.Site.TwoPerson, q.Direction, q.Entry.MayEscort, q.Company = true, In, false, []*Entry{{Person: "v-1", Escorted: true}}
	},
}

// Rule 4: any one deny beats every grant, break-glass excepted.
func TestAnyOneCauseDeniesUnlessTheGlassIsBroken(t *testing.T) {
	w := newWorld(t)
	names := slices.Sorted(maps.Keys(forbidding))
	rapid.Check(t, func(t *rapid.T) {
		site := anySituation(t)
		site.onList = true
		q := ask(t, w)
		w.place(q, site)
		for _, name := range names {
			for given := range Factor(allFactors + 1) {
				forbidden, entry, door, area := *q, *q.Entry, *q.Site, *q.Site.Into
				forbidden.Entry, forbidden.Site, forbidden.Given = &entry, &door, given
				door.Into = &area
				forbidding[name](&forbidden)
				if d := Decide(&forbidden); d.Granted && !d.BreakGlass {
					t.Fatalf("%s, and granted with %v: %+v", name, given, d)
				}
			}
		}
	})
}

func TestMoreFactorsNeverTurnAGrantIntoADenial(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		q := ask(t, w)
		possible := q.Possible | Factor(rapid.Uint8Range(0, allFactors).Draw(t, "more possible"))
		for given := range Factor(allFactors + 1) {
			q.Given = given
			if !Decide(q).Granted {
				continue
			}
			for more := range Factor(allFactors + 1) {
				beside := *q
				beside.Given, beside.Possible = given|more, possible
				if d := Decide(&beside); !d.Granted {
					t.Fatalf("granted with %v, and with %v: %+v", given, given|more, d)
				}
			}
		}
	})
}

func TestASubstitutionIsNeverAWeakerDoor(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		q := ask(t, w)
		for q.Given = range Factor(allFactors + 1) {
			if d := Decide(q); !d.Granted || d.BreakGlass {
				continue
			}
			for _, rule := range Needs(q) {
				if !slices.ContainsFunc(rule.AnyOf, func(set Factor) bool { return set != 0 && set.Count() <= q.Given.Count() }) {
					t.Fatalf("%v opened where %v are asked for", q.Given, rule.AnyOf)
				}
			}
		}
	})
}

func TestAnUnsetClockIsNeverTheWeakerDoor(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		q := ask(t, w)
		for q.Given = range Factor(allFactors + 1) {
			q.Clock = ClockUnset
			if d := Decide(q); !d.Granted || d.BreakGlass {
				continue
			}
			q.Clock = ClockSynchronised
			for hour := range 7 * 24 {
				q.At = w.now.Add(time.Duration(hour) * time.Hour)
				if d := Decide(q); !d.Granted {
					t.Fatalf("%v opened without a clock, and at %v: %+v", q.Given, q.At, d)
				}
			}
		}
	})
}

func TestWhateverIsAskedForNextLeadsToAnOpenDoor(t *testing.T) {
	w := newWorld(t)
	followed := 0
	rapid.Check(t, func(t *rapid.T) {
		q := ask(t, w)
		q.Duress = false
		if rapid.Bool().Draw(t, "nothing in the way") { // or few cases would get far
			q.Entry.State, q.Entry.From, q.Entry.Until, q.Entry.BreakGlass = Active, time.Time{}, time.Time{}, false
			q.Entry.Rights = []Right{{EveryDoor, Always()}}
			q.Lockdown, q.PersonLocked, q.ReaderLocked, q.Over, q.Refused = false, false, false, false, 0
			q.Given, q.Possible, q.Weak = 0, allFactors, 0
		}
		d := Decide(q)
		for steps := 0; d.More != 0; steps++ {
			if d.Granted || d.Reason != ReasonFactorMissing || q.Over || steps == len(single) {
				t.Fatalf("%+v in step %d", d, steps)
			}
			if !q.Possible.Has(d.More) || d.More&q.Given&^q.Refused != 0 {
				t.Fatalf("asks for %v with %v given, %v refused, %v possible", d.More, q.Given, q.Refused, q.Possible)
			}
			var next []Factor
			for _, f := range single {
				if d.More.Has(f) {
					next = append(next, f)
				}
			}
			q.Given, q.Refused = q.Given&^q.Refused|rapid.SampledFrom(next).Draw(t, "next"), 0
			if d = Decide(q); d.More == 0 && !d.Granted {
				t.Fatalf("the way ends: %+v", d)
			}
			followed++
		}
	})
	if followed == 0 {
		t.Error("no way was followed")
	}
}

func TestExplanationsOfFactorsAgreeWithTheDecision(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		q := ask(t, w)
		steps, d := Explain(q)
		if d != Decide(q) {
			t.Fatalf("explained %+v", d)
		}
		ok := !slices.ContainsFunc(steps, func(s Step) bool { return !s.OK })
		if want := d.Granted && !d.BreakGlass; ok != want || len(steps) == 0 {
			t.Fatalf("decided %+v, explained %+v", d, steps)
		}
	})
}

// Whoever cannot get in is told so before giving a second factor.
func TestNobodyIsAskedForAFactorInVain(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		q := ask(t, w)
		more := Decide(q).More
		if more == 0 {
			return
		}
		q.Given, q.Refused, q.Duress = allFactors, 0, false
		if d := Decide(q); !d.Granted {
			t.Fatalf("asked for %v, and with everything given: %+v", more, d)
		}
	})
}

func TestDecidingAboutFactorsAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	q := atDoor(w)
	q.Rules = []Rule{{w.out, []Factor{Badge}}, {Always(), []Factor{Badge | Fingerprint, Badge | Iris}}}
	q.Entry.Instead = []Substitution{{Fingerprint, PIN}}
	q.Possible = PIN | Iris
	if n := testing.AllocsPerRun(100, func() { Decide(q) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFactorsReadBackAsTheyAreWritten(t *testing.T) {
	for f := Factor(1); f <= allFactors; f++ {
		if got, err := ParseFactors(f.String()); got != f || err != nil {
			t.Errorf("%s reads as %v, %v", f, got, err)
		}
	}
	for _, text := range []string{"", "badge+", "badge+badge", "retina", "Badge", "badge,pin"} {
		if got, err := ParseFactors(text); err == nil {
			t.Errorf("%q reads as %v", text, got)
		}
	}
}
