package figures

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
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
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"golang.org/x/sync/errgroup"
)

// crowd is a site's controllers that are only simulated: each has keys, a pepper, a
// certificate and a connection of its own and follows the allowlist as the daemon
// does, but keeps it in memory and has neither doors nor records.
type crowd struct {
	site     *rig.Site
	registry *registry.Registry
	all      []*simulated

	mu    sync.Mutex
	moved chan struct{} // closed and made anew when one of them has moved on
}

var by = registry.Change{By: "m.jansen", Why: "CHG-1042"}

// openRegistry opens the registry of a site as the programs do.
func openRegistry(b *testing.B, s *rig.Site) *registry.Registry {
	b.Helper()
	_, k := crmKeys(b, s)
	r, err := registry.Open(b.Context(), filepath.Join(s.CRMDir(), registry.FileName),
		registry.Options{Index: k.Pepper, Sealer: k.Registry, Formats: badge.Builtin(), Clock: time.Now})
	must(b, err)
	b.Cleanup(func() { must(b, r.Close()) })
	return r
}

func crmKeys(b *testing.B, s *rig.Site) (*pki.Site, *keys.CRMKeys) {
	b.Helper()
	site, err := pki.ReadSite(s.CRMDir())
	must(b, err)
	k, err := keys.LoadCRM(keys.File(pki.KeysDir(s.CRMDir())), site.Cosigner.Name())
	must(b, err)
	return site, k
}

// gather approves n controllers with a door each, while the CRM does not run. The
// registry is there: a command has made it.
func gather(b *testing.B, s *rig.Site, n int) *crowd {
	b.Helper()
	c := &crowd{site: s, registry: openRegistry(b, s), moved: make(chan struct{})}
	site, k := crmKeys(b, s)
	store, err := central.Open(b.Context(), filepath.Join(s.CRMDir(), "central.db"), central.Options{ParseKey: parseRecordKey})
	must(b, err)
	ca, err := pki.ReadCertificates(s.CRMDir())
	must(b, err)
	receipts, err := site.Cosigner.Receipts()
	must(b, err)
	for i := range n {
		m := &simulated{crowd: c, name: fmt.Sprintf("sim-%d", i), receipts: receipts, announce: make(chan struct{}, 1)}
		m.enrol(b, site, k, store, ca.CA)
		c.all = append(c.all, m)
		_, err := c.registry.Doors.Create(b.Context(), by, registry.Door{Name: m.door(), Controller: m.name})
		must(b, err)
	}
	must(b, store.Close())
	return c
}

func parseRecordKey(jwk []byte) (central.Key, error) {
	k, err := keys.ParseJWK(jwk)
	if err != nil {
		return nil, err
	}
	return keys.NewVerifier(k, keys.TypeRecord)
}

// run connects them all until the benchmark ends.
func (c *crowd) run(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	g := new(errgroup.Group)
	for _, m := range c.all {
		g.Go(func() error { return m.conn.Run(ctx) })
		g.Go(func() error { return m.follower.Run(ctx) })
		g.Go(func() error { m.receive(ctx); return nil })
		g.Go(func() error { m.tell(ctx); return nil })
	}
	b.Cleanup(func() {
		cancel()
		must(b, g.Wait())
	})
}

// move tells that one of them has moved on.
func (c *crowd) move() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.moved)
	c.moved = make(chan struct{})
}

// until waits until all of them are so.
func (c *crowd) until(b *testing.B, patience time.Duration, what string, ok func(*simulated) bool) {
	b.Helper()
	timeout := time.After(patience)
	for left := c.all; ; {
		c.mu.Lock()
		moved := c.moved
		c.mu.Unlock()
		left = slices.DeleteFunc(slices.Clone(left), ok)
		if len(left) == 0 {
			return
		}
		select {
		case <-moved:
		case <-timeout:
			b.Fatalf("after %v %d of %d simulated controllers are not so: %s. The first: %s", patience, len(left), len(c.all), what, left[0].words())
		}
	}
}

// simulated is one controller. It is the source that its follower keeps.
type simulated struct {
	crowd    *crowd
	name     string
	keys     *keys.ControllerKeys
	epoch    string // of its log, which is empty
	session  string
	receipts *keys.Verifier
	conn     *mqtt.Conn
	follower *follower.Follower
	announce chan struct{}

	mu       sync.Mutex
	list     list
	applied  map[uint64]time.Time // when each version was in use
	number   uint64               // of the newest state
	told     map[string]uint64    // version that a state named, until it is answered
	answered uint64               // version that the CRM has a state of
}

// list is an allowlist in memory.
type list struct {
	version    uint64
	generation string
	created    time.Time
	policy     []byte
	rows       map[[16]byte][]byte
}

func (m *simulated) door() string { return "d-" + m.name }

