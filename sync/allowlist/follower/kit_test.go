package follower

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const controller = "north-1"

// clockwork is the controller's clock.
type clockwork struct {
	mu    sync.Mutex
	state access.ClockState
	floor time.Time
}

func (c *clockwork) Now() (time.Time, access.ClockState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == access.ClockUnset {
		return time.Unix(0, 0), c.state
	}
	return time.Now(), c.state
}

func (c *clockwork) Uptime() time.Duration { return time.Since(time.Unix(0, 0)) }

func (c *clockwork) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.floor
}

func (c *clockwork) Passed() time.Time {
	now, state := c.Now()
	if floor := c.Floor(); state == access.ClockUnset || floor.After(now) {
		return floor
	}
	return now
}

// site is a controller and its CRM, with nothing but a function call between them.
type site struct {
	t      testing.TB
	dir    string
	clock  *clockwork
	pepper *keys.Pepper
	blobs  *keys.Sealer
	src    *allowlist.Source
	f      *Follower
	stop   func()

	// The controller's own.
	certified []*keys.PolicyKey
	told      atomic.Int64 // that something is in use
	recorded  []string

	// The CRM.
	root, key *keys.Signer
	authority []string
	b         *allowlist.Builder
	version   uint64
	rows      map[[16]byte][]byte
	deltas    []wire.Blob
	parts     map[string][][]byte // by blob

	mu      sync.Mutex
	fetched []wire.Fetch
	answer  func(wire.Part) (deliver bool) // nil: all are delivered
	down    bool
}

