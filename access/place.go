package access

// inside says whether the way leads in. Only the way out is another: whatever
// else is asked counts as the way in.
func (q *Query) inside() bool { return q.Direction != Out }

// disabled is why nobody passes for the time being; "": the door is in use.
func (q *Query) disabled() string {
	if q.Disabled == "" && q.Site != nil {
		return q.Site.Disabled
	}
	return q.Disabled
}

// threat is the level that holds. A lockdown by a key switch is the highest.
func (q *Query) threat() Threat {
	if q.Lockdown {
		return max(q.Threat, MaxThreat)
	}
	return q.Threat
}

// into is the area that the way leads into and out of which the other leads;
// nil: none.
func (q *Query) into() *Area {
	if q.Site == nil {
		return nil
	}
	return q.Site.Into
}

// deniedByPlace is the first of the causes that lie in who is where, and in the
// doors beside this one.
func deniedByPlace(q *Query) Reason {
	area := q.into()
	switch {
	case q.inside() && q.Site != nil && q.Site.FirstPerson && !q.Begun && !q.supervised():
		return ReasonFirstPerson
	case misplaced(q) && area.Passback != PassbackSoft:
		return ReasonPassback
	case tooSoon(q):
		return ReasonPassbackTimed
	case full(q):
		return ReasonOccupancy
	case q.Interlocked != "":
		return ReasonInterlock
	}
	return ""
}

// supervised says whether a supervisor comes in. Whoever waits for company may
// still wait for one.
func (q *Query) supervised() bool {
	if q.Entry.Supervisor || len(q.Company) == 0 && (q.Entry.Escorted || q.Site.TwoPerson) {
		return true
	}
	for i, c := range q.Company {
		if q.comes(i) && c.Supervisor {
			return true
		}
	}
	return false
}

// goesAgainst is the rule that a grant goes against without being denied.
func goesAgainst(q *Query) Reason {
	if misplaced(q) && q.into().Passback == PassbackSoft {
		return ReasonPassback
	}
	return ""
}

// misplaced says whether somebody comes in who is in already, or leaves who is
// not in, where the area asks for that. Who is nowhere known may be anywhere.
func misplaced(q *Query) bool {
	area := q.into()
	if area == nil || area.Passback == PassbackOff || q.Entry.Exempt || !q.Where.Known {
		return false
	}
	return q.inside() == (q.Where.Area == area.Name)
}

// tooSoon says whether somebody came in too short a time ago to come in again.
func tooSoon(q *Query) bool {
	area := q.into()
	return area != nil && q.inside() && !q.Entry.Exempt && q.Where.Known && q.Where.Area == area.Name && q.Where.Ago < area.Timed
}

// full says whether the area has no place left for those who come in.
func full(q *Query) bool {
	area := q.into()
	return area != nil && q.inside() && area.Occupancy > 0 && q.Occupants > area.Occupancy-q.coming()
}

// coming is how many come in: this person and those together with them, also where
// they are still to come.
func (q *Query) coming() int {
	n := 1
	for i, c := range q.Company {
		if q.comes(i) && c.Person != q.Entry.Person {
			n++
		}
	}
	if q.Entry.Escorted || q.Site != nil && q.Site.TwoPerson {
		n = max(n, 2)
	}
	return n
}

// deniedAlone is what keeps out somebody for want of company; "" if nothing does.
// Somebody under escort does not leave alone either.
func deniedAlone(q *Query) Reason {
	switch {
	case !q.escorted(q.Entry):
		return ReasonEscortMissing
	case q.inside() && q.Site != nil && q.Site.TwoPerson && !q.second():
		return ReasonSecondMissing
	}
	return ""
}

// second says whether another person comes along.
func (q *Query) second() bool {
	for i, c := range q.Company {
		if q.comes(i) && c.Person != q.Entry.Person {
			return true
		}
	}
	return false
}

// comes says whether one of the company passes together with this person, and
// does not stay behind for want of an escort.
func (q *Query) comes(i int) bool { return q.Company[i] != nil && q.escorted(q.Company[i]) }

// escorted says whether somebody of those at the door needs no escort, or has one
// among the others.
func (q *Query) escorted(e *Entry) bool {
	if !e.Escorted || q.Entry.escorts(e) {
		return true
	}
	for _, c := range q.Company {
		if c.escorts(e) {
			return true
		}
	}
	return false
}

// escorts says whether g may escort e: as the host or the escort of the visit
// or, where the visit names no escort, as anybody who may.
func (g *Entry) escorts(e *Entry) bool {
	if g == nil || !g.MayEscort || g.Escorted || g.Person == e.Person {
		return false
	}
	v := e.Visit
	return v == nil || v.Escort == "" || g.Person == v.Escort || g.Person == v.Host
}
