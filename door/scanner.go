package door

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// scanner is one scanner of the door and what it is doing.
type scanner struct {
	*ScannerConfig
	well   atomic.Bool
	doubts chan error // a scan failed: does Watch know of it?

	turn  chan struct{} // filled by the scan that goes on, which has also:
	began time.Time     // when the last one did
	last  string        // who was seen last
	free  time.Time     // from when on that is somebody anew

	// The loop's own.
	task   task
	cancel context.CancelFunc
}

// task is what a scanner is to do: nothing, to answer for an attempt, or to find
// out who comes.
type task struct {
	in       uint64
	identify bool
}

// watchScanner has the state of a scanner known until ctx ends.
func (d *Door) watchScanner(ctx context.Context, s *scanner) {
	var wait time.Duration
	told := func(err error) {
		d.post(ctx, func(l *loop) {
			s.well.Store(err == nil)
			l.broke(scannerPart(s.Name), err)
		})
	}
	for ctx.Err() == nil {
		watching, stop := context.WithCancelCause(ctx)
		doubting := make(chan struct{})
		go func() {
			defer close(doubting)
			select {
			case err := <-s.doubts:
				stop(err)
			case <-watching.Done():
			}
		}()
		began := time.Now()
		err := guard(func() error { return s.Scanner.Watch(watching, told) })
		if doubt := context.Cause(watching); doubt != nil && ctx.Err() == nil {
			err = doubt
		}
		stop(nil)
		<-doubting
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it stopped to watch")
		}
		told(err)
		var p *panicked
		switch {
		case errors.As(err, &p):
			wait = panicOver // it locked the door, and must not do so again and again
		case time.Since(began) > panicOver:
			wait = minBackoff
		default:
			wait = longer(wait)
		}
		sleep(ctx, wait)
	}
}

// broke is a part's fault, by a panic too.
func (l *loop) broke(part string, err error) {
	var p *panicked
	if errors.As(err, &p) {
		l.failed(part, p)
	}
	l.fault(part, err)
}

// arrange has each scanner do what it is to do now.
func (l *loop) arrange() {
	for _, s := range l.scanners {
		want := l.wants(s)
		if want == s.task {
			continue
		}
		if s.cancel != nil {
			s.cancel()
			s.cancel = nil
		}
		if s.task = want; want == (task{}) {
			continue
		}
		ctx, cancel := context.WithCancel(l.running)
		s.cancel = cancel
		asked := l.sides[s.Direction].asked.Load()
		l.parts.Go(func() {
			select {
			case s.turn <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-s.turn }()
			err := guard(func() error {
				if want.identify {
					l.identifyAt(ctx, s)
				} else {
					l.verifyAt(ctx, s, asked)
				}
				return nil
			})
			if err != nil { // not the scanner's own, but nobody may use it as if all were well
				l.doubt(s, err)
			}
		})
	}
}

func (l *loop) wants(s *scanner) task {
	side := l.sides[s.Direction]
	asked := side.asked.Load()
	switch {
	case !l.scanning || !s.well.Load() || side.loan.Load() != nil:
		return task{}
	case asked != nil && asked.More.Has(s.Factor):
		return task{in: asked.ID}
	case asked == nil && s.Identify:
		return task{identify: true}
	}
	return task{}
}

