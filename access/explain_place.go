package access

import (
	"fmt"
	"strings"
	"time"
)

func explainCode(q *Query, say func(bool, string, ...any) bool) bool {
	c := q.Entry.Code
	switch {
	case c.Door != q.Door:
		return say(false, "The one-time code %s is for door %q.", c.ID, c.Door)
	case q.CodeUsed:
		return say(false, "The one-time code %s was used before.", c.ID)
	}
	return say(true, "The one-time code %s is for this door, and was not used yet.", c.ID)
}

// explainDoor says whether the door is in use, and by whom at this level of
// threat.
func explainDoor(q *Query, say func(bool, string, ...any) bool) {
	if why := q.disabled(); why != "" {
		say(false, "The door is out of use: %q.", why)
	}
	if site := q.Site; site != nil && q.timeKnown() && site.Free.Contains(q.At, q.Zone) {
		say(true, "By schedule %s the door stands unlocked at this time.", site.Free.name())
	}
	level := q.threat()
	if level == 0 {
		return
	}
	state := fmt.Sprintf("The level of threat is %d", level)
	if level >= MaxThreat {
		state = "The door is in lockdown"
	}
	switch clearance := q.Entry.Clearance; {
	case !q.inside():
		say(true, "%s, which keeps nobody from leaving.", state)
	case clearance >= level:
		say(true, "%s, and the person is cleared for it.", state)
	case clearance == 0:
		say(false, "%s, and the person is not cleared for it.", state)
	default:
		say(false, "%s, and the person is cleared for levels up to %d only.", state, clearance)
	}
}

// explainPlace says what follows from who is where, and from the other doors.
func explainPlace(q *Query, say func(bool, string, ...any) bool) {
	if site := q.Site; site != nil && site.FirstPerson && q.inside() {
		switch {
		case q.Begun:
			say(true, "A supervisor has come in today.")
		case q.Entry.Supervisor:
			say(true, "No supervisor has come in today, and the person is one.")
		case q.supervised() && len(q.Company) == 0:
			say(true, "No supervisor has come in today, and one may come along.")
		case q.supervised():
			say(true, "No supervisor has come in today, and one comes along.")
		default:
			say(false, "No supervisor has come in today, and the person is none.")
		}
	}
	if area := q.into(); area != nil {
		explainPassback(q, area, say)
		explainOccupancy(q, area, say)
	}
	if q.Interlocked != "" {
		say(false, "Door %q must be closed and locked first.", q.Interlocked)
	}
}

func explainPassback(q *Query, area *Area, say func(bool, string, ...any) bool) {
	timed := q.inside() && area.Timed > 0
	if area.Passback == PassbackOff && !timed {
		return
	}
	where := describeWhere(q.Where)
	switch {
	case q.Entry.Exempt:
		say(true, "Anti-passback of area %q does not hold for this person.", area.Name)
		return
	case !misplaced(q):
		say(true, "%s Anti-passback of area %q has nothing against that.", where, area.Name)
	case goesAgainst(q) != "":
		say(true, "%s Anti-passback of area %q is against that, which the record says; it keeps nobody out.", where, area.Name)
	default:
		say(false, "%s Anti-passback of area %q is against that.", where, area.Name)
	}
	if tooSoon(q) {
		say(false, "The person may come into area %q again only %s after coming in.", area.Name, describeDuration(area.Timed))
	}
}

func describeWhere(w Whereabouts) string {
	switch {
	case !w.Known:
		return "It is not known where the person is."
	case w.Area == "":
		return "By the records the person is outside."
	default:
		return fmt.Sprintf("By the records the person went into area %q, %s ago.", w.Area, describeAge(w.Ago))
	}
}

// describeDuration writes a time that somebody set, without the zeros of
// Duration.String.
func describeDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func explainOccupancy(q *Query, area *Area, say func(bool, string, ...any) bool) {
	if area.Occupancy <= 0 || !q.inside() {
		return
	}
	say(!full(q), "In area %q are %d of at most %d people; %d would come in.", area.Name, q.Occupants, area.Occupancy, q.coming())
}

// explainCompany says with whom the person passes.
func explainCompany(q *Query, say func(bool, string, ...any) bool) {
	missing := "is not there yet"
	if q.Over {
		missing = "did not come in time"
	}
	if e := q.Entry; e.Escorted {
		who := "somebody who may escort"
		if v := e.Visit; v != nil && v.Escort != "" {
			who = v.Escort
			if v.Host != "" && v.Host != v.Escort {
				who += " or " + v.Host
			}
		}
		if q.escorted(e) {
			say(true, "The person passes only together with %s, who is there.", who)
		} else {
			say(false, "The person passes only together with %s, who %s.", who, missing)
		}
	}
	if q.Site == nil || !q.Site.TwoPerson || !q.inside() {
		return
	}
	if q.second() {
		say(true, "The door lets people in only two at a time, and a second person is there.")
	} else {
		say(false, "The door lets people in only two at a time, and a second person %s.", missing)
	}
}