func newSigner(t testing.TB, typ string) *keys.Signer {
	t.Helper()
	b, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.ParseSigner(b, typ)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newSite is to be called within a bubble of synctest.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), clock: &clockwork{state: access.ClockSynchronised},
		root: newSigner(t, keys.TypePolicy), key: newSigner(t, keys.TypeManifest),
		rows: make(map[[16]byte][]byte), parts: make(map[string][][]byte)}
	var err error
	if s.pepper, err = keys.ParsePepper(keys.GeneratePepper()); err != nil {
		t.Fatal(err)
	}
	if s.blobs, err = s.pepper.Blobs(); err != nil {
		t.Fatal(err)
	}
	s.b = allowlist.NewBuilder(s.pepper, nil)
	s.authority = []string{s.certificate(1)}
	sealer, err := keys.ParseSeal(keys.GenerateSeal(), "allowlist")
	if err != nil {
		t.Fatal(err)
	}
	s.src = allowlist.OpenSource(context.Background(), allowlist.SourceOptions{
		Path: filepath.Join(s.dir, allowlist.FileName), Keys: allowlist.Keys{Index: s.pepper, Sealer: sealer},
		Clock: s.clock, Logger: quiet,
		Ladder: allowlist.Ladder{StaleAfter: time.Hour, ExpiredAfter: 24 * time.Hour},
	})
	s.start(Options{})
	t.Cleanup(func() {
		s.stop()
		if err := s.src.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// start starts the follower, with what is given and else with what fits.
func (s *site) start(o Options) {
	s.t.Helper()
	if s.stop != nil {
		s.stop()
	}
	root := s.root.JWK()
	o.Controller, o.Generation, o.Blobs, o.Publisher, o.Clock = controller, s.pepper.Generation(), s.blobs, s, s.clock
	o.Authority = func(jws []string) (*keys.PolicyKey, error) { return keys.OpenPolicyKey(root, jws) }
	o.Certified = func(k *keys.PolicyKey) error { s.certified = append(s.certified, k); return nil }
	o.Refused = func(_ context.Context, why Refusal, detail string, more uint64) error {
		s.recorded = append(s.recorded, fmt.Sprintf("%s +%d", why, more))
		if detail == "" {
			s.t.Error("refused without a reason")
		}
		return nil
	}
	o.Applied = func() { s.told.Add(1) }
	o.Spool = filepath.Join(s.dir, "parts")
	if o.Source == nil {
		o.Source = s.src
	}
	f, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	s.f = f
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

// certificate is of the policy key, by the root.
func (s *site) certificate(serial uint64) string {
	s.t.Helper()
	now := time.Now()
	jws, err := keys.CertifyPolicyKey(s.root, s.key.JWK(), serial, now.Add(-time.Hour), now.Add(365*24*time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	return jws
}

var errDown = errors.New("not connected")

// Publish is the broker with the CRM behind it.
func (s *site) Publish(_ context.Context, topic string, payload []byte, retained bool) error {
	if want, _ := wire.Topic(controller, wire.KindFetch); topic != want || retained {
		s.t.Errorf("published on %q, retained: %v", topic, retained)
	}
	f, err := wire.ParseFetch(payload)
	if err != nil {
		s.t.Error(err)
		return err
	}
	s.mu.Lock()
	s.fetched = append(s.fetched, *f)
	answer, down := s.answer, s.down
	s.mu.Unlock()
	if down {
		return errDown
	}
	for _, n := range f.Parts {
		p := wire.Part{Blob: f.Blob, Number: n, Sealed: s.parts[f.Blob][n]}
		if answer == nil || answer(p) {
			s.deliver(wire.KindChunk, p)
		}
	}
	return nil
}

func (s *site) deliver(kind wire.Kind, p wire.Part) {
	s.t.Helper()
	b, err := p.Marshal()
	if err != nil {
		s.t.Error(err)
	}
	s.f.Handle(kind, b)
}

// set has the CRM answer in another way.
func (s *site) set(down bool, answer func(wire.Part) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.answer = down, answer
}

// asked are the parts that were asked for since it was last called.
func (s *site) asked() (parts []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fetched {
		parts = append(parts, f.Parts...)
	}
	s.fetched = nil
	return parts
}

func h10301(number uint64) badge.Credential {
	return badge.Credential{Format: "H10301", Facility: 9, Number: number}
}

// change makes a new version, and the delta that brings it.
func (s *site) change(state access.State, numbers ...uint64) {
	s.t.Helper()
	rows := make(map[[16]byte][]byte)
	for _, n := range numbers {
		card := h10301(n)
		made, err := s.b.Rows(&allowlist.Holder{
			Entry: access.Entry{Person: fmt.Sprintf("p-%d", n), Kind: access.Staff}, Name: name(n),
			Source: "lab", Rights: []allowlist.Right{{Door: "lab", Schedule: access.AlwaysName}},
			Credentials: []allowlist.Held{{Card: &card, State: state, Removed: state == ""}},
		})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range made {
			if rows[r.Key] = r.Entry; r.Entry == nil {
				delete(s.rows, r.Key)
			} else {
				s.rows[r.Key] = r.Entry
			}
		}
	}
	s.version++
	if s.version > 1 {
		s.deltas = append(s.deltas, s.blob(rows, s.version-1))
	}
}

// blob makes a blob of rows that leads from a version to the present one.
func (s *site) blob(rows map[[16]byte][]byte, from uint64) wire.Blob {
	s.t.Helper()
	policy, err := s.b.Policy(allowlist.Rules{})
	if err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	w := wire.NewBlobWriter(&out, s.blobs, controller, from, s.version)
	if err := w.Policy(policy); err != nil {
		s.t.Fatal(err)
	}
	order := slices.SortedFunc(maps.Keys(rows), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, removed := range []bool{true, false} {
		for _, key := range order {
			if (rows[key] == nil) == removed {
				if err := w.Row(wire.Row{Key: key, Entry: rows[key]}); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
	b, err := w.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	for sealed := range slices.Chunk(out.Bytes(), wire.MaxPart) {
		s.parts[b.ID] = append(s.parts[b.ID], bytes.Clone(sealed))
	}
	return b
}

// manifest is of the present version.
func (s *site) manifest() *wire.Manifest {
	s.t.Helper()
	now := time.Now().UTC()
	return &wire.Manifest{
		V: wire.Version, Controller: controller, Version: s.version, Created: now, Expires: now.Add(30 * 24 * time.Hour),
		Generation: s.pepper.Generation(), Count: uint64(len(s.rows)), Snapshot: s.blob(s.rows, 0), Deltas: append([]wire.Blob{}, s.deltas...),
	}
}

func (s *site) token() *wire.Fresh {
	now := time.Now().UTC()
	return &wire.Fresh{V: wire.Version, Controller: controller, Version: s.version, Time: now, Until: now.Add(5 * time.Minute)}
}

// publication signs a manifest and a token.
func (s *site) publication(m *wire.Manifest, f *wire.Fresh) *wire.Publication {
	s.t.Helper()
	p := &wire.Publication{V: wire.Version, Controller: controller, Authority: s.authority}
	var err error
	if p.Manifest, err = m.Sign(s.key); err != nil {
		s.t.Fatal(err)
	}
	tokens, err := s.key.As(keys.TypeFresh)
	if err != nil {
		s.t.Fatal(err)
	}
	if p.Fresh, err = f.Sign(tokens); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// publish sends a publication and waits until nothing is left to do with it.
func (s *site) publish(p *wire.Publication) {
	s.t.Helper()
	b, err := p.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	s.f.Handle(wire.KindManifest, b)
	synctest.Wait()
}

// current publishes the present version.
func (s *site) current() { s.t.Helper(); s.publish(s.publication(s.manifest(), s.token())) }

// inForce holds what the doors know to what the CRM has.
func (s *site) inForce(version uint64) {
	s.t.Helper()
	if have, _ := s.src.Newest(); have != version {
		s.t.Fatalf("version %d is in use, want %d: %+v", have, version, s.f.Status())
	}
	if st := s.src.Status(time.Now()); version == s.version && st.Credentials != uint64(len(s.rows)) {
		s.t.Fatalf("%d credentials, want %d", st.Credentials, len(s.rows))
	}
}

func (s *site) wantState(number uint64, want access.State) {
	s.t.Helper()
	e, err := s.src.Lookup(h10301(number))
	if err != nil {
		s.t.Fatal(err)
	}
	if e == nil && want != "" || e != nil && e.State != want {
		s.t.Errorf("card %d: %+v, want %q", number, e, want)
	}
}

func (s *site) wantRefused(want map[Refusal]uint64) {
	s.t.Helper()
	if got := s.f.Status().Refused; !maps.Equal(got, want) {
		s.t.Errorf("refused %v, want %v (%s)", got, want, s.f.Status().LastRefusal)
	}
}

// name is long, and not to be compressed.
func name(n uint64) string {
	b := make([]byte, 1500)
	for i := range b {
		n = n*6364136223846793005 + 1442695040888963407
		b[i] = byte(n >> 56)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// many are so many cards that a snapshot of them has several parts.
func many() (numbers []uint64) {
	for n := range uint64(400) {
		numbers = append(numbers, n+1)
	}
	return numbers
}
