package test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/broker"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/test/mosquitto"
)

// brokerUnderTest is a broker with the project's rules.
type brokerUnderTest struct {
	addr string
	ca   *authority
	log  func() string
	// retainedRule: it forbids to retain what must not be.
	retainedRule bool

	mu    sync.Mutex
	certs map[string]tls.Certificate
}

func (b *brokerUnderTest) cert(t *testing.T, name string) tls.Certificate {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	cert, ok := b.certs[name]
	if !ok {
		cert = b.ca.client(t, name)
		b.certs[name] = cert
	}
	return cert
}

func embedded(t *testing.T) *brokerUnderTest {
	t.Helper()
	ca := newAuthority(t)
	var log lockedBuffer
	b, err := broker.Listen(broker.Config{
		Listen: "127.0.0.1:0",
		TLS:    &tls.Config{Certificates: []tls.Certificate{ca.server(t)}, ClientCAs: ca.pool()},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &brokerUnderTest{
		addr: b.Addr().String(), ca: ca, log: log.String, retainedRule: true,
		certs: make(map[string]tls.Certificate),
	}
}

func realMosquitto(t *testing.T) *brokerUnderTest {
	t.Helper()
	ca := newAuthority(t)
	m := startMosquitto(t, ca)
	return &brokerUnderTest{addr: m.Addr, ca: ca, log: m.Log, certs: make(map[string]tls.Certificate)}
}

func startMosquitto(t *testing.T, ca *authority) *mosquitto.Broker {
	t.Helper()
	m, err := mosquitto.Start(t.TempDir(), ca.files(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	return m
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

// onBothBrokers runs a test against the broker inside gatehouse-crm and
// against Mosquitto with the configuration that users get.
func onBothBrokers(t *testing.T, test func(*testing.T, *brokerUnderTest)) {
	for name, start := range map[string]func(*testing.T) *brokerUnderTest{
		"embedded": embedded, "mosquitto": realMosquitto,
	} {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}

const crm = "gatehouse-crm"

// upKinds are the topics that a controller writes, and downKinds those of the CRM.
var upKinds, downKinds = func() (up, down []string) {
	for _, k := range wire.Kinds() {
		if k.Up() {
			up = append(up, string(k))
		} else {
			down = append(down, string(k))
		}
	}
	return up, down
}()

// site is a CRM and two controllers, all connected, each hearing what is meant
// for it; and a third controller that only gives the mark up to which the
// others are to look at what they received.
type site struct {
	t       *testing.T
	clients map[string]*client
	marker  *client
	marks   int
}

func newSite(t *testing.T, b *brokerUnderTest) *site {
	t.Helper()
	s := &site{t: t, clients: map[string]*client{}, marker: mustDial(t, b, "marker")}
	for name, filter := range map[string]string{
		crm:       "gatehouse/+/up/#",
		"north-1": "gatehouse/north-1/down/#",
		"south-1": "gatehouse/south-1/down/#",
	} {
		s.clients[name] = mustDial(t, b, name)
		if granted := s.clients[name].subscribe(filter); granted != 1 {
			t.Fatalf("%s: own subscription granted with %#x", name, granted)
		}
	}
	return s
}

// received returns for each client the topics and payloads that it has been
// sent by now, as "topic payload" or "topic payload retained".
func (s *site) received() map[string][]string {
	s.t.Helper()
	s.marks++
	mark := fmt.Sprintf("mark %d", s.marks)
	s.marker.mustPublish("gatehouse/marker/up/fetch", mark, false)
	s.clients[crm].mustPublish("gatehouse/north-1/down/receipt", mark, false)
	s.clients[crm].mustPublish("gatehouse/south-1/down/receipt", mark, false)
	got := map[string][]string{}
	for name, c := range s.clients {
		for _, m := range c.until(mark) {
			if len(m.Payload) == 0 {
				continue // something retained was taken back
			}
			line := m.TopicName + " " + string(m.Payload)
			if m.Retain {
				line += " retained"
			}
			got[name] = append(got[name], line)
		}
	}
	return got
}

// TestOnlyItsOwnTopicsArePublished is the matrix of who may publish what.
func TestOnlyItsOwnTopicsArePublished(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		s := newSite(t, b)
		kinds := slices.Concat(upKinds, downKinds, []string{"up/other", "down/other", "up", "up/records/more", "other"})
		n := 0
		for _, from := range []string{"north-1", crm} {
			for _, owner := range []string{"north-1", "south-1", crm} {
				for _, kind := range kinds {
					for _, retained := range []bool{false, true} {
						up, down := slices.Contains(upKinds, kind), slices.Contains(downKinds, kind)
						allowed := from == "north-1" && owner == "north-1" && up || from == crm && owner != crm && down
						if retained && b.retainedRule && kind != "up/state" && kind != "down/manifest" {
							allowed = false
						}
						to := crm
						if down {
							to = owner
						}
						n++
						topic, payload := "gatehouse/"+owner+"/"+kind, fmt.Sprintf("message %d", n)
						s.clients[from].mustPublish(topic, payload, retained)

						want := map[string][]string{}
						if allowed {
							want[to] = []string{topic + " " + payload}
						}
						if got := s.received(); !equal(got, want) {
							t.Errorf("%s publishes on %s (retained: %t): received %v, want %v", from, topic, retained, got, want)
						}
						if !retained {
							continue
						}
						// Who subscribes later gets what was retained.
						want = map[string][]string{}
						if allowed {
							want[to] = []string{topic + " " + payload + " retained"}
						}
						s.clients[crm].subscribe("gatehouse/+/up/#")
						s.clients["north-1"].subscribe("gatehouse/north-1/down/#")
						s.clients["south-1"].subscribe("gatehouse/south-1/down/#")
						if got := s.received(); !equal(got, want) {
							t.Errorf("%s retains on %s: a later subscriber received %v, want %v", from, topic, got, want)
						}
						s.clients[from].mustPublish(topic, "", true)
					}
				}
			}
		}
		t.Logf("%d combinations", n)
	})
}

func equal(a, b map[string][]string) bool {
	return fmt.Sprint(a) == fmt.Sprint(b) // fmt sorts maps
}

// TestOnlyItsOwnTopicsAreHeard is the matrix of who may subscribe to what. A
// forbidden subscription may be refused, or granted and not served.
func TestOnlyItsOwnTopicsAreHeard(t *testing.T) {
	for _, c := range []struct {
		who    string
		filter string
		gets   string // prefix of the topics that must arrive; "" for none
	}{
		{"north-1", "gatehouse/north-1/down/#", "gatehouse/north-1/down/"},
		{"north-1", "gatehouse/north-1/down/+", "gatehouse/north-1/down/"},
		{"north-1", "gatehouse/north-1/down/command", "gatehouse/north-1/down/command"},
		{"north-1", "gatehouse/south-1/down/#", ""},
		{"north-1", "gatehouse/south-1/down/command", ""},
		{"north-1", "gatehouse/+/down/#", ""},
		{"north-1", "gatehouse/+/down/command", ""},
		{"north-1", "gatehouse/north-1/#", ""},
		{"north-1", "gatehouse/north-1/up/#", ""},
		{"north-1", "gatehouse/south-1/up/records", ""},
		{"north-1", "gatehouse/+/up/#", ""},
		{"north-1", "gatehouse/#", ""},
		{"north-1", "#", ""},
		{"north-1", "+/+/+/+", ""},
		{"north-1", "+/south-1/#", ""},
		{"north-1", "$SYS/#", ""},
		{"north-1", "$share/g/gatehouse/+/down/#", ""},
		{"north-1", "$share/g/gatehouse/south-1/up/#", ""},
		{crm, "gatehouse/+/up/#", "gatehouse/*/up/"},
		{crm, "gatehouse/north-1/up/records", "gatehouse/north-1/up/records"},
		{crm, "gatehouse/+/down/#", ""},
		{crm, "gatehouse/north-1/down/command", ""},
		{crm, "gatehouse/gatehouse-crm/down/#", ""},
		{crm, "gatehouse/#", ""},
		{crm, "#", ""},
		{crm, "$SYS/#", ""},
	} {
		t.Run(c.who+" "+strings.ReplaceAll(c.filter, "/", "|"), func(t *testing.T) {
			onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
				clients := map[string]*client{}
				for _, name := range []string{"north-1", "south-1", "marker", crm} {
					clients[name] = mustDial(t, b, name)
				}
				// What gives the mark is allowed, and not counted.
				marker, markTopic := clients["marker"], "gatehouse/marker/up/fetch"
				if c.who != crm {
					marker, markTopic = clients[crm], "gatehouse/"+c.who+"/down/receipt"
				}
				who := clients[c.who]
				if granted := who.subscribe(markTopic); granted != 1 {
					t.Fatalf("subscription to %s granted with %#x", markTopic, granted)
				}
				who.subscribe(c.filter)
				var sent []string
				for _, owner := range []string{"north-1", "south-1"} {
					for _, kind := range upKinds {
						sent = append(sent, "gatehouse/"+owner+"/"+kind)
						clients[owner].mustPublish(sent[len(sent)-1], "message", false)
					}
					for _, kind := range downKinds {
						sent = append(sent, "gatehouse/"+owner+"/"+kind)
						clients[crm].mustPublish(sent[len(sent)-1], "message", false)
					}
				}
				marker.mustPublish(markTopic, "mark", false)
				got := map[string]bool{}
				for _, m := range who.until("mark") {
					got[m.TopicName] = true
				}
				for _, topic := range sent {
					switch {
					case topic == markTopic:
					case matches(c.gets, topic):
						if !got[topic] {
							t.Errorf("did not get %s", topic)
						}
					case got[topic] && !own(c.who, topic):
						t.Errorf("got %s", topic)
					}
					delete(got, topic)
				}
				if len(got) > 0 {
					t.Errorf("got what nobody of ours had sent: %v", got)
				}
			})
		})
	}
}

// own reports whether a topic is meant for a client: a broker may serve that
// part of a subscription which is allowed.
func own(who, topic string) bool {
	if who == crm {
		return strings.Contains(topic, "/up/")
	}
	return strings.HasPrefix(topic, "gatehouse/"+who+"/down/")
}

func matches(pattern, topic string) bool {
	if pattern == "" {
		return false
	}
	before, after, wild := strings.Cut(pattern, "*")
	return strings.HasPrefix(topic, before) && (!wild || strings.Contains(topic, after))
}

func TestStolenClientIDDoesNotEvictItsOwner(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		s := newSite(t, b)
		victim := s.clients["north-1"]
		thief, err := dial(t, b, b.cert(t, "thief"), withID("north-1"))
		if err == nil {
			thief.subscribe("gatehouse/north-1/down/#")
		}
		s.clients[crm].mustPublish("gatehouse/north-1/down/command", "for the owner", false)
		if got := s.received()["north-1"]; len(got) != 1 {
			t.Errorf("the owner received %v, want one message", got)
		}
		victim.mustPublish("gatehouse/north-1/up/records", "still here", false)
		if got := s.received()[crm]; len(got) != 1 {
			t.Errorf("from the owner the CRM received %v, want one message", got)
		}
		if thief != nil {
			if err := thief.publish("gatehouse/thief/up/fetch", "done", false); err != nil {
				t.Errorf("the thief under its own name: %v", err)
			}
			if len(thief.received) > 0 {
				t.Errorf("the thief received %v", thief.received)
			}
		}
	})
}

