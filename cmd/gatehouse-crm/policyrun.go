package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/publisher"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/gatehouse-acs/gatehouse/web/api"
)

// authorityFor is how long the policy key and its certificate are believed before
// they are read again: somebody may certify it while the daemon runs.
const authorityFor = 2 * time.Second

// authority reads the policy key of the CRM in a folder.
func authority(data string) func() (*publisher.Authority, error) {
	var mu sync.Mutex
	var last *publisher.Authority
	var fault error
	var read time.Time
	return func() (*publisher.Authority, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(read) >= authorityFor {
			last, fault = readAuthority(data, now)
			read = now
		}
		return last, fault
	}
}

func readAuthority(data string, now time.Time) (*publisher.Authority, error) {
	p, err := pki.OpenPolicy(data, now)
	if err != nil {
		return nil, err
	}
	fresh, err := p.Signer.As(keys.TypeFresh)
	if err != nil {
		return nil, err
	}
	// Another certificate of the same key makes other manifests, too.
	return &publisher.Authority{KeyID: fmt.Sprintf("%s.%d", p.JWK.KeyID, p.Serial), JWS: p.Authority, Manifests: p.Signer, Fresh: fresh}, nil
}

// openPublisher opens what was published by the CRM in a folder. Change, which may
// be nil, sets what only the daemon needs.
func openPublisher(ctx context.Context, data string, r *registry.Registry, controllers func(context.Context) ([]central.Controller, error), change func(*publisher.Options)) (*publisher.Publisher, error) {
	o := publisher.Options{
		Dir: data, Registry: r, Unknown: registry.ErrNoDoors, Forgotten: registry.ErrForgotten,
		Authority: authority(data),
		Controllers: func(ctx context.Context) ([]string, error) {
			all, err := controllers(ctx)
			if err != nil {
				return nil, err
			}
			var names []string
			for _, c := range all {
				governed, err := pki.Governed(data, c.Name)
				if err != nil {
					return nil, err
				}
				if governed && c.Revoked.IsZero() {
					names = append(names, c.Name)
				}
			}
			return names, nil
		},
		Secret: func(controller string) (publisher.Secret, error) {
			pepper, err := pki.ReadPepper(data, controller)
			if err != nil {
				return publisher.Secret{}, err
			}
			blobs, err := pepper.Blobs()
			return publisher.Secret{Pepper: pepper, Blobs: blobs}, err
		},
	}
	if change != nil {
		change(&o)
	}
	return publisher.Open(ctx, o)
}

// openPolicy opens the daemon's publisher.
func (c *crm) openPolicy(ctx context.Context) (err error) {
	c.publisher, err = openPublisher(ctx, c.cfg.Data, c.registry, c.store.Controllers, func(o *publisher.Options) {
		o.Sender, o.Logger = c.conn, c.log
		o.ByCommand = c.cfg.Policy.Publish == config.PublishByCommand
	})
	if err != nil {
		return err
	}
	c.policy = &policyDesk{c.publisher, c.registry, c.cfg.Data}
	switch p, err := pki.OpenPolicy(c.cfg.Data, time.Now()); {
	case err != nil:
		c.log.Warn("nothing is published to the doors", "error", err)
	case p.Ends(time.Now()):
		c.log.Warn("the policy key's certificate ends soon: run \"gatehouse-crm policy certify\" where policy-root.key is", "until", p.Until)
	}
	return nil
}

// handle gives a message to whom it concerns.
func (c *crm) handle(ctx context.Context, m wire.Message) {
	controller, kind, err := wire.ParseTopic(m.Topic)
	switch {
	case err == nil && kind == wire.KindFetch:
		c.publisher.Fetch(controller, m.Payload)
		return
	case err == nil && kind == wire.KindRequest:
		c.askedToRenew(controller, m.Payload)
		return
	case err == nil && kind == wire.KindState && !m.Retained:
		// One that the broker kept may be of any age.
		if s, err := wire.ParseState(m.Payload); err == nil && s.Controller == controller && s.Online {
			c.publisher.Report(controller, s.PolicyVersion)
			c.commands.Heard(controller, s.Nonce)
		}
	}
	c.ingester.Handle(ctx, m)
}

// policyFaults are what keeps from publishing.
func (c *crm) policyFaults() []metrics.Fault {
	var list []metrics.Fault
	faults := c.publisher.Faults()
	names := make([]string, 0, len(faults))
	for name := range faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		part := "policy"
		if name != "" {
			part += " of " + name
		}
		list = append(list, metrics.Fault{Part: part, What: faults[name]})
	}
	return list
}

// policyDesk gives the API what it needs of the publisher.
type policyDesk struct {
	*publisher.Publisher
	registry *registry.Registry
	data     string // the CRM's folder
}

// PolicyStatus is how things stand with each controller.
func (d *policyDesk) PolicyStatus(ctx context.Context) ([]api.PolicyStatus, error) {
	list, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	faults := d.Faults()
	out := make([]api.PolicyStatus, 0, len(list))
	for _, s := range list {
		v := api.PolicyStatus{Controller: s.Controller, Published: s.Version, At: s.Created, Expires: s.Expires, Applied: s.Reported, Heard: s.ReportedAt, Waiting: s.Changed}
		if v.Fault = faults[s.Controller]; v.Fault == "" {
			v.Fault = faults[""]
		}
		out = append(out, v)
	}
	return out, nil
}

// PolicyDiff is what publishing now would change at each controller.
func (d *policyDesk) PolicyDiff(ctx context.Context) ([]api.PolicyDiff, error) {
	list, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.PolicyDiff
	for _, s := range list {
		diff, err := d.Diff(ctx, s.Controller)
		if err != nil {
			return nil, err
		}
		if diff.Empty() {
			continue
		}
		v := api.PolicyDiff{Controller: s.Controller, Rules: diff.Anew || len(diff.Sources)+len(diff.Words) > 0, People: []string{}}
		for _, person := range diff.People {
			v.People = append(v.People, person.Person)
		}
		out = append(out, v)
	}
	return out, nil
}

// PublishPolicy publishes to controllers, or to all where none is named.
func (d *policyDesk) PublishPolicy(ctx context.Context, c registry.Change, controllers []string) ([]api.PolicyStatus, error) {
	all, err := d.Status(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Controller)
	}
	for _, name := range controllers {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("controller %q is %w", name, registry.ErrNotFound)
		}
	}
	if len(controllers) == 0 {
		controllers = names
	}
	if _, err := pki.OpenPolicy(d.data, time.Now()); err != nil {
		return nil, fmt.Errorf("%w: %w", api.ErrNotPublishing, err)
	}
	if err := d.registry.Published(ctx, c, controllers); err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range controllers {
		if _, err := d.Make(ctx, name, publisher.Everything, nil); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	list, err := d.PolicyStatus(ctx)
	return slices.DeleteFunc(list, func(s api.PolicyStatus) bool { return !slices.Contains(controllers, s.Controller) }), err
}

// Gone is what became, at a controller, of what was taken away up to a line of the
// audit.
func (d *policyDesk) Gone(ctx context.Context, controller string, line uint64) (api.Gone, error) {
	a, err := d.Applied(ctx, controller, line)
	return api.Gone{Controller: controller, Version: a.Version, Published: a.Published, Applied: a.At}, err
}
