package enroll

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/biometric/enrolled"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func fingerSite(t *testing.T) (*site, *sensor) {
	own := newSensor("F1", biometric.Fingerprint, 100)
	return newSite(t, map[string]*sensor{"a-finger": own}), own
}

func (s *site) enroll(ctx context.Context, v *sitting) error {
	return s.desk.Enroll(ctx, Request{Door: "a", Side: access.In}, v, v)
}

var adasFingers = []string{
	"active ada right-index at a-finger 1", "active ada right-middle at a-finger 2",
	"active ada left-index at a-finger 3", "active ada left-middle at a-finger 4",
}

func TestASessionEnrolsTwoFingersOfBothHandsAndRecordsIt(t *testing.T) {
	s, own := fingerSite(t)
	v := usualSitting(t, "a-finger")
	must(t, s.enroll(t.Context(), v))
	if d := cmp.Diff(adasFingers, s.rows()); d != "" {
		t.Errorf("- want + rows:\n%s", d)
	}
	if d := cmp.Diff([]string{"ada/left-index", "ada/left-middle", "ada/right-index", "ada/right-middle"}, own.kept()); d != "" {
		t.Errorf("- want + kept:\n%s", d)
	}
	made := s.records(visitorlog.EnrollmentMade)
	if len(made) != 1 {
		t.Fatalf("%d records", len(made))
	}
	want := &visitorlog.Enrollment{
		Scanner: "a-finger", Parts: []string{"right-index", "right-middle", "left-index", "left-middle"},
		Notice: "2026-01", Operator: "olga", Approver: "omar",
	}
	if d := cmp.Diff(want, made[0].Data.Enrollment); d != "" || made[0].Subject != "ada" || made[0].Data.Door != "a" {
		t.Errorf("record of %q at %q, - want + recorded:\n%s", made[0].Subject, made[0].Data.Door, d)
	}
	v.wantSaid("Quality: 80 of 100.", "right index finger: put it on the sensor (1 of 2)", "left middle finger is recognised", "approved by omar")
	references, err := s.store.References("ada", "a-finger")
	must(t, err)
	if len(references) != 4 {
		t.Errorf("%d references for the door", len(references))
	}
}

// TestASessionThatEndsEarlyLeavesNothing ends one at every step: by Ctrl-C, by
// the scanner's loss of power, and by the loss and return of it.
func TestASessionThatEndsEarlyLeavesNothing(t *testing.T) {
	steps := []string{
		"Operator: present", "Who", "notice", "fingerprints", "ada: present", "present it once more", "which", "threat",
		"right index finger: put it on", "give the right index", "left middle finger is recognised", "second operator",
	}
	for _, step := range steps {
		t.Run("Ctrl-C at "+step, func(t *testing.T) {
			s, _ := fingerSite(t)
			v := usualSitting(t, "a-finger")
			ctx, cancel := context.WithCancelCause(t.Context())
			v.when[step] = func() { cancel(ErrEnded) }
			if err := s.enroll(ctx, v); !errors.Is(err, ErrEnded) {
				t.Errorf("ended with %v", err)
			}
			s.wantNothing()
		})
	}
	for _, step := range steps[6:] {
		t.Run("loss of power at "+step, func(t *testing.T) {
			s, own := fingerSite(t)
			v := usualSitting(t, "a-finger")
			ctx, cancel := context.WithCancelCause(t.Context())
			v.when[step] = func() {
				own.power(false)
				cancel(ErrEnded)
			}
			err := s.enroll(ctx, v)
			if !errors.Is(err, ErrEnded) {
				t.Errorf("ended with %v", err)
			}
			if had := len(s.rows()) > 0; had != strings.Contains(err.Error(), "are emptied when the scanner is back") {
				t.Errorf("rows are left: %v; said: %v", had, err)
			}
			if references, err := s.store.References("ada", "a-finger"); err != nil || len(references) > 0 {
				t.Errorf("%d of them match, %v", len(references), err)
			}
			own.power(true)
			s.restart()
			must(t, s.desk.settle(t.Context()))
			s.wantNothing()
		})
	}
}

