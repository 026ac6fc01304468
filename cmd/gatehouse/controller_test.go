package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/drivers/sim"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/broker"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

const siteConfig = `
controller = "demo"
data = %q
timezone = "Europe/Amsterdam"

[http]
listen = "127.0.0.1:0"

[crm]
broker = "tls://localhost:%s"

[drivers.sim]
socket = "site.sock"

[[door]]
name = "server-room-a"
strike = { driver = "sim", line = "strike" }

[[door.reader]]
name = "a-in"
direction = "in"
formats = ["H10301"]
device = { driver = "sim", line = "in" }
`

const sitePolicy = `
[[people]]
person = "p-1"
name = "Ada Lovelace"
kind = "staff"
rights = [{ doors = ["server-room-a"], schedule = "always" }]
credentials = [{ format = "H10301", facility = 123, number = 4567 }]
`

// joinedSite is a controller that has joined a CRM, of which only the broker
// runs.
type joinedSite struct {
	crm    string // folder
	data   string // folder of the controller
	keys   *keys.CRMKeys
	broker *broker.Broker
	config string // of the controller
}

func newJoinedSite(t *testing.T) *joinedSite {
	t.Helper()
	s := joinedSiteBy(t, pki.PolicyFromSite)
	policy := filepath.Join(t.TempDir(), "policy.toml")
	must(t, os.WriteFile(policy, []byte(sitePolicy), 0o600))
	root := newRoot()
	root.SetArgs([]string{"allowlist", "import", policy, "--data", s.data})
	root.SetOut(&bytes.Buffer{})
	root.SetErr(&bytes.Buffer{})
	must(t, root.ExecuteContext(t.Context()))
	return s
}

