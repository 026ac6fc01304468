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

// enrolledSite has Ada enrolled at a-finger.
func enrolledSite(t *testing.T) (*site, *sensor) {
	s, own := fingerSite(t)
	must(t, s.enroll(t.Context(), usualSitting(t, "a-finger")))
	return s, own
}

// details are what the records of operators' actions say.
func (s *site) details() (all []string) {
	s.t.Helper()
	for _, r := range s.records(visitorlog.OperatorAction) {
		all = append(all, strings.TrimSpace(r.Subject+" "+r.Data.Reader)+": "+r.Data.Detail)
	}
	return all
}

const destroyed = "ada a-finger: what was revoked is destroyed, and its slots were read back as empty: 1, 2, 3, 4"

// matches reports whether anything of Ada's matches at a-finger.
func (s *site) matches() bool {
	s.t.Helper()
	references, err := s.store.References("ada", "a-finger")
	must(s.t, err)
	person, _, err := s.store.Person("a-finger", 1)
	must(s.t, err)
	if (len(references) > 0) != (person == "ada") {
		s.t.Errorf("%d references, and slot 1 is of %q", len(references), person)
	}
	return len(references) > 0
}

func TestRevocationEmptiesEverySlotAndIsRecorded(t *testing.T) {
	s, own := enrolledSite(t)
	own.slots[9] = "bob/right-index" // another's
	v := usualSitting(t)
	must(t, s.desk.Revoke(t.Context(), "ada", "olga", v))
	if d := cmp.Diff([]string{"bob/right-index"}, own.kept()); d != "" || len(s.rows()) > 0 || s.matches() {
		t.Errorf("rows %q, - want + kept:\n%s", s.rows(), d)
	}
	revoked := s.records(visitorlog.EnrollmentRevoked)
	want := &visitorlog.Enrollment{Scanner: "a-finger", Parts: []string{"left-index", "left-middle", "right-index", "right-middle"}, Notice: "2026-01", Operator: "olga"}
	if len(revoked) != 1 || revoked[0].Subject != "ada" {
		t.Fatalf("recorded %+v", revoked)
	}
	if d := cmp.Diff(want, revoked[0].Data.Enrollment); d != "" {
		t.Errorf("- want + recorded:\n%s", d)
	}
	v.wantSaid("matches any more: right index finger at a-finger", "Every slot is empty")
	if d := s.details(); !slices.Equal(d, []string{destroyed}) {
		t.Errorf("recorded %q", d)
	}
	if err := s.desk.Revoke(t.Context(), "ada", "olga", v); !errors.Is(err, ErrNothing) {
		t.Errorf("once more: %v", err)
	}
}

func TestTheProofOfDestructionNamesNoSlotWhereThereIsNone(t *testing.T) {
	s := newSite(t, map[string]*sensor{"a-iris": newSensor("I1", biometric.Iris, 0)})
	v := usualSitting(t, "a-iris")
	v.answers = []string{"Who: ada", "notice: 2026-01", "irises: agreed", "which: "}
	must(t, s.enroll(t.Context(), v))
	must(t, s.desk.Revoke(t.Context(), "ada", "olga", silent{}))
	want := []string{"ada a-iris: what was revoked is destroyed: the scanner keeps nothing, and the controller's templates are removed"}
	if d := cmp.Diff(want, s.details()); d != "" || len(s.rows()) > 0 {
		t.Errorf("rows %q, - want + recorded:\n%s", s.rows(), d)
	}
}

