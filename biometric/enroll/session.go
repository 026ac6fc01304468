package enroll

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	// SessionTime is how long a session may take.
	SessionTime = 15 * time.Minute
	maxBadges   = 6  // that are presented in vain before a session ends
	maxScans    = 3  // of a live check, before the person is asked
	poorQuality = 50 // of 100: below, it is asked for again
)

var (
	// ErrTimeout ends a session that took too long.
	ErrTimeout = fmt.Errorf("the session took longer than %v", SessionTime)
	// ErrEnded ends a session that somebody gave up.
	ErrEnded = errors.New("the session was ended")
)

// Request is what a session is to do. What is empty is asked for.
type Request struct {
	Door   string
	Side   access.Direction
	Person string // pseudonymous id
	Notice string // version of the notice that the person is shown
}

// Enroll leads through one session: the operator's badge, the person, consent,
// the person's badge twice, fingers and eyes at every scanner of the side, each
// tried at once, and the badge of a second operator. Whatever ends it before
// that leaves nothing behind; what could not be undone at once is said, and
// undone later.
func (d *Desk) Enroll(ctx context.Context, r Request, station Station, t Talk) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.sessionTime, ErrTimeout)
	defer cancel()
	s := &session{d: d, r: r, station: station, t: t}
	for _, name := range station.Scanners() {
		own, err := d.scanner(name)
		if err != nil {
			return err
		}
		s.at = append(s.at, &atScanner{scanner: own})
	}
	if len(s.at) == 0 {
		return fmt.Errorf("%w to enrol at: door %q has no scanner on the side %q", ErrNothing, r.Door, r.Side)
	}
	if s.release, err = take(s.scanners()...); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.end(context.WithoutCancel(ctx)))
	}()
	for _, step := range []func(context.Context) error{
		s.meet, s.identifyOperator, s.namePerson, s.askConsent, s.identifyPerson, s.enroll, s.approve,
	} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	return nil
}

// session is one session.
type session struct {
	d       *Desk
	r       Request
	station Station
	t       Talk
	at      []*atScanner
	release func()
	done    func() // with the person; nil: they were not named yet

	operator string
	person   *access.Entry
}

// atScanner is what a session does at one scanner.
type atScanner struct {
	*scanner
	about   biometric.About
	used    []uint32 // slots, when the session began
	session enrolled.Session
	answer  string        // to the question for consent
	instead access.Factor // where that was not agreed
	rows    []enrolled.Row
	done    bool // recorded
}

// The answers to the question for consent.
const (
	agreed  = "agreed"
	refused = "refused"
	cannot  = "cannot"
)

func (s *session) scanners() []*scanner {
	all := make([]*scanner, len(s.at))
	for i, a := range s.at {
		all[i] = a.scanner
	}
	return all
}

func (s *session) say(format string, args ...any) { s.t.Say(fmt.Sprintf(format, args...)) }

// end undoes what was not recorded, and gives the scanners back.
func (s *session) end(ctx context.Context) error {
	defer s.release()
	if s.done != nil {
		defer s.done()
	}
	var errs []error
	for _, a := range s.at {
		err := s.d.cleanHeld(ctx, a.scanner) // of what was revoked meanwhile too
		switch undone := !a.done && len(a.rows) > 0; {
		case undone && err == nil:
			s.say("Scanner %s keeps nothing of this session: that was read back.", a.name)
		case undone:
			errs = append(errs, err)
		case err != nil:
			s.d.o.Logger.Warn("enrolment", "error", err)
		}
	}
	return errors.Join(errs...)
}

// meet finds out what the scanners are.
func (s *session) meet(ctx context.Context) error {
	for _, a := range s.at {
		before, _ := s.d.o.Store.Serial(a.name)
		var exchanged bool
		var err error
		if a.about, exchanged, err = s.d.meet(ctx, a.scanner); err != nil {
			return err
		}
		if exchanged {
			s.say("Scanner %s was exchanged: its serial number is %q, and was %q. What was enrolled at the one before matches no more: enrol those people again, then see gatehouse enroll orphans.", a.name, a.about.Serial, before)
		}
		rand.Read(a.session[:]) // never fails
		// What an earlier session left here would be in the way.
		if err := s.d.cleanHeld(ctx, a.scanner); err != nil {
			return err
		}
		if a.used, err = a.Slots(ctx); err != nil {
			return fmt.Errorf("scanner %q: %w", a.name, err)
		}
	}
	return nil
}

