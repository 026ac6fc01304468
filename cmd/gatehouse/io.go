package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/gatehouse-acs/gatehouse/drivers/gpio"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/cobra"
)

func newIOCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "io",
		Short: "Look at the wires of this controller, and try them",
		Long: `Look at the wires of this controller, and try them. Except for "list", these
commands take the lines that the daemon would, so that it must not run
meanwhile: systemctl stop gatehouse.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newIOListCmd(), newIOWatchCmd(), newIOTestCmd(), newIORelearnCmd(), newIOSafeCmd())
	return cmd
}

// ioPart is one part of a configuration that hangs on wires.
type ioPart struct {
	door   string
	name   string // strike, contact, rex, tamper, indicator, lockdown, reader NAME or scanner NAME
	device *config.Device

	reader  *config.Reader  // nil: it is none
	scanner *config.Scanner // nil: it is none
}

const allDoors = "all doors"

func (p ioPart) output() bool { return p.name == "strike" || p.name == "indicator" }

// ioParts are the parts of a configuration, in the order in which a person
// tries them: door by door.
func ioParts(cfg *config.Controller) []ioPart {
	var parts []ioPart
	add := func(door, name string, device *config.Device) {
		if device != nil {
			parts = append(parts, ioPart{door: door, name: name, device: device})
		}
	}
	for i := range cfg.Doors {
		d := &cfg.Doors[i]
		add(d.Name, "contact", d.Contact)
		add(d.Name, "rex", d.REX)
		add(d.Name, "tamper", d.Tamper)
		for j := range d.Readers {
			r := &d.Readers[j]
			parts = append(parts, ioPart{door: d.Name, name: "reader " + r.Name, device: &r.Device, reader: r})
		}
		for j := range d.Scanners {
			s := &d.Scanners[j]
			parts = append(parts, ioPart{door: d.Name, name: "scanner " + s.Name, device: &s.Device, scanner: s})
		}
		add(d.Name, "indicator", d.Indicator)
		add(d.Name, "strike", &d.Strike)
	}
	if cfg.Lockdown != nil {
		add(allDoors, "lockdown", &cfg.Lockdown.Device)
	}
	return parts
}

// holdLines keeps the daemon from starting until what it returns is closed. It
// fails while the daemon runs.
func holdLines(dir string) (io.Closer, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil // no daemon can run
	}
	if err != nil {
		return nil, fmt.Errorf("whether the daemon runs is not known: %w", err)
	}
	// What is made here must be the daemon's own, or it cannot start again.
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		name := strconv.Itoa(int(s.Uid))
		if u, err := user.LookupId(name); err == nil {
			name = u.Username
		}
		return nil, fmt.Errorf("%s belongs to the user %q: run this as that user, with sudo -u %s", dir, name, name)
	}
	held, err := visitorlog.Hold(dir)
	if err != nil {
		return nil, fmt.Errorf("the lines are taken: %w: if it is the daemon, stop it with systemctl stop gatehouse, or see what it sees with gatehouse status", err)
	}
	return held, nil
}

// quiet is for commands that a person watches: what drivers log is not what
// they asked for.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newIOListCmd() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the GPIO chips and the serial ports of this machine",
		Long: `List the GPIO chips of this machine with their lines, and its serial ports, by
the names that a configuration uses. Looking takes no line and changes none. A
port is shown by the name that stays the same when others are plugged in, where
it has one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chips, err := gpio.Chips()
			if err != nil {
				return err
			}
			ports, err := serialPorts("/dev")
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), listJSON{chipsJSON(chips), ports})
			}
			if err := printChips(cmd.OutOrStdout(), chips, all); err != nil {
				return err
			}
			for _, port := range ports {
				fmt.Fprintf(cmd.OutOrStdout(), "serial port %s\n", spelling.Printable(port))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "with the lines that have no name, too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type listJSON struct {
	Chips  []chipJSON `json:"chips"`
	Serial []string   `json:"serial"`
}