func TestWhatIsRevokedWhileTheScannerIsAwayMatchesNoMoreAndIsEmptiedWhenItIsBack(t *testing.T) {
	s, own := enrolledSite(t)
	own.power(false)
	v := usualSitting(t)
	if err := s.desk.Revoke(t.Context(), "ada", "olga", v); !errors.Is(err, errUnplugged) {
		t.Errorf("revoked with %v", err)
	}
	v.wantSaid("Still to be emptied")
	if s.matches() || len(s.records(visitorlog.EnrollmentRevoked)) != 1 || len(own.kept()) != 4 || len(s.details()) > 0 {
		t.Errorf("matches %v, %d records, %q, kept %q", s.matches(), len(s.records(visitorlog.EnrollmentRevoked)), s.details(), own.kept())
	}
	if n := s.desk.Status(t.Context()).Rows["owed"]; n != 4 {
		t.Errorf("%d slots are owed", n)
	}
	s.restart()
	if s.desk.settle(t.Context()) == nil {
		t.Error("nobody said that the scanner is away")
	}
	own.power(true)
	must(t, s.desk.settle(t.Context()))
	if len(own.kept()) > 0 || len(s.rows()) > 0 || len(s.records(visitorlog.EnrollmentRevoked)) != 1 {
		t.Errorf("kept %q, rows %q, %d records", own.kept(), s.rows(), len(s.records(visitorlog.EnrollmentRevoked)))
	}
	if d := s.details(); !slices.Equal(d, []string{destroyed}) {
		t.Errorf("recorded %q", d)
	}
}

func TestWhatIsOwedByAScannerIsNotTakenFromTheOneThatReplacesIt(t *testing.T) {
	s, own := enrolledSite(t)
	own.power(false)
	if err := s.desk.Revoke(t.Context(), "ada", "olga", silent{}); !errors.Is(err, errUnplugged) {
		t.Errorf("revoked with %v", err)
	}
	own.mu.Lock()
	own.about.Serial, own.slots = "F2", map[uint32]string{1: "bob/right-index"}
	own.mu.Unlock()
	own.power(true)
	must(t, s.desk.settle(t.Context()))
	if d := cmp.Diff([]string{"bob/right-index"}, own.kept()); d != "" || len(s.rows()) != 4 {
		t.Errorf("rows %q, - want + kept:\n%s", s.rows(), d)
	}
}

func TestARevocationThatCannotBeRecordedHoldsAndIsRecordedLater(t *testing.T) {
	s, own := enrolledSite(t)
	s.breaks = errors.New("the disk is full")
	if err := s.desk.Revoke(t.Context(), "ada", "olga", usualSitting(t)); !errors.Is(err, s.breaks) {
		t.Errorf("revoked with %v", err)
	}
	if s.matches() {
		t.Error("it still matches")
	}
	s.restart()
	s.breaks = nil
	must(t, s.desk.settle(t.Context()))
	if n := len(s.records(visitorlog.EnrollmentRevoked)); n != 1 || len(own.kept()) > 0 || len(s.rows()) > 0 {
		t.Errorf("%d records, kept %q, rows %q", n, own.kept(), s.rows())
	}
}

// leftBehind has Ada enrolled at a-finger, and at b-finger half: it lost its
// power, and owes two slots of a session that is gone.
func leftBehind(t *testing.T) (*site, *sensor) {
	other := newSensor("F2", biometric.Fingerprint, 100)
	s := newSite(t, map[string]*sensor{"a-finger": newSensor("F1", biometric.Fingerprint, 100), "b-finger": other})
	must(t, s.enroll(t.Context(), usualSitting(t, "a-finger")))
	v := usualSitting(t, "b-finger")
	v.when["middle finger: put it"] = func() { other.power(false) }
	if err := s.enroll(t.Context(), v); !errors.Is(err, errUnplugged) {
		t.Fatalf("ended with %v", err)
	}
	return s, other
}

func TestWhatASessionLeftAtAScannerThatIsAwayKeepsNobodyFromRevoking(t *testing.T) {
	s, other := leftBehind(t)
	if err := s.desk.Revoke(t.Context(), "ada", "olga", silent{}); !errors.Is(err, errUnplugged) {
		t.Errorf("revoked with %v", err)
	}
	if s.matches() || len(s.sensors["a-finger"].kept()) > 0 {
		t.Errorf("rows %q, kept %q", s.rows(), s.sensors["a-finger"].kept())
	}
	other.power(true)
	must(t, s.desk.settle(t.Context()))
	if len(s.rows()) > 0 || len(other.kept()) > 0 {
		t.Errorf("rows %q, kept %q", s.rows(), other.kept())
	}
}

