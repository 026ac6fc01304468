package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/spf13/cobra"
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
	cmd.AddCommand(newLogListCmd(&f), newLogShowCmd(&f), newLogVerifyCmd(&f), newLogExportCmd(&f), newLogProofCmd(&f))
	return cmd
}

// logSession is what a log command works with.
type logSession struct {
	logview.CRM
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
	s := &logSession{controller: f.controller}
	s.Cosigner = site.Cosigner
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
	s.Store, err = central.OpenReader(ctx, path, central.Options{ParseKey: recordKey})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Store.Close()) }()
	if f.controller != "" {
		all, err := s.Store.Controllers(ctx)
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

func newLogListCmd(f *logFlags) *cobra.Command {
	var flags logview.ListFlags
	var epoch, visit string
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
			return f.with(cmd.Context(), func(s *logSession) error {
				filter, err := flags.Filter.Filter(time.Now(), s.zone)
				if err != nil {
					return err
				}
				alarms := func() error { return s.alarmsTo(cmd.Context(), cmd.ErrOrStderr()) }
				if flags.Follow { // there is no end to show them at
					if err := alarms(); err != nil {
						return err
					}
					alarms = func() error { return nil }
				}
				p := logview.NewPrinter(cmd.OutOrStdout(), logview.Options{JSON: flags.JSON, Zone: s.zone, Controllers: true})
				if visit != "" {
					_, err := logview.List(cmd.Context(), p, filter, s.Visit(visit), flags.Follow)
					return errors.Join(err, alarms())
				}
				return errors.Join(s.list(cmd.Context(), p, filter, epoch, &flags), alarms())
			})
		},
	}
	flags.Register(cmd)
	cmd.Flags().StringVar(&epoch, "epoch", "", "only this `epoch`")
	cmd.Flags().StringVar(&visit, "visit", "", "only this `visit`: its decisions, and what became of them")
	cmd.MarkFlagsMutuallyExclusive("visit", "epoch")
	cmd.MarkFlagsMutuallyExclusive("visit", "last")
	return cmd
}

func (s *logSession) list(ctx context.Context, p *logview.Printer, filter logview.Filter, epoch string, flags *logview.ListFlags) error {
	pages, err := s.Pages(ctx, s.controller, epoch, flags.Last, flags.Follow)
	if err != nil {
		return err
	}
	bad, err := logview.List(ctx, p, filter, pages, flags.Follow)
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d records are bad: see gatehouse-crm log verify", bad)
	}
	return err
}

func newLogShowCmd(f *logFlags) *cobra.Command {
	var asJSON bool
	cmd := recordCmd(f, func(cmd *cobra.Command, s *logSession, e central.Epoch, seq uint64) error {
		row, checks, err := s.Show(cmd.Context(), e, seq)
		if err != nil {
			return err
		}
		good, err := logview.Present(cmd.OutOrStdout(), row, checks, s.zone, asJSON)
		if err == nil && !good {
			err = fmt.Errorf("record %d of %s is not verified", seq, e.Controller)
		}
		return err
	})
	cmd.Use = "show CONTROLLER SEQ"
	cmd.Short = "Show one record with all that it says, and whether it can be trusted"
	cmd.Example = "  gatehouse-crm log show north-1 17"
	logview.JSONFlag(cmd, &asJSON)
	return cmd
}

// recordCmd is a command about one record of a controller.
func recordCmd(f *logFlags, run func(*cobra.Command, *logSession, central.Epoch, uint64) error) *cobra.Command {
	var epoch string
	cmd := &cobra.Command{
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := logview.ParseSequence(args[1])
			if err != nil {
				return err
			}
			return f.with(cmd.Context(), func(s *logSession) error {
				e, err := s.Epoch(cmd.Context(), args[0], epoch)
				if err != nil {
					return err
				}
				return run(cmd, s, e, seq)
			})
		},
	}
	cmd.Flags().StringVar(&epoch, "epoch", "", "of this `epoch` (default: the newest)")
	return cmd
}

func newLogProofCmd(f *logFlags) *cobra.Command {
	var out string
	cmd := recordCmd(f, func(cmd *cobra.Command, s *logSession, e central.Epoch, seq uint64) error {
		p, err := s.Store.Prove(cmd.Context(), e, seq)
		if errors.Is(err, visitorlog.ErrNotCountersigned) {
			return fmt.Errorf("%w; the CRM countersigns within moments of storing, and when it starts", err)
		}
		if err != nil {
			return err
		}
		return logview.WriteProof(cmd.OutOrStdout(), out, p)
	})
	cmd.Use = "proof CONTROLLER SEQ"
	cmd.Short = "Prove to others that one record is in a controller's log"
	cmd.Long = "Write a proof that one record is in a controller's log" + logview.ProofHelp
	cmd.Example = "  gatehouse-crm log proof north-1 17 --out 17.proof.json"
	logview.OutFlag(cmd, &out)
	return cmd
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
			"the epoch, the first bad record and what is wrong with it. Status 1 and\n" +
			"\"unfinished\" if records have no countersignature, though nothing is wrong with\n" +
			"them: the CRM was stopped between storing them and that, and makes it up when it\n" +
			"starts. No export or proof holds them before.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(s *logSession) error { return s.verify(cmd, asJSON) })
		},
	}
	logview.JSONFlag(cmd, &asJSON)
	return cmd
}

