package door

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// book is the real log, which also notes its records in a journal.
type book struct {
	*visitorlog.Log
	*journal
	mu    sync.Mutex
	err   error
	hangs <-chan struct{} // until it is closed; nil: not
	twice bool            // the first attempt does not last
}

// stumble has the log call each write once in vain first, as a full disk or a
// damaged database makes it do.
func (b *book) stumble(twice bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.twice = twice
}

func (b *book) hang(until <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hangs = until
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *book) Append(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	return b.note(b.Log.Append, ctx, write)
}

func (b *book) AppendReserved(ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	return b.note(b.Log.AppendReserved, ctx, write)
}

type appendFunc = func(context.Context, func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error)

func (b *book) note(do appendFunc, ctx context.Context, write func(*visitorlog.Tx) (visitorlog.Draft, error)) (visitorlog.Entry, error) {
	b.mu.Lock()
	err, hangs, twice := b.err, b.hangs, b.twice
	b.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	if err != nil {
		return visitorlog.Entry{}, err
	}
	if twice {
		_, _ = do(ctx, func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
			_, err := write(tx)
			return visitorlog.Draft{}, errors.Join(errDisk, err)
		})
	}
	e, err := do(ctx, write)
	if err == nil {
		b.add("%s", recordLine(e))
	}
	return e, err
}

// secrets are the keys of a controller's log.
type secrets struct {
	*keys.Pepper
	*keys.Sealer
	signer *keys.Signer
}

