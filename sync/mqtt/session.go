package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

const (
	qos = 1
	// packetOverhead is what a PUBLISH adds to its topic and payload: fixed
	// header 5, topic length 2, packet id 2.
	packetOverhead = 9
	// quiesce bounds the wait for the library's goroutines to end.
	quiesce = time.Second
)

var (
	errClosed     = errors.New("closed")
	errNotGranted = errors.New("the broker refused the subscription")
)

// session is one connection from dialling to its end. Each has a client of its
// own: the library's own reconnecting completes tokens of publishes that were
// never acknowledged, does not subscribe again, sleeps through cancellation
// and warns that a client must not be used again after Disconnect.
type session struct {
	client   paho.Client
	conn     atomic.Pointer[conn]
	inFlight chan struct{}
	once     sync.Once
	done     chan struct{} // closed when the connection is of no more use
	err      error         // why; set before done is closed
}

func (s *session) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.done)
	})
}

// ended is what a publish returns on a session that is over.
func (s *session) ended() error {
	if errors.Is(s.err, ErrNotAcknowledged) {
		return s.err
	}
	return fmt.Errorf("%w: %w", ErrNotConnected, s.err)
}

// connection makes one connection and keeps it until it is lost or ctx ends.
// It returns for how long it held and why it ended. Nothing of it is left
// running but publishes that the library has not let go yet, for at most the
// publish timeout.
func (c *Conn) connection(ctx context.Context) (held time.Duration, err error) {
	s := &session{done: make(chan struct{}), inFlight: make(chan struct{}, c.cfg.InFlight)}
	dialCtx, cancelDial := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancelDial()
	s.client = paho.NewClient(c.options(dialCtx, s))

	tok := s.client.Connect()
	defer func() {
		// In this order: what still dials is stopped, what still waits for a
		// CONNACK is cut off, and only then does the library tidy up.
		cancelDial()
		s.end(errClosed)
		if conn := s.conn.Load(); conn != nil {
			conn.Close()
		}
		<-tok.Done()
		if tok.Error() == nil { // else there is nothing to tidy up, and it would wait in vain
			s.client.Disconnect(uint(quiesce.Milliseconds()))
		}
	}()

	if err := s.wait(dialCtx, tok); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	if err := s.subscribe(dialCtx, c.cfg.Subscriptions); err != nil {
		return 0, fmt.Errorf("subscribe: %w", err)
	}
	began := time.Now()
	c.connected(s)
	defer c.disconnected()
	if c.cfg.OnConnect != nil {
		c.cfg.OnConnect(ctx)
	}
	select {
	case <-ctx.Done():
		if c.cfg.Will.Topic == "" { // else a goodbye would cancel it
			s.client.Disconnect(uint(quiesce.Milliseconds()))
		}
		return time.Since(began), ctx.Err()
	case <-s.done:
		return time.Since(began), fmt.Errorf("connection lost: %w", s.err)
	}
}

func (c *Conn) options(dialCtx context.Context, s *session) *paho.ClientOptions {
	o := paho.NewClientOptions()
	o.AddBroker(c.target.String())
	o.SetClientID(c.cfg.ClientID)
	o.SetProtocolVersion(4) // 3.1.1; without it a refusal is tried again as 3.1
	o.SetCleanSession(true)
	o.SetStore(paho.NewMemoryStore())
	o.SetOrderMatters(true)
	o.SetAutoReconnect(false)
	o.SetConnectRetry(false)
	o.SetConnectTimeout(c.cfg.ConnectTimeout)
	o.SetKeepAlive(c.cfg.KeepAlive)
	o.SetPingTimeout(c.cfg.PingTimeout)
	// Not for writes (conn sets a deadline for each), but for how long Publish
	// and Subscribe wait for a connection that has ended under them.
	o.SetWriteTimeout(c.cfg.PublishTimeout)
	if c.cfg.Will.Topic != "" {
		o.SetBinaryWill(c.cfg.Will.Topic, c.cfg.Will.Payload, qos, true)
	}
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		c.receive(Message{Topic: m.Topic(), Payload: m.Payload(), Retained: m.Retained()})
	})
	o.SetConnectionLostHandler(func(_ paho.Client, err error) { s.end(err) })
	// Dialled here and not by the library: it would send plaintext through a
	// proxy named in the environment, and does not stop when told to.
	o.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		raw, err := c.target.dial(dialCtx, c.cfg.TLS)
		if err != nil {
			return nil, err
		}
		conn := &conn{
			Conn:         raw,
			writeTimeout: c.cfg.PublishTimeout,
			frames:       frames{max: c.cfg.MaxPacket, subscriptions: len(c.cfg.Subscriptions)},
			failed:       s.end,
		}
		s.conn.Store(conn)
		if err := dialCtx.Err(); err != nil { // the session ended before it could see conn
			conn.Close()
			return nil, err
		}
		return conn, nil
	})
	return o
}

// wait waits for tok, which may never complete.
func (s *session) wait(ctx context.Context, tok paho.Token) error {
	select {
	case <-tok.Done():
		return tok.Error()
	case <-s.done:
		// The library knows better what went wrong, if it says so at once.
		if tok.WaitTimeout(100*time.Millisecond) && tok.Error() != nil {
			return tok.Error()
		}
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) subscribe(ctx context.Context, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	filters := make(map[string]byte, len(topics))
	for _, t := range topics {
		filters[t] = qos
	}
	tok, ok := s.client.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	if !ok {
		return errors.New("unexpected token")
	}
	if err := s.wait(ctx, tok); err != nil {
		return err
	}
	granted := tok.Result()
	for _, t := range topics {
		if code, ok := granted[t]; !ok || code != qos {
			return fmt.Errorf("%w of %q (%#02x)", errNotGranted, t, code)
		}
	}
	return nil
}
