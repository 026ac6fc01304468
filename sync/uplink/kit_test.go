package uplink_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/sync/ingest"
	"github.com/gatehouse-acs/gatehouse/sync/uplink"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// pipe is a broker in memory that may be as bad as a network gets. Fates are
// drawn from a seed.
type pipe struct {
	mu      sync.Mutex
	rand    *mrand.Rand
	fate    fate
	deliver map[string]func(wire.Message) // by the side: "up", or the controller's name
	seen    func(wire.Message)            // what was delivered; may be nil
	ctx     context.Context
	timers  sync.WaitGroup
}

// fate is how likely, in percent, something happens to a message.
type fate struct {
	drop, double, fail int
	delay              time.Duration // up to: messages overtake each other
}

var errDown = errors.New("no connection")

func newPipe(t testing.TB, seed uint64, f fate) *pipe {
	p := &pipe{rand: mrand.New(mrand.NewPCG(seed, 1)), fate: f, deliver: map[string]func(wire.Message){}}
	var cancel context.CancelFunc
	p.ctx, cancel = context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); p.timers.Wait() })
	return p
}

func (p *pipe) onSeen(f func(wire.Message)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = f
}

func (p *pipe) connect(side string, f func(wire.Message)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deliver[side] = f
}

// Publish returns like a broker that has taken the message, whatever becomes
// of it.
func (p *pipe) Publish(_ context.Context, topic string, payload []byte, retained bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rand.IntN(100) < p.fate.fail {
		return errDown
	}
	copies := 1
	if p.rand.IntN(100) < p.fate.double {
		copies++
	}
	for range copies {
		if p.rand.IntN(100) < p.fate.drop {
			continue
		}
		delay := time.Duration(0)
		if p.fate.delay > 0 {
			delay = time.Duration(p.rand.Int64N(int64(p.fate.delay)))
		}
		p.timers.Go(func() {
			if delay > 0 {
				select {
				case <-time.After(delay):
				case <-p.ctx.Done():
					return
				}
			}
			p.arrive(wire.Message{Topic: topic, Payload: payload})
		})
	}
	return nil
}

func (p *pipe) arrive(m wire.Message) {
	controller, kind, err := wire.ParseTopic(m.Topic)
	if err != nil {
		panic(err)
	}
	side := controller
	if kind.Up() {
		side = "up"
	}
	p.mu.Lock()
	f, seen := p.deliver[side], p.seen
	p.mu.Unlock()
	if seen != nil {
		seen(m)
	}
	if f != nil {
		f(m)
	}
}

// crm is the CRM's end.
type crm struct {
	t        testing.TB
	path     string
	cosigner *keys.Cosigner
	store    *central.Store
	ingester *ingest.Ingester
	pipe     *pipe
	// publisher is where receipts go; nil: the pipe.
	publisher ingest.Publisher
	stop      func()
}

func parseKey(jwk []byte) (central.Key, error) {
	k, err := keys.ParseJWK(jwk)
	if err != nil {
		return nil, err
	}
	return keys.NewVerifier(k, keys.TypeRecord)
}

func newCRM(t testing.TB, p *pipe) *crm {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &crm{t: t, path: filepath.Join(t.TempDir(), "central.db"), pipe: p}
	if c.cosigner, err = keys.NewCosigner(key, "crm.example"); err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(func() { c.stop() })
	return c
}

func (c *crm) start() {
	c.t.Helper()
	var err error
	c.store, err = central.Open(context.Background(), c.path, central.Options{Cosigner: c.cosigner.Note(), ParseKey: parseKey})
	if err != nil {
		c.t.Fatal(err)
	}
	var out ingest.Publisher = c.pipe
	if c.publisher != nil {
		out = c.publisher
	}
	c.ingester = ingest.New(ingest.Options{Store: c.store, Publisher: out, Receipts: c.cosigner.Receipts()})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.ingester.Run(ctx) })
	wg.Go(func() { c.store.Run(ctx) })
	in := c.ingester
	c.pipe.connect("up", func(m wire.Message) { in.Handle(ctx, m) })
	c.stop = func() {
		c.pipe.connect("up", nil)
		cancel()
		wg.Wait()
		if err := c.store.Close(); err != nil {
			c.t.Error(err)
		}
		c.stop = func() {}
	}
}

// restart is a CRM that was stopped and comes back with what it committed.
func (c *crm) restart() {
	c.t.Helper()
	c.stop()
	c.start()
}

// controller is a controller's end.
type controller struct {
	t      testing.TB
	name   string
	dir    string
	keys   *keys.ControllerKeys
	crm    *crm
	log    *visitorlog.Log
	uplink *uplink.Uplink
	tune   func(*uplink.Options)
	stop   func()
}

func newController(t testing.TB, name string, c *crm, tune func(*uplink.Options)) *controller {
	t.Helper()
	d := &controller{t: t, name: name, dir: t.TempDir(), crm: c, tune: tune}
	if _, err := keys.InitController(filepath.Join(d.dir, "keys"), keys.ES256); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.keys, err = keys.LoadController(keys.File(filepath.Join(d.dir, "keys"))); err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(d.keys.Log.JWK())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.store.Approve(context.Background(), central.Controller{Name: name, JWK: jwk}); err != nil {
		t.Fatal(err)
	}
	d.open()
	d.start()
	t.Cleanup(func() { d.close() })
	return d
}

