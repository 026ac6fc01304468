package door

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

var viasCard = badge.Credential{Format: "H10301", Facility: 123, Number: 4571} // a visitor, whom bob may escort

// visited has a visitor with an escort.
func visited(v *vault) {
	v.list.entries[viasCard] = &access.Entry{
		Person: "via", Kind: access.Visitor, State: access.Active, Escorted: true,
		Rights: []access.Right{{Door: access.EveryDoor, Schedule: access.Always()}},
		Visit:  &access.Visit{Host: "bob", Purpose: "a new rack"},
	}
	v.list.entries[bobsCard].MayEscort = true
}

// passedWith reports whether a decision has such company.
func passedWith(d visitorlog.Data, want ...visitorlog.Companion) bool {
	return slices.Equal(d.Company, want)
}

func TestTwoPassOnlyTogetherAndByOneRecord(t *testing.T) {
	onBench(t, func(t *testing.T) {
		for name, cards := range map[string][2]badge.Credential{"ada first": {adasCard, bobsCard}, "bob first": {bobsCard, adasCard}} {
			b := newBuilding(t)
			v := b.door(access.Door{TwoPerson: true, Into: hall(access.PassbackHard)}, nil)
			v.swipe(cards[0])
			v.expect("show ask_company")
			if !v.strike.locked() || len(v.door.Status().Waiting) != 1 {
				t.Errorf("%s: status %+v", name, v.door.Status())
			}
			time.Sleep(10 * time.Second)
			v.swipe(cards[1])
			synctest.Wait()
			if v.strike.locked() || len(v.door.Status().Waiting) != 0 {
				t.Errorf("%s: status %+v", name, v.door.Status())
			}
			v.passes()
			d := b.data(visitorlog.DecisionGranted)
			first, second := v.list.entries[cards[0]], v.list.entries[cards[1]]
			if len(d) != 1 || !passedWith(d[0], visitorlog.Companion{Person: first.Person, Kind: first.Kind, Role: visitorlog.RoleSecond}) {
				t.Errorf("%s: %+v", name, d)
			}
			b.answered("granted " + second.Person + " granted (" + first.Person + " gave badge at v-in)")
			entered := b.data(visitorlog.PassageEntered)
			if len(entered) != 2 || *entered[0].Cause != *entered[1].Cause || entered[0].Area != "hall" {
				t.Errorf("%s: passages %+v", name, entered)
			}
			v.comes(v.in, adasCard) // both are in
			v.comes(v.in, bobsCard)
			b.answered("denied ada passback", "denied bob passback")
			b.close()
			b.open()
		}
	})
}

func TestWhoWaitsInVainIsDenied(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true, Together: 20 * time.Second}, nil)
		v.swipe(adasCard)
		time.Sleep(15 * time.Second)
		v.swipe(adasCard) // again makes neither two people nor more time
		synctest.Wait()
		b.answered()
		time.Sleep(5 * time.Second)
		b.answered("denied ada second_person_missing")
		if !v.strike.locked() || len(v.door.Status().Waiting) != 0 {
			t.Errorf("status %+v", v.door.Status())
		}
		v.swipe(bobsCard) // for whom nobody waits any more
		synctest.Wait()
		if !v.strike.locked() {
			t.Error("it opened to one")
		}
	})
}

func TestWhoComesInBetweenEndsNobodysWaiting(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true}, nil)
		v.swipe(adasCard)
		synctest.Wait() // whoever waits is decided about beside the reader
		v.swipe(gonesOne)
		synctest.Wait()
		v.swipe(badge.Credential{Format: "H10301", Facility: 9, Number: 9}) // nobody's
		synctest.Wait()
		v.out <- frame(t, bobsCard) // goes out
		time.Sleep(10 * time.Second)
		b.answered("denied gone revoked", "denied unknown", "granted bob granted")
		v.swipe(bobsCard)
		b.answered("granted bob granted (ada gave badge at v-in)")
		v.passes()
		v.swipe(evesCard) // breaks the glass, and waits for nobody
		b.answered("granted eve granted_break_glass")
	})
}