type chipJSON struct {
	Label string     `json:"label"`
	Name  string     `json:"name"` // the kernel's, which changes
	Lines []lineJSON `json:"lines"`
}

type lineJSON struct {
	Offset   int    `json:"offset"`
	Name     string `json:"name,omitempty"`
	Output   bool   `json:"output"`
	Used     bool   `json:"used"`
	Consumer string `json:"consumer,omitempty"`
}

func chipsJSON(chips []gpio.Chip) []chipJSON {
	list := []chipJSON{}
	for _, c := range chips {
		j := chipJSON{Label: c.Label, Name: c.Name, Lines: []lineJSON{}}
		for i, l := range c.Lines {
			j.Lines = append(j.Lines, lineJSON{i, l.Name, l.Output, l.Used, l.Consumer})
		}
		list = append(list, j)
	}
	return list
}

func printChips(out io.Writer, chips []gpio.Chip, all bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range chips {
		fmt.Fprintf(w, "chip %s\t\t%d lines, %s at the moment\n", c.Label, len(c.Lines), c.Name)
		for _, l := range c.Lines {
			name, use := l.Name, "free"
			if name == "" {
				if !all {
					continue
				}
				name = "(no name)"
			}
			if l.Used {
				use = strings.TrimSpace("used " + byWhom(l.Consumer))
			}
			direction := "input"
			if l.Output {
				direction = "output"
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\n", name, direction, use)
		}
	}
	return w.Flush()
}

// serialPorts are the serial ports below a folder of devices: those of the
// board, and what is plugged in. Each is named once, by what it is rather than
// by when it was found.
func serialPorts(dev string) ([]string, error) {
	ports, seen := []string{}, map[string]bool{}
	for _, pattern := range []string{"serial/by-id/*", "serial[0-9]*", "ttyAMA*", "ttyS[0-9]*", "ttyUSB*", "ttyACM*"} {
		found, err := filepath.Glob(filepath.Join(dev, pattern))
		if err != nil {
			return nil, err
		}
		for _, port := range found {
			target, err := filepath.EvalSymlinks(port)
			if err != nil || seen[target] {
				continue // it was unplugged, or has a better name
			}
			seen[target] = true
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func byWhom(consumer string) string {
	if consumer == "" {
		return ""
	}
	return "by " + consumer
}

func newIOSafeCmd() *cobra.Command {
	var file string
	var demo bool
	cmd := &cobra.Command{
		Use:   "safe",
		Short: "Put every output of the configuration into its safe state",
		Long: `Put every output of the configuration into its safe state: strikes locked,
lights and beepers off. The service does so after the daemon has ended,
however it ended.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadController(file, config.Options{Demo: demo})
			if err != nil {
				return cli.ReportFaults(cmd.ErrOrStderr(), err)
			}
			held, err := holdLines(cfg.Data)
			if err != nil {
				return err
			}
			defer held.Close()
			return makeSafe(cmd.OutOrStdout(), cfg)
		},
	}
	configFlag(cmd, &file)
	demoFlag(cmd, &demo)
	return cmd
}

// makeSafe makes each output safe, whatever becomes of the others.
func makeSafe(out io.Writer, cfg *config.Controller) error {
	b := newBuses(cfg, quiet())
	var errs []error
	for _, p := range ioParts(cfg) {
		if !p.output() {
			continue
		}
		state := "dark"
		var err error
		if p.name == "strike" { // given out locked, and told so once more
			state = "locked"
			strike, e := b.strike(p.device)
			if err = e; err == nil {
				err = strike.Lock()
			}
		} else {
			_, err = b.indicator(p.device)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("door %q: %s: %w", p.door, p.name, err))
			continue
		}
		fmt.Fprintf(out, "%s, %s: %s\n", p.door, p.name, state)
	}
	return errors.Join(append(errs, b.Close())...)
}
