// Package door runs one door: Machine is what the door does, as a pure
// function of events; Door is the loop that feeds it from readers and
// contacts, writes its records and moves its strike.
package door

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	// Grace is how long after relocking an opening still counts as authorised:
	// the door was already moving, or its contact bounced as it fell shut.
	Grace = 500 * time.Millisecond
	// SignalFor is how long denied and fault are shown.
	SignalFor = 2 * time.Second
	// IdentifyFor is how long a door shows which one it is.
	IdentifyFor = 15 * time.Second
)

// Times are a door's times.
type Times struct {
	Unlock         time.Duration // how long a grant unlocks the door
	UnlockExtended time.Duration // the same for a person who needs longer
	HeldAfter      time.Duration // how long the door may stand open; longer by the same difference for such a person
	HeldWarning    time.Duration // how long before that the warning begins
	ExitShunt      time.Duration // how long after a request to exit an opening is not forced
}

// DefaultTimes are times that suit most doors.
func DefaultTimes() Times {
	return Times{
		Unlock:         5 * time.Second,
		UnlockExtended: 15 * time.Second,
		HeldAfter:      30 * time.Second,
		HeldWarning:    10 * time.Second,
		ExitShunt:      10 * time.Second,
	}
}

// Validate names everything that is wrong with the times.
func (t Times) Validate() error {
	var errs []error
	if t.Unlock <= 0 {
		errs = append(errs, fmt.Errorf("unlock: %v is not longer than zero", t.Unlock))
	}
	if t.UnlockExtended < t.Unlock {
		errs = append(errs, fmt.Errorf("unlock_extended: %v is shorter than unlock, %v", t.UnlockExtended, t.Unlock))
	}
	if t.HeldAfter <= 0 {
		errs = append(errs, fmt.Errorf("held_after: %v is not longer than zero", t.HeldAfter))
	}
	if t.HeldWarning < 0 || t.HeldWarning >= t.HeldAfter {
		errs = append(errs, fmt.Errorf("held_warning: %v is not between zero and held_after, %v", t.HeldWarning, t.HeldAfter))
	}
	if t.ExitShunt < 0 {
		errs = append(errs, fmt.Errorf("rex_shunt: %v is shorter than zero", t.ExitShunt))
	}
	return errors.Join(errs...)
}

// Grant is a decision about a person: the leave to pass, unless Decided says
// otherwise. The machine does not change it.
type Grant struct {
	Sequence   uint64 // of the decision's record, when Durable
	Durable    bool   // the decision's record is on disk
	Person     string // pseudonymous id
	Kind       access.Kind
	Reader     string
	Direction  access.Direction
	Extended   bool
	BreakGlass bool
	Clearance  access.Threat // the highest threat at which it opens the way in
	Area       string        // that the passage is into, or out of
	At         time.Time     // when the last factor was given

	traces     []trace // in the log's state, to be taken back if nobody passes
	late       *uint64 // the sequence of a record that was written late; the recorder's own
	lateTraces []trace // what it left; the recorder's own
}

// Pattern is what an indicator shows.
type Pattern string

// The patterns.
const (
	Idle        Pattern = "idle"
	Waiting     Pattern = "waiting" // a decision takes unusually long
	Granted     Pattern = "granted" // the door is unlocked
	Denied      Pattern = "denied"  // steadily during a lockdown
	Fault       Pattern = "fault"   // a part is broken, or a record could not be written
	HeldWarning Pattern = "held_warning"
	TryAgain    Pattern = "try_again" // too little was seen of a finger, or it was the wrong one

	// What somebody is asked for next.
	AskBadge       Pattern = "ask_badge"
	AskPIN         Pattern = "ask_pin"
	AskFingerprint Pattern = "ask_fingerprint"
	AskIris        Pattern = "ask_iris"
	AskCompany     Pattern = "ask_company" // of another person, to pass together with

	ShowDoor Pattern = "identify" // which door it is, to somebody who looks for it
)

// Contact is what is known of the door leaf.
type Contact string

// The positions of a door.
const (
	NoContact      Contact = "none" // the door has no position switch
	ContactUnknown Contact = "unknown"
	DoorClosed     Contact = "closed"
	DoorOpen       Contact = "open"
)

// Event is something that happened.
type Event interface{ event() }