func newSecrets(t *testing.T) secrets {
	t.Helper()
	private, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.ParseSigner(private, keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := keys.ParseSeal(keys.GenerateSeal(), "records")
	if err != nil {
		t.Fatal(err)
	}
	pepper, err := keys.ParsePepper(keys.GeneratePepper())
	if err != nil {
		t.Fatal(err)
	}
	return secrets{pepper, sealer, signer}
}

func openBook(t *testing.T, dir string, s secrets, j *journal, c *wall) *book {
	t.Helper()
	verifier, err := s.signer.Verifier(keys.TypeRecord)
	if err != nil {
		t.Fatal(err)
	}
	l, err := visitorlog.Open(dir, visitorlog.Options{
		Controller: "north-1", Signer: s.signer, Verifier: verifier, Note: s.signer.NoteSigner, NoteVerifier: verifier.NoteVerifier, Sealer: s.Sealer,
		Clock: func() (time.Time, visitorlog.Clock) {
			m := c.Moment()
			return m.Wall, visitorlog.Clock{State: m.Clock, Boot: m.Boot, UptimeMS: m.Uptime.Milliseconds()}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &book{Log: l, journal: j}
}

// locking makes a door with the real log in a folder, that locks out.
func locking(t *testing.T, dir string, s secrets, limits access.Limits, change ...func(*vault)) (*vault, *book) {
	t.Helper()
	var kept *book
	v := newVault(t, []string{"badge+fingerprint", "badge+pin"}, append(change, func(v *vault) {
		v.cfg.Limits, v.cfg.Secrets = limits, s
		kept = openBook(t, dir, s, v.journal, v.clock)
		v.cfg.Log = kept
	})...)
	t.Cleanup(func() {
		if err := v.stop(); err != nil {
			t.Error(err)
		}
		kept.Close()
	})
	return v, kept
}

// fails is somebody with a card and wrong PINs, as often as they may.
func (v *vault) fails(c badge.Credential, times int) {
	v.t.Helper()
	time.Sleep(Repeat)
	v.swipe(c)
	synctest.Wait()
	for range times {
		v.types("0000#")
		synctest.Wait()
	}
	time.Sleep(DefaultFactorWindow)
}

// answers are the decisions since the last call, without their numbers.
func (v *vault) answers() []string {
	synctest.Wait()
	var all []string
	for _, l := range v.take() {
		if _, what, ok := strings.Cut(l, " decision."); ok {
			all = append(all, what)
		}
	}
	return all
}

func (v *vault) answered(want ...string) {
	v.t.Helper()
	if got := v.answers(); !slices.Equal(got, want) {
		v.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

const lockedOut = " (too many failures: the person is locked out for 5m0s)"

func TestALockOutOutlivesARestart(t *testing.T) {
	onBench(t, func(t *testing.T) {
		dir, s := t.TempDir(), newSecrets(t)
		limits := access.Limits{PersonAfter: 4, For: 5 * time.Minute}
		v, kept := locking(t, dir, s, limits)
		v.fails(adasCard, 3)
		v.fails(adasCard, 1)
		v.swipe(adasCard)
		v.answered("denied ada factor_mismatch", "denied ada factor_mismatch"+lockedOut, "denied ada person_locked_out")
		v.swipe(bobsCard) // nobody else is
		synctest.Wait()
		v.touch(bobsFinger)
		v.answered("granted bob granted")
		if err := v.stop(); err != nil {
			t.Error(err)
		}
		if err := kept.Close(); err != nil {
			t.Error(err)
		}

		// Another boot, and nobody knows what time it is.
		time.Sleep(time.Hour)
		v, _ = locking(t, dir, s, limits, func(v *vault) {
			v.clock.boot, v.clock.booted = "boot-2", time.Now()
			v.clock.unset.Store(true)
		})
		v.swipe(adasCard)
		v.answered("denied ada person_locked_out")
		time.Sleep(5 * time.Minute)
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasPIN + "#")
		v.answered("granted ada granted")
	})
}

func TestSuccessForgivesAPersonsFailuresAndABadgeAloneDoesNot(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v, _ := locking(t, t.TempDir(), newSecrets(t), access.Limits{PersonAfter: 4, For: 5 * time.Minute})
		v.fails(adasCard, 3)
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasPIN + "#")
		v.answered("denied ada factor_mismatch", "granted ada granted")
		v.fails(adasCard, 3)
		v.answered("denied ada factor_mismatch")
		v.list.mu.Lock()
		v.list.rules = asks(t, "badge")
		v.list.mu.Unlock()
		v.swipe(adasCard)
		v.answered("granted ada granted")
		v.list.mu.Lock()
		v.list.rules = nil
		v.list.mu.Unlock()
		time.Sleep(Repeat)
		v.fails(adasCard, 1) // is the fourth
		v.answered("denied ada factor_mismatch" + lockedOut)
	})
}

func TestTriesEndWhereTheLockOutBegins(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v, _ := locking(t, t.TempDir(), newSecrets(t), access.Limits{PersonAfter: 4, For: 5 * time.Minute})
		v.fails(adasCard, 3)
		v.take()
		v.swipe(adasCard)
		synctest.Wait()
		v.types("0000#" + adasPIN + "#") // which comes too late
		v.answered("denied ada factor_mismatch" + lockedOut)
		if !v.strike.locked() {
			t.Error("unlocked")
		}
	})
}

func TestAReaderWhereTooMuchFailsTakesNobody(t *testing.T) {
	onBench(t, func(t *testing.T) {
		limits := access.Limits{ReaderAfter: 4, For: 5 * time.Minute}
		v, _ := locking(t, t.TempDir(), newSecrets(t), limits, identifying, func(v *vault) {
			v.list.entries[bobsCard].PIN = []byte("8")
		})
		v.fails(adasCard, 2)
		v.fails(bobsCard, 2)
		v.swipe(adasCard)
		v.answered("denied ada factor_mismatch",
			"denied bob factor_mismatch (too many failures: the reader is locked out for 5m0s)", "denied ada reader_locked_out")
		v.swipe(evesCard) // but for an emergency
		v.answered("granted eve granted_break_glass")
		time.Sleep(time.Minute)
		v.answers()

		// Whoever proves who they are forgives it: what counts is in a row.
		time.Sleep(limits.For)
		v.fails(adasCard, 3)
		v.swipe(bobsCard)
		synctest.Wait()
		v.types("8#")
		v.answered("denied ada factor_mismatch", "granted bob granted")
		time.Sleep(Repeat)
		v.fails(adasCard, 3)
		v.answered("denied ada factor_mismatch")
		v.swipe(bobsCard)
		synctest.Wait()
		v.types("8#")
		v.answered("granted bob granted")

		// The same of a scanner that sees fingers which it does not know.
		for range 4 {
			v.touch(nobodys)
			time.Sleep(Repeat)
		}
		v.touch(adasFinger)
		const stranger = "denied unknown (the scanner knows nobody like that"
		v.answered(stranger+")", stranger+")", stranger+")",
			stranger+"; too many failures: the reader is locked out for 5m0s)", "denied ada reader_locked_out")
	})
}

