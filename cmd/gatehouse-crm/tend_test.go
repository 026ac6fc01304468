package main

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// A code that a door used up is used up in the registry too, and what is over is
// closed.
func TestTheDaemonEndsWhatTheDoorsAndTimeHaveEnded(t *testing.T) {
	dir, _ := newCRM(t)
	ctx := context.Background()
	_, k, err := openRegistryKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := &crm{cfg: &config.CRM{Visits: config.Visits{Grace: time.Hour}}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if c.registry, err = openRegistry(ctx, dir, k); err != nil {
		t.Fatal(err)
	}
	defer c.registry.Close()
	if c.store, err = openCentral(ctx, dir, central.Options{Cosigner: k.Cosigner.Note()}); err != nil {
		t.Fatal(err)
	}
	defer c.store.Close()

	by := registry.Change{By: "m.jansen", Why: "CHG-1"}
	now := time.Now()
	var errs []error
	for id, kind := range map[string]access.Kind{"p-2": access.Staff, "v-1": access.Visitor, "v-2": access.Visitor} {
		_, err := c.registry.People.Create(ctx, by, registry.Person{ID: id, Kind: kind})
		errs = append(errs, err)
	}
	v := registry.Visit{ID: "visit-1", Visitor: "v-1", Organisation: "Acme", Host: "p-1", Purpose: "mend", Authoriser: "p-2",
		From: now, Until: now.Add(time.Hour), Doors: []string{"front"}}
	_, err = c.registry.Visits.Create(ctx, by, v)
	errs = append(errs, err)
	v.ID, v.Visitor, v.From, v.Until = "visit-2", "v-2", now.Add(-3*time.Hour), now.Add(-2*time.Hour)
	_, err = c.registry.Visits.Create(ctx, by, v)
	errs = append(errs, err)
	var codes [2]string
	for i := range codes {
		row, _, err := c.registry.IssueCode(ctx, by, registry.CodeOrder{Visit: "visit-1"})
		errs = append(errs, err)
		codes[i] = row.Value.ID
	}
	// As a record of the door leaves it behind.
	db, err := sql.Open("sqlite3", filepath.Join(dir, "central.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(`INSERT INTO used (controller, what, received) VALUES ('north-1', $1, $2), ('south-1', $3, $2)`,
		"code:"+codes[0], now.UnixMicro(), "code:"+codes[1])
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}

	if err := errors.Join(c.endUsedCodes(ctx), c.closeOverdue(ctx)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []registry.CodeState{registry.CodeUsed, registry.CodeOpen} { // the other is another controller's word
		if row, err := c.registry.Codes.Get(ctx, codes[i]); err != nil || row.Value.State != want {
			t.Errorf("code %d is %s (%v), want %s", i, row.Value.State, err, want)
		}
	}
	for id, want := range map[string]registry.Close{"visit-1": "", "visit-2": registry.CloseMissed} {
		if row, err := c.registry.Visits.Get(ctx, id); err != nil || row.Value.How != want {
			t.Errorf("%s is %q (%v), want %q", id, row.Value.How, err, want)
		}
	}
}
