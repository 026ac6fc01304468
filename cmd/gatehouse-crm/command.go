package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/control"
	"github.com/gatehouse-acs/gatehouse/sync/wire"
	"github.com/gatehouse-acs/gatehouse/visitorlog/central"
	"github.com/spf13/cobra"
)

// atOnce is how many commands of one command line are on their way at a time.
const atOnce = 4

// order is a command line of "command": what is ordered, and of whom.
type order struct {
	data        string
	controllers []string
	doors       []string
	all         bool
	json        bool
	args        map[string]string // of the request to the daemon
	by, why     string
}

// The outcomes of a command.
const (
	outcomeDone    = "done"
	outcomeRefused = "refused"
	outcomeOffline = "offline"   // nothing was ordered
	outcomeUnknown = "no answer" // it may have been carried out
	outcomeFailed  = "failed"    // nothing was ordered
)

// answered is what became of a command for one controller.
type answered struct {
	Controller string     `json:"controller"`
	Door       string     `json:"door,omitempty"`
	ID         string     `json:"id,omitempty"` // as in the record
	Outcome    string     `json:"outcome"`
	Detail     string     `json:"detail,omitempty"`
	Time       *time.Time `json:"time,omitempty"` // of the record, by the controller's clock
	Code       string     `json:"code,omitempty"`
}

func newCommandCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "command",
		Short: "Order doors to do something now: unlock once, lockdown, disable, …",
		Long: `Order doors to do something now. The running daemon asks the controller for a
nonce, signs the command with the policy key, sends it, and waits for the
controller's record of it, which names who gave the order and why.

The exit status is 1 unless everything that was ordered is done. "offline" means
that nothing was ordered, "no answer" that it may have been.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(
		orderCmd("unlock", "Unlock a door once, for as long as a badge would", wire.ActionUnlock, "--controller north-1 --door server-room-a", nil, nil),
		orderCmd("lockdown", "Let nobody in but those with the highest clearance", wire.ActionThreat, "--all", nil,
			func(o *order) { o.args[argLevel] = strconv.Itoa(int(access.MaxThreat)) }),
		orderCmd("clear", "End a lockdown, or any level of threat", wire.ActionThreat, "--all", nil, func(o *order) { o.args[argLevel] = "0" }),
		orderCmd("threat", fmt.Sprintf("Set the level of threat: 0 (none) to %d (lockdown)", access.MaxThreat), wire.ActionThreat, "--all --level 2", func(cmd *cobra.Command, o *order) {
			flag(cmd, o, argLevel, "", "the `level` from now on", true)
		}, nil),
		orderCmd("disable", "Take a door out of use: nobody passes", wire.ActionDisable, "--controller north-1 --door server-room-a", nil, nil),
		orderCmd("enable", "Put a door into use again that a command disabled", wire.ActionEnable, "--controller north-1 --door server-room-a", nil, nil),
		orderCmd("identify", "Have a door show by its lights which one it is", wire.ActionIdentify, "--controller north-1 --door server-room-a", nil, nil),
		orderCmd("reset-passback", "Forget where a person is", wire.ActionResetPassback, "--controller north-1 --person p-1001", func(cmd *cobra.Command, o *order) {
			flag(cmd, o, argPerson, "", "`id` of the person", true)
		}, nil),
		orderCmd("reset-occupancy", "Say how many people are in an area", wire.ActionResetOccupancy, "--controller north-1 --area server-rooms --count 2", func(cmd *cobra.Command, o *order) {
			flag(cmd, o, argArea, "", "the `area`", true)
			flag(cmd, o, argCount, "0", "`how many` are in it", false)
		}, nil),
		orderCmd("guard-code", "Make a code that opens a door once, within a minute", wire.ActionCode, "--controller north-1 --door server-room-a --person p-2007 --host p-1001", func(cmd *cobra.Command, o *order) {
			flag(cmd, o, argPerson, "", "`id` of the person who passes by it", true)
			flag(cmd, o, argKind, "visitor", "`kind` of that person: staff, contractor or visitor", false)
			flag(cmd, o, argHost, "", "`id` of the person whom they visit", false)
			flag(cmd, o, argDigits, "6", "how many `digits`: 6 to 8", false)
		}, nil),
	)
	return cmd
}

func flag(cmd *cobra.Command, o *order, name, value, usage string, required bool) {
	cmd.Flags().Func(name, usage+defaulted(value), func(s string) error { o.args[name] = s; return nil })
	if value != "" {
		o.args[name] = value
	}
	if required {
		cobra.CheckErr(cmd.MarkFlagRequired(name))
	}
}

func defaulted(value string) string {
	if value == "" {
		return ""
	}
	return " (default " + value + ")"
}

// orderCmd is one of the commands. More adds its own flags, and settle what is not
// asked for.
func orderCmd(name, short string, action wire.Action, example string, more func(*cobra.Command, *order), settle func(*order)) *cobra.Command {
	o := &order{args: map[string]string{argAction: string(action)}}
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: fmt.Sprintf("  gatehouse-crm command %s %s --by m.jansen --why INC-12", name, example),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if settle != nil {
				settle(o)
			}
			return o.run(cmd)
		},
	}
	dataFlag(cmd, &o.data)
	cmd.Flags().StringSliceVar(&o.controllers, "controller", nil, "`name` of the controller (may be repeated)")
	if action.AtDoor() {
		cmd.Flags().StringSliceVar(&o.doors, "door", nil, "`name` of the door at each of the controllers (may be repeated)")
		cobra.CheckErr(cmd.MarkFlagRequired("door"))
		cobra.CheckErr(cmd.MarkFlagRequired("controller"))
	} else {
		cmd.Flags().BoolVar(&o.all, "all", false, "all controllers that are not revoked")
		cmd.MarkFlagsMutuallyExclusive("all", "controller")
		cmd.MarkFlagsOneRequired("all", "controller")
	}
	cmd.Flags().StringVar(&o.by, "by", "", "`id` of who orders it; it stands in the record")
	cmd.Flags().StringVar(&o.why, "why", "", "the `reason`, such as a ticket; it stands in the record")
	cobra.CheckErr(cmd.MarkFlagRequired("by"))
	cobra.CheckErr(cmd.MarkFlagRequired("why"))
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, an object a line")
	if more != nil {
		more(cmd, o)
	}
	return cmd
}

// target is a controller, and one of its doors if the action is of a door.
type target struct{ controller, door string }

func (o *order) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	targets, err := o.targets(ctx)
	if err != nil {
		return err
	}
	answers := make([]answered, len(targets))
	errs := make([]error, len(targets))
	turns := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			answers[i], errs[i] = o.send(ctx, t)
		})
	}
	wg.Wait()
	var failed error
	for i := range answers {
		if errs[i] != nil {
			if errors.Is(errs[i], control.ErrNotRunning) {
				return fmt.Errorf("the daemon of %s does not run, and only that reaches the controllers: start it with systemctl start gatehouse-crm", o.data)
			}
			answers[i] = answered{Controller: targets[i].controller, Door: targets[i].door, Outcome: outcomeFailed, Detail: errs[i].Error()}
		}
		if answers[i].Outcome != outcomeDone {
			failed = cli.ErrReported
		}
	}
	if o.json {
		for _, a := range answers {
			if err := cli.PrintJSON(cmd.OutOrStdout(), a); err != nil {
				return err
			}
		}
		return failed
	}
	return errors.Join(printAnswers(cmd.OutOrStdout(), answers), failed)
}

// targets are those whom the command line means.
func (o *order) targets(ctx context.Context) (list []target, err error) {
	names := o.controllers
	if o.all {
		reg, err := openApprovals(ctx, o.data)
		if err != nil {
			return nil, err
		}
		all, err := reg.Controllers(ctx)
		if err = errors.Join(err, reg.Close()); err != nil {
			return nil, err
		}
		// Nobody waits for those that are not there before a lockdown reaches the rest.
		slices.SortStableFunc(all, func(a, b central.Controller) int {
			switch {
			case a.Online == b.Online:
				return 0
			case a.Online:
				return -1
			}
			return 1
		})
		for _, c := range all {
			if c.Revoked.IsZero() {
				names = append(names, c.Name)
			}
		}
		if len(names) == 0 {
			return nil, errors.New("no controller is approved")
		}
	}
	for _, c := range names {
		if len(o.doors) == 0 {
			list = append(list, target{controller: c})
		}
		for _, d := range o.doors {
			list = append(list, target{c, d})
		}
	}
	return list, nil
}

// send has the daemon give one order.
func (o *order) send(ctx context.Context, t target) (a answered, err error) {
	args := map[string]string{argController: t.controller, argBy: o.by, argWhy: o.why}
	if t.door != "" {
		args[argDoor] = t.door
	}
	for name, value := range o.args {
		args[name] = value
	}
	results, err := control.Do(ctx, filepath.Join(o.data, control.SocketName), control.Request{Do: doCommand, Args: args}, nil, silent{})
	if err != nil {
		return a, err
	}
	if len(results) != 1 {
		return a, fmt.Errorf("the daemon gave %d answers", len(results))
	}
	return a, json.Unmarshal(results[0], &a)
}

// silent is a terminal on which nothing is said before the answer.
type silent struct{}

func (silent) Say(string)                {}
func (silent) Ask(string, []string)      {}
func (silent) Progress(string, int, int) {}

func printAnswers(w io.Writer, list []answered) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, a := range list {
		where := a.Controller
		if a.Door != "" {
			where += "/" + a.Door
		}
		words := a.Outcome
		if a.Code != "" {
			words += ": the code is " + a.Code + ", for a minute and one entry"
		}
		if a.Detail != "" {
			words += ": " + a.Detail
		}
		fmt.Fprintf(t, "%s\t%s\n", where, words)
	}
	return t.Flush()
}
