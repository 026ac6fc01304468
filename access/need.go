package access

import "math/bits"

// badgeAlone is what a door without rules asks for.
var badgeAlone = [...]Rule{{Schedule: always, AnyOf: []Factor{Badge}}}

// Needs are the rules that hold at the moment: of each, one set must be given.
// It is one rule, the first whose schedule contains the moment; none if there is
// no such rule, and then nothing opens. While the time is not known, it is every
// rule up to the first without bounds in time, so that whatever the time is, no
// less is asked for.
//
// The sets are the door's. What a person gives instead, and what is too weak to
// open alone, is not taken into account.
func Needs(q *Query) []Rule {
	if len(q.Rules) == 0 {
		return badgeAlone[:]
	}
	known := q.timeKnown()
	for i, r := range q.Rules {
		switch {
		case known && r.Schedule.Contains(q.At, q.Zone):
			return q.Rules[i : i+1]
		case !known && !r.Schedule.Bounded():
			return q.Rules[:i+1]
		}
	}
	return nil
}

// lacking is what keeps the factors from being enough, and which may come next
// if any may.
func lacking(q *Query) (Reason, Factor) {
	met, more := progress(q)
	switch {
	case met && q.Refused == 0:
		return "", 0
	case q.Refused != 0 && (q.Over || more == 0):
		return ReasonFactorMismatch, 0
	case more == 0:
		return ReasonFactorUnavailable, 0
	case q.Over:
		return ReasonFactorMissing, 0
	default:
		return ReasonFactorMissing, more
	}
}

// progress says whether everything that is asked for was given, and if not,
// which factors lead on; none if no others can.
func progress(q *Query) (met bool, more Factor) {
	needs := Needs(q)
	met = len(needs) > 0
	for _, rule := range needs {
		done, next := rule.progress(q)
		switch {
		case done:
		case next == 0:
			return false, 0
		default:
			met = false
			more |= next
		}
	}
	return met, more
}

func (r Rule) progress(q *Query) (met bool, more Factor) {
	given := q.proved()
	for _, set := range r.AnyOf {
		set, ok := q.asks(set)
		switch {
		case !ok:
		case given.Has(set):
			return true, 0
		case (given | q.possible()).Has(set):
			more |= set &^ given
		}
	}
	return false, more
}

// proved is what was given and not refused. A one-time code counts only where it
// is what the entry was found by, and a badge only where no code is.
func (q *Query) proved() Factor { return q.ofEntry(q.Given &^ q.Refused) }

func (q *Query) possible() Factor { return q.ofEntry(q.Possible) }

func (q *Query) ofEntry(f Factor) Factor {
	if q.Entry.Code == nil {
		return f &^ OneTimeCode
	}
	return f &^ Badge
}

// asks is a set as it is asked of this person, and whether it may open at all.
// It is never of fewer factors than the door's.
func (q *Query) asks(set Factor) (_ Factor, ok bool) {
	for _, s := range q.Entry.Instead {
		switch {
		case !set.Has(s.Of):
		case !s.Of.single() || !s.By.single() || set.Has(s.By) || (s.Of|s.By)&OneTimeCode != 0:
			return 0, false
		default:
			set = set&^s.Of | s.By
		}
	}
	weak := set.single() && q.Weak.Has(set)
	return set, set != 0 && set&^allFactors == 0 && !weak
}

func (f Factor) single() bool { return bits.OnesCount8(uint8(f)) == 1 }
