package main

import (
	"fmt"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/spf13/cobra"
)

var groupSort = sort[registry.Group]{
	name: "group", plural: "groups",
	of:      func(r *registry.Registry) table[registry.Group] { return r.Groups },
	id:      func(g registry.Group) string { return g.Name },
	heading: "GROUP\tTITLE\tRIGHTS",
	columns: func(_ *registrySession, g registry.Group) []string {
		rights := make([]string, len(g.Rights))
		for i, r := range g.Rights {
			rights[i] = r.String()
		}
		return []string{g.Name, g.Title, strings.Join(rights, " ")}
	},
}

func newGroupsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "groups",
		Short: "Add, list, change and remove groups, which give people their rights",
		Args:  cobra.NoArgs,
	}
	const long = `A right is DOOR@SCHEDULE, or area:AREA@SCHEDULE for all doors that lead into an
area. The door "*" is every door, the schedule "always" is built in. People are
put into groups by "people add" and "people change".`
	cmd.AddCommand(
		groupSort.editCmd(true, long, "  gatehouse-crm groups add ops --right area:server-rooms@office --right front@always --by m.jansen --why CHG-1042",
			groupFlags, func(id string) registry.Group { return registry.Group{Name: id} }),
		groupSort.editCmd(false, long, "", groupFlags, nil),
		groupSort.listCmd(), groupSort.removeCmd(""))
	return cmd
}

func groupFlags(cmd *cobra.Command) func(*registrySession, *registry.Group) error {
	var rights []string
	cmd.Flags().String("title", "", "what it is, for people")
	cmd.Flags().StringArrayVar(&rights, "right", nil, "a `right`, such as lab@office (may be repeated; once and empty: none)")
	return func(_ *registrySession, g *registry.Group) error {
		setText(cmd, "title", &g.Title)
		if !cmd.Flags().Changed("right") {
			return nil
		}
		g.Rights = nil
		if len(rights) == 1 && rights[0] == "" {
			return nil
		}
		for _, text := range rights {
			r, err := parseRight(text)
			if err != nil {
				return err
			}
			g.Rights = append(g.Rights, r)
		}
		return nil
	}
}

func parseRight(text string) (registry.Right, error) {
	door, schedule, ok := strings.Cut(text, "@")
	if !ok || door == "" || schedule == "" {
		return registry.Right{}, fmt.Errorf("--right %q is not DOOR@SCHEDULE or area:AREA@SCHEDULE", text)
	}
	if area, ok := strings.CutPrefix(door, "area:"); ok {
		return registry.Right{Area: area, Schedule: schedule}, nil
	}
	return registry.Right{Door: door, Schedule: schedule}, nil
}
