package door

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	given     access.Factor
	refused   access.Factor
	duress    bool
	failures  int
	outcomes  []visitorlog.FactorOutcome
	has       []bool // at each scanner of the door: something of the person was enrolled
	decided   bool   // nothing more is waited for
	over      bool   // nor was everything given
	gone      bool   // somebody else stands there now
	detail    string
	code      string        // the ID of the one-time code that was given
	step      uint64        // of the TOTP that was given
	with      *presented    // who passes together with them; nil: nobody
	traces    []trace       // that the grant left in the log's state
	used      []string      // what was used up
	companion *access.Entry // by whom they pass, as was decided last; nil: nobody is needed
	lockouts
	kept
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
	n.code = cmp.Or(own.code, p.code)
	switch was, is := p.entry, n.entry; {
	case was == nil || is == nil:
	case was.Person != is.Person: // whose is nothing but the card
		n.given, n.outcomes, n.failures = own.given, own.outcomes, 0
	default: // what was compared with another counts no more
		if !bytes.Equal(was.PIN, is.PIN) || !bytes.Equal(was.DuressPIN, is.DuressPIN) {
			n.given &^= access.PIN
		}
		if !bytes.Equal(was.TOTP, is.TOTP) {
			n.given &^= access.TOTP
		}
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

// swap makes whoever comes along the one whom the record is about.
func (p *presented) swap() {
	first := *p
	*p = *first.with
	p.with, first.with = &first, nil
}

// clone is p, with a companion of its own.
func (p presented) clone() presented {
	if p.with != nil {
		with := *p.with
		p.with = &with
	}
	return p
}

// decide answers for somebody, now. Whoever was identified in several ways is
// let in only if each of them is good, and still names the same person.
func (d *Door) decide(p *presented) access.Decision {
	q := d.query(p)
	p.companion = nil
	if p.with != nil {
		p.companion = p.with.entry
		q.Company = []*access.Entry{p.companion}
	}
	dec := access.Decide(&q)
	if dec.Reason == access.ReasonEscortMissing && p.with == nil && !p.over {
		dec = d.led(p, &q, dec)
	}
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

// decideAll is decide of somebody and of whoever comes along: they pass together
// or not at all. Who breaks the glass takes nobody along. Of the two, the one who
// does that, or is denied, comes first afterwards.
func (d *Door) decideAll(p *presented) access.Decision {
	dec := d.decide(p)
	if p.with == nil {
		return dec
	}
	p.with.with = p
	other := d.decide(p.with)
	p.with.with = nil
	if dec.Granted && other.Granted && !dec.BreakGlass && !other.BreakGlass {
		return dec
	}
	for range 2 { // and each is themselves again
		solo := *p
		solo.with = nil
		if dec := d.decide(&solo); dec.BreakGlass {
			p.leaveBehind()
			return dec
		}
		p.swap()
	}
	if !other.Granted && (dec.Granted || alone(dec) && !alone(other)) {
		p.swap()
		return other
	}
	return dec
}

// leaveBehind lets nobody come along.
func (p *presented) leaveBehind() {
	if e := p.with.entry; e != nil {
		p.detail = sentences(p.detail, e.Person+" was there, too, and is not let in by this")
	}
	p.with, p.companion = nil, nil
}

// alone reports whether somebody is denied for want of company.
func alone(dec access.Decision) bool {
	return dec.Reason == access.ReasonEscortMissing || dec.Reason == access.ReasonSecondMissing
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
		Site: d.site(),
	}
	q.Situation = d.situation(p, q.Site)
	if q.Rules != nil || q.Given != access.Badge {
		q.Possible, q.Weak = d.possible(p), d.weak(p.side)
	}
	return q
}

// situation is how things stand at the door for somebody, but for company.
func (d *Door) situation(p *presented, site *access.Door) access.Situation {
	s := access.Situation{
		Threat: d.cfg.Neighbours.level(), Disabled: d.whyDisabled(),
		Where: p.where, Begun: p.begun, CodeUsed: p.codeUsed,
	}
	if site != nil {
		s.Interlocked = d.cfg.Neighbours.inTheWay(site.Interlock)
		if site.Into != nil && p.side == access.In {
			s.Occupants = p.others(site.Into.Name, p.with)
		}
	}
	return s
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
		Area:    area(d.site()),
		Used:    p.used,
	}}
	if w := p.with; w != nil && w.entry != nil {
		draft.Data.Used = slices.Concat(p.used, w.used)
		draft.Data.Detail = sentences(draft.Data.Detail, fmt.Sprintf("%s gave %s at %s", w.entry.Person, w.given, w.reader))
	}
	if dec.Granted {
		draft.Type, draft.Data.Decision = visitorlog.DecisionGranted, "granted"
		draft.Data.Against, draft.Data.Company = dec.Against, companions(p)
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
		g.Person, g.Kind, g.Extended, g.Clearance = e.Person, e.Kind, e.Extended, e.Clearance
	}
	if g.Person == "" {
		return nil // nobody whom an alarm could be about
	}
	g.traces = p.traces
	return g
}

