package access

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// situation is a query described by what is the case, not by how a query says
// it: the rules below are stated over these words. It is of a door on whose other
// side is the area "vault", and of the person p-1.
type situation struct {
	unreadable bool
	freshness  Freshness
	excepted   bool // the kind may enter under an expired allowlist
	clock      ClockState
	clockKind  bool // the kind may enter while the clock is unset
	direction  Direction
	onList     bool
	state      State
	kind       Kind
	validity   string // unbounded, not begun, at its first moment, within, at its last moment, over
	right      string
	breakGlass bool
	code       string // "": a badge; a code that is here, elsewhere, used

	disabled    string // by: door, command
	lockdown    bool
	threat      Threat
	clearance   Threat
	firstPerson string // waiting, begun, supervisor
	passback    Passback
	timed       bool
	where       string // "": nowhere known; outside, inside, inside since long, elsewhere
	exempt      bool
	occupants   string // "": not counted; room for one, room for two, full
	interlocked bool
	locked      string // person, reader
	factor      string // "": all were given; missing, unavailable, refused
	over        bool
	duress      string // denied, granted
	escorted    bool
	mayEscort   bool
	visitEscort string // "": none is named
	company     string // "": alone
	twoPerson   bool
}

// usual is the situation in which nothing stands in the way.
var usual = situation{freshness: Fresh, clock: ClockSynchronised, direction: In, onList: true, state: Active, kind: Staff, validity: "unbounded", right: "in schedule"}

// aspect is one thing that can be otherwise than usual.
type aspect []func(*situation)

func otherwise[T any](set func(*situation, T), values ...T) aspect {
	var a aspect
	for _, v := range values {
		a = append(a, func(s *situation) { set(s, v) })
	}
	return a
}

var aspects = []aspect{
	otherwise(func(s *situation, v bool) { s.unreadable = v }, true),
	otherwise(func(s *situation, v Freshness) { s.freshness = v }, Stale, Expired, Absent, "", "rotten"),
	otherwise(func(s *situation, v bool) { s.excepted = v }, true),
	otherwise(func(s *situation, v ClockState) { s.clock = v }, ClockDrifting, ClockUnset, ""),
	otherwise(func(s *situation, v bool) { s.clockKind = v }, true),
	otherwise(func(s *situation, v Direction) { s.direction = v }, Out),
	otherwise(func(s *situation, v bool) { s.onList = v }, false),
	otherwise(func(s *situation, v State) { s.state = v }, Lost, Revoked, "", "asleep"),
	otherwise(func(s *situation, v Kind) { s.kind = v }, Contractor, Visitor, "cat"),
	otherwise(func(s *situation, v string) { s.validity = v }, "not begun", "first moment", "within", "last moment", "over"),
	otherwise(func(s *situation, v string) { s.right = v }, "none", "other door", "always", "out of schedule", "every door, in schedule",
		"out of schedule and always", "other door always, this out of schedule", "no timetable"),
	otherwise(func(s *situation, v bool) { s.breakGlass = v }, true),
	otherwise(func(s *situation, v string) { s.code = v }, "here", "elsewhere", "used"),
	otherwise(func(s *situation, v string) { s.disabled = v }, "door", "command"),
	otherwise(func(s *situation, v bool) { s.lockdown = v }, true),
	otherwise(func(s *situation, v Threat) { s.threat = v }, 1, 3, MaxThreat, MaxThreat+1),
	otherwise(func(s *situation, v Threat) { s.clearance = v }, 1, 3, MaxThreat),
	otherwise(func(s *situation, v string) { s.firstPerson = v }, "waiting", "begun", "supervisor"),
	otherwise(func(s *situation, v Passback) { s.passback = v }, PassbackSoft, PassbackHard, "firm"),
	otherwise(func(s *situation, v bool) { s.timed = v }, true),
	otherwise(func(s *situation, v string) { s.where = v }, "outside", "inside", "inside since long", "elsewhere"),
	otherwise(func(s *situation, v bool) { s.exempt = v }, true),
	otherwise(func(s *situation, v string) { s.occupants = v }, "room for one", "room for two", "full"),
	otherwise(func(s *situation, v bool) { s.interlocked = v }, true),
	otherwise(func(s *situation, v string) { s.locked = v }, "person", "reader"),
	otherwise(func(s *situation, v string) { s.factor = v }, "missing", "unavailable", "refused"),
	otherwise(func(s *situation, v bool) { s.over = v }, true),
	otherwise(func(s *situation, v string) { s.duress = v }, "denied", "granted"),
	otherwise(func(s *situation, v bool) { s.escorted = v }, true),
	otherwise(func(s *situation, v bool) { s.mayEscort = v }, true),
	otherwise(func(s *situation, v string) { s.visitEscort = v }, "p-7", "p-9"),
	otherwise(func(s *situation, v string) { s.company = v }, "escort", "host", "colleague", "supervisor", "visitor", "another card"),
	otherwise(func(s *situation, v bool) { s.twoPerson = v }, true),
}