// badge waits for a badge that accept has nothing against.
func (s *session) badge(ctx context.Context, ask string, accept func(*access.Entry) string) (*access.Entry, error) {
	s.station.Show(access.Badge)
	defer s.station.Show(0)
	for range maxBadges {
		s.say("%s", ask)
		e, err := s.station.Badge(ctx)
		if err == nil {
			err = ctx.Err() // a badge that came with the end does not count
		}
		if err != nil {
			return nil, err
		}
		against := "this badge is not on the allowlist."
		if e != nil {
			against = accept(e)
		}
		if against == "" {
			return e, nil
		}
		s.say("No: %s", against)
	}
	return nil, fmt.Errorf("%w: %d badges were presented in vain", ErrEnded, maxBadges)
}

// operatorBadge says what is against somebody as an operator.
func (s *session) operatorBadge(e *access.Entry) string {
	now, clock := s.d.o.Now()
	bounded := !e.From.IsZero() || !e.Until.IsZero()
	switch {
	case e.State != access.Active:
		return fmt.Sprintf("this badge is %s.", e.State)
	case !e.Operator:
		return fmt.Sprintf("%s may not enrol others: the allowlist would have to say operator = true.", e.Person)
	case bounded && clock == access.ClockUnset:
		return fmt.Sprintf("how long %s may enrol others cannot be told, since the clock is not set.", e.Person)
	case !e.From.IsZero() && now.Before(e.From), !e.Until.IsZero() && !now.Before(e.Until):
		return "this badge is not valid now."
	}
	return ""
}

func (s *session) identifyOperator(ctx context.Context) error {
	e, err := s.badge(ctx, "Operator: present your own badge at the reader.", s.operatorBadge)
	if err != nil {
		return err
	}
	s.operator = e.Person
	s.say("Operator %s.", e.Person)
	return nil
}

var (
	// personForm is how persons are written in records.
	personForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	// noticeForm is how versions of a notice are: short, and to be printed.
	noticeForm = regexp.MustCompile(`^[!-~][ -~]{0,63}$`)
)

// CheckPerson refuses what is no person's id.
func CheckPerson(id string) error {
	if !personForm.MatchString(id) {
		return fmt.Errorf("%q is no person's id: write it as the allowlist does", id)
	}
	return nil
}

func (s *session) namePerson(ctx context.Context) (err error) {
	for s.r.Person == "" {
		if s.r.Person, err = s.t.Ask(ctx, "Who is to be enrolled? The person's id, as on the allowlist:"); err != nil {
			return err
		}
		if s.r.Person != "" && CheckPerson(s.r.Person) != nil {
			s.say("%v.", CheckPerson(s.r.Person))
			s.r.Person = ""
		}
	}
	if err := CheckPerson(s.r.Person); err != nil {
		return err
	}
	if s.r.Person == s.operator {
		return fmt.Errorf("%s cannot enrol themselves: another operator has to", s.operator)
	}
	for !noticeForm.MatchString(s.r.Notice) {
		if s.r.Notice != "" {
			s.say("No: %q is no version: 1 to 64 plain characters.", s.r.Notice)
		}
		if s.r.Notice, err = s.t.Ask(ctx, "Which version of the notice on biometrics was the person given?"); err != nil {
			return err
		}
	}
	s.done = s.d.begin(s.r.Person)
	return nil
}

var factors = map[biometric.Modality]access.Factor{
	biometric.Fingerprint: access.Fingerprint,
	biometric.Iris:        access.Iris,
}

// plural is what is kept of a modality.
var plural = map[biometric.Modality]string{biometric.Fingerprint: "fingerprints", biometric.Iris: "irises"}

// askConsent asks once for each kind of biometric on this side.
func (s *session) askConsent(ctx context.Context) error {
	type consent struct {
		answer  string
		instead access.Factor
	}
	given := map[biometric.Modality]consent{}
	for _, a := range s.at {
		m := a.about.Modality
		c, asked := given[m]
		if !asked {
			var err error
			c.answer, err = s.t.Ask(ctx, fmt.Sprintf("%s has read notice %s. Are templates of %s to be kept, is that refused, or can the person not give them?",
				s.r.Person, s.r.Notice, plural[m]), agreed, refused, cannot)
			if err != nil {
				return err
			}
			if c.answer != agreed {
				others := slices.DeleteFunc((access.Badge | access.PIN | access.Fingerprint | access.Iris).Names(), func(name string) bool {
					return name == factors[m].String() || name == access.Badge.String()
				})
				name, err := s.t.Ask(ctx, fmt.Sprintf("Which factor does %s give instead?", s.r.Person), others...)
				if err != nil {
					return err
				}
				if c.instead, err = access.ParseFactors(name); err != nil {
					return err
				}
			}
			given[m] = c
		}
		a.answer, a.instead = c.answer, c.instead
	}
	return nil
}

