package door

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// ordered gives an order, which must be recorded.
func (b *building) ordered(v *vault, o Order) error {
	b.t.Helper()
	before := len(b.commands())
	err := v.door.Order(b.t.Context(), o)
	all := b.commands()
	if len(all) != before+1 || all[before].ID != o.ID || all[before].Operator != anOperator || all[before].Why != o.Why {
		b.t.Errorf("commands %+v", all[before:])
		return err
	}
	if refused := strings.HasPrefix(all[before].Result, "refused: "); refused != errors.Is(err, ErrRefused) || !refused && all[before].Result != "done" {
		b.t.Errorf("%v, and the record says %q", err, all[before].Result)
	}
	return err
}

func (b *building) commands() (all []visitorlog.Command) {
	b.t.Helper()
	synctest.Wait()
	entries, err := b.book.Entries(b.t.Context(), 0, 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if c := e.Record.Data.Command; c != nil {
			all = append(all, *c)
		}
	}
	return all
}

func TestAnOrderUnlocksOnceAfterItsRecord(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, nil)
		b.journal.take()
		if err := b.ordered(v, order(UnlockOnce)); err != nil {
			t.Fatal(err)
		}
		v.expect("unlock", "show granted")
		if got := b.journal.take(); len(got) != 1 || !strings.Contains(got[0], "operator.action") {
			t.Errorf("records %q", got)
		}
		v.passes()
		v.expect("lock", "show idle")
		if n := len(b.data(visitorlog.DoorForced)) + len(b.data(visitorlog.PassageEntered)); n != 0 {
			t.Errorf("%d records of who passed", n)
		}
		b.book.fail(errDisk)
		if err := v.door.Order(t.Context(), order(UnlockOnce)); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if !v.strike.locked() {
			t.Error("unlocked without a record")
		}
		b.book.fail(nil)
	})
}

func TestNobodyOrdersADoorOpenAgainstALockdown(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, nil)
		v.lockdown.set(true)
		synctest.Wait()
		if err := b.ordered(v, order(UnlockOnce)); !errors.Is(err, ErrRefused) {
			t.Errorf("error %v", err)
		}
		v.lockdown.set(false)
		synctest.Wait()
		o := order(SetThreat)
		if o.Threat = access.MaxThreat; b.ordered(v, o) != nil {
			t.Error("no threat")
		}
		if err := b.ordered(v, order(UnlockOnce)); !errors.Is(err, ErrRefused) {
			t.Errorf("error %v", err)
		}
		o.Threat = access.MaxThreat - 1
		b.ordered(v, o)
		if err := b.ordered(v, order(UnlockOnce)); err != nil || v.strike.locked() {
			t.Errorf("locked: %v, error %v", v.strike.locked(), err)
		}
		b.ordered(v, order(Disable))
		synctest.Wait()
		if err := b.ordered(v, order(UnlockOnce)); !errors.Is(err, ErrRefused) || !v.strike.locked() {
			t.Errorf("locked: %v, error %v", v.strike.locked(), err)
		}
	})
}

func TestAThreatHoldsAtAllDoorsAndOverARestart(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		cleared := func(v *vault) { v.list.entries[adasCard].Clearance = 3 }
		front, back := b.door(access.Door{Name: "front"}, nil, cleared), b.door(access.Door{Name: "back"}, nil, cleared)
		back.swipe(bobsCard)
		synctest.Wait()
		b.journal.take()
		o := order(SetThreat)
		o.Threat = 3
		b.ordered(front, o)
		if synctest.Wait(); !back.strike.locked() {
			t.Error("a door stays unlocked though the level of threat rose")
		}
		time.Sleep(Repeat)
		back.comes(back.in, bobsCard)
		back.comes(back.in, adasCard)
		back.comes(back.out, bobsCard) // whoever is in may leave
		b.answered("denied bob lockdown", "granted ada granted", "granted bob granted")
		if d := b.newest(visitorlog.Lockdown); d.Threat == nil || *d.Threat != 3 || !*d.Active || d.Door != "" {
			t.Errorf("data %+v", d)
		}
		b.restart()
		front, back = b.door(access.Door{Name: "front"}, nil, cleared), b.door(access.Door{Name: "back"}, nil, cleared)
		back.comes(back.in, bobsCard)
		b.answered("denied bob lockdown")
		if s := front.door.Status(); s.Threat != 3 {
			t.Errorf("threat %d", s.Threat)
		}
		o.Threat = 0
		b.ordered(back, o)
		front.comes(front.in, bobsCard)
		b.answered("granted bob granted")
		b.restart()
		if v := b.door(access.Door{}, nil); v.door.Status().Threat != 0 {
			t.Errorf("threat %d", v.door.Status().Threat)
		}
		o.Threat = access.MaxThreat + 1
		if err := b.ordered(b.doors[0], o); !errors.Is(err, ErrRefused) {
			t.Errorf("error %v", err)
		}
	})
}

