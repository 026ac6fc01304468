// Package decisionview shows people what a door would decide, step by step.
package decisionview

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
)

// Explanation is what would happen at a door, and why.
type Explanation struct {
	Door      string           `json:"door"`
	Direction access.Direction `json:"direction"`
	At        time.Time        `json:"at"` // in the site's zone
	Decision  string           `json:"decision"`
	Reason    access.Reason    `json:"reason"`
	Meaning   string           `json:"meaning"`
	Action    string           `json:"action"`
	Policy    uint64           `json:"policy_version"`
	// Credential is what was presented, in whatever form the caller shows it.
	Credential any           `json:"credential,omitempty"`
	Steps      []access.Step `json:"steps"`
	More       []string      `json:"more,omitempty"`     // factors, of which the door waits for any
	Together   bool          `json:"together,omitempty"` // the door waits for another person
	Against    access.Reason `json:"against,omitempty"`  // what the grant goes against

	// Who says in words whose credential it is; it is not in the JSON.
	Who string `json:"-"`
}

// Explain explains a query.
func Explain(q *access.Query) Explanation {
	steps, d := access.Explain(q)
	told, _ := d.Reason.Text()
	e := Explanation{
		Door: q.Door, Direction: q.Direction, At: q.At.In(q.Zone), Decision: "denied",
		Reason: d.Reason, Meaning: told.Meaning, Action: told.Action, Policy: q.Policy.Version,
		Steps: steps, More: d.More.Names(), Together: d.Together, Against: d.Against,
	}
	if d.Granted {
		e.Decision = "granted"
	}
	return e
}

// Waits reports whether somebody could wait to pass together with the person of a
// query: by themselves they would be granted, or denied only for want of company.
// That they proved who they are is supposed, and what stands in the way of
// everybody is not looked at.
func Waits(q *access.Query, e *access.Entry) bool {
	own := *q
	own.Entry, own.Given, own.Refused, own.Over = e, ^access.Factor(0), 0, false
	own.Situation = access.Situation{Threat: q.Threat, Begun: q.Begun}
	d := access.Decide(&own)
	return d.Granted && !d.BreakGlass || d.Together
}

// Print writes the explanation in words, or as JSON.
func (e Explanation) Print(w io.Writer, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, e)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "At door %s, on the way %s, on %s:\n", e.Door, e.Direction, e.At.Format("Mon 2006-01-02 15:04 MST"))
	for _, s := range e.Steps {
		mark := "ok"
		if !s.OK {
			mark = "NO"
		}
		fmt.Fprintf(&b, "  %s  %s\n", mark, s.Text)
	}
	if e.Who != "" {
		fmt.Fprintf(&b, "%s.\n", e.Who)
	}
	waits := e.More
	if e.Together {
		waits = append(waits, "another person")
	}
	verdict := "Denied: " + string(e.Reason)
	switch {
	case e.Against != "":
		verdict = fmt.Sprintf("Granted: %s, against %s", e.Reason, e.Against)
	case e.Reason == access.ReasonGranted:
		verdict = "Granted"
	case e.Decision == "granted":
		verdict = "Granted: " + string(e.Reason)
	case len(waits) > 0:
		fmt.Fprintf(&b, "The door waits for %s. If nothing comes:\n", strings.Join(waits, " or "))
	}
	fmt.Fprintf(&b, "%s. %s\n", verdict, e.Meaning)
	if e.Reason != access.ReasonGranted {
		fmt.Fprintf(&b, "What to do: %s\n", e.Action)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
