package broker

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

func TestTLSConfigurationIsChecked(t *testing.T) {
	p := newPKI(t)
	cert := []tls.Certificate{p.issue(t, "broker", x509.ExtKeyUsageServerAuth)}
	for name, cfg := range map[string]*tls.Config{
		"none":               nil,
		"no certificate":     {ClientCAs: p.pool},
		"no CA":              {Certificates: cert},
		"GetConfigForClient": {Certificates: cert, ClientCAs: p.pool, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil }},
	} {
		if b, err := Listen(Config{Listen: "127.0.0.1:0", TLS: cfg}); err == nil {
			b.listen.raw.Close()
			t.Errorf("%s: no error", name)
		}
	}
	weak := &tls.Config{Certificates: cert, ClientCAs: p.pool, MinVersion: tls.VersionTLS10, ClientAuth: tls.NoClientCert}
	got, err := enforce(weak)
	if err != nil || got.MinVersion != tls.VersionTLS13 || got.ClientAuth != tls.RequireAndVerifyClientCert || !got.SessionTicketsDisabled {
		t.Errorf("enforced: %+v, %v", got, err)
	}
}

func TestRevokedClientIsRefusedAndDisconnected(t *testing.T) {
	var revoked atomic.Pointer[string]
	b := run(t, func(c *Config) {
		c.RecheckEvery = 10 * time.Millisecond
		c.Revoked = func(name string) bool { r := revoked.Load(); return r != nil && *r == name }
	})
	north, south := b.mustDial(t, "north-1"), b.mustDial(t, "south-1")
	if got := b.Status().Clients; !slices.Equal(got, []string{"north-1", "south-1"}) {
		t.Errorf("clients: %q", got)
	}
	name := "north-1"
	revoked.Store(&name)
	north.closed()
	if _, _, err := b.dial(t, "north-1", nil); err == nil {
		t.Error("a revoked client is let in")
	}
	if err := south.publish("gatehouse/south-1/up/state", []byte("x")); err != nil {
		t.Errorf("another client: %v", err)
	}
	eventually(t, "off the list", func() bool { return slices.Equal(b.Status().Clients, []string{"south-1"}) })
	if b.Status().Refused == 0 {
		t.Error("no refusal counted")
	}
}

func TestDisconnectEndsAConnectionAtOnce(t *testing.T) {
	b := run(t, nil)
	c := b.mustDial(t, "north-1")
	b.Disconnect("nobody")
	b.Disconnect("north-1")
	c.closed()
	b.mustDial(t, "north-1") // it was not revoked
}