// The events. The contact is unknown until the first Opened or Closed, which
// say where the door is rather than that it moved.
type (
	// Started is the first event of every machine.
	Started struct{}
	// Decided is a decision about somebody at a reader. A grant whose record
	// is not durable opens nothing, unless it breaks the glass.
	Decided struct {
		Granted bool
		Grant   *Grant // nil unless Granted or Duress
		// With is the same of whoever passes together with that person; nil: nobody.
		With       *Grant
		Duress     bool // the person is threatened: nothing at the door may show it
		WithDuress bool // the other one is
		// Gone means that somebody else stands there now: a denial is not shown.
		Gone bool
		// TooLate means that nobody can be expected to wait any longer.
		TooLate bool
	}
	// DecisionDelayed means that a decision has no answer yet.
	DecisionDelayed struct{}
	Opened          struct{}
	Closed          struct{}
	// ContactLost means that the position is no longer known.
	ContactLost struct{}
	// ExitRequested is the state of the request-to-exit button or sensor. It
	// moves nothing: people leave by the handle.
	ExitRequested   struct{ Active bool }
	LockdownChanged struct{ Active bool }
	// ThreatChanged is another level of threat. It is recorded where it was ordered.
	ThreatChanged struct{ Level access.Threat }
	// DisabledChanged says whether nobody passes for the time being.
	DisabledChanged struct{ Active bool }
	// FreeBegan unlocks the door for everybody, until FreeEnded or whatever else ends
	// it. Its record is durable, and the end makes another.
	FreeBegan struct{}
	FreeEnded struct{ Why string }
	// UnlockOrdered unlocks the door once, on somebody's order, which is recorded.
	UnlockOrdered struct {
		Grant   *Grant // of nobody
		TooLate bool   // nobody can be expected to wait any longer
	}
	// IdentifyOrdered has the indicator show which door it is.
	IdentifyOrdered struct{}
	TamperChanged   struct{ Active bool }
	// FaultChanged says whether any part of the door is broken.
	FaultChanged struct{ Active bool }
	// Stopped locks at once: the program ends, or a part of it failed in a
	// way that nobody foresaw.
	Stopped struct{ Why string }
	// Tick is the passing of time.
	Tick struct{}
)

func (Started) event()         {}
func (Decided) event()         {}
func (DecisionDelayed) event() {}
func (Opened) event()          {}
func (Closed) event()          {}
func (ContactLost) event()     {}
func (ExitRequested) event()   {}
func (LockdownChanged) event() {}
func (ThreatChanged) event()   {}
func (DisabledChanged) event() {}
func (FreeBegan) event()       {}
func (FreeEnded) event()       {}
func (UnlockOrdered) event()   {}
func (IdentifyOrdered) event() {}
func (TamperChanged) event()   {}
func (FaultChanged) event()    {}
func (Stopped) event()         {}
func (Tick) event()            {}

// Command is something to do. Commands are carried out in order.
type Command interface{ command() }

// The commands.
type (
	Unlock struct{ Grant *Grant }
	Lock   struct{}
	// Record is a record to write, exactly once.
	Record struct {
		Type   visitorlog.Type
		Grant  *Grant // the decision that it follows from, or nil
		Active *bool  // of a state: whether it began or ended
		Detail string
	}
	// Signal is what the indicator shows from now on.
	Signal struct{ Pattern Pattern }
	// Alarm calls people.
	Alarm struct {
		Type  visitorlog.Type
		Grant *Grant
	}
)

func (Unlock) command() {}
func (Lock) command()   {}
func (Record) command() {}
func (Signal) command() {}
func (Alarm) command()  {}

// State is what can be seen of a machine.
type State struct {
	Locked   bool
	Until    time.Time // when it relocks, unless Locked or Free
	Free     bool      // unlocked for everybody
	Threat   access.Threat
	Disabled bool
	Contact  Contact
	Forced   bool
	Held     bool
	Warning  bool // it will soon be held
	Lockdown bool
	Tamper   bool
	Pattern  Pattern
}

