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

// since is how long ago then surely was. It is never more than the truth: within
// one boot the time since boot tells, which nobody sets; after a restart the
// machine has at least run for so long, and only two moments of a synchronised
// clock tell more.
func (m Moment) since(then Moment) time.Duration {
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
// out, and for how long.
type Limits struct {
	PersonAfter, ReaderAfter int // 0: never
	For                      time.Duration
}

// Failures are the failures in a row of a person or a reader to prove who
// somebody is. The zero value is none, which is also what a success leaves.
type Failures struct {
	count int    // at least 1, unless there are none
	last  Moment // when the last one was
}

// maxFailures is where counting ends.
const maxFailures = math.MaxUint16

// Add is f with a failure now. Those before are forgotten if the last of them
// was surely forget ago or longer; 0 or less: never.
func (f Failures) Add(now Moment, forget time.Duration) Failures {
	if forget > 0 && now.since(f.last) >= forget {
		f.count = 0
	}
	// As it is kept, and no earlier.
	now.Wall = now.Wall.Truncate(time.Millisecond).Add(time.Millisecond)
	now.Uptime = max(0, now.Uptime)
	return Failures{min(f.count+1, maxFailures), now}
}

// Locked says whether there are so many failures that nobody is let in, for as
// long as it lasts after the last of them. With after of 0 or less it never is. A
// restart, a clock that is unset, and one that is set back never end it early. It
// is over at the latest when the machine has run for so long after a restart that
// Moment.Boot tells.
func (f Failures) Locked(now Moment, after int, lasts time.Duration) bool {
	return after > 0 && f.count >= after && now.since(f.last) < lasts
}

// failuresJSON are Failures as they are kept.
type failuresJSON struct {
	Count  int        `json:"count"`
	Wall   int64      `json:"wall_ms"` // Unix milliseconds
	Clock  ClockState `json:"clock"`
	Boot   string     `json:"boot"`
	Uptime int64      `json:"uptime_ns"`
}

// Bytes are the failures as ParseFailures reads them; of none it is empty.
func (f Failures) Bytes() []byte {
	if f.count == 0 {
		return []byte{}
	}
	b, err := json.Marshal(failuresJSON{f.count, f.last.Wall.UnixMilli(), f.last.Clock, f.last.Boot, int64(f.last.Uptime)})
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
	f := Failures{v.Count, Moment{time.UnixMilli(v.Wall), v.Clock, v.Boot, time.Duration(v.Uptime)}}
	if v.Count < 1 || v.Count > maxFailures || v.Uptime < 0 || !bytes.Equal(f.Bytes(), b) {
		return Failures{}, errors.New("failures: not as they are written here")
	}
	return f, nil
}