func TestADamagedThreatIsTheHighest(t *testing.T) {
	for value, want := range map[string]access.Threat{"": 0, "1": 1, "5": 5, "6": 5, "x": 5, "-1": 5, "1 ": 5, "300": 5} {
		if got := parseThreat([]byte(value)); got != want {
			t.Errorf("%q: %d, not %d", value, got, want)
		}
	}
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		b.change(threatState, []byte("high"))
		v := newVault(t, []string{"badge"}, func(v *vault) {
			v.cfg.Log, v.cfg.Secrets, v.cfg.Neighbours = b.book, b.secrets, b.neighbours
			v.anyhow = true
			v.list.entries[bobsCard].Clearance = access.MaxThreat
		}, func(v *vault) { b.doors = append(b.doors, v) })
		b.journal.take()
		v.swipe(adasCard)
		v.swipe(bobsCard)
		synctest.Wait()
		if s := v.door.Status(); s.Threat != access.MaxThreat || s.Locked {
			t.Errorf("status %+v", s)
		}
		b.answered("denied ada lockdown", "granted bob granted")
	})
}

func TestADisabledDoorStaysSoUntilItIsEnabled(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		front, back := b.door(access.Door{Name: "front"}, nil), b.door(access.Door{Name: "back"}, nil)
		front.swipe(adasCard)
		b.answered("granted ada granted")
		b.ordered(front, order(Disable))
		synctest.Wait()
		if s := front.door.Status(); !s.Locked || s.Disabled != "a drill" || s.Indicator != Denied {
			t.Errorf("status %+v", s)
		}
		time.Sleep(Repeat)
		front.comes(front.in, adasCard)
		front.comes(front.out, adasCard)
		back.comes(back.in, adasCard)
		b.answered("denied ada door_disabled", "denied ada door_disabled", "granted ada granted")
		b.restart()
		front = b.door(access.Door{Name: "front"}, nil)
		front.comes(front.in, adasCard)
		front.comes(front.in, evesCard)
		b.answered("denied ada door_disabled", "granted eve granted_break_glass")
		b.ordered(front, order(Enable))
		front.comes(front.in, adasCard)
		b.answered("granted ada granted")
		if d := b.data(visitorlog.DoorDisabled); len(d) != 2 || !*d[0].Active || *d[1].Active {
			t.Errorf("records %+v", d)
		}
		b.restart()
		front = b.door(access.Door{Name: "front", Disabled: "the frame is painted"}, nil, func(v *vault) {})
		front.comes(front.in, adasCard)
		b.answered("denied ada door_disabled")
	})
}

func TestADoorShowsWhichOneItIs(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, nil)
		if err := b.ordered(v, order(Identify)); err != nil {
			t.Fatal(err)
		}
		v.expect("show identify")
		time.Sleep(IdentifyFor)
		v.expect("show idle")
	})
}

