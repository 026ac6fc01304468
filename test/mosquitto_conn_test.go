package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/test/mosquitto"
)

// connect runs the project's own client until the test ends.
func connect(t *testing.T, b *brokerUnderTest, name string, cfg mqtt.Config) *mqtt.Conn {
	t.Helper()
	cert := b.cert(t, name)
	cfg.Broker = "tls://" + b.addr
	cfg.ClientID = name
	cfg.TLS = func() (*tls.Config, error) {
		return &tls.Config{RootCAs: b.ca.pool(), Certificates: []tls.Certificate{cert}}, nil
	}
	cfg.MinBackoff, cfg.MaxBackoff = 20*time.Millisecond, 100*time.Millisecond
	c, err := mqtt.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func receive(t *testing.T, c *mqtt.Conn) mqtt.Message {
	t.Helper()
	select {
	case m := <-c.Messages():
		return m
	case <-time.After(patience):
		t.Fatalf("no message; %+v", c.Status())
		panic("unreachable")
	}
}

func TestClientWorksWithBothBrokers(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		center := connect(t, b, crm, mqtt.Config{Subscriptions: []string{"gatehouse/+/up/#"}})
		eventually(t, "the CRM is connected", center.Connected)
		const state = "gatehouse/north-1/up/state"
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()

		door := connect(t, b, "north-1", mqtt.Config{
			Subscriptions: []string{"gatehouse/north-1/down/#"},
			Will:          mqtt.Will{Topic: state, Payload: []byte("offline")},
		})
		eventually(t, "the controller is connected", door.Connected)
		if err := door.Publish(ctx, state, []byte("online"), true); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, center); m.Topic != state || string(m.Payload) != "online" || m.Retained {
			t.Errorf("received %+v", m)
		}
		for i := range 100 {
			if err := center.Publish(ctx, "gatehouse/north-1/down/receipt", fmt.Append(nil, i), false); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			if m := receive(t, door); string(m.Payload) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, m.Payload)
			}
		}
		// The CRM comes back and is told what was retained, and that it was.
		center.Reconnect("the test says so")
		if m := receive(t, center); string(m.Payload) != "online" || !m.Retained {
			t.Errorf("received %+v", m)
		}
		// A forbidden publish looks like any other. Nobody may rely on it.
		if err := door.Publish(ctx, "gatehouse/south-1/up/records", []byte("x"), false); err != nil {
			t.Errorf("forbidden publish: %v", err)
		}
	})
}

// Without a goodbye the broker tells the CRM that the controller is gone.
func TestEndOfAClientPublishesItsWill(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		center := connect(t, b, crm, mqtt.Config{Subscriptions: []string{"gatehouse/+/up/#"}})
		eventually(t, "the CRM is connected", center.Connected)
		t.Run("controller", func(t *testing.T) {
			door := connect(t, b, "north-1", mqtt.Config{
				Will: mqtt.Will{Topic: "gatehouse/north-1/up/state", Payload: []byte("offline")},
			})
			eventually(t, "the controller is connected", door.Connected)
		})
		if m := receive(t, center); string(m.Payload) != "offline" {
			t.Errorf("received %+v", m)
		}
	})
}

// A broker that was killed has forgotten subscriptions and what it retained.
func TestClientSurvivesAKilledBroker(t *testing.T) {
	ca := newAuthority(t)
	m := startMosquitto(t, ca)
	b := &brokerUnderTest{addr: m.Addr, ca: ca, log: m.Log, certs: make(map[string]tls.Certificate)}
	center := connect(t, b, crm, mqtt.Config{Subscriptions: []string{"gatehouse/+/up/#"}})
	door := connect(t, b, "north-1", mqtt.Config{Subscriptions: []string{"gatehouse/north-1/down/#"}})
	for i := range 3 {
		eventually(t, "both are connected", func() bool { return center.Connected() && door.Connected() })
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		want := fmt.Sprint("round ", i)
		if err := door.Publish(ctx, "gatehouse/north-1/up/records", []byte(want), false); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, center); string(got.Payload) != want {
			t.Errorf("the CRM received %q", got.Payload)
		}
		if err := center.Publish(ctx, "gatehouse/north-1/down/receipt", []byte(want), false); err != nil {
			t.Fatal(err)
		}
		if got := receive(t, door); string(got.Payload) != want {
			t.Errorf("the controller received %q", got.Payload)
		}
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both have noticed", func() bool { return !center.Connected() && !door.Connected() })
		if err := m.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if s := door.Status(); s.Reconnects < 2 || s.Dropped != 0 {
		t.Errorf("status: %+v", s)
	}
}

func TestMosquittoSampleIsStrict(t *testing.T) {
	dir, err := mosquitto.Configs()
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(dir, "mosquitto.conf"))
	if err != nil {
		t.Fatal(err)
	}
	settings := strings.Split(string(conf), "\n")
	for _, want := range []string{
		"require_certificate true", "use_identity_as_username true", "use_username_as_clientid true",
		"tls_version tlsv1.3", "allow_anonymous false", "persistence false",
	} {
		if !slices.Contains(settings, want) {
			t.Errorf("configs/mosquitto/mosquitto.conf: no %q", want)
		}
	}
}