// TestACrashLeavesNobodyHalfEnrolled kills the controller before whatever it
// does with the scanner, and between the record and what follows.
func TestACrashLeavesNobodyHalfEnrolled(t *testing.T) {
	for n := 0; ; n++ {
		s, own := fingerSite(t)
		v := usualSitting(t, "a-finger")
		count, crashed := 0, false
		own.before = func(string) {
			if count++; count > n {
				crashed = true
				panic("crash") // nothing is undone
			}
		}
		func() {
			defer func() { _ = recover() }()
			// What is deferred runs in a panic; a crash does not even that.
			own, err := s.desk.scanner("a-finger")
			must(t, err)
			session := &session{d: s.desk, r: Request{Door: "a", Side: access.In}, station: v, t: v, at: []*atScanner{{scanner: own}}}
			for _, step := range []func(context.Context) error{
				session.meet, session.identifyOperator, session.namePerson, session.askConsent, session.identifyPerson, session.enroll, session.approve,
			} {
				must(t, step(t.Context()))
			}
		}()
		own.before = nil
		s.restart()
		must(t, s.desk.settle(t.Context()))
		if !crashed {
			if d := cmp.Diff(adasFingers, s.rows()); d != "" {
				t.Errorf("without a crash, - want + rows:\n%s", d)
			}
			if n < 10 {
				t.Errorf("only %d steps were tried", n)
			}
			return
		}
		s.wantNothing()
		if t.Failed() {
			t.Fatalf("after a crash at step %d", n)
		}
	}
}

func TestACrashAfterTheRecordLeavesWhatIsRecordedEnrolled(t *testing.T) {
	s, _ := fingerSite(t)
	ctx := t.Context()
	must(t, s.store.SetSerial(ctx, "a-finger", "F1"))
	_, err := s.store.Add(ctx, enrolled.Row{
		Place: enrolled.Place{Scanner: "a-finger", Serial: "F1", Slot: 7}, Session: enrolled.Session{7}, Person: "ada", Part: biometric.RightIndex, Operator: "olga",
	})
	must(t, err)
	s.sensors["a-finger"].slots[7] = "ada/right-index"
	// What commit does, as far as it came.
	must(t, s.Append(ctx, visitorlog.Draft{
		Type: visitorlog.EnrollmentMade, Subject: "ada",
		Data: visitorlog.Data{Enrollment: &visitorlog.Enrollment{Scanner: "a-finger", Parts: []string{"right-index"}, Operator: "olga", Approver: "omar"}},
	}, stateCommitted, []byte(`{"session":"BwAAAAAAAAAAAAAAAAAAAA==","approver":"omar"}`)))
	s.restart()
	must(t, s.desk.settle(ctx))
	if d := cmp.Diff([]string{"active ada right-index at a-finger 7"}, s.rows()); d != "" {
		t.Errorf("- want + rows:\n%s", d)
	}
}

func TestWhatCannotBeRecordedIsNotEnrolled(t *testing.T) {
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	v.when["second operator"] = func() { s.breaks = errors.New("the disk is full") }
	if err := s.enroll(t.Context(), v); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("ended with %v", err)
	}
	s.wantNothing()
}

func TestARecordThatWasWrittenThoughTheJournalFailedCounts(t *testing.T) {
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	v.when["second operator"] = func() { s.lies = true }
	must(t, s.enroll(t.Context(), v))
	s.lies = false
	if d := cmp.Diff(adasFingers, s.rows()); d != "" || len(s.records(visitorlog.EnrollmentMade)) != 1 {
		t.Errorf("- want + rows:\n%s", d)
	}
}

