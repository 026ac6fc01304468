package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const (
	adasFinger  finger = 11
	adasFear    finger = 12 // the one that she gives under a threat
	bobsFinger  finger = 21
	nobodys     finger = 99
	adasPIN            = "4711"
	adasFearPIN        = "4712"
)

// vault is a bench whose door asks for more than a badge. It has a sensor
// outside, and a keypad at the reader there.
type vault struct {
	*bench
	sensor   *sensor
	enrolled *drawer
	anyhow   bool // what it shows at the start does not matter
}

// asks makes rules for the way in, of sets such as badge+fingerprint.
func asks(t testing.TB, sets ...string) map[access.Direction][]access.Rule {
	rule := access.Rule{Schedule: access.Always()}
	for _, s := range sets {
		f, err := access.ParseFactors(s)
		if err != nil {
			t.Fatal(err)
		}
		rule.AnyOf = append(rule.AnyOf, f)
	}
	return map[access.Direction][]access.Rule{access.In: {rule}}
}

// newVault makes a door that asks for any of the sets.
func newVault(t *testing.T, sets []string, change ...func(*vault)) *vault {
	t.Helper()
	v := &vault{
		sensor: newSensor(adasFinger, adasFear, bobsFinger, 31),
		enrolled: &drawer{slots: map[string][]biometric.Reference{
			"ada": {{Part: biometric.RightIndex, Slot: uint32(adasFinger)}, {Part: biometric.LeftIndex, Slot: uint32(adasFear), Duress: true}},
			"bob": {{Part: biometric.RightIndex, Slot: uint32(bobsFinger)}},
		}},
	}
	v.bench = newBench(t, func(b *bench) {
		v.bench = b
		b.cfg.Rules = asks(t, sets...)
		b.cfg.Readers[0].Keypad = badge.Keypad4Bit
		b.cfg.Scanners = []ScannerConfig{{Name: "v-finger", Direction: access.In, Factor: access.Fingerprint, Scanner: v.sensor}}
		b.cfg.Enrolled = v.enrolled
		b.cfg.DuressOpens = true
		ada := b.list.entries[adasCard]
		ada.PIN, ada.DuressPIN = []byte(adasPIN), []byte(adasFearPIN)
		byFinger := *ada
		b.list.persons = map[string]*access.Entry{"ada": &byFinger}
		for _, f := range change {
			f(v)
		}
	})
	if v.anyhow {
		v.take()
	} else {
		v.expect("lock", "show idle")
	}
	return v
}

func (v *vault) touch(f finger) { v.sensor.shown <- f }

// types presses the keys of the keypad outside.
func (v *vault) types(keys string) {
	for _, k := range keys {
		f, err := badge.ParseFrame(fmt.Sprintf("%04b", strings.IndexRune("0123456789*#", k)))
		if err != nil {
			v.t.Fatal(err)
		}
		v.in <- badge.Read{Frame: f, At: time.Now(), Keypad: true}
	}
}

// last is how the factors of the newest record came out.
func (v *vault) last() string {
	synctest.Wait()
	all := v.log.all()
	return outcomes(all[len(all)-1])
}

// find is the newest record of a type.
func (v *vault) find(typ visitorlog.Type) visitorlog.Entry {
	v.t.Helper()
	synctest.Wait()
	for _, e := range slices.Backward(v.log.all()) {
		if e.Record.Type == typ {
			return e
		}
	}
	v.t.Fatalf("no record %s", typ)
	return visitorlog.Entry{}
}

func (v *vault) holds(got, want string) {
	v.t.Helper()
	if got != want {
		v.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTheDoorAsksForAFingerAndOpensForThePersonsOwn(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		if v.sensor.asks() {
			t.Error("a finger is asked for before a badge was seen")
		}
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		if a := v.door.Status().Attempts; len(a) != 1 || a[0].Person != "ada" || !slices.Equal(a[0].Asked, []string{"fingerprint"}) {
			t.Errorf("attempts %+v", a)
		}
		v.touch(adasFinger)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "badge proved at v-in, fingerprint proved at v-finger")
		if d := v.log.all()[0].Record.Data; !slices.Equal(d.Factors, []string{"badge", "fingerprint"}) || d.Reader != "v-in" {
			t.Errorf("data %+v", d)
		}
		if v.sensor.asks() {
			t.Error("a finger is still asked for")
		}
		if a := v.door.Status().Attempts; len(a) != 0 {
			t.Errorf("attempts %+v", a)
		}
	})
}

func TestAWrongFingerOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		for range Tries {
			v.touch(bobsFinger)
			synctest.Wait()
			time.Sleep(Repeat)
		}
		v.expect("0 decision.denied ada factor_mismatch", "show denied")
		v.holds(v.last(), "badge proved at v-in, fingerprint no_match at v-finger, fingerprint no_match at v-finger, fingerprint no_match at v-finger")
		if d := v.log.all()[0].Record.Data; !slices.Equal(d.Factors, []string{"badge"}) {
			t.Errorf("factors %v", d.Factors)
		}
		if v.sensor.asks() {
			t.Error("a finger is still asked for")
		}
	})
}

func TestAScannersWordIsHeldAgainstWhoWasAsked(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		for i, m := range []biometric.Match{
			{Outcome: biometric.Matched, Slot: uint32(bobsFinger)}, // not among those that it was to compare with
			{Outcome: biometric.Fake},
			{Outcome: "looks fine"},
			{},
		} {
			v.swipe(adasCard)
			v.sensor.shown <- m
			time.Sleep(time.Minute)
			synctest.Wait()
			if !v.strike.locked() || len(v.log.all()) != i+1 {
				t.Errorf("%+v: locked %v, %d records", m, v.strike.locked(), len(v.log.all()))
			}
		}
		v.holds(outcomes(v.log.all()[0]), "badge proved at v-in, fingerprint no_match at v-finger")
		v.holds(outcomes(v.log.all()[1]), "badge proved at v-in, fingerprint fake at v-finger")
		v.holds(outcomes(v.log.all()[2]), "badge proved at v-in, fingerprint missing at v-finger")
	})
}

func TestASecondFactorThatComesTooLateOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		time.Sleep(DefaultFactorWindow)
		v.expect("0 decision.denied ada factor_missing", "show denied")
		v.holds(v.last(), "badge proved at v-in, fingerprint missing at v-finger")
		if v.sensor.asks() {
			t.Error("a finger is still asked for")
		}
		select {
		case v.sensor.shown <- adasFinger:
			t.Error("somebody looks at it")
		case <-time.After(time.Minute):
		}
		v.expect("show idle")
	})
}

func TestAMatchThatComesAsTheWindowEndsOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		slow := make(chan biometric.Match)
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) {
			v.cfg.Scanners[0].Scanner = deaf{v.sensor, slow}
		})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		time.Sleep(DefaultFactorWindow)
		v.expect("0 decision.denied ada factor_missing", "show denied")
		slow <- biometric.Match{Outcome: biometric.Matched, Slot: uint32(adasFinger)} // it did not hear that nobody waits
		time.Sleep(time.Minute)
		v.expect("show idle")
		// Nor is it anybody else's second factor.
		v.swipe(bobsCard)
		v.expect("show ask_fingerprint")
		slow <- biometric.Match{Outcome: biometric.Matched, Slot: uint32(adasFinger)}
		v.expect("show try_again")
	})
}

// deaf is a sensor that does not end a scan when it is told to.
type deaf struct {
	*sensor
	matches chan biometric.Match
}

func (d deaf) Scan(context.Context, []biometric.Reference) (biometric.Match, error) {
	select {
	case m := <-d.matches:
		return m, nil
	case <-time.After(time.Hour):
		return biometric.Match{Outcome: biometric.Nobody}, nil
	}
}

func TestATooLittleFingerIsAskedForAgainAndIsNoFailure(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		for range 2 * Tries {
			v.sensor.shown <- biometric.Match{Outcome: biometric.TryAgain}
			v.expect("show try_again")
			time.Sleep(time.Second)
		}
		v.sensor.shown <- biometric.Match{Outcome: biometric.Nobody}
		v.touch(adasFinger)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "badge proved at v-in, fingerprint proved at v-finger")
	})
}

func TestAnotherPersonsBadgeEndsAnAttempt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		synctest.Wait()
		v.swipe(bobsCard)
		v.expect("0 decision.denied ada factor_missing (another person came)", "show ask_fingerprint")
		v.touch(adasFinger) // who is not asked any more
		v.expect("show try_again")
		time.Sleep(Repeat)
		v.touch(bobsFinger)
		v.expect("1 decision.granted bob granted", "unlock", "show granted")
	})
}

func TestWhoeverIsAskedSeesNothingOfTheRecordOfTheOneBefore(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		synctest.Wait()
		v.log.set(nil, 2*delayedAfter)
		v.swipe(bobsCard)
		synctest.Wait()
		v.take()
		time.Sleep(time.Second)
		v.expect("0 decision.denied ada factor_missing (another person came)")
	})
}

func TestACardThatOpensNothingDoesNotEndAnAttempt(t *testing.T) {
	for _, c := range []struct {
		card badge.Credential
		want string
	}{
		{badge.Credential{Format: "H10301", Facility: 9, Number: 9}, "0 decision.denied unknown"},
		{gonesOne, "0 decision.denied gone revoked"},
	} {
		onBench(t, func(t *testing.T) {
			v := newVault(t, []string{"badge+fingerprint"})
			v.swipe(adasCard)
			synctest.Wait()
			v.swipe(c.card)
			v.expect(c.want, "show denied")
			v.touch(adasFinger)
			v.expect("1 decision.granted ada granted", "unlock", "show granted")
		})
	}
}

