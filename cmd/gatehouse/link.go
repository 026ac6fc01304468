package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/clock"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/gatehouse-acs/gatehouse/sync/command/receiver"
	"github.com/gatehouse-acs/gatehouse/sync/mqtt"
	"github.com/gatehouse-acs/gatehouse/sync/uplink"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"golang.org/x/sync/errgroup"
)

// link is the controller's connection to its CRM.
type link struct {
	conn    *mqtt.Conn
	uplink  *uplink.Uplink
	policy  *follower.Follower // nil: the site governs who may enter
	orders  *receiver.Receiver
	renewal *renewal
	clock   *clock.Clock
	log     *slog.Logger
	refused atomic.Uint64                         // messages that no part of the controller takes
	newest  atomic.Uint64                         // allowlist version that the CRM has seen used here
	heard   chan time.Time                        // the newest receipt's time, for the clock
	used    chan []string                         // what the newest receipt says was used up
	restore func(context.Context, []string) error // keeps that
}

func (c *controller) openLink(context.Context) error {
	if c.cfg.CRM == nil {
		c.log.Warn("no [crm] in the configuration: records stay on this controller")
		return nil
	}
	if c.keys.TLS == nil {
		return errors.New("there is no tls.key, so no connection to a CRM: `gatehouse init` makes it, and the CRM has to approve the new request")
	}
	broker := c.cfg.CRM.Broker
	if broker == "" {
		broker = c.trust.Broker
	}
	receipts, err := c.trust.Cosigner.Receipts()
	if err != nil {
		return err
	}
	l := &link{log: c.log, clock: c.clock, heard: make(chan time.Time, 1), used: make(chan []string, 1), restore: c.restoreUsed}
	l.renewal = newRenewal(c, l)
	l.uplink, err = uplink.New(uplink.Options{
		Controller: c.cfg.Name,
		Log:        c.records,
		Publisher:  publisher{l},
		Receipts:   receipts,
		Cosigner:   c.trust.Cosigner.Note(),
		Own:        c.own.NoteVerifier,
		Policy:     func() uint64 { return c.policy.Policy(time.Now()).Version },
		Clock:      func() visitorlog.Clock { _, s := c.stamp(); return s },
		Received: func(t time.Time, policy uint64) {
			l.hear(t)
			l.newest.Store(policy)
			if l.policy != nil {
				l.policy.Raise(policy)
			}
		},
		Used:   l.spend,
		Nonce:  func() string { return l.orders.Nonce() },
		Silent: func() { l.conn.Reconnect("the CRM does not answer") },
		Logger: c.log,
	})
	if err != nil {
		return err
	}
	a, err := openAuthority(c.cfg.Data, c.trust)
	if err != nil {
		return err
	}
	if l.policy, err = c.newFollower(publisher{l}, a, l.uplink.Announce); err != nil {
		return err
	}
	if l.orders, err = c.newReceiver(l, a); err != nil {
		return err
	}
	will, err := l.uplink.Will()
	if err != nil {
		return err
	}
	down, err := wire.DownFilter(c.cfg.Name)
	if err != nil {
		return err
	}
	tlsConfig := func() (*tls.Config, error) {
		return pki.ControllerTLS(c.cfg.Data, c.keys.TLS, broker, c.clock.TLSTime)
	}
	if _, err := tlsConfig(); err != nil {
		return err
	}
	l.conn, err = mqtt.New(mqtt.Config{
		Broker:        broker,
		ClientID:      c.cfg.Name,
		TLS:           tlsConfig,
		Will:          mqtt.Will{Topic: will.Topic, Payload: will.Payload},
		Subscriptions: []string{down},
		OnConnect: func(context.Context) {
			l.uplink.Connected()
			l.renewal.Connected()
			if l.policy != nil {
				l.policy.Connected()
			}
		},
		Logger: c.log,
	})
	if err != nil {
		return err
	}
	c.link = l
	return nil
}

// publisher is the connection, which is made after the uplink that uses it.
type publisher struct{ *link }

func (p publisher) Publish(ctx context.Context, topic string, payload []byte, retained bool) error {
	return p.conn.Publish(ctx, topic, payload, retained)
}

// Run keeps the connection and sends records until ctx ends.
func (l *link) Run(ctx context.Context) error {
	// The uplink says goodbye before the connection ends.
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	g := new(errgroup.Group)
	g.Go(func() error { return l.conn.Run(connected) })
	g.Go(func() error { l.receive(connected); return nil })
	g.Go(func() error { l.keepFloor(connected); return nil })
	g.Go(func() error { l.keepUsed(ctx); return nil })
	g.Go(func() error { return l.orders.Run(ctx) })
	g.Go(func() error { return l.renewal.Run(ctx) })
	if l.policy != nil {
		g.Go(func() error { return l.policy.Run(ctx) })
	}
	g.Go(func() error {
		defer disconnect()
		return l.uplink.Run(ctx)
	})
	return g.Wait()
}

// hear notes the time of a receipt. The clock writes floors to the disk now and
// then, which the uplink must not wait for: of what comes meanwhile the newest
// counts.
func (l *link) hear(t time.Time) {
	select {
	case before := <-l.heard:
		if before.After(t) {
			t = before
		}
	default:
	}
	l.heard <- t // the uplink alone sends, and has made room
}

// keepFloor raises the clock's floor to the times that were heard.
func (l *link) keepFloor(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-l.heard:
			l.clock.SetFloor(t)
		}
	}
}

// receive hands each message to the part that takes it.
func (l *link) receive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-l.conn.Messages():
			if l.take(m) {
				continue
			}
			l.refused.Add(1)
			l.log.Debug("message refused", "topic", m.Topic, "retained", m.Retained)
		}
	}
}

// take hands a message to the part that takes it, and says whether there is one.
// What was retained may be of any age: of that, only a manifest is looked at, which
// says how old it is. A command that was retained is refused with a record.
func (l *link) take(m wire.Message) bool {
	_, kind, err := wire.ParseTopic(m.Topic)
	switch {
	case err != nil:
		return false
	case kind == wire.KindCommand:
		l.orders.Handle(m)
		return true
	case m.Retained && kind != wire.KindManifest:
		return false
	case kind == wire.KindReceipt:
		l.uplink.Handle(m.Payload)
		return true
	case kind == wire.KindCertificate:
		l.renewal.Handle(m.Payload)
		return true
	}
	return l.policy != nil && l.policy.Handle(kind, m.Payload)
}
