package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
)

const (
	logPage     = 500                    // records read at once
	followEvery = 250 * time.Millisecond // how often --follow looks for new records
)

// logFlags are the flags that all log commands have in common.
type logFlags struct {
	data       string
	controller string
	zone       string
}

func newLogCmd() *cobra.Command {
	var f logFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Look at the visitor logs of all controllers, verify and export them",
		Long: "Look at the visitor logs of all controllers, verify and export them.\n\n" +
			"Without a command: one line for each controller, and the open alarms. All of\n" +
			"them only read, and may be used while the CRM runs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(s *logSession) error { return s.summary(cmd.Context(), cmd.OutOrStdout(), asJSON) })
		},
	}
	p := cmd.PersistentFlags()
	p.StringVar(&f.data, "data", defaultData, "the CRM's `folder`")
	p.StringVar(&f.controller, "controller", "", "only this `controller`")
	p.StringVar(&f.zone, "timezone", "", "show times in this `zone`, such as Europe/Amsterdam (default: the site's)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.AddCommand(newLogListCmd(&f), newLogShowCmd(&f), newLogVerifyCmd(&f), newLogExportCmd(&f))
	return cmd
}

// logSession is what a log command works with.
type logSession struct {
	store      *central.Store
	cosigner   *keys.CosignerKey
	zone       *time.Location
	controller string
}

// with opens the store for a command.
func (f *logFlags) with(ctx context.Context, run func(*logSession) error) (err error) {
	site, err := pki.ReadSite(f.data)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no CRM: run gatehouse-crm pki init first", f.data)
	}
	if err != nil {
		return err
	}
	s := &logSession{cosigner: site.Cosigner, controller: f.controller}
	name := f.zone
	if name == "" {
		name = site.Timezone
	}
	if s.zone, err = time.LoadLocation(name); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	path := filepath.Join(f.data, "central.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no log yet: no controller was approved here")
	}
	s.store, err = central.OpenReader(ctx, path, central.Options{ParseKey: recordKey})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	if f.controller != "" {
		all, err := s.store.Controllers(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(c central.Controller) bool { return c.Name == f.controller }) {
			return fmt.Errorf("--controller %q: there is none of that name", f.controller)
		}
	}
	return run(s)
}

// recordKey makes the verifier of a registered key.
func recordKey(jwk []byte) (central.Key, error) {
	k, err := keys.ParseJWK(jwk)
	if err != nil {
		return nil, err
	}
	return keys.NewVerifier(k, keys.TypeRecord)
}

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
	controllers, err := s.store.Controllers(ctx)
	if err != nil {
		return nil, err
	}
	epochs, err := s.store.Epochs(ctx, s.controller)
	if err != nil {
		return nil, err
	}
	alarms, err := s.store.Alarms(ctx, false)
	if err != nil {
		return nil, err
	}
	early, err := s.store.EarlyRecords(ctx, s.controller)
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
		newest, err := s.store.Records(ctx, central.Filter{Controller: c.Name, Newest: true, Limit: 1})
		if err != nil {
			return nil, err
		}
		for _, r := range newest {
			if row := logRow(r); !row.Damaged {
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
		return t.In(s.zone).Format("2006-01-02 15:04:05")
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
		a.Raised.In(s.zone).Format(time.DateTime), times, logview.Clean(a.Detail))
	return err
}

// logRow is a stored record as it is shown.
func logRow(r central.Record) logview.Row {
	row := logview.Row{Controller: r.Controller, Epoch: r.Epoch}
	row.Seq, row.Leaf, row.JWS = r.Sequence, r.Leaf, r.JWS
	payload, err := visitorlog.Payload(r.JWS)
	if err == nil {
		row.Record, err = visitorlog.ParseRecord(payload)
	}
	switch {
	case r.Checked == central.Bad:
		row.Damaged, row.Note = true, r.Fault
	case err != nil:
		row.Damaged, row.Note = true, err.Error()
	case r.Checked == central.Unchecked:
		row.Note = "not yet checked"
	}
	return row
}

