package faults

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// broker is an MQTT broker on loopback, without TLS, that treats messages as
// badly as each test wants. It knows QoS 1, retained messages and Last Wills.
type broker struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex
	treat    func(from, topic string) treatment // of what is published; nil: as a good broker does
	dead     bool                               // hangs up on everybody
	retained map[string]*packets.PublishPacket
	clients  map[*client]bool
	taken    map[string]int // publishes, by topic
}

// treatment is what becomes of a publish.
type treatment struct {
	acknowledge bool
	copies      []time.Duration // when each copy is delivered
}

// good is how a good broker treats every message.
var good = treatment{acknowledge: true, copies: []time.Duration{0}}

// client is one connection.
type client struct {
	id     string
	conn   net.Conn
	out    chan packets.ControlPacket
	ended  chan struct{}
	id16   uint16   // of the last delivery; under broker.mu, as is:
	topics []string // subscribed
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{listener: l, retained: make(map[string]*packets.PublishPacket), clients: make(map[*client]bool), taken: make(map[string]int)}
	b.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			b.serving.Go(func() { b.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.die()
		b.serving.Wait()
	})
	return b
}

func (b *broker) url() string { return "tcp://" + b.listener.Addr().String() }

// be changes how messages are treated from now on.
func (b *broker) be(treat func(from, topic string) treatment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.treat = treat
}

// die ends every connection, forgets everything, and lets nobody in until
// revive.
func (b *broker) die() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = true
	clear(b.retained)
	for c := range b.clients {
		c.conn.Close()
	}
}

func (b *broker) revive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = false
}

// published is how many messages came on a topic.
func (b *broker) published(topic string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.taken[topic]
}

func (b *broker) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rig.Patience))
	first, err := packets.ReadPacket(conn)
	connect, ok := first.(*packets.ConnectPacket)
	if err != nil || !ok {
		return
	}
	conn.SetDeadline(time.Time{})
	c := &client{id: connect.ClientIdentifier, conn: conn, out: make(chan packets.ControlPacket, 1<<14), ended: make(chan struct{})}
	b.mu.Lock()
	if b.dead {
		b.mu.Unlock()
		return
	}
	for other := range b.clients {
		if other.id == c.id {
			other.conn.Close()
		}
	}
	b.clients[c] = true
	c.out <- packets.NewControlPacket(packets.Connack)
	b.mu.Unlock()

	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case p := <-c.out:
				if p.Write(conn) != nil {
					conn.Close()
					return
				}
			case <-c.ended:
				return
			}
		}
	})
	goodbye := b.follow(c)
	b.mu.Lock()
	delete(b.clients, c)
	close(c.ended)
	b.mu.Unlock()
	writing.Wait()
	if !goodbye && connect.WillFlag {
		will := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		will.TopicName, will.Payload, will.Retain = connect.WillTopic, connect.WillMessage, connect.WillRetain
		b.mu.Lock()
		if !b.dead {
			b.deliver(will)
		}
		b.mu.Unlock()
	}
}

// follow does what a client asks for until it is gone.
func (b *broker) follow(c *client) (goodbye bool) {
	for {
		in, err := packets.ReadPacket(c.conn)
		if err != nil {
			return false
		}
		switch in := in.(type) {
		case *packets.SubscribePacket:
			ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
			ack.MessageID, ack.ReturnCodes = in.MessageID, in.Qoss
			b.mu.Lock()
			c.topics = append(c.topics, in.Topics...)
			c.send(ack)
			for topic, m := range b.retained {
				if c.wants(topic) {
					c.pass(m, true)
				}
			}
			b.mu.Unlock()
		case *packets.PublishPacket:
			b.take(c, in)
		case *packets.PingreqPacket:
			c.send(packets.NewControlPacket(packets.Pingresp))
		case *packets.DisconnectPacket:
			return true
		}
	}
}

func (b *broker) take(c *client, m *packets.PublishPacket) {
	b.mu.Lock()
	b.taken[m.TopicName]++
	treat := b.treat
	b.mu.Unlock()
	how := good
	if treat != nil {
		how = treat(c.id, m.TopicName)
	}
	if how.acknowledge {
		ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		ack.MessageID = m.MessageID
		c.send(ack)
	}
	for _, later := range how.copies {
		deliver := func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if !b.dead {
				b.deliver(m)
			}
		}
		if later == 0 {
			deliver()
		} else {
			time.AfterFunc(later, deliver)
		}
	}
}

// inject delivers a message that no client published.
func (b *broker) inject(topic string, payload []byte) {
	m := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	m.TopicName, m.Payload = topic, payload
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deliver(m)
}

// deliver hands a message to whoever wants it. b.mu is held.
func (b *broker) deliver(m *packets.PublishPacket) {
	if m.Retain {
		b.retained[m.TopicName] = m
	}
	for c := range b.clients {
		if c.wants(m.TopicName) {
			c.pass(m, false)
		}
	}
}

// pass sends a message on. broker.mu is held.
func (c *client) pass(m *packets.PublishPacket, retained bool) {
	out := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	out.TopicName, out.Payload, out.Retain, out.Qos = m.TopicName, m.Payload, retained, 1
	c.id16 = max(1, c.id16+1)
	out.MessageID = c.id16
	c.send(out)
}

// send queues a packet. A client that takes nothing loses its connection.
func (c *client) send(p packets.ControlPacket) {
	select {
	case c.out <- p:
	default:
		c.conn.Close()
	}
}

func (c *client) wants(topic string) bool {
	for _, filter := range c.topics {
		if matches(filter, topic) {
			return true
		}
	}
	return false
}

func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, part := range f {
		switch {
		case part == "#":
			return true
		case i >= len(t) || part != "+" && part != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

// relay passes TCP connections on, until it freezes those that stand: then
// their bytes disappear and nothing is closed, as when a cable is pulled.
type relay struct {
	listener net.Listener
	mu       sync.Mutex
	frozen   chan struct{}
	open     []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, frozen: make(chan struct{})}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			r.mu.Lock()
			r.open = append(r.open, near, far)
			frozen := r.frozen
			r.mu.Unlock()
			go pump(near, far, frozen)
			go pump(far, near, frozen)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range r.open {
			c.Close()
		}
	})
	return r
}

// freeze makes every connection that stands half-open.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.frozen)
	r.frozen = make(chan struct{})
}

func pump(from, to net.Conn, frozen <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-frozen: // not even the end of one side is told to the other
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}
