package door

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// building is a folder with the real log, the secrets that belong to it, and the
// doors that run there.
type building struct {
	t          *testing.T
	dir        string
	secrets    secrets
	clock      *wall
	neighbours *Neighbours
	journal    *journal
	book       *book
	doors      []*vault
}

func newBuilding(t *testing.T) *building {
	b := &building{
		t: t, dir: t.TempDir(), secrets: newSecrets(t), journal: &journal{},
		clock: &wall{boot: "boot", booted: time.Now()},
	}
	b.open()
	t.Cleanup(b.close)
	return b
}

func (b *building) open() {
	b.neighbours = NewNeighbours()
	b.book = openBook(b.t, b.dir, b.secrets, b.journal, b.clock)
}

// close ends the program.
func (b *building) close() {
	b.t.Helper()
	for _, v := range b.doors {
		if err := v.stop(); err != nil {
			b.t.Error(err)
		}
	}
	b.doors = nil
	if err := b.book.Close(); err != nil {
		b.t.Error(err)
	}
}

// restart ends the program, and begins it anew without its doors.
func (b *building) restart() {
	b.t.Helper()
	b.close()
	b.open()
}

// door adds a door that asks for any of the sets, by the words of a site.
func (b *building) door(site access.Door, sets []string, change ...func(*vault)) *vault {
	b.t.Helper()
	if len(sets) == 0 {
		sets = []string{"badge"}
	}
	v := newVault(b.t, sets, append([]func(*vault){func(v *vault) {
		v.anyhow = true
		if site.Name != "" {
			v.cfg.Name = site.Name
		}
		v.cfg.Log, v.cfg.Secrets, v.cfg.Clock, v.cfg.Neighbours = b.book, b.secrets, b.clock, b.neighbours
		v.clock = b.clock
		for _, e := range v.list.entries {
			e.Rights = []access.Right{{Door: access.EveryDoor, Schedule: access.Always()}}
		}
		v.list.site = &site
	}}, change...)...)
	b.doors = append(b.doors, v)
	return v
}

// data are the records of a type, the oldest first.
func (b *building) data(typ visitorlog.Type) []visitorlog.Data {
	b.t.Helper()
	synctest.Wait()
	all, err := b.book.Entries(b.t.Context(), 0, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	var found []visitorlog.Data
	for _, e := range all {
		if e.Record.Type == typ {
			found = append(found, e.Record.Data)
		}
	}
	return found
}

func (b *building) newest(typ visitorlog.Type) visitorlog.Data {
	b.t.Helper()
	all := b.data(typ)
	if len(all) == 0 {
		b.t.Fatalf("no record %s", typ)
	}
	return all[len(all)-1]
}

// answered are the decisions since the last call, at all doors.
func (b *building) answered(want ...string) {
	b.t.Helper()
	synctest.Wait()
	var got []string
	for _, l := range b.journal.take() {
		if _, what, ok := strings.Cut(l, " decision."); ok {
			got = append(got, what)
		}
	}
	if !slices.Equal(got, want) {
		b.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// change puts something else into the log's state.
func (b *building) change(key string, value []byte) {
	b.t.Helper()
	_, err := b.book.Log.Append(b.t.Context(), func(tx *visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.OperatorAction}, tx.Set(key, value)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// comes is somebody who presents a card, and goes through if it opens.
func (v *vault) comes(in wires, c badge.Credential) {
	v.t.Helper()
	in <- frame(v.t, c)
	synctest.Wait()
	v.passes()
}

// passes is somebody who goes through the door if it is unlocked, and closes it.
func (v *vault) passes() {
	if synctest.Wait(); !v.strike.locked() {
		v.contact.set(true)
		time.Sleep(time.Second)
		v.contact.set(false)
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
}

const anOperator = "op-1"

func order(a Action) Order {
	return Order{Action: a, ID: "cmd-" + string(a), Operator: anOperator, Why: "a drill"}
}

func hall(p access.Passback) *access.Area { return &access.Area{Name: "hall", Passback: p} }

func TestWhoIsInDoesNotComeInAgain(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Into: hall(access.PassbackHard)}, nil)
		v.comes(v.in, adasCard)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted", "denied ada passback")
		v.comes(v.out, adasCard)
		v.comes(v.out, adasCard)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted", "denied ada passback", "granted ada granted")
		if d := b.newest(visitorlog.PassageEntered); d.Area != "hall" {
			t.Errorf("entered %q", d.Area)
		}
		if d := b.newest(visitorlog.PassageLeft); d.Area != "hall" {
			t.Errorf("left %q", d.Area)
		}
	})
}

func TestARestartForgetsNobodysPlace(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		site := access.Door{Into: hall(access.PassbackHard)}
		v := b.door(site, nil)
		v.comes(v.in, adasCard)
		v.swipe(bobsCard) // and the power is cut before he went through
		synctest.Wait()
		b.journal.take()
		b.book.fail(errDisk)
		for _, v := range b.doors {
			v.stop()
		}
		b.doors = nil
		b.book.Log.Close()
		b.open()
		v = b.door(site, nil)
		v.comes(v.in, adasCard)
		v.comes(v.in, bobsCard)
		b.answered("denied ada passback", "denied bob passback")
		v.comes(v.out, adasCard)
		b.answered("granted ada granted")
	})
}