func (d *controller) open() {
	d.t.Helper()
	v, err := d.keys.Log.Verifier(keys.TypeRecord)
	if err != nil {
		d.t.Fatal(err)
	}
	began := time.Now()
	log, err := visitorlog.Open(filepath.Join(d.dir, "data"), visitorlog.Options{
		Controller: d.name, Signer: d.keys.Log, Verifier: v, Note: d.keys.Log.NoteSigner, NoteVerifier: d.keys.Log.NoteVerifier,
		Sealer: d.keys.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			now := time.Now()
			return now, visitorlog.Clock{State: access.ClockSynchronised, Boot: "boot", UptimeMS: now.Sub(began).Milliseconds()}
		},
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.log = log
}

func (d *controller) start() {
	d.t.Helper()
	receipts, err := d.crm.cosigner.Public().Receipts()
	if err != nil {
		d.t.Fatal(err)
	}
	o := uplink.Options{
		Controller: d.name, Log: d.log, Publisher: d.crm.pipe, Receipts: receipts,
		Cosigner: d.crm.cosigner.Public().Note(), Own: d.keys.Log.NoteVerifier,
	}
	if d.tune != nil {
		d.tune(&o)
	}
	u, err := uplink.New(o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.uplink = u
	d.crm.pipe.connect(d.name, func(m wire.Message) { u.Handle(m.Payload) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := u.Run(ctx); err != nil {
			d.t.Error(err)
		}
	}()
	d.stop = func() {
		d.crm.pipe.connect(d.name, nil)
		cancel()
		<-done
		d.stop = func() {}
	}
}

func (d *controller) close() {
	d.stop()
	if err := d.log.Close(); err != nil {
		d.t.Error(err)
	}
}

// write appends n records, many of them in one commit.
func (d *controller) write(n int) {
	d.t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for w := range min(n, 64) {
		wg.Go(func() {
			for i := w; i < n; i += 64 {
				_, err := d.log.Append(context.Background(), func(*visitorlog.Tx) (visitorlog.Draft, error) {
					return visitorlog.Draft{Type: visitorlog.DoorClosed, Data: visitorlog.Data{Door: "a", Detail: fmt.Sprint("number ", i)}}, nil
				})
				if err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		d.t.Fatal(err)
	default:
	}
}

func (d *controller) head() visitorlog.Head {
	d.t.Helper()
	h, err := d.log.Head(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	return h
}

// settle waits until all that the log holds is receipted.
func (d *controller) settle(within time.Duration) {
	d.t.Helper()
	deadline := time.Now().Add(within)
	for {
		h, s := d.head(), d.uplink.Status()
		if s.Synced && s.Epoch == h.Epoch && s.Acknowledged == h.Size && d.log.Acknowledged() == h.Size {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("after %v the CRM has not receipted all of %+v: %+v, in the log %d; ingest %+v", within, h, s, d.log.Acknowledged(), d.crm.ingester.Stats())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// same holds the CRM's copy of the present epoch to the controller's log:
// every record once, the same bytes, the same tree.
func (d *controller) same() {
	d.t.Helper()
	ctx := context.Background()
	h := d.head()
	list, err := d.crm.store.Epochs(ctx, d.name)
	if err != nil {
		d.t.Fatal(err)
	}
	var stored *central.Epoch
	for i := range list {
		if list[i].Epoch == h.Epoch {
			stored = &list[i]
		}
	}
	if stored == nil || stored.Size != h.Size || stored.Root.String() != h.Root {
		d.t.Fatalf("the CRM holds %+v, the controller %+v", stored, h)
	}
	own, err := d.log.Entries(ctx, 0, int(h.Size))
	if err != nil {
		d.t.Fatal(err)
	}
	theirs, err := d.crm.store.Records(ctx, central.Filter{Controller: d.name, Epoch: h.Epoch, Limit: int(h.Size) + 1,
		Checked: []central.Checked{central.Good, central.Bad, central.Unchecked}})
	if err != nil {
		d.t.Fatal(err)
	}
	if len(own) != len(theirs) {
		d.t.Fatalf("the CRM has %d records, the controller %d", len(theirs), len(own))
	}
	for i := range own {
		if own[i].JWS != theirs[i].JWS || theirs[i].Sequence != uint64(i) {
			d.t.Fatalf("record %d is another one at the CRM", i)
		}
	}
}

func (c *crm) alarms() []central.Alarm {
	c.t.Helper()
	list, err := c.store.Alarms(context.Background(), false)
	if err != nil {
		c.t.Fatal(err)
	}
	return list
}

func (c *crm) wantAlarms(kinds ...central.AlarmKind) {
	c.t.Helper()
	got := map[central.AlarmKind]bool{}
	for _, a := range c.alarms() {
		got[a.Kind] = true
	}
	ok := len(got) == len(kinds)
	for _, k := range kinds {
		ok = ok && got[k]
	}
	if !ok {
		c.t.Fatalf("alarms %+v, want %v", c.alarms(), kinds)
	}
}

func random() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x", b)
}
