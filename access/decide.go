package access

import "slices"

// EveryDoor, as a right's door, stands for all doors.
const EveryDoor = "*"

// Decide answers a query. It is total: every query, also a nil or a senseless
// one, gets an answer with a reason from the table, and whatever it does not
// understand is denied. It allocates nothing.
//
// Any one cause denies, and the first in the order of the reasons is named. So
// nobody is asked for a second factor who would not be let in with it, and nobody
// waits for another person in vain.
//
// The exception is the badge of an active credential that breaks the glass, is
// within its validity and has a right to the door: it opens in spite of the
// causes that the table of reasons marks so. While the clock is unset its own
// validity cannot be told and does not stop it either. A factor that is given
// under a threat does.
//
// A factor that was refused grants nothing, however many others were given. More
// factors otherwise never turn a grant into a denial.
//
// On the way out, what is about coming in does not count: the level of threat,
// the first person, how many are in, and that two come together. While the clock
// is unset, a right that no bound in time touches still grants.
func Decide(q *Query) Decision {
	if cause := deniedForAll(q); cause != "" {
		return Decision{Reason: cause}
	}
	cause, more := deniedForNow(q)
	threat := q.Duress && !q.DuressOpens
	switch {
	case cause == "" && threat:
		return Decision{Reason: ReasonDuress}
	case cause == "" && q.Duress:
		return Decision{Granted: true, Reason: ReasonGrantedDuress, Against: goesAgainst(q)}
	case cause == "":
		return Decision{Granted: true, Reason: ReasonGranted, Against: goesAgainst(q)}
	case q.Entry.BreakGlass && q.Given.Has(Badge) && !threat:
		return Decision{Granted: true, Reason: ReasonGrantedBreakGlass, BreakGlass: true, Against: goesAgainst(q)}
	}
	alone := cause == ReasonEscortMissing || cause == ReasonSecondMissing
	return Decision{Reason: cause, Together: alone && !q.Over, More: more}
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
	switch {
	case !e.hasRight(q.Door):
		return ReasonNoRight
	case e.Code != nil && e.Code.Door != q.Door:
		return ReasonWrongDoor
	case e.Code != nil && q.CodeUsed:
		return ReasonCodeUsed
	}
	return ""
}

// deniedForNow is the first of the causes that a break-glass credential
// passes, and the factors that may come next where they are the cause. Whatever
// deniedForAll looks for is not the case.
func deniedForNow(q *Query) (Reason, Factor) {
	switch {
	case q.disabled() != "":
		return ReasonDoorDisabled, 0
	case q.inside() && q.Entry.Clearance < q.threat():
		return ReasonLockdown, 0
	case q.Policy.Freshness == Expired && !slices.Contains(q.Policy.ExpiredKinds, q.Entry.Kind):
		return ReasonAllowlistExpired, 0
	case !clockSet(q.Clock) && q.Entry.bounded() && !q.clockExcused():
		return ReasonClockUnset, 0
	}
	if cause := outOfSchedule(q); cause != "" {
		return cause, 0
	}
	if cause := deniedByPlace(q); cause != "" {
		return cause, 0
	}
	switch {
	case q.PersonLocked:
		return ReasonPersonLockedOut, 0
	case q.ReaderLocked:
		return ReasonReaderLockedOut, 0
	}
	if cause, more := lacking(q); cause != "" {
		return cause, more
	}
	return deniedAlone(q), 0
}

// outOfSchedule is why none of the rights holds now; "" if one does.
func outOfSchedule(q *Query) Reason {
	known := q.timeKnown()
	cause := ReasonOutOfSchedule
	for _, r := range q.Entry.Rights {
		switch {
		case !r.opens(q.Door):
		case !r.Schedule.Bounded():
			return ""
		case !known && r.Schedule != nil && q.clockExcused():
			return ""
		case !known:
			cause = ReasonClockUnset
		case r.Schedule.Contains(q.At, q.Zone):
			return ""
		}
	}
	return cause
}

// timeKnown says whether the time of day on site is known. Without a zone the
// wall clock is as little known as without a clock.
func (q *Query) timeKnown() bool { return clockSet(q.Clock) && q.Zone != nil }

// clockExcused says whether rights hold, while the clock is unset, as if there
// were no bounds in time: those of the kinds that the door names for it. A
// one-time code is never among them.
func (q *Query) clockExcused() bool {
	return !clockSet(q.Clock) && q.Site != nil && q.Entry.Code == nil && slices.Contains(q.Site.ClockUnsetKinds, q.Entry.Kind)
}

func (e *Entry) bounded() bool { return !e.From.IsZero() || !e.Until.IsZero() }

func (e *Entry) hasRight(door string) bool {
	for _, r := range e.Rights {
		if r.opens(door) {
			return true
		}
	}
	return false
}

func (r Right) opens(door string) bool {
	return door != "" && (r.Door == door || r.Door == EveryDoor)
}

func trusted(f Freshness) bool { return f == Fresh || f == Stale || f == Expired }

func clockSet(c ClockState) bool { return c == ClockSynchronised || c == ClockDrifting }