func TestNobodyIsAskedForAFingerInVain(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(gonesOne)
		v.expect("0 decision.denied gone revoked", "show denied")
		v.lockdown.set(true)
		synctest.Wait()
		v.swipe(adasCard)
		v.expect("1 lockdown true", "2 decision.denied ada lockdown", "show denied")
	})
}

func TestOnceALockdownBeganNoSecondFactorOpens(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.lockdown.set(true)
		denied := v.find(visitorlog.DecisionDenied).Record.Data
		v.holds(string(denied.Reason)+": "+denied.Detail, "lockdown: a lockdown began")
		if got := v.take(); !slices.Contains(got, "show denied") {
			t.Errorf("got %q", got)
		}
		if v.sensor.asks() {
			t.Error("a finger is still asked for")
		}
		time.Sleep(2 * SignalFor)
		v.expect()
		// A finger that was given as it began.
		v.lockdown.set(false)
		synctest.Wait()
		v.swipe(adasCard)
		v.expect("2 lockdown false", "show ask_fingerprint")
		v.log.set(nil, 100*time.Millisecond)
		v.touch(adasFinger)
		synctest.Wait()
		v.lockdown.set(true)
		time.Sleep(time.Second)
		synctest.Wait()
		got := v.take()
		if !v.strike.locked() || slices.Contains(got, "unlock") || !slices.Contains(got, "3 decision.denied ada lockdown") {
			t.Errorf("got %q", got)
		}
	})
}

func TestABreakGlassBadgeIsAskedForNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.swipe(evesCard)
		synctest.Wait()
		if got := v.take(); v.strike.locked() || !slices.Contains(got, "show granted") {
			t.Errorf("got %q", got)
		}
		v.holds(string(v.find(visitorlog.DecisionGranted).Record.Data.Reason), "granted_break_glass")
		v.holds(v.find(visitorlog.DecisionDenied).Record.Data.Detail, "another person came")
	})
}

func TestABreakGlassBadgeDoesNotWaitForWhatWasEnrolled(t *testing.T) {
	onBench(t, func(t *testing.T) {
		hangs := make(chan struct{})
		defer close(hangs)
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) { v.enrolled.hangs = hangs })
		v.swipe(evesCard)
		v.expect("0 decision.granted eve granted_break_glass", "unlock", "1 break_glass eve because of 0", "show granted")
	})
}

func TestABreakGlassBadgeDoesNotWaitForWhatIsLookedUpForOthers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hangs func(*vault, chan struct{})
	}{
		{"what was enrolled", func(v *vault, hangs chan struct{}) { v.enrolled.hangs = hangs }},
		{"who is locked out", func(v *vault, hangs chan struct{}) {
			v.cfg.Limits, v.cfg.Secrets = access.Limits{PersonAfter: 3, For: time.Hour}, newSecrets(t)
			v.cfg.Log = stuck{v.log, hangs}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBench(t, func(t *testing.T) {
				hangs := make(chan struct{})
				v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) { tt.hangs(v, hangs) })
				v.swipe(adasCard)
				go v.swipe(evesCard)
				time.Sleep(Patience)
				synctest.Wait()
				if v.strike.locked() {
					t.Error("the badge is not even read")
				}
				close(hangs)
			})
		})
	}
}

// stuck is a log that can be written, and not read until hangs is closed.
type stuck struct {
	*paper
	hangs chan struct{}
}

func (s stuck) State(context.Context, string) ([]byte, error) {
	<-s.hangs
	return nil, nil
}

func TestAPanicBesideTheLoopLocksTheDoorAndEndsIt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) {
			v.cfg.Times.Unlock, v.cfg.Times.UnlockExtended = time.Minute, time.Minute
			v.cfg.Contact = nil
		})
		v.out <- frame(t, evesCard) // opens
		v.swipe(adasCard)
		synctest.Wait()
		v.clock.broken.Store(true)
		time.Sleep(DefaultFactorWindow)
		synctest.Wait()
		if !v.strike.locked() {
			t.Error("unlocked after a panic")
		}
		if err := v.stop(); err == nil || !strings.Contains(err.Error(), "the clock broke") {
			t.Errorf("Run returned %v", err)
		}
	})
}

// panicky is an allowlist that panics when it is asked for a person.
type panicky struct{ *list }

func (panicky) Person(string) (*access.Entry, error) { panic("no such page") }

