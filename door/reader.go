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
)

// keysTogether is how long typed keys wait for the next.
const keysTogether = 5 * time.Second

// read takes presentations from one reader until ctx ends.
func (d *Door) read(ctx context.Context, r *ReaderConfig) {
	part := readerPart(r.Name)
	var wait time.Duration // not zero: the reader is faulty
	calm := healthyAfter   // when it no longer is
	var seen repeats
	keys := keypad{reader: r}
	defer keys.clear(0)
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
			if now := time.Now(); read.At.IsZero() || read.At.After(now) {
				read.At = now
			}
			if read.Keypad {
				d.typed(ctx, &keys, read)
				return nil
			}
			if !seen.again(read) {
				d.present(ctx, r, read)
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

// present takes a card.
func (d *Door) present(ctx context.Context, r *ReaderConfig, read badge.Read) {
	who := d.identify(r, read)
	if loan := d.sides[r.Direction].loan.Load(); loan != nil {
		loan.offer(who.entry)
		return
	}
	d.admit(ctx, &who)
}

// identify looks a frame up.
func (d *Door) identify(r *ReaderConfig, read badge.Read) presented {
	wall, _ := d.cfg.Clock.Now()
	p := presented{
		side: r.Direction, reader: r.Name, factor: r.Factor, by: r.Name, at: read.At, foreign: read.Foreign,
		unreadable: true, policy: d.cfg.Allowlist.PolicyAt(d.cfg.Name, wall),
		again: func() presented { return d.identify(r, read) },
	}
	if read.Refused != "" { // it may still decode, as somebody else's card
		p.unread = fmt.Sprintf("%d bits that were refused: %s", read.Frame.Len(), clip(read.Refused))
	} else {
		d.lookUp(&p, r.Formats, read.Frame)
	}
	if p.err != nil || p.policy.Freshness == "" {
		p.policy.Freshness = access.Absent // an allowlist that cannot be read
	}
	if !p.unreadable {
		p.proved(r.Factor, r.Name)
	}
	return p
}

// lookUp tries a reader's formats on a frame.
func (d *Door) lookUp(p *presented, formats []*badge.Format, frame badge.Frame) {
	names := make([]string, len(formats))
	for i, format := range formats {
		names[i] = format.Name()
		c, err := format.Decode(frame)
		if err != nil {
			continue
		}
		p.unreadable = false
		e, err := d.cfg.Allowlist.Lookup(c)
		if e != nil && err == nil {
			p.entry, p.err = e, nil
			return
		}
		p.err = errors.Join(p.err, err)
	}
	if p.unreadable {
		p.unread = fmt.Sprintf("%d bits that do not fit %s", frame.Len(), strings.Join(names, ", "))
	}
}

// keypad is what is typed at a reader. It is kept only while a PIN is asked for,
// and no longer than keys belong together.
type keypad struct {
	reader *ReaderConfig

	mu     sync.Mutex
	pad    *badge.Keypad // nil: nothing was typed
	in     uint64        // the attempt that the keys are for
	forget *time.Timer
}

// press takes a key that was typed for an attempt.
func (k *keypad) press(in uint64, read badge.Read) (*badge.PIN, error) {
	k.clear(in)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pad == nil {
		var err error
		if k.pad, err = badge.NewKeypad(k.reader.Keypad, k.reader.KeypadFacility, keysTogether); err != nil {
			return nil, err
		}
		k.in = in
		k.forget = time.AfterFunc(keysTogether, k.expire)
	}
	k.forget.Reset(keysTogether)
	return k.pad.Press(read)
}

// expire forgets what was left standing, though no key follows.
func (k *keypad) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pad != nil {
		k.pad.Expire(time.Now())
	}
}

// clear forgets what was typed for other attempts.
func (k *keypad) clear(in uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pad != nil && k.in != in {
		k.forget.Stop()
		k.pad.Forget()
		k.pad = nil
	}
}

// typed takes a key. It is of a PIN or a TOTP where one is asked for, and where
// nothing is, of a one-time code.
func (d *Door) typed(ctx context.Context, k *keypad, read badge.Read) {
	r, side := k.reader, d.sides[k.reader.Direction]
	a := side.asked.Load()
	in := uint64(0)
	switch {
	case r.Keypad == "", side.loan.Load() != nil:
		d.keyed(ctx, r)
		return
	case a != nil && a.More&(access.PIN|access.TOTP) != 0:
		in = a.ID
	case a != nil || !d.takesCodes(r.Direction):
		d.keyed(ctx, r)
		return
	}
	switch pin, err := k.press(in, read); {
	case errors.Is(err, badge.ErrNotKey):
		d.keyed(ctx, r)
	case err != nil:
		d.postEvent(ctx, Unclear{r.Direction, in})
	case pin != nil && in == 0:
		defer pin.Clear()
		d.code(ctx, r, pin, read.At)
	case pin != nil:
		defer pin.Clear()
		d.number(ctx, r, a, pin, read.At)
	}
}

// keyed counts a key that decides nothing.
func (d *Door) keyed(ctx context.Context, r *ReaderConfig) {
	d.post(ctx, func(l *loop) {
		l.keys[r.Name]++
		l.publish()
	})
}