type jsonLogFault struct {
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`
	First      int64  `json:"first"`
	Last       int64  `json:"last"`
	What       string `json:"what"`
}

// jsonLogTail are records that have no countersignature yet.
type jsonLogTail struct {
	Controller string `json:"controller"`
	Epoch      string `json:"epoch"`
	First      uint64 `json:"first"`
	Last       uint64 `json:"last"`
}

func (s *logSession) verify(cmd *cobra.Command, asJSON bool) error {
	progress, end := cli.Report(cmd.ErrOrStderr(), "verifying")
	v, err := s.Store.Verify(cmd.Context(), s.controller, s.Options(progress))
	end()
	var fault *central.Fault
	if err != nil && !errors.As(err, &fault) {
		return err
	}
	var tails []jsonLogTail
	countersigned := v.Records
	for _, e := range v.Uncosigned {
		tails = append(tails, jsonLogTail{e.Controller, e.Epoch, e.CosignedSize(), e.Size - 1})
		countersigned -= e.Size - e.CosignedSize()
	}
	good := fault == nil && len(tails) == 0
	switch {
	case asJSON:
		var f *jsonLogFault
		if fault != nil {
			f = &jsonLogFault{fault.Controller, fault.Epoch, fault.First, fault.Last, fault.What}
		}
		err = cli.PrintJSON(cmd.OutOrStdout(), struct {
			OK            bool          `json:"ok"`
			Controllers   int           `json:"controllers"`
			Epochs        int           `json:"epochs"`
			Records       uint64        `json:"records"`
			Countersigned uint64        `json:"countersigned"`
			Uncosigned    []jsonLogTail `json:"not_countersigned,omitempty"`
			Fault         *jsonLogFault `json:"fault,omitempty"`
		}{good, v.Controllers, v.Epochs, v.Records, countersigned, tails, f})
	case fault != nil:
		fmt.Fprintf(cmd.ErrOrStderr(), "BAD: %s\n", spelling.Printable(fault.Error()))
	default:
		verdict := "ok"
		if !good {
			verdict = "unfinished"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records of %d controllers in %d epochs; %d countersigned by %s\n",
			verdict, v.Records, v.Controllers, v.Epochs, countersigned, s.Cosigner.Name())
	}
	if err != nil {
		return err
	}
	for _, t := range tails {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s, epoch %s: records %d to %d bear the controller's signature and are not countersigned yet: start the CRM, which does so, and verify again\n",
			t.Controller, t.Epoch, t.First, t.Last)
	}
	if !good {
		return cli.ErrReported
	}
	return nil
}

func newLogExportCmd(f *logFlags) *cobra.Command {
	var out, epoch string
	cmd := &cobra.Command{
		Use:   "export --out FILE",
		Short: "Verify the logs and write them to a file that others can verify",
		Long: "Verify the logs of all controllers, or of one (--controller) or one epoch, and\n" +
			"write what is countersigned of them to a new file, one JSON object a line: for\n" +
			"each epoch first the controller, epoch and public keys, then each record as its\n" +
			"signed JWS, last the checkpoint with both signatures. The file holds the records\n" +
			"in clear.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd.Context(), func(s *logSession) error {
				if err := logview.CheckNew(out); err != nil {
					return err
				}
				return s.export(cmd, out, epoch)
			})
		},
	}
	cmd.Flags().StringVar(&epoch, "epoch", "", "only this `epoch` (default: all)")
	logview.OutFlag(cmd, &out)
	cobra.CheckErr(cmd.MarkFlagRequired("out"))
	return cmd
}

// export verifies epochs and writes them.
func (s *logSession) export(cmd *cobra.Command, out, epoch string) error {
	ctx := cmd.Context()
	epochs, err := s.Epochs(ctx, s.controller, epoch)
	if err != nil {
		return err
	}
	var sections []logview.Section
	for _, e := range epochs {
		progress, end := cli.Report(cmd.ErrOrStderr(), "verifying "+e.Controller)
		err := s.Store.VerifyEpoch(ctx, e, s.Options(progress))
		end()
		if err != nil {
			return fmt.Errorf("not exported, the log does not verify: %w", err)
		}
		section, err := s.Section(ctx, e)
		if errors.Is(err, logview.ErrNothingCountersigned) {
			fmt.Fprintf(cmd.ErrOrStderr(), "left out: %s, epoch %s: %v\n", e.Controller, e.Epoch, err)
			continue
		}
		if err != nil {
			return err
		}
		sections = append(sections, section)
	}
	if len(sections) == 0 {
		return errors.New("there is nothing to export: no record is countersigned yet")
	}
	if err := logview.Export(out, sections...); err != nil {
		return err
	}
	for _, section := range sections {
		h := section.Header
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records of %s, epoch %s\n", out, h.Size, h.Controller, h.Epoch); err != nil {
			return err
		}
	}
	return nil
}
