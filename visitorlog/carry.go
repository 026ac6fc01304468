package visitorlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// What the CRM cannot append to its tree of an old epoch (records behind a
// damaged one, and those of another log than the one that it has) is carried:
// a record of the present epoch holds the old one as it was signed, and is
// sent and receipted like any other.

const (
	// maxCarried bytes of a JWS leave room for the rest of the record that
	// carries it.
	maxCarried = MaxPayload - 2<<10

	// carryState begins the names of the states that say how far a database has
	// been carried.
	carryState = "carried/"

	maxProbes = 1 << 16 // records in a row that are looked for in vain at once

	// carrySpare bytes are left to the doors: what is carried is on the disk
	// already, and can wait.
	carrySpare = 64 << 20
)

// errUnwilling: it is the present epoch that is to blame, not what was set
// aside.
var errUnwilling = errors.New("the present epoch does not take it")

// Carry writes up to most records of databases set aside into the present
// epoch: those that the CRM has not receipted, of the databases of which Owing
// has nothing more to send. What cannot be carried is named in a record of
// type Gap. How far it came stands in the transaction of each record, and holds
// for the present epoch: what is lost with an epoch is carried again by the
// next, and the CRM takes each record once. wrote is 0 when nothing is left.
func (l *Log) Carry(ctx context.Context, most int) (wrote int, err error) {
	l.asideMu.Lock()
	defer l.asideMu.Unlock()
	files, err := asides(l.dir)
	if err != nil {
		return 0, fmt.Errorf("look for databases set aside: %w", err)
	}
	for _, path := range files {
		epoch := l.Epoch()
		if !l.settled[path] || l.carried[path] == epoch {
			continue
		}
		n, err := l.carryFrom(ctx, path, most-wrote)
		wrote += n
		if errors.Is(err, errUnwilling) || err != nil && !damaged(err) || wrote >= most {
			return wrote, err
		}
		if err != nil {
			l.log.Error("records that were set aside cannot be carried", "file", path, "error", err)
		}
		l.carried[path] = epoch
	}
	return wrote, nil
}

func (l *Log) carryFrom(ctx context.Context, path string, most int) (wrote int, err error) {
	s, err := openStoreReadOnly(ctx, path, l.o.Sealer)
	if err != nil {
		return 0, &Fault{First: -1, Last: -1, What: err.Error()} // as it will be tomorrow
	}
	defer s.close()
	if s.meta.Controller != l.o.Controller || s.meta.Epoch == l.Epoch() {
		return 0, nil
	}
	a := &Aside{l: l, s: s}
	if a.size, err = s.size(ctx); err != nil || a.size == 0 {
		return 0, err
	}
	// Whatever the file is called, its last leaf tells the log that it holds.
	var last []byte
	if err := s.read.QueryRowContext(ctx, `SELECT leaf FROM rec ORDER BY seq DESC LIMIT 1`).Scan(&last); err != nil {
		return 0, err
	}
	key := fmt.Sprintf("%s%s/%d/%x", carryState, a.Epoch(), a.size, last)
	for wrote < most {
		kept, err := l.State(ctx, key)
		if err != nil {
			return wrote, errors.Join(errUnwilling, err)
		}
		next, err := a.carried(ctx, kept)
		if err != nil || next >= a.size {
			return wrote, err
		}
		if free, err := freeSpace(l.dir); err == nil && free < carrySpare {
			return wrote, fmt.Errorf("carry record %d of epoch %s: %w: the disk has room for %d bytes, of which %d are left to the doors",
				next, a.Epoch(), errUnwilling, free, carrySpare)
		}
		draft, end, err := a.draft(ctx, next)
		if err != nil {
			return wrote, err
		}
		_, err = l.Append(ctx, func(tx *Tx) (Draft, error) {
			if now, err := tx.Get(key); err != nil || !bytes.Equal(now, kept) {
				return Draft{}, errors.Join(errors.New("a new epoch has begun"), err)
			}
			return draft, tx.Set(key, strconv.AppendInt(nil, end, 10))
		})
		if err != nil {
			return wrote, fmt.Errorf("carry record %d of epoch %s: %w: %w", next, a.Epoch(), errUnwilling, err)
		}
		wrote++
	}
	return wrote, nil
}

