package main

import (
	"errors"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/spf13/cobra"
)

func newAlarmsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alarms",
		Short: "List alarms, and clear them in a person's name",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newAlarmsListCmd(), newAlarmsClearCmd())
	return cmd
}

func newAlarmsListCmd() *cobra.Command {
	var data string
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the open alarms",
		Example: "  gatehouse-crm alarms list --all",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			store, err := openExisting(cmd.Context(), data)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			alarms, err := store.Alarms(cmd.Context(), all)
			if err != nil {
				return err
			}
			if asJSON {
				for _, a := range alarms {
					if err := cli.PrintJSON(cmd.OutOrStdout(), showAlarm(a)); err != nil {
						return err
					}
				}
				return nil
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, a := range alarms {
				state := "open"
				if !a.Cleared.IsZero() {
					state = "cleared " + a.Cleared.Local().Format(time.DateTime) + " by " + a.ClearedBy
				}
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d×\t%s\t%s\n", a.ID, a.Raised.Local().Format(time.DateTime), a.Controller, a.Kind, a.Count, a.Detail, state)
			}
			return w.Flush()
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().BoolVar(&all, "all", false, "list the cleared ones too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, an alarm a line")
	return cmd
}

func newAlarmsClearCmd() *cobra.Command {
	var data, by string
	cmd := &cobra.Command{
		Use:     "clear ID",
		Short:   "Clear an alarm that somebody has looked into",
		Example: "  gatehouse-crm alarms clear 7 --by m.jansen",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not the number of an alarm: `gatehouse-crm alarms list` shows them", args[0])
			}
			store, err := openExisting(cmd.Context(), data)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			return store.Clear(cmd.Context(), id, by)
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().StringVar(&by, "by", "", "who looked into it")
	cobra.CheckErr(cmd.MarkFlagRequired("by"))
	return cmd
}

func showAlarm(a central.Alarm) alarmStatus {
	return alarmStatus{ID: a.ID, Kind: string(a.Kind), Controller: a.Controller, Detail: a.Detail, Raised: a.Raised, Count: a.Count}
}
