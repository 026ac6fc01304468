package door

import (
	"context"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// leader is somebody who may escort and went first: whoever comes within the
// window passes by them, as they would if they had come before.
type leader struct {
	entry *access.Entry
	grant *Grant
	until time.Time
}

// together is how long people wait for each other at the door.
func (d *Door) together() time.Duration {
	if site := d.site(); site != nil && site.Together > 0 {
		return site.Together
	}
	return access.DefaultTogether
}

// led is what is decided of somebody who needs an escort, by whoever went before
// them; alone, if nobody did.
func (d *Door) led(p *presented, q *access.Query, alone access.Decision) access.Decision {
	gone := d.sides[p.side].gone.Load()
	if gone == nil {
		return alone
	}
	now := time.Now()
	for _, g := range *gone {
		if !now.Before(g.until) {
			continue
		}
		with := *q
		with.Company = []*access.Entry{g.entry}
		if q.Site != nil && q.Site.Into != nil && p.side == access.In {
			with.Occupants = max(0, q.Occupants-1) // they are in, and counted
		}
		if dec := access.Decide(&with); dec.Granted {
			p.companion, *q = g.entry, with
			return dec
		}
	}
	return alone
}

// goesBefore notes that somebody who may escort goes first. Where people pass
// only two at a time, nobody goes first; nor does who breaks the glass.
func (l *loop) goesBefore(who *presented, g *Grant) {
	e, site := who.entry, l.site()
	leads := e.MayEscort && !g.BreakGlass && (site == nil || !site.TwoPerson)
	for dir, side := range l.sides {
		gone := side.gone.Load()
		if gone == nil && (dir != who.side || !leads) {
			continue
		}
		now := time.Now()
		var left []leader
		if gone != nil {
			left = slices.DeleteFunc(slices.Clone(*gone), func(g leader) bool { return g.entry.Person == e.Person || !now.Before(g.until) })
		}
		if dir == who.side && leads {
			left = append(left, leader{e, g, now.Add(l.together())})
		}
		side.gone.Store(&left)
	}
}

// stayed notes that somebody did not go first after all.
func (l *loop) stayed(g *Grant) {
	for _, side := range l.sides {
		if gone := side.gone.Load(); gone != nil {
			left := slices.DeleteFunc(slices.Clone(*gone), func(l leader) bool { return l.grant == g })
			side.gone.Store(&left)
		}
	}
}

// joins is who of those that wait passes together with somebody: the first of
// whom both would be granted; 0: nobody.
func (l *loop) joins(who *presented, dec access.Decision) uint64 {
	if dec.BreakGlass || !dec.Granted && !dec.Together {
		return 0
	}
	for _, a := range l.m.Waiting(who.side) {
		p, with := *who, *a.who
		if with.resume(&a); a.Person == p.entry.Person {
			continue
		}
		p.with = &with
		if l.decideAll(&p).Granted && p.with != nil {
			return a.ID
		}
	}
	return 0
}

// goesOnWaiting is goesOn of somebody who waits for company; false: they do not.
func (l *loop) goesOnWaiting(who *presented) bool {
	if who.entry == nil {
		return false
	}
	for _, a := range l.m.Waiting(who.side) {
		if a.Person == who.entry.Person {
			who.goesOn(&a)
			return true
		}
	}
	return false
}

// reconsiderWaiting lets those pass whose company went first meanwhile. That a
// rule has become easier opens nothing.
func (l *loop) reconsiderWaiting() {
	for side := range l.sides {
		for _, a := range l.m.Waiting(side) {
			who := *a.who
			who.resume(&a)
			if l.decide(&who).Granted && who.companion != nil {
				l.step(CompanyCame{side, a.ID})
			}
		}
	}
}

// lookUpKept reads what the log keeps of somebody before a decision, so that
// nobody is asked for anything in vain. What counts is read again in the
// decision's record.
func (d *Door) lookUpKept(ctx context.Context, p *presented) {
	if !d.keeps(p) {
		return
	}
	who := *p // p itself may be gone when the log answers
	k, err := patiently(ctx, d, func() (kept, error) {
		return d.recall(&who, func(key string) ([]byte, error) { return d.cfg.Log.State(ctx, key) })
	})
	if err != nil {
		d.post(ctx, func(l *loop) { l.fault("log", err) })
		return
	}
	p.kept = k
}

// takesBack has a record of somebody who did not pass take back what their grant
// left.
func (d *Door) takesBack(g *Grant) func(*visitorlog.Tx) (string, error) {
	return func(tx *visitorlog.Tx) (string, error) {
		return "", d.cfg.Neighbours.takeBack(tx, slices.Concat(g.traces, g.lateTraces))
	}
}