func TestWhatNoScannerCanEmptyAnyMoreIsFoundAndWiped(t *testing.T) {
	for name, lose := range map[string]func(*site, *sensor){
		"exchanged": func(_ *site, other *sensor) {
			other.about.Serial, other.slots = "F3", map[uint32]string{}
			other.power(true)
		},
		"taken out of the configuration": func(s *site, _ *sensor) {
			delete(s.sensors, "b-finger")
			s.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, other := leftBehind(t)
			lose(s, other)
			must(t, s.desk.settle(t.Context()))
			report, err := s.desk.Check(t.Context(), silent{})
			must(t, err)
			if len(report.Findings) == 0 {
				t.Error("nothing is found")
			}
			for _, f := range report.Findings {
				if f.Kind != Exchanged || f.Scanner != "b-finger" {
					t.Errorf("found %+v", f)
				}
			}
			must(t, s.desk.Wipe(t.Context(), report, "olga", silent{}))
			if d := cmp.Diff(adasFingers, s.rows()); d != "" {
				t.Errorf("- want + rows:\n%s", d)
			}
		})
	}
}

func TestAScannerThatOwesKeepsNoOtherFromBeingChecked(t *testing.T) {
	s, _ := leftBehind(t)
	s.sensors["a-finger"].slots[42] = "eve/right-thumb"
	if err := s.desk.tend(t.Context()); !errors.Is(err, errUnplugged) {
		t.Errorf("tended with %v", err)
	}
	if st := s.desk.Status(t.Context()); st.Found[SlotWithoutRow] != 1 || st.Checked.IsZero() || len(st.Unchecked) != 1 {
		t.Errorf("status %+v", st)
	}
}

// TestTheCheckFindsWhatDoesNotAgree makes every kind of disagreement.
func TestTheCheckFindsWhatDoesNotAgree(t *testing.T) {
	for _, tt := range []struct {
		kind   Kind
		spoil  func(*site, *sensor)
		n      int
		after  []string // rows, once it is wiped
		revoke int      // records of that
	}{
		{SlotWithoutRow, func(_ *site, own *sensor) { own.slots[42] = "eve/right-thumb" }, 1, adasFingers, 0},
		{RowWithoutSlot, func(_ *site, own *sensor) { delete(own.slots, 2) }, 1, slices.Delete(slices.Clone(adasFingers), 1, 2), 1},
		{NotListed, func(s *site, _ *sensor) { delete(s.listed, "ada") }, 4, []string{}, 1},
		{Exchanged, func(_ *site, own *sensor) { own.about.Serial, own.slots = "F2", map[uint32]string{} }, 4, []string{}, 1},
		{SlotOwed, func(s *site, own *sensor) {
			own.power(false)
			_ = s.desk.Revoke(context.Background(), "ada", "olga", silent{})
			own.power(true)
		}, 4, []string{}, 1},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			s, own := enrolledSite(t)
			report, err := s.desk.Check(t.Context(), silent{})
			if err != nil || len(report.Findings) > 0 {
				t.Fatalf("found %+v, %v, with nothing wrong", report, err)
			}
			tt.spoil(s, own)
			if report, err = s.desk.Check(t.Context(), silent{}); err != nil {
				t.Fatal(err)
			}
			if len(report.Findings) != tt.n {
				t.Errorf("found %+v", report.Findings)
			}
			for _, f := range report.Findings {
				if f.Kind != tt.kind || f.Scanner != "a-finger" {
					t.Errorf("found %+v", f)
				}
			}
			must(t, s.desk.Wipe(t.Context(), report, "olga", silent{}))
			if d := cmp.Diff(tt.after, s.rows()); d != "" {
				t.Errorf("- want + rows:\n%s", d)
			}
			if n := len(own.kept()); n != len(tt.after) {
				t.Errorf("the scanner keeps %q", own.kept())
			}
			if n := len(s.records(visitorlog.EnrollmentRevoked)); n != tt.revoke {
				t.Errorf("%d revocations are recorded", n)
			}
			if report, err = s.desk.Check(t.Context(), silent{}); err != nil || len(report.Findings) > 0 {
				t.Errorf("found %+v, %v, after it was wiped", report, err)
			}
			if want := "a-finger: slots that nobody enrolled were emptied: 42, by olga"; slices.Contains(s.details(), want) != (tt.kind == SlotWithoutRow) {
				t.Errorf("recorded %q", s.details())
			}
		})
	}
}