func newID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// enrol makes its keys and has them approved. What a controller keeps in files is in
// memory here.
func (m *simulated) enrol(b *testing.B, site *pki.Site, k *keys.CRMKeys, store *central.Store, ca *x509.Certificate) {
	b.Helper()
	dir := m.crowd.site.CRMDir()
	m.keys = new(keys.ControllerKeys)
	text, err := keys.GenerateKey(keys.ES256)
	must(b, err)
	m.keys.Log, err = keys.ParseSigner(text, keys.TypeRecord)
	must(b, err)
	text, err = keys.GenerateKey(keys.ES256)
	must(b, err)
	m.keys.TLS, err = keys.ParsePrivateKey(text)
	must(b, err)
	text, err = keys.GenerateIdentity()
	must(b, err)
	m.keys.Identity, err = keys.ParseIdentity(text)
	must(b, err)
	file, err := pki.NewRequest(m.name, m.keys)
	must(b, err)
	request, err := pki.ParseRequest(file)
	must(b, err)
	_, approved, err := site.Approve(dir, k, request, pki.ApproveOptions{PolicyAuthority: pki.PolicyFromCRM, Now: time.Now()})
	must(b, err)
	vkey, err := keys.VKey("gatehouse/"+m.name, approved.Log)
	must(b, err)
	jwk, err := json.Marshal(approved.Log)
	must(b, err)
	must(b, store.Approve(b.Context(), central.Controller{Name: m.name, JWK: jwk, VKey: vkey, Fingerprint: approved.Certificate, Approved: approved.Approved}))
	m.keys.Pepper, err = pki.ReadPepper(dir, m.name)
	must(b, err)
	blobs, err := m.keys.Pepper.Blobs()
	must(b, err)
	own, err := pki.ReadIssued(dir, m.name)
	must(b, err)

	m.epoch, m.session = newID(), newID()
	m.applied, m.told = make(map[uint64]time.Time), make(map[string]uint64)
	m.follower, err = follower.New(follower.Options{
		Controller: m.name,
		Authority:  func(jws []string) (*keys.PolicyKey, error) { return keys.OpenPolicyKey(site.PolicyRoot, jws) },
		Generation: m.keys.Pepper.Generation(), Blobs: blobs, Source: m, Clock: trueClock{},
		Publisher: m, Applied: m.tellSoon, Spool: filepath.Join(m.crowd.site.Dir, "spool", m.name),
	})
	must(b, err)
	will, err := m.state(false).Marshal()
	must(b, err)
	topic, err := wire.Topic(m.name, wire.KindState)
	must(b, err)
	down, err := wire.DownFilter(m.name)
	must(b, err)
	pair := tls.Certificate{Certificate: [][]byte{own.Raw}, PrivateKey: m.keys.TLS.Signer()}
	config := pki.ClientTLS(pair, ca, "localhost", time.Now)
	m.conn, err = mqtt.New(mqtt.Config{
		Broker: m.crowd.site.URL(), ClientID: m.name, TLS: func() (*tls.Config, error) { return config, nil },
		Will: mqtt.Will{Topic: topic, Payload: will}, Subscriptions: []string{down},
		OnConnect: func(context.Context) {
			m.follower.Connected()
			m.tellSoon()
			m.crowd.move()
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	must(b, err)
}

// trueClock is one that something vouches for.
type trueClock struct{}

func (trueClock) Passed() time.Time { return time.Now() }
func (trueClock) Floor() time.Time  { return time.Time{} }

// Publish publishes for the follower.
func (m *simulated) Publish(ctx context.Context, topic string, payload []byte, retained bool) error {
	return m.conn.Publish(ctx, topic, payload, retained)
}

// receive takes what the CRM sends.
func (m *simulated) receive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-m.conn.Messages():
			_, kind, err := wire.ParseTopic(msg.Topic)
			switch {
			case err != nil:
			case kind == wire.KindReceipt:
				m.hear(string(msg.Payload))
			default:
				m.follower.Handle(kind, msg.Payload)
			}
		}
	}
}

// hear takes the CRM's answer to a state.
func (m *simulated) hear(jws string) {
	r, err := wire.OpenReceipt(jws, m.receipts)
	if err != nil || r.Controller != m.name {
		return
	}
	m.mu.Lock()
	if version, ok := m.told[r.State]; ok {
		m.answered = max(m.answered, version)
		delete(m.told, r.State)
	}
	m.mu.Unlock()
	m.crowd.move()
}

func (m *simulated) tellSoon() {
	select {
	case m.announce <- struct{}{}:
	default:
	}
}

// tell says what is in use, after each connection and each change, and again where
// the CRM does not answer.
func (m *simulated) tell(ctx context.Context) {
	topic, err := wire.Topic(m.name, wire.KindState)
	if err != nil {
		panic(err) // its name was accepted before
	}
	again := time.NewTicker(stateAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.announce:
		case <-again.C:
			if m.settled() {
				continue
			}
		}
		s := m.state(true)
		payload, err := s.Marshal()
		if err != nil {
			panic(err)
		}
		m.mu.Lock()
		m.told[s.Name()] = s.PolicyVersion
		m.mu.Unlock()
		// Where that fails, a new connection or the ticker brings it again.
		_ = m.conn.Publish(ctx, topic, payload, wire.KindState.Retained())
	}
}

