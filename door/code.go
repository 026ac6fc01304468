package door

import (
	"cmp"
	"context"
	"crypto/subtle"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	// CodeFor is how long a guard's code lives.
	CodeFor = time.Minute
	// maxCodes of guards live at a door at a time.
	maxCodes = 32
)

// CodeIndex is a guard's code as an order gives it: the keyed hash, with the
// controller's pepper, of the door and the digits, '0' to '9'.
func CodeIndex(index interface {
	Index(canonical []byte) [16]byte
}, door string, digits []byte) [16]byte {
	b := make([]byte, 0, len("\x00guard\x00")+len(door)+1+len(digits)) // at once: no copy is left behind
	b = append(append(append(b, "\x00guard\x00"...), door...), 0)
	b = append(b, digits...)
	defer clear(b)
	return index.Index(b)
}

// codes are the guards' codes of a door. They live in memory only: none outlives
// the program.
type codes struct {
	mu  sync.Mutex
	all []guardCode
}

type guardCode struct {
	hash  [16]byte
	entry *access.Entry
	until time.Time // by the monotonic clock
}

// add adds a code; false: there are too many, or there is one like it.
func (c *codes) add(code guardCode, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(now)
	if len(c.all) >= maxCodes || slices.ContainsFunc(c.all, func(o guardCode) bool { return o.hash == code.hash }) {
		return false
	}
	c.all = append(c.all, code)
	return true
}

// drop takes a code away, that was not recorded.
func (c *codes) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = slices.DeleteFunc(c.all, func(o guardCode) bool { return o.entry.Code.ID == id })
}

func (c *codes) expire(now time.Time) {
	c.all = slices.DeleteFunc(c.all, func(o guardCode) bool { return !now.Before(o.until) })
}

// find is the entry of a code, in the same time whatever its digits are; nil:
// there is none.
func (c *codes) find(hash [16]byte, now time.Time) *access.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(now)
	var found *access.Entry
	for _, o := range c.all {
		if subtle.ConstantTimeCompare(o.hash[:], hash[:]) == 1 {
			found = o.entry
		}
	}
	return found
}

// takesCodes reports whether a rule of a side of the door names one-time codes.
func (d *Door) takesCodes(side access.Direction) bool {
	return slices.ContainsFunc(d.rules(side), func(r access.Rule) bool {
		return slices.ContainsFunc(r.AnyOf, func(set access.Factor) bool { return set.Has(access.OneTimeCode) })
	})
}

// orderCode takes a guard's code.
func (d *Door) orderCode(ctx context.Context, o Order) error {
	entry := &access.Entry{
		Person: o.Person, Kind: cmp.Or(o.Kind, access.Visitor), State: access.Active,
		Rights: []access.Right{{Door: d.cfg.Name, Schedule: access.Always()}},
		Code:   &access.Code{ID: o.ID, Door: d.cfg.Name},
		Visit:  &access.Visit{Host: o.Host, Purpose: o.Why, Authoriser: o.Operator},
	}
	added := false
	_, err := d.recordOrder(ctx, o, visitorlog.Data{}, func(tx *visitorlog.Tx) (string, error) {
		if added { // by what was written before, and did not last
			d.codes.drop(o.ID)
			added = false
		}
		used, err := tx.Get(usedStates + usedCode + o.ID)
		switch {
		case err != nil:
			return "", err
		case o.Person == "" || o.ID == "":
			return "it takes a person", nil
		case len(used) > 0:
			return "the code was used before", nil
		case d.cfg.Secrets == nil:
			return errNoSecrets.Error(), nil
		case !d.takesCodes(access.In):
			return "no rule of the door asks for a code", nil
		}
		now := time.Now()
		if added = d.codes.add(guardCode{o.Code, entry, now.Add(CodeFor)}, now); !added {
			return "the door has too many codes, or one like it: try again with another", nil
		}
		return "", nil
	})
	if err != nil && added {
		d.codes.drop(o.ID)
	}
	return err
}

