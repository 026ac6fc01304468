package door

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// read takes presentations from one reader until ctx ends.
func (d *Door) read(ctx context.Context, parts *sync.WaitGroup, r *ReaderConfig) {
	part := readerPart(r.Name)
	var wait time.Duration // not zero: the reader is faulty
	calm := healthyAfter   // when it no longer is
	var seen repeats
	for ctx.Err() == nil {
		healthy := func() bool { return true }
		if wait > 0 {
			healthy = d.healsAfter(ctx, part, calm)
		}
		err := guard(func() error {
			read, err := r.Reader.Read(ctx)
			if healthy() || err == nil {
				if wait > 0 && err == nil {
					d.post(ctx, func(l *loop) { l.fault(part, nil) })
				}
				wait, calm = 0, healthyAfter
			}
			if err != nil {
				return err
			}
			if read.Keypad { // no rule asks for a key yet: it decides nothing
				d.post(ctx, func(l *loop) {
					l.keys[r.Name]++
					l.publish()
				})
				return nil
			}
			if now := time.Now(); read.At.IsZero() || read.At.After(now) {
				read.At = now
			}
			if !seen.again(read) {
				d.present(ctx, parts, r, read)
			}
			return nil
		})
		healthy() // Read has not got so far if it panicked
		if err == nil || ctx.Err() != nil {
			continue
		}
		var p *panicked
		if errors.As(err, &p) {
			calm = panicOver
		}
		d.post(ctx, func(l *loop) {
			if p != nil {
				l.failed(part, p)
			}
			l.fault(part, err)
		})
		wait = longer(wait)
		sleep(ctx, wait)
	}
}

// healsAfter ends a part's fault in a while, unless the function that it
// returns is called before; that function says whether the fault was ended.
func (d *Door) healsAfter(ctx context.Context, part string, after time.Duration) (healed func() bool) {
	var mu sync.Mutex
	var over, done bool
	t := time.AfterFunc(after, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			d.post(ctx, func(l *loop) { l.fault(part, nil) })
			done = true
		}
	})
	return func() bool {
		t.Stop()
		mu.Lock()
		defer mu.Unlock()
		over = true
		return done
	}
}

// repeats notices a card that stays at a reader.
type repeats struct {
	last  badge.Read // without its time
	until time.Time
}

func (s *repeats) again(read badge.Read) bool {
	at := read.At
	read.At = time.Time{}
	again := read == s.last && at.Before(s.until)
	s.last, s.until = read, at.Add(Repeat)
	return again
}

// presented is what is known of somebody at a reader.
type presented struct {
	reader     *ReaderConfig
	frame      badge.Frame
	at         time.Time
	refused    string // why the frame is not to be trusted
	foreign    bool   // its timing was not the reader's
	entry      *access.Entry
	unreadable bool
	policy     access.Policy
	err        error // of the allowlist
}

// identify looks a frame up.
func (d *Door) identify(r *ReaderConfig, read badge.Read) presented {
	wall, _ := d.cfg.Clock.Now()
	p := presented{
		reader: r, frame: read.Frame, at: read.At, refused: clip(read.Refused), foreign: read.Foreign,
		unreadable: true, policy: d.cfg.Allowlist.Policy(wall),
	}
	formats := r.Formats
	if read.Refused != "" {
		formats = nil // it may still decode, as somebody else's card
	}
	for _, format := range formats {
		c, err := format.Decode(read.Frame)
		if err != nil {
			continue
		}
		p.unreadable = false
		e, err := d.cfg.Allowlist.Lookup(c)
		if e != nil && err == nil {
			p.entry, p.err = e, nil
			return p
		}
		p.err = errors.Join(p.err, err)
	}
	if p.err != nil || p.policy.Freshness == "" {
		p.policy.Freshness = access.Absent // an allowlist that cannot be read
	}
	return p
}

// decide answers for somebody at a reader, now.
func (d *Door) decide(p *presented) access.Decision {
	wall, clock := d.cfg.Clock.Now()
	return access.Decide(&access.Query{
		Door: d.cfg.Name, Direction: p.reader.Direction,
		At: wall, Zone: d.cfg.Zone, Clock: clock,
		Policy: p.policy, Lockdown: d.lockdown.Load(),
		Unreadable: p.unreadable, Entry: p.entry,
	})
}

