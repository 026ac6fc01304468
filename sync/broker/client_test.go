package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// pki is a certificate authority for a test.
type pki struct {
	ca   tls.Certificate
	pool *x509.CertPool
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{pool: x509.NewCertPool()}
	p.ca = p.certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	p.pool.AddCert(p.ca.Leaf)
	return p
}

func (p *pki) issue(t *testing.T, name string, use x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	return p.certificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{use},
		KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

func (p *pki) certificate(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, any(key)
	if p.ca.Leaf != nil {
		parent, signer = p.ca.Leaf, p.ca.PrivateKey
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

// running is a broker that runs until the test ends or stop is called.
type running struct {
	*Broker
	pki  *pki
	stop func()
}

func run(t *testing.T, change func(*Config)) *running {
	t.Helper()
	p := newPKI(t)
	cfg := Config{
		Listen: "127.0.0.1:0",
		TLS:    &tls.Config{Certificates: []tls.Certificate{p.issue(t, "broker", x509.ExtKeyUsageServerAuth)}, ClientCAs: p.pool},
	}
	if change != nil {
		change(&cfg)
	}
	b, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	r := &running{Broker: b, pki: p}
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// client speaks MQTT by the packet.
type client struct {
	t *testing.T
	*tls.Conn
	id uint16
}

// shake opens a TLS connection.
func (r *running) shake(t *testing.T, name string) *client {
	t.Helper()
	conn, err := tls.Dial("tcp", r.Addr().String(), &tls.Config{
		RootCAs: r.pki.pool, Certificates: []tls.Certificate{r.pki.issue(t, name, x509.ExtKeyUsageClientAuth)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.NetConn().Close() })
	return &client{t: t, Conn: conn}
}

// dial connects and returns the CONNACK's session-present flag.
func (r *running) dial(t *testing.T, name string, change func(*packets.ConnectPacket)) (c *client, present bool, err error) {
	t.Helper()
	c = r.shake(t, name)
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion, connect.CleanSession = "MQTT", 4, true
	connect.ClientIdentifier, connect.Keepalive = name, 60
	if change != nil {
		change(connect)
	}
	if err := connect.Write(c); err != nil {
		return nil, false, err
	}
	p, err := c.read()
	if err != nil {
		return nil, false, err
	}
	ack, ok := p.(*packets.ConnackPacket)
	switch {
	case !ok:
		return nil, false, fmt.Errorf("got %s", p)
	case ack.ReturnCode != 0:
		return nil, false, fmt.Errorf("code %d", ack.ReturnCode)
	}
	return c, ack.SessionPresent, nil
}

func (r *running) mustDial(t *testing.T, name string) *client {
	t.Helper()
	c, _, err := r.dial(t, name, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return c
}

func (c *client) read() (packets.ControlPacket, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return packets.ReadPacket(c.Conn)
}

// ask writes a packet and reads until the answer of the wanted type.
func ask[T packets.ControlPacket](c *client, p packets.ControlPacket) (answer T, err error) {
	if err := p.Write(c); err != nil {
		return answer, err
	}
	for {
		got, err := c.read()
		if err != nil {
			return answer, err
		}
		if answer, ok := got.(T); ok {
			return answer, nil
		}
	}
}

func (c *client) subscribe(filter string) {
	c.t.Helper()
	c.id++
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.Topics, p.Qoss, p.MessageID = []string{filter}, []byte{1}, c.id
	ack, err := ask[*packets.SubackPacket](c, p)
	if err != nil || ack.ReturnCodes[0] != 1 {
		c.t.Fatalf("subscribe to %s: %v, %v", filter, ack, err)
	}
}

func (c *client) publish(topic string, payload []byte) error {
	c.id++
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic, payload, 1, c.id
	_, err := ask[*packets.PubackPacket](c, p)
	return err
}

// closed waits until the broker has closed the connection.
func (c *client) closed() {
	c.t.Helper()
	for {
		_, err := c.read()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Error("the connection stays open")
		}
		if err != nil {
			return
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