func TestSameClientTakesOverItsConnection(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		s := newSite(t, b)
		for i := range 10 {
			// As a controller would: its state, and the opposite for a will.
			c := mustDial(t, b, "north-1", withWill("gatehouse/north-1/up/state", fmt.Sprint("offline ", i), true))
			c.subscribe("gatehouse/north-1/down/#")
			c.mustPublish("gatehouse/north-1/up/state", fmt.Sprint("online ", i), true)
			if err := s.clients["north-1"].closed(); err != nil {
				t.Fatalf("former connection: %v", err)
			}
			s.clients["north-1"] = c
			got := s.received()[crm]
			if len(got) == 0 || got[len(got)-1] != fmt.Sprint("gatehouse/north-1/up/state online ", i) {
				t.Fatalf("the CRM was told %q: the present state must be the last", got)
			}
			s.clients[crm].mustPublish("gatehouse/north-1/down/command", fmt.Sprint("to ", i), false)
			if got := s.received()["north-1"]; len(got) != 1 {
				t.Fatalf("the new connection received %v, want one message", got)
			}
		}
	})
}

func TestWillIsHeldToTheRules(t *testing.T) {
	for _, c := range []struct {
		name, topic string
		retained    bool
		allowed     bool
	}{
		{"own state", "gatehouse/south-1/up/state", true, true},
		{"foreign state", "gatehouse/north-1/up/state", true, false},
		{"down topic", "gatehouse/north-1/down/command", false, false},
		{"own down topic", "gatehouse/south-1/down/command", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
				s := newSite(t, b)
				dying, err := dial(t, b, b.cert(t, "south-1"), withWill(c.topic, "will", c.retained))
				if err == nil {
					dying.subscribe("gatehouse/south-1/down/receipt")
					dying.drop()
					// When its successor is in, the broker is through with it.
					dying = mustDial(t, b, "south-1")
				} else {
					if c.allowed {
						t.Fatal(err)
					}
					dying = mustDial(t, b, "south-1")
				}
				dying.subscribe("gatehouse/south-1/down/#")
				s.clients["south-1"] = dying
				if c.allowed {
					s.clients[crm].until("will") // or the test fails
					s.clients[crm].subscribe("gatehouse/+/up/#")
					if got := s.received()[crm]; len(got) != 1 || got[0] != c.topic+" will retained" {
						t.Errorf("a later subscriber received %v, want the will", got)
					}
					return
				}
				if got := s.received(); len(got) > 0 {
					t.Errorf("a forbidden will arrived: %v", got)
				}
				s.clients[crm].subscribe("gatehouse/+/up/#")
				if got := s.received(); len(got) > 0 {
					t.Errorf("a forbidden will was retained: %v", got)
				}
			})
		})
	}
}

