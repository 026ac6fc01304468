package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	logPage     = 256                    // records read at once
	followEvery = 250 * time.Millisecond // how often --follow looks for new records
)

// logFiles are the flags that all log commands have in common.
type logFiles struct {
	data     string
	provider string
	database string
	zone     string
}

func newLogCmd() *cobra.Command {
	var f logFiles
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Look at the visitor log of this controller, verify and export it",
		Long: "Look at the visitor log of this controller, verify and export it.\n\n" +
			"The commands only read, and may be used while the daemon runs. They need the\n" +
			"controller's keys, because the records are sealed at rest.",
		Args: cobra.NoArgs,
	}
	p := cmd.PersistentFlags()
	p.StringVar(&f.data, "data", "/var/lib/gatehouse", "`folder` of the controller")
	p.StringVar(&f.provider, "keys", "file", "where the keys are: file or credential")
	p.StringVar(&f.database, "database", "records.db", "`file` in the folder: a database that was set aside is named records-<epoch>.db")
	p.StringVar(&f.zone, "timezone", "", "show times in this `zone`, such as Europe/Amsterdam (default: the site's, else this machine's)")
	cmd.AddCommand(newLogListCmd(&f), newLogShowCmd(&f), newLogVerifyCmd(&f), newLogExportCmd(&f))
	return cmd
}

// logSession is what a log command works with.
type logSession struct {
	path     string
	keys     *keys.ControllerKeys
	verifier *keys.Verifier
	receipts *keys.Verifier // nil: no CRM is pinned
	zone     *time.Location
}