// everySituation visits every situation in which up to so many things are
// otherwise than in s: what two or three rules make of each other shows there.
func everySituation(s situation, things int, visit func(situation)) { vary(s, aspects, things, visit) }

func vary(s situation, among []aspect, things int, visit func(situation)) {
	visit(s)
	if things == 0 {
		return
	}
	for i, a := range among {
		for _, set := range a {
			next := s
			set(&next)
			vary(next, among[i+1:], things-1, visit)
		}
	}
}

// anySituation draws one in which any number of things are otherwise.
func anySituation(t *rapid.T) situation {
	s := usual
	for i, a := range aspects {
		if n := rapid.IntRange(0, 4*len(a)+3).Draw(t, fmt.Sprintf("aspect %d", i)); n < len(a) {
			a[n](&s)
		}
	}
	return s
}

// causes states the rules: each cause of a denial by itself, whatever else is
// the case. They are in no order.
func (s situation) causes() (all []Reason) {
	is := func(r Reason, cause bool) {
		if cause {
			all = append(all, r)
		}
	}
	is(ReasonUnreadable, s.unreadable)
	is(ReasonAllowlistAbsent, s.freshness != Fresh && s.freshness != Stale && s.freshness != Expired)
	is(ReasonUnknown, !s.onList)
	if !s.onList {
		return all
	}
	clock, in := s.clock == ClockSynchronised || s.clock == ClockDrifting, s.direction == In
	is(ReasonEntryInvalid, s.state != Active && s.state != Lost && s.state != Revoked || s.kind != Staff && s.kind != Contractor && s.kind != Visitor)
	is(ReasonRevoked, s.state == Revoked)
	is(ReasonLost, s.state == Lost)
	is(ReasonExpired, clock && (s.validity == "over" || s.validity == "last moment"))
	is(ReasonNotYetValid, clock && s.validity == "not begun")
	noRight := s.right == "none" || s.right == "other door"
	is(ReasonNoRight, noRight)
	is(ReasonWrongDoor, s.code == "elsewhere")
	is(ReasonCodeUsed, s.code == "used")

	is(ReasonDoorDisabled, s.disabled != "")
	is(ReasonLockdown, in && (s.clearance < s.threat || s.lockdown && s.clearance < MaxThreat))
	is(ReasonAllowlistExpired, s.freshness == Expired && !s.excepted)
	anytime := s.right == "always" || s.right == "out of schedule and always"
	inside := anytime || s.right == "in schedule" || s.right == "every door, in schedule"
	excused := s.clockKind && s.code == ""
	is(ReasonClockUnset, !clock && !excused && (s.validity != "unbounded" || !anytime && !noRight))
	is(ReasonClockUnset, !clock && excused && s.right == "no timetable")
	is(ReasonOutOfSchedule, clock && !inside && !noRight)

	waits := s.company == "" && (s.twoPerson || s.escorted)
	is(ReasonFirstPerson, in && s.firstPerson == "waiting" && s.company != "supervisor" && !waits)
	is(ReasonPassback, s.misplaced() && s.passback != PassbackSoft)
	is(ReasonPassbackTimed, in && s.timed && !s.exempt && s.where == "inside")
	is(ReasonOccupancy, in && (s.occupants == "full" || s.occupants == "room for one" && (s.second() || s.escorted || s.twoPerson)))
	is(ReasonInterlock, s.interlocked)
	is(ReasonPersonLockedOut, s.locked == "person")
	is(ReasonReaderLockedOut, s.locked == "reader")
	is(ReasonFactorMismatch, s.factor == "refused")
	is(ReasonFactorUnavailable, s.factor == "unavailable")
	is(ReasonFactorMissing, s.factor == "missing")
	is(ReasonEscortMissing, s.escorted && s.company != "host" && s.company != "supervisor" && (s.company != "escort" || s.visitEscort == "p-7"))
	is(ReasonSecondMissing, in && s.twoPerson && !s.second())
	is(ReasonDuress, s.duress == "denied")
	return all
}

