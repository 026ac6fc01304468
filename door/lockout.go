package door

import (
	"context"
	"errors"
	"fmt"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Failures to prove who somebody is are kept in the log's state, and change with
// the decision's own record: a restart forgets none. What counts is a wrong
// finger, eye or PIN, of the person whose it should have been and of the reader
// where the person was identified. A factor that only did not come is no failure.
func personKey(person string) string { return "lockout/person/" + person }
func readerKey(reader string) string { return "lockout/reader/" + reader }

// lockouts are what is known of failures when somebody comes.
type lockouts struct {
	person, reader             access.Failures
	personLocked, readerLocked bool
}

// counts reports whether any number of failures locks out.
func (d *Door) counts() bool { return d.cfg.Limits.PersonAfter > 0 || d.cfg.Limits.ReaderAfter > 0 }

// lockouts reads what get knows of the failures of somebody and of the reader.
func (d *Door) lockouts(p *presented, get func(key string) ([]byte, error)) (lockouts, error) {
	var k lockouts
	if !d.counts() {
		return k, nil
	}
	read := func(key string) (access.Failures, error) {
		b, err := get(key)
		if err != nil {
			return access.Failures{}, err
		}
		f, err := access.ParseFailures(b)
		if err != nil {
			return access.Failures{}, fmt.Errorf("state %q: %w", key, err)
		}
		return f, nil
	}
	var errPerson, errReader error
	if p.entry != nil {
		k.person, errPerson = read(personKey(p.entry.Person))
	}
	k.reader, errReader = read(readerKey(p.reader))
	if err := errors.Join(errPerson, errReader); err != nil {
		return lockouts{}, err
	}
	limits, now := d.cfg.Limits, d.cfg.Clock.Moment()
	k.personLocked = k.person.Locked(now, limits.PersonAfter, limits.For)
	k.readerLocked = k.reader.Locked(now, limits.ReaderAfter, limits.For)
	return k, nil
}

// lookUpLockouts reads them before a decision, so that nobody is asked for
// anything in vain. Those that count are read again in the decision's record.
func (d *Door) lookUpLockouts(ctx context.Context, p *presented) error {
	k, err := d.lockouts(p, func(key string) ([]byte, error) { return d.cfg.Log.State(ctx, key) })
	p.lockouts = k
	return err
}

// tries is how many wrong factors there may be before somebody is locked out,
// and no more than Tries.
func (d *Door) tries(k lockouts) int {
	limits, now := d.cfg.Limits, d.cfg.Clock.Moment()
	for n := 1; n < Tries; n++ {
		k.person, k.reader = k.person.Add(now, limits.For), k.reader.Add(now, limits.For)
		if k.person.Locked(now, limits.PersonAfter, limits.For) || k.reader.Locked(now, limits.ReaderAfter, limits.For) {
			return n
		}
	}
	return Tries
}

// mayCount reports whether what somebody failed at counts.
func (d *Door) mayCount(p *presented) bool {
	return p.failures > 0 &&
		(p.entry != nil && d.cfg.Limits.PersonAfter > 0 && !p.personLocked || d.cfg.Limits.ReaderAfter > 0 && !p.readerLocked)
}

// settle decides within the transaction of the decision's record, and keeps
// there what follows from it for the next one.
func (d *Door) settle(tx *visitorlog.Tx, p *presented) (dec access.Decision, detail string, err error) {
	if d.counts() {
		if p.lockouts, err = d.lockouts(p, tx.Get); err != nil {
			return access.Decision{}, "", err
		}
	}
	dec = d.decide(p)
	detail, err = d.count(tx, p, dec)
	return dec, detail, err
}

// count counts what failed, or forgives a person who proved who they are by more
// than a card. The text says whom it locks out.
func (d *Door) count(tx *visitorlog.Tx, p *presented, dec access.Decision) (detail string, err error) {
	if !d.counts() {
		return "", nil
	}
	if dec.Granted {
		if p.given&^access.Badge == 0 || len(p.lockouts.person.Bytes()) == 0 {
			return "", nil
		}
		return "", tx.Set(personKey(p.entry.Person), nil)
	}
	if p.failures == 0 {
		return "", nil
	}
	limits, now := d.cfg.Limits, d.cfg.Clock.Moment()
	fail := func(whose, key string, f access.Failures, after int) error {
		if after <= 0 || f.Locked(now, after, limits.For) {
			return nil // it is not made longer, or whoever comes by could make it last
		}
		for range p.failures {
			f = f.Add(now, limits.For)
		}
		if f.Locked(now, after, limits.For) {
			detail = sentences(detail, fmt.Sprintf("too many failures: the %s is locked out for %v", whose, limits.For))
		}
		return tx.Set(key, f.Bytes())
	}
	if p.entry != nil {
		err = fail("person", personKey(p.entry.Person), p.lockouts.person, limits.PersonAfter)
	}
	return detail, errors.Join(err, fail("reader", readerKey(p.reader), p.lockouts.reader, limits.ReaderAfter))
}
