package door

import (
	"context"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	lookEvery = 10 * time.Second // at the health of each reader
	illAfter  = 30 * time.Second // so long something must seem wrong before it is said
	wellAfter = 10 * time.Minute // and no more, before it is unsaid
)

// healthReporter is a Reader that knows what its wires have shown. Any
// goroutine may call it.
type healthReporter interface{ Health() badge.Health }

// health is what a reader says of its wires; nil: it has nothing to say.
func (r *ReaderConfig) health() *badge.Health {
	reporter, ok := r.Reader.(healthReporter)
	if !ok {
		return nil
	}
	var h badge.Health
	if err := guard(func() error { h = reporter.Health(); return nil }); err != nil {
		return nil
	}
	return &h
}

// ailment is what is said of a reader's wires. What seems likely may come and
// go from one look to the next; it is said once something has seemed wrong for
// a while, and unsaid when it has not seemed so for longer, so that a cable
// which is bad now and then is one record.
type ailment struct {
	said  string    // empty: nothing is wrong
	since time.Time // it has not seemed so any more; zero: it does
}

// look takes what seems likely now and reports whether something else is to
// be said than was.
func (a *ailment) look(now time.Time, likely string) (changed bool) {
	if likely == a.said {
		a.since = time.Time{}
		return false
	}
	if a.since.IsZero() {
		a.since = now
	}
	settles := illAfter
	if a.said != "" {
		settles = wellAfter
	}
	if now.Sub(a.since) < settles {
		return false
	}
	a.said, a.since = likely, time.Time{}
	return true
}

// watchHealth has what is likely wrong with a reader's wires shown and
// recorded until ctx ends.
func (d *Door) watchHealth(ctx context.Context, r *ReaderConfig) {
	var a ailment
	for ticker := time.NewTicker(lookEvery); ; {
		select {
		case <-ctx.Done():
			ticker.Stop()
			return
		case <-ticker.C:
		}
		h := r.health()
		if h == nil {
			continue
		}
		before := a.said
		if a.look(time.Now(), clip(h.Likely)) {
			now := a.said
			d.post(ctx, func(l *loop) { l.ails(r.Name, before, now) })
		}
	}
}

// ails records that other words than before are true of a reader's wires.
// The reader still reads: nothing of it is shown at the door.
func (l *loop) ails(reader, before, now string) {
	if before != "" {
		delete(l.likely, reader)
		l.log.Info("door", "event", "reader_well", "reader", reader, "likely", before)
		l.ailing(reader, before, false)
	}
	if now != "" {
		l.likely[reader] = now
		l.log.Warn("door", "event", "reader_ill", "reader", reader, "likely", now)
		l.ailing(reader, now, true)
	}
	l.publish()
}

func (l *loop) ailing(reader, likely string, active bool) {
	p := l.record(time.Now(), Record{Type: visitorlog.ReaderFault, Active: &active, Detail: "likely wrong: " + likely})
	p.draft.Data.Reader = reader
	l.records.add(p)
}
