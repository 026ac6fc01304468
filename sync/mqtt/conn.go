// Package mqtt keeps one connection to an MQTT broker and makes it again, for
// ever, when it is lost. It knows nothing of what is sent over it.
//
// What it does not promise matters more than what it does. A publish that
// returned without an error proves nothing: brokers lose what they have
// acknowledged, acknowledge what their rules then drop, and the client library
// reports success for what was never acknowledged. Whoever sends must keep the
// message until the other end has answered it. A connection that stands but
// delivers nothing is not noticed here either: whoever waits for an answer
// must call [Conn.Reconnect] when it stays out for too long.
package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// Defaults for the fields of [Config] that are zero.
const (
	DefaultConnectTimeout = 20 * time.Second
	DefaultPublishTimeout = 15 * time.Second
	DefaultKeepAlive      = 30 * time.Second
	DefaultPingTimeout    = 10 * time.Second
	DefaultMinBackoff     = time.Second
	DefaultMaxBackoff     = time.Minute
	DefaultQueue          = 256
	DefaultInFlight       = 64
	DefaultMaxPacket      = 512 << 10
)

// sayAgainAfter bounds how often an outage whose cause changes is logged.
const sayAgainAfter = time.Minute

var (
	// ErrNotConnected says that there is no connection, or that it was lost
	// before the broker acknowledged: the message may or may not arrive.
	ErrNotConnected = errors.New("not connected to the broker")
	// ErrNotAcknowledged says that the broker did not acknowledge in time: the
	// message may or may not arrive.
	ErrNotAcknowledged = errors.New("the broker did not acknowledge in time")
)

// Message is one message received. Retained says that the broker had kept it
// from before the subscription: it may be of any age. No command may be taken
// from such a message, whatever the broker's rules promise.
type Message = wire.Message

// Will is what the broker publishes, retained and with QoS 1, when the
// connection ends for whatever reason.
type Will struct {
	Topic   string
	Payload []byte
}

// Config says how to connect. Zero values of the durations and sizes stand for
// the defaults.
type Config struct {
	// Broker is tls://host[:8883] or, to this machine only, tcp://host[:1883].
	Broker string
	// ClientID is the name in the client certificate: brokers that are set up
	// as Gatehouse needs it refuse or replace any other.
	ClientID string
	// TLS is asked before each connection, so that a renewed certificate is
	// used from the next one on. It must give a client certificate and the CA
	// that the broker's certificate is checked against. TLS 1.3 is enforced.
	TLS func() (*tls.Config, error)
	// Will is left out if its topic is empty.
	Will Will
	// Subscriptions are made on each connection, all with QoS 1. A connection
	// on which the broker does not grant them all is given up.
	Subscriptions []string
	// OnConnect is called after each connection, when the subscriptions stand.
	// It may publish; the loss of the connection is handled after it returned.
	OnConnect func(context.Context)
	Logger    *slog.Logger

	ConnectTimeout time.Duration // for dialling, TLS, CONNACK and SUBACK together
	PublishTimeout time.Duration // a connection that leaves a publish without its PUBACK for so long is given up
	KeepAlive      time.Duration // whole seconds; a half-open connection is noticed after KeepAlive + PingTimeout, and 5 s more at most
	PingTimeout    time.Duration
	MinBackoff     time.Duration // before the second attempt; doubles from there
	MaxBackoff     time.Duration
	Queue          int // messages received and not yet taken; more are dropped
	InFlight       int // publishes at one time; more wait
	MaxPacket      int // bytes, both ways
}

func (c *Config) withDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.ConnectTimeout, DefaultConnectTimeout)
	def(&c.PublishTimeout, DefaultPublishTimeout)
	def(&c.KeepAlive, DefaultKeepAlive)
	def(&c.PingTimeout, DefaultPingTimeout)
	def(&c.MinBackoff, DefaultMinBackoff)
	def(&c.MaxBackoff, DefaultMaxBackoff)
	c.KeepAlive = max(c.KeepAlive.Truncate(time.Second), time.Second)
	c.MaxBackoff = max(c.MaxBackoff, c.MinBackoff)
	if c.Queue <= 0 {
		c.Queue = DefaultQueue
	}
	if c.InFlight <= 0 {
		c.InFlight = DefaultInFlight
	}
	if c.MaxPacket <= 0 {
		c.MaxPacket = DefaultMaxPacket
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Subscriptions = slices.Clone(c.Subscriptions)
}

// Status is a snapshot for metrics and health pages.
type Status struct {
	Connected  bool
	Since      time.Time // of the present connection, or of its loss, or of the start
	LastError  string    // why there is or was no connection; "" if there was no trouble
	Reconnects uint64    // connections made after the first one
	Dropped    uint64    // messages received that nobody had room for
	TimedOut   uint64    // publishes without a PUBACK in time
}

// Conn is a connection that is made again when it is lost. Its methods may be
// called from several goroutines.
type Conn struct {
	cfg      Config
	target   target
	log      *slog.Logger
	messages chan Message
	started  atomic.Bool
	dropped  atomic.Uint64
	timedOut atomic.Uint64

	mu          sync.Mutex
	current     *session // nil while there is no connection
	since       time.Time
	lastErr     error
	connections uint64
	saidDown    bool // of this outage
	said        string
	saidAt      time.Time
}

