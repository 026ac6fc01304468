package replay

import (
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// site is a policy of people and doors.
type site struct {
	people map[string][]*access.Entry
	rules  []access.Rule
	doors  map[string]*access.Door
}

func (s *site) Entries(person string, _ access.Factor) []*access.Entry { return s.people[person] }
func (s *site) Rules(string, access.Direction) []access.Rule           { return s.rules }
func (s *site) Site(door string) *access.Door                          { return s.doors[door] }
func (s *site) replay() *Replay                                        { return New(map[string]Policy{"north-1": s}, time.UTC) }

func always(door string) []access.Right {
	return []access.Right{{Door: door, Schedule: access.Always()}}
}
func rules(sets ...access.Factor) []access.Rule {
	return []access.Rule{{Schedule: access.Always(), AnyOf: sets}}
}
func staff(person string, change ...func(*access.Entry)) *access.Entry {
	e := &access.Entry{Person: person, Kind: access.Staff, State: access.Active, Rights: always("a")}
	for _, c := range change {
		c(e)
	}
	return e
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// history makes records of one controller, a minute apart.
type history struct {
	records []*visitorlog.Record
	later   time.Duration
}

// days lets so many days pass.
func (h *history) days(n int) *history {
	h.later += time.Duration(n) * 24 * time.Hour
	return h
}

func (h *history) add(t visitorlog.Type, person string, change ...func(*visitorlog.Data)) *history {
	n := uint64(len(h.records))
	r := &visitorlog.Record{Type: t, Subject: person, Time: noon.Add(h.later + time.Duration(n)*time.Minute)}
	r.Data = visitorlog.Data{
		Sequence: n, Door: "a", Direction: access.In, Factors: []string{"badge"}, Kind: access.Staff,
		Clock:  visitorlog.Clock{State: access.ClockSynchronised},
		Policy: &visitorlog.Policy{Version: 1, Freshness: access.Fresh},
	}
	if t == visitorlog.DecisionGranted {
		r.Data.Reason = access.ReasonGranted
	}
	for _, c := range change {
		c(&r.Data)
	}
	h.records = append(h.records, r)
	return h
}

func reason(r access.Reason) func(*visitorlog.Data) { return func(d *visitorlog.Data) { d.Reason = r } }

func out(d *visitorlog.Data) { d.Direction = access.Out }

func at(door string) func(*visitorlog.Data) { return func(d *visitorlog.Data) { d.Door = door } }

func cause(n uint64) func(*visitorlog.Data) { return func(d *visitorlog.Data) { d.Cause = &n } }

func with(person string) func(*visitorlog.Data) {
	return func(d *visitorlog.Data) {
		d.Company = []visitorlog.Companion{{Person: person, Kind: access.Staff, Role: visitorlog.RoleSecond}}
	}
}

func TestADecisionThatWouldFallAlikeIsNoChange(t *testing.T) {
	s := &site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}, "p-2": {staff("p-2", func(e *access.Entry) { e.Rights = nil })}}}
	h := new(history).add(visitorlog.DecisionGranted, "p-1").add(visitorlog.DecisionDenied, "p-2", reason(access.ReasonNoRight)).
		add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonPersonLockedOut)).
		add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonLockdown))
	r := s.replay()
	for i, rec := range h.records {
		if v, c := r.Add("north-1", rec); v != Same {
			t.Errorf("record %d: verdict %v, %+v", i, v, c)
		}
	}
	if got := r.Counts(); got != (Counts{Decisions: 4, Same: 4}) {
		t.Errorf("%+v", got)
	}
}

