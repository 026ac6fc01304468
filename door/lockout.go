package door

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// LockoutStates begin the keys of the log's state under which failures are
// kept.
const LockoutStates = "lockout/"

// Secrets keep what identifies people out of the log's state: Index is a keyed
// hash, Seal and Open encrypt and authenticate.
type Secrets interface {
	Index(canonical []byte) [16]byte
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Failures to prove who somebody is are kept in the log's state, and change with
// the decision's own record: a restart forgets none. What counts is a wrong
// finger, eye or PIN, of the person whose it should have been and of the reader
// where the person was identified. A factor that only did not come is no failure.
func readerKey(reader string) string { return LockoutStates + "reader/" + reader }

const personKeys = LockoutStates + "person/"

func personKey(s Secrets, person string) string {
	index := s.Index([]byte("failures\x00" + person))
	return personKeys + hex.EncodeToString(index[:])
}

// sealFailures is a person's state: the id and the failures, bound to the key.
func sealFailures(s Secrets, person string, f access.Failures) []byte {
	return s.Seal(append([]byte(person+"\x00"), f.Bytes()...), []byte(personKey(s, person)))
}

func openFailures(s Secrets, key string, sealed []byte) (person string, f access.Failures, err error) {
	plain, err := s.Open(sealed, []byte(key))
	if err != nil {
		return "", access.Failures{}, err
	}
	id, failures, ok := bytes.Cut(plain, []byte{0})
	if !ok {
		return "", access.Failures{}, errors.New("failures of nobody")
	}
	f, err = access.ParseFailures(failures)
	return string(id), f, err
}

// lockouts are what is known of failures when somebody comes.
type lockouts struct {
	person, reader               access.Failures
	personLocked, readerLocked   bool
	personDamaged, readerDamaged bool // what was kept cannot be read: locked out from now on
}

// counts reports whether any number of failures locks out.
func (d *Door) counts() bool { return d.cfg.Limits.PersonAfter > 0 || d.cfg.Limits.ReaderAfter > 0 }

// lockouts reads what get knows of the failures of somebody and of the reader.
func (d *Door) lockouts(p *presented, get func(key string) ([]byte, error)) (k lockouts, err error) {
	if !d.counts() {
		return k, nil
	}
	limits, now := d.cfg.Limits, d.cfg.Clock.Moment()
	if p.entry != nil {
		b, err := get(personKey(d.cfg.Secrets, p.entry.Person))
		if err != nil {
			return lockouts{}, err
		}
		if len(b) > 0 {
			_, k.person, err = openFailures(d.cfg.Secrets, personKey(d.cfg.Secrets, p.entry.Person), b)
			k.personDamaged = err != nil
		}
	}
	b, err := get(readerKey(p.reader))
	if err != nil {
		return lockouts{}, err
	}
	k.reader, err = access.ParseFailures(b)
	k.readerDamaged = err != nil
	if k.personDamaged {
		k.person = tooMany(now, limits.PersonAfter)
	}
	if k.readerDamaged {
		k.reader = tooMany(now, limits.ReaderAfter)
	}
	k.personLocked = k.person.Locked(now, limits.PersonAfter, limits.For)
	k.readerLocked = k.reader.Locked(now, limits.ReaderAfter, limits.For)
	return k, nil
}

// tooMany are as many failures now as lock out.
func tooMany(now access.Moment, after int) (f access.Failures) {
	for range after {
		f = f.Add(now, after, 0)
	}
	return f
}

// lookUpLockouts reads them before a decision, so that nobody is asked for
// anything in vain. Those that count are read again in the decision's record.
func (d *Door) lookUpLockouts(ctx context.Context, p *presented) {
	if !d.counts() {
		return
	}
	who := *p // p itself may be gone when the log answers
	var err error
	p.lockouts, err = patiently(ctx, d, func() (lockouts, error) {
		return d.lockouts(&who, func(key string) ([]byte, error) { return d.cfg.Log.State(ctx, key) })
	})
	if err != nil {
		d.post(ctx, func(l *loop) { l.fault("log", err) })
	}
}

// tries is how many wrong factors there may be before somebody is locked out,
// and no more than Tries.
func (d *Door) tries(k lockouts) int {
	limits, now := d.cfg.Limits, d.cfg.Clock.Moment()
	for n := 1; n < Tries; n++ {
		k.person, k.reader = k.person.Add(now, limits.PersonAfter, limits.For), k.reader.Add(now, limits.ReaderAfter, limits.For)
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
	both := []*presented{p}
	if p.with != nil {
		both = append(both, p.with)
	}
	for _, p := range both {
		p.used, p.traces = nil, nil
		if p.lockouts, err = d.lockouts(p, tx.Get); err != nil {
			return dec, "", err
		}
		if p.kept, err = d.recall(p, tx.Get); err != nil {
			return dec, "", err
		}
		if err = d.spend(tx, p); err != nil {
			return dec, "", err
		}
	}
	dec = d.decideAll(p)
	if p.with != nil {
		both = []*presented{p, p.with} // in whichever order they are now
	}
	for _, p := range both {
		more, err := d.count(tx, p, dec)
		if err == nil && dec.Granted {
			err = d.leave(tx, p)
		}
		if err != nil {
			return dec, "", err
		}
		detail = sentences(sentences(detail, more), p.damaged)
	}
	return dec, detail, nil
}

// count counts what failed, and forgives the person and the reader where somebody
// proved who they are by more than a card. The text says who is locked out.
func (d *Door) count(tx *visitorlog.Tx, p *presented, dec access.Decision) (detail string, err error) {
	if !d.counts() {
		return "", nil
	}
	limits, now := d.cfg.Limits, d.cfg.Clock.Moment()
	fail := func(whose string, f access.Failures, damaged bool, after int, set func(access.Failures) error) error {
		switch {
		case damaged && after > 0:
			detail = sentences(detail, fmt.Sprintf("what was kept of the %s's failures is damaged: the %[1]s is locked out for %v", whose, f.Lasts(limits.For)))
			return set(f)
		case dec.Granted && p.given&^access.Badge != 0 && len(f.Bytes()) > 0:
			return set(access.Failures{})
		case dec.Granted, p.failures == 0, after <= 0, f.Locked(now, after, limits.For):
			return nil // a lock-out is not made longer, or whoever comes by could make it last
		}
		for range p.failures {
			f = f.Add(now, after, limits.For)
		}
		if f.Locked(now, after, limits.For) {
			detail = sentences(detail, fmt.Sprintf("too many failures: the %s is locked out for %v", whose, f.Lasts(limits.For)))
		}
		return set(f)
	}
	if p.entry != nil {
		err = fail("person", p.lockouts.person, p.personDamaged, limits.PersonAfter, func(f access.Failures) error {
			key := personKey(d.cfg.Secrets, p.entry.Person)
			if len(f.Bytes()) == 0 {
				return tx.Set(key, nil)
			}
			return tx.Set(key, sealFailures(d.cfg.Secrets, p.entry.Person, f))
		})
	}
	return detail, errors.Join(err, fail("reader", p.lockouts.reader, p.readerDamaged, limits.ReaderAfter, func(f access.Failures) error {
		if len(f.Bytes()) == 0 {
			return tx.Set(readerKey(p.reader), nil)
		}
		return tx.Set(readerKey(p.reader), f.Bytes())
	}))
}

// LockedOut reads from those states who is locked out now. What cannot be read
// is left out: whoever comes by next is locked out by it, and a record says so.
func LockedOut(states map[string][]byte, s Secrets, now access.Moment, limits access.Limits) (people, readers []string) {
	for _, key := range slices.Sorted(maps.Keys(states)) {
		if reader, ok := strings.CutPrefix(key, readerKey("")); ok {
			if f, err := access.ParseFailures(states[key]); err == nil && f.Locked(now, limits.ReaderAfter, limits.For) {
				readers = append(readers, reader)
			}
			continue
		}
		if person, f, err := openFailures(s, key, states[key]); err == nil && f.Locked(now, limits.PersonAfter, limits.For) {
			people = append(people, person)
		}
	}
	slices.Sort(people)
	return people, readers
}
