package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// policyCRM publishes one card's allowlist to one controller.
type policyCRM struct {
	t       *testing.T
	builder *allowlist.Builder
	key     *pki.Policy
	signer  *keys.Signer
	blobs   *keys.Sealer
	pepper  *keys.Pepper
	version uint64
	parts   map[string][]byte // the one part of each blob
}

func newPolicyCRM(t *testing.T, s *joinedSite) *policyCRM {
	t.Helper()
	c := &policyCRM{t: t, parts: make(map[string][]byte)}
	var err error
	c.key, err = pki.OpenPolicy(s.crm, time.Now())
	must(t, err)
	c.signer = c.key.Signer
	c.pepper, err = pki.ReadPepper(s.crm, "demo")
	must(t, err)
	c.blobs, err = c.pepper.Blobs()
	must(t, err)
	c.builder = allowlist.NewBuilder(c.pepper, nil)
	return c
}

func (c *policyCRM) blob(from uint64, state access.State) wire.Blob {
	c.t.Helper()
	card := badge.Credential{Format: "H10301", Facility: 123, Number: 4567}
	rows, err := c.builder.Rows(&allowlist.Holder{
		Entry: access.Entry{Person: "p-1", Kind: access.Staff}, Name: "Ada Lovelace", Source: "staff",
		Rights:      []allowlist.Right{{Door: "server-room-a", Schedule: access.AlwaysName}},
		Credentials: []allowlist.Held{{Card: &card, State: state}},
	})
	must(c.t, err)
	policy, err := c.builder.Policy(allowlist.Rules{})
	must(c.t, err)
	var out bytes.Buffer
	w := wire.NewBlobWriter(&out, c.blobs, "demo", from, c.version)
	must(c.t, w.Policy(policy))
	for _, r := range rows {
		must(c.t, w.Row(wire.Row(r)))
	}
	b, err := w.Close()
	must(c.t, err)
	c.parts[b.ID] = out.Bytes()
	return b
}

// next makes a version in which the card has a state, and returns what is published
// of it: the delta, if there is one, and the manifest.
func (c *policyCRM) next(state access.State) (delta, manifest []byte) {
	c.t.Helper()
	c.version++
	now := time.Now().UTC()
	m := &wire.Manifest{V: wire.Version, Controller: "demo", Version: c.version, Created: now, Expires: now.Add(time.Hour),
		Generation: c.pepper.Generation(), Count: 1, Snapshot: c.blob(0, state), Deltas: []wire.Blob{}}
	if c.version > 1 {
		m.Deltas = append(m.Deltas, c.blob(c.version-1, state))
		var err error
		delta, err = (&wire.Part{Blob: m.Deltas[0].ID, Sealed: c.parts[m.Deltas[0].ID]}).Marshal()
		must(c.t, err)
	}
	f := &wire.Fresh{V: wire.Version, Controller: "demo", Version: c.version, Time: now, Until: now.Add(time.Minute)}
	p := &wire.Publication{V: wire.Version, Controller: "demo", Authority: c.key.Authority}
	var err error
	sign := func(typ string) wire.Signer { s, err := c.signer.As(typ); must(c.t, err); return s }
	p.Manifest, err = m.Sign(sign(keys.TypeManifest))
	must(c.t, err)
	p.Fresh, err = f.Sign(sign(keys.TypeFresh))
	must(c.t, err)
	manifest, err = p.Marshal()
	must(c.t, err)
	return delta, manifest
}