// New checks cfg and makes a Conn that does nothing until Run is called. It
// refuses what must never be tried: a URL that holds a secret, and plaintext
// to anything but loopback. To know the latter it may look up a name.
func New(cfg Config) (*Conn, error) {
	cfg.withDefaults()
	t, err := parseTarget(cfg.Broker)
	if err != nil {
		return nil, err
	}
	if cfg.ClientID == "" {
		return nil, errors.New("mqtt: no client id")
	}
	if t.tls && cfg.TLS == nil {
		return nil, errors.New("mqtt: no TLS configuration for a tls:// broker")
	}
	if !t.tls {
		ctx, cancel := context.WithTimeout(context.Background(), cfg.ConnectTimeout)
		defer cancel()
		if _, err := t.loopback(ctx); err != nil {
			return nil, err
		}
	}
	return &Conn{
		cfg:      cfg,
		target:   t,
		log:      cfg.Logger.With("broker", t.String()),
		messages: make(chan Message, cfg.Queue),
		since:    time.Now(),
	}, nil
}

// Messages gives the messages received, in the order in which the broker sent
// them. It is never closed. Who reads too slowly loses messages, and Status
// counts them.
func (c *Conn) Messages() <-chan Message { return c.messages }

// Connected reports whether a connection stands, its subscriptions made. A
// half-open one still counts until the keep-alive notices.
func (c *Conn) Connected() bool { return c.session() != nil }

// Status returns a snapshot.
func (c *Conn) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{
		Connected:  c.current != nil,
		Since:      c.since,
		Reconnects: max(c.connections, 1) - 1,
		Dropped:    c.dropped.Load(),
		TimedOut:   c.timedOut.Load(),
	}
	if c.lastErr != nil {
		s.LastError = c.lastErr.Error()
	}
	return s
}

// Reconnect gives up the present connection, if there is one, and makes a new
// one. It is for callers that wait for an answer which stays out.
func (c *Conn) Reconnect(why string) {
	if s := c.session(); s != nil {
		s.end(fmt.Errorf("given up: %s", why))
	}
}

// Run connects, and connects again, until ctx ends. Then it closes the
// connection without a word if there is a will, so that the broker publishes
// the will, and returns nil. It may be called once.
func (c *Conn) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return errors.New("mqtt: Run was called before")
	}
	delay := c.cfg.MinBackoff
	for {
		held, err := c.connection(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.lost(err)
		// A connection that held for longer than the next wait was a good one.
		// Judging by the wait itself keeps a flapping broker from being
		// hammered, whatever the rhythm of its flapping.
		if held > delay {
			delay = c.cfg.MinBackoff
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(jitter(delay)):
		}
		delay = min(2*delay, c.cfg.MaxBackoff)
	}
}

// jitter spreads the controllers of a site that lost the broker together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Publish sends one message with QoS 1 and waits for the broker's PUBACK, for
// the end of ctx or for [Config.PublishTimeout], whichever is first. The order
// of calls from one goroutine is kept. The payload must not be changed, not
// even after Publish returned. No error is no proof that the message arrives,
// and an error none that it does not: see the package's comment.
//
// The errors are [ErrNotConnected] at once if there is no connection (nothing
// is queued for later), and also if it is lost meanwhile; [ErrNotAcknowledged]
// if the time is up, upon which the connection is given up, because the
// library would neither send the message again nor forget it; and ctx's.
func (c *Conn) Publish(ctx context.Context, topic string, payload []byte, retained bool) error {
	if n := len(topic) + len(payload) + packetOverhead; n > c.cfg.MaxPacket {
		return fmt.Errorf("mqtt: publish of %d bytes on %q: more than %d", n, topic, c.cfg.MaxPacket)
	}
	s := c.session()
	if s == nil {
		return ErrNotConnected
	}
	select {
	case s.inFlight <- struct{}{}:
	case <-s.done:
		return s.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
	result := make(chan error, 1)
	// The library blocks for as long as its own timeout, whatever happens to
	// ctx or to the connection.
	go func() {
		defer func() { <-s.inFlight }()
		late := time.AfterFunc(c.cfg.PublishTimeout, func() {
			c.timedOut.Add(1)
			s.end(ErrNotAcknowledged)
		})
		defer late.Stop()
		tok := s.client.Publish(topic, qos, retained, payload)
		select {
		case <-tok.Done():
			result <- tok.Error()
		case <-s.done:
		}
	}()
	select {
	case err := <-result:
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotConnected, err)
		}
		return nil
	case <-s.done:
		return s.ended()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Conn) session() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// receive takes a message from the network. It must not block: the library
// would stop reading, pings included.
func (c *Conn) receive(m Message) {
	select {
	case c.messages <- m:
	default:
		c.dropped.Add(1)
	}
}

func (c *Conn) connected(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current, c.since, c.saidDown = s, time.Now(), false
	c.connections++
	c.log.Info("connected to the broker", "connections", c.connections)
}

func (c *Conn) disconnected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current, c.since = nil, time.Now()
}

// lost remembers why there is no connection. An outage is logged once, and
// again when its cause changes, but not more often than once a minute.
func (c *Conn) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
	now := time.Now()
	if c.saidDown && (c.said == err.Error() || now.Sub(c.saidAt) < sayAgainAfter) {
		return
	}
	c.saidDown, c.said, c.saidAt = true, err.Error(), now
	c.log.Warn("no connection to the broker, trying again", "error", err)
}
