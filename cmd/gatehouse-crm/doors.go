package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/spf13/cobra"
)

var doorSort = sort[registry.Door]{
	name: "door", plural: "doors",
	of:      func(r *registry.Registry) table[registry.Door] { return r.Doors },
	id:      func(d registry.Door) string { return d.Name },
	heading: "DOOR\tTITLE\tCONTROLLER\tINTO\tOUT OF\tASKS FOR\tAND ON THE WAY OUT\tMARKS",
	columns: func(_ *registrySession, d registry.Door) []string {
		var in, out []string
		for _, r := range d.Rules {
			text := r.Schedule + ": " + strings.Join(r.AnyOf, " or ")
			if r.Direction == access.Out {
				out = append(out, text)
			} else {
				in = append(in, text)
			}
		}
		return []string{d.Name, d.Title, d.Controller, d.Into, d.OutOf, strings.Join(in, "; "), strings.Join(out, "; "), doorMarks(d)}
	},
}

// doorMarks are what a door asks beside factors, in words.
func doorMarks(d registry.Door) string {
	var marks []string
	for _, m := range []struct {
		on   bool
		mark string
	}{
		{d.Disabled != "", "DISABLED (" + d.Disabled + ")"}, {d.ServerRoom, "server-room"}, {d.TwoPerson, "two-person"},
		{d.Together != 0, "together " + d.Together.String()}, {len(d.Interlock) > 0, "interlock " + strings.Join(d.Interlock, " ")},
		{d.Free != "", "free " + d.Free}, {d.FirstPerson, "first-person"},
		{d.StaleAfter != 0, "stale after " + d.StaleAfter.String()},
		{d.ExpiredAfter != 0, "expired after " + d.ExpiredAfter.String() + orKinds(", then for ", d.ExpiredKinds)},
		{len(d.ClockUnsetKinds) > 0, "with no clock" + orKinds(" for ", d.ClockUnsetKinds)},
	} {
		if m.on {
			marks = append(marks, m.mark)
		}
	}
	return strings.Join(marks, "; ")
}

func orKinds(before string, kinds []access.Kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	if len(words) == 0 {
		return ""
	}
	return before + strings.Join(words, " and ")
}

func newDoorsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doors",
		Short: "Add, list, change and remove doors",
		Args:  cobra.NoArgs,
	}
	const long = `A rule is SCHEDULE=SET,SET…: within the schedule the door asks for any one of the
sets of factors, such as badge+fingerprint. Of several rules the first whose
schedule contains the moment holds; the last must be of the schedule "always".
--rule is for the way in, --rule-out for the way out. Without rules for a way, the
controller's configuration says what the door asks for.

The other flags are what the door asks of everybody beside factors. Times are such
as 30s, 10m or 72h; 0 takes a time away. A flag that may be repeated is given once
and empty to take away what was said.`
	const example = `  gatehouse-crm doors change lock-inner --interlock lock-outer --by m.jansen --why CHG-1043
  gatehouse-crm doors change server-room-a --two-person --together 45s --first-person --by m.jansen --why CHG-1044
  gatehouse-crm doors change server-room-a --disabled "the strike is being replaced" --by m.jansen --why INC-12
  gatehouse-crm doors change front --free office --expired-after 72h --expired-kind staff --by m.jansen --why CHG-1045`
	cmd.AddCommand(
		doorSort.editCmd(true, long, `  gatehouse-crm doors add server-room-a --controller north-1 --into server-rooms \
      --server-room --rule office=badge+fingerprint,badge+iris --rule always=badge+fingerprint+pin --by m.jansen --why CHG-1042`,
			doorFlags, func(id string) registry.Door { return registry.Door{Name: id} }),
		doorSort.editCmd(false, long, example, doorFlags, nil),
		doorSort.listCmd(), doorSort.removeCmd(""))
	return cmd
}

func doorFlags(cmd *cobra.Command) func(*registrySession, *registry.Door) error {
	var in, out, interlock, expired, unset []string
	flags := cmd.Flags()
	flags.String("title", "", "what it is, for people")
	flags.String("controller", "", "the `name` of the controller that it is on")
	flags.String("into", "", "the `area` that it leads into")
	flags.String("out-of", "", "the `area` that it leads out of")
	flags.StringArrayVar(&in, "rule", nil, "a `rule`, such as office=badge+pin (may be repeated, in order; once and empty: none)")
	flags.StringArrayVar(&out, "rule-out", nil, "a `rule` for the way out, likewise")
	flags.Bool("server-room", false, "it is never left unlocked")
	flags.Bool("two-person", false, "people come in only two at a time")
	flags.Duration("together", 0, "how `long` people who pass together wait for each other")
	flags.StringArrayVar(&interlock, "interlock", nil, "a `door` of the same controller that must be closed before this one opens (may be repeated)")
	flags.String("free", "", "the `schedule` in which it stands unlocked for everybody")
	flags.Bool("first-person", false, "nobody comes in before a supervisor has, that day")
	flags.String("disabled", "", "`why` nobody passes for the time being; empty: it is in use again")
	flags.Duration("stale-after", 0, "how `old` the allowlist is when records call it stale here")
	flags.Duration("expired-after", 0, "how `old` it is when only --expired-kind may enter here")
	flags.StringArrayVar(&expired, "expired-kind", nil, "staff, contractor or visitor (may be repeated)")
	flags.StringArrayVar(&unset, "clock-unset-kind", nil, "a `kind` that may enter by rights bound in time while the controller does not know the time (may be repeated)")
	return func(s *registrySession, d *registry.Door) error {
		setText(cmd, "title", &d.Title)
		setText(cmd, "controller", &d.Controller)
		setText(cmd, "into", &d.Into)
		setText(cmd, "out-of", &d.OutOf)
		setText(cmd, "free", &d.Free)
		setText(cmd, "disabled", &d.Disabled)
		setBool(cmd, "server-room", &d.ServerRoom)
		setBool(cmd, "two-person", &d.TwoPerson)
		setBool(cmd, "first-person", &d.FirstPerson)
		setSpan(cmd, "together", &d.Together)
		setSpan(cmd, "stale-after", &d.StaleAfter)
		setSpan(cmd, "expired-after", &d.ExpiredAfter)
		setList(cmd, "interlock", interlock, &d.Interlock)
		setList(cmd, "expired-kind", expired, &d.ExpiredKinds)
		setList(cmd, "clock-unset-kind", unset, &d.ClockUnsetKinds)
		if err := setRules(cmd, "rule", access.In, in, d); err != nil {
			return err
		}
		if err := setRules(cmd, "rule-out", access.Out, out, d); err != nil {
			return err
		}
		if cmd.Flags().Changed("controller") {
			return s.warnUnknown(cmd, d.Controller)
		}
		return nil
	}
}

