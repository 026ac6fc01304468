package mqtt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

func TestBrokerURL(t *testing.T) {
	for url, want := range map[string]string{
		"tls://crm.example":          "tls://crm.example:8883",
		"tls://crm.example:1234":     "tls://crm.example:1234",
		"tls://crm.example/":         "tls://crm.example:8883",
		"tls://[2001:db8::1]":        "tls://[2001:db8::1]:8883",
		"tcp://127.0.0.1":            "tcp://127.0.0.1:1883",
		"tcp://[::1]:1":              "tcp://[::1]:1",
		"":                           "",
		"crm.example:8883":           "",
		"tls://":                     "",
		"tls://:8883":                "",
		"ssl://crm.example":          "",
		"ws://crm.example":           "",
		"http://crm.example":         "",
		"tls://crm.example:0":        "",
		"tls://crm.example:65536":    "",
		"tls://crm.example:mqtt":     "",
		"tls://crm.example/x":        "",
		"tls://crm.example?x=y":      "",
		"tls://crm.example#x":        "",
		"tls:crm.example":            "",
		"tls://user@crm.example":     "",
		"tls://u:s3cret@crm.example": "",
		"tls://u:s3cret@crm:port":    "",
		"tls://u:s3cret@\x7f":        "",
	} {
		got, err := parseTarget(url)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q is taken for %s", url, got)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%q: %s, %v; want %s", url, got, err, want)
		case err != nil && strings.Contains(err.Error(), "s3cret"):
			t.Errorf("%q: the error gives the secret away: %v", url, err)
		}
	}
}

// Rule 6: plaintext MQTT goes nowhere but to this machine.
func TestPlaintextOnlyToLoopback(t *testing.T) {
	for _, ok := range []string{"tcp://127.0.0.1", "tcp://127.8.9.10:99", "tcp://[::1]", "tcp://localhost"} {
		if _, err := New(Config{Broker: ok, ClientID: "c"}); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"tcp://192.0.2.1", "tcp://0.0.0.0", "tcp://[::]", "tcp://[2001:db8::1]", "tcp://10.0.0.1:1883"} {
		_, err := New(Config{Broker: bad, ClientID: "c"})
		if err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	// Asked again on each connection: a name can come to mean something else.
	if _, err := (target{host: "192.0.2.1", port: "1883"}).dial(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("dial: %v", err)
	}
	// A name is judged by its addresses, and one without any leads nowhere.
	if _, err := New(Config{Broker: "tcp://no-such-host.invalid", ClientID: "c"}); err == nil {
		t.Error("a name that cannot be resolved is accepted")
	}
}

func TestProxyFromTheEnvironmentIsNotUsed(t *testing.T) {
	t.Setenv("ALL_PROXY", "socks5://127.0.0.1:1")
	t.Setenv("all_proxy", "socks5://127.0.0.1:1")
	f := newFake(t)
	c, _ := start(t, Config{Broker: f.url()})
	eventually(t, "connected", c.Connected)
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{Broker: "tcp://127.0.0.1"}); err == nil {
		t.Error("no client id: no error")
	}
	if _, err := New(Config{Broker: "tls://127.0.0.1", ClientID: "c"}); err == nil {
		t.Error("no TLS configuration: no error")
	}
}

func TestTLSIsVerifiedAndRenewed(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	otherPool := x509.NewCertPool()
	otherPool.AddCert(other.Leaf)
	server := issue(t, ca, "broker", x509.ExtKeyUsageServerAuth)
	good := tls.Config{RootCAs: pool, Certificates: []tls.Certificate{issue(t, ca, "north-1", x509.ExtKeyUsageClientAuth)}}

	for _, c := range []struct {
		name   string
		server func(*tls.Config)
		client func(*tls.Config)
		want   string // in the error; "" for a connection
	}{
		{name: "good"},
		{name: "server with TLS 1.2", server: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, want: "protocol version"},
		{name: "client that would take TLS 1.2", server: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
			client: func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }, want: "protocol version"},
		{name: "server of another CA", client: func(c *tls.Config) { c.RootCAs = otherPool }, want: "unknown authority"},
		{name: "server of another name", client: func(c *tls.Config) { c.ServerName = "other.example" }, want: "other.example"},
		{name: "no verification", client: func(c *tls.Config) { c.InsecureSkipVerify = true }, want: "must be verified"},
		{name: "the system's CAs", client: func(c *tls.Config) { c.RootCAs = nil }, want: "no CA"},
		{name: "no client certificate", client: func(c *tls.Config) { c.Certificates = nil }, want: "no client certificate"},
		{name: "clock after the certificates' end", client: func(c *tls.Config) {
			c.Time = func() time.Time { return time.Now().Add(48 * time.Hour) }
		}, want: "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			serverTLS := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
			if c.server != nil {
				c.server(serverTLS)
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", serverTLS)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if conn, err := l.Accept(); err == nil {
					_ = conn.(*tls.Conn).Handshake() // the client's view of it is looked at
					_, _ = conn.Read(make([]byte, 1))
					conn.Close()
				}
			}()
			target, err := parseTarget("tls://" + l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn, err := target.dial(ctx, func() (*tls.Config, error) {
				cfg := good.Clone()
				if c.client != nil {
					c.client(cfg)
				}
				return cfg, nil
			})
			if err == nil {
				conn.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// The TLS configuration is asked for on each connection, so that a renewed
// certificate is used without a restart.
func TestEachConnectionAsksForTheCertificate(t *testing.T) {
	f := newFake(t)
	asked := make(chan struct{}, 100)
	start(t, Config{
		Broker: "tls://" + f.l.Addr().String(),
		TLS: func() (*tls.Config, error) {
			asked <- struct{}{}
			return nil, errors.New("the key is locked")
		},
	})
	for range 3 {
		next(t, "question", asked)
	}
}

func TestDialStopsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never shakes hands
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca := newCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	cfg := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{issue(t, ca, "c", x509.ExtKeyUsageClientAuth)}}
	_, stop := start(t, Config{Broker: "tls://" + l.Addr().String(), ConnectTimeout: 2 * patience, TLS: func() (*tls.Config, error) { return cfg, nil }})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	stop()
	if took := time.Since(began); took > patience {
		t.Errorf("took %s to stop", took)
	}
}

func newCA(t *testing.T) tls.Certificate {
	t.Helper()
	return certificate(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
}

func issue(t *testing.T, ca tls.Certificate, name string, use x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	return certificate(t, &ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{use},
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

func certificate(t *testing.T, ca *tls.Certificate, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, any(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