func TestWhatOnlyDidNotComeIsNoFailure(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v, _ := locking(t, t.TempDir(), newSecrets(t), access.Limits{PersonAfter: 1, ReaderAfter: 1, For: time.Hour})
		for range 3 {
			v.swipe(adasCard)
			time.Sleep(2 * DefaultFactorWindow)
			v.swipe(gonesOne)
			v.swipe(badge.Credential{Format: "H10301", Facility: 9, Number: 9})
			synctest.Wait()
		}
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasPIN + "#")
		if got := v.answers(); got[len(got)-1] != "granted ada granted" {
			t.Errorf("got %q", got)
		}
	})
}

func TestFailuresCountThoughTheirRecordComesLate(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v, kept := locking(t, t.TempDir(), newSecrets(t), access.Limits{PersonAfter: 3, For: time.Hour})
		kept.fail(errDisk)
		v.fails(adasCard, 3)
		time.Sleep(time.Minute)
		kept.fail(nil)
		time.Sleep(time.Minute)
		v.answered("denied ada factor_mismatch late (too many failures: the person is locked out for 1h0m0s)")
		v.swipe(adasCard)
		v.answered("denied ada person_locked_out")
	})
}

func TestEveryRecordOfGatheringIsAcceptedByTheLog(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v, kept := locking(t, t.TempDir(), newSecrets(t), access.Limits{PersonAfter: 20, ReaderAfter: 20, For: time.Hour}, identifying)
		then := func(f func()) {
			t.Helper()
			synctest.Wait()
			f()
		}
		v.swipe(adasCard)
		then(func() { time.Sleep(2 * DefaultFactorWindow) }) // missing
		v.swipe(adasCard)
		then(func() { v.sensor.shown <- biometric.Match{Outcome: biometric.Fake} })
		then(func() { v.types("1#") })
		then(func() { v.types(adasFearPIN + "#") }) // granted
		then(func() { time.Sleep(time.Minute) })
		v.swipe(adasCard)
		then(func() { v.lockdown.set(true) })
		then(func() { v.lockdown.set(false) })
		then(func() { v.touch(nobodys) })
		then(func() { time.Sleep(time.Minute) })
		then(func() { v.touch(adasFear) }) // asked for her badge
		then(func() { v.sensor.states <- errors.New("cable \xff cut\nby somebody") })
		then(func() { time.Sleep(time.Minute) })
		v.swipe(bobsCard) // unavailable
		then(func() {})
		if err := v.stop(); err != nil {
			t.Error(err)
		}
		all, err := kept.Entries(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range all[1:] { // but the epoch's first
			line := strings.TrimPrefix(string(e.Record.Type), "gatehouse.") + " " + string(e.Record.Data.Reason)
			got = append(got, strings.TrimSpace(line+" "+outcomes(e)))
		}
		slices.Sort(got)
		want := []string{
			"decision.denied factor_missing badge proved at v-in, pin missing at v-in, fingerprint missing at v-finger",
			"decision.denied factor_missing fingerprint proved at v-finger, badge missing at v-in, pin missing at v-in",
			"decision.denied factor_unavailable badge proved at v-in, pin unavailable at v-in, fingerprint unavailable at v-finger",
			"decision.denied lockdown",
			"decision.denied unknown",
			"decision.granted granted_duress badge proved at v-in, fingerprint fake at v-finger, pin no_match at v-in, pin proved at v-in",
			"duress", "duress", "lockdown", "lockdown", "passage.not_entered", "reader.fault",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		if strings.Contains(v.printed.String(), "record lost") {
			t.Error(v.printed)
		}
	})
}

