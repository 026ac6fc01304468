package publisher

import (
	"context"
	"time"
)

// Status is how things stand with one controller.
type Status struct {
	Controller string    `json:"controller"`
	Version    uint64    `json:"version"` // the newest; 0: nothing was published
	Created    time.Time `json:"created,omitzero"`
	Expires    time.Time `json:"expires,omitzero"` // until when the manifest may begin to be used
	Rows       uint64    `json:"rows"`
	// Changed says that the registry was changed since. Whether that is anything to
	// this controller, Diff tells.
	Changed       bool      `json:"changed"`
	SnapshotBytes uint64    `json:"snapshot_bytes"`
	Deltas        int       `json:"deltas"`
	DeltaBytes    uint64    `json:"delta_bytes"`
	Reported      uint64    `json:"reported"` // the version that it uses; 0: it has said nothing
	ReportedAt    time.Time `json:"reported_at,omitzero"`
}

// Behind says whether the controller uses another version than the newest.
func (s Status) Behind() bool { return s.Version != s.Reported }

// Status is how things stand with all controllers that are approved.
func (p *Publisher) Status(ctx context.Context) ([]Status, error) {
	names, err := p.known(ctx)
	if err != nil {
		return nil, err
	}
	head, err := p.o.Registry.Changes(ctx)
	if err != nil {
		return nil, err
	}
	all, err := p.store.allPublished(ctx)
	if err != nil {
		return nil, err
	}
	reported, err := p.store.reported(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(names))
	for _, name := range names {
		v := all[name]
		s := Status{Controller: name, Version: v.version, Rows: v.rows, Changed: v.head < head,
			Reported: reported[name].version, ReportedAt: reported[name].at}
		if v.version > 0 {
			s.Created, s.Expires = v.created, v.expires
		}
		blobs, err := current(ctx, p.store.r, name)
		if err != nil {
			return nil, err
		}
		for _, b := range blobs {
			if b.From == 0 {
				s.SnapshotBytes = b.Bytes
			} else {
				s.Deltas, s.DeltaBytes = s.Deltas+1, s.DeltaBytes+b.Bytes
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// Holding are the controllers that were told of a person's credentials.
func (p *Publisher) Holding(ctx context.Context, person string) ([]string, error) {
	return p.store.holding(ctx, person)
}

// Applied is what became, at one controller, of what was taken away.
type Applied struct {
	Controller string    `json:"controller"`
	Version    uint64    `json:"version"` // in which it is gone; 0: not published yet
	Published  time.Time `json:"published,omitzero"`
	Reported   uint64    `json:"reported"`         // the version that the controller uses
	At         time.Time `json:"applied,omitzero"` // when it was heard that it uses that version; zero: not yet
}

// Applied says whether a controller uses a version in which everything is gone
// that the registry took away up to a line of its audit.
func (p *Publisher) Applied(ctx context.Context, controller string, line uint64) (Applied, error) {
	a := Applied{Controller: controller}
	v, err := readPublished(ctx, p.store.r, controller)
	if err != nil {
		return a, err
	}
	if same, err := p.same(ctx, v); err != nil || !same {
		return a, err // the line is another than the one that was published
	}
	if a.Version, a.Published, err = p.store.taking(ctx, controller, line); err != nil {
		return a, err
	}
	all, err := p.store.reported(ctx)
	if err != nil {
		return a, err
	}
	r := all[controller]
	if a.Reported = r.version; a.Version > 0 && r.version >= a.Version {
		a.At = r.at
	}
	return a, nil
}