// misplaced says whether anti-passback is against it.
func (s situation) misplaced() bool {
	in := s.where == "inside" || s.where == "inside since long"
	return s.passback != PassbackOff && !s.exempt && s.where != "" && in == (s.direction == In)
}

// second says whether another person passes too.
func (s situation) second() bool {
	return s.company == "escort" || s.company == "host" || s.company == "colleague" || s.company == "supervisor" || s.company == "visitor" && s.mayEscort && !s.escorted
}

// precedence is the documented order, written down a second time.
var precedence = []Reason{"unreadable", "allowlist_absent", "unknown", "revoked", "lost", "entry_invalid", "expired", "not_yet_valid", "no_right", "wrong_door",
	"code_used", "door_disabled", "lockdown", "allowlist_expired", "clock_unset", "out_of_schedule", "first_person", "passback", "passback_timed", "occupancy",
	"interlock", "person_locked_out", "reader_locked_out", "factor_mismatch", "factor_unavailable", "factor_missing", "escort_missing",
	"second_person_missing", "duress"}

var passedByBreakGlass = []Reason{"door_disabled", "lockdown", "allowlist_expired", "clock_unset", "out_of_schedule", "first_person", "passback", "passback_timed",
	"occupancy", "interlock", "person_locked_out", "reader_locked_out", "factor_mismatch", "factor_unavailable", "factor_missing", "escort_missing",
	"second_person_missing"}

func (s situation) want() Decision {
	present := s.causes()
	first := -1
	stopped := false
	for _, r := range present {
		if at := slices.Index(precedence, r); first < 0 || at < first {
			first = at
		}
		stopped = stopped || !slices.Contains(passedByBreakGlass, r)
	}
	var d Decision
	switch {
	case first < 0 && s.duress == "granted":
		d = Decision{Granted: true, Reason: "granted_duress"}
	case first < 0:
		d = Decision{Granted: true, Reason: "granted"}
	case s.breakGlass && s.code == "" && !stopped:
		d = Decision{Granted: true, Reason: "granted_break_glass", BreakGlass: true}
	default:
		d = Decision{Reason: precedence[first]}
	}
	switch {
	case d.Granted && s.misplaced() && s.passback == PassbackSoft:
		d.Against = "passback"
	case d.Reason == "factor_missing" && !s.over:
		d.More = PIN
	case d.Reason == "escort_missing" || d.Reason == "second_person_missing":
		d.Together = !s.over
	}
	return d
}

// world is what the words of a situation stand for.
type world struct {
	now      time.Time
	zone     *time.Location
	in, out  *Schedule
	validity map[string][2]time.Time
	rights   map[string][]Right
}

func newWorld(t testing.TB) world {
	w := world{now: time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC), zone: mustZone(t, "Europe/Amsterdam")} // Wednesday, 12:00 on site
	w.in = mustSchedule(t, "office", map[string][]string{"mon-fri": {"07:00-19:00"}})
	w.out = mustSchedule(t, "nights", map[string][]string{"mon-sun": {"22:00-06:00"}})
	year := 365 * 24 * time.Hour
	w.validity = map[string][2]time.Time{
		"unbounded":    {},
		"not begun":    {w.now.Add(time.Second), w.now.Add(year)},
		"first moment": {w.now, {}},
		"within":       {w.now.Add(-year), w.now.Add(year)},
		"last moment":  {{}, w.now},
		"over":         {w.now.Add(-year), w.now.Add(-time.Second)},
	}
	w.rights = map[string][]Right{
		"none":                       nil,
		"other door":                 {{"b", Always()}},
		"always":                     {{"a", Always()}},
		"in schedule":                {{"b", w.out}, {"a", w.in}},
		"out of schedule":            {{"a", w.out}},
		"every door, in schedule":    {{EveryDoor, w.in}},
		"out of schedule and always": {{"a", w.out}, {"a", Always()}},
		"other door always, this out of schedule": {{"b", Always()}, {"a", w.out}},
		"no timetable": {{"a", nil}},
	}
	return w
}