// scan scans once. What is wrong with the scanner is made known; then, and when
// ctx has ended, ok is false.
func (d *Door) scan(ctx context.Context, s *scanner, with []biometric.Reference) (m biometric.Match, ok bool) {
	sleep(ctx, minBackoff-time.Since(s.began)) // one that never waits must not keep the controller busy
	s.began = time.Now()
	err := guard(func() (err error) {
		m, err = s.Scanner.Scan(ctx, with)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return biometric.Match{}, false
	case err != nil:
		d.doubt(s, err)
		return biometric.Match{}, false
	}
	return m, true
}

// doubt makes known what is wrong with a scanner, and has Watch say anew whether
// it is well.
func (d *Door) doubt(s *scanner, err error) {
	s.well.Store(false)
	d.post(d.running, func(l *loop) { l.broke(scannerPart(s.Name), err) })
	select {
	case s.doubts <- err:
	default:
	}
}

// seen reports whether somebody is seen who was not just there: a finger that is
// left on a scanner comes once.
func (s *scanner) seen(person string, now time.Time) bool {
	again := person == s.last && now.Before(s.free)
	s.last, s.free = person, now.Add(Repeat)
	return !again
}

// outcomeOf is how a record names a comparison that failed.
func outcomeOf(o biometric.Outcome) string {
	if o == biometric.Fake {
		return visitorlog.OutcomeFake
	}
	return visitorlog.OutcomeNoMatch
}

// enrolledAt is how much of a person was enrolled at a scanner.
func (d *Door) enrolledAt(person string, s *scanner) (int, error) {
	references, err := d.references(person, s)
	biometric.Clear(references)
	return len(references), err
}

func (d *Door) references(person string, s *scanner) (references []biometric.Reference, err error) {
	err = guard(func() (err error) {
		references, err = d.cfg.Enrolled.References(person, s.Name)
		return err
	})
	return references, err
}

// verifyAt compares whoever comes with the person of an attempt until the
// attempt is over, or they are that person.
func (d *Door) verifyAt(ctx context.Context, s *scanner, asked *Attempt) {
	var references []biometric.Reference
	for wait := time.Duration(0); ; {
		var err error
		references, err = d.references(asked.Person, s)
		d.post(ctx, func(l *loop) { l.fault("enrolled", err) })
		if err == nil {
			break
		}
		wait = longer(wait)
		if sleep(ctx, wait); ctx.Err() != nil {
			return
		}
	}
	defer biometric.Clear(references)
	if len(references) == 0 {
		return // with none a scanner would take anybody
	}
	for {
		m, ok := d.scan(ctx, s, references)
		if !ok {
			return
		}
		now := time.Now()
		mine, duress := belongs(m, references)
		switch {
		case mine:
			s.seen(asked.Person, now)
			d.post(ctx, func(l *loop) { l.given(asked, s.Factor, s.Name, duress, 0, now) })
			return
		case m.Outcome == biometric.Matched, m.Outcome == biometric.NoMatch, m.Outcome == biometric.Fake:
			d.postEvent(ctx, Failed{s.Direction, asked.ID, s.Factor, s.Name, outcomeOf(m.Outcome)})
			sleep(ctx, Repeat) // until the finger is taken away
		case m.Outcome == biometric.TryAgain:
			d.postEvent(ctx, Unclear{s.Direction, asked.ID})
		}
	}
}

// belongs reports whether what matched is among the references.
func belongs(m biometric.Match, references []biometric.Reference) (mine, duress bool) {
	if m.Outcome != biometric.Matched {
		return false, false
	}
	i := slices.IndexFunc(references, func(r biometric.Reference) bool {
		if r.Template.Empty() {
			return r.Slot == m.Slot
		}
		return r.Part == m.Part
	})
	if i < 0 {
		return false, false
	}
	return true, m.Duress || references[i].Duress
}

// identifyAt finds out who comes, until ctx ends.
func (d *Door) identifyAt(ctx context.Context, s *scanner) {
	for {
		m, ok := d.scan(ctx, s, nil)
		if !ok {
			return
		}
		switch m.Outcome {
		case biometric.Matched:
			d.recognised(s, m)
		case biometric.NoMatch, biometric.Fake:
			d.stranger(s, m)
			sleep(ctx, Repeat)
		case biometric.TryAgain:
			d.postEvent(ctx, Unclear{Side: s.Direction})
		}
	}
}

// recognised takes somebody whom a scanner knows.
func (d *Door) recognised(s *scanner, m biometric.Match) {
	var person string
	var duress bool
	err := guard(func() (err error) {
		person, duress, err = d.cfg.Enrolled.Person(s.Name, m.Slot)
		return err
	})
	now := time.Now()
	d.post(d.running, func(l *loop) { l.fault("enrolled", err) })
	if !s.seen(person, now) || err != nil {
		return
	}
	who := d.identifyPerson(s, person, now)
	who.duress = duress || m.Duress
	d.admit(d.running, &who)
}

// identifyPerson looks somebody up who was recognised; an empty person is nobody.
func (d *Door) identifyPerson(s *scanner, person string, at time.Time) presented {
	p := d.atScanner(s, at)
	p.recognised = person
	p.again = func() presented { return d.identifyPerson(s, person, at) }
	if person == "" {
		p.unread = "the scanner knows somebody who was not enrolled here"
		return p
	}
	if p.entry, p.err = d.cfg.Allowlist.Person(person); p.err != nil {
		p.entry, p.policy.Freshness = nil, access.Absent
	}
	if p.entry != nil {
		p.proved(s.Factor, s.Name)
	}
	return p
}

// stranger takes somebody whom a scanner does not know.
func (d *Door) stranger(s *scanner, m biometric.Match) {
	who := d.atScanner(s, time.Now())
	who.again = func() presented { return d.atScanner(s, who.at) }
	who.failures = 1
	who.outcomes = []visitorlog.FactorOutcome{{Factor: s.Factor.String(), Outcome: outcomeOf(m.Outcome), Reader: s.Name}}
	who.detail = "the scanner knows nobody like that"
	if m.Outcome == biometric.Fake {
		who.detail = "the scanner found that it does not live"
	}
	d.lookUpLockouts(d.running, &who)
	d.judge(d.running, who)
}

// atScanner is somebody of whom nothing is known but where they are.
func (d *Door) atScanner(s *scanner, at time.Time) presented {
	wall, _ := d.cfg.Clock.Now()
	p := presented{
		side: s.Direction, reader: s.Name, factor: s.Factor, by: s.Name, at: at,
		policy: d.cfg.Allowlist.PolicyAt(d.cfg.Name, wall),
	}
	if p.policy.Freshness == "" {
		p.policy.Freshness = access.Absent
	}
	return p
}