func newLogListCmd(f *logFlags) *cobra.Command {
	var (
		flags          logview.Flags
		asJSON, follow bool
		last           int
		epoch          string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List records in the order in which they arrived",
		Long: "List records in the order in which they arrived, which for each controller is the\n" +
			"order in which it wrote them. Records found bad are always listed, as damaged.\n" +
			"Records marked early were sent ahead of a backlog, and take their place in the\n" +
			"log when it has arrived.",
		Example: "  gatehouse-crm log list --since 8h --decision denied\n" +
			"  gatehouse-crm log list --controller north-1 --follow --last 20",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 0 {
				return fmt.Errorf("--last %d: a number from 1 on", last)
			}
			return f.with(cmd.Context(), func(s *logSession) error {
				filter, err := flags.Filter(time.Now(), s.zone)
				if err != nil {
					return err
				}
				l := &lister{logSession: s, filter: filter, epoch: epoch,
					print: logview.NewPrinter(cmd.OutOrStdout(), logview.Options{JSON: asJSON, Zone: s.zone, Controllers: true})}
				alarms := func() error { return s.alarmsTo(cmd.Context(), cmd.ErrOrStderr()) }
				if follow { // there is no end to show them at
					if err := alarms(); err != nil {
						return err
					}
					return l.list(cmd.Context(), last, follow)
				}
				return errors.Join(l.list(cmd.Context(), last, follow), alarms())
			})
		},
	}
	flags.Register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new records as they come, until interrupted")
	cmd.Flags().IntVarP(&last, "last", "n", 0, "look only at the last `N` records (0: at all)")
	cmd.Flags().StringVar(&epoch, "epoch", "", "only this `epoch`")
	return cmd
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

// lister lists records.
type lister struct {
	*logSession
	filter logview.Filter
	epoch  string
	print  *logview.Printer
	bad    int
}

