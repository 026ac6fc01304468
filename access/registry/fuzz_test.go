package registry

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

var errUndo = errors.New("undo")

// FuzzImport imports whatever comes, and undoes it.
func FuzzImport(f *testing.F) {
	f.Add(people)
	f.Add("person,kind\n")
	f.Add("person;kind\n")
	f.Add("\ufeffperson,kind,format,number\r\np,staff,H10302,5\r\np,staff,H10302,5\r\n")
	f.Add("person,kind,instead,pin\np-1,staff,fingerprint=pin;=;;x,1234\n")
	f.Add("person,kind\n\"\n")
	f.Add("person,kind,from,until,card_from\np-1,staff,2026-01-01T08:00:00+01:00,2026-01-01,x\n")
	s := openSite(f, filepath.Join(f.TempDir(), FileName))
	f.Cleanup(func() { s.Close() })
	s.staff()
	before := s.verify()
	f.Fuzz(func(t *testing.T, text string) {
		err := s.write(ctx, by, func(tx *tx) error {
			got, err := tx.imports(strings.NewReader(text), ImportOptions{})
			if err == nil {
				if got.Changes > 2*got.Rows || uint64(got.Changes) != tx.head.Seq-before.Lines {
					t.Errorf("%+v", got)
				}
				again, err := tx.imports(strings.NewReader(text), ImportOptions{})
				if err != nil || again.Changes != 0 || again.People != got.People || again.Credentials != got.Credentials {
					t.Errorf("%+v, and the same again: %+v, %v", got, again, err)
				}
				return errUndo
			}
			faults, ok := errors.AsType[*ImportFaults](err)
			if !ok || faults.Total() == 0 {
				t.Errorf("error %v", err)
				return errUndo
			}
			for _, v := range faults.List {
				if v.Line < 1 || v.Text == "" || strings.Contains(v.Text, "\n") {
					t.Errorf("fault %+v", v)
				}
			}
			return errUndo
		})
		wantIs(t, err, errUndo)
	})
	if after := s.verify(); after != before {
		f.Errorf("audit from %v to %v", before.Head, after.Head)
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add("12:00112233445566778899aabbccddeeff")
	f.Add("0:")
	f.Fuzz(func(t *testing.T, text string) {
		if h, err := ParseHead(text); err == nil && h.String() != text {
			t.Errorf("%q is read as %s", text, h)
		}
	})
}

// FuzzSpan holds that a length of time is written as it is read again.
func FuzzSpan(f *testing.F) {
	for _, text := range []string{"30s", "10m", "1h30m", "72h", "0", "-1.5h", "1µs", "soon"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again Span
		if err := d.UnmarshalText([]byte(text)); err != nil {
			return
		}
		written := must(d.MarshalText())(t)
		if err := again.UnmarshalText(written); err != nil || again != d {
			t.Errorf("%q is %d, written %q, and that is %d (%v)", text, d, written, again, err)
		}
	})
}