// Machine is the door. It starts nothing, reads no clock, and does what its
// commands say only through whoever carries them out: the first event must be
// Started, and Step must be called, with Tick if nothing else happens, when
// the time that Next names has come. Times passed in must not go backwards.
//
// Who passed is known only as well as one contact can tell:
//   - Everybody who was granted in one unlocked time and had not yet passed is
//     recorded as having passed when the door opens; when they were several,
//     each record says so. A person wrongly counted in costs a search in an
//     evacuation, one wrongly left out may cost a life.
//   - Who is granted while the door stands open is recorded at once, and the
//     record says so.
//   - Badging again in the same direction replaces the first grant, which is
//     recorded as not entered.
//   - Closing the door relocks it for everybody.
//   - A door that is open when its contact is first read, or read again, may
//     have been opened by anybody: it is not forced, but may be held.
//   - Without a contact, or while it is broken, nothing is recorded of a
//     passage, nor are forced and held doors noticed.
//   - While the door is free for everybody it may stand open; who presents a
//     badge is decided about and recorded as ever.
type Machine struct {
	times   Times
	contact Contact
	until   time.Time // it is unlocked for grants; zero: it is not
	free    bool      // it is unlocked for everybody
	waiting []*Grant  // whose passage is not known yet
	// grace is when an opening stops to count as authorised though the door
	// is locked, and when those in waiting have not entered. Zero: it has.
	grace    time.Time
	exit     bool // the request to exit is active
	exitEnds time.Time
	lockdown bool
	threat   access.Threat
	disabled bool
	tamper   bool
	fault    bool
	forced   bool
	held     bool
	unseen   bool      // nobody saw the door open: it was so when the contact was first read
	openedAt time.Time // while open
	warnAt   time.Time // zero: not to come
	heldAt   time.Time // zero: not to come
	warning  bool
	window   time.Duration
	sides    [2]gathering // In and Out
	attempts uint64       // that were begun
	brief    Pattern      // shown over everything else
	briefEnd time.Time    // zero: no brief
	shown    Pattern
}

// NewMachine makes a door's machine, which is locked. The times must be valid,
// and the window, from one factor to the next, longer than zero.
func NewMachine(t Times, window time.Duration, hasContact bool) *Machine {
	m := &Machine{
		times: t, window: window, contact: NoContact,
		sides: [...]gathering{{side: access.In}, {side: access.Out}},
	}
	if hasContact {
		m.contact = ContactUnknown
	}
	return m
}

// State is the machine's present state.
func (m *Machine) State() State {
	return State{
		Locked:   !m.unlocked(),
		Until:    m.until,
		Free:     m.free,
		Threat:   m.threat,
		Disabled: m.disabled,
		Contact:  m.contact,
		Forced:   m.forced,
		Held:     m.held,
		Warning:  m.warning && !m.held,
		Lockdown: m.lockdown,
		Tamper:   m.tamper,
		Pattern:  m.shown,
	}
}

func (m *Machine) unlocked() bool { return m.free || !m.until.IsZero() }

// level is the level of threat that holds: a lockdown by the door's own input is
// the highest.
func (m *Machine) level() access.Threat {
	if m.lockdown {
		return access.MaxThreat
	}
	return m.threat
}

// bars is why a grant opens nothing any more; "": it does.
func (m *Machine) bars(g *Grant) string {
	switch {
	case g.BreakGlass:
		return ""
	case m.disabled:
		return "the door was disabled"
	case g.Direction == access.Out || g.Clearance >= m.level():
		return ""
	case m.level() == access.MaxThreat:
		return "a lockdown began"
	}
	return "the level of threat rose"
}

// Next is when the machine wants its next Tick; zero: not before something
// else happens.
func (m *Machine) Next() time.Time {
	var next time.Time
	for _, t := range [...]time.Time{m.until, m.grace, m.warnAt, m.heldAt, m.briefEnd} {
		next = earlier(next, t)
	}
	for i := range m.sides {
		if a := m.sides[i].attempt; a != nil {
			next = earlier(next, a.Until)
		}
		for _, a := range m.sides[i].waiting {
			next = earlier(next, a.Until)
		}
	}
	return next
}

