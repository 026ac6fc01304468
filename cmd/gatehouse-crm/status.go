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
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// status is what /status shows.
type status struct {
	Version     string             `json:"version"`
	Connected   bool               `json:"connected"` // to the broker
	LastError   string             `json:"last_error,omitempty"`
	Controllers []controllerStatus `json:"controllers"`
	Alarms      []alarmStatus      `json:"alarms"` // open
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
		Controllers: []controllerStatus{}, Alarms: []alarmStatus{}, Faults: c.Faults(ctx),
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
	return s, nil
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
	return faults
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
	for _, f := range s.Faults {
		fmt.Fprintf(w, "FAULT\t%s: %s\n", f.Part, f.What)
	}
	return w.Flush()
}

// collector gives the CRM's state to Prometheus when it asks.
type collector struct{ c *crm }

var (
	descConnected = desc("broker_connected", "Whether there is a connection to the broker.")
	descLost      = desc("messages_dropped_total", "Messages that were dropped, by reason. Their senders send again.", "reason")
	descRefused   = desc("batches_refused_total", "Batches and states that were answered but not applied, by reason.", "reason")
	descBatches   = desc("batches_total", "Batches handled.")
	descReceived  = desc("records_received_total", "Records in the batches that were applied, repeated ones too.")
	descReceipts  = desc("receipts_total", "Receipts published.")
	descQueued    = desc("messages_queued", "Messages waiting.")
	descOnline    = desc("controller_online", "Whether the controller is connected.", "controller")
	descStored    = desc("controller_records", "Records stored of the controller, of all its epochs.", "controller")
	descAlarms    = desc("alarms_open", "Open alarms.", "kind")
	descClients   = desc("broker_clients", "Clients of the broker inside.")
	descDenied    = desc("broker_denied_total", "Publishes and subscriptions that the broker inside forbade.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gatehouse_crm_"+name, help, labels, nil)
}

// Describe is of prometheus.Collector: the descriptions follow from the
// metrics.
func (m collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect is of prometheus.Collector.
func (m collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	conn := m.c.conn.Status()
	gauge(descConnected, number(conn.Connected))
	counter(descLost, conn.Dropped, "queue of the connection")
	in := m.c.ingester.Stats()
	for reason, n := range in.Dropped {
		counter(descLost, n, reason)
	}
	for reason, n := range in.Refused {
		counter(descRefused, n, reason)
	}
	counter(descBatches, in.Batches)
	counter(descReceived, in.Records)
	counter(descReceipts, in.Receipts)
	gauge(descQueued, float64(in.Queued))
	if m.c.broker != nil {
		b := m.c.broker.Status()
		gauge(descClients, float64(len(b.Clients)))
		counter(descDenied, b.Denied)
	}
	ctx, cancel := context.WithTimeout(context.Background(), aliveWithin)
	defer cancel()
	m.stored(ctx, gauge)
}

// stored is what the store says. If it does not answer the metrics are absent,
// and the page still tells the rest.
func (m collector) stored(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) {
	s, err := m.c.Status(ctx)
	if err != nil {
		return
	}
	for _, c := range s.Controllers {
		gauge(descOnline, number(c.Online), c.Name)
		gauge(descStored, float64(c.Records), c.Name)
	}
	open := map[string]int{
		string(central.AlarmFork): 0, string(central.AlarmRollback): 0, string(central.AlarmEpoch): 0,
		string(central.AlarmGap): 0, string(central.AlarmInvalid): 0, string(central.AlarmSilent): 0,
	}
	for _, a := range s.Alarms {
		open[a.Kind]++
	}
	for kind, n := range open {
		gauge(descAlarms, float64(n), kind)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
