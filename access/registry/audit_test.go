package registry

import (
	"errors"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-acs/gatehouse/access"
)

func TestEachChangeIsALineWithWhenWhoWhatAndWhy(t *testing.T) {
	s := staffed(t)
	first := must(s.People.Get(ctx, "p-1"))(t)
	c := Change{By: "a.admin@example.org", Why: "moved to the lab"}
	must(s.People.Update(ctx, c, "p-1", 0, func(p *Person) error { p.Extended = true; return nil }))(t)
	must(s.People.Update(ctx, c, "p-1", 0, func(p *Person) error { p.Extended = false; return nil }))(t)
	lines := must(s.Audit(ctx, AuditQuery{Kind: KindPerson, ID: "p-1"}))(t)
	if len(lines) != 3 {
		t.Fatalf("%d lines: %s", len(lines), text(t, lines))
	}
	var actions []string
	for i, l := range lines {
		actions = append(actions, l.Action)
		if l.Version != uint64(i+1) || !l.At.Equal(s.now) || i > 0 && (l.By != c.By || l.Why != c.Why) {
			t.Errorf("line %s", text(t, l))
		}
		if i > 0 && l.Before.String() != lines[i-1].After.String() {
			t.Errorf("line %d does not begin where the one before ended", i)
		}
	}
	if want := []string{"create", "change", "change"}; !gocmp.Equal(actions, want) {
		t.Errorf("actions %v, want %v", actions, want)
	}
	if lines[0].Before != nil || lines[0].After.String() != lines[2].After.String() {
		t.Error("what says the same has another hash")
	}
	if now := must(s.People.Get(ctx, "p-1"))(t); text(t, now.Value) != text(t, first.Value) {
		t.Error("the change and its undoing left something")
	}
	if err := s.Areas.Remove(ctx, c, "lab", 0); !errors.Is(err, ErrInUse) {
		t.Error(err)
	}
	if err := s.Holidays.Remove(ctx, c, "2026-12-25", 0); err != nil {
		t.Error(err)
	}
	lines = must(s.Audit(ctx, AuditQuery{Kind: KindHoliday}))(t)
	if l := lines[len(lines)-1]; l.Action != "remove" || l.After != nil || l.Before == nil {
		t.Errorf("line %s", text(t, l))
	}
}