// TestWhatWasRecordedBeforeIsApprovedBeforeTheNextIsRecorded has an enrolment
// whose record stands and whose rows could not be approved then.
func TestWhatMayHaveBeenRecordedIsNotUndone(t *testing.T) {
	for name, enrol := range map[string]func(*site) error{
		"session": func(s *site) error { return s.enroll(t.Context(), usualSitting(t, "a-finger")) },
		"copy": func(s *site) error {
			s.lies, s.blinds = false, false
			must(t, s.enroll(t.Context(), usualSitting(t, "a-finger")))
			s.lies, s.blinds = true, true
			return s.desk.Copy(t.Context(), "ada", "a-finger", "b-finger", "olga", usualSitting(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, map[string]*sensor{
				"a-finger": newSensor("F1", biometric.Fingerprint, 100), "b-finger": newSensor("F2", biometric.Fingerprint, 100),
			})
			s.lies, s.blinds = true, true
			if enrol(s) == nil {
				t.Error("nobody said that it is not known")
			}
			s.lies, s.blind = false, nil
			must(t, s.desk.settle(t.Context()))
			var parts, active int
			for _, r := range s.records(visitorlog.EnrollmentMade) {
				parts += len(r.Data.Enrollment.Parts)
			}
			for _, r := range s.rows() {
				if strings.HasPrefix(r, "active ") {
					active++
				}
			}
			if parts == 0 || active != parts {
				t.Errorf("recorded %d, and rows are %q", parts, s.rows())
			}
		})
	}
}

func TestWhatWasRecordedBeforeIsApprovedBeforeTheNextIsRecorded(t *testing.T) {
	first, other := newSensor("F1", biometric.Fingerprint, 100), newSensor("F2", biometric.Fingerprint, 100)
	s := newSite(t, map[string]*sensor{"a-finger": first, "b-finger": other})
	ctx := t.Context()
	_, err := s.store.Add(ctx, enrolled.Row{
		Place: enrolled.Place{Scanner: "b-finger", Serial: "F2", Slot: 7}, Session: enrolled.Session{7}, Person: "bob", Part: biometric.RightIndex, Operator: "olga",
	})
	must(t, err)
	must(t, s.Append(ctx, visitorlog.Draft{
		Type: visitorlog.EnrollmentMade, Subject: "bob",
		Data: visitorlog.Data{Enrollment: &visitorlog.Enrollment{Scanner: "b-finger", Parts: []string{"right-index"}, Operator: "olga", Approver: "omar"}},
	}, stateCommitted, []byte(`{"session":"BwAAAAAAAAAAAAAAAAAAAA==","approver":"omar"}`)))
	// The state now names this session.
	_, err = s.desk.commit(ctx, visitorlog.Draft{
		Type: visitorlog.EnrollmentMade, Subject: "ada",
		Data: visitorlog.Data{Enrollment: &visitorlog.Enrollment{Scanner: "a-finger", Parts: []string{}, Instead: "pin", Operator: "olga"}},
	}, enrolled.Session{8}, "omar")
	must(t, err)
	if d := cmp.Diff([]string{"active bob right-index at b-finger 7"}, s.rows()); d != "" {
		t.Errorf("- want + rows:\n%s", d)
	}
}

func TestASessionThatTakesTooLongEndsAndLeavesNothing(t *testing.T) {
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	v.badges = v.badges[:3] // the second operator never comes
	// Not all of 15 minutes; it may end at an earlier step on a slow machine.
	s.desk.sessionTime = 500 * time.Millisecond
	if err := s.enroll(t.Context(), v); !errors.Is(err, ErrTimeout) {
		t.Errorf("ended with %v", err)
	}
	s.wantNothing()
	if New(s.desk.o).sessionTime != SessionTime {
		t.Error("a session takes another time than is said")
	}
}

