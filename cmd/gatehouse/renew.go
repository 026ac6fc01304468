package main

import (
	"context"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	renewEvery  = time.Hour // looked whether the certificate is to be renewed
	renewWithin = 20 * time.Second
)

// renewal keeps the certificate of the connection from ending: it asks the CRM for
// another one in good time, over the connection itself.
type renewal struct {
	c         *controller
	link      *link
	connected chan struct{}
	answers   chan []byte
}

func newRenewal(c *controller, l *link) *renewal {
	return &renewal{c: c, link: l, connected: make(chan struct{}, 1), answers: make(chan []byte, 1)}
}

// Connected tells that a connection was made. It does not block.
func (r *renewal) Connected() {
	select {
	case r.connected <- struct{}{}:
	default:
	}
}

// Handle takes the payload of a message on down/certificate. It does not block.
func (r *renewal) Handle(payload []byte) {
	select {
	case r.answers <- payload:
	default:
		r.link.refused.Add(1) // it will be asked for again
	}
}

// Run asks, and takes the answers, until ctx ends.
func (r *renewal) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-r.connected:
			err = r.ask(ctx)
		case <-tick.C:
			err = r.ask(ctx)
		case answer := <-r.answers:
			err = r.install(answer)
		}
		if err != nil && ctx.Err() == nil {
			r.c.log.Warn("certificate not renewed", "error", err)
		}
	}
}

// ask sends a request if the certificate is to be renewed.
func (r *renewal) ask(ctx context.Context) error {
	cert, err := pki.ReadClient(r.c.cfg.Data)
	if err != nil || !pki.RenewalDue(cert, r.c.clock.TLSTime()) || r.c.keys.Identity == nil {
		return err
	}
	request, err := pki.NewRequest(r.c.cfg.Name, r.c.keys)
	if err != nil {
		return err
	}
	topic, err := wire.Topic(r.c.cfg.Name, wire.KindRequest)
	if err != nil {
		return err
	}
	r.c.log.Info("asking the CRM for a new certificate", "until", cert.NotAfter)
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	return r.link.conn.Publish(ctx, topic, request, wire.KindRequest.Retained())
}

// install takes an answer. The next connection shows it.
func (r *renewal) install(answer []byte) error {
	installed, err := pki.InstallClient(r.c.cfg.Data, r.c.cfg.Name, r.c.keys.TLS, answer, r.c.clock.TLSTime())
	switch {
	case err != nil:
		r.link.refused.Add(1)
	case installed:
		r.c.log.Info("the certificate was renewed")
	}
	return err
}
