package access

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Step is one thing that a decision looks at, in words.
type Step struct {
	OK   bool   `json:"ok"` // this step does not stand in the way
	Text string `json:"text"`
}

// Explain says step by step what Decide looks at and what it finds, and what
// it decides. It stops after a cause that no credential passes, but for a threat.
// Every step is OK exactly when the decision is granted without breaking the
// glass.
func Explain(q *Query) ([]Step, Decision) {
	d := Decide(q)
	var steps []Step
	say := func(ok bool, format string, args ...any) bool {
		steps = append(steps, Step{ok, fmt.Sprintf(format, args...)})
		return ok
	}
	if q == nil || q.Unreadable {
		say(false, "The frame fits none of the reader's formats.")
		return steps, d
	}
	p := q.Policy
	if !say(trusted(p.Freshness), "%s", describePolicy(p)) {
		return steps, d
	}
	e := q.Entry
	if e == nil {
		say(false, "The %s is not on it.", presented(q))
		return steps, d
	}
	known := slices.Contains([]State{Active, Lost, Revoked}, e.State) && slices.Contains([]Kind{Staff, Contractor, Visitor}, e.Kind)
	if !known && e.State != Lost && e.State != Revoked {
		say(false, "The card is on it, but its state %q or kind of person %q is not known here.", e.State, e.Kind)
		return steps, d
	}
	if what := presented(q); what == "person" {
		say(true, "The person is on it, and is %s (%s).", e.Person, e.Kind)
	} else {
		say(true, "The %s is on it, and belongs to %s (%s).", what, e.Person, e.Kind)
	}
	if !say(e.State == Active, "The credential is %s.", e.State) {
		return steps, d
	}
	clock := clockSet(q.Clock)
	if !clock {
		say(true, "The controller's clock was never set: what depends on time cannot be told.")
	}
	if explainValidity(q, clock, say); d.Reason == ReasonExpired || d.Reason == ReasonNotYetValid {
		return steps, d
	}
	var rights []Right
	for _, r := range e.Rights {
		if r.opens(q.Door) {
			rights = append(rights, r)
		}
	}
	if !say(len(rights) > 0, "%s", describeRights(q.Door, rights)) {
		return steps, d
	}
	if e.Code != nil && !explainCode(q, say) {
		return steps, d
	}
	explainDoor(q, say)
	if p.Freshness == Expired {
		if slices.Contains(p.ExpiredKinds, e.Kind) {
			say(true, "The expired allowlist still holds for %s.", e.Kind)
		} else {
			say(false, "The expired allowlist does not hold for %s.", e.Kind)
		}
	}
	explainSchedule(q, clock, rights, say)
	explainPlace(q, say)
	if q.PersonLocked {
		say(false, "The person is locked out for a while, after too many failures.")
	}
	if q.ReaderLocked {
		say(false, "The reader takes nobody for a while, after too many failures.")
	}
	explainNeeds(q, say)
	explainGiven(q, say)
	explainCompany(q, say)
	explainDuress(q, say)
	if e.BreakGlass && d.BreakGlass {
		say(true, "The credential breaks the glass: it opens all the same, and raises the alarm.")
	}
	return steps, d
}

// presented is by what the entry was looked for.
func presented(q *Query) string {
	switch {
	case q.Given.Has(Badge):
		return "card"
	case q.Given.Has(OneTimeCode):
		return "code"
	}
	return "person"
}

func describePolicy(p Policy) string {
	if !trusted(p.Freshness) {
		return "There is no allowlist that can be trusted."
	}
	return fmt.Sprintf("The allowlist is version %d, known to be current %s ago: %s.", p.Version, describeAge(p.Age), p.Freshness)
}

// describeAge rounds to what a person cares about.
func describeAge(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	default:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
}

func describeRights(door string, rights []Right) string {
	if len(rights) == 0 {
		return fmt.Sprintf("The person has no right to door %q.", door)
	}
	words := make([]string, len(rights))
	for i, r := range rights {
		words[i] = "no schedule"
		if s := r.Schedule; s != nil {
			words[i] = s.Name
			if s.Bounded() {
				words[i] += " (" + s.String() + ")"
			}
		}
	}
	return fmt.Sprintf("The person has a right to door %q: %s.", door, strings.Join(words, "; "))
}

func explainValidity(q *Query, clock bool, say func(bool, string, ...any) bool) {
	e := q.Entry
	bounds := describeBounds(e.From, e.Until, q.Zone)
	switch {
	case bounds == "":
		say(true, "Its validity has no bounds.")
	case !clock && q.clockExcused():
		say(true, "It is valid %s, which cannot be told without a clock; this door takes %s all the same.", bounds, e.Kind)
	case !clock:
		say(false, "It is valid %s, which cannot be told without a clock.", bounds)
	case !e.Until.IsZero() && !q.At.Before(e.Until):
		say(false, "It was valid %s: that is over.", bounds)
	case !e.From.IsZero() && q.At.Before(e.From):
		say(false, "It is valid %s: that has not begun.", bounds)
	default:
		say(true, "It is valid %s.", bounds)
	}
}