func TestWhoDidNotEnterMayTryAgain(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := hall(access.PassbackHard)
		area.Occupancy = 1
		v := b.door(access.Door{Into: area}, nil)
		v.swipe(adasCard)
		time.Sleep(time.Minute) // and goes away
		v.comes(v.in, bobsCard)
		v.comes(v.out, bobsCard)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted", "granted bob granted", "granted bob granted", "granted ada granted")
		v.comes(v.in, bobsCard)
		b.answered("denied bob occupancy")
	})
}

func TestWhoBadgesAgainBeforeTheDoorOpensIsStillOutside(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Into: hall(access.PassbackHard)}, nil)
		v.swipe(adasCard)
		time.Sleep(2 * time.Second)
		v.swipe(adasCard)
		synctest.Wait()
		b.answered("granted ada granted", "granted ada granted")
		time.Sleep(time.Minute) // neither led to a passage
		v.swipe(adasCard)
		time.Sleep(2 * time.Second)
		v.comes(v.in, adasCard)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted", "granted ada granted", "denied ada passback")
	})
}

func TestSoftPassbackIsGrantedAndSaid(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Into: hall(access.PassbackSoft)}, nil)
		v.comes(v.in, adasCard)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted", "granted ada granted")
		all := b.data(visitorlog.DecisionGranted)
		if all[0].Against != "" || all[1].Against != access.ReasonPassback {
			t.Errorf("against %q and %q", all[0].Against, all[1].Against)
		}
	})
}

func TestAnAreaSpansItsDoors(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area, cage := hall(access.PassbackHard), &access.Area{Name: "cage", Passback: access.PassbackHard}
		front := b.door(access.Door{Name: "front", Into: area}, nil)
		back := b.door(access.Door{Name: "back", Into: area}, nil)
		inner := b.door(access.Door{Name: "inner", Into: cage, OutOf: area}, nil)
		front.comes(front.in, adasCard)
		back.comes(back.in, adasCard)
		inner.comes(inner.in, adasCard)
		back.comes(back.out, adasCard)
		inner.comes(inner.out, adasCard)
		back.comes(back.out, adasCard)
		synctest.Wait()
		var got []string
		for _, d := range slices.Concat(b.data(visitorlog.DecisionGranted), b.data(visitorlog.DecisionDenied)) {
			got = append(got, d.Door+" "+string(d.Direction)+" "+string(d.Reason))
		}
		want := []string{"front in granted", "inner in granted", "inner out granted", "back out granted", "back in passback", "back out passback"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

func TestSoManyAreInAndNoMore(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := hall(access.PassbackOff)
		area.Occupancy = 1
		v := b.door(access.Door{Into: area}, nil)
		v.comes(v.in, adasCard)
		v.comes(v.in, adasCard) // is counted once
		v.comes(v.in, bobsCard)
		b.answered("granted ada granted", "granted ada granted", "denied bob occupancy")
		b.restart()
		v = b.door(access.Door{Into: area}, nil)
		v.comes(v.in, bobsCard)
		v.comes(v.out, adasCard)
		v.comes(v.in, bobsCard)
		b.answered("denied bob occupancy", "granted ada granted", "granted bob granted")
	})
}

func TestOnceInIsTooSoonForAWhile(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := &access.Area{Name: "hall", Timed: 10 * time.Minute}
		v := b.door(access.Door{Into: area}, nil)
		v.comes(v.in, adasCard)
		b.restart()
		v = b.door(access.Door{Into: area}, nil)
		v.comes(v.in, adasCard)
		time.Sleep(10 * time.Minute)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted", "denied ada passback_timed", "granted ada granted")
	})
}