func TestOnlyTheRightBadgesGoOn(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	ended := &access.Entry{Person: "omar", State: access.Active, Operator: true, From: from.AddDate(-1, 0, 0), Until: from}
	lost := &access.Entry{Person: "olga", State: access.Lost, Operator: true}
	for _, tt := range []struct {
		name   string
		badges []*access.Entry
		want   string // what is said
	}{
		{"an unknown badge", []*access.Entry{nil, olga, ada, ada, omar}, "not on the allowlist"},
		{"no operator", []*access.Entry{bob, olga, ada, ada, omar}, "bob may not enrol others"},
		{"a lost operator's badge", []*access.Entry{lost, olga, ada, ada, omar}, "this badge is lost"},
		{"another person", []*access.Entry{olga, bob, ada, ada, omar}, "not a badge of ada"},
		{"another person the second time", []*access.Entry{olga, ada, bob, ada, omar}, "not a badge of ada"},
		{"the same operator approves", []*access.Entry{olga, ada, ada, olga, omar}, "must be somebody else"},
		{"the person approves", []*access.Entry{olga, ada, ada, ada, omar}, "nobody approves their own"},
		{"who is no operator approves", []*access.Entry{olga, ada, ada, bob, omar}, "bob may not enrol others"},
		{"an operator whose time is over", []*access.Entry{ended, olga, ada, ada, omar}, "not valid now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := fingerSite(t)
			v := usualSitting(t, "a-finger")
			v.badges = tt.badges
			must(t, s.enroll(t.Context(), v))
			v.wantSaid("No: ", tt.want)
			if e := s.records(visitorlog.EnrollmentMade)[0].Data.Enrollment; e.Operator != "olga" || e.Approver != "omar" {
				t.Errorf("recorded %+v", e)
			}
		})
	}
	t.Run("always the wrong one", func(t *testing.T) {
		s, _ := fingerSite(t)
		v := usualSitting(t, "a-finger")
		v.badges = slices.Repeat([]*access.Entry{bob}, maxBadges+1)
		if err := s.enroll(t.Context(), v); !errors.Is(err, ErrEnded) {
			t.Errorf("ended with %v", err)
		}
		s.wantNothing()
	})
	t.Run("a time that cannot be told", func(t *testing.T) {
		s, _ := fingerSite(t)
		s.clock = access.ClockUnset
		v := usualSitting(t, "a-finger")
		valid := *olga
		valid.Until = s.now.AddDate(1, 0, 0)
		v.badges = []*access.Entry{&valid, olga, ada, ada, omar}
		must(t, s.enroll(t.Context(), v))
		v.wantSaid("the clock is not set")
	})
}

func TestNobodyEnrolsThemselves(t *testing.T) {
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	v.answers[0] = "Who: olga"
	if err := s.enroll(t.Context(), v); err == nil || !strings.Contains(err.Error(), "cannot enrol themselves") {
		t.Errorf("ended with %v", err)
	}
	s.wantNothing()
}

func TestWhoRefusesGivesWhatTheAllowlistNames(t *testing.T) {
	withPIN := *ada
	withPIN.Instead = []access.Substitution{{Of: access.Fingerprint, By: access.PIN}}
	for _, answer := range []string{refused, cannot} {
		s, _ := fingerSite(t)
		v := usualSitting(t, "a-finger")
		v.badges = []*access.Entry{olga, &withPIN, &withPIN, omar}
		v.answers = []string{"Who: ada", "notice: 2026-01", "fingerprints: " + answer, "instead: pin"}
		must(t, s.enroll(t.Context(), v))
		made := s.records(visitorlog.EnrollmentMade)
		want := &visitorlog.Enrollment{Scanner: "a-finger", Parts: []string{}, Instead: "pin", Operator: "olga", Approver: "omar"}
		if len(made) != 1 {
			t.Fatalf("%s: %d records", answer, len(made))
		}
		if d := cmp.Diff(want, made[0].Data.Enrollment); d != "" || len(s.rows()) > 0 {
			t.Errorf("%s: rows %q, - want + recorded:\n%s", answer, s.rows(), d)
		}
	}
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	v.answers = []string{"Who: ada", "notice: 2026-01", "fingerprints: refused", "instead: iris"}
	if err := s.enroll(t.Context(), v); err == nil || !strings.Contains(err.Error(), `instead = { fingerprint = "iris" }`) {
		t.Errorf("ended with %v", err)
	}
	s.wantNothing()
}

