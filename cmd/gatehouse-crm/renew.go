package main

import (
	"context"
	"errors"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	// renewals is how many requests for new certificates may wait. Controllers ask
	// again.
	renewals    = 64
	renewWithin = 10 * time.Second
)

// request is one for a new certificate, as it came on a controller's topic.
type request struct {
	controller string
	payload    []byte
}

// askedToRenew takes a request. It does not block.
func (c *crm) askedToRenew(controller string, payload []byte) {
	select {
	case c.renewals <- request{controller, payload}:
	default:
	}
}

// renew answers requests for new certificates until ctx ends.
func (c *crm) renew(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-c.renewals:
			if err := c.renewOne(ctx, r); err != nil && ctx.Err() == nil {
				c.log.Warn("certificate not renewed", "of", r.controller, "error", err)
			}
		}
	}
}

// renewOne answers one request, of a controller in good standing. The connection
// by which it came has proved the name, and the signature the log key.
func (c *crm) renewOne(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	asked, err := pki.ParseRequest(r.payload)
	if err != nil {
		return err
	}
	if asked.Controller != r.controller {
		return errors.New("the request is of another controller")
	}
	approved, exists, err := registered(ctx, c.store, r.controller)
	if err != nil {
		return err
	}
	if !exists || !approved.Revoked.IsZero() {
		return errors.New("it is not approved, or revoked")
	}
	log, err := keys.ParseJWK(approved.JWK)
	if err != nil {
		return err
	}
	cert, err := c.site.RenewController(c.cfg.Data, c.keys, asked, log, time.Now())
	if err != nil {
		return err
	}
	if fingerprint := pki.Fingerprint(cert); fingerprint != approved.Fingerprint {
		if err := c.store.Renew(ctx, r.controller, fingerprint); err != nil {
			return err
		}
		c.log.Info("certificate renewed", "of", r.controller, "until", cert.NotAfter)
	}
	topic, err := wire.Topic(r.controller, wire.KindCertificate)
	if err != nil {
		return err
	}
	return c.conn.Publish(ctx, topic, pki.EncodeCertificate(cert), wire.KindCertificate.Retained())
}