func TestEachOfTwoGivesAllThatIsAskedFor(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true}, []string{"badge+pin"}, func(v *vault) { v.list.entries[bobsCard].PIN = []byte("8080") })
		v.swipe(adasCard)
		v.expect("show ask_pin")
		v.types(adasPIN + "#")
		v.expect("show ask_company")
		v.swipe(bobsCard)
		v.expect("show ask_pin")
		v.types("0000#")
		v.types("8080#")
		synctest.Wait()
		b.answered("granted bob granted (ada gave badge+pin at v-in)")
		if v.strike.locked() {
			t.Error("it is locked")
		}
	})
}

func TestAVisitorPassesWithTheirEscortInEitherOrder(t *testing.T) {
	escort := visitorlog.Companion{Person: "bob", Kind: access.Contractor, Role: visitorlog.RoleEscort}
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{Into: hall(access.PassbackOff)}, nil, visited)
		v.swipe(viasCard)
		v.expect("show ask_company")
		v.swipe(adasCard) // who may escort nobody, and goes in alone
		v.passes()
		b.answered("granted ada granted")
		v.swipe(bobsCard)
		v.passes()
		b.answered("granted via granted (bob gave badge at v-in)")
		d := b.newest(visitorlog.DecisionGranted)
		if !passedWith(d, escort) || d.Visit == nil || d.Visit.Host != "bob" || d.Visit.Purpose != "a new rack" {
			t.Errorf("data %+v", d)
		}
		if n := len(b.data(visitorlog.PassageEntered)); n != 3 {
			t.Errorf("%d entered", n)
		}

		time.Sleep(time.Minute)
		v.comes(v.in, bobsCard) // goes before
		v.comes(v.in, viasCard)
		b.answered("granted bob granted", "granted via granted")
		if d := b.newest(visitorlog.DecisionGranted); !passedWith(d, escort) {
			t.Errorf("data %+v", d)
		}

		time.Sleep(time.Minute)
		v.swipe(bobsCard)
		time.Sleep(20 * time.Second) // and does not go in after all
		v.swipe(viasCard)
		synctest.Wait()
		b.answered("granted bob granted")
		time.Sleep(access.DefaultTogether)
		b.answered("denied via escort_missing")
	})
}

func TestALockdownEndsTheWaiting(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true}, nil)
		v.swipe(adasCard)
		synctest.Wait()
		v.lockdown.set(true)
		b.answered("denied ada lockdown (a lockdown began)")
		v.swipe(bobsCard)
		b.answered("denied bob lockdown")
	})
}

func TestWhoIsStruckOffWhileWaitingTakesNobodyIn(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true}, nil)
		v.swipe(adasCard)
		synctest.Wait()
		v.list.strikeOff(adasCard)
		v.swipe(bobsCard)
		synctest.Wait()
		if !v.strike.locked() {
			t.Error("it opened")
		}
		if d := b.data(visitorlog.DecisionDenied); len(d) != 1 || d[0].Reason != access.ReasonUnknown {
			t.Errorf("denied %+v", d)
		}
	})
}

func TestTwoDoNotPassAsTheLastOne(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		area := hall(access.PassbackOff)
		area.Occupancy = 2
		v := b.door(access.Door{Into: area, TwoPerson: true}, nil, visited)
		v.swipe(viasCard)
		v.swipe(bobsCard)
		v.passes()
		b.answered("granted via granted (bob gave badge at v-in)")
		v.swipe(adasCard)
		b.answered("denied ada occupancy")
	})
}

func TestDuressOfOneOfTwoIsTold(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true}, []string{"badge+pin"}, func(v *vault) { v.list.entries[bobsCard].PIN = []byte("8080") })
		v.swipe(adasCard)
		synctest.Wait()
		v.types(adasFearPIN + "#")
		synctest.Wait()
		v.swipe(bobsCard)
		synctest.Wait()
		v.types("8080#")
		synctest.Wait()
		if d := b.data(visitorlog.Duress); len(d) != 1 || v.strike.locked() {
			t.Errorf("%d alarms, locked: %v", len(d), v.strike.locked())
		}
	})
}