func (f *logFiles) open() (*logSession, error) {
	if f.database == "" || filepath.Base(f.database) != f.database {
		return nil, fmt.Errorf("--database %q: the name of a file in %s", f.database, f.data)
	}
	s := &logSession{path: filepath.Join(f.data, f.database), zone: time.Local}
	if _, err := os.Stat(s.path); err != nil {
		return nil, fmt.Errorf("there is no log: %w", err)
	}
	provider := keys.File(filepath.Join(f.data, "keys"))
	switch f.provider {
	case "file":
	case "credential":
		provider = keys.Credential()
	default:
		return nil, fmt.Errorf("--keys %q: file or credential", f.provider)
	}
	var err error
	if s.keys, err = keys.LoadController(provider); err != nil {
		return nil, err
	}
	if s.verifier, err = s.keys.Log.Verifier(keys.TypeRecord); err != nil {
		return nil, err
	}
	zone := f.zone
	trust, err := pki.ReadTrust(f.data)
	switch {
	case err == nil:
		if s.receipts, err = trust.Cosigner.Receipts(); err != nil {
			return nil, err
		}
		if zone == "" {
			zone = trust.Timezone
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if zone != "" {
		if s.zone, err = time.LoadLocation(zone); err != nil {
			return nil, fmt.Errorf("--timezone: %w", err)
		}
	}
	return s, nil
}

func (s *logSession) reader(ctx context.Context) (*visitorlog.Reader, error) {
	return visitorlog.OpenReader(ctx, s.path, s.keys.Records)
}

func (s *logSession) verifyOptions() visitorlog.VerifyOptions {
	o := visitorlog.VerifyOptions{
		Verifier:     s.verifier,
		NoteVerifier: s.verifier.NoteVerifier,
		Sealer:       s.keys.Records,
	}
	if s.receipts != nil {
		o.Receipts = s.receipts
	}
	return o
}

func row(r *visitorlog.Reader, st visitorlog.Stored) logview.Row {
	row := logview.Row{Entry: st.Entry, Controller: r.Controller(), Epoch: r.Epoch()}
	if st.Fault != nil {
		row.Damaged, row.Note = true, st.Fault.Error()
	}
	return row
}

func newLogListCmd(f *logFiles) *cobra.Command {
	var (
		flags        logview.Flags
		asJSON, tail bool
		last         uint64
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List records, oldest first",
		Example: "  gatehouse log list --since 8h --decision denied\n" +
			"  gatehouse log list --follow --last 20",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.open()
			if err != nil {
				return err
			}
			filter, err := flags.Filter(time.Now(), s.zone)
			if err != nil {
				return err
			}
			p := logview.NewPrinter(cmd.OutOrStdout(), logview.Options{JSON: asJSON, Zone: s.zone})
			return s.list(cmd.Context(), p, filter, last, tail)
		},
	}
	flags.Register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVarP(&tail, "follow", "f", false, "go on with new records as they come, until interrupted")
	cmd.Flags().Uint64VarP(&last, "last", "n", 0, "look only at the last `N` records (0: at all)")
	return cmd
}

// list prints what the filter chooses; damaged records always, because nobody
// can say what they were.
func (s *logSession) list(ctx context.Context, p *logview.Printer, filter logview.Filter, last uint64, follow bool) error {
	r, err := s.reader(ctx)
	if err != nil {
		return err
	}
	defer func() { r.Close() }()
	var next uint64
	if last > 0 {
		size, err := r.Size(ctx)
		if err != nil {
			return err
		}
		next = size - min(size, last)
	}
	damaged := 0
	for {
		page, err := r.Read(ctx, next, logPage)
		if err != nil {
			return err
		}
		for _, st := range page {
			if st.Fault != nil {
				damaged++
			} else if !filter.Match(&st.Record) {
				continue
			}
			if err := p.Print(row(r, st)); err != nil {
				return err
			}
		}
		if n := len(page); n > 0 {
			next = page[n-1].Seq + 1
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
		if r.Moved() {
			// A new epoch began: go on with its first record.
			now, err := s.reader(ctx)
			if err != nil {
				continue // it is being made
			}
			r.Close()
			r, next = now, 0
		}
	}
	if damaged > 0 {
		return fmt.Errorf("%d records are damaged: see gatehouse log verify", damaged)
	}
	return nil
}

func newLogShowCmd(f *logFiles) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show SEQ",
		Short: "Show one record with all that it says, and whether it can be trusted",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil {
				return fmt.Errorf("%q is not a sequence: a number from 0 on", args[0])
			}
			s, err := f.open()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			r, err := s.reader(ctx)
			if err != nil {
				return err
			}
			defer r.Close()
			page, err := r.Read(ctx, seq, 1)
			if err != nil {
				return err
			}
			if len(page) == 0 || page[0].Seq != seq {
				size, err := r.Size(ctx)
				if err != nil {
					return err
				}
				return fmt.Errorf("there is no record %d: the log holds %d, from 0 on", seq, size)
			}
			shown := row(r, page[0])
			var checks []logview.Check
			if !shown.Damaged {
				if checks, err = s.checks(ctx, r, seq); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			if asJSON {
				err = logview.ShowJSON(out, shown, checks)
			} else {
				err = logview.Show(out, shown, checks, s.zone)
			}
			if err != nil {
				return err
			}
			if shown.Damaged {
				return fmt.Errorf("record %d is damaged", seq)
			}
			for _, c := range checks {
				if !c.OK {
					return fmt.Errorf("record %d is not verified", seq)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// checks verifies one record and puts the outcome into words.
func (s *logSession) checks(ctx context.Context, r *visitorlog.Reader, seq uint64) ([]logview.Check, error) {
	st, err := r.Standing(ctx, seq, s.verifier)
	if err != nil {
		return nil, err
	}
	check := func(err error, what string) logview.Check {
		if err != nil {
			return logview.Check{What: what, Why: err.Error()}
		}
		return logview.Check{OK: true, What: what}
	}
	out := []logview.Check{
		check(st.Signature, "signed by this controller's key "+s.verifier.KeyID()),
		check(st.Link, "linked to the record before it"),
		check(st.Inclusion, fmt.Sprintf("in its place in the tree of %d records", st.Size)),
	}
	if st.Receipt != nil {
		err := error(nil)
		if s.receipts != nil {
			_, err = s.receipts.Verify(st.Receipt.JWS)
		}
		out = append(out, check(err, "countersigned by the CRM, "+st.Receipt.Time.In(s.zone).Format("2006-01-02 15:04:05 MST")))
	}
	return out, nil
}

func newLogVerifyCmd(f *logFiles) *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Recompute the whole log and check every signature and link",
		Long: "Recompute every leaf and every node of the log's tree, and check the signature of\n" +
			"every record, its link to the one before it, and every stored checkpoint and\n" +
			"receipt. Exit status 0 and \"ok: N records …\" if all is well; else 1, naming the\n" +
			"first bad record and what is wrong with it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.open()
			if err != nil {
				return err
			}
			paths := []string{s.path}
			aside, err := filepath.Glob(filepath.Join(f.data, "records-*.db"))
			if err != nil {
				return err
			}
			if all {
				paths = append(paths, aside...)
			} else if f.database == "records.db" && len(aside) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "not looked at: %d databases that were set aside; --all verifies them too\n", len(aside))
			}
			bad := false
			for _, path := range paths {
				ok, err := s.verify(cmd, path, asJSON, len(paths) > 1)
				if err != nil {
					return err
				}
				bad = bad || !ok
			}
			if bad {
				return cli.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the outcome as one JSON object a line")
	cmd.Flags().BoolVar(&all, "all", false, "verify the databases that were set aside too")
	return cmd
}

// verify verifies one database and says what came of it.
func (s *logSession) verify(cmd *cobra.Command, path string, asJSON, named bool) (ok bool, err error) {
	v, err := s.verified(cmd, path)
	var fault *visitorlog.Fault
	if err != nil && !errors.As(err, &fault) {
		return false, err
	}
	if asJSON {
		return fault == nil, cli.PrintJSON(cmd.OutOrStdout(), struct {
			File        string     `json:"file"`
			OK          bool       `json:"ok"`
			Controller  string     `json:"controller,omitempty"`
			Epoch       string     `json:"epoch,omitempty"`
			Records     uint64     `json:"records"`
			Root        string     `json:"root,omitempty"`
			Checkpoints int        `json:"checkpoints"`
			Receipts    int        `json:"receipts"`
			Fault       *jsonFault `json:"fault,omitempty"`
		}{filepath.Base(path), fault == nil, v.Controller, v.Head.Epoch, v.Head.Size, v.Head.Root, v.Checkpoints, v.Receipts, newJSONFault(fault)})
	}
	prefix := ""
	if named {
		prefix = filepath.Base(path) + ": "
	}
	if fault != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "%sBAD: %v\n", prefix, fault)
		return false, nil
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%sok: %d records of %s, epoch %s, root %s; %d checkpoints and %d receipts agree\n",
		prefix, v.Head.Size, v.Controller, v.Head.Epoch, v.Head.Root, v.Checkpoints, v.Receipts)
	return true, err
}

// verified verifies a database with a progress bar.
func (s *logSession) verified(cmd *cobra.Command, path string) (visitorlog.Verified, error) {
	ctx := cmd.Context()
	o := s.verifyOptions()
	var bar *cli.Progress
	var shown int64
	o.Progress = func(done, total int64) {
		if bar == nil {
			bar = cli.NewProgress(cmd.ErrOrStderr(), "verifying", total)
		}
		bar.Add(done - shown)
		shown = done
	}
	defer func() {
		if bar != nil {
			bar.Done()
		}
	}()
	return visitorlog.Verify(ctx, path, o)
}

type jsonFault struct {
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	What  string `json:"what"`
}

func newJSONFault(f *visitorlog.Fault) *jsonFault {
	if f == nil {
		return nil
	}
	return &jsonFault{f.First, f.Last, f.What}
}

func newLogExportCmd(f *logFiles) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export --out FILE",
		Short: "Verify the log and write it to a file that others can verify",
		Long: "Verify the log and write it to a new file, one JSON object a line: first the\n" +
			"controller, epoch and public keys, then each record as its signed JWS, last a\n" +
			"signed checkpoint over them all. The file holds the records in clear.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.open()
			if err != nil {
				return err
			}
			if _, err := os.Lstat(out); err == nil {
				return fmt.Errorf("%s is there already", out)
			}
			v, err := s.verified(cmd, s.path)
			if err != nil {
				return fmt.Errorf("not exported, the log does not verify: %w", err)
			}
			if err := s.export(cmd.Context(), out, v); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records of %s, epoch %s\n", out, v.Head.Size, v.Controller, v.Head.Epoch)
			return err
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`file` to write; it must not be there yet")
	if err := cmd.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag is defined one line above
	}
	return cmd
}