// Whoever has the file and not the keys changes it.
func TestWhateverIsChangedBehindTheRegistrysBackIsNoticed(t *testing.T) {
	for name, tt := range map[string]struct {
		sql  []string
		want string
	}{
		"a line's reason":        {[]string{`UPDATE audit SET why = 'CHG-2' WHERE seq = 3`}, "audit, line 3: it, or one before it, was changed"},
		"a line's name":          {[]string{`UPDATE audit SET who = 'nobody' WHERE seq = 3`}, "line 3"},
		"a line's time":          {[]string{`UPDATE audit SET at = at + 1 WHERE seq = 1`}, "line 1"},
		"a line's object":        {[]string{`UPDATE audit SET id = 'p-2' WHERE id = 'p-1'`}, "was changed"},
		"a line's hash":          {[]string{`UPDATE audit SET after = before WHERE seq = 4`}, "line 4"},
		"a line's chain":         {[]string{`UPDATE audit SET chain = x'00112233445566778899aabbccddeeff' WHERE seq = 2`}, "line 2"},
		"a line removed":         {[]string{`DELETE FROM audit WHERE seq = 5`}, "audit, line 5: it was removed"},
		"the first one":          {[]string{`DELETE FROM audit WHERE seq = 1`}, "line 1: it was removed"},
		"removed and renumbered": {[]string{`DELETE FROM audit WHERE seq = 5`, `UPDATE audit SET seq = seq - 1 WHERE seq > 5`}, "line 5"},
		"the last ones":          {[]string{`DELETE FROM audit WHERE seq > 7`}, "the audit ends at line 7 and not at"},
		"all of them":            {[]string{`DELETE FROM audit`}, "the audit ends at line 0"},
		"lines and head":         {[]string{`DELETE FROM audit WHERE seq > 7`, `DELETE FROM meta WHERE name = 'head'`}, "the audit ends at line 7 and not at 0"},
		"the head":               {[]string{`UPDATE meta SET value = CAST('1' || value AS BLOB) WHERE name = 'head'`}, "the head of the audit was changed"},
		"two lines exchanged": {[]string{`UPDATE audit SET seq = -3 WHERE seq = 3`, `UPDATE audit SET seq = 3 WHERE seq = 4`, `UPDATE audit SET seq = 4 WHERE seq = -3`},
			"line 3"},
		"an object":         {[]string{`UPDATE object SET body = x'00' WHERE id = 'p-1'`}, `person "p-1": it does not open`},
		"another's body":    {[]string{`UPDATE object SET body = (SELECT body FROM object WHERE id = 'p-2') WHERE id = 'p-1'`}, "does not open"},
		"a version":         {[]string{`UPDATE object SET version = 9 WHERE id = 'p-1'`}, "does not open"},
		"an object removed": {[]string{`DELETE FROM object WHERE kind = 'holiday'`}, "it is missing, and by the audit it is there"},
		"an object added":   {[]string{`INSERT INTO object (kind, id, version, changed, lookup, body) SELECT kind, 'p-0', version, changed, lookup, body FROM object WHERE id = 'p-2'`}, `person "p-0": it is there, and by the audit it is not`},
		"a card's hash":     {[]string{`UPDATE object SET lookup = x'00112233445566778899aabbccddeeff' WHERE id = 'c-1'`}, "the hash of its card"},
		"a naming removed":  {[]string{`DELETE FROM link WHERE id = 'p-1' AND to_id = 'ops'`}, `that it names group "ops" was removed`},
		"a naming added":    {[]string{`INSERT INTO link VALUES ('person', 'p-2', 'group', 'ops')`}, `it was made to name group "ops"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := staffed(t)
			s.verify()
			s.sql(tt.sql...)
			_, err := s.Verify(ctx, Head{}, nil)
			if _, ok := errors.AsType[*Tampered](err); !ok {
				t.Errorf("error %v", err)
			}
			wantError(t, err, tt.want)
		})
	}
}

// An old copy of one object, put back, opens: it was once so. The audit tells.
func TestAnOldVersionOfAnObjectIsNoticed(t *testing.T) {
	s := staffed(t)
	s.sql(`CREATE TABLE kept AS SELECT * FROM object`)
	must(s.Credentials.Update(ctx, by, "c-1", 0, func(c *Credential) error { c.State = access.Revoked; return nil }))(t)
	s.sql(`DELETE FROM object WHERE id = 'c-1'`, `INSERT INTO object SELECT * FROM kept WHERE id = 'c-1'`)
	if c := must(s.Credentials.Get(ctx, "c-1"))(t).Value; c.State != access.Active {
		t.Fatalf("the old copy is %s", c.State)
	}
	_, err := s.Verify(ctx, Head{}, nil)
	wantError(t, err, `credential "c-1": it is not what the audit says of its version 2`)
}

func TestANotedHeadTellsAnOldFile(t *testing.T) {
	s := staffed(t)
	if err := s.Close(); err != nil { // all of it is in the one file now
		t.Fatal(err)
	}
	old := must(os.ReadFile(s.path))(t)
	s.open()
	must(s.Areas.Create(ctx, by, Area{Name: "roof"}))(t)
	noted := must(ParseHead(s.verify().Head.String()))(t)
	must(s.Areas.Create(ctx, by, Area{Name: "cellar"}))(t)
	if _, err := s.Verify(ctx, noted, nil); err != nil {
		t.Errorf("the audit has grown since: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.verify() // alone, it is whole
	_, err := s.Verify(ctx, noted, nil)
	wantError(t, err, "older than it was")
	must(s.Areas.Create(ctx, by, Area{Name: "attic"}))(t)
	_, err = s.Verify(ctx, noted, nil)
	wantError(t, err, "another than the one that was noted")
}

func TestVerifyTellsHowFarItIs(t *testing.T) {
	s := staffed(t)
	var last, all int64
	v := must(s.Verify(ctx, Head{}, func(done, total int64) { last, all = done, total }))(t)
	if want := int64(v.Lines + v.Objects); last != want || all != want {
		t.Errorf("%d of %d, want %d", last, all, want)
	}
}

func TestAHeadReadsBack(t *testing.T) {
	for _, bad := range []string{"", "1", "1:", ":", "x:00112233445566778899aabbccddeeff", "1:00112233445566778899AABBCCDDEEFF", "01:00112233445566778899aabbccddeeff",
		"-1:00112233445566778899aabbccddeeff", "1:00112233445566778899aabbccddee", "1:00112233445566778899aabbccddeeff "} {
		if h, err := ParseHead(bad); err == nil {
			t.Errorf("%q is read as %v", bad, h)
		}
	}
	const good = "12:00112233445566778899aabbccddeeff"
	if h := must(ParseHead(good))(t); h.String() != good || h.Seq != 12 || !strings.Contains(text(t, h), good) {
		t.Errorf("%v", h)
	}
}