// draft is the decision's record.
func (d *Door) draft(p *presented, dec access.Decision) visitorlog.Draft {
	draft := visitorlog.Draft{Type: visitorlog.DecisionDenied, Data: visitorlog.Data{
		Door:      d.cfg.Name,
		Reader:    p.reader.Name,
		Direction: p.reader.Direction,
		Decision:  "denied",
		Reason:    dec.Reason,
		Policy: &visitorlog.Policy{
			Version:    p.policy.Version,
			AgeSeconds: max(0, int64(p.policy.Age/time.Second)),
			Freshness:  p.policy.Freshness,
		},
	}}
	if dec.Granted {
		draft.Type, draft.Data.Decision = visitorlog.DecisionGranted, "granted"
	}
	draft.Data.Foreign = p.foreign
	switch {
	case p.refused != "":
		draft.Data.Detail = fmt.Sprintf("%d bits that were refused: %s", p.frame.Len(), p.refused)
	case p.unreadable:
		names := make([]string, len(p.reader.Formats))
		for i, f := range p.reader.Formats {
			names[i] = f.Name()
		}
		draft.Data.Detail = fmt.Sprintf("%d bits that do not fit %s", p.frame.Len(), strings.Join(names, ", "))
	default:
		draft.Data.Factors = []string{"badge"}
	}
	if e := p.entry; e != nil {
		draft.Subject, draft.Data.Kind, draft.Data.Visit = e.Person, e.Kind, e.Visit
	}
	return draft
}

// grant is what the machine needs to know of a granted decision; nil if it was
// denied.
func (p *presented) grant(dec access.Decision) *Grant {
	if !dec.Granted {
		return nil
	}
	return &Grant{
		Person: p.entry.Person, Kind: p.entry.Kind, Reader: p.reader.Name, Direction: p.reader.Direction,
		Extended: p.entry.Extended, BreakGlass: dec.BreakGlass, At: p.at,
	}
}

// appended is how an append ended.
type appended struct {
	who      presented
	decision access.Decision
	entry    visitorlog.Entry
	err      error
	more     string // what was counted before
}

// present decides about somebody at a reader, records it, and tells the
// machine. It does not wait longer than Patience for the record.
func (d *Door) present(ctx context.Context, parts *sync.WaitGroup, r *ReaderConfig, read badge.Read) {
	who := d.identify(r, read)
	first := d.decide(&who)
	more := ""
	if !first.Granted {
		// A reader that chatters must not fill the log: what is denied too
		// often is counted. A grant is never counted only.
		p := d.late(&who, first)
		p.key = fmt.Sprintf("denied %s %s %s %t", r.Name, first.Reason, p.draft.Subject, who.foreign)
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
		d.unrecorded(ctx, &who, more, errors.New("too many records wait for the disk"), nil)
		return
	}
	result := make(chan appended, 1)
	parts.Go(func() {
		defer func() { <-d.slow }()
		reserved := first.Granted && who.entry.BreakGlass
		result <- d.append(ctx, read, who, reserved, more)
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
			d.postEvent(ctx, DecisionDelayed{})
		case <-giveUp.C:
			d.unrecorded(ctx, &who, more, fmt.Errorf("a record took longer than %v", Patience), result)
			return
		}
	}
}

// append decides inside the log's transaction.
func (d *Door) append(ctx context.Context, read badge.Read, who presented, reserved bool, more string) appended {
	write := d.cfg.Log.Append
	if reserved {
		write = d.cfg.Log.AppendReserved
	}
	a := appended{who: who, more: more}
	err := guard(func() (err error) {
		a.entry, err = write(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
			wall, _ := d.cfg.Clock.Now()
			if d.cfg.Allowlist.Policy(wall).Version != a.who.policy.Version {
				a.who = d.identify(a.who.reader, read) // a new allowlist came in between
			}
			a.decision = d.decide(&a.who)
			draft := d.draft(&a.who, a.decision)
			draft.Data.Detail = sentences(draft.Data.Detail, more)
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
	if dec.Granted && who.entry.BreakGlass {
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

// late is a decision's record that is written after it.
func (d *Door) late(who *presented, dec access.Decision) *pending {
	wall, _ := d.cfg.Clock.Now()
	return &pending{at: time.Now(), wall: wall, draft: d.draft(who, dec)}
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
	if !who.unreadable { // else nothing was asked of it
		l.fault("allowlist", who.err)
	}
	l.step(Decided{Granted: dec.Granted, Grant: g, TooLate: time.Since(who.at) > Patience})
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
	d.log.Info("decision", append([]any{
		"reader", who.reader.Name, "direction", string(who.reader.Direction),
		"decision", decision, "reason", string(dec.Reason), "person", person,
		"latency_ms", milliseconds(time.Since(who.at)),
	}, more...)...)
}