func TestAPanicAboutWhomAScannerKnowsLocksTheDoorAndIsReported(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying, func(v *vault) { v.cfg.Allowlist = panicky{v.list} })
		v.out <- frame(t, evesCard)
		synctest.Wait()
		v.touch(adasFinger)
		synctest.Wait()
		v.holds(v.find(visitorlog.ReaderFault).Record.Data.Detail, "panic: no such page")
		if !v.strike.locked() {
			t.Error("unlocked after a panic")
		}
		time.Sleep(2 * panicOver)
		if !v.sensor.asks() {
			t.Error("it is not used again")
		}
	})
}

func TestACardThatBecomesAnothersTakesNobodysFingerAlong(t *testing.T) {
	for _, first := range []string{"badge", "finger"} {
		t.Run("first the "+first, func(t *testing.T) {
			onBench(t, func(t *testing.T) {
				v := newVault(t, []string{"badge+fingerprint"}, identifying)
				give := []func(){func() { v.swipe(adasCard) }, func() { v.touch(adasFinger) }}
				if first == "finger" {
					slices.Reverse(give)
				}
				give[0]()
				synctest.Wait()
				v.take()
				v.log.set(nil, 50*time.Millisecond)
				give[1]()
				synctest.Wait()
				v.list.mu.Lock()
				v.list.entries[adasCard] = v.list.entries[bobsCard]
				v.list.newer++
				v.list.mu.Unlock()
				time.Sleep(time.Second)
				v.expect("0 decision.denied bob factor_missing", "show denied")
				v.holds(v.last(), "badge proved at v-in, fingerprint missing at v-finger")
			})
		})
	}
}

func TestACardThatHasBecomeAnothersSpoilsTheFingerAfterIt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		eyes := make(wires)
		v := newVault(t, []string{"badge+iris"}, func(v *vault) {
			v.cfg.Readers = append(v.cfg.Readers, ReaderConfig{
				Name: "v-eye", Direction: access.In, Formats: v.cfg.Readers[0].Formats, Reader: eyes, Factor: access.Iris,
			})
			ada := *v.list.entries[adasCard]
			v.list.entries[gonesOne] = &ada // what the eye's reader says of her
		})
		v.swipe(adasCard)
		v.expect("show ask_iris")
		v.log.set(nil, 50*time.Millisecond)
		eyes <- frame(t, gonesOne)
		synctest.Wait()
		v.list.mu.Lock()
		v.list.entries[adasCard] = v.list.entries[bobsCard]
		v.list.newer++
		v.list.mu.Unlock()
		time.Sleep(time.Second)
		v.expect("0 decision.denied ada unknown", "show denied")
	})
}

func TestTheFirstBadgeAfterAReadersFaultIsAskedForItsPIN(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"})
		for range 10 { // who is first, the status or the badge, is a matter of luck
			v.in <- errors.New("noise")
			time.Sleep(minBackoff)
			v.swipe(adasCard)
			synctest.Wait()
			if a := v.door.Status().Attempts; len(a) != 1 {
				t.Fatalf("attempts %+v", a)
			}
			time.Sleep(2 * DefaultFactorWindow)
		}
	})
}

func TestABrokenScannerIsAReportedState(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint", "badge+pin"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.sensor.states <- errors.New("no answer on /dev/serial0")
		v.expect("0 reader.fault true (no answer on /dev/serial0)", "show ask_pin") // the other set is still possible
		if d := v.log.all()[0].Record.Data; d.Reader != "v-finger" {
			t.Errorf("data %+v", d)
		}
		if s := v.door.Status(); s.Scanners[0].Fault == "" || !slices.ContainsFunc(s.Faults, func(f PartFault) bool { return f.Part == "scanner v-finger" }) {
			t.Errorf("status %+v", s)
		}
		v.types(adasPIN + "#")
		v.expect("1 decision.granted ada granted", "unlock", "show granted")
		v.sensor.states <- nil
		v.expect("2 reader.fault false (no answer on /dev/serial0)")
		if s := v.door.Status(); len(s.Faults) != 0 || s.Scanners[0].Fault != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestWhereAScannerIsBrokenNobodyWaitsForIt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		synctest.Wait()
		broken := errors.New("bad checksum")
		v.sensor.shown <- broken
		synctest.Wait()
		v.take()
		if e := v.find(visitorlog.ReaderFault); e.Record.Data.Reader != "v-finger" || e.Record.Data.Detail != "bad checksum" {
			t.Errorf("record %+v", e.Record)
		}
		denied := v.find(visitorlog.DecisionDenied)
		v.holds(string(denied.Record.Data.Reason), "factor_unavailable")
		v.holds(outcomes(denied), "badge proved at v-in, fingerprint unavailable at v-finger")
		v.sensor.mu.Lock()
		v.sensor.fault = broken
		v.sensor.mu.Unlock()
		time.Sleep(time.Minute)
		v.expect("show fault")
		v.swipe(adasCard)
		v.expect("2 decision.denied ada factor_unavailable", "show denied")
	})
}