// stateAgain is after how long a state that was not answered is sent again, which is
// what a controller does.
const stateAgain = 15 * time.Second

func (m *simulated) state(online bool) *wire.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &wire.State{V: wire.Version, Controller: m.name, Online: online, Session: m.session}
	if online {
		m.number++
		s.Number, s.Epoch, s.Time, s.PolicyVersion = m.number, m.epoch, time.Now().UTC(), m.list.version
	}
	return s
}

// settled says that the CRM knows what is in use.
func (m *simulated) settled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answered > 0 && m.answered == m.list.version
}

// Newest is what is in use.
func (m *simulated) Newest() (version uint64, generation string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list.version, m.list.generation
}

// Apply puts an update in force.
func (m *simulated) Apply(_ context.Context, u allowlist.Update) error {
	m.mu.Lock()
	next := m.list
	m.mu.Unlock()
	if next.rows = maps.Clone(next.rows); u.From == 0 || next.rows == nil {
		next.rows = make(map[[16]byte][]byte)
	}
	for _, open := range u.Changes {
		changes, err := open()
		if err != nil {
			return err
		}
		for {
			row, err := changes.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if row.Entry == nil {
				delete(next.rows, row.Key)
			} else {
				next.rows[row.Key] = slices.Clone(row.Entry)
			}
		}
		if p := changes.Policy(); p != nil {
			next.policy = slices.Clone(p)
		}
	}
	if u.Count >= 0 && u.Count != int64(len(next.rows)) {
		return fmt.Errorf("%w: %d rows, want %d", allowlist.ErrUnfit, len(next.rows), u.Count)
	}
	next.version, next.generation, next.created = u.Version, u.Generation, u.Created
	m.mu.Lock()
	m.list = next
	m.applied[u.Version] = time.Now()
	m.mu.Unlock()
	m.crowd.move()
	return nil
}

// Confirm does nothing: an age is not asked for here.
func (m *simulated) Confirm(uint64, time.Time, time.Time) {}

// Raise does nothing: what is in memory is never restored.
func (m *simulated) Raise(uint64) {}

func (m *simulated) words() string {
	m.mu.Lock()
	version, answered := m.list.version, m.answered
	m.mu.Unlock()
	c := m.conn.Status()
	return fmt.Sprintf("%s uses version %d, the CRM knows of %d, connected: %v (%s); %+v", m.name, version, answered, c.Connected, c.LastError, m.follower.Status())
}

// at is a door that has been given what the controller has, as the daemon serves it.
func (m *simulated) at(b *testing.B) *allowlist.Source {
	b.Helper()
	m.mu.Lock()
	l := m.list
	m.mu.Unlock()
	sealer, err := keys.ParseSeal(keys.GenerateSeal(), "allowlist")
	must(b, err)
	s := allowlist.OpenSource(b.Context(), allowlist.SourceOptions{
		Path: filepath.Join(b.TempDir(), allowlist.FileName), Keys: allowlist.Keys{Index: m.keys.Pepper, Sealer: sealer},
		Clock: knownClock{}, Logger: slog.New(slog.DiscardHandler), Ladder: allowlist.Ladder{StaleAfter: time.Hour, ExpiredAfter: 24 * time.Hour},
	})
	must(b, s.Apply(b.Context(), allowlist.Update{Version: l.version, Created: l.created, Generation: l.generation, Count: int64(len(l.rows)),
		Changes: []func() (allowlist.Changes, error){func() (allowlist.Changes, error) { return newReplay(&l), nil }}}))
	return s
}

// refuses holds a door of each of some controllers to what became of two cards.
func (c *crowd) refuses(b *testing.B, some []*simulated, gone, stays badge.Credential) {
	b.Helper()
	for _, m := range some {
		s := m.at(b)
		for card, want := range map[badge.Credential]access.State{gone: access.Revoked, stays: access.Active} {
			if e, err := s.Lookup(card); err != nil || e == nil || e.State != want {
				b.Fatalf("%s: card %d is %+v, want it %s: %v", m.name, card.Number, e, want, err)
			}
		}
		must(b, s.Close())
	}
}

type knownClock struct{}

func (knownClock) Now() (time.Time, access.ClockState) { return time.Now(), access.ClockSynchronised }
func (knownClock) Uptime() time.Duration               { return time.Hour }

// replay gives the rows of a list again, in the order of their keys.
type replay struct {
	list *list
	keys [][16]byte
}

func newReplay(l *list) *replay {
	return &replay{l, slices.SortedFunc(maps.Keys(l.rows), func(a, b [16]byte) int { return slices.Compare(a[:], b[:]) })}
}

// Policy is the policy's document.
func (r *replay) Policy() []byte { return r.list.policy }

// Next returns the next row.
func (r *replay) Next() (allowlist.Row, error) {
	if len(r.keys) == 0 {
		return allowlist.Row{}, io.EOF
	}
	key := r.keys[0]
	r.keys = r.keys[1:]
	return allowlist.Row{Key: key, Entry: r.list.rows[key]}, nil
}
