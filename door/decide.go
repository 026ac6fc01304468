package door

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// presented is what is known of somebody at one side of the door.
type presented struct {
	side    access.Direction
	reader  string // or scanner, at which they were last identified
	factor  access.Factor
	by      string    // the reader or scanner at which that, the newest factor, was given
	at      time.Time // when
	foreign bool      // the card's timing was not the reader's

	entry       *access.Entry
	recognised  string // by a scanner, though entry may be nil
	unreadable  bool
	unread      string // why, in words
	policy      access.Policy
	err         error            // of the allowlist
	enrolledErr error            // of what was enrolled
	again       func() presented // identifies anew, when there is a newer allowlist
	earlier     *presented       // how the same person was identified before, in the same attempt
	proofs
}

// proofs are what somebody gave, and what of it is still possible.
type proofs struct {
	given    access.Factor
	refused  access.Factor
	duress   bool
	failures int
	outcomes []visitorlog.FactorOutcome
	has      []bool // at each scanner of the door: something of the person was enrolled
	decided  bool   // nothing more is waited for
	over     bool   // nor was everything given
	gone     bool   // somebody else stands there now
	detail   string
	lockouts
}

// outdated reports whether any part of p is of another version than that of the
// allowlist.
func (p *presented) outdated(version uint64) bool {
	for ; p != nil; p = p.earlier {
		if p.policy.Version != version {
			return true
		}
	}
	return false
}

// renewed is p as a newer allowlist has it.
func (p presented) renewed() presented {
	n := p.again()
	own := n.proofs
	n.factor, n.by, n.at, n.proofs = p.factor, p.by, p.at, p.proofs
	switch was, is := p.entry, n.entry; {
	case was == nil || is == nil:
	case was.Person != is.Person: // whose is nothing but the card
		n.given, n.outcomes, n.failures = own.given, own.outcomes, 0
	case !(bytes.Equal(was.PIN, is.PIN) && bytes.Equal(was.DuressPIN, is.DuressPIN)):
		n.given &^= access.PIN // which was compared with another
	}
	if p.earlier != nil {
		e := p.earlier.renewed()
		n.earlier = &e
	}
	return n
}

// rules are what the door asks for on the way in or out.
func (d *Door) rules(side access.Direction) []access.Rule {
	if rules := d.cfg.Allowlist.Rules(d.cfg.Name, side); rules != nil {
		return rules
	}
	return d.cfg.Rules[side]
}

// decide answers for somebody, now. Whoever was identified in several ways is
// let in only if each of them is good, and still names the same person.
func (d *Door) decide(p *presented) access.Decision {
	q := d.query(p)
	dec := access.Decide(&q)
	for e := p.earlier; e != nil && dec.Granted && !dec.BreakGlass; e = e.earlier {
		if q.Entry = e.entry; q.Entry != nil && q.Entry.Person != p.entry.Person {
			q.Entry = nil
		}
		dec = access.Decide(&q)
	}
	if p.over && dec.Granted {
		// The rules have become easier since. Whoever stood there may have gone.
		dec = access.Decision{Reason: access.ReasonFactorMissing}
	}
	return dec
}

func (d *Door) query(p *presented) access.Query {
	wall, clock := d.cfg.Clock.Now()
	q := access.Query{
		Door: d.cfg.Name, Direction: p.side,
		At: wall, Zone: d.cfg.Zone, Clock: clock,
		Policy: p.policy, Lockdown: d.lockdown.Load(),
		Unreadable: p.unreadable, Entry: p.entry,
		Rules: d.rules(p.side), Given: p.given, Refused: p.refused, Over: p.decided,
		Duress: p.duress, DuressOpens: d.cfg.DuressOpens,
		PersonLocked: p.personLocked, ReaderLocked: p.readerLocked,
	}
	if q.Rules != nil || q.Given != access.Badge {
		q.Possible, q.Weak = d.possible(p), d.weak(p.side)
	}
	return q
}

