package central

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

func TestWhatWasUsedUpOfLateIsKeptForEachController(t *testing.T) {
	c := newCRM(t)
	f, g := newForger(t, "north-1"), newForger(t, "south-1")
	c.approve(f)
	c.approve(g)
	n := 0
	used := func(r *visitorlog.Record) { r.Data.Used = []string{fmt.Sprintf("code:c-%03d", n)} }
	for n = range MaxUsed + 6 {
		f.add(1, used)
	}
	n = 900
	g.add(1, used)
	c.ingest(f.batch(0, MaxUsed+6), MaxUsed+6, "")
	c.ingest(g.batch(0, 1), 1, "")
	if got, err := c.Used(t.Context(), "north-1"); err != nil || len(got) != 0 {
		t.Errorf("of records that were not checked: %v, %v", got, err)
	}
	c.check()
	got, err := c.Used(t.Context(), "north-1")
	if err != nil || len(got) != MaxUsed || slices.Contains(got, "code:c-900") {
		t.Errorf("%d: %v, %v", len(got), got, err)
	}
	if got, err := c.Used(t.Context(), "south-1"); err != nil || !slices.Equal(got, []string{"code:c-900"}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.w.Exec(`UPDATE used SET received = ? WHERE controller = 'south-1'`, micros(time.Now().Add(-UsedFor-time.Minute))); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Used(t.Context(), "south-1"); err != nil || len(got) != 0 {
		t.Errorf("of long ago: %v, %v", got, err)
	}
}

// TestCodesAreToldOfBeforeTOTPs: who enters by TOTP all day does not make a used
// code be forgotten, and what is told of no more is not kept.
func TestCodesAreToldOfBeforeTOTPs(t *testing.T) {
	c := newCRM(t)
	f := newForger(t, "north-1")
	c.approve(f)
	what := "code:c-1"
	used := func(r *visitorlog.Record) { r.Data.Used = []string{what} }
	f.add(1, used)
	for n := range MaxUsed {
		what = fmt.Sprintf("totp:0123456789abcdef:%d", 1000+n)
		f.add(1, used)
	}
	c.ingest(f.batch(0, MaxUsed+1), MaxUsed+1, "")
	c.check()
	if _, err := c.w.Exec(`UPDATE used SET received = received - 1000000 WHERE what = 'code:c-1'`); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Used(t.Context(), "north-1"); err != nil || len(got) != MaxUsed || got[0] != "code:c-1" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.w.Exec(`UPDATE used SET received = ?`, micros(time.Now().Add(-UsedFor-time.Minute))); err != nil {
		t.Fatal(err)
	}
	what = "code:c-2"
	f.add(1, used)
	c.ingest(f.batch(MaxUsed+1, MaxUsed+2), MaxUsed+2, "")
	c.check()
	var kept int
	if err := c.r.QueryRow(`SELECT count(*) FROM used`).Scan(&kept); err != nil || kept != 1 {
		t.Errorf("%d are kept, %v", kept, err)
	}
}

func TestTheFirstRecordOfACommandSaysWhatBecameOfIt(t *testing.T) {
	c := newCRM(t)
	f := newForger(t, "north-1")
	c.approve(f)
	command := func(result string) func(*visitorlog.Record) {
		return func(r *visitorlog.Record) {
			r.Type = visitorlog.OperatorAction
			r.Data.Command = &visitorlog.Command{ID: "x-1", Action: "unlock", Operator: "guard-7", Result: result}
		}
	}
	f.add(2, command("done")).add(1, command("refused: replayed: its nonce was used before"))
	if _, ok, err := c.Command(t.Context(), "north-1", "x-1"); ok || err != nil {
		t.Errorf("before its record: %t, %v", ok, err)
	}
	// Ahead of its turn, behind a backlog, it is an answer too.
	early := f.batch(1, 2)
	early.Checkpoint = ""
	if n, err := c.Early(t.Context(), early); n != 1 || err != nil {
		t.Fatalf("%d kept early, %v", n, err)
	}
	for range 2 {
		got, ok, err := c.Command(t.Context(), "north-1", "x-1")
		if !ok || err != nil || got.Result != "done" || got.Time.IsZero() || got.Received.IsZero() {
			t.Errorf("%+v, %t, %v", got, ok, err)
		}
		c.ingest(f.batch(0, 3), 3, "")
		c.check()
	}
	if _, ok, err := c.Command(t.Context(), "south-1", "x-1"); ok || err != nil {
		t.Errorf("at another controller: %t, %v", ok, err)
	}
}

func TestTheCertificateOfARevokedControllerIsNotRenewed(t *testing.T) {
	c := newCRM(t)
	f := newForger(t, "north-1")
	c.approve(f)
	if err := c.Renew(t.Context(), "north-1", "abc"); err != nil {
		t.Fatal(err)
	}
	list, err := c.Controllers(t.Context())
	if err != nil || list[0].Fingerprint != "abc" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := c.Revoke(t.Context(), "north-1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Renew(t.Context(), "north-1", "def"); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if err := c.Renew(t.Context(), "nobody", "def"); !errors.Is(err, ErrUnknownController) {
		t.Errorf("unknown: %v", err)
	}
}