func describeBounds(from, until time.Time, zone *time.Location) string {
	var words []string
	if !from.IsZero() {
		words = append(words, "from "+onSite(from, zone))
	}
	if !until.IsZero() {
		words = append(words, "until "+onSite(until, zone))
	}
	return strings.Join(words, " ")
}

// onSite writes a moment as the clock on the site's wall shows it.
func onSite(t time.Time, zone *time.Location) string {
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format("Mon 2006-01-02 15:04 MST")
}

func explainSchedule(q *Query, clock bool, rights []Right, say func(bool, string, ...any) bool) {
	for _, r := range rights {
		if !r.Schedule.Bounded() {
			say(true, "That right does not depend on the time.")
			return
		}
	}
	if q.clockExcused() && slices.ContainsFunc(rights, func(r Right) bool { return r.Schedule != nil }) {
		say(true, "The right depends on the time, which is not known; this door takes %s all the same.", q.Entry.Kind)
		return
	}
	if !clock || q.Zone == nil {
		say(false, "The right depends on the time, which is not known.")
		return
	}
	now := onSite(q.At, q.Zone)
	for _, r := range rights {
		if r.Schedule.Contains(q.At, q.Zone) {
			say(true, "It is %s on site, within schedule %s.", now, r.Schedule.Name)
			return
		}
	}
	y, m, d := q.At.In(q.Zone).Date()
	for _, r := range rights {
		if r.Schedule == nil {
			continue
		}
		if _, ok := r.Schedule.holidays[Date{y, m, d}]; ok {
			say(false, "It is %s on site, a holiday: out of schedule.", now)
			return
		}
	}
	say(false, "It is %s on site: out of schedule.", now)
}

// explainNeeds says what the door asks of this person.
func explainNeeds(q *Query, say func(bool, string, ...any) bool) {
	needs := Needs(q)
	var all Factor
	words := make([]string, len(needs))
	for i, r := range needs {
		words[i] = describeSets(r.AnyOf)
		if len(q.Rules) > 0 {
			words[i] += " (schedule " + r.Schedule.name() + ")"
		}
		for _, set := range r.AnyOf {
			all |= set
		}
	}
	switch len(needs) {
	case 0:
		say(false, "None of the door's rules for the way %s holds now, and without one nothing opens it.", q.Direction)
	case 1:
		say(true, "On the way %s the door asks for %s.", q.Direction, words[0])
	default:
		say(true, "The time is not known, so that on the way %s the door asks for each of these: %s.", q.Direction, strings.Join(words, "; "))
	}
	for _, s := range q.Entry.Instead {
		if all.Has(s.Of) {
			say(true, "Instead of %s this person gives %s.", s.Of, s.By)
		}
	}
	if q.Weak != 0 {
		say(true, "Alone, %s does not open here: what takes it is not authenticated.", describeAny(q.Weak))
	}
}

// explainGiven says how far that has come.
func explainGiven(q *Query, say func(bool, string, ...any) bool) {
	given := "nothing"
	if g := q.proved(); g != 0 {
		given = g.String()
	}
	_, next := progress(q)
	switch cause, _ := lacking(q); {
	case cause == "":
		say(true, "Given: %s, which is enough.", given)
	case cause == ReasonFactorMismatch:
		say(false, "Given: %s, and %s that is not the person's.", given, q.Refused)
	case cause == ReasonFactorUnavailable:
		say(false, "Given: %s, and what is missing cannot be given here.", given)
	case q.Over:
		say(false, "Given: %s, and not in time %s.", given, describeAny(next))
	default:
		say(false, "Given: %s; next may come %s.", given, describeAny(next))
	}
}

func explainDuress(q *Query, say func(bool, string, ...any) bool) {
	if !q.Duress {
		return
	}
	fate := "stays locked"
	if q.DuressOpens {
		fate = "opens all the same"
	}
	say(q.DuressOpens, "One of them is given only under a threat: the door %s, and the alarm is raised silently.", fate)
}

// describeSets writes sets of which any one is enough.
func describeSets(sets []Factor) string {
	words := make([]string, len(sets))
	for i, s := range sets {
		words[i] = s.String()
	}
	return strings.Join(words, " or ")
}

// describeAny writes factors of which any one is meant.
func describeAny(f Factor) string { return strings.Join(f.Names(), " or ") }
