package clients

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
)

var ctx = context.Background()

// site is a store with a clock that the test sets.
type site struct {
	*Store
	path string
	now  time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{path: filepath.Join(t.TempDir(), FileName), now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)}
	sealer, err := keys.NewSealer(bytes.Repeat([]byte{7}, 32), "registry")
	if err != nil {
		t.Fatal(err)
	}
	if s.Store, err = Open(ctx, s.path, Options{Sealer: sealer, Clock: func() time.Time { return s.now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) new(name string) New {
	return New{Name: name, Scopes: []Scope{WritePeople, ReadPeople, ReadPeople}, Until: s.now.Add(time.Hour), By: "m.jansen", Why: "CHG-1"}
}

func (s *site) add(t *testing.T, name string) Token {
	t.Helper()
	_, token, err := s.AddToken(ctx, s.new(name))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestATokenIsItsClientsUntilItEndsOrIsRevoked(t *testing.T) {
	s := newSite(t)
	token := s.add(t, "crm").Reveal()
	c, err := s.WithToken(ctx, token)
	if err != nil || c.Name != "crm" || !c.May(ReadPeople, WritePeople) || c.May(ReadPeople, ReadAudit) || len(c.Scopes) != 2 {
		t.Fatalf("%+v: %v", c, err)
	}
	other := s.add(t, "other").Reveal()
	secret := func(token string) string { return token[len(token)-43:] }
	for _, wrong := range []string{
		"", token + "x", token[:len(token)-1], strings.ToLower(token), " " + token, token + "\n", "gatehouse.crm." + secret(other), "gatehouse.other." + secret(token),
		"gatehouse.nobody." + secret(token), strings.TrimPrefix(token, "gatehouse."), "Gatehouse.crm." + secret(token), token + "=",
	} {
		if c, err := s.WithToken(ctx, wrong); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q is %+v: %v", wrong, c, err)
		}
	}
	s.now = s.now.Add(time.Hour)
	if _, err := s.WithToken(ctx, token); !errors.Is(err, ErrUnknown) {
		t.Errorf("after its end: %v", err)
	}
	s.now = s.now.Add(-time.Minute)
	c, err = s.Revoke(ctx, "crm", "h.soto", "INC-1")
	if err != nil || c.Revoked.IsZero() || c.RevokedBy != "h.soto" || c.RevokedWhy != "INC-1" {
		t.Fatalf("%+v: %v", c, err)
	}
	if _, err := s.WithToken(ctx, token); !errors.Is(err, ErrUnknown) {
		t.Errorf("after it was revoked: %v", err)
	}
	if again, err := s.Revoke(ctx, "crm", "m.jansen", "INC-2"); err != nil || again.RevokedBy != "h.soto" {
		t.Errorf("%+v: %v", again, err)
	}
	if _, err := s.Revoke(ctx, "nobody", "m.jansen", "INC-2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestANameIsNeverUsedForAnother(t *testing.T) {
	s := newSite(t)
	s.add(t, "crm")
	if _, err := s.Revoke(ctx, "crm", "m.jansen", "INC-1"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.AddToken(ctx, s.new("crm")); !errors.Is(err, ErrTaken) {
		t.Errorf("%v", err)
	}
	cert := &x509.Certificate{Raw: []byte("a certificate"), NotAfter: s.now.Add(time.Minute)}
	if _, err := s.AddCertificate(ctx, s.new("desk"), cert); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddCertificate(ctx, s.new("desk-2"), cert); !errors.Is(err, ErrTaken) {
		t.Errorf("%v", err)
	}
	if c, err := s.WithCertificate(ctx, cert); err != nil || c.Name != "desk" {
		t.Errorf("%+v: %v", c, err)
	}
	if _, err := s.WithCertificate(ctx, &x509.Certificate{Raw: []byte("another")}); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
	s.now = s.now.Add(time.Minute)
	if _, err := s.WithCertificate(ctx, cert); !errors.Is(err, ErrUnknown) {
		t.Errorf("after the certificate's end: %v", err)
	}
}

func TestWhoIsLetInIsSaidInFull(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		change func(*New)
		want   string
	}{
		{func(n *New) { n.Name = "c r m" }, "letters, digits"},
		{func(n *New) { n.Scopes = nil }, "scope"},
		{func(n *New) { n.Scopes = []Scope{"people:raed"} }, `did you mean "people:read"`},
		{func(n *New) { n.Scopes = []Scope{"x"} }, "use people:read, people:write"},
		{func(n *New) { n.Until = s.now }, "valid until"},
		{func(n *New) { n.Until = s.now.Add(MaxValidity + time.Second) }, "valid until"},
		{func(n *New) { n.By = "" }, "say who"},
		{func(n *New) { n.Why = "" }, "why is missing"},
		{func(n *New) { n.Why = "a\nb" }, "control character"},
	} {
		n := s.new("crm")
		tt.change(&n)
		if _, _, err := s.AddToken(ctx, n); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", n, err, tt.want)
		}
	}
	if list, err := s.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v: %v", list, err)
	}
}

func TestTheLastUseIsKnownToTheMinute(t *testing.T) {
	s := newSite(t)
	token := s.add(t, "crm").Reveal()
	used := func() time.Time {
		list, err := s.List(ctx)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v: %v", list, err)
		}
		return list[0].Used
	}
	if !used().IsZero() {
		t.Errorf("used at %s, before it was", used())
	}
	begin := s.now
	for _, tt := range []struct{ after, want time.Duration }{{0, 0}, {59 * time.Second, 0}, {time.Minute, time.Minute}, {90 * time.Second, time.Minute}} {
		s.now = begin.Add(tt.after)
		if _, err := s.WithToken(ctx, token); err != nil {
			t.Fatal(err)
		}
		if want := begin.Add(tt.want); !used().Equal(want) {
			t.Errorf("after %s: used at %s, want %s", tt.after, used(), want)
		}
	}
}