func (l *lister) list(ctx context.Context, last int, follow bool) error {
	after, err := l.begin(ctx, last)
	if err != nil {
		return err
	}
	for {
		page, err := l.store.Records(ctx, central.Filter{
			Controller: l.controller, Epoch: l.epoch, After: after, Limit: logPage,
			Checked: []central.Checked{central.Good, central.Bad, central.Unchecked},
		})
		if err != nil {
			return l.ended(ctx, err)
		}
		waiting := false
		for _, r := range page {
			// Whoever follows gets each record once, in order: the check is
			// only a moment behind.
			if waiting = follow && r.Checked == central.Unchecked; waiting {
				break
			}
			after = r.Position()
			if err := l.row(r); err != nil {
				return err
			}
		}
		if len(page) == logPage && !waiting {
			continue
		}
		if !follow {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
	if err := l.early(ctx); err != nil {
		return err
	}
	if l.bad > 0 {
		return fmt.Errorf("%d records are bad: see gatehouse-crm log verify", l.bad)
	}
	return nil
}

// begin is the position before the last records, or before all.
func (l *lister) begin(ctx context.Context, last int) (central.Position, error) {
	if last == 0 {
		return central.Position{}, nil
	}
	newest, err := l.store.Records(ctx, central.Filter{
		Controller: l.controller, Epoch: l.epoch, Newest: true, Limit: last + 1,
		Checked: []central.Checked{central.Good, central.Bad},
	})
	if err != nil || len(newest) <= last {
		return central.Position{}, err
	}
	return newest[last].Position(), nil
}

// ended makes no error of an interrupt.
func (l *lister) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// row prints a record that the filter chooses; a bad one always, because
// nobody can say what it was.
func (l *lister) row(r central.Record) error {
	row := logRow(r)
	if row.Damaged {
		l.bad++
	} else if !l.filter.Match(&row.Record) {
		return nil
	}
	return l.print.Print(row)
}

func (l *lister) early(ctx context.Context) error {
	list, err := l.store.EarlyRecords(ctx, l.controller)
	if err != nil {
		return err
	}
	for _, r := range list {
		row := logRow(r)
		if row.Damaged || (l.epoch != "" && r.Epoch != l.epoch) || !l.filter.Match(&row.Record) {
			continue
		}
		row.Note = "early"
		if err := l.print.Print(row); err != nil {
			return err
		}
	}
	return nil
}

// theEpoch is the one that the flags name: of the one controller, the newest
// unless another is asked for.
func (s *logSession) theEpoch(ctx context.Context, controller, epoch string) (central.Epoch, error) {
	if controller == "" {
		return central.Epoch{}, errors.New("say which controller: --controller NAME")
	}
	list, err := s.store.Epochs(ctx, controller)
	if err != nil {
		return central.Epoch{}, err
	}
	if len(list) == 0 {
		return central.Epoch{}, fmt.Errorf("%q has sent nothing yet", controller)
	}
	if epoch == "" {
		return list[len(list)-1], nil
	}
	known := make([]string, len(list))
	for i, e := range list {
		if e.Epoch == epoch {
			return e, nil
		}
		known[i] = e.Epoch
	}
	return central.Epoch{}, fmt.Errorf("--epoch %q: %q has %s", epoch, controller, strings.Join(known, ", "))
}

func newLogShowCmd(f *logFlags) *cobra.Command {
	var asJSON bool
	var epoch string
	cmd := &cobra.Command{
		Use:     "show CONTROLLER SEQ",
		Short:   "Show one record with all that it says, and whether it can be trusted",
		Example: "  gatehouse-crm log show north-1 17",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := strconv.ParseUint(args[1], 10, 63)
			if err != nil {
				return fmt.Errorf("%q is not a sequence: a number from 0 on", args[1])
			}
			return f.with(cmd.Context(), func(s *logSession) error {
				e, err := s.theEpoch(cmd.Context(), args[0], epoch)
				if err != nil {
					return err
				}
				return s.show(cmd.Context(), cmd.OutOrStdout(), e, seq, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().StringVar(&epoch, "epoch", "", "of this `epoch` (default: the newest)")
	return cmd
}

func (s *logSession) show(ctx context.Context, w io.Writer, e central.Epoch, seq uint64, asJSON bool) error {
	st, err := s.store.Standing(ctx, e, seq, s.cosigner.Note())
	if err != nil {
		return err
	}
	k, err := keys.ParseJWK(e.JWK)
	if err != nil {
		return err
	}
	row := logRow(st.Record)
	check := func(err error, what string) logview.Check {
		if err != nil {
			return logview.Check{What: what, Why: err.Error()}
		}
		return logview.Check{OK: true, What: what}
	}
	checks := []logview.Check{
		check(st.Signature, "signed by the controller's key "+k.KeyID),
		check(st.Link, "linked to the record before it"),
		check(st.Inclusion, fmt.Sprintf("in its place in the tree of %d records", st.Size)),
		check(st.Cosigned, "countersigned by "+s.cosigner.Name()),
	}
	print := func() error { return logview.Show(w, row, checks, s.zone) }
	if asJSON {
		print = func() error { return logview.ShowJSON(w, row, checks) }
	}
	if err := print(); err != nil {
		return err
	}
	if row.Damaged || slices.ContainsFunc(checks, func(c logview.Check) bool { return !c.OK }) {
		return fmt.Errorf("record %d of %s is not verified", seq, e.Controller)
	}
	return nil
}

func newLogVerifyCmd(f *logFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Recompute all logs and check every signature and link",
		Long: "Recompute every leaf, node and root of the logs of all controllers, and check the\n" +
			"signature of every record, its link to the one before it, what stands in the\n" +
			"columns for search, and every countersigned checkpoint. Exit status 0 and\n" +
			"\"ok: N records of M controllers …\" if all is well; else 1, naming the controller,\n" +
			"the epoch, the first bad record and what is wrong with it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(s *logSession) error { return s.verify(cmd, asJSON) })
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the outcome as one JSON object")
	return cmd
}

func (s *logSession) verifyOptions(cmd *cobra.Command) (o central.VerifyOptions, done func()) {
	var bar *cli.Progress
	var shown int64
	o = central.VerifyOptions{Cosigner: s.cosigner.Note(), Progress: func(done, total int64) {
		if bar == nil {
			bar = cli.NewProgress(cmd.ErrOrStderr(), "verifying", total)
		}
		bar.Add(done - shown)
		shown = done
	}}
	return o, func() {
		if bar != nil {
			bar.Done()
		}
	}
}

type jsonLogFault struct {
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`
	First      int64  `json:"first"`
	Last       int64  `json:"last"`
	What       string `json:"what"`
}

func (s *logSession) verify(cmd *cobra.Command, asJSON bool) error {
	o, done := s.verifyOptions(cmd)
	v, err := s.store.Verify(cmd.Context(), s.controller, o)
	done()
	var fault *central.Fault
	if err != nil && !errors.As(err, &fault) {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		var f *jsonLogFault
		if fault != nil {
			f = &jsonLogFault{fault.Controller, fault.Epoch, fault.First, fault.Last, fault.What}
		}
		if err := cli.PrintJSON(out, struct {
			OK          bool          `json:"ok"`
			Controllers int           `json:"controllers"`
			Epochs      int           `json:"epochs"`
			Records     uint64        `json:"records"`
			Fault       *jsonLogFault `json:"fault,omitempty"`
		}{fault == nil, v.Controllers, v.Epochs, v.Records, f}); err != nil {
			return err
		}
	case fault != nil:
		fmt.Fprintf(cmd.ErrOrStderr(), "BAD: %s\n", logview.Clean(fault.Error()))
	default:
		if _, err := fmt.Fprintf(out, "ok: %d records of %d controllers in %d epochs; countersigned by %s\n",
			v.Records, v.Controllers, v.Epochs, s.cosigner.Name()); err != nil {
			return err
		}
	}
	for _, e := range v.Uncosigned {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s, epoch %s: records %d to %d are not countersigned yet; the CRM does so when it starts\n",
			e.Controller, e.Epoch, e.CosignedSize(), e.Size-1)
	}
	if fault != nil {
		return cli.ErrReported
	}
	return nil
}

func newLogExportCmd(f *logFlags) *cobra.Command {
	var out, epoch string
	cmd := &cobra.Command{
		Use:   "export --controller NAME --out FILE",
		Short: "Verify a controller's log and write it to a file that others can verify",
		Long: "Verify one epoch of a controller's log and write what is countersigned of it to a\n" +
			"new file, one JSON object a line: first the controller, epoch and public keys,\n" +
			"then each record as its signed JWS, last the checkpoint with both signatures.\n" +
			"The file holds the records in clear.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(s *logSession) error {
				e, err := s.theEpoch(cmd.Context(), s.controller, epoch)
				if err != nil {
					return err
				}
				if _, err := os.Lstat(out); err == nil {
					return fmt.Errorf("%s is there already", out)
				}
				o, done := s.verifyOptions(cmd)
				err = s.store.VerifyEpoch(cmd.Context(), e, o)
				done()
				if err != nil {
					return fmt.Errorf("not exported, the log does not verify: %w", err)
				}
				if err := s.export(cmd.Context(), out, e); err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records of %s, epoch %s\n", out, e.CosignedSize(), e.Controller, e.Epoch)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&epoch, "epoch", "", "of this `epoch` (default: the newest)")
	cmd.Flags().StringVarP(&out, "out", "o", "", "`file` to write; it must not be there yet")
	if err := cmd.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag is defined one line above
	}
	return cmd
}

// export writes the countersigned records of an epoch that was verified.
func (s *logSession) export(ctx context.Context, out string, e central.Epoch) error {
	jwk, err := keys.ParseJWK(e.JWK)
	if err != nil {
		return err
	}
	vkey, err := keys.VKey(visitorlog.Origin(e.Controller, e.Epoch), jwk)
	if err != nil {
		return err
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk}})
	if err != nil {
		return err
	}
	size := e.CosignedSize()
	entries := func(yield func(visitorlog.Entry, error) bool) {
		var after central.Position
		for next := uint64(0); next < size; {
			page, err := s.store.Records(ctx, central.Filter{
				Controller: e.Controller, Epoch: e.Epoch, After: after, Limit: int(min(logPage, size-next)),
				Checked: []central.Checked{central.Good, central.Bad, central.Unchecked},
			})
			if err == nil && len(page) == 0 {
				err = fmt.Errorf("record %d is missing", next)
			}
			if err != nil {
				yield(visitorlog.Entry{}, err)
				return
			}
			for _, r := range page {
				if !yield(visitorlog.Entry{Seq: r.Sequence, Leaf: r.Leaf, JWS: r.JWS}, nil) {
					return
				}
				next, after = r.Sequence+1, r.Position()
			}
		}
	}
	return logview.Export(out, logview.Header{
		Controller: e.Controller, Epoch: e.Epoch, Size: size, Keys: jwks, VKeys: []string{vkey, s.cosigner.VKey()},
	}, entries, func() (string, error) { return e.Cosigned, nil })
}