func TestAScannerThatIsAwayOrInUseIsNotCheckedAndThatIsSaid(t *testing.T) {
	s, own := enrolledSite(t)
	v := usualSitting(t, "a-finger")
	v.answers = append(v.answers[:3:3], "which: right-thumb", "threat: ")
	var during Report
	v.when["second operator"] = func() {
		var err error
		during, err = s.desk.Check(t.Context(), silent{})
		must(t, err)
	}
	must(t, s.enroll(t.Context(), v))
	own.power(false)
	away, err := s.desk.Check(t.Context(), silent{})
	must(t, err)
	for name, r := range map[string]Report{"in use": during, "away": away} {
		if len(r.Findings) > 0 || len(r.Unchecked) != 1 || r.Unchecked[0].Scanner != "a-finger" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestTheNightlyCheckRecordsWhatItFindsOnce(t *testing.T) {
	s, own := enrolledSite(t)
	ctx := t.Context()
	night := func() (records int) {
		t.Helper()
		s.now = s.now.AddDate(0, 0, 1)
		must(t, s.desk.checkIfDue(ctx))
		must(t, s.desk.checkIfDue(ctx)) // not due twice
		return len(s.records(visitorlog.EnrollmentOrphaned))
	}
	if n := night(); n != 0 {
		t.Errorf("%d records of nothing", n)
	}
	own.slots[42] = "eve/right-thumb"
	if n := night(); n != 1 {
		t.Errorf("%d records of what was found", n)
	}
	s.restart()
	must(t, s.desk.checkIfDue(ctx)) // at once: what was found is not known any more
	if st := s.desk.Status(ctx); st.Found[SlotWithoutRow] != 1 || st.Checked.IsZero() {
		t.Errorf("status %+v after the restart", st)
	}
	if n := night(); n != 1 {
		t.Errorf("%d records of what was found before", n)
	}
	delete(own.slots, 42)
	if n := night(); n != 2 {
		t.Errorf("%d records, with the end of it", n)
	}
	records := s.records(visitorlog.EnrollmentOrphaned)
	first, last := records[0].Data, records[1].Data
	if first.Reader != "a-finger" || first.Detail != "nobody enrolled what is in slots 42" || !*first.Active || *last.Active {
		t.Errorf("recorded %+v, then %+v", first, last)
	}
	if st := s.desk.Status(ctx); st.Checked.IsZero() || st.Fault != "" {
		t.Errorf("status %+v", st)
	}
	s.clock, s.now = access.ClockUnset, s.now.AddDate(1, 0, 0)
	own.slots[42] = "eve/right-thumb"
	must(t, s.desk.checkIfDue(ctx))
	if n := len(s.records(visitorlog.EnrollmentOrphaned)); n != 2 {
		t.Errorf("%d records: it was checked by a clock that is not set", n)
	}
}

func TestTheCheckIsDueAtThreeByTheSitesClock(t *testing.T) {
	zone := time.FixedZone("site", 2*60*60)
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, zone) }
	for _, tt := range []struct {
		last, now time.Time
		want      bool
	}{
		{time.Time{}, at(22, 12, 0), true},
		{at(22, 3, 0), at(22, 12, 0), false},
		{at(22, 2, 59), at(22, 12, 0), true},
		{at(21, 12, 0), at(22, 2, 59), false},
		{at(21, 12, 0), at(22, 3, 0), true},
		{at(20, 12, 0), at(22, 2, 0), true}, // more than a day ago
		{at(23, 12, 0), at(22, 12, 0), true},
	} {
		if got := due(tt.last, tt.now.UTC(), zone); got != tt.want {
			t.Errorf("last %v, now %v: due %v", tt.last, tt.now, got)
		}
	}
}