func TestEachDecisionThatWouldFallOtherwiseIsTold(t *testing.T) {
	office, err := access.NewSchedule("morning", map[string][]string{"mon-sun": {"06:00-10:00"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	area := &access.Area{Name: "room", Passback: access.PassbackHard, Occupancy: 1}
	for name, tt := range map[string]struct {
		site  site
		rec   *history // the last is asked about
		would access.Reason
		more  access.Factor
	}{
		"the person is gone":      {site{}, new(history).add(visitorlog.DecisionGranted, "p-1"), access.ReasonUnknown, 0},
		"the right is gone":       {site{people: map[string][]*access.Entry{"p-1": {staff("p-1", func(e *access.Entry) { e.Rights = always("b") })}}}, new(history).add(visitorlog.DecisionGranted, "p-1"), access.ReasonNoRight, 0},
		"the right is new":        {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}}, new(history).add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonNoRight)), access.ReasonGranted, 0},
		"a schedule":              {site{people: map[string][]*access.Entry{"p-1": {staff("p-1", func(e *access.Entry) { e.Rights[0].Schedule = office })}}}, new(history).add(visitorlog.DecisionGranted, "p-1"), access.ReasonOutOfSchedule, 0},
		"more factors are needed": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, rules: rules(access.Badge | access.PIN)}, new(history).add(visitorlog.DecisionGranted, "p-1"), access.ReasonFactorMissing, access.PIN},
		"passback": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, doors: map[string]*access.Door{"a": {Name: "a", Into: area}}},
			new(history).add(visitorlog.DecisionGranted, "p-1").add(visitorlog.PassageEntered, "p-1", cause(0)).add(visitorlog.DecisionGranted, "p-1"), access.ReasonPassback, 0},
		"passback by a companion": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}, "p-2": {staff("p-2")}}, doors: map[string]*access.Door{"a": {Name: "a", Into: area}}},
			new(history).add(visitorlog.DecisionGranted, "p-2", with("p-1")).add(visitorlog.PassageEntered, "p-1", cause(0)).add(visitorlog.DecisionGranted, "p-1"), access.ReasonPassback, 0},
		"no interlock any more": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}},
			new(history).add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonInterlock)), access.ReasonGranted, 0},
		"cleared for the level that held": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1", func(e *access.Entry) { e.Clearance = 2 })}}},
			new(history).add(visitorlog.Lockdown, "", level(2)).add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonLockdown)), access.ReasonGranted, 0},
		"a shorter ladder of age": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, doors: map[string]*access.Door{"a": {Name: "a", Age: &access.Ages{ExpiredAfter: time.Hour}}}},
			new(history).add(visitorlog.DecisionGranted, "p-1", func(d *visitorlog.Data) { d.Policy.AgeSeconds = 3600 }), access.ReasonAllowlistExpired, 0},
		"a longer ladder of age": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, doors: map[string]*access.Door{"a": {Name: "a", Age: &access.Ages{ExpiredAfter: 2 * time.Hour}}}},
			new(history).add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonAllowlistExpired), func(d *visitorlog.Data) {
				d.Policy.AgeSeconds, d.Policy.Freshness = 3600, access.Expired
			}), access.ReasonGranted, 0},
		"nobody began the day": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, doors: map[string]*access.Door{"a": {Name: "a", FirstPerson: true}}},
			new(history).add(visitorlog.EpochStarted, "").days(1).add(visitorlog.DecisionGranted, "p-1"), access.ReasonFirstPerson, 0},
		"occupancy": {site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}, "p-2": {staff("p-2")}}, doors: map[string]*access.Door{"a": {Name: "a", Into: area}}},
			new(history).add(visitorlog.DecisionGranted, "p-2").add(visitorlog.DecisionGranted, "p-1"), access.ReasonOccupancy, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := tt.site.replay()
			var v Verdict
			var c *Change
			for _, rec := range tt.rec.records {
				v, c = r.Add("north-1", rec)
			}
			if v != Differ || c.Would.Reason != tt.would || c.Would.More != tt.more || c.Person != "p-1" || c.Door != "a" {
				t.Errorf("verdict %v, %+v", v, c)
			}
		})
	}
}

func level(t access.Threat) func(*visitorlog.Data) {
	return func(d *visitorlog.Data) {
		active := t > 0
		d.Door, d.Active, d.Threat = "", &active, &t
	}
}

func order(action, result string) func(*visitorlog.Data) {
	return func(d *visitorlog.Data) {
		d.Area, d.Command = "room", &visitorlog.Command{ID: "1", Action: action, Operator: "p-9", Result: result}
	}
}

func key(active bool) func(*visitorlog.Data) { return func(d *visitorlog.Data) { d.Active = &active } }