// TestADoorThatHangsDelaysNoLockdown: what is of the whole controller is any door's
// to record, and what is of the door that hangs fails soon and leaves no record.
func TestADoorThatHangsDelaysNoLockdown(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		front, back := b.door(access.Door{Name: "front"}, nil), b.door(access.Door{Name: "back"}, nil)
		back.swipe(bobsCard)
		synctest.Wait()
		hang, began := make(chan struct{}), time.Now()
		front.door.work <- func(*loop) { <-hang }
		o := order(SetThreat)
		if o.Threat = access.MaxThreat; b.ordered(front, o) != nil || time.Since(began) > 0 {
			t.Errorf("it took %v", time.Since(began))
		}
		if synctest.Wait(); !back.strike.locked() {
			t.Error("the other door stays unlocked")
		}
		before := len(b.commands())
		if err := front.door.Order(t.Context(), order(UnlockOnce)); err == nil || errors.Is(err, ErrRefused) || time.Since(began) > aliveWithin {
			t.Errorf("to a door that hangs: %v after %v", err, time.Since(began))
		}
		if got := len(b.commands()); got != before {
			t.Errorf("%d orders recorded of a door that hangs", got-before)
		}
		close(hang)
		front.swipe(adasCard)
		if synctest.Wait(); !front.strike.locked() {
			t.Error("the door that hung heard of no lockdown")
		}
	})
}

func TestAnOrderThatNobodyKnowsIsRefused(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, nil)
		for _, o := range []Order{
			{Action: "sing"}, {Action: ResetPassback}, {Action: ResetOccupancy}, {Action: ResetOccupancy, Area: "hall", Count: -1}, {Action: GiveCode},
			{Action: GiveCode, Person: "via"}, // at a door that asks for none
		} {
			o.ID, o.Operator = "cmd-1", anOperator
			if err := b.ordered(v, o); !errors.Is(err, ErrRefused) {
				t.Errorf("%+v: %v", o, err)
			}
		}
		v.stop()
		if err := v.door.Order(t.Context(), order(Identify)); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("a door that has ended: %v", err)
		}
	})
}

func TestADoorOpensOnlyWhileTheOtherIsShut(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		outer := b.door(access.Door{Name: "outer", Interlock: []string{"inner"}}, nil)
		inner := b.door(access.Door{Name: "inner", Interlock: []string{"outer"}}, nil)
		outer.swipe(adasCard)
		synctest.Wait()
		inner.comes(inner.in, bobsCard) // the outer one is unlocked
		outer.contact.set(true)
		time.Sleep(10 * time.Second)
		inner.comes(inner.in, bobsCard) // is open
		if err := b.ordered(inner, order(UnlockOnce)); !errors.Is(err, ErrRefused) {
			t.Errorf("error %v", err)
		}
		outer.contact.set(false)
		synctest.Wait()
		inner.comes(inner.in, bobsCard)
		inner.comes(inner.out, evesCard)
		b.answered("granted ada granted", "denied bob interlock", "denied bob interlock", "granted bob granted", "granted eve granted")
		inner.contact.changes <- errors.New("cable cut")
		synctest.Wait()
		outer.comes(outer.in, adasCard) // nobody knows where the inner one is
		b.answered("denied ada interlock")
	})
}

func TestOfTwoDoorsAtTheSameMomentOneOpens(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		outer := b.door(access.Door{Name: "outer", Interlock: []string{"inner"}}, nil)
		inner := b.door(access.Door{Name: "inner", Interlock: []string{"outer"}}, nil)
		for range 20 {
			ada, bob := frame(t, adasCard), frame(t, bobsCard)
			go func() { outer.in <- ada }()
			go func() { inner.in <- bob }()
			time.Sleep(time.Second)
			synctest.Wait()
			if outer.strike.locked() == inner.strike.locked() {
				t.Fatalf("both doors are locked: %v", outer.strike.locked())
			}
			time.Sleep(30 * time.Second)
			if !outer.strike.locked() || !inner.strike.locked() {
				t.Fatal("a door stays unlocked")
			}
		}
	})
}

func TestADoorThatIsNotThereIsNotShut(t *testing.T) {
	n := NewNeighbours()
	if err := n.join("a", func() {}); err != nil {
		t.Fatal(err)
	}
	if n.join("a", func() {}) == nil {
		t.Error("two doors have one name")
	}
	if got := n.inTheWay([]string{"a"}); got != "a" {
		t.Errorf("a door that has said nothing: %q", got)
	}
	n.tell("a", true)
	if got := n.inTheWay([]string{"a", "b"}); got != "b" {
		t.Errorf("a door that does not exist: %q", got)
	}
	done := n.open("a")
	if got := n.inTheWay([]string{"a"}); got != "a" {
		t.Errorf("a door that is about to open: %q", got)
	}
	done()
	done()
	if got := n.inTheWay([]string{"a"}); got != "" {
		t.Errorf("a door that is shut: %q", got)
	}
	if got := n.level(); got != access.MaxThreat {
		t.Errorf("a threat that nobody knows is %d", got)
	}
}

