package main

import (
	"context"
	"math"

	"github.com/gatehouse-acs/gatehouse/door"
	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/sync/allowlist/follower"
	"github.com/gatehouse-acs/gatehouse/sync/command/receiver"
)

const metric metrics.Describer = "gatehouse_"

var (
	descRecords      = metric.Desc("records", "Records in the present epoch of the log.")
	descAcknowledged = metric.Desc("records_acknowledged", "Records that the CRM has countersigned.")
	descVerified     = metric.Desc("records_verified", "Records of the log verified since the start; the whole of it is, beside the doors.")
	descToVerify     = metric.Desc("records_to_verify", "Records of the log that there were to verify at the start.")
	descDamaged      = metric.Desc("records_damaged", "Whether the verification found the log damaged.")
	descPending      = metric.Desc("records_pending", "Records of a door that are not durable yet.", "door")
	descPolicy       = metric.Desc("allowlist_version", "Version of the allowlist in use; 0: none.")
	descPolicyAge    = metric.Desc("allowlist_age_seconds", "Seconds since the allowlist was known to be current.")
	descCredentials  = metric.Desc("allowlist_credentials", "Credentials on the allowlist.")
	descHeard        = metric.Desc("allowlist_heard_version", "Newest version of the allowlist that the CRM was heard to have; 0: none was heard.")
	descMissing      = metric.Desc("allowlist_parts_missing", "Parts of the newest version that are not here yet.")
	descApplied      = metric.Desc("allowlist_applied_total", "Parts of the CRM's allowlist put in force since the start: snapshots and deltas.", "what")
	descNotApplied   = metric.Desc("allowlist_refused_total", "What was refused of what came as the CRM's allowlist, by reason.", "reason")
	descFetches      = metric.Desc("allowlist_fetches_total", "Requests to the CRM for parts of the allowlist.")
	descClock        = metric.Desc("clock_state", "1 for the state that the clock is in.", "state")
	descKeys         = metric.Desc("key_provider", "1 for the provider that the keys came from.", "provider")
	descConnected    = metric.Desc("crm_connected", "Whether there is a connection to the broker.")
	descReconnects   = metric.Desc("crm_reconnects_total", "Connections made after the first one.")
	descDropped      = metric.Desc("crm_messages_dropped_total", "Messages from the broker that there was no room for.")
	descRefused      = metric.Desc("crm_messages_refused_total", "Messages from the broker that no part of the controller takes.")
	descBadReceipts  = metric.Desc("crm_receipts_bad_total", "Receipts that did not verify.")
	descResent       = metric.Desc("crm_resent_total", "Times that sending went back to the last receipt.")
	descOverdue      = metric.Desc("crm_receipt_overdue", "Whether a receipt stays out though messages are taken.")
	descAsked        = metric.Desc("commands_asked_total", "Nonces that the CRM has asked for.")
	descObeyed       = metric.Desc("commands_obeyed_total", "Commands of the CRM that a door was given.")
	descDisobeyed    = metric.Desc("commands_refused_total", "Commands that were refused, by reason.", "reason")
	descCertificate  = metric.Desc("certificate_ends_timestamp_seconds", "When the certificate of the connection to the CRM ends.")
	descLocked       = metric.Desc("door_locked", "Whether the strike is locked.", "door")
	descFree         = metric.Desc("door_free", "Whether the door stands unlocked for everybody by its schedule.", "door")
	descDisabled     = metric.Desc("door_disabled", "Whether nobody passes for the time being.", "door")
	descThreat       = metric.Desc("threat", "Level of threat that was ordered; 0: none.", "door")
	descPeople       = metric.Desc("area_people", "People in the area, as far as the records tell.", "area")
	descFaults       = metric.Desc("door_faults", "Parts of the door that are broken.", "door")
	descReader       = metric.Desc("reader_faulty", "Whether the reader is broken.", "door", "reader")
	descIll          = metric.Desc("reader_ill", "Whether something is likely wrong with the reader's wires, though it reads; and what.", "door", "reader", "likely")
	descBursts       = metric.Desc("reader_keys_total", "Keypad bursts since the start that nobody was asked for.", "door", "reader")
	descFrames       = metric.Desc("reader_frames_total", "Frames that the reader delivered since the start, refused ones too.", "door", "reader")
	descNotRead      = metric.Desc("reader_refused_total", "Frames of the reader that were refused since the start, by reason.", "door", "reader", "reason")
	descGhosts       = metric.Desc("reader_ghost_bits_total", "Bits on the reader's wires that belong to no frame.", "door", "reader")
	descForeign      = metric.Desc("reader_foreign_total", "Frames whose timing was not the reader's: something else may be sending.", "door", "reader")
	descLastRead     = metric.Desc("reader_last_read_timestamp_seconds", "When the reader last delivered a frame that was not refused.", "door", "reader")
	descSpacing      = metric.Desc("reader_bit_spacing_seconds", "Time between the bits of a frame.", "door", "reader")
	descScanner      = metric.Desc("scanner_faulty", "Whether the scanner of fingers or eyes is broken.", "door", "scanner", "factor")
	descOutcomes     = metric.Desc("factor_outcomes_total", "Factors that people gave since the start, by how they came out.", "door", "reader", "factor", "outcome")
	descLockedOut    = metric.Desc("locked_out", "People and readers that are locked out after too many failures.", "whom")
	descMisfits      = metric.Desc("door_rules_unfit", "Rules that let nobody through or only after another factor, and sets of factors by which something that is not authenticated opens alone; gatehouse status names them.")
	descDecisions    = metric.Desc("decisions_total", "Decisions since the start.", "door", "decision")
	descAlarms       = metric.Desc("door_alarms_total", "Alarms since the start.", "door")
)