func TestCertificateThatExpiresEndsTheConnection(t *testing.T) {
	var later atomic.Int64
	b := run(t, func(c *Config) {
		c.RecheckEvery = 10 * time.Millisecond
		c.TLS.Time = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	c := b.mustDial(t, "north-1")
	later.Store(int64(2 * time.Hour))
	c.closed()
	if _, _, err := b.dial(t, "north-1", nil); err == nil {
		t.Error("an expired certificate is accepted")
	}
}

func TestOnlyOneProtocolIsSpoken(t *testing.T) {
	b := run(t, nil)
	for name, change := range map[string]func(*packets.ConnectPacket){
		"MQTT 3.1":          func(p *packets.ConnectPacket) { p.ProtocolName, p.ProtocolVersion = "MQIsdp", 3 },
		"MQTT 5":            func(p *packets.ConnectPacket) { p.ProtocolVersion = 5 },
		"no keep-alive":     func(p *packets.ConnectPacket) { p.Keepalive = 0 },
		"endless":           func(p *packets.ConnectPacket) { p.Keepalive = 65535 },
		"no client id":      func(p *packets.ConnectPacket) { p.ClientIdentifier = "" },
		"another client id": func(p *packets.ConnectPacket) { p.ClientIdentifier = "south-1" },
	} {
		if _, _, err := b.dial(t, "north-1", change); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
	b.mustDial(t, "north-1")
}

// The outbox is the controller's: no session outlives its connection.
func TestNoSessionIsKept(t *testing.T) {
	b := run(t, nil)
	persistent := func(p *packets.ConnectPacket) { p.CleanSession = false }
	crm := b.mustDial(t, wire.CRM)
	for i := range 3 {
		c, present, err := b.dial(t, "north-1", persistent)
		if err != nil || present {
			t.Fatalf("connection %d: session present: %t, %v", i, present, err)
		}
		if i == 0 {
			c.subscribe("gatehouse/north-1/down/#")
		}
		if i == 1 { // taken over while it stands
			continue
		}
		if err := packets.NewControlPacket(packets.Disconnect).Write(c); err != nil {
			t.Fatal(err)
		}
		c.closed()
		if err := crm.publish("gatehouse/north-1/down/command", []byte("open")); err != nil {
			t.Fatal(err)
		}
	}
	c := b.mustDial(t, "north-1")
	c.subscribe("gatehouse/north-1/down/#")
	if err := crm.publish("gatehouse/north-1/down/receipt", []byte("first")); err != nil {
		t.Fatal(err)
	}
	p, err := c.read()
	if m, ok := p.(*packets.PublishPacket); err != nil || !ok || string(m.Payload) != "first" {
		t.Errorf("got %v, %v", p, err)
	}
}

// A controller that takes nothing must not hold up the CRM.
func TestSlowSubscriberHoldsUpNobody(t *testing.T) {
	b := run(t, func(c *Config) { c.WriteTimeout = 200 * time.Millisecond })
	slow := b.mustDial(t, "north-1")
	slow.subscribe("gatehouse/north-1/down/#")
	good := b.mustDial(t, "south-1")
	good.subscribe("gatehouse/south-1/down/#")
	crm := b.mustDial(t, wire.CRM)

	payload := make([]byte, 200<<10)
	began := time.Now()
	for range 200 { // more than fits in between
		if err := crm.publish("gatehouse/north-1/down/chunk", payload); err != nil {
			t.Fatal(err)
		}
	}
	if err := crm.publish("gatehouse/south-1/down/receipt", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if p, err := good.read(); err != nil {
		t.Errorf("the good one: %v, %v", p, err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("took %s", took)
	}
	eventually(t, "the slow one is disconnected", func() bool {
		return !slices.Contains(b.Status().Clients, "north-1")
	})
	b.mustDial(t, "north-1") // and may come back
}

func TestWhoSaysNothingIsDisconnected(t *testing.T) {
	b := run(t, func(c *Config) { c.HandshakeTimeout = 150 * time.Millisecond })
	raw, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("before TLS: %v", err)
	}
	b.shake(t, "north-1").closed() // before CONNECT
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	b := run(t, func(c *Config) { c.MaxConnections = 2 })
	first := b.mustDial(t, "north-1")
	b.mustDial(t, "south-1")
	raw, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the third: %v", err)
	}
	first.Close()
	eventually(t, "room again", func() bool { return len(b.listen.room) < 2 })
	b.mustDial(t, "west-1")
}

func TestShutdownEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	b := run(t, nil)
	clients := []*client{b.mustDial(t, "north-1"), b.mustDial(t, wire.CRM), b.shake(t, "south-1")}
	raw, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	began := time.Now()
	b.stop()
	if took := time.Since(began); took > patience {
		t.Errorf("took %s", took)
	}
	for _, c := range clients {
		c.closed()
	}
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, now, buf[:runtime.Stack(buf, true)])
	}
	if err := b.Run(t.Context()); err == nil {
		t.Error("a second Run: no error")
	}
}

// A fault on one client's connection costs that client its connection.
func TestPanicCostsOneConnection(t *testing.T) {
	var log lockedBuffer
	var asked atomic.Int32
	b := run(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Revoked = func(name string) bool {
			if name == "north-1" && asked.Add(1) == 2 { // once the server has it
				panic("for the test")
			}
			return false
		}
	})
	if _, _, err := b.dial(t, "north-1", nil); err == nil {
		t.Error("let in")
	}
	b.mustDial(t, "south-1")
	b.mustDial(t, "north-1")
	if !strings.Contains(log.String(), "for the test") {
		t.Errorf("log:\n%s", log.String())
	}
}

// Rule 7: what a message holds is in no log line, whatever the level.
func TestPayloadsAreNotLogged(t *testing.T) {
	var log lockedBuffer
	b := run(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	secret := []byte("s3cret")
	c, _, err := b.dial(t, "north-1", func(p *packets.ConnectPacket) {
		p.WillFlag, p.WillTopic, p.WillMessage = true, "gatehouse/north-1/up/state", secret
		p.UsernameFlag, p.Username, p.PasswordFlag, p.Password = true, "s3cret", true, secret
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"gatehouse/north-1/up/records", "gatehouse/south-1/up/records"} {
		if err := c.publish(topic, secret); err != nil {
			t.Fatal(err)
		}
	}
	// A wildcard in a topic's name, and a second CONNECT: both are faults.
	_ = c.publish("gatehouse/+/up/records", secret)
	second := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	second.ProtocolName, second.ProtocolVersion, second.ClientIdentifier = "MQTT", 4, "north-1"
	second.WillFlag, second.WillTopic, second.WillMessage = true, "t", secret
	_ = second.Write(c)
	c.closed()
	b.stop()
	// As text, and as a slice of bytes is printed within a structure.
	for _, form := range []string{"s3cret", strings.Trim(fmt.Sprint(secret), "[]")} {
		if strings.Contains(log.String(), form) {
			t.Errorf("%q is in the log:\n%s", form, log.String())
		}
	}
	for _, want := range []string{"client connected", "forbidden publish", "client disconnected", "level=DEBUG"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
	}
	if b.Status().Denied == 0 {
		t.Error("no denial counted")
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
