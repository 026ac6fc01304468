package main

import (
	"errors"
	"fmt"

	"github.com/gatehouse-acs/gatehouse/internal/logview"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/cobra"
)

func newLogProofCmd(f *logFiles) *cobra.Command {
	var out, epoch string
	cmd := &cobra.Command{
		Use:     "proof SEQ",
		Short:   "Prove to others that one record is in the log",
		Long:    "Write a proof that one record is in the log" + logview.ProofHelp,
		Example: "  gatehouse log proof 17 --out 17.proof.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			seq, err := logview.ParseSequence(args[0])
			if err != nil {
				return err
			}
			d, _, err := f.open()
			if err != nil {
				return err
			}
			p, err := d.Prove(cmd.Context(), epoch, seq)
			if errors.Is(err, visitorlog.ErrNotCountersigned) {
				return fmt.Errorf("%w; `gatehouse status` says whether the CRM is connected, and `gatehouse log show %d` what can be verified without it", err, seq)
			}
			if err != nil {
				return err
			}
			return logview.WriteProof(cmd.OutOrStdout(), out, p)
		},
	}
	cmd.Flags().StringVar(&epoch, "epoch", "", "of this `epoch`, maybe one whose database was set aside (default: the present one)")
	logview.OutFlag(cmd, &out)
	return cmd
}