// earlier is the earlier of two times of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Step takes an event at its time and says what to do.
func (m *Machine) Step(now time.Time, ev Event) []Command {
	s := step{m: m, now: now}
	s.passTime()
	switch ev := ev.(type) {
	case Started:
		s.do(Lock{})
	case Decided:
		s.decided(ev)
	case DecisionDelayed:
		s.show(Waiting)
	case Opened:
		s.opened()
	case Closed:
		s.closed()
	case ContactLost:
		s.contactLost()
	case ExitRequested:
		s.exitRequested(ev.Active)
	case LockdownChanged:
		s.lockdownChanged(ev.Active)
	case TamperChanged:
		if m.tamper != ev.Active {
			m.tamper = ev.Active
			s.do(Record{Type: visitorlog.Tamper, Active: &ev.Active})
			if ev.Active {
				s.do(Alarm{Type: visitorlog.Tamper})
				s.giveUp("the door was tampered with")
			}
		}
	case FaultChanged:
		m.fault = ev.Active
	case ThreatChanged:
		s.threatChanged(ev.Level)
	case DisabledChanged:
		s.disabledChanged(ev.Active)
	case FreeBegan:
		s.freeBegan()
	case FreeEnded:
		s.endFree(ev.Why)
	case UnlockOrdered:
		s.unlockOrdered(ev)
	case IdentifyOrdered:
		s.showFor(ShowDoor, IdentifyFor)
	case Stopped:
		s.turnAway(ev.Why)
	case Proved:
		s.proved(ev)
	case Failed:
		s.failed(ev)
	case Unclear:
		s.unclear(ev)
	case Reconsidered:
		s.reconsidered(ev)
	case CompanyCame:
		s.companyCame(ev)
	case Lent:
		s.lend(ev.Side)
	case Returned:
		s.returned(ev.Side)
	case LentShows:
		s.lentShows(ev)
	case Tick:
	}
	s.signal()
	return s.out
}

// step is one call of Step.
type step struct {
	m         *Machine
	now       time.Time
	out       []Command
	showAgain bool // even if the pattern stays the same
}

func (s *step) do(c Command) { s.out = append(s.out, c) }

// due reports whether t is set and has come.
func (s *step) due(t time.Time) bool { return !t.IsZero() && !s.now.Before(t) }

// passTime does what time alone brings about.
func (s *step) passTime() {
	m := s.m
	if s.due(m.until) {
		s.relock()
		if m.contact == DoorClosed {
			m.grace = s.now.Add(Grace)
		}
	}
	if s.due(m.grace) {
		m.grace = time.Time{}
		s.notEntered("")
	}
	if s.due(m.warnAt) {
		m.warnAt = time.Time{}
		m.warning = true
	}
	if s.due(m.heldAt) {
		m.heldAt = time.Time{}
		m.held = true
		detail := ""
		if m.unseen {
			detail = "the door was open when its contact was first read"
		}
		s.do(Record{Type: visitorlog.DoorHeld, Detail: detail})
		s.do(Alarm{Type: visitorlog.DoorHeld})
	}
	if s.due(m.briefEnd) {
		m.briefEnd = time.Time{}
	}
	s.timeOut()
}

func (s *step) decided(ev Decided) {
	m, g := s.m, ev.Grant
	if !ev.Gone {
		m.briefEnd = time.Time{} // of waiting, of the one before, or of a factor's failure
	}
	switch {
	case !ev.Granted && ev.Gone:
	case !ev.Granted:
		s.show(Denied)
	case !g.Durable && !g.BreakGlass:
		s.show(Fault)
		s.refused(ev, "the decision could not be recorded in time")
	case ev.TooLate && !g.BreakGlass:
		s.show(Fault)
		s.refused(ev, "the decision took too long")
	case m.bars(g) != "":
		s.show(Denied)
		s.refused(ev, m.bars(g))
	case ev.With != nil && m.bars(ev.With) != "": // together or not at all
		s.show(Denied)
		s.refused(ev, m.bars(ev.With))
	default:
		s.grant(g)
		if ev.With != nil {
			s.grant(ev.With)
		}
	}
	if ev.Duress {
		s.duress(g)
	}
	if ev.WithDuress {
		s.duress(ev.With)
	}
}

// refused says of a grant that it opened nothing.
func (s *step) refused(ev Decided, why string) {
	s.passage(ev.Grant, false, "the door stayed locked: "+why)
	if ev.With != nil {
		s.passage(ev.With, false, "the door stayed locked: "+why)
	}
}

func (s *step) duress(g *Grant) {
	s.do(Record{Type: visitorlog.Duress, Grant: g})
	s.do(Alarm{visitorlog.Duress, g})
}

