package gpio

import "time"

// debounce tells when a value has stood still for long enough to count.
type debounce[T comparable] struct {
	hold time.Duration
	told T // the value that counts

	next  T         // another that may come to count
	since time.Time // it has stood still; zero: there is none
}

// see takes what was read at a time, and whether it moved since it was last
// read (though it may have come back). It reports whether the value counts
// from now on as the told one.
func (d *debounce[T]) see(v T, moved bool, now time.Time) bool {
	switch {
	case v == d.told:
		d.since = time.Time{}
		return false
	case d.since.IsZero() || v != d.next || moved:
		d.next, d.since = v, now
	}
	if now.Sub(d.since) < d.hold {
		return false
	}
	d.told, d.since = v, time.Time{}
	return true
}

// due is how long it takes for what was last seen to count, if it stands
// still, and at most the time given.
func (d *debounce[T]) due(most time.Duration, now time.Time) time.Duration {
	if d.since.IsZero() {
		return most
	}
	return min(most, d.hold-now.Sub(d.since))
}
