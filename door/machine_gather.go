package door

import (
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Tries is how often somebody may give a wrong factor in one attempt. Where a
// lock-out is nearer, it is less.
const Tries = 3

// Attempt is one person's attempt to pass at one side of the door, from the
// first factor on. Once it is concluded, the machine does not change it.
type Attempt struct {
	ID       uint64 // from 1; of one machine
	Side     access.Direction
	Person   string        // pseudonymous id
	Given    access.Factor // and proved
	More     access.Factor // of which any is asked for next
	Refused  access.Factor // the one that was given last and is not the person's; 0: none
	Duress   bool
	Until    time.Time // when it is over, unless another factor is given before
	Failures int       // factors that were refused
	Outcomes []visitorlog.FactorOutcome

	tries int
	who   *presented // the loop's own
}

// The events of gathering. Those with an In are of the attempt with that ID,
// and nothing if it is over.
type (
	// Proved is a factor that was given and is the person's. It begins an attempt
	// at its side or goes on with the same person's; somebody else's ends there.
	Proved struct {
		Side   access.Direction
		Person string
		Factor access.Factor
		Reader string // or scanner
		Duress bool
		More   access.Factor // of which any may come next; 0: nothing is waited for
		Tries  int           // how many wrong factors it may have: Tries, or less

		who *presented // the loop's own
	}
	// Failed is a factor that was given and is not the person's.
	Failed struct {
		Side    access.Direction
		In      uint64
		Factor  access.Factor
		Reader  string // or scanner
		Outcome string // as a record names it
	}
	// Unclear is a factor of which too little was seen.
	Unclear struct {
		Side access.Direction
		In   uint64 // 0: of no attempt
	}
	// Reconsidered says that other factors may come next than before, or none.
	Reconsidered struct {
		Side access.Direction
		In   uint64
		More access.Factor
	}
	// Lent ends the deciding at a side until it is Returned.
	Lent     struct{ Side access.Direction }
	Returned struct{ Side access.Direction }
	// LentShows is what is to be shown while a side is lent; empty: nothing.
	LentShows struct {
		Side    access.Direction
		Pattern Pattern
	}
)

func (Proved) event()       {}
func (Failed) event()       {}
func (Unclear) event()      {}
func (Reconsidered) event() {}
func (Lent) event()         {}
func (Returned) event()     {}
func (LentShows) event()    {}

// The commands of gathering.
type (
	// Ask asks for any of the attempt's More at its side, in the place of what was
	// asked for there before.
	Ask struct{ Attempt Attempt }
	// StopAsking asks for nothing more at a side.
	StopAsking struct{ Side access.Direction }
	// Conclude decides about an attempt and records it, exactly once.
	Conclude struct {
		Attempt *Attempt
		// Over means that it ended before all was given. It opens nothing then,
		// whatever the rules have become.
		Over   bool
		Gone   bool   // because another person came
		Detail string // why, where it is not that time ran out or a factor was wrong
	}
)

func (Ask) command()        {}
func (StopAsking) command() {}
func (Conclude) command()   {}

// gathering is one side of the door.
type gathering struct {
	side    access.Direction
	attempt *Attempt // nil: none
	asking  bool
	lent    bool
	shows   Pattern // while lent
}

// Attempt is the attempt at a side that is not concluded.
func (m *Machine) Attempt(side access.Direction) (Attempt, bool) {
	if g := m.gathering(side); g.attempt != nil {
		a := *g.attempt
		a.Outcomes = slices.Clone(a.Outcomes)
		return a, true
	}
	return Attempt{}, false
}

// Lent reports whether a side is lent.
func (m *Machine) Lent(side access.Direction) bool { return m.gathering(side).lent }

func (m *Machine) gathering(side access.Direction) *gathering {
	if side == access.Out {
		return &m.sides[1]
	}
	return &m.sides[0]
}

// current is the attempt of an event; nil if it is over.
func (g *gathering) current(id uint64) *Attempt {
	if g.attempt != nil && g.attempt.ID == id {
		return g.attempt
	}
	return nil
}

func (s *step) proved(ev Proved) {
	m, g := s.m, s.m.gathering(ev.Side)
	if g.lent {
		return
	}
	if g.attempt != nil && g.attempt.Person != ev.Person {
		s.end(g, Conclude{Over: true, Gone: true, Detail: "another person came"})
	}
	if g.attempt == nil {
		m.attempts++
		g.attempt = &Attempt{ID: m.attempts, Side: g.side, Person: ev.Person, tries: Tries}
	}
	a := g.attempt
	if a.Given&^ev.Factor == 0 || !a.Given.Has(ev.Factor) { // one that is given again makes no other one newer
		a.Until = s.now.Add(m.window)
	}
	if !a.Given.Has(ev.Factor) {
		a.Given |= ev.Factor
		a.Refused = 0
		a.Outcomes = append(a.Outcomes, visitorlog.FactorOutcome{
			Factor: ev.Factor.String(), Outcome: visitorlog.OutcomeProved, Reader: ev.Reader,
		})
	}
	a.Duress = a.Duress || ev.Duress
	a.tries = min(a.tries, ev.Tries)
	a.More, a.who = ev.More, ev.who
	if a.More == 0 || m.lockdown {
		s.conclude(g, false, "")
		return
	}
	s.ask(g)
	m.briefEnd = time.Time{} // whoever is asked need not see what became of others
}

func (s *step) ask(g *gathering) {
	g.asking = true
	a := *g.attempt
	a.Outcomes = slices.Clone(a.Outcomes)
	s.do(Ask{a})
}

func (s *step) failed(ev Failed) {
	g := s.m.gathering(ev.Side)
	a := g.current(ev.In)
	if a == nil {
		return
	}
	a.Refused = ev.Factor
	a.Failures++
	a.Outcomes = append(a.Outcomes, visitorlog.FactorOutcome{
		Factor: ev.Factor.String(), Outcome: ev.Outcome, Reader: ev.Reader,
	})
	if a.Failures >= a.tries {
		s.conclude(g, true, "")
		return
	}
	s.show(TryAgain)
}

func (s *step) unclear(ev Unclear) {
	g := s.m.gathering(ev.Side)
	if !g.lent && (ev.In == 0 || g.current(ev.In) != nil) {
		s.show(TryAgain)
	}
}

func (s *step) reconsidered(ev Reconsidered) {
	g := s.m.gathering(ev.Side)
	a := g.current(ev.In)
	if a == nil || a.More == ev.More {
		return
	}
	if a.More = ev.More; a.More == 0 {
		// Only a factor that is given may open, not a rule that has become easier.
		s.conclude(g, true, "")
		return
	}
	s.ask(g)
}

// conclude ends an attempt. Over: before all was given.
func (s *step) conclude(g *gathering, over bool, detail string) {
	s.end(g, Conclude{Over: over, Detail: detail})
}

func (s *step) end(g *gathering, c Conclude) {
	c.Attempt, g.attempt = g.attempt, nil
	if g.asking {
		g.asking = false
		s.do(StopAsking{g.side})
	}
	s.do(c)
}

// giveUp ends every attempt.
func (s *step) giveUp(why string) {
	for i := range s.m.sides {
		if g := &s.m.sides[i]; g.attempt != nil {
			s.conclude(g, true, why)
		}
	}
}

// timeOut ends the attempts whose time is over.
func (s *step) timeOut() {
	for i := range s.m.sides {
		if g := &s.m.sides[i]; g.attempt != nil && s.due(g.attempt.Until) {
			s.conclude(g, true, "")
		}
	}
}

func (s *step) lend(side access.Direction) {
	g := s.m.gathering(side)
	if g.attempt != nil {
		s.conclude(g, true, "the reader was lent to enrol somebody")
	}
	g.lent, g.shows = true, ""
}

func (s *step) returned(side access.Direction) {
	g := s.m.gathering(side)
	g.lent, g.shows = false, ""
}

func (s *step) lentShows(ev LentShows) {
	if g := s.m.gathering(ev.Side); g.lent {
		g.shows = ev.Pattern
	}
}

// asked is what the door's indicator, of which there is one for both sides,
// shows of what is asked for: the newest. It is empty if nothing is.
func (m *Machine) asked() Pattern {
	var newest *Attempt
	for i := range m.sides {
		if g := &m.sides[i]; g.asking && (newest == nil || g.attempt.Until.After(newest.Until)) {
			newest = g.attempt
		}
	}
	if newest == nil {
		return ""
	}
	return newest.pattern()
}

// pattern shows the first of what the attempt asks for.
func (a *Attempt) pattern() Pattern {
	switch more := a.More; {
	case more.Has(access.Badge): // few sets do without
		return AskBadge
	case more.Has(access.Fingerprint):
		return AskFingerprint
	case more.Has(access.Iris):
		return AskIris
	default:
		return AskPIN
	}
}

// lentShows is what is shown for whoever borrowed a side.
func (m *Machine) lentShows() Pattern {
	for i := range m.sides {
		if p := m.sides[i].shows; p != "" {
			return p
		}
	}
	return ""
}
