package visitorlog

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// Verification is how far the verification of the whole log has come, which
// every start of a daemon begins: Open itself looks only at the tail, so that
// a long log keeps nobody waiting at the door.
type Verification struct {
	Epoch   string
	Done    int64     // records verified so far
	Total   int64     // that there were when it began; 0: it has not begun
	Ended   time.Time // zero: it goes on
	Fault   string    // what was found wrong; empty: nothing
	Trouble string    // why it could not look; empty: it could
}

// Verification is a snapshot. What was found wrong with a log that was set
// aside since is no fault of the present one: a new epoch was the answer to it.
func (l *Log) Verification() Verification {
	l.mu.RLock()
	defer l.mu.RUnlock()
	v := l.whole
	if v.Epoch != l.opening.Epoch {
		v.Fault, v.Trouble = "", ""
	}
	return v
}

func (l *Log) setVerification(change func(*Verification)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.whole)
}

// verifyAtLeisure verifies the whole log once. What it finds becomes a record,
// so that the CRM learns of it. Where the epoch changes meanwhile, the new
// one's log is verified instead.
func (l *Log) verifyAtLeisure(ctx context.Context) {
	for {
		epoch := l.Epoch()
		l.setVerification(func(v *Verification) { *v = Verification{Epoch: epoch} })
		_, err := Verify(ctx, filepath.Join(l.dir, databaseFile), VerifyOptions{
			Verifier: l.o.Verifier, NoteVerifier: l.o.NoteVerifier, Sealer: l.o.Sealer, Controller: l.o.Controller, Leisurely: true,
			Progress: func(done, total int64) {
				l.setVerification(func(v *Verification) { v.Done, v.Total = done, total })
				l.afterBacklog(ctx)
			},
		})
		if ctx.Err() != nil {
			return
		}
		if l.Epoch() == epoch {
			l.verified(ctx, epoch, err)
			return
		}
	}
}

const (
	ofBacklog   = 100 // records read at once are a piece of a backlog
	backlogOver = 500 * time.Millisecond
)

// afterBacklog waits while a backlog is sent: the CRM has waited for it longer
// than anybody waits for the verification.
func (l *Log) afterBacklog(ctx context.Context) {
	for ctx.Err() == nil {
		wait := backlogOver - time.Since(time.Unix(0, l.backlog.Load()))
		if wait <= 0 {
			return
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// verified tells of what came of a verification.
func (l *Log) verified(ctx context.Context, epoch string, err error) {
	var fault *Fault
	damaged := errors.As(err, &fault)
	l.setVerification(func(v *Verification) {
		v.Ended = time.Now()
		switch {
		case damaged:
			v.Fault = fault.Error()
		case err != nil:
			v.Trouble = err.Error()
		}
	})
	switch {
	case err == nil:
		l.log.Info("log verified", "epoch", epoch)
	case damaged:
		l.log.Error("log damaged", "epoch", epoch, "first", fault.First, "last", fault.Last, "fault", fault.What)
		if _, err := l.Append(ctx, func(*Tx) (Draft, error) {
			return Draft{Type: Gap, Data: Data{Detail: clip("the log was found damaged: "+fault.Error(), maxDetail)}}, nil
		}); err != nil {
			l.log.Error("damage not recorded", "error", err)
		}
	default:
		l.log.Error("log not verified", "error", err)
	}
}