func TestOversizedPayloadEndsTheConnection(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		s := newSite(t, b)
		// The largest that the contract allows goes through.
		s.clients["north-1"].mustPublish("gatehouse/north-1/up/records", strings.Repeat("x", 256<<10), false)
		if got := s.received()[crm]; len(got) != 1 || len(got[0]) < 256<<10 {
			t.Errorf("of the largest payload the CRM received %d messages, want 1", len(got))
		}
		// The broker may close while this is still being written.
		_ = s.clients["north-1"].publish("gatehouse/north-1/up/records", strings.Repeat("x", 300<<10), false)
		if err := s.clients["north-1"].closed(); err != nil {
			t.Error(err)
		}
		s.clients["north-1"] = mustDial(t, b, "north-1")
		s.clients["north-1"].subscribe("gatehouse/north-1/down/#")
		if got := s.received(); len(got) > 0 {
			t.Errorf("an oversized message arrived (%d)", len(got))
		}
	})
}

func TestGarbageHurtsNobodyElse(t *testing.T) {
	onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
		s := newSite(t, b)
		garbage := [][]byte{
			[]byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
			{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			{0x10, 0xff, 0xff, 0xff, 0x7f}, // CONNECT of 256 MB
			{0x10, 0x02, 0x00, 0x04},
			{0x30, 0x00},
			bytes.Repeat([]byte{0}, 4096),
		}
		cert := b.cert(t, "garbler")
		for _, g := range garbage {
			// Without TLS, instead of CONNECT, and after it.
			raw, err := net.DialTimeout("tcp", b.addr, patience)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = raw.Write(g)
			raw.Close()

			conn, err := tls.Dial("tcp", b.addr, &tls.Config{RootCAs: b.ca.pool(), Certificates: []tls.Certificate{cert}})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(g)
			conn.NetConn().Close()

			c, err := dial(t, b, cert)
			if err != nil {
				t.Fatalf("cannot connect after garbage: %v", err)
			}
			_, _ = c.conn.Write(g)
			c.drop()
		}
		s.clients["north-1"].mustPublish("gatehouse/north-1/up/records", "unharmed", false)
		if got := s.received()[crm]; len(got) != 1 {
			t.Errorf("the CRM received %v, want one message", got)
		}
	})
}