// office is from eight to eighteen.
func office(t *testing.T) *access.Schedule {
	holidays, err := access.ParseHolidays(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := access.NewSchedule("office", map[string][]string{"mon-sun": {"08:00-18:00"}}, holidays)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sleepUntil waits for an hour of the day.
func sleepUntil(hour int) {
	now := time.Now().UTC()
	next := time.Date(now.Year(), now.Month(), now.Day(), hour, 0, 0, 0, time.UTC)
	if !next.After(now) {
		next = next.AddDate(0, 0, 1)
	}
	time.Sleep(next.Sub(now))
	synctest.Wait()
}

// freedoms are the records of free access.
func (b *building) freedoms() (all []string) {
	b.t.Helper()
	for _, d := range b.data(visitorlog.FreeAccess) {
		word := "end: "
		if *d.Active {
			word = "begin: "
		}
		all = append(all, word+d.Detail)
	}
	return all
}

func TestADoorIsFreeByItsScheduleAndTheRecordsSaySo(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Free: office(t)}, nil)
		sleepUntil(7)
		v.take()
		sleepUntil(8)
		time.Sleep(lookFor)
		v.expect("unlock", "show granted")
		if s := v.door.Status(); !s.Free || s.Locked {
			t.Errorf("status %+v", s)
		}
		v.contact.set(true) // it stands open all day
		time.Sleep(time.Hour)
		v.contact.set(false)
		v.comes(v.in, adasCard)
		v.swipe(gonesOne)
		synctest.Wait()
		if v.strike.locked() {
			t.Error("a passage locked it")
		}
		v.contact.set(true)
		sleepUntil(18)
		time.Sleep(lookFor)
		v.contact.set(false)
		v.expect("lock", "show idle")
		if got := b.freedoms(); !slices.Equal(got, []string{"begin: by its schedule", "end: its schedule ended"}) {
			t.Errorf("records %q", got)
		}
		b.answered("granted ada granted", "denied gone revoked")
		if n := len(b.data(visitorlog.DoorHeld)) + len(b.data(visitorlog.DoorForced)); n != 0 {
			t.Errorf("%d alarms", n)
		}
		sleepUntil(9)
		v.contact.set(true)
		sleepUntil(19)
		if n := len(b.data(visitorlog.DoorHeld)); n != 1 {
			t.Errorf("a door that was left open in the evening: %d alarms", n)
		}
	})
}

func TestWhatEndsFreeAccess(t *testing.T) {
	for name, tt := range map[string]struct {
		end, resume func(*building, *vault)
		why         string
	}{
		"a lockdown": {
			func(_ *building, v *vault) { v.lockdown.set(true) }, func(_ *building, v *vault) { v.lockdown.set(false) }, "a lockdown began"},
		"a threat": {
			func(b *building, v *vault) { o := order(SetThreat); o.Threat = 1; b.ordered(v, o) },
			func(b *building, v *vault) { b.ordered(v, order(SetThreat)) }, "the level of threat rose"},
		"a disabled door": {
			func(b *building, v *vault) { b.ordered(v, order(Disable)) }, func(b *building, v *vault) { b.ordered(v, order(Enable)) }, "the door was disabled"},
		"an unset clock": {
			func(b *building, _ *vault) { b.clock.unset.Store(true) }, func(b *building, _ *vault) { b.clock.unset.Store(false) }, "the clock is unset"},
		"a new policy": {
			func(_ *building, v *vault) { v.list.asks(&access.Door{}) }, func(_ *building, v *vault) { v.list.asks(&access.Door{Free: office(v.t)}) }, "the door has no schedule for that"},
	} {
		t.Run(name, func(t *testing.T) {
			onBench(t, func(t *testing.T) {
				b := newBuilding(t)
				v := b.door(access.Door{Free: office(t)}, nil)
				sleepUntil(9)
				if v.strike.locked() {
					t.Fatal("it is not free")
				}
				tt.end(b, v)
				time.Sleep(2 * lookFor)
				synctest.Wait()
				if got := b.freedoms(); !v.strike.locked() || len(got) != 2 || got[1] != "end: "+tt.why {
					t.Errorf("locked: %v, records %q", v.strike.locked(), got)
				}
				tt.resume(b, v)
				time.Sleep(2 * lookFor)
				synctest.Wait()
				if got := b.freedoms(); v.strike.locked() || len(got) != 3 {
					t.Errorf("locked: %v, records %q", v.strike.locked(), got)
				}
			})
		})
	}
}

