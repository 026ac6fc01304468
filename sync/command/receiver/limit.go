package receiver

import (
	"strings"
	"time"
	"unicode"
)

// limiter lets some things happen at once, and then one after each stretch of
// time.
type limiter struct {
	most  int
	every time.Duration
	spent int
	since time.Time // when spent was last reduced
}

func (l *limiter) allow(now time.Time) bool {
	for l.spent > 0 && now.Sub(l.since) >= l.every {
		l.spent--
		l.since = l.since.Add(l.every)
	}
	if l.spent == 0 {
		l.since = now
	}
	if l.spent >= l.most {
		return false
	}
	l.spent++
	return true
}

// coalesce counts what is not recorded by itself.
type coalesce struct {
	limiter
	left uint64
}

// record reports whether to record one more, and how many were left out before it.
func (c *coalesce) record(now time.Time) (more uint64, ok bool) {
	if !c.allow(now) {
		c.left++
		return 0, false
	}
	more, c.left = c.left, 0
	return more, true
}

// plain is a text as records take it: one line, and not too long.
func plain(s string) string {
	s = s[:min(len(s), maxDetail)]
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}
