package door

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// side is what is known of one side of the door before the loop is asked.
type side struct {
	asked   atomic.Pointer[Attempt] // nil: nothing is asked for
	waiting atomic.Bool             // somebody waits for company
	gone    atomic.Pointer[[]leader]
	loan    atomic.Pointer[Loan]
}

// proved notes a factor that somebody gave.
func (p *presented) proved(f access.Factor, by string) {
	p.given |= f
	p.outcomes = append(p.outcomes, visitorlog.FactorOutcome{
		Factor: f.String(), Outcome: visitorlog.OutcomeProved, Reader: by,
	})
}

// lookUpEnrolled finds out at which scanners of the side something of somebody
// was enrolled.
func (d *Door) lookUpEnrolled(ctx context.Context, p *presented) {
	if len(d.scanners) == 0 {
		return
	}
	person, side := p.entry.Person, p.side
	p.has, p.enrolledErr = patiently(ctx, d, func() (has []bool, failed error) {
		has = make([]bool, len(d.scanners))
		for i, s := range d.scanners {
			if s.Direction != side {
				continue
			}
			n, err := d.enrolledAt(person, s)
			if err != nil {
				failed = err
			}
			has[i] = n > 0
		}
		return has, failed
	})
}

// patiently calls f, which may wait for the disk, and waits for it no longer
// than Patience: whoever comes next may break the glass.
func patiently[T any](ctx context.Context, d *Door, f func() (T, error)) (v T, err error) {
	select {
	case d.slow <- struct{}{}:
	default:
		return v, errDiskBusy
	}
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	d.parts.Go(func() {
		defer func() { <-d.slow }()
		var a answer
		a.err = guard(func() (err error) {
			a.v, err = f()
			return err
		})
		answers <- a
	})
	giveUp := time.NewTimer(Patience)
	defer giveUp.Stop()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-giveUp.C:
		return v, fmt.Errorf("no answer within %v", Patience)
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// possible are the factors that can be taken on a side now, and that somebody
// has.
func (d *Door) possible(p *presented) access.Factor {
	var f access.Factor
	status := d.status.Load()
	for i, r := range d.cfg.Readers {
		// What was just read says that its reader is well, before the status does.
		if r.Direction != p.side || status.Readers[i].Fault != "" && r.Name != p.by {
			continue
		}
		f |= r.Factor
		if r.Keypad != "" && p.entry != nil {
			if len(p.entry.PIN) > 0 {
				f |= access.PIN
			}
			if _, clock := d.cfg.Clock.Now(); len(p.entry.TOTP) > 0 && clock != access.ClockUnset {
				f |= access.TOTP
			}
		}
	}
	for i, s := range d.scanners {
		if s.Direction == p.side && s.well.Load() && len(p.has) > 0 && p.has[i] {
			f |= s.Factor
		}
	}
	return f
}

// weak are the factors of a side that may not open alone: anything on their
// wires could speak for their reader.
func (d *Door) weak(side access.Direction) access.Factor {
	var f access.Factor
	for _, r := range d.cfg.Readers {
		if r.Direction == side && r.Factor != access.Badge && !r.Alone && !authenticated(r.Reader) {
			f |= r.Factor
		}
	}
	for _, s := range d.scanners {
		if s.Direction == side && !s.Alone && !authenticated(s.Scanner) {
			f |= s.Factor
		}
	}
	return f
}

// authenticated reports whether a device says that nothing else can speak for
// it.
func authenticated(device any) bool {
	d, ok := device.(interface{ Authenticated() bool })
	if !ok {
		return false
	}
	var is bool
	err := guard(func() error { is = d.Authenticated(); return nil })
	return err == nil && is
}

// absent are the factors that a decision would have needed, and how they did
// not come.
func (d *Door) absent(p *presented, dec access.Decision) []visitorlog.FactorOutcome {
	var which access.Factor
	var outcome string
	switch dec.Reason {
	case access.ReasonFactorMissing:
		q := d.query(p)
		q.Over = false
		which, outcome = access.Decide(&q).More, visitorlog.OutcomeMissing
	case access.ReasonFactorUnavailable:
		q := d.query(p)
		for _, rule := range access.Needs(&q) {
			for _, set := range rule.AnyOf {
				which |= set
			}
		}
		which, outcome = which&^(q.Given|q.Possible), visitorlog.OutcomeUnavailable
	default:
		return nil
	}
	var all []visitorlog.FactorOutcome
	for _, name := range which.Names() {
		if !slices.ContainsFunc(p.outcomes, func(o visitorlog.FactorOutcome) bool { return o.Factor == name }) {
			all = append(all, visitorlog.FactorOutcome{Factor: name, Outcome: outcome, Reader: d.taker(p, name)})
		}
	}
	return all
}

// taker is the reader or scanner on somebody's side that takes a factor; that
// which identified them if none does.
func (d *Door) taker(p *presented, factor string) string {
	for _, s := range d.scanners {
		if s.Direction == p.side && s.Factor.String() == factor {
			return s.Name
		}
	}
	for _, r := range d.cfg.Readers {
		if r.Direction == p.side && (r.Factor.String() == factor || r.Keypad != "" && atKeypad(factor)) {
			return r.Name
		}
	}
	return p.reader
}

// atKeypad reports whether a factor is given at a keypad.
func atKeypad(factor string) bool {
	return factor == access.PIN.String() || factor == access.TOTP.String() || factor == access.OneTimeCode.String()
}

// admit takes somebody who was identified. If nothing more is to be asked for,
// and nothing is, the decision does not wait for the loop.
func (d *Door) admit(ctx context.Context, who *presented) {
	side := d.sides[who.side]
	d.lookUpKept(ctx, who)
	first := d.decide(who)
	if first.Reason == access.ReasonFactorMissing || first.Reason == access.ReasonFactorUnavailable {
		d.lookUpEnrolled(ctx, who) // which nobody else waits for
		d.lookUpLockouts(ctx, who)
		first = d.decide(who)
	}
	company := first.Together || who.entry != nil && side.waiting.Load()
	if first.More == 0 && !company && !who.bearsOn(side.asked.Load(), first) {
		d.judge(ctx, *who)
		return
	}
	d.post(ctx, func(l *loop) { l.identified(who) })
}

// bearsOn reports whether somebody at a side makes a difference to what is asked
// there. A card that nobody knows does not, or noise on a reader's wires would
// end an attempt; nor does somebody else's that opens nothing.
func (p *presented) bearsOn(asked *Attempt, first access.Decision) bool {
	switch {
	case asked == nil:
		return false
	case p.answers(asked), first.Granted:
		return true
	}
	return p.entry != nil && p.entry.Person == asked.Person
}

// answers reports whether a reader that matches by itself was asked for what it
// gives.
func (p *presented) answers(asked *Attempt) bool {
	return !p.unreadable && p.factor != access.Badge && asked.More.Has(p.factor)
}

// attempt is the attempt at a side to which something may be added: none once its
// time is over, though the tick that ends it is still to come.
func (l *loop) attempt(side access.Direction) (Attempt, bool) {
	a, ok := l.m.Attempt(side)
	return a, ok && time.Now().Before(a.Until)
}

// identified lets the machine gather what somebody gave.
func (l *loop) identified(who *presented) {
	l.sourcesOf(who)
	a, ok := l.attempt(who.side)
	switch same := ok && who.entry != nil && a.Person == who.entry.Person; {
	case same:
		who.goesOn(&a)
		l.prove(who)
	case ok && who.answers(&a):
		// It was asked for somebody's own, and saw somebody else's.
		l.step(Failed{a.Side, a.ID, who.factor, who.by, visitorlog.OutcomeNoMatch})
	case l.goesOnWaiting(who):
		l.prove(who)
	case who.entry == nil: // and what they would have answered is over
		l.judgeAside(*who)
	default:
		l.prove(who)
	}
}

// given lets the machine gather a factor that an attempt asked for.
func (l *loop) given(asked *Attempt, f access.Factor, by string, duress bool, step uint64, at time.Time) {
	a, ok := l.attempt(asked.Side)
	if !ok || a.ID != asked.ID {
		return
	}
	who := *a.who
	who.resume(&a)
	who.factor, who.by, who.at = f, by, at
	who.given |= f
	who.duress = who.duress || duress
	who.step = max(who.step, step)
	if !a.Given.Has(f) {
		who.refused = 0
	}
	l.prove(&who)
}

// resume takes what was gathered in an attempt.
func (p *presented) resume(a *Attempt) {
	p.given, p.refused, p.duress = a.Given, a.Refused, a.Duress
	p.failures, p.outcomes = a.Failures, a.Outcomes
}

// goesOn is somebody who was identified again, in their own attempt.
func (p *presented) goesOn(a *Attempt) {
	f, duress := p.given, p.duress
	p.code = cmp.Or(p.code, a.who.code)
	p.earlier = a.who.without(p.reader)
	p.resume(a)
	p.given |= f
	p.duress = p.duress || duress
	if !a.Given.Has(f) {
		p.refused = 0
	}
}

// without is p and what came before it, but for what a reader said of the same
// person: that is said anew.
func (p *presented) without(reader string) *presented {
	if p == nil {
		return nil
	}
	if p.reader == reader {
		return p.earlier.without(reader)
	}
	q := *p
	q.earlier = p.earlier.without(reader)
	return &q
}

// prove tells the machine of somebody who gave one more factor.
func (l *loop) prove(who *presented) {
	dec := l.decide(who)
	ev := Proved{
		Side: who.side, Person: who.entry.Person, Factor: who.factor, Reader: who.by, Duress: who.duress,
		More: dec.More, Tries: l.tries(who.lockouts), Clearance: who.entry.Clearance, who: who,
	}
	if ev.More == 0 {
		if ev.With = l.joins(who, dec); ev.With == 0 && dec.Together {
			ev.Together = l.together()
		}
	}
	l.step(ev)
}

// reconsider looks again at what the attempts ask for: a scanner may have
// broken, or the rules have changed.
func (l *loop) reconsider() {
	for side := range l.sides {
		a, ok := l.m.Attempt(side)
		if !ok {
			continue
		}
		who := *a.who
		who.resume(&a)
		if more := l.decide(&who).More; more != a.More {
			l.step(Reconsidered{side, a.ID, more})
		}
	}
	l.reconsiderWaiting()
}

// conclude has an attempt decided and recorded.
func (l *loop) conclude(c Conclude) {
	who := *c.Attempt.who
	who.resume(c.Attempt)
	who.over, who.gone, who.detail = c.Over, c.Gone, c.Detail
	if c.With != nil {
		with := *c.With.who
		with.resume(c.With)
		who.with = &with
	}
	if l.stopping { // there is no time left to wait for the disk
		who.decided = true
		dec := l.decideAll(&who)
		p := l.late(&who, dec)
		p.decides, p.with = l.grants(&who, dec)
		l.records.add(p)
		l.decided(&who, dec, p.decides, p.with)
		return
	}
	l.judgeAside(who)
}

// judgeAside is judge while the loop goes on. A panic is the loop's all the same.
func (l *loop) judgeAside(who presented) {
	l.parts.Go(func() {
		err := guard(func() error {
			l.judge(l.running, who)
			return nil
		})
		if err != nil {
			l.post(l.running, func(*loop) { panic(err) })
		}
	})
}