// code takes a one-time code that somebody typed before they presented anything.
func (d *Door) code(ctx context.Context, r *ReaderConfig, pin *badge.PIN, at time.Time) {
	who := d.identifyCode(r, slices.Clone(pin.Digits()), at)
	if who.entry != nil || who.err != nil {
		d.admit(ctx, &who)
		return
	}
	who.failures = 1
	who.outcomes = []visitorlog.FactorOutcome{{Factor: access.OneTimeCode.String(), Outcome: visitorlog.OutcomeNoMatch, Reader: r.Name}}
	who.detail = "a code was typed that nobody has"
	d.lookUpLockouts(ctx, &who)
	d.judge(ctx, who)
}

// identifyCode looks a code up: a guard's, and one of the allowlist, whether or not
// there is the other.
func (d *Door) identifyCode(r *ReaderConfig, digits []byte, at time.Time) presented {
	wall, _ := d.cfg.Clock.Now()
	p := presented{
		side: r.Direction, reader: r.Name, factor: access.OneTimeCode, by: r.Name, at: at,
		policy: d.cfg.Allowlist.PolicyAt(d.cfg.Name, wall),
		again:  func() presented { return d.identifyCode(r, digits, at) },
	}
	listed, err := d.cfg.Allowlist.Code(digits)
	if p.entry, p.err = listed, err; err != nil {
		p.entry = nil
	}
	if d.cfg.Secrets != nil {
		if e := d.codes.find(CodeIndex(d.cfg.Secrets, d.cfg.Name, digits), at); e != nil {
			p.entry, p.err = e, nil
		}
	}
	if p.err != nil || p.policy.Freshness == "" {
		p.policy.Freshness = access.Absent // an allowlist that cannot be read
	}
	if p.entry != nil {
		p.proved(access.OneTimeCode, r.Name)
		if p.entry.Code != nil {
			p.code = p.entry.Code.ID
		}
	}
	return p
}

// number is what somebody typed when they were asked for a PIN or a TOTP: both are
// tried, whichever they have.
func (d *Door) number(ctx context.Context, r *ReaderConfig, a *Attempt, pin *badge.PIN, at time.Time) {
	e := a.who.entry
	ok, duress := d.cfg.Allowlist.CheckPIN(e, pin.Digits())
	step, fresh := d.checkTOTP(ctx, e, pin.Digits())
	switch {
	case ok && a.More.Has(access.PIN):
		d.post(ctx, func(l *loop) { l.given(a, access.PIN, r.Name, duress, 0, at) })
	case fresh && a.More.Has(access.TOTP):
		d.post(ctx, func(l *loop) { l.given(a, access.TOTP, r.Name, false, step, at) })
	default:
		f := access.PIN
		if !a.More.Has(f) {
			f = access.TOTP
		}
		d.postEvent(ctx, Failed{r.Direction, a.ID, f, r.Name, visitorlog.OutcomeNoMatch})
	}
}

// noTOTP stands for the secret of somebody who has none.
var noTOTP = make([]byte, access.MinTOTPSecret)

// checkTOTP compares digits with what somebody's device shows now. What was
// accepted before is not accepted again.
func (d *Door) checkTOTP(ctx context.Context, e *access.Entry, digits []byte) (step uint64, ok bool) {
	secret, last := e.TOTP, uint64(0)
	wall, clock := d.cfg.Clock.Now()
	if has := len(secret) > 0 && clock != access.ClockUnset && d.cfg.Secrets != nil; has {
		var err error
		last, err = patiently(ctx, d, func() (uint64, error) {
			return d.lastTOTP(e.Person, func(key string) ([]byte, error) { return d.cfg.Log.State(ctx, key) })
		})
		ok = err == nil
	} else {
		secret = noTOTP
	}
	step, same := access.CheckTOTP(secret, digits, wall, last)
	return step, same && ok
}
