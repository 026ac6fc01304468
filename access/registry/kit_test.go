package registry

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

// tester is a test, or one try of a property.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// site is a registry with a clock that the test sets.
type site struct {
	*Registry
	t    tester
	path string
	now  time.Time
	o    Options
}

var (
	ctx = context.Background()
	by  = Change{By: "m.jansen", Why: "CHG-1"}
)

func newKeys(t tester) (*keys.Sealer, *keys.Pepper) {
	t.Helper()
	secret := make([]byte, 32)
	rand.Read(secret)
	sealer, err := keys.NewSealer(secret, "registry")
	if err != nil {
		t.Fatal(err)
	}
	rand.Read(secret)
	pepper, err := keys.NewPepper(secret)
	if err != nil {
		t.Fatal(err)
	}
	return sealer, pepper
}

// memory is a folder in memory, where the machine has such: what is tested there
// does not depend on what a disk does, and does not wait for it.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "registry-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := openSite(t, filepath.Join(memory(t), FileName))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openSite(t tester, path string) *site {
	t.Helper()
	s := &site{t: t, path: path, now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)}
	sealer, pepper := newKeys(t)
	s.o = Options{Index: pepper, Sealer: sealer, Formats: badge.Builtin(), Clock: func() time.Time { return s.now }}
	s.open()
	return s
}

func (s *site) open() {
	s.t.Helper()
	r, err := Open(ctx, s.path, s.o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Registry = r
}

// must ends the test where there is an error: must(f())(t).
func must[T any](v T, err error) func(tester) T {
	return func(t tester) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantError checks that an error is there, and says what it should.
func wantError(t tester, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func wantIs(t tester, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// text is an object as JSON, to be compared.
func text(t tester, v any) string {
	t.Helper()
	return string(must(json.Marshal(v))(t))
}

// sql changes the file as somebody without the keys would.
func (s *site) sql(statements ...string) {
	s.t.Helper()
	db := must(sql.Open("sqlite3", "file:"+s.path+"?_busy_timeout=10000"))(s.t)
	defer db.Close()
	for _, statement := range statements {
		res, err := db.Exec(statement)
		if err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 && !strings.HasPrefix(statement, "CREATE") {
			s.t.Fatalf("%s: changed nothing (%v)", statement, err)
		}
	}
}

func (s *site) verify() Verified {
	s.t.Helper()
	return must(s.Verify(ctx, Head{}, nil))(s.t)
}

func card(number uint64) badge.Credential {
	return badge.Credential{Format: "H10301", Facility: 12, Number: number}
}

func cardOf(id, person string, number uint64) Credential {
	c := Credential{ID: id, Person: person, State: access.Active}
	c.SetCard(card(number))
	return c
}

func visitorsBadge(id string, number uint64) Credential {
	c := Credential{ID: id, Visitors: true, State: access.Active}
	c.SetCard(card(number))
	return c
}

// staffed is a site with people, doors, a group and a visitors' badge.
func staffed(t testing.TB) *site {
	t.Helper()
	s := newSite(t)
	s.staff()
	return s
}

func (s *site) staff() {
	t := s.t
	t.Helper()
	must(s.Areas.Create(ctx, by, Area{Name: "lab"}))(t)
	must(s.Schedules.Create(ctx, by, Schedule{Name: "office", Week: map[string][]string{"mon-fri": {"07:00-19:00"}, "holiday": {"10:00-12:00"}}}))(t)
	must(s.Holidays.Create(ctx, by, Holiday{Date: "2026-12-25", Title: "Christmas"}))(t)
	must(s.Doors.Create(ctx, by, Door{Name: "lab-door", Controller: "north-1", Into: "lab",
		Rules: []Rule{{"in", "office", []string{"badge"}}, {"in", access.AlwaysName, []string{"badge+pin", "badge+fingerprint"}}}}))(t)
	must(s.Doors.Create(ctx, by, Door{Name: "front", Controller: "north-1"}))(t)
	must(s.Doors.Create(ctx, by, Door{Name: "store", Controller: "south-1"}))(t)
	must(s.Groups.Create(ctx, by, Group{Name: "ops", Rights: []Right{{Area: "lab", Schedule: "office"}, {Door: "front", Schedule: access.AlwaysName}}}))(t)
	for _, p := range []Person{
		{ID: "p-1", Name: "Ada Lovelace", Kind: access.Staff, Groups: []string{"ops"}},
		{ID: "p-2", Name: "Grace Hopper", Kind: access.Staff},
		{ID: "p-3", Name: "Edith Clarke", Kind: access.Contractor, Groups: []string{"ops"}, MayEscort: true},
		{ID: "v-1", Name: "Vera Visitor", Kind: access.Visitor},
	} {
		must(s.People.Create(ctx, by, p))(t)
	}
	must(s.Credentials.Create(ctx, by, cardOf("c-1", "p-1", 4711)))(t)
	must(s.Credentials.Create(ctx, by, visitorsBadge("b-1", 9001)))(t)
	must(s.Visits.Create(ctx, by, s.visit("visit-1")))(t)
}

func (s *site) visit(id string) Visit {
	return Visit{ID: id, Visitor: "v-1", Organisation: "Acme", Host: "p-1", Purpose: "replace a disk", Ticket: "INC-7", Authoriser: "p-2",
		EscortNeeded: true, Escort: "p-3", From: s.now.Add(time.Hour), Until: s.now.Add(5 * time.Hour), Doors: []string{"front", "lab-door"}}
}

func arrival(badge string) Arrival {
	return Arrival{Identified: Identified{Form: "passport", By: "guard.1"}, Notice: Notice{Version: "2026-01", Signed: "Vera Visitor"}, Badge: badge}
}