// vault is the area, with what is usual for it.
const vault = "vault"

func (w world) query(s situation) *Query {
	q := &Query{Door: "a", Direction: s.direction, At: w.now, Zone: w.zone, Clock: s.clock, Lockdown: s.lockdown, Unreadable: s.unreadable,
		Given: Badge, Over: s.over, Policy: Policy{Version: 3, Freshness: s.freshness}, PersonLocked: s.locked == "person", ReaderLocked: s.locked == "reader",
		Duress: s.duress != "", DuressOpens: s.duress == "granted"}
	if s.excepted {
		q.Policy.ExpiredKinds = []Kind{s.kind}
	}
	if s.onList {
		q.Entry = &Entry{Person: "p-1", Kind: s.kind, State: s.state, BreakGlass: s.breakGlass, Rights: w.rights[s.right],
			From: w.validity[s.validity][0], Until: w.validity[s.validity][1], Clearance: s.clearance, Exempt: s.exempt, Escorted: s.escorted,
			MayEscort: s.mayEscort, Supervisor: s.firstPerson == "supervisor", Visit: &Visit{Host: "p-8", Escort: s.visitEscort}}
		if s.code != "" {
			q.Given = OneTimeCode
			q.Entry.Code = &Code{ID: "c-1", Door: "a"}
		}
		if s.code == "elsewhere" {
			q.Entry.Code.Door = "b"
		}
	}
	w.place(q, s)
	q.Rules = []Rule{{Always(), []Factor{Badge, OneTimeCode}}}
	switch s.factor {
	case "missing":
		q.Rules, q.Possible = []Rule{{Always(), []Factor{Badge | PIN, OneTimeCode | PIN}}}, PIN
	case "unavailable":
		q.Rules = []Rule{{Always(), []Factor{Badge | PIN, OneTimeCode | PIN}}}
	case "refused":
		q.Refused = PIN
	}
	return q
}

func (w world) place(q *Query, s situation) {
	area := &Area{Name: vault, Passback: s.passback}
	q.Site = &Door{Name: "a", Into: area, TwoPerson: s.twoPerson, FirstPerson: s.firstPerson != ""}
	if s.clockKind {
		q.Site.ClockUnsetKinds = []Kind{s.kind}
	}
	q.Threat, q.Begun, q.CodeUsed = s.threat, s.firstPerson == "begun", s.code == "used"
	switch s.disabled {
	case "door":
		q.Site.Disabled = "the lock is being replaced"
	case "command":
		q.Disabled = "burglary"
	}
	if s.timed {
		area.Timed = 10 * time.Minute
	}
	q.Where = map[string]Whereabouts{"": {}, "outside": {Known: true}, "inside": {vault, true, 9 * time.Minute}, "inside since long": {vault, true, 10 * time.Minute},
		"elsewhere": {"lobby", true, time.Minute}}[s.where]
	if s.occupants != "" {
		area.Occupancy = 4
		q.Occupants = map[string]int{"room for two": 2, "room for one": 3, "full": 4}[s.occupants]
	}
	if s.interlocked {
		q.Interlocked = "b"
	}
	if c := w.company(s.company); c != nil {
		q.Company = []*Entry{c}
	}
}

func (w world) company(who string) *Entry {
	switch who {
	case "escort":
		return &Entry{Person: "p-9", Kind: Staff, State: Active, MayEscort: true}
	case "host":
		return &Entry{Person: "p-8", Kind: Staff, State: Active, MayEscort: true}
	case "colleague":
		return &Entry{Person: "p-2", Kind: Staff, State: Active}
	case "supervisor":
		return &Entry{Person: "p-8", Kind: Staff, State: Active, MayEscort: true, Supervisor: true} // who is the host
	case "visitor":
		return &Entry{Person: "v-1", Kind: Visitor, State: Active, Escorted: true}
	case "another card":
		return &Entry{Person: "p-1", Kind: Staff, State: Active, MayEscort: true}
	}
	return nil
}