// warnUnknown tells whoever puts a door on a controller that none of that name is
// approved: it may be a slip of the pen, or come later.
func (s *registrySession) warnUnknown(cmd *cobra.Command, controller string) (err error) {
	reg, err := openApprovals(s.ctx, s.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close()) }()
	_, ok, err := registered(s.ctx, reg, controller)
	if err != nil || ok {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "warning: no controller %q is approved: this door gets no allowlist until one is (see \"gatehouse-crm controllers list\")\n", controller)
	return nil
}

// setRules replaces the rules for one way by those of a flag, if it was given.
func setRules(cmd *cobra.Command, flag string, side access.Direction, texts []string, d *registry.Door) error {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	d.Rules = slices.DeleteFunc(d.Rules, func(r registry.Rule) bool { return cmp.Or(r.Direction, access.In) == side })
	if len(texts) == 1 && texts[0] == "" {
		return nil
	}
	for _, text := range texts {
		schedule, sets, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--%s %q is not SCHEDULE=SET,SET…", flag, text)
		}
		d.Rules = append(d.Rules, registry.Rule{Direction: side, Schedule: schedule, AnyOf: strings.Split(sets, ",")})
	}
	return nil
}

var areaSort = sort[registry.Area]{
	name: "area", plural: "areas",
	of:      func(r *registry.Registry) table[registry.Area] { return r.Areas },
	id:      func(a registry.Area) string { return a.Name },
	heading: "AREA\tTITLE\tMARKS",
	columns: func(_ *registrySession, a registry.Area) []string {
		var marks []string
		if a.Passback != access.PassbackOff {
			marks = append(marks, "passback "+string(a.Passback))
		}
		if a.Timed != 0 {
			marks = append(marks, "timed "+a.Timed.String())
		}
		if a.Most != 0 {
			marks = append(marks, fmt.Sprintf("occupancy %d", a.Most))
		}
		return []string{a.Name, a.Title, strings.Join(marks, "; ")}
	},
}

func newAreasCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "areas",
		Short: "Add, list, change and remove areas, which doors lead into",
		Args:  cobra.NoArgs,
	}
	flags := func(cmd *cobra.Command) func(*registrySession, *registry.Area) error {
		cmd.Flags().String("title", "", "what it is, for people")
		cmd.Flags().String("passback", "", "soft (granted, and recorded) or hard (denied): who is in does not come in again, and who is not does not go out; off: no such rule")
		cmd.Flags().Duration("timed", 0, "how `long` after coming in nobody comes in again; 0: no such rule")
		cmd.Flags().Int("occupancy", 0, "how `many` may be in at once; 0: any number")
		return func(_ *registrySession, a *registry.Area) error {
			setText(cmd, "title", &a.Title)
			passback := string(a.Passback)
			setText(cmd, "passback", &passback)
			if passback == "off" {
				passback = ""
			}
			a.Passback = access.Passback(passback)
			setSpan(cmd, "timed", &a.Timed)
			if cmd.Flags().Changed("occupancy") {
				a.Most, _ = cmd.Flags().GetInt("occupancy")
			}
			return nil
		}
	}
	const long = `An area may ask something of everybody who comes in by any of its doors: that they
left before (--passback), that they did not just come in (--timed), or that not too
many are in (--occupancy). Passback and occupancy need all doors of the area on one
controller.`
	cmd.AddCommand(areaSort.editCmd(true, long, "  gatehouse-crm areas add server-rooms --passback hard --occupancy 6 --by m.jansen --why CHG-1042",
		flags, func(id string) registry.Area { return registry.Area{Name: id} }),
		areaSort.editCmd(false, long, "  gatehouse-crm areas change server-rooms --passback soft --timed 10m --by m.jansen --why CHG-1043", flags, nil), areaSort.listCmd(), areaSort.removeCmd(""))
	return cmd
}