// collect gives the controller's state to Prometheus.
func (c *controller) collect(v metrics.Values) {
	if head, err := c.records.Head(context.Background()); err == nil {
		v.Gauge(descRecords, float64(head.Size))
	}
	whole := c.records.Verification()
	v.Gauge(descVerified, float64(whole.Done))
	v.Gauge(descToVerify, float64(whole.Total))
	v.Is(descDamaged, whole.Fault != "")
	v.Gauge(descAcknowledged, float64(c.records.Acknowledged()))
	now, state := c.clock.Now()
	v.Gauge(descClock, 1, string(state))
	v.Gauge(descKeys, 1, c.cfg.Keys.Provider)
	policy := c.policy.Status(now)
	v.Gauge(descPolicy, float64(policy.Version))
	v.Gauge(descPolicyAge, float64(policy.AgeSeconds))
	v.Gauge(descCredentials, float64(policy.Credentials))
	if areas, err := c.areas(context.Background()); err == nil {
		for _, a := range areas {
			if !a.Damaged {
				v.Gauge(descPeople, float64(a.People), a.Name)
			}
		}
	}
	for _, d := range c.doors {
		s := d.Status()
		v.Is(descLocked, s.Locked, s.Door)
		v.Is(descFree, s.Free, s.Door)
		v.Is(descDisabled, s.Disabled != "", s.Door)
		v.Gauge(descThreat, float64(s.Threat), s.Door)
		v.Gauge(descFaults, float64(len(s.Faults)), s.Door)
		v.Gauge(descPending, float64(s.Counts.Pending), s.Door)
		v.Counter(descDecisions, s.Counts.Granted, s.Door, "granted")
		v.Counter(descDecisions, s.Counts.Denied, s.Door, "denied")
		v.Counter(descAlarms, s.Counts.Alarms, s.Door)
		for _, r := range s.Readers {
			collectReader(v, s.Door, r)
		}
		for _, r := range s.Scanners {
			v.Is(descScanner, r.Fault != "", s.Door, r.Name, r.Factor)
		}
		for _, o := range s.Outcomes {
			v.Counter(descOutcomes, o.Count, s.Door, o.Reader, o.Factor, o.Outcome)
		}
	}
	if out, err := c.lockedOut(context.Background()); err == nil {
		v.Gauge(descLockedOut, float64(len(out.People)), "person")
		v.Gauge(descLockedOut, float64(len(out.Readers)), "reader")
	}
	v.Gauge(descMisfits, float64(len(c.misfits())))
	c.enrolled.collect(v)
	if c.link != nil {
		conn, up := c.link.conn.Status(), c.link.uplink.Status()
		v.Is(descConnected, conn.Connected)
		v.Counter(descReconnects, conn.Reconnects)
		v.Counter(descDropped, conn.Dropped)
		v.Counter(descRefused, c.link.refused.Load())
		v.Counter(descBadReceipts, up.Bad)
		v.Counter(descResent, up.Resent)
		v.Is(descOverdue, !up.Overdue.IsZero())
		collectOrders(v, c.link.orders.Status())
		if cert, err := pki.ReadClient(c.cfg.Data); err == nil {
			v.Gauge(descCertificate, float64(cert.NotAfter.Unix()))
		}
		if c.link.policy != nil {
			collectPolicy(v, c.link.policy.Status())
		}
	}
}

func collectOrders(v metrics.Values, s receiver.Status) {
	v.Counter(descAsked, s.Asked)
	v.Counter(descObeyed, s.Obeyed)
	for _, why := range receiver.Refusals() {
		v.Counter(descDisobeyed, s.Refused[why], string(why))
	}
}

func collectPolicy(v metrics.Values, s follower.Status) {
	v.Gauge(descHeard, float64(s.Version))
	v.Gauge(descMissing, float64(s.Missing))
	v.Counter(descApplied, s.Snapshots, "snapshot")
	v.Counter(descApplied, s.Deltas, "delta")
	for _, why := range follower.Refusals() {
		v.Counter(descNotApplied, s.Refused[why], string(why))
	}
	v.Counter(descFetches, s.Fetches)
}

func collectReader(v metrics.Values, name string, r door.ReaderStatus) {
	v.Is(descReader, r.Fault != "", name, r.Name)
	v.Is(descIll, r.Likely != "", name, r.Name, r.Likely)
	v.Counter(descBursts, r.Keys, name, r.Name)
	h := r.Health
	if h == nil {
		return
	}
	v.Counter(descFrames, h.Frames, name, r.Name)
	for reason, n := range h.Refused {
		v.Counter(descNotRead, n, name, r.Name, reason)
	}
	v.Counter(descGhosts, h.Ghosts, name, r.Name)
	v.Counter(descForeign, h.Foreign, name, r.Name)
	if !h.Last.IsZero() {
		v.Gauge(descLastRead, float64(h.Last.UnixMilli())/1000, name, r.Name)
	}
	counts := make(map[float64]uint64, len(h.Spacing))
	for _, b := range h.Spacing {
		bound := b.Below.Seconds()
		if b.Below == math.MaxInt64 {
			bound = math.Inf(1)
		}
		counts[bound] = b.Count
	}
	v.Histogram(descSpacing, counts, name, r.Name)
}
