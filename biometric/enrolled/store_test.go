package enrolled

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testKeys are real ones, made of one byte.
func testKeys(t testing.TB, b byte) Keys {
	t.Helper()
	secret := slices.Repeat([]byte{b}, 32)
	pepper, err := keys.NewPepper(secret)
	must(t, err)
	sealer, err := keys.NewSealer(secret, "templates")
	must(t, err)
	return Keys{Index: pepper, Sealer: sealer}
}

func openIn(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(dir, FileName), testKeys(t, 1))
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

const template = "a template that nobody is to see"

var when = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

// row is one of Ada's at scanner a, with serial number A.
func row(slot uint32) Row {
	return Row{
		Place: Place{Scanner: "a", Serial: "A", Slot: slot}, Session: Session{1}, Person: "ada", Part: biometric.RightIndex,
		Notice: "2026-01", At: when, Operator: "olga", Template: biometric.NewTemplate([]byte(template)),
	}
}

// enrol adds rows and approves them.
func enrol(t testing.TB, s *Store, rows ...Row) {
	t.Helper()
	for _, r := range rows {
		must(t, s.SetSerial(t.Context(), r.Scanner, r.Serial))
		_, err := s.Add(t.Context(), r)
		must(t, err)
		must(t, s.Approve(t.Context(), r.Session, "omar"))
	}
}

// change changes the file behind the store's back.
func change(t testing.TB, dir, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(dir, FileName))
	must(t, err)
	defer db.Close()
	done, err := db.Exec(statement, args...)
	must(t, err)
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s changed nothing: %v", statement, err)
	}
}

func slots(t testing.TB, s *Store, person, scanner string) (found []uint32) {
	t.Helper()
	references, err := s.References(person, scanner)
	must(t, err)
	defer biometric.Clear(references)
	for _, r := range references {
		found = append(found, r.Slot)
	}
	return found
}

func TestWhatWasApprovedIsFoundByPersonAndBySlotAlsoAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	duress := row(4)
	duress.Part, duress.Duress = biometric.LeftLittle, true
	enrol(t, s, row(3), duress)
	must(t, s.Close())
	s = openIn(t, dir)
	references, err := s.References("ada", "a")
	must(t, err)
	if len(references) != 2 || references[0].Slot != 3 || references[0].Part != biometric.RightIndex || references[0].Duress ||
		string(references[0].Template.Bytes()) != template || references[1].Slot != 4 || !references[1].Duress {
		t.Errorf("references %+v", references)
	}
	biometric.Clear(references)
	if person, isDuress, err := s.Person("a", 4); person != "ada" || !isDuress || err != nil {
		t.Errorf("slot 4 is of %q, duress %v, %v", person, isDuress, err)
	}
	for _, nobody := range []struct{ person, scanner string }{{"bob", "a"}, {"ada", "b"}, {"", "a"}} {
		if found := slots(t, s, nobody.person, nobody.scanner); found != nil {
			t.Errorf("%+v has slots %v", nobody, found)
		}
	}
	if person, _, err := s.Person("a", 5); person != "" || err != nil {
		t.Errorf("an empty slot is of %q, %v", person, err)
	}
	rows, err := s.List(t.Context())
	must(t, err)
	want := row(3)
	want.State, want.Approver = Active, "omar"
	if d := cmp.Diff(want, rows[0], cmpopts.IgnoreUnexported(Row{}), cmpopts.IgnoreFields(Row{}, "Template")); d != "" {
		t.Errorf("- enrolled + listed:\n%s", d)
	}
	if !rows[0].Template.Empty() {
		t.Error("the list has a template")
	}
}

func TestOnlyAnApprovedRowThatIsNotRevokedMatches(t *testing.T) {
	ctx := t.Context()
	s := openIn(t, t.TempDir())
	must(t, s.SetSerial(ctx, "a", "A"))
	r, err := s.Add(ctx, row(3))
	must(t, err)
	matches := func() bool {
		person, _, err := s.Person("a", 3)
		must(t, err)
		found := len(slots(t, s, "ada", "a")) == 1
		if found != (person == "ada") {
			t.Errorf("found by person %v, by slot %v", found, !found)
		}
		return found
	}
	if matches() {
		t.Error("a pending row matches")
	}
	must(t, s.Approve(ctx, Session{2}, "omar"))
	if matches() {
		t.Error("the approval of another session counts")
	}
	must(t, s.Approve(ctx, Session{1}, "omar"))
	if !matches() {
		t.Error("an approved row does not match")
	}
	must(t, s.Revoke(ctx, "olga", r))
	if matches() {
		t.Error("a revoked row matches")
	}
	must(t, s.Approve(ctx, Session{1}, "omar"))
	if matches() {
		t.Error("a revoked row was approved once more")
	}
	must(t, s.Owe(ctx, r))
	if matches() {
		t.Error("an owed row matches")
	}
	must(t, s.Remove(ctx, r))
	if rows, err := s.List(ctx); err != nil || len(rows) != 0 {
		t.Errorf("%v, %v after the removal", rows, err)
	}
}

