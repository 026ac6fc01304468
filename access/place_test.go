package access

import (
	"testing"
	"time"
)

// Each rule by an example; what they make of each other is in decide_test.go.
func TestWhoIsWhereDecides(t *testing.T) {
	w := newWorld(t)
	area := func(change func(*Area)) *Door {
		a := &Area{Name: vault}
		change(a)
		return &Door{Name: "a", Into: a}
	}
	hard, soft := area(func(a *Area) { a.Passback = PassbackHard }), area(func(a *Area) { a.Passback = PassbackSoft })
	timed, four := area(func(a *Area) { a.Timed = 10 * time.Minute }), area(func(a *Area) { a.Occupancy = 4 })
	inside, outside, lobby := Whereabouts{vault, true, time.Hour}, Whereabouts{Known: true}, Whereabouts{"lobby", true, time.Hour}
	granted, against := Decision{Granted: true, Reason: "granted"}, Decision{Granted: true, Reason: "granted", Against: "passback"}
	denied := func(r Reason) Decision { return Decision{Reason: r} }
	for name, c := range map[string]struct {
		door   *Door
		way    Direction
		s      Situation
		exempt bool
		want   Decision
	}{
		"in, and in already":                    {hard, In, Situation{Where: inside}, false, denied("passback")},
		"in, and outside":                       {hard, In, Situation{Where: outside}, false, granted},
		"in, and elsewhere":                     {hard, In, Situation{Where: lobby}, false, granted},
		"in, never seen":                        {hard, In, Situation{}, false, granted},
		"in, and in already, but exempt":        {hard, In, Situation{Where: inside}, true, granted},
		"out, and in":                           {hard, Out, Situation{Where: inside}, false, granted},
		"out, and outside":                      {hard, Out, Situation{Where: outside}, false, denied("passback")},
		"out, and elsewhere":                    {hard, Out, Situation{Where: lobby}, false, denied("passback")},
		"out, never seen":                       {hard, Out, Situation{}, false, granted},
		"softly in, and in already":             {soft, In, Situation{Where: inside}, false, against},
		"softly out, and outside":               {soft, Out, Situation{Where: outside}, false, against},
		"softly in, and in already, but exempt": {soft, In, Situation{Where: inside}, true, granted},
		"in again too soon":                     {timed, In, Situation{Where: Whereabouts{vault, true, 10*time.Minute - 1}}, false, denied("passback_timed")},
		"in again late enough":                  {timed, In, Situation{Where: Whereabouts{vault, true, 10 * time.Minute}}, false, granted},
		"in again too soon, but exempt":         {timed, In, Situation{Where: Whereabouts{vault, true, 0}}, true, granted},
		"in again, but that was reset":          {timed, In, Situation{Where: Whereabouts{Area: vault}}, false, granted},
		"out soon":                              {timed, Out, Situation{Where: Whereabouts{vault, true, 0}}, false, granted},
		"room for one":                          {four, In, Situation{Occupants: 3}, false, granted},
		"full":                                  {four, In, Situation{Occupants: 4}, false, denied("occupancy")},
		"overfull":                              {four, In, Situation{Occupants: 5}, false, denied("occupancy")},
		"out of a full one":                     {four, Out, Situation{Occupants: 5}, false, granted},
		"out through a man-trap":                {hard, Out, Situation{Interlocked: "b"}, false, denied("interlock")},
		"out at the highest threat":             {hard, Out, Situation{Threat: MaxThreat}, false, granted},
		"in at the highest threat":              {hard, In, Situation{Threat: MaxThreat}, false, denied("lockdown")},
		"out of a disabled door":                {hard, Out, Situation{Disabled: "repair"}, false, denied("door_disabled")},
		"through a door of which nothing is said, at a threat": {nil, In, Situation{Threat: 1}, false, denied("lockdown")},
	} {
		q := atDoor(w)
		q.Site, q.Direction, q.Situation, q.Entry.Exempt = c.door, c.way, c.s, c.exempt
		if got := Decide(q); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestSomePassOnlyTogether(t *testing.T) {
	w := newWorld(t)
	colleague, mayEscort := &Entry{Person: "p-2"}, &Entry{Person: "p-3", MayEscort: true}
	host, escort := &Entry{Person: "p-4", MayEscort: true}, &Entry{Person: "p-5", MayEscort: true}
	visit := &Visit{Host: "p-4", Escort: "p-5"}
	visitor := &Entry{Person: "v-2", Kind: Visitor, Escorted: true, Visit: visit}
	lacksEscort, lacksSecond := Decision{Reason: "escort_missing", Together: true}, Decision{Reason: "second_person_missing", Together: true}
	granted := Decision{Granted: true, Reason: "granted"}
	for name, c := range map[string]struct {
		escorted bool
		visit    *Visit
		two      bool
		way      Direction
		over     bool
		company  []*Entry
		want     Decision
	}{
		"a visitor alone":                              {escorted: true, want: lacksEscort},
		"a visitor alone, and time is up":              {escorted: true, over: true, want: Decision{Reason: "escort_missing"}},
		"a visitor who leaves alone":                   {escorted: true, way: Out, want: lacksEscort},
		"with somebody who may escort":                 {escorted: true, company: []*Entry{mayEscort}, want: granted},
		"with somebody who may not":                    {escorted: true, company: []*Entry{colleague}, want: lacksEscort},
		"with two, of whom one may":                    {escorted: true, company: []*Entry{colleague, mayEscort}, want: granted},
		"with the escort of the visit":                 {escorted: true, visit: visit, company: []*Entry{escort}, want: granted},
		"with the host of the visit":                   {escorted: true, visit: visit, company: []*Entry{host}, want: granted},
		"with another one's escort":                    {escorted: true, visit: visit, company: []*Entry{mayEscort}, want: lacksEscort},
		"with a host who may not escort":               {escorted: true, visit: &Visit{Host: "p-2"}, company: []*Entry{colleague}, want: lacksEscort},
		"a visit that names no escort":                 {escorted: true, visit: &Visit{Host: "p-4"}, company: []*Entry{mayEscort}, want: granted},
		"with another card of one's own":               {escorted: true, company: []*Entry{{Person: "p-1", MayEscort: true}}, want: lacksEscort},
		"one of two":                                   {two: true, want: lacksSecond},
		"one of two, and time is up":                   {two: true, over: true, want: Decision{Reason: "second_person_missing"}},
		"one who leaves":                               {two: true, way: Out, want: granted},
		"two":                                          {two: true, company: []*Entry{colleague}, want: granted},
		"two cards of one":                             {two: true, company: []*Entry{{Person: "p-1"}}, want: lacksSecond},
		"two, of whom one is a visitor who stays back": {two: true, company: []*Entry{visitor}, want: lacksSecond},
		"a visitor with the escort, two at a time":     {two: true, escorted: true, visit: visit, company: []*Entry{escort}, want: granted},
		"the two of them with a visitor":               {two: true, company: []*Entry{visitor, escort}, want: granted},
	} {
		q := atDoor(w)
		q.Site, q.Company, q.Over = &Door{Name: "a", TwoPerson: c.two}, c.company, c.over
		q.Entry.Escorted, q.Entry.Visit = c.escorted, c.visit
		if c.way == Out {
			q.Direction = Out
		}
		if got := Decide(q); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// Of a visitor and an escort who come in either order, the second finds the first
// waiting: whoever is decided then lets both in or neither.
func TestWhoComesTogetherPassesInEitherOrder(t *testing.T) {
	w := newWorld(t)
	two := &Door{Name: "a", TwoPerson: true, Into: &Area{Name: vault, Occupancy: 4}}
	person := func(id string, change func(*Entry)) *Entry {
		e := *atDoor(w).Entry
		e.Person = id
		change(&e)
		return &e
	}
	visitor := person("v-1", func(e *Entry) { e.Escorted, e.Visit = true, &Visit{Host: "p-2", Escort: "p-3"} })
	for name, c := range map[string]struct {
		other     *Entry
		occupants int
		want      bool
	}{
		"the host":                      {person("p-2", func(e *Entry) { e.MayEscort = true }), 2, true},
		"the escort":                    {person("p-3", func(e *Entry) { e.MayEscort = true }), 2, true},
		"the escort, and room for one":  {person("p-3", func(e *Entry) { e.MayEscort = true }), 3, false},
		"an escort of another visitor":  {person("p-4", func(e *Entry) { e.MayEscort = true }), 0, false},
		"another visitor":               {person("v-2", func(e *Entry) { e.Escorted = true }), 0, false},
		"a colleague who may not do it": {person("p-5", func(*Entry) {}), 0, false},
	} {
		for _, pair := range [][2]*Entry{{visitor, c.other}, {c.other, visitor}} {
			q := atDoor(w)
			q.Site, q.Occupants = two, c.occupants
			q.Entry, q.Company = pair[1], []*Entry{pair[0]}
			if d := Decide(q); d.Granted != c.want {
				t.Errorf("%s, %s second: %+v", name, pair[1].Person, d)
			}
		}
	}
}

// Where nobody passes alone, the first ones of the day are a supervisor and whoever
// comes along, in either order.
func TestASupervisorTakesSomebodyAlong(t *testing.T) {
	w := newWorld(t)
	supervisor, colleague := &Entry{Person: "p-2", Supervisor: true}, &Entry{Person: "p-3"}
	for name, c := range map[string]struct {
		two, escorted, begun bool
		company              []*Entry
		want                 Decision
	}{
		"alone":                            {want: Decision{Reason: "first_person"}},
		"alone, on another day's begin":    {begun: true, want: Decision{Granted: true, Reason: "granted"}},
		"the first of two":                 {two: true, want: Decision{Reason: "second_person_missing", Together: true}},
		"with a supervisor":                {two: true, company: []*Entry{supervisor}, want: Decision{Granted: true, Reason: "granted"}},
		"with a colleague":                 {two: true, company: []*Entry{colleague}, want: Decision{Reason: "first_person"}},
		"a visitor alone":                  {escorted: true, want: Decision{Reason: "escort_missing", Together: true}},
		"a visitor with a supervisor":      {escorted: true, company: []*Entry{{Person: "p-2", Supervisor: true, MayEscort: true}}, want: Decision{Granted: true, Reason: "granted"}},
		"a visitor with somebody's escort": {escorted: true, company: []*Entry{{Person: "p-2", MayEscort: true}}, want: Decision{Reason: "first_person"}},
	} {
		q := atDoor(w)
		q.Site, q.Company, q.Begun = &Door{Name: "a", FirstPerson: true, TwoPerson: c.two}, c.company, c.begun
		q.Entry.Escorted = c.escorted
		if got := Decide(q); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

func TestACodeOpensOneDoorOnce(t *testing.T) {
	w := newWorld(t)
	byCode := []Rule{{Always(), []Factor{Badge, OneTimeCode}}}
	for name, c := range map[string]struct {
		code  *Code
		rules []Rule
		used  bool
		want  Reason
	}{
		"its door":                     {&Code{"c-1", "a"}, byCode, false, "granted"},
		"another door":                 {&Code{"c-1", "b"}, byCode, false, "wrong_door"},
		"no door":                      {&Code{"c-1", ""}, byCode, false, "wrong_door"},
		"used before":                  {&Code{"c-1", "a"}, byCode, true, "code_used"},
		"a door that asks for a badge": {&Code{"c-1", "a"}, []Rule{{Always(), []Factor{Badge}}}, false, "factor_unavailable"},
		"a door that asks for nothing particular":   {&Code{"c-1", "a"}, nil, false, "factor_unavailable"},
		"who was not found by it":                   {nil, byCode, false, "factor_unavailable"},
		"a door that asks for a device's code, too": {&Code{"c-1", "a"}, []Rule{{Always(), []Factor{OneTimeCode | TOTP}}}, false, "factor_unavailable"},
	} {
		q := atDoor(w)
		q.Given, q.Rules, q.Entry.Code, q.CodeUsed = OneTimeCode, c.rules, c.code, c.used
		if d := Decide(q); d.Reason != c.want {
			t.Errorf("%s: %+v, want %s", name, d, c.want)
		}
	}
	q := atDoor(w)
	q.Given, q.CodeUsed = Badge, true
	if d := Decide(q); !d.Granted {
		t.Errorf("a badge is denied for a code that was used: %+v", d)
	}
	q.Given, q.Entry.BreakGlass, q.Entry.Code = OneTimeCode, true, &Code{"c-1", "a"}
	if d := Decide(q); d.Granted {
		t.Errorf("a code broke the glass: %+v", d)
	}
	q.Given, q.Rules, q.CodeUsed, q.Entry.BreakGlass = Badge, byCode, false, false
	if d := Decide(q); d.Granted {
		t.Errorf("who was found by a code passes with a badge: %+v", d)
	}
}

// Rule 12: time is doubted.
func TestADoorMayTakeSomeKindsWithoutAClock(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		right, validity string
		kinds           []Kind
		clock           ClockState
		code            *Code
		want            Reason
	}{
		"of the kind, in a schedule":           {"in schedule", "unbounded", []Kind{Staff}, ClockUnset, nil, "granted"},
		"of the kind, out of one, as it seems": {"out of schedule", "over", []Kind{Visitor, Staff}, ClockUnset, nil, "granted"},
		"of another kind":                      {"in schedule", "unbounded", []Kind{Visitor}, ClockUnset, nil, "clock_unset"},
		"by a code":                            {"always", "within", []Kind{Staff}, ClockUnset, &Code{"c-1", "a"}, "clock_unset"},
		"with a clock":                         {"out of schedule", "unbounded", []Kind{Staff}, ClockDrifting, nil, "out_of_schedule"},
		"with a clock, expired":                {"in schedule", "over", []Kind{Staff}, ClockSynchronised, nil, "expired"},
		"without a right":                      {"none", "unbounded", []Kind{Staff}, ClockUnset, nil, "no_right"},
	} {
		s := usual
		s.right, s.validity, s.clock = c.right, c.validity, c.clock
		q := w.query(s)
		q.Site, q.Entry.Code = &Door{Name: "a", ClockUnsetKinds: c.kinds}, c.code
		if d := Decide(q); d.Reason != c.want {
			t.Errorf("%s: %+v, want %s", name, d, c.want)
		}
	}
}

func TestClearanceIsUpToALevel(t *testing.T) {
	w := newWorld(t)
	for level := range MaxThreat + 1 {
		for clearance := range MaxThreat + 1 {
			q := atDoor(w)
			q.Threat, q.Entry.Clearance = level, clearance
			if d := Decide(q); d.Granted != (clearance >= level) {
				t.Errorf("at level %d with clearance %d: %+v", level, clearance, d)
			}
		}
	}
}

func TestAKeySwitchIsTheHighestLevel(t *testing.T) {
	w := newWorld(t)
	for clearance, want := range map[Threat]bool{0: false, MaxThreat - 1: false, MaxThreat: true} {
		q := atDoor(w)
		q.Lockdown, q.Entry.Clearance = true, clearance
		if d := Decide(q); d.Granted != want {
			t.Errorf("with clearance %d: %+v", clearance, d)
		}
	}
}