// asks makes other words hold for the door.
func (l *list) asks(site *access.Door) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.site = site
	l.newer++
}

func TestAServerRoomIsNeverFree(t *testing.T) {
	onBench(t, func(t *testing.T) {
		for _, site := range []access.Door{{Free: office(t), ServerRoom: true}, {Free: office(t), Interlock: []string{"other"}}, {Free: office(t), TwoPerson: true}, {}} {
			b := newBuilding(t)
			v := b.door(site, nil)
			sleepUntil(9)
			if !v.strike.locked() || len(b.freedoms()) != 0 {
				t.Errorf("%+v: it is free", site)
			}
		}
	})
}

func TestNothingIsFreeWithoutARecord(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Free: office(t)}, nil)
		sleepUntil(7)
		b.book.fail(errDisk)
		sleepUntil(9)
		if !v.strike.locked() {
			t.Error("unlocked without a record")
		}
		b.book.fail(nil)
		time.Sleep(time.Minute)
		if synctest.Wait(); v.strike.locked() || len(b.freedoms()) != 1 {
			t.Errorf("locked: %v, records %q", v.strike.locked(), b.freedoms())
		}
	})
}

func TestACrashEndsFreeAccessAndIsToldAfterwards(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Free: office(t)}, nil)
		sleepUntil(9)
		b.book.fail(errDisk) // the power is cut: nothing more is written
		v.stop()
		b.doors = nil
		b.book.Log.Close()
		sleepUntil(20)
		b.open()
		v = b.door(access.Door{Free: office(t)}, nil)
		if got := b.freedoms(); !v.strike.locked() || !slices.Equal(got, []string{"begin: by its schedule", "end: the controller ended without a word"}) {
			t.Errorf("locked: %v, records %q", v.strike.locked(), got)
		}
		b.restart()
		b.door(access.Door{Free: office(t)}, nil)
		if got := b.freedoms(); len(got) != 2 {
			t.Errorf("records %q", got)
		}
	})
}

func TestADoorIsFreeOnlyOnceASupervisorIsIn(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Free: office(t), FirstPerson: true}, nil, func(v *vault) { v.list.entries[adasCard].Supervisor = true })
		sleepUntil(9)
		if !v.strike.locked() {
			t.Error("it is free")
		}
		v.comes(v.in, adasCard)
		time.Sleep(lookFor)
		if synctest.Wait(); v.strike.locked() || len(b.freedoms()) != 1 {
			t.Errorf("locked: %v, records %q", v.strike.locked(), b.freedoms())
		}
		sleepUntil(8)
		time.Sleep(time.Minute)
		if synctest.Wait(); !v.strike.locked() {
			t.Error("the next day it is free by itself")
		}
	})
}

func TestARecordThatIsWrittenAgainOpensOnce(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		outer := b.door(access.Door{Name: "outer"}, codeOrBadge)
		inner := b.door(access.Door{Name: "inner", Interlock: []string{"outer", "hatch"}}, nil)
		hatch := b.door(access.Door{Name: "hatch", Free: office(t)}, nil)
		sleepUntil(20)
		shut := func(after string) {
			t.Helper()
			if got := b.neighbours.inTheWay([]string{"outer", "inner", "hatch"}); got != "" {
				t.Errorf("after %s: door %q is never shut again", after, got)
			}
		}
		shut("the start")
		b.book.stumble(true)
		outer.comes(outer.in, adasCard)
		shut("a grant")
		outer.comes(outer.in, evesCard)
		shut("a grant of who may break the glass")
		if err := b.ordered(inner, order(UnlockOnce)); err != nil {
			t.Error(err)
		}
		inner.passes()
		shut("an order")
		digits := []byte("7654321")
		o := order(GiveCode)
		o.Person, o.Code = "via", CodeIndex(b.secrets, "outer", digits)
		if err := b.ordered(outer, o); err != nil {
			t.Error(err)
		}
		b.journal.take()
		outer.types(string(digits) + "#")
		outer.passes()
		b.answered("granted via granted")
		shut("a code")
		sleepUntil(9)
		time.Sleep(lookFor)
		if synctest.Wait(); hatch.strike.locked() {
			t.Error("it is not free")
		}
		sleepUntil(19)
		shut("free access")
	})
}

