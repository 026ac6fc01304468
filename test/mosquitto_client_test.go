package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// patience is how long a test waits for what must happen. What must not happen
// is never waited for: something that must happen after it is.
const patience = time.Minute

// client speaks MQTT by the packet, so that it can do what a decent library
// would not.
type client struct {
	t    *testing.T
	conn net.Conn
	id   uint16
	// received are the messages that came while something else was waited for.
	received []*packets.PublishPacket
}

type connectOption func(*packets.ConnectPacket, *tls.Config)

func withID(id string) connectOption {
	return func(p *packets.ConnectPacket, _ *tls.Config) { p.ClientIdentifier = id }
}

func withWill(topic, payload string, retained bool) connectOption {
	return func(p *packets.ConnectPacket, _ *tls.Config) {
		p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos, p.WillRetain = true, topic, []byte(payload), 1, retained
	}
}

func withTLS(change func(*tls.Config)) connectOption {
	return func(_ *packets.ConnectPacket, c *tls.Config) { change(c) }
}

// dial connects with a certificate, its name for a client id, and returns an
// error if the broker will not have it.
func dial(t *testing.T, b *brokerUnderTest, cert tls.Certificate, options ...connectOption) (*client, error) {
	t.Helper()
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion = "MQTT", 4
	connect.CleanSession = true
	connect.Keepalive = 60
	if cert.Leaf != nil {
		connect.ClientIdentifier = cert.Leaf.Subject.CommonName
	}
	cfg := &tls.Config{RootCAs: b.ca.pool(), MinVersion: tls.VersionTLS12}
	if len(cert.Certificate) > 0 {
		// Shown whether or not the broker's list of CAs has its issuer.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	for _, o := range options {
		o(connect, cfg)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", b.addr, cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.NetConn().Close() })
	c := &client{t: t, conn: conn}
	if err := c.write(connect); err != nil {
		return nil, err
	}
	p, err := c.read()
	if err != nil {
		return nil, err
	}
	ack, ok := p.(*packets.ConnackPacket)
	if !ok {
		return nil, fmt.Errorf("got %s instead of a CONNACK", p)
	}
	if ack.ReturnCode != packets.Accepted {
		return nil, fmt.Errorf("refused with code %d", ack.ReturnCode)
	}
	return c, nil
}

func mustDial(t *testing.T, b *brokerUnderTest, name string, options ...connectOption) *client {
	t.Helper()
	c, err := dial(t, b, b.cert(t, name), options...)
	if err != nil {
		t.Fatalf("%s cannot connect: %v\n%s", name, err, b.log())
	}
	return c
}

func (c *client) write(p packets.ControlPacket) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return p.Write(c.conn)
}

func (c *client) read() (packets.ControlPacket, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return packets.ReadPacket(c.conn)
}

// await reads until a packet is what is waited for, and keeps the messages.
func (c *client) await(is func(packets.ControlPacket) bool) error {
	for {
		p, err := c.read()
		if err != nil {
			return err
		}
		if m, ok := p.(*packets.PublishPacket); ok {
			c.received = append(c.received, m)
			if m.Qos == 1 {
				ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				ack.MessageID = m.MessageID
				if err := c.write(ack); err != nil {
					return err
				}
			}
		}
		if is(p) {
			return nil
		}
	}
}

// publish sends a message with QoS 1 and returns when the broker is through
// with it. The PUBACK would not say that: it may come before the delivery.
func (c *client) publish(topic, payload string, retained bool) error {
	c.id++
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Retain, p.Qos, p.MessageID = topic, []byte(payload), retained, 1, c.id
	if err := c.write(p); err != nil {
		return err
	}
	return c.ping()
}

// ping returns when the broker is through with all that was sent before.
func (c *client) ping() error {
	if err := c.write(packets.NewControlPacket(packets.Pingreq)); err != nil {
		return err
	}
	return c.await(func(p packets.ControlPacket) bool {
		_, ok := p.(*packets.PingrespPacket)
		return ok
	})
}

func (c *client) mustPublish(topic, payload string, retained bool) {
	c.t.Helper()
	if err := c.publish(topic, payload, retained); err != nil {
		c.t.Fatalf("publish on %s: %v", topic, err)
	}
}

// subscribe returns what the broker granted, when it has queued what was
// retained: the SUBACK would come before that.
func (c *client) subscribe(filter string) byte {
	c.t.Helper()
	c.id++
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.Topics, p.Qoss, p.MessageID = []string{filter}, []byte{1}, c.id
	if err := c.write(p); err != nil {
		c.t.Fatal(err)
	}
	var granted byte
	if err := c.await(func(p packets.ControlPacket) bool {
		ack, ok := p.(*packets.SubackPacket)
		if ok && len(ack.ReturnCodes) == 1 {
			granted = ack.ReturnCodes[0]
		}
		return ok
	}); err != nil {
		c.t.Fatalf("subscribe to %s: %v", filter, err)
	}
	if err := c.ping(); err != nil {
		c.t.Fatalf("after the subscription to %s: %v", filter, err)
	}
	return granted
}

// until returns what was received, up to and without the message with the
// payload last.
func (c *client) until(last string) []*packets.PublishPacket {
	c.t.Helper()
	is := func(m *packets.PublishPacket) bool { return string(m.Payload) == last }
	if !slices.ContainsFunc(c.received, is) {
		if err := c.await(func(p packets.ControlPacket) bool {
			m, ok := p.(*packets.PublishPacket)
			return ok && is(m)
		}); err != nil {
			c.t.Fatalf("waiting for %q: %v", last, err)
		}
	}
	got := slices.DeleteFunc(c.received, is)
	c.received = nil
	return got
}

var errStillOpen = errors.New("the connection is still open")

// closed waits for the broker to close the connection.
func (c *client) closed() error {
	err := c.await(func(packets.ControlPacket) bool { return false })
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errStillOpen
	}
	return nil
}

// drop ends the connection without a DISCONNECT.
func (c *client) drop() { c.conn.(*tls.Conn).NetConn().Close() }