func (s *session) identifyPerson(ctx context.Context) (err error) {
	theirs := func(e *access.Entry) string {
		switch {
		case e.Person != s.r.Person:
			return fmt.Sprintf("this is not a badge of %s.", s.r.Person)
		case e.State != access.Active:
			return fmt.Sprintf("this badge is %s.", e.State)
		}
		return ""
	}
	if s.person, err = s.badge(ctx, s.r.Person+": present your badge at the reader.", theirs); err != nil {
		return err
	}
	if s.person, err = s.badge(ctx, s.r.Person+": take it away, and after a moment present it once more.", theirs); err != nil {
		return err
	}
	rows, err := s.d.o.Store.List(ctx)
	if err != nil {
		return err
	}
	for _, a := range s.at {
		m := a.about.Modality
		if a.answer != agreed && slices.ContainsFunc(rows, func(r enrolled.Row) bool {
			return r.Fault == nil && r.State == enrolled.Active && r.Person == s.r.Person && r.Part.Modality() == m
		}) {
			return fmt.Errorf("%s of %s are enrolled from before: revoke them with gatehouse enroll revoke --person %s, and begin again",
				plural[m], s.r.Person, s.r.Person)
		}
		if a.answer != agreed && !slices.Contains(s.person.Instead, access.Substitution{Of: factors[m], By: a.instead}) {
			return fmt.Errorf("the allowlist does not say that %s gives %s instead of %s: add instead = { %s = %q } to the person there, import it, and begin again",
				s.r.Person, a.instead, factors[m], factors[m], a.instead)
		}
	}
	return nil
}

// enroll takes fingers and eyes at every scanner that the person agreed to.
func (s *session) enroll(ctx context.Context) error {
	for _, a := range s.at {
		if a.answer != agreed {
			continue
		}
		parts, duress, err := s.choose(ctx, a)
		if err != nil {
			return err
		}
		s.station.Show(factors[a.about.Modality])
		for _, p := range parts {
			if err := s.take(ctx, a, p, p == duress); err != nil {
				return err
			}
		}
		s.station.Show(0)
		if len(a.rows) == 0 {
			s.say("Nothing was enrolled at scanner %s.", a.name)
		}
	}
	for _, a := range s.at {
		if a.answer != agreed || len(a.rows) > 0 {
			return nil
		}
	}
	return fmt.Errorf("%w that was enrolled", ErrNothing)
}

// usual are the parts that are taken unless others are chosen: two fingers of
// both hands, so that a plaster keeps nobody out, and both eyes.
var usual = map[biometric.Modality][]biometric.Part{
	biometric.Fingerprint: {biometric.RightIndex, biometric.RightMiddle, biometric.LeftIndex, biometric.LeftMiddle},
	biometric.Iris:        {biometric.RightIris, biometric.LeftIris},
}

const none = "none"

// choose asks which parts to take. The one for duress is the last of them.
func (s *session) choose(ctx context.Context, a *atScanner) (parts []biometric.Part, duress biometric.Part, err error) {
	rows, err := s.d.o.Store.List(ctx)
	if err != nil {
		return nil, "", err
	}
	var there []biometric.Part
	for _, r := range rows {
		if r.Fault == nil && r.Person == s.r.Person && r.Scanner == a.name && r.Serial == a.about.Serial {
			there = append(there, r.Part)
		}
	}
	m := a.about.Modality
	if len(there) > 0 {
		s.say("At scanner %s these are enrolled of %s already, and stay: %s. To replace them, revoke them first.", a.name, s.r.Person, partWords(there))
	}
	suggested := slices.DeleteFunc(slices.Clone(usual[m]), func(p biometric.Part) bool { return slices.Contains(there, p) })
	if parts, err = s.askParts(ctx, fmt.Sprintf("Scanner %s: which are to be taken? (Enter: %s)", a.name, joined(suggested)), m, suggested, there); err != nil {
		return nil, "", err
	}
	if m != biometric.Fingerprint {
		return parts, "", nil
	}
	for {
		more, err := s.askParts(ctx, "A further finger that is given only under a threat? (Enter: none)", m, nil, slices.Concat(there, parts))
		switch {
		case err != nil:
			return nil, "", err
		case len(more) == 0:
			return parts, "", nil
		case len(more) == 1:
			return append(parts, more[0]), more[0], nil
		}
		s.say("No: one finger at most.")
	}
}

