package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func TestTheStrikeMovesAfterTheRecordIsDurable(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.log.set(nil, 50*time.Millisecond) // an SD card
		b.expect("lock", "show idle")
		b.swipe(adasCard)
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("the strike moved before the record was durable")
		}
		time.Sleep(time.Second)
		b.expect("0 decision.granted ada granted", "unlock", "show granted")
		b.contact.set(true)
		time.Sleep(time.Second)
		b.contact.set(false)
		time.Sleep(time.Second)
		b.expect("1 passage.entered ada because of 0", "lock", "show idle")
	})
}

func TestWhoIsStruckOffWhileTheRecordWaitsIsDenied(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.log.set(nil, 50*time.Millisecond)
		b.swipe(adasCard)
		synctest.Wait()
		b.list.strikeOff(adasCard)
		time.Sleep(time.Second)
		b.expect("0 decision.denied unknown", "show denied")
	})
}

func TestTheDoorRelocksAtItsDeadline(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.swipe(adasCard)
		synctest.Wait()
		time.Sleep(5*time.Second - time.Millisecond)
		if b.strike.locked() {
			t.Error("locked before its time")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("unlocked after its time")
		}
		b.take()
		time.Sleep(time.Second)
		b.expect("1 passage.not_entered ada because of 0")
	})
}

func TestADisksStallDoesNotKeepTheDoorUnlocked(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.swipe(adasCard)
		synctest.Wait()
		b.log.set(nil, time.Minute)
		time.Sleep(4 * time.Second)
		b.out <- frame(t, bobsCard) // waits for the disk
		time.Sleep(time.Second)
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("unlocked after its time while another decision waits for the disk")
		}
	})
}

func TestARecordThatCannotBeWrittenOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.log.set(errDisk, 0)
		b.swipe(adasCard)
		b.expect("show fault")
		if s := b.door.Status(); !s.Locked || len(s.Faults) != 1 || s.Faults[0].Part != "log" {
			t.Errorf("status %+v", s)
		}
		time.Sleep(10 * time.Second)
		b.expect()
		b.log.set(nil, 0)
		time.Sleep(5 * time.Second)
		b.expect(
			"0 decision.granted ada granted late",
			"1 door.fault true late (log: no space left on device)",
			"2 passage.not_entered ada because of 0 late (the door stayed locked: the decision could not be recorded in time)",
			"show idle",
			"3 door.fault false (log: no space left on device)",
		)
		if !b.strike.locked() {
			t.Error("a late record opened the door")
		}
	})
}

func TestBreakGlassOpensWithoutARecordAndIsRecordedLate(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.lockdown.set(true)
		b.expect("lock", "show idle", "0 lockdown true", "show denied")
		b.log.set(errDisk, 0)
		b.swipe(adasCard)
		b.expect("show denied")
		b.swipe(evesCard)
		b.expect("unlock", "show granted")
		b.contact.set(true)
		time.Sleep(3 * time.Second)
		b.contact.set(false)
		time.Sleep(time.Second)
		b.expect("lock", "show fault")
		b.log.set(nil, 0)
		time.Sleep(5 * time.Second)
		var got []string
		for _, e := range b.log.all()[1:] {
			if e.Record.Type == visitorlog.DoorFault {
				continue
			}
			got = append(got, recordLine(e))
			if !e.Record.Data.Late || e.Record.Data.Occurred == nil {
				t.Errorf("%s does not say when it occurred", recordLine(e))
			}
		}
		want := []string{
			// What may use the space that is kept does not wait for the rest.
			"1 decision.granted eve granted_break_glass late",
			"2 break_glass eve because of 1 late",
			"3 decision.denied ada lockdown late",
			"5 passage.entered eve because of 1 late",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		alarms := 0
		for _, l := range b.printedLines() {
			if l["msg"] == "alarm" && l["event"] == "break_glass" && l["person"] == "eve" {
				alarms++
			}
		}
		if alarms != 1 {
			t.Errorf("%d alarms", alarms)
		}
	})
}

