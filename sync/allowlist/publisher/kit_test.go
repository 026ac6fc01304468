package publisher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

var by = registry.Change{By: "m.jansen", Why: "CHG-1"}

// crm is a CRM's folder with a registry and the keys of its controllers.
type crm struct {
	*registry.Registry
	t        testing.TB
	dir      string
	path     string // of the registry
	registry registry.Options
	now      time.Time
	root     *keys.Signer
	key      *keys.Signer
	serial   uint64
	ended    error // why nothing may be signed
	mu       sync.Mutex
	peppers  map[string]*keys.Pepper
}

var quiet = slog.New(slog.DiscardHandler)

func newCRM(t testing.TB) *crm {
	t.Helper()
	c := &crm{t: t, dir: t.TempDir(), now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC), root: newSigner(t), key: newSigner(t), serial: 1, peppers: make(map[string]*keys.Pepper)}
	secret := make([]byte, 32)
	rand.Read(secret)
	sealer, err := keys.NewSealer(secret, "registry")
	if err != nil {
		t.Fatal(err)
	}
	c.path = filepath.Join(c.dir, registry.FileName)
	c.registry = registry.Options{Index: newPepper(t), Sealer: sealer, Formats: badge.Builtin(), Clock: func() time.Time { return c.now }}
	c.Registry, err = registry.Open(t.Context(), c.path, c.registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"north-1", "south-1"} {
		c.peppers[name] = newPepper(t)
	}
	return c
}

