package registry

import (
	"path/filepath"
	"strings"
	"testing"
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