func TestOnlyWhatCouldNotBeGivenIsUnavailable(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint+pin"})
		v.sensor.states <- errors.New("no answer")
		synctest.Wait()
		v.swipe(adasCard)
		v.holds(string(v.find(visitorlog.DecisionDenied).Record.Data.Reason), "factor_unavailable")
		v.holds(outcomes(v.find(visitorlog.DecisionDenied)), "badge proved at v-in, fingerprint unavailable at v-finger")
	})
}

func TestAScannerThatPanicsLocksTheDoorAndIsReported(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.sensor.shown <- "index out of range"
		synctest.Wait()
		v.holds(v.find(visitorlog.ReaderFault).Record.Data.Detail, "panic: index out of range")
		v.holds(v.find(visitorlog.DecisionDenied).Record.Data.Detail, "the door was locked: a part of it failed")
		if !v.strike.locked() {
			t.Error("unlocked after a panic")
		}
		time.Sleep(2 * panicOver)
		synctest.Wait()
		v.take()
		v.swipe(adasCard)
		v.expect("show ask_fingerprint") // it is used again
	})
}

func TestWhoHasNothingEnrolledIsTold(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) { delete(v.enrolled.slots, "ada") })
		v.swipe(adasCard)
		v.expect("0 decision.denied ada factor_unavailable", "show denied")
		v.enrolled.fail(errors.New("database is locked"))
		v.swipe(bobsCard)
		v.expect("1 decision.denied bob factor_unavailable", "2 door.fault true (enrolled: database is locked)", "show denied")
		v.enrolled.fail(nil)
		time.Sleep(2 * SignalFor)
		v.expect("show fault")
		v.swipe(bobsCard)
		v.expect("3 door.fault false (enrolled: database is locked)", "show ask_fingerprint")
	})
}

func TestAScannerThatIsAskedForIsNotGivenUpForAPassingFault(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) { v.cfg.Enrolled = &passing{drawer: v.enrolled} })
		v.swipe(adasCard)
		v.expect("0 door.fault true (enrolled: database is locked)", "show ask_fingerprint")
		time.Sleep(minBackoff)
		v.expect("1 door.fault false (enrolled: database is locked)")
		v.touch(adasFinger)
		v.expect("2 decision.granted ada granted", "unlock", "show granted")
	})
}

// passing is a drawer that cannot be opened the second time.
type passing struct {
	*drawer
	n int
}

func (p *passing) References(person, scanner string) ([]biometric.Reference, error) {
	if p.n++; p.n == 2 {
		return nil, errors.New("database is locked")
	}
	return p.drawer.References(person, scanner)
}

func TestAPINIsAskedForOnlyByARule(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"})
		v.types("47")
		v.swipe(adasCard)
		v.expect("show ask_pin")
		v.types("11#") // what was typed before is no part of it
		v.expect("show try_again")
		v.types("9" + "*" + adasPIN)
		if n := v.door.Status().Readers[0].Keys; n != 2 {
			t.Errorf("%d keys that nobody asked for", n)
		}
		v.types("#")
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "badge proved at v-in, pin no_match at v-in, pin proved at v-in")
		v.types(adasPIN + "#")
		v.expect()
		if n := v.door.Status().Readers[0].Keys; n != 7 {
			t.Errorf("%d keys that nobody asked for", n)
		}
		v.swipe(bobsCard) // who has no PIN
		v.expect("1 decision.denied bob factor_unavailable", "show denied")
		v.stop()
		records, err := json.Marshal(v.log.all())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(records)+v.printed.String(), adasPIN) {
			t.Error("the PIN was written down")
		}
	})
}

func TestAPINThatIsChangedWhileTheRecordWaitsOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"})
		v.swipe(adasCard)
		v.expect("show ask_pin")
		v.log.set(nil, 50*time.Millisecond)
		v.types(adasPIN + "#")
		synctest.Wait()
		v.list.mu.Lock()
		ada := *v.list.entries[adasCard]
		ada.PIN = []byte("1")
		v.list.entries[adasCard] = &ada
		v.list.newer++
		v.list.mu.Unlock()
		time.Sleep(time.Second)
		v.expect("0 decision.denied ada factor_missing", "show denied")
	})
}

func TestKeysOfOneAttemptAreNoPartOfTheNext(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"}, func(v *vault) { v.list.entries[bobsCard].PIN = []byte("47") })
		v.swipe(adasCard)
		synctest.Wait()
		v.types("47")
		v.swipe(bobsCard)
		v.expect("0 decision.denied ada factor_missing (another person came)", "show ask_pin")
		v.types("#")
		v.expect()
		v.types("47#")
		v.expect("1 decision.granted bob granted", "unlock", "show granted")
	})
}

