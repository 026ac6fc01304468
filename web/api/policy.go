package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/gatehouse-acs/gatehouse/internal/fields"
)

// ErrNotPublishing is that nothing can be published for the time being. The text
// of what wraps it is shown to whoever asked.
var ErrNotPublishing = errors.New("nothing is published from here")

// Policy publishes what the registry says to the controllers. Its methods do not
// wait for a door.
type Policy interface {
	// PolicyStatus says of each controller what was published to it, and what of
	// that it has.
	PolicyStatus(ctx context.Context) ([]PolicyStatus, error)
	// PolicyDiff says of each controller what publishing now would change there;
	// controllers for which that is nothing are not named.
	PolicyDiff(ctx context.Context) ([]PolicyDiff, error)
	// PublishPolicy publishes to these controllers, or to all where none is named,
	// and says how they stand then. An unknown controller is registry.ErrNotFound; it
	// may be ErrNotPublishing.
	PublishPolicy(ctx context.Context, c registry.Change, controllers []string) ([]PolicyStatus, error)
}

// Doors tells what became at the doors of what was taken away.
type Doors interface {
	// Holding are the controllers that were told of a person's credentials.
	Holding(ctx context.Context, person string) ([]string, error)
	// Gone says whether a controller uses a version in which everything is gone
	// that the registry took away up to a line of its audit.
	Gone(ctx context.Context, controller string, line uint64) (Gone, error)
}

// Gone is what became, at one controller, of what was taken away.
type Gone struct {
	Controller string    `json:"controller"`
	Version    uint64    `json:"version"` // in which it is gone; 0: not published yet
	Published  time.Time `json:"published,omitzero"`
	Applied    time.Time `json:"applied,omitzero"` // when it was heard that the controller uses that version; zero: not yet
}

// PolicyStatus is how one controller stands.
type PolicyStatus struct {
	Controller string    `json:"controller"`
	Published  uint64    `json:"published"` // the version; 0: none
	At         time.Time `json:"at,omitzero"`
	Expires    time.Time `json:"expires,omitzero"`
	Applied    uint64    `json:"applied"`         // the version that it has, as far as it told; 0: none
	Heard      time.Time `json:"heard,omitzero"`  // when it told; zero: never
	Waiting    bool      `json:"waiting"`         // the registry says more than what was published
	Fault      string    `json:"fault,omitempty"` // why nothing is published to it
}

// PolicyDiff is what publishing would change at one controller.
type PolicyDiff struct {
	Controller string   `json:"controller"`
	Rules      bool     `json:"rules"`  // of its doors, schedules or rights
	People     []string `json:"people"` // whose entries change, by their ids
}

func (a *API) policy() (Policy, error) {
	if a.o.Policy == nil {
		return nil, problem("not-publishing", "allowlists are exported by hand here: gatehouse-crm registry export")
	}
	return a.o.Policy, nil
}

func (a *API) policyStatus(c *call) (*answer, error) {
	p, err := a.policy()
	if err != nil {
		return nil, err
	}
	return unpaged(p.PolicyStatus(c.Context()))
}

func (a *API) policyDiff(c *call) (*answer, error) {
	p, err := a.policy()
	if err != nil {
		return nil, err
	}
	return unpaged(p.PolicyDiff(c.Context()))
}

// policyGone says what became at a controller of what was taken away up to a line
// of the audit, such as that of somebody's leaving.
func (a *API) policyGone(c *call) (*answer, error) {
	if a.o.Doors == nil {
		_, err := a.policy()
		return nil, err
	}
	query := c.URL.Query()
	line, err := strconv.ParseUint(query.Get("line"), 10, 63)
	if err != nil || line == 0 || !fields.IsName(query.Get("controller")) {
		return nil, problem("malformed", "ask with controller and line, as a person's leaving is answered")
	}
	gone, err := a.o.Doors.Gone(c.Context(), query.Get("controller"), line)
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, body: gone}, nil
}

func (a *API) policyPublish(c *call) (*answer, error) {
	p, err := a.policy()
	if err != nil {
		return nil, err
	}
	var body struct {
		Controllers []string `json:"controllers"`
	}
	if err := decodeBody(c.body, &body); err != nil {
		return nil, errBody(err)
	}
	if body.Controllers != nil && len(body.Controllers) == 0 {
		return nil, errBody(&fault{"controllers", "names none: leave it out for all"})
	}
	out, err := unpaged(p.PublishPolicy(c.Context(), c.change, body.Controllers))
	if err != nil {
		return nil, err
	}
	out.status = http.StatusAccepted // the doors have not heard yet
	return out, nil
}

// unpaged is a list that comes as a whole.
func unpaged[T any](items []T, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	if items == nil {
		items = []T{}
	}
	return &answer{status: http.StatusOK, body: listed[T]{Items: items}}, nil
}