// grants are the grant of somebody, and that of whoever comes along.
func (d *Door) grants(p *presented, dec access.Decision) (g, with *Grant) {
	name := area(d.site())
	if g = p.grant(dec); g != nil {
		g.Area = name
	}
	if p.with != nil {
		if with = p.with.grant(dec); with != nil {
			with.Area, with.BreakGlass = name, false
		}
	}
	return g, with
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
	heard    func() // to be called when the machine has heard of a grant, or will not; nil: there is none
}

// done lets the other doors go on by what this one's machine says.
func (a *appended) done() {
	if a.heard != nil {
		a.heard()
	}
}

// traces are what the grants left.
func (a *appended) traces() []trace {
	if a.who.with == nil {
		return a.who.traces
	}
	return slices.Concat(a.who.traces, a.who.with.traces)
}

var errDiskBusy = errors.New("too much waits for the disk")

// judge decides about somebody for good, records it, and tells the machine. It
// does not wait longer than Patience for the record.
func (d *Door) judge(ctx context.Context, who presented) {
	who.decided = true
	if w := who.with; w != nil {
		w.decided = true
		if w.at.Before(who.at) {
			w.at = who.at // when both were there
		}
		if w.entry.Escorted && !who.entry.Escorted {
			who.swap() // the record is the visitor's
		}
	}
	first := d.decideAll(&who)
	more := ""
	if !first.Granted && who.with == nil && !who.duress && !d.mayCount(&who) {
		// A reader that chatters must not fill the log: what is denied too
		// often is counted. A grant is never counted only.
		p := d.late(&who, first)
		p.key = fmt.Sprintf("denied %s %s %s %t", who.reader, first.Reason, p.draft.Subject, who.foreign)
		var ok bool
		if more, ok = d.records.offer(p); !ok {
			d.post(ctx, func(l *loop) {
				l.counts.Coalesced++
				l.decided(&who, first, nil, nil, "coalesced", true)
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
	mine, reserved := who.clone(), first.Granted && who.breaksGlass()
	d.parts.Go(func() {
		defer func() { <-d.slow }()
		result <- d.append(ctx, mine, reserved, more)
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
			later := make(chan appended, 1)
			d.parts.Go(func() {
				a := <-result
				a.done() // it opened nothing
				later <- a
			})
			d.unrecorded(ctx, &who, more, fmt.Errorf("a record took longer than %v", Patience), later)
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
			a.done() // of what was written before, and did not last
			wall, _ := d.cfg.Clock.Now()
			version := d.cfg.Allowlist.PolicyAt(d.cfg.Name, wall).Version
			if a.who.outdated(version) {
				a.who = a.who.renewed() // a new allowlist came in between
			}
			if w := a.who.with; w != nil && w.outdated(version) {
				with := w.renewed()
				a.who.with = &with
			}
			dec, locked, err := d.settle(tx, &a.who)
			if err != nil {
				return visitorlog.Draft{}, err
			}
			if dec.Granted {
				a.heard = d.cfg.Neighbours.open(d.cfg.Name)
			}
			a.decision = dec
			draft := d.draft(&a.who, dec)
			draft.Data.Detail = sentences(sentences(draft.Data.Detail, locked), more)
			return draft, nil
		})
		return err
	})
	if a.err = err; err != nil {
		a.done()
	}
	return a
}

// answer tells the machine what was decided and recorded.
func (d *Door) answer(ctx context.Context, a appended) {
	if a.err != nil {
		d.unrecorded(ctx, &a.who, a.more, a.err, nil)
		return
	}
	g, with := d.grants(&a.who, a.decision)
	for _, g := range []*Grant{g, with} {
		if g != nil {
			g.Sequence, g.Durable = a.entry.Seq, true
		}
	}
	d.post(ctx, func(l *loop) {
		l.fault("log", nil)
		l.decided(&a.who, a.decision, g, with, "seq", a.entry.Seq)
		a.done()
	})
}

// unrecorded tells the machine of a decision whose record is not durable and
// has it written late. The text says what was counted before. The result is
// that of an append which goes on; nil if there is none.
func (d *Door) unrecorded(ctx context.Context, who *presented, more string, err error, result <-chan appended) {
	if ctx.Err() != nil {
		return // the controller stops: nothing was decided
	}
	dec := d.decideAll(who)
	if dec.Granted && who.breaksGlass() {
		// Not a cause of Decide's, but the glass is broken here too.
		dec.BreakGlass, dec.Reason = true, access.ReasonGrantedBreakGlass
	}
	p := d.late(who, dec)
	p.draft.Data.Detail = sentences(p.draft.Data.Detail, more)
	g, with := d.grants(who, dec)
	p.decides, p.with, p.result, p.reserved = g, with, result, dec.BreakGlass
	d.post(ctx, func(l *loop) {
		l.records.add(p) // before whatever follows from it
		l.fault("log", err)
		l.decided(who, dec, g, with, "error", err)
	})
}

// late is a decision's record that is written after it. Failures count from
// then on, and whoever broke the glass is where they went.
func (d *Door) late(who *presented, dec access.Decision) *pending {
	wall, _ := d.cfg.Clock.Now()
	p := &pending{at: time.Now(), wall: wall, draft: d.draft(who, dec)}
	moved := dec.BreakGlass && d.keeps(who)
	if !moved && (who.failures == 0 || !d.counts()) {
		return p
	}
	counted := *who
	p.also = func(tx *visitorlog.Tx) (detail string, err error) {
		if counted.kept, err = d.recall(&counted, tx.Get); err != nil {
			return "", err
		}
		if moved {
			counted.traces = nil
			if err := d.leave(tx, &counted); err != nil {
				return "", err
			}
			p.decides.lateTraces = counted.traces
		}
		if counted.failures == 0 {
			return "", nil
		}
		if counted.lockouts, err = d.lockouts(&counted, tx.Get); err != nil {
			return "", err
		}
		return d.count(tx, &counted, dec)
	}
	return p
}

// decided counts a decision and steps. The strike does not wait for the line
// about it in the program's own log.
func (l *loop) decided(who *presented, dec access.Decision, g, with *Grant, more ...any) {
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
	if dec.Granted {
		l.goesBefore(who, g)
		if with != nil {
			l.goesBefore(who.with, with)
		}
	}
	l.step(Decided{
		Granted: dec.Granted, Grant: g, Duress: who.duress && g != nil, Gone: who.gone,
		With: with, WithDuress: with != nil && who.with.duress,
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
	if c := who.companion; c != nil && dec.Granted {
		more = append(more, "with", c.Person)
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