func TestKeysThatWereLeftStandingAreForgotten(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"})
		v.swipe(adasCard)
		synctest.Wait()
		v.types("9")
		time.Sleep(keysTogether)
		v.types(adasPIN + "#")
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "badge proved at v-in, pin proved at v-in")
	})
}

func TestAPINWhoseKeysWereNotReadWellIsNoFailure(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"})
		v.swipe(adasCard)
		v.expect("show ask_pin")
		key, err := badge.ParseFrame("0100")
		if err != nil {
			t.Fatal(err)
		}
		v.in <- badge.Read{Frame: key, At: time.Now(), Keypad: true, Refused: "edges were lost"}
		v.expect("show try_again")
		v.types(adasPIN + "#")
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "badge proved at v-in, pin proved at v-in")
	})
}

func TestEveryFactorIsAskedForInItsTurn(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint+pin"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.types(adasPIN + "#") // the order is free
		v.expect()
		time.Sleep(DefaultFactorWindow - time.Second)
		v.touch(adasFinger)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "badge proved at v-in, pin proved at v-in, fingerprint proved at v-finger")
	})
}

// identifying makes the sensor find out who comes.
func identifying(v *vault) { v.cfg.Scanners[0].Identify = true }

func TestAFingerMayComeFirst(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying)
		if !v.sensor.asks() {
			t.Error("the sensor looks at nobody")
		}
		v.touch(adasFinger)
		v.expect("show ask_badge")
		if v.sensor.asks() {
			t.Error("the sensor looks for others while somebody is asked for a badge")
		}
		v.swipe(adasCard)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "fingerprint proved at v-finger, badge proved at v-in")
	})
}

func TestABadgeThatComesAsTheWindowEndsBeginsAnew(t *testing.T) {
	for range 10 { // which comes first, the badge or the tick, is a matter of luck
		onBench(t, func(t *testing.T) {
			v := newVault(t, []string{"badge+fingerprint"}, identifying, func(v *vault) { v.cfg.Strike = lazy{v.strike} })
			v.touch(adasFinger)
			v.expect("show ask_badge")
			time.Sleep(DefaultFactorWindow - time.Second)
			v.out <- frame(t, evesCard) // the loop has its hands full
			time.Sleep(time.Second)
			v.swipe(adasCard)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if a := v.door.Status().Attempts; len(a) != 1 || !slices.Equal(a[0].Asked, []string{"fingerprint"}) {
				t.Errorf("attempts %+v", a)
			}
		})
	}
}

// lazy is a strike that takes its time.
type lazy struct{ *relay }

func (l lazy) Unlock() error {
	time.Sleep(2 * time.Second)
	return l.relay.Unlock()
}

func TestWhoMayNotBeIdentifiedByAFingerIsUnknown(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying)
		v.touch(bobsFinger)
		v.expect("0 decision.denied unknown", "show denied")
		v.touch(31) // in a slot that nobody was enrolled in
		v.expect("1 decision.denied unknown (the scanner knows somebody who was not enrolled here)", "show denied")
		v.touch(nobodys)
		v.expect("2 decision.denied unknown (the scanner knows nobody like that)", "show denied")
		if d := v.log.all()[2].Record.Data; d.Reader != "v-finger" || d.Factors != nil {
			t.Errorf("data %+v", d)
		}
	})
}

func TestARevokedBadgeSpoilsAGoodFinger(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying, func(v *vault) {
			v.list.entries[gonesOne].Person = "ada"
		})
		v.touch(adasFinger)
		v.expect("show ask_badge")
		v.swipe(gonesOne)
		v.expect("0 decision.denied ada revoked", "show denied")
		// And the other way round.
		v.list.mu.Lock()
		v.list.persons["ada"].State = access.Revoked
		v.list.mu.Unlock()
		time.Sleep(time.Minute)
		v.touch(adasFinger)
		v.expect("1 decision.denied ada revoked", "show denied")
	})
}

func TestAFingerWhosePersonIsStruckOffBeforeTheBadgeOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying)
		v.touch(adasFinger)
		v.expect("show ask_badge")
		v.list.mu.Lock()
		delete(v.list.persons, "ada")
		v.list.newer++
		v.list.mu.Unlock()
		v.swipe(adasCard) // is good
		v.expect("0 decision.denied ada unknown", "show denied")
	})
}

func TestAFingerThatIsLeftOnAScannerIsOnePresentation(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"fingerprint"}, identifying, func(v *vault) { v.cfg.Scanners[0].Alone = true })
		for range 10 {
			v.touch(adasFinger)
			time.Sleep(Repeat / 2)
		}
		synctest.Wait()
		if n := v.door.Status().Counts.Granted; n != 1 {
			t.Errorf("%d decisions", n)
		}
	})
}

