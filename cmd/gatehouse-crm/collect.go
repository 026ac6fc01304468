package main

import (
	"context"

	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

const metric metrics.Describer = "gatehouse_crm_"

var (
	descConnected = metric.Desc("broker_connected", "Whether there is a connection to the broker.")
	descLost      = metric.Desc("messages_dropped_total", "Messages that were dropped, by reason. Their senders send again.", "reason")
	descRefused   = metric.Desc("batches_refused_total", "Batches and states that were answered but not applied, by reason.", "reason")
	descBatches   = metric.Desc("batches_total", "Batches handled.")
	descReceived  = metric.Desc("records_received_total", "Records in the batches that were applied, repeated ones too.")
	descReceipts  = metric.Desc("receipts_total", "Receipts published.")
	descQueued    = metric.Desc("messages_queued", "Messages waiting.")
	descOnline    = metric.Desc("controller_online", "Whether the controller is connected.", "controller")
	descStored    = metric.Desc("controller_records", "Records stored of the controller, of all its epochs.", "controller")
	descPolicy    = metric.Desc("policy_version", "The newest version of the allowlist that was made for the controller.", "controller")
	descApplied   = metric.Desc("policy_version_in_use", "The version of the allowlist that the controller said it uses.", "controller")
	descParts     = metric.Desc("policy_parts_total", "Parts of allowlists sent to controllers that asked for them.")
	descAsked     = metric.Desc("policy_requests_total", "Requests for parts, by what became of them.", "result")
	descPolicyKey = metric.Desc("policy_key_ends_timestamp_seconds", "When the policy key's certificate ends. Absent: there is none that holds.")
	descAlarms    = metric.Desc("alarms_open", "Open alarms.", "kind")
	descClients   = metric.Desc("broker_clients", "Clients of the broker inside.")
	descDenied    = metric.Desc("broker_denied_total", "Publishes and subscriptions that the broker inside forbade.")
)

// collect gives the CRM's state to Prometheus.
func (c *crm) collect(v metrics.Values) {
	conn := c.conn.Status()
	v.Is(descConnected, conn.Connected)
	v.Counter(descLost, conn.Dropped, "queue of the connection")
	in := c.ingester.Stats()
	for reason, n := range in.Dropped {
		v.Counter(descLost, n, reason)
	}
	for reason, n := range in.Refused {
		v.Counter(descRefused, n, reason)
	}
	v.Counter(descBatches, in.Batches)
	v.Counter(descReceived, in.Records)
	v.Counter(descReceipts, in.Receipts)
	v.Gauge(descQueued, float64(in.Queued))
	if c.broker != nil {
		b := c.broker.Status()
		v.Gauge(descClients, float64(len(b.Clients)))
		v.Counter(descDenied, b.Denied)
	}
	c.collectAPI(v)
	ctx, cancel := context.WithTimeout(context.Background(), aliveWithin)
	defer cancel()
	c.collectStored(ctx, v)
}

// collectStored gives what the store says. If it does not answer the metrics
// are absent, and the page still tells the rest.
func (c *crm) collectStored(ctx context.Context, v metrics.Values) {
	s, err := c.Status(ctx)
	if err != nil {
		return
	}
	c.collectPolicy(ctx, s.Policy, v)
	for _, k := range s.Controllers {
		v.Is(descOnline, k.Online, k.Name)
		v.Gauge(descStored, float64(k.Records), k.Name)
	}
	open := map[string]int{
		string(central.AlarmFork): 0, string(central.AlarmRollback): 0, string(central.AlarmEpoch): 0,
		string(central.AlarmGap): 0, string(central.AlarmInvalid): 0, string(central.AlarmSilent): 0,
		string(central.AlarmDamaged): 0, string(central.AlarmRestored): 0,
	}
	for _, a := range s.Alarms {
		open[a.Kind]++
	}
	for kind, n := range open {
		v.Gauge(descAlarms, float64(n), kind)
	}
}

// collectPolicy gives what is published.
func (c *crm) collectPolicy(ctx context.Context, key shownPolicyKey, v metrics.Values) {
	if key.Fault == "" {
		v.Gauge(descPolicyKey, float64(key.Until.Unix()))
	}
	f := c.publisher.FetchStats()
	v.Counter(descParts, f.Parts)
	v.Counter(descAsked, f.Requests-f.Gone, "answered")
	v.Counter(descAsked, f.Gone, "gone")
	v.Counter(descAsked, f.Dropped, "dropped")
	list, err := c.publisher.Status(ctx)
	if err != nil {
		return
	}
	for _, p := range list {
		v.Gauge(descPolicy, float64(p.Version), p.Controller)
		v.Gauge(descApplied, float64(p.Reported), p.Controller)
	}
}