// TestARowThatWasMovedOrChangedDoesNotOpen moves a row to another person,
// scanner, slot and state, by whoever can write to the file.
func TestARowThatWasMovedOrChangedDoesNotOpen(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  string
		args func(*Store) []any
		find func(*Store) error
	}{
		{"person", "person = ?", func(s *Store) []any { k := s.index("bob"); return []any{k[:]} }, func(s *Store) error { _, err := s.References("bob", "a"); return err }},
		{"scanner", "scanner = 'b'", nil, func(s *Store) error { _, err := s.References("ada", "b"); return err }},
		{"scanner, by slot", "scanner = 'b'", nil, func(s *Store) error { _, _, err := s.Person("b", 3); return err }},
		{"serial number", "serial = 'C'", nil, func(s *Store) error {
			return errors.Join(s.SetSerial(context.Background(), "a", "C"), second(s.References("ada", "a")))
		}},
		{"slot", "slot = 9", nil, func(s *Store) error { _, _, err := s.Person("a", 9); return err }},
		{"state", "state = 2", nil, func(s *Store) error { _, err := s.References("ada", "a"); return err }},
		{"session", "session = x'00'", nil, func(s *Store) error { _, err := s.References("eve", "a"); return err }},
		{"body", "body = CAST(body || x'00' AS BLOB)", nil, func(s *Store) error { _, err := s.References("eve", "a"); return err }},
		{"no body", "body = x''", nil, func(s *Store) error { _, err := s.References("eve", "a"); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openIn(t, dir)
			other := row(5)
			other.Scanner, other.Serial, other.Session, other.Person = "b", "A", Session{2}, "cleo"
			enrol(t, s, other)
			must(t, s.SetSerial(t.Context(), "a", "A"))
			r := row(3)
			if tt.name == "session" || tt.name == "body" || tt.name == "no body" {
				r.Person = "eve"
			}
			added, err := s.Add(t.Context(), r)
			must(t, err)
			if tt.name != "state" {
				must(t, s.Approve(t.Context(), Session{1}, "omar"))
			}
			var args []any
			if tt.args != nil {
				args = tt.args(s)
			}
			change(t, dir, "UPDATE enrolled SET "+tt.set+" WHERE id = ?", append(args, added.id)...)
			err = tt.find(s)
			if !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), template) {
				t.Errorf("found with %v", err)
			}
			// The others go on, also after a restart; this one is told.
			must(t, s.Close())
			s = openIn(t, dir)
			if found := slots(t, s, "cleo", "b"); !slices.Equal(found, []uint32{5}) {
				t.Errorf("slots of another %v", found)
			}
			rows, err := s.List(t.Context())
			must(t, err)
			if n := len(slices.DeleteFunc(rows, func(r Row) bool { return r.Fault == nil })); n != 1 {
				t.Errorf("%d rows are told not to open", n)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

func TestAnotherKeyOrADamagedFileIsSaidAndMatchesNobody(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, path string)
		key   byte
		want  string
	}{
		{"another key", func(*testing.T, string) {}, 2, "does not open"},
		{"no database", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("no database. ", 1000)), 0o600))
		}, 1, "not a database"},
		{"cut", func(t *testing.T, path string) { must(t, os.Truncate(path, 5000)) }, 1, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openIn(t, dir)
			enrol(t, s, row(3))
			must(t, s.Close())
			path := filepath.Join(dir, FileName)
			tt.spoil(t, path)
			s, err := Open(t.Context(), path, testKeys(t, tt.key))
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "enrol again") || s != nil {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
}

func TestAFileThatOthersCanReadIsRefused(t *testing.T) {
	dir := t.TempDir()
	must(t, openIn(t, dir).Close())
	path := filepath.Join(dir, FileName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	must(t, os.Chmod(path, 0o640))
	if _, err := Open(t.Context(), path, testKeys(t, 1)); !errors.Is(err, ErrShared) {
		t.Errorf("opened: %v", err)
	}
}

func TestNothingOfAPersonOrATemplateStandsInTheFileInClear(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	enrol(t, s, row(3))
	must(t, s.Close())
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		for _, secret := range []string{template, "ada", "olga", "omar", "right-index"} {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s has %q in clear", f, secret)
			}
		}
	}
	if len(files) == 0 {
		t.Error("there is no file")
	}
}