// joinedSiteBy is one where the given authority governs who may enter.
func joinedSiteBy(t *testing.T, authority pki.PolicyAuthority) *joinedSite {
	t.Helper()
	now := time.Now()
	s := &joinedSite{crm: filepath.Join(t.TempDir(), "crm")}
	site, err := pki.InitSite(s.crm, pki.SiteOptions{Hosts: []string{"localhost"}, Timezone: "Europe/Amsterdam", Now: now})
	must(t, err)
	site.PolicyAuthority = authority
	s.keys, err = keys.LoadCRM(keys.File(pki.KeysDir(s.crm)), site.Cosigner.Name())
	must(t, err)

	// A short path: a socket's may not be long.
	data, err := os.MkdirTemp("", "gatehouse")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(data) })
	_, err = keys.InitController(pki.KeysDir(data), keys.ES256)
	must(t, err)
	k, err := keys.LoadController(keys.File(pki.KeysDir(data)))
	must(t, err)
	_, err = pki.WriteRequest(data, "demo", k)
	must(t, err)
	request, err := pki.ReadRequest(data)
	must(t, err)
	file, _, err := site.Approve(s.crm, s.keys, request, pki.ApproveOptions{Now: now})
	must(t, err)
	bundle, err := pki.ParseBundle(file)
	must(t, err)
	joining, err := pki.Prepare(data, bundle, now)
	must(t, err)
	_, err = joining.Join(pki.Options{Fingerprint: bundle.Fingerprint()})
	must(t, err)

	s.data = data
	tlsConfig, err := pki.BrokerTLS(s.crm, s.keys.Broker, time.Now)
	must(t, err)
	s.broker, err = broker.Listen(broker.Config{Listen: "127.0.0.1:0", TLS: tlsConfig, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	_, port, err := net.SplitHostPort(s.broker.Addr().String())
	must(t, err)
	s.config = fmt.Sprintf(siteConfig, data, port)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// asCRM is a connection with the CRM's own certificate.
func (s *joinedSite) asCRM(t *testing.T) *mqtt.Conn {
	t.Helper()
	c, err := mqtt.New(mqtt.Config{
		Broker:   "tls://" + s.broker.Addr().String(),
		ClientID: wire.CRM,
		TLS: func() (*tls.Config, error) {
			return pki.CRMTLS(s.crm, s.keys.CRM, "tls://localhost:8883", time.Now)
		},
		Subscriptions: []string{wire.UpFilter()},
		Logger:        slog.New(slog.DiscardHandler),
	})
	must(t, err)
	return c
}

// mostWait is how long a test waits for what must happen; only one that fails
// waits so long.
const mostWait = time.Minute

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(mostWait)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, mostWait)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNoMessageMovesAStrike publishes to a running controller, with the CRM's
// own certificate and key, whatever could be taken for a command: on every
// topic that it hears, retained where a broker allows it, signed and not. Only
// a card moves the strike (rule 5).
func TestNoMessageMovesAStrike(t *testing.T) {
	s := newJoinedSite(t)
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
	crm := s.asCRM(t)
	start(crm.Run)
	eventually(t, "the CRM connects", crm.Connected)

	command := []byte(`{"v":1,"controller":"demo","door":"server-room-a","action":"unlock"}`)
	signed, err := s.keys.Cosigner.Receipts().Sign(command)
	must(t, err)
	payloads := [][]byte{command, []byte(signed), []byte("unlock"), []byte("{"), nil, bytes.Repeat([]byte{0xff}, 4096)}
	published := 0
	send := func(kind wire.Kind, retained bool) {
		topic, err := wire.Topic("demo", kind)
		must(t, err)
		for _, p := range payloads {
			must(t, crm.Publish(ctx, topic, p, retained))
			published++
		}
	}
	send(wire.KindManifest, true) // the broker keeps the last of these for the controller

	c, err := newController(ctx, cfg, []byte(s.config), slog.New(slog.DiscardHandler))
	must(t, err)
	var closed sync.Once
	defer closed.Do(func() { c.Close() })
	start(c.Run)
	site, err := sim.Dial(filepath.Join(cfg.Data, "site.sock"))
	must(t, err)
	defer site.Close()
	eventually(t, "the controller connects", func() bool { return c.link.conn.Connected() && len(c.Faults(t.Context())) == 0 })

	published = 0
	for _, kind := range wire.Kinds() {
		if !kind.Up() {
			send(kind, false)
		}
	}
	eventually(t, "every message is refused", func() bool {
		refused := c.link.refused.Load() + c.link.uplink.Status().Bad
		for _, n := range c.link.orders.Status().Refused {
			refused += n
		}
		return refused >= uint64(published)
	})
	unlocked := func() bool {
		for {
			select {
			case o := <-site.Outputs():
				if o.State == sim.Unlocked {
					return true
				}
			default:
				return false
			}
		}
	}
	if unlocked() {
		t.Fatal("a message moved the strike")
	}

	// A controller that serves an older allowlist than it once did says so.
	c.link.newest.Store(7)
	if faults := c.Faults(t.Context()); len(faults) != 1 || !strings.Contains(faults[0].What, "--above 7") {
		t.Errorf("faults %v", faults)
	}
	c.link.newest.Store(1)

	f, _ := badge.Builtin().Format("H10301")
	frame, err := f.Encode(badge.Credential{Format: "H10301", Facility: 123, Number: 4567})
	must(t, err)
	must(t, site.Swipe("in", frame))
	eventually(t, "a card moves the strike", unlocked)

	cancel()
	running.Wait()
	closed.Do(func() { err = c.Close() })
	must(t, err)
	recordsStand(t, cfg, visitorlog.DecisionGranted)
}

// recordsStand checks that the log holds exactly one record of a type.
func recordsStand(t *testing.T, cfg *config.Controller, want visitorlog.Type) {
	t.Helper()
	k, err := keys.LoadController(keys.File(pki.KeysDir(cfg.Data)))
	must(t, err)
	r, err := visitorlog.OpenReader(t.Context(), filepath.Join(cfg.Data, "records.db"), k.Records)
	must(t, err)
	defer r.Close()
	records, err := r.Read(t.Context(), 0, 1000)
	must(t, err)
	n := 0
	for _, e := range records {
		if e.Record.Type == want {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the log holds %d records of %s, not one", n, want)
	}
}
