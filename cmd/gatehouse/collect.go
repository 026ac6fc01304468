package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// collector gives the controller's state to Prometheus when it asks.
type collector struct{ c *controller }

var (
	descRecords      = metric("records", "Records in the present epoch of the log.")
	descAcknowledged = metric("records_acknowledged", "Records that the CRM has countersigned.")
	descPending      = metric("records_pending", "Records of a door that are not durable yet.", "door")
	descPolicy       = metric("allowlist_version", "Version of the allowlist in use; 0: none.")
	descPolicyAge    = metric("allowlist_age_seconds", "Seconds since the allowlist was known to be current.")
	descCredentials  = metric("allowlist_credentials", "Credentials on the allowlist.")
	descClock        = metric("clock_state", "1 for the state that the clock is in.", "state")
	descKeys         = metric("key_provider", "1 for the provider that the keys came from.", "provider")
	descConnected    = metric("crm_connected", "Whether there is a connection to the broker.")
	descReconnects   = metric("crm_reconnects_total", "Connections made after the first one.")
	descDropped      = metric("crm_messages_dropped_total", "Messages from the broker that there was no room for.")
	descRefused      = metric("crm_messages_refused_total", "Messages from the broker that no part of the controller takes.")
	descBadReceipts  = metric("crm_receipts_bad_total", "Receipts that did not verify.")
	descResent       = metric("crm_resent_total", "Times that sending went back to the last receipt.")
	descLocked       = metric("door_locked", "Whether the strike is locked.", "door")
	descFaults       = metric("door_faults", "Parts of the door that are broken.", "door")
	descReader       = metric("reader_faulty", "Whether the reader is broken.", "door", "reader")
	descDecisions    = metric("decisions_total", "Decisions since the start.", "door", "decision")
	descAlarms       = metric("door_alarms_total", "Alarms since the start.", "door")
)

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gatehouse_"+name, help, labels, nil)
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
	c := m.c
	if head, err := c.records.Head(context.Background()); err == nil {
		gauge(descRecords, float64(head.Size))
	}
	gauge(descAcknowledged, float64(c.records.Acknowledged()))
	now, state := c.clock.Now()
	gauge(descClock, 1, string(state))
	gauge(descKeys, 1, c.cfg.Keys.Provider)
	policy := c.policy.Status(now)
	gauge(descPolicy, float64(policy.Version))
	gauge(descPolicyAge, float64(policy.AgeSeconds))
	gauge(descCredentials, float64(policy.Credentials))
	for _, d := range c.doors {
		s := d.Status()
		gauge(descLocked, number(s.Locked), s.Door)
		gauge(descFaults, float64(len(s.Faults)), s.Door)
		gauge(descPending, float64(s.Counts.Pending), s.Door)
		counter(descDecisions, s.Counts.Granted, s.Door, "granted")
		counter(descDecisions, s.Counts.Denied, s.Door, "denied")
		counter(descAlarms, s.Counts.Alarms, s.Door)
		for _, r := range s.Readers {
			gauge(descReader, number(r.Fault != ""), s.Door, r.Name)
		}
	}
	if c.link != nil {
		conn, up := c.link.conn.Status(), c.link.uplink.Status()
		gauge(descConnected, number(conn.Connected))
		counter(descReconnects, conn.Reconnects)
		counter(descDropped, conn.Dropped)
		counter(descRefused, c.link.refused.Load())
		counter(descBadReceipts, up.Bad)
		counter(descResent, up.Resent)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
