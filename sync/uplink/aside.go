package uplink

import (
	"errors"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// A log that begins a new epoch leaves records behind that the CRM may not
// hold. They are sent beside those of the present epoch, one database after
// the other and one batch at a time: the receipt that answers a batch says
// what the CRM holds of that epoch, and so where the next one begins.

// What of them cannot be sent so is carried by records of the present epoch,
// while that has nothing else to send.

// maxRefusals is how often the CRM may answer a batch without taking it.
const maxRefusals = 3

// carryAtOnce is how many records are carried before their receipt is awaited.
// A door that opens meanwhile waits for the commit of one of them at most.
const carryAtOnce = 8

// aside is the part of the loop that sends a database set aside.
type aside struct {
	db       *visitorlog.Aside // nil: none is being sent
	none     string            // the epoch in which no more was found owing
	end      uint64            // of the batch in flight; 0: none is
	answered bool              // it was, without progress
	refusals int
	wait     time.Duration
	due      *time.Timer

	carried string    // the epoch in which nothing more was left to carry
	carryAt time.Time // not before
}

// drain sends the next batch of what was set aside, if its turn has come.
func (l *loop) drain() {
	a := &l.aside
	for l.synced && a.end == 0 {
		if a.db == nil && !l.nextAside() {
			return
		}
		if wait := l.spend(); wait > 0 {
			l.retry(wait)
			return
		}
		entries, checkpoint, err := a.db.Next(l.ctx, wire.MaxBatchRecords, wire.MaxBatch-batchRoom)
		var damaged *visitorlog.Fault
		if errors.As(err, &damaged) {
			l.leave("they cannot be read any further", err)
			continue
		}
		if err != nil {
			l.fault("read records that were set aside", err)
			l.retry(l.u.o.Deadline)
			return
		}
		b := &wire.Batch{V: wire.Version, Controller: l.u.o.Controller, Epoch: a.db.Epoch(), First: a.db.Acknowledged(), Checkpoint: checkpoint}
		for _, e := range entries {
			b.Records = append(b.Records, e.JWS)
		}
		if !l.publish(b) {
			l.retry(l.u.o.EarlyEvery) // the sender is behind
			return
		}
		a.end, a.answered = b.End(), false
		a.due.Reset(jitter(a.wait))
		l.u.set(func(s *Status) { s.Batches++ })
	}
}

// nextAside opens the next database that owes records. What is set aside is
// looked through once an epoch: only then is there more.
func (l *loop) nextAside() bool {
	a := &l.aside
	if a.none == l.epoch {
		return false
	}
	db, err := l.u.o.Log.Owing(l.ctx)
	if err != nil {
		l.fault("look for records that were set aside", err)
		l.retry(l.u.o.Deadline)
		return false
	}
	if db == nil {
		a.none = l.epoch
		return false
	}
	a.db, a.refusals, a.wait = db, 0, l.u.o.Deadline
	l.u.o.Logger.Info("sending records that were set aside", "epoch", db.Epoch(), "acknowledged", db.Acknowledged(), "owed", db.Owed())
	return true
}

// receiveAside looks at a receipt, already verified, for what was set aside.
func (l *loop) receiveAside(r visitorlog.Receipt) {
	a := &l.aside
	before := a.db.Acknowledged()
	err := a.db.Acknowledge(l.ctx, r)
	var damaged *visitorlog.Fault
	switch {
	case errors.Is(err, visitorlog.ErrDiverged):
		l.leave("the CRM holds another log of their epoch", err)
	case errors.As(err, &damaged):
		l.leave("they cannot be read any further", err)
	case err != nil:
		l.fault("keep a receipt for records that were set aside", err)
	case a.db.Owed() == 0:
		l.u.o.Logger.Info("records that were set aside have all arrived", "epoch", r.Epoch, "size", r.Size)
		l.closeAside()
	case a.db.Acknowledged() > before:
		a.end, a.refusals, a.wait = 0, 0, l.u.o.Deadline
		a.due.Stop()
	default:
		a.answered = true // late, or refused: the deadline tells
	}
}

// overdueAside sends a batch again for which no receipt came.
func (l *loop) overdueAside() {
	a := &l.aside
	a.end, a.wait = 0, min(2*a.wait, l.u.o.MaxDeadline)
	if a.db == nil || !a.answered {
		return
	}
	if a.refusals++; a.refusals >= maxRefusals {
		l.leave("the CRM does not take them", nil)
	}
}

// carry has the log carry a few records that cannot be sent in any other way,
// if all that it holds has arrived.
func (l *loop) carry() {
	a := &l.aside
	if !l.synced || l.acked < l.head || a.db != nil || a.none != l.epoch || a.carried == l.epoch {
		return
	}
	if wait := time.Until(a.carryAt); wait > 0 {
		l.retry(wait)
		return
	}
	pause := l.u.o.CarryEvery
	switch n, err := l.u.o.Log.Carry(l.ctx, carryAtOnce); {
	case err != nil:
		l.fault("carry records that were set aside", err)
		pause = l.u.o.MaxDeadline
		l.retry(pause)
	case n == 0:
		a.carried = l.epoch
	default:
		l.u.o.Logger.Info("records that were set aside are carried", "records", n)
	}
	a.carryAt = time.Now().Add(pause)
}

// leave gives up sending what is left of a database: it is carried.
func (l *loop) leave(why string, err error) {
	a := &l.aside
	l.u.o.Logger.Error("records that were set aside cannot be sent as their own log: "+why, "file", a.db.Path(), "epoch", a.db.Epoch(),
		"acknowledged", a.db.Acknowledged(), "left", a.db.Owed(), "error", err)
	if err := a.db.Leave(); err != nil {
		l.fault("close records that were set aside", err)
	}
	a.db, a.end = nil, 0
	a.due.Stop()
}

func (l *loop) closeAside() {
	a := &l.aside
	if a.db == nil {
		return
	}
	if err := a.db.Close(); err != nil {
		l.fault("close records that were set aside", err)
	}
	a.db, a.end = nil, 0
	a.due.Stop()
}
