package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"github.com/gatehouse-acs/gatehouse/internal/cli"
	"github.com/gatehouse-acs/gatehouse/internal/config"
	"github.com/spf13/cobra"
)

func newOSDPScanCmd() *cobra.Command {
	var t osdpTarget
	var address int
	var alone, checksum, asJSON bool
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "Find the readers on a line, their rates, and what they can do",
		Long: `Ask every address at every rate who is there, in clear text, which a reader with
a key answers too: it begins a new Secure Channel afterwards. All of it takes some
three minutes; --baud and --address make it shorter, and so does --alone, which
asks the one reader of a bench by the address that every reader hears.

Nobody else may speak on the line meanwhile. With --port and without --line no
configuration is read.

The exit status is 1 when nobody answers.`,
		Example: `  sudo -u gatehouse gatehouse osdp scan --line rs485-1
  gatehouse osdp scan --port /dev/ttyUSB0 --alone`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := osdp.Discovery{Checksum: checksum}
			switch {
			case alone && address >= 0:
				return errors.New("give either --alone or --address")
			case alone:
				d.Addresses = []byte{osdp.Broadcast}
			case address >= 0:
				if err := checkAddress("--address", address); err != nil {
					return err
				}
				d.Addresses = []byte{byte(address)}
			}
			if t.baud != 0 {
				d.Bauds = []int{t.baud}
			}
			line, release, err := t.take(cmd)
			if err != nil {
				return err
			}
			defer release()
			return scanOSDP(cmd, line, d, asJSON)
		},
	}
	t.flags(cmd)
	cmd.Flags().IntVar(&address, "address", -1, "ask this `address` only, 0 to 126")
	cmd.Flags().BoolVar(&alone, "alone", false, "one reader is on the line, and nothing else")
	cmd.Flags().BoolVar(&checksum, "checksum", false, "ask with a checksum: for readers that do not know the CRC")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each reader as a line of JSON")
	return cmd
}

// take finds the line and keeps the daemon off it until release.
func (t *osdpTarget) take(cmd *cobra.Command) (line osdpLine, release func() error, err error) {
	release = func() error { return nil }
	if t.bare() {
		line, err = t.alone()
		return line, release, err
	}
	var cfg *config.Controller
	if cfg, line, err = t.find(cmd); err != nil {
		return line, release, err
	}
	held, err := holdLines(cfg.Data)
	if err != nil {
		return line, release, err
	}
	return line, held.Close, nil
}

// foundReader is what a reader tells of itself.
type foundReader struct {
	Address       byte              `json:"address"`
	Baud          int               `json:"baud"`
	Maker         string            `json:"maker"` // its OUI, by IEEE
	Model         byte              `json:"model"`
	Version       byte              `json:"version"`
	Serial        string            `json:"serial"` // as on most labels: hexadecimal
	Firmware      string            `json:"firmware"`
	CRC           bool              `json:"crc"`
	SecureChannel bool              `json:"secure_channel"`
	Biometrics    string            `json:"biometrics,omitempty"`
	Capabilities  []foundCapability `json:"capabilities"` // empty: it refused to tell
}

type foundCapability struct {
	Function byte   `json:"function"`
	Level    byte   `json:"level"`
	Count    byte   `json:"count"`
	Words    string `json:"words"`
}

func newFoundReader(f osdp.Found) foundReader {
	r := foundReader{
		Address: f.Address, Baud: f.Baud,
		Maker: fmt.Sprintf("%02X-%02X-%02X", f.ID.OUI[0], f.ID.OUI[1], f.ID.OUI[2]),
		Model: f.ID.Model, Version: f.ID.Version, Serial: fmt.Sprintf("%08X", f.ID.Serial),
		Firmware:      fmt.Sprintf("%d.%d.%d", f.ID.Firmware[0], f.ID.Firmware[1], f.ID.Firmware[2]),
		CRC:           f.Capabilities.Get(osdp.FunctionCheck).Level&1 != 0,
		SecureChannel: f.Capabilities.Get(osdp.FunctionSecurity).Level&1 != 0,
		Capabilities:  []foundCapability{},
	}
	if b := f.Capabilities.Get(osdp.FunctionBiometrics); b.Level != 0 {
		r.Biometrics = biometricsWords(b.Level)
	}
	for _, c := range f.Capabilities {
		r.Capabilities = append(r.Capabilities, foundCapability{byte(c.Function), c.Level, c.Count, capabilityWords(c)})
	}
	return r
}

func biometricsWords(level byte) string {
	switch level {
	case 0:
		return "none"
	case 1, 2:
		return fmt.Sprintf("fingerprint (template %d)", level)
	case 3:
		return "iris (template 1)"
	}
	return fmt.Sprintf("of an unknown kind (%d)", level)
}

