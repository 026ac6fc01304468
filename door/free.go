package door

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// lookFor is how often a door looks at what no event tells: the time of its
// schedule, and what a new policy asks of it.
const lookFor = 5 * time.Second

// poke has the loop look at what others have changed.
func (d *Door) poke() {
	select {
	case d.wake <- struct{}{}:
	default: // it is about to look
	}
}

// whyDisabled says why nobody passes for the time being, by order or by the
// policy; "": the door is in use.
func (d *Door) whyDisabled() string {
	why := d.disabled.Load()
	switch {
	case why == nil:
		return "it is not known yet whether the door is disabled"
	case *why != "":
		return *why
	}
	if site := d.site(); site != nil {
		return site.Disabled
	}
	return ""
}

// readKept reads what orders left in the log's state. The channel is closed when
// it was read, or could not be for the first time: until it is, the door is
// disabled and the threat the highest.
func (d *Door) readKept(ctx context.Context) <-chan struct{} {
	read := make(chan struct{})
	first := sync.OnceFunc(func() { close(read) })
	unknown := func(err error) {
		d.post(ctx, func(l *loop) {
			l.blind = l.disabled.Load() == nil
			l.fault("log", err)
		})
		first()
	}
	d.parts.Go(func() {
		defer first()
		hangs := time.AfterFunc(Patience, func() { unknown(fmt.Errorf("no answer within %v", Patience)) })
		defer hangs.Stop()
		for wait := time.Duration(0); ctx.Err() == nil; {
			err := guard(func() error { return d.readOnce(ctx) })
			if err == nil {
				d.poke()
				return
			}
			unknown(err)
			wait = longer(wait)
			sleep(ctx, wait)
		}
	})
	return read
}

func (d *Door) readOnce(ctx context.Context) error {
	if err := d.cfg.Neighbours.read(ctx, d.cfg.Log); err != nil {
		return err
	}
	why, err := d.cfg.Log.State(ctx, disabledStates+d.cfg.Name)
	if err != nil {
		return err
	}
	free, err := d.cfg.Log.State(ctx, freeStates+d.cfg.Name)
	if err != nil {
		return err
	}
	if len(free) > 0 {
		if err := d.recordFree(ctx, false, "the controller ended without a word", func(*visitorlog.Tx) error { return nil }); err != nil {
			return err
		}
	}
	text := string(why)
	d.disabled.CompareAndSwap(nil, &text) // unless an order came first
	return nil
}

// recordFree records that the door begins to be free for everybody, or that it
// ended, where may, within the record's transaction, has nothing against it.
func (d *Door) recordFree(ctx context.Context, active bool, detail string, may func(*visitorlog.Tx) error) error {
	var state []byte
	if active {
		state = []byte{1}
	}
	_, err := d.cfg.Log.Append(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{
			Type: visitorlog.FreeAccess,
			Data: visitorlog.Data{Door: d.cfg.Name, Active: &active, Detail: detail},
		}, errors.Join(may(tx), tx.Set(freeStates+d.cfg.Name, state))
	})
	return err
}

// both is closed when a and b are.
func (d *Door) both(a, b <-chan struct{}) <-chan struct{} {
	c := make(chan struct{})
	d.parts.Go(func() {
		<-a
		<-b
		close(c)
	})
	return c
}

// look tells the machine what others have changed, and the time.
func (l *loop) look() {
	if l.disabled.Load() == nil && !l.blind {
		return // it will be known in a moment
	}
	if level := l.cfg.Neighbours.level(); level != l.m.State().Threat {
		l.step(ThreatChanged{level})
	}
	if disabled := l.whyDisabled() != ""; disabled != l.m.State().Disabled {
		l.step(DisabledChanged{disabled})
	}
	site := l.site()
	l.lookAt = time.Now().Add(lookFor) // also where nothing is asked: a new policy may
	why := l.locks(site)
	if why == "" && len(l.crashed) > 0 {
		why = "a part of the door failed"
	}
	behind, _ := l.records.waiting() // of which one may be that it ended
	switch free := l.m.State().Free; {
	case free && why != "":
		l.step(FreeEnded{why})
	case !free && why == "" && behind == 0 && !l.freeing && !time.Now().Before(l.freeAt):
		l.freeing, l.freeAt = true, time.Now().Add(lookFor)
		l.parts.Go(func() { l.begin(site.FirstPerson) })
	}
}

// locks is why the door is not free for everybody now; "": it is. The reasons
// that the machine knows itself are its own.
func (d *Door) locks(site *access.Door) string {
	wall, clock := d.cfg.Clock.Now()
	switch {
	case site == nil || site.Free == nil || site.ServerRoom || site.TwoPerson || len(site.Interlock) > 0:
		return "the door has no schedule for that"
	case d.lockdown.Load() || d.cfg.Neighbours.level() > 0:
		return "there is a threat"
	case d.whyDisabled() != "":
		return "the door is disabled"
	case clock == access.ClockUnset && site.Free.Bounded():
		return "the clock is unset"
	case !site.Free.Contains(wall, d.cfg.Zone):
		return "its schedule ended"
	}
	if f := d.cfg.Allowlist.PolicyAt(d.cfg.Name, wall).Freshness; f != access.Fresh && f != access.Stale {
		return fmt.Sprintf("the allowlist is %s", f)
	}
	if s := d.status.Load(); s.Forced || s.Tamper {
		return "the door was forced or tampered with"
	}
	return ""
}

var errNotFree = errors.New("the door is not free for everybody")

// begin records that the door is free for everybody, and then unlocks it.
func (d *Door) begin(first bool) {
	ctx := d.running
	done := func() {}
	err := guard(func() error {
		if first { // of which most often there is nothing to write
			b, err := d.cfg.Log.State(ctx, begunStates+d.cfg.Name)
			if err != nil || !d.begun(b) {
				return errors.Join(errNotFree, err)
			}
		}
		return d.recordFree(ctx, true, "by its schedule", func(tx *visitorlog.Tx) error {
			done() // of what was written before, and did not last
			if d.locks(d.site()) != "" {
				return errNotFree
			}
			if first {
				b, err := tx.Get(begunStates + d.cfg.Name)
				if err != nil || !d.begun(b) {
					return errors.Join(errNotFree, err)
				}
			}
			done = d.cfg.Neighbours.open(d.cfg.Name)
			return nil
		})
	})
	d.post(ctx, func(l *loop) {
		l.freeing = false
		if err == nil {
			l.step(FreeBegan{})
		} else if !errors.Is(err, errNotFree) && ctx.Err() == nil {
			l.fault("log", err)
		}
		done()
	})
}

// awaits makes known what the grants left of those whose passage is awaited.
func (l *loop) awaits() {
	var all []trace
	for _, g := range l.m.waiting {
		all = append(all, g.traces...)
	}
	if len(all) > 0 || len(*l.traces.Load()) > 0 {
		l.traces.Store(&all)
	}
}