func joined(parts []biometric.Part) string {
	if len(parts) == 0 {
		return none
	}
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = string(p)
	}
	return strings.Join(words, " ")
}

// askParts asks for names of parts, none of which may be in not.
func (s *session) askParts(ctx context.Context, question string, m biometric.Modality, suggested, not []biometric.Part) ([]biometric.Part, error) {
	for {
		answer, err := s.t.Ask(ctx, question)
		if err != nil {
			return nil, err
		}
		switch answer {
		case "":
			return suggested, nil
		case none:
			return nil, nil
		}
		var parts []biometric.Part
		wrong := ""
		for _, word := range strings.FieldsFunc(answer, func(r rune) bool { return r == ' ' || r == ',' }) {
			p := biometric.Part(word)
			switch {
			case !slices.Contains(biometric.Parts(m), p):
				wrong = fmt.Sprintf("%q is not one of: %s.", word, joined(biometric.Parts(m)))
			case slices.Contains(not, p), slices.Contains(parts, p):
				wrong = fmt.Sprintf("%s stands there already.", p)
			}
			parts = append(parts, p)
		}
		if wrong == "" {
			return parts, nil
		}
		s.say("No: %s", wrong)
	}
}

// The answers when something did not go well.
const (
	again = "again"
	keep  = "keep"
	skip  = "skip"
)

// take takes one part and tries it, until it is well or skipped.
func (s *session) take(ctx context.Context, a *atScanner, p biometric.Part, duress bool) error {
	for {
		ok, err := s.capture(ctx, a, p, duress)
		if err != nil || ok {
			return err
		}
		answer, err := s.t.Ask(ctx, fmt.Sprintf("The %s is not enrolled. Take it once more, or leave it out?", p.Words()), again, skip)
		if err != nil || answer == skip {
			return err
		}
	}
}

// capture takes one part once. An error ends the session; what did not go well
// leaves nothing behind, and is said.
func (s *session) capture(ctx context.Context, a *atScanner, p biometric.Part, duress bool) (ok bool, err error) {
	slot, err := s.d.o.Store.FreeSlot(ctx, a.name, a.about, a.used)
	if err != nil {
		return false, err
	}
	now, _ := s.d.o.Now()
	row := enrolled.Row{
		Place:   enrolled.Place{Scanner: a.name, Serial: a.about.Serial, Slot: slot},
		Session: a.session, Person: s.r.Person, Part: p, Duress: duress, Notice: s.r.Notice,
		At: now.Truncate(time.Second).UTC(), Operator: s.operator,
	}
	keeps := a.about.Capacity > 0
	if keeps { // before the scanner stores anything
		if err := s.add(ctx, a, row); err != nil {
			return false, err
		}
	}
	c := biometric.Capture{Part: p, Slot: slot, Duress: duress, Tell: func(step biometric.Step) { s.tell(p, step) }}
	captured, err := a.Enroller.Enroll(ctx, c)
	defer captured.Template.Clear()
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		s.say("That did not go well: %v.", err)
		return false, s.undo(ctx, a, keeps)
	case captured.Quality > 0:
		s.say("Quality: %d of 100.", captured.Quality)
	}
	if captured.Quality > 0 && captured.Quality < poorQuality {
		answer, err := s.t.Ask(ctx, fmt.Sprintf("That is poor, and will often not be recognised. Take the %s again, or keep it?", p.Words()), again, keep)
		if err != nil {
			return false, err
		}
		if answer == again {
			return false, s.undo(ctx, a, keeps)
		}
	}
	if !keeps {
		row.Template = captured.Template
		if err := s.add(ctx, a, row); err != nil {
			return false, err
		}
	}
	if ok, err = s.try(ctx, a, biometric.Reference{Part: p, Slot: slot, Template: captured.Template, Duress: duress}); err == nil && !ok {
		err = s.undo(ctx, a, true)
	}
	return ok, err
}

