package registry

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
)

// BenchmarkImport is a person with a card a row.
func BenchmarkImport(b *testing.B) {
	s := openSite(b, filepath.Join(b.TempDir(), FileName))
	defer s.Close()
	in := strings.NewReader("person,name,kind,format,facility,number\n" + numbered(b.N, "p-%[1]d,Somebody,staff,H10302,,%[1]d\n"))
	b.ResetTimer()
	if _, err := s.Import(ctx, by, in, ImportOptions{}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkVerify is a person with a card: two objects, two lines.
func BenchmarkVerify(b *testing.B) {
	s := openSite(b, filepath.Join(b.TempDir(), FileName))
	defer s.Close()
	if _, err := s.imports("person,name,kind,format,number\n" + numbered(b.N, "p-%[1]d,Somebody,staff,H10302,%[1]d\n")); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	s.verify()
}

// BenchmarkPublish is a person with a card who has a right, of very many.
func BenchmarkPublish(b *testing.B) {
	s := openSite(b, filepath.Join(b.TempDir(), FileName))
	defer s.Close()
	s.crowd(b, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	if _, _, err := s.Publish(ctx, "north-1", 0, func(*allowlist.Holder) error { n++; return nil }); err != nil || n != b.N {
		b.Fatal(n, err)
	}
}

// BenchmarkPublishOne is one change among ten thousand people, as it is told.
func BenchmarkPublishOne(b *testing.B) {
	s := openSite(b, filepath.Join(memory(b), FileName))
	defer s.Close()
	s.crowd(b, 10_000)
	before := must(s.Changes(ctx))(b)
	must(s.Credentials.Update(ctx, by, must(s.WithCard(ctx, badge.Credential{Format: "H10302", Number: 5000}))(b).Value.ID, 0,
		func(c *Credential) error { c.State = access.Revoked; return nil }))(b)
	for b.Loop() {
		n := 0
		if _, _, err := s.Publish(ctx, "north-1", before, func(*allowlist.Holder) error { n++; return nil }); err != nil || n != 1 {
			b.Fatal(n, err)
		}
	}
}

// crowd imports so many people with cards, who have a right to one door.
func (s *site) crowd(t tester, n int) {
	t.Helper()
	must(s.Doors.Create(ctx, by, Door{Name: "front", Controller: "north-1"}))(t)
	must(s.Groups.Create(ctx, by, Group{Name: "ops", Rights: []Right{{Door: "front", Schedule: access.AlwaysName}}}))(t)
	must(s.imports("person,name,kind,groups,format,number\n" + numbered(n, "p-%[1]d,Somebody,staff,ops,H10302,%[1]d\n")))(t)
}
