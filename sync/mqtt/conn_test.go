package mqtt

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestConnectSaysWhatTheBrokerMustKnow(t *testing.T) {
	f := newFake(t)
	c, stop := start(t, Config{
		Broker:        f.url(),
		ClientID:      "north-1",
		Will:          Will{Topic: "gatehouse/north-1/up/state", Payload: []byte("offline")},
		Subscriptions: []string{"a/#", "b"},
		KeepAlive:     7 * time.Second,
	})
	p := next(t, "connection", f.connected)
	switch k := p.connect; {
	case k.ClientIdentifier != "north-1", !k.CleanSession, k.ProtocolVersion != 4, k.Keepalive != 7,
		k.UsernameFlag, k.PasswordFlag,
		k.WillTopic != "gatehouse/north-1/up/state", string(k.WillMessage) != "offline", k.WillQos != 1, !k.WillRetain:
		t.Errorf("CONNECT: %+v", k)
	}
	topics := next(t, "SUBSCRIBE", p.subscribed)
	slices.Sort(topics)
	if !slices.Equal(topics, []string{"a/#", "b"}) {
		t.Errorf("SUBSCRIBE: %q", topics)
	}
	eventually(t, "connected", c.Connected)
	if err := c.Publish(t.Context(), "a/topic", []byte("hello"), true); err != nil {
		t.Error(err)
	}
	if m := next(t, "PUBLISH", p.published); m.TopicName != "a/topic" || string(m.Payload) != "hello" || !m.Retain || m.Qos != 1 {
		t.Errorf("PUBLISH: %+v", m)
	}
	// The broker publishes the will only if it hears no goodbye.
	stop()
	if how := next(t, "end", p.ended); how != "closed" {
		t.Errorf("a connection with a will ended with %q", how)
	}
	if c.Connected() {
		t.Error("connected after its end")
	}
	if err := c.Publish(t.Context(), "a/topic", nil, false); !errors.Is(err, ErrNotConnected) {
		t.Errorf("publish after the end: %v", err)
	}
}

func TestConnectionWithoutWillSaysGoodbye(t *testing.T) {
	f := newFake(t)
	c, stop := start(t, Config{Broker: f.url()})
	p := next(t, "connection", f.connected)
	eventually(t, "connected", c.Connected)
	stop()
	if how := next(t, "end", p.ended); how != "disconnect" {
		t.Errorf("ended with %q", how)
	}
}

// A broker that acknowledges nothing must not hold up the caller, and is left.
func TestUnacknowledgedPublishEndsTheConnection(t *testing.T) {
	f := newFake(t)
	f.set(func(f *fake) { f.accept = false })
	c, _ := start(t, Config{Broker: f.url(), Subscriptions: []string{"a"}, PublishTimeout: time.Second})
	first := next(t, "connection", f.connected)
	eventually(t, "connected", c.Connected)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Publish(ctx, "t", []byte("caller in a hurry"), false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("caller's own deadline: %v", err)
	}
	if err := c.Publish(t.Context(), "t", []byte("x"), false); !errors.Is(err, ErrNotAcknowledged) {
		t.Errorf("publish: %v", err)
	}
	if how := next(t, "end", first.ended); how != "closed" {
		t.Errorf("ended with %q", how)
	}
	f.set(func(f *fake) { f.accept = true })
	p := next(t, "second connection", f.connected)
	next(t, "SUBSCRIBE on the second connection", p.subscribed)
	eventually(t, "publish works again", func() bool {
		return c.Publish(t.Context(), "t", []byte("y"), false) == nil
	})
	for {
		m := next(t, "PUBLISH", p.published)
		if string(m.Payload) == "y" {
			break
		}
		t.Errorf("%q was sent again by itself", m.Payload)
	}
	if s := c.Status(); s.TimedOut == 0 || s.Reconnects == 0 || !strings.Contains(s.LastError, ErrNotAcknowledged.Error()) {
		t.Errorf("status: %+v", s)
	}
}

