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

	"github.com/gatehouse-acs/gatehouse/badge"
	"pgregory.net/rapid"
)

// cable is a reader whose wires may ail.
type cable struct {
	wires
	mu sync.Mutex
	h  badge.Health
}

func (c *cable) Health() badge.Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.h
}

func (c *cable) seems(likely string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h.Likely = likely
}

// zeros is what a driver delivers of a frame that it refuses.
func zeros(t *testing.T, n int) badge.Frame {
	f, err := badge.ParseFrame(strings.Repeat("0", n))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAFrameThatTheDriverRefusesIsDeniedAsUnreadableAndSaysWhy(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.in <- badge.Read{Frame: zeros(t, 26), At: time.Now(), Refused: "edges were lost"}
		b.expect("0 decision.denied unreadable (26 bits that were refused: edges were lost)", "lock", "show denied")
		// The same card again, and this time it is read: no repetition.
		b.swipe(adasCard)
		b.expect("1 decision.granted ada granted", "unlock", "show granted")
	})
}

func TestARefusedFrameIsNobodysCardEvenIfItsBitsAre(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.in <- badge.Read{Frame: frame(t, adasCard), At: time.Now(), Refused: "edges were lost"}
		b.expect("0 decision.denied unreadable (26 bits that were refused: edges were lost)", "lock", "show denied")
	})
}

func TestARefusedFrameSaysNothingOfTheAllowlist(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.list.fail(errDisk)
		b.swipe(adasCard)
		synctest.Wait()
		b.in <- badge.Read{Frame: zeros(t, 26), At: time.Now(), Refused: "edges were lost"}
		synctest.Wait()
		if s := b.door.Status(); len(s.Faults) != 1 || s.Faults[0].Part != "allowlist" {
			t.Errorf("faults %+v", s.Faults)
		}
	})
}

func TestForeignTimingStandsInTheRecordOfTheDecision(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		for _, r := range []badge.Read{
			{Frame: frame(t, adasCard)},
			{Frame: frame(t, bobsCard), Foreign: true},
			{Frame: frame(t, gonesOne), Foreign: true},
			{Frame: zeros(t, 26), Foreign: true, Refused: "its timing is not this reader's"},
		} {
			r.At = time.Now()
			b.in <- r
			synctest.Wait()
		}
		var got []string
		for _, e := range b.log.all() {
			if e.Record.Data.Foreign {
				got = append(got, recordLine(e))
			}
		}
		want := []string{
			"1 decision.granted bob granted",
			"2 decision.denied gone revoked",
			"3 decision.denied unreadable (26 bits that were refused: its timing is not this reader's)",
		}
		if !slices.Equal(got, want) {
			t.Errorf("flagged: %q", got)
		}
	})
}

func TestForeignTimingIsNotLostAmongDenialsThatAreOnlyCounted(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		present := func(foreign bool) {
			b.in <- badge.Read{Frame: frame(t, gonesOne), At: time.Now(), Foreign: foreign}
			time.Sleep(Repeat + time.Millisecond)
		}
		for range 2 * burst {
			present(false)
		}
		present(true)
		all := b.log.all()
		if last := all[len(all)-1]; !last.Record.Data.Foreign {
			t.Errorf("the last record is %s", recordLine(last))
		}
	})
}

func TestAReasonWhyAFrameWasRefusedIsCutToFitARecord(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.in <- badge.Read{Frame: zeros(t, 26), At: time.Now(), Refused: strings.Repeat("x", maxFaultText) + "y"}
		b.expect("0 decision.denied unreadable (26 bits that were refused: "+strings.Repeat("x", maxFaultText)+")", "lock", "show denied")
	})
}

func TestACardFromTheFutureIsOneOfNow(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.in <- badge.Read{Frame: frame(t, bobsCard), At: time.Now().Add(time.Hour)}
		time.Sleep(Repeat + time.Millisecond)
		b.in <- badge.Read{Frame: frame(t, bobsCard), At: time.Now()}
		synctest.Wait()
		if s := b.door.Status(); s.Counts.Granted != 2 {
			t.Errorf("granted %d times of 2", s.Counts.Granted)
		}
	})
}