func TestBreakGlassOpensWithoutARecordWhereNothingElseStopsItEither(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.log.set(errDisk, 0)
		b.swipe(evesCard)
		b.expect("unlock", "show granted")
		b.log.set(nil, 0)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		var got []string
		for _, e := range b.log.all() {
			if e.Record.Type != visitorlog.DoorFault {
				got = append(got, recordLine(e))
			}
		}
		want := []string{
			"0 decision.granted eve granted_break_glass",
			"1 break_glass eve because of 0",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

func TestBreakGlassDoesNotWaitForADiskThatHangs(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.lockdown.set(true)
		synctest.Wait()
		b.log.set(nil, time.Minute)
		b.swipe(evesCard)
		time.Sleep(Patience)
		synctest.Wait()
		if b.strike.locked() {
			t.Error("the door waits for the disk")
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		counts := map[visitorlog.Type]int{}
		for _, e := range b.log.all() {
			counts[e.Record.Type]++
		}
		if counts[visitorlog.DecisionGranted] != 1 || counts[visitorlog.BreakGlass] != 1 {
			t.Errorf("records %v: the decision must be recorded once", counts)
		}
	})
}

func TestADecisionThatTakesTooLongOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.log.set(nil, 4*time.Second)
		b.swipe(adasCard)
		time.Sleep(time.Second)
		b.expect("show waiting")
		time.Sleep(2500 * time.Millisecond)
		b.expect("show fault")
		b.log.set(nil, 0)
		time.Sleep(10 * time.Second)
		got := b.take()
		if !slices.Contains(got, "0 decision.granted ada granted") ||
			!slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "passage.not_entered ada because of 0") }) {
			t.Errorf("got %q", got)
		}
		if slices.Contains(got, "unlock") {
			t.Error("the strike moved for a person who may have gone")
		}
	})
}

func TestAFrameThatLayInTheReaderOpensNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		old := time.Now()
		time.Sleep(Patience + time.Second)
		b.in <- badge.Read{Frame: frame(t, adasCard), At: old}
		b.expect("0 decision.granted ada granted", "show fault",
			"1 passage.not_entered ada because of 0 (the door stayed locked: the decision took too long)")
	})
}

func TestAFaultyReaderIsRecordedAtItsBeginAndItsEnd(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		broken := errors.New("cable cut")
		b.in <- broken
		b.expect("show fault", "0 reader.fault true (cable cut)")
		if s := b.door.Status(); s.Readers[0].Fault != "cable cut" || s.Readers[1].Fault != "" {
			t.Errorf("readers %+v", s.Readers)
		}
		for range 5 {
			b.in <- broken
		}
		b.expect()
		b.out <- frame(t, adasCard) // the other reader works
		b.expect("1 decision.granted ada granted", "unlock", "show granted")
		time.Sleep(30 * time.Second)
		b.expect("2 reader.fault false (cable cut)", "lock", "show idle", "3 passage.not_entered ada because of 1")
		if e := b.log.all()[0].Record.Data; e.Reader != "v-in" || e.Active == nil || !*e.Active {
			t.Errorf("data %+v", e)
		}
	})
}

func TestAReaderIsWholeAsSoonAsItReads(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.in <- errors.New("noise")
		synctest.Wait()
		time.Sleep(minBackoff)
		b.swipe(adasCard)
		synctest.Wait()
		if s := b.door.Status(); len(s.Faults) != 0 || s.Locked {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAPanicInAReaderLocksTheDoorAndIsReported(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.out <- frame(t, adasCard)
		b.expect("lock", "show idle", "0 decision.granted ada granted", "unlock", "show granted")
		b.in <- "index out of range"
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("unlocked after a panic")
		}
		got := b.take()
		for _, want := range []string{
			"lock",
			"1 passage.not_entered ada because of 0 (the door was locked: a part of it failed)",
			"2 reader.fault true (panic: index out of range)",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("%q is not in %q", want, got)
			}
		}
		time.Sleep(time.Second)
		b.swipe(adasCard) // the reader is used again
		synctest.Wait()
		if b.strike.locked() {
			t.Error("the reader is not used again")
		}
	})
}

type panics struct{}

func (panics) Read(context.Context) (badge.Read, error) { panic("no such register") }

func TestAReaderThatPanicsAgainAndAgainStaysFaulty(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t, func(b *bench) { b.cfg.Readers[0].Reader = panics{} })
		time.Sleep(20 * time.Second)
		n := 0
		for _, e := range b.log.all() {
			if e.Record.Type == visitorlog.ReaderFault {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d records of one fault", n)
		}
	})
}