func TestEveryFailureCountsHoweverOften(t *testing.T) {
	onBench(t, func(t *testing.T) {
		const attempts = burst + 5
		v, _ := locking(t, t.TempDir(), newSecrets(t), access.Limits{PersonAfter: attempts * Tries, For: time.Hour})
		for range attempts {
			time.Sleep(Repeat)
			v.swipe(adasCard)
			synctest.Wait()
			v.types(strings.Repeat("0#", Tries))
			synctest.Wait()
		}
		if got := v.answers(); len(got) != attempts || !strings.Contains(got[attempts-1], "locked out") {
			t.Errorf("%d answers: %q", len(got), got[len(got)-1])
		}
	})
}

func TestDamagedFailuresLockOutForOnceAndHoldUpNoRecord(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v, kept := locking(t, t.TempDir(), newSecrets(t), access.Limits{ReaderAfter: 9, For: time.Hour})
		_, err := kept.Append(t.Context(), func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
			draft := visitorlog.Draft{Type: visitorlog.RequestToExit, Data: visitorlog.Data{Door: "vault"}}
			return draft, tx.Set(readerKey("v-in"), []byte("damaged"))
		})
		if err != nil {
			t.Fatal(err)
		}
		v.swipe(adasCard)
		if got, want := v.answers(), []string{"denied ada reader_locked_out (what was kept of the reader's failures is damaged: the reader is locked out for 1h0m0s)"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(59 * time.Minute)
		v.swipe(adasCard)
		if got, want := v.answers(), []string{"denied ada reader_locked_out"}; !slices.Equal(got, want) {
			t.Errorf("before the hour is over: %q, want %q", got, want)
		}
		v.swipe(evesCard)
		synctest.Wait()
		if v.strike.locked() {
			t.Error("locked to a badge that breaks the glass")
		}
		v.answers()
		time.Sleep(2 * time.Minute)
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasPIN + "#")
		if got, want := v.answers(), []string{"granted ada granted"}; !slices.Equal(got, want) {
			t.Errorf("after the hour: %q, want %q", got, want)
		}
		if n := v.door.Status().Counts.Pending; n != 0 {
			t.Errorf("%d records wait", n)
		}
	})
}

func TestWhoIsLockedOutNowIsNamed(t *testing.T) {
	now := access.Moment{Wall: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Clock: access.ClockSynchronised, Boot: "b", Uptime: time.Hour}
	limits := access.Limits{PersonAfter: 2, ReaderAfter: 3, For: 5 * time.Minute}
	s := newSecrets(t)
	failed := func(times int, ago time.Duration) access.Failures {
		then := now
		then.Wall, then.Uptime = now.Wall.Add(-ago), now.Uptime-ago
		var f access.Failures
		for range times {
			f = f.Add(then, limits.PersonAfter, limits.For)
		}
		return f
	}
	states := map[string][]byte{
		readerKey("a"): failed(3, 0).Bytes(), readerKey("b"): failed(2, 0).Bytes(), readerKey("c"): []byte("damaged"),
		personKey(s, "p-4"): []byte("damaged"),
	}
	for person, f := range map[string]access.Failures{"p-1": failed(2, time.Minute), "p-2": failed(1, time.Minute), "p-3": failed(2, time.Hour)} {
		states[personKey(s, person)] = sealFailures(s, person, f)
	}
	for key, state := range states {
		if strings.Contains(key+string(state), "p-1") {
			t.Errorf("the state %q names somebody", key)
		}
	}
	states[personKey(s, "p-5")] = states[personKey(s, "p-1")] // of somebody else
	people, readers := LockedOut(states, s, now, limits)
	if !slices.Equal(people, []string{"p-1"}) || !slices.Equal(readers, []string{"a"}) {
		t.Errorf("people %v, readers %v", people, readers)
	}
}