func TestAKeyIsCountedWhereNoRuleAsksForOne(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		for range 3 {
			b.in <- badge.Read{Frame: zeros(t, 4), At: time.Now(), Keypad: true}
		}
		b.expect()
		if s := b.door.Status(); s.Readers[0].Keys != 3 || s.Readers[1].Keys != 0 || s.Counts.Denied != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestWhatIsLikelyWrongWithAReaderIsRecordedOnceItHasStayedAndOnceItIsOver(t *testing.T) {
	onBench(t, func(t *testing.T) {
		c := &cable{wires: make(wires)}
		b := newBench(t, func(b *bench) {
			b.in = c.wires
			b.cfg.Readers[0].Reader = c
		})
		b.expect("lock", "show idle")
		likely := func() string { return b.door.Status().Readers[0].Likely }

		c.seems("D1 is dead") // for a moment
		time.Sleep(20 * time.Second)
		c.seems("")
		time.Sleep(time.Minute)
		b.expect()

		c.seems("D1 is dead")
		time.Sleep(illAfter + lookEvery + time.Second)
		b.expect("0 reader.fault true (likely wrong: D1 is dead)")
		if likely() != "D1 is dead" {
			t.Errorf("status says %q", likely())
		}
		if name := b.log.all()[0].Record.Data.Reader; name != b.cfg.Readers[0].Name {
			t.Errorf("recorded of reader %q", name)
		}
		if s := b.door.Status(); len(s.Faults) != 0 {
			t.Errorf("a reader that reads is a fault of the door: %+v", s.Faults)
		}
		for range 50 { // it comes and goes
			c.seems("")
			time.Sleep(time.Minute)
			c.seems("D1 is dead")
			time.Sleep(time.Minute)
		}
		b.expect()

		c.seems("no common ground")
		time.Sleep(wellAfter + lookEvery)
		b.expect("1 reader.fault false (likely wrong: D1 is dead)", "2 reader.fault true (likely wrong: no common ground)")
		c.seems("")
		time.Sleep(wellAfter + lookEvery)
		b.expect("3 reader.fault false (likely wrong: no common ground)")
		if likely() != "" {
			t.Errorf("status still says %q", likely())
		}
	})
}

func TestWhatADriverSaysOfAReadersWiresIsCutToFitARecord(t *testing.T) {
	onBench(t, func(t *testing.T) {
		c := &cable{wires: make(wires)}
		b := newBench(t, func(b *bench) { b.cfg.Readers[0].Reader = c })
		c.seems(strings.Repeat("x", maxFaultText) + "y")
		time.Sleep(illAfter + lookEvery + time.Second)
		if got := b.door.Status().Readers[0].Likely; got != strings.Repeat("x", maxFaultText) {
			t.Errorf("%d bytes: %s", len(got), got)
		}
	})
}

// However the words jump about, no two things are said within the times that
// must pass between them, and none is said for long that is no longer so.
func TestWhatIsSaidOfAReadersWiresIsNoFlood(t *testing.T) {
	moods := [][]string{{""}, {"a"}, {"", "b"}, {"b", "c"}, {"", "a", "b"}}
	rapid.Check(t, func(t *rapid.T) {
		var a ailment
		now, last := seconds(0), seconds(-1e6)
		seemed := now // when what is said last seemed so
		look := func(likely string) {
			now = now.Add(lookEvery)
			before := a.said
			if likely == before {
				seemed = now
			}
			if !a.look(now, likely) {
				if a.said != before {
					t.Fatalf("%q is said, but not reported", a.said)
				}
				if now.Sub(seemed) > wellAfter+lookEvery {
					t.Fatalf("%q is said still, %v after it last seemed so", before, now.Sub(seemed))
				}
				return
			}
			least := wellAfter
			if before == "" {
				least = illAfter
			}
			if a.said == before || a.said != likely || now.Sub(last) < least {
				t.Fatalf("%q after %q, %v after the last", a.said, before, now.Sub(last))
			}
			last, seemed = now, now
		}
		for range rapid.IntRange(1, 8).Draw(t, "stretches") {
			words := rapid.SampledFrom(moods).Draw(t, "mood")
			for range rapid.IntRange(1, 100).Draw(t, "looks") {
				look(rapid.SampledFrom(words).Draw(t, "likely"))
			}
		}
	})
}

func TestAReadersHealthIsPartOfTheStatusAndNoPanicOfIts(t *testing.T) {
	onBench(t, func(t *testing.T) {
		c := &cable{wires: make(wires), h: badge.Health{Ghosts: 7}}
		b := newBench(t, func(b *bench) {
			b.cfg.Readers[0].Reader = c
			b.cfg.Readers[1].Reader = dizzy{make(wires)}
		})
		s := b.door.Status()
		if h := s.Readers[0].Health; h == nil || h.Ghosts != 7 {
			t.Errorf("health %+v", h)
		}
		if h := s.Readers[1].Health; h != nil {
			t.Errorf("a panic is health: %+v", h)
		}
		time.Sleep(time.Minute)
		b.expect("lock", "show idle")
	})
}

// dizzy panics when it is asked how it is.
type dizzy struct{ wires }

func (dizzy) Health() badge.Health { panic("no such register") }

func TestAReaderThatPanicsForEverDoesNotKeepOthersFromPassing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t, func(b *bench) { b.cfg.Readers[0].Reader = slowPanics{} })
		time.Sleep(2 * panicOver)
		synctest.Wait()
		b.take()
		b.out <- frame(t, adasCard)
		synctest.Wait()
		time.Sleep(5*time.Second - time.Millisecond)
		synctest.Wait()
		if b.strike.locked() {
			t.Error("somebody else's reader locked the door again")
		}
	})
}