// carried is the first record that has not been carried: what the state says
// or, if there is none, the end of what the CRM is known to hold.
func (a *Aside) carried(ctx context.Context, state []byte) (int64, error) {
	if state != nil {
		return strconv.ParseInt(string(state), 10, 64)
	}
	beside, err := readReceiptAt(a.receiptPath())
	if err != nil {
		a.l.log.Warn("a receipt for records that were set aside cannot be read", "error", err)
	}
	own, err := a.s.newestReceipt(ctx)
	if err != nil && !damaged(err) {
		return 0, err
	}
	for _, r := range []*Receipt{beside, own} {
		if r == nil || r.Epoch != a.Epoch() || r.Size > uint64(a.size) {
			continue
		}
		_, err := a.at(ctx, r.Size, r.Root)
		if err == nil {
			return int64(r.Size), nil
		}
		if !damaged(err) && !errors.Is(err, ErrDiverged) {
			return 0, err
		}
	}
	return 0, nil
}

// draft carries the record at from or, if that is not possible, names it and
// those behind it that cannot be carried either. It ends before end.
func (a *Aside) draft(ctx context.Context, from int64) (d Draft, end int64, err error) {
	why := errors.New("it is missing")
	end = from
	for probes := 0; end < a.size && probes < maxProbes; probes++ {
		rows, err := a.s.rows(ctx, end, 1)
		if err != nil && !damaged(err) {
			return Draft{}, 0, err
		}
		if err == nil && len(rows) > 0 {
			end = rows[0].seq
			var jws string
			if jws, err = a.portable(rows[0]); err == nil && end > from {
				break
			} else if err == nil {
				return Draft{Type: RecordCarried, Data: Data{Carried: &Carried{a.Epoch(), uint64(from), jws}}}, from + 1, nil
			}
		}
		if end == from && err != nil {
			why = err
		}
		end++
	}
	which := fmt.Sprintf("record %d", from)
	if end-1 > from {
		which = fmt.Sprintf("records %d to %d", from, end-1)
	}
	a.l.log.Error("records that were set aside cannot be carried", "file", a.Path(), "epoch", a.Epoch(), "first", from, "last", end-1, "error", why)
	return Draft{Type: Gap, Data: Data{Detail: clip(fmt.Sprintf(
		"%s of epoch %s cannot be carried from the database that was set aside: record %d: %v", which, a.Epoch(), from, why), maxDetail)}}, end, nil
}

// portable opens a record that can be carried. Its signature says more than
// the stored leaf, which may be what is damaged.
func (a *Aside) portable(row stored) (jws string, err error) {
	body, err := a.s.sealer.Open(row.body, bodyAAD(a.Epoch(), row.seq))
	if err != nil {
		return "", errors.New("its body cannot be opened: it was changed, or sealed with another key")
	}
	if len(body) > maxCarried {
		return "", fmt.Errorf("it has %d bytes: a record has room for %d", len(body), maxCarried)
	}
	if _, err := VerifyRecord(string(body), a.l.o.Controller, a.Epoch(), uint64(row.seq), a.l.o.Verifier); err != nil {
		return "", err
	}
	return string(body), nil
}

// forgetCarried drops from a state how far databases had been carried.
func forgetCarried(state map[string][]byte) {
	maps.DeleteFunc(state, func(key string, _ []byte) bool { return strings.HasPrefix(key, carryState) })
}

// Unpack returns the record that a record of type RecordCarried carries, each
// verified with the controller's key and held to the place that its carrier
// names. One that carries another, because an epoch in which records had been
// carried was left too, is followed by that.
func (r *Record) Unpack(v Verifier) ([]Entry, error) {
	var list []Entry
	for r.Type == RecordCarried {
		c := r.Data.Carried
		inner, err := VerifyRecord(c.JWS, r.Data.Controller, c.Epoch, c.Sequence, v)
		if err != nil {
			return nil, fmt.Errorf("it carries record %d of epoch %s: %w", c.Sequence, c.Epoch, err)
		}
		list = append(list, Entry{Seq: c.Sequence, Leaf: tlog.RecordHash([]byte(c.JWS)), JWS: c.JWS, Record: inner})
		r = &inner
	}
	return list, nil
}