// TestTheCRMsAllowlistGovernsTheDoor: through a broker, with a real controller. A
// version is in force without a restart, and a local import is refused.
func TestTheCRMsAllowlistGovernsTheDoor(t *testing.T) {
	s := joinedSiteBy(t, pki.PolicyFromCRM)
	cfg, err := config.ParseController("site.toml", s.config, config.Options{Demo: true})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	start := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	start(s.broker.Run)
	conn := s.asCRM(t)
	start(conn.Run)
	eventually(t, "the CRM connects", conn.Connected)
	crm := newPolicyCRM(t, s)
	topic := func(kind wire.Kind) string {
		name, err := wire.Topic("demo", kind)
		must(t, err)
		return name
	}
	running.Go(func() { // answers who asks for parts
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-conn.Messages():
				if _, kind, _ := wire.ParseTopic(m.Topic); kind != wire.KindFetch {
					continue
				}
				f, err := wire.ParseFetch(m.Payload)
				if err != nil || !slices.Equal(f.Parts, []int{0}) {
					t.Errorf("asked for %+v: %v", f, err)
					continue
				}
				part, err := (&wire.Part{Blob: f.Blob, Sealed: crm.parts[f.Blob]}).Marshal()
				if err == nil {
					err = conn.Publish(ctx, topic(wire.KindChunk), part, false)
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		}
	})

	c, err := newController(ctx, cfg, []byte(s.config), slog.New(slog.DiscardHandler))
	must(t, err)
	var closed sync.Once
	defer closed.Do(func() { c.Close() })
	_, first := crm.next(access.Active)
	must(t, conn.Publish(ctx, topic(wire.KindManifest), first, true)) // kept, until the controller comes
	start(c.Run)
	site, err := sim.Dial(filepath.Join(cfg.Data, "site.sock"))
	must(t, err)
	defer site.Close()
	inUse := func(version uint64) {
		t.Helper()
		eventually(t, "the version is in use", func() bool { return c.policy.Status(time.Now()).Version == version })
	}
	inUse(1)
	format, _ := badge.Builtin().Format("H10301")
	card := badge.Credential{Format: "H10301", Facility: 123, Number: 4567}
	frame, err := format.Encode(card)
	must(t, err)
	must(t, site.Swipe("in", frame))
	eventually(t, "the card opens", func() bool {
		select {
		case o := <-site.Outputs():
			return o.State == sim.Unlocked
		default:
			return false
		}
	})

	delta, manifest := crm.next(access.Revoked)
	before := c.link.refused.Load()
	must(t, conn.Publish(ctx, topic(wire.KindDelta), delta, false))
	must(t, conn.Publish(ctx, topic(wire.KindManifest), manifest, true))
	inUse(2)
	if e, err := c.policy.Lookup(card); err != nil || e == nil || e.State != access.Revoked {
		t.Errorf("%+v, %v", e, err)
	}
	must(t, conn.Publish(ctx, topic(wire.KindManifest), first, true)) // yesterday's
	eventually(t, "the earlier manifest is refused", func() bool { return c.link.policy.Status().Refused["downgrade"] == 1 })
	if n := c.link.refused.Load(); n != before {
		t.Errorf("%d messages were refused as nobody's", n-before)
	}
	if faults := c.Faults(t.Context()); len(faults) != 0 {
		t.Errorf("faults %v", faults)
	}
	st, err := c.Status(t.Context())
	must(t, err)
	if a := st.Link.Allowlist; a == nil || a.Version != 2 || a.Deltas != 1 || a.Snapshots != 1 {
		t.Errorf("status %+v", a)
	}
	if b, err := json.Marshal(st); err != nil || !strings.Contains(string(b), `"refused":{"downgrade":1}`) {
		t.Errorf("%s, %v", b, err)
	}

	// The commands read the file while the daemon changes it, and change nothing.
	out := new(bytes.Buffer)
	root := newRoot()
	root.SetArgs([]string{"allowlist", "list", "--data", s.data})
	root.SetOut(out)
	root.SetErr(out)
	must(t, root.ExecuteContext(t.Context()))
	if !strings.Contains(out.String(), "version 2") || !strings.Contains(out.String(), "Ada Lovelace") || !strings.Contains(out.String(), "revoked") {
		t.Errorf("listed %s", out)
	}
	policy := filepath.Join(t.TempDir(), "policy.toml")
	must(t, os.WriteFile(policy, []byte(sitePolicy), 0o600))
	root = newRoot()
	root.SetArgs([]string{"allowlist", "import", policy, "--data", s.data})
	root.SetOut(out)
	root.SetErr(out)
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "the CRM governs") {
		t.Errorf("import: %v", err)
	}

	cancel()
	running.Wait()
	closed.Do(func() { err = c.Close() })
	must(t, err)
	recordsStand(t, cfg, visitorlog.PolicyRefused)
	recordsStand(t, cfg, visitorlog.DecisionGranted)

	// Over a restart, without a connection, it is as it was.
	again, err := newController(t.Context(), cfg, []byte(s.config), slog.New(slog.DiscardHandler))
	must(t, err)
	defer again.Close()
	if p := again.policy.Status(time.Now()); p.Version != 2 || p.Freshness != access.Fresh {
		t.Errorf("after the restart %+v", p)
	}
}