func TestNothingOfARevokedTemplateStaysInTheFiles(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	long := row(3)
	long.Template = biometric.NewTemplate(bytes.Repeat([]byte(template), 30))
	enrol(t, s, long)
	sealed := func() (body []byte) {
		must(t, s.r.QueryRow(`SELECT body FROM enrolled`).Scan(&body))
		return body
	}
	body := sealed()
	part := body[len(body)/2:][:32]
	there := func() (found bool) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, FileName+"*"))
		must(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			must(t, err)
			found = found || bytes.Contains(b, part)
		}
		return found
	}
	if !there() {
		t.Fatal("the template is not in the files before")
	}
	rows, err := s.List(t.Context())
	must(t, err)
	must(t, s.Revoke(t.Context(), "olga", rows...))
	if there() {
		t.Error("it is in the files after it was revoked")
	}
	if n := len(sealed()); n >= len(long.Template.Bytes()) {
		t.Errorf("the row has %d bytes still", n)
	}
	part = sealed()[:16]
	must(t, s.Remove(t.Context(), rows[0]))
	if there() {
		t.Error("the row is in the files after it was removed")
	}
}

func TestARowThatWasRemovedMeansNoOther(t *testing.T) {
	s := openIn(t, t.TempDir())
	old, err := s.Add(t.Context(), row(3))
	must(t, err)
	must(t, s.Remove(t.Context(), old))
	_, err = s.Add(t.Context(), row(4))
	must(t, err)
	must(t, s.Owe(t.Context(), old))
	must(t, s.Remove(t.Context(), old))
	if rows, err := s.List(t.Context()); err != nil || len(rows) != 1 || rows[0].State != Pending {
		t.Errorf("rows %+v, %v", rows, err)
	}
}

func TestATemplateIsClearedInEveryCopyOfARow(t *testing.T) {
	s := openIn(t, t.TempDir())
	must(t, s.SetSerial(t.Context(), "a", "A"))
	own := row(3)
	added, err := s.Add(t.Context(), own)
	must(t, err)
	if string(own.Template.Bytes()) != template {
		t.Error("Add took the caller's template")
	}
	own.Template.Clear()
	if !added.Template.Empty() {
		t.Error("a copy of the row keeps it")
	}
}

// spy is a Sealer that remembers what was in clear.
type spy struct {
	Sealer
	clear [][]byte
}

func (s *spy) Seal(plain, aad []byte) []byte {
	s.clear = append(s.clear, plain)
	return s.Sealer.Seal(plain, aad)
}

func (s *spy) Open(sealed, aad []byte) ([]byte, error) {
	plain, err := s.Sealer.Open(sealed, aad)
	s.clear = append(s.clear, plain)
	return plain, err
}

func TestWhatWasInClearIsClearedAfterUse(t *testing.T) {
	s := openIn(t, t.TempDir())
	seen := &spy{Sealer: s.keys.Sealer}
	s.keys.Sealer = seen
	enrol(t, s, row(3))
	references, err := s.References("ada", "a")
	must(t, err)
	biometric.Clear(references)
	if _, _, err := s.Person("a", 3); err != nil {
		t.Error(err)
	}
	if _, err := s.List(t.Context()); err != nil {
		t.Error(err)
	}
	if len(seen.clear) < 5 {
		t.Errorf("only %d bodies were seen", len(seen.clear))
	}
	for _, b := range seen.clear {
		if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			t.Errorf("%q is still in memory", b)
		}
	}
}

func TestARowUnderAnotherPersonsKeyDoesNotOpen(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	enrol(t, s, row(3))
	// As a program that errs would write it.
	r := row(3)
	r.State = Active
	bob := s.index("bob")
	change(t, dir, "UPDATE enrolled SET person = ?, body = ?", bob[:], s.keys.Sealer.Seal(r.body(), r.aad(bob[:])))
	if references, err := s.References("bob", "a"); !errors.Is(err, ErrDamaged) || references != nil {
		t.Errorf("%d references, %v", len(references), err)
	}
}

func TestAnExchangedScannerMatchesNobodyOfTheOneBefore(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s := openIn(t, dir)
	enrol(t, s, row(3))
	must(t, s.SetSerial(ctx, "a", "B"))
	must(t, s.Close())
	s = openIn(t, dir)
	if serial, known := s.Serial("a"); serial != "B" || !known {
		t.Errorf("serial number %q, known %v", serial, known)
	}
	person, _, err := s.Person("a", 3)
	if found := slots(t, s, "ada", "a"); found != nil || person != "" || err != nil {
		t.Errorf("slots %v, person %q, %v", found, person, err)
	}
	// The same slot of the new one is somebody else's.
	other := row(3)
	other.Serial, other.Person, other.Session = "B", "bob", Session{2}
	enrol(t, s, other)
	if person, _, err := s.Person("a", 3); person != "bob" || err != nil {
		t.Errorf("person %q, %v", person, err)
	}
	// And back again.
	must(t, s.SetSerial(ctx, "a", "A"))
	if person, _, err := s.Person("a", 3); person != "ada" || err != nil {
		t.Errorf("person %q, %v", person, err)
	}
}