// draft is the decision's record.
func (d *Door) draft(p *presented, dec access.Decision) visitorlog.Draft {
	draft := visitorlog.Draft{Type: visitorlog.DecisionDenied, Data: visitorlog.Data{
		Door:      d.cfg.Name,
		Reader:    p.reader,
		Direction: p.side,
		Decision:  "denied",
		Reason:    dec.Reason,
		Policy: &visitorlog.Policy{
			Version:    p.policy.Version,
			AgeSeconds: max(0, int64(p.policy.Age/time.Second)),
			Freshness:  p.policy.Freshness,
		},
		Factors: p.given.Names(),
		Foreign: p.foreign,
		Detail:  sentences(p.unread, p.detail),
	}}
	if dec.Granted {
		draft.Type, draft.Data.Decision = visitorlog.DecisionGranted, "granted"
	}
	if outcomes := append(p.outcomes[:len(p.outcomes):len(p.outcomes)], d.absent(p, dec)...); len(outcomes) > 1 {
		draft.Data.Outcomes = outcomes
	}
	if e := p.entry; e != nil {
		draft.Subject, draft.Data.Kind, draft.Data.Visit = e.Person, e.Kind, e.Visit
	}
	return draft
}

// grant is what the machine needs to know of a decision that was granted, or
// made under duress; nil of others.
func (p *presented) grant(dec access.Decision) *Grant {
	if !dec.Granted && !p.duress {
		return nil
	}
	g := &Grant{Person: p.recognised, Reader: p.reader, Direction: p.side, BreakGlass: dec.BreakGlass, At: p.at}
	if e := p.entry; e != nil {
		g.Person, g.Kind, g.Extended = e.Person, e.Kind, e.Extended
	}
	if g.Person == "" {
		return nil // nobody whom an alarm could be about
	}
	return g
}

// breaksGlass reports whether the badge of somebody does. Their finger does not.
func (p *presented) breaksGlass() bool { return p.entry.BreakGlass && p.given.Has(access.Badge) }

// appended is how an append ended.
type appended struct {
	who      presented
	decision access.Decision
	entry    visitorlog.Entry
	err      error
	more     string // what was counted before
}

var errDiskBusy = errors.New("too much waits for the disk")

// judge decides about somebody for good, records it, and tells the machine. It
// does not wait longer than Patience for the record.
func (d *Door) judge(ctx context.Context, who presented) {
	who.decided = true
	first := d.decide(&who)
	more := ""
	if !first.Granted && !who.duress && !d.mayCount(&who) {
		// A reader that chatters must not fill the log: what is denied too
		// often is counted. A grant is never counted only.
		p := d.late(&who, first)
		p.key = fmt.Sprintf("denied %s %s %s %t", who.reader, first.Reason, p.draft.Subject, who.foreign)
		var ok bool
		if more, ok = d.records.offer(p); !ok {
			d.post(ctx, func(l *loop) {
				l.counts.Coalesced++
				l.decided(&who, first, nil, "coalesced", true)
			})
			return
		}
	}

	select {
	case d.slow <- struct{}{}:
	default:
		d.unrecorded(ctx, &who, more, errDiskBusy, nil)
		return
	}
	result := make(chan appended, 1)
	d.parts.Go(func() {
		defer func() { <-d.slow }()
		reserved := first.Granted && who.breaksGlass()
		result <- d.append(ctx, who, reserved, more)
	})

	delayed := time.NewTimer(delayedAfter)
	defer delayed.Stop()
	giveUp := time.NewTimer(Patience)
	defer giveUp.Stop()
	for {
		select {
		case a := <-result:
			d.answer(ctx, a)
			return
		case <-delayed.C:
			if !who.gone {
				d.postEvent(ctx, DecisionDelayed{})
			}
		case <-giveUp.C:
			d.unrecorded(ctx, &who, more, fmt.Errorf("a record took longer than %v", Patience), result)
			return
		}
	}
}

// append decides inside the log's transaction.
func (d *Door) append(ctx context.Context, who presented, reserved bool, more string) appended {
	write := d.cfg.Log.Append
	if reserved {
		write = d.cfg.Log.AppendReserved
	}
	a := appended{who: who, more: more}
	err := guard(func() (err error) {
		a.entry, err = write(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
			wall, _ := d.cfg.Clock.Now()
			if a.who.outdated(d.cfg.Allowlist.Policy(wall).Version) {
				a.who = a.who.renewed() // a new allowlist came in between
			}
			dec, locked, err := d.settle(tx, &a.who)
			if err != nil {
				return visitorlog.Draft{}, err
			}
			a.decision = dec
			draft := d.draft(&a.who, dec)
			draft.Data.Detail = sentences(sentences(draft.Data.Detail, locked), more)
			return draft, nil
		})
		return err
	})
	a.err = err
	return a
}