// add writes the pending row of what is being captured.
func (s *session) add(ctx context.Context, a *atScanner, row enrolled.Row) error {
	row, err := s.d.o.Store.Add(ctx, row)
	if err == nil {
		a.rows = append(a.rows, row)
	}
	return err
}

// undo takes back the last capture, if it has a row.
func (s *session) undo(ctx context.Context, a *atScanner, has bool) error {
	if !has {
		return nil
	}
	last := len(a.rows) - 1
	if err := s.d.drop(ctx, a.scanner, a.rows[last]); err != nil {
		return err
	}
	a.rows = a.rows[:last]
	return nil
}

func (s *session) tell(p biometric.Part, step biometric.Step) {
	words := ""
	switch step.Action {
	case biometric.Place:
		words = "put it on the sensor"
	case biometric.Lift:
		words = "lift it"
	case biometric.Again:
		words = "too little was seen of it, put it on once more"
	case biometric.Look:
		words = "look into the scanner"
	default:
		return
	}
	count := ""
	if step.Captures > 0 {
		count = fmt.Sprintf(" (%d of %d)", step.Capture, step.Captures)
	}
	s.say("The %s: %s%s.", p.Words(), words, count)
}

// try compares a finger with what was just taken of it: only what works at
// this scanner is worth anything.
func (s *session) try(ctx context.Context, a *atScanner, reference biometric.Reference) (ok bool, err error) {
	for range maxScans {
		s.say("Now to try it: lift it, and then give the %s once more.", reference.Part.Words())
		m, err := a.Scan(ctx, []biometric.Reference{reference})
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			return false, fmt.Errorf("scanner %q: %w", a.name, err)
		case m.Outcome == biometric.Matched && (a.about.Capacity == 0 || m.Slot == reference.Slot):
			s.say("The %s is recognised.", reference.Part.Words())
			return true, nil
		}
		s.say("It was not recognised: %s.", tried[m.Outcome])
	}
	return false, nil
}

// tried says how a trial ended.
var tried = map[biometric.Outcome]string{
	biometric.Matched:  "it was taken for another",
	biometric.NoMatch:  "it is not like the one that was taken",
	biometric.Fake:     "the scanner says that it does not live",
	biometric.Nobody:   "none came",
	biometric.TryAgain: "too little was seen of it",
}

// approve has a second operator look at what was done, and records it.
func (s *session) approve(ctx context.Context) error {
	for _, a := range s.at {
		switch {
		case a.answer != agreed:
			s.say("Scanner %s: %s gives %s instead.", a.name, s.r.Person, a.instead)
		case len(a.rows) > 0:
			s.say("Scanner %s: %s of %s.", a.name, partWords(a.parts()), s.r.Person)
		}
	}
	e, err := s.badge(ctx, "A second operator: present your badge at the reader to approve this.", func(e *access.Entry) string {
		switch e.Person {
		case s.operator:
			return "the second operator must be somebody else."
		case s.r.Person:
			return "nobody approves their own enrolment."
		}
		return s.operatorBadge(e)
	})
	if err != nil {
		return err
	}
	for _, a := range s.at {
		if a.answer == agreed && len(a.rows) == 0 {
			continue
		}
		if err := s.record(ctx, a, e.Person); err != nil {
			return err
		}
	}
	return nil
}

func (a *atScanner) parts() []biometric.Part {
	parts := make([]biometric.Part, len(a.rows))
	for i, r := range a.rows {
		parts[i] = r.Part
	}
	return parts
}

// record makes what was done at one scanner an enrolment.
func (s *session) record(ctx context.Context, a *atScanner, approver string) (err error) {
	made := &visitorlog.Enrollment{Scanner: a.name, Parts: []string{}, Operator: s.operator, Approver: approver}
	if a.answer == agreed {
		made.Notice = s.r.Notice
		for _, p := range a.parts() {
			made.Parts = append(made.Parts, string(p))
		}
	} else {
		made.Instead = a.instead.String()
	}
	a.done, err = s.d.commit(ctx, visitorlog.Draft{
		Type: visitorlog.EnrollmentMade, Subject: s.r.Person,
		Data: visitorlog.Data{Door: s.r.Door, Reader: a.name, Direction: s.r.Side, Enrollment: made},
	}, a.session, approver)
	if err != nil {
		return err
	}
	s.say("Recorded: scanner %s, %s, approved by %s.", a.name, s.r.Person, approver)
	return nil
}