func TestAPanicOfAReaderThatIsFaultyAlreadyLocksTheDoor(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.in <- errors.New("cable cut")
		b.out <- frame(t, adasCard)
		synctest.Wait()
		if b.strike.locked() {
			t.Fatal("nobody was let in")
		}
		time.Sleep(minBackoff)
		b.in <- "index out of range"
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("unlocked after a panic")
		}
	})
}

func TestAfterAPanicIsOverAnotherFaultIsSoonOverAgain(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		faults := func() int { synctest.Wait(); return len(b.door.Status().Faults) }
		b.in <- "index out of range"
		time.Sleep(panicOver / 2)
		if faults() != 1 {
			t.Error("a panic is soon over")
		}
		time.Sleep(panicOver)
		b.in <- errors.New("cable cut")
		if faults() != 1 {
			t.Error("no fault")
		}
		time.Sleep(minBackoff + healthyAfter + time.Millisecond)
		if faults() != 0 {
			t.Error("the fault of a cable lasts as long as that of a panic")
		}
	})
}

// slowPanics panics some time after it was asked to read.
type slowPanics struct{}

func (slowPanics) Read(ctx context.Context) (badge.Read, error) {
	sleep(ctx, time.Second)
	panic("no such register")
}

func TestWhatWasCountedStandsInALateRecordToo(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		n := 0
		noise := func() {
			n++
			b.in <- zeros(t, 3+n)
			synctest.Wait()
		}
		b.log.set(errDisk, 0)
		for range burst + 3 {
			noise() // the last three are held
		}
		time.Sleep(oneEvery + maxBackoff/4) // while the recorder waits to try again
		noise()                             // stands for those that were held
		b.log.set(nil, 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		if records, counted := unreadable(t, b.log.all()); records+counted != n {
			t.Errorf("%d records, which count %d more, of %d frames", records, counted, n)
		}
	})
}
