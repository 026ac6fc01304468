package follower

import (
	"bytes"
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// untouched is a source to which nothing may happen.
type untouched struct{ t *testing.T }

func (untouched) Newest() (uint64, string)               { return 0, "" }
func (untouched) Raise(uint64)                           {}
func (u untouched) Confirm(uint64, time.Time, time.Time) { u.t.Error("confirmed") }
func (u untouched) Apply(context.Context, allowlist.Update) error {
	u.t.Error("applied")
	return nil
}

// FuzzHear gives a follower what nobody signed: it is refused, and changes nothing.
// The first byte says on which topic it comes.
func FuzzHear(f *testing.F) {
	s := &site{t: f, clock: &clockwork{state: access.ClockSynchronised}, root: newSigner(f, keys.TypePolicy), key: newSigner(f, keys.TypeManifest),
		rows: make(map[[16]byte][]byte), parts: make(map[string][][]byte)}
	var err error
	if s.pepper, err = keys.ParsePepper(keys.GeneratePepper()); err != nil {
		f.Fatal(err)
	}
	if s.blobs, err = s.pepper.Blobs(); err != nil {
		f.Fatal(err)
	}
	s.b = allowlist.NewBuilder(s.pepper, nil)
	s.authority = []string{s.certificate(1)}
	s.change(access.Active, 1)
	m := s.manifest()
	signed, err := s.publication(m, s.token()).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	part, err := (&wire.Part{Blob: m.Snapshot.ID, Sealed: s.parts[m.Snapshot.ID][0]}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	// What is signed says so by its own bytes; one changed bit does not.
	f.Add(append([]byte{0}, bytes.Replace(signed, []byte(`"fresh":"`), []byte(`"fresh":"A`), 1)...))
	f.Add(append([]byte{1}, part...))
	f.Add(append([]byte{2}, part...))
	root := s.root.JWK()
	genuine := sha256.Sum256(signed)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || sha256.Sum256(data[1:]) == genuine {
			return
		}
		fw, err := New(Options{
			Controller: controller, Generation: s.pepper.Generation(), Blobs: s.blobs, Publisher: s, Clock: s.clock, Source: untouched{t}, Spool: t.TempDir(),
			Authority: func(jws []string) (*keys.PolicyKey, error) { return keys.OpenPolicyKey(root, jws) },
		})
		if err != nil {
			t.Fatal(err)
		}
		l := &loop{f: fw, ctx: t.Context(), patience: time.Second, deadline: stopped(), retry: stopped(), recorded: make(map[Refusal]*recorded)}
		switch payload := data[1:]; data[0] % 3 {
		case 0:
			l.hear(payload)
			if n := len(fw.Status().Refused); n != 1 {
				t.Fatalf("refused %v", fw.Status())
			}
		case 1:
			l.push(payload)
		case 2:
			l.part(payload)
		}
		l.follow()
		if st := fw.Status(); l.want != nil || st.Manifests != 0 || st.Received != 0 {
			t.Fatalf("taken: %+v", st)
		}
	})
}