func TestTheDeskSettlesAtTheStart(t *testing.T) {
	s, own := fingerSite(t)
	must(t, s.store.SetSerial(t.Context(), "a-finger", "F1"))
	_, err := s.store.Add(t.Context(), enrolled.Row{
		Place: enrolled.Place{Scanner: "a-finger", Serial: "F1", Slot: 7}, Session: enrolled.Session{7}, Person: "ada", Part: biometric.RightIndex,
	})
	must(t, err)
	own.slots[7] = "ada/right-index"
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.desk.Run(ctx) }()
	deadline := time.Now().Add(time.Minute)
	for at, _ := s.store.Checked(ctx); at.IsZero(); at, _ = s.store.Checked(ctx) {
		if time.Now().After(deadline) {
			t.Fatal("it neither settles nor checks")
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	must(t, <-ended)
	s.wantNothing()
}

func copySite(t *testing.T) (*site, *sensor, *sensor) {
	from, to := newSensor("F1", biometric.Fingerprint, 100), newSensor("F2", biometric.Fingerprint, 100)
	to.slots[1] = "bob/right-index"
	s := newSite(t, map[string]*sensor{"a-finger": from, "b-finger": to})
	must(t, s.enroll(t.Context(), usualSitting(t, "a-finger")))
	return s, from, to
}

func TestACopyIsEnrolledAtTheOtherScannerAndRecorded(t *testing.T) {
	s, from, to := copySite(t)
	v := usualSitting(t)
	must(t, s.desk.Copy(t.Context(), "ada", "a-finger", "b-finger", "olga", v))
	want := slices.Concat(adasFingers, []string{
		"active ada right-index at b-finger 2", "active ada right-middle at b-finger 3",
		"active ada left-index at b-finger 4", "active ada left-middle at b-finger 5",
	})
	if d := cmp.Diff(want, s.rows()); d != "" || to.slots[4] != "ada/left-index" {
		t.Errorf("kept %q, - want + rows:\n%s", to.kept(), d)
	}
	made := s.records(visitorlog.EnrollmentMade)
	if e := made[1].Data.Enrollment; e.From != "a-finger" || e.Scanner != "b-finger" || e.Operator != "olga" || e.Notice != "2026-01" || len(e.Parts) != 4 {
		t.Errorf("recorded %+v", e)
	}
	from.wantCleared(t)
	if err := s.desk.Copy(t.Context(), "ada", "a-finger", "b-finger", "olga", v); !errors.Is(err, ErrNothing) {
		t.Errorf("once more: %v", err)
	}
}

func TestNothingIsRevokedWhileItIsBeingCopied(t *testing.T) {
	s, from, _ := copySite(t)
	var revoked error
	from.before = func(what string) {
		if what == "read" {
			from.before = nil
			revoked = s.desk.Revoke(t.Context(), "ada", "olga", silent{})
		}
	}
	must(t, s.desk.Copy(t.Context(), "ada", "a-finger", "b-finger", "olga", silent{}))
	if revoked == nil || !strings.Contains(revoked.Error(), "is being enrolled at the moment") {
		t.Errorf("revoked with %v", revoked)
	}
	must(t, s.desk.Revoke(t.Context(), "ada", "olga", silent{}))
	if len(s.rows()) > 0 {
		t.Errorf("rows %q", s.rows())
	}
}

func TestWhatThePanelKeepsIsCopiedToo(t *testing.T) {
	from, to := newSensor("I1", biometric.Iris, 0), newSensor("I2", biometric.Iris, 0)
	s := newSite(t, map[string]*sensor{"a-iris": from, "b-iris": to})
	v := usualSitting(t, "a-iris")
	v.answers = []string{"Who: ada", "notice: 2026-01", "irises: agreed", "which: "}
	must(t, s.enroll(t.Context(), v))
	must(t, s.desk.Copy(t.Context(), "ada", "a-iris", "b-iris", "olga", v))
	references, err := s.store.References("ada", "b-iris")
	must(t, err)
	defer biometric.Clear(references)
	if m, err := to.Scan(t.Context(), references); len(references) != 2 || err != nil || m.Outcome != biometric.Matched {
		t.Errorf("%d references, %+v, %v", len(references), m, err)
	}
}

func TestACopyThatFailsLeavesNothing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*site, *sensor, *sensor)
		want  string
	}{
		{"another family", func(_ *site, _, to *sensor) { to.about.Family = "other" }, "do not take each other's templates"},
		{"no family", func(_ *site, from, to *sensor) { from.about.Family, to.about.Family = "", "" }, "do not take each other's templates"},
		{"a full target", func(_ *site, _, to *sensor) { to.about.Capacity = 3 }, "is full"},
		{"a journal that fails", func(s *site, _, _ *sensor) { s.breaks = errors.New("the disk is full") }, "the disk is full"},
		{"a target that forgets", func(_ *site, _, to *sensor) { to.forgets = true }, "was written, and is not there"},
		{"a source that is away", func(_ *site, from, _ *sensor) { from.power(false) }, "cannot be reached"},
		{"a source that forgot", func(_ *site, from, _ *sensor) {
			n := 0
			from.before = func(what string) {
				if n++; what == "read" && n > 3 {
					from.off = true
				}
			}
		}, "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, from, to := copySite(t)
			tt.spoil(s, from, to)
			err := s.desk.Copy(t.Context(), "ada", "a-finger", "b-finger", "olga", usualSitting(t))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ended with %v", err)
			}
			if d := cmp.Diff(adasFingers, s.rows()); d != "" || len(to.kept()) != 1 {
				t.Errorf("the target keeps %q, - want + rows:\n%s", to.kept(), d)
			}
		})
	}
}

