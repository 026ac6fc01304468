package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
)

// logSummary is one controller's line of the summary.
type logSummary struct {
	Controller string         `json:"controller"`
	State      string         `json:"state"` // online, offline, revoked
	Epochs     int            `json:"epochs"`
	Epoch      string         `json:"epoch,omitempty"` // the newest
	Records    uint64         `json:"records"`         // of all epochs
	Size       uint64         `json:"size"`            // of the newest epoch
	Reported   uint64         `json:"reported_size"`   // what the controller last said it has
	Unchecked  uint64         `json:"unchecked"`
	Early      int            `json:"early"`
	LastRecord *time.Time     `json:"last_record,omitempty"`
	Cosigned   uint64         `json:"countersigned"` // records of the newest epoch
	Seen       *time.Time     `json:"seen,omitempty"`
	Alarms     []logAlarmLine `json:"alarms"`
}

type logAlarmLine struct {
	ID     int64     `json:"id"`
	Kind   string    `json:"kind"`
	Epoch  string    `json:"epoch,omitempty"`
	Seq    *uint64   `json:"seq,omitempty"`
	Detail string    `json:"detail"`
	Raised time.Time `json:"raised"`
	Last   time.Time `json:"last"`
	Count  int       `json:"count"`
}

func (s *logSession) summaries(ctx context.Context) ([]logSummary, error) {
	controllers, err := s.Store.Controllers(ctx)
	if err != nil {
		return nil, err
	}
	epochs, err := s.Store.Epochs(ctx, s.controller)
	if err != nil {
		return nil, err
	}
	alarms, err := s.Store.Alarms(ctx, false)
	if err != nil {
		return nil, err
	}
	early, err := s.Store.EarlyRecords(ctx, s.controller)
	if err != nil {
		return nil, err
	}
	var list []logSummary
	for _, c := range controllers {
		if s.controller != "" && c.Name != s.controller {
			continue
		}
		sum := logSummary{Controller: c.Name, State: "offline", Alarms: []logAlarmLine{}}
		switch {
		case !c.Revoked.IsZero():
			sum.State = "revoked"
		case c.Online:
			sum.State = "online"
		}
		if !c.Seen.IsZero() {
			sum.Seen = &c.Seen
		}
		for _, e := range epochs {
			if e.Controller != c.Name {
				continue
			}
			sum.Epochs++
			sum.Records += e.Size
			sum.Unchecked += e.Size - e.Checked
			sum.Epoch, sum.Size, sum.Cosigned = e.Epoch, e.Size, e.CosignedSize()
			if c.ReportedEpoch == e.Epoch {
				sum.Reported = max(c.ReportedSize, e.Size)
			}
		}
		newest, err := s.Store.Records(ctx, central.Filter{Controller: c.Name, Newest: true, Limit: 1})
		if err != nil {
			return nil, err
		}
		for _, r := range newest {
			if row := logview.CRMRow(r); !row.Damaged {
				sum.LastRecord = &row.Record.Time
			}
		}
		for _, r := range early {
			if r.Controller == c.Name {
				sum.Early++
			}
		}
		for _, a := range alarms {
			if a.Controller == c.Name {
				sum.Alarms = append(sum.Alarms, logAlarmLine{a.ID, string(a.Kind), a.Epoch, a.Sequence, a.Detail, a.Raised, a.Last, a.Count})
			}
		}
		list = append(list, sum)
	}
	return list, nil
}

// summary prints a line for each controller, then the alarms.
func (s *logSession) summary(ctx context.Context, w io.Writer, asJSON bool) error {
	list, err := s.summaries(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		for _, sum := range list {
			if err := cli.PrintJSON(w, sum); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "No controller is approved yet.")
		return err
	}
	when := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return t.In(s.zone).Format(time.DateTime)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CONTROLLER\tSTATE\tEPOCHS\tRECORDS\tWAITING\tLAST RECORD\tSEEN\tALARMS")
	for _, sum := range list {
		kinds := make([]string, len(sum.Alarms))
		for i, a := range sum.Alarms {
			kinds[i] = a.Kind
		}
		slices.Sort(kinds)
		names := strings.Join(slices.Compact(kinds), ",")
		if names == "" {
			names = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", sum.Controller, sum.State, sum.Epochs, sum.Records,
			max(sum.Reported, sum.Size)-sum.Size, when(sum.LastRecord), when(sum.Seen), names)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, sum := range list {
		for _, a := range sum.Alarms {
			if err := s.printAlarm(w, sum.Controller, a); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *logSession) printAlarm(w io.Writer, controller string, a logAlarmLine) error {
	times := ""
	if a.Count > 1 {
		times = fmt.Sprintf(", %d times, last %s", a.Count, a.Last.In(s.zone).Format(time.DateTime))
	}
	_, err := fmt.Fprintf(w, "alarm %d, %s, %s since %s%s: %s\n", a.ID, controller, strings.ToUpper(strings.ReplaceAll(a.Kind, "_", " ")),
		a.Raised.In(s.zone).Format(time.DateTime), times, spelling.Printable(a.Detail))
	return err
}

// alarmsTo says which alarms are open, beside a list.
func (s *logSession) alarmsTo(ctx context.Context, w io.Writer) error {
	list, err := s.summaries(ctx)
	if err != nil {
		return err
	}
	for _, sum := range list {
		for _, a := range sum.Alarms {
			if err := s.printAlarm(w, sum.Controller, a); err != nil {
				return err
			}
		}
	}
	return nil
}
