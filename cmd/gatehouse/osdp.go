package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/keyring"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/panel"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/gatehouse-acs/gatehouse/internal/spelling"
	"github.com/gatehouse-acs/gatehouse/visitorlog"
	"github.com/spf13/cobra"
)

func newOSDPCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "osdp",
		Short: "Find OSDP readers, watch their line, give them keys",
		Long: `Find OSDP readers, watch what goes over their line, and give them keys, addresses
and rates. These commands speak on the line themselves, so that the daemon must
not run meanwhile: systemctl stop gatehouse. What changes a reader is recorded in
the visitor log.

docs/readers.md says how a new reader is set up.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newOSDPScanCmd(), newOSDPWatchCmd(), newOSDPKeysetCmd(), newOSDPComsetCmd(), newOSDPForgetCmd())
	return cmd
}

// osdpLine is one line of readers.
type osdpLine struct {
	name    string // empty: of no configuration
	port    string
	baud    int
	mark    bool
	readers []osdpReader
}

// osdpReader is one reader of a line: a peripheral, whatever parts of doors
// hang on it.
type osdpReader struct {
	address   byte
	clearText bool
	checksum  bool
}

// osdpLines are the lines of a configuration, with the readers that doors have
// on them.
func osdpLines(cfg *config.Controller) []osdpLine {
	settings, ok := cfg.Drivers["osdp"].(*panel.Settings)
	if !ok { // no door has an OSDP reader
		return nil
	}
	var lines []osdpLine
	for _, l := range settings.Lines {
		line := osdpLine{name: l.Name, port: l.Port, baud: cmp.Or(l.Baud, osdp.DefaultBaud), mark: l.Mark}
		for _, p := range ioParts(cfg) {
			d, ok := p.device.Own.(*panel.Device)
			if !ok || d.Line != l.Name {
				continue
			}
			r := osdpReader{byte(d.Address), d.ClearText, d.Checksum}
			if !slices.Contains(line.readers, r) { // many parts are of one peripheral
				line.readers = append(line.readers, r)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// reader finds the reader with an address; one that the configuration does not
// know speaks over the Secure Channel.
func (l osdpLine) reader(address byte) osdpReader {
	for _, r := range l.readers {
		if r.address == address {
			return r
		}
	}
	return osdpReader{address: address}
}

// osdpTarget are the flags that say which line is meant.
type osdpTarget struct {
	file, line, port string
	baud             int
	demo             bool
}

func (t *osdpTarget) flags(cmd *cobra.Command) {
	configFlag(cmd, &t.file)
	demoFlag(cmd, &t.demo)
	cmd.Flags().StringVar(&t.line, "line", "", "`name` of the line in the configuration; may be left out where there is one")
	cmd.Flags().StringVar(&t.port, "port", "", "serial `port`, such as /dev/ttyUSB0, in place of the line's")
	cmd.Flags().IntVar(&t.baud, "baud", 0, "`rate` in place of the line's")
}

// bare says that a port is meant that belongs to no configuration.
func (t *osdpTarget) bare() bool { return t.port != "" && t.line == "" }

// find finds the line in the configuration, which is read for it.
func (t *osdpTarget) find(cmd *cobra.Command) (*config.Controller, osdpLine, error) {
	if err := t.check(); err != nil {
		return nil, osdpLine{}, err
	}
	cfg, err := config.LoadController(t.file, config.Options{Demo: t.demo})
	if err != nil {
		return nil, osdpLine{}, cli.ReportFaults(cmd.ErrOrStderr(), err)
	}
	line, err := t.choose(osdpLines(cfg))
	return cfg, line, err
}

// alone is the line of a port that belongs to no configuration.
func (t *osdpTarget) alone() (osdpLine, error) {
	line, err := t.choose([]osdpLine{{baud: osdp.DefaultBaud}})
	return line, errors.Join(t.check(), err)
}

func (t *osdpTarget) check() error {
	if t.baud != 0 && !slices.Contains(osdp.Bauds, t.baud) {
		return fmt.Errorf("--baud: %d is not one of %v", t.baud, osdp.Bauds)
	}
	return nil
}

func (t *osdpTarget) choose(lines []osdpLine) (osdpLine, error) {
	var names []string
	for _, l := range lines {
		names = append(names, fmt.Sprintf("%q", l.name))
	}
	found := slices.IndexFunc(lines, func(l osdpLine) bool { return l.name == t.line || t.line == "" && len(lines) == 1 })
	switch {
	case len(lines) == 0:
		return osdpLine{}, fmt.Errorf("no device of %s is on an OSDP line: add a [[drivers.osdp.line]] and the reader that is on it, as docs/readers.md shows", t.file)
	case found < 0 && t.line == "":
		return osdpLine{}, fmt.Errorf("which line? Give --line, one of %s", strings.Join(names, ", "))
	case found < 0:
		return osdpLine{}, fmt.Errorf("--line: there is no line %q: the configuration has %s", t.line, strings.Join(names, ", "))
	}
	line := lines[found]
	if t.port != "" {
		line.port = t.port
	}
	if t.baud != 0 {
		line.baud = t.baud
	}
	return line, nil
}

// addressFlag is of the reader that a command is about.
func addressFlag(cmd *cobra.Command, address *int) {
	cmd.Flags().IntVar(address, "address", -1, "`address` of the reader, 0 to 126; may be left out where the line has one")
}

// one is the reader that is meant: by its address, or the line's only one.
func (l osdpLine) one(address int) (osdpReader, error) {
	switch {
	case address >= 0:
		err := checkAddress("--address", address)
		return l.reader(byte(address)), err
	case len(l.readers) == 1:
		return l.readers[0], nil
	}
	return osdpReader{}, fmt.Errorf("which reader? Give --address: the configuration has %d readers on this line", len(l.readers))
}

func checkAddress(flag string, address int) error {
	if address < 0 || address > osdp.MaxAddress {
		return fmt.Errorf("%s: %d is not an address: they are 0 to %d", flag, address, osdp.MaxAddress)
	}
	return nil
}

// openRing opens the keys of the readers. The daemon must not run.
func openRing(cfg *config.Controller, s keyring.Sealer) (*keyring.Ring, error) {
	return keyring.Open(filepath.Join(cfg.Data, keyring.FileName), s)
}

// peripherals are readers of a line as a bus has to know them.
func (l osdpLine) peripherals(ring *keyring.Ring, readers ...osdpReader) []osdp.PeripheralConfig {
	var list []osdp.PeripheralConfig
	for _, r := range readers {
		c := osdp.PeripheralConfig{Address: r.address, ClearText: r.clearText, Checksum: r.checksum}
		if !r.clearText {
			c.Keys = ring.For(l.name, r.address)
		}
		list = append(list, c)
	}
	return list
}

func openPort(name string, baud int) (osdp.Line, error) {
	port, err := panel.Serial(name, baud)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: the user has to be in the port's group, mostly dialout", err)
	case errors.Is(err, serial.ErrHeld):
		err = fmt.Errorf("%w: systemctl stop gatehouse", err)
	case err != nil:
		err = fmt.Errorf("%w: ls -l /dev/serial/by-id shows the converters that there are", err)
	}
	return port, err
}

// osdpBus is a bus that runs.
type osdpBus struct {
	*osdp.Bus
	line osdpLine
	stop func()
}

// startBus speaks to readers of a line, until stop is called. The events are
// told to handle, which may be nil.
func startBus(ctx context.Context, line osdpLine, peripherals []osdp.PeripheralConfig, handle func(osdp.Event)) (*osdpBus, error) {
	if len(peripherals) == 0 {
		return nil, fmt.Errorf("no device of the configuration is on line %q: give --address", line.name)
	}
	// A port that is not there is an error now: the bus would wait for it.
	port, err := openPort(line.port, line.baud)
	if err != nil {
		return nil, err
	}
	if err := port.Close(); err != nil {
		return nil, err
	}
	bus, err := osdp.New(osdp.Config{
		Open:        func(baud int) (osdp.Line, error) { return panel.Serial(line.port, baud) },
		Baud:        line.baud,
		Mark:        line.mark,
		Peripherals: peripherals,
		Handle:      handle,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		bus.Run(ctx) // ends with ctx, and with its error
	}()
	return &osdpBus{bus, line, func() {
		cancel()
		<-ended
	}}, nil
}

// until waits for a state of a peripheral that is the wanted one.
func (b *osdpBus) until(ctx context.Context, p *osdp.Peripheral, wanted func(osdp.Status) (bool, error)) (osdp.Status, error) {
	for {
		changed := p.Changed()
		s := p.Status()
		if ok, err := wanted(s); ok || err != nil {
			return s, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return s, ctx.Err()
			}
			why := s.Err
			if why == nil {
				why = osdp.ErrOffline
			}
			return s, fmt.Errorf("address %d on %s at %d baud: %w", s.Address, b.line.port, b.line.baud, advised(why))
		}
	}
}

// working waits until a peripheral works, anew after a time. One that answers
// and cannot work is an error at once.
func (b *osdpBus) working(ctx context.Context, p *osdp.Peripheral, after time.Time) (osdp.Status, error) {
	return b.until(ctx, p, func(s osdp.Status) (bool, error) {
		if s.Since.Before(after) {
			return false, nil
		}
		if s.State == osdp.Unsecured {
			return false, fmt.Errorf("address %d: %w", s.Address, advised(s.Err))
		}
		return s.State == osdp.Secure || s.State == osdp.ClearText, nil
	})
}

// advised adds what to do about a fault of a reader.
func advised(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the reader did not do it in time: see whether it has power, or give it more with --within")
	}
	for _, a := range []struct {
		of     error
		advice string
	}{
		{osdp.ErrNoKey, "gatehouse osdp keyset --install"},
		{osdp.NAKNoSecurity, "it can only be used with clear_text = true, where everybody at the wires can read and forge what it says"},
		{osdp.ErrKey, otherKey},
		{osdp.NAKSecurity, otherKey},
		{osdp.ErrOffline, "look at its power, A and B, address and rate; gatehouse osdp scan finds it"},
	} {
		if errors.Is(err, a.of) {
			return fmt.Errorf("%w: %s", err, a.advice)
		}
	}
	return err
}

const otherKey = "it has another key than this controller, or none of its own: reset it as its maker says, and then gatehouse osdp keyset --install"

// provisioner changes readers of a line, and records it.
type provisioner struct {
	c    *controller
	ring *keyring.Ring
	line osdpLine
	by   string
	out  io.Writer
}

// openProvisioner opens the visitor log and the readers' keys. The daemon must
// not run.
func openProvisioner(ctx context.Context, cfg *config.Controller, line osdpLine, by string, out io.Writer) (*provisioner, error) {
	c, err := openForRecords(ctx, cfg)
	if err != nil {
		return nil, err
	}
	ring, err := openRing(cfg, c.keys.Readers)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &provisioner{c, ring, line, by, out}, nil
}

func (p *provisioner) Close() error { return errors.Join(p.ring.Close(), p.c.Close()) }

// recorded does something to a reader. That it is begun is recorded first, for
// what cannot be recorded is not done; then, how it went.
func (p *provisioner) recorded(ctx context.Context, address byte, what string, do func() error) error {
	what = fmt.Sprintf("%s, by %s", what, p.by)
	if err := p.record(ctx, address, what+": begun"); err != nil {
		return fmt.Errorf("nothing was sent to the reader, because it cannot be recorded: %w", err)
	}
	err := do()
	outcome := "done"
	if err != nil {
		outcome = "FAILED: " + spelling.Printable(err.Error())
	}
	if e := p.record(context.WithoutCancel(ctx), address, what+": "+outcome); e != nil {
		return errors.Join(err, fmt.Errorf("how it went could not be recorded: %w", e))
	}
	return err
}

// maxProvisioned is how many characters of what was done stand in the record.
const maxProvisioned = 1000

func (p *provisioner) record(ctx context.Context, address byte, detail string) error {
	_, err := p.c.records.Append(ctx, func(*visitorlog.Tx) (visitorlog.Draft, error) {
		return visitorlog.Draft{Type: visitorlog.ReaderProvisioned, Data: visitorlog.Data{
			Reader: fmt.Sprintf("osdp:%s#%d", cut(p.line.name, 48), address),
			Detail: cut(detail, maxProvisioned),
		}}, nil
	})
	return err
}

func (p *provisioner) say(format string, args ...any) { fmt.Fprintf(p.out, format, args...) }