// capabilityWords says what a line of PDCAP means.
func capabilityWords(c osdp.Capability) string {
	yes := func(have string) string {
		if c.Level == 0 {
			return "no " + have
		}
		return have
	}
	switch c.Function {
	case osdp.FunctionInputs, osdp.FunctionOutputs:
		return fmt.Sprintf("%v: %d", c.Function, c.Count)
	case osdp.FunctionReaders:
		return fmt.Sprintf("readers wired to it: %d", c.Count)
	case osdp.FunctionLED:
		return fmt.Sprintf("lights: %d a reader, of kind %d", c.Count, c.Level)
	case osdp.FunctionCheck:
		if c.Level&1 == 0 {
			return "checksum only, no CRC"
		}
		return "CRC"
	case osdp.FunctionSecurity:
		if c.Level&1 == 0 {
			return "NO SECURE CHANNEL"
		}
		return "Secure Channel, AES-128"
	case osdp.FunctionReceiveSize:
		return fmt.Sprintf("takes frames of %d bytes", int(c.Level)|int(c.Count)<<8)
	case osdp.FunctionMessageSize:
		return fmt.Sprintf("takes messages of %d bytes in parts", int(c.Level)|int(c.Count)<<8)
	case osdp.FunctionBiometrics:
		return "biometrics: " + biometricsWords(c.Level)
	case osdp.FunctionVersion:
		return map[byte]string{1: "OSDP of IEC 60839-11-5", 2: "OSDP 2.2 of SIA"}[c.Level]
	case osdp.FunctionBuzzer, osdp.FunctionText, osdp.FunctionTime, osdp.FunctionSmartCard, osdp.FunctionSecurePIN:
		return yes(c.Function.String())
	}
	return fmt.Sprintf("%v: level %d", c.Function, c.Level)
}

func (r foundReader) print(w io.Writer) error {
	var words []string
	for _, c := range r.Capabilities {
		if c.Words != "" {
			words = append(words, c.Words)
		}
	}
	if len(words) == 0 {
		words = []string{"it does not tell what it can do"}
	}
	_, err := fmt.Fprintf(w, "address %d at %d baud\n  maker %s, model %d version %d, serial %s, firmware %s\n  %s\n",
		r.Address, r.Baud, r.Maker, r.Model, r.Version, r.Serial, r.Firmware, strings.ReplaceAll(cli.Wrap(strings.Join(words, "; ")), "\n", "\n  "))
	return err
}

// scanOSDP prints each reader as it is found.
func scanOSDP(cmd *cobra.Command, line osdpLine, d osdp.Discovery, asJSON bool) (err error) {
	if len(d.Bauds) == 0 {
		d.Bauds = osdp.Bauds
	}
	d.Mark = line.mark
	port, err := openPort(line.port, d.Bauds[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	addresses := len(d.Addresses)
	if addresses == 0 {
		addresses = osdp.MaxAddress + 1
	}
	progress := cli.NewProgress(cmd.ErrOrStderr(), "addresses asked", int64(addresses*len(d.Bauds)))
	defer progress.Done()
	count := 0
	for f, err := range osdp.Discover(cmd.Context(), &askingLine{Line: port, progress: progress}, d) {
		if errors.Is(err, context.Canceled) {
			return errors.New("ended before every address was asked")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", line.port, err)
		}
		count++
		progress.Done()
		r := newFoundReader(f)
		if asJSON {
			err = cli.PrintJSON(cmd.OutOrStdout(), r)
		} else {
			err = r.print(cmd.OutOrStdout())
		}
		if err != nil {
			return err
		}
	}
	if count == 0 {
		progress.Done()
		fmt.Fprintf(cmd.ErrOrStderr(), "nobody answers on %s: look at the reader's power, whether A and B are swapped, and the common 0 V.\nTwo readers with one address disturb each other; old ones want --checksum.\n", line.port)
		return cli.ErrReported
	}
	return nil
}

// askingLine counts the addresses that are asked.
type askingLine struct {
	osdp.Line
	progress *cli.Progress
	asked    int // the last address; 0: none, for it counts from 1
}

func (l *askingLine) Write(b []byte) (int, error) {
	// Ahead of it may be a mark byte.
	if f, err := osdp.ParseFrame(bytes.TrimLeft(b, "\xff")); err == nil && int(f.Address)+1 != l.asked {
		l.asked = int(f.Address) + 1
		l.progress.Add(1)
	}
	return l.Line.Write(b)
}

func (l *askingLine) SetBaud(baud int) error {
	l.asked = 0
	return l.Line.SetBaud(baud)
}