func newPepper(t testing.TB) *keys.Pepper {
	t.Helper()
	p, err := keys.ParsePepper(keys.GeneratePepper())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newSigner(t testing.TB) *keys.Signer {
	t.Helper()
	pem, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.ParseSigner(pem, keys.TypeManifest)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// staffed has the doors front and lab of north-1 and store of south-1, a group for
// each, and people p-1 to p-n of the group front with the cards 1 to n.
func staffed(t testing.TB, n int) *crm {
	t.Helper()
	c := newCRM(t)
	for _, d := range []registry.Door{{Name: "front", Controller: "north-1"}, {Name: "lab", Controller: "north-1"}, {Name: "store", Controller: "south-1"}} {
		c.must(c.Doors.Create(t.Context(), by, d))
		c.must(c.Groups.Create(t.Context(), by, registry.Group{Name: d.Name, Rights: []registry.Right{{Door: d.Name, Schedule: access.AlwaysName}}}))
	}
	for i := 1; i <= n; i++ {
		c.add(i, "front")
	}
	return c
}

// must ends the test where there is an error.
func (c *crm) must(_ any, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func person(i int) string { return fmt.Sprintf("p-%d", i) }

func (c *crm) add(i int, groups ...string) {
	c.t.Helper()
	c.must(c.People.Create(c.t.Context(), by, registry.Person{ID: person(i), Name: fmt.Sprintf("Person %d", i), Kind: access.Staff, Groups: groups}))
	card := registry.Credential{ID: fmt.Sprintf("c-%d", i), Person: person(i), State: access.Active}
	card.SetCard(badge.Credential{Format: "H10301", Facility: 12, Number: uint64(i)})
	c.must(c.Credentials.Create(c.t.Context(), by, card))
}

func (c *crm) groups(i int, groups ...string) {
	c.t.Helper()
	c.must(c.People.Update(c.t.Context(), by, person(i), 0, func(p *registry.Person) error {
		p.Groups = groups
		return nil
	}))
}

func (c *crm) state(i int, s access.State) {
	c.t.Helper()
	c.must(c.Credentials.Update(c.t.Context(), by, fmt.Sprintf("c-%d", i), 0, func(v *registry.Credential) error {
		v.State = s
		return nil
	}))
}

func (c *crm) leave(i int) {
	c.t.Helper()
	c.must(c.Leave(c.t.Context(), by, person(i), 0))
}

func (c *crm) options() Options {
	return Options{
		Dir: c.dir, Registry: c.Registry, Unknown: registry.ErrNoDoors, Forgotten: registry.ErrForgotten,
		Clock:       func() time.Time { return c.now },
		Controllers: func(context.Context) ([]string, error) { return slices.Collect(maps.Keys(c.peppers)), nil },
		Secret: func(name string) (Secret, error) {
			blobs, err := c.peppers[name].Blobs()
			return Secret{c.peppers[name], blobs}, err
		},
		Authority: func() (*Authority, error) {
			if c.ended != nil {
				return nil, c.ended
			}
			cert, err := keys.CertifyPolicyKey(c.root, c.key.JWK(), c.serial, c.now, c.now.Add(24*time.Hour))
			if err != nil {
				return nil, err
			}
			fresh, err := c.key.As(keys.TypeFresh)
			return &Authority{KeyID: fmt.Sprintf("%s.%d", c.key.KeyID(), c.serial), JWS: []string{cert}, Manifests: c.key, Fresh: fresh}, err
		},
	}
}

func (c *crm) publisher(change ...func(*Options)) *Publisher {
	c.t.Helper()
	o := c.options()
	for _, f := range change {
		f(&o)
	}
	p, err := Open(c.t.Context(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return p
}

func (c *crm) make(p *Publisher, controller string, scope Scope) Made {
	c.t.Helper()
	m, err := p.Make(c.t.Context(), controller, scope, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// manifest is the one that would be sent now.
func (c *crm) manifest(p *Publisher, controller string) *wire.Manifest {
	c.t.Helper()
	v, err := readPublished(c.t.Context(), p.store.r, controller)
	if err != nil {
		c.t.Fatal(err)
	}
	verifier, err := c.key.Verifier(keys.TypeManifest)
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := wire.OpenManifest(v.manifest, verifier)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// state is what a controller has.
type state struct {
	version uint64
	policy  string
	rows    map[[16]byte]string
}

// follow brings a controller's state to a manifest's version, from the blobs' files.
func (c *crm) follow(p *Publisher, m *wire.Manifest, have state) state {
	c.t.Helper()
	blobs, err := c.peppers[m.Controller].Blobs()
	if err != nil {
		c.t.Fatal(err)
	}
	now := state{have.version, have.policy, maps.Clone(have.rows)}
	for _, b := range m.Path(have.version) {
		r, closeFile, err := p.read(Secret{c.peppers[m.Controller], blobs}, m.Controller, b)
		if err != nil {
			c.t.Fatal(err)
		}
		if b.From == 0 {
			now.rows = make(map[[16]byte]string)
		}
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				c.t.Fatal(err)
			}
			if row.Entry == nil {
				delete(now.rows, row.Key)
			} else {
				now.rows[row.Key] = string(row.Entry)
			}
		}
		if r.Policy() != nil {
			now.policy = string(r.Policy())
		}
		now.version = b.To
		if err := closeFile(); err != nil {
			c.t.Fatal(err)
		}
	}
	if now.version != m.Version || uint64(len(now.rows)) != m.Count {
		c.t.Fatalf("version %d with %d rows, the manifest says version %d with %d", now.version, len(now.rows), m.Version, m.Count)
	}
	return now
}

// said is what the registry says of a controller, with the profiles' numbers of
// what was published.
func (c *crm) said(p *Publisher, controller string) state {
	c.t.Helper()
	v, err := readPublished(c.t.Context(), p.store.r, controller)
	if err != nil {
		c.t.Fatal(err)
	}
	profiles, err := p.store.profiles(c.t.Context(), v.list)
	if err != nil {
		c.t.Fatal(err)
	}
	b := allowlist.NewBuilder(c.peppers[controller], sources(profiles))
	s := state{v.version, "", make(map[[16]byte]string)}
	words, _, err := c.Publish(c.t.Context(), controller, 0, func(h *allowlist.Holder) error {
		rows, err := b.Rows(h)
		for _, r := range rows {
			s.rows[r.Key] = string(r.Entry)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	rights, err := c.Rights(c.t.Context(), controller, b.Profiles())
	if err != nil {
		c.t.Fatal(err)
	}
	for source, r := range rights {
		if err := b.Define(source, r); err != nil {
			c.t.Fatal(err)
		}
	}
	document, err := b.Policy(words)
	if err != nil {
		c.t.Fatal(err)
	}
	s.policy = string(document)
	return s
}

// key is that under which a controller finds a person's card.
func (c *crm) cardKey(controller string, i int) [16]byte {
	card := badge.Credential{Format: "H10301", Facility: 12, Number: uint64(i)}
	return c.peppers[controller].Index(card.Canonical())
}

func wantState(t interface {
	Helper()
	Fatalf(string, ...any)
}, got, want state) {
	t.Helper()
	if got.version != want.version || got.policy != want.policy || !maps.Equal(got.rows, want.rows) {
		t.Fatalf("version %d, %d rows, policy %s\nwant version %d, %d rows, policy %s", got.version, len(got.rows), got.policy, want.version, len(want.rows), want.policy)
	}
}