func TestDamagedStatesKeepOutAndLetGo(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := hall(access.PassbackHard)
		area.Occupancy = 3
		v := b.door(access.Door{Into: area}, nil)
		b.change(whereKey(b.secrets, "ada"), []byte("x"))
		v.comes(v.in, adasCard)
		const damaged = " (what was kept of where the person is is damaged: they count as inside)"
		b.answered("denied ada passback" + damaged)
		v.comes(v.out, adasCard)
		v.comes(v.in, adasCard)
		b.answered("granted ada granted"+damaged, "granted ada granted")
		b.change(OccupancyStates+"hall", []byte("-1"))
		v.comes(v.in, bobsCard)
		v.comes(v.out, adasCard)
		if got := b.newest(visitorlog.DecisionDenied); got.Reason != access.ReasonOccupancy || !strings.Contains(got.Detail, "full until it is reset") {
			t.Errorf("%s (%s)", got.Reason, got.Detail)
		}
		b.journal.take()
		o := order(ResetOccupancy)
		if o.Area = "hall"; v.door.Order(t.Context(), o) != nil {
			t.Error("it could not be reset")
		}
		v.comes(v.in, bobsCard)
		b.answered("granted bob granted")
	})
}

func TestAResetForgetsOnePersonsPlace(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := hall(access.PassbackHard)
		area.Occupancy = 2
		v := b.door(access.Door{Into: area}, nil)
		v.comes(v.in, adasCard)
		v.comes(v.in, bobsCard)
		o := order(ResetPassback)
		o.Person = "ada"
		if err := v.door.Order(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		v.comes(v.in, adasCard)
		v.comes(v.in, bobsCard)
		b.answered("granted ada granted", "granted bob granted", "granted ada granted", "denied bob passback")
		if n, _ := ParseOccupancy(b.state(OccupancyStates + "hall")); n != 2 {
			t.Errorf("%d are in", n)
		}
	})
}

func (b *building) state(key string) []byte {
	b.t.Helper()
	v, err := b.book.State(b.t.Context(), key)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func TestTheStateDoesNotSayWhoIsWhere(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Into: hall(access.PassbackHard), FirstPerson: true}, nil, func(v *vault) { v.list.entries[adasCard].Supervisor = true })
		v.comes(v.in, adasCard)
		states, err := b.book.States(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(states) < 3 {
			t.Errorf("states %v", states)
		}
		for key, value := range states {
			if strings.Contains(key, "ada") || bytes.Contains(value, []byte("ada")) || bytes.Contains(value, []byte("hall")) {
				t.Errorf("%q: %q", key, value)
			}
		}
	})
}

func TestNobodyComesInBeforeASupervisorDid(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		supervised := func(v *vault) { v.list.entries[adasCard].Supervisor = true }
		v := b.door(access.Door{FirstPerson: true}, nil, supervised)
		v.comes(v.in, bobsCard)
		b.answered("denied bob first_person")
		v.swipe(adasCard)
		time.Sleep(time.Minute) // and does not go in
		v.comes(v.in, bobsCard)
		b.answered("granted ada granted", "denied bob first_person")
		v.comes(v.in, adasCard)
		b.restart()
		v = b.door(access.Door{FirstPerson: true}, nil, supervised)
		v.comes(v.in, bobsCard)
		b.answered("granted ada granted", "granted bob granted")
		time.Sleep(24 * time.Hour)
		v.comes(v.in, bobsCard)
		b.answered("denied bob first_person")
		b.clock.unset.Store(true)
		v.comes(v.in, adasCard)
		v.comes(v.in, bobsCard)
		b.restart() // of the machine, too
		b.clock.boot = "another"
		v = b.door(access.Door{FirstPerson: true}, nil, supervised)
		v.comes(v.in, bobsCard)
		b.answered("granted ada granted", "granted bob granted", "denied bob first_person")
	})
}

// counting counts how often a log's state is read.
type counting struct {
	*paper
	reads chan string
}

func (c counting) State(ctx context.Context, key string) ([]byte, error) {
	c.reads <- key
	return c.paper.State(ctx, key)
}

