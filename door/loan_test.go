package door

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
)

// lend borrows a side.
func (v *vault) lend(ctx context.Context, side access.Direction) *Loan {
	v.t.Helper()
	loan, err := v.door.Lend(ctx, side)
	if err != nil {
		v.t.Fatal(err)
	}
	synctest.Wait()
	return loan
}

// badges gives what Badge returns of cards that are presented one after the
// other; a card that it did not wait for is missing.
func (v *vault) badges(loan *Loan, cards ...badge.Credential) (persons []string) {
	v.t.Helper()
	for _, c := range cards {
		got := make(chan *access.Entry)
		go func() {
			defer close(got)
			if e, err := loan.Badge(v.t.Context()); err == nil {
				got <- e
			}
		}()
		synctest.Wait()
		v.swipe(c)
		switch e, ok := <-got; {
		case !ok:
			persons = append(persons, "returned")
		case e == nil:
			persons = append(persons, "nobody")
		default:
			persons = append(persons, e.Person)
		}
	}
	return persons
}

func TestALentSideDecidesNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"}, identifying)
		loan := v.lend(t.Context(), access.In)
		if v.sensor.asks() {
			t.Error("the door uses a scanner that is lent")
		}
		if s := v.door.Status(); !slices.Equal(s.Lent, []access.Direction{access.In}) {
			t.Errorf("lent: %v", s.Lent)
		}
		got := v.badges(loan, adasCard, bobsCard, gonesOne, badge.Credential{Format: "H10301", Facility: 9, Number: 9})
		if want := []string{"ada", "bob", "gone", "nobody"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		v.swipe(evesCard) // while nobody waits, and though it breaks the glass
		v.types(adasPIN + "#")
		v.expect()

		loan.Show(AskFingerprint)
		v.expect("show ask_fingerprint")

		loan.Return()
		loan.Return()
		v.expect("show idle")
		if _, err := loan.Badge(t.Context()); !errors.Is(err, ErrReturned) {
			t.Errorf("a badge after it: %v", err)
		}
		loan.Show(AskFingerprint)
		v.expect()
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.touch(adasFinger)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
	})
}

func TestTheRestOfADoorGoesOnWhileASideIsLent(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge"})
		loan := v.lend(t.Context(), access.In)
		loan.Show(AskBadge)
		v.out <- frame(t, adasCard)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")
		v.contact.set(true)
		v.contact.set(false)
		time.Sleep(time.Second)
		v.expect("1 passage.left ada because of 0", "lock", "show ask_badge")
		v.contact.set(true)
		v.expect("2 door.forced")
		v.lockdown.set(true)
		v.expect("3 lockdown true")
		v.in <- errors.New("cable cut")
		v.expect("4 reader.fault true (cable cut)")
	})
}

func TestLendingConcludesAnAttempt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		v.swipe(adasCard)
		v.expect("show ask_fingerprint")
		v.lend(t.Context(), access.In)
		v.expect("0 decision.denied ada factor_missing (the reader was lent to enrol somebody)", "show denied")
	})
}

func TestASideIsLentOnce(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge+fingerprint"})
		loan := v.lend(t.Context(), access.In)
		if _, err := v.door.Lend(t.Context(), access.In); !errors.Is(err, ErrLent) {
			t.Errorf("lent twice: %v", err)
		}
		v.lend(t.Context(), access.Out)
		loan.Return()
		v.lend(t.Context(), access.In)
		loan.Show(AskIris) // it is another's now
		v.expect()
		if _, err := v.door.Lend(t.Context(), "up"); err == nil {
			t.Error("a side that is none was lent")
		}
	})
}

func TestALoanEndsWithItsContextAndWithTheDoor(t *testing.T) {
	onBench(t, func(t *testing.T) {
		v := newVault(t, []string{"badge"})
		ctx, cancel := context.WithCancel(t.Context())
		v.lend(ctx, access.In)
		cancel()
		synctest.Wait()
		v.swipe(adasCard)
		v.expect("0 decision.granted ada granted", "unlock", "show granted")

		loan := v.lend(t.Context(), access.In)
		waits := make(chan error)
		go func() {
			_, err := loan.Badge(t.Context())
			waits <- err
		}()
		synctest.Wait()
		if err := v.stop(); err != nil {
			t.Error(err)
		}
		if err := <-waits; !errors.Is(err, ErrReturned) {
			t.Errorf("a badge is still waited for: %v", err)
		}
		loan.Show(AskBadge)
		loan.Return()
		if _, err := v.door.Lend(t.Context(), access.In); err == nil {
			t.Error("a door that has ended was lent")
		}
	})
}