func TestAPanicInTheLoopLocksTheDoorAndEndsIt(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.swipe(adasCard)
		b.expect("lock", "show idle", "0 decision.granted ada granted", "unlock", "show granted")
		b.clock.broken.Store(true)
		b.contact.set(true) // whose record needs the time
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("unlocked after a panic")
		}
		if err := b.stop(); err == nil || !strings.Contains(err.Error(), "the clock broke") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestTheStrikeIsLockedAtTheStartAndAtTheEnd(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.swipe(adasCard)
		b.expect("lock", "show idle", "0 decision.granted ada granted", "unlock", "show granted")
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		got := b.take()
		if len(got) == 0 || got[0] != "lock" || !b.strike.locked() {
			t.Errorf("at the end: %q", got)
		}
		if !slices.Contains(got, "1 passage.not_entered ada because of 0 (the controller stopped)") {
			t.Errorf("the last record is not written: %q", got)
		}
		if err := b.door.Run(t.Context()); err == nil {
			t.Error("it ran twice")
		}
	})
}

func TestAStrikeThatDoesNotMoveIsReportedAndTriedAgain(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.strike.fail(errors.New("relay stuck"))
		b.swipe(adasCard)
		b.expect("0 decision.granted ada granted", "unlock fails", "lock fails", "show granted",
			"1 door.fault true (strike: relay stuck; relay stuck)")
		if s := b.door.Status(); len(s.Faults) != 1 || s.Faults[0].Part != "strike" {
			t.Errorf("faults %+v", s.Faults)
		}
		b.strike.fail(nil)
		time.Sleep(time.Second)
		b.expect("unlock", "2 door.fault false (strike: relay stuck; relay stuck)")

		b.strike.fail(errors.New("relay stuck"))
		time.Sleep(20 * time.Second) // its deadline passes
		b.take()
		b.strike.fail(nil)
		time.Sleep(maxBackoff)
		synctest.Wait()
		if !b.strike.locked() {
			t.Error("locking is not tried again")
		}
	})
}

func TestAStrikeIsNotUnlockedAnyMoreWhenItsTimeIsOver(t *testing.T) {
	onBench(t, func(t *testing.T) {
		// The fifth retry comes at the very end of the time.
		const retries = (1 + 2 + 4 + 8 + 16) * minBackoff
		b := newBench(t, func(b *bench) { b.cfg.Times.Unlock = retries })
		b.strike.fail(errors.New("relay stuck"))
		b.swipe(adasCard)
		time.Sleep(retries - minBackoff)
		b.take()
		b.strike.fail(nil)
		time.Sleep(Grace)
		b.expect("2 door.fault false (strike: relay stuck; relay stuck)", "lock", "show idle")
	})
}

func TestAStrikeThatCannotBeLockedIsAnErrorOfRun(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.strike.fail(errors.New("relay stuck"))
		if err := b.stop(); err == nil || !strings.Contains(err.Error(), "relay stuck") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestAChatteringReaderCannotFillTheLog(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		const n = 6000
		f, err := badge.ParseFrame("0000")
		if err != nil {
			t.Fatal(err)
		}
		g, err := badge.ParseFrame("1111")
		if err != nil {
			t.Fatal(err)
		}
		for i := range n { // a minute of noise
			b.in <- []badge.Frame{f, g}[i%2]
			time.Sleep(10 * time.Millisecond)
		}
		b.swipe(gonesOne) // is not lost in the noise
		time.Sleep(time.Minute)
		synctest.Wait()
		records, counted := unreadable(t, b.log.all())
		gone := slices.ContainsFunc(b.log.all(), func(e visitorlog.Entry) bool { return e.Record.Subject == "gone" })
		if records > 30 || records+counted != n {
			t.Errorf("%d records, which count %d more, of %d reads", records, counted, n)
		}
		if !gone {
			t.Error("a revoked card was lost in the noise")
		}
		if s := b.door.Status(); s.Counts.Denied != n+1 {
			t.Errorf("%d denied of %d", s.Counts.Denied, n+1)
		}
	})
}

var moreLikeIt = regexp.MustCompile(`(\d+|one) more like it`)

// unreadable is how many records tell of frames that could not be read, and
// how many more frames those count.
func unreadable(t *testing.T, entries []visitorlog.Entry) (records, counted int) {
	t.Helper()
	for _, e := range entries {
		if e.Record.Data.Reason != access.ReasonUnreadable {
			continue
		}
		records++
		if m := moreLikeIt.FindStringSubmatch(e.Record.Data.Detail); m != nil && m[1] == "one" {
			counted++
		} else if m != nil {
			k, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			counted += k
		}
	}
	return records, counted
}

