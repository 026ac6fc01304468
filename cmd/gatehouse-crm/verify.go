package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/spf13/cobra"
)

func newVerifyCmd() *cobra.Command {
	var keyFiles []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE… --keys KEYS",
		Short: "Check proofs and exported logs with public keys alone",
		Long: `Check files that "log proof" or "log export" wrote, of either program, on any
machine and without its data: every signature, every link, and that the records
are in the tree that the log signed. A proof must be countersigned; of an export
it is said whether it is.

KEYS is a file with what "gatehouse keys show --json", "gatehouse-crm pki show
--json" or "gatehouse-crm controllers list --json" print, or several of them
one after the other. What is proved is proved to whoever knows whose those keys
are: get them from where you would believe it.`,
		Example: `  gatehouse keys show --json >keys.json              # on the controller
  gatehouse-crm pki show --json >>keys.json          # at the CRM
  gatehouse-crm verify 17.proof.json --keys keys.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			known, err := readPublic(keyFiles)
			if err != nil {
				return err
			}
			bad := false
			for _, file := range files {
				err := proveFile(cmd, file, known, asJSON)
				if errors.Is(err, cli.ErrReported) {
					bad = true
				} else if err != nil {
					return err
				}
			}
			if bad {
				return cli.ErrReported
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&keyFiles, "keys", nil, "`file` with the public keys to trust (may be repeated)")
	cobra.CheckErr(cmd.MarkFlagRequired("keys"))
	logview.JSONFlag(cmd, &asJSON)
	return cmd
}

// readPublic reads the keys of all files together.
func readPublic(files []string) (*keys.Public, error) {
	all := &keys.Public{}
	for _, file := range files {
		text, err := readBounded(file, keys.MaxPublic)
		if err != nil {
			return nil, err
		}
		p, err := keys.ParsePublic(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all.Join(p)
	}
	return all, nil
}

// readBounded reads a file up to one byte more than its parser takes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

// proveFile checks one file and says what came of it: ErrReported if it is
// bad.
func proveFile(cmd *cobra.Command, file string, known *keys.Public, asJSON bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	type outcome struct {
		File string `json:"file"`
		OK   bool   `json:"ok"`
		*logview.Proved
		Fault string `json:"fault,omitempty"`
	}
	var printing error
	err = logview.ProveFile(f, known, func(p logview.Proved) error {
		if asJSON {
			printing = cli.PrintJSON(cmd.OutOrStdout(), outcome{File: file, OK: true, Proved: &p})
		} else {
			printing = p.Print(cmd.OutOrStdout(), file)
		}
		return printing
	})
	if err == nil || printing != nil {
		return printing
	}
	if asJSON {
		if err := cli.PrintJSON(cmd.OutOrStdout(), outcome{File: file, Fault: err.Error()}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: BAD: %s\n", file, spelling.Printable(err.Error()))
	}
	return cli.ErrReported
}
