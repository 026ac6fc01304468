package main

import (
	"cmp"
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
	heading: "DOOR\tTITLE\tCONTROLLER\tINTO\tOUT OF\tASKS FOR\tAND ON THE WAY OUT",
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
		return []string{d.Name, d.Title, d.Controller, d.Into, d.OutOf, strings.Join(in, "; "), strings.Join(out, "; ")}
	},
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
controller's configuration says what the door asks for.`
	cmd.AddCommand(
		doorSort.editCmd(true, long, `  gatehouse-crm doors add server-room-a --controller north-1 --into server-rooms \
      --rule office=badge+fingerprint,badge+iris --rule always=badge+fingerprint+pin --by m.jansen --why CHG-1042`,
			doorFlags, func(id string) registry.Door { return registry.Door{Name: id} }),
		doorSort.editCmd(false, long, "", doorFlags, nil),
		doorSort.listCmd(), doorSort.removeCmd(""))
	return cmd
}

func doorFlags(cmd *cobra.Command) func(*registrySession, *registry.Door) error {
	var in, out []string
	cmd.Flags().String("title", "", "what it is, for people")
	cmd.Flags().String("controller", "", "the `name` of the controller that it is on")
	cmd.Flags().String("into", "", "the `area` that it leads into")
	cmd.Flags().String("out-of", "", "the `area` that it leads out of")
	cmd.Flags().StringArrayVar(&in, "rule", nil, "a `rule`, such as office=badge+pin (may be repeated, in order; once and empty: none)")
	cmd.Flags().StringArrayVar(&out, "rule-out", nil, "a `rule` for the way out, likewise")
	return func(_ *registrySession, d *registry.Door) error {
		setText(cmd, "title", &d.Title)
		setText(cmd, "controller", &d.Controller)
		setText(cmd, "into", &d.Into)
		setText(cmd, "out-of", &d.OutOf)
		if err := setRules(cmd, "rule", access.In, in, d); err != nil {
			return err
		}
		return setRules(cmd, "rule-out", access.Out, out, d)
	}
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
	heading: "AREA\tTITLE",
	columns: func(_ *registrySession, a registry.Area) []string { return []string{a.Name, a.Title} },
}

func newAreasCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "areas",
		Short: "Add, list, change and remove areas, which doors lead into",
		Args:  cobra.NoArgs,
	}
	flags := func(cmd *cobra.Command) func(*registrySession, *registry.Area) error {
		cmd.Flags().String("title", "", "what it is, for people")
		return func(_ *registrySession, a *registry.Area) error {
			setText(cmd, "title", &a.Title)
			return nil
		}
	}
	cmd.AddCommand(areaSort.editCmd(true, "", "", flags, func(id string) registry.Area { return registry.Area{Name: id} }),
		areaSort.editCmd(false, "", "", flags, nil), areaSort.listCmd(), areaSort.removeCmd(""))
	return cmd
}
