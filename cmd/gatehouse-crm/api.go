package main

import (
	"context"
	"crypto/tls"
	"errors"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/web/api"
	"github.com/gatehouse-acs/gatehouse/web/api/clients"
)

// openClients opens who may call the API of the CRM in a folder.
func openClients(ctx context.Context, data string, k *keys.CRMKeys) (*clients.Store, error) {
	return clients.Open(ctx, filepath.Join(data, clients.FileName), clients.Options{Sealer: k.Registry, Clock: time.Now})
}

// openAPI opens the API's address and what is behind it, unless it is off: then
// there is no server. Close it when nothing is answered any more.
func (c *crm) openAPI(ctx context.Context) (server *api.Server, close func() error, err error) {
	if c.cfg.API.Listen == "" {
		return nil, func() error { return nil }, nil
	}
	var config *tls.Config
	if !c.cfg.API.Plaintext {
		if config, err = pki.APITLS(c.cfg.Data, c.keys.Broker, time.Now); err != nil {
			return nil, nil, err
		}
	}
	store, err := openClients(ctx, c.cfg.Data, c.keys)
	if err != nil {
		return nil, nil, err
	}
	c.api = api.New(api.Options{
		Registry: c.registry,
		Clients:  store,
		Index:    c.keys.Pepper,
		Formats:  badge.Builtin(),
		Zone:     c.cfg.Zone,
		Policy:   c.policy,
		Doors:    c.policy,
		Clock:    time.Now,
		Logger:   c.log,
	})
	server, err = api.Listen(c.cfg.API.Listen, c.api, config)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	c.log.Info("API", "address", server.Addr(), "tls", config != nil)
	return server, store.Close, nil
}

var (
	descAnswers = metric.Desc("api_answers_total", "Answers of the API, by the class of their status.", "class")
	descTurned  = metric.Desc("api_turned_away_total", "Callers of the API whom nobody had let in.")
)

// collectAPI gives what the API has done, where it is on.
func (c *crm) collectAPI(v metrics.Values) {
	if c.api == nil {
		return
	}
	for class, n := range c.api.Answers() {
		v.Counter(descAnswers, n, class)
	}
	v.Counter(descTurned, c.api.TurnedAway())
}
