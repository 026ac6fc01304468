package access

import "slices"

// EveryDoor, as a right's door, stands for all doors.
const EveryDoor = "*"

// Decide answers a query. It is total: every query, also a nil or a senseless
// one, gets an answer with a reason from the table, and whatever it does not
// understand is denied. It allocates nothing.
//
// Any one cause denies, and the first in the order of the reasons is named.
// The exception is an active credential that breaks the glass, is within its
// validity and has a right to the door: it opens in spite of a lockdown, an
// expired allowlist, an unset clock and the schedule. While the clock is unset
// its own validity cannot be told and does not stop it either.
//
// Both directions are decided alike. While the clock is unset, a right that no
// bound in time touches still grants.
func Decide(q *Query) Decision {
	if cause := deniedForAll(q); cause != "" {
		return Decision{Reason: cause}
	}
	cause := deniedForNow(q)
	switch {
	case cause == "":
		return Decision{Granted: true, Reason: ReasonGranted}
	case q.Entry.BreakGlass:
		return Decision{Granted: true, Reason: ReasonGrantedBreakGlass, BreakGlass: true}
	default:
		return Decision{Reason: cause}
	}
}

// deniedForAll is the first of the causes that no credential passes.
func deniedForAll(q *Query) Reason {
	switch {
	case q == nil || q.Unreadable:
		return ReasonUnreadable
	case !trusted(q.Policy.Freshness):
		return ReasonAllowlistAbsent
	case q.Entry == nil:
		return ReasonUnknown
	}
	e := q.Entry
	switch e.State {
	case Active:
	case Revoked:
		return ReasonRevoked
	case Lost:
		return ReasonLost
	default:
		return ReasonEntryInvalid
	}
	switch e.Kind {
	case Staff, Contractor, Visitor:
	default:
		return ReasonEntryInvalid
	}
	if clockSet(q.Clock) {
		switch {
		case !e.Until.IsZero() && !q.At.Before(e.Until):
			return ReasonExpired
		case !e.From.IsZero() && q.At.Before(e.From):
			return ReasonNotYetValid
		}
	}
	for _, r := range e.Rights {
		if r.opens(q.Door) {
			return ""
		}
	}
	return ReasonNoRight
}

// deniedForNow is the first of the causes that a break-glass credential
// passes. Whatever deniedForAll looks for is not the case.
func deniedForNow(q *Query) Reason {
	e := q.Entry
	clock := clockSet(q.Clock)
	switch {
	case q.Lockdown:
		return ReasonLockdown
	case q.Policy.Freshness == Expired && !slices.Contains(q.Policy.ExpiredKinds, e.Kind):
		return ReasonAllowlistExpired
	case !clock && !(e.From.IsZero() && e.Until.IsZero()):
		return ReasonClockUnset
	}
	// Without a zone the wall clock is as little known as without a clock.
	clock = clock && q.Zone != nil
	cause := ReasonOutOfSchedule
	for _, r := range e.Rights {
		switch {
		case !r.opens(q.Door):
		case !r.Schedule.Bounded():
			return ""
		case !clock:
			cause = ReasonClockUnset
		case r.Schedule.Contains(q.At, q.Zone):
			return ""
		}
	}
	return cause
}

func (r Right) opens(door string) bool {
	return door != "" && (r.Door == door || r.Door == EveryDoor)
}

func trusted(f Freshness) bool { return f == Fresh || f == Stale || f == Expired }

func clockSet(c ClockState) bool { return c == ClockSynchronised || c == ClockDrifting }