func TestWhoHasNoGoodCertificateIsRefused(t *testing.T) {
	inAnHour := time.Now().Add(time.Hour)
	for name, refused := range map[string]func(*testing.T, *brokerUnderTest) (tls.Certificate, connectOption){
		"none": func(*testing.T, *brokerUnderTest) (tls.Certificate, connectOption) {
			return tls.Certificate{}, withID("north-1")
		},
		"of another CA": func(t *testing.T, _ *brokerUnderTest) (tls.Certificate, connectOption) {
			return newAuthority(t).client(t, "north-1"), withID("north-1")
		},
		"expired": func(t *testing.T, b *brokerUnderTest) (tls.Certificate, connectOption) {
			return b.ca.issue(t, "north-1", x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Hour)), withID("north-1")
		},
		"for servers": func(t *testing.T, b *brokerUnderTest) (tls.Certificate, connectOption) {
			return b.ca.issue(t, "north-1", x509.ExtKeyUsageServerAuth, inAnHour), withID("north-1")
		},
		"good, but TLS 1.2": func(t *testing.T, b *brokerUnderTest) (tls.Certificate, connectOption) {
			return b.cert(t, "north-1"), withTLS(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
				mustDial(t, b, "north-1").drop() // the broker works
				cert, option := refused(t, b)
				if _, err := dial(t, b, cert, option); err == nil {
					t.Error("was let in")
				} else {
					t.Log(err)
				}
			})
		})
	}
}