func TestATokenMasksItself(t *testing.T) {
	s := newSite(t)
	token := s.add(t, "crm")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("let in", "token", token)
	for _, text := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s %q", token, token, token, token, token), log.String()} {
		if strings.Contains(text, token.Reveal()[len("gatehouse.crm."):]) {
			t.Errorf("shown: %s", text)
		}
	}
}

func TestAnAnswerIsKeptForADay(t *testing.T) {
	s := newSite(t)
	request := [16]byte{1}
	if got, err := s.Answered(ctx, "crm", "k-1", request); got != nil || err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if err := s.Keep(ctx, "crm", "k-1", request, []byte("Ada Lovelace")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Answered(ctx, "crm", "k-1", request); string(got) != "Ada Lovelace" || err != nil {
		t.Errorf("%q: %v", got, err)
	}
	if _, err := s.Answered(ctx, "crm", "k-1", [16]byte{2}); !errors.Is(err, ErrOtherRequest) {
		t.Errorf("%v", err)
	}
	for _, other := range [][2]string{{"crm", "k-2"}, {"desk", "k-1"}} {
		if got, err := s.Answered(ctx, other[0], other[1], request); got != nil || err != nil {
			t.Errorf("%v: %q: %v", other, got, err)
		}
	}
	// What people are called stands in clear nowhere.
	for _, suffix := range []string{"", "-wal"} {
		if b, err := os.ReadFile(s.path + suffix); err != nil || bytes.Contains(b, []byte("Lovelace")) {
			t.Errorf("%s holds a name: %v", s.path+suffix, err)
		}
	}
	s.now = s.now.Add(KeepAnswers)
	if got, err := s.Answered(ctx, "crm", "k-1", request); got != nil || err != nil {
		t.Errorf("a day later %q: %v", got, err)
	}
	if err := s.Keep(ctx, "crm", "k-1", [16]byte{2}, nil); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestAnAnswerIsItsKeysAlone(t *testing.T) {
	s := newSite(t)
	if err := s.Keep(ctx, "crm", "k-1", [16]byte{1}, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.W.Exec(`UPDATE answer SET client = 'desk'`); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Answered(ctx, "desk", "k-1", [16]byte{1}); err == nil {
		t.Errorf("moved, it is %q", got)
	}
}

func TestWhoWritesToTheFileLetsNobodyIn(t *testing.T) {
	for _, change := range []string{
		`UPDATE client SET scopes = 'people:read people:write audit:read' WHERE name = 'crm'`,
		`UPDATE client SET until = until + 1000000 WHERE name = 'crm'`,
		`UPDATE client SET revoked = 0, revoked_by = '', revoked_why = '' WHERE name = 'crm'`,
		`UPDATE client SET made_by = 'h.soto' WHERE name = 'crm'`,
	} {
		s := newSite(t)
		token := s.add(t, "crm").Reveal()
		if strings.Contains(change, "revoked") {
			if _, err := s.Revoke(ctx, "crm", "m.jansen", "INC-1"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.db.W.Exec(change); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
		if c, err := s.WithToken(ctx, token); err == nil || errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %+v: %v", change, c, err)
		}
		if _, err := s.List(ctx); err == nil || !strings.Contains(err.Error(), `"crm"`) {
			t.Errorf("%s: %v", change, err)
		}
	}
}

func TestAStoreThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, path, Options{Clock: time.Now}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("%v", err)
	}
}

// FuzzToken: what is taken for a token is written as tokens are.
func FuzzToken(f *testing.F) {
	f.Add("gatehouse.crm.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("gatehouse.a.b-c_d.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB")
	f.Add("gatehouse..")
	f.Fuzz(func(t *testing.T, text string) {
		name, secret, ok := splitToken(text)
		if ok && token(name, secret).Reveal() != text {
			t.Errorf("%q is taken for %q", text, token(name, secret).Reveal())
		}
	})
}