// What was decided by the same rules is no change: how things stood follows from
// the records, as it did at the doors.
func TestHowThingsStoodFollowsFromTheRecords(t *testing.T) {
	area := &access.Area{Name: "room", Passback: access.PassbackHard, Timed: time.Hour, Occupancy: 2}
	both := func(e *access.Entry) { e.Rights = []access.Right{{Door: access.EveryDoor, Schedule: access.Always()}} }
	people := map[string][]*access.Entry{"p-1": {staff("p-1", both)}, "p-2": {staff("p-2", both)}, "p-3": {staff("p-3", both)}}
	s := site{people: people, doors: map[string]*access.Door{"a": {Name: "a", Into: area}, "cabinet": {Name: "cabinet"}}}
	granted, entered, not := visitorlog.DecisionGranted, visitorlog.PassageEntered, visitorlog.PassageNotEntered
	for name, h := range map[string]*history{
		"out and in much later": new(history).add(granted, "p-1").add(entered, "p-1", cause(0)).add(granted, "p-1", out).days(1).add(granted, "p-1"),
		"the door was not used": new(history).add(granted, "p-1").add(not, "p-1", cause(0)).add(granted, "p-1"),
		"again before they went": new(history).add(granted, "p-1").add(granted, "p-1").add(not, "p-1", cause(0)).add(entered, "p-1", cause(1)).
			add(granted, "p-1", out),
		"neither of two used the door": new(history).add(granted, "p-1", with("p-2")).add(not, "p-1", cause(0)).add(not, "p-2", cause(0)).
			add(granted, "p-1").add(granted, "p-2"),
		"a door between no areas": new(history).add(granted, "p-1").add(entered, "p-1", cause(0)).add(granted, "p-1", at("cabinet")).add(granted, "p-1", out),
		"their place was reset": new(history).add(granted, "p-1").add(entered, "p-1", cause(0)).
			add(visitorlog.OperatorAction, "p-1", order("reset_passback", "done")).add(granted, "p-1"),
		"the count was reset":          new(history).add(granted, "p-1").add(granted, "p-2").add(visitorlog.OperatorAction, "", order("reset_occupancy", "done")).add(granted, "p-3"),
		"a key switch of another door": new(history).add(visitorlog.Lockdown, "", at("b"), key(true)).add(granted, "p-1"),
		"a key switch that was turned back": new(history).add(visitorlog.Lockdown, "", key(true)).
			add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonLockdown)).add(visitorlog.Lockdown, "", key(false)).add(granted, "p-1"),
		"a threat outlasts a key switch": new(history).add(visitorlog.Lockdown, "", level(1)).add(visitorlog.Lockdown, "", key(true)).add(visitorlog.Lockdown, "", key(false)).
			add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonLockdown)),
		"a threat that ended": new(history).add(visitorlog.Lockdown, "", level(1)).add(visitorlog.Lockdown, "", level(0)).add(granted, "p-1"),
	} {
		r := s.replay()
		for i, rec := range h.records {
			if v, c := r.Add("north-1", rec); v == Differ || v == Untold {
				t.Errorf("%s: record %d: %v %+v", name, i, v, c)
			}
		}
	}
}

func TestAnOrderThatWasRefusedResetsNothing(t *testing.T) {
	s := site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}},
		doors: map[string]*access.Door{"a": {Name: "a", Into: &access.Area{Name: "room", Passback: access.PassbackHard}}}}
	h := new(history).add(visitorlog.DecisionGranted, "p-1").add(visitorlog.PassageEntered, "p-1", cause(0)).
		add(visitorlog.OperatorAction, "p-1", order("reset_passback", "refused: it is not known here")).add(visitorlog.DecisionGranted, "p-1")
	r := s.replay()
	for _, rec := range h.records[:3] {
		r.Add("north-1", rec)
	}
	if v, c := r.Add("north-1", h.records[3]); v != Differ || c.Would.Reason != access.ReasonPassback {
		t.Errorf("%v %+v", v, c)
	}
}

