// Package broker is the MQTT broker inside gatehouse-crm, for a site that
// runs on one machine. It carries messages and keeps none over a restart but
// in the memory of those who sent them: a controller's outbox sends again, and
// publishes its state on each connection.
//
// A client is who its certificate says. It must use that name as its client
// id, so that none can push another one off its connection, and may publish
// and subscribe only what [wire] gives its role.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/system"
)

const (
	// maxPacket leaves room for the topic around the largest payload.
	maxPacket = wire.MaxPayload + 1<<10
	// maxInFlight bounds what the broker holds for one subscriber that does
	// not acknowledge: as many packets. More is dropped, and sent again by
	// those who sent it.
	maxInFlight = 1024
	// sysInterval: nobody may read $SYS, and gathering it stops the world.
	sysInterval = time.Hour
)

// Defaults for the fields of [Config] that are zero.
const (
	DefaultMaxConnections   = 4096
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultWriteTimeout     = 5 * time.Second
	DefaultRecheckEvery     = 5 * time.Second
)

// Config says where to listen and whom to let in.
type Config struct {
	Listen string // host:port
	// TLS gives the broker's certificate and, in ClientCAs, who signs the
	// clients'. TLS 1.3 and a verified client certificate are enforced.
	// Certificates may be renewed through GetCertificate.
	TLS *tls.Config
	// Revoked is asked on each connection and every RecheckEvery for each that
	// stands; a revoked client is refused and disconnected. It must be quick
	// and may be called from several goroutines. nil revokes nobody.
	Revoked func(name string) bool
	Logger  *slog.Logger

	MaxConnections   int           // of all clients together, those still shaking hands included
	HandshakeTimeout time.Duration // for TLS and the MQTT CONNECT together
	WriteTimeout     time.Duration // a client that takes none of a packet's bytes for so long is disconnected
	RecheckEvery     time.Duration
}

// Status is a snapshot for metrics and health pages. The counts are since the
// start.
type Status struct {
	Clients []string // connected now, sorted
	Refused uint64   // connections: TLS, certificate, name, revocation, protocol
	Denied  uint64   // publishes and subscriptions that the rules forbid
	Dropped uint64   // messages for a client that was too slow to take them
}

// Broker is a listening broker.
type Broker struct {
	cfg    Config
	log    *slog.Logger
	server *mochi.Server
	listen *listener
	now    func() time.Time

	started atomic.Bool
	refused atomic.Uint64
	denied  atomic.Uint64

	mu      sync.Mutex
	clients map[string]*conn // by name; the newest of each
}

// Listen opens the socket. Clients are served once Run is called.
func Listen(cfg Config) (*Broker, error) {
	serverTLS, err := enforce(cfg.TLS)
	if err != nil {
		return nil, err
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	for d, v := range map[*time.Duration]time.Duration{
		&cfg.HandshakeTimeout: DefaultHandshakeTimeout,
		&cfg.WriteTimeout:     DefaultWriteTimeout,
		&cfg.RecheckEvery:     DefaultRecheckEvery,
	} {
		if *d <= 0 {
			*d = v
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Revoked == nil {
		cfg.Revoked = func(string) bool { return false }
	}
	b := &Broker{
		cfg:     cfg,
		log:     slog.New(newTerse(cfg.Logger.Handler())),
		now:     time.Now,
		clients: make(map[string]*conn),
	}
	if serverTLS.Time != nil {
		b.now = serverTLS.Time
	}
	b.server = mochi.New(&mochi.Options{
		Logger:                 slog.New(mochiHandler{b.log.Handler()}),
		SysTopicResendInterval: int64(sysInterval / time.Second),
		Capabilities:           capabilities(cfg),
	})
	if err := b.server.AddHook(&rules{b: b}, nil); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	b.listen = newListener(b, l, serverTLS)
	if err := b.server.AddListener(b.listen); err != nil {
		l.Close()
		return nil, fmt.Errorf("broker: %w", err)
	}
	return b, nil
}

func capabilities(cfg Config) *mochi.Capabilities {
	c := mochi.NewDefaultServerCapabilities()
	c.MaximumClients = int64(cfg.MaxConnections)
	c.MaximumMessageExpiryInterval = 0 // a retained state does not grow too old
	c.MaximumClientWritesPending = maxInFlight
	c.MaximumInflight = maxInFlight
	c.ReceiveMaximum = maxInFlight
	c.MaximumPacketSize = maxPacket
	c.MaximumQos = 1
	c.MinimumProtocolVersion = 4
	c.SharedSubAvailable = 0
	c.TopicAliasMaximum = 0
	return c
}

// enforce returns a copy of cfg with what does not depend on the site.
func enforce(cfg *tls.Config) (*tls.Config, error) {
	switch {
	case cfg == nil:
		return nil, errors.New("broker: no TLS configuration")
	case len(cfg.Certificates) == 0 && cfg.GetCertificate == nil:
		return nil, errors.New("broker: no server certificate")
	case cfg.ClientCAs == nil:
		return nil, errors.New("broker: no CA for the clients' certificates")
	case cfg.GetConfigForClient != nil:
		return nil, errors.New("broker: GetConfigForClient would bypass what is enforced here")
	}
	cfg = cfg.Clone()
	cfg.MinVersion = tls.VersionTLS13
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.SessionTicketsDisabled = true // each connection shows its certificate anew
	return cfg, nil
}

// Addr is the address that the broker listens on.
func (b *Broker) Addr() net.Addr { return b.listen.raw.Addr() }

// Run serves clients until ctx ends, then closes all connections and returns
// nil. It may be called once.
func (b *Broker) Run(ctx context.Context) error {
	if b.started.Swap(true) {
		return errors.New("broker: Run was called before")
	}
	if err := b.server.Serve(); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	tick := time.NewTicker(b.cfg.RecheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.recheck()
		case <-ctx.Done():
			return b.server.Close()
		}
	}
}

// Disconnect closes the connection of a client, if there is one. After a
// revocation it spares the wait for the next recheck.
func (b *Broker) Disconnect(name string) {
	b.mu.Lock()
	c := b.clients[name]
	b.mu.Unlock()
	if c != nil {
		c.kill()
	}
}

// recheck disconnects who may no longer be connected: connections last for
// months, longer than a certificate or somebody's trust.
func (b *Broker) recheck() {
	b.mu.Lock()
	clients := make([]*conn, 0, len(b.clients))
	for _, c := range b.clients {
		clients = append(clients, c)
	}
	b.mu.Unlock()
	for _, c := range clients {
		switch {
		case b.cfg.Revoked(c.name):
			b.log.Warn("disconnected a revoked client", "client", c.name)
			c.kill()
		case b.now().After(c.notAfter):
			b.log.Warn("disconnected a client whose certificate has expired", "client", c.name, "expired", c.notAfter)
			c.kill()
		}
	}
}

// Status returns a snapshot.
func (b *Broker) Status() Status {
	info := (*system.Info)(b.server.Info)
	s := Status{
		Refused: b.refused.Load(),
		Denied:  b.denied.Load(),
		Dropped: uint64(atomic.LoadInt64(&info.MessagesDropped) + atomic.LoadInt64(&info.InflightDropped)),
	}
	b.mu.Lock()
	for name := range b.clients {
		s.Clients = append(s.Clients, name)
	}
	b.mu.Unlock()
	slices.Sort(s.Clients)
	return s
}
