package mqtt

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// fake is a broker that does as each test wants.
type fake struct {
	t         *testing.T
	l         net.Listener
	connected chan *peer // each connection, once its CONNECT was answered

	mu     sync.Mutex
	refuse bool // answer CONNECT with "not authorised"
	mute   bool // answer no SUBSCRIBE
	suback []byte
	accept bool // acknowledge publishes
}

// peer is one connection of a client at the fake broker.
type peer struct {
	t          *testing.T
	net.Conn   // Write is serialised by mu
	connect    *packets.ConnectPacket
	subscribed chan []string
	published  chan *packets.PublishPacket
	ended      chan string // "disconnect" or "closed"
	mu         sync.Mutex
}

func newFake(t *testing.T) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, l: l, connected: make(chan *peer, 1024), accept: true}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer conn.Close()
				f.serve(conn)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return f
}

func (f *fake) url() string { return "tcp://" + f.l.Addr().String() }

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) serve(conn net.Conn) {
	first, err := packets.ReadPacket(conn)
	if err != nil {
		return
	}
	connect, ok := first.(*packets.ConnectPacket)
	if !ok {
		f.t.Errorf("first packet is %s", first)
		return
	}
	p := &peer{
		t: f.t, Conn: conn, connect: connect,
		subscribed: make(chan []string, 16),
		published:  make(chan *packets.PublishPacket, 4096),
		ended:      make(chan string, 1),
	}
	f.mu.Lock()
	refuse := f.refuse
	f.mu.Unlock()
	ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	if refuse {
		ack.ReturnCode = packets.ErrRefusedNotAuthorised
	}
	p.send(ack)
	f.connected <- p
	if refuse {
		return
	}
	for {
		in, err := packets.ReadPacket(conn)
		if err != nil {
			p.ended <- "closed"
			return
		}
		f.mu.Lock()
		accept, mute, suback := f.accept, f.mute, f.suback
		f.mu.Unlock()
		switch in := in.(type) {
		case *packets.SubscribePacket:
			if suback == nil {
				suback = in.Qoss
			}
			if !mute {
				ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
				ack.MessageID, ack.ReturnCodes = in.MessageID, suback
				p.send(ack)
			}
			p.subscribed <- in.Topics
		case *packets.PublishPacket:
			if accept {
				ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				ack.MessageID = in.MessageID
				p.send(ack)
			}
			p.published <- in
		case *packets.PingreqPacket:
			p.send(packets.NewControlPacket(packets.Pingresp))
		case *packets.DisconnectPacket:
			p.ended <- "disconnect"
			return
		}
	}
}

// send writes a packet; the client may be gone.
func (p *peer) send(packet packets.ControlPacket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = packet.Write(p.Conn)
}

func (p *peer) deliver(topic, payload string) {
	m := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	m.TopicName, m.Payload = topic, []byte(payload)
	p.send(m)
}

// next takes one thing from a channel, in time.
func next[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
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

// start makes a Conn and runs it until the test ends or stop is called.
func start(t *testing.T, cfg Config) (c *Conn, stop func()) {
	t.Helper()
	if cfg.ClientID == "" {
		cfg.ClientID = "north-1"
	}
	if cfg.MinBackoff == 0 {
		cfg.MinBackoff, cfg.MaxBackoff = 5*time.Millisecond, 20*time.Millisecond
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
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
	t.Cleanup(stop)
	return c, stop
}

// proxy forwards TCP connections until it is told to be silent: then bytes
// disappear and nothing is closed, as when a cable is pulled.
type proxy struct {
	l      net.Listener
	mu     sync.Mutex
	silent bool
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l}
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			mu.Lock()
			open = append(open, client, server)
			mu.Unlock()
			go p.forward(client, server)
			go p.forward(server, client)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			c.Close()
		}
	})
	return p
}

func (p *proxy) url() string { return "tcp://" + p.l.Addr().String() }

func (p *proxy) silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
}

// forward copies until either side ends, or is cut: a connection that was
// silenced once stays so.
func (p *proxy) forward(from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		silent := p.silent
		p.mu.Unlock()
		if silent {
			_, _ = io.Copy(io.Discard, from)
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func payload(i int) string { return fmt.Sprintf("message %d", i) }
