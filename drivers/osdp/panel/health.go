package panel

import (
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

// What a trend looks back on.
const (
	lookBack   = time.Hour
	sampleEach = time.Minute
)

// Within lookBack, so much of something is no accident.
const (
	manyLost      = 3
	manyMalformed = 3
	manyGarbled   = 10
	manySilent    = 20
	oneIn         = 50 // replies, at the least
)

// trend is how a peripheral's counters have risen lately.
type trend struct{ samples []sample } // oldest first

type sample struct {
	at time.Time
	c  osdp.Counters
}

// back is told that the peripheral is there again. What went unanswered while
// it was away says nothing of the line.
func (t *trend) back(c osdp.Counters) {
	for i := range t.samples {
		t.samples[i].c.Silent, t.samples[i].c.Garbled = c.Silent, c.Garbled
	}
}

// likely says what is probably wrong with the line or the peripheral; empty:
// nothing is. What explains the most comes first.
func (t *trend) likely(now time.Time, c osdp.Counters) string {
	for len(t.samples) > 1 && now.Sub(t.samples[1].at) >= lookBack {
		t.samples = t.samples[1:]
	}
	if n := len(t.samples); n == 0 || now.Sub(t.samples[n-1].at) >= sampleEach {
		t.samples = append(t.samples, sample{now, c})
	}
	was := t.samples[0].c
	replies := c.Replies - was.Replies
	often := func(n, atLeast uint64) bool { return n >= atLeast && n*oneIn >= replies }
	switch {
	case c.Forged > was.Forged:
		return "a frame was not the reader's own: something else speaks on the line in its name, or two readers have one address"
	case c.Lost-was.Lost >= manyLost:
		return "the reader loses its Secure Channel again and again: it restarts, so look at its supply, or another panel is on the line"
	case often(c.Garbled-was.Garbled, manyGarbled):
		return "replies arrive broken: check A and B, the 0 V between reader and controller, and 120 Ω at both ends of the line; two readers may have one address"
	case often(c.Silent-was.Silent, manySilent):
		return "the reader often does not answer: check its supply and terminals; a converter that cuts off the first byte wants mark = true"
	case c.Malformed-was.Malformed >= manyMalformed:
		return "the reader sends what makes no sense: ask its maker for newer firmware"
	}
	return ""
}
