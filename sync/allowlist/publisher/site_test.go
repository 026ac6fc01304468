package publisher

import (
	"bytes"
	"context"
	"crypto/tls"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/gatehouse-acs/gatehouse/sync/broker"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// site is a CRM with the broker inside and TLS, whose doors are controllers with a
// real end of the sync.
type site struct {
	*crm
	site   *pki.Site
	keys   *keys.CRMKeys
	addr   string // of the broker
	ahead  atomic.Int64
	p      *Publisher
	conn   *mqtt.Conn
	stop   func() // the CRM: its publisher and its connection
	broker func() // stops the broker
}

func newSite(t *testing.T, people int) *site {
	t.Helper()
	t.Parallel()
	s := &site{crm: staffed(t, people)}
	s.crm.now = time.Now()
	var err error
	if s.site, err = pki.InitSite(filepath.Join(s.dir, "site"), pki.SiteOptions{Hosts: []string{"127.0.0.1"}, Timezone: "UTC", PolicyAuthority: pki.PolicyFromCRM, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	s.dir = filepath.Join(s.dir, "site")
	if s.keys, err = keys.LoadCRM(keys.File(pki.KeysDir(s.dir)), s.site.Cosigner.Name()); err != nil {
		t.Fatal(err)
	}
	s.peppers = make(map[string]*keys.Pepper)
	s.listen("127.0.0.1:0")
	s.start()
	t.Cleanup(func() {
		s.stop()
		s.broker()
	})
	return s
}

func (s *site) time() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// running starts something that runs until the function it returns is called.
func running(t testing.TB, run ...func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range run {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func (s *site) listen(addr string) {
	s.t.Helper()
	config, err := pki.BrokerTLS(s.dir, s.keys.Broker, time.Now)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := broker.Listen(broker.Config{Listen: addr, TLS: config})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.addr == "" { // a restarted one has the same
		s.addr = b.Addr().String()
	}
	s.broker = running(s.t, b.Run)
}

// dial makes a connection, whose messages go to handle.
func (s *site) dial(name string, config func() (*tls.Config, error), filter string, connected func(), handle func(wire.Message)) (*mqtt.Conn, func(context.Context) error) {
	s.t.Helper()
	conn, err := mqtt.New(mqtt.Config{
		Broker: "tls://" + s.addr, ClientID: name, TLS: config, Subscriptions: []string{filter},
		OnConnect: func(context.Context) { connected() }, MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return conn, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case m := <-conn.Messages():
				handle(m)
			}
		}
	}
}

// start starts the CRM's side.
func (s *site) start(change ...func(*Options)) {
	s.t.Helper()
	config := func() (*tls.Config, error) { return pki.CRMTLS(s.dir, s.keys.CRM, "tls://"+s.addr, time.Now) }
	var deal func(context.Context) error
	s.conn, deal = s.dial(wire.CRM, config, wire.UpFilter(), func() { s.p.Connected() }, func(m wire.Message) {
		controller, kind, err := wire.ParseTopic(m.Topic)
		if err != nil {
			s.t.Error(err)
			return
		}
		switch kind {
		case wire.KindFetch:
			s.p.Fetch(controller, m.Payload)
		case wire.KindState:
			v, err := wire.ParseState(m.Payload)
			if err != nil {
				s.t.Error(err)
				return
			}
			s.p.Report(controller, v.PolicyVersion)
		}
	})
	s.p = s.open(append(change, func(o *Options) { o.Sender, o.Look = s.conn, 10*time.Millisecond })...)
	stop := running(s.t, deal, s.conn.Run, s.p.Run)
	s.stop = func() {
		stop()
		if err := s.p.Close(); err != nil {
			s.t.Error(err)
		}
	}
}

// open opens another publisher, as a command beside the daemon does.
func (s *site) open(change ...func(*Options)) *Publisher {
	s.t.Helper()
	o := s.options()
	o.Clock = s.time
	o.Controllers = func(context.Context) ([]string, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		var names []string
		for name := range s.peppers {
			names = append(names, name)
		}
		return names, nil
	}
	o.Secret = func(controller string) (Secret, error) {
		pepper, err := pki.ReadPepper(s.dir, controller)
		if err != nil {
			return Secret{}, err
		}
		blobs, err := pepper.Blobs()
		return Secret{pepper, blobs}, err
	}
	o.Authority = func() (*Authority, error) {
		p, err := pki.OpenPolicy(s.dir, s.time())
		if err != nil {
			return nil, err
		}
		fresh, err := p.Signer.As(keys.TypeFresh)
		return &Authority{KeyID: p.JWK.KeyID, JWS: p.Authority, Manifests: p.Signer, Fresh: fresh}, err
	}
	for _, f := range change {
		f(&o)
	}
	p, err := Open(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// controller is a controller's end.
type controller struct {
	*site
	name   string
	dir    string
	keys   *keys.ControllerKeys
	trust  *pki.Trust
	source *allowlist.Source
	f      *follower.Follower
	conn   *mqtt.Conn
	stop   func()

	mu        sync.Mutex
	manifests [][]byte
	number    uint64
}

// join makes a controller, approved by the CRM, that follows it.
func (s *site) join(name string) *controller {
	s.t.Helper()
	c := &controller{site: s, name: name, dir: filepath.Join(s.t.TempDir(), name)}
	fatal := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	_, err := keys.InitController(pki.KeysDir(c.dir), keys.ES256)
	fatal(err)
	c.keys, err = keys.LoadController(keys.File(pki.KeysDir(c.dir)))
	fatal(err)
	_, err = pki.WriteRequest(c.dir, name, c.keys)
	fatal(err)
	request, err := pki.ReadRequest(c.dir)
	fatal(err)
	file, _, err := s.site.Approve(s.dir, s.keys, request, pki.ApproveOptions{Now: time.Now()})
	fatal(err)
	bundle, err := pki.ParseBundle(file)
	fatal(err)
	j, err := pki.Prepare(c.dir, bundle, time.Now())
	fatal(err)
	c.trust, err = j.Join(pki.Options{Fingerprint: bundle.Fingerprint()})
	fatal(err)
	c.keys, err = keys.LoadController(keys.File(pki.KeysDir(c.dir)))
	fatal(err)
	c.source = allowlist.OpenSource(s.t.Context(), allowlist.SourceOptions{
		Path: filepath.Join(c.dir, allowlist.FileName), Keys: allowlist.Keys{Index: c.keys.Pepper, Sealer: c.keys.Allowlist}, Clock: clock{s}, Logger: quiet,
	})
	c.start()
	s.t.Cleanup(func() {
		c.stop()
		if err := c.source.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.mu.Lock()
	s.peppers[name] = c.keys.Pepper
	s.mu.Unlock()
	return c
}

// clock is a controller's.
type clock struct{ *site }

func (c clock) Now() (time.Time, access.ClockState) { return c.time(), access.ClockSynchronised }
func (c clock) Uptime() time.Duration               { return time.Duration(time.Now().UnixNano()) }
func (c clock) Passed() time.Time                   { return c.time() }
func (c clock) Floor() time.Time                    { return time.Time{} }

// applying tells the CRM of each version that is applied, as the uplink does.
type applying struct {
	*allowlist.Source
	c *controller
}

func (a applying) Apply(ctx context.Context, u allowlist.Update) error {
	err := a.Source.Apply(ctx, u)
	if err == nil {
		a.c.report()
	}
	return err
}

func (c *controller) report() {
	version, _ := c.source.Newest()
	c.mu.Lock()
	c.number++
	number := c.number
	c.mu.Unlock()
	const id = "000102030405060708090a0b0c0d0e0f"
	payload, err := (&wire.State{V: wire.Version, Controller: c.name, Online: true, Session: id, Number: number, Epoch: id, PolicyVersion: version}).Marshal()
	if err != nil {
		c.t.Error(err)
		return
	}
	topic, err := wire.Topic(c.name, wire.KindState)
	if err != nil {
		c.t.Error(err)
		return
	}
	go c.conn.Publish(context.Background(), topic, payload, true) // a loss is made good by the next one
}

func (c *controller) start() {
	c.t.Helper()
	blobs, err := c.keys.Pepper.Blobs()
	if err != nil {
		c.t.Fatal(err)
	}
	filter, err := wire.DownFilter(c.name)
	if err != nil {
		c.t.Fatal(err)
	}
	config := func() (*tls.Config, error) { return pki.ControllerTLS(c.dir, c.keys.TLS, "tls://"+c.addr, time.Now) }
	var deal func(context.Context) error
	c.conn, deal = c.dial(c.name, config, filter, func() { c.f.Connected(); c.report() }, func(m wire.Message) {
		_, kind, err := wire.ParseTopic(m.Topic)
		if err != nil {
			c.t.Error(err)
			return
		}
		if kind == wire.KindManifest {
			c.mu.Lock()
			c.manifests = append(c.manifests, bytes.Clone(m.Payload))
			c.mu.Unlock()
		}
		c.f.Handle(kind, m.Payload)
	})
	c.f, err = follower.New(follower.Options{
		Controller: c.name, Generation: c.keys.Pepper.Generation(), Blobs: blobs, Source: applying{c.source, c}, Publisher: c.conn, Clock: clock{c.site},
		Authority: func(authority []string) (*keys.PolicyKey, error) {
			return keys.OpenPolicyKey(c.trust.PolicyRoot, authority)
		},
		Spool: filepath.Join(c.dir, "spool"), Logger: quiet,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.stop = running(c.t, deal, c.conn.Run, c.f.Run)
}

// await waits for something that is to become true.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// uses waits until the controller uses a version.
func (c *controller) uses(version uint64) {
	c.t.Helper()
	await(c.t, "the newest version is in use", func() bool {
		v, _ := c.source.Newest()
		return v >= version
	})
}

// card is how the controller knows somebody's card; "": it does not.
func (c *controller) card(i int) access.State {
	c.t.Helper()
	e, err := c.source.Lookup(badge.Credential{Format: "H10301", Facility: 12, Number: uint64(i)})
	if err != nil {
		c.t.Fatal(err)
	}
	if e == nil {
		return ""
	}
	return e.State
}

func (c *controller) heard() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.manifests)
}

func TestAChangeByAnotherProcessReachesTheDoorAndIsReported(t *testing.T) {
	s := newSite(t, 3)
	north := s.join("north-1")
	north.uses(1)
	if north.card(1) != access.Active {
		t.Fatalf("the card is %q", north.card(1))
	}
	await(t, "the controller has said that it uses version 1", func() bool {
		a, err := s.p.Applied(t.Context(), "north-1", 1)
		return err == nil && !a.At.IsZero()
	})
	left, err := s.beside(t).Leave(t.Context(), by, person(1), 0)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the leaver is revoked at the door", func() bool { return north.card(1) == access.Revoked })
	await(t, "the door has said so", func() bool {
		a, err := s.p.Applied(t.Context(), "north-1", left.Seq)
		return err == nil && !a.At.IsZero()
	})
	s.add(9, "front")
	await(t, "a new person is known at the door", func() bool { return north.card(9) == access.Active })
	if st := north.f.Status(); st.Snapshots != 1 || len(st.Refused) > 0 || st.Fetches != 1 {
		t.Errorf("%+v: want one fetch, of the snapshot; the deltas were pushed", st)
	}
	if f := s.p.Faults(); len(f) > 0 {
		t.Errorf("faults: %v", f)
	}
}

// beside is the registry as another process has it open.
func (s *site) beside(t *testing.T) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.Context(), s.path, s.registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestWhatACommandMakesTheDaemonSends(t *testing.T) {
	s := newSite(t, 2)
	s.stop()
	s.start(func(o *Options) { o.ByCommand = true })
	north := s.join("north-1")
	command := s.open()
	defer command.Close()
	if _, err := command.Make(t.Context(), "north-1", Everything, nil); err != nil {
		t.Fatal(err)
	}
	north.uses(1)
	s.add(3, "front")
	s.leave(1)
	await(t, "the leaver is revoked at the door", func() bool { return north.card(1) == access.Revoked })
	if north.card(3) != "" {
		t.Error("a new person is known without a command")
	}
	if _, err := command.Make(t.Context(), "north-1", Everything, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the new person is known at the door", func() bool { return north.card(3) == access.Active })
}

func TestYesterdaysManifestIsRefused(t *testing.T) {
	s := newSite(t, 2)
	north := s.join("north-1")
	north.uses(1)
	old := north.heard()[0]
	s.leave(1)
	await(t, "the leaver is revoked at the door", func() bool { return north.card(1) == access.Revoked })
	topic, err := wire.Topic("north-1", wire.KindManifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.conn.Publish(t.Context(), topic, old, true); err != nil {
		t.Fatal(err)
	}
	await(t, "the old manifest is refused", func() bool { return north.f.Status().Refused[follower.Downgrade] > 0 })
	if north.card(1) != access.Revoked {
		t.Error("yesterday's manifest let the leaver in again")
	}
}

func TestAControllerThatWasAwayForFortyDaysIsBroughtUpToDate(t *testing.T) {
	s := newSite(t, 3)
	north := s.join("north-1")
	north.uses(1)
	north.stop()
	for i := range 4 {
		s.add(100+i, "front")
		if _, err := s.p.Make(t.Context(), "north-1", Everything, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.compactNow(s.p, "north-1") // there is another snapshot now
	s.leave(1)
	s.ahead.Store(int64(40 * 24 * time.Hour))
	var last uint64
	await(t, "the CRM has published the last change", func() bool {
		v, err := readPublished(t.Context(), s.p.store.r, "north-1")
		last = v.version
		head, errHead := s.Changes(t.Context())
		return err == nil && errHead == nil && v.head >= head && v.expires.After(s.time())
	})
	north.start()
	north.uses(last)
	if north.card(1) != access.Revoked || north.card(2) != access.Active || north.card(100) != access.Active {
		t.Errorf("cards: leaver %q, staff %q, new %q", north.card(1), north.card(2), north.card(100))
	}
	if p := north.source.Policy(s.time()); p.Freshness != access.Fresh {
		t.Errorf("the list is %v", p.Freshness)
	}
}

func TestAfterABrokersRestartAllAreToldAgain(t *testing.T) {
	s := newSite(t, 2)
	north, south := s.join("north-1"), s.join("south-1")
	north.uses(1)
	south.uses(1)
	heard := len(north.heard())
	s.broker()
	s.add(7, "front")
	s.add(8, "store")
	s.listen(s.addr)
	await(t, "north-1 has heard of it", func() bool { return north.card(7) == access.Active && len(north.heard()) > heard })
	await(t, "south-1 has heard of it", func() bool { return south.card(8) == access.Active })
	if south.card(7) != "" || north.card(8) != "" {
		t.Error("a controller is told of somebody who has no right there")
	}
}

func TestARotatedRootIsFollowed(t *testing.T) {
	s := newSite(t, 2)
	north := s.join("north-1")
	north.uses(1)
	if _, _, err := s.site.RotatePolicyRoot(s.dir, s.keys, s.time(), time.Hour); err != nil {
		t.Fatal(err)
	}
	s.leave(1)
	await(t, "the leaver is revoked at the door", func() bool { return north.card(1) == access.Revoked })
	if k := north.f.PolicyKey(); k == nil || k.Root.KeyID == north.trust.PolicyRoot.KeyID {
		t.Error("the root is the one before still")
	}
}

func TestAControllerThatAsksTooMuchIsHeldBack(t *testing.T) {
	s := newSite(t, 2)
	north := s.join("north-1")
	north.uses(1)
	m := wire.Fetch{V: wire.Version, Controller: "north-1", Blob: "000102030405060708090a0b0c0d0e0f", Parts: []int{0}}
	payload, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		s.p.Fetch("north-1", payload)
	}
	s.p.Fetch("north-1", []byte("{}"))
	s.p.Fetch("south-1", payload)
	stats := s.p.FetchStats()
	if stats.Dropped < 300 {
		t.Errorf("%+v: nearly all should have been dropped", stats)
	}
	s.leave(1)
	await(t, "the leaver is revoked at the door", func() bool { return north.card(1) == access.Revoked })
}
