package api

import (
	"errors"
	"time"

	"github.com/gatehouse-acs/gatehouse/access/registry"
)

// withBadge answers to an action. That a badge is not there is a fault of the
// body: that the visit is not there is another matter.
func (a *API) withBadge(c *call, row registry.Row[registry.Visit], err error) (*answer, error) {
	id := c.PathValue("id")
	if errors.Is(err, registry.ErrNotFound) {
		if _, missing := a.o.Registry.Visits.Get(c.Context(), id); missing == nil {
			return nil, errBody(&fault{"badge", "there is no such credential"})
		}
	}
	return wrote(id, row, err)
}

func (a *API) checkIn(c *call) (*answer, error) {
	var body struct {
		Identified registry.Identified `json:"identified"`
		Notice     struct {
			Version string    `json:"version"`
			Signed  string    `json:"signed"`
			At      time.Time `json:"at"`
		} `json:"notice"`
		Escort string `json:"escort"`
		Badge  string `json:"badge"`
	}
	if err := decodeBody(c.body, &body); err != nil {
		return nil, errBody(err)
	}
	version, err := c.ifMatch(false)
	if err != nil {
		return nil, err
	}
	row, err := a.o.Registry.CheckIn(c.Context(), c.change, c.PathValue("id"), version, registry.Arrival{
		Identified: body.Identified, Notice: registry.Notice(body.Notice), Escort: body.Escort, Badge: body.Badge,
	})
	return a.withBadge(c, row, err)
}

func (a *API) issue(c *call) (*answer, error) {
	var body struct {
		Badge string `json:"badge"`
	}
	if err := decodeBody(c.body, &body); err != nil {
		return nil, errBody(err)
	}
	if err := c.noIfMatch(); err != nil {
		return nil, err
	}
	row, err := a.o.Registry.Issue(c.Context(), c.change, c.PathValue("id"), body.Badge)
	return a.withBadge(c, row, err)
}

func (a *API) surrender(c *call) (*answer, error) {
	if err := c.noIfMatch(); err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	row, err := a.o.Registry.Surrender(c.Context(), c.change, id)
	return wrote(id, row, err)
}

// noIfMatch refuses a condition that would not be checked.
func (c *call) noIfMatch() error {
	if len(c.Header.Values("If-Match")) > 0 {
		return problem("malformed", "this depends on whether a badge is out, and not on a version: send no If-Match")
	}
	return nil
}

func (a *API) signOut(c *call) (*answer, error) {
	var body struct {
		Lost bool `json:"lost"`
	}
	if err := decodeBody(c.body, &body); err != nil {
		return nil, errBody(err)
	}
	version, err := c.ifMatch(false)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	row, err := a.o.Registry.SignOut(c.Context(), c.change, id, version, body.Lost)
	return wrote(id, row, err)
}

func (a *API) cancel(c *call) (*answer, error) {
	version, err := c.ifMatch(false)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	if err := a.o.Registry.Cancel(c.Context(), c.change, id, version); err != nil {
		return nil, err
	}
	row, err := a.o.Registry.Visits.Get(c.Context(), id)
	return wrote(id, row, err)
}

// WrittenWithDigits is a new one-time code, this once.
type WrittenWithDigits struct {
	Written
	Digits string `json:"digits"`
}

// issueCode makes a one-time code, whose digits are in no other answer.
func (a *API) issueCode(c *call) (*answer, error) {
	var body struct {
		Door  string    `json:"door"`
		From  time.Time `json:"from"`
		Until time.Time `json:"until"`
	}
	if err := decodeBody(c.body, &body); err != nil {
		return nil, errBody(err)
	}
	if err := c.noIfMatch(); err != nil {
		return nil, err
	}
	row, digits, err := a.o.Registry.IssueCode(c.Context(), c.change, registry.CodeOrder{Visit: c.PathValue("id"), Door: body.Door, From: body.From, Until: body.Until})
	out, err := made("codes", row.Value.ID, row, err)
	if err != nil {
		return nil, err
	}
	out.body, out.secret = WrittenWithDigits{out.body.(Written), digits}, true
	return out, nil
}

func (a *API) withdrawCode(c *call) (*answer, error) {
	version, err := c.ifMatch(false)
	if err != nil {
		return nil, err
	}
	id := c.PathValue("id")
	row, err := a.o.Registry.WithdrawCode(c.Context(), c.change, id, version)
	return wrote(id, row, err)
}

// overstayed lists the visits whose visitor is in after the end.
func (a *API) overstayed(c *call) (*answer, error) {
	if err := c.viewed(a.o.Registry, registry.View{Kind: registry.KindVisit, Filter: "overstayed"}); err != nil {
		return nil, err
	}
	return unpaged(a.o.Registry.Overstayed(c.Context()))
}