func TestADoorWithoutSuchRulesReadsNothingForASwipe(t *testing.T) {
	onBench(t, func(t *testing.T) {
		reads := make(chan string, 100)
		b := newBench(t, func(b *bench) { b.cfg.Log = counting{b.log, reads} })
		for len(reads) > 0 {
			<-reads
		}
		b.swipe(adasCard) // nor does the transaction: it is none here
		synctest.Wait()
		if len(reads) > 0 {
			t.Errorf("read %q", <-reads)
		}
		if b.strike.locked() {
			t.Error("it is locked")
		}
	})
}

func TestWhoBreaksTheGlassWithoutARecordIsInAfterwards(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := hall(access.PassbackSoft)
		area.Occupancy = 1
		v := b.door(access.Door{Into: area}, nil)
		b.book.fail(errDisk)
		v.comes(v.in, evesCard)
		b.book.fail(nil)
		time.Sleep(time.Minute)
		v.comes(v.in, bobsCard)
		b.answered("granted eve granted_break_glass late", "denied bob occupancy")
		b.book.fail(errDisk)
		v.swipe(evesCard)
		time.Sleep(20 * time.Second) // and does not go in again
		b.book.fail(nil)
		time.Sleep(time.Minute)
		v.comes(v.out, evesCard)
		v.comes(v.in, bobsCard)
		b.journal.take()
		if n, _ := ParseOccupancy(b.state(OccupancyStates + "hall")); n != 1 {
			t.Errorf("%d are in", n)
		}
	})
}

func TestADiskThatHangsHoldsNoOtherDoorForEver(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		outer := b.door(access.Door{Name: "outer", Interlock: []string{"inner"}}, nil)
		inner := b.door(access.Door{Name: "inner", Interlock: []string{"outer"}}, nil)
		hangs := make(chan struct{})
		b.book.hang(hangs)
		outer.swipe(adasCard)
		time.Sleep(Patience + time.Second) // it is not let in any more
		b.book.hang(nil)
		close(hangs)
		synctest.Wait()
		if !outer.strike.locked() {
			t.Error("a record that came too late opened the door")
		}
		inner.comes(inner.in, bobsCard)
		if d := b.newest(visitorlog.DecisionGranted); d.Door != "inner" {
			t.Errorf("data %+v", d)
		}
	})
}

func TestOccupancyIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]int{"": 0, "1": 1, "17": 17, "0": -1, "-1": -1, "01": -1, "x": -1, "2147483647": -1, "99999999999": -1, "1 ": -1} {
		n, ok := ParseOccupancy([]byte(text))
		if want < 0 && (ok || n != damagedOccupancy) || want >= 0 && (!ok || n != want) {
			t.Errorf("%q: %d, %v", text, n, ok)
		}
	}
}

func TestASupervisorWhoBadgesTwiceAndStaysOutsideBeginsNothing(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		supervised := func(v *vault) {
			v.list.entries[adasCard].Supervisor, v.list.entries[evesCard].Supervisor = true, true
		}
		v := b.door(access.Door{FirstPerson: true}, nil, supervised)
		v.swipe(adasCard)
		time.Sleep(2 * time.Second)
		v.swipe(adasCard)
		time.Sleep(2 * time.Second)
		v.swipe(evesCard) // another one, who does not go in either
		time.Sleep(time.Minute)
		b.answered("granted ada granted", "granted ada granted", "granted eve granted")
		v.comes(v.in, bobsCard)
		b.answered("denied bob first_person")
		v.swipe(adasCard)
		time.Sleep(2 * time.Second)
		v.comes(v.in, adasCard)
		v.comes(v.in, bobsCard)
		b.answered("granted ada granted", "granted ada granted", "granted bob granted")
	})
}

func TestWhoGoesThroughNeitherOfTwoDoorsIsInNeitherArea(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		shed := &access.Area{Name: "shed", Passback: access.PassbackHard}
		front := b.door(access.Door{Name: "front", Into: hall(access.PassbackHard)}, nil)
		back := b.door(access.Door{Name: "back", Into: shed}, nil)
		front.swipe(adasCard)
		time.Sleep(2 * time.Second)
		back.swipe(adasCard)
		time.Sleep(time.Minute)
		if hall, shed := b.state(OccupancyStates+"hall"), b.state(OccupancyStates+"shed"); hall != nil || shed != nil {
			t.Errorf("%q are in the hall, %q in the shed", hall, shed)
		}
		front.comes(front.in, adasCard)
		b.answered("granted ada granted", "granted ada granted", "granted ada granted")
		if hall := b.state(OccupancyStates + "hall"); string(hall) != "1" {
			t.Errorf("%q are in the hall", hall)
		}
	})
}
