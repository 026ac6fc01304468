package door

import (
	"fmt"
	"time"
)

const (
	burst      = 20               // records of a kind that are written one by one
	oneEvery   = 10 * time.Second // and how often, beyond that
	maxBuckets = 1024             // kinds that are told apart
)

// coalescer bounds how many records of a kind are written: beyond a burst,
// only the newest of each stretch of time is, and says how many it stands for.
// The zero value is ready for use.
type coalescer struct {
	kinds map[string]*bucket
}

// bucket is one kind.
type bucket struct {
	spent int       // of burst
	since time.Time // when spent was last reduced
	held  *pending  // the newest that waits for its turn
	count int       // of those that wait
}

// refill gives back what time has earned.
func (b *bucket) refill(now time.Time) {
	for b.spent > 0 && now.Sub(b.since) >= oneEvery {
		b.spent--
		b.since = b.since.Add(oneEvery)
	}
	if b.spent == 0 {
		b.since = now
	}
}

// offer reports whether p may be written now. If not, it is held.
func (c *coalescer) offer(p *pending) (more string, ok bool) {
	b := c.bucket(p)
	b.refill(p.at)
	if b.spent < burst {
		b.spent++
		more, b.count, b.held = others(b.count), 0, nil
		return more, true
	}
	b.held = p
	b.count++
	return "", false
}

func (c *coalescer) bucket(p *pending) *bucket {
	if c.kinds == nil {
		c.kinds = make(map[string]*bucket)
	}
	b, ok := c.kinds[p.key]
	if !ok {
		for key, old := range c.kinds { // forget what lies still
			if old.refill(p.at); old.spent == 0 {
				delete(c.kinds, key)
			}
		}
		key := p.key
		if len(c.kinds) >= maxBuckets {
			key = "" // all others are one kind
			if b, ok = c.kinds[key]; ok {
				return b
			}
		}
		b = &bucket{since: p.at}
		c.kinds[key] = b
	}
	return b
}

// due gives the held records whose turn has come.
func (c *coalescer) due(now time.Time) []*pending {
	var due []*pending
	for _, b := range c.kinds {
		if b.held == nil {
			continue
		}
		if b.refill(now); b.spent < burst {
			b.spent++
			due = append(due, b.release())
		}
	}
	return due
}

// next is when due will give something; zero: not while nothing is offered.
func (c *coalescer) next() time.Time {
	var next time.Time
	for _, b := range c.kinds {
		if b.held != nil {
			next = earlier(next, b.since.Add(oneEvery))
		}
	}
	return next
}

// drain gives every held record.
func (c *coalescer) drain() []*pending {
	var all []*pending
	for _, b := range c.kinds {
		if b.held != nil {
			all = append(all, b.release())
		}
	}
	return all
}

// release takes the held record, which stands for all that waited.
func (b *bucket) release() *pending {
	p := b.held
	p.draft.Data.Detail = sentences(p.draft.Data.Detail, others(b.count-1))
	b.held, b.count = nil, 0
	return p
}

func others(n int) string {
	switch {
	case n <= 0:
		return ""
	case n == 1:
		return "one more like it shortly before was not recorded by itself"
	}
	return fmt.Sprintf("%d more like it shortly before were not recorded one by one", n)
}