func TestOneEscortLeadsAllWhoWait(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		zoesCard := badge.Credential{Format: "H10301", Facility: 123, Number: 4572}
		v := b.door(access.Door{Into: hall(access.PassbackOff)}, nil, visited, func(v *vault) {
			zoe := *v.list.entries[viasCard]
			zoe.Person = "zoe"
			v.list.entries[zoesCard] = &zoe
		})
		v.swipe(viasCard)
		v.swipe(zoesCard)
		synctest.Wait()
		if n := len(v.door.Status().Waiting); n != 2 {
			t.Errorf("%d wait", n)
		}
		v.swipe(bobsCard)
		v.passes()
		b.answered("granted via granted (bob gave badge at v-in)", "granted zoe granted")
		for _, d := range b.data(visitorlog.DecisionGranted) {
			if !passedWith(d, visitorlog.Companion{Person: "bob", Kind: access.Contractor, Role: visitorlog.RoleEscort}) {
				t.Errorf("data %+v", d)
			}
		}
		if n := len(b.data(visitorlog.PassageEntered)); n != 3 {
			t.Errorf("%d entered", n)
		}
	})
}

func TestWhereNobodyPassesAloneASupervisorBeginsTheDayWithAnother(t *testing.T) {
	onBench(t, func(t *testing.T) {
		for name, cards := range map[string][2]badge.Credential{"ada first": {adasCard, bobsCard}, "bob first": {bobsCard, adasCard}} {
			b := newBuilding(t)
			supervised := func(v *vault) { v.list.entries[adasCard].Supervisor = true }
			v := b.door(access.Door{TwoPerson: true, FirstPerson: true}, nil, supervised, visited)
			v.swipe(cards[0])
			time.Sleep(10 * time.Second)
			v.swipe(cards[1])
			synctest.Wait()
			if v.strike.locked() {
				t.Errorf("%s: the door stayed locked", name)
			}
			v.passes()
			time.Sleep(time.Minute)
			v.swipe(viasCard) // with whom no supervisor comes, as one came before
			v.swipe(bobsCard)
			synctest.Wait()
			if v.strike.locked() {
				t.Errorf("%s: the day has not begun", name)
			}
			b.close()
			b.open()
		}
	})
}

func TestWhoBreaksTheGlassTakesNobodyAlong(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{}, nil, visited, func(v *vault) {
			v.list.entries[viasCard].Visit.Host = "eve"
			eve := v.list.entries[evesCard]
			eve.MayEscort, eve.Rights = true, []access.Right{{Door: access.EveryDoor, Schedule: office(t)}}
		})
		v.swipe(viasCard)
		sleepUntil(20)
		v.swipe(viasCard)
		v.swipe(evesCard)
		v.passes()
		b.answered("denied via escort_missing", "granted eve granted_break_glass")
		time.Sleep(access.DefaultTogether)
		b.answered("denied via escort_missing")
		if n := len(b.data(visitorlog.PassageEntered)); n != 1 {
			t.Errorf("%d entered", n)
		}
	})
}

// TestOfTwoTheDecisionIsBothTheirs decides about two whose rights have changed
// since they were put together.
func TestOfTwoTheDecisionIsBothTheirs(t *testing.T) {
	onBench(t, func(t *testing.T) {
		b := newBuilding(t)
		v := b.door(access.Door{TwoPerson: true}, nil)
		for name, tt := range map[string]struct {
			first, second badge.Credential
			want          access.Reason
			about         string
			along         bool
		}{
			"both are good":                      {adasCard, bobsCard, access.ReasonGranted, "ada", true},
			"the first is not":                   {gonesOne, bobsCard, access.ReasonRevoked, "gone", true},
			"the second is not":                  {adasCard, gonesOne, access.ReasonRevoked, "gone", true},
			"they are one":                       {adasCard, adasCard, access.ReasonSecondMissing, "ada", true},
			"the first breaks the glass":         {evesCard, gonesOne, access.ReasonGrantedBreakGlass, "eve", false},
			"the second breaks the glass":        {gonesOne, evesCard, access.ReasonGrantedBreakGlass, "eve", false},
			"who could break the glass need not": {evesCard, adasCard, access.ReasonGranted, "eve", true},
		} {
			who := func(c badge.Credential) presented {
				p := v.door.identify(&v.door.cfg.Readers[0], badge.Read{Frame: frame(t, c), At: time.Now()})
				p.decided = true
				return p
			}
			p, with := who(tt.first), who(tt.second)
			p.with = &with
			dec := v.door.decideAll(&p)
			if dec.Reason != tt.want || p.entry.Person != tt.about || (p.with != nil) != tt.along {
				t.Errorf("%s: %s of %s, along: %v", name, dec.Reason, p.entry.Person, p.with != nil)
			}
		}
	})
}