// export writes the records that were verified, under a checkpoint of exactly
// those.
func (s *logSession) export(ctx context.Context, out string, v visitorlog.Verified) error {
	origin := visitorlog.Origin(v.Controller, v.Head.Epoch)
	vkey, err := s.verifier.VKey(origin)
	if err != nil {
		return err
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.verifier.JWK()}})
	if err != nil {
		return err
	}
	r, err := s.reader(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	entries := func(yield func(visitorlog.Entry, error) bool) {
		for next := uint64(0); next < v.Head.Size; {
			page, err := r.Read(ctx, next, int(min(logPage, v.Head.Size-next)))
			if err == nil && len(page) == 0 {
				err = fmt.Errorf("record %d is missing", next)
			}
			if err != nil {
				yield(visitorlog.Entry{}, err)
				return
			}
			for _, st := range page {
				if !yield(st.Entry, st.Fault) {
					return
				}
				next = st.Seq + 1
			}
		}
	}
	root, err := tlog.ParseHash(v.Head.Root)
	if err != nil {
		return err
	}
	return logview.Export(out, logview.Header{
		Controller: v.Controller, Epoch: v.Head.Epoch, Size: v.Head.Size, Keys: jwks, VKeys: []string{vkey},
	}, entries, func() (string, error) {
		signer, err := s.keys.Log.NoteSigner(origin)
		if err != nil {
			return "", err
		}
		c := visitorlog.Checkpoint{Origin: origin, Size: v.Head.Size, Root: root}
		signed, err := note.Sign(&note.Note{Text: c.Text()}, signer)
		return string(signed), err
	})
}