func (s *step) grant(g *Grant) {
	m := s.m
	longer := time.Duration(0)
	if g.Extended {
		longer = m.times.UnlockExtended - m.times.Unlock
	}
	s.unlock(g, s.now.Add(m.times.Unlock+longer))
	if m.asked() != "" { // of somebody on the other side, by the same light
		s.show(Granted)
	}
	if g.BreakGlass {
		s.do(Record{Type: visitorlog.BreakGlass, Grant: g})
		s.do(Alarm{visitorlog.BreakGlass, g})
	}
	switch m.contact {
	case DoorOpen:
		s.passage(g, true, "the door already stood open")
		if !m.forced && !m.held {
			s.mayStandOpen(longer)
		}
	case DoorClosed:
		again := func(w *Grant) bool { return w.Person == g.Person && w.Direction == g.Direction }
		for _, w := range m.waiting {
			if again(w) {
				s.passage(w, false, "badged again before the door opened")
			}
		}
		m.waiting = append(slices.DeleteFunc(m.waiting, again), g)
	}
}

// unlock unlocks the door for a grant. It never shortens the time of another.
func (s *step) unlock(g *Grant, until time.Time) {
	m := s.m
	if m.until.IsZero() {
		s.notEntered("") // those before: their time is over
		m.until = until
		if !m.free {
			s.do(Unlock{g})
		}
	} else if until.After(m.until) {
		m.until = until
	}
}

// unlockOrdered unlocks for whoever is there: nobody's passage is awaited.
func (s *step) unlockOrdered(ev UnlockOrdered) {
	m, g := s.m, ev.Grant
	why := m.bars(g)
	if ev.TooLate {
		why = "the record took too long"
	}
	if why != "" {
		s.do(Record{Type: visitorlog.OperatorAction, Grant: g, Detail: "the door stayed locked: " + why})
		return
	}
	s.unlock(g, s.now.Add(m.times.Unlock))
	if m.contact == DoorOpen && !m.forced && !m.held {
		s.mayStandOpen(0)
	}
}

func (s *step) freeBegan() {
	m := s.m
	if m.free {
		return
	}
	m.free = true
	if why := m.unfree(); why != "" {
		s.endFree(why)
		return
	}
	if m.until.IsZero() {
		s.do(Unlock{})
	}
	s.notOpen() // it may stand open
}

// unfree is why a door may not be free for everybody; "": it may.
func (m *Machine) unfree() string {
	switch {
	case m.level() == access.MaxThreat:
		return "a lockdown began"
	case m.level() > 0:
		return "the level of threat rose"
	case m.disabled:
		return "the door was disabled"
	case m.forced:
		return "the door was forced"
	}
	return ""
}

// endFree locks a door that was free for everybody, unless it is unlocked for
// somebody.
func (s *step) endFree(why string) {
	m := s.m
	if !m.free {
		return
	}
	m.free = false
	if m.until.IsZero() {
		s.do(Lock{})
	}
	ended := false
	s.do(Record{Type: visitorlog.FreeAccess, Active: &ended, Detail: why})
	if m.contact == DoorOpen {
		s.mayStandOpen(0)
	}
}

func (s *step) opened() {
	m := s.m
	if m.contact == DoorOpen || m.contact == NoContact {
		return
	}
	m.unseen = m.contact == ContactUnknown
	m.contact = DoorOpen
	m.openedAt = s.now
	detail := ""
	if n := len(m.waiting); n > 1 {
		detail = fmt.Sprintf("%d people were granted before the door opened once", n)
	}
	longer := time.Duration(0)
	for _, g := range m.waiting {
		s.passage(g, true, detail)
		if g.Extended {
			longer = m.times.UnlockExtended - m.times.Unlock
		}
	}
	m.waiting = nil
	authorised := m.unlocked() || s.now.Before(m.grace) || m.exit || s.now.Before(m.exitEnds) || m.unseen
	m.grace = time.Time{}
	switch {
	case m.forced: // before its contact broke: nothing new
	case authorised:
		s.mayStandOpen(longer)
	default:
		m.forced = true
		s.do(Record{Type: visitorlog.DoorForced})
		s.do(Alarm{Type: visitorlog.DoorForced})
	}
}

// mayStandOpen starts, or starts again, the time that the door may be open.
// It never shortens it.
func (s *step) mayStandOpen(longer time.Duration) {
	m := s.m
	if m.free {
		return
	}
	heldAt := s.now.Add(m.times.HeldAfter + longer)
	if heldAt.After(m.heldAt) {
		m.heldAt = heldAt
		m.warnAt, m.warning = time.Time{}, false
		if m.times.HeldWarning > 0 {
			m.warnAt = heldAt.Add(-m.times.HeldWarning)
		}
	}
}