func TestWhoRefusesHasNothingLeftFromBefore(t *testing.T) {
	s, _ := enrolledSite(t)
	withPIN := *ada
	withPIN.Instead = []access.Substitution{{Of: access.Fingerprint, By: access.PIN}}
	v := usualSitting(t, "a-finger")
	v.badges = []*access.Entry{olga, &withPIN, &withPIN, omar}
	v.answers = []string{"Who: ada", "notice: 2026-02", "fingerprints: refused", "instead: pin"}
	if err := s.enroll(t.Context(), v); err == nil || !strings.Contains(err.Error(), "gatehouse enroll revoke --person ada") {
		t.Errorf("ended with %v", err)
	}
	if n := len(s.records(visitorlog.EnrollmentMade)); n != 1 {
		t.Errorf("%d records: that another factor is given stands beside what still matches", n)
	}
}

func TestWhatIsPoorOrNotRecognisedIsAskedForAgain(t *testing.T) {
	for _, tt := range []struct {
		name    string
		spoil   func(*sensor)
		answers []string // after the finger for duress
		want    []string
		said    string
	}{
		{"poor, and again", func(s *sensor) { s.poor = 1 }, []string{"poor: again", "once more: again"}, []string{"right-index"}, "Quality: 20 of 100."},
		{"poor, and kept", func(s *sensor) { s.poor = 1 }, []string{"poor: keep"}, []string{"right-index"}, "recognised"},
		{"refused, and again", func(s *sensor) { s.refuse = 1 }, []string{"once more: again"}, []string{"right-index"}, "too little was seen"},
		{"recognised at the third time", func(s *sensor) { s.unlike = 2 }, nil, []string{"right-index"}, "It was not recognised"},
		{"not recognised, and again", func(s *sensor) { s.unlike = 3 }, []string{"once more: again"}, []string{"right-index"}, "It was not recognised"},
		{"taken for another, and left out", func(s *sensor) { s.astray = true }, []string{"once more: skip"}, nil, "it was taken for another"},
		{"not recognised, and left out", func(s *sensor) { s.unlike = 3 }, []string{"once more: skip"}, nil, "Nothing was enrolled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, own := fingerSite(t)
			tt.spoil(own)
			v := usualSitting(t, "a-finger")
			v.answers = append([]string{"Who: ada", "notice: 2026-01", "fingerprints: agreed", "which: right-index", "threat: "}, tt.answers...)
			err := s.enroll(t.Context(), v)
			v.wantSaid(tt.said)
			if len(v.answers) > 0 {
				t.Errorf("nobody asked for %q", v.answers)
			}
			if tt.want == nil {
				if !errors.Is(err, ErrNothing) {
					t.Errorf("ended with %v", err)
				}
				s.wantNothing()
				return
			}
			must(t, err)
			if made := s.records(visitorlog.EnrollmentMade); !slices.Equal(made[0].Data.Enrollment.Parts, tt.want) || len(own.kept()) != len(tt.want) {
				t.Errorf("recorded %+v, kept %q", made[0].Data.Enrollment, own.kept())
			}
		})
	}
}

func TestFingersAreChosenByNameAndOneMayBeForDuress(t *testing.T) {
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	v.answers = []string{
		"Who: a b", "Who: ada", "notice: ", "notice: \x1b[2J", "notice: 2026-01", "fingerprints: agreed",
		"which: left-ear", "which: right-thumb, right-thumb", "which: right-thumb left-thumb",
		"threat: left-thumb", "threat: left-ring left-little", "threat: left-little",
	}
	must(t, s.enroll(t.Context(), v))
	v.wantSaid(`"left-ear" is not one of`, "right-thumb stands there already", "one finger at most", `"a b" is no person's id`, `"\x1b[2J" is no version`)
	rows, err := s.store.List(t.Context())
	must(t, err)
	var got []string
	for _, r := range rows {
		word := string(r.Part)
		if r.Duress {
			word += " for duress"
		}
		got = append(got, word)
	}
	if d := cmp.Diff([]string{"right-thumb", "left-thumb", "left-little for duress"}, got); d != "" {
		t.Errorf("- want + enrolled:\n%s", d)
	}
	// What is enrolled stays, and others are added.
	v = usualSitting(t, "a-finger")
	v.answers[3] = "which: right-thumb"
	v.answers = slices.Insert(v.answers, 4, "which: right-index")
	must(t, s.enroll(t.Context(), v))
	v.wantSaid("are enrolled of ada already", "right-thumb stands there already")
	if n := len(s.rows()); n != 4 {
		t.Errorf("%d rows", n)
	}
}