func TestACardThatIsLeftOnAReaderIsOneDecision(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		for range 20 {
			b.swipe(adasCard)
			time.Sleep(300 * time.Millisecond)
		}
		synctest.Wait()
		if n := b.door.Status().Counts.Granted; n != 1 {
			t.Errorf("%d decisions", n)
		}
		time.Sleep(Repeat)
		b.swipe(adasCard)
		synctest.Wait()
		if n := b.door.Status().Counts.Granted; n != 2 {
			t.Errorf("%d decisions after it was taken away", n)
		}
	})
}

func TestTheFirstFormatThatIsKnownIsTaken(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t, func(b *bench) {
			b.cfg.Readers[0].Formats = []*badge.Format{format(t, "H10302"), format(t, "H10301"), format(t, "ind26")}
			delete(b.list.entries, adasCard)
			c, err := format(t, "ind26").Decode(frame(t, adasCard)) // the same frame in other words
			if err != nil {
				t.Fatal(err)
			}
			b.list.entries[c] = &access.Entry{Person: "cy", Kind: access.Staff, State: access.Active, Rights: []access.Right{{Door: "vault", Schedule: access.Always()}}}
		})
		b.expect("lock", "show idle")
		b.swipe(adasCard)
		b.expect("0 decision.granted cy granted", "unlock", "show granted")
		b.swipe(badge.Credential{Format: "H10301", Facility: 9, Number: 9})
		b.expect("1 decision.denied unknown", "show denied")
	})
}

func TestAnUnreadableFrameIsDeniedAndItsBitsStandNowhere(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		good := frame(t, adasCard).Bits()
		bad, err := badge.ParseFrame(good[:25] + string('0'+'1'-good[25])) // parity
		if err != nil {
			t.Fatal(err)
		}
		b.expect("lock", "show idle")
		b.in <- bad
		b.expect("0 decision.denied unreadable (26 bits that do not fit H10301)", "show denied")
		b.swipe(adasCard)
		b.swipe(badge.Credential{Format: "H10301", Facility: 99, Number: 31313})
		synctest.Wait()
		records, err := json.Marshal(b.log.all())
		if err != nil {
			t.Fatal(err)
		}
		b.stop()
		for _, secret := range []string{bad.Bits(), good, "4567", "31313"} {
			if strings.Contains(string(records), secret) || strings.Contains(b.printed.String(), secret) {
				t.Errorf("%s was written down", secret)
			}
		}
	})
}

func TestAnAllowlistThatCannotBeReadDenies(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.list.fail(errors.New("database is malformed"))
		b.swipe(adasCard)
		b.expect("0 decision.denied allowlist_absent", "show fault", "show denied", "1 door.fault true (allowlist: database is malformed)")
	})
}

func TestNobodyIsLetInBeforeTheLockdownIsKnown(t *testing.T) {
	onBench(t, func(t *testing.T) {
		slow := &slowLine{line: newLine(true)}
		b := newBench(t, func(b *bench) { b.cfg.Lockdown = slow })
		swiped := make(chan struct{})
		go func() {
			b.swipe(adasCard)
			close(swiped)
		}()
		b.expect("lock", "show idle")
		<-swiped
		synctest.Wait()
		got := b.take()
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "decision.denied ada lockdown") }) || !b.strike.locked() {
			t.Errorf("got %q", got)
		}
	})
}

// slowLine takes a second to tell its state.
type slowLine struct{ *line }

func (s *slowLine) Watch(ctx context.Context, changed func(bool)) error {
	time.Sleep(time.Second)
	return s.line.Watch(ctx, changed)
}

func TestALockdownOutlivesTheFaultOfItsSwitch(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.lockdown.set(true)
		b.expect("lock", "show idle", "0 lockdown true", "show denied")
		b.lockdown.changes <- errors.New("wire cut")
		b.expect("show fault", "1 door.fault true (lockdown: wire cut)")
		b.swipe(adasCard)
		b.expect("2 decision.denied ada lockdown", "show denied")
	})
}

func TestABrokenContactIsRecordedAndForcesNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.expect("lock", "show idle")
		b.contact.mu.Lock()
		b.contact.active = true // what it says when it works again
		b.contact.mu.Unlock()
		b.contact.changes <- errors.New("wire cut")
		b.expect("show fault", "0 door.fault true (contact: wire cut)")
		time.Sleep(maxBackoff)
		b.expect("show idle", "1 door.fault false (contact: wire cut)")
		if s := b.door.Status(); s.Contact != DoorOpen || s.Forced {
			t.Errorf("status %+v", s)
		}
		b.contact.set(false)
		time.Sleep(time.Second)
		b.contact.set(true)
		b.expect("2 door.forced")
		if s := b.door.Status(); !s.Forced {
			t.Errorf("status %+v", s)
		}
	})
}

func TestEachStepIsPrintedInStableWords(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		b.log.set(nil, 20*time.Millisecond)
		b.swipe(bobsCard)
		time.Sleep(time.Second)
		b.contact.set(true)
		time.Sleep(time.Second)
		b.exit.set(true)
		time.Sleep(time.Second)
		b.tamper.set(true)
		time.Sleep(time.Second)
		b.contact.set(false)
		synctest.Wait()
		b.stop()
		want := []map[string]any{
			{"msg": "decision", "door": "vault", "reader": "v-in", "decision": "granted", "reason": "granted", "person": "bob", "seq": 0.0, "latency_ms": 20.0},
			{"msg": "strike", "door": "vault", "state": "unlocked", "seq": 0.0, "person": "bob", "latency_ms": 20.0},
			{"msg": "door", "door": "vault", "event": "contact", "contact": "open"},
			{"msg": "passage", "door": "vault", "passage": "entered", "seq": 1.0, "cause": 0.0, "person": "bob"},
			{"msg": "door", "door": "vault", "event": "request_to_exit", "seq": 2.0},
			{"msg": "alarm", "door": "vault", "event": "tamper"},
			{"msg": "door", "door": "vault", "event": "tamper", "active": true, "seq": 3.0},
			{"msg": "strike", "door": "vault", "state": "locked"},
		}
		lines := b.printedLines()
		for _, w := range want {
			if !slices.ContainsFunc(lines, func(l map[string]any) bool {
				for k, v := range w {
					if fmt.Sprint(l[k]) != fmt.Sprint(v) {
						return false
					}
				}
				return true
			}) {
				t.Errorf("no line says %v:\n%s", w, b.printed)
			}
		}
	})
}

func TestStatusMayBeAskedAtAnyTime(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBench(t)
		var asking sync.WaitGroup
		stop := make(chan struct{})
		asking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					if _, err := json.Marshal(b.door.Status()); err != nil {
						t.Error(err)
					}
				}
			}
		})
		for range 20 {
			b.swipe(adasCard)
			b.in <- errors.New("noise")
			b.contact.set(true)
			time.Sleep(3 * time.Second)
			b.contact.set(false)
		}
		close(stop)
		asking.Wait()
		if s := b.door.Status(); s.Counts.Granted != 20 || s.LastDecision.IsZero() {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAConfigurationIsCheckedWhole(t *testing.T) {
	_, err := New(Config{Readers: []ReaderConfig{{Name: "x"}}})
	for _, want := range []string{"no name", "no strike", "no log", "no allowlist", "no clock", "no time zone", "no logger", "unlock:", `reader "x"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestOneSwitchServesSeveralDoors(t *testing.T) {
	onBench(t, func(t *testing.T) {
		key := newLine(true)
		shared := Share(key)
		var mu sync.Mutex
		told := make([][]bool, 3)
		failed := make(chan error, 3)
		for i := range told {
			go func() {
				failed <- shared.Watch(t.Context(), func(active bool) {
					mu.Lock()
					defer mu.Unlock()
					told[i] = append(told[i], active)
				})
			}()
		}
		synctest.Wait()
		key.set(false)
		synctest.Wait()
		mu.Lock()
		for i := range told {
			if !slices.Equal(told[i], []bool{true, false}) {
				t.Errorf("door %d was told %v", i, told[i])
			}
		}
		mu.Unlock()
		broken := errors.New("wire cut")
		key.changes <- broken
		for range told {
			if err := <-failed; !errors.Is(err, broken) {
				t.Errorf("a door was told %v", err)
			}
		}
		watch, cancel := context.WithCancel(t.Context())
		again := make(chan bool, 1)
		go func() { failed <- shared.Watch(watch, func(active bool) { again <- active }) }()
		if <-again {
			t.Error("the switch was not read again")
		}
		cancel()
		if err := <-failed; !errors.Is(err, watch.Err()) {
			t.Errorf("Watch ended with %v", err)
		}
	})
}