func TestAFreeSlotIsNeitherARowsNorTheScanners(t *testing.T) {
	s := openIn(t, t.TempDir())
	about := biometric.About{Serial: "A", Capacity: 4, First: 2}
	enrol(t, s, row(2))
	free := func(used ...uint32) (uint32, error) { return s.FreeSlot(t.Context(), "a", about, used) }
	if slot, err := free(3); slot != 4 || err != nil {
		t.Errorf("slot %d, %v", slot, err)
	}
	if slot, err := free(3, 4, 5); !errors.Is(err, ErrFull) {
		t.Errorf("slot %d of a full scanner, %v", slot, err)
	}
	about = biometric.About{Serial: "A"} // keeps nothing
	if slot, err := free(); slot != 0 || err != nil {
		t.Errorf("number %d, %v", slot, err)
	}
}

func TestWhatARowCannotHoldIsRefused(t *testing.T) {
	s := openIn(t, t.TempDir())
	for name, spoil := range map[string]func(*Row){
		"nobody":           func(r *Row) { r.Person = "" },
		"no such part":     func(r *Row) { r.Part = "left-ear" },
		"a long text":      func(r *Row) { r.Notice = strings.Repeat("x", maxText+1) },
		"a large template": func(r *Row) { r.Template = biometric.NewTemplate(make([]byte, maxTemplate+1)) },
	} {
		r := row(3)
		spoil(&r)
		if _, err := s.Add(t.Context(), r); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestTheTimeOfTheCheckIsKept(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir)
	if at, err := s.Checked(t.Context()); !at.IsZero() || err != nil {
		t.Errorf("checked at %v, %v", at, err)
	}
	must(t, s.SetChecked(t.Context(), when))
	must(t, s.SetChecked(t.Context(), when.Add(time.Hour)))
	must(t, s.Close())
	if at, err := openIn(t, dir).Checked(t.Context()); !at.Equal(when.Add(time.Hour)) || err != nil {
		t.Errorf("checked at %v, %v", at, err)
	}
}

func anyRow(t *rapid.T) Row {
	text := func(name string) string { return rapid.StringN(0, 40, maxText).Draw(t, name) }
	r := Row{
		Person: rapid.StringN(1, 40, maxText).Draw(t, "person"),
		Part:   rapid.SampledFrom(slices.Concat(biometric.Parts(biometric.Fingerprint), biometric.Parts(biometric.Iris))).Draw(t, "part"),
		Duress: rapid.Bool().Draw(t, "duress"), Notice: text("notice"), Operator: text("operator"), Approver: text("approver"), From: text("from"),
		At: time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "at"), 0).UTC(),
	}
	if b := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "template"); len(b) > 0 {
		r.Template = biometric.NewTemplate(b)
	}
	return r
}

func TestABodyIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyRow(t)
		var read Row
		if err := read.parseBody(r.body()); err != nil {
			t.Fatal(err)
		}
		if string(read.Template.Bytes()) != string(r.Template.Bytes()) {
			t.Fatal("another template was read")
		}
		if d := cmp.Diff(r, read, cmpopts.IgnoreUnexported(Row{}), cmpopts.IgnoreFields(Row{}, "Template")); d != "" {
			t.Fatalf("- written + read:\n%s", d)
		}
	})
}

// FuzzBody reads bodies that nobody sealed: nothing may panic, and there is one
// way only to write a row.
func FuzzBody(f *testing.F) {
	r := row(3)
	f.Add(r.body())
	r.Template = biometric.Template{}
	r.Duress = true
	f.Add(r.body())
	f.Add([]byte{bodyVersion, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Row
		if err := r.parseBody(b); err != nil {
			if !r.Template.Empty() {
				t.Error("a template of a row that is refused")
			}
			return
		}
		if again := r.body(); string(again) != string(b) {
			t.Errorf("%x was read, and is written as %x", b, again)
		}
	})
}

func BenchmarkReferences(b *testing.B) {
	s := openIn(b, b.TempDir())
	for i := range uint32(200) {
		r := row(i)
		r.Person, r.Template = fmt.Sprint("p-", i/4), biometric.Template{}
		enrol(b, s, r)
	}
	for b.Loop() {
		if r, err := s.References("p-7", "a"); err != nil || len(r) != 4 {
			b.Fatal(r, err)
		}
	}
}
