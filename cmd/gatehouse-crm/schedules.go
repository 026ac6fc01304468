package main

import (
	"fmt"
	"strings"

	"github.com/gatehouse-acs/gatehouse/access/registry"
	"github.com/spf13/cobra"
)

var scheduleSort = sort[registry.Schedule]{
	name: "schedule", plural: "schedules",
	of:      func(r *registry.Registry) table[registry.Schedule] { return r.Schedules },
	id:      func(v registry.Schedule) string { return v.Name },
	heading: "SCHEDULE\tTITLE\tWHEN",
	columns: func(_ *registrySession, v registry.Schedule) []string {
		return []string{v.Name, v.Title, v.String()}
	},
}

func newSchedulesCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schedules",
		Short: "Add, list, change and remove weekly timetables",
		Args:  cobra.NoArgs,
	}
	const long = `DAYS=HH:MM-HH:MM,… are the intervals of a day (mon), a range of days (mon-fri) or
holiday, by the clock on the site's wall. An interval over midnight belongs to
the day that it starts on. On a holiday the intervals of "holiday" hold instead
of the weekday's: by default none.`
	cmd.AddCommand(
		scheduleSort.editCmd(true, long, "  gatehouse-crm schedules add office --on mon-fri=07:00-19:00 --on sat=09:00-13:00 --by m.jansen --why CHG-1042",
			scheduleFlags, func(id string) registry.Schedule { return registry.Schedule{Name: id} }),
		scheduleSort.editCmd(false, long, "", scheduleFlags, nil),
		scheduleSort.listCmd(), scheduleSort.removeCmd(""))
	return cmd
}

func scheduleFlags(cmd *cobra.Command) func(*registrySession, *registry.Schedule) error {
	var on []string
	cmd.Flags().String("title", "", "what it is, for people")
	cmd.Flags().StringArrayVar(&on, "on", nil, "`DAYS=INTERVALS`, such as mon-fri=07:00-12:00,13:00-19:00 (may be repeated; all of them replace what was there)")
	return func(_ *registrySession, v *registry.Schedule) error {
		setText(cmd, "title", &v.Title)
		if !cmd.Flags().Changed("on") {
			return nil
		}
		v.Week = make(map[string][]string)
		for _, text := range on {
			days, intervals, ok := strings.Cut(text, "=")
			if !ok {
				return fmt.Errorf("--on %q is not DAYS=HH:MM-HH:MM", text)
			}
			if _, twice := v.Week[days]; twice {
				return fmt.Errorf("--on has %q twice: give its intervals together, with commas", days)
			}
			v.Week[days] = strings.Split(intervals, ",")
		}
		return nil
	}
}

var holidaySort = sort[registry.Holiday]{
	name: "holiday", plural: "holidays",
	of:      func(r *registry.Registry) table[registry.Holiday] { return r.Holidays },
	id:      func(h registry.Holiday) string { return h.Date },
	heading: "DATE\tTITLE",
	columns: func(_ *registrySession, h registry.Holiday) []string { return []string{h.Date, h.Title} },
}

func newHolidaysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "holidays",
		Short: "Add, list, change and remove holidays, which all schedules share",
		Args:  cobra.NoArgs,
	}
	flags := func(cmd *cobra.Command) func(*registrySession, *registry.Holiday) error {
		cmd.Flags().String("title", "", "what it is, for people")
		return func(_ *registrySession, h *registry.Holiday) error {
			setText(cmd, "title", &h.Title)
			return nil
		}
	}
	cmd.AddCommand(
		holidaySort.editCmd(true, "", "  gatehouse-crm holidays add 2026-12-25 --title Christmas --by m.jansen --why CHG-1042", flags,
			func(id string) registry.Holiday { return registry.Holiday{Date: id} }),
		holidaySort.editCmd(false, "", "", flags, nil), holidaySort.listCmd(), holidaySort.removeCmd(""))
	return cmd
}
