package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/internal/pki"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/cobra"
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
	cmd.AddCommand(newLogListCmd(&f), newLogShowCmd(&f), newLogVerifyCmd(&f), newLogExportCmd(&f), newLogProofCmd(&f))
	return cmd
}

// open opens the controller's keys for a log command, and says in which zone
// times are shown.
func (f *logFiles) open() (*logview.Controller, *time.Location, error) {
	if f.database == "" || filepath.Base(f.database) != f.database {
		return nil, nil, fmt.Errorf("--database %q: the name of a file in %s", f.database, f.data)
	}
	d := &logview.Controller{Path: filepath.Join(f.data, f.database)}
	if _, err := os.Stat(d.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no log: %w", err)
	} else if err != nil {
		return nil, nil, fmt.Errorf("the log cannot be looked at: %w", err)
	}
	provider, err := keyProvider(f.provider, f.data)
	if err != nil {
		return nil, nil, err
	}
	k, err := keys.LoadController(provider)
	if err != nil {
		return nil, nil, err
	}
	d.Sealer, d.Signer = k.Records, k.Log.NoteSigner
	if d.Verifier, err = k.Log.Verifier(keys.TypeRecord); err != nil {
		return nil, nil, err
	}
	name := f.zone
	trust, err := pki.ReadTrust(f.data)
	switch {
	case err == nil:
		if d.Receipts, err = trust.Cosigner.Receipts(); err != nil {
			return nil, nil, err
		}
		if name == "" {
			name = trust.Timezone
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	zone := time.Local
	if name != "" {
		if zone, err = time.LoadLocation(name); err != nil {
			return nil, nil, fmt.Errorf("--timezone: %w", err)
		}
	}
	return d, zone, nil
}

func newLogListCmd(f *logFiles) *cobra.Command {
	var flags logview.ListFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List records, oldest first",
		Example: "  gatehouse log list --since 8h --decision denied\n" +
			"  gatehouse log list --follow --last 20",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, zone, err := f.open()
			if err != nil {
				return err
			}
			filter, err := flags.Filter.Filter(time.Now(), zone)
			if err != nil {
				return err
			}
			pages, err := d.Pages(cmd.Context(), flags.Last)
			if err != nil {
				return err
			}
			defer func() { pages.Close() }()
			p := logview.NewPrinter(cmd.OutOrStdout(), logview.Options{JSON: flags.JSON, Zone: zone})
			damaged, err := logview.List(cmd.Context(), p, filter, pages, flags.Follow)
			if err == nil && damaged > 0 {
				err = fmt.Errorf("%d records are damaged: see gatehouse log verify", damaged)
			}
			return err
		},
	}
	flags.Register(cmd)
	return cmd
}

func newLogShowCmd(f *logFiles) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show SEQ",
		Short: "Show one record with all that it says, and whether it can be trusted",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := logview.ParseSequence(args[0])
			if err != nil {
				return err
			}
			d, zone, err := f.open()
			if err != nil {
				return err
			}
			row, checks, err := d.Show(cmd.Context(), seq, zone)
			if err != nil {
				return err
			}
			good, err := logview.Present(cmd.OutOrStdout(), row, checks, zone, asJSON)
			switch {
			case err != nil:
				return err
			case row.Damaged:
				return fmt.Errorf("record %d is damaged", seq)
			case !good:
				return fmt.Errorf("record %d is not verified", seq)
			}
			return nil
		},
	}
	logview.JSONFlag(cmd, &asJSON)
	return cmd
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
			d, _, err := f.open()
			if err != nil {
				return err
			}
			paths := []string{d.Path}
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
				d.Path = path
				ok, err := verifyLog(cmd, d, asJSON, len(paths) > 1)
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
	logview.JSONFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&all, "all", false, "verify the databases that were set aside too")
	return cmd
}

// verifyLog verifies one database and says what came of it.
func verifyLog(cmd *cobra.Command, d *logview.Controller, asJSON, named bool) (ok bool, err error) {
	v, err := verified(cmd, d)
	path := d.Path
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
func verified(cmd *cobra.Command, d *logview.Controller) (visitorlog.Verified, error) {
	progress, end := cli.Report(cmd.ErrOrStderr(), "verifying")
	defer end()
	return d.Verify(cmd.Context(), progress)
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
			d, _, err := f.open()
			if err != nil {
				return err
			}
			if err := logview.CheckNew(out); err != nil {
				return err
			}
			v, err := verified(cmd, d)
			if err != nil {
				return fmt.Errorf("not exported, the log does not verify: %w", err)
			}
			section, err := d.Section(cmd.Context(), v)
			if err != nil {
				return err
			}
			if err := logview.Export(out, section); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d records of %s, epoch %s\n", out, v.Head.Size, v.Controller, v.Head.Epoch)
			return err
		},
	}
	logview.OutFlag(cmd, &out)
	cobra.CheckErr(cmd.MarkFlagRequired("out"))
	return cmd
}