func TestIrisesAreKeptByThePanelAndTriedToo(t *testing.T) {
	finger, iris := newSensor("F1", biometric.Fingerprint, 100), newSensor("I1", biometric.Iris, 0)
	s := newSite(t, map[string]*sensor{"a-finger": finger, "a-iris": iris})
	v := usualSitting(t, "a-finger", "a-iris")
	v.answers = slices.Insert(v.answers, 3, "irises: agreed")
	v.answers = append(v.answers, "a-iris: which: ")
	v.answers[len(v.answers)-1] = "Scanner a-iris: "
	must(t, s.enroll(t.Context(), v))
	if d := cmp.Diff(slices.Concat(adasFingers, []string{"active ada right-iris at a-iris 1", "active ada left-iris at a-iris 2"}), s.rows()); d != "" {
		t.Errorf("- want + rows:\n%s", d)
	}
	references, err := s.store.References("ada", "a-iris")
	must(t, err)
	defer biometric.Clear(references)
	if len(references) != 2 || string(references[0].Template.Bytes()) != "ada/right-iris" {
		t.Errorf("%d references", len(references))
	}
	if made := s.records(visitorlog.EnrollmentMade); len(made) != 2 || made[1].Data.Enrollment.Scanner != "a-iris" {
		t.Errorf("recorded %+v", made)
	}
	v.wantSaid("right eye: put it", "left eye is recognised")
	iris.wantCleared(t)

	// Nor does one stay that was not kept.
	iris.poor = 1
	v = usualSitting(t, "a-iris")
	v.badges = []*access.Entry{olga, bob, bob, omar}
	iris.who = "bob"
	v.answers = []string{"Who: bob", "notice: 2026-01", "irises: agreed", "which: right-iris", "poor: again", "once more: skip"}
	if err := s.enroll(t.Context(), v); !errors.Is(err, ErrNothing) {
		t.Errorf("ended with %v", err)
	}
	iris.wantCleared(t)
}

func TestAScannerAtWhichSomebodyIsEnrolledIsBusy(t *testing.T) {
	s, _ := fingerSite(t)
	v := usualSitting(t, "a-finger")
	var second, revoked error
	v.when["second operator"] = func() {
		second = s.enroll(t.Context(), usualSitting(t, "a-finger"))
		revoked = s.desk.Revoke(t.Context(), "ada", "olga", v)
	}
	must(t, s.enroll(t.Context(), v))
	if !errors.Is(second, ErrBusy) {
		t.Errorf("the second session ended with %v", second)
	}
	if revoked == nil || !strings.Contains(revoked.Error(), "is being enrolled") {
		t.Errorf("revoked meanwhile: %v", revoked)
	}
	must(t, s.desk.Revoke(t.Context(), "ada", "olga", v)) // it is free again
}

func TestAnExchangedScannerIsTold(t *testing.T) {
	s, own := fingerSite(t)
	must(t, s.enroll(t.Context(), usualSitting(t, "a-finger")))
	own.about.Serial, own.slots = "F2", map[uint32]string{}
	v := usualSitting(t, "a-finger")
	must(t, s.enroll(t.Context(), v))
	v.wantSaid(`Scanner a-finger was exchanged: its serial number is "F2", and was "F1"`)
	report, err := s.desk.Check(t.Context(), v)
	must(t, err)
	if n := len(report.Findings); n != 4 || report.Findings[0].Kind != Exchanged {
		t.Errorf("found %+v", report.Findings)
	}
	must(t, s.desk.Wipe(t.Context(), report, "olga", v))
	if rows := s.rows(); len(rows) != 4 || len(s.records(visitorlog.EnrollmentRevoked)) != 1 {
		t.Errorf("rows %q, %d revocations", rows, len(s.records(visitorlog.EnrollmentRevoked)))
	}
}