func TestTheDoorIsToldThatAScannerWasExchangedBeforeAnybodyIsMatched(t *testing.T) {
	s, own := enrolledSite(t)
	// The next start, with a door that watches.
	s.desk = New(s.desk.o)
	guarded := s.desk.Use("a-finger", own)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	faults := make(chan error, 4)
	go func() { _ = guarded.Watch(ctx, func(fault error) { faults <- fault }) }()
	scan := func() (biometric.Match, error) {
		references, err := s.store.References("ada", "a-finger")
		must(t, err)
		return guarded.Scan(ctx, references)
	}
	if m, err := scan(); err != nil || m.Outcome != biometric.Matched {
		t.Fatalf("%+v, %v", m, err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		own.mu.Lock()
		n := len(own.watchers)
		own.mu.Unlock()
		if n > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody watches")
		}
	}
	own.power(false)
	own.mu.Lock()
	own.about.Serial = "F2"
	own.mu.Unlock()
	own.power(true)
	if fault := <-faults; fault == nil {
		t.Error("the loss of power was not told")
	}
	if m, err := scan(); err == nil || m.Outcome != "" || !strings.Contains(err.Error(), "was exchanged") {
		t.Errorf("%+v, %v from another scanner", m, err)
	}
	// From now on it is known that nobody was enrolled at it.
	if s.matches() {
		t.Error("what was enrolled at the one before matches")
	}
	if m, err := scan(); err != nil || m.Outcome == biometric.Matched {
		t.Errorf("%+v, %v", m, err)
	}
}

// watchOnly is a scanner that cannot enrol.
type watchOnly struct{ biometric.Scanner }

func TestAScannerThatCannotEnrolStaysAsItIs(t *testing.T) {
	s, _ := fingerSite(t)
	own := watchOnly{}
	if s.desk.Use("b-finger", own) != biometric.Scanner(own) {
		t.Error("it is another")
	}
	if err := s.enroll(t.Context(), usualSitting(t, "b-finger")); !errors.Is(err, ErrNoScanner) {
		t.Errorf("enrolling at it ends with %v", err)
	}
}
