package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// Moment is a point in time as a controller knows it, to be compared with
// another, also over a restart.
type Moment struct {
	Wall   time.Time // the wall clock
	Clock  ClockState
	Boot   string        // which start of the machine it is; "": not known
	Uptime time.Duration // since that start
}

// Since is how long ago then surely was. It is never more than the truth: within
// one boot the time since boot tells, which nobody sets; after a restart the
// machine has at least run for so long, and only two moments of a synchronised
// clock tell more.
func (m Moment) Since(then Moment) time.Duration {
	if m.Boot == then.Boot || m.Boot == "" || then.Boot == "" {
		return max(0, m.Uptime-then.Uptime)
	}
	passed := max(0, m.Uptime)
	if m.Clock == ClockSynchronised && then.Clock == ClockSynchronised {
		passed = max(passed, m.Wall.Sub(then.Wall))
	}
	return passed
}

// Limits say after how many failures in a row a person or a reader is locked
// out, and for how long the first time.
type Limits struct {
	PersonAfter, ReaderAfter int // 0: never
	For                      time.Duration
}

// MaxLockOut is where the length of lock-outs stops to rise.
const MaxLockOut = time.Hour

// Failures are the failures in a row of a person or a reader to prove who
// somebody is. The zero value is none, which is also what a success leaves.
type Failures struct {
	count    int    // at least 1, unless there are none
	last     Moment // when the last one was
	lockOuts int    // how often so many came together that they locked out
}

// maxFailures is where counting ends.
const maxFailures = math.MaxUint16

// Add is f with a failure now. Those before are forgotten if the last of them
// was surely as long ago as a lock-out lasts the first time, 0 or less: never,
// and if they locked out, as long as that lasted. How often they did is
// forgotten only by a success.
func (f Failures) Add(now Moment, after int, lasts time.Duration) Failures {
	forget := lasts
	if f.locksOut(after) {
		f.lockOuts = max(f.lockOuts, 1) // also where that was not kept yet
		forget = f.Lasts(lasts)
	}
	if lasts > 0 && now.Since(f.last) >= forget {
		f.count = 0
	}
	before := f.locksOut(after)
	f.count = min(f.count+1, maxFailures)
	if f.locksOut(after) && !before {
		f.lockOuts = min(f.lockOuts+1, maxFailures)
	}
	// As it is kept, and no earlier.
	now.Wall = now.Wall.Truncate(time.Millisecond).Add(time.Millisecond)
	now.Uptime = max(0, now.Uptime)
	f.last = now
	return f
}

// Locked says whether there are so many failures that nobody is let in, for as
// long as Lasts says after the last of them. With after of 0 or less it never is.
// A restart, a clock that is unset, and one that is set back never end it early.
// It is over at the latest when the machine has run for so long after a restart
// that Moment.Boot tells.
func (f Failures) Locked(now Moment, after int, lasts time.Duration) bool {
	return f.locksOut(after) && now.Since(f.last) < f.Lasts(lasts)
}

func (f Failures) locksOut(after int) bool { return after > 0 && f.count >= after }

// Lasts is how long a lock-out by these failures lasts: each lasts twice as long
// as the one before, and none longer than MaxLockOut or the first.
func (f Failures) Lasts(first time.Duration) time.Duration {
	lasts := first
	for n := 1; n < f.lockOuts && lasts > 0 && lasts < MaxLockOut; n++ {
		lasts = min(2*lasts, MaxLockOut)
	}
	return lasts
}

// failuresJSON are Failures as they are kept.
type failuresJSON struct {
	Count  int        `json:"count"`
	Wall   int64      `json:"wall_ms"` // Unix milliseconds
	Clock  ClockState `json:"clock"`
	Boot   string     `json:"boot"`
	Uptime int64      `json:"uptime_ns"`
	// Left out of what was kept before lock-outs grew longer.
	LockOuts int `json:"lock_outs,omitempty"`
}

// Bytes are the failures as ParseFailures reads them; of none it is empty.
func (f Failures) Bytes() []byte {
	if f.count == 0 {
		return []byte{}
	}
	b, err := json.Marshal(failuresJSON{f.count, f.last.Wall.UnixMilli(), f.last.Clock, f.last.Boot, int64(f.last.Uptime), f.lockOuts})
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return b
}

// ParseFailures reads what Bytes wrote, and nothing else; nothing at all is no
// failures. Whoever cannot read them does not know that there were none.
func ParseFailures(b []byte) (Failures, error) {
	if len(b) == 0 {
		return Failures{}, nil
	}
	var v failuresJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return Failures{}, fmt.Errorf("failures: %w", err)
	}
	f := Failures{v.Count, Moment{time.UnixMilli(v.Wall), v.Clock, v.Boot, time.Duration(v.Uptime)}, v.LockOuts}
	if v.Count < 1 || v.Count > maxFailures || v.LockOuts < 0 || v.LockOuts > maxFailures || v.Uptime < 0 || !bytes.Equal(f.Bytes(), b) {
		return Failures{}, errors.New("failures: not as they are written here")
	}
	return f, nil
}