func TestAnOrderThatTheDoorDoesNotHearHoldsNoOtherDoor(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		outer := b.door(access.Door{Name: "outer"}, nil)
		b.door(access.Door{Name: "inner", Interlock: []string{"outer"}}, nil)
		hangs, busy := make(chan struct{}), make(chan struct{})
		b.book.hang(hangs)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() { failed <- outer.door.Order(ctx, order(UnlockOnce)) }()
		synctest.Wait() // it waits for its record
		go outer.door.post(t.Context(), func(*loop) { <-busy })
		synctest.Wait()
		b.book.hang(nil)
		close(hangs)
		synctest.Wait()
		cancel()
		if err := <-failed; err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("error %v", err)
		}
		close(busy)
		synctest.Wait()
		if !outer.strike.locked() {
			t.Error("it opened")
		}
		if got := b.neighbours.inTheWay([]string{"outer"}); got != "" {
			t.Errorf("door %q is never shut again", got)
		}
		if got := b.newest(visitorlog.OperatorAction); !strings.Contains(got.Detail, "stayed locked") || got.Cause == nil {
			t.Errorf("data %+v", got)
		}
	})
}

func TestADoorWhoseStrikeFailsIsNotShut(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		outer := b.door(access.Door{Name: "outer"}, nil)
		inner := b.door(access.Door{Name: "inner", Interlock: []string{"outer"}}, nil)
		outer.swipe(adasCard)
		synctest.Wait()
		outer.strike.fail(errors.New("stuck"))
		time.Sleep(time.Minute)
		inner.comes(inner.in, bobsCard)
		b.answered("granted ada granted", "denied bob interlock")
		outer.strike.fail(nil)
		time.Sleep(time.Minute)
		inner.comes(inner.in, bobsCard)
		b.answered("granted bob granted")
	})
}

func TestAPartThatFailsEndsFreeAccessUntilItIsWell(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Free: office(t)}, nil)
		sleepUntil(9)
		v.in <- "a bug" // the driver panics
		time.Sleep(panicOver / 2)
		if synctest.Wait(); !v.strike.locked() {
			t.Error("it is free though a part of it failed")
		}
		time.Sleep(panicOver)
		if synctest.Wait(); v.strike.locked() {
			t.Error("it is not free though all is well")
		}
		if got := b.freedoms(); len(got) != 3 {
			t.Errorf("records %q", got)
		}
	})
}

// TestFreeAccessBeginsOnlyAfterTheRecordOfItsEnd lets the disk come back at every
// moment between two attempts to write.
func TestFreeAccessBeginsOnlyAfterTheRecordOfItsEnd(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Free: office(t)}, nil)
		sleepUntil(9)
		for i := range 40 {
			b.book.fail(errDisk)
			v.lockdown.set(true)
			time.Sleep(20 * time.Second)
			v.lockdown.set(false)
			time.Sleep(20*time.Second + time.Duration(i)*lookFor/40)
			b.book.fail(nil)
			time.Sleep(time.Minute)
			synctest.Wait()
			if b.state(freeStates+"vault") == nil || v.strike.locked() {
				t.Fatalf("%d: locked: %v, records %q", i, v.strike.locked(), b.freedoms())
			}
		}
	})
}

func TestANewPolicyIsHeardOfWhereNothingWasAskedBefore(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, nil, func(v *vault) { v.list.site = nil })
		sleepUntil(9)
		v.list.asks(&access.Door{Free: office(t)})
		time.Sleep(lookFor)
		if synctest.Wait(); v.strike.locked() {
			t.Error("it is not free")
		}
	})
}
