package central

import (
	"errors"
	"slices"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func TestABreakingOfTheGlassOwesAReviewByAnotherPerson(t *testing.T) {
	c := newCRM(t)
	f := newForger(t, "north-1")
	c.approve(f)
	cause := uint64(1)
	f.add(2).add(1, func(r *visitorlog.Record) {
		r.Type, r.Subject = visitorlog.BreakGlass, "p-7"
		r.Data.Door, r.Data.Cause = "vault", &cause
	})
	c.ingest(f.batch(0, 3), 3, "")
	c.check()
	c.check() // and again owes no second one

	owed, err := c.Reviews(t.Context(), false)
	if err != nil || len(owed) != 1 {
		t.Fatalf("%d reviews owed, %v", len(owed), err)
	}
	r := owed[0]
	if r.Controller != "north-1" || r.Door != "vault" || r.Person != "p-7" || !r.Owed() || r.At.IsZero() {
		t.Fatalf("%+v", r)
	}
	for _, bad := range []struct{ by, finding string }{{"", "fire drill"}, {"m.jansen", " "}, {"p-7", "it was me"}} {
		if err := c.SetReview(t.Context(), r.ID, bad.by, true, bad.finding); err == nil {
			t.Errorf("by %q, finding %q: taken", bad.by, bad.finding)
		}
	}
	if err := c.SetReview(t.Context(), r.ID, "m.jansen", true, "fire drill"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReview(t.Context(), r.ID, "somebody", false, "another word"); !errors.Is(err, ErrNoReview) {
		t.Fatalf("reviewed again: %v", err)
	}
	if owed, err := c.Reviews(t.Context(), false); err != nil || len(owed) != 0 {
		t.Fatalf("%d still owed, %v", len(owed), err)
	}
	all, err := c.Reviews(t.Context(), true)
	if err != nil || len(all) != 1 || all[0].Reviewer != "m.jansen" || !all[0].Justified || all[0].Finding != "fire drill" || all[0].Owed() {
		t.Fatalf("%+v, %v", all, err)
	}
}

func TestEntriesAndExitsAreJoinedToTheirVisit(t *testing.T) {
	c := newCRM(t)
	f := newForger(t, "north-1")
	c.approve(f)
	decision := func(visit string) func(*visitorlog.Record) {
		return func(r *visitorlog.Record) {
			r.Type, r.Subject, r.Data.Decision, r.Data.Reason = visitorlog.DecisionGranted, "v-1", "granted", access.ReasonGranted
			r.Data.Door, r.Data.Reader, r.Data.Direction, r.Data.Kind = "lab", "lab-in", access.In, access.Visitor
			r.Data.Factors, r.Data.Policy = []string{"badge"}, &visitorlog.Policy{Version: 1, Freshness: access.Fresh}
			r.Data.Visit = &access.Visit{ID: visit}
		}
	}
	follows := func(kind visitorlog.Type, cause uint64) func(*visitorlog.Record) {
		return func(r *visitorlog.Record) {
			r.Type, r.Subject, r.Data.Door, r.Data.Direction, r.Data.Cause = kind, "v-1", "lab", access.In, &cause
		}
	}
	f.add(1).
		add(1, decision("visit-1")).add(1, follows(visitorlog.PassageEntered, 1)).
		add(1, decision("visit-2")).add(1, follows(visitorlog.PassageNotEntered, 3)).
		add(1, decision("visit-1")).add(1, follows(visitorlog.PassageLeft, 5))
	c.ingest(f.batch(0, 7), 7, "")
	c.check()
	if n := len(c.alarms()); n > 0 {
		t.Fatalf("%d alarms: %v", n, c.alarms())
	}
	list, err := c.Records(t.Context(), Filter{Visit: "visit-1"})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, r := range list {
		got = append(got, r.Sequence)
	}
	if want := []uint64{1, 2, 5, 6}; !slices.Equal(got, want) {
		t.Errorf("records %d, want %d", got, want)
	}
	n, err := c.Count(t.Context(), Filter{Types: []visitorlog.Type{visitorlog.DecisionGranted, visitorlog.PassageLeft}})
	if err != nil || n != 4 {
		t.Errorf("counted %d, %v", n, err)
	}
}
