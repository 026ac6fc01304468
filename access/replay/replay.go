// Package replay decides recorded history again under another policy, so that
// it can be seen what a change would have done before it is published.
//
// A record does not say everything that its decision depended on. What it leaves
// out is taken as it was: that a factor was refused, that somebody was locked out,
// that a door was disabled, who came along. Where people were follows from the
// records themselves. What cannot be told at all is counted, and never listed as a
// change.
package replay

import (
	"math"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// Policy is what the doors of one controller decide by.
type Policy interface {
	// Entries are a person's credentials that any of the factors presents; none: the
	// person has none such.
	Entries(person string, by access.Factor) []*access.Entry
	// Rules are what a door asks for on the way in or out; nil: the badge.
	Rules(door string, side access.Direction) []access.Rule
	// Site is what a door asks for beside factors; nil: nothing.
	Site(door string) *access.Door
}

// Types are the records that a Replay wants to see, in the order in which they
// arrived. It takes no notice of others.
var Types = []visitorlog.Type{
	visitorlog.DecisionGranted, visitorlog.DecisionDenied, visitorlog.PassageEntered, visitorlog.PassageLeft, visitorlog.PassageNotEntered,
	visitorlog.Lockdown, visitorlog.OperatorAction, visitorlog.EpochStarted,
}

// Verdict is what became of a decision.
type Verdict int

// The verdicts.
const (
	None   Verdict = iota // it is no decision
	Same                  // it would fall as it did
	Differ                // it would not
	Untold                // the record does not tell enough
)

// Change is a decision that would fall otherwise.
type Change struct {
	At        time.Time
	Door      string
	Direction access.Direction
	Person    string
	Was       access.Decision
	// Would is the decision under the other policy. With More or Together the
	// person would have been asked for that, and might have had it.
	Would access.Decision
}

// Counts are what a Replay has seen.
type Counts struct {
	Decisions, Same, Untold         int64
	NowGranted, NowDenied, NowAsked int64
	NowOtherReason                  int64 // denied, as it was, for another reason
}

// Replay goes through the records of all controllers.
type Replay struct {
	zone     *time.Location
	policies map[string]Policy
	places   map[string]*place
	counts   Counts
}

// New makes a replay under the policies of controllers, by their names, of a site
// in the zone.
func New(policies map[string]Policy, zone *time.Location) *Replay {
	return &Replay{zone: zone, policies: policies, places: make(map[string]*place)}
}

// Counts are what was seen so far.
func (r *Replay) Counts() Counts { return r.counts }

// place is how things stand at a controller.
type place struct {
	threat    access.Threat
	lockdown  map[string]bool        // by a key switch, by door
	where     map[string]whereabouts // by person
	occupants map[string]int         // by area
	awaited   map[passage]trace      // grants of which it is not known yet whether they were used
	begun     map[string]string      // the day, by door
	first     string                 // the day of the first decision: what came before it that day is not known
}

// whereabouts of somebody; the zero value is not known.
type whereabouts struct {
	known bool
	area  string
	since time.Time // zero: the clock was unset
	by    passage
}

// passage is that of a person, awaited since the decision with a sequence.
type passage struct {
	sequence uint64
	person   string
}

// maxAwaited bounds how many passages are awaited: of some nothing is ever heard, as
// the controller ended first.
const maxAwaited = 1024

// trace is what a passage that was none takes back.
type trace struct {
	door   string
	side   access.Direction
	before whereabouts
}

func newPlace(first string) *place {
	return &place{
		lockdown: make(map[string]bool), where: make(map[string]whereabouts), occupants: make(map[string]int),
		awaited: make(map[passage]trace), begun: make(map[string]string), first: first,
	}
}

// Add takes the next record of a controller. The change is nil unless the verdict
// is Differ.
func (r *Replay) Add(controller string, rec *visitorlog.Record) (Verdict, *Change) {
	p := r.places[controller]
	if p == nil {
		p = newPlace(day(rec.Time, r.zone))
		r.places[controller] = p
	}
	switch rec.Type {
	case visitorlog.DecisionGranted, visitorlog.DecisionDenied:
	case visitorlog.PassageEntered, visitorlog.PassageLeft:
		p.passed(rec)
		return None, nil
	case visitorlog.PassageNotEntered:
		p.takeBack(rec)
		return None, nil
	case visitorlog.Lockdown:
		p.threatened(rec)
		return None, nil
	case visitorlog.OperatorAction:
		p.reset(rec)
		return None, nil
	case visitorlog.EpochStarted:
		clear(p.awaited) // sequences begin again
		return None, nil
	default:
		return None, nil
	}
	r.counts.Decisions++
	policy := r.policies[controller]
	var change *Change
	verdict := Untold
	if policy != nil {
		verdict, change = r.decide(policy, p, rec)
		p.moved(policy, rec, r.zone)
	}
	switch {
	case verdict == Same:
		r.counts.Same++
	case verdict == Untold:
		r.counts.Untold++
	case change.Would.Granted:
		r.counts.NowGranted++
	case change.Would.More != 0 || change.Would.Together:
		r.counts.NowAsked++
	case change.Was.Granted:
		r.counts.NowDenied++
	default:
		r.counts.NowOtherReason++
	}
	return verdict, change
}

func (r *Replay) decide(policy Policy, p *place, rec *visitorlog.Record) (Verdict, *Change) {
	d := &rec.Data
	given, err := parseFactors(d.Factors)
	if rec.Subject == "" || err || given.Has(access.OneTimeCode) || untold(d.Reason) {
		return Untold, nil
	}
	was := access.Decision{Granted: rec.Type == visitorlog.DecisionGranted, Reason: d.Reason}
	q := query(policy, p, rec, given, r.zone)
	if d.Reason == access.ReasonFactorMismatch && q.Refused == 0 {
		return Untold, nil
	}
	entries := policy.Entries(rec.Subject, given)
	if len(entries) == 0 {
		entries = []*access.Entry{nil}
	}
	// Which of the person's credentials it was is not recorded: what one of them
	// would do as it was done is no change.
	var best access.Decision
	for i, e := range entries {
		q.Entry = e
		would := access.Decide(&q)
		if same(was, would) {
			return Same, nil
		}
		if i == 0 || rank(would) > rank(best) {
			best = would
		}
	}
	if d.Kind == access.Visitor && another(best.Reason) {
		return Untold, nil
	}
	return Differ, &Change{At: q.At, Door: d.Door, Direction: d.Direction, Person: rec.Subject, Was: was, Would: best}
}

// another are the reasons that, of a visitor, say no more than that the visit is
// over, or is another one by now.
func another(reason access.Reason) bool {
	return reason == access.ReasonUnknown || reason == access.ReasonExpired || reason == access.ReasonNotYetValid
}

// untold are the reasons of which the record does not keep the cause.
func untold(reason access.Reason) bool {
	switch reason {
	case access.ReasonUnreadable, access.ReasonAllowlistAbsent, access.ReasonUnknown, access.ReasonWrongDoor, access.ReasonCodeUsed:
		return true
	}
	return false
}

func same(was, would access.Decision) bool {
	if was.Granted != would.Granted {
		return false
	}
	return was.Granted || was.Reason == would.Reason || lacked(was.Reason) && lacked(would.Reason)
}

// lacked are the reasons that say that not all was given. Which of them it is
// depends on the readers, of which a policy knows nothing.
func lacked(reason access.Reason) bool {
	return reason == access.ReasonFactorMissing || reason == access.ReasonFactorUnavailable
}

func rank(d access.Decision) int {
	switch {
	case d.Granted:
		return 2
	case d.More != 0 || d.Together:
		return 1
	}
	return 0
}

func parseFactors(names []string) (given access.Factor, unknown bool) {
	for _, name := range names {
		f, err := access.ParseFactors(name)
		if err != nil {
			return 0, true
		}
		given |= f
	}
	return given, false
}

// moment is when a decision was made.
func moment(rec *visitorlog.Record) time.Time {
	if d := &rec.Data; d.Late && d.Occurred != nil {
		return *d.Occurred
	}
	return rec.Time
}

// query is what the door asked, as far as the record and those before it tell.
func query(policy Policy, p *place, rec *visitorlog.Record, given access.Factor, zone *time.Location) access.Query {
	d := &rec.Data
	site := policy.Site(d.Door)
	q := access.Query{
		Door: d.Door, Direction: d.Direction, At: moment(rec), Zone: zone, Clock: d.Clock.State,
		Site: site, Rules: policy.Rules(d.Door, d.Direction), Lockdown: p.lockdown[d.Door],
		Given: given, Possible: ^access.Factor(0), Refused: refused(d),
		Duress: d.Reason == access.ReasonDuress || d.Reason == access.ReasonGrantedDuress, DuressOpens: d.Reason == access.ReasonGrantedDuress,
		PersonLocked: d.Reason == access.ReasonPersonLockedOut, ReaderLocked: d.Reason == access.ReasonReaderLockedOut,
		Policy: age(d, site, rec.Type == visitorlog.DecisionGranted), Situation: p.situation(site, rec, zone),
	}
	switch d.Reason {
	case access.ReasonFactorMissing, access.ReasonFactorUnavailable, access.ReasonFactorMismatch, access.ReasonEscortMissing, access.ReasonSecondMissing:
		q.Over = true // nothing more came
	case access.ReasonLockdown:
		q.Lockdown = q.Lockdown || q.Threat == 0 // what began before the history did
	case access.ReasonDoorDisabled:
		q.Situation.Disabled = "as recorded"
	case access.ReasonInterlock:
		if site != nil && len(site.Interlock) > 0 {
			q.Interlocked = "another door"
		}
	}
	for _, c := range d.Company {
		entries := policy.Entries(c.Person, ^access.Factor(0))
		if i := slices.IndexFunc(entries, func(e *access.Entry) bool { return e.State == access.Active }); i >= 0 {
			q.Company = append(q.Company, entries[i])
		}
	}
	return q
}

// age is the allowlist's as it was recorded, on the door's own ladder if it has one.
func age(d *visitorlog.Data, site *access.Door, granted bool) access.Policy {
	if d.Policy == nil {
		return access.Policy{Freshness: access.Fresh}
	}
	policy := access.Policy{Version: d.Policy.Version, Age: time.Duration(d.Policy.AgeSeconds) * time.Second, Freshness: d.Policy.Freshness}
	switch {
	case site == nil || site.Age == nil || policy.Freshness == access.Absent:
		if granted {
			policy.ExpiredKinds = []access.Kind{d.Kind}
		}
		return policy
	case policy.Age == 0: // or it was not known, and counted as the rung says
	case site.Age.ExpiredAfter > 0 && policy.Age >= site.Age.ExpiredAfter:
		policy.Freshness = access.Expired
	case site.Age.StaleAfter > 0 && policy.Age >= site.Age.StaleAfter:
		policy.Freshness = access.Stale
	default:
		policy.Freshness = access.Fresh
	}
	policy.ExpiredKinds = site.Age.ExpiredKinds
	return policy
}

// refused is the factor that was given last and was not the person's.
func refused(d *visitorlog.Data) access.Factor {
	if d.Reason != access.ReasonFactorMismatch || len(d.Outcomes) == 0 {
		return 0
	}
	for _, o := range slices.Backward(d.Outcomes) {
		if o.Outcome == visitorlog.OutcomeNoMatch || o.Outcome == visitorlog.OutcomeFake {
			f, _ := access.ParseFactors(o.Factor)
			return f
		}
	}
	return 0
}

func (p *place) situation(site *access.Door, rec *visitorlog.Record, zone *time.Location) access.Situation {
	d, at := &rec.Data, moment(rec)
	s := access.Situation{Threat: p.threat}
	w := p.before(rec.Subject, d)
	s.Where = access.Whereabouts{Area: w.area, Known: w.known, Ago: math.MaxInt64}
	if d.Clock.State != access.ClockUnset && !w.since.IsZero() {
		s.Where.Ago = at.Sub(w.since)
	}
	if site == nil {
		return s
	}
	if site.Into != nil {
		s.Occupants = p.occupants[site.Into.Name]
		for _, person := range people(rec) {
			if w := p.where[person]; w.known && w.area == site.Into.Name {
				s.Occupants--
			}
		}
	}
	today := day(at, zone)
	s.Begun = p.begun[site.Name] == today || p.first == today && rec.Type == visitorlog.DecisionGranted
	return s
}

// before is where somebody was before a decision. Of whom it is still awaited that
// they pass there, it is where they were before that.
func (p *place) before(person string, d *visitorlog.Data) whereabouts {
	w := p.where[person]
	if t, ok := p.awaited[w.by]; w.known && ok && t.door == d.Door && t.side == d.Direction {
		return t.before
	}
	return w
}

// people are all who pass by a grant.
func people(rec *visitorlog.Record) []string {
	all := []string{rec.Subject}
	for _, c := range rec.Data.Company {
		all = append(all, c.Person)
	}
	return all
}

func day(at time.Time, zone *time.Location) string { return at.In(zone).Format(time.DateOnly) }

// moved notes where a grant takes people, if the door lies between areas.
func (p *place) moved(policy Policy, rec *visitorlog.Record, zone *time.Location) {
	d, site := &rec.Data, policy.Site(rec.Data.Door)
	if rec.Type != visitorlog.DecisionGranted || site == nil {
		return
	}
	supervisor := func(e *access.Entry) bool { return e.Supervisor }
	for _, person := range people(rec) {
		if d.Direction == access.In && slices.ContainsFunc(policy.Entries(person, ^access.Factor(0)), supervisor) {
			p.begun[site.Name] = day(moment(rec), zone)
		}
		if site.Into == nil && site.OutOf == nil {
			continue
		}
		to := whereabouts{known: true, by: passage{d.Sequence, person}}
		if d.Clock.State != access.ClockUnset {
			to.since = moment(rec)
		}
		area := site.Into
		if d.Direction == access.Out {
			area = site.OutOf
		}
		if area != nil {
			to.area = area.Name
		}
		if len(p.awaited) >= maxAwaited {
			clear(p.awaited)
		}
		p.awaited[to.by] = trace{d.Door, d.Direction, p.before(person, d)}
		p.put(person, to)
	}
}

func (p *place) put(person string, to whereabouts) {
	if before := p.where[person]; before.area != "" {
		p.occupants[before.area]--
	}
	if !to.known {
		delete(p.where, person)
		return
	}
	p.where[person] = to
	if to.area != "" {
		p.occupants[to.area]++
	}
}

// passed notes that a grant was used.
func (p *place) passed(rec *visitorlog.Record) {
	if c := rec.Data.Cause; c != nil {
		delete(p.awaited, passage{*c, rec.Subject})
	}
}

// takeBack notes that a grant was not used.
func (p *place) takeBack(rec *visitorlog.Record) {
	if rec.Data.Cause == nil {
		return
	}
	by := passage{*rec.Data.Cause, rec.Subject}
	if t, ok := p.awaited[by]; ok && p.where[rec.Subject].by == by {
		p.put(rec.Subject, t.before)
	}
	p.passed(rec)
}

func (p *place) threatened(rec *visitorlog.Record) {
	d := &rec.Data
	if d.Threat == nil { // a key switch, of one door
		p.lockdown[d.Door] = d.Active == nil || *d.Active
		return
	}
	p.threat = *d.Threat
}

// reset does what an operator did about who is where. To how many an area was set
// is not recorded: it counts as empty.
func (p *place) reset(rec *visitorlog.Record) {
	c := rec.Data.Command
	if c == nil || c.Result != "done" {
		return
	}
	switch c.Action {
	case "reset_passback":
		p.put(rec.Subject, whereabouts{})
	case "reset_occupancy":
		delete(p.occupants, rec.Data.Area)
	}
}