// answer tells the machine what was decided and recorded.
func (d *Door) answer(ctx context.Context, a appended) {
	if a.err != nil {
		d.unrecorded(ctx, &a.who, a.more, a.err, nil)
		return
	}
	g := a.who.grant(a.decision)
	if g != nil {
		g.Sequence, g.Durable = a.entry.Seq, true
	}
	d.post(ctx, func(l *loop) {
		l.fault("log", nil)
		l.decided(&a.who, a.decision, g, "seq", a.entry.Seq)
	})
}

// unrecorded tells the machine of a decision whose record is not durable and
// has it written late. The text says what was counted before. The result is
// that of an append which goes on; nil if there is none.
func (d *Door) unrecorded(ctx context.Context, who *presented, more string, err error, result <-chan appended) {
	if ctx.Err() != nil {
		return // the controller stops: nothing was decided
	}
	dec := d.decide(who)
	if dec.Granted && who.breaksGlass() {
		// Not a cause of Decide's, but the glass is broken here too.
		dec.BreakGlass, dec.Reason = true, access.ReasonGrantedBreakGlass
	}
	p := d.late(who, dec)
	p.draft.Data.Detail = sentences(p.draft.Data.Detail, more)
	p.decides, p.result, p.reserved = who.grant(dec), result, dec.BreakGlass
	d.post(ctx, func(l *loop) {
		l.records.add(p) // before whatever follows from it
		l.fault("log", err)
		l.decided(who, dec, p.decides, "error", err)
	})
}

// late is a decision's record that is written after it. Failures count from
// then on.
func (d *Door) late(who *presented, dec access.Decision) *pending {
	wall, _ := d.cfg.Clock.Now()
	p := &pending{at: time.Now(), wall: wall, draft: d.draft(who, dec)}
	if who.failures > 0 && d.counts() {
		counted := *who
		p.also = func(tx *visitorlog.Tx) (detail string, err error) {
			if counted.lockouts, err = d.lockouts(&counted, tx.Get); err != nil {
				return "", err
			}
			return d.count(tx, &counted, dec)
		}
	}
	return p
}

// decided counts a decision and steps. The strike does not wait for the line
// about it in the program's own log.
func (l *loop) decided(who *presented, dec access.Decision, g *Grant, more ...any) {
	l.said = sync.OnceFunc(func() { l.logDecision(who, dec, more...) })
	defer l.said()
	l.last = time.Now()
	if dec.Granted {
		l.counts.Granted++
	} else {
		l.counts.Denied++
	}
	for _, o := range who.outcomes {
		l.outcomes[o]++
	}
	l.sourcesOf(who)
	l.step(Decided{
		Granted: dec.Granted, Grant: g, Duress: who.duress && g != nil, Gone: who.gone,
		TooLate: time.Since(who.at) > Patience,
	})
}

// sourcesOf shows the faults of what was asked about somebody.
func (l *loop) sourcesOf(who *presented) {
	if !who.unreadable { // else nothing was asked
		l.fault("allowlist", who.err)
	}
	if who.has != nil || who.enrolledErr != nil {
		l.fault("enrolled", who.enrolledErr)
	}
}

func (d *Door) logDecision(who *presented, dec access.Decision, more ...any) {
	person, decision := "", "denied"
	if who.entry != nil {
		person = who.entry.Person
	}
	if dec.Granted {
		decision = "granted"
	}
	if who.foreign {
		more = append(more, "foreign", true)
	}
	if who.given.Count() > 1 {
		more = append(more, "factors", who.given.String())
	}
	d.log.Info("decision", append([]any{
		"reader", who.reader, "direction", string(who.side),
		"decision", decision, "reason", string(dec.Reason), "person", person,
		"latency_ms", milliseconds(time.Since(who.at)),
	}, more...)...)
}
