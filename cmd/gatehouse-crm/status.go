package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/spf13/cobra"
)

// status is what /status shows.
type status struct {
	Version     string             `json:"version"`
	Connected   bool               `json:"connected"` // to the broker
	LastError   string             `json:"last_error,omitempty"`
	Controllers []controllerStatus `json:"controllers"`
	Alarms      []alarmStatus      `json:"alarms"` // open
	Reviews     int                `json:"reviews_owed"`
	Policy      shownPolicyKey     `json:"policy_key"`
	Faults      []metrics.Fault    `json:"faults"`
}

type controllerStatus struct {
	Name    string    `json:"name"`
	Online  bool      `json:"online"`
	Seen    time.Time `json:"seen,omitzero"`
	Revoked bool      `json:"revoked,omitempty"`
	Epochs  int       `json:"epochs"`
	Records uint64    `json:"records"` // stored, of all epochs
}

type alarmStatus struct {
	ID         int64     `json:"id"`
	Kind       string    `json:"kind"`
	Controller string    `json:"controller"`
	Detail     string    `json:"detail"`
	Raised     time.Time `json:"raised"`
	Count      int       `json:"count"`
}

// Status is a snapshot of the CRM's side.
func (c *crm) Status(ctx context.Context) (status, error) {
	conn := c.conn.Status()
	s := status{
		Version: cli.Version(), Connected: conn.Connected, LastError: conn.LastError,
		Controllers: []controllerStatus{}, Alarms: []alarmStatus{}, Faults: c.Faults(ctx), Policy: showPolicyKey(c.cfg.Data),
	}
	controllers, err := c.store.Controllers(ctx)
	if err != nil {
		return s, err
	}
	epochs, err := c.store.Epochs(ctx, "")
	if err != nil {
		return s, err
	}
	for _, v := range controllers {
		k := controllerStatus{Name: v.Name, Online: v.Online, Seen: v.Seen, Revoked: !v.Revoked.IsZero()}
		for _, e := range epochs {
			if e.Controller == v.Name {
				k.Epochs++
				k.Records += e.Size
			}
		}
		s.Controllers = append(s.Controllers, k)
	}
	alarms, err := c.store.Alarms(ctx, false)
	if err != nil {
		return s, err
	}
	for _, a := range alarms {
		s.Alarms = append(s.Alarms, showAlarm(a))
	}
	reviews, err := c.store.Reviews(ctx, false)
	s.Reviews = len(reviews)
	return s, err
}

// Faults is what is wrong with the CRM's side itself. Alarms are about
// controllers, and no fault of it.
func (c *crm) Faults(ctx context.Context) []metrics.Fault {
	faults := []metrics.Fault{}
	if s := c.conn.Status(); !s.Connected {
		faults = append(faults, metrics.Fault{Part: "broker", What: "not connected: " + s.LastError})
	}
	if _, err := c.store.Controllers(ctx); err != nil {
		faults = append(faults, metrics.Fault{Part: "store", What: err.Error()})
	}
	return append(faults, c.policyFaults()...)
}

const aliveWithin = 5 * time.Second

// Alive fails when the store does not answer, which a restart may mend.
func (c *crm) Alive() error {
	ctx, cancel := context.WithTimeout(context.Background(), aliveWithin)
	defer cancel()
	_, err := c.store.Controllers(ctx)
	return err
}

func newStatusCmd() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show how the running CRM and its controllers are",
		Long:    "Show how the running CRM and its controllers are. The exit status is 1 when something is wrong or an alarm is open.",
		Example: "  gatehouse-crm status --config gatehouse-crm.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadCRM(file)
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			var s status
			if err := metrics.Status(cmd.Context(), cfg.HTTP.Listen, &s); err != nil {
				return fmt.Errorf("is the daemon running? %w", err)
			}
			if asJSON {
				err = cli.PrintJSON(cmd.OutOrStdout(), s)
			} else {
				err = s.print(cmd.OutOrStdout())
			}
			if err == nil && len(s.Faults)+len(s.Alarms) > 0 {
				return cli.ErrReported
			}
			return err
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (s status) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "gatehouse-crm\tversion %s\n", s.Version)
	if s.Connected {
		fmt.Fprintf(w, "broker\tconnected\n")
	}
	for _, c := range s.Controllers {
		state := "offline"
		switch {
		case c.Revoked:
			state = "REVOKED"
		case c.Online:
			state = "online"
		case c.Seen.IsZero():
			state = "never seen"
		}
		seen := ""
		if !c.Seen.IsZero() {
			seen = ", seen " + c.Seen.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "controller %s\t%s%s, records: %d, epochs: %d\n", c.Name, state, seen, c.Records, c.Epochs)
	}
	for _, a := range s.Alarms {
		fmt.Fprintf(w, "ALARM %d\t%s %s: %s (since %s, %d×)\n", a.ID, a.Controller, a.Kind, a.Detail, a.Raised.Local().Format(time.DateTime), a.Count)
	}
	if s.Reviews > 0 {
		fmt.Fprintf(w, "reviews\t%d breakings of the glass owe one: gatehouse-crm reviews list\n", s.Reviews)
	}
	if s.Policy.Ends {
		fmt.Fprintf(w, "policy key\tcertified until %s only: run \"gatehouse-crm policy certify\" where policy-root.key is\n", s.Policy.Until.Local().Format(time.DateOnly))
	}
	for _, f := range s.Faults {
		fmt.Fprintf(w, "FAULT\t%s: %s\n", f.Part, f.What)
	}
	return w.Flush()
}