// A broker that has forgotten everything is subscribed to again.
func TestSubscriptionsAreMadeOnEachConnection(t *testing.T) {
	f := newFake(t)
	var connects sync.Map
	n := 0
	c, _ := start(t, Config{Broker: f.url(), Subscriptions: []string{"a"}, OnConnect: func(context.Context) {
		n++ // calls do not overlap; the race detector would tell
		connects.Store(n, true)
	}})
	for i := range 5 {
		p := next(t, "connection", f.connected)
		next(t, "SUBSCRIBE", p.subscribed)
		eventually(t, "OnConnect", func() bool { _, ok := connects.Load(i + 1); return ok })
		p.deliver("a", payload(i))
		if m := next(t, "message", c.Messages()); string(m.Payload) != payload(i) || m.Topic != "a" || m.Retained {
			t.Errorf("received %+v", m)
		}
		if i == 2 {
			c.Reconnect("the test says so")
		} else {
			p.Close()
		}
	}
	eventually(t, "status", func() bool { return c.Status().Reconnects >= 4 })
}

func TestConnectionWithoutItsSubscriptionsIsNone(t *testing.T) {
	for name, spoil := range map[string]func(*fake){
		"refused":        func(f *fake) { f.suback = []byte{1, 0x80} },
		"granted less":   func(f *fake) { f.suback = []byte{1, 0} },
		"too few codes":  func(f *fake) { f.suback = []byte{1} },
		"too many codes": func(f *fake) { f.suback = []byte{1, 1, 1} }, // the library panics on these
		"no answer":      func(f *fake) { f.mute = true },
		"not authorised": func(f *fake) { f.refuse = true },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.set(spoil)
			c, _ := start(t, Config{
				Broker: f.url(), Subscriptions: []string{"a", "b"}, ConnectTimeout: 150 * time.Millisecond,
				OnConnect: func(context.Context) { t.Error("OnConnect was called") },
			})
			for range 3 {
				p := next(t, "attempt", f.connected)
				p.deliver("a", "before the subscription stands")
				if c.Connected() {
					t.Error("connected")
				}
			}
			if s := c.Status(); s.Connected || s.LastError == "" || s.Reconnects != 0 {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

func TestFullQueueDropsAndCountsAndKeepsOrder(t *testing.T) {
	const sent, room = 500, 20
	f := newFake(t)
	c, _ := start(t, Config{Broker: f.url(), Subscriptions: []string{"a"}, Queue: room})
	p := next(t, "connection", f.connected)
	eventually(t, "connected", c.Connected)
	for i := range sent {
		p.deliver("a", payload(i))
	}
	eventually(t, "the rest is counted", func() bool { return c.Status().Dropped == sent-room })
	for i := range room {
		if m := next(t, "message", c.Messages()); string(m.Payload) != payload(i) {
			t.Fatalf("message %d is %q", i, m.Payload)
		}
	}
	// Nobody was blocked meanwhile, and there is room again.
	if err := c.Publish(t.Context(), "t", nil, false); err != nil {
		t.Error(err)
	}
	p.deliver("a", "after")
	if m := next(t, "message", c.Messages()); string(m.Payload) != "after" {
		t.Errorf("received %q", m.Payload)
	}
}

func TestOrderIsKept(t *testing.T) {
	const n = 2000
	f := newFake(t)
	c, _ := start(t, Config{Broker: f.url(), Subscriptions: []string{"a"}, Queue: n})
	p := next(t, "connection", f.connected)
	eventually(t, "connected", c.Connected)
	go func() {
		for i := range n {
			p.deliver("a", payload(i))
		}
	}()
	for i := range n {
		if err := c.Publish(t.Context(), "t", []byte(payload(i)), false); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if m := next(t, "message", c.Messages()); string(m.Payload) != payload(i) {
			t.Fatalf("received %q as number %d", m.Payload, i)
		}
		if m := next(t, "publish", p.published); string(m.Payload) != payload(i) {
			t.Fatalf("published %q as number %d", m.Payload, i)
		}
	}
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	f := newFake(t)
	p := newProxy(t, f.l.Addr().String())
	c, _ := start(t, Config{Broker: p.url(), Subscriptions: []string{"a"}, KeepAlive: time.Second, PingTimeout: 300 * time.Millisecond})
	next(t, "connection", f.connected)
	eventually(t, "connected", c.Connected)
	p.silence(true)
	eventually(t, "the loss is noticed", func() bool { return !c.Connected() })
	if s := c.Status(); !strings.Contains(s.LastError, "pingresp") {
		t.Errorf("status: %+v", s)
	}
	p.silence(false)
	eventually(t, "connected again", c.Connected)
}

// A publisher is not held up by a connection that has gone silent, but told
// when it is given up.
func TestPublishOnHalfOpenConnectionReturns(t *testing.T) {
	f := newFake(t)
	p := newProxy(t, f.l.Addr().String())
	c, _ := start(t, Config{Broker: p.url(), PublishTimeout: 200 * time.Millisecond})
	next(t, "connection", f.connected)
	eventually(t, "connected", c.Connected)
	p.silence(true)
	began := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := c.Publish(t.Context(), "t", make([]byte, 100<<10), false); err == nil {
				t.Error("publish into the void succeeded")
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > patience {
		t.Errorf("publishes took %s", took)
	}
}

func TestManyReconnectsLeaveNothingBehind(t *testing.T) {
	f := newFake(t)
	before := runtime.NumGoroutine()
	c, stop := start(t, Config{
		Broker: f.url(), Subscriptions: []string{"a"}, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		PublishTimeout: 300 * time.Millisecond,
	})
	for i := range 100 {
		p := next(t, "connection", f.connected)
		if i%3 == 0 { // in the middle of things
			go func() { _ = c.Publish(context.Background(), "t", []byte("x"), false) }()
		}
		if i%2 == 0 {
			next(t, "SUBSCRIBE", p.subscribed)
		}
		p.Close()
	}
	stop()
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if now := runtime.NumGoroutine(); now > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after:\n%s", before, now, buf[:runtime.Stack(buf, true)])
	}
}

func TestOutageIsLoggedOnceAndRetriedGently(t *testing.T) {
	f := newFake(t)
	f.set(func(f *fake) { f.refuse = true })
	var log lockedBuffer
	c, stop := start(t, Config{
		Broker: f.url(), MinBackoff: 10 * time.Millisecond, MaxBackoff: 40 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	time.Sleep(400 * time.Millisecond)
	// Waits of at least 5, 10, 20, 20, … ms.
	if n := len(f.connected); n < 5 || n > 24 {
		t.Errorf("%d attempts in 400 ms", n)
	}
	f.set(func(f *fake) { f.refuse = false })
	eventually(t, "connected", c.Connected)
	stop()
	if got := strings.Count(log.String(), "\n"); got != 2 ||
		!strings.Contains(log.String(), "trying again") || !strings.Contains(log.String(), "connected to the broker") {
		t.Errorf("log:\n%s", log.String())
	}
}

func TestPublishRefusesWhatIsTooLarge(t *testing.T) {
	f := newFake(t)
	c, _ := start(t, Config{Broker: f.url(), MaxPacket: 1000})
	eventually(t, "connected", c.Connected)
	if err := c.Publish(t.Context(), "t", make([]byte, 1000), false); err == nil || errors.Is(err, ErrNotConnected) {
		t.Errorf("got %v", err)
	}
	if err := c.Publish(t.Context(), "t", make([]byte, 900), false); err != nil {
		t.Error(err)
	}
	p := next(t, "connection", f.connected)
	if m := next(t, "publish", p.published); len(m.Payload) != 900 {
		t.Errorf("published %d bytes", len(m.Payload))
	}
}

func TestRunMayBeCalledOnce(t *testing.T) {
	f := newFake(t)
	c, _ := start(t, Config{Broker: f.url()})
	eventually(t, "connected", c.Connected)
	if err := c.Run(t.Context()); err == nil {
		t.Error("no error")
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