func TestWhatWasHeardOfTheCRMsAllowlistIsToldInWords(t *testing.T) {
	fresh := time.Date(2026, 3, 1, 9, 30, 0, 0, time.Local)
	for want, s := range map[string]follower.Status{
		"has not told its allowlist yet":                                 {},
		"its allowlist is version 7, the newest at 2026-03-01 09:30:00":  {Version: 7, Fresh: fresh},
		"its allowlist is version 7; 3 of 12 parts are here":             {Version: 7, Parts: 12, Missing: 9},
		"its allowlist is version 7; 3 REFUSED, the last one: two lines": {Version: 7, Refused: map[follower.Refusal]uint64{follower.Expired: 1, follower.Unfit: 2}, LastRefusal: "two\n\xfflines"},
	} {
		if got := heardWords(&s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestWhatWasSeenOfThePolicysAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	signer := func() *keys.Signer {
		b, err := keys.GenerateKey(keys.ES256)
		must(t, err)
		s, err := keys.ParseSigner(b, keys.TypePolicy)
		must(t, err)
		return s
	}
	root, next, key := signer(), signer(), signer()
	now := time.Now()
	rotation, err := keys.RotatePolicyRoot(root, next, now)
	must(t, err)
	certificate, err := keys.CertifyPolicyKey(next, key.JWK(), 7, now, now.Add(time.Hour))
	must(t, err)
	trust := &pki.Trust{PolicyRoot: root.JWK()}
	a, err := openAuthority(dir, trust)
	must(t, err)
	k, err := a.open(append(rotation, certificate))
	must(t, err)
	must(t, a.keep(k))
	older, err := keys.CertifyPolicyKey(next, signer().JWK(), 6, now, now.Add(time.Hour))
	must(t, err)
	if _, err := a.commander([]string{older}, now); err == nil {
		t.Error("an older certificate was believed for a command")
	}
	k.Serial = 6
	must(t, a.keep(k)) // changes nothing

	again, err := openAuthority(dir, trust)
	must(t, err)
	if again.serial != 7 || again.root.KeyID != next.KeyID() {
		t.Errorf("serial %d, root %s", again.serial, again.root.KeyID)
	}
	// The former root certifies nothing any more.
	stolen, err := keys.CertifyPolicyKey(root, signer().JWK(), 8, now, now.Add(time.Hour))
	must(t, err)
	for _, a := range []*authority{a, again} {
		if _, err := a.open([]string{stolen}); err == nil {
			t.Error("the former root was believed")
		}
	}
	// Of another CRM nothing is known.
	other, err := openAuthority(dir, &pki.Trust{PolicyRoot: key.JWK()})
	must(t, err)
	if other.serial != 0 || other.root.KeyID != key.KeyID() {
		t.Errorf("serial %d, root %s", other.serial, other.root.KeyID)
	}
	must(t, os.WriteFile(filepath.Join(dir, authorityFile), []byte("{}"), 0o600))
	if _, err := openAuthority(dir, trust); err == nil {
		t.Error("a damaged file was believed")
	}
}

// FuzzParseAuthority reads what was kept of the policy's authority. Whatever it says,
// the root is the one that was pinned or a key.
func FuzzParseAuthority(f *testing.F) {
	b, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := keys.ParseSigner(b, keys.TypePolicy)
	if err != nil {
		f.Fatal(err)
	}
	root := signer.JWK()
	jwk, err := json.Marshal(root)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(authorityForm{1, root.KeyID, jwk, 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"v":1,"pinned":"another"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &authority{root: root}
		if err := a.parse(b); err != nil && (a.serial != 0 || a.root.KeyID != root.KeyID) {
			t.Fatal("a part of it was taken")
		}
		if a.root.KeyID == "" || !a.root.IsPublic() {
			t.Fatalf("root %+v", a.root)
		}
	})
}