func TestWhatIsNotAuthenticatedDoesNotOpenAlone(t *testing.T) {
	for _, tt := range []struct {
		name          string
		authenticated bool
		alone         bool
		want          string
	}{
		{"a serial module", false, false, "0 decision.denied ada factor_unavailable"},
		{"one that is trusted all the same", false, true, "0 decision.granted ada granted"},
		{"a secure channel", true, false, "0 decision.granted ada granted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBench(t, func(t *testing.T) {
				v := newVault(t, []string{"fingerprint"}, identifying, func(v *vault) {
					v.sensor.alone, v.cfg.Scanners[0].Alone = tt.authenticated, tt.alone
				})
				v.touch(adasFinger)
				synctest.Wait()
				if got := v.take(); !slices.Contains(got, tt.want) {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestAnIrisReaderThatMatchesByItselfProvesTheIris(t *testing.T) {
	onBench(t, func(t *testing.T) {
		eyes := make(wires)
		v := newVault(t, []string{"badge+iris"}, func(v *vault) {
			v.cfg.Readers = append(v.cfg.Readers, ReaderConfig{
				Name: "v-eye", Direction: access.In, Formats: v.cfg.Readers[0].Formats, Reader: eyes, Factor: access.Iris,
			})
		})
		eye := func(c badge.Credential) { eyes <- frame(t, c) }
		eye(adasCard)
		v.expect("show ask_badge")
		v.swipe(adasCard)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.holds(v.last(), "iris proved at v-eye, badge proved at v-in")
		time.Sleep(time.Minute)
		v.expect("1 passage.not_entered ada because of 0", "lock", "show idle")

		v.swipe(adasCard)
		v.expect("show ask_iris")
		eye(bobsCard)
		v.expect("show try_again") // somebody else's eye
		eye(badge.Credential{Format: "H10301", Facility: 9, Number: 9})
		v.expect("show try_again")
		time.Sleep(DefaultFactorWindow)
		v.expect("2 decision.denied ada factor_mismatch", "show denied")
		v.holds(v.last(), "badge proved at v-in, iris no_match at v-eye, iris no_match at v-eye")
	})
}

func TestDuressShowsNothingAtTheDoor(t *testing.T) {
	for _, opens := range []bool{true, false} {
		t.Run(fmt.Sprintf("opens %v", opens), func(t *testing.T) {
			onBench(t, func(t *testing.T) {
				// What a denial looks like that has nothing to do with a threat.
				v := newVault(t, []string{"badge+fingerprint", "badge+pin"}, func(v *vault) { v.cfg.DuressOpens = opens })
				for i, give := range []func(){
					func() { v.touch(adasFear) },
					func() { v.types(adasFearPIN + "#") },
				} {
					v.swipe(adasCard)
					v.expect("show ask_fingerprint")
					seq := len(v.log.all())
					give()
					if opens {
						v.expect(fmt.Sprintf("%d decision.granted ada granted_duress", seq), "unlock", fmt.Sprintf("%d duress ada because of %d", seq+1, seq), "show granted")
						time.Sleep(time.Minute)
						v.expect(fmt.Sprintf("%d passage.not_entered ada because of %d", seq+2, seq), "lock", "show idle")
					} else {
						v.expect(fmt.Sprintf("%d decision.denied ada duress", seq), fmt.Sprintf("%d duress ada because of %d", seq+1, seq), "show denied")
						time.Sleep(time.Minute)
						v.expect("show idle")
					}
					if e := v.log.all()[seq+1].Record; e.Type != visitorlog.Duress || e.Data.Reader != "v-in" || e.Data.Door != "vault" {
						t.Errorf("%d: %+v", i, e)
					}
				}
				alarms := 0
				for _, l := range v.printedLines() {
					if l["msg"] == "alarm" && l["event"] == "duress" && l["person"] == "ada" {
						alarms++
					}
				}
				if alarms != 2 {
					t.Errorf("%d alarms", alarms)
				}
			})
		})
	}
}

func TestDuressAlarmsThoughTheDoorStaysLockedForAnotherReason(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint+pin"})
		v.swipe(adasCard)
		v.touch(adasFear)
		v.expect("show ask_pin")
		time.Sleep(time.Minute)
		v.expect("0 decision.denied ada factor_missing", "1 duress ada because of 0", "show idle")
	})
}

func TestDuressAlarmsThoughThePersonMayNotBeIdentifiedByAFinger(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying, func(v *vault) { v.list.persons = nil })
		v.touch(adasFear)
		v.expect("0 decision.denied unknown", "1 duress ada because of 0", "show denied")
	})
}