// Rule 12: time is doubted.
func TestHowLongAgoSomebodyCameWithoutAClockIsNotKnown(t *testing.T) {
	s := site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}},
		doors: map[string]*access.Door{"a": {Name: "a", Into: &access.Area{Name: "room", Timed: time.Hour}}}}
	unset := func(d *visitorlog.Data) { d.Clock.State = access.ClockUnset }
	known := func(*visitorlog.Data) {}
	for _, clocks := range [][2]func(*visitorlog.Data){{unset, known}, {known, unset}} {
		h := new(history).add(visitorlog.DecisionGranted, "p-1", clocks[0]).add(visitorlog.PassageEntered, "p-1", cause(0)).add(visitorlog.DecisionGranted, "p-1", clocks[1])
		r := s.replay()
		for i, rec := range h.records {
			if v, c := r.Add("north-1", rec); v == Differ {
				t.Errorf("record %d: %+v", i, c)
			}
		}
	}
}

// Who began the day before the history does is not known.
func TestOnTheFirstDayOfTheHistorySomebodyMayHaveBegun(t *testing.T) {
	s := site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, doors: map[string]*access.Door{"a": {Name: "a", FirstPerson: true}}}
	r := s.replay()
	for i, rec := range new(history).add(visitorlog.DecisionGranted, "p-1").add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonFirstPerson)).records {
		if v, c := r.Add("north-1", rec); v != Same {
			t.Errorf("record %d: %v %+v", i, v, c)
		}
	}
}

// Of visits only those that are to come, or go on, are in a policy.
func TestAVisitThatIsOverIsNoChange(t *testing.T) {
	visitor := func(d *visitorlog.Data) { d.Kind = access.Visitor }
	next := staff("v-2", func(e *access.Entry) { e.Kind, e.From = access.Visitor, noon.Add(24*time.Hour) })
	s := site{people: map[string][]*access.Entry{"v-2": {next}}}
	for _, person := range []string{"v-1", "v-2"} {
		if v, c := s.replay().Add("north-1", new(history).add(visitorlog.DecisionGranted, person, visitor).records[0]); v != Untold {
			t.Errorf("%s: %v %+v", person, v, c)
		}
	}
}

func TestWhatTheRecordDoesNotTellIsNoChange(t *testing.T) {
	s := site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}}
	h := new(history).
		add(visitorlog.DecisionDenied, "", reason(access.ReasonUnknown)).
		add(visitorlog.DecisionDenied, "", reason(access.ReasonUnreadable)).
		add(visitorlog.DecisionGranted, "v-1", func(d *visitorlog.Data) { d.Factors = []string{"code"} }).
		add(visitorlog.DecisionGranted, "p-1", func(d *visitorlog.Data) { d.Factors = []string{"face"} }).
		add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonFactorMismatch))
	r := s.replay()
	for i, rec := range h.records {
		if v, c := r.Add("north-1", rec); v != Untold {
			t.Errorf("record %d: %v %+v", i, v, c)
		}
	}
	if v, _ := r.Add("south-1", h.records[3]); v != Untold {
		t.Error("decided for a controller without a policy")
	}
}

// A person may have several cards, and a record does not say which it was.
func TestALostCardOfSomebodyWithAnotherOneIsNoChange(t *testing.T) {
	lost := staff("p-1", func(e *access.Entry) { e.State = access.Lost })
	s := site{people: map[string][]*access.Entry{"p-1": {staff("p-1"), lost}}}
	h := new(history).add(visitorlog.DecisionGranted, "p-1").add(visitorlog.DecisionDenied, "p-1", reason(access.ReasonLost))
	r := s.replay()
	for i, rec := range h.records {
		if v, c := r.Add("north-1", rec); v != Same {
			t.Errorf("record %d: %v %+v", i, v, c)
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	s := site{people: map[string][]*access.Entry{"p-1": {staff("p-1")}}, rules: rules(access.Badge|access.Fingerprint, access.Badge)}
	h := new(history).add(visitorlog.DecisionGranted, "p-1")
	r := s.replay()
	for b.Loop() {
		if v, _ := r.Add("north-1", h.records[0]); v != Same {
			b.Fatal(v)
		}
	}
}
