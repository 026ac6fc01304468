package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// acceptAgain is the wait after a failed accept (mostly: no file descriptors
// left), which ends the server's own listeners for good.
const acceptAgain = 100 * time.Millisecond

// listener accepts connections, shakes hands and gives the server those whose
// certificate is good.
type listener struct {
	b    *Broker
	raw  net.Listener
	tls  *tls.Config
	room chan struct{}

	wg     sync.WaitGroup // of the connections
	mu     sync.Mutex
	closed bool
	open   map[net.Conn]func() // how to end each
}

func newListener(b *Broker, raw net.Listener, cfg *tls.Config) *listener {
	return &listener{
		b:    b,
		raw:  raw,
		tls:  cfg,
		room: make(chan struct{}, b.cfg.MaxConnections),
		open: make(map[net.Conn]func()),
	}
}

func (*listener) ID() string                { return "tls" }
func (*listener) Protocol() string          { return "tls" }
func (l *listener) Address() string         { return l.raw.Addr().String() }
func (*listener) Init(_ *slog.Logger) error { return nil }

// Serve implements [listeners.Listener].
func (l *listener) Serve(establish listeners.EstablishFn) {
	for {
		raw, err := l.raw.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			l.b.log.Error("cannot accept a connection", "error", err)
			time.Sleep(acceptAgain)
			continue
		}
		select {
		case l.room <- struct{}{}:
		default:
			l.b.refused.Add(1)
			l.b.log.Error("refused a connection: there are too many", "limit", cap(l.room))
			raw.Close()
			continue
		}
		if !l.track(raw, func() { raw.Close() }) {
			raw.Close()
			return
		}
		go func() {
			defer func() {
				raw.Close()
				l.forget(raw)
				<-l.room
			}()
			l.serve(raw, establish)
		}()
	}
}

func (l *listener) serve(raw net.Conn, establish listeners.EstablishFn) {
	c, err := l.handshake(raw)
	if err != nil {
		l.b.refused.Add(1)
		l.b.log.Warn("refused a connection", "remote", raw.RemoteAddr().String(), "error", err)
		return
	}
	defer close(c.done)
	defer l.b.leave(c)
	// What follows parses what a client sends. A fault in it must cost that
	// client its connection, and not the CRM its life.
	defer func() {
		if p := recover(); p != nil {
			l.b.log.Error("panic in the broker", "client", c.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	defer c.Close()
	if !l.track(raw, func() { c.Close() }) {
		return
	}
	err = establish(l.ID(), c)
	if c.joined {
		l.b.log.Info("client disconnected", "client", c.name, "cause", cause(err))
		return
	}
	l.b.refused.Add(1)
	l.b.log.Warn("refused a client", "client", c.name, "remote", raw.RemoteAddr().String(), "error", err)
}

// cause says in a word why a connection ended; an error of the network would
// repeat the addresses.
func cause(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "said goodbye"
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silent"
	}
	return err.Error()
}

// handshake returns a connection whose client is known by its certificate.
// Its deadline still stands, for the CONNECT packet: the server has none.
func (l *listener) handshake(raw net.Conn) (*conn, error) {
	deadline := time.Now().Add(l.b.cfg.HandshakeTimeout)
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	t := tls.Server(raw, l.tls)
	if err := t.HandshakeContext(context.Background()); err != nil {
		return nil, err
	}
	chains := t.ConnectionState().VerifiedChains
	if len(chains) == 0 || len(chains[0]) == 0 {
		return nil, errors.New("no verified certificate")
	}
	c := &conn{
		Conn:         t,
		raw:          raw,
		name:         chains[0][0].Subject.CommonName,
		notAfter:     earliestEnd(chains[0]),
		writeTimeout: l.b.cfg.WriteTimeout,
		done:         make(chan struct{}),
	}
	if !known(c.name) {
		return nil, fmt.Errorf("certificate for %q, which is no name of a controller", c.name)
	}
	if l.b.cfg.Revoked(c.name) {
		return nil, fmt.Errorf("certificate of %q, which is revoked", c.name)
	}
	return c, nil
}

func earliestEnd(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, cert := range chain[1:] {
		if cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// track remembers a connection so that Close can end it; false means that the
// listener is closed.
func (l *listener) track(raw net.Conn, end func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if _, ok := l.open[raw]; !ok {
		l.wg.Add(1)
	}
	l.open[raw] = end
	return true
}

func (l *listener) forget(raw net.Conn) {
	l.mu.Lock()
	delete(l.open, raw)
	l.mu.Unlock()
	l.wg.Done()
}

// Close implements [listeners.Listener]. It ends all connections itself and
// waits: the server's way leaves out those that have not sent a CONNECT, goes
// through the others one by one however long each takes, and says DISCONNECT
// to clients whose protocol has no such packet.
func (l *listener) Close(listeners.CloseFn) {
	l.raw.Close()
	l.mu.Lock()
	l.closed = true
	for _, end := range l.open {
		go end()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// conn is the connection of a client known by name.
type conn struct {
	*tls.Conn
	raw          net.Conn
	name         string
	notAfter     time.Time // when the first certificate of the chain expires
	writeTimeout time.Duration
	joined       bool          // it has passed the rules; only its own goroutine looks
	done         chan struct{} // closed when the server is through with it
}

// SetDeadline is called by the server with the keep-alive's time and must not
// reach the writes, which have their own.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// Write ends a connection whose client takes nothing. While it waits, the
// server holds a lock for which each publisher to this client waits in turn:
// without the deadline one dead controller would stop the CRM.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		c.kill()
	}
	return n, err
}

// kill ends the connection without TLS's goodbye, which can take seconds.
func (c *conn) kill() { c.raw.Close() }

// leave takes c off the list, if it is still the one that stands there.
func (b *Broker) leave(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.clients[c.name] == c {
		delete(b.clients, c.name)
	}
}