func TestDuressIsNeverOnlyCounted(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) { v.cfg.DuressOpens = false })
		const n = 3 * burst
		for range n {
			v.swipe(adasCard)
			synctest.Wait()
			v.touch(adasFear)
			time.Sleep(Repeat)
		}
		synctest.Wait()
		count := map[visitorlog.Type]int{}
		for _, e := range v.log.all() {
			count[e.Record.Type]++
		}
		if count[visitorlog.DecisionDenied] != n || count[visitorlog.Duress] != n {
			t.Errorf("%v of %d", count, n)
		}
	})
}

func TestReferencesAreClearedAfterUse(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, func(v *vault) {
			v.enrolled.slots["ada"] = []biometric.Reference{{Part: biometric.RightIndex, Template: biometric.NewTemplate([]byte("ridges"))}}
		})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.sensor.shown <- biometric.Match{Outcome: biometric.Matched, Part: biometric.LeftIndex} // is not among them
		v.expect("show try_again")
		time.Sleep(Repeat)
		v.sensor.shown <- biometric.Match{Outcome: biometric.Matched, Part: biometric.RightIndex}
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		if len(v.enrolled.loaned) == 0 {
			t.Fatal("no reference was asked for")
		}
		for _, r := range v.enrolled.loaned {
			if !r.Template.Empty() {
				t.Error("a template stayed behind")
			}
		}
	})
}

func TestThePolicysRulesComeBeforeTheDoorsOwn(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge"}, func(v *vault) { v.list.rules = asks(t, "badge+pin") })
		v.swipe(adasCard)
		v.expect("show ask_pin")
	})
}

func TestLeavingAsksForTheBadgeUnlessARuleSaysOtherwise(t *testing.T) {
	for _, tt := range []struct {
		name          string
		policy, own   map[access.Direction][]access.Rule
		want, outside []string
	}{
		{"rules for the way in alone", asks(t, "badge+pin"), asks(t, "badge+fingerprint"),
			[]string{"0 decision.granted ada granted", "unlock", "show granted"}, []string{"show ask_pin"}},
		{"the door's own for the way out", asks(t, "badge+pin"), map[access.Direction][]access.Rule{access.Out: asks(t, "badge+fingerprint")[access.In]},
			[]string{"0 decision.denied ada factor_unavailable", "show denied"}, []string{"show ask_pin"}},
		{"the policy's for the way out", map[access.Direction][]access.Rule{access.Out: asks(t, "badge+pin")[access.In]}, asks(t, "badge+fingerprint"),
			[]string{"0 decision.denied ada factor_unavailable", "show denied"}, []string{"show ask_fingerprint"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBench(t, func(t *testing.T) {
				v := newVault(t, nil, func(v *vault) { v.list.rules, v.cfg.Rules = tt.policy, tt.own })
				v.out <- frame(t, adasCard)
				v.expect(tt.want...)
			})
			onBench(t, func(t *testing.T) {
				v := newVault(t, nil, func(v *vault) { v.list.rules, v.cfg.Rules = tt.policy, tt.own })
				v.swipe(adasCard)
				v.expect(tt.outside...)
			})
		})
	}
}

func TestRulesThatBecomeEasierDoNotOpenForWhoHasGone(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+pin"})
		v.swipe(adasCard)
		v.expect("show ask_pin")
		v.list.mu.Lock()
		v.list.rules = asks(t, "badge")
		v.list.mu.Unlock()
		v.exit.set(true) // whatever happens
		synctest.Wait()
		v.holds(string(v.find(visitorlog.DecisionDenied).Record.Data.Reason), "factor_missing")
		if !v.strike.locked() {
			t.Error("unlocked")
		}
	})
}

func TestTheEndOfTheProgramConcludesAttempts(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying)
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		if err := v.stop(); err != nil {
			t.Error(err)
		}
		if got := v.take(); !slices.Contains(got, "0 decision.denied ada factor_missing (the controller stopped)") {
			t.Errorf("got %q", got)
		}
	})
}

func TestAnAttemptThatCannotBeRecordedOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.log.set(errDisk, 0)
		v.touch(adasFear)
		v.expect("show fault")
		time.Sleep(3 * time.Second)
		v.log.set(nil, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		var got []string
		for _, e := range v.log.all() {
			got = append(got, recordLine(e))
		}
		want := []string{
			"0 decision.granted ada granted_duress late",
			"1 door.fault true late (log: no space left on device)",
			"2 passage.not_entered ada because of 0 late (the door stayed locked: the decision could not be recorded in time)",
			"3 duress ada because of 0 late",
			"4 door.fault false (log: no space left on device)",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		v.holds(outcomes(v.log.all()[0]), "badge proved at v-in, fingerprint proved at v-finger")
	})
}