// TestStrangeNameHasNoRights: a CA that is used for something else, too, may
// sign names that mean something to a topic filter.
func TestStrangeNameHasNoRights(t *testing.T) {
	for _, name := range []string{"+", "#", "north-1/down", "../north-1", "North-1", "", strings.Repeat("n", 64)} {
		t.Run(strings.ReplaceAll(name, "/", "|"), func(t *testing.T) {
			onBothBrokers(t, func(t *testing.T, b *brokerUnderTest) {
				s := newSite(t, b)
				strange, err := dial(t, b, b.cert(t, name))
				if err != nil {
					t.Log(err)
					return
				}
				for _, filter := range []string{"gatehouse/north-1/down/#", "gatehouse/+/down/#", "gatehouse/#", "#"} {
					strange.subscribe(filter)
				}
				s.clients[crm].mustPublish("gatehouse/north-1/down/command", "secret", false)
				if err := strange.publish("gatehouse/north-1/up/records", "forged", false); err != nil {
					t.Log(err)
				}
				got := s.received()
				if len(got[crm]) > 0 || len(got["north-1"]) != 1 {
					t.Errorf("received %v, want only the CRM's message", got)
				}
				for _, m := range strange.received {
					t.Errorf("%q heard %s", name, m.TopicName)
				}
			})
		})
	}
}