func (s *step) closed() {
	m := s.m
	if m.contact == DoorClosed || m.contact == NoContact {
		return
	}
	wasOpen := m.contact == DoorOpen
	m.contact = DoorClosed
	if wasOpen {
		s.relock()
		if !m.forced {
			m.grace = s.now.Add(Grace) // the contact may bounce
		}
		if !m.exit {
			m.exitEnds = time.Time{} // used up
		}
	}
	switch open := s.now.Sub(m.openedAt).Round(time.Second); {
	case m.forced:
		s.do(Record{Type: visitorlog.DoorClosed, Detail: fmt.Sprintf("forced %v before", open)})
	case m.held:
		s.do(Record{Type: visitorlog.DoorClosed, Detail: fmt.Sprintf("opened %v before", open)})
	}
	m.forced, m.held = false, false
	s.notOpen()
}

// contactLost forgets what only the contact could have told. A door that was
// forced or held stays so until it is seen closed.
func (s *step) contactLost() {
	m := s.m
	if m.contact == NoContact {
		return
	}
	m.contact = ContactUnknown
	m.waiting = nil
	m.grace = time.Time{}
	s.notOpen()
}

func (s *step) notOpen() {
	m := s.m
	m.warnAt, m.heldAt, m.warning = time.Time{}, time.Time{}, false
}

func (s *step) exitRequested(active bool) {
	m := s.m
	if m.exit == active {
		return
	}
	// A sensor that sees people pass by asks again and again: one record for
	// as long as it goes on.
	if active && !s.now.Before(m.exitEnds) {
		s.do(Record{Type: visitorlog.RequestToExit})
	}
	m.exit = active
	m.exitEnds = s.now.Add(m.times.ExitShunt)
}

func (s *step) lockdownChanged(active bool) {
	m := s.m
	if m.lockdown == active {
		return
	}
	m.lockdown = active
	const why = "a lockdown began"
	if active {
		s.endFree(why)
		s.relock()
	}
	s.do(Record{Type: visitorlog.Lockdown, Active: &active})
	if active {
		s.notEntered(why)
		s.giveUp(why)
	}
}

func (s *step) threatChanged(level access.Threat) {
	before := s.m.level()
	s.m.threat = level
	switch after := s.m.level(); {
	case after <= before:
	case after == access.MaxThreat:
		s.turnAway("a lockdown began")
	default:
		s.turnAway("the level of threat rose")
	}
}

func (s *step) disabledChanged(active bool) {
	if s.m.disabled = active; active {
		s.turnAway("the door was disabled")
	}
}

// turnAway locks the door for everybody, and lets them begin anew.
func (s *step) turnAway(why string) {
	s.endFree(why)
	s.relock()
	s.notEntered(why)
	s.giveUp(why)
}

// relock locks the door if it is unlocked for grants.
func (s *step) relock() {
	if m := s.m; !m.until.IsZero() {
		m.until = time.Time{}
		if !m.free {
			s.do(Lock{})
		}
	}
}

// notEntered says of everybody whose passage was awaited that there was none.
// It ends the grace too.
func (s *step) notEntered(why string) {
	for _, g := range s.m.waiting {
		s.passage(g, false, why)
	}
	s.m.waiting = nil
	s.m.grace = time.Time{}
}

// passage records what became of a grant.
func (s *step) passage(g *Grant, passed bool, detail string) {
	t := visitorlog.PassageNotEntered
	if passed {
		t = visitorlog.PassageEntered
		if g.Direction == access.Out {
			t = visitorlog.PassageLeft
		}
	}
	s.do(Record{Type: t, Grant: g, Detail: detail})
}

// show shows a pattern for a short time.
func (s *step) show(p Pattern) { s.showFor(p, SignalFor) }

func (s *step) showFor(p Pattern, lasts time.Duration) {
	s.m.brief, s.m.briefEnd = p, s.now.Add(lasts)
	s.showAgain = true
}

// signal shows the most urgent pattern.
func (s *step) signal() {
	m := s.m
	p := Idle
	switch {
	case !m.briefEnd.IsZero():
		p = m.brief
	case m.asked() != "":
		p = m.asked()
	case m.warning || m.held:
		p = HeldWarning
	case m.unlocked():
		p = Granted
	case m.lentShows() != "":
		p = m.lentShows()
	case m.fault:
		p = Fault
	case m.level() == access.MaxThreat, m.disabled:
		p = Denied
	}
	if p != m.shown || s.showAgain {
		m.shown = p
		s.do(Signal{p})
	}
}
