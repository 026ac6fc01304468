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
	waits time.Time  // for company until then; zero: it never did
	who   *presented // the loop's own
}

// maxWaiting is how many wait for company at a side.
const maxWaiting = 8

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
		More   access.Factor // of which any may come next; 0: no other factor is waited for
		Tries  int           // how many wrong factors it may have: Tries, or less
		// Clearance is the highest threat at which the person is asked for more on the
		// way in.
		Clearance access.Threat
		// Together is how long the person waits for another one, without whom they do
		// not pass; 0: they do not wait.
		Together time.Duration
		// With is who waits, and passes together with this person; 0: nobody.
		With uint64

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
	// CompanyCame says that whoever waits may pass: their company went before them.
	CompanyCame struct {
		Side access.Direction
		In   uint64
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
func (CompanyCame) event()  {}
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
	// Await says who waits for company at a side, the first before the others.
	Await struct {
		Side     access.Direction
		Attempts []Attempt
	}
	// Conclude decides about an attempt and records it, exactly once.
	Conclude struct {
		Attempt *Attempt
		With    *Attempt // concluded by the same record, as they pass together; nil: none
		// Over means that it ended before all was given. It opens nothing then,
		// whatever the rules have become.
		Over   bool
		Gone   bool   // because another person came
		Detail string // why, where it is not that time ran out or a factor was wrong
	}
)

func (Ask) command()        {}
func (StopAsking) command() {}
func (Await) command()      {}
func (Conclude) command()   {}

// gathering is one side of the door.
type gathering struct {
	side    access.Direction
	attempt *Attempt   // nil: none
	waiting []*Attempt // for company: of each person one
	asking  bool
	lent    bool
	shows   Pattern // while lent
}

// Attempt is the attempt at a side that factors are given in.
func (m *Machine) Attempt(side access.Direction) (Attempt, bool) {
	if g := m.gathering(side); g.attempt != nil {
		return g.attempt.clone(), true
	}
	return Attempt{}, false
}

// Waiting are the attempts at a side that wait for company, the first before the
// others.
func (m *Machine) Waiting(side access.Direction) []Attempt {
	var all []Attempt
	for _, a := range m.gathering(side).waiting {
		all = append(all, a.clone())
	}
	return all
}

func (a *Attempt) clone() Attempt {
	c := *a
	c.Outcomes = slices.Clone(a.Outcomes)
	return c
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
	if a := g.leaves(func(a *Attempt) bool { return a.Person == ev.Person }); a != nil { // and gives something again
		s.await(g)
		g.attempt = a
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
	if a.More != 0 {
		if ev.Side == access.In && ev.Clearance < m.level() { // nobody is asked in vain
			s.conclude(g, false, "")
			return
		}
		s.ask(g)
		m.briefEnd = time.Time{} // whoever is asked need not see what became of others
		return
	}
	if with := g.leaves(func(a *Attempt) bool { return a.ID == ev.With }); with != nil {
		s.await(g)
		s.end(g, Conclude{With: with})
		return
	}
	if ev.Together > 0 && len(g.waiting) < maxWaiting {
		s.wait(g, ev.Together)
		return
	}
	s.conclude(g, false, "")
}

// leaves takes the first attempt that is so out of those that wait; nil: there is
// none.
func (g *gathering) leaves(is func(*Attempt) bool) *Attempt {
	i := slices.IndexFunc(g.waiting, is)
	if i < 0 {
		return nil
	}
	a := g.waiting[i]
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return a
}

// wait has the attempt, in which all was given, wait for company. Whoever gives
// something again waits no longer for it.
func (s *step) wait(g *gathering, together time.Duration) {
	a := g.attempt
	if a.waits.IsZero() {
		a.waits = s.now.Add(together)
	}
	a.Until, a.More = a.waits, 0
	g.attempt = nil
	s.stopAsking(g)
	g.waiting = append(g.waiting, a)
	s.await(g)
	s.m.briefEnd = time.Time{}
}

// await makes known who waits.
func (s *step) await(g *gathering) { s.do(Await{g.side, s.m.Waiting(g.side)}) }

func (s *step) ask(g *gathering) {
	g.asking = true
	s.do(Ask{g.attempt.clone()})
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

func (s *step) companyCame(ev CompanyCame) {
	g := s.m.gathering(ev.Side)
	if a := g.leaves(func(a *Attempt) bool { return a.ID == ev.In }); a != nil {
		s.await(g)
		s.do(Conclude{Attempt: a})
	}
}

// conclude ends an attempt. Over: before all was given.
func (s *step) conclude(g *gathering, over bool, detail string) {
	s.end(g, Conclude{Over: over, Detail: detail})
}

func (s *step) end(g *gathering, c Conclude) {
	c.Attempt, g.attempt = g.attempt, nil
	s.stopAsking(g)
	s.do(c)
}

func (s *step) stopAsking(g *gathering) {
	if g.asking {
		g.asking = false
		s.do(StopAsking{g.side})
	}
}

// endWaiting ends those of the attempts that wait which are so.
func (s *step) endWaiting(g *gathering, is func(*Attempt) bool, why string) {
	for a := g.leaves(is); a != nil; a = g.leaves(is) {
		s.await(g)
		s.do(Conclude{Attempt: a, Over: true, Detail: why})
	}
}

// giveUp ends every attempt.
func (s *step) giveUp(why string) {
	for i := range s.m.sides {
		s.giveUpAt(&s.m.sides[i], why)
	}
}

func (s *step) giveUpAt(g *gathering, why string) {
	if g.attempt != nil {
		s.conclude(g, true, why)
	}
	s.endWaiting(g, func(*Attempt) bool { return true }, why)
}

// timeOut ends the attempts whose time is over.
func (s *step) timeOut() {
	for i := range s.m.sides {
		g := &s.m.sides[i]
		if g.attempt != nil && s.due(g.attempt.Until) {
			s.conclude(g, true, "")
		}
		s.endWaiting(g, func(a *Attempt) bool { return s.due(a.Until) }, "")
	}
}

func (s *step) lend(side access.Direction) {
	g := s.m.gathering(side)
	s.giveUpAt(g, "the reader was lent to enrol somebody")
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
	var pattern Pattern
	for i := range m.sides {
		g := &m.sides[i]
		if g.asking && (newest == nil || g.attempt.Until.After(newest.Until)) {
			newest, pattern = g.attempt, g.attempt.pattern()
		}
	}
	for i := range m.sides {
		if newest == nil && len(m.sides[i].waiting) > 0 {
			return AskCompany
		}
	}
	return pattern
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
