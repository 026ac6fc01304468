package figures

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

const controller = "north-1"

// pair is a controller that has joined a CRM, and the broker between them.
type pair struct {
	door, crm string // their folders
	broker    string // its URL
}

func newPair(b *testing.B) *pair {
	b.Helper()
	s := rig.New(b)
	s.Mosquitto()
	c := s.Enrol(controller)
	return &pair{door: c.Data, crm: s.CRMDir(), broker: s.Broker}
}

func (p *pair) controllerKeys(b *testing.B) *keys.ControllerKeys {
	b.Helper()
	k, err := keys.LoadController(keys.File(pki.KeysDir(p.door)))
	must(b, err)
	return k
}

// fill writes records into the controller's log and returns them all.
func (p *pair) fill(b *testing.B, n int) []string {
	b.Helper()
	k := p.controllerKeys(b)
	own, err := keys.NewVerifier(k.Log.JWK(), keys.TypeRecord)
	must(b, err)
	began := time.Now()
	l, err := visitorlog.Open(p.door, visitorlog.Options{
		Controller: controller, Signer: k.Log, Verifier: own, Note: k.Log.NoteSigner, NoteVerifier: own.NoteVerifier, Sealer: k.Records,
		Clock: func() (time.Time, visitorlog.Clock) {
			return time.Now(), visitorlog.Clock{State: access.ClockSynchronised, Boot: "bench", UptimeMS: time.Since(began).Milliseconds()}
		},
	})
	must(b, err)
	ctx := b.Context()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n) - 1) // the epoch has begun
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := l.Append(ctx, granted); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	out := make([]string, 0, n)
	for len(out) < n {
		entries, err := l.Entries(ctx, uint64(len(out)), 1000)
		must(b, err)
		if len(entries) == 0 {
			b.Fatalf("the log ends at %d", len(out))
		}
		for _, e := range entries {
			out = append(out, e.JWS)
		}
	}
	must(b, l.Close())
	return out
}

// granted is a record as a door writes it for a badge.
func granted(*visitorlog.Tx) (visitorlog.Draft, error) {
	return visitorlog.Draft{Type: visitorlog.DecisionGranted, Subject: "p-1001", Data: visitorlog.Data{
		Door: door, Reader: "in", Direction: access.In, Decision: "granted", Reason: access.ReasonGranted, Kind: access.Staff,
		Factors: []string{"badge"}, Policy: &visitorlog.Policy{Version: 7, AgeSeconds: 3600, Freshness: access.Fresh},
	}}, nil
}

// drain starts the CRM and then the controller, and returns how long it takes
// from the controller's start until it has the last receipt.
func (p *pair) drain(b *testing.B) time.Duration {
	b.Helper()
	crm := fmt.Appendf(nil, "data = %q\ntimezone = \"Etc/UTC\"\n[mqtt]\nbroker = %q\n[http]\nlisten = \"127.0.0.1:0\"\n", p.crm, p.broker)
	must(b, os.WriteFile(p.crm+".toml", crm, 0o600))
	text := fmt.Appendf(nil, config, p.door)
	text = fmt.Appendf(text, "\n[crm]\nbroker = %q\n", p.broker)
	must(b, os.WriteFile(p.door+".toml", text, 0o600))

	central, _ := startDaemon(b, nil, "gatehouse-crm", "run", "--config", p.crm+".toml")
	done := make(chan time.Time, 1)
	var once sync.Once
	began := time.Now()
	d, _ := startDaemon(b, func(e rig.Event) {
		if e.Msg == "receipt" && e.Size >= backlog {
			once.Do(func() { done <- time.Now() })
		}
	}, "gatehouse", "run", "--demo", "--config", p.door+".toml", "--log-level", "debug")
	var took time.Duration
	select {
	case at := <-done:
		took = at.Sub(began)
	case <-time.After(10 * time.Minute):
		b.Fatalf("no receipt for the last record:\n%s\n%s", d.Tail(), central.Tail())
	}
	d.Stop(b)
	central.Stop(b)
	return took
}

// plain publishes the same records, one a message, with a window of 64, and
// returns how long it takes until a subscriber has them all.
func (p *pair) plain(b *testing.B, records []string) time.Duration {
	b.Helper()
	k := p.controllerKeys(b)
	up, err := pki.ControllerTLS(p.door, k.TLS, p.broker, time.Now)
	must(b, err)
	site, err := pki.ReadSite(p.crm)
	must(b, err)
	ck, err := keys.LoadCRM(keys.File(pki.KeysDir(p.crm)), site.Cosigner.Name())
	must(b, err)
	down, err := pki.CRMTLS(p.crm, ck.CRM, p.broker, time.Now)
	must(b, err)
	topic, err := wire.Topic(controller, wire.KindRecords)
	must(b, err)

	// Mosquitto drops what a subscriber does not take in time, so the
	// publisher does not run further ahead than it keeps.
	const window, kept = 64, 900
	arrived := make(chan struct{}, kept)
	for range kept {
		arrived <- struct{}{}
	}
	all := make(chan struct{})
	got := 0
	subscriber := connect(b, p.broker, wire.CRM, down)
	defer subscriber.Disconnect(100)
	tok := subscriber.Subscribe(topic, 1, func(_ paho.Client, m paho.Message) {
		if got < len(records) && string(m.Payload()) == records[got] {
			got++
			arrived <- struct{}{}
		}
		if got == len(records) {
			close(all)
			got++
		}
	})
	must(b, finished(tok))

	began := time.Now()
	publisher := connect(b, p.broker, controller, up)
	defer publisher.Disconnect(100)
	inFlight := make(chan paho.Token, window)
	failed := make(chan error, 1)
	go func() {
		for tok := range inFlight {
			if err := finished(tok); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for _, r := range records {
		<-arrived
		inFlight <- publisher.Publish(topic, 1, false, r)
	}
	close(inFlight)
	must(b, <-failed)
	select {
	case <-all:
	case <-time.After(time.Minute):
		b.Fatal("the broker has lost some")
	}
	return time.Since(began)
}

func connect(b *testing.B, url, name string, config *tls.Config) paho.Client {
	b.Helper()
	o := paho.NewClientOptions().AddBroker(url).SetClientID(name).SetTLSConfig(config).SetProtocolVersion(4).
		SetCleanSession(true).SetAutoReconnect(false).SetOrderMatters(true)
	c := paho.NewClient(o)
	must(b, finished(c.Connect()))
	return c
}

func finished(tok paho.Token) error {
	if !tok.WaitTimeout(time.Minute) {
		return errors.New("no answer from the broker")
	}
	return tok.Error()
}

// BenchmarkBacklog is a controller that comes back to its CRM after weeks: the
// programs with Mosquitto between them, until the last record is stored,
// countersigned and known to be so. Beside it the same records go through the
// same broker one by one, to a subscriber that does nothing with them.
func BenchmarkBacklog(b *testing.B) {
	p := newPair(b)
	records := p.fill(b, backlog)
	// Half of the limit before and half after: what else the machine does hits
	// both.
	limit := p.plain(b, records[:backlog/2])
	took := p.drain(b)
	limit += p.plain(b, records[backlog/2:])
	rate := func(d time.Duration) float64 { return float64(backlog) / d.Seconds() }
	figure(b, "through Mosquitto to the last receipt", map[string]float64{
		"got-records/s": rate(took), "limit-records/s": rate(limit), "min-ratio": 1,
	})
}
